//! The binary as scripts and orchestrators see it: one line on stdout, exit codes, signals.
#![cfg(all(feature = "cli", unix))]
#![allow(clippy::unwrap_used, reason = "the functions around the tests are tests, too")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, ChildStdout, Command, Stdio};

struct Running {
    child: Child,
    stdout: BufReader<ChildStdout>,
    port: u16,
}

fn serve(listen: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tower-eureka"));
    command.args(["serve", "--listen", listen]).stdout(Stdio::piped()).stderr(Stdio::piped()).env_remove("RUST_LOG");
    command
}

fn start(arguments: &[&str]) -> Running {
    let mut child = serve("127.0.0.1:0").args(arguments).spawn().unwrap();
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    stdout.read_line(&mut line).unwrap();
    let port = line.strip_prefix("listening on http://127.0.0.1:").and_then(|l| l.strip_suffix("/eureka/\n"));
    let port = port.and_then(|port| port.parse().ok()).unwrap_or_else(|| panic!("what it printed: {line:?}"));
    Running { child, stdout, port }
}

impl Running {
    fn connect(&self) -> TcpStream {
        TcpStream::connect(("127.0.0.1", self.port)).unwrap()
    }

    /// Sends the signal, waits for the end, and gives the exit code and what else stood on stdout.
    fn stop(mut self, signal: &str) -> (Option<i32>, String) {
        assert!(Command::new("kill").args(["-s", signal, &self.child.id().to_string()]).status().unwrap().success());
        let mut rest = String::new();
        self.stdout.read_to_string(&mut rest).unwrap();
        (self.child.wait().unwrap().code(), rest)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // A test that failed must not leave it behind.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn ask(connection: &mut TcpStream, request: &str) -> String {
    connection.write_all(request.as_bytes()).unwrap();
    let mut answer = BufReader::new(connection);
    let mut line = String::new();
    answer.read_line(&mut line).unwrap();
    line
}

#[test]
fn a_signal_ends_it_although_a_client_stays_connected() {
    for signal in ["TERM", "INT"] {
        let running = start(&["--eureka.server.enable-self-preservation", "false"]);
        let mut idle = running.connect();
        assert_eq!(ask(&mut idle, "GET /eureka/apps HTTP/1.1\r\nHost: x\r\n\r\n"), "HTTP/1.1 200 OK\r\n");
        assert_eq!(running.stop(signal), (Some(0), String::new()), "{signal}");
    }
}

#[test]
fn a_request_that_never_ends_does_not_hold_it() {
    let running = start(&["--eureka.server.eviction-interval-timer-in-ms", "1000"]);
    let mut stuck = running.connect();
    let head = "POST /eureka/apps/X HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\n\
                Content-Type: application/json\r\nContent-Length: 9\r\n\r\n";
    assert_eq!(ask(&mut stuck, head), "HTTP/1.1 100 Continue\r\n", "it waits for the body now");
    assert_eq!(running.stop("TERM"), (Some(0), String::new()));
}

#[test]
fn a_port_in_use_is_told_on_stderr() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let output = serve(&address).output().unwrap();
    let error = String::from_utf8(output.stderr).unwrap();
    assert_eq!((output.status.code(), output.stdout), (Some(1), Vec::new()));
    assert!(error.contains(&address) && error.contains("in use"), "{error}");
}

#[test]
fn a_bad_setting_is_told_on_stderr() {
    let output = serve("127.0.0.1:0").args(["--eureka.server.eviction-interval-timer-in-ms", "0"]).output().unwrap();
    let error = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(error.contains("eviction_interval must be"), "{error}");
}
