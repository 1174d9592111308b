//! Metrics of balancers, calls by name, registrations and the consumer's registry, described in
//! `docs/metrics.md`.
//!
//! Without the feature `metrics` the types are empty and events are discarded.

mod provider;
#[cfg(feature = "metrics")]
mod recorder;
mod registry;

use std::sync::Arc;
use std::time::Duration;

pub(crate) use provider::{DrainPhase, ProviderMetrics};
pub(crate) use registry::RegistryMetrics;

/// Event that a balancer or a call reports.
#[derive(Clone, Copy, Debug)]
#[cfg_attr(not(feature = "metrics"), allow(dead_code, reason = "only the recorder reads the fields"))]
pub(crate) enum Event {
    /// The endpoints changed, or their states. Each field is a number of endpoints.
    Endpoints { available: usize, ejected: usize, probation: usize },
    /// An endpoint was ejected.
    Ejected { cause: &'static str },
    /// Calls fail at once from now on, since the balancer has no endpoint.
    FailFastEntered,
    /// The balancer has an endpoint again, after this time.
    FailFastLeft { elapsed: Duration },
    /// An attempt succeeded.
    Succeeded { elapsed: Duration },
    /// An attempt failed.
    Failed { elapsed: Duration },
    /// An attempt was rejected by an overloaded instance.
    Overloaded { elapsed: Duration },
    /// A call gets one more attempt.
    Retried { reason: &'static str },
    /// A call pauses before its next attempt.
    BackedOff { pause: Duration },
    /// A call gets no further attempt, since the retry budget is exhausted.
    RetryBudgetExhausted,
    /// A failed call was handled by the fallback, which succeeded or failed.
    FellBack { outcome: &'static str },
    /// The balancer is being dropped.
    Closed,
}

/// Metrics of one application in one balancer. Clones share them.
#[derive(Clone)]
pub(crate) struct Metrics {
    #[cfg(feature = "metrics")]
    recorder: Arc<recorder::Recorder>,
}

/// Counter of the picks in one zone.
pub(crate) struct PickCounter {
    #[cfg(feature = "metrics")]
    counter: ::metrics::Counter,
}

impl Metrics {
    #[cfg_attr(not(feature = "metrics"), allow(unused_variables, reason = "only the recorder uses the name"))]
    pub(crate) fn new(app: Option<&Arc<str>>) -> Self {
        Self {
            #[cfg(feature = "metrics")]
            recorder: Arc::new(recorder::Recorder::new(app)),
        }
    }

    /// Records an event.
    #[inline]
    #[cfg_attr(not(feature = "metrics"), allow(unused_variables, reason = "only the recorder uses the event"))]
    pub(crate) fn record(&self, event: Event) {
        #[cfg(feature = "metrics")]
        self.recorder.record(event);
    }

    /// Returns the counter of the picks in a zone, or of those at endpoints without one.
    #[cfg_attr(not(feature = "metrics"), allow(unused_variables, reason = "only the recorder uses the zone"))]
    pub(crate) fn pick_counter(&self, zone: Option<&str>) -> PickCounter {
        PickCounter {
            #[cfg(feature = "metrics")]
            counter: self.recorder.pick_counter(zone),
        }
    }
}

impl PickCounter {
    #[inline]
    pub(crate) fn increment(&self) {
        #[cfg(feature = "metrics")]
        self.counter.increment(1);
    }
}
