//! Failover: one operation is sent to one server after the other until one of them completes it.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;
use std::time::Duration;

use http::StatusCode;
use tokio::time::{Instant, sleep_until};

use super::errors::{InvalidResponse, SendError, ServerErrors, Subject};
use super::request::{Operation, Verdict, is_overload};
use super::response::ServerResponse;
use super::server_order::{Access, LastWrite, MAX_SERVERS, ServerOrder};
use super::servers::{Lookup, RegistryServer, Urls};
use super::stack::{HttpStack, Receipt};
use crate::config::{ListedServer, ServerSettings, ServiceUrl};
use crate::error::{Error, Kind};
use crate::metrics::RegistryMetrics;
use crate::panics::catch_panic;
use crate::sync::Mutex;

/// Registry servers and the order in which they are tried.
#[derive(Debug)]
pub(super) struct Servers {
    pub(super) order: Arc<ServerOrder>,
    lookup: Option<Arc<Lookup>>,
    /// True once the list was logged.
    is_logged: AtomicBool,
    /// True if the last fetch of the whole registry fell back to the unfiltered list.
    pub(super) fell_back: AtomicBool,
    /// URL of the server that completed the last write.
    writer: Mutex<Option<Arc<str>>>,
}

/// Options of sending that do not depend on the request.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct SendOptions<'a> {
    /// Skips servers that asked for a pause, for an operation of a background loop.
    pub(super) background: Option<&'a LastWrite>,
    /// Time after which the next server is tried while the previous attempt is still pending.
    pub(super) stagger: Option<Duration>,
    /// Tries all servers, and not only a few, although the previous ones have not responded. While
    /// parts of a response arrive, no further server is tried, at most for the time of the race.
    pub(super) race: Option<Race>,
}

/// Attempts at several servers, each of which begins while the previous ones are pending.
#[derive(Clone, Copy, Debug)]
pub(super) struct Race {
    /// Time within which all servers are tried, if `min_stagger` permits.
    within: Duration,
    /// Minimum time between two servers if more share the race than fit into it.
    min_stagger: Duration,
    /// Number of responses with an error after which no further server is tried, so that an
    /// overloaded cluster does not get more requests than without a race.
    max_failed: usize,
}

/// Maximum number of servers with an attempt in a race at the same time.
const MAX_RACING: usize = 16;
/// Time after which the next server of a race is tried.
const RACE_STAGGER: Duration = Duration::from_secs(1);
/// Number of these times without a part of a response after which the next server is tried
/// although the head has arrived.
const SILENT_STAGGERS: u32 = 2;
/// Minimum of the time between two servers, for reads.
const MIN_RACE_STAGGER: Duration = Duration::from_millis(50);
/// Minimum of this time for writes. A registration at a second server is replicated as well.
const MIN_WRITE_STAGGER: Duration = Duration::from_millis(500);
/// Time within which a registration is sent to all servers.
const REGISTRATION_RACE: Duration = Duration::from_secs(3);

impl Race {
    /// Returns the race of the first list, which tries all servers.
    pub(super) fn list(within: Duration) -> Self {
        Self { within, min_stagger: MIN_RACE_STAGGER, max_failed: usize::MAX }
    }

    /// Returns the race of a read of one record.
    pub(super) fn record(within: Duration) -> Self {
        Self { max_failed: MAX_SERVERS, ..Self::list(within) }
    }

    /// Returns the race of a registration.
    pub(super) fn registration() -> Self {
        Self { within: REGISTRATION_RACE, min_stagger: MIN_WRITE_STAGGER, max_failed: MAX_SERVERS }
    }

    /// Returns the time after which the next of these servers is tried. It leaves the last server
    /// as much time as the others.
    fn stagger_of(&self, servers: usize) -> Duration {
        let servers = servers.min(MAX_RACING) as u32;
        match RACE_STAGGER * servers <= self.within {
            true => RACE_STAGGER,
            false => (self.within / (servers + 1)).clamp(self.min_stagger, RACE_STAGGER),
        }
    }
}

