//! The one HTTP/2 connection to an instance: made when it is first needed, and anew when it has come to its end.
//!
//! hyper-util's client finds a connection by host, in a pool under a lock, twice for each call. An instance is one host.

use std::future::{Future, Ready, poll_fn, ready};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Buf;
use http::{Request, Response};
use http_body::Body;
use hyper::body::Incoming;
use hyper::client::conn::http2;
use hyper_util::client::pool::singleton::Singleton;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use tower::{BoxError, Service, ServiceExt};
use tracing::debug;

use super::address::Address;
use super::attempts::AttemptBody;
use crate::transport::Connector;

/// How often a connection on which calls wait is asked for a sign of life. Not more often, since stock gRPC servers close on who
/// asks more than once in five minutes; a peer that vanished is noticed by the system before (see [`Connector`]).
pub(super) const KEEP_ALIVE: Duration = Duration::from_secs(330);
/// How long the answer may take.
pub(super) const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(20);

/// Over how many connections a request is tried to be sent that were at their end before they took it.
const CONNECTIONS: usize = 3;

/// Clones share the connection.
pub(super) struct Http2<B>(Singleton<Connect<B>, ()>);

/// Why there is no answer.
pub(super) enum Failure {
    /// No connection came about.
    Unconnected(BoxError),
    Failed(hyper::Error),
}

impl<B> Http2<B>
where
    B: Body<Data: Buf + Send, Error: Into<BoxError>> + Send + 'static,
{
    /// To this address, as soon as there is a request for it.
    pub(super) fn new(connector: Connector, address: Address) -> Self {
        let connect = move || {
            let (connector, uri) = (connector.clone(), address.uri_of(None));
            Box::pin(connect(connector, uri)) as Connecting<B>
        };
        Self(Singleton::new(Connect(Arc::new(connect))))
    }

    /// Sends a request.
    ///
    /// All that wait for a connection wait for the same one, and fail if it fails. Who gives up leaves it to the others.
    pub(super) async fn send(mut self, mut request: Request<AttemptBody<B>>) -> Result<Response<Incoming>, Failure> {
        let mut connections = 0;
        loop {
            connections += 1;
            let mut connection = self.0.call(()).await.map_err(|error| Failure::Unconnected(error.into()))?;
            // Fails for one that is at its end, which makes room for another one.
            let error = match poll_fn(|cx| connection.poll_ready(cx)).await {
                Err(error) => error,
                Ok(()) => {
                    let mut sender = connection.call(()).await.map_err(Failure::Failed)?;
                    let mut failed = match sender.try_send_request(request).await {
                        Ok(response) => return Ok(response),
                        Err(failed) => failed,
                    };
                    let Some(unsent) = failed.take_message() else { return Err(Failure::Failed(failed.into_error())) };
                    request = unsent;
                    failed.into_error()
                }
            };
            if connections == CONNECTIONS {
                return Err(Failure::Failed(error));
            }
        }
    }
}

/// Makes a connection and lets it run until nobody uses it any more.
async fn connect<B>(connector: Connector, uri: http::Uri) -> Result<Sender<B>, BoxError>
where
    B: Body<Data: Buf + Send, Error: Into<BoxError>> + Send + 'static,
{
    let stream = connector.http2(true).oneshot(uri).await?;
    let (sender, connection) = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .keep_alive_interval(KEEP_ALIVE)
        .keep_alive_timeout(KEEP_ALIVE_TIMEOUT)
        .handshake(stream)
        .await?;
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            debug!(%error, "an HTTP/2 connection broke");
        }
    });
    Ok(Sender(sender))
}

type Connecting<B> = Pin<Box<dyn Future<Output = Result<Sender<B>, BoxError>> + Send>>;

/// Makes connections, as the pool of one wants it.
struct Connect<B>(Arc<dyn Fn() -> Connecting<B> + Send + Sync>);

impl<B> Service<()> for Connect<B> {
    type Response = Sender<B>;
    type Error = BoxError;
    type Future = Connecting<B>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, (): ()) -> Connecting<B> {
        (self.0)()
    }
}

impl<B> Clone for Connect<B> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

/// A connection that is ready until it is closed, and answers with what requests are sent by.
pub(super) struct Sender<B>(http2::SendRequest<AttemptBody<B>>);

impl<B> Service<()> for Sender<B> {
    type Response = http2::SendRequest<AttemptBody<B>>;
    type Error = hyper::Error;
    type Future = Ready<Result<Self::Response, hyper::Error>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), hyper::Error>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, (): ()) -> Self::Future {
        ready(Ok(self.0.clone()))
    }
}

impl<B> Clone for Sender<B> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<B> Clone for Http2<B> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}
