//! HTTP/2 connections to one instance: one, and further ones while all its streams are in use.
//!
//! ```text
//! request ─▶ first connection with a free stream ─▶ hyper ─▶ response; free again after its body
//!        └─▶ none: the next free stream, or a new connection (one connect for all waiters)
//! ```
//!
//! hyper-util's client looks up connections by host, in a pool under a lock, twice for each call.
//! Here an instance is one host. hyper-util's `pool::singleton` (0.1.21) loses waiters: a waiter
//! dropped after its connect failed takes the place of another waiter of the next connect.

mod frames;
mod streams;

use std::error::Error as StdError;
use std::fmt;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Buf;
use http::{Request, Response, Uri};
use http_body::Body;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, sleep_until, timeout_at};
use tower::{BoxError, ServiceExt};
use tracing::debug;

use self::frames::WatchedStream;
pub(super) use self::streams::StreamPermit;
use self::streams::{ConnectionState, StreamQueue};
use super::InstanceBody;
use super::link::Lifetime;
use crate::client::failure::{Failure, is_refused_stream};
use crate::client::options::Limits;
use crate::client::presence::Presence;
use crate::client::replay::AttemptBody;
use crate::connect::{ConnectError, Connector};
use crate::model::ip_of;
use crate::sync::{Mutex, MutexGuard};

/// Interval of keep-alive pings on connections with pending calls.
///
/// Stock gRPC servers close connections that ping more than once in five minutes. A lost network
/// is noticed earlier by the operating system (see [`Connector`]).
pub(super) const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(330);
/// Time limit of the response to a keep-alive ping.
pub(super) const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(20);
/// Flow-control window of a connection: the maximum of HTTP/2 (RFC 9113, 6.9.1).
///
/// The window of each stream bounds its unread bytes. With hyper's window, three unread response
/// bodies would stop all other calls on their connection.
pub(super) const CONNECTION_WINDOW: u32 = (1 << 31) - 1;

/// Maximum number of connections tried for one request, if each ends before it takes the request
/// or has no free stream.
const CONNECTION_TRIES: usize = 3;

/// Time for which a connection that refused a stream is used only if there is no other.
const REFUSAL_PAUSE: Duration = Duration::from_millis(100);

/// Added to the time limit of a waiter whose first connection is being established.
const CONNECT_MARGIN: Duration = Duration::from_millis(50);

/// Pool of HTTP/2 connections to one instance.
///
/// Clones share the connections. Dropping the last clone closes them after the calls in flight.
pub(super) struct Http2<B>(Arc<Shared<B>>);

struct Shared<B> {
    connector: Connector,
    presence: Arc<Presence>,
    max_connections: usize,
    limits: Limits,
    pool: Mutex<Pool<B>>,
    queue: Arc<StreamQueue>,
    /// A connection was established at least once.
    has_connected: AtomicBool,
    /// Held by the waiter that gets the next free stream.
    front: tokio::sync::Mutex<()>,
}

struct Pool<B> {
    /// In the order in which they are filled.
    connections: Vec<Connection<B>>,
    connecting: Option<Connecting>,
    /// Task that closes idle further connections, and those that are to be replaced.
    sweeper: Option<JoinHandle<()>>,
}

struct Connection<B> {
    sender: Sender<B>,
    state: Arc<ConnectionState>,
    /// Time until which the connection is used only if there is no other.
    paused_until: Option<Instant>,
    lifetime: Lifetime,
    /// First check at which the connection was idle.
    idle_since: Option<Instant>,
}

type Sender<B> = http2::SendRequest<AttemptBody<B>>;

/// Result of a connect, shared by all waiters. `None` while it is pending.
type Connecting = watch::Receiver<Option<Result<(), SharedConnectError>>>;

/// Connect error shared by all waiters.
#[derive(Clone, Debug)]
struct SharedConnectError(Arc<dyn StdError + Send + Sync>);

/// A stream that was opened for a request.
type OpenStream<B> = (Sender<B>, StreamPermit);

/// Failure of a send, with the request if it was not sent.
pub(super) struct SendError<B> {
    pub(super) failure: Failure,
    pub(super) request: Option<Request<AttemptBody<B>>>,
}

