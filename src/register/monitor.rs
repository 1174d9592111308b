use std::fmt;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};
use tower::Service;

use super::health::{Health, HealthStatus, IntoHealth};
use super::lifecycle::Lifecycle;
use super::vitals::Readiness;
use crate::model::Instance;
use crate::panics::catch_panic;
use crate::sync::Mutex;
use crate::time::{LONGEST_WAIT, jittered};

/// Time limit of one health check, unless the user sets another.
pub(super) const DEFAULT_TIMEOUT: Duration = Duration::from_secs(5);
/// Shortest time between two checks.
const MIN_INTERVAL: Duration = Duration::from_millis(100);
/// Time after which a result that is worse than the status is confirmed.
const CONFIRM_AFTER: Duration = Duration::from_secs(1);
/// Number of equal results in a row that change a status.
const SIGNS: u32 = 2;
/// Maximum number of results in a row that an unstable check needs to become UP.
const MAX_SIGNS: u32 = 8;
/// Time UP after which a check is stable again.
const STABLE_AFTER: Duration = Duration::from_secs(300);

pub(super) type HealthFuture = Pin<Box<dyn Future<Output = Health> + Send>>;

/// Health check of the user. Cheap to clone.
#[derive(Clone)]
pub(super) struct Check {
    /// Number of its component in the vitals.
    pub(super) number: usize,
    interval: Duration,
    run: Arc<dyn Fn() -> HealthFuture + Send + Sync>,
}

impl Check {
    pub(super) fn new<F, O>(number: usize, interval: Duration, check: F) -> Self
    where
        F: FnMut() -> O + Send + 'static,
        O: Future<Output: IntoHealth> + Send + 'static,
    {
        let check = Arc::new(Mutex::new(check));
        let run = move || -> HealthFuture {
            let check = check.clone();
            Box::pin(async move {
                let future = check.lock()();
                future.await.into_health()
            })
        };
        Self { number, interval, run: Arc::new(run) }
    }

    pub(super) fn of_service<S>(number: usize, interval: Duration, service: S) -> Self
    where
        S: Service<(), Response: IntoHealth, Error: fmt::Display, Future: Send> + Send + 'static,
    {
        let service = Arc::new(tokio::sync::Mutex::new(service));
        Self::new(number, interval, move || {
            let service = service.clone();
            async move {
                let mut service = service.lock().await;
                let ready = poll_fn(|cx| service.poll_ready(cx)).await;
                if let Err(failed) = ready.map_err(Health::down) {
                    return failed;
                }
                service.call(()).await.into_health()
            }
        })
    }

    /// Runs the check for ever, and records its damped status.
    async fn monitor(self, limit: Duration, lifecycle: Arc<Lifecycle>, instance: Instance) {
        let (mut damper, mut running) = (Damper::default(), None);
        let interval = self.interval.clamp(MIN_INTERVAL, LONGEST_WAIT);
        let (app, instance) = (instance.app(), instance.id());
        loop {
            let Health { status: result, detail } = self.run_once(limit.min(LONGEST_WAIT), &mut running).await;
            let before = damper.status;
            damper.add(result, Instant::now());
            let status = damper.status;
            if status == HealthStatus::Up && before != status {
                tracing::info!(app, instance, check = self.number + 1, %before, %status, "health changed");
            } else if before != status {
                let reason = detail.as_deref().unwrap_or("none given");
                tracing::warn!(app, instance, check = self.number + 1, %before, %status, reason, "health changed");
            }
            lifecycle.vitals.set_component(self.number, Health { status, detail });
            let is_worse = result != status && result != HealthStatus::Up;
            sleep(if is_worse { interval.min(CONFIRM_AFTER) } else { jittered(interval) }).await;
        }
    }

    /// Runs the check once, in a task of its own, so that a check that blocks its thread delays
    /// nothing else.
    async fn run_once(&self, limit: Duration, running: &mut Option<Task<Health>>) -> Health {
        if running.as_ref().is_some_and(|task| !task.0.is_finished()) {
            return Health::down("the previous check has not ended");
        }
        let task = running.insert(Task(tokio::spawn((self.run)())));
        match timeout(limit, &mut task.0).await {
            Ok(Ok(health)) => health,
            Ok(Err(_)) => Health::down("the check panicked"),
            Err(_) => {
                task.0.abort();
                Health::down(format_args!("no result within {limit:?}"))
            }
        }
    }
}

impl fmt::Debug for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Check").field("number", &self.number).field("interval", &self.interval).finish_non_exhaustive()
    }
}

/// Damps the results of one check.
///
/// The first result that is UP counts at once. Any other change needs two equal results in a row. A
/// check that fails within five minutes of its recovery needs twice as many results as before to
/// become UP again, at most eight.
#[derive(Debug)]
struct Damper {
    status: HealthStatus,
    candidate: HealthStatus,
    count: u32,
    signs_of_up: u32,
    recovered: Option<Instant>,
}

impl Default for Damper {
    fn default() -> Self {
        let unknown = HealthStatus::Unknown;
        Self { status: unknown, candidate: unknown, count: 0, signs_of_up: SIGNS, recovered: None }
    }
}

