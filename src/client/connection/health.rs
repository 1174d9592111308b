//! Health checks at the URLs that instances registered.

use std::pin::Pin;

use bytes::Bytes;
use http::uri::Scheme;
use http::{Request, StatusCode, Uri, Version};
use http_body_util::Empty;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use tower::BoxError;
use tracing::debug;

use super::service::InstanceService;
use crate::client::address::Address;
use crate::client::options::CheckTarget;
use crate::connect::{Connector, TlsSettings};
use crate::model::Instance;
use crate::untrusted::Quoted;

/// Response status of a health check.
type Sent = Pin<Box<dyn Future<Output = Result<StatusCode, BoxError>> + Send>>;

/// Sends a health check. Returns `true` if the instance responds with 2xx, or has no health check
/// URL.
///
/// `address` and `is_http2` say how calls reach the instance. Each check uses a new connection,
/// since connections would be idle between checks.
pub(super) fn check(
    connector: &Connector,
    service: Option<&InstanceService>,
    instance: &Instance,
    address: &Address,
    target: &CheckTarget,
    is_http2: bool,
) -> impl Future<Output = bool> + Send + use<> {
    // Logs show the id only, since the URL may contain secrets.
    let id = instance.id().to_owned();
    let response = url(instance, address, target).map(|url| -> Sent {
        let is_called_port = url.scheme() == Some(&Scheme::HTTP)
            && url.host() == Some(address.authority.host())
            && url.port_u16().unwrap_or(80) == address.authority.port_u16().unwrap_or(80);
        let is_http2 = is_http2 && is_called_port;
        if let Some(service) = service {
            let mut request = Request::new(Empty::<Bytes>::new());
            *request.uri_mut() = url;
            *request.version_mut() = if is_http2 { Version::HTTP_2 } else { Version::HTTP_11 };
            let response = service.send(request);
            return Box::pin(async { Ok(response.await?.status()) });
        }
        // With TLS, the version is negotiated.
        let connector = connector.clone();
        let connector = if is_http2 { connector.http2(true) } else { connector.any_version() };
        let client = Client::builder(TokioExecutor::new())
            .pool_max_idle_per_host(0)
            .http2_only(is_http2)
            .build::<_, Empty<Bytes>>(connector);
        let response = client.get(url);
        Box::pin(async { Ok(response.await?.status()) })
    });
    async move {
        let Some(response) = response else { return true };
        match response.await {
            Ok(status) if status.is_success() => return true,
            Ok(status) => {
                debug!(instance = %Quoted(&id), status = status.as_u16(), "health check failed")
            }
            Err(error) => {
                debug!(instance = %Quoted(&id), error = &*error as &dyn std::error::Error, "health check failed")
            }
        }
        false
    }
}

/// Returns the health check URL of an instance that is called at this address, if it is usable.
pub(in crate::client) fn url(instance: &Instance, address: &Address, target: &CheckTarget) -> Option<Uri> {
    if let Some((path, port)) = target.replaced() {
        let Address { scheme, authority } = address;
        let port = port.or(authority.port_u16()).map_or_else(String::new, |port| format!(":{port}"));
        return format!("{scheme}://{}{port}{path}", authority.host()).parse().ok();
    }
    let secure = instance.secure_health_check_url().filter(|_| address.scheme == Scheme::HTTPS);
    let url: Uri = secure.or(instance.health_check_url())?.trim().parse().ok()?;
    let is_usable = match url.scheme_str()? {
        "http" => true,
        "https" => TlsSettings::SUPPORTED,
        _ => false,
    };
    is_usable.then_some(url)
}

#[cfg(test)]
mod tests {
    use http::uri::Authority;

    use super::*;

    #[test]
    fn health_check_of_a_call_over_tls_uses_the_secure_url() {
        let url_for = |scheme: Scheme, plain: Option<&str>, secure: Option<&str>| {
            let mut instance = Instance::builder("a").ip_addr("10.0.0.1").port(80).build().unwrap();
            instance.health_check_url = plain.map(Into::into);
            instance.secure_health_check_url = secure.map(Into::into);
            let address = Address { scheme, authority: Authority::from_static("h:1") };
            url(&instance, &address, &CheckTarget::default()).map(|url| url.to_string())
        };
        let (plain, secure) = (Some("http://h:1/health"), Some("https://h:2/health"));
        let is = |url: Option<&str>| url.map(str::to_owned);
        assert_eq!(url_for(Scheme::HTTP, plain, secure), is(plain));
        assert_eq!(url_for(Scheme::HTTPS, plain, secure), is(secure.filter(|_| TlsSettings::SUPPORTED)));
        assert_eq!(url_for(Scheme::HTTPS, plain, None), is(plain));
        assert_eq!(url_for(Scheme::HTTP, None, secure), None);
        for unusable in ["/health", "h", "ftp://h/", "${host}", "http://h h/", ""] {
            assert_eq!(url_for(Scheme::HTTP, Some(unusable), None), None, "{unusable}");
        }
    }

    #[test]
    fn path_and_port_of_the_options_replace_the_registered_url() {
        let mut instance = Instance::builder("a").ip_addr("10.0.0.1").port(80).build().unwrap();
        instance.health_check_url = Some("http://registered/".into());
        let address = |authority| Address { scheme: Scheme::HTTP, authority: Authority::from_static(authority) };
        for (authority, path, port, expected) in [
            ("h:1", Some("/health"), None, "http://h:1/health"),
            ("h:1", Some(" ready "), Some(9), "http://h:9/ready"),
            ("[::1]:1", None, Some(9), "http://[::1]:9/actuator/health"),
            ("h", Some("/"), None, "http://h/"),
        ] {
            let target = CheckTarget { path: path.map(Into::into), port };
            let url = url(&instance, &address(authority), &target).map(|url| url.to_string());
            assert_eq!(url.as_deref(), Some(expected), "{authority} {target:?}");
        }
    }
}
