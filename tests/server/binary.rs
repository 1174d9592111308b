//! The binary as scripts and orchestrators see it: one line on stdout, exit codes, signals.

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

#[test]
fn spring_settings_are_taken_in_each_form() {
    let running = start(&[
        "--eureka.server.renewalPercentThreshold=0.5",
        "--eureka.server.EVICTION-INTERVAL-TIMER-IN-MS",
        "1000",
        "--spring.application.name=registry",
        "--eureka.server.batchReplication=true",
    ]);
    assert_eq!(running.stop("TERM"), (Some(0), String::new()));

    let output = serve("127.0.0.1:0").env("EUREKA_SERVER_EVICTIONINTERVALTIMERINMS", "soon").output().unwrap();
    let error = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(error.contains("eureka.server.eviction-interval-timer-in-ms is 'soon': expected"), "{error}");
    // The command line goes over the environment, but does not hide what is wrong there.
    let mut command = serve("127.0.0.1:0");
    command.env("EUREKA_CLIENT_SERVICEURL_DEFAULTZONE", "http://127.0.0.1:1/eureka/");
    let output = command.arg("--eureka.client.serviceUrl.defaultZone=nonsense").output().unwrap();
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(error.contains("a peer's URL is unusable") && error.contains("nonsense"), "{error}");
}

#[test]
fn an_unknown_setting_brings_the_nearest() {
    for (argument, told) in [
        (
            "--eureka.server.wait-time-in-ms-when-synch-empty=0",
            "did you mean eureka.server.wait-time-in-ms-when-sync-empty?",
        ),
        ("--eureka.instance.hostnam=x", "did you mean eureka.instance.hostname?"),
        ("--eureka.server.my-url", "needs a value"),
    ] {
        let output = serve("127.0.0.1:0").arg(argument).output().unwrap();
        let error = String::from_utf8(output.stderr).unwrap();
        assert_eq!((output.status.code(), output.stdout.len()), (Some(1), 0), "{argument}");
        assert!(error.contains(told), "{error}");
    }
}

#[test]
fn the_help_lists_every_setting() {
    let output = Command::new(env!("CARGO_BIN_EXE_tower-eureka")).args(["serve", "--help"]).output().unwrap();
    let help = String::from_utf8(output.stdout).unwrap();
    for property in tower_eureka::config::Property::all() {
        assert!(help.contains(&property.to_string()), "{property}");
    }
    assert!(help.contains("--eureka.server.peer-node-read-timeout-ms <MS>"), "{help}");
    assert!(help.contains("[default: 5000]"), "{help}");
}

/// The whole answer to a request, on a connection of its own.
fn exchange(running: &Running, request: &str) -> String {
    let mut connection = running.connect();
    connection.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    connection.read_to_string(&mut answer).unwrap();
    answer
}

/// Waits until an answer of a running registry has these words, or has them no more.
fn until(running: &Running, path: &str, words: &str, present: bool) {
    let request = format!("GET /eureka/{path} HTTP/1.0\r\nHost: x\r\nAccept: application/json\r\n\r\n");
    // A look costs a connection, a tenth of a millisecond at least: this goes on for some seconds.
    for _ in 0..60_000 {
        if exchange(running, &request).contains(words) == present {
            return;
        }
        std::thread::yield_now();
    }
    panic!("{path} {} {words}", if present { "never had" } else { "kept" });
}

#[test]
fn two_of_them_are_peers_and_a_stopped_one_hands_over() {
    let free = || TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let addresses = [free(), free()];
    let urls = addresses.map(|address| format!("http://{address}/eureka/")).join(",");
    let node = |address: std::net::SocketAddr| {
        let mut child = serve(&address.to_string())
            .arg(format!("--eureka.client.service-url.defaultZone={urls}"))
            .args(["--eureka.instance.hostname=127.0.0.1", "--eureka.instance.ip-address=127.0.0.1"])
            .args(["--eureka.server.wait-time-in-ms-when-sync-empty", "0"])
            .spawn()
            .unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        stdout.read_line(&mut String::new()).unwrap();
        Running { child, stdout, port: address.port() }
    };
    let [first, second] = addresses.map(node);
    let id = format!("127.0.0.1:{}", first.port);
    until(&second, "apps/UNKNOWN", &format!(r#""instanceId":"{id}""#), true);
    let body = r#"{"instance":{"instanceId":"i","hostName":"h","app":"X","ipAddr":"10.0.0.1","status":"UP","dataCenterInfo":{"name":"MyOwn"}}}"#;
    let head = "POST /eureka/apps/X HTTP/1.0\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length";
    let answer = exchange(&first, &format!("{head}: {}\r\n\r\n{body}", body.len()));
    assert!(answer.contains(" 204 "), "{answer}");
    assert_eq!(first.stop("TERM"), (Some(0), String::new()));
    // Its last words were sent before it ended.
    let request = "GET /eureka/apps HTTP/1.0\r\nHost: x\r\nAccept: application/json\r\n\r\n";
    let applications = exchange(&second, request);
    assert!(applications.contains(r#""instanceId":"i""#), "{applications}");
    assert!(!applications.contains(&id), "{applications}");
}
