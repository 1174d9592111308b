//! Core of the registry: leases, status rules, eviction, self-preservation and recent changes.
//!
//! ```text
//!  register, cancel, ──▶ shard (write lock) ──▶ Listing (one mutex): lists, apps hash, ──▶ views
//!  overrides, evict        Lease per instance     recent changes
//!  renew ─────────────▶ shard (read lock), atomics in the lease
//! ```
//!
//! The core does no IO, and each operation takes `now`. An instance belongs to the shard that its
//! application and id hash to. A heartbeat takes the read lock of that shard and writes atomics, so
//! it waits neither for other heartbeats nor for readers of the whole registry. Changes are
//! published as immutable records while the write lock of the shard is held, so the listing has the
//! changes of one instance in their order. Locks are always taken in this order: shard, then
//! listing.
//!
//! `now` is in milliseconds since the epoch, from a clock that never goes back. Leases use this
//! clock. Published times follow the wall clock: [`Registry::published_ahead`] returns the
//! difference.
//!
//! The rules are specified in `docs/server.md`.

#[cfg(feature = "peers")]
mod adopt;
mod capacity;
mod eviction;
mod id_index;
mod lease;
mod limits;
mod listing;
mod preservation;
mod recent_changes;
mod reclaim;
mod rules;
mod settings;
mod shards;
#[cfg(test)]
mod tests;
mod times;
#[cfg(feature = "peers")]
mod tombstones;
#[cfg(feature = "peers")]
mod version;

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering::Relaxed};

use self::lease::{Lease, UpSince};
pub(super) use self::listing::Listing;
pub(super) use self::preservation::{Preservation, Renewals};
pub(super) use self::settings::Settings;
use self::shards::{Leases, Shards};
use self::times::clamped;
#[cfg(feature = "peers")]
pub(super) use self::version::{Version, agree, replaces};
use super::audit;
use super::outcome::{Effect, Origin, Refused, RegisterOutcome, Registered, Renewal};
use super::view::{AppView, Record, Snapshot};
use crate::model::{ActionType, Instance, InstanceStatus};

/// Time of the clock of the leases, and the difference of published times to it.
#[derive(Clone, Copy, Debug)]
struct Now {
    ms: i64,
    ahead: i64,
}

impl Now {
    fn published(self) -> i64 {
        self.ms.saturating_add(self.ahead)
    }
}

#[derive(Debug)]
pub(super) struct Registry {
    settings: Settings,
    shards: Shards,
    listing: Listing,
    eviction: eviction::State,
    #[cfg(feature = "peers")]
    tombstones: tombstones::Tombstones,
    preservation: preservation::State,
    changes: audit::Changes,
    ahead: times::Ahead,
    capacity: capacity::State,
    silent: reclaim::State,
    /// Milliseconds by which published times are ahead of the clock of the leases.
    published_ahead: AtomicI64,
    /// Value of `published_ahead` before its last change, and the time of that change.
    ahead_before: AtomicI64,
    moved_at: AtomicI64,
}

impl Registry {
    pub(super) fn new(settings: Settings) -> Self {
        Self {
            listing: Listing::new(&settings),
            settings,
            shards: Shards::new(),
            eviction: eviction::State::default(),
            #[cfg(feature = "peers")]
            tombstones: tombstones::Tombstones::default(),
            preservation: preservation::State::default(),
            changes: audit::Changes::default(),
            ahead: times::Ahead::default(),
            capacity: capacity::State::default(),
            silent: reclaim::State::default(),
            published_ahead: AtomicI64::new(0),
            ahead_before: AtomicI64::new(0),
            moved_at: AtomicI64::new(i64::MIN),
        }
    }

    /// Returns the milliseconds by which published times are ahead of the clock of the leases.
    pub(super) fn published_ahead(&self) -> i64 {
        self.published_ahead.load(Relaxed)
    }

    /// Changes the difference of published times to the clock of the leases. Leases are not
    /// affected. Returns false if another call changed it meanwhile.
    pub(super) fn move_published(&self, from: i64, to: i64, now: i64) -> bool {
        let moved = self.published_ahead.compare_exchange(from, to, Relaxed, Relaxed).is_ok();
        if moved {
            self.ahead_before.store(from, Relaxed);
            self.moved_at.store(now, Relaxed);
        }
        moved
    }

