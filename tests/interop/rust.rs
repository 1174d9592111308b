//! Executables of this crate: the registry, and the examples `provider` and `consumer`.

use std::path::Path;
use std::sync::OnceLock;
use std::time::Duration;

use tokio::process::Command;

use super::http;
use super::process::Process;

const REGISTRY: &str = env!("CARGO_BIN_EXE_tower-eureka");
const START: Duration = Duration::from_secs(20);

/// Process `tower-eureka serve`.
pub(crate) struct Registry {
    pub(crate) process: Process,
    /// Service URL, with a slash at its end.
    pub(crate) url: String,
}

impl Registry {
    pub(crate) async fn start(name: &str) -> Self {
        Self::start_with(name, "127.0.0.1:0", &[]).await
    }

    /// Starts the registry at this address, with further arguments.
    pub(crate) async fn start_with(name: &str, listen: &str, arguments: &[String]) -> Self {
        let mut command = Command::new(REGISTRY);
        command.args(["serve", "--listen", listen]).args(arguments);
        let mut process = Process::start(name, command);
        let url = process.line("listening on ", START).await;
        Self { process, url }
    }
}

/// Returns the command of another verb.
pub(crate) fn verb(arguments: &[&str]) -> Command {
    let mut command = Command::new(REGISTRY);
    command.args(arguments).kill_on_drop(true);
    command
}

/// Returns the folder of the binary.
pub(crate) fn folder() -> &'static Path {
    Path::new(REGISTRY).parent().expect("a file lies in a folder")
}

/// Process of the example `provider`.
pub(crate) struct Provider {
    pub(crate) process: Process,
    base: String,
}

impl Provider {
    pub(crate) async fn start(name: &str, app: &str, registry: &str) -> Self {
        let mut command = example("provider", registry);
        command
            .arg(app)
            .env("EUREKA_INSTANCE_LEASERENEWALINTERVALINSECONDS", "1")
            .env("EUREKA_INSTANCE_LEASEEXPIRATIONDURATIONINSECONDS", "5");
        let mut process = Process::start(name, command);
        let base = process.line("listening on ", START).await;
        Self { process, base: base.trim_end_matches('/').to_owned() }
    }

    /// Fetches the instance id from the provider. Returns `None` without a response.
    pub(crate) async fn id(&self) -> Option<String> {
        http::text(&format!("{}/whoami", self.base)).await
    }
}

/// Starts the example `consumer`. It makes `calls` calls of `/whoami`, prints a line for each, and
/// then the total.
pub(crate) fn consumer(name: &str, app: &str, registry: &str, calls: usize, pause: Duration) -> Process {
    let mut command = example("consumer", registry);
    command
        .args([app, "whoami", &calls.to_string(), &pause.as_millis().to_string()])
        .env("EUREKA_CLIENT_REGISTRYFETCHINTERVALSECONDS", "1");
    Process::start(name, command)
}

/// Builds the examples once, since Cargo does not build them for this suite, and returns the
/// command of one.
pub(crate) fn example(name: &str, registry: &str) -> Command {
    static BUILT: OnceLock<()> = OnceLock::new();
    let profile = Path::new(REGISTRY).parent().expect("a file lies in a folder");
    BUILT.get_or_init(|| {
        let mut cargo = std::process::Command::new(env!("CARGO"));
        cargo.args(["build", "--quiet", "--all-features", "--example", "provider", "--example", "consumer"]);
        cargo.current_dir(env!("CARGO_MANIFEST_DIR")).arg("--target-dir").arg(profile.with_file_name(""));
        if profile.ends_with("release") {
            cargo.arg("--release");
        }
        let status = cargo.status();
        assert!(status.as_ref().is_ok_and(|s| s.success()), "building the examples: {status:?}");
    });
    let mut command = Command::new(profile.join("examples").join(name));
    command.env("EUREKA_CLIENT_SERVICEURL_DEFAULTZONE", registry);
    command
}
