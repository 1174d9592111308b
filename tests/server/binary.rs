//! The binary as scripts and orchestrators use it: one line on stdout, exit codes, signals.

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
fn port_in_use_is_an_error_on_stderr() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let output = serve(&address).output().unwrap();
    let error = String::from_utf8(output.stderr).unwrap();
    assert_eq!((output.status.code(), output.stdout), (Some(1), Vec::new()));
    assert!(error.contains(&address) && error.contains("in use"), "{error}");
}

#[test]
fn invalid_setting_is_an_error_on_stderr() {
    let output = serve("127.0.0.1:0").args(["--eureka.server.eviction-interval-timer-in-ms", "0"]).output().unwrap();
    let error = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(error.contains("Eviction::interval must be"), "{error}");
}

#[test]
fn spring_settings_are_read_in_each_form() {
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
    assert!(
        error.contains(r#"EUREKA_SERVER_EVICTIONINTERVALTIMERINMS: expected milliseconds, found "soon""#),
        "{error}"
    );
    // The command line takes precedence over the environment, but does not hide its errors.
    let mut command = serve("127.0.0.1:0");
    command.env("EUREKA_CLIENT_SERVICEURL_DEFAULTZONE", "http://127.0.0.1:1/eureka/");
    let output = command.arg("--eureka.client.serviceUrl.defaultZone=nonsense").output().unwrap();
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(error.contains("a peer's URL is unusable") && error.contains("nonsense"), "{error}");
}

/// Removes the folder at the end of a test.
struct Folder(std::path::PathBuf);

impl Folder {
    fn with(name: &str, files: &[(&str, &str)]) -> Self {
        let path = std::env::temp_dir().join(format!("tower-eureka-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        for (file, text) in files {
            std::fs::write(path.join(file), text).unwrap();
        }
        Self(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[test]
fn files_of_the_working_directory_configure_the_server() {
    let yaml = "server:\n  address: 127.0.0.1\n  port: 1\neureka:\n  server:\n    lease-doubling: false\n\
                \x20   peer-outage-limit-ms: 5m\n    enable-self-preservation: ${preserve:false}\n\
                ---\nspring.config.activate.on-profile: any & !other\nserver.port: 0\n";
    let folder = Folder::with("serve", &[("application.yml", yaml)]);
    let mut command = plain();
    command.current_dir(&folder.0).args(["--spring.profiles.active=any", "--spring.application.name=registry"]);
    let (address, log) = listens(command);
    assert!(address.starts_with("127.0.0.1:") && address != "127.0.0.1:1", "{address}: {log}");

    std::fs::write(folder.0.join("application.yml"), "eureka:\n  server:\n    lease-doubling: maybe\n").unwrap();
    let output = plain().current_dir(&folder.0).output().unwrap();
    let error = String::from_utf8(output.stderr).unwrap();
    let expected = r#"application.yml:3: eureka.server.lease-doubling: expected true or false, found "maybe""#;
    assert!(output.status.code() == Some(1) && error.contains(expected), "{error}");
}

#[test]
fn config_prints_the_settings_in_force_with_their_sources() {
    let yaml = "eureka:\n  client.service-url.defaultZone: http://user:geheim@registry/eureka/\n";
    let folder = Folder::with("config", &[("application.yml", yaml)]);
    let run = |arguments: &[&str]| {
        let mut command = binary();
        command.arg("config").args(arguments).current_dir(&folder.0).env("EUREKA_SERVER_DISABLEDELTA", "true");
        let output = command.output().unwrap();
        let (stdout, stderr) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
        (output.status.code(), stdout, stderr)
    };
    let (code, stdout, stderr) = run(&["--eureka.server.renewalPercentThreshold=0.5"]);
    assert_eq!(code, Some(0), "{stderr}");
    for line in [
        "eureka.client.service-url.defaultZone = http://***@registry/eureka/ (application.yml:2)\n",
        "EUREKA_SERVER_DISABLEDELTA = true (environment)\n",
        "eureka.server.renewalPercentThreshold = 0.5 (argument)\n",
        "eureka.server.lease-doubling = true (default)\n",
    ] {
        assert!(stdout.contains(line), "{line}: {stdout}");
    }
    assert!(!stdout.contains("eureka.server.disable-delta =") && !stdout.contains("geheim"), "{stdout}");
    let (code, stdout, stderr) = run(&["--eureka.server.renewal-percent-threshold", "most"]);
    assert_eq!(code, Some(1), "{stdout}");
    assert!(stderr.contains(r#"argument --eureka.server.renewal-percent-threshold: expected a number"#), "{stderr}");
}

#[test]
fn config_warns_and_fails_as_serve_does() {
    let folder = Folder::with("config-checks", &[("application.yml", "eureka.server.lease-dubling: true\n")]);
    let run = |command: &str, argument: &str| {
        let mut binary = binary();
        binary.args([command, "--server.port=0", argument]).current_dir(&folder.0).env_remove("RUST_LOG");
        let output = binary.output().unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    let (code, stderr) = run("config", "--eureka.server.my-url=http://node/");
    let typo =
        "application.yml:1: eureka.server.lease-dubling is no setting; did you mean eureka.server.lease-doubling?";
    assert!(code == Some(0) && stderr.contains("WARN") && stderr.contains(typo), "{stderr}");
    for (argument, why) in [
        ("--server.port=x", "expected a port"),
        ("--server.address=a:1", "expected brackets"),
        ("--eureka.client.service-url.defaultZone=registry:8761", "a peer's URL is unusable"),
        ("--eureka.server.peer-node-read-timeout-ms=0", "eureka.server.peer-node-read-timeout-ms"),
        ("--eureka.server.remote-region-urls-with-name=eu", "'eu' has no URL"),
        ("--eureka.instance.hostname=a b", "this node cannot be registered"),
    ] {
        for command in ["config", "serve"] {
            let (code, stderr) = run(command, argument);
            assert!(code == Some(1) && stderr.contains(why), "{command} {argument}: {stderr}");
        }
    }
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

fn has_ipv6() -> bool {
    TcpListener::bind("[::1]:0").is_ok()
}

/// Returns the address of all interfaces as the binary prints it.
fn unspecified() -> &'static str {
    if TcpListener::bind("[::]:0").is_ok() { "[::]" } else { "0.0.0.0" }
}

#[test]
fn port_alone_listens_on_both_families_and_logs_ipv4_clients_as_such() {
    for (variables, arguments) in
        [(vec![("SERVER_PORT", "0")], vec![]), (vec![], vec!["--listen=:0"]), (vec![], vec!["--listen", "[::]:0"])]
    {
        let mut command = plain();
        command.envs(variables).args(&arguments);
        let mut child = command.spawn().unwrap();
        let mut line = String::new();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        stdout.read_line(&mut line).unwrap();
        let port = line.trim_end_matches("/eureka/\n").rsplit_once(':').unwrap().1.parse::<u16>().unwrap();
        let mut running = Running { child, stdout, port };
        let mut stderr = running.child.stderr.take().unwrap();
        let head = "PUT /eureka/apps/X/1/status HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n";
        assert!(ask(&mut running.connect(), head).starts_with("HTTP/1.1 "), "{arguments:?}");
        if has_ipv6() {
            let mut connection = TcpStream::connect(("::1", port)).unwrap();
            let head = "GET /eureka/apps HTTP/1.1\r\nHost: x\r\n\r\n";
            assert_eq!(ask(&mut connection, head), "HTTP/1.1 200 OK\r\n", "{arguments:?}");
        }
        running.stop("TERM");
        let mut log = String::new();
        stderr.read_to_string(&mut log).unwrap();
        assert!(log.contains("127.0.0.1:") && !log.contains("ffff"), "{arguments:?}: {log}");
    }
}

#[test]
fn port_in_use_on_ipv4_is_an_error() {
    let taken = TcpListener::bind("0.0.0.0:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let output = plain().args(["--listen", &port]).output().unwrap();
    let error = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(error.contains(&port) && error.contains("in use"), "{error}");
}

#[test]
fn port_and_address_of_a_spring_server_are_used() {
    let port = free_port().to_string();
    let (everywhere, local) = (format!("{}:{port}", unspecified()), format!("127.0.0.1:{port}"));
    type Case<'a> = (&'a [(&'a str, &'a str)], Vec<String>, &'a str);
    let argument = |name: &str, value: &str| format!("--{name}={value}");
    let cases: [Case<'_>; 12] = [
        (&[("SERVER_PORT", &port)], vec![], &everywhere),
        (&[("server.port", &port)], vec![], &everywhere),
        (&[("SERVER_PORT", &format!(" {port} ")), ("SERVER_ADDRESS", "127.0.0.1")], vec![], &local),
        (&[("SERVER_PORT", "1")], vec![argument("server.port", &port)], &everywhere),
        (
            &[("SERVER_ADDRESS", "")],
            vec![argument("server.port", &port), argument("server.address", "127.0.0.1")],
            &local,
        ),
        (&[], vec!["--server.port".into(), port.clone(), "--server.address".into(), "localhost".into()], &local),
        (&[("SERVER_PORT", "1"), ("SERVER_ADDRESS", "192.0.2.1")], vec!["--listen".into(), local.clone()], &local),
        (&[], vec!["--listen".into(), format!(":{port}")], &everywhere),
        (&[], vec![argument("listen", &port)], &everywhere),
        (&[("TOWER_EUREKA_LISTEN", &local), ("SERVER_PORT", "1")], vec![], &local),
        (&[("TOWER_EUREKA_LISTEN", "1")], vec!["--listen".into(), local.clone()], &local),
        (&[("TOWER_EUREKA_LISTEN", " "), ("SERVER_PORT", &port)], vec![], &everywhere),
    ];
    for (variables, arguments, expected) in cases {
        let mut command = plain();
        command.envs(variables.iter().copied()).args(&arguments);
        let (address, log) = listens(command);
        assert_eq!(address, expected, "{variables:?} {arguments:?}");
        let is_listen = |name: &str| name == "TOWER_EUREKA_LISTEN";
        let is_given = arguments.contains(&"--listen".to_owned())
            || variables.iter().any(|(name, value)| is_listen(name) && *value != " ");
        let ignored = is_given && variables.iter().any(|(name, _)| *name == "SERVER_PORT");
        assert_eq!(log.contains("SERVER_PORT is ignored"), ignored, "{log}");
    }
    // Port 0 selects a free port.
    let mut command = plain();
    command.env("SERVER_PORT", "0");
    assert!(listens(command).0.starts_with(unspecified()));
    if has_ipv6() {
        assert!(listens(serve("[::1]:0")).0.starts_with("[::1]:"));
        let mut command = plain();
        command.args(["--server.address=::1", "--server.port=0"]);
        assert!(listens(command).0.starts_with("[::1]:"));
    }
}

#[test]
fn invalid_address_is_an_error() {
    for (variable, argument, code, expected) in [
        (("SERVER_PORT", "abc"), "", 1, "SERVER_PORT is 'abc': expected a port, 0 to 65535"),
        (("SERVER_PORT", "-1"), "", 1, "expected a port"),
        (("SERVER_PORT", "65536"), "", 1, "expected a port"),
        (("SERVER_PORT", "${PORT}"), "", 1, "SERVER_PORT: placeholder ${PORT} has no value"),
        (("SERVER_ADDRESS", "a b"), "", 1, "SERVER_ADDRESS is 'a b': expected a host name"),
        (("X", "x"), "--server.port=8k", 1, "--server.port is '8k'"),
        (("X", "x"), "--server.port", 1, "needs a value"),
        (("X", "x"), "--server.prot=1", 1, "server.prot is no setting"),
        (("X", "x"), "--server.ssl.enabled=true", 1, "server.ssl has settings, but no certificate"),
        (("TOWER_EUREKA_LISTEN", "a b"), "", 2, "expected a host name"),
        (("X", "x"), "--listen=no nsense", 2, "expected a host name or an address"),
        (("X", "x"), "--listen=70000", 2, "expected a port"),
        (("X", "x"), "--listen=", 2, "expected"),
        (("X", "x"), "--listen=::1:8761", 2, "expected brackets"),
        (("X", "x"), "--listen=[nonsense]:1", 2, "expected an IPv6 address"),
        (("X", "x"), "--listen=http://localhost:8761", 2, "expected"),
    ] {
        let mut command = plain();
        command.env(variable.0, variable.1);
        if !argument.is_empty() {
            command.arg(argument);
        }
        let output = command.output().unwrap();
        let error = String::from_utf8(output.stderr).unwrap();
        assert_eq!((output.status.code(), output.stdout.len()), (Some(code), 0), "{variable:?} {argument}: {error}");
        assert!(error.contains(expected), "{variable:?} {argument}: {error}");
    }
}

#[test]
fn probes_respond_with_200_once_open_for_traffic_and_with_503_until_then() {
    let open = start(&[]);
    let closed = start(&["--eureka.client.serviceUrl.defaultZone=http://127.0.0.1:1/eureka/"]);
    let (up, out) = (r#"{"status":"UP"}"#, r#"{"status":"OUT_OF_SERVICE"}"#);
    for (path, ready, closed_status, not_ready) in [
        ("/", "open for traffic", 503, "not open for traffic yet"),
        ("/health", up, 503, out),
        ("/actuator/health", up, 503, out),
        ("/actuator/health/", up, 503, out),
        ("/actuator/health/readiness", up, 503, out),
        ("/actuator/health/liveness", up, 200, up),
    ] {
        let get = |running: &Running, method: &str| {
            exchange(running, &format!("{method} {path} HTTP/1.0\r\nHost: x\r\nAccept: */*\r\n\r\n"))
        };
        for (running, status, words) in [(&open, 200, ready), (&closed, closed_status, not_ready)] {
            let response = get(running, "GET");
            assert!(response.starts_with(&format!("HTTP/1.0 {status} ")), "{path}: {response}");
            assert!(response.contains(words), "{path}: {response}");
            let head = get(running, "HEAD");
            assert!(head.starts_with(&format!("HTTP/1.0 {status} ")) && head.ends_with("\r\n\r\n"), "{path}: {head}");
        }
    }
    let missing = exchange(&open, "GET /actuator/env HTTP/1.0\r\nHost: x\r\n\r\n");
    assert!(missing.starts_with("HTTP/1.0 404 "), "{missing}");
    let apps = exchange(&closed, "GET /eureka/apps HTTP/1.0\r\nHost: x\r\n\r\n");
    assert!(apps.starts_with("HTTP/1.0 403 "), "{apps}");
}

#[test]
fn management_port_has_the_endpoints_for_operators_alone() {
    let port = free_port();
    let running = start(&[&format!("--management.server.port={port}")]);
    let status = |port: u16, path: &str| {
        let mut connection = TcpStream::connect(("127.0.0.1", port)).unwrap();
        ask(&mut connection, &format!("GET {path} HTTP/1.0\r\nHost: x\r\n\r\n"))[9..12].to_owned()
    };
    for (path, registry, management) in [
        ("/eureka/apps", "200", "404"),
        ("/actuator/health", "200", "200"),
        ("/actuator/health/liveness", "200", "200"),
        ("/actuator/info", "404", "200"),
    ] {
        assert_eq!((status(running.port, path), status(port, path)), (registry.into(), management.into()), "{path}");
    }
    assert_eq!(running.stop("TERM"), (Some(0), String::new()));
}

#[test]
fn node_whose_application_name_has_blanks_registers_at_its_peer() {
    let addresses = [(); 2].map(|()| format!("127.0.0.1:{}", free_port()));
    let urls = addresses.each_ref().map(|address| format!("http://{address}/eureka/")).join(",");
    let node = |address: &String| {
        let mut child = serve(address)
            .arg(format!("--eureka.client.service-url.defaultZone={urls}"))
            .args(["--spring.application.name=Service Registry", "--eureka.instance.hostname=127.0.0.1"])
            .args(["--eureka.instance.ip-address=127.0.0.1", "--eureka.server.wait-time-in-ms-when-sync-empty=0"])
            .spawn()
            .unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        stdout.read_line(&mut String::new()).unwrap();
        Running { child, stdout, port: address.rsplit_once(':').unwrap().1.parse().unwrap() }
    };
    let [first, second] = addresses.each_ref().map(node);
    for (at, other) in [(&first, &second), (&second, &first)] {
        let id = format!(r#""instanceId":"127.0.0.1:service registry:{}""#, other.port);
        until(at, "apps/SERVICE%20REGISTRY", &id, true);
        until(at, "status", &format!(r#""available-replicas":"http://127.0.0.1:{}/eureka/,""#, other.port), true);
    }
    assert_eq!(first.stop("TERM"), (Some(0), String::new()));
    let output = serve("127.0.0.1:0").arg("--spring.application.name=a/b").output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8(output.stderr).unwrap().contains("without slashes"));
}

#[test]
fn placeholder_is_an_error_that_shows_no_value() {
    for (variable, argument) in [
        ("", "--eureka.instance.instance-id=${spring.application.name}:${random.value}"),
        (
            "",
            "--eureka.client.serviceUrl.defaultZone=http://u:secret@${eureka.instance.hostname}:${server.port}/eureka/",
        ),
        ("", "--spring.application.name=${MISSING_NAME}${OTHER:secret}"),
        ("", "--eureka.server.eviction-interval-timer-in-ms=${MISSING_X}"),
        ("EUREKA_INSTANCE_HOSTNAME", "${MISSING_HOSTNAME}"),
        ("EUREKA_CLIENT_SERVICEURL_DEFAULTZONE", "http://u:secret@${MISSING_HOST}:8761/eureka/"),
        ("EUREKA_CLIENT_AVAILABILITYZONES_US_EAST_1", "${MISSING_ZONE}"),
    ] {
        let mut command = serve("127.0.0.1:0");
        if variable.is_empty() {
            command.arg(argument);
        } else {
            command.env(variable, argument);
        }
        let output = command.output().unwrap();
        let error = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{variable} {argument}: {error}");
        assert!(error.contains("has no value") && !error.contains("secret"), "{error}");
    }
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

#[test]
fn unknown_setting_is_an_error_that_names_the_nearest() {
    for (argument, expected) in [
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
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn list_of_settings_has_every_setting() {
    let output = Command::new(env!("CARGO_BIN_EXE_tower-eureka")).arg("settings").output().unwrap();
    let help = String::from_utf8(output.stdout).unwrap();
    for property in tower_eureka::server::Property::all() {
        assert!(help.contains(&property.to_string()), "{property}");
    }
    assert!(help.contains("--eureka.server.peer-node-read-timeout-ms <MS>"), "{help}");
    assert!(help.contains("[default: 5000]"), "{help}");
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
fn stopped_node_sends_its_last_changes_to_its_peer() {
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
    let response = exchange(&first, &format!("{head}: {}\r\n\r\n{body}", body.len()));
    assert!(response.contains(" 204 "), "{response}");
    assert_eq!(first.stop("TERM"), (Some(0), String::new()));
    // The last changes were sent before the process ended.
    let request = "GET /eureka/apps HTTP/1.0\r\nHost: x\r\nAccept: application/json\r\n\r\n";
    let applications = exchange(&second, request);
    assert!(applications.contains(r#""instanceId":"i""#), "{applications}");
    assert!(!applications.contains(&id), "{applications}");
}
