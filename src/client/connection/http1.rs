//! HTTP/1.1 connections to one instance. Each connection carries one request at a time.
//!
//! ```text
//! request ─▶ most recently used idle connection ─▶ hyper ─▶ response; idle again after its body
//!        ├─▶ none: connects, and takes a connection that becomes idle earlier
//!        └─▶ after a lost attempt of the same call: connects
//! ```
//!
//! hyper-util's `client::pool::cache` takes 0 to 1.5 % more instructions per call, client and
//! server together. It is not used, since it drops a connect whose caller gives up: callers whose
//! timeout is shorter than a handshake would never get a connection. Here the connect continues in
//! the background (test `connection_of_a_dropped_call_serves_the_next`).
//!
//! A task checks the connections while there are idle ones, and retires those that are to be
//! replaced (`link.rs`).

use std::collections::VecDeque;
use std::mem;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use http::{Method, Request, Response, Uri, Version};
use http_body::Body;
use hyper::client::conn::http1;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};
use tower::{BoxError, ServiceExt};
use tracing::debug;

use super::InstanceBody;
use super::link::{Lifetime, Link};
use super::read_after_close::ReadAfterClose;
use crate::client::address::Address;
use crate::client::failure::Failure;
use crate::client::options::Limits;
use crate::client::presence::Presence;
use crate::client::replay::AttemptBody;
use crate::connect::Connector;
use crate::sync::{Mutex, MutexGuard};

/// Pool of HTTP/1.1 connections to one instance.
///
/// Clones share the connections. Dropping the last clone closes them after the calls in flight.
pub(super) struct Http1<B>(Arc<Shared<B>>);

struct Shared<B> {
    connector: Connector,
    presence: Arc<Presence>,
    limits: Limits,
    /// Places of the maximum number of connections, if there is one.
    places: Option<Arc<Semaphore>>,
    state: Mutex<State<B>>,
}

struct State<B> {
    /// Ordered by last use, the most recent last.
    idle: Vec<Idle<B>>,
    /// Calls that connect, and take any connection that becomes idle before.
    waiters: VecDeque<oneshot::Sender<Sender<B>>>,
    /// Connect that continues after its call was dropped.
    background_connect: Option<JoinHandle<()>>,
    /// Task that closes connections that are idle for too long, or are to be replaced.
    sweeper: Option<JoinHandle<()>>,
}

struct Idle<B> {
    sender: Sender<B>,
    /// First check at which the connection was idle.
    since: Option<Instant>,
}

/// Extension of a request that is sent over a new connection, unless the limit of connections is
/// reached.
///
/// The connections of an instance often end together: it stops, or closes those that were idle for
/// some time. A call that lost a reused connection might lose the next one as well.
#[derive(Clone, Copy)]
pub(in crate::client) struct NewConnection;

struct Connection<B> {
    sender: Sender<B>,
    /// `true` if established for this call. A reused connection may have been closed unnoticed.
    is_new: bool,
}

/// Sender of the requests of one connection.
struct Sender<B> {
    requests: Requests<B>,
    link: Arc<Link>,
}

type Requests<B> = http1::SendRequest<AttemptBody<B>>;

/// A waiter's place in the queue. A connection sent to a dropped waiter returns to the pool.
struct Waiter<B: Body<Error: Into<BoxError>> + Send + 'static> {
    pool: Weak<Shared<B>>,
    receiver: oneshot::Receiver<Sender<B>>,
}

/// A pending connect. When dropped, it continues in the background unless another one does.
///
/// Callers whose time limit is shorter than a connect would otherwise never get a connection.
struct Connecting<B: Body<Error: Into<BoxError>> + Send + 'static> {
    pool: Weak<Shared<B>>,
    connect: Option<Connect<B>>,
}

type Connect<B> = BoxFuture<Result<Sender<B>, BoxError>>;

type BoxFuture<T> = Pin<Box<dyn Future<Output = T> + Send>>;

