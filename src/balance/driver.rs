//! The task behind a balancer: follows discovery, whether somebody calls or not, and the clock.

use std::collections::HashMap;
use std::convert::Infallible;
use std::fmt::Debug;
use std::future::{Future, poll_fn};
use std::hash::Hash;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_stream::{Stream, StreamExt};
use tower::BoxError;
use tower::discover::{Change, Discover};
use tracing::{debug, error, info, warn};

use super::Shared;
use super::attributes::Attributes;
use super::endpoint::{Details, EndpointId, Stats};
use super::load::{Load, Moment};
use super::subset::Peers;
use crate::shown::Shown;

/// How many changes may wait before they are published. Also keeps a discovery that is always ready from holding its thread.
const BATCH: usize = 64;

/// How many batches are applied when the balancer is made.
const FIRST_BATCHES: usize = 64;

/// How long discovery is left alone after an error.
const BACK_OFF: Duration = Duration::from_secs(1);

/// How long a probe may take to connect.
const PROBE_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a check of an endpoint's health may take, if the interval leaves so much.
const CHECK_TIMEOUT: Duration = Duration::from_secs(10);

/// How many checks are on their way at the same time.
const MOST_CHECKS: usize = 16;

/// Makes an endpoint's service from what was discovered.
pub(super) type MakeEndpoint<T, S> = Box<dyn FnMut(T) -> S + Send>;

/// Tells what is known of what was discovered.
pub(super) type Describe<T> = Box<dyn Fn(&T) -> Attributes + Send>;

/// Tries to reach an endpoint, or checks its health.
pub(super) type Probe<S> = Box<dyn Fn(S) -> Pin<Box<dyn Future<Output = bool> + Send>> + Send>;

/// Who calls beside this caller.
pub(super) type Fleet = Pin<Box<dyn Stream<Item = Peers> + Send>>;

pub(super) struct Driver<D: Discover, S> {
    pub(super) make: MakeEndpoint<D::Service, S>,
    pub(super) describe: Describe<D::Service>,
    pub(super) probe: Option<Probe<S>>,
    pub(super) check: Option<(Duration, Probe<S>)>,
    pub(super) peers: Option<Fleet>,
    /// Weak, so that the balancer's last clone ends the task and not the other way round.
    pub(super) shared: Weak<Shared<S>>,
    pub(super) name: Option<Arc<str>>,
    pub(super) ids: HashMap<D::Key, EndpointId>,
    pub(super) next_id: u64,
    pub(super) discovery: Discovery,
}

/// What can be expected of discovery.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) enum Discovery {
    #[default]
    Works,
    /// Its last answer was an error.
    Fails,
    /// Being polled just now, which tells a panic of its own from one of the endpoints it reported.
    Polled,
    Ended,
}

