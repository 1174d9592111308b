use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use http::Uri;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tower::{BoxError, Service, ServiceExt};

/// Connects within a bound that covers the look-up of the name as well.
#[derive(Clone, Debug)]
pub(crate) struct Connector {
    inner: HttpConnector,
    within: Duration,
}

impl Connector {
    pub(crate) fn new(within: Duration) -> Self {
        let mut inner = HttpConnector::new();
        inner.set_nodelay(true);
        // Shared out over the addresses of a name, so that a second one has its turn.
        inner.set_connect_timeout(Some(within));
        Self { inner, within }
    }
}

impl Service<Uri> for Connector {
    type Response = TokioIo<TcpStream>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<TokioIo<TcpStream>, BoxError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let (connect, within) = (self.inner.clone().oneshot(uri), self.within);
        Box::pin(async move {
            match timeout(within, connect).await {
                Ok(connected) => connected.map_err(Into::into),
                Err(_) => {
                    Err(io::Error::new(io::ErrorKind::TimedOut, format!("no connection within {within:?}")).into())
                }
            }
        })
    }
}
