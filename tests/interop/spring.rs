//! Spring server, client and Spring Boot Admin of `server/`, `client/` and `admin/`. They are built
//! after changes of their sources.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Once;
use std::time::{Duration, SystemTime};

use tokio::process::Command;

use super::process::{Process, free_port};
use super::{http, until};

/// Time limit of a start. A JVM needs 8 seconds, and more on a busy machine.
pub(crate) const START: Duration = Duration::from_secs(90);

/// Arguments of a server without the read-only cache.
const WITHOUT_CACHE: [&str; 2] =
    ["--eureka.server.use-read-only-response-cache=false", "--eureka.server.response-cache-update-interval-ms=500"];

/// Spring Cloud Eureka server without the read-only cache, whose lists are up to 30 seconds old.
pub(crate) struct Server {
    pub(crate) process: Process,
    pub(crate) port: u16,
    /// Service URL, with a slash at its end.
    pub(crate) url: String,
}

impl Server {
    pub(crate) async fn start(name: &str, port: u16) -> Self {
        Self::start_with(name, port, &[]).await
    }

    /// Starts the server with further properties as arguments.
    pub(crate) async fn start_with(name: &str, port: u16, arguments: &[String]) -> Self {
        Self::start_at(name, "127.0.0.1", port, arguments).await
    }

    /// Starts the server with the default settings, its read-only cache included.
    pub(crate) async fn start_with_defaults(name: &str, port: u16) -> Self {
        Self::run(name, "127.0.0.1", port, &[]).await
    }

    /// Starts a server that is reached at this host.
    pub(crate) async fn start_at(name: &str, host: &str, port: u16, arguments: &[String]) -> Self {
        Self::run(name, host, port, &[arguments, &WITHOUT_CACHE.map(str::to_owned)].concat()).await
    }

    /// Starts a server that requires credentials for everything. `credentials` are those of a user,
    /// as `user:password`.
    pub(crate) async fn start_locked(
        name: &str,
        host: &str,
        port: u16,
        credentials: &str,
        arguments: &[String],
    ) -> Self {
        let (user, password) = credentials.split_once(':').expect("user and password");
        let user =
            [format!("--spring.security.user.name={user}"), format!("--spring.security.user.password={password}")];
        let command = java("locked-server");
        let arguments = [arguments, &user, &WITHOUT_CACHE.map(str::to_owned)].concat();
        Self::run_as(name, command, host, port, &format!("{credentials}@"), &arguments).await
    }

    async fn run(name: &str, host: &str, port: u16, arguments: &[String]) -> Self {
        Self::run_as(name, java("server"), host, port, "", arguments).await
    }

    async fn run_as(
        name: &str,
        mut command: Command,
        host: &str,
        port: u16,
        credentials: &str,
        arguments: &[String],
    ) -> Self {
        command.args(arguments);
        command.arg(format!("--server.port={port}")).arg("--eureka.server.wait-time-in-ms-when-sync-empty=0");
        let mut process = Process::start(name, command);
        until("the Spring server responds", START, async || {
            process.assert_runs();
            http::text(&format!("http://{credentials}{host}:{port}/eureka/apps")).await
        })
        .await;
        Self { process, port, url: format!("http://{host}:{port}/eureka/") }
    }
}

/// Spring application `java-client` with a Eureka client and Spring Cloud LoadBalancer.
pub(crate) struct Client {
    pub(crate) process: Process,
    base: String,
}

impl Client {
    pub(crate) async fn start(name: &str, registry: &str) -> Self {
        Self::start_at(name, registry, free_port()).await
    }

    pub(crate) async fn start_at(name: &str, registry: &str, port: u16) -> Self {
        Self::start_with(name, registry, port, &[]).await
    }

    /// Starts the application with further properties as arguments.
    pub(crate) async fn start_with(name: &str, registry: &str, port: u16, arguments: &[&str]) -> Self {
        let fast = [
            "--eureka.instance.lease-renewal-interval-in-seconds=1",
            "--eureka.client.registry-fetch-interval-seconds=1",
            "--spring.cloud.loadbalancer.cache.enabled=false",
            "--logging.level.com.netflix.discovery=DEBUG",
        ];
        Self::run(name, registry, port, &[&fast, arguments].concat()).await
    }

