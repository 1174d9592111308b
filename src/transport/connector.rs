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
    versions: Versions,
}

/// HTTP versions that a TLS handshake offers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Versions {
    Http1,
    Http2,
    /// HTTP/2, and HTTP/1.1 as the second choice.
    Any,
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
        Self { shared: Arc::new(Shared { tcp, within, tls: tls.clone() }), versions: Versions::Http1 }
    }

    /// The same with TLS connections that speak HTTP/2.
    pub(crate) fn http2(self, http2: bool) -> Self {
        Self { versions: if http2 { Versions::Http2 } else { Versions::Http1 }, ..self }
    }

    /// The same with TLS connections that speak the version that the server prefers.
    pub(crate) fn any_version(self) -> Self {
        Self { versions: Versions::Any, ..self }
    }

    /// Time limit of a connection.
    pub(crate) fn within(&self) -> Duration {
        self.shared.within
    }

    async fn connect(self, uri: Uri) -> Result<TokioIo<Stream>, BoxError> {
        let Shared { tcp, within, tls } = &*self.shared;
        let deadline = Instant::now() + *within;
        let too_late = |what: &str| ConnectError::new(format!("no {what} within {within:?}"));
        let connected = timeout_at(deadline, tcp.clone().oneshot(uri.clone())).await;
        let tcp = connected.map_err(|_| too_late("connection"))??.into_inner();
        let secured = timeout_at(deadline, secure_if_asked(tcp, &uri, tls, self.versions)).await;
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
    is_not_http2: bool,
    is_foreign: bool,
}

impl ConnectError {
    pub(crate) fn new(why: impl Into<String>) -> Self {
        Self { why: why.into(), source: None, is_not_http2: false, is_foreign: false }
    }

    /// The server was reached and does not speak HTTP/2.
    pub(crate) fn not_http2(self) -> Self {
        Self { is_not_http2: true, ..self }
    }

    /// The server responded in another protocol than HTTP/2, so that it speaks another one for certain.
    pub(crate) fn foreign(self) -> Self {
        Self { is_foreign: true, ..self.not_http2() }
    }

    /// Returns `true` if the server was reached and does not speak HTTP/2.
    pub(crate) fn is_not_http2(error: &(dyn std::error::Error + 'static)) -> bool {
        Self::any(error, |error| error.is_not_http2)
    }

    /// Returns `true` if the server responded in another protocol than HTTP/2.
    pub(crate) fn is_foreign(error: &(dyn std::error::Error + 'static)) -> bool {
        Self::any(error, |error| error.is_foreign)
    }

    fn any(error: &(dyn std::error::Error + 'static), is: impl Fn(&Self) -> bool) -> bool {
        std::iter::successors(Some(error), |&error| error.source())
            .any(|error| error.downcast_ref::<Self>().is_some_and(&is))
    }

    pub(crate) fn because(self, source: impl Into<BoxError>) -> Self {
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
