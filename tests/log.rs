//! The log of the binary on stderr.
#![cfg(all(unix, feature = "cli"))]
#![allow(clippy::unwrap_used, reason = "the functions around the tests are tests, too")]

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, ChildStdout, Command, Stdio};

use serde_json::Value;

const HEARTBEAT: &str = "PUT /eureka/apps/ORDERS/i-0";
const BATCH: &str = "POST /eureka/peerreplication/batch/";

struct Running {
    child: Child,
    _stdout: BufReader<ChildStdout>,
    port: u16,
}

/// Runs the registry until the end of the test. It logs each change of a batch.
fn start(stderr: Stdio, arguments: &[&str], variables: &[(&str, &str)]) -> Running {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tower-eureka"));
    command.args(["serve", "--listen", "127.0.0.1:0"]).args(arguments).env("RUST_LOG", "tower_eureka=debug");
    for variable in ["SERVER_PORT", "SERVER_ADDRESS", "TOWER_EUREKA_LOG_FORMAT"] {
        command.env_remove(variable);
    }
    let mut child = command.envs(variables.iter().copied()).stdout(Stdio::piped()).stderr(stderr).spawn().unwrap();
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    stdout.read_line(&mut line).unwrap();
    let port = line.strip_prefix("listening on http://127.0.0.1:").and_then(|line| line.strip_suffix("/eureka/\n"));
    let port = port.and_then(|port| port.parse().ok()).unwrap_or_else(|| panic!("what it printed: {line:?}"));
    Running { child, _stdout: stdout, port }
}

impl Running {
    /// Sends a request and returns the status.
    fn send(&self, request: &str, body: &str) -> u16 {
        let mut connection = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        let head = format!(
            "{request} HTTP/1.0\r\nHost: x\r\nAccept: application/json\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\n\r\n",
            body.len()
        );
        connection.write_all(head.as_bytes()).unwrap();
        connection.write_all(body.as_bytes()).unwrap();
        let mut response = String::new();
        connection.read_to_string(&mut response).unwrap();
        response.split(' ').nth(1).unwrap_or_default().parse().unwrap()
    }

    /// Sends the signal, waits for the end and returns the exit code.
    fn stop(&mut self, signal: &str) -> Option<i32> {
        assert!(Command::new("kill").args(["-s", signal, &self.child.id().to_string()]).status().unwrap().success());
        self.child.wait().unwrap().code()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // A failed test must not leave the process running.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Returns a batch of registrations whose log lines exceed the pipe and the queue.
fn flood(status: &str) -> String {
    let item = |n: usize| {
        format!(
            r#"{{"appName":"ORDERS","id":"i-{n}","action":"Register","instanceInfo":{{"instanceId":"i-{n}",
            "hostName":"h","app":"ORDERS","ipAddr":"10.0.0.1","status":"{status}","dataCenterInfo":
            {{"@class":"com.netflix.appinfo.InstanceInfo$DefaultDataCenterInfo","name":"MyOwn"}}}}}}"#
        )
    };
    format!(r#"{{"replicationList":[{}]}}"#, (0..9_000).map(item).collect::<Vec<_>>().join(","))
}

#[test]
fn stalled_stderr_blocks_neither_heartbeats_nor_sigterm_and_dropped_lines_are_counted() {
    let mut running = start(Stdio::piped(), &[], &[]);
    let stderr = running.child.stderr.take().unwrap();
    assert_eq!(running.send(BATCH, &flood("UP")), 200);
    for _ in 0..10 {
        assert_eq!(running.send(HEARTBEAT, ""), 200, "nobody reads stderr");
    }
    // Reading again: the queued lines come first, then the number of dropped ones.
    let mut lines = BufReader::new(stderr).lines().map(Result::unwrap);
    let mut registered = 0;
    let dropped: usize = loop {
        let line = lines.next().expect("server is running");
        registered += usize::from(line.contains("registered app=ORDERS"));
        if let Some(notice) = line.strip_suffix(" log lines were dropped") {
            assert!(notice.contains(" WARN "), "{line}");
            break notice.rsplit(' ').next().unwrap().parse().unwrap();
        }
    };
    assert!(registered < 9_000 && registered + dropped >= 9_000, "{registered} lines and {dropped} dropped ones");
    // Nobody reads stderr from now on.
    assert_eq!(running.send(BATCH, &flood("DOWN")), 200);
    assert_eq!(running.send(HEARTBEAT, ""), 200);
    assert_eq!(running.stop("TERM"), Some(0));
    drop(lines);
}

