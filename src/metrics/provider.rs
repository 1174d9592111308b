//! Metrics of one registration.

use std::time::Duration;

#[cfg(feature = "metrics")]
use ::metrics::{Gauge, counter, gauge, histogram};

/// Phase of a shutdown, as the value of its gauge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DrainPhase {
    Serving = 0,
    /// DOWN is registered, and the server still serves.
    Draining = 1,
    /// The server has stopped accepting and finishes the requests in flight.
    Finishing = 2,
    Deregistering = 3,
}

/// Metrics of one registration. Without the feature `metrics` all events are discarded.
#[derive(Debug)]
pub(crate) struct ProviderMetrics {
    #[cfg(feature = "metrics")]
    labels: [(&'static str, String); 2],
}

#[cfg_attr(not(feature = "metrics"), allow(unused_variables, reason = "only the recorder uses the values"))]
impl ProviderMetrics {
    pub(crate) fn new(app: &str, instance: &str) -> Self {
        Self {
            #[cfg(feature = "metrics")]
            labels: [("application", app.to_owned()), ("instance", instance.to_owned())],
        }
    }

    /// Records whether the registry has the instance, and the age of its lease.
    pub(crate) fn lease(&self, registered: bool, age: Option<Duration>) {
        #[cfg(feature = "metrics")]
        {
            gauge!("eureka_registered", &self.labels).set(f64::from(u8::from(registered)));
            gauge!("eureka_lease_age_seconds", &self.labels).set(age.unwrap_or_default().as_secs_f64());
        }
    }

    /// Records a heartbeat and the server that it was sent to, as far as that is known.
    pub(crate) fn heartbeat(&self, server: Option<&str>, elapsed: Duration, succeeded: bool) {
        #[cfg(feature = "metrics")]
        {
            let [app, instance] = self.labels.clone();
            let server = ("server", server.unwrap_or("unknown").to_owned());
            let outcome = ("outcome", String::from(if succeeded { "success" } else { "failure" }));
            histogram!("eureka_heartbeat_duration_seconds", &[app, instance, server, outcome]).record(elapsed);
        }
    }

    /// Counts a registration that replaces a lost lease.
    pub(crate) fn reregistered(&self) {
        #[cfg(feature = "metrics")]
        counter!("eureka_reregistrations_total", &self.labels).increment(1);
    }

    pub(crate) fn in_flight(&self, requests: usize) {
        #[cfg(feature = "metrics")]
        gauge!("eureka_requests_in_flight", &self.labels).set(requests as f64);
    }

    pub(crate) fn drain_phase(&self, phase: DrainPhase) {
        #[cfg(feature = "metrics")]
        gauge!("eureka_drain_phase", &self.labels).set(f64::from(phase as u8));
    }

    /// Records the time from the signal to the end of the drain.
    pub(crate) fn drained(&self, elapsed: Duration) {
        #[cfg(feature = "metrics")]
        histogram!("eureka_drain_duration_seconds", &self.labels).record(elapsed);
    }

    /// Records the registry server in use.
    pub(crate) fn server(&self, before: Option<&str>, now: &str) {
        #[cfg(feature = "metrics")]
        {
            if let Some(before) = before {
                self.server_gauge(before).set(0.0);
            }
            self.server_gauge(now).set(1.0);
        }
    }

    #[cfg(feature = "metrics")]
    fn server_gauge(&self, server: &str) -> Gauge {
        let [app, instance] = self.labels.clone();
        gauge!("eureka_registry_server", &[app, instance, ("server", server.to_owned())])
    }
}
