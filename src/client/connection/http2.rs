//! The HTTP/2 connections to an instance: one, and further ones while it has no stream left.
//!
//! ```text
//! a call ─▶ the first connection with a free stream ─────────────────▶ hyper ─▶ the response; free again when its body ends
//!       └─▶ none: a new connection, made in a task of its own for all that wait, or a stream that becomes free
//! ```
//!
//! hyper-util's client finds a connection by host, in a pool under a lock, twice for each call. An instance is one host. Its
//! `pool::singleton` (0.1.21) loses waiters: one that is dropped after its attempt failed takes another's place in the next one.

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

use super::InstanceBody;
use super::peer::{Peer, Permit, Vacancies, Watched};
use crate::client::failure::{Failure, is_refused_stream};
use crate::client::presence::Presence;
use crate::client::replay::AttemptBody;
use crate::connect::{ConnectError, Connector};
use crate::sync::{Mutex, MutexGuard};

/// How often a connection on which calls wait is asked for a sign of life. Not more often, since stock gRPC servers close on who
/// asks more than once in five minutes; a peer that vanished is noticed by the system before (see [`Connector`]).
pub(super) const KEEP_ALIVE: Duration = Duration::from_secs(330);
/// How long the answer may take.
pub(super) const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(20);

/// Over how many connections a request is tried to be sent that were at their end before they took it.
const CONNECTIONS: usize = 3;

/// Twice as long, at most, a further connection may be idle.
const SWEEP: Duration = Duration::from_secs(45);

/// Time for which a connection that refused a stream is used only if there is no other.
const REST: Duration = Duration::from_millis(100);

/// Added to the time limit of a call that waits for a first connection.
const MARGIN: Duration = Duration::from_millis(50);

/// Clones share the connections. Dropping the last closes them after the calls in flight.
pub(super) struct Http2<B>(Arc<Shared<B>>);

struct Shared<B> {
    connector: Connector,
    presence: Arc<Presence>,
    most: usize,
    pool: Mutex<Pool<B>>,
    vacancies: Arc<Vacancies>,
    /// A connection came about once.
    has_connected: AtomicBool,
    /// Held by the call that has the next free stream.
    turn: tokio::sync::Mutex<()>,
}

struct Pool<B> {
    /// In the order in which they are filled.
    connections: Vec<Connection<B>>,
    attempt: Option<Attempt>,
    /// Closes further connections that are idle for too long.
    sweeper: Option<JoinHandle<()>>,
}

struct Connection<B> {
    sender: Sender<B>,
    peer: Arc<Peer>,
    /// Used only if there is no other, until then.
    rests_until: Option<Instant>,
    /// Whether it was already idle at the last sweep.
    is_old: bool,
}

type Sender<B> = http2::SendRequest<AttemptBody<B>>;

/// `None` while it is under way.
type Attempt = watch::Receiver<Option<Result<(), Unconnected>>>;

/// Why there is no connection, for all that waited for it.
#[derive(Clone, Debug)]
struct Unconnected(Arc<dyn StdError + Send + Sync>);

/// A stream that was found for a request.
type Place<B> = (Sender<B>, Permit);

/// A request that was not sent, if it is still there, and why.
pub(super) struct Unsent<B> {
    pub(super) failure: Failure,
    pub(super) request: Option<Request<AttemptBody<B>>>,
}

impl<B> Http2<B>
where
    B: Body<Data: Buf + Send, Error: Into<BoxError>> + Send + 'static,
{
    /// Makes up to this number of connections to the address of the instance, once there are requests for them.
    pub(super) fn new(connector: Connector, presence: Arc<Presence>, most: usize) -> Self {
        let pool = Pool { connections: Vec::new(), attempt: None, sweeper: None };
        let (pool, most) = (Mutex::new(pool), most.max(1));
        let (vacancies, turn) = (Arc::default(), tokio::sync::Mutex::default());
        let has_connected = AtomicBool::new(false);
        Self(Arc::new(Shared { connector, presence, most, pool, vacancies, has_connected, turn }))
    }

    /// Sends a request. Returns it with the error if the peer does not speak HTTP/2.
    ///
    /// # Cancel safety
    /// Who gives up while the connection is made leaves it to the others, and to the next call.
    pub(super) fn send(
        self,
        mut request: Request<AttemptBody<B>>,
    ) -> impl Future<Output = Result<Response<InstanceBody>, Box<Unsent<B>>>> + Send {
        let shared = self.0;
        let failed = |failure| Err(Box::new(Unsent { failure, request: None }));
        // Not an `async fn`, which would hold the request twice.
        async move {
            for last in (0..CONNECTIONS).rev() {
                let (mut sender, permit) = match shared.enter_at_once() {
                    Some(place) => place,
                    None => match Box::pin(shared.place()).await {
                        Ok(place) => place,
                        Err(failure) => return Err(Box::new(Unsent { failure, request: Some(request) })),
                    },
                };
                let sending = sender.try_send_request(request);
                // A request that is handed over while the connection ends is lost in hyper's queue until the last sender is gone:
                // this one, and the one of the pool.
                drop(sender);
                let mut error = match shared.presence.unless_gone(sending).await {
                    Err(failure) => return failed(failure),
                    Ok(Ok(response)) => return Ok(response.map(|body| InstanceBody::on_stream(body, permit))),
                    Ok(Err(error)) => error,
                };
                // It comes back if the connection was at its end before it took it.
                match error.take_message() {
                    Some(unsent) if last > 0 => {
                        permit.peer().end();
                        request = unsent;
                    }
                    Some(_) => return failed(Failure::Unprocessed(error.into_error().into())),
                    None => {
                        let error = error.into_error();
                        if is_refused_stream(&error) {
                            shared.rest(permit.peer());
                        }
                        return failed(error.into());
                    }
                }
            }
            unreachable!("the last connection ends the loop")
        }
    }

    /// Returns `true` if HTTP/2 was spoken here before.
    pub(super) fn has_connected(&self) -> bool {
        self.0.has_connected.load(Ordering::Relaxed)
    }

    /// Makes a connection as calls do, and closes it again.
    pub(super) fn probe(&self) -> impl Future<Output = Result<(), BoxError>> + Send + use<B> {
        let Shared { connector, presence, .. } = &*self.0;
        let connecting = connect::<B>(connector.clone(), presence.address.uri_of(None), Arc::default());
        async move { connecting.await.map(drop) }
    }
}

