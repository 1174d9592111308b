//! A listener that survives slow and hostile peers: slow loris, idle crowds, endless heads and
//! bodies, responses that nobody takes.
//!
//! ```text
//!  accept ── Places: a place, or an idle connection gives way ──▶ Watched<TcpStream> ──▶ hyper ──▶ Router
//!                                                  │ bytes moved        │ a request begins, its response is taken
//!                                                  ▼                    ▼
//!                                             Activity ◀── read after each poll of the connection
//! ```
//!
//! Each connection has one timer, which is armed anew only when a head or a long response is cut off in the middle or when it fires: a busy
//! connection pays two readings of the clock per request. Bodies are timed only while they make a handler wait.

mod activity;
mod answer;
mod body;
mod limits;
mod log;
mod places;

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
use http::{Method, Request};
use http_body::Body as _;
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use pin_project::pin_project;
use socket2::SockRef;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};
use tower::util::{Oneshot, ServiceExt};
use tower::{BoxError, Service};

use self::activity::{Activity, Handling, Watched};
use self::answer::{Followed, followed};
use self::body::TimedBody;
pub(crate) use self::limits::Limits;
use self::log::AcceptLog;
use self::places::{Places, Refused};
use super::audit::{self, Repeats};
use super::unsent::Unsent;

/// Time without accepting after the system refused a connection, usually for want of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);
/// The same after connections were closed to make room.
const CLOSE_PAUSE: Duration = Duration::from_millis(10);
/// `EMFILE`, the same number on all Unix systems.
const OUT_OF_DESCRIPTORS: i32 = 24;
/// Maximum time that a new connection waits for a place when all connections are in use.
const PLACE_TIMEOUT: Duration = Duration::from_secs(1);
/// Time between two looks for such a place.
const PLACE_INTERVAL: Duration = Duration::from_millis(50);
/// Time between two looks for slow peers while the budget of unsent bytes is exhausted.
const SLOW_INTERVAL: Duration = Duration::from_millis(250);
/// Time for an idle HTTP/2 connection to end after GOAWAY.
const GOAWAY_TIMEOUT: Duration = Duration::from_secs(1);

/// Size of the system's buffer for bytes that the peer has not taken yet; Linux doubles it.
///
/// The progress of a response is what was handed to the system, and Linux takes more only once a third of this is free. With its usual
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
    unsent: Arc<Unsent>,
}

impl Listener {
    /// Creates a listener with the default limits, and without a budget of unsent bytes: that
    /// belongs to a registry, see [`EurekaServer::listener`](crate::EurekaServer::listener).
    pub fn new(listener: TcpListener) -> Self {
        Self::with_limits(listener, Limits::default(), Arc::new(Unsent::new(usize::MAX)))
    }

    pub(super) fn with_limits(listener: TcpListener, limits: Limits, unsent: Arc<Unsent>) -> Self {
        Self { listener, limits, unsent }
    }

    /// Sets the maximum number of connections at a time. Defaults to 20,000; zero counts as one.
    ///
    /// When there are more, idle connections give way: those of the address with the most
    /// connections first, the longest idle one of them before others. While no connection is idle, a new
    /// one waits for up to a second and is then closed. If one address has more than half of all
    /// connections and none is idle, its requests that have waited for a second for their peer, to send or to take a
    /// byte, give way to other addresses. A request whose handler works never gives way.
    ///
    /// The process needs as many file descriptors, see [`descriptors`](Self::descriptors).
    pub fn max_connections(mut self, connections: usize) -> Self {
        self.limits.connections = connections;
        self
    }

    /// Sets the maximum number of connections at a time from one address. Without it an address
    /// may have all of them; zero counts as one.
    ///
    /// When an address has more, its own connection that was idle for longest gives way, or the new
    /// connection is closed if none is idle. An IPv6 address counts by its first 64 bits. All clients
    /// behind one proxy or NAT have one address.
    pub fn max_connections_per_address(mut self, connections: usize) -> Self {
        self.limits.connections_per_address = connections;
        self
    }

    /// Sets the number of file descriptors that the process may have open.
    ///
    /// The listener then leaves 100 of them, or a quarter if that is less, for connections to peers, DNS and
    /// files: it takes fewer connections than [`max_connections`](Self::max_connections) if it must.
    /// Without it the listener counts on enough descriptors, and learns at the first failure that there are fewer.
    pub fn descriptors(mut self, soft_limit: usize) -> Self {
        self.limits.descriptors = soft_limit;
        self
    }

    /// Sets whether HTTP/2 is spoken beside HTTP/1.1. Defaults to `true`.
    pub fn http2(mut self, enabled: bool) -> Self {
        self.limits.http2 = enabled;
        self
    }

