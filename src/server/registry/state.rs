//! State of the registry, and the steps that its operations share.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering::Relaxed};

use super::history::{End, History};
use super::lease::Lease;
use super::listing::Listing;
use super::now::Now;
use super::owners::Owners;
use super::settings::Settings;
use super::shards::{Leases, Shard, Shards};
use super::silent::Silent;
use super::times::{Ahead, map_published};
#[cfg(feature = "peers")]
use super::tombstones::Tombstones;
use super::{capacity, preserved};
use crate::model::{ActionType, Instance};
use crate::server::audit;
use crate::server::events::{Events, ServerEvent};
use crate::server::view::Record;
use crate::sync::Mutex;

#[derive(Debug)]
pub(in crate::server) struct Registry {
    pub(super) settings: Settings,
    pub(super) shards: Shards,
    pub(super) listing: Listing,
    /// Time of the last eviction run.
    pub(super) evicted_at: Mutex<Option<i64>>,
    #[cfg(feature = "peers")]
    pub(super) tombstones: Tombstones,
    pub(super) preservation: preserved::State,
    changes: audit::Changes,
    pub(super) ahead: Ahead,
    pub(super) capacity: capacity::State,
    pub(super) silent: Mutex<Silent>,
    pub(super) owners: Owners,
    pub(super) history: History,
    pub(super) events: Arc<Events>,
    /// Milliseconds by which published times are ahead of the clock of the leases.
    published_ahead: AtomicI64,
    /// Value of `published_ahead` before it last grew, and the time at which it did.
    ahead_before: AtomicI64,
    moved_at: AtomicI64,
}

impl Registry {
    #[cfg(test)]
    pub(in crate::server) fn new(settings: Settings) -> Self {
        Self::with_events(settings, Arc::default())
    }

    /// Creates an empty registry that sends its events here.
    pub(in crate::server) fn with_events(settings: Settings, events: Arc<Events>) -> Self {
        Self {
            listing: Listing::new(&settings),
            owners: Owners::new(&settings),
            settings,
            shards: Shards::new(),
            evicted_at: Mutex::default(),
            #[cfg(feature = "peers")]
            tombstones: Tombstones::default(),
            preservation: preserved::State::default(),
            changes: audit::Changes::default(),
            ahead: Ahead::default(),
            capacity: capacity::State::default(),
            silent: Mutex::default(),
            history: History::default(),
            events,
            published_ahead: AtomicI64::new(0),
            ahead_before: AtomicI64::new(0),
            moved_at: AtomicI64::new(i64::MIN),
        }
    }

    /// Returns the milliseconds by which published times are ahead of the clock of the leases.
    pub(in crate::server) fn published_ahead(&self) -> i64 {
        self.published_ahead.load(Relaxed)
    }

    /// Changes the difference of published times to the clock of the leases. Leases are not
    /// affected. Returns false if another call changed it meanwhile.
    ///
    /// If published times are set back, those of records and tombstones are, too. Otherwise these
    /// would count as newer than each change until the clock reaches them.
    pub(in crate::server) fn move_published(&self, from: i64, to: i64, now: i64) -> bool {
        if to < from {
            return self.set_published_back(from, to, now);
        }
        let moved = self.published_ahead.compare_exchange(from, to, Relaxed, Relaxed).is_ok();
        if moved {
            self.ahead_before.store(from, Relaxed);
            self.moved_at.store(now, Relaxed);
        }
        moved
    }

    /// Sets the published times back, with those of all records and tombstones.
    ///
    /// Times from before they were last set forward are kept, unless they are in the future. If
    /// they are set forward again, as after a wrong correction of the clock, the times that were
    /// set back stay, since a suspension looks like a step forward.
    ///
    /// Peers that copied a record before have converted its times by the `Date` of that moment, so
    /// they have the times that this node now has, within the precision of that header. A peer that
    /// could not convert them keeps the later time, and its copy of the same state counts as newer.
    fn set_published_back(&self, from: i64, to: i64, now: i64) -> bool {
        // All shards are locked, so that each change is published either before or after. No other
        // operation holds the locks of two shards.
        let mut shards: Vec<_> = self.shards.iter().map(Shard::write).collect();
        if self.published_ahead.compare_exchange(from, to, Relaxed, Relaxed).is_err() {
            return false;
        }
        let before = self.ahead_before.fetch_min(to, Relaxed);
        let since = self.moved_at.load(Relaxed).saturating_add(before);
        let (by_ms, latest) = (from.saturating_sub(to), now.saturating_add(to));
        let earlier = |at: i64| if at >= since { at.saturating_sub(by_ms) } else { at.min(latest) };
        let mut records = Vec::with_capacity(self.listing.size());
        for (_, id, lease) in shards.iter_mut().flat_map(|leases| leases.iter_mut()) {
            lease.map_published(earlier);
            records.push((id.clone(), lease.record().clone()));
        }
        self.listing.replace(&records, |deleted| {
            let mut instance = Instance::clone(&deleted.instance);
            map_published(&mut instance, earlier);
            Record::new(instance)
        });
        #[cfg(feature = "peers")]
        self.tombstones.map_published(earlier);
        true
    }

