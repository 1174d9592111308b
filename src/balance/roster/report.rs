//! What a person is shown of the roster.

use std::time::Duration;

use tokio::time::Instant;

use super::{Entry, Roster, State};
use crate::balance::load::Moment;
use crate::balance::policy::Label;
use crate::balance::snapshot::{EndpointSnapshot, EndpointState, Snapshot, ZoneSnapshot};

impl<S> Roster<S> {
    pub(in crate::balance) fn snapshot(&self, now: Instant) -> Snapshot {
        let standings = self.standings(now);
        let all: Vec<_> = standings.endpoints.iter().collect();
        let zones = self.split(&all, standings.is_calm).unwrap_or_default();
        let zones = zones.into_iter().map(|(name, zone)| ZoneSnapshot {
            name,
            share: zone.share,
            endpoints: zone.endpoints,
            available: zone.available,
        });
        // In the same order.
        let entries = self.entries.values().chain(self.outside.values());
        let tick = Moment::of(now).tick();
        let endpoint = |(at, entry): (usize, &Entry<S>)| {
            let (state, cause, back_in) = match (entry.state, at < self.entries.len()) {
                (_, false) => (EndpointState::Outside, None, None),
                (State::Available, _) => (EndpointState::Available, None, None),
                (State::Out { cause, until }, _) => {
                    (EndpointState::Out, Some(cause), Some(until.saturating_duration_since(now)))
                }
                (State::Probation { cause, .. }, _) => (EndpointState::Probation, Some(cause), None),
            };
            EndpointSnapshot {
                id: entry.stats.details.instance.clone(),
                zone: entry.attributes.zone.clone(),
                weight: standings.endpoints[at].weight,
                effective_weight: standings.endpoints[at].effective(),
                latency: Duration::from_nanos(entry.stats.load.latency(tick) as u64),
                pending: entry.stats.load.pending(),
                failures: entry.stats.history.failures(),
                state,
                cause,
                back_in,
            }
        };
        let mut endpoints: Vec<_> = entries.enumerate().map(endpoint).collect();
        endpoints.sort_by(|a, b| {
            (a.state == EndpointState::Outside, &a.id).cmp(&(b.state == EndpointState::Outside, &b.id))
        });
        let name = self.settings.name.clone();
        Snapshot { name, endpoints, zones: zones.collect(), is_panic: standings.is_panic }
    }

    /// Why there is no endpoint with this label that takes calls.
    pub(in crate::balance) fn explain(&self, Label { key, value, .. }: Label<'_>) -> String {
        if !self.settings.labels.iter().any(|known| **known == *key) {
            return format!("the balancer was not told to keep endpoints apart by {key}");
        }
        let with = |entry: &&Entry<S>| entry.attributes.label(key) == Some(value);
        let out: Vec<_> = self.entries.values().filter(with).collect();
        let outside = self.outside.values().filter(with).count();
        let reasons: Vec<_> = out
            .iter()
            .filter_map(|entry| match entry.state {
                State::Available => None,
                State::Out { cause, .. } | State::Probation { cause, .. } => {
                    Some(format!("{} ({cause})", entry.stats.details.instance))
                }
            })
            .collect();
        match (out.len(), outside) {
            (0, 0) => format!("no endpoint of {} has {key}={value}", self.entries.len() + self.outside.len()),
            (0, _) => format!("every endpoint with {key}={value} is outside the subset"),
            _ => format!("every endpoint with {key}={value} is out: {}", reasons.join(", ")),
        }
    }
}
