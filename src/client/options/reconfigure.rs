//! Settings of a balancer that follow from options.

use std::sync::Arc;
use std::time::Duration;

use super::CallOptions;
use crate::balance::{Reconfiguration, ZoneAware};
use crate::client::RetryPolicy;

impl CallOptions {
    /// Returns the settings of the balancer.
    ///
    /// `ready_timeout` is that of the client.
    pub(in crate::client) fn reconfiguration(&self, ready_timeout: Duration) -> Reconfiguration {
        Reconfiguration {
            ejection: self.ejection.clone(),
            labels: self.labels.clone(),
            zones: self.zone_rule(),
            slow_start: self.slow_start.clone(),
            subset: self.subset.clone(),
            checks: self.health_check.interval(),
            ready_timeout: self.ready_timeout.unwrap_or(ready_timeout),
        }
    }

    /// Returns the rule of zones with the zone of this caller.
    fn zone_rule(&self) -> Option<ZoneAware> {
        let own = self.caller.as_ref().and_then(|caller| caller.zone.as_ref()).or(self.own_zone.as_ref());
        self.zones.clone().map(|zones| zones.or_own(own))
    }

    /// Sets the zone of this process to that of other options, unless it is set.
    pub(crate) fn or_own_zone_of(self, other: &Self) -> Self {
        self.or_own_zone(other.own_zone.as_ref())
    }

    /// Sets the zone of this process, unless it is set.
    pub(crate) fn or_own_zone(mut self, zone: Option<&Arc<str>>) -> Self {
        self.own_zone = self.own_zone.or_else(|| zone.cloned());
        self
    }
    /// Changes the retry policy.
    pub(crate) fn map_retry(mut self, change: impl FnOnce(RetryPolicy) -> RetryPolicy) -> Self {
        self.retry = change(self.retry);
        self
    }

    /// Resets the options that the parts of Spring's pipeline set.
    pub(crate) fn without_pipeline(mut self) -> Self {
        let Self { policy, zones, subset, health_check, .. } = Self::default();
        (self.policy, self.zones, self.subset) = (policy, zones, subset);
        self.health_check.interval = health_check.interval;
        self
    }
}
