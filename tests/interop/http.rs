//! Minimal HTTP client of the tests: one request per connection.

use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tower_eureka::Instance;
use tower_eureka::model::Application;

/// Time limit of a request. It suffices for a JVM that shares two cores with a build.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Returns status and body of `GET url`, or `None` without a response.
pub(crate) async fn get(url: &str) -> Option<(u16, String)> {
    tokio::time::timeout(TIMEOUT, request(url)).await.ok()?
}

/// Sends HTTP/1.0, so that the body ends with the connection. Credentials before the host,
/// `user:password@`, are sent as well.
async fn request(url: &str) -> Option<(u16, String)> {
    let (host, path) = url.strip_prefix("http://")?.split_once('/')?;
    let (credentials, host) = host.rsplit_once('@').unwrap_or(("", host));
    let authorization = match credentials {
        "" => String::new(),
        _ => format!("Authorization: Basic {}\r\n", BASE64_STANDARD.encode(credentials)),
    };
    let mut stream = TcpStream::connect(host).await.ok()?;
    let head =
        format!("GET /{path} HTTP/1.0\r\nHost: {host}\r\nAccept: application/json, text/plain\r\n{authorization}\r\n");
    stream.write_all(head.as_bytes()).await.ok()?;
    let mut response = Vec::new();
    stream.read_to_end(&mut response).await.ok()?;
    let response = String::from_utf8(response).ok()?;
    let (head, body) = response.split_once("\r\n\r\n")?;
    Some((head.split(' ').nth(1)?.parse().ok()?, body.to_owned()))
}

/// Returns the body of a response with status 200.
pub(crate) async fn text(url: &str) -> Option<String> {
    get(url).await.filter(|(status, _)| *status == 200).map(|(_, body)| body)
}

/// Fetches an application. Returns `None` if the registry does not have it or does not respond.
pub(crate) async fn application(registry: &str, app: &str) -> Option<Application> {
    let body = text(&format!("{registry}apps/{app}")).await?;
    Some(Application::from_json(body.as_bytes()).expect("response is an application"))
}

/// Fetches the only instance of an application.
pub(crate) async fn only_instance(registry: &str, app: &str) -> Option<Instance> {
    let application = application(registry, app).await?;
    assert_eq!(application.instances.len(), 1, "{application:?}");
    Some((*application.instances[0]).clone())
}

/// Fetches one instance, which the Java server does not take from its cache. A list request at the
/// wrong moment can put replaced data back into that cache for three minutes.
pub(crate) async fn instance(registry: &str, app: &str, id: &str) -> Option<Instance> {
    let body = text(&format!("{registry}apps/{app}/{id}")).await?;
    Some(Instance::from_json(body.as_bytes()).expect("response is an instance"))
}

/// Returns `true` if the registry responds with 404 for the instance.
pub(crate) async fn is_gone(registry: &str, app: &str, id: &str) -> bool {
    matches!(get(&format!("{registry}apps/{app}/{id}")).await, Some((404, _)))
}
