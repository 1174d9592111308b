//! The registry itself: leases, override rules, eviction, self-preservation, recent changes. No IO; every operation takes `now`.
//!
//! ```text
//!  register, cancel, ──▶ shard (write lock) ──▶ Log (one mutex): what readers see, apps hash, recent changes ──▶ views
//!  overrides, evict        Lease per instance
//!  renew ─────────────▶ shard (read lock), atomics in the lease
//! ```
//!
//! An instance is looked up in the shard that its name and id hash to; heartbeats share that shard's read lock and write atomics,
//! so they wait neither for each other nor for readers of the whole registry. What readers of lists see is published as immutable
//! records, from inside the shard's write lock: the log has the changes of one instance in the order in which they happened. Locks are
//! always taken in this order: shard, then log.
//!
//! `now` is milliseconds since the epoch, from one clock that never goes back and that leases go by.
//! The times that are published follow the wall clock: [`Registry::move_published`] tells how far
//! they are ahead of `now`.

mod eviction;
mod full;
mod ids;
mod lease;
mod limits;
mod log;
mod preservation;
mod recent;
mod refused;
mod room;
mod rules;
mod settings;
mod shards;
#[cfg(test)]
mod tests;
mod times;
#[cfg(feature = "peers")]
mod versions;

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering::Relaxed};

use self::lease::{Lease, UpSince};
pub(super) use self::log::Log;
pub(super) use self::preservation::{Preservation, Renewals};
pub(super) use self::refused::Refused;
pub(super) use self::settings::Settings;
use self::shards::{Leases, Shards};
use self::times::believed;
#[cfg(feature = "peers")]
pub(super) use self::versions::{Version, agree, replaces};
use super::audit;
use super::view::{AppView, Record, Snapshot};
use crate::model::{ActionType, Instance, InstanceStatus};

/// Who asks: an instance (or an operator on its behalf), or another registry server that tells what it was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    Client,
    Replica,
}

/// What became of a heartbeat.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Renewal {
    /// The lease was renewed.
    Renewed,
    /// There is no lease, or its status is unknown: the instance has to register.
    NotFound,
    /// The lease was renewed, but the sender has newer data than the registry: it has to register.
    SenderIsNewer,
    /// The lease was renewed, but the replica has older data than the registry, which is this.
    SenderIsOlder(Arc<Instance>),
}

/// Effect of a registration that was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Registered {
    /// The status that the instance has now.
    pub(super) status: InstanceStatus,
    pub(super) news: News,
    /// The status that was sent, where the registry kept another one without an override.
    pub(super) kept: Option<InstanceStatus>,
    /// Reason for which only the status, the version and the lease were taken.
    pub(super) refused: Option<Refused>,
}

/// Change that a registration made. [`Changed`](Self::Changed) stands for [`Repeated`](Self::Repeated)
/// too where nobody logs changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum News {
    /// There was no such instance.
    New,
    Changed,
    /// Nothing but times changed.
    Repeated,
    /// The registry kept its own record: its version is newer than the one that was sent.
    Older {
        ours: i64,
        sent: i64,
    },
}

/// Effect of a change on one instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Effect {
    /// There is no such instance.
    Absent,
    /// The instance is already as it should be.
    None,
    Changed,
}

impl Effect {
    pub(super) fn is_found(self) -> bool {
        self != Self::Absent
    }
}

/// A time of the clock that leases go by, and what published times are ahead of it.
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
    log: Log,
    eviction: eviction::State,
    #[cfg(feature = "peers")]
    endings: versions::Endings,
    preservation: preservation::State,
    changes: audit::Changes,
    ahead: times::Ahead,
    fullness: full::State,
    silent: room::State,
    /// Milliseconds by which published times are ahead of the clock that leases go by.
    published_ahead: AtomicI64,
    /// The same before they were last moved, and the time of that.
    ahead_before: AtomicI64,
    moved_at: AtomicI64,
}

