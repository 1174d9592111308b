//! `health`: readiness of a registry server, as an exit code.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use http::{StatusCode, Uri};
use serde_json::{Value, json};
use tokio::time::timeout;
use tower_eureka::{Eureka, Settings};

use super::Context;
use super::failure::{Failure, Outcome};
use super::output::{Color, Output};
use super::resolve::resolve;
use super::target::{Access, Urls, seconds};
use super::text::clean;
use crate::address::{Address, Addresses, addresses};
use crate::serve::LISTEN;

/// Variables for the check of an image, whose command is fixed.
const CA: &str = "TOWER_EUREKA_HEALTH_CA";
const SERVER_NAME: &str = "TOWER_EUREKA_HEALTH_SERVER_NAME";

#[derive(Args, Debug)]
pub(crate) struct Health {
    /// Server to check, with or without /eureka/ [default: the server of this machine, at the port
    /// of management.server.port or server.port, else 8761]
    #[arg(long, value_name = "URL")]
    url: Option<Urls>,

    /// File with USER:PASSWORD or "Bearer TOKEN" [default: variable TOWER_EUREKA_CREDENTIALS]
    #[arg(long, value_name = "FILE")]
    credentials: Option<PathBuf>,

    /// File with the CA of the server in PEM [default: variable TOWER_EUREKA_HEALTH_CA, else
    /// those of the settings or the system]
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,

    /// Name in the certificate of the server, if it is not the host of the URL, to which the
    /// connection goes [default: variable TOWER_EUREKA_HEALTH_SERVER_NAME]
    #[arg(long, value_name = "NAME")]
    server_name: Option<String>,

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
  tower-eureka health --ca /tls/ca.crt --server-name registry.example.com

Exit codes: 0 healthy, 1 not healthy or no response, 2 wrong usage";

/// Result of a check.
#[derive(Debug, PartialEq, Eq)]
struct Checked {
    is_healthy: bool,
    /// Status for people: `UP`, `OUT_OF_SERVICE`, or the reason why there is none. It is harmless
    /// for terminals.
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
        let _ = output.either(&object, &output.paint(color, &checked.status));
        Ok(if checked.is_healthy { Outcome::Done } else { Outcome::Negative })
    }

    async fn check(&self, url: &str, context: &Context) -> Checked {
        let checked = self.page(url, context).await;
        checked.unwrap_or_else(|failure| Checked { is_healthy: false, status: failure.to_string() })
    }

    fn client(&self, url: &str, context: &Context) -> Result<Eureka, Failure> {
        let access = Access { credentials: self.credentials.clone(), timeout: self.timeout };
        let name = self.server_name.clone().or_else(|| variable(SERVER_NAME));
        let (url, host) = match &name {
            Some(name) => {
                let (url, host) = renamed(url, name).map_err(Failure::usage)?;
                (url, Some(host))
            }
            None => (url.to_owned(), None),
        };
        let mut builder = access.builder(Some(&Urls(url)), &context.settings)?;
        if let Some(file) = self.ca.clone().or_else(|| variable(CA).map(PathBuf::from)) {
            builder = builder.tls_ca_file(file);
        }
        if let Some(host) = host {
            // A proxy would connect to the name.
            builder = builder.resolver(move |_: &str| resolve(host.clone())).no_proxy("*");
        }
        Ok(builder.build()?)
    }

    /// Fetches the page of a server, or its list if it has no page.
    async fn page(&self, url: &str, context: &Context) -> Result<Checked, Failure> {
        let (root, service) = split(url);
        let client = self.client(&root, context)?;
        let page = client.transport().page("actuator/health").await?;
        if !matches!(page.status().as_u16(), 401 | 403 | 404 | 405 | 406) {
            return Ok(judge(page.status(), page.body()));
        }
        let client = self.client(&service, context)?;
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

/// Returns the value of a variable that is set and not blank.
fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.trim().is_empty())
}

/// Returns the URL with this name as its host, and the host that it had.
fn renamed(url: &str, name: &str) -> Result<(String, String), String> {
    let is_part = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
    if name.is_empty() || !name.chars().all(is_part) || name.parse::<std::net::IpAddr>().is_ok() {
        return Err("--server-name takes a host name such as registry.example.com, without port".into());
    }
    let uri: Uri = url.parse().map_err(|_| "the URL has no usable host for --server-name".to_owned())?;
    let (Some(host), Some((scheme, rest))) = (uri.host(), url.split_once("://")) else {
        return Err("--server-name needs a URL such as https://localhost:8761/".into());
    };
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let (user, place) = authority.rsplit_once('@').map_or(("", authority), |(user, place)| (user, place));
    let user = if user.is_empty() { String::new() } else { format!("{user}@") };
    let port = place.strip_prefix(host).unwrap_or_default();
    Ok((format!("{scheme}://{user}{name}{port}{path}"), host.trim_matches(['[', ']']).to_owned()))
}

/// Interprets the response of /actuator/health.
fn judge(status: StatusCode, body: &[u8]) -> Checked {
    let document: Value = serde_json::from_slice(body).unwrap_or_default();
    let named = document["status"].as_str();
    let is_healthy = status.is_success() && named.is_none_or(|named| named == "UP");
    let shown = match named {
        Some(named) => clean(named),
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
    fn name_of_the_certificate_replaces_the_host_of_the_url() {
        for (url, expected, host) in [
            ("https://localhost:8761/", "https://r.example:8761/", "localhost"),
            ("https://10.0.0.1:1/eureka/", "https://r.example:1/eureka/", "10.0.0.1"),
            ("https://[::1]:1/", "https://r.example:1/", "::1"),
            ("https://u:p@h/", "https://u:p@r.example/", "h"),
            ("https://h", "https://r.example", "h"),
        ] {
            assert_eq!(renamed(url, "r.example"), Ok((expected.into(), host.into())), "{url}");
        }
        for (url, name) in [("https://h/", ""), ("https://h/", "h:1"), ("https://h/", "10.0.0.1"), ("h", "r.example")] {
            assert!(renamed(url, name).is_err(), "{url} {name}");
        }
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