impl<B> Http1<B>
where
    B: Body<Error: Into<BoxError>> + Send + 'static,
{
    /// Connects to the address of the instance on demand.
    pub(super) fn new(connector: Connector, presence: Arc<Presence>, limits: Limits) -> Self {
        let state = State { idle: Vec::new(), waiters: VecDeque::new(), background_connect: None, sweeper: None };
        let places = limits.http1.map(|max| Arc::new(Semaphore::new(max.clamp(1, Semaphore::MAX_PERMITS))));
        Self(Arc::new(Shared { connector, presence, limits, places, state: Mutex::new(state) }))
    }

    /// Sends a request to the address, whatever host its URI names. Callers set the `host` header.
    ///
    /// # Cancel safety
    /// Dropping the future closes the connection of a request in flight.
    #[inline]
    pub(super) fn send(
        self,
        mut request: Request<AttemptBody<B>>,
    ) -> impl Future<Output = Result<Response<InstanceBody>, Failure>> + Send {
        write_for_http1(&mut request, &self.0.presence.address);
        let must_connect = request.extensions_mut().remove::<NewConnection>().is_some();
        let mut may_reconnect = true;
        // Not an `async fn`: its future would hold the request twice.
        async move {
            loop {
                let connecting = if must_connect { self.connect_now() } else { None };
                let Connection { sender, is_new } = match connecting {
                    Some(connecting) => connecting.await?,
                    None => self.connection().await?,
                };
                let Sender { mut requests, link } = sender;
                let sending = pin!(requests.try_send_request(request));
                let mut requests = Some(requests);
                let sending = SendFuture { sending, requests: &mut requests, link: &link };
                let mut failed = match self.0.presence.unless_gone_on(sending).await? {
                    Ok(response) => {
                        // A connection that switches to another protocol belongs to the caller.
                        if response.extensions().get::<OnUpgrade>().is_some() {
                            link.is_upgraded.store(true, Ordering::Relaxed);
                        } else if let Some(requests) = requests {
                            self.0.put_when_ready(Sender { requests, link });
                        }
                        return Ok(response.map(InstanceBody::from));
                    }
                    Err(failed) => failed,
                };
                // Returned if the connection ended before it took the request, as an idle one can.
                // After a second new connection that ended, the instance counts as unreachable.
                request = match failed.take_message() {
                    Some(unsent) if !is_new || mem::take(&mut may_reconnect) => unsent,
                    Some(_) => return Err(Failure::Unsent(failed.into_error().into())),
                    None => return Err(failed.into_error().into()),
                };
            }
        }
    }

    #[inline]
    async fn connection(&self) -> Result<Connection<B>, Failure> {
        match self.0.checkout() {
            Ok(sender) => Ok(Connection { sender, is_new: false }),
            // Boxed to keep the future of calls on idle connections small.
            Err(receiver) => Box::pin(self.connect_or_receive(receiver)).await,
        }
    }

    /// Returns a future that connects, even if there is an idle connection. `None` if the limit of
    /// connections is reached.
    fn connect_now(&self) -> Option<BoxFuture<Result<Connection<B>, Failure>>> {
        let place = self.0.places.clone().map(Semaphore::try_acquire_owned).transpose().ok()?;
        let mut connecting = Connecting::new(&self.0, place);
        // Boxed to keep the future of other calls small.
        Some(Box::pin(async move { connecting.connected().await }))
    }

    async fn connect_or_receive(&self, receiver: oneshot::Receiver<Sender<B>>) -> Result<Connection<B>, Failure> {
        let mut waiter = Waiter { pool: Arc::downgrade(&self.0), receiver };
        let place = match self.0.places.clone() {
            None => None,
            Some(places) => {
                let within = self.0.connector.timeout();
                tokio::select! {
                    biased;
                    Ok(sender) = &mut waiter.receiver => return Ok(Connection { sender, is_new: false }),
                    place = places.acquire_owned() => Some(place.expect("semaphore is never closed")),
                    () = sleep(within) => return Err(Failure::no_connection(within)),
                }
            }
        };
        let mut connecting = Connecting::new(&self.0, place);
        tokio::select! {
            biased;
            Ok(sender) = &mut waiter.receiver => Ok(Connection { sender, is_new: false }),
            connected = connecting.connected() => connected,
        }
    }
}

