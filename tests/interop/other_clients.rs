//! Clients in other languages against this crate's registry: py-eureka-client, and curl with XML.
//!
//! The Python client has a virtual environment below `target/tmp`, which pip fills once per list of
//! requirements. Without Python, curl or the packages a test is skipped with a message; in CI it
//! fails.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tower_eureka::Instance;
use tower_eureka::model::Applications;
use tower_eureka::model::InstanceStatus::{Down, OutOfService, Unknown, Up};

use super::rust::Registry;
use super::{http, until};

/// Time limit of a step. Python may start slowly on a busy machine.
const SOON: Duration = Duration::from_secs(30);

#[tokio::test]
async fn python_client_registers_renews_is_overridden_and_leaves() {
    let Some(python) = python().await else { return };
    let registry = Registry::start("python-registry").await;
    let url = &registry.url;
    let other = r#"{"instance":{"instanceId":"other:1","hostName":"h","app":"OTHER","ipAddr":"127.0.0.1","status":"UP","dataCenterInfo":{"@class":"com.netflix.appinfo.InstanceInfo$DefaultDataCenterInfo","name":"MyOwn"}}}"#;
    let mut client = Client::start(&python, url).await;
    let registered = http::instance(url, "PYTHON-ORDERS", "python:1").await.expect("instance is registered");
    assert_eq!((registered.status(), registered.port().number), (Up, 9));
    assert_eq!(registered.metadata().get("colour"), Some("blau & grün"));
    let lease = registered.lease().expect("registry lists a lease");
    assert_eq!((lease.renewal_interval_secs, lease.duration_secs), (3_600, 7_200));

    assert_eq!(client.step("heartbeat").await, "heartbeat []");
    let renewed = http::instance(url, "PYTHON-ORDERS", "python:1").await.expect("instance is registered");
    let renewal = |instance: &Instance| instance.lease().expect("registry lists a lease").last_renewal_timestamp;
    assert!(renewal(&renewed) > renewal(&registered), "one duration ahead: {renewed:?}");
    let registered_at = |instance: &Instance| instance.lease().expect("registry lists a lease").registration_timestamp;
    assert_eq!(registered_at(&renewed), registered_at(&registered), "a heartbeat is no registration");

    let curl = ["-X", "POST", "-H", "Content-Type: application/json", "--data-binary", other];
    assert_eq!(curl_or_panic(&curl, &format!("{url}apps/OTHER")).await.0, 204);
    assert_eq!(client.step("view").await, "view OTHER other:1 UP,PYTHON-ORDERS python:1 UP");
    assert_eq!(client.step("out").await, "out []");
    let out = http::instance(url, "PYTHON-ORDERS", "python:1").await.expect("instance is registered");
    assert_eq!((out.status(), out.overridden_status()), (OutOfService, OutOfService));
    assert_eq!(client.step("view").await, "view OTHER other:1 UP,PYTHON-ORDERS python:1 OUT_OF_SERVICE");
    assert_eq!(client.step("back").await, "back []");
    let back = http::instance(url, "PYTHON-ORDERS", "python:1").await.expect("instance is registered");
    assert_eq!((back.status(), back.overridden_status()), (Unknown, Unknown), "until it registers again");

    assert_eq!(client.step("stop").await, "stop []");
    assert!(http::is_gone(url, "PYTHON-ORDERS", "python:1").await);
    client.finish().await;
}

