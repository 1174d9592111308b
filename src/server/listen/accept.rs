//! Accept loop of a listener.

use std::convert::Infallible;
use std::error::Error;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::response::Response;
use http::Request;
use hyper_util::rt::TokioExecutor;
use hyper_util::server::conn::auto;
use socket2::SockRef;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};
use tower::Service;

use super::activity::Activity;
use super::connection::{self, Accepted};
use super::limits::Limits;
use super::log::AcceptLog;
use super::table::{ConnectionPermit, ConnectionTable, Refused};
#[cfg(feature = "tls")]
use super::tls::Failure;
use super::tls::{self, Acceptor};
use super::waiting::{PERMIT_INTERVAL, Pending, Waiting};
use crate::server::audit::{self, Repeats};
use crate::server::connections::{ClosedFor, ConnectionCounts, RefusedFor};
use crate::server::unsent::Unsent;

/// Pause after the system refused a connection, usually for lack of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);
/// The same pause after connections were closed to make room.
const CLOSE_PAUSE: Duration = Duration::from_millis(10);
/// `EMFILE`, which is the same number on all Unix systems.
const OUT_OF_DESCRIPTORS: i32 = 24;
/// Minimum interval between two checks for slow clients.
const SLOW_INTERVAL: Duration = Duration::from_millis(250);

/// Size of the system's send buffer for a connection. Linux doubles it.
///
/// The progress of a response is measured by the bytes that were written to this buffer. Linux
/// accepts more bytes only once a third of the buffer is free. With the usual buffer of megabytes
/// this is so rare that a client would look idle although it is not slow. With this size, one step
/// is no more than the required progress.
const SEND_BUFFER: usize = 96 * 1024;

/// Accepts connections and spawns a task for each, within the limits of a [`Listener`](super::Listener).
pub(super) struct AcceptLoop<S> {
    listener: TcpListener,
    tls: Option<Acceptor>,
    app: S,
    http: auto::Builder<TokioExecutor>,
    limits: Limits,
    unsent: Arc<Unsent>,
    table: Arc<ConnectionTable>,
    connections: JoinSet<()>,
    waiting: Waiting,
    slow_check: SlowCheck,
    log: AcceptLog,
    unreadable: Arc<Repeats>,
    counts: Arc<ConnectionCounts>,
}

/// Schedule of the checks for slow clients: none while the budget of unsent bytes has room, else
/// one per [`SLOW_INTERVAL`].
struct SlowCheck {
    last: Instant,
    next: Option<Instant>,
}

impl SlowCheck {
    fn new() -> Self {
        Self { last: Instant::now(), next: None }
    }

    /// Completes when a check is due. Safe to cancel.
    async fn due(&mut self, unsent: &Unsent) {
        if self.next.is_none() {
            unsent.exhausted().await;
        }
        let next = *self.next.get_or_insert(self.last + SLOW_INTERVAL);
        sleep_until(next).await;
    }

    /// Schedules the next check, if the budget is still short.
    fn checked(&mut self, is_short: bool) {
        self.last = Instant::now();
        self.next = is_short.then(|| self.last + SLOW_INTERVAL);
    }
}

