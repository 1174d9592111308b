//! Changes from discovery, and the endpoints that are made from them.

use std::collections::HashMap;
use std::fmt::Debug;
use std::future::poll_fn;
use std::hash::Hash;
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, sleep_until};
use tower::BoxError;
use tower::discover::{Change, Discover};
use tracing::{debug, info, warn};

use crate::balance::attributes::Attributes;
use crate::balance::endpoint::{Details, EndpointId, Load, Stats, Timestamp};
use crate::balance::pool::Pool;
use crate::balance::shared::Shared;
use crate::untrusted::Quoted;

/// Maximum number of changes that are applied before they are published. Also keeps a discovery
/// that is always ready from blocking its thread.
const MAX_BATCH: usize = 64;

/// Pause after an error of discovery.
const BACK_OFF: Duration = Duration::from_secs(1);

/// Builds an endpoint's service from a discovered value.
pub(in crate::balance) type MakeEndpoint<T, S> = Box<dyn FnMut(T) -> S + Send>;

/// Returns the attributes of a discovered value.
pub(in crate::balance) type Describe<T> = Box<dyn Fn(&T) -> Attributes + Send>;

/// The discovery stream, and the ids of the endpoints that it reported.
pub(in crate::balance) struct Discovery<D: Discover, S> {
    stream: Pin<Box<D>>,
    make: MakeEndpoint<D::Service, S>,
    describe: Describe<D::Service>,
    ids: HashMap<D::Key, EndpointId>,
    next_id: u64,
    state: State,
    /// End of the pause after an error.
    paused_until: Option<Instant>,
    shared: Weak<Shared<S>>,
    app: Option<Arc<str>>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum State {
    Working,
    /// Its last item was an error.
    Failing,
    /// Being polled: distinguishes a panic of the stream from one of an endpoint.
    Polling,
    Ended,
}

/// Changes that were applied together.
pub(super) struct Batch<E> {
    /// Set if the endpoints changed.
    pub(super) changed: bool,
    pub(super) end: BatchEnd<E>,
}

/// Reason for the end of a batch.
pub(super) enum BatchEnd<E> {
    /// Discovery has more changes, or will have.
    More,
    Failed(E),
    Ended,
}

impl<D: Discover, S> Discovery<D, S> {
    pub(in crate::balance) fn new(
        discover: D,
        make: MakeEndpoint<D::Service, S>,
        describe: Describe<D::Service>,
        shared: &Arc<Shared<S>>,
    ) -> Self {
        Self {
            stream: Box::pin(discover),
            make,
            describe,
            ids: HashMap::new(),
            next_id: 0,
            state: State::Working,
            paused_until: None,
            shared: Arc::downgrade(shared),
            app: shared.app.clone(),
        }
    }

    /// Number of endpoints that discovery reported.
    pub(super) fn len(&self) -> usize {
        self.ids.len()
    }

    /// Notes a panic. Returns `true` if the stream itself panicked, which ends it.
    pub(super) fn panicked(&mut self) -> bool {
        let ended = self.state == State::Polling;
        if ended {
            self.state = State::Ended;
        }
        ended
    }

    /// Pauses discovery after an error.
    pub(super) fn back_off(&mut self) {
        self.paused_until = Some(Instant::now() + BACK_OFF);
    }

    fn app(&self) -> Option<&str> {
        self.app.as_deref()
    }
}

impl<D, S> Discovery<D, S>
where
    D: Discover,
    D::Key: Hash + Debug,
    D::Error: Into<BoxError>,
    S: Clone + Send + Sync + 'static,
{
    /// Waits for the next batch. Never returns after the end of the stream.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    pub(super) async fn next_batch(&mut self) -> Batch<D::Error> {
        if self.state == State::Ended {
            return std::future::pending().await;
        }
        if let Some(paused_until) = self.paused_until {
            sleep_until(paused_until).await;
            self.paused_until = None;
        }
        poll_fn(|cx| self.poll_batch(cx)).await
    }

    /// Applies the changes that are ready, at most [`MAX_BATCH`].
    pub(super) fn poll_batch(&mut self, cx: &mut Context<'_>) -> Poll<Batch<D::Error>> {
        let mut changed = false;
        // Removals of unknown keys count as well, since they may come without end, too.
        for polled in 0..MAX_BATCH {
            let before = std::mem::replace(&mut self.state, State::Polling);
            let item = self.stream.as_mut().poll_discover(cx);
            self.state = before;
            let end = match item {
                Poll::Ready(Some(Ok(change))) => {
                    changed |= self.apply(change);
                    continue;
                }
                Poll::Ready(Some(Err(error))) => BatchEnd::Failed(error),
                Poll::Ready(None) => BatchEnd::Ended,
                Poll::Pending if polled == 0 => return Poll::Pending,
                Poll::Pending => BatchEnd::More,
            };
            return Poll::Ready(Batch { changed, end });
        }
        Poll::Ready(Batch { changed, end: BatchEnd::More })
    }

