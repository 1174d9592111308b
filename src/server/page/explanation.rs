//! Reason for which an instance is in the registry.

use super::text::Span;
use crate::model::InstanceStatus;
use crate::server::registry::LeaseState;

/// Facts of the registry that the reason depends on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Facts {
    pub(super) now: i64,
    pub(super) eviction_interval_ms: i64,
    /// Maximum number of leases that one run evicts.
    pub(super) eviction_limit: usize,
    pub(super) lease_doubling: bool,
}

/// Returns the sentences of "Why is this instance still here?".
pub(super) fn sentences(lease: &LeaseState, facts: Facts) -> Vec<String> {
    let Facts { now, eviction_interval_ms, eviction_limit, lease_doubling } = facts;
    let silence = now.saturating_sub(lease.renewed_at);
    let (since, interval) = (Span::millis(silence), Span::millis(eviction_interval_ms));
    let mut sentences = Vec::new();
    if lease.is_renewed() {
        sentences.push(format!("Its last heartbeat was received {since} ago."));
    } else if lease.is_copy {
        let copied = Span::millis(now.saturating_sub(lease.registered_at));
        sentences.push(format!(
            "It was copied from a peer {copied} ago, which received its last heartbeat {since} ago. This server has \
             received none."
        ));
    } else {
        sentences.push(format!("It registered {since} ago and has sent no heartbeat since."));
    }
    let every_ms = 1_000 * i64::from(lease.instance.lease.unwrap_or_default().interval_secs());
    let missed = silence / every_ms;
    if missed >= 2 {
        sentences.push(format!(
            "It announced a heartbeat every {}, so it has missed about {missed}.",
            Span::millis(every_ms)
        ));
    }
    let left = lease.expires_at.saturating_sub(now);
    if left >= 0 {
        sentences.push(format!(
            "Its lease of {} lasts for another {}.",
            Span::millis(lease.duration_ms),
            Span::millis(left)
        ));
        if lease_doubling && lease.is_renewed() {
            sentences.push("As on a Java server, a heartbeat extends the lease by twice its duration.".into());
        }
        sentences.push(format!(
            "If it sends no heartbeat until then, the lease expires. Expired leases are evicted every {interval}."
        ));
    } else {
        sentences.push(format!(
            "Its lease of {} expired {} ago.",
            Span::millis(lease.duration_ms),
            Span::millis(-left)
        ));
        if lease.is_preserved {
            sentences.push(
                "Self-preservation keeps it: too many heartbeats are missing at the same time, so the network is the \
                 likely cause. It stays until enough heartbeats are received again, or until it is cancelled."
                    .into(),
            );
        } else {
            sentences.push(format!(
                "It is evicted soon: a run every {interval} evicts at most {eviction_limit} expired leases, chosen at random."
            ));
        }
    }
    let instance = &lease.instance;
    let overridden = instance.overridden_status();
    if overridden != InstanceStatus::Unknown {
        sentences.push(format!(
            "Its status is overridden with {overridden}, by an operator or by its own registration. The override ends \
             when it is deleted, when the lease ends, or an hour after the last heartbeat."
        ));
    }
    if instance.is_coordinating_discovery_server() {
        sentences.push("It is this registry server itself.".into());
    }
    sentences
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::model::Instance;
    use crate::server::outcome::Origin;

    const FACTS: Facts =
        Facts { now: 1_000_000, eviction_interval_ms: 60_000, eviction_limit: 3, lease_doubling: true };

    fn lease(renewed_ago: i64, left: i64) -> LeaseState {
        let instance = Instance::builder("orders").id("i").ip_addr("10.0.0.1").port(80).build().unwrap();
        LeaseState {
            instance: Arc::new(instance),
            registered_at: 0,
            is_copy: false,
            renewed_at: FACTS.now - renewed_ago,
            expires_at: FACTS.now + left,
            duration_ms: 90_000,
            registrant: Origin::Client.into(),
            is_preserved: false,
        }
    }

    #[test]
    fn instance_with_heartbeats_is_here_until_its_lease_expires() {
        let text = sentences(&lease(12_000, 168_000), FACTS).join(" ");
        assert_eq!(
            text,
            "Its last heartbeat was received 12 s ago. Its lease of 1 min 30 s lasts for another 2 min 48 s. As on a Java \
             server, a heartbeat extends the lease by twice its duration. If it sends no heartbeat until then, the lease \
             expires. Expired leases are evicted every 1 min 0 s."
        );
    }

    #[test]
    fn expired_instance_is_kept_by_self_preservation_or_evicted_soon() {
        let expired = lease(240_000, -60_000);
        let text = sentences(&expired, FACTS).join(" ");
        assert!(
            text.contains("every 30 s, so it has missed about 8.") && text.contains("expired 1 min 0 s ago"),
            "{text}"
        );
        assert!(text.contains("evicts at most 3 expired leases, chosen at random"), "{text}");
        let text = sentences(&LeaseState { is_preserved: true, ..expired }, FACTS).join(" ");
        assert!(text.contains("Self-preservation keeps it") && !text.contains("at random"), "{text}");
    }

    #[test]
    fn instance_without_heartbeats_and_with_an_override_says_so() {
        let mut silent = LeaseState { registered_at: FACTS.now - 20_000, ..lease(20_000, 70_000) };
        let mut instance = (*silent.instance).clone();
        instance.overridden_status = InstanceStatus::OutOfService;
        silent.instance = Arc::new(instance);
        let text = sentences(&silent, FACTS).join(" ");
        assert!(text.starts_with("It registered 20 s ago and has sent no heartbeat since."), "{text}");
        silent = LeaseState { registered_at: FACTS.now - 3_000, is_copy: true, ..silent };
        let copied = sentences(&silent, FACTS).join(" ");
        assert!(copied.starts_with("It was copied from a peer 3 s ago, which received its last heartbeat 20 s ago."));
        assert!(text.contains("Its status is overridden with OUT_OF_SERVICE, by an operator"), "{text}");
    }
}
