//! One connection of a listener: the TLS handshake, HTTP, timeouts and the requests.

use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::response::{IntoResponse, Response};
use http::{Method, Request, StatusCode};
use http_body::Body as _;
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use pin_project::pin_project;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{Instant, Sleep, sleep_until};
use tower::util::{Oneshot, ServiceExt};
use tower::{BoxError, Service};

use super::Limits;
use super::activity::{Activity, InFlight};
use super::body::TimedBody;
use super::response::{TrackedBody, track};
use super::stream::{TrackedStream, Transport};
use super::tls::{self, Acceptor};
use crate::server::access::PeerCertificate;
use crate::server::connections::STREAM_WINDOW;

/// Maximum time for an idle HTTP/2 connection to end after GOAWAY.
const GOAWAY_TIMEOUT: Duration = Duration::from_secs(1);
/// Bytes of all request bodies of a connection that HTTP/2 receives before the service reads them.
const CONNECTION_WINDOW: u32 = 4 * STREAM_WINDOW;

/// Returns the settings of hyper within these limits.
pub(super) fn http(limits: &Limits) -> auto::Builder<TokioExecutor> {
    let mut http = auto::Builder::new(TokioExecutor::new());
    let head_bytes = limits.head_bytes.max(Limits::MIN_HEAD_BYTES);
    // `Watchdog` bounds the time of heads, which costs less than hyper's timer for each request.
    http.http1().header_read_timeout(None).max_buf_size(head_bytes);
    if limits.headers != Limits::DEFAULT_HEADERS {
        http.http1().max_headers(limits.headers.clamp(1, Limits::MAX_HEADERS));
    }
    let streams: u32 = limits.http2_streams.max(1).try_into().unwrap_or(u32::MAX);
    http.http2()
        .max_header_list_size(head_bytes.try_into().unwrap_or(u32::MAX))
        .max_concurrent_streams(streams)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW);
    if limits.http2 { http } else { http.http1_only() }
}

/// Connection that was accepted and has a permit.
pub(super) struct Accepted {
    pub(super) stream: TcpStream,
    pub(super) peer: SocketAddr,
    /// TLS of the listener, if it has one.
    pub(super) tls: Option<Acceptor>,
}

/// Serves a connection until it ends or times out, or `stopped` closes and its requests in flight
/// are done.
pub(super) async fn serve<S>(
    http: auto::Builder<TokioExecutor>,
    Accepted { stream, peer, tls }: Accepted,
    app: S,
    limits: Limits,
    activity: Arc<Activity>,
    mut stopped: watch::Receiver<()>,
) -> Result<(), BoxError>
where
    S: Service<Request<Body>, Response = Response, Error = Infallible, Future: Send> + Clone + Send + 'static,
{
    // Taken before the handshake, so that no change of the files is missed.
    let changes = tls.as_ref().map(Acceptor::changes);
    let (stream, certificate) = match tls {
        None => (Transport::Plain(stream), None),
        Some(tls) => tokio::select! {
            session = tls::handshake(&tls, stream, limits.http2, limits.handshake_timeout) => session?,
            // Nothing was sent to the listener, so there is nothing to wait for.
            _ = stopped.changed() => return Ok(()),
        },
    };
    let client = changes.zip(certificate.clone());
    let io = TokioIo::new(TrackedStream::new(stream, activity.clone()));
    let Limits { body_timeout, headers: max_headers, .. } = limits;
    let service =
        TrackedService { inner: app, peer, certificate, activity: activity.clone(), body_timeout, max_headers };
    let mut connection = pin!(http.serve_connection(io, service));
    let stop = async move { while stopped.changed().await.is_ok() {} };
    let mut stop = pin!(async move {
        match client {
            None => stop.await,
            Some((changes, certificate)) => tokio::select! {
                () = stop => {}
                () = tls::outdated(changes, certificate) => {}
            },
        }
    });
    let mut stopping = false;
    let mut watchdog = pin!(Watchdog::new(activity));
    poll_fn(|cx| {
        if !stopping && stop.as_mut().poll(cx).is_ready() {
            stopping = true;
            connection.as_mut().graceful_shutdown();
        }
        loop {
            if let Poll::Ready(result) = connection.as_mut().poll(cx) {
                return Poll::Ready(result);
            }
            match ready!(watchdog.as_mut().poll_expired(cx)) {
                Expiry::GoAway => connection.as_mut().graceful_shutdown(),
                Expiry::Close => {
                    tracing::trace!("connection timed out");
                    return Poll::Ready(Ok(()));
                }
            }
        }
    })
    .await
}