    /// Starts the application with the default settings of a caller.
    pub(crate) async fn start_with_defaults(name: &str, registry: &str, port: u16) -> Self {
        Self::run(name, registry, port, &[]).await
    }

    async fn run(name: &str, registry: &str, port: u16, arguments: &[&str]) -> Self {
        let mut process = Self::launch(name, registry, port, arguments);
        let base = format!("http://127.0.0.1:{port}");
        until("the Spring client responds", START, async || {
            process.assert_runs();
            http::text(&format!("{base}/whoami")).await
        })
        .await;
        Self { process, base }
    }

    /// Starts the application with further properties as arguments, and does not wait for it.
    pub(crate) fn launch(name: &str, registry: &str, port: u16, arguments: &[&str]) -> Process {
        let mut command = java("client");
        let defaults = [
            "--spring.application.name=java-client",
            "--eureka.instance.prefer-ip-address=true",
            "--eureka.instance.ip-address=127.0.0.1",
        ];
        // Spring joins the values of an argument that is given twice.
        let key = |argument: &str| argument.split('=').next().unwrap_or_default().to_owned();
        let is_given = |default: &&str| arguments.iter().any(|argument| key(argument) == key(default));
        command
            .arg(format!("--server.port={port}"))
            .arg(format!("--eureka.client.service-url.defaultZone={registry}"))
            .args(defaults.iter().filter(|default| !is_given(default)))
            .args(arguments);
        Process::start(name, command)
    }

    /// Returns the instance id of the application.
    pub(crate) async fn id(&self) -> String {
        http::text(&format!("{}/whoami", self.base)).await.expect("client is running")
    }

    /// Returns the instances of `app` in the client's copy as `id STATUS`, sorted.
    pub(crate) async fn view(&self, app: &str) -> Vec<String> {
        let body = http::text(&format!("{}/view/{app}", self.base)).await.expect("client is running");
        serde_json::from_str(&body).expect("a list of lines")
    }

    /// Returns the metadata of the instances of `app` in the client's copy, by their ids.
    pub(crate) async fn metadata(&self, app: &str) -> BTreeMap<String, BTreeMap<String, String>> {
        let body = http::text(&format!("{}/metadata/{app}", self.base)).await.expect("client is running");
        serde_json::from_str(&body).expect("metadata by id")
    }

    /// Calls `/whoami` on an instance that the client's load balancer picks. Returns `None` if the
    /// call fails.
    pub(crate) async fn call(&self, app: &str) -> Option<String> {
        http::text(&format!("{}/call/{app}/whoami", self.base)).await
    }

    /// Returns the numbers of full fetches and of deltas.
    pub(crate) fn fetches(&self) -> (usize, usize) {
        let log = self.process.output();
        (log.matches("Getting all instance registry info").count(), log.matches("Got delta update").count())
    }
}

/// Spring Boot Admin, which finds its instances in the registry.
pub(crate) struct Admin {
    _process: Process,
    base: String,
}

impl Admin {
    pub(crate) async fn start(name: &str, registry: &str) -> Self {
        let port = free_port();
        let mut command = java("admin");
        command
            .arg(format!("--server.port={port}"))
            .arg(format!("--eureka.client.service-url.defaultZone={registry}"))
            .arg("--eureka.client.registry-fetch-interval-seconds=1");
        let mut process = Process::start(name, command);
        let base = format!("http://127.0.0.1:{port}");
        until("Spring Boot Admin responds", START, async || {
            process.assert_runs();
            http::text(&format!("{base}/instances")).await
        })
        .await;
        Self { _process: process, base }
    }

    /// Returns the instances that it shows. Returns `None` without a response.
    pub(crate) async fn instances(&self) -> Option<Vec<serde_json::Value>> {
        let body = http::text(&format!("{}/instances", self.base)).await?;
        Some(serde_json::from_str(&body).expect("a list of instances"))
    }
}

/// Folders of the Java programs.
const PROGRAMS: [&str; 4] = ["server", "locked-server", "client", "admin"];
/// Programs that many tests start. Their classes are archived, so that a start takes a third of the
/// CPU time.
const ARCHIVED: [&str; 2] = ["server", "client"];
/// Options of a JVM that starts fast.
const FAST: [&str; 2] = ["-Xmx300m", "-XX:TieredStopAtLevel=1"];

