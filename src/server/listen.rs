//! A listener that survives bad company: slow loris, idle crowds, endless heads and bodies.
//!
//! ```text
//!  accept ── at most so many connections ──▶ Watched<TcpStream> ──▶ hyper ──▶ Router
//!                                                  │ bytes moved        │ a request begins, is answered
//!                                                  ▼                    ▼
//!                                             Activity ◀── looked at after each poll of the connection
//! ```
//!
//! Each connection has one timer, which is armed anew only when a head or a long answer is cut off in the middle or when it fires: a busy
//! connection pays two readings of the clock per request. Bodies are timed only while they make a handler wait.

mod activity;
mod answer;
mod body;
mod limits;

use std::convert::Infallible;
use std::error::Error;
use std::future::{Future, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::response::Response;
use http::Request;
use http_body::Body as _;
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use pin_project::pin_project;
use socket2::SockRef;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tower::util::{Oneshot, ServiceExt};
use tower::{BoxError, Service};

use self::activity::{Activity, Handling, Watched};
use self::answer::{Followed, followed};
use self::body::TimedBody;
pub(crate) use self::limits::Limits;
use super::audit::{self, Throttle};

/// The smallest buffer that hyper takes.
const MIN_HEAD_BYTES: usize = 8 * 1024;
/// A full listener is logged at most this often.
const FULL_LOG_INTERVAL: Duration = Duration::from_secs(60);
/// How long nothing is accepted after the system refused a connection, usually for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// What the system keeps of an answer that is not taken yet; Linux makes it twice as much.
///
/// The progress of an answer is what was handed to the system, and Linux takes more only once a third of this is free. With its usual
/// megabytes that comes so seldom that a reader would look idle who is not slow; with this, one step is no more than the progress asked for.
const SEND_BUFFER: usize = 96 * 1024;

/// Serves a router, or any other service of its kind, over HTTP/1.1 and HTTP/2 on a TCP listener, within limits.
///
/// `axum::serve` has no such limits and suits a server behind a proxy that has them. Each limit has a setter here, and a default
/// that no client of a registry meets. Each request has the address of its sender in axum's
/// `ConnectInfo<SocketAddr>`.
///
/// ```no_run
/// use std::time::Duration;
///
/// use axum::Router;
/// use tokio::net::TcpListener;
/// use tower_eureka::EurekaServer;
/// use tower_eureka::server::Listener;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let registry = EurekaServer::builder().build()?;
/// let app = Router::new().nest("/eureka", registry.router());
/// Listener::new(TcpListener::bind("127.0.0.1:8761").await?)
///     .max_connections(1_000)
///     .idle_timeout(Duration::from_secs(120))
///     .serve(app, async { drop(tokio::signal::ctrl_c().await) })
///     .await;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
#[must_use = "a listener does nothing until `serve`"]
pub struct Listener {
    listener: TcpListener,
    limits: Limits,
}

impl Listener {
    /// With the default limits.
    pub fn new(listener: TcpListener) -> Self {
        Self::with_limits(listener, Limits::default())
    }

    pub(super) fn with_limits(listener: TcpListener, limits: Limits) -> Self {
        Self { listener, limits }
    }

    /// Most connections at a time. Default 20,000; none counts as one.
    ///
    /// Further ones wait in the system's queue until one ends. The process needs as many file descriptors.
    pub fn max_connections(mut self, connections: usize) -> Self {
        self.limits.connections = connections;
        self
    }

    /// Longest time from the first byte of a request to the end of its headers. Default 10 s.
    ///
    /// Then the connection is closed. Of HTTP/2 connections [`idle_timeout`](Self::idle_timeout) alone counts.
    pub fn head_timeout(mut self, timeout: Duration) -> Self {
        self.limits.head_timeout = timeout;
        self
    }

    /// Longest time for a request's body, from when it is first waited for. Default 30 s.
    ///
    /// Then the body fails with [`io::ErrorKind::TimedOut`], which the registry answers with 408, and the connection ends.
    pub fn body_timeout(mut self, timeout: Duration) -> Self {
        self.limits.body_timeout = timeout;
        self
    }

    /// Longest time in which a peer takes less than 64 KiB of an answer that is longer than that. Default 10 s.
    ///
    /// Then the connection is closed. So whoever takes an answer slowly holds it in memory for a time that its length bounds, and one who
    /// takes none of it for no longer than this. Of shorter answers [`idle_timeout`](Self::idle_timeout) alone counts, and of the
    /// answers of one HTTP/2 connection what is taken of all together.
    pub fn answer_timeout(mut self, timeout: Duration) -> Self {
        self.limits.answer_timeout = timeout;
        self
    }

    /// Longest time in which a connection moves no byte while no handler works for it. Default 90 s.
    ///
    /// Then it is closed. This bounds keep-alive between requests, new connections that say nothing, and peers that do not take
    /// their answers. Heartbeats and fetches come every 30 s.
    pub fn idle_timeout(mut self, timeout: Duration) -> Self {
        self.limits.idle_timeout = timeout;
        self
    }

    /// Most bytes of a request's line and headers together. Default 32 KiB, at least 8 KiB. More is answered with 431.
    pub fn max_head_bytes(mut self, bytes: usize) -> Self {
        self.limits.head_bytes = bytes;
        self
    }

    /// Most headers of a request. Default 100. More is answered with 431.
    pub fn max_headers(mut self, headers: usize) -> Self {
        self.limits.headers = headers;
        self
    }

    /// Time for requests in flight after the shutdown signal. Default 5 s. Connections that are merely open get none.
    pub fn shutdown_timeout(mut self, timeout: Duration) -> Self {
        self.limits.shutdown_timeout = timeout;
        self
    }

    /// The address that it listens on.
    ///
    /// # Errors
    /// When the system does not say.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves until `shutdown` completes and the requests in flight are answered, or their time is up.
    ///
    /// # Cancel safety
    /// Dropping the future closes the listener and all connections at once.
    pub async fn serve<S>(self, app: S, shutdown: impl Future<Output = ()>)
    where
        S: Service<Request<Body>, Response = Response, Error = Infallible, Future: Send> + Clone + Send + 'static,
    {
        let Self { listener, limits } = self;
        let http = http(&limits);
        let slots = Arc::new(Semaphore::new(limits.connections.clamp(1, Semaphore::MAX_PERMITS)));
        let full = Throttle::new(FULL_LOG_INTERVAL);
        let unreadable = Arc::new(Throttle::default());
        let (stopping, stopped) = watch::channel(());
        let mut connections = JoinSet::new();
        let mut shutdown = pin!(shutdown);
        loop {
            if slots.available_permits() == 0
                && let Some(suppressed) = full.pass()
            {
                let connections = limits.connections;
                tracing::warn!(connections, suppressed, "connection limit reached: further connections wait");
            }
            let accepted = tokio::select! {
                biased;
                () = &mut shutdown => break,
                Some(_) = connections.join_next() => continue,
                accepted = accept(&listener, &slots) => accepted,
            };
            let (stream, peer, slot) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(%error, "cannot accept connections");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            let connection = connection(http.clone(), stream, peer, app.clone(), limits, stopped.clone());
            let unreadable = unreadable.clone();
            connections.spawn(async move {
                if let Err(error) = connection.await {
                    note_failed(&*error, peer, &unreadable);
                }
                drop(slot);
            });
        }
        drop((listener, stopping, stopped));
        let all = async { while connections.join_next().await.is_some() {} };
        if tokio::time::timeout(limits.shutdown_timeout, all).await.is_err() {
            tracing::warn!(connections = connections.len(), "stopped with requests in flight");
        }
    }
}

fn http(limits: &Limits) -> auto::Builder<TokioExecutor> {
    let mut http = auto::Builder::new(TokioExecutor::new());
    let head_bytes = limits.head_bytes.max(MIN_HEAD_BYTES);
    // The watch over the connection bounds heads, for less than a timer per request.
    http.http1().header_read_timeout(None).max_buf_size(head_bytes);
    if limits.headers != Limits::DEFAULT_HEADERS {
        http.http1().max_headers(limits.headers);
    }
    http.http2().max_header_list_size(head_bytes.try_into().unwrap_or(u32::MAX));
    http
}

async fn accept(
    listener: &TcpListener,
    slots: &Arc<Semaphore>,
) -> io::Result<(TcpStream, SocketAddr, OwnedSemaphorePermit)> {
    let slot = slots.clone().acquire_owned().await.expect("nobody closes it");
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => {
                // Answers are written whole; waiting for more of them only delays the last packet.
                let _ = stream.set_nodelay(true);
                let _ = SockRef::from(&stream).set_send_buffer_size(SEND_BUFFER);
                return Ok((stream, peer, slot));
            }
            // The peer's fault, and its loss.
            Err(error) if matches!(error.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset) => {
            }
            Err(error) => return Err(error),
        }
    }
}