    /// Sets the maximum number of requests at a time on one HTTP/2 connection. Defaults to 16;
    /// zero counts as one.
    ///
    /// Clients know this number and wait with further requests.
    pub fn max_http2_streams(mut self, streams: usize) -> Self {
        self.limits.http2_streams = streams;
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

    /// Sets the maximum time in which a peer takes less than 64 KiB of its responses, or less than
    /// the rest of them. Defaults to 10 seconds.
    ///
    /// Then the connection is closed. So a peer that takes a response slowly holds it in memory
    /// for a time that its length bounds. On an HTTP/2 connection, all responses count together. On an
    /// HTTP/1 connection, a response of at most 64 KiB is bounded by [`idle_timeout`](Self::idle_timeout) alone.
    ///
    /// While the budget of [`response_limit`](crate::server::EurekaServerBuilder::response_limit) is
    /// exhausted, a connection is also closed once it has had a quarter of this time and took less
    /// than 1 MB a second.
    pub fn response_timeout(mut self, timeout: Duration) -> Self {
        self.limits.response_timeout = timeout;
        self
    }

    /// Sets the maximum time in which a connection moves no byte while no handler works for it.
    /// Defaults to 90 seconds.
    ///
    /// Then it is closed. This bounds keep-alive between requests, new connections that say
    /// nothing, and peers that do not take their responses. Of an HTTP/2 connection only requests and
    /// responses count, not pings and the like. Heartbeats and fetches come every 30 seconds.
    pub fn idle_timeout(mut self, timeout: Duration) -> Self {
        self.limits.idle_timeout = timeout;
        self
    }

    /// Most bytes of a request's line and headers together. Default 32 KiB, at least 8 KiB. More is answered with 431.
    pub fn max_head_bytes(mut self, bytes: usize) -> Self {
        self.limits.head_bytes = bytes;
        self
    }

    /// Sets the maximum number of headers of a request, 1 to 10,000. Defaults to 100. The response to more is 431.
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
        let Self { listener, limits, unsent } = self;
        let http = http(&limits);
        let closing = unsent.closing();
        let places = Arc::new(Places::new(&limits));
        let mut log = AcceptLog::new(&limits);
        let unreadable = Arc::new(Repeats::default());
        let (stopping, stopped) = watch::channel(());
        let mut connections = JoinSet::new();
        let mut shutdown = pin!(shutdown);
        let mut waiting: Option<Newcomer> = None;
        let mut looked_for_slow = Instant::now();
        let mut look_for_slow: Option<Instant> = None;
        loop {
            let newcomer = tokio::select! {
                biased;
                () = &mut shutdown => break,
                Some(_) = connections.join_next() => {
                    log.ended(places.count());
                    waiting.take()
                }
                () = unsent.exhausted(), if look_for_slow.is_none() => {
                    look_for_slow = Some(looked_for_slow + SLOW_INTERVAL);
                    None
                }
                () = sleep_until(look_for_slow.unwrap_or(looked_for_slow)), if look_for_slow.is_some() => {
                    let is_short = unsent.is_short();
                    let closed = if is_short { places.close_slow(limits.response_timeout / 4) } else { 0 };
                    log.closed_slow(closed, is_short, unsent.bytes());
                    looked_for_slow = Instant::now();
                    look_for_slow = is_short.then(|| looked_for_slow + SLOW_INTERVAL);
                    None
                }
                () = sleep(PLACE_INTERVAL), if waiting.is_some() => waiting.take(),
                accepted = accept(&listener), if waiting.is_none() => match accepted {
                    Ok((stream, peer)) => Some(Newcomer { stream, peer, since: None }),
                    Err(error) => {
                        let connections = places.count();
                        let closed = places.give_way(error.raw_os_error() == Some(OUT_OF_DESCRIPTORS));
                        log.failed(&error, connections, closed, places.limit());
                        // Those that were closed give their descriptors back in a moment.
                        sleep(if closed > 0 { CLOSE_PAUSE } else { ACCEPT_PAUSE }).await;
                        None
                    }
                },
            };
            let Some(Newcomer { stream, peer, since }) = newcomer else { continue };
            let activity = Arc::new(Activity::start(&limits, unsent.clone()));
            let place = match places.admit(peer.ip(), &activity) {
                Ok(admitted) => {
                    log.admitted(&admitted, places.count());
                    admitted.place
                }
                Err(Refused::Full) if since.is_none_or(|since| since.elapsed() < PLACE_TIMEOUT) => {
                    waiting = Some(Newcomer { stream, peer, since: since.or_else(|| Some(Instant::now())) });
                    continue;
                }
                Err(refused) => {
                    log.refused(peer, refused == Refused::Full, places.count());
                    continue;
                }
            };
            let key = place.key();
            let connection = connection(http.clone(), stream, peer, app.clone(), limits, activity, stopped.clone());
            let unreadable = unreadable.clone();
            let task = connections.spawn(async move {
                if let Err(error) = connection.await {
                    note_failed(&*error, peer, &unreadable);
                }
                drop(place);
            });
            places.set_task(key, task);
        }
        drop((listener, closing, stopping, stopped));
        let all = async { while connections.join_next().await.is_some() {} };
        if tokio::time::timeout(limits.shutdown_timeout, all).await.is_err() {
            tracing::warn!(connections = connections.len(), "stopped with requests in flight");
        }
    }
}

/// A connection without a place so far.
struct Newcomer {
    stream: TcpStream,
    peer: SocketAddr,
    /// Set once it waits.
    since: Option<Instant>,
}