impl Registry {
    pub(super) fn new(settings: Settings) -> Self {
        Self {
            log: Log::new(&settings),
            settings,
            shards: Shards::new(),
            eviction: eviction::State::default(),
            #[cfg(feature = "peers")]
            endings: versions::Endings::default(),
            preservation: preservation::State::default(),
            changes: audit::Changes::default(),
            ahead: times::Ahead::default(),
            fullness: full::State::default(),
            silent: room::State::default(),
            published_ahead: AtomicI64::new(0),
            ahead_before: AtomicI64::new(0),
            moved_at: AtomicI64::new(i64::MIN),
        }
    }

    /// Milliseconds by which published times are ahead of the clock that leases go by.
    pub(super) fn published_ahead(&self) -> i64 {
        self.published_ahead.load(Relaxed)
    }

    /// Moves the times that are published from now on; leases last as long as before. Returns false
    /// if they were moved meanwhile.
    pub(super) fn move_published(&self, from: i64, to: i64, now: i64) -> bool {
        let moved = self.published_ahead.compare_exchange(from, to, Relaxed, Relaxed).is_ok();
        if moved {
            self.ahead_before.store(from, Relaxed);
            self.moved_at.store(now, Relaxed);
        }
        moved
    }

    /// The instance of a lease with the lease as it stands now. A renewal keeps the time at which it
    /// was published: peers must not take a lease that was last renewed before the machine was
    /// suspended for a fresh one.
    fn live_instance(&self, lease: &Lease) -> Instance {
        let was_moved = lease.heard_at() < self.moved_at.load(Relaxed);
        lease.live_instance(if was_moved { &self.ahead_before } else { &self.published_ahead }.load(Relaxed))
    }

    fn at(&self, now: i64) -> Now {
        Now { ms: now, ahead: self.published_ahead() }
    }

    /// Limit of the log lines about changes.
    pub(super) fn changes(&self) -> &audit::Changes {
        &self.changes
    }

    /// Takes an instance in, or renews what is known of it. `server-behaviour` 1.4.
    pub(super) fn register(&self, incoming: Instance, origin: Origin, now: i64) -> Result<Registered, Refused> {
        self.make_room(&incoming, now);
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
        let sent = self.believe(incoming.app(), incoming.id(), sent, ours, now);
        incoming.last_dirty_timestamp = Some(sent);
        let mut registrant = match old {
            // A late or repeated request must not undo what the instance said after it.
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
        let news = match old.map(Lease::instance) {
            None => News::New,
            Some(&Instance { last_dirty_timestamp: Some(ours), .. }) if ours > sent => News::Older { ours, sent },
            Some(old) if audit::is_enabled() && is_repeated(old, &registrant) => News::Repeated,
            Some(_) => News::Changed,
        };
        let kept = Some(own).filter(|&own| own != registrant.status && overridden.is_none());
        let status = registrant.status;
        let refused = self.admit(leases, registrant, overridden, duration_secs, now, now)?;
        Ok(Registered { status, news, kept, refused })
    }

    /// Gives an instance a new lease, which counts from `since`, in the place of the one that it has.
    ///
    /// A known instance that grew in a full registry keeps its record, with the new status and
    /// version. Returns the reason then.
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
        // Whether an instance is the answering server itself is for the server to say.
        registrant.is_coordinating_discovery_server = self.settings.own_id.as_ref() == Some(&id);
        let at = self.at(now);
        let up_since = match leases.get(&app, &id).map(Lease::up_since).unwrap_or_default() {
            never if never.is_never() && registrant.status == InstanceStatus::Up => UpSince::new(at),
            earlier => earlier,
        };
        let mut lease = Lease::new(registrant, overridden, duration_secs, up_since, since, at);
        let put = self.log.put_within_limits(id.clone(), lease.record().clone(), now);
        if let Err(refused) = put {
            self.log_full(refused);
            let Some(old) = leases.get(&app, &id) else { return Err(refused) };
            lease.keep_texts(old.instance());
            self.log.put(id.clone(), lease.record().clone(), now);
        }
        leases.insert(app, id, lease);
        Ok(put.err())
    }