    /// Returns the instance of a lease with the current times of the lease.
    ///
    /// A renewal keeps the published time that it had. Otherwise, after the machine was suspended,
    /// peers would take a lease that was last renewed before for a fresh one.
    pub(super) fn live_instance(&self, lease: &Lease) -> Instance {
        let was_moved = lease.renewed_at() < self.moved_at.load(Relaxed);
        lease.live_instance(if was_moved { &self.ahead_before } else { &self.published_ahead }.load(Relaxed))
    }

    pub(super) fn at(&self, now: i64) -> Now {
        Now { ms: now, ahead: self.published_ahead() }
    }

    /// Clamps a version that is too far in the future, with a warning.
    pub(super) fn clamp(&self, app: &str, id: &str, sent: i64, ours: Option<i64>, now: i64) -> i64 {
        self.ahead.clamp(app, id, sent, ours, self.at(now).published())
    }

    /// Returns the limit on log lines about changes.
    pub(in crate::server) fn changes(&self) -> &audit::Changes {
        &self.changes
    }

    /// Sends an event about an instance that has a lease. Must be called under the lock of its
    /// shard, so that the events of one instance keep their order.
    pub(super) fn emit(&self, leases: &Leases, app: &str, id: &str, event: impl FnOnce(Arc<Instance>) -> ServerEvent) {
        if self.events.is_watched()
            && let Some(lease) = leases.get(app, id)
        {
            self.events.send(|| event(lease.record().instance.clone()));
        }
    }

    /// Records the end of a lease that was just removed, and sends the event. Must be called under
    /// the lock of its shard.
    pub(super) fn ended(&self, lease: &Lease, id: &str, end: End, now: i64) {
        let instance = &lease.record().instance;
        self.owners.release(lease.registrant(), &instance.app);
        self.history.ended(self.at(now).published(), &instance.app, id, end);
        self.events.send(|| match end {
            End::Cancelled { replicated } => ServerEvent::Cancelled { instance: instance.clone(), replicated },
            End::Evicted => ServerEvent::Evicted { instance: instance.clone() },
        });
    }

    /// Publishes a change that was not sent by the instance itself.
    pub(super) fn modify(&self, lease: &mut Lease, now: i64, change: impl FnOnce(&mut Instance)) {
        let at = self.at(now);
        let mut instance = self.live_instance(lease);
        change(&mut instance);
        instance.action = Some(ActionType::Modified);
        instance.last_updated_timestamp = Some(at.published());
        lease.replace(instance, at);
        let record = lease.record().clone();
        self.listing.put(record.instance.shared_id(), record, now);
    }

    /// Publishes the cancellation of a lease that was just removed. `ended` is a published time.
    pub(super) fn publish_cancellation(&self, lease: &Lease, id: &str, ended: i64, now: i64) {
        self.publish_removal(self.live_instance(lease), id, ended, now);
    }

    /// Publishes the eviction of a lease that was just removed.
    ///
    /// The published lease has ended, although that of an instance of a full registry may run:
    /// peers take the removal of an instance whose lease runs for a cancellation.
    pub(super) fn publish_eviction(&self, lease: &Lease, id: &str, now: i64) {
        let ended = self.at(now).published();
        let mut instance = self.live_instance(lease);
        if let Some(info) = &mut instance.lease {
            let latest = ended.saturating_sub(lease.duration_ms()).saturating_sub(1);
            info.last_renewal_timestamp = info.last_renewal_timestamp.min(latest);
        }
        self.publish_removal(instance, id, ended, now);
    }

    fn publish_removal(&self, mut instance: Instance, id: &str, ended: i64, now: i64) {
        instance.action = Some(ActionType::Deleted);
        instance.last_updated_timestamp = Some(ended);
        if let Some(info) = &mut instance.lease {
            info.eviction_timestamp = self.at(now).published();
        }
        self.listing.remove(id, Record::new(instance), now);
    }
}
