//! The HTTP/1.1 connections to an instance: each carries one call at a time.
//!
//! ```text
//! a call ─▶ the idle one that was used last ──────────────────────▶ hyper ─▶ the answer; idle again when that is read
//!       └─▶ none: connects, or takes one that is idle again before
//! ```
//!
//! hyper-util's client finds a connection by host, in a pool under a lock that all hosts share. An instance is one host.

use std::collections::VecDeque;
use std::mem;
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use atomic_waker::AtomicWaker;
use http::{Method, Request, Response, Uri, Version};
use http_body::Body;
use hyper::client::conn::http1;
use pin_project::pin_project;
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::sleep;
use tower::{BoxError, ServiceExt};
use tracing::debug;

use super::InstanceBody;
use crate::client::address::Address;
use crate::client::failure::Failure;
use crate::client::presence::Presence;
use crate::client::replay::AttemptBody;
use crate::connect::Connector;
use crate::sync::{Mutex, MutexGuard};

/// Twice as long, at most, a connection may be idle: 90 s, as in hyper-util's client.
const SWEEP: Duration = Duration::from_secs(45);

/// Clones share the connections. Dropping the last closes them after the calls in flight.
pub(super) struct Http1<B>(Arc<Shared<B>>);

struct Shared<B> {
    connector: Connector,
    presence: Arc<Presence>,
    state: Mutex<State<B>>,
}

struct State<B> {
    /// The one used last comes last.
    idle: Vec<Idle<B>>,
    /// Routes that connect, and would take any.
    waiting: VecDeque<oneshot::Sender<Sender<B>>>,
    /// Connects on behalf of a call that is gone.
    heir: Option<JoinHandle<()>>,
    /// Closes what is idle for too long.
    sweeper: Option<JoinHandle<()>>,
}

struct Idle<B> {
    sender: Sender<B>,
    /// Whether it was already idle at the last sweep.
    is_old: bool,
}

struct Connection<B> {
    sender: Sender<B>,
    /// Whether it was made for this call. Any other may be at its end without anybody having seen it.
    is_new: bool,
}

/// Sends the requests of a connection.
struct Sender<B> {
    requests: Requests<B>,
    /// Wakes the call on the connection when the endpoint is dropped.
    waker: Arc<AtomicWaker>,
}

type Requests<B> = http1::SendRequest<AttemptBody<B>>;

/// In the queue for one. What is given when it is not waited for any more is given back.
struct Place<B: Body<Error: Into<BoxError>> + Send + 'static> {
    of: Weak<Shared<B>>,
    given: oneshot::Receiver<Sender<B>>,
}

/// A connection that is being made. Where it is not waited for any more, it is made for others, if none is already: who has less
/// patience than it takes would never see one.
struct Making<B: Body<Error: Into<BoxError>> + Send + 'static> {
    of: Weak<Shared<B>>,
    made: Option<Made<B>>,
}

type Made<B> = Pin<Box<dyn Future<Output = Result<Sender<B>, BoxError>> + Send>>;

