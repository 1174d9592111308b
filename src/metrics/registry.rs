//! Metrics of the consumer's copy of the registry.

use std::time::Duration;

#[cfg(feature = "metrics")]
use ::metrics::{counter, gauge, histogram};

/// Time between two updates of the age.
#[cfg(feature = "metrics")]
const AGE_INTERVAL: Duration = Duration::from_secs(5);

/// Metrics of one client's copy of the registry. Without the feature `metrics` all events are
/// discarded.
#[derive(Debug, Default)]
pub(crate) struct RegistryMetrics {}

#[cfg_attr(not(feature = "metrics"), allow(unused_variables, reason = "only the recorder uses the values"))]
impl RegistryMetrics {
    /// Records a fetch of a list, with the server that responded or failed.
    pub(crate) fn fetched(&self, outcome: &'static str, server: Option<&str>, elapsed: Duration, received: u64) {
        #[cfg(feature = "metrics")]
        {
            let labels = [("outcome", outcome.to_owned()), ("server", server.unwrap_or("unknown").to_owned())];
            histogram!("eureka_registry_fetch_duration_seconds", &labels).record(elapsed);
            counter!("eureka_registry_received_bytes_total").increment(received);
        }
    }

    /// Counts deltas that did not match.
    pub(crate) fn mismatched(&self, deltas: u64) {
        #[cfg(feature = "metrics")]
        counter!("eureka_registry_mismatches_total").increment(deltas);
    }

    /// Counts a pause that a registry server asked for.
    pub(crate) fn paused(&self, server: &str) {
        #[cfg(feature = "metrics")]
        counter!("eureka_registry_pauses_total", "server" => server.to_owned()).increment(1);
    }

    /// Records the time that a change took to arrive.
    pub(crate) fn propagated(&self, lag: Duration) {
        #[cfg(feature = "metrics")]
        histogram!("eureka_registry_propagation_seconds").record(lag);
    }

    /// Records the size of the copy.
    pub(crate) fn registry(&self, applications: usize, by_status: [(&'static str, usize); 5], held: usize) {
        #[cfg(feature = "metrics")]
        {
            gauge!("eureka_registry_applications").set(applications as f64);
            for (status, instances) in by_status {
                gauge!("eureka_registry_instances", "status" => status).set(instances as f64);
            }
            gauge!("eureka_registry_held_instances").set(held as f64);
        }
    }

    /// Records the age of the copy.
    pub(crate) fn age(&self, age: Duration) {
        #[cfg(feature = "metrics")]
        gauge!("eureka_registry_age_seconds").set(age.as_secs_f64());
    }

    /// Records whether the latest refresh failed.
    pub(crate) fn stale(&self, is_stale: bool) {
        #[cfg(feature = "metrics")]
        gauge!("eureka_registry_stale").set(f64::from(u8::from(is_stale)));
    }

    /// Records the age periodically. Never completes.
    pub(crate) async fn report_age(&self, age: impl Fn() -> Duration) {
        #[cfg(feature = "metrics")]
        loop {
            tokio::time::sleep(AGE_INTERVAL).await;
            self.age(age());
        }
        #[cfg(not(feature = "metrics"))]
        std::future::pending().await
    }
}
