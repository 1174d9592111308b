//! Self-preservation in plain words.

use super::text::Span;
use crate::server::registry::{Preservation, Registry, Renewals};

/// Minute in which the first heartbeats are counted.
const FIRST_MINUTE_MS: i64 = 60_000;

/// Self-preservation as the page describes it.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct SelfPreservation {
    is_enabled: bool,
    by_application: bool,
    /// Expired leases are kept now: all, or those of some applications.
    pub(super) is_active: bool,
    preserved: Preservation,
    /// Milliseconds since the eviction run that began to keep leases.
    since_ms: Option<i64>,
    uptime_ms: i64,
    /// Uptime at the first eviction run, or earlier.
    first_run_ms: i64,
    instances: usize,
    /// Number of expired leases that the last eviction run kept.
    kept: usize,
    expected: u64,
    pub(super) received: u64,
    pub(super) threshold: u64,
}

impl SelfPreservation {
    pub(super) fn of(registry: &Registry, uptime_ms: i64, now: i64) -> Self {
        let (settings, instances) = (registry.settings(), registry.size());
        let Renewals { last_minute: received, expected, threshold } = registry.renewals();
        let preserved = registry.preservation();
        let is_active = preserved.is_active();
        Self {
            is_enabled: settings.self_preservation,
            by_application: settings.preservation_by_application,
            is_active,
            preserved,
            since_ms: registry.preservation_since().map(|since| now.saturating_sub(since)).filter(|_| is_active),
            uptime_ms,
            first_run_ms: settings.eviction_interval.as_millis().try_into().unwrap_or(i64::MAX),
            instances,
            kept: if is_active { registry.kept_leases() } else { 0 },
            expected,
            received,
            threshold,
        }
    }

    /// Returns true while self-preservation cannot have been assessed yet: no minute of heartbeats
    /// was counted, or there was no eviction run.
    fn is_new(&self) -> bool {
        self.uptime_ms < if self.by_application { self.first_run_ms } else { FIRST_MINUTE_MS }
    }

    /// Returns true if leases expire, as a Java server shows it.
    pub(super) fn lease_expiration_enabled(&self) -> bool {
        !self.is_enabled || self.instances > 0 && !self.is_active && !self.is_new()
    }