impl SendOptions<'_> {
    fn stagger_of(&self, servers: usize) -> Option<Duration> {
        self.race.map(|race| race.stagger_of(servers)).or(self.stagger)
    }
}

/// Attempt in progress.
struct Running<'a, F> {
    server: &'a ServiceUrl,
    /// Parts of a successful response that have arrived.
    receipt: Arc<Receipt>,
    attempt: Pin<Box<F>>,
}

impl<F> Running<'_, F> {
    /// Returns `true` while a response is being received: a part of it arrived within a short time,
    /// and its head within the time of the race.
    fn is_receiving(&self, race: Race, stagger: Duration) -> bool {
        self.receipt.get().is_some_and(|(head, latest)| {
            head.elapsed() < race.within && latest.elapsed() < stagger.saturating_mul(SILENT_STAGGERS)
        })
    }
}

/// Result of an attempt at one server.
enum Attempt<T> {
    Completed(T),
    /// Every server would reject this request.
    Rejected(Error),
    /// The request was not sent, for a reason on this side.
    Unsent(Error),
    /// Another server may complete the operation.
    Failed {
        error: Error,
        /// True if the server is unavailable for every operation, not only for this one.
        unavailable: bool,
    },
}

impl Servers {
    pub(super) fn new(settings: &ServerSettings, list: Vec<ListedServer>) -> Self {
        let (order, lookup) = (Arc::new(ServerOrder::new(settings)), Lookup::new(settings, &list).map(Arc::new));
        if lookup.is_none() {
            order.replace(list);
        }
        Self {
            order,
            lookup,
            is_logged: AtomicBool::new(false),
            fell_back: AtomicBool::new(false),
            writer: Mutex::default(),
        }
    }

    /// Starts a look-up of the servers if one is due. Waits for it if there is no list yet, at most
    /// 30 seconds.
    ///
    /// # Errors
    /// When there is no list, and the look-up failed.
    pub(super) async fn find(&self, subject: Subject<'_>) -> Result<(), Error> {
        let Some(lookup) = &self.lookup else {
            if !self.is_logged.swap(true, Ordering::Relaxed) {
                let urls: Vec<_> = self.order.urls().iter().map(|url| url.as_str().clone()).collect();
                tracing::info!(servers = %Urls(&urls), "registry servers");
            }
            return Ok(());
        };
        let mut ended = lookup.subscribe();
        self.start_lookup(lookup);
        while self.order.is_empty() {
            if !lookup.is_running() {
                let error = lookup.error().unwrap_or_else(|| "the list is empty".into());
                return Err(subject
                    .without_server(Kind::Connect)
                    .cause(format!("no registry server is known: {error}"))
                    .advice("check the DNS records or the function that lists the registry servers"));
            }
            // The sender lives as long as `self`.
            let _ = ended.changed().await;
        }
        Ok(())
    }

    /// Starts a look-up of the servers if one is due.
    fn start_lookup(&self, lookup: &Arc<Lookup>) {
        let order = self.order.clone();
        lookup.start_if_due(move |list| replace(&order, list));
    }

