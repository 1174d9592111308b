//! Headless Chromium, driven by the DevTools protocol.

use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;

/// Maximum time of each wait.
const LIMIT: Duration = Duration::from_secs(30);

pub(crate) struct Browser {
    process: Child,
    profile: PathBuf,
    socket: WebSocketStream<TcpStream>,
    id: u64,
    /// Events that no command has waited for.
    events: Vec<Value>,
}

/// Tab of a browser.
pub(crate) struct Page<'a> {
    browser: &'a mut Browser,
    session: String,
}

/// Returns the name of an installed Chromium.
pub(crate) fn chromium() -> Option<&'static str> {
    let is_installed = |name: &&str| {
        let version = Command::new(name).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
        version.is_ok_and(|status| status.success())
    };
    ["chromium", "chromium-browser", "google-chrome"].into_iter().find(is_installed)
}

impl Browser {
    pub(crate) async fn start(program: &str) -> Self {
        let name = format!("tower-eureka-page-{}-{:x}", std::process::id(), fastrand::u64(..));
        let profile = std::env::temp_dir().join(name);
        let mut process = Command::new(program)
            .args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"])
            .args(["--disable-background-networking", "--disable-component-update", "--hide-scrollbars"])
            .args(["--remote-debugging-port=0", "about:blank"])
            .arg(format!("--user-data-dir={}", profile.display()))
            .process_group(0)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut log = BufReader::new(process.stderr.take().unwrap());
        let url = loop {
            let mut line = String::new();
            assert_ne!(log.read_line(&mut line).unwrap(), 0, "Chromium ended");
            if let Some((_, url)) = line.split_once("DevTools listening on ") {
                break url.trim().to_owned();
            }
        };
        // A full pipe would block the browser.
        std::thread::spawn(move || for _ in log.lines() {});
        let address = url.trim_start_matches("ws://").split('/').next().unwrap().to_owned();
        let stream = TcpStream::connect(address).await.unwrap();
        let (socket, _) = tokio_tungstenite::client_async(url, stream).await.unwrap();
        Self { process, profile, socket, id: 0, events: Vec::new() }
    }

    /// Opens a tab.
    pub(crate) async fn page(&mut self) -> Page<'_> {
        let target = self.call(None, "Target.createTarget", json!({"url": "about:blank"})).await;
        let attach = json!({"targetId": target["targetId"], "flatten": true});
        let session = self.call(None, "Target.attachToTarget", attach).await;
        let session = session["sessionId"].as_str().unwrap().to_owned();
        let mut page = Page { browser: self, session };
        for domain in ["Page", "Runtime", "Network", "Log", "Performance"] {
            page.call(&format!("{domain}.enable"), json!({})).await;
        }
        page
    }

    async fn call(&mut self, session: Option<&str>, method: &str, params: Value) -> Value {
        self.try_call(session, method, params).await.unwrap_or_else(|error| panic!("{method}: {error}"))
    }

    async fn try_call(&mut self, session: Option<&str>, method: &str, params: Value) -> Result<Value, Value> {
        self.id += 1;
        let mut message = json!({"id": self.id, "method": method, "params": params});
        if let Some(session) = session {
            message["sessionId"] = session.into();
        }
        self.socket.send(Message::text(message.to_string())).await.unwrap();
        loop {
            let message = self.receive().await;
            if message["id"] == self.id {
                return message.get("error").map_or_else(|| Ok(message["result"].clone()), |error| Err(error.clone()));
            }
            self.events.push(message);
        }
    }

    async fn receive(&mut self) -> Value {
        let message = timeout(LIMIT, self.socket.next()).await.expect("Chromium responds").unwrap().unwrap();
        serde_json::from_str(message.to_text().unwrap()).unwrap()
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // Its other processes would write to the profile again.
        let group = format!("-{}", self.process.id());
        let _ = Command::new("kill").args(["-KILL", "--", &group]).status();
        let _ = self.process.wait();
        let _ = std::fs::remove_dir_all(&self.profile);
    }
}