impl<B> Shared<B>
where
    B: Body<Error: Into<BoxError>> + Send + 'static,
{
    /// Returns a connection to the pool once its response was read.
    fn put_when_ready(self: &Arc<Self>, mut sender: Sender<B>) {
        if sender.requests.is_ready() {
            return self.put(sender);
        }
        let shared = Arc::downgrade(self);
        tokio::spawn(async move {
            if sender.requests.ready().await.is_ok()
                && let Some(shared) = shared.upgrade()
            {
                shared.put(sender);
            }
        });
    }

    /// Sends a connection to the first waiter, or makes it idle.
    fn put(self: &Arc<Self>, mut sender: Sender<B>) {
        if sender.requests.is_closed() || sender.link.is_retired() {
            return;
        }
        while let Some((waiter, unused)) = self.pop_waiter_or_keep(sender) {
            // Sent without the lock, since it wakes the waiter's task.
            match waiter.send(unused) {
                Ok(()) => return,
                Err(unused) => sender = unused,
            }
        }
    }

    /// Returns the first waiter with the connection. Without a waiter, makes the connection idle.
    fn pop_waiter_or_keep(self: &Arc<Self>, sender: Sender<B>) -> Option<(oneshot::Sender<Sender<B>>, Sender<B>)> {
        let mut state = self.state();
        if let Some(waiter) = state.waiters.pop_front() {
            return Some((waiter, sender));
        }
        state.idle.push(Idle { sender, since: None });
        if is_finished(state.sweeper.as_ref()) {
            state.sweeper = Some(tokio::spawn(sweep(Arc::downgrade(self), self.limits.check_interval())));
        }
        None
    }
}

impl<B> Shared<B> {
    /// Takes the most recently used idle connection, or joins the queue for one.
    fn checkout(&self) -> Result<Sender<B>, oneshot::Receiver<Sender<B>>> {
        let mut state = self.state();
        while let Some(Idle { sender, .. }) = state.idle.pop() {
            if !sender.requests.is_closed() {
                return Ok(sender);
            }
        }
        state.waiters.retain(|waiter| !waiter.is_closed());
        let (waiter, receiver) = oneshot::channel();
        state.waiters.push_back(waiter);
        Err(receiver)
    }

    fn state(&self) -> MutexGuard<'_, State<B>> {
        self.state.lock()
    }
}

impl<B> Drop for Shared<B> {
    fn drop(&mut self) {
        let state = self.state.get_mut();
        for task in [&state.background_connect, &state.sweeper].into_iter().flatten() {
            task.abort();
        }
    }
}

/// Returns `true` if there is no task, or it has ended, perhaps with its runtime.
fn is_finished(task: Option<&JoinHandle<()>>) -> bool {
    task.is_none_or(JoinHandle::is_finished)
}

impl<B> Drop for Waiter<B>
where
    B: Body<Error: Into<BoxError>> + Send + 'static,
{
    fn drop(&mut self) {
        self.receiver.close();
        if let (Ok(sender), Some(pool), Ok(_)) = (self.receiver.try_recv(), self.pool.upgrade(), Handle::try_current())
        {
            pool.put(sender);
        }
    }
}

impl<B> Connecting<B>
where
    B: Body<Error: Into<BoxError>> + Send + 'static,
{
    fn new(shared: &Arc<Shared<B>>, place: Option<OwnedSemaphorePermit>) -> Self {
        let Shared { connector, presence, limits, .. } = &**shared;
        let connect = connect(connector.clone(), presence.clone(), *limits, place);
        Self { pool: Arc::downgrade(shared), connect: Some(Box::pin(connect)) }
    }

    async fn connected(&mut self) -> Result<Connection<B>, Failure> {
        let connected = self.connect.as_mut().expect("connected is awaited once").await;
        self.connect = None;
        Ok(Connection { sender: connected.map_err(Failure::Unsent)?, is_new: true })
    }
}

