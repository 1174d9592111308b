//! Adoption of the states that other registries have.

use std::sync::Arc;

use super::history::End;
use super::lease::MIN_SILENCE_MS;
use super::limits;
use super::registration::is_unchanged;
use super::state::Registry;
use super::times::lease_duration_secs;
use super::version::{Version, replaces, state};
use crate::model::{Instance, InstanceStatus};
use crate::server::events::ServerEvent;
use crate::server::outcome::{Origin, Refused, Registrant};
use crate::server::owner::Owner;
use crate::server::view::Record;

impl Registry {
    #[cfg(test)]
    pub(in crate::server) fn adopt(&self, copy: Instance, since: i64, now: i64) -> Result<bool, Refused> {
        self.adopt_owned(copy, Owner::Unknown, since, now)
    }

    /// Adopts the state of an instance in another registry, including its status, its override or
    /// the lack of one, and its times. Returns false if the local state or a local cancellation is
    /// newer.
    ///
    /// The lease counts from `since`, or from its present start if that is later. A new lease and
    /// a newer version have this owner, if it is known, and others keep their own.
    pub(in crate::server) fn adopt_owned(
        &self,
        mut copy: Instance,
        owner: Owner,
        since: i64,
        now: i64,
    ) -> Result<bool, Refused> {
        limits::check(&copy, &self.settings)?;
        let (app, id) = (copy.app.clone(), copy.shared_id());
        // A copy that is silent itself, or that was cancelled here, evicts no other instances.
        if now.saturating_sub(since) <= MIN_SILENCE_MS && self.tombstone(&app, &id).is_none() {
            self.reclaim(&copy, now);
        }
        let mut leases = self.shards.write(&app, &id);
        let is_newer = match leases.get(&app, &id) {
            Some(lease) => {
                self.ahead.clamp_copy(&mut copy, lease.last_dirty_timestamp(), self.at(now).published());
                replaces(&copy, lease.instance())
            }
            None => {
                let tombstone = self.tombstone(&app, &id);
                let ours = tombstone.and_then(|tombstone| tombstone.dirty);
                self.ahead.clamp_copy(&mut copy, ours, self.at(now).published());
                tombstone < Some(Version::of(&copy))
            }
        };
        if is_newer {
            let overridden = Some(copy.overridden_status).filter(|&status| status != InstanceStatus::Unknown);
            let duration_secs = lease_duration_secs(&mut copy, &self.settings);
            let since = leases.get(&app, &id).map_or(since, |lease| lease.since().max(since));
            // If the registry was full, an earlier registration may have left the state without the
            // rest.
            let is_known = leases.get(&app, &id).is_some_and(|lease| state(lease.instance()) == state(&copy));
            if is_known {
                self.listing
                    .check(&id, &Record::new(copy.clone()))
                    .inspect_err(|&refused| self.capacity.log_full(refused, &self.listing))?;
            }
            let known = leases.get(&app, &id);
            let is_new = known.is_none();
            let sender = Registrant { owner, ..Origin::Replica.into() };
            let registrant = known.map_or(sender.clone(), |lease| {
                let is_newer = lease.last_dirty_timestamp() < copy.last_dirty_timestamp;
                lease.registrant().with_owner_of(&sender, is_newer)
            });
            self.admit(&mut leases, copy, registrant, overridden, duration_secs, since, now)?;
            if let Some(lease) = leases.get_mut(&app, &id) {
                lease.mark_copy();
            }
            self.emit(&leases, &app, &id, |instance| ServerEvent::Registered { instance, is_new, replicated: true });
        }
        Ok(is_newer)
    }

    /// Returns true if the instance is registered and this copy of a registration would change it.
    ///
    /// A version too far in the future is clamped, so a peer that does not clamp it sends its data
    /// as newer with each heartbeat. A local override stays if the copy has none.
    pub(in crate::server) fn is_changed_by(&self, copy: &Instance, now: i64) -> bool {
        let Some(ours) = self.instance(copy.app(), copy.id(), now) else { return false };
        let sent = Version::of(copy).clamped(Version::of(&ours), self.at(now).published());
        if sent.dirty != ours.last_dirty_timestamp {
            return true;
        }
        let mut result = copy.clone();
        if copy.overridden_status == InstanceStatus::Unknown && ours.overridden_status != InstanceStatus::Unknown {
            (result.status, result.overridden_status) = (ours.status, ours.overridden_status);
        }
        !is_unchanged(&ours, &result)
    }