/// Tries under way, each with when it began.
type Tries = JoinSet<(EndpointId, Instant, bool)>;

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
    S: Clone + Send + Sync + 'static,
{
    /// Runs until `closed` resolves; the set that was published last stays.
    pub(super) async fn run(mut self, discover: Pin<Box<D>>, closed: oneshot::Receiver<Infallible>) {
        tokio::select! {
            biased;
            _ = closed => {}
            () = self.outlive_panics(discover) => {}
        }
    }

    /// Takes over what discovery has ready, so that a first call that comes at once finds it. What this leaves, [`run`](Self::run)
    /// does: it polls again with a waker.
    pub(super) fn begin(&mut self, mut discover: Pin<&mut D>) {
        let mut cx = Context::from_waker(Waker::noop());
        for _ in 0..FIRST_BATCHES {
            let polled = catch_unwind(AssertUnwindSafe(|| self.poll_batch(discover.as_mut(), &mut cx)));
            match polled {
                Ok(Poll::Ready((_, Step::More))) => {}
                Ok(Poll::Ready((_, step))) => {
                    self.settle(step);
                    break;
                }
                Ok(Poll::Pending) => break,
                Err(_) => {
                    self.panicked();
                    break;
                }
            }
        }
        self.publish();
    }

    /// Others' code runs here: discovery, what makes endpoints and probes them, what drops them. If it panics, the clock has to
    /// go on nevertheless, or what is out would stay out.
    async fn outlive_panics(&mut self, mut discover: Pin<Box<D>>) {
        loop {
            let mut following = Box::pin(self.follow(discover.as_mut()));
            let followed = poll_fn(|cx| match catch_unwind(AssertUnwindSafe(|| following.as_mut().poll(cx))) {
                Ok(polled) => polled.map(Ok),
                Err(_) => Poll::Ready(Err(())),
            });
            if followed.await.is_ok() {
                return;
            }
            drop(following);
            self.panicked();
        }
    }

    fn panicked(&mut self) {
        let ended = self.discovery == Discovery::Polled;
        error!(application = self.name(), ended, "discovery or an endpoint panicked, keeping the endpoints");
        if ended {
            self.discovery = Discovery::Ended;
        }
    }

    /// Takes note of how discovery stands, and tells whether it is to be left alone for a while.
    fn settle(&mut self, step: Step<D::Error>) -> bool {
        match step {
            Step::More => false,
            Step::Failed(error) => {
                if self.discovery != Discovery::Fails {
                    let error: BoxError = error.into();
                    let (name, endpoints) = (self.name(), self.ids.len());
                    warn!(application = name, endpoints, error, "discovery failed, keeping the endpoints");
                }
                self.discovery = Discovery::Fails;
                true
            }
            Step::Ended => {
                debug!(application = self.name(), endpoints = self.ids.len(), "discovery ended");
                self.discovery = Discovery::Ended;
                false
            }
        }
    }

    async fn follow(&mut self, mut discover: Pin<&mut D>) {
        let Some(wake) = self.shared.upgrade().map(|shared| shared.wake.clone()) else { return };
        // What was changed before a panic.
        self.publish();
        let mut paused = None::<Instant>;
        let (mut probes, mut checks) = (Tries::new(), Tries::new());
        let (mut fleet, mut heard) = (self.peers.take(), false);
        loop {
            let just_heard = std::mem::take(&mut heard);
            let deadline =
                self.shared.upgrade().and_then(|shared| shared.roster().next_deadline(checks.len() < MOST_CHECKS));
            let may_poll = self.discovery != Discovery::Ended;
            let step = tokio::select! {
                biased;
                () = wake.notified() => None,
                Some(probed) = probes.join_next() => {
                    // One that panicked is tried again as if it were lost.
                    if let (Ok((id, _, success)), Some(shared)) = (probed, self.shared.upgrade()) {
                        shared.probed(id, success);
                    }
                    None
                }
                Some(checked) = checks.join_next() => {
                    if let (Ok((id, since, healthy)), Some(shared)) = (checked, self.shared.upgrade()) {
                        shared.checked(id, since, healthy);
                    }
                    None
                }
                () = until(deadline) => {
                    self.advance(&mut probes, &mut checks);
                    None
                }
                peers = next(&mut fleet), if !just_heard => {
                    match peers {
                        Some(peers) => self.set_peers(peers),
                        None => fleet = None,
                    }
                    heard = true;
                    None
                }
                () = until(paused), if paused.is_some() => {
                    paused = None;
                    None
                }
                // Last, since it may always be ready.
                step = poll_fn(|cx| self.poll_batch(discover.as_mut(), cx)), if may_poll && paused.is_none() => Some(step),
                // The fleet may always be ready as well: discovery has its turn between.
                () = tokio::task::yield_now(), if just_heard => None,
            };
            let Some((changed, step)) = step else { continue };
            if self.discovery == Discovery::Fails && (changed || matches!(step, Step::More)) {
                info!(application = self.name(), "discovery works again");
                self.discovery = Discovery::Works;
            }
            if changed {
                self.publish();
            }
            if let Step::More = step {
                tokio::task::yield_now().await;
            } else if self.settle(step) {
                paused = Some(Instant::now() + BACK_OFF);
            }
        }
    }

    /// Applies what discovery has ready, at most a batch, and tells whether that changed anything.
    fn poll_batch(&mut self, mut discover: Pin<&mut D>, cx: &mut Context<'_>) -> Poll<(bool, Step<D::Error>)> {
        let mut changed = false;
        // Removals of what is not there count as well: they, too, can come without end.
        for polled in 0..BATCH {
            let before = std::mem::replace(&mut self.discovery, Discovery::Polled);
            let polled_discover = discover.as_mut().poll_discover(cx);
            self.discovery = before;
            let step = match polled_discover {
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
        let Some(shared) = self.shared.upgrade() else { return false };
        match change {
            Change::Insert(key, target) => {
                self.insert(&shared, key, target);
                true
            }
            Change::Remove(key) => {
                let Some(id) = self.ids.remove(&key) else { return false };
                let removed = shared.roster().remove(id);
                drop(removed);
                debug!(application = self.name(), endpoint = %Shown(&label(&key)), "endpoint removed");
                true
            }
        }
    }

    /// What others wrote runs outside the lock, as it may well come back to the balancer.
    fn insert(&mut self, shared: &Arc<Shared<S>>, key: D::Key, target: D::Service) {
        let attributes = (self.describe)(&target);
        let known = self.ids.get(&key).copied();
        let before = known.and_then(|id| shared.roster().attributes(id).cloned());
        let same_start = before.as_ref().is_some_and(|b| b.start.is_some() && b.start == attributes.start);
        let same_address = before.as_ref().is_some_and(|b| b.address.is_some() && b.address == attributes.address);
        let id = match known {
            Some(id) if same_start && same_address => return shared.roster().update(id, attributes),
            Some(id) if same_start => {
                let service = (self.make)(target);
                let replaced = shared.roster().replace_service(id, service, attributes);
                return drop(replaced);
            }
            _ => EndpointId(self.next_id),
        };
        let (service, instance) = ((self.make)(target), label(&key));
        debug!(application = self.name(), endpoint = %Shown(&instance), "endpoint added");
        self.next_id += 1;
        self.ids.insert(key, id);
        let mut roster = shared.roster();
        let replaced = known.and_then(|known| roster.remove(known));
        let settings = roster.settings();
        let now = Moment::now();
        let load = Load::new(roster.newcomer_cost(now), settings.decay, now);
        let details = Details {
            id,
            app: settings.name.clone(),
            instance: Arc::from(instance),
            penalty: settings.failure_penalty,
            rules: settings.ejection.rules(),
            control: Arc::downgrade(shared) as Weak<_>,
            failed: Default::default(),
            looked: Default::default(),
            answered: Default::default(),
            silent: Default::default(),
            ledger: Default::default(),
            picks: settings.metrics.pick_counter(attributes.zone.as_deref()),
            metrics: settings.metrics.clone(),
        };
        roster.insert(id, service, Arc::new(Stats::new(load, details, now)), attributes);
        drop(roster);
        drop(replaced);
    }

    fn set_peers(&self, peers: Peers) {
        if let Some(shared) = self.shared.upgrade() {
            shared.change(|roster, _| roster.set_peers(peers));
        }
    }

    fn publish(&self) {
        let Some(shared) = self.shared.upgrade() else { return };
        let before = shared.publish();
        match (before, self.ids.len()) {
            (0, endpoints @ 1..) => info!(application = self.name(), endpoints, "endpoints found"),
            (1.., 0) => info!(application = self.name(), "no endpoint left"),
            _ => {}
        }
    }

    /// Does what the clock calls for.
    fn advance(&self, probes: &mut Tries, checks: &mut Tries) {
        let Some(shared) = self.shared.upgrade() else { return };
        let now = Instant::now();
        let due = shared.advance(now, MOST_CHECKS.saturating_sub(checks.len()));
        let begin = |tries: &mut Tries, probe: &Probe<S>, within, (id, service): (EndpointId, Arc<S>)| {
            let outcome = probe(S::clone(&service));
            tries.spawn(async move { (id, now, timeout(within, outcome).await.unwrap_or(false)) });
        };
        if let Some(probe) = &self.probe {
            due.probe.into_iter().for_each(|endpoint| begin(probes, probe, PROBE_TIMEOUT, endpoint));
        }
        if let Some((interval, check)) = &self.check {
            let within = CHECK_TIMEOUT.min(*interval);
            due.check.into_iter().for_each(|endpoint| begin(checks, check, within, endpoint));
        }
    }

    fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }
}

/// What comes next of it, if there is one.
async fn next(fleet: &mut Option<Fleet>) -> Option<Peers> {
    match fleet {
        Some(fleet) => fleet.next().await,
        None => std::future::pending().await,
    }
}

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

/// The key as text, without the quotes that a string's `Debug` has.
fn label(key: &impl Debug) -> String {
    format!("{key:?}").trim_matches('"').to_owned()
}