async fn connection<S>(
    http: auto::Builder<TokioExecutor>,
    stream: TcpStream,
    peer: SocketAddr,
    app: S,
    limits: Limits,
    mut stopped: watch::Receiver<()>,
) -> Result<(), BoxError>
where
    S: Service<Request<Body>, Response = Response, Error = Infallible, Future: Send> + Clone + Send + 'static,
{
    let activity = Arc::new(Activity::start(&limits));
    let io = TokioIo::new(Watched::new(stream, activity.clone()));
    let service = App { inner: app, peer, activity: activity.clone(), body_timeout: limits.body_timeout };
    let mut connection = pin!(http.serve_connection(io, service));
    let mut stop = pin!(async move { while stopped.changed().await.is_ok() {} });
    let mut stopping = false;
    let mut timer = pin!(tokio::time::sleep_until(activity.deadline()));
    poll_fn(|cx| {
        if !stopping && stop.as_mut().poll(cx).is_ready() {
            stopping = true;
            connection.as_mut().graceful_shutdown();
        }
        if let Poll::Ready(ended) = connection.as_mut().poll(cx) {
            return Poll::Ready(ended);
        }
        // Usually the timer is armed for too early, and moved on only when it fires.
        let deadline = activity.deadline();
        if deadline < timer.deadline() {
            timer.as_mut().reset(deadline);
        }
        while timer.as_mut().poll(cx).is_ready() {
            let deadline = activity.deadline();
            if deadline <= Instant::now() {
                tracing::trace!("connection timed out");
                return Poll::Ready(Ok(()));
            }
            timer.as_mut().reset(deadline);
        }
        Poll::Pending
    })
    .await
}