#[tokio::test]
async fn curl_with_xml_registers_renews_is_overridden_and_leaves() {
    if !is_installed("curl", "--version").await {
        return;
    }
    let registry = Registry::start("curl-registry").await;
    let url = &registry.url;
    let gateway = format!("{url}apps/GATEWAY/gw-7");
    let document = concat!("@", env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/xml/x2_register_fargo.xml");
    let post = ["-X", "POST", "-H", "Content-Type: application/xml", "--data-binary", document];
    let empty = |status| (status, String::new());
    assert_eq!(curl_or_panic(&post, &format!("{url}apps/GATEWAY")).await, empty(204));
    let put = |path: &str| (["-X", "PUT"], format!("{gateway}{path}"));
    let delete = |path: &str| (["-X", "DELETE"], format!("{gateway}{path}"));
    let send = async |(arguments, url): ([&str; 2], String)| curl_or_panic(&arguments, &url).await;

    assert_eq!(send(put("?status=UP")).await, empty(200));
    assert_eq!(send(put("/status?value=OUT_OF_SERVICE")).await, empty(200));
    assert_eq!(send(put("/metadata?canary=yes")).await, empty(200));
    let (status, one) = curl_or_panic(&[], &gateway).await;
    assert_eq!(status, 200);
    let read = Instance::from_xml(one.as_bytes()).expect("document is valid");
    assert_eq!((read.status(), read.overridden_status()), (OutOfService, OutOfService));
    assert_eq!(read.metadata().get("canary"), Some("yes"));
    assert!(one.starts_with("<instance>\n  <instanceId>gw-7</instanceId>\n"), "{one}");

    // curl sends `Accept: */*`, which means XML.
    let (status, delta) = curl_or_panic(&[], &format!("{url}apps/delta")).await;
    assert_eq!(status, 200);
    assert!(delta.contains("<apps__hashcode>OUT_OF_SERVICE_1_</apps__hashcode>"), "{delta}");
    assert!(delta.contains("<status>OUT_OF_SERVICE</status>"), "{delta}");
    let listed = Applications::from_xml(delta.as_bytes()).expect("document is valid");
    assert_eq!(listed.applications.len(), 1, "{delta}");
    assert_eq!(listed.applications[0].instances[0].id(), "gw-7");

    assert_eq!(send(delete("/status?value=DOWN")).await, empty(200));
    assert_eq!(http::instance(url, "GATEWAY", "gw-7").await.map(|i| i.status()), Some(Down));
    assert_eq!(send(delete("")).await, empty(200));
    assert_eq!(send(delete("")).await.0, 404);
    assert_eq!(send(put("")).await, empty(404), "404 without a body makes clients register again");
    let (_, delta) = curl_or_panic(&["--compressed"], &format!("{url}apps/delta")).await;
    assert!(delta.contains("<apps__hashcode></apps__hashcode>") && delta.contains("DELETED"), "{delta}");
}

/// Process of `life.py`: each input line is a step, each output line is its result.
struct Client {
    child: Child,
    input: ChildStdin,
    output: Lines<BufReader<ChildStdout>>,
}

impl Client {
    async fn start(python: &Path, registry: &str) -> Self {
        let log = std::fs::File::create(scratch("interop").join("python-client.err.log"))
            .expect("target directory is writable");
        let mut child = Command::new(python)
            .arg(sources().join("life.py"))
            .arg(registry)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .expect("Python of the environment starts");
        let input = child.stdin.take().expect("stream is piped");
        let output = BufReader::new(child.stdout.take().expect("stream is piped")).lines();
        let mut client = Self { child, input, output };
        assert_eq!(client.line().await, "started");
        client
    }

    async fn step(&mut self, step: &str) -> String {
        self.input.write_all(format!("{step}\n").as_bytes()).await.expect("client reads its input");
        self.line().await
    }

    async fn line(&mut self) -> String {
        let line = tokio::time::timeout(SOON, self.output.next_line()).await.expect("client responds in time");
        line.expect("output is UTF-8").expect("client is running, see target/tmp/interop/python-client.err.log")
    }

    async fn finish(self) {
        let Self { mut child, input, .. } = self;
        drop(input);
        let status =
            until("the Python client ends", SOON, async || child.try_wait().expect("child can be waited for")).await;
        assert!(status.success(), "{status}");
    }
}

/// Returns the Python of a virtual environment with the client. `None` without Python or the
/// packages.
async fn python() -> Option<PathBuf> {
    if !is_installed("python3", "--version").await {
        return None;
    }
    let wanted = std::fs::read_to_string(sources().join("requirements.txt")).expect("requirements.txt is in the suite");
    let environment = scratch("python");
    let (python, filled) = (environment.join("bin/python"), environment.join("requirements.txt"));
    if std::fs::read_to_string(&filled).is_ok_and(|installed| installed == wanted) {
        return Some(python);
    }
    let mut made = run(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&environment)).await;
    if made.is_ok() {
        let mut pip = Command::new(&python);
        pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r"]);
        made = run(pip.arg(sources().join("requirements.txt"))).await;
    }
    if let Err(reason) = made {
        missing(&format!("py-eureka-client cannot be installed: {reason}"));
        return None;
    }
    std::fs::write(filled, wanted).expect("target directory is writable");
    Some(python)
}

fn sources() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/interop/python")
}

fn scratch(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    std::fs::create_dir_all(&path).expect("target directory is writable");
    path
}

async fn is_installed(program: &str, argument: &str) -> bool {
    let installed = run(Command::new(program).arg(argument)).await;
    if let Err(reason) = &installed {
        missing(&format!("{program} cannot be run: {reason}"));
    }
    installed.is_ok()
}

/// Reports a skipped test. In CI it panics.
fn missing(what: &str) {
    let message = format!("SKIPPED: {what}");
    assert!(std::env::var_os("CI").is_none_or(|ci| ci != "true"), "{message}");
    eprintln!("{message}");
}

/// Runs a command and returns its standard output, or its standard error if it fails.
async fn run(command: &mut Command) -> Result<String, String> {
    let output = command.stdin(Stdio::null()).kill_on_drop(true).output().await.map_err(|error| error.to_string())?;
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
}

/// Sends a request with curl. Returns status and body.
async fn curl_or_panic(arguments: &[&str], url: &str) -> (u16, String) {
    let mut command = Command::new("curl");
    command.args(["--silent", "--show-error", "--max-time", "20", "--write-out", "\n%{http_code}"]).args(arguments);
    let output = run(command.arg(url)).await.unwrap_or_else(|error| panic!("curl {url}: {error}"));
    let (body, status) = output.rsplit_once('\n').expect("the status is on a line of its own");
    (status.parse().expect("status is a number"), body.to_owned())
}