    /// Returns the instance of a lease with the current times of the lease.
    ///
    /// A renewal keeps the published time that it had. Otherwise, after the machine was suspended,
    /// peers would take a lease that was last renewed before for a fresh one.
    fn live_instance(&self, lease: &Lease) -> Instance {
        let was_moved = lease.renewed_at() < self.moved_at.load(Relaxed);
        lease.live_instance(if was_moved { &self.ahead_before } else { &self.published_ahead }.load(Relaxed))
    }

    fn at(&self, now: i64) -> Now {
        Now { ms: now, ahead: self.published_ahead() }
    }

    /// Returns the limit on log lines about changes.
    pub(super) fn changes(&self) -> &audit::Changes {
        &self.changes
    }

    /// Registers an instance, or replaces the data of a known one. See `docs/server.md`,
    /// "Registration".
    pub(super) fn register(&self, incoming: Instance, origin: Origin, now: i64) -> Result<Registered, Refused> {
        self.reclaim(&incoming, now);
        let mut leases = self.shards.write(incoming.app(), incoming.id());
        self.register_in(&mut leases, incoming, origin, now)
    }

    fn register_in(
        &self,
        leases: &mut Leases,
        mut incoming: Instance,
        origin: Origin,
        now: i64,
    ) -> Result<Registered, Refused> {
        limits::check(&incoming, &self.settings)?;
        let published = self.at(now).published();
        let duration_secs = self.lease_duration_secs(&mut incoming);
        let old = leases.get(&incoming.app, incoming.id());
        let ours = old.and_then(|old| old.instance().last_dirty_timestamp);
        let sent = incoming.last_dirty_timestamp.unwrap_or(published);
        let sent = self.clamp(incoming.app(), incoming.id(), sent, ours, now);
        incoming.last_dirty_timestamp = Some(sent);
        let mut registrant = match old {
            // A late or repeated request must not undo a newer registration.
            Some(old) if old.instance().last_dirty_timestamp > incoming.last_dirty_timestamp => old.instance().clone(),
            _ => incoming,
        };
        let overridden = old
            .and_then(|old| old.override_status(now))
            .or_else(|| Some(registrant.overridden_status).filter(|&status| status != InstanceStatus::Unknown));
        if let Some(status) = overridden {
            registrant.overridden_status = status;
        }
        let own = registrant.status;
        registrant.status = rules::status(own, overridden, old.map(|old| old.instance().status), origin);
        registrant.last_updated_timestamp = Some(published);
        let outcome = match old.map(Lease::instance) {
            None => RegisterOutcome::New,
            Some(&Instance { last_dirty_timestamp: Some(ours), .. }) if ours > sent => {
                RegisterOutcome::Stale { ours, sent }
            }
            Some(old) if audit::is_enabled() && is_unchanged(old, &registrant) => RegisterOutcome::Unchanged,
            Some(_) => RegisterOutcome::Changed,
        };
        let kept = Some(own).filter(|&own| own != registrant.status && overridden.is_none());
        let status = registrant.status;
        let refused = self.admit(leases, registrant, overridden, duration_secs, now, now)?;
        Ok(Registered { status, outcome, kept, refused })
    }

    /// Creates a lease that counts from `since`, in place of the one that the instance has.
    ///
    /// A known instance that grows in a full registry keeps its data, with the new status and
    /// version. Then the reason is returned.
    fn admit(
        &self,
        leases: &mut Leases,
        mut registrant: Instance,
        overridden: Option<InstanceStatus>,
        duration_secs: i32,
        since: i64,
        now: i64,
    ) -> Result<Option<Refused>, Refused> {
        let (app, id) = (registrant.app.clone(), Arc::<str>::from(registrant.id()));
        registrant.action = Some(ActionType::Added);
        // This server decides by itself which instance it is.
        registrant.is_coordinating_discovery_server = self.settings.own_id.as_ref() == Some(&id);
        let at = self.at(now);
        let up_since = match leases.get(&app, &id).map(Lease::up_since).unwrap_or_default() {
            never if never.is_never() && registrant.status == InstanceStatus::Up => UpSince::new(at),
            earlier => earlier,
        };
        let mut lease = Lease::new(registrant, overridden, duration_secs, up_since, since, at);
        let put = self.listing.put_within_limits(id.clone(), lease.record().clone(), now);
        if let Err(refused) = put {
            self.log_full(refused);
            let Some(old) = leases.get(&app, &id) else { return Err(refused) };
            lease.keep_data_of(old.instance());
            self.listing.put(id.clone(), lease.record().clone(), now);
        }
        leases.insert(app, id, lease);
        Ok(put.err())
    }

