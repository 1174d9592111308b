//! The meters of balancers and of calls by name. What each tells is in `docs/metrics.md`.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use metrics::{Counter, Gauge, Histogram, counter, gauge, histogram};

/// Stands for all applications that never had an endpoint.
const UNKNOWN: &str = "unknown";

/// The meters of one application in one balancer.
#[derive(Clone)]
pub(crate) struct Meters(Arc<Inner>);

struct Inner {
    app: Arc<str>,
    /// Made once there was an endpoint: any name can be called, and a recorder forgets none.
    series: OnceLock<Series>,
    /// Its part of the gauge of those that never had one.
    fail_fast_unknown: OnceLock<Level>,
}

/// What is written often, looked up once.
struct Series {
    available: Level,
    out: Level,
    probation: Level,
    fail_fast: Level,
    fail_fast_seconds: Counter,
    succeeded: Histogram,
    failed: Histogram,
    overloaded: Histogram,
    over_budget: Counter,
}

/// The part that one balancer has in a gauge, to which others add theirs.
struct Level {
    gauge: Gauge,
    part: AtomicUsize,
}

/// The picks of one zone.
pub(crate) struct Picks(Counter);

impl Meters {
    pub(crate) fn new(app: Option<&Arc<str>>) -> Self {
        let app = app.cloned().unwrap_or_else(|| "unnamed".into());
        Self(Arc::new(Inner { app, series: OnceLock::new(), fail_fast_unknown: OnceLock::new() }))
    }

    fn series(&self) -> &Series {
        self.0.series.get_or_init(|| Series::of(&self.0.app))
    }

    pub(crate) fn endpoints(&self, available: usize, out: usize, probation: usize) {
        if available + out + probation == 0 && self.0.series.get().is_none() {
            return;
        }
        let series = self.series();
        series.available.set(available);
        series.out.set(out);
        series.probation.set(probation);
    }

    pub(crate) fn picks(&self, zone: Option<&str>) -> Picks {
        let labels = [("application", self.0.app.to_string()), ("zone", zone.unwrap_or("unknown").to_owned())];
        Picks(counter!("eureka_picks_total", &labels))
    }

    pub(crate) fn taken_out(&self, cause: &'static str) {
        let labels = [("application", self.0.app.to_string()), ("cause", cause.to_owned())];
        counter!("eureka_ejections_total", &labels).increment(1);
    }

    pub(crate) fn fail_fast(&self, is: bool) {
        let level = self.0.series.get().map(|series| &series.fail_fast);
        if is {
            level.unwrap_or_else(|| self.0.fail_fast_unknown.get_or_init(|| Level::fail_fast(UNKNOWN))).set(1);
        } else {
            // It may have got its first endpoint since.
            level.into_iter().chain(self.0.fail_fast_unknown.get()).for_each(|level| level.set(0));
        }
    }

    pub(crate) fn failed_fast_for(&self, time: Duration) {
        self.series().fail_fast_seconds.increment(time.as_secs());
    }

    /// The balancer goes, and with it its parts of the gauges.
    pub(crate) fn withdraw(&self) {
        self.endpoints(0, 0, 0);
        self.fail_fast(false);
    }

    pub(crate) fn succeeded(&self, after: Duration) {
        self.series().succeeded.record(after);
    }

    pub(crate) fn failed(&self, after: Duration) {
        self.series().failed.record(after);
    }

    pub(crate) fn overloaded(&self, after: Duration) {
        self.series().overloaded.record(after);
    }

    pub(crate) fn retried(&self, reason: &'static str) {
        let labels = [("application", self.0.app.to_string()), ("reason", reason.to_owned())];
        counter!("eureka_retries_total", &labels).increment(1);
    }

    pub(crate) fn over_budget(&self) {
        self.series().over_budget.increment(1);
    }
}

impl Series {
    fn of(app: &Arc<str>) -> Self {
        let label = || ("application", app.to_string());
        let endpoints = |state| Level::new(gauge!("eureka_endpoints", &[label(), ("state", String::from(state))]));
        let calls =
            |outcome| histogram!("eureka_call_duration_seconds", &[label(), ("outcome", String::from(outcome))]);
        Self {
            available: endpoints("available"),
            out: endpoints("out"),
            probation: endpoints("probation"),
            fail_fast: Level::fail_fast(app),
            fail_fast_seconds: counter!("eureka_fail_fast_seconds_total", &[label()]),
            succeeded: calls("success"),
            failed: calls("failure"),
            overloaded: calls("overloaded"),
            over_budget: counter!("eureka_retry_budget_exhausted_total", &[label()]),
        }
    }
}

impl Level {
    fn new(gauge: Gauge) -> Self {
        Self { gauge, part: AtomicUsize::new(0) }
    }

    fn fail_fast(app: &str) -> Self {
        Self::new(gauge!("eureka_fail_fast", "application" => app.to_owned()))
    }

    /// The difference is told, which is exact: a gauge is a floating-point number, and counts are whole.
    fn set(&self, part: usize) {
        let before = self.part.swap(part, Ordering::Relaxed);
        if part >= before {
            self.gauge.increment((part - before) as f64);
        } else {
            self.gauge.decrement((before - part) as f64);
        }
    }
}

impl Picks {
    pub(crate) fn count(&self) {
        self.0.increment(1);
    }
}