impl<B> Drop for Connecting<B>
where
    B: Body<Error: Into<BoxError>> + Send + 'static,
{
    fn drop(&mut self) {
        let (Some(connect), Some(shared), Ok(runtime)) =
            (self.connect.take(), self.pool.upgrade(), Handle::try_current())
        else {
            return;
        };
        let mut state = shared.state();
        if is_finished(state.background_connect.as_ref()) {
            let pool = self.pool.clone();
            state.background_connect = Some(runtime.spawn(async move {
                if let (Ok(sender), Some(pool)) = (connect.await, pool.upgrade()) {
                    pool.put(sender);
                }
            }));
        }
    }
}

/// Waits for the response, and drops the sender if the connection ends before.
///
/// hyper keeps a request that is queued while the connection ends, and returns it only once the
/// sender is dropped. Polls register with the link, which costs less than a poll of the sender.
struct SendFuture<'a, F, B> {
    /// Pinned where it was made, since it is large: it may return the request.
    sending: Pin<&'a mut F>,
    requests: &'a mut Option<Requests<B>>,
    link: &'a Link,
}

impl<F: Future, B> Future for SendFuture<'_, F, B> {
    type Output = F::Output;

    #[inline]
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = &mut *self;
        if let Poll::Ready(sent) = this.sending.as_mut().poll(cx) {
            return Poll::Ready(sent);
        }
        this.link.waker.register(cx.waker());
        // Checked after the registration, so that no end is missed.
        if this.requests.as_ref().is_some_and(http1::SendRequest::is_closed) {
            *this.requests = None;
            return this.sending.as_mut().poll(cx);
        }
        Poll::Pending
    }
}

/// Connects, and drives the connection in a task until its sender is dropped.
async fn connect<B>(
    connector: Connector,
    presence: Arc<Presence>,
    limits: Limits,
    place: Option<OwnedSemaphorePermit>,
) -> Result<Sender<B>, BoxError>
where
    B: Body<Error: Into<BoxError>> + Send + 'static,
{
    let stream = connector.http2(false).oneshot(presence.address.uri_of(None)).await?;
    let lifetime = Lifetime::new(stream.inner().peer(), &limits);
    let is_upgraded = Arc::<AtomicBool>::default();
    let stream = ReadAfterClose::new(stream.into_inner(), is_upgraded.clone());
    let (requests, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let link = presence.add_link(Link { lifetime, is_upgraded, _place: place, ..Link::default() });
    let connection = connection.with_upgrades();
    tokio::spawn(drive(WakeOnEnd(Arc::downgrade(&link)), connection));
    Ok(Sender { requests, link })
}

/// Drives a connection until its end. Parameters are dropped in reverse order, so that the call is
/// woken after the connection has ended.
async fn drive(_wake: WakeOnEnd, connection: impl Future<Output = Result<(), hyper::Error>>) {
    if let Err(error) = connection.await {
        debug!(%error, "HTTP/1.1 connection failed");
    }
}

/// Wakes the call on a connection when the connection has ended.
struct WakeOnEnd(Weak<Link>);

impl Drop for WakeOnEnd {
    fn drop(&mut self) {
        if let Some(link) = self.0.upgrade() {
            link.waker.wake();
        }
    }
}

/// Closes connections that are idle for too long, or are to be replaced. Ends when none is idle.
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
        for link in presence.links().iter().filter(|link| link.lifetime.is_over(now, addresses.as_deref())) {
            link.is_retired.store(true, Ordering::Relaxed);
        }
        let mut state = shared.state();
        state.idle.retain_mut(|Idle { sender, since }| {
            !sender.requests.is_closed() && !sender.link.is_retired() && !shared.limits.is_idle_too_long(since, now)
        });
        if state.idle.is_empty() {
            state.sweeper = None;
            return;
        }
    }
}

/// Prepares a request for hyper: the target without scheme and host, in a version it can write.
fn write_for_http1<B>(request: &mut Request<B>, address: &Address) {
    if request.version() != Version::HTTP_10 {
        *request.version_mut() = Version::HTTP_11;
    }
    if request.method() == Method::CONNECT {
        *request.uri_mut() = address.authority.clone().into();
    } else if request.uri().authority().is_some() {
        let uri = mem::take(request.uri_mut());
        *request.uri_mut() = uri.into_parts().path_and_query.map_or_else(Uri::default, Uri::from);
    }
}

impl<B> Clone for Http1<B> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

#[cfg(test)]
mod tests;
