//! The HTTP/1.1 connections to an instance: each carries one call at a time.
//!
//! ```text
//! a call ─▶ the idle one that was used last ─────────────────────────▶ hyper ─▶ the answer; idle again when that is read
//!       └─▶ none: the first that is made, or idle again; one is being made, in a task of its own, for each that waits
//! ```
//!
//! hyper-util's client finds a connection by host, in a pool under a lock that all hosts share. An instance is one host.

use std::collections::VecDeque;
use std::mem;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use http::{Method, Request, Response, Uri, Version};
use http_body::Body;
use hyper::body::Incoming;
use hyper::client::conn::http1;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::sleep;
use tower::{BoxError, ServiceExt};
use tracing::debug;

use super::address::Address;
use super::attempts::AttemptBody;
use super::failure::Failure;
use crate::transport::Connector;

/// Twice as long, at most, a connection may be idle: 90 s, as in hyper-util's client.
const SWEEP: Duration = Duration::from_secs(45);

/// Clones share the connections. Dropping the last closes them after the calls in flight.
pub(super) struct Http1<B>(Arc<Shared<B>>);

struct Shared<B> {
    connector: Connector,
    address: Address,
    state: Mutex<State<B>>,
}

struct State<B> {
    /// The one used last comes last.
    idle: Vec<Idle<B>>,
    /// Calls without a connection, at most as many as there are made.
    waiting: VecDeque<oneshot::Sender<Result<Connection<B>, BoxError>>>,
    /// How many connections are being made.
    connecting: usize,
    /// Closes what is idle for too long. `None` while nothing is idle.
    sweeper: Option<JoinHandle<()>>,
}

struct Idle<B> {
    sender: Sender<B>,
    /// Whether it was already idle at the last sweep.
    is_old: bool,
}

struct Connection<B> {
    sender: Sender<B>,
    /// Whether it was made for who gets it. Any other may be at its end without anybody having seen it.
    is_new: bool,
}

type Sender<B> = http1::SendRequest<AttemptBody<B>>;

/// A connection that is being made. However that ends, nobody waits for it in vain.
struct Attempt<B> {
    of: Weak<Shared<B>>,
    failure: Option<BoxError>,
}

impl<B> Http1<B>
where
    B: Body<Error: Into<BoxError>> + Send + 'static,
{
    /// To this address, as soon as there is a request for it.
    pub(super) fn new(connector: Connector, address: Address) -> Self {
        let state = State { idle: Vec::new(), waiting: VecDeque::new(), connecting: 0, sweeper: None };
        Self(Arc::new(Shared { connector, address, state: Mutex::new(state) }))
    }

    /// Sends a request. It goes to the address whatever host its URI names; the header `host` is the caller's to set.
    ///
    /// # Cancel safety
    /// Who gives up closes the connection on which its answer was to come; one that was being made is there for others.
    pub(super) async fn send(self, mut request: Request<AttemptBody<B>>) -> Result<Response<Incoming>, Failure> {
        write_for_http1(&mut request, &self.0.address);
        loop {
            let Connection { mut sender, is_new } = self.connection().await.map_err(Failure::Unsent)?;
            let mut failed = match sender.try_send_request(request).await {
                Ok(response) => {
                    self.0.give_back_when_read(sender);
                    return Ok(response);
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

    /// One that is idle, or else the first that is made or needed no more.
    async fn connection(&self) -> Result<Connection<B>, BoxError> {
        let (connection, attempt) = {
            let mut state = self.0.state();
            if let Some(sender) = Shared::latest(&mut state) {
                return Ok(Connection { sender, is_new: false });
            }
            // Those who gave up leave their attempts to others.
            while state.waiting.front().is_some_and(oneshot::Sender::is_closed) {
                state.waiting.pop_front();
            }
            let (here, connection) = oneshot::channel();
            state.waiting.push_back(here);
            let is_short = state.connecting < state.waiting.len();
            state.connecting += usize::from(is_short);
            (connection, is_short.then(|| Attempt { of: Arc::downgrade(&self.0), failure: None }))
        };
        if let Some(attempt) = attempt {
            tokio::spawn(attempt.make(self.0.connector.clone(), self.0.address.uri_of(None)));
        }
        connection.await.expect("who is taken out of the queue is told why")
    }
}

impl<B> Shared<B>
where
    B: Body<Error: Into<BoxError>> + Send + 'static,
{
    fn give_back_when_read(self: &Arc<Self>, mut sender: Sender<B>) {
        if sender.is_ready() {
            return self.give(Connection { sender, is_new: false });
        }
        let shared = Arc::downgrade(self);
        tokio::spawn(async move {
            if sender.ready().await.is_ok()
                && let Some(shared) = shared.upgrade()
            {
                shared.give(Connection { sender, is_new: false });
            }
        });
    }

    /// Gives it to the call that waits longest, or keeps it.
    fn give(self: &Arc<Self>, mut connection: Connection<B>) {
        let mut state = self.state();
        while let Some(waiting) = state.waiting.pop_front() {
            let Err(Ok(unwanted)) = waiting.send(Ok(connection)) else { return };
            connection = unwanted;
        }
        state.idle.push(Idle { sender: connection.sender, is_old: false });
        // Its task may be gone with its runtime.
        if state.sweeper.as_ref().is_none_or(JoinHandle::is_finished) {
            state.sweeper = Some(tokio::spawn(sweep(Arc::downgrade(self))));
        }
    }
}

impl<B> Shared<B> {
    /// The idle connection that was used last.
    fn latest(state: &mut State<B>) -> Option<Sender<B>> {
        while let Some(Idle { sender, .. }) = state.idle.pop() {
            if sender.is_ready() {
                return Some(sender);
            }
        }
        None
    }

    fn state(&self) -> MutexGuard<'_, State<B>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<B> Attempt<B>
where
    B: Body<Error: Into<BoxError>> + Send + 'static,
{
    async fn make(mut self, connector: Connector, uri: Uri) {
        match connect(connector, uri).await {
            Ok(sender) => {
                if let Some(shared) = self.of.upgrade() {
                    shared.give(Connection { sender, is_new: true });
                }
            }
            Err(error) => self.failure = Some(error),
        }
    }
}

/// Tells those for whom there is no other attempt.
impl<B> Drop for Attempt<B> {
    fn drop(&mut self) {
        let Some(shared) = self.of.upgrade() else { return };
        let mut state = shared.state();
        state.connecting -= 1;
        while state.waiting.len() > state.connecting
            && let Some(waiting) = state.waiting.pop_front()
        {
            let ended = || "the runtime in which it was connected ends".into();
            let _ = waiting.send(Err(self.failure.take().unwrap_or_else(ended)));
        }
    }
}

/// Makes a connection and lets it run until nobody has it any more.
async fn connect<B>(connector: Connector, uri: Uri) -> Result<Sender<B>, BoxError>
where
    B: Body<Error: Into<BoxError>> + Send + 'static,
{
    let stream = connector.http2(false).oneshot(uri).await?;
    let (sender, connection) = http1::handshake(stream).await?;
    tokio::spawn(async move {
        if let Err(error) = connection.with_upgrades().await {
            debug!(%error, "an HTTP/1.1 connection broke");
        }
    });
    Ok(sender)
}

/// Closes connections that are idle for two sweeps, until none is left.
async fn sweep<B>(shared: Weak<Shared<B>>) {
    loop {
        sleep(SWEEP).await;
        let Some(shared) = shared.upgrade() else { return };
        let mut state = shared.state();
        state.idle.retain_mut(|idle| !idle.sender.is_closed() && !mem::replace(&mut idle.is_old, true));
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
