//! Task of a balancer: follows discovery and the clock, whether or not there are calls.
//!
//! ```text
//! discovery ── batches of changes ──▶ ┌────────┐ ── changes ──▶ pool ── builds ──▶ picker
//! siblings ───────── updates ───────▶ │ Driver │
//! deadlines of the pool ────────────▶ │        │ ── starts ──▶ probes, health checks
//! results of probes and checks ─────▶ └────────┘
//! ```

mod discovery;
mod tasks;

use std::convert::Infallible;
use std::fmt::Debug;
use std::future::Future;
use std::hash::Hash;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, Waker};

use tokio::sync::oneshot;
use tokio::time::{Instant, sleep_until};
use tokio_stream::{Stream, StreamExt};
use tower::BoxError;
use tower::discover::Discover;
use tracing::{error, info};

use self::discovery::{Batch, BatchEnd};
pub(super) use self::discovery::{Describe, Discovery, MakeEndpoint};
use self::tasks::Tasks;
use super::shared::Shared;
use super::subset::Siblings;
use crate::panics::catch_panic;

/// Maximum number of batches that are applied before the balancer is returned.
const MAX_INITIAL_BATCHES: usize = 64;

/// Connects to an endpoint or checks its health. Returns `true` if that succeeds.
pub(super) type Probe<S> = Box<dyn Fn(S) -> Pin<Box<dyn Future<Output = bool> + Send>> + Send>;

/// Changes of the fleet that the caller belongs to.
pub(super) type SiblingStream = Pin<Box<dyn Stream<Item = Siblings> + Send>>;

pub(super) struct Driver<D: Discover, S> {
    pub(super) discovery: Discovery<D, S>,
    pub(super) siblings: Option<SiblingStream>,
    /// Background probe of unreachable endpoints.
    pub(super) probe: Option<Probe<S>>,
    /// Health check. Used while the settings of the pool have an interval.
    pub(super) check: Option<Probe<S>>,
    /// Weak, so that the last clone of the balancer ends the task.
    pub(super) shared: Weak<Shared<S>>,
    pub(super) app: Option<Arc<str>>,
}