impl<S> AcceptLoop<S>
where
    S: Service<Request<Body>, Response = Response, Error = Infallible, Future: Send> + Clone + Send + 'static,
{
    pub(super) fn new(
        listener: TcpListener,
        tls: Option<Acceptor>,
        limits: Limits,
        unsent: Arc<Unsent>,
        counts: Arc<ConnectionCounts>,
        app: S,
    ) -> Self {
        Self {
            listener,
            tls,
            app,
            http: connection::http(&limits),
            limits,
            unsent,
            table: Arc::new(ConnectionTable::new(&limits)),
            connections: JoinSet::new(),
            waiting: Waiting::new(),
            slow_check: SlowCheck::new(),
            log: AcceptLog::new(&limits),
            unreadable: Arc::default(),
            counts,
        }
    }

    /// Accepts connections until `shutdown` completes, then waits for the requests in flight.
    pub(super) async fn run(mut self, shutdown: impl Future<Output = ()>) {
        let closing = self.unsent.closing();
        let (stopping, stopped) = watch::channel(());
        let mut shutdown = pin!(shutdown);
        let mut files = pin!(tls::check_files(self.tls.clone()));
        let mut expiry = pin!(self.watch_expiry());
        loop {
            tokio::select! {
                biased;
                () = &mut shutdown => break,
                Some(_) = self.connections.join_next() => self.log.ended(&self.table),
                () = self.slow_check.due(&self.unsent) => self.close_slow(),
                // They never complete.
                () = &mut files => {}
                () = &mut expiry => {}
                () = sleep(PERMIT_INTERVAL), if !self.waiting.is_empty() => {}
                accepted = accept(&self.listener) => match accepted {
                    Ok((stream, peer)) => self.waiting.push(Pending::new(stream, peer)),
                    Err(error) => self.make_room(&error).await,
                },
            }
            self.admit(&stopped);
        }
        let Self { listener, waiting, mut connections, limits, .. } = self;
        drop((listener, waiting, closing, stopping, stopped));
        let all = async { while connections.join_next().await.is_some() {} };
        if tokio::time::timeout(limits.shutdown_timeout, all).await.is_err() {
            tracing::warn!(connections = connections.len(), "stopped with requests in flight");
        }
    }

    /// Logs the expiry of the certificates. Never completes.
    fn watch_expiry(&self) -> impl Future<Output = ()> + use<S> {
        #[cfg(all(feature = "tls", feature = "access"))]
        return super::expiry::watch(self.tls.clone(), self.listener.local_addr().ok(), self.counts.clone());
        #[cfg(not(all(feature = "tls", feature = "access")))]
        std::future::pending()
    }

    /// Serves the waiting connections for which there are permits, and refuses those that cannot
    /// wait.
    fn admit(&mut self, stopped: &watch::Receiver<()>) {
        while let Some(mut pending) = self.waiting.pop(&self.table) {
            if self.table.is_full() && !pending.is_due() {
                self.waiting.push(pending);
                break;
            }
            let activity = Arc::new(Activity::start(&self.limits, self.unsent.clone()));
            match self.table.admit(pending.peer.ip(), &activity) {
                Ok(admitted) => {
                    self.log.admitted(&admitted, &self.table);
                    self.counts.add_closed(ClosedFor::Other, admitted.closed);
                    self.serve(pending, activity, admitted.permit, stopped.clone());
                }
                Err(Refused::Full) => {
                    pending.note_attempt();
                    self.waiting.push(pending);
                    break;
                }
                Err(Refused::Address) => self.refuse(&pending, Refused::Address),
            }
        }
        while let Some(pending) = self.waiting.pop_refused(&self.table) {
            let has_most = self.table.has_most(pending.peer.ip());
            self.refuse(&pending, if has_most { Refused::Address } else { Refused::Full });
        }
    }

    fn refuse(&self, pending: &Pending, reason: Refused) {
        let is_full = reason == Refused::Full;
        self.counts.add_refused(if is_full { RefusedFor::Full } else { RefusedFor::Address });
        self.log.refused(pending.peer, is_full, &self.table);
    }

    /// Spawns the task of a connection.
    fn serve(
        &mut self,
        Pending { stream, peer, .. }: Pending,
        activity: Arc<Activity>,
        permit: ConnectionPermit,
        stopped: watch::Receiver<()>,
    ) {
        let key = permit.key();
        let (http, app) = (self.http.clone(), self.app.clone());
        let accepted = Accepted { stream, peer, tls: self.tls.clone() };
        let connection = connection::serve(http, accepted, app, self.limits, activity, stopped);
        let (unreadable, counts, open) = (self.unreadable.clone(), self.counts.clone(), self.counts.opened());
        let task = self.connections.spawn(async move {
            if let Err(error) = connection.await {
                log_failure(&*error, peer, &unreadable, &counts);
            }
            drop((permit, open));
        });
        self.table.set_task(key, task);
    }

    /// Closes connections with slow clients while the budget of unsent bytes is short.
    fn close_slow(&mut self) {
        let is_short = self.unsent.is_short();
        let closed = if is_short { self.table.close_slow(self.limits.response_timeout / 4) } else { 0 };
        self.counts.add_closed(ClosedFor::Slow, closed);
        self.log.closed_slow(closed, is_short, self.unsent.bytes());
        self.slow_check.checked(is_short);
    }

    /// Closes idle connections after the system refused a new one, and pauses.
    async fn make_room(&mut self, error: &io::Error) {
        let connections = self.table.count();
        let closed = self.table.make_room(error.raw_os_error() == Some(OUT_OF_DESCRIPTORS));
        self.counts.add_refused(RefusedFor::System);
        self.counts.add_closed(ClosedFor::Other, closed);
        self.log.failed(error, connections, closed, self.table.limit());
        // Closed connections release their descriptors only when their tasks end.
        sleep(if closed > 0 { CLOSE_PAUSE } else { ACCEPT_PAUSE }).await;
    }
}

async fn accept(listener: &TcpListener) -> io::Result<(TcpStream, SocketAddr)> {
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => {
                // Responses are written whole. Nagle's algorithm would only delay their last
                // packet.
                let _ = stream.set_nodelay(true);
                let _ = SockRef::from(&stream).set_send_buffer_size(SEND_BUFFER);
                return Ok((stream, peer));
            }
            // The peer closed the connection before it was accepted.
            Err(error) if matches!(error.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset) => {
            }
            Err(error) => return Err(error),
        }
    }
}

/// Logs the failure of a connection. It is a warning if the peer does not speak HTTP, as one that
/// speaks TLS, if its head is too large, or if the TLS handshake failed.
fn log_failure(error: &(dyn Error + 'static), peer: SocketAddr, unreadable: &Repeats, counts: &ConnectionCounts) {
    let origin = audit::canonical(peer);
    #[cfg(feature = "tls")]
    if let Some(failure) = error.downcast_ref::<Failure>().filter(|failure| !failure.is_quiet()) {
        counts.add_closed(ClosedFor::Handshake, 1);
        unreadable.flush();
        if let Some(suppressed) =
            unreadable.pass(format_args!("TLS handshake of {}: {}", origin.ip(), failure.summary()))
        {
            tracing::warn!(%origin, suppressed, error = %failure, "TLS handshake failed");
        }
        return;
    }
    let is_unreadable = error.downcast_ref::<hyper::Error>().is_some_and(hyper::Error::is_parse);
    if !is_unreadable {
        tracing::trace!(%origin, %error, "connection failed");
        return;
    }
    let cause = error.source().map(|cause| format!(": {cause}")).unwrap_or_default();
    counts.add_closed(ClosedFor::Unreadable, 1);
    unreadable.flush();
    if let Some(suppressed) = unreadable.pass(format_args!("connection of {} closed: {error}{cause}", origin.ip())) {
        tracing::warn!(%origin, suppressed, "connection closed: {error}{cause} (does the client speak HTTPS?)");
    }
}