impl<B> Http2<B>
where
    B: Body<Data: Buf + Send, Error: Into<BoxError>> + Send + 'static,
{
    /// Connects to the address of the instance on demand, with at most `max_connections`.
    pub(super) fn new(connector: Connector, presence: Arc<Presence>, max_connections: usize, limits: Limits) -> Self {
        let pool = Pool { connections: Vec::new(), connecting: None, sweeper: None };
        Self(Arc::new(Shared {
            connector,
            presence,
            max_connections: max_connections.max(1),
            limits,
            pool: Mutex::new(pool),
            queue: Arc::default(),
            has_connected: AtomicBool::new(false),
            front: tokio::sync::Mutex::default(),
        }))
    }

    /// Sends a request. If no connection was established, the error contains the request.
    ///
    /// # Cancel safety
    /// Dropping the future does not cancel a connect, which continues for other calls.
    pub(super) fn send(
        self,
        mut request: Request<AttemptBody<B>>,
    ) -> impl Future<Output = Result<Response<InstanceBody>, Box<SendError<B>>>> + Send {
        let shared = self.0;
        let failed = |failure| Err(Box::new(SendError { failure, request: None }));
        // Not an `async fn`: its future would hold the request twice.
        async move {
            for last in (0..CONNECTION_TRIES).rev() {
                let (mut sender, permit) = match shared.try_open_stream() {
                    Some(stream) => stream,
                    None => match Box::pin(shared.wait_for_stream()).await {
                        Ok(stream) => stream,
                        Err(failure) => return Err(Box::new(SendError { failure, request: Some(request) })),
                    },
                };
                let response = sender.try_send_request(request);
                // A request queued while the connection ends stays in hyper's queue until the last
                // sender is dropped: this one, and the one in the pool.
                drop(sender);
                let mut error = match shared.presence.unless_gone(response).await {
                    Err(failure) => return failed(failure),
                    Ok(Ok(response)) => return Ok(response.map(|body| InstanceBody::on_stream(body, permit))),
                    Ok(Err(error)) => error,
                };
                // Returned if the connection ended before it took the request.
                match error.take_message() {
                    Some(unsent) if last > 0 => {
                        permit.connection().end();
                        request = unsent;
                    }
                    Some(_) => return failed(Failure::Unprocessed(error.into_error().into())),
                    None => {
                        let error = error.into_error();
                        if is_refused_stream(&error) {
                            shared.pause(permit.connection());
                        }
                        return failed(error.into());
                    }
                }
            }
            unreachable!("the last try returns")
        }
    }

    /// Returns `true` if an HTTP/2 connection was established before.
    pub(super) fn has_connected(&self) -> bool {
        self.0.has_connected.load(Ordering::Relaxed)
    }

    /// Connects as calls do, and closes the connection.
    pub(super) fn probe(&self) -> impl Future<Output = Result<(), BoxError>> + Send + use<B> {
        let Shared { connector, presence, limits, .. } = &*self.0;
        let connecting = connect::<B>(connector.clone(), presence.address.uri_of(None), Arc::default(), *limits);
        async move { connecting.await.map(drop) }
    }
}

