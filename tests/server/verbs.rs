//! The verbs of the binary for operators, against registries of this crate.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::thread::JoinHandle;

use serde_json::Value;

use crate::binary::{Running, exchange, free_port, remove_settings, start, start_at};

/// Verbs with arguments that lead to their help.
const VERBS: &[&[&str]] = &[
    &["apps"],
    &["watch"],
    &["status"],
    &["status", "set"],
    &["status", "clear"],
    &["metadata"],
    &["cancel"],
    &["drain"],
    &["diff"],
    &["health"],
    &["settings"],
    &["serve"],
    &["config"],
    &["completion"],
    &["man"],
];
const VARIABLE: &str = "TOWER_EUREKA_CREDENTIALS";

/// Returns the command without settings from the environment.
fn verb(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tower-eureka"));
    command.args(arguments).stdin(Stdio::null());
    remove_settings(&mut command);
    command
}

/// Runs a verb. Returns its exit code and its output.
fn run(arguments: &[&str]) -> (i32, String, String) {
    finish(&mut verb(arguments))
}

fn finish(command: &mut Command) -> (i32, String, String) {
    let output = command.output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

fn json(arguments: &[&str]) -> Value {
    let (code, out, err) = run(arguments);
    assert_eq!((code, &*err), (0, ""), "{arguments:?}: {out}");
    serde_json::from_str(&out).unwrap_or_else(|error| panic!("{error}: {out}"))
}

fn url(running: &Running) -> String {
    format!("http://127.0.0.1:{}/eureka/", running.port)
}

/// Registers an instance of ORDERS with further members.
fn register(running: &Running, id: &str, members: &str) {
    let body = format!(
        r#"{{"instance":{{"instanceId":{},"hostName":"h","app":"ORDERS","ipAddr":"10.0.0.1","status":"UP","dataCenterInfo":{{"name":"MyOwn"}}{members}}}}}"#,
        Value::from(id)
    );
    let head = "POST /eureka/apps/ORDERS HTTP/1.0\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length";
    let response = exchange(running, &format!("{head}: {}\r\n\r\n{body}", body.len()));
    assert!(response.contains(" 204 "), "{response}");
}

fn changed(running: &Running, request: &str) {
    let response = exchange(running, &format!("{request} HTTP/1.0\r\nHost: x\r\n\r\n"));
    assert!(response.contains(" 200 "), "{response}");
}

/// Server that responds to one request with this status, and returns the request.
fn respond(status: &'static str) -> (String, JoinHandle<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let serving = std::thread::spawn(move || {
        let (mut socket, _) = listener.accept().unwrap();
        let request = head(&socket);
        let body = r#"{"applications":{"versions__delta":"1","apps__hashcode":"","application":[]}}"#;
        let length = body.len();
        let response = format!(
            "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
        );
        socket.write_all(response.as_bytes()).unwrap();
        request
    });
    (address, serving)
}

fn head(socket: &TcpStream) -> String {
    let mut head = String::new();
    let mut lines = BufReader::new(socket);
    while !head.ends_with("\r\n\r\n") {
        assert_ne!(lines.read_line(&mut head).unwrap(), 0);
    }
    head
}

#[test]
fn help_of_each_verb_fits_on_a_screen_and_has_an_example_and_the_exit_codes() {
    for verb in VERBS {
        let (code, help, err) = run(&[verb, &["--help"][..]].concat());
        assert_eq!((code, &*err), (0, ""));
        let longest = help.lines().map(|line| line.chars().count()).max().unwrap();
        assert!(help.lines().count() <= 40, "{verb:?}: {} lines\n{help}", help.lines().count());
        assert!(longest <= 80, "{verb:?}: {longest} columns\n{help}");
        assert!(help.contains("Exit codes:"), "{verb:?}: {help}");
        assert!(help.contains("xample") || verb[0] == "serve", "{verb:?}: {help}");
    }
}