#[test]
fn stderr_that_accepts_nothing_blocks_no_request() {
    let full = File::options().write(true).open("/dev/full").unwrap();
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    for (what, stderr) in [("full device", full.into()), ("pipe without a reader", writer.into())] {
        let mut running = start(stderr, &[], &[]);
        assert_eq!(running.send(BATCH, &flood("UP")), 200, "{what}");
        assert_eq!(running.send(HEARTBEAT, ""), 200, "{what}");
        assert_eq!(running.stop("TERM"), Some(0), "{what}");
    }
}

#[test]
fn last_lines_are_written_before_the_process_ends() {
    let mut running = start(Stdio::piped(), &[], &[]);
    let mut stderr = running.child.stderr.take().unwrap();
    assert_eq!(running.stop("TERM"), Some(0));
    let mut log = String::new();
    stderr.read_to_string(&mut log).unwrap();
    let last = log.lines().last().unwrap();
    assert!(log.contains("started") && last.contains("stopping"), "{log}");
}

#[test]
fn json_log_is_one_object_a_line_for_any_input() {
    for (arguments, variables) in [
        (&["--log-format", "json"][..], &[][..]),
        (&["--log-format=json"], &[("TOWER_EUREKA_LOG_FORMAT", "text")]),
        (&[], &[("TOWER_EUREKA_LOG_FORMAT", "JSON")]),
        (&["--log-format=Json"], &[("TOWER_EUREKA_LOG_FORMAT", "")]),
    ] {
        let mut running = start(Stdio::piped(), arguments, variables);
        let mut stderr = running.child.stderr.take().unwrap();
        let forged = r#"{"replicationList":[{"appName":"X\n{\"level\":\"ERROR\"}\u2028\u0085","id":"\u001b[31m","action":"Register",
            "instanceInfo":{"app":"X","hostName":"h"}}]}"#;
        assert_eq!(running.send(BATCH, forged), 200);
        assert_eq!(running.send("DELETE /eureka/apps/Y%0a%e2%80%a8%c2%9b/z", ""), 404);
        assert_eq!(running.stop("TERM"), Some(0));
        let mut log = String::new();
        stderr.read_to_string(&mut log).unwrap();
        assert!(!log.chars().any(|c| c != '\n' && (c.is_control() || c == '\u{2028}')), "{log:?}");
        let lines: Vec<Value> = log.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        for line in &lines {
            for name in ["timestamp", "level", "message", "target"] {
                assert!(line[name].is_string(), "{name} in {line}");
            }
        }
        let line =
            |message: &str| lines.iter().find(|line| line["message"] == message).unwrap_or_else(|| panic!("{log}"));
        assert_eq!(line("started")["level"], "INFO");
        assert!(line("items of a replication batch dropped")["invalid"] == 1);
        assert_eq!(line("cancellation of unknown instance")["instance"], "z");
    }
}

#[test]
fn empty_variable_of_the_log_format_counts_as_unset() {
    for empty in ["", " "] {
        let mut running = start(Stdio::piped(), &[], &[("TOWER_EUREKA_LOG_FORMAT", empty)]);
        let mut stderr = running.child.stderr.take().unwrap();
        assert_eq!(running.stop("TERM"), Some(0));
        let mut log = String::new();
        stderr.read_to_string(&mut log).unwrap();
        assert!(log.contains("INFO tower_eureka::serve: started"), "{log}");
    }
}

#[test]
fn error_at_the_start_is_written_in_the_format_of_the_log() {
    for (format, begin) in [("text", "tower-eureka: "), ("json", "{")] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tower-eureka"));
        command.args(["serve", "--listen", "127.0.0.1:0", "--log-format", format]);
        let output = command.arg("--eureka.server.eviction-interval-timer-in-ms=0").output().unwrap();
        let error = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{error}");
        let last = error.lines().last().unwrap();
        assert!(last.starts_with(begin) && last.contains("Eviction::interval must be"), "{error}");
        assert_eq!(serde_json::from_str::<Value>(last).is_ok(), format == "json", "{error}");
    }
    let help = Command::new(env!("CARGO_BIN_EXE_tower-eureka")).args(["serve", "--help"]).output().unwrap();
    let help = String::from_utf8(help.stdout).unwrap();
    assert!(help.contains("--log-format <FORMAT>") && help.contains("TOWER_EUREKA_LOG_FORMAT"), "{help}");
}
