//! Settings of a pool that change while it is in use.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::{Pool, State};
use crate::balance::builder::limited_interval;
use crate::balance::health::Health;
use crate::balance::outlier::{Cause, Ejection};
use crate::balance::slow_start::SlowStart;
use crate::balance::subset::Subset;
use crate::balance::zone::ZoneAware;

/// Settings of a balancer that can be replaced. Endpoints, measurements and ejections are kept.
#[derive(Clone, Debug)]
pub(crate) struct Reconfiguration {
    pub(crate) ejection: Ejection,
    /// Labels that are indexed from now on. Others stay indexed.
    pub(crate) labels: Vec<Arc<str>>,
    pub(crate) zones: Option<ZoneAware>,
    pub(crate) slow_start: Option<SlowStart>,
    pub(crate) subset: Option<Subset>,
    /// Interval of health checks.
    pub(crate) checks: Option<Duration>,
    pub(crate) ready_timeout: Duration,
}

impl<S> Pool<S> {
    /// Replaces the settings. The caller publishes the new picker.
    pub(crate) fn reconfigure(&mut self, change: &Reconfiguration, now: Instant) {
        let Reconfiguration { ejection, labels, zones, slow_start, subset, checks, ready_timeout: _ } = change;
        self.rules.store(Arc::new(ejection.rules()));
        let next_sweep = now + ejection.interval;
        self.next_sweep = ejection.enabled.then(|| self.next_sweep.map_or(next_sweep, |next| next.min(next_sweep)));
        self.settings.ejection = ejection.clone();
        for label in labels {
            self.index_label(label);
        }
        self.settings.zones = zones.clone();
        self.settings.slow_start = slow_start.clone().filter(SlowStart::is_enabled);
        self.set_subset(subset.clone());
        self.set_check_interval(checks.map(limited_interval), now);
    }

    /// Replaces the subset. One that differs in its random order only is kept.
    fn set_subset(&mut self, subset: Option<Subset>) {
        match (&self.settings.subset, subset) {
            (Some(before), Some(subset)) if subset.is_alike(before) => {}
            (_, subset) => self.settings.subset = subset,
        }
        if self.settings.subset.is_none() {
            self.entries.append(&mut self.outside);
            self.entries.values_mut().for_each(|entry| entry.fraction = 1.0);
        }
    }

    /// Replaces the interval of health checks. Without one, endpoints that failed checks take calls
    /// again.
    fn set_check_interval(&mut self, interval: Option<Duration>, now: Instant) {
        if self.settings.checks == interval {
            return;
        }
        self.settings.checks = interval;
        for entry in self.entries.values_mut().chain(self.outside.values_mut()) {
            entry.health = interval.map(|interval| Health::new(interval, now));
        }
        if interval.is_none() {
            let is_unhealthy = |state: State| matches!(state, State::Ejected { cause: Cause::HealthCheck, .. });
            let unhealthy = self.entries.iter().filter(|(_, entry)| is_unhealthy(entry.state));
            let unhealthy: Vec<_> = unhealthy.map(|(id, _)| *id).collect();
            unhealthy.into_iter().for_each(|id| self.restore(id, now));
        }
    }
}
