//! The binary as scripts and orchestrators use it: one line on stdout, exit codes, signals.

mod addresses;
mod cluster;
mod endpoints;
mod settings;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, ChildStdout, Command, Stdio};

pub(crate) struct Running {
    pub(crate) child: Child,
    pub(crate) stdout: BufReader<ChildStdout>,
    pub(crate) port: u16,
}

/// Beginnings of the variables that the binary reads.
const VARIABLES: [&str; 9] =
    ["RUST_LOG", "SERVER", "MANAGEMENT", "SPRING", "EUREKA", "TOWER_EUREKA", "NO_COLOR", "CLICOLOR", "HTTP_PROXY"];

/// Returns the command without an address.
pub(crate) fn plain() -> Command {
    let mut command = binary();
    command.arg("serve").stdout(Stdio::piped()).stderr(Stdio::piped());
    remove_settings(&mut command);
    command
}

/// Removes the settings in the environment of this process from that of the command.
pub(crate) fn remove_settings(command: &mut Command) {
    for (variable, _) in std::env::vars_os() {
        let name = variable.to_string_lossy().to_ascii_uppercase();
        if VARIABLES.iter().any(|start| name.starts_with(start)) {
            command.env_remove(variable);
        }
    }
}

/// Returns the binary with the default action of SIGHUP, even if this process was started by
/// `nohup`.
fn binary() -> Command {
    let binary = env!("CARGO_BIN_EXE_tower-eureka");
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    if ignored.is_none_or(|mask| u64::from_str_radix(mask.trim(), 16).unwrap() & 1 == 0) {
        return Command::new(binary);
    }
    let mut command = Command::new("env");
    command.args(["--default-signal=HUP", binary]);
    command
}

pub(crate) fn serve(listen: &str) -> Command {
    let mut command = plain();
    command.args(["--listen", listen]);
    command
}

pub(crate) fn start(arguments: &[&str]) -> Running {
    start_at(0, arguments)
}

pub(crate) fn start_at(port: u16, arguments: &[&str]) -> Running {
    let mut child = serve(&format!("127.0.0.1:{port}")).args(arguments).spawn().unwrap();
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    stdout.read_line(&mut line).unwrap();
    let port = line.strip_prefix("listening on http://127.0.0.1:").and_then(|l| l.strip_suffix("/eureka/\n"));
    let port = port.and_then(|port| port.parse().ok()).unwrap_or_else(|| panic!("what it printed: {line:?}"));
    Running { child, stdout, port }
}

impl Running {
    pub(crate) fn connect(&self) -> TcpStream {
        TcpStream::connect(("127.0.0.1", self.port)).unwrap()
    }

    /// Sends the signal and waits for the end. Returns the exit code and the rest of stdout.
    pub(crate) fn stop(mut self, signal: &str) -> (Option<i32>, String) {
        assert!(Command::new("kill").args(["-s", signal, &self.child.id().to_string()]).status().unwrap().success());
        let mut rest = String::new();
        self.stdout.read_to_string(&mut rest).unwrap();
        (self.child.wait().unwrap().code(), rest)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // A failed test must not leave the process running.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(crate) fn ask(connection: &mut TcpStream, request: &str) -> String {
    connection.write_all(request.as_bytes()).unwrap();
    let mut response = BufReader::new(connection);
    let mut line = String::new();
    response.read_line(&mut line).unwrap();
    line
}

/// Runs the command until it listens. Returns the printed address and the whole of stderr.
pub(crate) fn listens(mut command: Command) -> (String, String) {
    let mut child = command.spawn().unwrap();
    let mut line = String::new();
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    stdout.read_line(&mut line).unwrap();
    let mut running = Running { child, stdout, port: 0 };
    let mut stderr = running.child.stderr.take().unwrap();
    running.stop("TERM");
    let mut log = String::new();
    stderr.read_to_string(&mut log).unwrap();
    let address = line.strip_prefix("listening on http://").and_then(|line| line.strip_suffix("/eureka/\n"));
    (address.unwrap_or_else(|| panic!("{line}{log}")).to_owned(), log)
}

pub(crate) fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Sends a request on a new connection and returns the whole response.
pub(crate) fn exchange(running: &Running, request: &str) -> String {
    let mut connection = running.connect();
    connection.write_all(request.as_bytes()).unwrap();
    let mut response = String::new();
    connection.read_to_string(&mut response).unwrap();
    response
}

/// Waits until a response of a running registry contains these words, or no longer contains them.
pub(crate) fn until(running: &Running, path: &str, words: &str, present: bool) {
    let request = format!("GET /eureka/{path} HTTP/1.0\r\nHost: x\r\nAccept: application/json\r\n\r\n");
    // Each attempt opens a connection, which takes at least 0.1 ms: the loop lasts some seconds.
    for _ in 0..60_000 {
        if exchange(running, &request).contains(words) == present {
            return;
        }
        std::thread::yield_now();
    }
    panic!("{path} {} {words}", if present { "never had" } else { "kept" });
}

#[test]
fn signal_with_an_open_connection_stops_the_server() {
    for signal in ["TERM", "INT"] {
        let running = start(&["--eureka.server.enable-self-preservation", "false"]);
        let mut idle = running.connect();
        assert_eq!(ask(&mut idle, "GET /eureka/apps HTTP/1.1\r\nHost: x\r\n\r\n"), "HTTP/1.1 200 OK\r\n");
        assert_eq!(running.stop(signal), (Some(0), String::new()), "{signal}");
    }
}

#[test]
fn signal_with_an_endless_request_stops_the_server() {
    let running = start(&["--eureka.server.eviction-interval-timer-in-ms", "1000"]);
    let mut stuck = running.connect();
    let head = "POST /eureka/apps/X HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\n\
                Content-Type: application/json\r\nContent-Length: 9\r\n\r\n";
    assert_eq!(ask(&mut stuck, head), "HTTP/1.1 100 Continue\r\n", "it waits for the body now");
    assert_eq!(running.stop("TERM"), (Some(0), String::new()));
}

#[test]
fn log_names_the_client_of_each_change_and_of_each_refusal() {
    let mut running = start(&[]);
    let post = |body: &str| {
        let head = "POST /eureka/apps/X HTTP/1.0\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length";
        exchange(&running, &format!("{head}: {}\r\n\r\n{body}", body.len()))
    };
    let instance = r#"{"instanceId":"i","hostName":"h","app":"X","ipAddr":"10.0.0.1","status":"UP","dataCenterInfo":{"name":"MyOwn"}}"#;
    assert!(post(&format!(r#"{{"instance":{instance}}}"#)).contains(" 204 "));
    assert!(post(instance).contains(" 400 "));
    let mut stderr = running.child.stderr.take().unwrap();
    running.stop("TERM");
    let mut log = String::new();
    stderr.read_to_string(&mut log).unwrap();
    for line in [
        "INFO tower_eureka::server::audit: registered app=X instance=i status=UP origin=client 127.0.0.1:",
        "WARN tower_eureka::server::http::refusals: request refused method=POST path=/eureka/apps/X origin=client 127.0.0.1:",
    ] {
        assert!(log.contains(line), "{line}: {log}");
    }
}
