//! gRPC by name: a [`Channel`] for the clients that tonic generates.
//!
//! ```text
//! generated client ─▶ Channel ─▶ one route of calls by name ─▶ Balance ─▶ HTTP/2 to an instance
//!        ▲                                                                      │
//!        └── tonic::Status: for each way to fail, the code that gRPC has for it ◀──┘
//! ```
//!
//! ```no_run
//! use tonic_health::pb::HealthCheckRequest;
//! use tonic_health::pb::health_client::HealthClient;
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let eureka = tower_eureka::Eureka::builder().service_url("http://localhost:8761/eureka/").build()?;
//! let mut inventory = HealthClient::new(eureka.channel("inventory"));
//! let answer = inventory.check(HealthCheckRequest::default()).await?;
//! # Ok(())
//! # }
//! ```
//!
//! Servers need nothing from here: tonic's runs under [`Registrar::serve`](crate::register::Registrar::serve) and takes the
//! [`RegistrationLayer`](crate::register::RegistrationLayer) as any other layer.

use std::error::Error as StdError;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use ::tonic::body::Body as RequestBody;
use ::tonic::{Code, Status};
use bytes::Bytes;
use http::{Request, Response};
use http_body::{Body, Frame, SizeHint};
use tokio::time::{Instant, Sleep, sleep_until};
use tower::Service;

use crate::cache::RegistryCache;
use crate::client::{CallOptions, Named};
use crate::connect::Connector;
use crate::error::{Error, Kind};

/// Where gRPC servers beside a web server put their port, as Spring's gRPC starters do.
const PORT_KEY: &str = "gRPC_port";

/// What a generated client calls an application through: `InventoryClient::new(eureka.channel("inventory"))`. Made by
/// [`Eureka::channel`](crate::Eureka::channel).
///
/// Each call, unary or streaming, goes to an instance that is UP, chosen by load, over the HTTP/2 connection that is kept to it,
/// or over a [further one](CallOptions::http2_connections) while that has no stream left. The instance's port is the one that its metadata names as `gRPC_port` (another key:
/// [`port_key`](CallOptions::port_key)), else that of its record; TLS is spoken as [`Ports`](crate::client::Ports) says.
///
/// A call that was not sent is made at another instance. A call that the instance stated it did not process (`GOAWAY`, `REFUSED_STREAM`)
/// is sent again to the same one, then to another one. All gRPC calls are POST, so nothing else is tried again
/// unless the [`RetryPolicy`](crate::client::RetryPolicy) says that they may be:
/// `RetryPolicy::new().all_methods().grpc_codes([14])` repeats lost connections, and `UNAVAILABLE` where no answer had begun.
///
/// A deadline ([`Request::set_timeout`](::tonic::Request::set_timeout), the extension [`Deadline`](crate::client::Deadline),
/// [`CallOptions::timeout`]) covers the whole call, as gRPC has it: waiting, further tries and the end of a stream. The instance
/// is told what is left of it. The extension [`WaitForReady`](crate::client::WaitForReady) and
/// [`CallOptions::wait_for_ready`] say how long to wait for a first instance.
///
/// Cheap to clone; clones share connections and what was learnt of the instances. Always ready.
///
/// # Errors
///
/// A [`Status`] that no instance sent has an [`Error`] as its source, where there is more to tell:
///
/// | code | what happened |
/// |---|---|
/// | `UNAVAILABLE` | no instance for the ready timeout, none that could be connected to, none that processed the call, or the connection was lost |
/// | `DEADLINE_EXCEEDED` | the deadline passed |
/// | `INVALID_ARGUMENT` | no application can have this name |
/// | what gRPC says for the reason | the instance reset the stream |
#[derive(Clone)]
pub struct Channel(Arc<Named<RequestBody>>);

