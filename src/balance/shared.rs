//! State shared by the clones of a balancer and its driver.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::{Notify, oneshot, watch};
use tokio::time::Instant;

use super::endpoint::{EndpointId, OutlierDetector, Permit};
use super::fail_fast::FailFast;
use super::outlier::Cause;
use super::pool::{Due, Picker, Pool};
use crate::sync::{Mutex, MutexGuard};

/// Returns the reason why there is no endpoint, for an error message.
pub(super) type Explain = Box<dyn Fn() -> String + Send + Sync>;

/// The pool of a balancer, and the picker that was built from it last.
pub(super) struct Shared<S> {
    /// Read by every pick, replaced as a whole.
    pub(super) picker: ArcSwap<Picker<S>>,
    /// Number of endpoints of the picker, for the hot path.
    len: AtomicUsize,
    /// The same number, for calls that wait for it to change.
    count: watch::Sender<usize>,
    pool: Mutex<Pool<S>>,
    /// Wakes the driver after a change that may have moved its next deadline.
    pub(super) wake: Arc<Notify>,
    pub(super) app: Option<Arc<str>>,
    pub(super) explain: Option<Explain>,
    pub(super) fail_fast: FailFast,
    /// Dropped with the last clone of the balancer, which ends the driver.
    _alive: oneshot::Sender<Infallible>,
}

impl<S> Shared<S> {
    pub(super) fn new(
        pool: Pool<S>,
        explain: Option<Explain>,
        ready_timeout: Duration,
        alive: oneshot::Sender<Infallible>,
    ) -> Self {
        let settings = pool.settings();
        let app = settings.app.clone();
        let fail_fast = FailFast::new(ready_timeout, app.clone(), settings.metrics.clone());
        Self {
            picker: ArcSwap::from_pointee(Picker::empty()),
            len: AtomicUsize::new(0),
            count: watch::Sender::new(0),
            pool: Mutex::new(pool),
            wake: Arc::default(),
            app,
            explain,
            fail_fast,
            _alive: alive,
        }
    }

    /// Number of endpoints now.
    pub(super) fn len(&self) -> usize {
        self.len.load(Ordering::Acquire)
    }

    /// Waits until there is an endpoint. Returns `false` if the timeout elapses first.
    pub(super) async fn wait_for_endpoint(&self, timeout: Duration) -> bool {
        let mut count = self.count.subscribe();
        let found = async { count.wait_for(|count| *count > 0).await.is_ok() };
        tokio::time::timeout(timeout, found).await.unwrap_or(false)
    }

    pub(super) fn pool(&self) -> MutexGuard<'_, Pool<S>> {
        self.pool.lock()
    }
}

impl<S: Clone> Shared<S> {
    /// Builds the picker of the pool's current state, and lets picks use it. Returns the number of
    /// endpoints of the picker before.
    pub(super) fn publish(&self) -> usize {
        self.publish_locked(self.pool())
    }

    /// Does the same with a lock that is held. Releases it first: services and wakers are code of
    /// others that may call the balancer.
    fn publish_locked(&self, mut pool: MutexGuard<'_, Pool<S>>) -> usize {
        let picker = pool.build(Instant::now());
        drop(pool);
        let picker = Arc::new(picker.map(|service| S::clone(&service)));
        let before = self.replace(picker);
        let len = self.len();
        if len > 0 {
            self.fail_fast.leave(len);
        }
        self.count.send_if_modified(|count| {
            // Read here, since another thread may have sent a newer length.
            let len = self.len();
            std::mem::replace(count, len) != len
        });
        before.len()
    }

    /// Replaces the picker, unless another thread published a newer one. Returns the one that is no
    /// longer in use.
    fn replace(&self, picker: Arc<Picker<S>>) -> Arc<Picker<S>> {
        let _locked = self.pool();
        if self.picker.load().version > picker.version {
            return picker;
        }
        // The picker first: a thread that reads the new length must find the endpoints.
        let len = picker.len();
        let before = self.picker.swap(picker);
        self.len.store(len, Ordering::Release);
        before
    }

    /// Does the timed work of the pool. Returns the probes and at most `max_checks` health checks
    /// to start.
    pub(super) fn advance(&self, now: Instant, max_checks: usize) -> Due<S> {
        let mut pool = self.pool();
        let due = pool.advance(now, max_checks);
        if due.changed {
            self.publish_locked(pool);
        }
        due
    }

    /// Changes the pool. Publishes a new picker if `change` returns `true`.
    pub(super) fn change(&self, change: impl FnOnce(&mut Pool<S>, Instant) -> bool) {
        let mut pool = self.pool();
        if change(&mut pool, Instant::now()) {
            self.publish_locked(pool);
            self.wake.notify_one();
        }
    }
}

impl<S: Clone + Send + Sync> OutlierDetector for Shared<S> {
    fn on_first_silent_call(&self, id: EndpointId) {
        self.change(|pool, now| pool.request_probe(id, now));
    }

    fn on_suspect(&self, id: EndpointId, cause: Cause) {
        self.change(|pool, now| pool.eject_suspect(id, cause, now));
    }

    fn on_half_open_call(&self, id: EndpointId, permit: Permit, result: Result<(), Cause>) {
        self.change(|pool, now| pool.half_open_call_ended(id, permit, result, now));
    }
}
