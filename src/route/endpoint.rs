use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Buf;
use http::uri::{Authority, Scheme};
use http::{Request, Response, Uri, Version};
use http_body::Body;
use hyper_util::client::legacy::Client;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use tower::{BoxError, Service};

use super::InstanceBody;
use super::attempts::AttemptBody;
use crate::error::{Error, Kind};
use crate::model::Instance;
use crate::tls::Tls;
use crate::transport::{Connector, is_refused_handshake, root_cause};

type Hyper<B> = Client<Connector, AttemptBody<B>>;

/// Where an instance is reached, and whether with TLS. The host is also the name that its certificate must be for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Address {
    scheme: Scheme,
    authority: Authority,
}

impl Address {
    /// The secure port if it is enabled and this build speaks TLS, as Spring chooses; otherwise the plain one; `None` if that is
    /// disabled, too.
    pub(super) fn of(instance: &Instance) -> Option<Self> {
        if let Some(authority) = instance.https_authority().filter(|_| Tls::BUILT_IN) {
            return Some(Self { scheme: Scheme::HTTPS, authority });
        }
        instance.http_authority().map(|authority| Self { scheme: Scheme::HTTP, authority })
    }

    /// The URI with this scheme, host and port in it.
    fn put_into(&self, uri: Uri) -> Uri {
        let mut parts = uri.into_parts();
        (parts.scheme, parts.authority) = (Some(self.scheme.clone()), Some(self.authority.clone()));
        Uri::from_parts(parts).expect("a URI with a path stays one")
    }
}

/// One instance as something to send to, with its own connections: dropping the last clone closes them after the calls in flight.
pub(super) struct Endpoint<B>(Arc<Inner<B>>);

struct Inner<B> {
    instance: Arc<Instance>,
    address: Address,
    connector: Connector,
    http1: OnceLock<Hyper<B>>,
    http2: OnceLock<Hyper<B>>,
}

impl<B> Endpoint<B> {
    pub(super) fn new(instance: Arc<Instance>, address: Address, connector: Connector) -> Self {
        let (http1, http2) = (OnceLock::new(), OnceLock::new());
        Self(Arc::new(Inner { instance, address, connector, http1, http2 }))
    }

    /// Where to send to.
    pub(super) fn authority(&self) -> Authority {
        self.0.address.authority.clone()
    }

    /// What hyper says of a failed request. Only what certainly never reached the instance is a failure to connect.
    fn failed(&self, error: hyper_util::client::legacy::Error) -> Error {
        let canceled =
            |e: &(dyn std::error::Error + 'static)| e.downcast_ref::<hyper::Error>().is_some_and(|e| e.is_canceled());
        let unsent = error.is_connect()
            || std::error::Error::source(&error).is_some_and(canceled)
            || is_refused_handshake(&error);
        let cause = root_cause(&error);
        let (kind, cause) = if unsent {
            (Kind::Connect, format!("cannot connect: {cause}"))
        } else {
            (Kind::Call, format!("the connection was lost before an answer came: {cause}"))
        };
        Error::new(kind, "call")
            .app(self.0.instance.app())
            .instance(self.0.instance.id())
            .server(self.0.address.authority.as_str())
            .cause(cause)
            .advice("look at the instance itself: it is registered as UP")
            .with_source(error)
    }
}

impl<B> Endpoint<B>
where
    B: Body<Data: Buf + Send, Error: Into<BoxError>> + Send + 'static,
{
    /// HTTP/2 for requests of that version, as gRPC clients make them; otherwise HTTP/1.1.
    fn client(&self, version: Version) -> &Hyper<B> {
        let http2 = version == Version::HTTP_2;
        let client = if http2 { &self.0.http2 } else { &self.0.http1 };
        client.get_or_init(|| {
            Client::builder(TokioExecutor::new())
                .pool_timer(TokioTimer::new())
                .timer(TokioTimer::new())
                .http2_only(http2)
                // All calls share one connection: that its peer vanished must not go unnoticed.
                .http2_keep_alive_interval(Duration::from_secs(10))
                .http2_keep_alive_timeout(Duration::from_secs(5))
                .build(self.0.connector.clone().http2(http2))
        })
    }
}

impl<B> Service<Request<AttemptBody<B>>> for Endpoint<B>
where
    B: Body<Data: Buf + Send, Error: Into<BoxError>> + Send + 'static,
{
    type Response = Response<InstanceBody>;
    type Error = Error;
    type Future = Pin<Box<dyn Future<Output = Result<Response<InstanceBody>, Error>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: Request<AttemptBody<B>>) -> Self::Future {
        if self.0.address.scheme != Scheme::HTTP {
            let uri = std::mem::take(request.uri_mut());
            *request.uri_mut() = self.0.address.put_into(uri);
        }
        let response = self.client(request.version()).request(request);
        let endpoint = self.clone();
        Box::pin(async move {
            let response = response.await.map_err(|error| endpoint.failed(error))?;
            Ok(response.map(InstanceBody::from))
        })
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