fn http(limits: &Limits) -> auto::Builder<TokioExecutor> {
    let mut http = auto::Builder::new(TokioExecutor::new());
    let head_bytes = limits.head_bytes.max(Limits::MIN_HEAD_BYTES);
    // The watch over the connection bounds heads, for less than a timer per request.
    http.http1().header_read_timeout(None).max_buf_size(head_bytes);
    if limits.headers != Limits::DEFAULT_HEADERS {
        http.http1().max_headers(limits.headers.clamp(1, Limits::MAX_HEADERS));
    }
    let streams: u32 = limits.http2_streams.max(1).try_into().unwrap_or(u32::MAX);
    http.http2().max_header_list_size(head_bytes.try_into().unwrap_or(u32::MAX)).max_concurrent_streams(streams);
    if limits.http2 { http } else { http.http1_only() }
}

async fn accept(listener: &TcpListener) -> io::Result<(TcpStream, SocketAddr)> {
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => {
                // Responses are written whole; waiting for more of them only delays the last packet.
                let _ = stream.set_nodelay(true);
                let _ = SockRef::from(&stream).set_send_buffer_size(SEND_BUFFER);
                return Ok((stream, peer));
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
    activity: Arc<Activity>,
    mut stopped: watch::Receiver<()>,
) -> Result<(), BoxError>
where
    S: Service<Request<Body>, Response = Response, Error = Infallible, Future: Send> + Clone + Send + 'static,
{
    let io = TokioIo::new(Watched::new(stream, activity.clone()));
    let service = App { inner: app, peer, activity: activity.clone(), body_timeout: limits.body_timeout };
    let mut connection = pin!(http.serve_connection(io, service));
    let mut stop = pin!(async move { while stopped.changed().await.is_ok() {} });
    let mut stopping = false;
    let mut leaves_at: Option<Instant> = None;
    let mut timer = pin!(sleep_until(activity.deadline()));
    poll_fn(|cx| {
        if !stopping && stop.as_mut().poll(cx).is_ready() {
            stopping = true;
            connection.as_mut().graceful_shutdown();
        }
        loop {
            if let Poll::Ready(ended) = connection.as_mut().poll(cx) {
                return Poll::Ready(ended);
            }
            // Usually the timer is armed for too early, and moved on only when it fires.
            let deadline = leaves_at.filter(|_| !activity.is_busy()).unwrap_or_else(|| activity.deadline());
            if deadline < timer.deadline() {
                timer.as_mut().reset(deadline);
            }
            if timer.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            let is_over = deadline <= Instant::now();
            if !is_over {
                timer.as_mut().reset(deadline);
            } else if leaves_at.is_none() && activity.is_http2() && !activity.is_busy() {
                // Its peer may be sending a request just now: GOAWAY says which ones were taken.
                let ends_at = Instant::now() + GOAWAY_TIMEOUT;
                leaves_at = Some(ends_at);
                timer.as_mut().reset(ends_at);
                connection.as_mut().graceful_shutdown();
            } else {
                tracing::trace!("connection timed out");
                return Poll::Ready(Ok(()));
            }
        }
    })
    .await
}

/// Logs that a connection failed: a warning if the peer does not speak HTTP, as one that speaks
/// TLS, or sends too large a head.
fn note_failed(error: &(dyn Error + 'static), peer: SocketAddr, unreadable: &Repeats) {
    let origin = audit::canonical(peer);
    let is_unreadable = error.downcast_ref::<hyper::Error>().is_some_and(hyper::Error::is_parse);
    if !is_unreadable {
        tracing::trace!(%origin, %error, "connection failed");
        return;
    }
    let cause = error.source().map(|cause| format!(": {cause}")).unwrap_or_default();
    unreadable.flush();
    if let Some(suppressed) = unreadable.pass(format_args!("connection of {} closed: {error}{cause}", origin.ip())) {
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
        self.activity.speaks(request.version());
        let handling = Handling::new(self.activity.clone());
        let reads = request.method() == Method::GET;
        let mut request = request.map(|body| {
            if body.is_end_stream() {
                return Body::empty();
            }
            Body::new(TimedBody::new(body, self.body_timeout, self.activity.clone()))
        });
        request.extensions_mut().insert(ConnectInfo(self.peer));
        Answering { answer: self.inner.clone().oneshot(request), handling, reads }
    }
}

/// What the service makes of a request; as long as it lives, the connection is not idle.
#[pin_project]
struct Answering<S: Service<Request<Body>>> {
    #[pin]
    answer: Oneshot<S, Request<Body>>,
    handling: Handling,
    /// Set for a request that changes nothing.
    reads: bool,
}

impl<S: Service<Request<Body>, Response = Response>> Future for Answering<S> {
    type Output = Result<Response<Followed>, S::Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let response = ready!(this.answer.poll(cx))?;
        let activity = this.handling.activity().expect("not polled after it was ready").clone();
        let response = followed(response, *this.reads, activity, cx);
        // Only now, so that the connection does not look idle in between.
        this.handling.finish();
        Poll::Ready(Ok(response))
    }
}