impl Channel {
    pub(crate) fn new(
        name: &str,
        registry: Arc<RegistryCache>,
        options: CallOptions,
        ready_timeout: Duration,
        connector: Connector,
    ) -> Self {
        Self(Arc::new(Named::new(name, PORT_KEY, registry, options, ready_timeout, connector)))
    }
}

impl Service<Request<RequestBody>> for Channel {
    type Response = Response<ResponseBody>;
    type Error = Status;
    type Future = ResponseFuture;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Status>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<RequestBody>) -> ResponseFuture {
        let named = self.0.clone();
        ResponseFuture(Box::pin(async move {
            let (response, deadline) = named.call(request).await.map_err(status_of)?;
            Ok(response.map(|inner| ResponseBody::new(inner, deadline)))
        }))
    }
}

impl fmt::Debug for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Channel").field(&self.0).finish()
    }
}

fn status_of(error: Error) -> Status {
    let code = match error.kind() {
        Kind::Config => Code::InvalidArgument,
        Kind::Timeout => Code::DeadlineExceeded,
        Kind::Call | Kind::Caller | Kind::Unprocessed => code_of(&error),
        _ => Code::Unavailable,
    };
    let mut status = Status::new(code, error.to_string());
    status.set_source(Arc::new(error));
    status
}

/// The code of a call that broke off: that of the reason which the other side gave for it, else that of a lost connection (grpc:
/// PROTOCOL-HTTP2, "Errors").
fn code_of(error: &(dyn StdError + 'static)) -> Code {
    use h2::Reason;
    let told = std::iter::successors(Some(error), |&error| error.source())
        .find_map(|error| error.downcast_ref::<h2::Error>())
        .filter(|error| error.is_reset() || error.is_go_away() && error.reason() == Some(Reason::ENHANCE_YOUR_CALM))
        .and_then(h2::Error::reason);
    match told {
        None | Some(Reason::REFUSED_STREAM) => Code::Unavailable,
        Some(Reason::CANCEL) => Code::Cancelled,
        Some(Reason::ENHANCE_YOUR_CALM) => Code::ResourceExhausted,
        Some(Reason::INADEQUATE_SECURITY) => Code::PermissionDenied,
        Some(_) => Code::Internal,
    }
}

/// The answer to a gRPC call, under way. Dropping it drops the call.
pub struct ResponseFuture(Pin<Box<dyn Future<Output = Result<Response<ResponseBody>, Status>> + Send>>);

impl Future for ResponseFuture {
    type Output = Result<Response<ResponseBody>, Status>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.0.as_mut().poll(cx)
    }
}

impl fmt::Debug for ResponseFuture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ResponseFuture")
    }
}

/// The messages of an answer. Ends with a [`Status`] when the connection is lost or the deadline of the call passes.
#[derive(Default)]
pub struct ResponseBody {
    inner: crate::client::ResponseBody,
    /// Boxed, as most calls have none.
    deadline: Option<Pin<Box<Sleep>>>,
}

impl ResponseBody {
    fn new(inner: crate::client::ResponseBody, deadline: Option<Instant>) -> Self {
        Self { inner, deadline: deadline.map(|at| Box::pin(sleep_until(at))) }
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = &mut *self;
        if let Poll::Ready(frame) = Pin::new(&mut this.inner).poll_frame(cx) {
            let broken = |error: tower::BoxError| {
                let text = format!("the connection was lost before the end of the answer: {error}");
                let mut status = Status::new(code_of(&*error), text);
                status.set_source(Arc::from(error));
                status
            };
            return Poll::Ready(frame.map(|frame| frame.map_err(broken)));
        }
        let Some(deadline) = &mut this.deadline else { return Poll::Pending };
        ready!(deadline.as_mut().poll(cx));
        // Which also tells the instance that nobody waits for the rest.
        *this = Self::default();
        Poll::Ready(Some(Err(Status::deadline_exceeded("the answer had not ended before the deadline of the call"))))
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

impl fmt::Debug for ResponseBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseBody").field("inner", &self.inner).finish_non_exhaustive()
    }
}
