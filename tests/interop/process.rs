//! A child process with its output in files: killed when dropped, its last lines shown when the scenario fails.

use std::fs::File;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use tokio::process::{Child, Command};

use super::until;

/// Lines of a log that a failure shows.
const TAIL: usize = 40;

pub(crate) struct Process {
    name: String,
    child: Child,
    out: PathBuf,
    err: PathBuf,
}

impl Process {
    /// Starts a command; the name, unique in the suite, is that of its logs.
    pub(crate) fn start(name: &str, mut command: Command) -> Self {
        let logs = Path::new(env!("CARGO_TARGET_TMPDIR")).join("interop");
        std::fs::create_dir_all(&logs).expect("the target directory takes files");
        let [out, err] = ["out", "err"].map(|stream| logs.join(format!("{name}.{stream}.log")));
        let open = |path: &Path| File::create(path).expect("the target directory takes files");
        let child = command
            .stdin(Stdio::null())
            .stdout(open(&out))
            .stderr(open(&err))
            .kill_on_drop(true)
            .spawn()
            .unwrap_or_else(|error| panic!("{name} does not start: {error}"));
        Self { name: name.into(), child, out, err }
    }

    /// What it wrote to its standard output so far.
    pub(crate) fn output(&self) -> String {
        read(&self.out)
    }

    /// Waits for a line that holds these words, and returns what follows them.
    pub(crate) async fn line(&mut self, words: &str, within: Duration) -> String {
        let what = format!("{} says '{words}'", self.name);
        until(&what, within, async || {
            let output = self.output();
            // A line without its end may be half written.
            let complete = &output[..output.rfind('\n').unwrap_or_default()];
            let found = complete.lines().find_map(|line| line.split_once(words)).map(|(_, rest)| rest.to_owned());
            if found.is_none() {
                self.assert_runs();
            }
            found
        })
        .await
    }

    /// Fails the scenario if it ended by itself.
    pub(crate) fn assert_runs(&mut self) {
        if let Some(status) = self.child.try_wait().expect("its state can be asked for") {
            panic!("{} ended too early: {status}", self.name);
        }
    }

    /// Asks it to stop (SIGTERM), as an orchestrator does.
    pub(crate) async fn terminate(&self) {
        let pid = self.child.id().expect("it runs").to_string();
        let status = Command::new("kill").args(["-TERM", &pid]).status().await.expect("a system with kill(1)");
        assert!(status.success(), "SIGTERM to {}: {status}", self.name);
    }

    /// Ends it at once (SIGKILL).
    pub(crate) async fn kill(mut self) {
        self.child.kill().await.expect("it runs");
    }

    /// Waits for its end.
    pub(crate) async fn exit(&mut self, within: Duration) -> ExitStatus {
        let ended = tokio::time::timeout(within, self.child.wait()).await;
        ended
            .unwrap_or_else(|_| panic!("{} does not end within {within:?}", self.name))
            .expect("its end can be awaited")
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

/// A port that was free a moment ago, for processes that must be told theirs.
pub(crate) fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has a free port");
    listener.local_addr().expect("it is bound").port()
}