impl Damper {
    /// Adds a result. UNKNOWN is none.
    fn add(&mut self, result: HealthStatus, now: Instant) {
        if result == HealthStatus::Unknown {
            return;
        }
        self.count = if result == self.candidate { self.count.saturating_add(1) } else { 1 };
        self.candidate = result;
        let needed = match (self.status, result) {
            (HealthStatus::Unknown, HealthStatus::Up) => 1,
            (_, HealthStatus::Up) => self.signs_of_up,
            _ => SIGNS,
        };
        if result == self.status || self.count < needed {
            return;
        }
        if self.status == HealthStatus::Up {
            let is_stable = self.recovered.is_none_or(|at| now - at >= STABLE_AFTER);
            self.signs_of_up = if is_stable { SIGNS } else { (self.signs_of_up * 2).min(MAX_SIGNS) };
        } else if result == HealthStatus::Up && self.status != HealthStatus::Unknown {
            self.recovered = Some(now);
        }
        self.status = result;
    }
}

/// Health checks and readiness future of an instance, and their tasks, which end when this is
/// dropped.
#[derive(Default)]
pub(super) struct Monitors {
    checks: Vec<(Check, Option<Task<()>>)>,
    ready: Option<HealthFuture>,
    ready_task: Option<Task<()>>,
    timeout: Option<Duration>,
    /// Runtime on which they were started.
    runtime: Option<Handle>,
}

impl Monitors {
    pub(super) fn add(&mut self, check: Check) {
        self.checks.push((check, None));
    }

    pub(super) fn set_timeout(&mut self, timeout: Duration) {
        self.timeout = Some(timeout);
    }

    pub(super) fn set_ready(&mut self, ready: HealthFuture) {
        self.ready = Some(ready);
    }

    /// Starts the tasks that do not run, on the present runtime. Panics outside a tokio runtime.
    pub(super) fn start(&mut self, lifecycle: &Arc<Lifecycle>, instance: &Instance) {
        self.runtime = Some(Handle::current());
        self.start_added(lifecycle, instance);
    }

    /// Starts the tasks that do not run, on the runtime of the others. Does nothing before the
    /// [`start`](Self::start).
    pub(super) fn start_added(&mut self, lifecycle: &Arc<Lifecycle>, instance: &Instance) {
        let Some(runtime) = &self.runtime else { return };
        if let Some(ready) = self.ready.take() {
            let pending = Pending(lifecycle.clone());
            self.ready_task = Some(Task(runtime.spawn(await_ready(ready, pending, instance.clone()))));
        }
        let limit = self.timeout.unwrap_or(DEFAULT_TIMEOUT);
        for (check, task) in &mut self.checks {
            // The runtime of an earlier task may have ended.
            if task.as_ref().is_none_or(|task| task.0.is_finished()) {
                let monitor = check.clone().monitor(limit, lifecycle.clone(), instance.clone());
                *task = Some(Task(runtime.spawn(monitor)));
            }
        }
    }
}

impl fmt::Debug for Monitors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Monitors").field("checks", &self.checks).finish_non_exhaustive()
    }
}

/// Waits for the readiness future and records its result.
async fn await_ready(ready: HealthFuture, pending: Pending, instance: Instance) {
    let health = catch_panic(ready).await.unwrap_or_else(Health::down);
    let (app, instance) = (instance.app(), instance.id());
    if health.status == HealthStatus::Up {
        tracing::info!(app, instance, "ready");
        pending.0.vitals.set_readiness(Readiness::Ready);
    } else {
        let reason = health.detail.as_deref().unwrap_or("none given");
        tracing::error!(app, instance, reason, "readiness failed, the instance stays STARTING");
    }
}

/// Guard that records a readiness future that was dropped or failed.
struct Pending(Arc<Lifecycle>);

impl Drop for Pending {
    fn drop(&mut self) {
        self.0.vitals.fail_if_pending();
    }
}

/// Task that is aborted when it is dropped.
#[derive(Debug)]
struct Task<T>(JoinHandle<T>);

impl<T> Drop for Task<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

#[cfg(test)]
mod tests {
    use HealthStatus::{Down, OutOfService, Unknown, Up};

    use super::*;

    /// Adds the results, one per second, and returns the statuses after them.
    fn damped(results: &[HealthStatus]) -> Vec<HealthStatus> {
        let (mut damper, start) = (Damper::default(), Instant::now());
        let at = |second: usize| start + Duration::from_secs(second as u64);
        let statuses = results.iter().enumerate().map(|(second, result)| {
            damper.add(*result, at(second));
            damper.status
        });
        statuses.collect()
    }

    #[tokio::test]
    async fn first_up_counts_at_once_and_other_changes_need_two_signs() {
        assert_eq!(damped(&[Up, Down, Down, Up, Up]), [Up, Up, Down, Down, Up]);
        assert_eq!(damped(&[Down, Down, Up, Up]), [Unknown, Down, Down, Up]);
        assert_eq!(damped(&[Up, OutOfService, OutOfService, Down, Down]), [Up, Up, OutOfService, OutOfService, Down]);
        assert_eq!(damped(&[Up, Down, Unknown, Down]), [Up, Up, Up, Down], "UNKNOWN is no sign");
    }

    #[tokio::test]
    async fn alternating_results_change_nothing() {
        assert_eq!(damped(&[Up, Down, Up, Down, Up, Down, Up]), [Up; 7]);
    }

    #[tokio::test]
    async fn unstable_check_needs_more_signs_to_recover() {
        let (mut damper, start) = (Damper::default(), Instant::now());
        damper.add(Up, start);
        let mut signs = Vec::new();
        let mut second = 0;
        for stable in [0, 1, 1, 1, 1, 400] {
            second += stable;
            while damper.status == Up {
                second += 1;
                damper.add(Down, start + Duration::from_secs(second));
            }
            let mut count = 0;
            while damper.status != Up {
                second += 1;
                count += 1;
                damper.add(Up, start + Duration::from_secs(second));
            }
            signs.push(count);
        }
        assert_eq!(signs, [2, 4, 8, 8, 8, 2]);
    }
}