impl<B> Shared<B>
where
    B: Body<Data: Buf + Send, Error: Into<BoxError>> + Send + 'static,
{
    /// Waits for a stream, and connects if another connection is allowed. Waiters are served in
    /// order of arrival.
    async fn wait_for_stream(self: &Arc<Self>) -> Result<OpenStream<B>, Failure> {
        let within = self.connector.timeout();
        let _waiter = self.queue.join();
        let first = if self.has_connections() { None } else { self.connect_once() };
        // The connect ends a little earlier, so that all waiters receive its result.
        let deadline = Instant::now() + within + if first.is_some() { CONNECT_MARGIN } else { Duration::ZERO };
        let _front = tokio::select! {
            biased;
            Err(error) = result(first) => return Err(Failure::Unsent(error.into())),
            front = self.front.lock() => front,
            () = sleep_until(deadline) => return Err(self.timeout_failure(within)),
        };
        let mut connects = 0;
        loop {
            let mut changed = pin!(self.queue.notified());
            changed.as_mut().enable();
            self.pool().remove_ended(Instant::now());
            if let Some(stream) = self.open_stream(false) {
                return Ok(stream);
            }
            // A connect that failed while others are open is not repeated, and a few connections
            // without a free stream are enough.
            let connecting = if connects < CONNECTION_TRIES { self.connect_once() } else { None };
            let has_connections = self.has_connections();
            if connecting.is_none() {
                if let Some(stream) = self.open_stream(true) {
                    return Ok(stream);
                }
                if !has_connections {
                    return Err(Failure::Unprocessed("new connections ended before they took the request".into()));
                }
            }
            tokio::select! {
                biased;
                connected = result(connecting) => match connected {
                    Ok(()) => connects += 1,
                    Err(_) if has_connections => connects = CONNECTION_TRIES,
                    Err(error) => return Err(Failure::Unsent(error.into())),
                },
                () = changed => {}
                () = sleep_until(deadline) => return Err(self.timeout_failure(within)),
            }
        }
    }

    /// Failure of a call that got no stream in time: all are in use, or there is no connection.
    fn timeout_failure(&self, within: Duration) -> Failure {
        if self.has_connections() {
            Failure::full(within)
        } else {
            Failure::Unsent(ConnectError::new(format!("no connection within {within:?}")).into())
        }
    }

    /// Opens a stream if one is free and no other call waits for one.
    #[inline]
    fn try_open_stream(&self) -> Option<OpenStream<B>> {
        if self.queue.has_waiters() { None } else { self.open_stream(false) }
    }

    /// Opens a stream on the first connection that has one.
    #[inline]
    fn open_stream(&self, use_paused: bool) -> Option<OpenStream<B>> {
        let pool = self.pool();
        let usable = |connection: &&Connection<B>| {
            !connection.sender.is_closed() && (use_paused || connection.paused_until.is_none())
        };
        let open = |connection: &Connection<B>| Some((connection.sender.clone(), connection.state.open_stream()?));
        pool.connections.iter().filter(usable).find_map(open)
    }

    /// Returns the pending connect, or starts one. `None` at the maximum number of connections.
    fn connect_once(self: &Arc<Self>) -> Option<Connecting> {
        let mut pool = self.pool();
        // Ended connections do not count for the maximum.
        pool.remove_ended(Instant::now());
        if let Some(connecting) = &pool.connecting
            && connecting.borrow().is_none()
            // Its task may have ended with its runtime.
            && connecting.has_changed().is_ok()
        {
            return Some(connecting.clone());
        }
        if pool.connections.len() >= self.max_connections {
            return None;
        }
        let (result, connecting) = watch::channel(None);
        let uri = self.presence.address.uri_of(None);
        let connect = connect::<B>(self.connector.clone(), uri, self.queue.clone(), self.limits);
        let shared = Arc::downgrade(self);
        tokio::spawn(async move {
            let connected = tokio::select! {
                connected = connect => connected.map_err(|error| SharedConnectError(Arc::from(error))),
                // The endpoint was dropped, and with it all waiters.
                () = result.closed() => return,
            };
            let connected = connected.map(|(connection, running)| {
                let pool = shared.clone();
                tokio::spawn(async move {
                    running.await;
                    if let Some(shared) = pool.upgrade() {
                        shared.pool().remove_ended(Instant::now());
                    }
                });
                if let Some(shared) = shared.upgrade() {
                    shared.add(connection);
                }
            });
            drop(result.send(Some(connected)));
        });
        pool.connecting = Some(connecting.clone());
        Some(connecting)
    }

    fn add(self: &Arc<Self>, connection: Connection<B>) {
        let mut pool = self.pool();
        self.has_connected.store(true, Ordering::Relaxed);
        pool.connections.push(connection);
        if (pool.connections.len() > 1 || self.is_replaced())
            && pool.sweeper.as_ref().is_none_or(JoinHandle::is_finished)
        {
            pool.sweeper = Some(tokio::spawn(sweep(Arc::downgrade(self), self.limits.check_interval())));
        }
        drop(pool);
        self.queue.wake();
    }
}

impl<B> Shared<B> {
    /// Returns `true` if a connection may be replaced while it is open.
    fn is_replaced(&self) -> bool {
        self.limits.max_age.is_some() || ip_of(self.presence.address.authority.host()).is_none()
    }

    fn has_connections(&self) -> bool {
        self.pool().connections.iter().any(Connection::is_open)
    }

    /// Prefers other connections for a while after this one refused a stream.
    fn pause(&self, refused: &Arc<ConnectionState>) {
        let mut pool = self.pool();
        let refused = pool.connections.iter_mut().find(|connection| Arc::ptr_eq(&connection.state, refused));
        if let Some(connection) = refused {
            connection.paused_until = Some(Instant::now() + REFUSAL_PAUSE);
        }
    }

    fn pool(&self) -> MutexGuard<'_, Pool<B>> {
        self.pool.lock()
    }
}

impl<B> Drop for Shared<B> {
    fn drop(&mut self) {
        let pool = self.pool.get_mut();
        if let Some(sweeper) = &pool.sweeper {
            sweeper.abort();
        }
    }
}