impl<B> Http1<B>
where
    B: Body<Error: Into<BoxError>> + Send + 'static,
{
    /// Connects to the address of the instance once there is a request for it.
    pub(super) fn new(connector: Connector, presence: Arc<Presence>) -> Self {
        let state = State { idle: Vec::new(), waiting: VecDeque::new(), heir: None, sweeper: None };
        Self(Arc::new(Shared { connector, presence, state: Mutex::new(state) }))
    }

    /// Sends a request. It goes to the address whatever host its URI names; the header `host` is the caller's to set.
    ///
    /// # Cancel safety
    /// Who gives up closes the connection on which its answer was to come.
    pub(super) fn send(
        self,
        mut request: Request<AttemptBody<B>>,
    ) -> impl Future<Output = Result<Response<InstanceBody>, Failure>> + Send {
        write_for_http1(&mut request, &self.0.presence.address);
        // Not an `async fn`, which would hold the request twice.
        async move {
            loop {
                let Connection { sender, is_new } = self.connection().await.map_err(Failure::Unsent)?;
                let Sender { mut requests, waker } = sender;
                let sending = requests.try_send_request(request);
                let mut requests = Some(requests);
                let sending = Sending { sending, requests: &mut requests };
                let sent = self.0.presence.unless_gone_on(&waker, sending).await?;
                let mut failed = match sent {
                    Ok(response) => {
                        if let Some(requests) = requests {
                            self.0.give_when_read(Sender { requests, waker });
                        }
                        return Ok(response.map(InstanceBody::from));
                    }
                    Err(failed) => failed,
                };
                // It comes back if the connection was at its end before it took it, as one that was idle can be.
                request = match failed.take_message() {
                    Some(unsent) if !is_new => unsent,
                    Some(_) => return Err(Failure::Unsent(failed.into_error().into())),
                    None => return Err(failed.into_error().into()),
                };
            }
        }
    }

    #[inline]
    async fn connection(&self) -> Result<Connection<B>, BoxError> {
        match self.0.idle_or_place() {
            Ok(sender) => Ok(Connection { sender, is_new: false }),
            // Boxed, so that calls on idle connections have less to move.
            Err(given) => Box::pin(self.new_or_given(given)).await,
        }
    }

    async fn new_or_given(&self, given: oneshot::Receiver<Sender<B>>) -> Result<Connection<B>, BoxError> {
        let mut place = Place { of: Arc::downgrade(&self.0), given };
        let mut making = Making::new(&self.0);
        tokio::select! {
            biased;
            Ok(sender) = &mut place.given => Ok(Connection { sender, is_new: false }),
            made = making.made() => Ok(Connection { sender: made?, is_new: true }),
        }
    }
}

impl<B> Shared<B>
where
    B: Body<Error: Into<BoxError>> + Send + 'static,
{
    fn give_when_read(self: &Arc<Self>, mut sender: Sender<B>) {
        if sender.requests.is_ready() {
            return self.give(sender);
        }
        let shared = Arc::downgrade(self);
        tokio::spawn(async move {
            if sender.requests.ready().await.is_ok()
                && let Some(shared) = shared.upgrade()
            {
                shared.give(sender);
            }
        });
    }

    /// Gives it to the call that waits longest, or keeps it.
    fn give(self: &Arc<Self>, mut sender: Sender<B>) {
        if sender.requests.is_closed() {
            return;
        }
        while let Some((waiting, unwanted)) = self.first_or_keep(sender) {
            // Not under the lock: it wakes.
            match waiting.send(unwanted) {
                Ok(()) => return,
                Err(unwanted) => sender = unwanted,
            }
        }
    }

    /// The call that waits longest, and the connection back; keeps that where none waits.
    fn first_or_keep(self: &Arc<Self>, sender: Sender<B>) -> Option<(oneshot::Sender<Sender<B>>, Sender<B>)> {
        let mut state = self.state();
        if let Some(waiting) = state.waiting.pop_front() {
            return Some((waiting, sender));
        }
        state.idle.push(Idle { sender, is_old: false });
        if is_over(state.sweeper.as_ref()) {
            state.sweeper = Some(tokio::spawn(sweep(Arc::downgrade(self))));
        }
        None
    }
}

impl<B> Shared<B> {
    /// The idle connection that was used last, or a place in the queue for one.
    fn idle_or_place(&self) -> Result<Sender<B>, oneshot::Receiver<Sender<B>>> {
        let mut state = self.state();
        while let Some(Idle { sender, .. }) = state.idle.pop() {
            if !sender.requests.is_closed() {
                return Ok(sender);
            }
        }
        state.waiting.retain(|waiting| !waiting.is_closed());
        let (waiting, given) = oneshot::channel();
        state.waiting.push_back(waiting);
        Err(given)
    }

    fn state(&self) -> MutexGuard<'_, State<B>> {
        self.state.lock()
    }
}

impl<B> Drop for Shared<B> {
    fn drop(&mut self) {
        let state = self.state.get_mut();
        for task in [&state.heir, &state.sweeper].into_iter().flatten() {
            task.abort();
        }
    }
}