/// The one timer of a connection, which covers all its timeouts.
///
/// It usually fires too early and is then reset to the current deadline. This costs less than a
/// reset for each request.
#[pin_project]
struct Watchdog {
    activity: Arc<Activity>,
    #[pin]
    timer: Sleep,
    /// Set once GOAWAY is sent: end of the time in which the connection can end by itself.
    goaway_deadline: Option<Instant>,
}

/// Action that an expired timeout requires.
enum Expiry {
    /// Send GOAWAY on an idle HTTP/2 connection. Its peer may be sending a request at this moment,
    /// and learns from GOAWAY whether it was processed.
    GoAway,
    /// Close the connection.
    Close,
}

impl Watchdog {
    fn new(activity: Arc<Activity>) -> Self {
        let timer = sleep_until(activity.deadline());
        Self { activity, timer, goaway_deadline: None }
    }

    /// Completes when a timeout has expired. To be polled after each poll of the connection, since
    /// that may have moved the deadline to an earlier time.
    fn poll_expired(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Expiry> {
        let mut this = self.project();
        loop {
            let is_idle = !this.activity.is_busy();
            let deadline = this.goaway_deadline.filter(|_| is_idle).unwrap_or_else(|| this.activity.deadline());
            if deadline < this.timer.deadline() {
                this.timer.as_mut().reset(deadline);
            }
            ready!(this.timer.as_mut().poll(cx));
            let now = Instant::now();
            if deadline > now {
                this.timer.as_mut().reset(deadline);
                continue;
            }
            if this.goaway_deadline.is_some() || !this.activity.is_http2() || !is_idle {
                return Poll::Ready(Expiry::Close);
            }
            let deadline = now + GOAWAY_TIMEOUT;
            *this.goaway_deadline = Some(deadline);
            this.timer.as_mut().reset(deadline);
            return Poll::Ready(Expiry::GoAway);
        }
    }
}

/// The user's service as a hyper service that records the activity of its connection.
struct TrackedService<S> {
    inner: S,
    peer: SocketAddr,
    certificate: Option<PeerCertificate>,
    activity: Arc<Activity>,
    body_timeout: Duration,
    max_headers: usize,
}

impl<S> hyper::service::Service<Request<Incoming>> for TrackedService<S>
where
    S: Service<Request<Body>, Response = Response, Error = Infallible> + Clone,
{
    type Response = Response<TrackedBody>;
    type Error = Infallible;
    type Future = TrackedFuture<S>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        self.activity.note_version(request.version());
        let in_flight = InFlight::new(self.activity.clone());
        let is_read = request.method() == Method::GET;
        // hyper limits their number in HTTP/1 alone. In memory, a short header takes far more than
        // its length in HTTP/2.
        if request.headers().len() > self.max_headers {
            return TrackedFuture { inner: None, in_flight, is_read };
        }
        let mut request = request.map(|body| {
            if body.is_end_stream() {
                return Body::empty();
            }
            Body::new(TimedBody::new(body, self.body_timeout, self.activity.clone()))
        });
        request.extensions_mut().insert(ConnectInfo(self.peer));
        if let Some(certificate) = &self.certificate {
            request.extensions_mut().insert(certificate.clone());
        }
        TrackedFuture { inner: Some(self.inner.clone().oneshot(request)), in_flight, is_read }
    }
}

/// Response future of a [`TrackedService`]. The connection is busy until it is ready or dropped.
#[pin_project]
struct TrackedFuture<S: Service<Request<Body>>> {
    /// `None` for a request that has more headers than the limit, and was dropped.
    #[pin]
    inner: Option<Oneshot<S, Request<Body>>>,
    in_flight: InFlight,
    /// True for a request that changes nothing.
    is_read: bool,
}

impl<S: Service<Request<Body>, Response = Response>> Future for TrackedFuture<S> {
    type Output = Result<Response<TrackedBody>, S::Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let response = match this.inner.as_pin_mut() {
            Some(response) => ready!(response.poll(cx))?,
            None => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE.into_response(),
        };
        let activity = this.in_flight.activity().expect("future is not polled after completion").clone();
        let response = track(response, *this.is_read, activity, cx);
        // After `track`, so that the connection does not look idle in between.
        this.in_flight.finish();
        Poll::Ready(Ok(response))
    }
}