    /// Renews a lease. `dirty` is the version of the sender's data. See `docs/server.md`,
    /// "Heartbeat".
    ///
    /// Unlike in Java, a status that an override changes here is published at once (quirk P31).
    pub(super) fn renew(&self, app: &str, id: &str, dirty: Option<i64>, origin: Origin, now: i64) -> Renewal {
        let dirty = dirty.filter(|_| self.settings.compare_versions);
        let shard = self.shards.shard(app, id);
        let renewal = {
            let leases = shard.read();
            let Some(lease) = leases.get(app, id) else { return Renewal::NotFound };
            let status = lease.effective_status(origin, now);
            if status == InstanceStatus::Unknown {
                return Renewal::NotFound;
            }
            (status == lease.instance().status).then(|| {
                lease.renew(self.settings.lease_doubling, now);
                self.compare(lease, dirty, origin, now)
            })
        };
        let renewal = match renewal {
            Some(renewal) => renewal,
            // Rare: the status has to change. That needs the write lock, and all checks are
            // repeated.
            None => {
                let mut leases = shard.write();
                let Some(lease) = leases.get_mut(app, id) else { return Renewal::NotFound };
                let status = lease.effective_status(origin, now);
                if status == InstanceStatus::Unknown {
                    return Renewal::NotFound;
                }
                lease.renew(self.settings.lease_doubling, now);
                if status != lease.instance().status {
                    self.modify(lease, now, |instance| instance.status = status);
                }
                self.compare(lease, dirty, origin, now)
            }
        };
        shard.count_renewal();
        renewal
    }

    /// Compares versions after a renewal.
    fn compare(&self, lease: &Lease, dirty: Option<i64>, origin: Origin, now: i64) -> Renewal {
        let Some(dirty) = dirty else { return Renewal::Renewed };
        let ours = lease.instance().last_dirty_timestamp;
        let dirty = clamped(dirty, ours, self.at(now).published());
        let ours = ours.unwrap_or(dirty);
        if dirty > ours {
            Renewal::SenderIsNewer
        } else if dirty < ours && origin == Origin::Replica {
            Renewal::SenderIsOlder(Arc::new(self.live_instance(lease)))
        } else {
            Renewal::Renewed
        }
    }

    /// Cancels a lease. Returns the last status of its instance, or `None` if there was no lease.
    pub(super) fn cancel(&self, app: &str, id: &str, now: i64) -> Option<InstanceStatus> {
        let mut leases = self.shards.write(app, id);
        let lease = leases.remove(app, id)?;
        let ended = self.at(now).published();
        self.publish_removal(&lease, id, ended, now);
        #[cfg(feature = "peers")]
        self.add_tombstone(Version::cancelled(lease.instance(), ended), &lease.instance().app, id, now);
        Some(lease.instance().status)
    }

    /// Sets a status override.
    pub(super) fn set_override(
        &self,
        app: &str,
        id: &str,
        status: InstanceStatus,
        dirty: Option<i64>,
        now: i64,
    ) -> Effect {
        self.with_live_lease(app, id, now, |lease| {
            lease.renew(self.settings.lease_doubling, now);
            if status == lease.instance().status {
                return Effect::Unchanged;
            }
            lease.set_override(Some(status), now);
            let version = self.override_version(lease, dirty, now);
            self.modify(lease, now, |instance| {
                instance.status = status;
                instance.overridden_status = status;
                instance.last_dirty_timestamp = version;
            });
            Effect::Changed
        })
    }

