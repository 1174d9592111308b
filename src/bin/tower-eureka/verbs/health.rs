//! `health`: readiness of a registry server, as an exit code.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use http::StatusCode;
use serde_json::{Value, json};
use tokio::time::timeout;
use tower_eureka::Settings;

use super::Context;
use super::failure::{Failure, Outcome};
use super::output::{Color, Output};
use super::target::{Access, Urls, seconds};
use super::text::clean;
use crate::address::{Address, Addresses, addresses};
use crate::serve::LISTEN;

#[derive(Args, Debug)]
pub(crate) struct Health {
    /// Server to check, with or without /eureka/ [default: the server of this machine, at the port
    /// of management.server.port or server.port, else 8761]
    #[arg(long, value_name = "URL")]
    url: Option<Urls>,

    /// File with USER:PASSWORD or "Bearer TOKEN" [default: variable TOWER_EUREKA_CREDENTIALS]
    #[arg(long, value_name = "FILE")]
    credentials: Option<PathBuf>,

    /// Longest time of the check as a whole
    #[arg(long, value_name = "SECONDS", default_value = "3", value_parser = seconds)]
    timeout: Duration,

    /// Print a JSON object
    #[arg(long)]
    json: bool,
}

pub(super) const HELP: &str = "\
Healthy means that the server is open for traffic: /actuator/health responds
with UP. A server without that page is healthy if it sends its list.

EUREKA_CLIENT_SERVICEURL_DEFAULTZONE is not used, since it names the peers of a
server. The settings of `serve` apply, in variables and files too.

