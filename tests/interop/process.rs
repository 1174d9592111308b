//! Child process with its output in files. It is killed when dropped, and its last lines are shown
//! if the test fails.

use std::fs::File;
use std::iter::Cycle;
use std::net::TcpListener;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::{LazyLock, Mutex};
use std::time::Duration;

use tokio::process::{Child, Command};

use super::until;

/// Number of log lines that a failure shows.
const TAIL: usize = 40;

pub(crate) struct Process {
    name: String,
    child: Child,
    out: PathBuf,
    err: PathBuf,
}

impl Process {
    /// Starts a command. `name` names its logs and is unique in the suite.
    pub(crate) fn start(name: &str, mut command: Command) -> Self {
        let logs = Path::new(env!("CARGO_TARGET_TMPDIR")).join("interop");
        std::fs::create_dir_all(&logs).expect("target directory is writable");
        let [out, err] = ["out", "err"].map(|stream| logs.join(format!("{name}.{stream}.log")));
        let open = |path: &Path| File::create(path).expect("target directory is writable");
        let child = command
            .stdin(Stdio::null())
            .stdout(open(&out))
            .stderr(open(&err))
            .kill_on_drop(true)
            .spawn()
            .unwrap_or_else(|error| panic!("{name} does not start: {error}"));
        Self { name: name.into(), child, out, err }
    }

    /// Returns the standard output so far.
    pub(crate) fn output(&self) -> String {
        read(&self.out)
    }

    /// Returns the standard error output so far.
    pub(crate) fn errors(&self) -> String {
        read(&self.err)
    }

    /// Waits for a line with these words, and returns the rest of the line.
    pub(crate) async fn line(&mut self, words: &str, within: Duration) -> String {
        let what = format!("{} says '{words}'", self.name);
        until(&what, within, async || {
            let output = self.output();
            // A line without a line break may be incomplete.
            let complete = &output[..output.rfind('\n').unwrap_or_default()];
            let found = complete.lines().find_map(|line| line.split_once(words)).map(|(_, rest)| rest.to_owned());
            if found.is_none() {
                self.assert_runs();
            }
            found
        })
        .await
    }

    /// Panics if the process has exited.
    pub(crate) fn assert_runs(&mut self) {
        if let Some(status) = self.child.try_wait().expect("child can be waited for") {
            panic!("{} exited early: {status}", self.name);
        }
    }

    /// Sends SIGTERM, like an orchestrator.
    pub(crate) async fn terminate(&self) {
        let pid = self.child.id().expect("process is running").to_string();
        let status = Command::new("kill").args(["-TERM", &pid]).status().await.expect("kill(1) is installed");
        assert!(status.success(), "SIGTERM to {}: {status}", self.name);
    }

    /// Kills the process with SIGKILL.
    pub(crate) async fn kill(mut self) {
        self.child.kill().await.expect("process is running");
    }

    /// Waits until the process exits.
    pub(crate) async fn exit(&mut self, within: Duration) -> ExitStatus {
        let ended = tokio::time::timeout(within, self.child.wait()).await;
        ended
            .unwrap_or_else(|_| panic!("{} did not exit within {within:?}", self.name))
            .expect("child can be waited for")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for path in [&self.out, &self.err] {
                let log = read(path);
                let lines: Vec<_> = log.lines().collect();
                eprintln!("--- {} ends with", path.display());
                lines[lines.len().saturating_sub(TAIL)..].iter().for_each(|line| eprintln!("{line}"));
            }
        }
    }
}

fn read(path: &Path) -> String {
    std::fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
}

/// Returns a free port, for processes whose port is a parameter.
///
/// Each port is returned once. It is below those that systems give to connections and to listeners
/// without a port, so that no other test gets it.
pub(crate) fn free_port() -> u16 {
    const PORTS: RangeInclusive<u16> = 18_000..=32_000;
    static NEXT: LazyLock<Mutex<Cycle<RangeInclusive<u16>>>> = LazyLock::new(|| {
        let mut ports = PORTS.cycle();
        // Another run of the suite begins elsewhere.
        ports.nth(std::process::id() as usize * 101 % PORTS.len());
        Mutex::new(ports)
    });
    let mut next = NEXT.lock().expect("mutex is not poisoned");
    let is_free = |port: &u16| TcpListener::bind(("0.0.0.0", *port)).is_ok();
    next.by_ref().take(PORTS.len()).find(is_free).expect("loopback has a free port")
}