    /// Logs that discovery works again, if this batch shows it.
    pub(super) fn note_recovery(&mut self, batch: &Batch<D::Error>) {
        if self.state == State::Failing && (batch.changed || matches!(batch.end, BatchEnd::More)) {
            info!(app = self.app(), "discovery recovered");
            self.state = State::Working;
        }
    }

    /// Records the end of a batch. Returns `true` if discovery failed.
    pub(super) fn record_end(&mut self, end: BatchEnd<D::Error>) -> bool {
        match end {
            BatchEnd::More => false,
            BatchEnd::Failed(error) => {
                if self.state != State::Failing {
                    let error: BoxError = error.into();
                    let (app, endpoints) = (self.app(), self.ids.len());
                    warn!(app, endpoints, error, "discovery failed, endpoints are kept");
                }
                self.state = State::Failing;
                true
            }
            BatchEnd::Ended => {
                debug!(app = self.app(), endpoints = self.ids.len(), "discovery ended");
                self.state = State::Ended;
                false
            }
        }
    }

    fn apply(&mut self, change: Change<D::Key, D::Service>) -> bool {
        let Some(shared) = self.shared.upgrade() else { return false };
        match change {
            Change::Insert(key, target) => {
                self.insert(&shared, key, target);
                true
            }
            Change::Remove(key) => {
                let Some(id) = self.ids.remove(&key) else { return false };
                let removed = shared.pool().remove(id);
                drop(removed);
                debug!(app = self.app(), instance = %Quoted(&key_text(&key)), "endpoint removed");
                true
            }
        }
    }

    /// Inserts or updates an endpoint. Code of others runs without the lock, since it may call the
    /// balancer.
    fn insert(&mut self, shared: &Arc<Shared<S>>, key: D::Key, target: D::Service) {
        let attributes = (self.describe)(&target);
        let known = self.ids.get(&key).copied();
        let before = known.and_then(|id| shared.pool().attributes(id).cloned());
        let same_generation =
            before.as_ref().is_some_and(|b| b.generation.is_some() && b.generation == attributes.generation);
        let same_address = before.as_ref().is_some_and(|b| b.address.is_some() && b.address == attributes.address);
        match known {
            Some(id) if same_generation && same_address => shared.pool().update(id, attributes),
            Some(id) if same_generation => {
                let service = (self.make)(target);
                let replaced = shared.pool().replace_service(id, service, attributes);
                drop(replaced);
            }
            _ => self.add(shared, key, target, attributes, known),
        }
    }

    /// Adds an endpoint without measurements, in place of an earlier one with the same key.
    fn add(
        &mut self,
        shared: &Arc<Shared<S>>,
        key: D::Key,
        target: D::Service,
        attributes: Attributes,
        earlier: Option<EndpointId>,
    ) {
        let (id, service, instance) = (EndpointId(self.next_id), (self.make)(target), key_text(&key));
        debug!(app = self.app(), instance = %Quoted(&instance), "endpoint added");
        self.next_id += 1;
        self.ids.insert(key, id);
        let mut pool = shared.pool();
        let replaced = earlier.and_then(|earlier| pool.remove(earlier));
        let stats = new_stats(id, instance, &attributes, &pool, shared);
        pool.insert(id, service, Arc::new(stats), attributes);
        drop(pool);
        drop(replaced);
    }
}

fn new_stats<S: Clone + Send + Sync + 'static>(
    id: EndpointId,
    instance: String,
    attributes: &Attributes,
    pool: &Pool<S>,
    shared: &Arc<Shared<S>>,
) -> Stats {
    let (settings, now) = (pool.settings(), Timestamp::now());
    let load = Load::new(pool.newcomer_cost(now), settings.decay, now);
    let details = Details {
        id,
        app: settings.app.clone(),
        instance: Arc::from(instance),
        penalty: settings.failure_penalty,
        rules: pool.rules().clone(),
        missing_responses: pool.missing_responses().clone(),
        detector: Arc::downgrade(shared) as Weak<_>,
        failed: Default::default(),
        lost_at: Default::default(),
        evaluated: Default::default(),
        responses: Default::default(),
        silent: Default::default(),
        marks: Default::default(),
        picks: settings.metrics.pick_counter(attributes.zone.as_deref()),
        metrics: settings.metrics.clone(),
    };
    Stats::new(load, details, now)
}

/// The key as text, without the quotes of a string's `Debug`.
fn key_text(key: &impl Debug) -> String {
    format!("{key:?}").trim_matches('"').to_owned()
}