    /// Ends a lease that another registry cancelled, as of the time of that cancellation. Returns
    /// false if the local state is newer.
    pub(in crate::server) fn adopt_tombstone(&self, app: &str, id: &str, tombstone: Version, now: i64) -> bool {
        let mut leases = self.shards.write(app, id);
        let Some(ours) = leases.get(app, id).map(|lease| Version::of(lease.instance())) else { return false };
        let tombstone = tombstone.clamped(ours, self.at(now).published());
        if ours > tombstone {
            return false;
        }
        let Some(lease) = leases.remove(app, id) else { return false };
        self.publish_cancellation(&lease, id, tombstone.updated.unwrap_or(self.at(now).published()), now);
        self.add_tombstone(tombstone, &lease.instance().app, id, now);
        self.ended(&lease, id, End::Cancelled { replicated: true }, now);
        true
    }

    pub(super) fn add_tombstone(&self, tombstone: Version, app: &Arc<str>, id: &str, now: i64) {
        if !self.settings.tombstone_retention.is_zero() {
            self.tombstones.add(tombstone, app.clone(), id.into(), now);
        }
    }

    /// Returns the version at which an instance was recently cancelled, here or by a peer.
    pub(in crate::server) fn tombstone(&self, app: &str, id: &str) -> Option<Version> {
        self.tombstones.get(app, id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::outcome::Origin;
    use crate::server::registry::settings::Settings;

    fn copy(status: InstanceStatus, updated: i64) -> Instance {
        let mut instance =
            Instance::builder("APP").id("i").host_name("h").ip_addr("10.0.0.1").port(80).build().unwrap();
        instance.status = status;
        (instance.last_dirty_timestamp, instance.last_updated_timestamp) = (Some(1), Some(updated));
        instance
    }

    #[test]
    fn adopted_tombstone_keeps_its_time() {
        let tombstone_retention = std::time::Duration::from_secs(600);
        let registry = Registry::new(Settings { tombstone_retention, ..Settings::default() });
        registry.register(copy(InstanceStatus::Up, 100), Origin::Client, 100).unwrap();
        let tombstone = Version { dirty: Some(1), updated: Some(200) };
        assert!(registry.adopt_tombstone("APP", "i", tombstone, 900));
        assert_eq!(registry.tombstone("APP", "i"), Some(tombstone));
        let shown = Version::of(&registry.delta().applications[0].records[0].instance);
        assert_eq!(shown, tombstone, "so that the next node adopts the same");
        assert_eq!(
            registry.adopt(copy(InstanceStatus::Down, 200), 900, 900),
            Ok(false),
            "it was cancelled with this state"
        );
        assert_eq!(registry.adopt(copy(InstanceStatus::Down, 300), 900, 900), Ok(true), "newer than the tombstone");
    }

    #[test]
    fn adopted_version_has_the_owner_at_the_peer_if_it_is_newer() {
        let registry = Registry::new(Settings { tracks_owners: true, ..Settings::default() });
        let owner = |name: &str| match name {
            "" => Owner::Unknown,
            name => Owner::Identity(format!("user:{name}").into()),
        };
        for (dirty, updated, sent, expected) in
            [(1, 100, "a", "a"), (1, 200, "b", "a"), (2, 300, "b", "b"), (3, 400, "", "b"), (4, 500, "a", "a")]
        {
            let mut copy = copy(InstanceStatus::Up, updated);
            copy.last_dirty_timestamp = Some(dirty);
            assert_eq!(registry.adopt_owned(copy, owner(sent), 900, 900), Ok(true), "{dirty} {updated}");
            assert_eq!(registry.owner_of("APP", "i"), Some(owner(expected)), "{dirty} {updated}");
        }
    }

    #[test]
    fn provisional_owner_counts_here_until_a_peer_names_one() {
        let registry = Registry::new(Settings { tracks_owners: true, ..Settings::default() });
        let [a, b, c] = ["a", "b", "c"].map(|name| Owner::Identity(format!("user:{name}").into()));
        let owners = || (registry.owner_of("APP", "i").unwrap(), registry.certain_owner("APP", "i"));
        registry.adopt(copy(InstanceStatus::Up, 100), 100, 900).unwrap();
        registry.claim_owner("APP", "i", &a);
        assert_eq!(owners(), (a.clone(), Owner::Unknown));
        registry.claim_owner("APP", "i", &c);
        registry.learn_owner("APP", "i", &Owner::Unknown);
        assert_eq!(owners(), (a, Owner::Unknown));
        registry.learn_owner("APP", "i", &b);
        assert_eq!(owners(), (b.clone(), b.clone()));
        registry.learn_owner("APP", "i", &c);
        assert_eq!(owners(), (b.clone(), b.clone()), "a known owner stays");
        // A copy in the response to a heartbeat has no owner.
        let mut newer = copy(InstanceStatus::Up, 200);
        newer.last_dirty_timestamp = Some(2);
        let registrant = Registrant { is_provisional: true, ..Origin::Replica.into() };
        registry.register(newer, registrant, 1_000).unwrap();
        assert_eq!(owners(), (b, Owner::Unknown));
        registry.learn_owner("APP", "i", &c);
        assert_eq!(owners(), (c.clone(), c));
    }

    #[cfg(feature = "page")]
    #[test]
    fn copied_lease_is_a_copy_until_the_instance_registers() {
        let registry = Registry::new(Settings::default());
        let is_copy = || registry.lease_state("APP", "i").unwrap().is_copy;
        registry.adopt(copy(InstanceStatus::Up, 100), 100, 900).unwrap();
        assert!(is_copy());
        registry.renew("APP", "i", None, Origin::Client, 950);
        assert!(is_copy());
        registry.register(copy(InstanceStatus::Up, 1_000), Origin::Client, 1_000).unwrap();
        assert!(!is_copy());
    }

    #[test]
    fn tombstone_is_adopted_after_the_wall_clock_was_set_forward_by_days() {
        const DAYS: i64 = 3 * 24 * 3_600_000;
        let registry = Registry::new(Settings::default());
        assert!(registry.move_published(0, DAYS, 0));
        registry.register(copy(InstanceStatus::Up, 100), Origin::Client, 100).unwrap();
        let tombstone = Version { dirty: Some(1), updated: Some(DAYS + 200) };
        assert!(registry.adopt_tombstone("APP", "i", tombstone, 200));
        assert!(registry.instance("APP", "i", 200).is_none());
    }

    #[test]
    fn copy_with_a_version_far_ahead_changes_only_differing_data() {
        const YEARS: i64 = 5 * 365 * 24 * 3_600_000;
        let registry = Registry::new(Settings::default());
        let ahead = |change: fn(&mut Instance)| {
            let mut copy = copy(InstanceStatus::Up, 100);
            copy.last_dirty_timestamp = Some(YEARS);
            change(&mut copy);
            copy
        };
        assert!(!registry.is_changed_by(&ahead(|_| {}), 100), "it is not registered");
        registry.register(ahead(|_| {}), Origin::Client, 100).unwrap();
        assert!(registry.instance("APP", "i", 100).unwrap().last_dirty_timestamp < Some(YEARS));
        assert!(!registry.is_changed_by(&ahead(|_| {}), 200));
        assert!(registry.is_changed_by(&ahead(|copy| copy.status = InstanceStatus::Down), 200));
        assert!(registry.is_changed_by(&ahead(|copy| copy.host_name = Some("other".into())), 200));
        let newer = ahead(|copy| copy.last_dirty_timestamp = Some(24 * 3_600_000 + 150));
        assert!(registry.is_changed_by(&newer, 200), "the version is not clamped");
        registry.set_override("APP", "i", InstanceStatus::OutOfService, None, 300);
        assert!(!registry.is_changed_by(&ahead(|_| {}), 400), "the override stays");
    }
}
