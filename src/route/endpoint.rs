use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Buf;
use http::header::HOST;
use http::{HeaderValue, Request, Response, Version};
use http_body::Body;
use hyper_util::client::legacy::{Client, Error as HyperError, ResponseFuture as HyperFuture};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use pin_project::pin_project;
use tower::{BoxError, Service, ServiceExt};

use super::address::{Address, AddressRule};
use super::attempts::{AttemptBody, Attempts};
use super::calls::{AtAddress, Calls};
use super::health::Checker;
use super::options::CallOptions;
use super::{InstanceBody, ResponseBody};
use crate::error::{Error, Kind};
use crate::model::Instance;
use crate::registry::Registry;
use crate::transport::{Connector, is_refused_handshake, root_cause};

/// How often a connection on which calls wait is asked for a sign of life. Not more often, since stock gRPC servers close on who
/// asks more than once in five minutes; a peer that vanished is noticed by the system before (see [`Connector`]).
const KEEP_ALIVE: Duration = Duration::from_secs(330);

type Hyper<B> = Client<Connector, AttemptBody<B>>;

/// Connections of both versions, opened when they are needed: dropping the last clone closes them after the calls in flight.
pub(super) struct Connections<B>(Arc<Pools<B>>);

struct Pools<B> {
    connector: Connector,
    http1: OnceLock<Hyper<B>>,
    http2: OnceLock<Hyper<B>>,
}

/// One instance as something to send to, with its own connections.
pub(super) struct Endpoint<B>(Arc<Inner<B>>);

struct Inner<B> {
    instance: Arc<Instance>,
    address: Address,
    /// What it is told of that in HTTP/1.1.
    host: HeaderValue,
    http2: bool,
    connections: Connections<B>,
}

impl<B> Connections<B>
where
    B: Body<Data: Buf + Send, Error: Into<BoxError>> + Send + 'static,
{
    pub(super) fn new(connector: Connector) -> Self {
        Self(Arc::new(Pools { connector, http1: OnceLock::new(), http2: OnceLock::new() }))
    }

    fn client(&self, http2: bool) -> &Hyper<B> {
        let client = if http2 { &self.0.http2 } else { &self.0.http1 };
        client.get_or_init(|| {
            Client::builder(TokioExecutor::new())
                .pool_timer(TokioTimer::new())
                .timer(TokioTimer::new())
                .http2_only(http2)
                .http2_keep_alive_interval(KEEP_ALIVE)
                .http2_keep_alive_timeout(Duration::from_secs(20))
                .build(self.0.connector.clone().http2(http2))
        })
    }

    /// Sends a request to the host that it names, for who wants no instance.
    pub(super) async fn send_elsewhere(&self, request: Request<B>) -> Result<Response<ResponseBody>, Error> {
        let http2 = request.version() == Version::HTTP_2;
        let request = Attempts::new(request, 0).into_request();
        // Without the user-info that an authority may have.
        let host = request.uri().host().unwrap_or_default().to_owned();
        let response = self.client(http2).request(request).await.map_err(|error| failed(error).server(host))?;
        Ok(response.map(|body| ResponseBody::unwatched(InstanceBody::from(body))))
    }
}

