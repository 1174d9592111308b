//! One request per connection, which is all that a look from outside needs.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tower_eureka::Instance;
use tower_eureka::model::Application;

/// Long enough for a JVM that shares two cores with a build.
const TIMEOUT: Duration = Duration::from_secs(10);

/// The status and body of `GET url`, or nothing where nobody answers.
pub(crate) async fn get(url: &str) -> Option<(u16, String)> {
    tokio::time::timeout(TIMEOUT, request(url)).await.ok()?
}

/// HTTP/1.0, so that the body ends with the connection.
async fn request(url: &str) -> Option<(u16, String)> {
    let (host, path) = url.strip_prefix("http://")?.split_once('/')?;
    let mut stream = TcpStream::connect(host).await.ok()?;
    let head = format!("GET /{path} HTTP/1.0\r\nHost: {host}\r\nAccept: application/json, text/plain\r\n\r\n");
    stream.write_all(head.as_bytes()).await.ok()?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.ok()?;
    let answer = String::from_utf8(answer).ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    Some((head.split(' ').nth(1)?.parse().ok()?, body.to_owned()))
}

/// The body of a good answer.
pub(crate) async fn text(url: &str) -> Option<String> {
    get(url).await.filter(|(status, _)| *status == 200).map(|(_, body)| body)
}

/// What a registry says of an application; `None` if it does not know it, or does not answer.
pub(crate) async fn application(registry: &str, app: &str) -> Option<Application> {
    let body = text(&format!("{registry}apps/{app}")).await?;
    Some(Application::from_json(body.as_bytes()).expect("a registry answers with an application"))
}

/// The only instance of an application.
pub(crate) async fn only_instance(registry: &str, app: &str) -> Option<Instance> {
    let application = application(registry, app).await?;
    assert_eq!(application.instances.len(), 1, "{application:?}");
    Some((*application.instances[0]).clone())
}

/// One instance as the registry has it now. The Java server answers lists from a cache into which a look at the wrong moment
/// can put back what was just replaced, for three minutes; single instances it looks up.
pub(crate) async fn instance(registry: &str, app: &str, id: &str) -> Option<Instance> {
    let body = text(&format!("{registry}apps/{app}/{id}")).await?;
    Some(Instance::from_json(body.as_bytes()).expect("a registry answers with an instance"))
}

/// Whether a registry that answers does not know the instance.
pub(crate) async fn is_gone(registry: &str, app: &str, id: &str) -> bool {
    matches!(get(&format!("{registry}apps/{app}/{id}")).await, Some((404, _)))
}