impl<B> Shared<B>
where
    B: Body<Data: Buf + Send, Error: Into<BoxError>> + Send + 'static,
{
    /// Waits for a stream, over a new connection where there may be one. Routes have their turn in the order in which they came.
    async fn place(self: &Arc<Self>) -> Result<Place<B>, Failure> {
        let within = self.connector.timeout();
        let _waiting = Waiting::new(&self.vacancies);
        let first = if self.has_connections() { None } else { self.attempt() };
        // The attempt ends a little before, so that all calls learn its result.
        let deadline = Instant::now() + within + if first.is_some() { MARGIN } else { Duration::ZERO };
        let _turn = tokio::select! {
            biased;
            Err(why) = result(first) => return Err(Failure::Unsent(why.into())),
            turn = self.turn.lock() => turn,
            () = sleep_until(deadline) => return Err(self.too_late(within)),
        };
        let mut attempts = 0;
        loop {
            let mut changed = pin!(self.vacancies.notified());
            changed.as_mut().enable();
            self.pool().forget_ended(Instant::now());
            if let Some(place) = self.enter(false) {
                return Ok(place);
            }
            // One that failed beside connections that stand is not repeated, nor are those that end at once.
            let attempt = if attempts < CONNECTIONS { self.attempt() } else { None };
            let has_connections = self.has_connections();
            if attempt.is_none() {
                if let Some(place) = self.enter(true) {
                    return Ok(place);
                }
                if !has_connections {
                    return Err(Failure::Unprocessed("new connections ended before they took the request".into()));
                }
            }
            tokio::select! {
                biased;
                made = result(attempt) => match made {
                    Ok(()) => attempts += usize::from(!has_connections),
                    Err(_) if has_connections => attempts = CONNECTIONS,
                    Err(why) => return Err(Failure::Unsent(why.into())),
                },
                () = changed => {}
                () = sleep_until(deadline) => return Err(self.too_late(within)),
            }
        }
    }

    /// No stream within this time: the connections are full, or there is none.
    fn too_late(&self, within: Duration) -> Failure {
        if self.has_connections() {
            Failure::full(within)
        } else {
            Failure::Unsent(ConnectError::new(format!("no connection within {within:?}")).into())
        }
    }

    /// Takes a stream unless there is none, or calls wait for one.
    #[inline]
    fn enter_at_once(&self) -> Option<Place<B>> {
        if self.vacancies.has_waiters() { None } else { self.enter(false) }
    }

    /// Takes a stream of the first connection that has one.
    #[inline]
    fn enter(&self, despite_rest: bool) -> Option<Place<B>> {
        let pool = self.pool();
        let usable = |connection: &&Connection<B>| {
            !connection.sender.is_closed() && (despite_rest || connection.rests_until.is_none())
        };
        let found = |connection: &Connection<B>| Some((connection.sender.clone(), connection.peer.enter()?));
        pool.connections.iter().filter(usable).find_map(found)
    }

    /// The attempt to connect that is under way, or a new one; `None` where there are as many connections as there may be.
    fn attempt(self: &Arc<Self>) -> Option<Attempt> {
        let mut pool = self.pool();
        if let Some(attempt) = &pool.attempt
            && attempt.borrow().is_none()
            // Its task may be gone with its runtime.
            && attempt.has_changed().is_ok()
        {
            return Some(attempt.clone());
        }
        if pool.connections.len() >= self.most {
            return None;
        }
        let (result, attempt) = watch::channel(None);
        let connecting =
            connect::<B>(self.connector.clone(), self.presence.address.uri_of(None), self.vacancies.clone());
        let shared = Arc::downgrade(self);
        tokio::spawn(async move {
            let made = tokio::select! {
                made = connecting => made.map_err(|error| Unconnected(Arc::from(error))),
                // The instance is gone, and with it all who wait.
                () = result.closed() => return,
            };
            let made = made.map(|(connection, running)| {
                let pool = shared.clone();
                tokio::spawn(async move {
                    running.await;
                    if let Some(shared) = pool.upgrade() {
                        shared.pool().forget_ended(Instant::now());
                    }
                });
                if let Some(shared) = shared.upgrade() {
                    shared.add(connection);
                }
            });
            drop(result.send(Some(made)));
        });
        pool.attempt = Some(attempt.clone());
        Some(attempt)
    }

    fn add(self: &Arc<Self>, connection: Connection<B>) {
        let mut pool = self.pool();
        self.has_connected.store(true, Ordering::Relaxed);
        pool.connections.push(connection);
        if pool.connections.len() > 1 && pool.sweeper.as_ref().is_none_or(JoinHandle::is_finished) {
            pool.sweeper = Some(tokio::spawn(sweep(Arc::downgrade(self))));
        }
        drop(pool);
        self.vacancies.wake();
    }
}

