//! Snapshots of the pool, and explanations of it.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::snapshot::{EndpointSnapshot, EndpointState, Snapshot, ZoneSnapshot};
use super::{Entry, Pool, State};
use crate::balance::endpoint::Timestamp;
use crate::balance::policy::Label;

impl<S> Pool<S> {
    pub(crate) fn snapshot(&self, now: Instant) -> Snapshot {
        let evaluation = self.evaluation(now);
        let (zones, zone_rule) = self.split(&evaluation.all(), evaluation.respects_ejections);
        let zones = zones.into_iter().map(|(name, zone)| ZoneSnapshot {
            name,
            share: zone.share,
            endpoints: zone.endpoints,
            available: zone.available,
        });
        // In the same order.
        let entries = self.entries.values().chain(self.outside.values());
        let tick = Timestamp::of(now).tick();
        let endpoint = |(at, entry): (usize, &Entry<S>)| {
            let (state, cause, retry_in) = match (entry.state, at < self.entries.len()) {
                (_, false) => (EndpointState::Outside, None, None),
                (State::Available, _) => (EndpointState::Available, None, None),
                (State::Ejected { cause, until }, _) => {
                    (EndpointState::Ejected, Some(cause), Some(until.saturating_duration_since(now)))
                }
                (State::HalfOpen { cause, .. }, _) => (EndpointState::HalfOpen, Some(cause), None),
            };
            EndpointSnapshot {
                id: entry.stats.details.instance.clone(),
                zone: entry.attributes.zone.clone(),
                weight: evaluation.endpoints[at].weight,
                effective_weight: evaluation.endpoints[at].effective(),
                latency: Duration::from_nanos(entry.stats.load.latency(tick) as u64),
                pending: entry.stats.load.pending(),
                failures: entry.stats.history.failures(),
                state,
                cause,
                retry_in,
            }
        };
        let mut endpoints: Vec<_> = entries.enumerate().map(endpoint).collect();
        endpoints.sort_by(|a, b| {
            (a.state == EndpointState::Outside, &a.id).cmp(&(b.state == EndpointState::Outside, &b.id))
        });
        let name = self.settings.app.clone();
        let own_zone = self.settings.zones.as_ref().and_then(|zones| zones.own()).map(Arc::from);
        Snapshot { name, endpoints, zones: zones.collect(), zone_rule, own_zone, is_panic: evaluation.is_panic }
    }

    /// Returns `true` while a call is pending at an endpoint, inside or outside the subset.
    pub(crate) fn has_pending(&self) -> bool {
        self.entries.values().chain(self.outside.values()).any(|entry| entry.stats.load.pending() > 0)
    }

    /// Explains why no endpoint with this label takes calls.
    pub(crate) fn explain(&self, Label { key, value, .. }: Label<'_>) -> String {
        if !self.settings.labels.iter().any(|known| **known == *key) {
            return format!("endpoints are not indexed by the label {key}");
        }
        let with = |entry: &&Entry<S>| entry.attributes.has_label(key, value);
        let inside: Vec<_> = self.entries.values().filter(with).collect();
        let outside = self.outside.values().filter(with).count();
        let reasons: Vec<_> = inside
            .iter()
            .filter_map(|entry| match entry.state {
                State::Available => None,
                State::Ejected { cause, .. } | State::HalfOpen { cause, .. } => {
                    Some(format!("{} ({cause})", entry.stats.details.instance))
                }
            })
            .collect();
        match (inside.len(), outside) {
            (0, 0) if value.is_empty() => format!("the request asks for no {key}, which is required"),
            (0, 0) => format!("no endpoint of {} has {key}={value}", self.entries.len() + self.outside.len()),
            (0, _) => format!("every endpoint with {key}={value} is outside the subset"),
            _ => format!("every endpoint with {key}={value} is ejected: {}", reasons.join(", ")),
        }
    }
}