    /// Sends an operation to one server after the other, until one responds with a final status or
    /// rejects the request.
    ///
    /// `read` converts a final response into the result. Its first argument is the URL of the
    /// server. If it fails, the attempt counts as failed and the next server is tried.
    ///
    /// A rejection is returned once no other attempt is pending, since a slow server may complete
    /// the operation. The attempts that are pending when one completes are dropped.
    pub(super) async fn send<T, F: Future<Output = Result<T, InvalidResponse>>>(
        &self,
        stack: &HttpStack,
        operation: &Operation<'_>,
        options: SendOptions<'_>,
        read: impl Fn(&ServiceUrl, ServerResponse) -> F,
    ) -> Result<T, Error> {
        let access = operation.access();
        let subject = operation.subject();
        self.find(subject).await?;
        let order = match options.race {
            Some(_) => self.order.select_all(access, options.background),
            None => self.order.select(access, options.background),
        };
        let order = order.map_err(|paused| paused.error(subject))?;
        let stagger = options.stagger_of(order.len());
        let (mut errors, mut unavailable) = (ServerErrors::default(), Vec::new());
        let mut last = order.first().expect("the list of servers is not empty");
        let mut waiting = order.iter();
        let mut running: Vec<Running<'_, _>> = Vec::new();
        let (mut is_next_due, mut rejection, mut failed) = (true, None, 0);
        let max_failed = options.race.map_or(usize::MAX, |race| race.max_failed);
        loop {
            let may_try_next = rejection.is_none() && failed < max_failed;
            if is_next_due
                && may_try_next
                && running.len() < MAX_RACING
                && let Some(server) = waiting.next()
            {
                last = server;
                let receipt = Arc::<Receipt>::default();
                let attempt = Box::pin(self.attempt(server, stack, operation, receipt.clone(), &read));
                running.push(Running { server, receipt, attempt });
            }
            if running.is_empty() {
                break;
            }
            let has_next = may_try_next && waiting.len() > 0 && running.len() < MAX_RACING;
            let next = stagger.filter(|_| has_next).map(|stagger| Instant::now() + stagger);
            let finished = tokio::select! {
                biased;
                attempt = first_finished(&mut running) => Some(attempt),
                () = sleep_until(next.unwrap_or_else(Instant::now)), if next.is_some() => None,
            };
            // A list that is being received needs no second one, unless its attempt fails.
            is_next_due = options
                .race
                .zip(stagger)
                .is_none_or(|(race, stagger)| !running.iter().any(|running| running.is_receiving(race, stagger)));
            match finished {
                None => {}
                Some((server, Attempt::Completed(value))) => {
                    if options.race.is_some() {
                        // Writes should not begin at servers that have not responded either.
                        let silent = running.iter().filter(|running| running.receipt.get().is_none());
                        unavailable.extend(silent.map(|running| running.server));
                    }
                    self.order.succeeded(access, server, &unavailable);
                    self.note_writer(access, server.as_str());
                    return Ok(value);
                }
                Some((server, Attempt::Rejected(error))) => {
                    self.order.failed(access, server);
                    rejection.get_or_insert(error);
                }
                Some((_, Attempt::Unsent(error))) => {
                    rejection.get_or_insert(error);
                }
                Some((server, Attempt::Failed { error, unavailable: is_unavailable })) => {
                    tracing::debug!(operation = subject.operation, server = %server.as_str(), %error, "registry server failed");
                    self.order.attempt_failed(access, server, is_unavailable);
                    if is_unavailable {
                        unavailable.push(server);
                    }
                    failed += usize::from(error.status().is_some());
                    errors.add(error);
                }
            }
        }
        if let Some(rejection) = rejection {
            return Err(rejection);
        }
        // The next operation starts behind the servers that failed, so that every server is tried.
        self.order.failed(access, last);
        // The servers may have moved.
        if let Some(lookup) = self.lookup.as_ref().filter(|_| unavailable.len() == order.len()) {
            lookup.hurry();
            self.start_lookup(lookup);
        }
        Err(errors.into_error())
    }

    /// Sends a read to the server of the last write, and to no other. It does not change the order
    /// of the servers. In the `background`, nothing is sent while that server is paused.
    pub(super) async fn ask_writer<T, F: Future<Output = Result<T, InvalidResponse>>>(
        &self,
        stack: &HttpStack,
        operation: &Operation<'_>,
        background: bool,
        read: impl Fn(&ServiceUrl, ServerResponse) -> F,
    ) -> Result<T, Error> {
        let subject = operation.subject();
        self.find(subject).await?;
        let (servers, writer) = (self.order.urls(), self.writer());
        // The list may have changed since.
        let server = servers.iter().find(|server| writer.as_ref() == Some(server.as_str())).unwrap_or(&servers[0]);
        if background {
            self.order.check_pause(operation.access(), server).map_err(|paused| paused.error(subject))?;
        }
        match self.attempt(server, stack, operation, Arc::default(), &read).await {
            Attempt::Completed(value) => Ok(value),
            Attempt::Rejected(error) | Attempt::Unsent(error) | Attempt::Failed { error, .. } => Err(error),
        }
    }