impl Page<'_> {
    async fn call(&mut self, method: &str, params: Value) -> Value {
        let session = self.session.clone();
        self.browser.call(Some(&session), method, params).await
    }

    /// Opens a URL and waits until it is loaded.
    pub(crate) async fn open(&mut self, url: &str) {
        self.call("Page.navigate", json!({"url": url})).await;
        self.wait(&format!("document.readyState === 'complete' && location.href !== 'about:blank' && {url:?}")).await;
    }

    /// Evaluates an expression, also one that is a promise.
    pub(crate) async fn evaluate(&mut self, expression: &str) -> Value {
        let params = json!({"expression": expression, "returnByValue": true, "awaitPromise": true});
        let result = self.call("Runtime.evaluate", params).await;
        assert!(result.get("exceptionDetails").is_none(), "{expression}: {result}");
        result["result"]["value"].clone()
    }

    /// Waits until an expression is true.
    pub(crate) async fn wait(&mut self, condition: &str) {
        let begun = tokio::time::Instant::now();
        loop {
            // A page that is just being replaced has no context, or ends the call with an error.
            let params = json!({"expression": format!("Boolean({condition})"), "returnByValue": true});
            let session = self.session.clone();
            let result = self.browser.try_call(Some(&session), "Runtime.evaluate", params).await;
            if result.as_ref().is_ok_and(|result| result["result"]["value"] == true) {
                return;
            }
            assert!(begun.elapsed() < LIMIT, "{condition}: {result:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Returns a metric of the tab, such as `ScriptDuration`.
    pub(crate) async fn metric(&mut self, name: &str) -> f64 {
        let metrics = self.call("Performance.getMetrics", json!({})).await;
        let metrics = metrics["metrics"].as_array().unwrap().clone();
        metrics.iter().find(|metric| metric["name"] == name).unwrap()["value"].as_f64().unwrap()
    }

    /// Presses a key at the focused element.
    pub(crate) async fn press(&mut self, key: &str) {
        let code = json!({"key": key, "code": key, "text": "\r", "windowsVirtualKeyCode": 13});
        for kind in ["keyDown", "keyUp"] {
            let mut params = code.clone();
            params["type"] = kind.into();
            self.call("Input.dispatchKeyEvent", params).await;
        }
    }

    /// Turns off the scripts of pages. Those of the test still run.
    pub(crate) async fn without_scripts(&mut self) {
        self.call("Emulation.setScriptExecutionDisabled", json!({"value": true})).await;
    }

    /// Sets the preferred colour scheme.
    pub(crate) async fn prefer(&mut self, scheme: &str) {
        let features = json!([{"name": "prefers-color-scheme", "value": scheme}]);
        self.call("Emulation.setEmulatedMedia", json!({"features": features})).await;
    }

    pub(crate) async fn resize(&mut self, width: u32, height: u32) {
        let params = json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500});
        self.call("Emulation.setDeviceMetricsOverride", params).await;
    }

    /// Returns the visible part as PNG.
    pub(crate) async fn screenshot(&mut self) -> Vec<u8> {
        let shot = self.call("Page.captureScreenshot", json!({"format": "png"})).await;
        STANDARD.decode(shot["data"].as_str().unwrap()).unwrap()
    }

    fn events<'b>(&'b self, method: &'b str) -> impl Iterator<Item = &'b Value> {
        let own = move |event: &&Value| event["method"] == method && event["sessionId"] == *self.session;
        self.browser.events.iter().filter(own).map(|event| &event["params"])
    }

    /// Returns the number of dialogs that scripts have opened.
    pub(crate) fn dialogs(&self) -> usize {
        self.events("Page.javascriptDialogOpening").count()
    }

    /// Panics if the page has sent a request to another server.
    pub(crate) fn assert_own_requests_only(&self, url: &str) {
        let requests: Vec<_> = self.events("Network.requestWillBeSent").map(|e| &e["request"]["url"]).collect();
        assert!(!requests.is_empty());
        let is_foreign = |request: &&&Value| {
            let request = request.as_str().unwrap();
            !request.starts_with(url) && !request.starts_with("data:") && request != "about:blank"
        };
        let foreign: Vec<_> = requests.iter().filter(is_foreign).collect();
        assert!(foreign.is_empty(), "{foreign:?}");
    }

    /// Panics if a script has failed, or if the content security policy has refused anything.
    pub(crate) fn assert_no_errors(&self) {
        let thrown: Vec<_> = self.events("Runtime.exceptionThrown").collect();
        let logged: Vec<_> = self.events("Log.entryAdded").filter(|e| e["entry"]["level"] == "error").collect();
        assert!(thrown.is_empty() && logged.is_empty(), "{thrown:?} {logged:?}");
    }
}