#[test]
fn instances_are_listed_as_a_table_and_as_json() {
    let registry = start(&[]);
    let url = url(&registry);
    register(
        &registry,
        "orders-2",
        r#","port":{"$":8080,"@enabled":"true"},"metadata":{"zone":"rack-a","version":"1.2"}"#,
    );
    register(&registry, "orders-1", "");
    changed(&registry, "PUT /eureka/apps/ORDERS/orders-1/status?value=OUT_OF_SERVICE");

    let (code, out, err) = run(&["apps", "--url", &url]);
    assert_eq!((code, &*err), (0, ""), "{out}");
    let rows: Vec<Vec<&str>> = out.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(rows[0], ["APPLICATION", "INSTANCE", "STATUS", "ADDRESS", "ZONE", "VERSION", "UP", "FOR"]);
    assert_eq!(rows[1][..4], ["ORDERS", "orders-1", "OUT_OF_SERVICE", "(override)"]);
    assert_eq!(rows[2][..6], ["ORDERS", "orders-2", "UP", "h:8080", "rack-a", "1.2"]);
    assert_eq!(out.lines().last(), Some("2 instances of 1 application: 1 UP, 1 OUT_OF_SERVICE"));

    let all = json(&["apps", "orders", "--json", "--url", &url]);
    assert_eq!((all.as_array().unwrap().len(), &all[1]["metadata"]["zone"]), (2, &Value::from("rack-a")));
    assert_eq!(all[0]["overriddenStatus"], "OUT_OF_SERVICE");
    let some = json(&["apps", "--json", "--status", "out_of_service", "--url", &url]);
    assert_eq!((some.as_array().unwrap().len(), &some[0]["instance"]), (1, &Value::from("orders-1")));
    let (_, long, _) = run(&["apps", "--long", "--url", &url]);
    assert!(long.contains("metadata.version") && long.contains("leaseDurationSeconds"), "{long}");
}

#[test]
fn url_of_the_environment_is_the_default() {
    let registry = start(&[]);
    register(&registry, "orders-1", "");
    let mut command = verb(&["apps", "--json"]);
    let (code, out, err) = finish(command.env("EUREKA_CLIENT_SERVICEURL_DEFAULTZONE", url(&registry)));
    assert_eq!((code, out.contains("orders-1")), (0, true), "{out}{err}");
}

#[test]
fn status_is_set_and_cleared() {
    let registry = start(&[]);
    let url = url(&registry);
    register(&registry, "orders/1", "");
    let (code, out, err) = run(&["status", "set", "orders", "orders/1", "out-of-service", "--url", &url]);
    assert_eq!((code, &*out, &*err), (0, "ORDERS orders/1 UP -> OUT_OF_SERVICE (override OUT_OF_SERVICE)\n", ""));
    let cleared = json(&["status", "clear", "ORDERS", "orders/1", "--fallback", "UP", "--json", "--url", &url]);
    assert_eq!((&cleared["status"], &cleared["overriddenStatus"]), (&"UP".into(), &Value::Null));
    assert_eq!(cleared["before"]["overriddenStatus"], "OUT_OF_SERVICE");

    // Servers store no override that equals the present status.
    let (code, _, err) = run(&["status", "set", "orders", "orders/1", "UP", "--url", &url]);
    assert_eq!((code, err.contains("servers store no override")), (0, true), "{err}");
    let (code, out, err) = run(&["status", "clear", "orders", "orders/1", "--url", &url]);
    assert_eq!((code, &*out), (0, "ORDERS orders/1 UP -> UP\n"));
    assert!(err.contains("had no override"), "{err}");
    let (code, _, err) = run(&["status", "set", "orders", "orders/1", "UNKNOWN", "--url", &url]);
    assert_eq!((code, err.contains("expected UP, DOWN, STARTING or OUT_OF_SERVICE")), (2, true), "{err}");
}

