//! Prometheus itself: it discovers its targets from the registry, and scrapes the registry.

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tower_eureka::EurekaServer;

use crate::common::{document, request};

/// Prometheus starts within a few seconds on a busy machine, and then refreshes each second.
const LIMIT: Duration = Duration::from_secs(60);

/// Process that is killed when dropped, with its data.
struct Running {
    child: Child,
    folder: PathBuf,
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// Starts Prometheus with this configuration, and returns its port. `None` if it is not installed.
fn start(configuration: &str) -> Option<(Running, u16)> {
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("prometheus-{port}"));
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join("prometheus.yml"), configuration).unwrap();
    let spawned = Command::new("prometheus")
        .arg(format!("--config.file={}", folder.join("prometheus.yml").display()))
        .arg(format!("--storage.tsdb.path={}", folder.join("data").display()))
        .arg(format!("--web.listen-address=127.0.0.1:{port}"))
        .stdout(Stdio::null())
        .stderr(fs::File::create(folder.join("log")).unwrap())
        .spawn();
    match spawned {
        Ok(child) => Some((Running { child, folder }, port)),
        Err(error) => {
            fs::remove_dir_all(&folder).unwrap();
            #[allow(clippy::print_stderr, reason = "a skipped test says so")]
            {
                eprintln!("!!! SKIPPED: prometheus is not installed ({error}), its discovery is not tried");
            }
            None
        }
    }
}

/// Returns the result of a query, or `None` while Prometheus does not respond.
async fn query(port: u16, expression: &str) -> Option<Value> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await.ok()?;
    let path =
        format!("/api/v1/query?query={}", expression.replace('"', "%22").replace('{', "%7B").replace('}', "%7D"));
    stream.write_all(format!("GET {path} HTTP/1.0\r\nhost: x\r\n\r\n").as_bytes()).await.ok()?;
    let mut response = String::new();
    stream.read_to_string(&mut response).await.ok()?;
    let body: Value = serde_json::from_str(response.split_once("\r\n\r\n")?.1).ok()?;
    Some(body["data"]["result"].clone())
}

#[tokio::test]
async fn prometheus_discovers_targets_from_the_registry_and_scrapes_them() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let registry = listener.local_addr().unwrap().port();
    let configuration = format!(
        "global: {{scrape_interval: 1s}}\nscrape_configs:\n  - job_name: discovered\n    eureka_sd_configs:\n      \
         - server: http://127.0.0.1:{registry}/eureka\n        refresh_interval: 1s\n    relabel_configs:\n      \
         - {{source_labels: [__meta_eureka_app_name], target_label: app}}\n      \
         - {{source_labels: [__meta_eureka_app_instance_metadata_zone], target_label: zone}}\n"
    );
    let Some((mut prometheus, port)) = start(&configuration) else { return };
    let server = EurekaServer::builder().build().unwrap();
    let serving =
        tokio::spawn(server.listener(listener).serve(server.service("/eureka").with_probes(), std::future::pending()));
    // The registry itself is the instance that is discovered and scraped.
    let own = document("h:orders:1", "UP", 1).replace(r#""hostName":"h""#, r#""hostName":"127.0.0.1""#).replace(
        r#""vipAddress""#,
        &format!(r#""port":{{"$":{registry},"@enabled":"true"}},"metadata":{{"zone":"east"}},"vipAddress""#),
    );
    let registered = request("POST", "/apps/ORDERS").body(axum::body::Body::from(own)).unwrap();
    let response = tower::ServiceExt::oneshot(server.router(), registered).await.unwrap();
    assert_eq!(response.status(), http::StatusCode::NO_CONTENT);
    let mut last = None;
    let seen = async {
        loop {
            let up = query(port, r#"tower_eureka_instances{status="UP",app="ORDERS",zone="east"}"#).await;
            let is_seen = up.as_ref().is_some_and(|up| up[0]["value"][1] == "1");
            last = up;
            if is_seen {
                return;
            }
            assert!(prometheus.child.try_wait().unwrap().is_none(), "prometheus exited");
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    };
    let is_late = tokio::time::timeout(LIMIT, seen).await.is_err();
    let log = fs::read_to_string(prometheus.folder.join("log")).unwrap_or_default();
    assert!(!is_late, "{last:?}\n{log}");
    serving.abort();
}