impl<B> Shared<B> {
    fn has_connections(&self) -> bool {
        self.pool().connections.iter().any(Connection::is_open)
    }

    /// Lets other connections have the next requests after this one refused a stream.
    fn rest(&self, peer: &Arc<Peer>) {
        let mut pool = self.pool();
        let refused = pool.connections.iter_mut().find(|connection| Arc::ptr_eq(&connection.peer, peer));
        if let Some(connection) = refused {
            connection.rests_until = Some(Instant::now() + REST);
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

/// A caller that waits for a stream.
struct Waiting<'a>(&'a Vacancies);

impl<'a> Waiting<'a> {
    fn new(vacancies: &'a Vacancies) -> Self {
        vacancies.join();
        Self(vacancies)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.leave();
    }
}

impl<B> Pool<B> {
    /// Forgets connections that are at their end, and rests that are over.
    fn forget_ended(&mut self, now: Instant) {
        self.connections.retain(Connection::is_open);
        for connection in &mut self.connections {
            connection.rests_until = connection.rests_until.filter(|until| *until > now);
        }
    }
}

impl<B> Connection<B> {
    fn is_open(&self) -> bool {
        !self.sender.is_closed() && !self.peer.has_ended()
    }
}

/// Waits for the result of an attempt. Never completes without one.
async fn result(attempt: Option<Attempt>) -> Result<(), Unconnected> {
    let Some(mut attempt) = attempt else { return std::future::pending().await };
    match attempt.wait_for(Option::is_some).await {
        Ok(result) => result.clone().expect("it was waited for"),
        Err(_) => Err(Unconnected(Arc::from(BoxError::from("the runtime in which it was connected ends")))),
    }
}

/// Makes a connection, whose peer has sent its SETTINGS, and returns it with the task that runs it until nobody uses it any more.
async fn connect<B>(
    connector: Connector,
    uri: Uri,
    vacancies: Arc<Vacancies>,
) -> Result<(Connection<B>, impl Future<Output = ()> + Send + 'static), BoxError>
where
    B: Body<Data: Buf + Send, Error: Into<BoxError>> + Send + 'static,
{
    let within = connector.timeout();
    let deadline = Instant::now() + within;
    let stream = connector.http2(true).oneshot(uri).await?.into_inner();
    let peer = Arc::new(Peer::new(vacancies));
    let (sender, mut connection) = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .keep_alive_interval(KEEP_ALIVE)
        .keep_alive_timeout(KEEP_ALIVE_TIMEOUT)
        .handshake(TokioIo::new(Watched::new(stream, peer.clone())))
        .await?;
    let settled = async {
        tokio::select! {
            biased;
            () = peer.settled() => Ok(()),
            ended = &mut connection => Err(ended),
        }
    };
    match timeout_at(deadline, settled).await {
        Ok(Ok(())) => {}
        Ok(Err(_)) if peer.is_foreign() => {
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
            debug!(%error, "an HTTP/2 connection broke");
        }
    };
    Ok((Connection { sender, peer, rests_until: None, is_old: false }, running))
}

/// Closes further connections that are idle for two sweeps, until none is left.
async fn sweep<B>(shared: Weak<Shared<B>>) {
    loop {
        sleep(SWEEP).await;
        let Some(shared) = shared.upgrade() else { return };
        let mut pool = shared.pool();
        pool.forget_ended(Instant::now());
        let mut is_first = true;
        pool.connections.retain_mut(|connection| {
            let is_idle = connection.peer.is_idle();
            let is_old = std::mem::replace(&mut connection.is_old, is_idle);
            std::mem::take(&mut is_first) || !(is_idle && is_old)
        });
        if pool.connections.len() < 2 {
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

impl fmt::Display for Unconnected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl StdError for Unconnected {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        Some(&*self.0)
    }
}

#[cfg(test)]
mod tests;