impl<D, S> Driver<D, S>
where
    D: Discover,
    D::Key: Hash + Debug,
    D::Error: Into<BoxError>,
    S: Clone + Send + Sync + 'static,
{
    /// Applies the changes that discovery has ready, so that a first call finds the endpoints.
    /// Later changes are applied by [`run`](Self::run), which polls with a waker.
    pub(super) fn apply_ready(&mut self) {
        let mut cx = Context::from_waker(Waker::noop());
        for _ in 0..MAX_INITIAL_BATCHES {
            let polled = catch_unwind(AssertUnwindSafe(|| self.discovery.poll_batch(&mut cx)));
            match polled {
                Ok(Poll::Ready(Batch { end: BatchEnd::More, .. })) => {}
                Ok(Poll::Ready(batch)) => {
                    self.discovery.record_end(batch.end);
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

    /// Runs until `closed` resolves. The picker that was published last stays in use.
    pub(super) async fn run(mut self, closed: oneshot::Receiver<Infallible>) {
        tokio::select! {
            biased;
            _ = closed => {}
            () = self.drive_despite_panics() => {}
        }
    }

    /// Restarts [`drive`](Self::drive) after a panic in code of others: discovery, closures that
    /// build or probe endpoints, destructors. Without the clock, ejected endpoints would stay
    /// ejected.
    async fn drive_despite_panics(&mut self) {
        while catch_panic(self.drive()).await.is_err() {
            self.panicked();
        }
    }

    fn panicked(&mut self) {
        let ended = self.discovery.panicked();
        error!(app = self.app(), ended, "discovery or an endpoint panicked, endpoints are kept");
    }

    async fn drive(&mut self) {
        let Some(wake) = self.shared.upgrade().map(|shared| shared.wake.clone()) else { return };
        // Changes that were applied before a panic.
        self.publish();
        let mut tasks = Tasks::default();
        let mut siblings = SiblingUpdates { stream: self.siblings.take(), yields: false };
        loop {
            let deadline = self.next_deadline(&tasks);
            tokio::select! {
                biased;
                () = wake.notified() => {}
                probed = tasks.probes.next() => self.probe_ended(probed),
                checked = tasks.checks.next() => self.check_ended(checked),
                () = sleep_until_deadline(deadline) => self.advance(&mut tasks),
                update = siblings.next() => self.set_siblings(update),
                // Last, since it may always be ready.
                batch = self.discovery.next_batch() => self.end_batch(batch).await,
            }
        }
    }

    /// Publishes the changes of a batch.
    async fn end_batch(&mut self, batch: Batch<D::Error>) {
        self.discovery.note_recovery(&batch);
        if batch.changed {
            self.publish();
        }
        match batch.end {
            BatchEnd::More => tokio::task::yield_now().await,
            end => {
                if self.discovery.record_end(end) {
                    self.discovery.back_off();
                }
            }
        }
    }

    fn publish(&self) {
        let Some(shared) = self.shared.upgrade() else { return };
        let before = shared.publish();
        match (before, self.discovery.len()) {
            (0, endpoints @ 1..) => info!(app = self.app(), endpoints, "endpoints found"),
            (1.., 0) => info!(app = self.app(), "no endpoint left"),
            _ => {}
        }
    }

    fn next_deadline(&self, tasks: &Tasks) -> Option<Instant> {
        self.shared.upgrade()?.pool().next_deadline(tasks.check_capacity() > 0)
    }

    /// Does the work that is due.
    fn advance(&self, tasks: &mut Tasks) {
        let Some(shared) = self.shared.upgrade() else { return };
        let now = Instant::now();
        let due = shared.advance(now, tasks.check_capacity());
        if let Some(probe) = &self.probe {
            due.probes.into_iter().for_each(|(id, service)| tasks.start_probe(id, now, probe(S::clone(&service))));
        }
        if let Some((interval, check)) = due.check_interval.zip(self.check.as_ref()) {
            due.checks
                .into_iter()
                .for_each(|(id, service)| tasks.start_check(id, now, interval, check(S::clone(&service))));
        }
    }

    /// Reports the result of a probe. One that panicked is repeated as if it were lost.
    fn probe_ended(&self, probed: Option<tasks::Ended>) {
        if let (Some(probed), Some(shared)) = (probed, self.shared.upgrade()) {
            shared.change(|pool, now| pool.probe_ended(probed.id, probed.success, now));
        }
    }

    fn check_ended(&self, checked: Option<tasks::Ended>) {
        if let (Some(checked), Some(shared)) = (checked, self.shared.upgrade()) {
            shared.change(|pool, now| pool.check_ended(checked.id, checked.started, checked.success, now));
        }
    }

    fn set_siblings(&self, update: Option<Siblings>) {
        if let (Some(siblings), Some(shared)) = (update, self.shared.upgrade()) {
            shared.change(|pool, _| pool.set_siblings(siblings));
        }
    }

    fn app(&self) -> Option<&str> {
        self.app.as_deref()
    }
}

/// Stream of siblings that leaves every second turn to discovery, since it may always be ready.
struct SiblingUpdates {
    stream: Option<SiblingStream>,
    /// Set after an update.
    yields: bool,
}

impl SiblingUpdates {
    /// Waits for the next update. Returns `None` once, when the stream has ended.
    async fn next(&mut self) -> Option<Siblings> {
        if std::mem::take(&mut self.yields) {
            tokio::task::yield_now().await;
        }
        let update = match &mut self.stream {
            Some(stream) => stream.next().await,
            None => std::future::pending().await,
        };
        self.yields = true;
        if update.is_none() {
            self.stream = None;
        }
        update
    }
}

async fn sleep_until_deadline(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}