    /// Returns the warning that a Java server shows, in its words.
    pub(super) fn warning(&self) -> Option<&'static str> {
        let is_below = self.instances > 0 && self.received <= self.threshold && !self.is_new();
        match self {
            Self { is_enabled: true, is_active: true, .. } if !self.is_new() => Some(
                "EMERGENCY! EUREKA MAY BE INCORRECTLY CLAIMING INSTANCES ARE UP WHEN THEY'RE NOT. RENEWALS ARE LESSER \
                 THAN THRESHOLD AND HENCE THE INSTANCES ARE NOT BEING EXPIRED JUST TO BE SAFE.",
            ),
            Self { is_enabled: false, .. } if is_below => Some(
                "RENEWALS ARE LESSER THAN THE THRESHOLD. THE SELF PRESERVATION MODE IS TURNED OFF. THIS MAY NOT PROTECT \
                 INSTANCE EXPIRY IN CASE OF NETWORK/OTHER PROBLEMS.",
            ),
            Self { is_enabled: false, .. } => Some(
                "THE SELF PRESERVATION MODE IS TURNED OFF. THIS MAY NOT PROTECT INSTANCE EXPIRY IN CASE OF NETWORK/OTHER \
                 PROBLEMS.",
            ),
            _ => None,
        }
    }

    /// Returns the state, its numbers and its effect in sentences.
    pub(super) fn sentences(&self) -> Vec<String> {
        let Self { instances, kept, expected, received, threshold, .. } = *self;
        if !self.is_enabled {
            return vec![
                "Self-preservation is off.".into(),
                "Expired leases are evicted even if most heartbeats are missing, for example while the network fails."
                    .into(),
            ];
        }
        if instances == 0 {
            return vec!["Self-preservation has nothing to keep: no instance is registered.".into()];
        }
        let uptime = Span::millis(self.uptime_ms);
        if self.is_new() {
            let first = if self.by_application { "eviction run" } else { "minute of heartbeats" };
            return vec![format!("This server started {uptime} ago. No lease is evicted before its first {first}.")];
        }
        let numbers = if self.uptime_ms < FIRST_MINUTE_MS {
            format!("The heartbeats of the first minute are being counted, since this server started {uptime} ago.")
        } else if self.by_application {
            format!("In the last minute {received} heartbeats were received, of about {expected} expected.")
        } else {
            format!(
                "In the last minute {received} heartbeats were received. {expected} are expected, and more than \
                 {threshold} are needed to evict leases."
            )
        };
        if !self.is_active {
            return vec!["Self-preservation does not hold: expired leases are evicted.".into(), numbers];
        }
        let since = match self.since_ms {
            Some(ms) => format!("Self-preservation has held for {}.", Span::millis(ms)),
            None => "Self-preservation holds.".into(),
        };
        let scope = match self.preserved {
            Preservation::Partial(1) => "No lease of 1 application is evicted".to_owned(),
            Preservation::Partial(applications) => format!("No lease of {applications} applications is evicted"),
            _ => "No lease is evicted".to_owned(),
        };
        let kept = match kept {
            0 => "the last eviction run found no expired lease to keep".to_owned(),
            1 => "1 expired lease is kept, and its instance stays in the lists with its last status".to_owned(),
            _ => {
                format!("{kept} expired leases are kept, and their instances stay in the lists with their last status")
            }
        };
        let end = if self.by_application {
            "It ends when fewer instances are silent.".to_owned()
        } else {
            format!("It ends when more than {threshold} heartbeats are received in a minute.")
        };
        vec![
            since,
            numbers,
            "So many missing heartbeats point to a fault of the network rather than to crashed instances.".into(),
            format!("{scope}: {kept}."),
            end,
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(is_active: bool, received: u64) -> SelfPreservation {
        SelfPreservation {
            is_enabled: true,
            by_application: false,
            is_active,
            preserved: if is_active { Preservation::Active } else { Preservation::Inactive },
            since_ms: is_active.then_some(65_000),
            uptime_ms: 600_000,
            first_run_ms: 60_000,
            instances: 100,
            kept: if is_active { 14 } else { 0 },
            expected: 200,
            received,
            threshold: 170,
        }
    }

    #[test]
    fn held_self_preservation_is_explained_with_its_numbers() {
        let held = state(true, 40);
        assert!(held.warning().unwrap().starts_with("EMERGENCY! EUREKA MAY BE INCORRECTLY CLAIMING INSTANCES ARE UP"));
        assert!(!held.lease_expiration_enabled());
        assert_eq!(
            held.sentences().join(" "),
            "Self-preservation has held for 1 min 5 s. In the last minute 40 heartbeats were received. 200 are expected, \
             and more than 170 are needed to evict leases. So many missing heartbeats point to a fault of the network \
             rather than to crashed instances. No lease is evicted: 14 expired leases are kept, and their instances stay \
             in the lists with their last status. It ends when more than 170 heartbeats are received in a minute."
        );
    }

    #[test]
    fn other_states_have_their_own_words() {
        let enough = state(false, 190);
        assert_eq!((enough.warning(), enough.lease_expiration_enabled()), (None, true));
        assert!(enough.sentences()[0].contains("does not hold"));
        let new = SelfPreservation { uptime_ms: 20_000, ..state(false, 0) };
        assert_eq!((new.warning(), new.lease_expiration_enabled()), (None, false));
        let text = "This server started 20 s ago. No lease is evicted before its first minute of heartbeats.";
        assert_eq!(new.sentences(), [text]);
        let by_application = SelfPreservation { by_application: true, first_run_ms: 10_000, ..new };
        let text = by_application.sentences().join(" ");
        assert!(text.contains("are evicted. The heartbeats of the first minute are being counted"), "{text}");
        assert!(by_application.lease_expiration_enabled());
        let off = SelfPreservation { is_enabled: false, is_active: false, ..state(false, 190) };
        assert!(off.warning().unwrap().starts_with("THE SELF PRESERVATION MODE IS TURNED OFF"));
        let off_and_below = SelfPreservation { received: 10, ..off };
        assert!(off_and_below.warning().unwrap().starts_with("RENEWALS ARE LESSER THAN THE THRESHOLD"));
        let empty = SelfPreservation { instances: 0, ..state(false, 0) };
        assert!(empty.warning().is_none() && empty.sentences()[0].contains("no instance is registered"));
        let partial =
            SelfPreservation { by_application: true, preserved: Preservation::Partial(2), ..state(true, 150) };
        assert!(partial.sentences().join(" ").contains("No lease of 2 applications is evicted: 14 expired leases"));
    }
}
