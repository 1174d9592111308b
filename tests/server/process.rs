//! The binary as a process: signals, exit codes, standard streams, limits of the system.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::process::{ChildStderr, Command, Stdio};
use std::time::Duration;

use crate::binary::{Running, ask, exchange, free_port, serve, start, until};

const INSTANCE: &str = r#"{"instance":{"instanceId":"i","hostName":"h","app":"X","ipAddr":"10.0.0.1","status":"UP","dataCenterInfo":{"name":"MyOwn"}}}"#;

fn register(running: &Running) {
    let head = "POST /eureka/apps/X HTTP/1.0\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length";
    let response = exchange(running, &format!("{head}: {}\r\n\r\n{INSTANCE}", INSTANCE.len()));
    assert!(response.contains(" 204 "), "{response}");
}

fn signal(running: &Running, signal: &str) {
    let status = Command::new("kill").args(["-s", signal, &running.child.id().to_string()]).status();
    assert!(status.unwrap().success());
}

/// Runs a command until it prints its address, or serves on this port if it prints none.
fn run(mut command: Command) -> Running {
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    stdout.read_line(&mut line).unwrap();
    let port = line.trim_end_matches("/eureka/\n").rsplit_once(':').and_then(|(_, port)| port.parse().ok());
    Running { child, stdout, port: port.unwrap_or_else(|| panic!("{line}")) }
}

/// Reads the log until a line contains these words.
fn wait_for(log: &mut impl BufRead, words: &str) {
    let mut line = String::new();
    while !line.contains(words) {
        line.clear();
        assert_ne!(log.read_line(&mut line).unwrap(), 0, "it ended without: {words}");
    }
}

fn rest(mut stderr: ChildStderr) -> String {
    let mut log = String::new();
    stderr.read_to_string(&mut log).unwrap();
    log
}