    /// Deletes the status override, and sets the given status until the instance registers.
    pub(super) fn delete_override(
        &self,
        app: &str,
        id: &str,
        status: InstanceStatus,
        dirty: Option<i64>,
        now: i64,
    ) -> Effect {
        self.with_live_lease(app, id, now, |lease| {
            lease.renew(self.settings.lease_doubling, now);
            if lease.override_status(now).is_none() {
                return Effect::Unchanged;
            }
            lease.set_override(None, now);
            let version = self.override_version(lease, dirty, now);
            self.modify(lease, now, |instance| {
                instance.status = status;
                instance.overridden_status = InstanceStatus::Unknown;
                instance.last_dirty_timestamp = version;
            });
            Effect::Changed
        })
    }

    /// Stores the override of a replica. The next heartbeat applies it to the status.
    pub(super) fn store_override(&self, app: &str, id: &str, status: InstanceStatus, now: i64) -> Effect {
        let mut leases = self.shards.write(app, id);
        let Some(lease) = leases.get_mut(app, id) else { return Effect::NotFound };
        if lease.override_status(now) == Some(status) {
            return Effect::Unchanged;
        }
        lease.set_override(Some(status), now);
        self.modify(lease, now, |instance| instance.overridden_status = status);
        Effect::Changed
    }

    /// Merges entries into the metadata, as a registration. Returns `None` if there is no such
    /// instance.
    pub(super) fn merge_metadata(
        &self,
        app: &str,
        id: &str,
        entries: Vec<(String, String)>,
        now: i64,
    ) -> Result<Option<Registered>, Refused> {
        let mut leases = self.shards.write(app, id);
        let Some(lease) = leases.get(app, id).filter(|lease| self.is_visible(lease, now)) else { return Ok(None) };
        let mut instance = lease.instance().clone();
        entries.into_iter().for_each(|(key, value)| instance.metadata.insert(key, value));
        let registered = self.register_in(&mut leases, instance, Origin::Client, now)?;
        registered.refused.map_or(Ok(Some(registered)), Err)
    }

    /// Returns an instance with the current times of its lease. An expired instance is hidden as
    /// soon as it may be evicted.
    pub(super) fn instance(&self, app: &str, id: &str, now: i64) -> Option<Instance> {
        let leases = self.shards.shard(app, id).read();
        leases.get(app, id).filter(|lease| self.is_visible(lease, now)).map(|lease| self.live_instance(lease))
    }

    /// Returns the instance with this id in the first application by name that has one.
    pub(super) fn instance_by_id(&self, id: &str, now: i64) -> Option<Instance> {
        let mut app = self.listing.application_of(id, None)?;
        loop {
            if let Some(instance) = self.instance(&app, id, now) {
                return Some(instance);
            }
            app = self.listing.application_of(id, Some(&app))?;
        }
    }

    /// Returns the full list. It is the same `Arc` as long as nothing changes.
    pub(super) fn full(&self) -> Arc<Snapshot> {
        self.listing.full()
    }

    /// Returns the latest change of each recently changed instance, oldest first. The counts are
    /// those of the whole registry.
    pub(super) fn delta(&self) -> Arc<Snapshot> {
        self.listing.delta()
    }

    /// Returns an application with at least one instance.
    pub(super) fn application(&self, name: &str) -> Option<Arc<AppView>> {
        self.listing.application(name)
    }

    /// Returns the published state.
    #[cfg(feature = "peers")]
    pub(super) fn listing(&self) -> &Listing {
        &self.listing
    }

    /// Returns the maximum weight of all instances.
    pub(super) fn size_limit(&self) -> usize {
        self.settings.registry_size_limit
    }

    /// Returns true if an instance of a usual size would be accepted.
    #[cfg(feature = "peers")]
    pub(super) fn has_room(&self) -> bool {
        self.listing.has_room()
    }

    /// Returns the number of instances.
    pub(super) fn size(&self) -> usize {
        self.listing.size()
    }

    /// Returns the revision of the [full list](Self::full). It is raised before a change is
    /// acknowledged.
    pub(super) fn revision(&self) -> u64 {
        self.listing.revision()
    }