impl<B> Endpoint<B>
where
    B: Body<Data: Buf + Send, Error: Into<BoxError>> + Send + 'static,
{
    /// Calls by name that end at endpoints like this.
    pub(super) fn calls(
        registry: Arc<Registry>,
        options: CallOptions,
        rule: AddressRule,
        ready_timeout: Duration,
        connector: Connector,
    ) -> Calls<Self> {
        let http2 = options.http2.clone();
        let prober = connector.clone();
        let checker = Checker::new(connector.clone());
        let make = move |instance: &Arc<Instance>, address: Address| {
            let (host, http2) = (address.host(), http2.is_for(instance));
            let connections = Connections::new(connector.clone());
            Self(Arc::new(Inner { instance: instance.clone(), address, host, http2, connections }))
        };
        // A connection that comes about and is closed again. It says enough: what else may be wrong, calls find out.
        let probe = move |endpoint: Self| {
            let connect = prober.clone().http2(endpoint.0.http2).oneshot(endpoint.0.address.uri());
            Box::pin(async move { connect.await.is_ok() }) as Pin<Box<dyn Future<Output = bool> + Send>>
        };
        let check = move |endpoint: Self| {
            let healthy = checker.check(&endpoint.0.instance, &endpoint.0.address);
            Box::pin(healthy) as Pin<Box<dyn Future<Output = bool> + Send>>
        };
        let (probe, check) = (Some(Arc::new(probe) as _), Some(Arc::new(check) as _));
        Calls::new(registry, options, rule, ready_timeout, Arc::new(make), probe, check)
    }
}

/// What hyper says of a failed request. Only what certainly was not received, or not looked at, is a failure to connect.
fn failed(error: HyperError) -> Error {
    let unsent = error.is_connect()
        || std::error::Error::source(&error).is_some_and(is_unprocessed)
        || is_refused_handshake(&error);
    let cause = root_cause(&error);
    let (kind, cause) = if unsent {
        (Kind::Connect, format!("cannot connect: {cause}"))
    } else {
        (Kind::Call, format!("the connection was lost before an answer came: {cause}"))
    };
    Error::new(kind, "call").cause(cause).with_source(error)
}

/// Whether the request was left in a queue, or the other side said of its stream that it will not be processed (RFC 9113, 8.7):
/// it was refused, or opened after the connection's end was announced.
fn is_unprocessed(error: &(dyn std::error::Error + 'static)) -> bool {
    let Some(error) = error.downcast_ref::<hyper::Error>() else { return false };
    let refused = |error: &h2::Error| match error.reason() {
        Some(h2::Reason::REFUSED_STREAM) => error.is_reset(),
        Some(h2::Reason::NO_ERROR) => error.is_go_away(),
        _ => false,
    };
    let h2 = std::error::Error::source(error).and_then(|source| source.downcast_ref::<h2::Error>());
    error.is_canceled() || h2.is_some_and(|error| error.is_remote() && refused(error))
}

impl<B> Service<Request<AttemptBody<B>>> for Endpoint<B>
where
    B: Body<Data: Buf + Send, Error: Into<BoxError>> + Send + 'static,
{
    type Response = Response<InstanceBody>;
    type Error = Error;
    type Future = EndpointFuture<B>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: Request<AttemptBody<B>>) -> EndpointFuture<B> {
        self.0.address.aim(&mut request);
        let http2 = self.0.http2 || request.version() == Version::HTTP_2;
        if http2 {
            // It would contradict the authority (RFC 9113, 8.3.1).
            request.headers_mut().remove(HOST);
        } else {
            // As hyper would, which writes it anew each time.
            request.headers_mut().entry(HOST).or_insert_with(|| self.0.host.clone());
        }
        let response = self.0.connections.client(http2).request(request);
        EndpointFuture { response, endpoint: self.clone() }
    }
}

impl<B> AtAddress for Endpoint<B> {
    fn address(&self) -> &Address {
        &self.0.address
    }
}

/// A request to one instance.
#[pin_project]
pub(super) struct EndpointFuture<B> {
    #[pin]
    response: HyperFuture,
    endpoint: Endpoint<B>,
}

impl<B> Future for EndpointFuture<B> {
    type Output = Result<Response<InstanceBody>, Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        Poll::Ready(match ready!(this.response.poll(cx)) {
            Ok(response) => Ok(response.map(InstanceBody::from)),
            Err(error) => {
                let Inner { instance, address, .. } = &*this.endpoint.0;
                Err(failed(error)
                    .app(instance.app())
                    .instance(instance.id())
                    .server(address.authority.as_str())
                    .advice("look at the instance itself: it is registered as UP"))
            }
        })
    }
}

impl<B> Clone for Connections<B> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
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