/// Logs that a connection failed: a warning if the peer does not speak HTTP, as one that speaks
/// TLS, or sends too large a head.
fn note_failed(error: &(dyn Error + 'static), peer: SocketAddr, unreadable: &Throttle) {
    let origin = audit::canonical(peer);
    let is_unreadable = error.downcast_ref::<hyper::Error>().is_some_and(hyper::Error::is_parse);
    if !is_unreadable {
        tracing::trace!(%origin, %error, "connection failed");
    } else if let Some(suppressed) = unreadable.pass() {
        let cause = error.source().map(|cause| format!(": {cause}")).unwrap_or_default();
        tracing::warn!(%origin, suppressed, "connection closed: {error}{cause} (does the client speak HTTPS?)");
    }
}

/// A service as hyper calls it.
struct App<S> {
    inner: S,
    peer: SocketAddr,
    activity: Arc<Activity>,
    body_timeout: Duration,
}

impl<S> hyper::service::Service<Request<Incoming>> for App<S>
where
    S: Service<Request<Body>, Response = Response, Error = Infallible> + Clone,
{
    type Response = Response<Followed>;
    type Error = Infallible;
    type Future = Answering<S>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let handling = Handling::new(self.activity.clone());
        let mut request = request.map(|body| {
            if body.is_end_stream() { Body::empty() } else { Body::new(TimedBody::new(body, self.body_timeout)) }
        });
        request.extensions_mut().insert(ConnectInfo(self.peer));
        Answering { answer: self.inner.clone().oneshot(request), handling }
    }
}

/// What the service makes of a request; as long as it lives, the connection is not idle.
#[pin_project]
struct Answering<S: Service<Request<Body>>> {
    #[pin]
    answer: Oneshot<S, Request<Body>>,
    handling: Handling,
}

impl<S: Service<Request<Body>, Response = Response>> Future for Answering<S> {
    type Output = Result<Response<Followed>, S::Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let response = ready!(this.answer.poll(cx))?;
        Poll::Ready(Ok(followed(response, this.handling.activity())))
    }
}
