use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use ::metrics::{Counter, Gauge, Histogram, counter, gauge, histogram};

use super::Event;

/// Label of all applications that never had an endpoint.
const UNKNOWN: &str = "unknown";

/// Writes events into the recorder that the process installed.
pub(super) struct Recorder {
    app: Arc<str>,
    /// Created with the first endpoint. Callers may use any name, and a recorder drops no series.
    series: OnceLock<Series>,
    /// Share of the gauge of applications that never had an endpoint.
    fail_fast_unknown: OnceLock<GaugeShare>,
}

/// Series of one application that are written often, looked up once.
struct Series {
    available: GaugeShare,
    ejected: GaugeShare,
    probation: GaugeShare,
    fail_fast: GaugeShare,
    fail_fast_seconds: Counter,
    succeeded: Histogram,
    failed: Histogram,
    overloaded: Histogram,
    retry_budget_exhausted: Counter,
}

/// Share that one balancer adds to a gauge. The gauge is the sum over all balancers.
struct GaugeShare {
    gauge: Gauge,
    share: AtomicUsize,
}

impl Recorder {
    pub(super) fn new(app: Option<&Arc<str>>) -> Self {
        let app = app.cloned().unwrap_or_else(|| "unnamed".into());
        Self { app, series: OnceLock::new(), fail_fast_unknown: OnceLock::new() }
    }

    #[inline]
    pub(super) fn record(&self, event: Event) {
        match event {
            Event::Endpoints { available, ejected, probation } => self.endpoints(available, ejected, probation),
            Event::Ejected { cause } => {
                let labels = [("application", self.app.to_string()), ("cause", cause.to_owned())];
                counter!("eureka_ejections_total", &labels).increment(1);
            }
            Event::FailFastEntered => self.enter_fail_fast(),
            Event::FailFastLeft { elapsed } => {
                self.leave_fail_fast();
                self.series().fail_fast_seconds.increment(elapsed.as_secs());
            }
            Event::Succeeded { elapsed } => self.series().succeeded.record(elapsed),
            Event::Failed { elapsed } => self.series().failed.record(elapsed),
            Event::Overloaded { elapsed } => self.series().overloaded.record(elapsed),
            Event::Retried { reason } => {
                let labels = [("application", self.app.to_string()), ("reason", reason.to_owned())];
                counter!("eureka_retries_total", &labels).increment(1);
            }
            Event::BackedOff { pause } => {
                histogram!("eureka_retry_pause_seconds", "application" => self.app.to_string()).record(pause);
            }
            Event::RetryBudgetExhausted => self.series().retry_budget_exhausted.increment(1),
            Event::FellBack { outcome } => {
                let app = if self.series.get().is_some() { &*self.app } else { UNKNOWN };
                let labels = [("application", app.to_owned()), ("outcome", outcome.to_owned())];
                counter!("eureka_fallbacks_total", &labels).increment(1);
            }
            Event::Closed => {
                self.endpoints(0, 0, 0);
                self.leave_fail_fast();
            }
        }
    }

    pub(super) fn pick_counter(&self, zone: Option<&str>) -> Counter {
        let labels = [("application", self.app.to_string()), ("zone", zone.unwrap_or("unknown").to_owned())];
        counter!("eureka_picks_total", &labels)
    }

    fn series(&self) -> &Series {
        self.series.get_or_init(|| Series::new(&self.app))
    }

    fn endpoints(&self, available: usize, ejected: usize, probation: usize) {
        if available + ejected + probation == 0 && self.series.get().is_none() {
            return;
        }
        let series = self.series();
        series.available.set(available);
        series.ejected.set(ejected);
        series.probation.set(probation);
    }

    fn enter_fail_fast(&self) {
        let gauge = self.series.get().map(|series| &series.fail_fast);
        gauge.unwrap_or_else(|| self.fail_fast_unknown.get_or_init(|| GaugeShare::fail_fast(UNKNOWN))).set(1);
    }

    /// Resets both gauges, since the first endpoint may have come after fail-fast was entered.
    fn leave_fail_fast(&self) {
        let gauge = self.series.get().map(|series| &series.fail_fast);
        gauge.into_iter().chain(self.fail_fast_unknown.get()).for_each(|gauge| gauge.set(0));
    }
}

impl Series {
    fn new(app: &Arc<str>) -> Self {
        let label = || ("application", app.to_string());
        let endpoints = |state| GaugeShare::new(gauge!("eureka_endpoints", &[label(), ("state", String::from(state))]));
        let attempts =
            |outcome| histogram!("eureka_call_duration_seconds", &[label(), ("outcome", String::from(outcome))]);
        Self {
            available: endpoints("available"),
            ejected: endpoints("ejected"),
            probation: endpoints("half_open"),
            fail_fast: GaugeShare::fail_fast(app),
            fail_fast_seconds: counter!("eureka_fail_fast_seconds_total", &[label()]),
            succeeded: attempts("success"),
            failed: attempts("failure"),
            overloaded: attempts("overloaded"),
            retry_budget_exhausted: counter!("eureka_retry_budget_exhausted_total", &[label()]),
        }
    }
}

impl GaugeShare {
    fn new(gauge: Gauge) -> Self {
        Self { gauge, share: AtomicUsize::new(0) }
    }

    fn fail_fast(app: &str) -> Self {
        Self::new(gauge!("eureka_fail_fast", "application" => app.to_owned()))
    }

    /// Adds the difference to the gauge. That is exact although a gauge is a floating-point number,
    /// since counts are integers.
    fn set(&self, share: usize) {
        let before = self.share.swap(share, Ordering::Relaxed);
        if share >= before {
            self.gauge.increment((share - before) as f64);
        } else {
            self.gauge.decrement((before - share) as f64);
        }
    }
}