    async fn attempt<T, F: Future<Output = Result<T, InvalidResponse>>>(
        &self,
        server: &ServiceUrl,
        stack: &HttpStack,
        operation: &Operation<'_>,
        receipt: Arc<Receipt>,
        read: &impl Fn(&ServiceUrl, ServerResponse) -> F,
    ) -> Attempt<T> {
        let subject = operation.subject();
        let request = match operation.request(server) {
            Ok(request) => request,
            Err(e) => {
                let error = subject.error(Kind::Config, server).cause("the request cannot be built");
                return Attempt::Unsent(error.with_source(e));
            }
        };
        let response = match stack.exchange(request, operation.list.as_ref(), &receipt).await {
            Ok(response) => response,
            Err(failed) if failed.is_local() => return Attempt::Unsent(failed.error(subject, server)),
            Err(failed) => {
                // A body that cannot be read concerns this operation only.
                let unavailable =
                    matches!(failed, SendError::Service { .. } | SendError::Timeout(..) | SendError::Panicked(_));
                return Attempt::Failed { error: failed.error(subject, server), unavailable };
            }
        };
        let status = response.status;
        match operation.classify(status) {
            Verdict::Final => match catch_panic(read(server, response)).await {
                Ok(Ok(value)) => Attempt::Completed(value),
                Ok(Err(invalid)) => Attempt::Failed { error: invalid.error(subject, server), unavailable: false },
                Err(panicked) => {
                    let invalid = InvalidResponse::Panicked(panicked);
                    Attempt::Failed { error: invalid.error(subject, server), unavailable: false }
                }
            },
            Verdict::Rejected => Attempt::Rejected(response.error(subject, server)),
            Verdict::NextServer => {
                // With other statuses the header does not mean an overload. Error pages of proxies
                // and redirects have it as well.
                if is_overload(status.as_u16())
                    && let Some(retry_after) = response.retry_after().filter(|pause| !pause.is_zero())
                {
                    self.order.pause(operation.access(), server, status, retry_after);
                    RegistryMetrics::default().paused(server.as_str());
                }
                let unavailable =
                    status.is_server_error() || is_overload(status.as_u16()) || status == StatusCode::REQUEST_TIMEOUT;
                Attempt::Failed { error: response.error(subject, server), unavailable }
            }
        }
    }

    /// Records the server that completed an operation, if that was a write.
    fn note_writer(&self, access: Access, url: &str) {
        if access == Access::Write && self.writer.lock().as_deref() != Some(url) {
            *self.writer.lock() = Some(url.into());
        }
    }

    /// Returns the URL of the server that completed the last write.
    pub(super) fn writer(&self) -> Option<Arc<str>> {
        self.writer.lock().clone()
    }

    /// Returns the host and the port of each server.
    pub(super) fn hosts(&self) -> Vec<(String, u16)> {
        self.order.urls().iter().map(ServiceUrl::host_and_port).collect()
    }

    pub(super) fn len(&self) -> usize {
        self.order.len()
    }

    pub(super) fn status(&self) -> Vec<RegistryServer> {
        self.order.status()
    }
}

/// Replaces the list by the result of a look-up, and logs the change.
fn replace(order: &ServerOrder, list: Vec<ListedServer>) {
    let is_first = order.is_empty();
    let Some(change) = order.replace(list) else { return };
    if is_first {
        tracing::info!(servers = %Urls(&change.added), "registry servers");
    } else if change.added.is_empty() && change.removed.is_empty() {
        tracing::debug!("order of registry servers changed");
    } else {
        let (added, removed) = (Urls(&change.added), Urls(&change.removed));
        tracing::info!(%added, %removed, "list of registry servers changed");
    }
}

/// Waits for the first attempt that finishes, and removes it from the list.
async fn first_finished<'a, T, F: Future<Output = Attempt<T>>>(
    running: &mut Vec<Running<'a, F>>,
) -> (&'a ServiceUrl, Attempt<T>) {
    poll_fn(|cx| {
        for at in 0..running.len() {
            if let Poll::Ready(attempt) = running[at].attempt.as_mut().poll(cx) {
                return Poll::Ready((running.swap_remove(at).server, attempt));
            }
        }
        Poll::Pending
    })
    .await
}