    /// A sign of life. `dirty` is the version of the sender's data, `server-behaviour` 2.
    ///
    /// Unlike Java, a status that an override changes here is published at once.
    pub(super) fn renew(&self, app: &str, id: &str, dirty: Option<i64>, origin: Origin, now: i64) -> Renewal {
        let dirty = dirty.filter(|_| self.settings.compare_versions);
        let shard = self.shards.shard(app, id);
        let renewal = {
            let leases = shard.read();
            let Some(lease) = leases.get(app, id) else { return Renewal::NotFound };
            let status = lease.rule(origin, now);
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
            // Rare: the status has to change, so the lock has to be the other one, and everything is looked at again.
            None => {
                let mut leases = shard.write();
                let Some(lease) = leases.get_mut(app, id) else { return Renewal::NotFound };
                let status = lease.rule(origin, now);
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

    /// Compares versions after a renewal. `server-behaviour` 2.3.
    fn compare(&self, lease: &Lease, dirty: Option<i64>, origin: Origin, now: i64) -> Renewal {
        let Some(dirty) = dirty else { return Renewal::Renewed };
        let ours = lease.instance().last_dirty_timestamp;
        let dirty = believed(dirty, ours, self.at(now).published());
        let ours = ours.unwrap_or(dirty);
        if dirty > ours {
            Renewal::SenderIsNewer
        } else if dirty < ours && origin == Origin::Replica {
            Renewal::SenderIsOlder(Arc::new(self.live_instance(lease)))
        } else {
            Renewal::Renewed
        }
    }

    /// Ends a lease. Returns the status that its instance had, or `None` if there was no lease.
    pub(super) fn cancel(&self, app: &str, id: &str, now: i64) -> Option<InstanceStatus> {
        let mut leases = self.shards.write(app, id);
        let lease = leases.remove(app, id)?;
        let ended = self.at(now).published();
        self.withdraw(&lease, id, ended, now);
        #[cfg(feature = "peers")]
        self.remember_ending(Version::ended(lease.instance(), ended), &lease.instance().app, id, now);
        Some(lease.instance().status)
    }

    /// Puts a status over the instance's own.
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
                return Effect::None;
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

    /// Takes the status off again and leaves the given one until the instance registers.
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
                return Effect::None;
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

    /// Takes over the override that a replica knows of. The status follows with the next heartbeat.
    pub(super) fn store_override(&self, app: &str, id: &str, status: InstanceStatus, now: i64) -> Effect {
        let mut leases = self.shards.write(app, id);
        let Some(lease) = leases.get_mut(app, id) else { return Effect::Absent };
        if lease.override_status(now) == Some(status) {
            return Effect::None;
        }
        lease.set_override(Some(status), now);
        self.modify(lease, now, |instance| instance.overridden_status = status);
        Effect::Changed
    }

    /// Merges entries into the metadata, by way of a registration. Returns `None` if there is no
    /// such instance.
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

    /// One instance, with its lease as it stands now. An expired one is hidden as soon as it may be evicted.
    pub(super) fn instance(&self, app: &str, id: &str, now: i64) -> Option<Instance> {
        let leases = self.shards.shard(app, id).read();
        leases.get(app, id).filter(|lease| self.is_visible(lease, now)).map(|lease| self.live_instance(lease))
    }

    /// The first instance with this id by the name of its application.
    pub(super) fn instance_by_id(&self, id: &str, now: i64) -> Option<Instance> {
        let mut app = self.log.application_of(id, None)?;
        loop {
            if let Some(instance) = self.instance(&app, id, now) {
                return Some(instance);
            }
            app = self.log.application_of(id, Some(&app))?;
        }
    }

    /// Everything. The same `Arc` as long as nothing changes.
    pub(super) fn full(&self) -> Arc<Snapshot> {
        self.log.full()
    }

    /// What changed lately, oldest first, at most once per instance; with the counts of the whole registry.
    pub(super) fn delta(&self) -> Arc<Snapshot> {
        self.log.delta()
    }

    /// One application with at least one instance.
    pub(super) fn application(&self, name: &str) -> Option<Arc<AppView>> {
        self.log.application(name)
    }

    /// What lists are made of.
    #[cfg(feature = "peers")]
    pub(super) fn log(&self) -> &Log {
        &self.log
    }

    /// Maximum weight of all instances.
    pub(super) fn size_limit(&self) -> usize {
        self.settings.registry_size_limit
    }

    /// Returns true if an instance of a usual size has room.
    #[cfg(feature = "peers")]
    pub(super) fn has_room(&self) -> bool {
        self.log.has_room()
    }

    /// How many instances there are.
    pub(super) fn size(&self) -> usize {
        self.log.size()
    }

    /// Raised by every change of what [`full`](Self::full) answers, before the change is acknowledged.
    pub(super) fn revision(&self) -> u64 {
        self.log.revision()
    }

    /// The same for [`delta`](Self::delta), which also changes as time passes.
    pub(super) fn delta_revision(&self) -> u64 {
        self.log.delta_revision()
    }

    /// Forgets changes that are older than the retention time. `server-behaviour` 6.
    pub(super) fn prune_delta(&self, now: i64) {
        self.log.prune(now.saturating_sub(self.settings.delta_retention_ms()));
        #[cfg(feature = "peers")]
        self.endings.prune(now.saturating_sub(self.settings.ending_retention_ms()));
        self.log_room();
        self.log_believed();
    }

    fn with_live_lease(&self, app: &str, id: &str, now: i64, change: impl FnOnce(&mut Lease) -> Effect) -> Effect {
        let mut leases = self.shards.write(app, id);
        leases.get_mut(app, id).filter(|lease| self.is_visible(lease, now)).map_or(Effect::Absent, change)
    }

    fn is_visible(&self, lease: &Lease, now: i64) -> bool {
        !(lease.is_expired(0, now) && self.is_expiration_enabled(&lease.instance().app))
    }

    /// Version of an instance after an override, which raises it. An override without one counts as version 0, as in Java: a negative
    /// version ends with the first override.
    fn override_version(&self, lease: &Lease, dirty: Option<i64>, now: i64) -> Option<i64> {
        let instance = lease.instance();
        let ours = instance.last_dirty_timestamp;
        let dirty = dirty.map_or(0, |dirty| self.believe(instance.app(), instance.id(), dirty, ours, now));
        ours.max(Some(dirty))
    }

    /// Publishes a change that did not come from the instance itself.
    fn modify(&self, lease: &mut Lease, now: i64, change: impl FnOnce(&mut Instance)) {
        let at = self.at(now);
        let mut instance = self.live_instance(lease);
        change(&mut instance);
        instance.action = Some(ActionType::Modified);
        instance.last_updated_timestamp = Some(at.published());
        lease.replace(instance, at);
        let record = lease.record().clone();
        self.log.put(record.instance.id().into(), record, now);
    }

    /// Publishes the end of a lease that was just removed, as of `ended`, a published time.
    fn withdraw(&self, lease: &Lease, id: &str, ended: i64, now: i64) {
        let at = self.at(now);
        let mut instance = self.live_instance(lease);
        instance.action = Some(ActionType::Deleted);
        instance.last_updated_timestamp = Some(ended);
        if let Some(info) = &mut instance.lease {
            info.eviction_timestamp = at.published();
        }
        self.log.remove(id, Record::new(instance), now);
    }
}

/// Returns true if a registration repeats what is known, times aside. Copies nothing, since each
/// registration is compared.
fn is_repeated(known: &Instance, sent: &Instance) -> bool {
    let Instance {
        // Equal, or that of the data centre, which is compared.
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