impl<B> Pool<B> {
    /// Removes ended connections and expired pauses.
    fn remove_ended(&mut self, now: Instant) {
        self.connections.retain(Connection::is_open);
        for connection in &mut self.connections {
            connection.paused_until = connection.paused_until.filter(|until| *until > now);
        }
    }
}

impl<B> Connection<B> {
    fn is_open(&self) -> bool {
        !self.sender.is_closed() && !self.state.has_ended()
    }
}

/// Waits for the result of a connect. Without one, never completes.
async fn result(connecting: Option<Connecting>) -> Result<(), SharedConnectError> {
    let Some(mut connecting) = connecting else { return std::future::pending().await };
    match connecting.wait_for(Option::is_some).await {
        Ok(result) => result.clone().expect("result is set before the wait ends"),
        Err(_) => Err(SharedConnectError(Arc::from(BoxError::from("the runtime of the connect was shut down")))),
    }
}

/// Connects and waits for the server's SETTINGS. Returns the connection and the future that
/// drives it.
async fn connect<B>(
    connector: Connector,
    uri: Uri,
    queue: Arc<StreamQueue>,
    limits: Limits,
) -> Result<(Connection<B>, impl Future<Output = ()> + Send + 'static), BoxError>
where
    B: Body<Data: Buf + Send, Error: Into<BoxError>> + Send + 'static,
{
    let within = connector.timeout();
    let deadline = Instant::now() + within;
    let stream = connector.http2(true).oneshot(uri).await?.into_inner();
    let lifetime = Lifetime::new(stream.peer(), &limits);
    let state = Arc::new(ConnectionState::new(queue));
    let (sender, mut connection) = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .keep_alive_interval(KEEP_ALIVE_INTERVAL)
        .keep_alive_timeout(KEEP_ALIVE_TIMEOUT)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .handshake(TokioIo::new(WatchedStream::new(stream, state.clone())))
        .await?;
    let settings = async {
        tokio::select! {
            biased;
            () = state.wait_for_settings() => Ok(()),
            ended = &mut connection => Err(ended),
        }
    };
    match timeout_at(deadline, settings).await {
        Ok(Ok(())) => {}
        Ok(Err(_)) if state.is_foreign() => {
            return Err(ConnectError::new("the other side does not speak HTTP/2").other_protocol().into());
        }
        Ok(Err(ended)) => {
            let error = ConnectError::new("the other side closed the connection before it spoke HTTP/2").not_http2();
            return Err(if let Err(why) = ended { error.with_source(why) } else { error }.into());
        }
        Err(_) => return Err(ConnectError::new(format!("no HTTP/2 SETTINGS within {within:?}")).into()),
    }
    let running = async move {
        if let Err(error) = connection.await {
            debug!(%error, "HTTP/2 connection failed");
        }
    };
    Ok((Connection { sender, state, paused_until: None, lifetime, idle_since: None }, running))
}

/// Closes connections that are to be replaced, and further ones that are idle for too long. Ends
/// once there is nothing to check.
async fn sweep<B>(shared: Weak<Shared<B>>, interval: Duration) {
    loop {
        sleep(interval).await;
        let Some((connector, presence)) = shared.upgrade().map(|s| (s.connector.clone(), s.presence.clone())) else {
            return;
        };
        // Meanwhile the pool may be dropped.
        let addresses = connector.current_addresses(&presence.address.uri_of(None)).await;
        let Some(shared) = shared.upgrade() else { return };
        let now = Instant::now();
        let mut pool = shared.pool();
        for connection in pool.connections.iter().filter(|c| c.lifetime.is_over(now, addresses.as_deref())) {
            // Its streams continue to their ends.
            connection.state.end();
        }
        pool.remove_ended(now);
        let mut is_first = true;
        pool.connections.retain_mut(|connection| {
            let is_idle = connection.state.is_idle();
            let since = &mut connection.idle_since;
            if !is_idle {
                *since = None;
            }
            std::mem::take(&mut is_first) || !(is_idle && shared.limits.is_idle_too_long(since, now))
        });
        if pool.connections.is_empty() || (pool.connections.len() < 2 && !shared.is_replaced()) {
            pool.sweeper = None;
            return;
        }
    }
}

impl<B> Clone for Http2<B> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl fmt::Display for SharedConnectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl StdError for SharedConnectError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        Some(&*self.0)
    }
}

#[cfg(test)]
mod tests;
