//! What is counted, through the facade `metrics`: into whatever recorder the process has installed before its first call.
//!
//! | name | kind | labels | tells |
//! |---|---|---|---|
//! | `eureka_endpoints` | gauge | `application`, `state` | endpoints that are `available`, `out`, on `probation` |
//! | `eureka_picks_total` | counter | `application`, `zone` | tries by the zone of the endpoint; `unknown` without one |
//! | `eureka_ejections_total` | counter | `application`, `cause` | endpoints taken out |
//! | `eureka_fail_fast` | gauge | `application` | 1 while calls fail at once because there was no endpoint |
//! | `eureka_fail_fast_seconds_total` | counter | `application` | whole seconds spent so, told at the end |
//! | `eureka_call_duration_seconds` | histogram | `application`, `outcome` | the time from the pick to the outcome of each try |
//! | `eureka_retries_total` | counter | `application`, `reason` | further tries: `unsent`, `lost`, `refused` (an answer), `hedge` |
//! | `eureka_retry_budget_exhausted_total` | counter | `application` | further tries that the budget did not allow |

use std::sync::Arc;
use std::time::Duration;

use metrics::{Counter, Gauge, Histogram, counter, gauge, histogram};

/// The meters of one application.
#[derive(Clone)]
pub(crate) struct Meters(Arc<Inner>);

struct Inner {
    app: Arc<str>,
    available: Gauge,
    out: Gauge,
    probation: Gauge,
    fail_fast: Gauge,
    fail_fast_seconds: Counter,
    succeeded: Histogram,
    failed: Histogram,
    overloaded: Histogram,
    over_budget: Counter,
}

/// The picks of one zone.
pub(crate) struct Picks(Counter);

impl Meters {
    pub(crate) fn new(app: Option<&Arc<str>>) -> Self {
        let app = app.cloned().unwrap_or_else(|| "unnamed".into());
        let label = || ("application", app.to_string());
        let endpoints = |state| gauge!("eureka_endpoints", &[label(), ("state", String::from(state))]);
        let calls =
            |outcome| histogram!("eureka_call_duration_seconds", &[label(), ("outcome", String::from(outcome))]);
        Self(Arc::new(Inner {
            available: endpoints("available"),
            out: endpoints("out"),
            probation: endpoints("probation"),
            fail_fast: gauge!("eureka_fail_fast", &[label()]),
            fail_fast_seconds: counter!("eureka_fail_fast_seconds_total", &[label()]),
            succeeded: calls("success"),
            failed: calls("failure"),
            overloaded: calls("overloaded"),
            over_budget: counter!("eureka_retry_budget_exhausted_total", &[label()]),
            app,
        }))
    }

    pub(crate) fn endpoints(&self, available: usize, out: usize, probation: usize) {
        self.0.available.set(available as f64);
        self.0.out.set(out as f64);
        self.0.probation.set(probation as f64);
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
        self.0.fail_fast.set(f64::from(u8::from(is)));
    }

    pub(crate) fn failed_fast_for(&self, time: Duration) {
        self.0.fail_fast_seconds.increment(time.as_secs());
    }

    pub(crate) fn succeeded(&self, after: Duration) {
        self.0.succeeded.record(after);
    }

    pub(crate) fn failed(&self, after: Duration) {
        self.0.failed.record(after);
    }

    pub(crate) fn overloaded(&self, after: Duration) {
        self.0.overloaded.record(after);
    }

    pub(crate) fn retried(&self, reason: &'static str) {
        let labels = [("application", self.0.app.to_string()), ("reason", reason.to_owned())];
        counter!("eureka_retries_total", &labels).increment(1);
    }

    pub(crate) fn over_budget(&self) {
        self.0.over_budget.increment(1);
    }
}

impl Picks {
    pub(crate) fn count(&self) {
        self.0.increment(1);
    }
}
