use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::Uri;
use http::uri::Scheme;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioIo;
use tokio::time::{Instant, timeout_at};
use tower::{BoxError, Service, ServiceExt};

use super::error::{ConnectError, root_cause};
use super::proxy::{Proxies, tunnel};
use super::stream::Stream;
use super::tls::{TlsSettings, Versions, handshake_if_https};
use crate::time::LONGEST_WAIT;

/// Service that connects to the host of a URI, with TLS if the scheme is https.
///
/// One time limit covers the name lookup, the connection, the tunnel through a proxy and the
/// handshake. Clones are cheap, since hyper-util's client clones its connector for every request.
#[derive(Clone, Debug)]
pub(crate) struct Connector {
    shared: Arc<Shared>,
    versions: Versions,
    proxies: Option<Arc<Proxies>>,
}

#[derive(Debug)]
struct Shared {
    tcp: HttpConnector,
    timeout: Duration,
    tls: TlsSettings,
}

impl Connector {
    /// Creates a connector whose TLS connections speak HTTP/1.1.
    pub(crate) fn new(timeout: Duration, tls: &TlsSettings) -> Self {
        let timeout = timeout.min(LONGEST_WAIT);
        let mut tcp = HttpConnector::new();
        tcp.set_nodelay(true);
        // Keepalive detects a peer that vanished without closing, also on idle connections.
        tcp.set_keepalive(Some(Duration::from_secs(15)));
        tcp.set_keepalive_interval(Some(Duration::from_secs(5)));
        tcp.set_keepalive_retries(Some(3));
        #[cfg(target_os = "linux")]
        tcp.set_tcp_user_timeout(Some(Duration::from_secs(30)));
        // The handshake handles the other schemes.
        tcp.enforce_http(false);
        // hyper-util divides this time among the addresses of a name, so that each of them is
        // tried.
        tcp.set_connect_timeout(Some(timeout));
        Self { shared: Arc::new(Shared { tcp, timeout, tls: tls.clone() }), versions: Versions::Http1, proxies: None }
    }

    /// Connects through these proxies. Defaults to none.
    pub(crate) fn through(self, proxies: &Proxies) -> Self {
        Self { proxies: (!proxies.is_empty()).then(|| Arc::new(proxies.clone())), ..self }
    }

    /// Sets whether TLS connections speak HTTP/2 instead of HTTP/1.1.
    pub(crate) fn http2(self, http2: bool) -> Self {
        Self { versions: if http2 { Versions::Http2 } else { Versions::Http1 }, ..self }
    }

    /// Lets the server choose between HTTP/2 and HTTP/1.1 on TLS connections.
    pub(crate) fn any_version(self) -> Self {
        Self { versions: Versions::Any, ..self }
    }

    /// Returns the time limit of a connection attempt.
    pub(crate) fn timeout(&self) -> Duration {
        self.shared.timeout
    }

    async fn connect(self, uri: Uri) -> Result<TokioIo<Stream>, BoxError> {
        let Shared { tcp, timeout, tls } = &*self.shared;
        let deadline = Instant::now() + *timeout;
        let too_late = |what: &str| ConnectError::new(format!("no {what} within {timeout:?}"));
        let tcp = match self.proxies.as_deref().and_then(|proxies| proxies.of(&uri)) {
            None => {
                let connected = timeout_at(deadline, tcp.clone().oneshot(uri.clone())).await;
                connected.map_err(|_| too_late("connection"))??.into_inner()
            }
            Some(proxy) => {
                let proxy = proxy.target().map_err(ConnectError::new)?;
                let connected = timeout_at(deadline, tcp.clone().oneshot(proxy.uri().clone())).await;
                let connected = connected.map_err(|_| too_late(&format!("connection to the proxy {proxy}")))?;
                let tcp = connected.map_err(|error| {
                    let cause = format!("the proxy {proxy} is unreachable: {}", root_cause(&error));
                    ConnectError::new(cause).with_source(error)
                })?;
                let tcp = tcp.into_inner();
                if uri.scheme() != Some(&Scheme::HTTPS) {
                    return Ok(TokioIo::new(Stream::Forwarded(tcp)));
                }
                let opened = timeout_at(deadline, tunnel(tcp, &uri, proxy)).await;
                opened.map_err(|_| too_late(&format!("tunnel through the proxy {proxy}")))??
            }
        };
        let secured = timeout_at(deadline, handshake_if_https(tcp, &uri, tls, self.versions)).await;
        Ok(TokioIo::new(secured.map_err(|_| too_late("TLS handshake"))??))
    }
}

impl Service<Uri> for Connector {
    type Response = TokioIo<Stream>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<TokioIo<Stream>, BoxError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        Box::pin(self.clone().connect(uri))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn maximum_timeout_can_be_added_to_the_clock() {
        let connector = Connector::new(Duration::MAX, &TlsSettings::default());
        assert_eq!(connector.timeout(), LONGEST_WAIT);
        assert!(Instant::now().checked_add(connector.timeout()).is_some());
    }
}