/// Returns the command of a Java program, which is built first if its sources changed.
pub(crate) fn java(project: &str) -> Command {
    let jar = java_archive(project);
    let mut command = Command::new("java");
    command.args(FAST).args(shared_classes(project)).arg("-jar").arg(jar);
    command
}

/// Returns the option of a JVM that loads the archived classes of a program.
pub(crate) fn shared_classes(project: &str) -> Option<String> {
    let archive = unpacked(project).join("classes.jsa");
    // A JVM that cannot use the archive starts without it.
    archive.exists().then(|| format!("-XX:SharedArchiveFile={}", archive.display()))
}

/// Returns the archive of a Java program, which is built first if its sources changed.
pub(crate) fn java_archive(project: &str) -> PathBuf {
    static BUILT: Once = Once::new();
    BUILT.call_once(build);
    unpacked(project).join(jar(project))
}

fn jar(project: &str) -> String {
    format!("eureka-{project}-1.jar")
}

fn suite() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/interop")
}

/// Returns the folder of a program that is unpacked: a JVM loads classes faster from many archives
/// than from an archive of archives.
fn unpacked(project: &str) -> PathBuf {
    suite().join(project).join("target/unpacked")
}

/// Builds the programs whose sources changed.
fn build() {
    let is_outdated = |project: &&str| {
        let built = modified(&unpacked(project).join("built"));
        built.is_none() || sources(&suite().join(project)).iter().any(|source| modified(source) > built)
    };
    let outdated: Vec<_> = PROGRAMS.into_iter().filter(is_outdated).collect();
    if outdated.is_empty() {
        return;
    }
    let names = outdated.join(",");
    eprintln!("building {names}");
    let mut maven = std::process::Command::new("mvn");
    maven.args(["-B", "-q", "-T", "1C", "-Dstyle.color=never", "-pl", &names, "clean", "package"]);
    run(maven.env("MAVEN_OPTS", "-XX:TieredStopAtLevel=1").current_dir(suite()));
    let prepared = outdated.into_iter().map(|project| std::thread::spawn(move || unpack(project)));
    for prepared in prepared.collect::<Vec<_>>() {
        prepared.join().expect("the program starts");
    }
}

/// Unpacks a program, and archives the classes that it loads at its start.
fn unpack(project: &'static str) {
    let (folder, jar) = (unpacked(project), jar(project));
    let java = || {
        let mut java = std::process::Command::new("java");
        java.args(FAST).current_dir(suite().join(project).join("target"));
        java
    };
    run(java().args(["-Djarmode=tools", "-jar", &jar, "extract", "--force", "--destination"]).arg(&folder));
    if ARCHIVED.contains(&project) {
        run(java()
            .arg(format!("-XX:ArchiveClassesAtExit={}", folder.join("classes.jsa").display()))
            .args(["-Dspring.context.exit=onRefresh", "-jar"])
            .arg(folder.join(jar))
            .arg("--server.port=0"));
    }
    std::fs::write(folder.join("built"), "").expect("target directory is writable");
}

fn run(command: &mut std::process::Command) {
    let output = command.stdin(Stdio::null()).output();
    let failure = match &output {
        Ok(output) if output.status.success() => return,
        Ok(output) => [&*output.stdout, &*output.stderr].map(String::from_utf8_lossy).concat(),
        Err(error) => error.to_string(),
    };
    panic!("{command:?}: {failure}");
}

fn modified(path: &Path) -> Option<SystemTime> {
    path.metadata().and_then(|metadata| metadata.modified()).ok()
}

/// Returns the sources: `pom.xml` and the files below `src`.
fn sources(project: &Path) -> Vec<PathBuf> {
    let mut files = vec![project.join("pom.xml")];
    let mut folders = vec![project.join("src")];
    while let Some(folder) = folders.pop() {
        for entry in folder.read_dir().expect("folder is readable") {
            let path = entry.expect("folder is readable").path();
            if path.is_dir() { folders.push(path) } else { files.push(path) }
        }
    }
    files
}