    /// Returns the revision of the [delta](Self::delta), which is also raised when old changes are
    /// removed.
    pub(super) fn delta_revision(&self) -> u64 {
        self.listing.delta_revision()
    }

    /// Removes changes and tombstones that are older than their retention times.
    pub(super) fn prune_delta(&self, now: i64) {
        self.listing.prune(now.saturating_sub(self.settings.delta_retention_ms()));
        #[cfg(feature = "peers")]
        self.tombstones.prune(now.saturating_sub(self.settings.tombstone_retention_ms()));
        self.log_capacity();
        self.log_clamped();
    }

    fn with_live_lease(&self, app: &str, id: &str, now: i64, change: impl FnOnce(&mut Lease) -> Effect) -> Effect {
        let mut leases = self.shards.write(app, id);
        leases.get_mut(app, id).filter(|lease| self.is_visible(lease, now)).map_or(Effect::NotFound, change)
    }

    fn is_visible(&self, lease: &Lease, now: i64) -> bool {
        !(lease.is_expired(0, now) && self.is_expiration_enabled(&lease.instance().app))
    }

    /// Returns the version of an instance after a change of its override, which may raise it.
    ///
    /// As in Java, a change without a version counts as version 0, so a negative version becomes 0.
    fn override_version(&self, lease: &Lease, dirty: Option<i64>, now: i64) -> Option<i64> {
        let instance = lease.instance();
        let ours = instance.last_dirty_timestamp;
        let dirty = dirty.map_or(0, |dirty| self.clamp(instance.app(), instance.id(), dirty, ours, now));
        ours.max(Some(dirty))
    }

    /// Publishes a change that was not sent by the instance itself.
    fn modify(&self, lease: &mut Lease, now: i64, change: impl FnOnce(&mut Instance)) {
        let at = self.at(now);
        let mut instance = self.live_instance(lease);
        change(&mut instance);
        instance.action = Some(ActionType::Modified);
        instance.last_updated_timestamp = Some(at.published());
        lease.replace(instance, at);
        let record = lease.record().clone();
        self.listing.put(record.instance.id().into(), record, now);
    }

    /// Publishes the end of a lease that was just removed. `ended` is a published time.
    fn publish_removal(&self, lease: &Lease, id: &str, ended: i64, now: i64) {
        let at = self.at(now);
        let mut instance = self.live_instance(lease);
        instance.action = Some(ActionType::Deleted);
        instance.last_updated_timestamp = Some(ended);
        if let Some(info) = &mut instance.lease {
            info.eviction_timestamp = at.published();
        }
        self.listing.remove(id, Record::new(instance), now);
    }
}

/// Returns true if a registration equals the known instance, except for times.
///
/// It copies nothing, since it runs for each registration.
fn is_unchanged(known: &Instance, sent: &Instance) -> bool {
    let Instance {
        // Equal, or the id of the data centre, which is compared.
        instance_id: _,
        app: _,
        host_name,
        ip_addr,
        sid,
        status,
        overridden_status,
        port,
        secure_port,
        country_id,
        data_center,
        metadata,
        app_group,
        home_page_url,
        status_page_url,
        health_check_url,
        secure_health_check_url,
        vip_address,
        secure_vip_address,
        asg_name,
        lease: _,
        is_coordinating_discovery_server: _,
        last_updated_timestamp: _,
        last_dirty_timestamp: _,
        action: _,
        address: _,
        generation: _,
    } = known;
    (status, overridden_status, metadata, data_center)
        == (&sent.status, &sent.overridden_status, &sent.metadata, &sent.data_center)
        && (host_name, ip_addr, port, secure_port) == (&sent.host_name, &sent.ip_addr, &sent.port, &sent.secure_port)
        && (vip_address, secure_vip_address) == (&sent.vip_address, &sent.secure_vip_address)
        && (home_page_url, status_page_url) == (&sent.home_page_url, &sent.status_page_url)
        && (health_check_url, secure_health_check_url) == (&sent.health_check_url, &sent.secure_health_check_url)
        && (sid, country_id, app_group, asg_name) == (&sent.sid, &sent.country_id, &sent.app_group, &sent.asg_name)
}
