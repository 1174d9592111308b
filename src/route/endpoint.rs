use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Buf;
use http::uri::Authority;
use http::{Request, Response, Version};
use http_body::Body;
use hyper::body::Incoming;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use tower::{BoxError, Service};

use super::attempts::AttemptBody;
use crate::error::{Error, Kind};
use crate::model::Instance;
use crate::transport::root_cause;

type Hyper<B> = Client<HttpConnector, AttemptBody<B>>;

/// One instance as something to send to, with its own connections: dropping the last clone closes them after the calls in flight.
pub(super) struct Endpoint<B>(Arc<Inner<B>>);

struct Inner<B> {
    instance: Arc<Instance>,
    authority: Option<Authority>,
    connect_timeout: Duration,
    http1: OnceLock<Hyper<B>>,
    http2: OnceLock<Hyper<B>>,
}

impl<B> Endpoint<B> {
    pub(super) fn new(instance: Arc<Instance>, connect_timeout: Duration) -> Self {
        let authority = instance
            .host()
            .zip(instance.port().usable())
            .and_then(|(host, port)| format!("{}:{port}", crate::model::host_in_url(host)).parse().ok());
        let (http1, http2) = (OnceLock::new(), OnceLock::new());
        Self(Arc::new(Inner { instance, authority, connect_timeout, http1, http2 }))
    }

    /// Where to send to.
    ///
    /// # Errors
    /// When the instance listens on no port that can be called.
    pub(super) fn authority(&self) -> Result<Authority, Error> {
        self.0.authority.clone().ok_or_else(|| {
            self.error(Kind::Connect)
                .cause("it offers no host with an enabled plain HTTP port")
                .advice("let the instance register its plain port; HTTPS to instances is not supported yet")
        })
    }

    fn error(&self, kind: Kind) -> Error {
        let error = Error::new(kind, "call").app(self.0.instance.app()).instance(self.0.instance.id());
        match &self.0.authority {
            Some(authority) => error.server(authority.as_str()),
            None => error,
        }
    }

    /// What hyper says of a failed request. Only what certainly never reached the instance is a failure to connect.
    fn failed(&self, error: hyper_util::client::legacy::Error) -> Error {
        let canceled =
            |e: &(dyn std::error::Error + 'static)| e.downcast_ref::<hyper::Error>().is_some_and(|e| e.is_canceled());
        let unsent = error.is_connect() || std::error::Error::source(&error).is_some_and(canceled);
        let cause = root_cause(&error);
        let (kind, cause) = if unsent {
            (Kind::Connect, format!("cannot connect: {cause}"))
        } else {
            (Kind::Call, format!("the connection was lost before an answer came: {cause}"))
        };
        self.error(kind).cause(cause).with_source(error)
    }
}

impl<B> Endpoint<B>
where
    B: Body<Data: Buf + Send, Error: Into<BoxError>> + Send + 'static,
{
    /// HTTP/2 without TLS for requests of that version, as gRPC clients make them; otherwise HTTP/1.1.
    fn client(&self, version: Version) -> &Hyper<B> {
        let http2 = version == Version::HTTP_2;
        let client = if http2 { &self.0.http2 } else { &self.0.http1 };
        client.get_or_init(|| {
            let mut connector = HttpConnector::new();
            connector.set_connect_timeout(Some(self.0.connect_timeout));
            connector.set_nodelay(true);
            Client::builder(TokioExecutor::new())
                .pool_timer(TokioTimer::new())
                .timer(TokioTimer::new())
                .http2_only(http2)
                .build(connector)
        })
    }
}

impl<B> Service<Request<AttemptBody<B>>> for Endpoint<B>
where
    B: Body<Data: Buf + Send, Error: Into<BoxError>> + Send + 'static,
{
    type Response = Response<Incoming>;
    type Error = Error;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Incoming>, Error>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<AttemptBody<B>>) -> Self::Future {
        let response = self.client(request.version()).request(request);
        let endpoint = self.clone();
        Box::pin(async move { response.await.map_err(|error| endpoint.failed(error)) })
    }
}

impl<B> Clone for Endpoint<B> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<B> fmt::Debug for Endpoint<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Endpoint").field(&self.0.instance.id()).finish()
    }
}
