//! The task behind a balancer: follows discovery, whether somebody calls or not, and publishes what there is.

use std::collections::HashMap;
use std::convert::Infallible;
use std::fmt::Debug;
use std::future::poll_fn;
use std::hash::Hash;
use std::pin::{Pin, pin};
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;
use tower::BoxError;
use tower::discover::{Change, Discover};
use tracing::{debug, info, warn};

use super::Shared;
use super::endpoint::{Details, Endpoint, EndpointId, Stats};
use super::load::{Load, nanos, tick};

/// How many changes may wait before they are published. Also keeps a discovery that is always ready from holding its thread.
const BATCH: usize = 64;

/// How long discovery is left alone after an error.
const BACK_OFF: Duration = Duration::from_secs(1);

/// Makes an endpoint's service from what was discovered.
pub(super) type MakeEndpoint<T, S> = Box<dyn FnMut(T) -> S + Send>;

pub(super) struct Settings {
    pub(super) name: Option<Arc<str>>,
    pub(super) failure_penalty: Duration,
    pub(super) default_latency: Duration,
    pub(super) decay: Duration,
    /// What the ticks of all loads count from.
    pub(super) base: Instant,
}

pub(super) struct Driver<D: Discover, S> {
    pub(super) make: MakeEndpoint<D::Service, S>,
    /// Weak, so that the balancer's last clone ends the task and not the other way round.
    pub(super) shared: Weak<Shared<S>>,
    pub(super) settings: Settings,
    pub(super) endpoints: HashMap<D::Key, Endpoint<S>>,
    pub(super) next_id: u64,
    /// What endpoints that join in this batch are assumed to cost: as little as the best there is, so that they get their
    /// calls at once instead of when the default has decayed to what the others take.
    pub(super) newcomer_cost: Option<f32>,
}

/// Why a batch ended.
enum Step<E> {
    /// Discovery has more, or will have.
    More,
    Failed(E),
    Ended,
}

impl<D, S> Driver<D, S>
where
    D: Discover,
    D::Key: Hash + Debug,
    D::Error: Into<BoxError>,
    S: Clone,
{
    /// Runs until `closed` resolves or discovery ends; the set that was published last stays.
    pub(super) async fn run(mut self, discover: D, closed: oneshot::Receiver<Infallible>) {
        tokio::select! {
            biased;
            _ = closed => {}
            () = self.follow(discover) => {}
        }
    }

    async fn follow(&mut self, discover: D) {
        let mut discover = pin!(discover);
        let mut failing = false;
        loop {
            let (changed, step) = poll_fn(|cx| self.poll_batch(discover.as_mut(), cx)).await;
            if failing && (changed || matches!(step, Step::More)) {
                info!(application = self.name(), "discovery works again");
                failing = false;
            }
            if changed {
                self.newcomer_cost = None;
                self.publish();
            }
            match step {
                Step::More => tokio::task::yield_now().await,
                Step::Failed(error) => {
                    if !failing {
                        let error: BoxError = error.into();
                        let (name, endpoints) = (self.name(), self.endpoints.len());
                        warn!(application = name, endpoints, error, "discovery failed, keeping the endpoints");
                    }
                    failing = true;
                    tokio::time::sleep(BACK_OFF).await;
                }
                Step::Ended => {
                    debug!(application = self.name(), endpoints = self.endpoints.len(), "discovery ended");
                    return;
                }
            }
        }
    }

    /// Applies what discovery has ready, at most a batch, and tells whether that changed anything.
    fn poll_batch(&mut self, mut discover: Pin<&mut D>, cx: &mut Context<'_>) -> Poll<(bool, Step<D::Error>)> {
        let mut changed = false;
        // Removals of what is not there count as well: they, too, can come without end.
        for polled in 0..BATCH {
            let step = match discover.as_mut().poll_discover(cx) {
                Poll::Ready(Some(Ok(change))) => {
                    changed |= self.apply(change);
                    continue;
                }
                Poll::Ready(Some(Err(error))) => Step::Failed(error),
                Poll::Ready(None) => Step::Ended,
                Poll::Pending if polled == 0 => return Poll::Pending,
                Poll::Pending => Step::More,
            };
            return Poll::Ready((changed, step));
        }
        Poll::Ready((changed, Step::More))
    }

    fn apply(&mut self, change: Change<D::Key, D::Service>) -> bool {
        match change {
            Change::Insert(key, target) => {
                let endpoint = self.endpoint(label(&key), target);
                debug!(application = self.name(), endpoint = &*endpoint.stats.details.instance, "endpoint added");
                self.endpoints.insert(key, endpoint);
                true
            }
            Change::Remove(key) => {
                let removed = self.endpoints.remove(&key);
                if let Some(endpoint) = &removed {
                    debug!(application = self.name(), endpoint = &*endpoint.stats.details.instance, "endpoint removed");
                }
                removed.is_some()
            }
        }
    }

    fn endpoint(&mut self, instance: Arc<str>, target: D::Service) -> Endpoint<S> {
        let id = EndpointId(self.next_id);
        self.next_id += 1;
        let Settings { base, decay, failure_penalty: penalty, default_latency, .. } = self.settings;
        let now = Instant::now();
        let cost = *self.newcomer_cost.get_or_insert_with(|| {
            let costs = self.endpoints.values().map(|endpoint| endpoint.stats.load.cost(tick(base, now)));
            costs.fold(nanos(default_latency), f32::min)
        });
        let load = Load::new(cost, decay, base, now);
        let details = Box::new(Details { app: self.settings.name.clone(), instance, penalty });
        Endpoint { id, stats: Arc::new(Stats { load, details }), service: (self.make)(target) }
    }

    fn publish(&self) {
        let Some(shared) = self.shared.upgrade() else { return };
        let before = shared.publish(self.endpoints.values().cloned().collect());
        match (before, self.endpoints.len()) {
            (0, endpoints @ 1..) => info!(application = self.name(), endpoints, "endpoints found"),
            (1.., 0) => info!(application = self.name(), "no endpoint left"),
            _ => {}
        }
    }

    fn name(&self) -> Option<&str> {
        self.settings.name.as_deref()
    }
}

/// The key as text, without the quotes that a string's `Debug` has.
fn label(key: &impl Debug) -> Arc<str> {
    Arc::from(format!("{key:?}").trim_matches('"'))
}