/// Also where its runtime ended before.
fn is_over(task: Option<&JoinHandle<()>>) -> bool {
    task.is_none_or(JoinHandle::is_finished)
}

impl<B> Drop for Place<B>
where
    B: Body<Error: Into<BoxError>> + Send + 'static,
{
    fn drop(&mut self) {
        self.given.close();
        if let (Ok(sender), Some(shared), Ok(_)) = (self.given.try_recv(), self.of.upgrade(), Handle::try_current()) {
            shared.give(sender);
        }
    }
}

impl<B> Making<B>
where
    B: Body<Error: Into<BoxError>> + Send + 'static,
{
    fn new(shared: &Arc<Shared<B>>) -> Self {
        let made = connect(shared.connector.clone(), shared.presence.clone());
        Self { of: Arc::downgrade(shared), made: Some(Box::pin(made)) }
    }

    async fn made(&mut self) -> Result<Sender<B>, BoxError> {
        let made = self.made.as_mut().expect("it is waited for once").await;
        self.made = None;
        made
    }
}

impl<B> Drop for Making<B>
where
    B: Body<Error: Into<BoxError>> + Send + 'static,
{
    fn drop(&mut self) {
        let (Some(made), Some(shared), Ok(runtime)) = (self.made.take(), self.of.upgrade(), Handle::try_current())
        else {
            return;
        };
        let mut state = shared.state();
        if is_over(state.heir.as_ref()) {
            let shared = self.of.clone();
            state.heir = Some(runtime.spawn(async move {
                if let (Ok(sender), Some(shared)) = (made.await, shared.upgrade()) {
                    shared.give(sender);
                }
            }));
        }
    }
}

/// Waits for the result of a request, and drops the sender if the connection ends before: hyper loses a request that is handed over
/// while the connection ends in its queue, and returns it when the sender is gone.
#[pin_project]
struct Sending<'a, F, B> {
    #[pin]
    sending: F,
    requests: &'a mut Option<Requests<B>>,
}

impl<F: Future, B> Future for Sending<'_, F, B> {
    type Output = F::Output;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let mut this = self.project();
        if let Poll::Ready(sent) = this.sending.as_mut().poll(cx) {
            return Poll::Ready(sent);
        }
        if let Some(open) = this.requests
            && let Poll::Ready(Err(_)) = open.poll_ready(cx)
        {
            **this.requests = None;
            return this.sending.poll(cx);
        }
        Poll::Pending
    }
}

/// Makes a connection and lets it run until nobody has it any more.
async fn connect<B>(connector: Connector, presence: Arc<Presence>) -> Result<Sender<B>, BoxError>
where
    B: Body<Error: Into<BoxError>> + Send + 'static,
{
    let stream = connector.http2(false).oneshot(presence.address.uri_of(None)).await?;
    let (requests, connection) = http1::handshake(stream).await?;
    tokio::spawn(async move {
        if let Err(error) = connection.with_upgrades().await {
            debug!(%error, "an HTTP/1.1 connection broke");
        }
    });
    Ok(Sender { requests, waker: presence.connection() })
}

/// Closes connections that are idle for two sweeps, until none is left.
async fn sweep<B>(shared: Weak<Shared<B>>) {
    loop {
        sleep(SWEEP).await;
        let Some(shared) = shared.upgrade() else { return };
        let mut state = shared.state();
        state.idle.retain_mut(|idle| !idle.sender.requests.is_closed() && !mem::replace(&mut idle.is_old, true));
        if state.idle.is_empty() {
            state.sweeper = None;
            return;
        }
    }
}

/// As hyper would have it: the target without scheme and host, in a version that it can write.
fn write_for_http1<B>(request: &mut Request<B>, address: &Address) {
    if request.version() != Version::HTTP_10 {
        *request.version_mut() = Version::HTTP_11;
    }
    let uri = mem::take(request.uri_mut());
    *request.uri_mut() = match uri.into_parts().path_and_query {
        _ if request.method() == Method::CONNECT => address.authority.clone().into(),
        Some(path) => path.into(),
        None => Uri::default(),
    };
}

impl<B> Clone for Http1<B> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

#[cfg(test)]
mod tests;