/// Waits for at most 30 seconds until this is true.
#[allow(clippy::disallowed_methods, reason = "waits for a process, without a runtime")]
fn eventually(mut is_so: impl FnMut() -> bool) {
    for _ in 0..3_000 {
        if is_so() {
            return;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    panic!("it did not become true");
}

#[test]
fn sigquit_and_sighup_stop_the_server_as_sigterm_does() {
    let second = start(&[]);
    let peer = format!("--eureka.client.service-url.defaultZone=http://127.0.0.1:{}/eureka/", second.port);
    for signal in ["QUIT", "HUP"] {
        let running = start(&[&peer, "--eureka.server.wait-time-in-ms-when-sync-empty=0"]);
        register(&running);
        assert_eq!(running.stop(signal), (Some(0), String::new()), "{signal}");
        until(&second, "apps", r#""instanceId":"i""#, true);
        exchange(&second, "DELETE /eureka/apps/X/i HTTP/1.0\r\nHost: x\r\n\r\n");
        until(&second, "apps", r#""instanceId":"i""#, false);
    }
}

#[test]
fn sigusr1_reads_files_again_and_stops_nothing() {
    let mut running = start(&[]);
    let mut stderr = BufReader::new(running.child.stderr.take().unwrap());
    for _ in 0..2 {
        signal(&running, "USR1");
        wait_for(&mut stderr, "other settings need a restart");
    }
    register(&running);
    assert_eq!(running.stop("TERM"), (Some(0), String::new()));
}

/// Closing a terminal ends its emulator, and the kernel sends SIGHUP to the processes in it.
#[test]
fn node_whose_terminal_closes_hands_over_and_stops() {
    if Command::new("script").arg("--version").output().is_err() {
        eprintln!("!!! NOT RUN: no `script` here, which provides a terminal (util-linux)");
        return;
    }
    let second = start(&[]);
    let (port, log) = (free_port(), std::env::temp_dir().join(format!("terminal-{}", std::process::id())));
    let line = format!(
        "exec {} serve --listen 127.0.0.1:{port} --eureka.client.service-url.defaultZone=http://127.0.0.1:{}/eureka/ \
         --eureka.server.wait-time-in-ms-when-sync-empty=0 2>{}",
        env!("CARGO_BIN_EXE_tower-eureka"),
        second.port,
        log.display()
    );
    let mut terminal = Command::new("script");
    terminal.args(["-qec", &line, "/dev/null"]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = terminal.spawn().unwrap();
    let stdout = BufReader::new(child.stdout.take().unwrap());
    let mut terminal = Running { child, stdout, port };
    eventually(|| TcpStream::connect(("127.0.0.1", port)).is_ok());
    register(&terminal);
    terminal.child.kill().unwrap();
    until(&second, "apps", r#""instanceId":"i""#, true);
    eventually(|| fs::read_to_string(&log).unwrap().contains(r#"stopping signal="SIGHUP""#));
    fs::remove_file(&log).unwrap();
}

#[cfg(target_os = "linux")]
#[test]
fn systemd_is_notified_of_start_life_and_stop() {
    let path = std::env::temp_dir().join(format!("notify-{}", std::process::id()));
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    let mut command = serve("127.0.0.1:0");
    command.env("NOTIFY_SOCKET", &path).env("WATCHDOG_USEC", "20000").env_remove("WATCHDOG_PID");
    let running = run(command);
    let next = || {
        let mut message = [0; 1024];
        let length = socket.recv(&mut message).unwrap();
        String::from_utf8_lossy(&message[..length]).into_owned()
    };
    let ready = next();
    assert!(ready.contains("READY=1\n") && ready.contains("STATUS=listening on 127.0.0.1:"), "{ready}");
    for _ in 0..3 {
        assert_eq!(next(), "WATCHDOG=1\n");
    }
    signal(&running, "TERM");
    while next() != "STOPPING=1\n" {}
    fs::remove_file(&path).unwrap();
}

#[test]
fn sighup_that_nohup_ignores_stays_ignored() {
    let mut command = Command::new("nohup");
    command.args([env!("CARGO_BIN_EXE_tower-eureka"), "serve", "--listen", "127.0.0.1:0"]);
    let mut running = run(command);
    let stderr = running.child.stderr.take().unwrap();
    signal(&running, "HUP");
    register(&running);
    assert_eq!(running.stop("TERM").0, Some(0));
    let log = rest(stderr);
    assert!(log.contains("SIGTERM") && !log.contains("SIGHUP"), "{log}");
}

#[test]
fn exit_code_is_3_if_a_peer_did_not_receive_all_changes() {
    let peer = format!("--eureka.client.service-url.defaultZone=http://127.0.0.1:{}/eureka/", free_port());
    let running = start(&[&peer]);
    register(&running);
    assert_eq!(running.stop("TERM"), (Some(3), String::new()));
}

#[test]
fn exit_code_is_3_if_a_peer_refused_the_last_changes() {
    let second = start(&[]);
    for (path, code) in [("eureka", 0), ("wrong", 3)] {
        let peer = format!("--eureka.client.service-url.defaultZone=http://127.0.0.1:{}/{path}/", second.port);
        let running = start(&[&peer, "--eureka.server.wait-time-in-ms-when-sync-empty=0"]);
        register(&running);
        assert_eq!(running.stop("TERM"), (Some(code), String::new()), "{path}");
    }
}

#[test]
fn exit_code_is_3_if_a_peer_dropped_the_changes_before_the_stop() {
    let second = start(&[]);
    let peer = format!("--eureka.client.service-url.defaultZone=http://127.0.0.1:{}/wrong/", second.port);
    let mut running = start(&[&peer, "--eureka.server.wait-time-in-ms-when-sync-empty=0"]);
    register(&running);
    let mut stderr = BufReader::new(running.child.stderr.take().unwrap());
    wait_for(&mut stderr, "changes dropped");
    assert_eq!(running.stop("TERM").0, Some(3));
}

#[test]
fn second_signal_stops_the_server_immediately() {
    // This peer accepts connections and never responds.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let peer = format!("--eureka.client.service-url.defaultZone=http://{}/eureka/", silent.local_addr().unwrap());
    for (second, code) in [("TERM", 143), ("INT", 130)] {
        let mut running = start(&[&peer, "--eureka.server.peer-node-read-timeout-ms=600000"]);
        register(&running);
        let mut stderr = BufReader::new(running.child.stderr.take().unwrap());
        signal(&running, "TERM");
        wait_for(&mut stderr, "stopping");
        assert_eq!(running.stop(second).0, Some(code), "{second}");
    }
}

#[test]
fn repeated_sighup_does_not_interrupt_the_last_replication() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let peer = format!("--eureka.client.service-url.defaultZone=http://{}/eureka/", silent.local_addr().unwrap());
    for first in ["QUIT", "TERM", "HUP"] {
        let mut running = start(&[&peer, "--eureka.server.peer-node-read-timeout-ms=600000"]);
        register(&running);
        let mut stderr = BufReader::new(running.child.stderr.take().unwrap());
        signal(&running, first);
        wait_for(&mut stderr, "stopping");
        for _ in 0..2 {
            signal(&running, "HUP");
            wait_for(&mut stderr, "signal ignored, already stopping");
        }
        assert_eq!(running.stop("TERM").0, Some(143), "{first}");
    }
}

#[test]
fn full_stdout_blocks_neither_requests_nor_the_stop() {
    let (stdout, _unread) = UnixStream::pair().unwrap();
    stdout.set_nonblocking(true).unwrap();
    while (&stdout).write(b" ").is_ok() {}
    stdout.set_nonblocking(false).unwrap();
    let port = free_port();
    let mut command = serve(&format!("127.0.0.1:{port}"));
    let mut child = command.stdout(OwnedFd::from(stdout)).spawn().unwrap();
    drop(command);
    wait_for(&mut BufReader::new(child.stderr.take().unwrap()), "started");
    let mut connection = TcpStream::connect(("127.0.0.1", port)).unwrap();
    assert_eq!(ask(&mut connection, "GET /eureka/apps HTTP/1.1\r\nHost: x\r\n\r\n"), "HTTP/1.1 200 OK\r\n");
    assert!(Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap().success());
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn broken_stdout_does_not_panic() {
    let closed = || {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        Stdio::from(writer)
    };
    let full = || File::options().write(true).open("/dev/full").map(Stdio::from);
    let streams = [Some(closed()), full().ok()];
    for stdout in streams.into_iter().flatten() {
        let port = free_port();
        let mut child = serve(&format!("127.0.0.1:{port}")).stdout(stdout).spawn().unwrap();
        let mut stderr = BufReader::new(child.stderr.take().unwrap());
        wait_for(&mut stderr, "cannot write to stdout");
        assert!(TcpStream::connect(("127.0.0.1", port)).is_ok());
        assert!(Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap().success());
        assert_eq!(child.wait().unwrap().code(), Some(0));
        let mut log = String::new();
        stderr.read_to_string(&mut log).unwrap();
        assert!(!log.contains("panicked"), "{log}");
    }
}

#[test]
fn broken_stderr_does_not_change_the_exit_code_of_an_error() {
    let Ok(full) = File::options().write(true).open("/dev/full") else { return };
    let status = serve("127.0.0.1:0").arg("--eureka.server.foo=1").stderr(full).status().unwrap();
    assert_eq!(status.code(), Some(1));
}

#[test]
fn invalid_log_filter_is_an_error() {
    for (filter, expected) in [
        ("tower_eureka=loud", "expected levels like info"),
        ("info,[", "RUST_LOG"),
        ("warning", "did you mean warn?"),
        ("tower_eureka=debug,inof", "did you mean info?"),
    ] {
        let output = serve("127.0.0.1:0").env("RUST_LOG", filter).output().unwrap();
        let error = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{filter}: {error}");
        assert!(error.contains("RUST_LOG") && error.contains(expected), "{filter}: {error}");
    }
}

#[test]
fn soft_limit_of_open_files_is_raised_to_the_hard_limit_and_logged() {
    let limited = |limits: &str| {
        let mut command = Command::new("sh");
        command.args(["-c", &format!(r#"{limits} && exec "$0" "$@""#), env!("CARGO_BIN_EXE_tower-eureka")]);
        command.args(["serve", "--listen", "127.0.0.1:0"]);
        command
    };
    let mut running = run(limited("ulimit -S -n 100 && ulimit -H -n 200"));
    if let Ok(limits) = fs::read_to_string(format!("/proc/{}/limits", running.child.id())) {
        let files = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
        assert_eq!(files.split_whitespace().skip(3).take(2).collect::<Vec<_>>(), ["200", "200"], "{files}");
    }
    let stderr = running.child.stderr.take().unwrap();
    assert_eq!(running.stop("TERM").0, Some(0));
    let log = rest(stderr);
    assert!(log.contains(r#"soft="200" hard="200" before="100""#), "{log}");
    assert!(log.contains("too few file descriptors") && log.contains("wanted=20000"), "{log}");

    for (connections, is_warned) in [(150, false), (160, true)] {
        let mut command = limited("ulimit -n 200");
        command.arg(format!("--eureka.server.limits.connections={connections}"));
        let mut running = run(command);
        let stderr = running.child.stderr.take().unwrap();
        assert_eq!(running.stop("TERM").0, Some(0));
        let log = rest(stderr);
        assert_eq!(log.contains("WARN"), is_warned, "{log}");
    }
}

#[cfg(target_os = "linux")]
#[test]
fn allocator_has_a_background_thread_unless_the_user_set_its_options() {
    for (settings, expected) in [(None, true), (Some("dirty_decay_ms:5000"), false)] {
        let mut command = serve("127.0.0.1:0");
        command.envs(settings.map(|settings| ("_RJEM_MALLOC_CONF", settings)));
        let running = run(command);
        let tasks = fs::read_dir(format!("/proc/{}/task", running.child.id())).unwrap();
        let names = tasks.filter_map(|task| fs::read_to_string(task.unwrap().path().join("comm")).ok());
        let names: Vec<_> = names.collect();
        assert_eq!(names.iter().any(|name| name.starts_with("jemalloc_bg")), expected, "{names:?}");
        assert_eq!(running.stop("TERM").0, Some(0));
    }
}
