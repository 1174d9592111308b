use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::Uri;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioIo;
use tokio::time::{Instant, timeout_at};
use tower::{BoxError, Service, ServiceExt};

use super::tls::{Stream, secure_if_asked};
use crate::tls::Tls;

/// Connects, with TLS if the URI's scheme is https, within a bound that covers the look-up of the name and the handshake.
///
/// hyper-util's client clones it for every request, so a clone is cheap.
#[derive(Clone, Debug)]
pub(crate) struct Connector {
    shared: Arc<Shared>,
    http2: bool,
}

#[derive(Debug)]
struct Shared {
    tcp: HttpConnector,
    within: Duration,
    tls: Tls,
}

impl Connector {
    /// One whose TLS connections speak HTTP/1.1.
    pub(crate) fn new(within: Duration, tls: &Tls) -> Self {
        let mut tcp = HttpConnector::new();
        tcp.set_nodelay(true);
        // A peer that vanished without a word is noticed, idle or not.
        tcp.set_keepalive(Some(Duration::from_secs(15)));
        tcp.set_keepalive_interval(Some(Duration::from_secs(5)));
        tcp.set_keepalive_retries(Some(3));
        #[cfg(target_os = "linux")]
        tcp.set_tcp_user_timeout(Some(Duration::from_secs(30)));
        // What is not plain HTTP is seen to here.
        tcp.enforce_http(false);
        // Shared out over the addresses of a name, so that a second one has its turn.
        tcp.set_connect_timeout(Some(within));
        Self { shared: Arc::new(Shared { tcp, within, tls: tls.clone() }), http2: false }
    }

    /// The same with TLS connections that speak HTTP/2.
    pub(crate) fn http2(self, http2: bool) -> Self {
        Self { http2, ..self }
    }

    async fn connect(self, uri: Uri) -> Result<TokioIo<Stream>, BoxError> {
        let Shared { tcp, within, tls } = &*self.shared;
        let deadline = Instant::now() + *within;
        let too_late = |what: &str| ConnectError::new(format!("no {what} within {within:?}"));
        let connected = timeout_at(deadline, tcp.clone().oneshot(uri.clone())).await;
        let tcp = connected.map_err(|_| too_late("connection"))??.into_inner();
        let secured = timeout_at(deadline, secure_if_asked(tcp, &uri, tls, self.http2)).await;
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

/// Why there is no connection, in words that stand for their source as well.
#[derive(Debug)]
pub(crate) struct ConnectError {
    why: String,
    source: Option<BoxError>,
}

impl ConnectError {
    pub(super) fn new(why: impl Into<String>) -> Self {
        Self { why: why.into(), source: None }
    }

    #[cfg(feature = "tls")]
    pub(super) fn because(self, source: impl Into<BoxError>) -> Self {
        Self { source: Some(source.into()), ..self }
    }
}

impl fmt::Display for ConnectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.why)
    }
}

impl std::error::Error for ConnectError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}