#[test]
fn metadata_is_changed_and_instance_is_cancelled() {
    let registry = start(&[]);
    let url = url(&registry);
    register(&registry, "orders-1", r#","metadata":{"a":"1"}"#);
    let (code, out, _) = run(&["metadata", "orders", "orders-1", "b=x=y&z", "c=", "--url", &url]);
    assert_eq!((code, &*out), (0, "a=1\nb=x=y&z\nc=\n"));
    assert_eq!(json(&["metadata", "orders", "orders-1", "--json", "--url", &url])["b"], "x=y&z");
    let (code, out, _) = run(&["cancel", "orders", "orders-1", "--url", &url]);
    assert_eq!((code, &*out), (0, "ORDERS orders-1 cancelled\n"));
    for arguments in [
        &["cancel", "orders", "orders-1"][..],
        &["metadata", "orders", "orders-1"],
        &["status", "clear", "orders", "orders-1"],
        &["drain", "orders", "orders-1"],
        &["apps", "orders"],
    ] {
        let (code, out, err) = run(&[arguments, &["--url", &url]].concat());
        assert_eq!((code, &*out), (4, ""), "{arguments:?}: {err}");
        assert!(err.contains("tower-eureka apps"), "{err}");
    }
}

#[test]
fn drained_instance_is_out_of_service_and_cancelled_if_asked() {
    let registry = start(&[]);
    let url = url(&registry);
    register(&registry, "orders-1", "");
    let (code, out, err) = run(&["drain", "orders", "orders-1", "--wait", "0.01", "--url", &url]);
    assert_eq!((code, &*err), (0, ""));
    assert!(out.ends_with("ORDERS orders-1 is OUT_OF_SERVICE and drained\n"), "{out}");
    let (code, out, _) = run(&["drain", "orders", "orders-1", "--wait", "0.01", "--cancel", "--json", "--url", &url]);
    let steps: Vec<Value> = out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!((code, &steps.last().unwrap()["step"]), (0, &"cancelled".into()), "{out}");
    assert_eq!(json(&["apps", "--json", "--url", &url]), Value::Array(Vec::new()));
}

#[test]
fn drain_fails_if_a_server_does_not_have_the_change() {
    let (first, second) = (start(&[]), start(&[]));
    let urls = [url(&first), url(&second), format!("http://127.0.0.1:{}/eureka/", free_port())];
    for server in [&first, &second] {
        register(server, "orders-1", "");
    }
    let drain = |urls: &[String]| run(&["drain", "orders", "orders-1", "--wait", "0.01", "--url", &urls.join(",")]);
    let (code, out, err) = drain(&urls);
    assert!(code == 5 && err.contains(&format!("still UP at {}, which", urls[1])), "{code} {err}");
    assert!(!out.contains("drained"), "{out}");
    changed(&second, "PUT /eureka/apps/ORDERS/orders-1/status?value=OUT_OF_SERVICE");
    let (code, out, err) = drain(&urls);
    assert!(code == 0 && out.ends_with("ORDERS orders-1 is OUT_OF_SERVICE and drained\n"), "{code} {out} {err}");
    assert!(err.starts_with("note: a server does not tell") && err.contains(&urls[2]), "{err}");
    let (code, _, err) = drain(&urls[..2]);
    assert_eq!((code, &*err), (0, ""));
}

#[test]
fn servers_that_differ_have_exit_code_1() {
    let (first, second) = (start(&[]), start(&[]));
    let urls = [url(&first), url(&second)];
    let diff = |more: &[&str]| run(&[&["diff", &urls[0], &urls[1]], more].concat());
    assert_eq!(diff(&[]).0, 0, "two empty registries agree");
    for server in [&first, &second] {
        register(server, "same", r#","lastDirtyTimestamp":"1""#);
    }
    let (code, out, err) = diff(&[]);
    assert_eq!((code, &*out, &*err), (0, "2 servers agree; 1 instance each\n", ""));
    // The states are the same again, but the last change is another one.
    changed(&second, "PUT /eureka/apps/ORDERS/same/status?value=DOWN");
    changed(&second, "DELETE /eureka/apps/ORDERS/same/status?value=UP");
    assert_eq!((diff(&[]).0, diff(&["--strict"]).0), (0, 1), "{}", diff(&[]).1);

    register(&first, "missing", "");
    let (code, out, _) = diff(&["--json"]);
    let found: Value = serde_json::from_str(&out).unwrap();
    let missing = found["differences"].as_array().unwrap().iter().find(|found| found["instance"] == "missing").unwrap();
    assert_eq!(
        (code, &missing["field"], &missing["values"]),
        (1, &"instance".into(), &serde_json::json!(["UP", null]))
    );
    let (code, out, _) = diff(&[]);
    assert!(code == 1 && out.contains("differ in 1 value"), "{out}");
    assert_eq!(diff(&["--wait", "0.01"]).0, 1);

    let nobody = format!("http://127.0.0.1:{}/eureka/", free_port());
    let (code, _, err) = run(&["diff", &urls[0], &nobody, "--timeout", "2"]);
    assert_eq!((code, err.contains(&nobody)), (3, true), "{err}");
    for wrong in [&["diff", &urls[0]][..], &["diff", &urls[0], &urls[0]], &["diff", &urls[0], &urls.join(",")]] {
        assert_eq!(run(wrong).0, 2, "{wrong:?}");
    }
}

#[test]
fn health_is_an_exit_code_within_its_limit() {
    let registry = start(&["--eureka.server.wait-time-in-ms-when-sync-empty=0"]);
    let (code, out, err) = run(&["health", "--url", &url(&registry)]);
    assert_eq!((code, &*out, &*err), (0, "UP\n", ""));
    // Without a URL it asks the server of this machine.
    let (code, _, _) = run(&["health", &format!("--server.port={}", registry.port)]);
    assert_eq!(code, 0);
    let port = registry.port.to_string();
    assert_eq!(finish(verb(&["health"]).env("SERVER_PORT", &port)).0, 0);
    assert_eq!(registry.stop("TERM").0, Some(0));
    let (code, out, _) = run(&["health", "--url", &format!("http://127.0.0.1:{port}/")]);
    assert_eq!((code, out.contains("cannot connect")), (1, true), "{out}");
    // It accepts connections and never responds.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let (code, out, _) =
        run(&["health", "--timeout", "0.05", "--url", &format!("http://{}/", silent.local_addr().unwrap())]);
    assert_eq!((code, out.contains("within 50ms")), (1, true), "{out}");
}

#[test]
fn credentials_are_sent_and_never_shown() {
    let file = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join("verbs-credentials");
    std::fs::write(&file, "operator:s3cret\n").unwrap();
    let basic = "authorization: basic b3blcmf0b3i6cznjcmv0";
    for (source, expected) in
        [("url", basic), ("file", basic), ("variable", basic), ("token", "authorization: bearer s3cret")]
    {
        for status in ["200 OK", "401 Unauthorized", "403 Forbidden", "302 Found"] {
            let (address, serving) = respond(status);
            let user = if source == "url" { "operator:s3cret@" } else { "" };
            let mut command = verb(&["apps", "--url", &format!("http://{user}{address}/eureka/")]);
            match source {
                "file" => drop(command.arg("--credentials").arg(&file)),
                "variable" => drop(command.env(VARIABLE, "operator:s3cret")),
                "token" => drop(command.env(VARIABLE, "Bearer s3cret")),
                _ => {}
            }
            // A rejected token is sent once more, which this server does not respond to.
            command.env("RUST_LOG", "trace,h2=off").args(["--timeout", "5"]);
            let (code, out, err) = finish(&mut command);
            let request = serving.join().unwrap().to_ascii_lowercase();
            assert!(request.contains(expected), "{source}: {request}");
            assert!(
                !out.contains("s3cret") && !err.contains("s3cret") && !err.contains("b3BlcmF0b3I6czNjcmV0"),
                "{source}: {err}"
            );
            match status {
                "200 OK" => assert_eq!(code, 0, "{err}"),
                "302 Found" => assert_eq!(code, 5, "{err}"),
                _ if source == "token" => assert_ne!(code, 0),
                _ => assert!(code == 5 && err.contains("--credentials"), "{code} {err}"),
            }
        }
    }
    std::fs::write(&file, "s3cret").unwrap();
    let (code, _, err) = run(&["apps", "--credentials", file.to_str().unwrap()]);
    assert!(code == 2 && err.contains("expected USER:PASSWORD") && !err.contains("s3cret"), "{err}");
    let (code, _, err) = run(&["cancel", "a", "b", "http://u:s3cret@h/"]);
    assert!(code == 2 && err.contains("http://***@h/") && !err.contains("s3cret"), "{err}");
    for wrong in ["http://u:s3cret", "u:s3cret@h", "http://u:s3,cret@h/", "ftp://u:s3cret@h/"] {
        let (code, _, err) = run(&["apps", "--url", wrong]);
        assert!(code == 2 && !err.contains("s3"), "{err}");
    }
}

#[test]
fn server_that_does_not_respond_is_exit_code_3() {
    let port = free_port();
    let (code, out, err) = run(&["apps", "--url", &format!("http://127.0.0.1:{port}/eureka/")]);
    assert_eq!((code, &*out), (3, ""));
    assert!(err.contains(&port.to_string()) && err.contains("is the server running"), "{err}");
    let (address, serving) = respond("404 Not Found");
    let (code, _, err) = run(&["apps", "--url", &format!("http://{address}/")]);
    serving.join().unwrap();
    assert!(code == 3 && err.contains("/eureka/ at its end"), "{err}");
}

/// Process that is killed when the test ends.
struct Watching {
    child: Child,
    lines: BufReader<std::process::ChildStdout>,
}

impl Watching {
    fn start(arguments: &[&str]) -> Self {
        let mut child = verb(arguments).stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap());
        Self { child, lines }
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        assert_ne!(self.lines.read_line(&mut line).unwrap(), 0, "it ended");
        line
    }

    fn event(&mut self) -> Value {
        serde_json::from_str(&self.line()).unwrap()
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn changes_are_printed_once_and_a_restarted_registry_is_watched_again() {
    let port = free_port();
    let registry = start_at(port, &[]);
    register(&registry, "a", "");
    let url = url(&registry);
    let mut watching = Watching::start(&["watch", "--json", "--interval", "0.02", "--url", &url]);
    let first = watching.event();
    assert_eq!(
        (&first["event"], &first["instances"], &first["server"]),
        (&"connected".into(), &1.into(), &(&*url).into())
    );
    register(&registry, "b", r#","metadata":{"k":"1"}"#);
    let event = watching.event();
    assert_eq!((&event["event"], &event["instance"], &event["app"]), (&"added".into(), &"b".into(), &"ORDERS".into()));
    changed(&registry, "PUT /eureka/apps/ORDERS/a/status?value=DOWN");
    let event = watching.event();
    assert_eq!(
        (&event["event"], &event["instance"], &event["status"]),
        (&"changed".into(), &"a".into(), &"DOWN".into())
    );
    assert_eq!(event["changes"][0], serde_json::json!({ "field": "status", "before": "UP", "now": "DOWN" }));
    changed(&registry, "DELETE /eureka/apps/ORDERS/b");
    let event = watching.event();
    assert_eq!((&event["event"], &event["instance"]), (&"removed".into(), &"b".into()));

    assert_eq!(registry.stop("TERM").0, Some(0));
    assert_eq!(watching.event()["event"], "disconnected");
    let registry = start_at(port, &[]);
    assert_eq!(watching.event()["event"], "reconnected");
    assert_eq!((&watching.event()["event"], registry.port), (&"removed".into(), port));
}

#[test]
fn hostile_values_come_out_harmless() {
    let (registry, other) = (start(&[]), start(&[]));
    let (url, other) = (url(&registry), url(&other));
    let hostile =
        "\u{1b}]0;x\u{7}\u{1b}[2J\u{1b}[31m\u{9b}31m\u{202e}\u{2066}\u{200b}\u{7f}\u{e0041}e\u{301}\r\n\t<script>";
    let id = format!("id{hostile}");
    let members = format!(
        r#","vipAddress":{0},"homePageUrl":{0},"metadata":{{"zone":{0},"version":{0},{0}:{0}}}"#,
        Value::from(hostile)
    );
    register(&registry, &id, &members);
    let mut outputs = Vec::new();
    for arguments in [
        &["apps"][..],
        &["apps", "--long"],
        &["apps", "--json"],
        &["apps", hostile],
        &["metadata", "orders", &id],
        &["metadata", "orders", &id, "--json"],
        &["diff", &url, &other],
        &["diff", &url, &other, "--json"],
        &["cancel", hostile, &id],
        &["status", "set", "orders", &id, "DOWN"],
        &["drain", "orders", &id, "--wait", "0.01"],
    ] {
        let target = if arguments[0] == "diff" { &[][..] } else { &["--url", &url] };
        let (_, out, err) = run(&[arguments, target].concat());
        assert!(!out.is_empty() || !err.is_empty(), "{arguments:?}");
        outputs.push(out + &err);
    }
    for form in [&[][..], &["--json"]] {
        let watch = ["watch", "--initial", "--url", &url];
        let mut watching = Watching::start(&[&watch[..], form].concat());
        outputs.push(watching.line() + &watching.line());
    }
    for output in outputs {
        let bad = |c: char| c != '\n' && (c.is_control() || "\u{202e}\u{2066}\u{200b}\u{e0041}\u{301}".contains(c));
        assert!(!output.contains(bad), "{output:?}");
    }
    let all = json(&["apps", "--json", "--url", &url]);
    assert_eq!(all[0]["metadata"][hostile], hostile, "a program reads the value itself");
}

#[test]
fn colors_are_used_only_where_they_are_wanted() {
    let registry = start(&[]);
    register(&registry, "orders-1", "");
    let url = url(&registry);
    let output = |variables: &[(&str, &str)]| {
        let mut command = verb(&["apps", "--url", &url]);
        finish(command.envs(variables.iter().copied())).1
    };
    assert!(!output(&[]).contains('\u{1b}'), "a pipe is no terminal");
    assert!(output(&[("CLICOLOR_FORCE", "1")]).contains("\u{1b}[32mUP"), "{:?}", output(&[("CLICOLOR_FORCE", "1")]));
    assert!(!output(&[("CLICOLOR_FORCE", "0"), ("NO_COLOR", "1")]).contains('\u{1b}'));
}

#[test]
fn reader_that_closes_its_pipe_is_no_error() {
    let mut watching = Watching::start(&["completion", "bash"]);
    drop(std::mem::replace(&mut watching.lines, BufReader::new(spawn_empty())));
    assert_eq!(watching.child.wait().unwrap().code(), Some(0));
}

#[test]
fn output_that_cannot_be_written_is_exit_code_6_and_health_keeps_its_own() {
    let Ok(full) = std::fs::File::options().write(true).open("/dev/full") else { return };
    let registry = start(&["--eureka.server.wait-time-in-ms-when-sync-empty=0"]);
    for (name, code) in [("apps", 6), ("health", 0)] {
        let mut command = verb(&[name, "--url", &url(&registry)]);
        let (found, _, err) = finish(command.stdout(full.try_clone().unwrap()));
        assert_eq!(found, code, "{err}");
    }
}

/// Returns the output of a process that prints nothing.
fn spawn_empty() -> std::process::ChildStdout {
    let mut child = Command::new("true").stdout(Stdio::piped()).spawn().unwrap();
    child.wait().unwrap();
    child.stdout.take().unwrap()
}

#[test]
fn completion_and_manual_have_every_verb() {
    let names = ["apps", "watch", "status", "metadata", "cancel", "drain", "diff", "health", "serve", "config"];
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        let (code, script, _) = run(&["completion", shell]);
        assert!(code == 0 && names.iter().all(|name| script.contains(name)), "{shell}");
    }
    let (code, page, _) = run(&["man"]);
    assert!(code == 0 && page.contains(".TH") && names.iter().all(|name| page.contains(name)), "{page}");
    let (code, page, _) = run(&["man", "diff"]);
    assert!(code == 0 && page.contains("tower\\-eureka\\-diff") && page.contains("Exit codes"), "{page}");
    let (code, _, err) = run(&["man", "nonsense"]);
    assert!(code == 2 && err.contains("apps, watch"), "{err}");
}

/// Runs the script of bash that completes `tower-eureka st`.
#[test]
fn completion_works_in_bash() {
    let (_, script, _) = run(&["completion", "bash"]);
    let complete = "\nfunction=$(complete -p tower-eureka | sed 's/.*-F \\([^ ]*\\).*/\\1/')\n\
                    COMP_WORDS=(tower-eureka st) COMP_CWORD=1\n\
                    $function tower-eureka st tower-eureka; echo \"${COMPREPLY[@]}\"";
    let Ok(mut bash) = Command::new("bash").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn() else { return };
    bash.stdin.take().unwrap().write_all((script + complete).as_bytes()).unwrap();
    let mut completed = String::new();
    bash.stdout.take().unwrap().read_to_string(&mut completed).unwrap();
    bash.wait().unwrap();
    assert_eq!(completed.trim(), "status");
}