Examples:
  HEALTHCHECK CMD [\"/tower-eureka\", \"health\"]
  tower-eureka health --url http://registry:8761/

Exit codes: 0 healthy, 1 not healthy or no response, 2 wrong usage";

/// Result of a check.
#[derive(Debug, PartialEq, Eq)]
struct Checked {
    is_healthy: bool,
    /// Status for people: `UP`, `OUT_OF_SERVICE`, or the reason why there is none.
    status: String,
}

impl Health {
    pub(super) async fn run(self, context: &Context) -> Result<Outcome, Failure> {
        let url = match &self.url {
            Some(Urls(url)) if url.contains(',') => return Err(Failure::usage("only one server can be checked")),
            Some(Urls(url)) => Ok(url.clone()),
            None => own_url(&context.settings),
        };
        let checked = match &url {
            Err(why) => Checked { is_healthy: false, status: why.clone() },
            Ok(url) => timeout(self.timeout, self.check(url, context)).await.unwrap_or_else(|_| Checked {
                is_healthy: false,
                status: format!("no response within {:?}", self.timeout),
            }),
        };
        let color = if checked.is_healthy { Color::Good } else { Color::Bad };
        let output = Output::new(self.json);
        let object = json!({ "healthy": checked.is_healthy, "status": checked.status });
        // The exit code is the result, also without a reader.
        let _ = output.either(&object, &output.paint(color, &clean(&checked.status)));
        Ok(if checked.is_healthy { Outcome::Done } else { Outcome::Negative })
    }

    async fn check(&self, url: &str, context: &Context) -> Checked {
        let checked = self.page(url, context).await;
        checked.unwrap_or_else(|failure| Checked { is_healthy: false, status: failure.to_string() })
    }

    /// Fetches the page of a server, or its list if it has no page.
    async fn page(&self, url: &str, context: &Context) -> Result<Checked, Failure> {
        let access = Access { credentials: self.credentials.clone(), timeout: self.timeout };
        let (root, service) = split(url);
        let client = access.client(Some(&Urls(root)), &context.settings)?;
        let page = client.transport().page("actuator/health").await?;
        if !matches!(page.status().as_u16(), 401 | 403 | 404 | 405 | 406) {
            return Ok(judge(page.status(), page.body()));
        }
        let client = access.client(Some(&Urls(service)), &context.settings)?;
        let mut list = client.transport().page("apps/delta").await?;
        // The server may offer no deltas.
        if list.status() == StatusCode::FORBIDDEN {
            list = client.transport().page("apps").await?;
        }
        let status = list.status();
        let shown = match status.as_u16() {
            200 => "UP".to_owned(),
            401 => {
                format!("responded with {status}; give credentials with --credentials FILE or TOWER_EUREKA_CREDENTIALS")
            }
            _ => format!("responded with {status}"),
        };
        Ok(Checked { is_healthy: status == StatusCode::OK, status: shown })
    }
}

/// Interprets the response of /actuator/health.
fn judge(status: StatusCode, body: &[u8]) -> Checked {
    let document: Value = serde_json::from_slice(body).unwrap_or_default();
    let named = document["status"].as_str();
    let is_healthy = status.is_success() && named.is_none_or(|named| named == "UP");
    let shown = match named {
        Some(named) => named.to_owned(),
        None if is_healthy => "UP".to_owned(),
        None => format!("responded with {status}"),
    };
    Checked { is_healthy, status: shown }
}

/// Returns the URL above `/eureka/` and the service URL of a server.
fn split(url: &str) -> (String, String) {
    let url = url.trim().trim_end_matches('/');
    let url = url.strip_suffix("/actuator/health").unwrap_or(url);
    let root = ["/eureka/v2", "/eureka"].iter().find_map(|end| url.strip_suffix(end));
    match root {
        Some(root) => (format!("{root}/"), format!("{url}/")),
        None => (format!("{url}/"), format!("{url}/eureka/")),
    }
}

/// Returns the URL of the server that runs on this machine with these settings.
fn own_url(arguments: &[String]) -> Result<String, String> {
    let settings = Settings::builder().arguments(arguments).load().map_err(|error| error.to_string())?;
    let listen = std::env::var(LISTEN).ok().filter(|listen| !listen.trim().is_empty());
    let listen = listen.map(|listen| listen.parse::<Address>()).transpose()?;
    let Addresses { traffic, management } = addresses(listen.as_ref(), &settings).map_err(|error| error.to_string())?;
    let is_plain = management.as_ref().is_some_and(|management| management.is_plain);
    let scheme = if is_https(&settings)? && !is_plain { "https" } else { "http" };
    let mut address = management.map_or(traffic, |management| management.address);
    // An address of all interfaces is none to connect to.
    if matches!(&*address.host, "::" | "0.0.0.0") {
        address.host = "localhost".to_owned();
    }
    Ok(format!("{scheme}://{address}/"))
}

/// Returns `true` if the settings give the server a certificate that is not switched off.
fn is_https(settings: &Settings) -> Result<bool, String> {
    let get = |name: &str| settings.get(name).map_err(|error| error.to_string());
    let enabled = get("server.ssl.enabled")?.map(|text| text.trim().to_ascii_lowercase());
    let has_certificate = get("server.ssl.certificate")?.is_some() || get("server.ssl.key-store")?.is_some();
    Ok(has_certificate && !matches!(enabled.as_deref(), Some("false" | "no" | "off" | "0")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn url_may_end_in_the_service_or_the_page() {
        let expected = |root: &str, service: &str| (root.to_owned(), service.to_owned());
        for url in
            ["http://h:1", "http://h:1/", "http://h:1/eureka", "http://h:1/eureka/", "http://h:1/actuator/health"]
        {
            assert_eq!(split(url), expected("http://h:1/", "http://h:1/eureka/"), "{url}");
        }
        assert_eq!(split("http://u:p@h/x/eureka/v2/"), expected("http://u:p@h/x/", "http://u:p@h/x/eureka/v2/"));
    }

    #[test]
    fn page_is_healthy_only_with_success_and_up() {
        for (status, body, healthy, shown) in [
            (200, r#"{"status":"UP"}"#, true, "UP"),
            (200, "OK", true, "UP"),
            (200, r#"{"status":"DOWN"}"#, false, "DOWN"),
            (503, r#"{"status":"OUT_OF_SERVICE"}"#, false, "OUT_OF_SERVICE"),
            (503, "", false, "responded with 503 Service Unavailable"),
            (500, r#"{"status":"UP"}"#, false, "UP"),
        ] {
            let expected = Checked { is_healthy: healthy, status: shown.into() };
            assert_eq!(judge(StatusCode::from_u16(status).unwrap(), body.as_bytes()), expected, "{status} {body}");
        }
    }

    #[test]
    fn own_server_is_at_the_port_of_its_settings() {
        let url = |arguments: &[&str]| own_url(&arguments.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>());
        assert_eq!(url(&["--server.port=9000"]).as_deref(), Ok("http://localhost:9000/"));
        assert_eq!(url(&["--server.port=1", "--server.address=10.0.0.1"]).as_deref(), Ok("http://10.0.0.1:1/"));
        assert_eq!(url(&["--server.address=::1", "--server.port=2"]).as_deref(), Ok("http://[::1]:2/"));
        assert_eq!(url(&["--server.port=1", "--management.server.port=2"]).as_deref(), Ok("http://localhost:2/"));
        let tls = ["--server.port=1", "--server.ssl.certificate=a", "--management.server.port=2"];
        assert_eq!(url(&tls).as_deref(), Ok("https://localhost:2/"));
        assert_eq!(url(&[&tls[..], &["--server.ssl.enabled=false"]].concat()).as_deref(), Ok("http://localhost:2/"));
        let plain = "--management.server.ssl.enabled=false";
        assert_eq!(url(&[&tls[..], &[plain]].concat()).as_deref(), Ok("http://localhost:2/"));
        assert!(url(&["--server.port=x"]).is_err());
    }
}
