use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering::Relaxed};

use super::now::Now;
use super::rules;
use super::times::map_published;
use crate::model::{Instance, InstanceStatus, LeaseInfo};
use crate::server::outcome::{Origin, Registrant};
use crate::server::owner::Owner;
use crate::server::view::Record;

/// Time after which an override that nobody has read is dropped.
const OVERRIDE_LIFE_MS: i64 = 3_600_000;
/// Least time without a heartbeat after which a lease may be evicted from a full registry.
pub(super) const MIN_SILENCE_MS: i64 = 90_000;
const MAX_SILENCE_MS: i64 = 600_000;

/// Returns the time without a heartbeat after which a lease of this duration may be evicted from a
/// full registry: a third of it, or the time of two heartbeats.
fn max_silence_ms(duration_ms: i64, two_heartbeats_ms: i64) -> i64 {
    (duration_ms / 3).max(two_heartbeats_ms).clamp(MIN_SILENCE_MS, MAX_SILENCE_MS)
}

/// Lease of an instance. The rules are in `docs/server.md`, "Lease".
///
/// A heartbeat writes only the atomics. All other fields change under the write lock of the shard.
#[derive(Debug)]
pub(super) struct Lease {
    listed: ListedInstance,
    overridden: Option<InstanceStatus>,
    override_read_at: AtomicI64,
    duration_ms: i64,
    /// Time that the expiry counts from. With lease doubling, a renewal sets it one duration ahead.
    last_update: AtomicI64,
    /// Time of the last heartbeat or registration.
    renewed_at: AtomicI64,
    registered_at: i64,
    /// The lease was copied from another registry. Then `registered_at` is the time of the copy.
    #[cfg_attr(not(feature = "page"), allow(dead_code, reason = "the page shows it"))]
    is_copy: bool,
    /// Time of the first of the registrations that followed each other without an end of the lease.
    first_registered_at: i64,
    /// A heartbeat renewed an earlier one of these registrations.
    was_renewed: bool,
    up_since: UpSince,
    registrant: Registrant,
}

/// The instance as lists show it, with copies of the fields that each heartbeat reads.
///
/// The record is in other cache lines, which are seldom cached when a heartbeat arrives.
#[derive(Debug)]
struct ListedInstance {
    record: Arc<Record>,
    status: InstanceStatus,
    last_dirty_timestamp: Option<i64>,
}

impl ListedInstance {
    fn new(instance: Instance) -> Self {
        let Instance { status, last_dirty_timestamp, .. } = instance;
        Self { record: Record::new(instance), status, last_dirty_timestamp }
    }
}

/// Time at which an instance was UP first; zero if it never was.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct UpSince {
    /// By the clock of the leases.
    at: i64,
    published: i64,
}

impl UpSince {
    pub(super) fn new(now: Now) -> Self {
        Self { at: now.ms, published: now.published() }
    }

    pub(super) fn is_never(self) -> bool {
        self.published == 0
    }
}

impl Lease {
    /// Creates a lease that counts from `since`. That is now, unless the lease began at another
    /// registry.
    pub(super) fn new(
        mut instance: Instance,
        registrant: Registrant,
        overridden: Option<InstanceStatus>,
        duration_secs: i32,
        up_since: UpSince,
        since: i64,
        now: Now,
    ) -> Self {
        instance.lease = Some(LeaseInfo {
            registration_timestamp: now.published(),
            last_renewal_timestamp: since.saturating_add(now.ahead),
            eviction_timestamp: 0,
            service_up_timestamp: up_since.published,
            ..instance.lease.unwrap_or_default()
        });
        Self {
            listed: ListedInstance::new(instance),
            overridden,
            override_read_at: now.ms.into(),
            duration_ms: i64::from(duration_secs) * 1000,
            last_update: since.into(),
            renewed_at: since.min(now.ms).into(),
            registered_at: now.ms,
            is_copy: false,
            first_registered_at: since.min(now.ms),
            was_renewed: false,
            up_since,
            registrant,
        }
    }

    pub(super) fn record(&self) -> &Arc<Record> {
        &self.listed.record
    }

    pub(super) fn instance(&self) -> &Instance {
        &self.listed.record.instance
    }

    /// Returns the status of the instance.
    pub(super) fn status(&self) -> InstanceStatus {
        self.listed.status
    }

    /// Returns the version of the instance's data.
    pub(super) fn last_dirty_timestamp(&self) -> Option<i64> {
        self.listed.last_dirty_timestamp
    }

    /// Returns the sender of the registration.
    pub(super) fn registrant(&self) -> &Registrant {
        &self.registrant
    }

    pub(super) fn set_owner(&mut self, owner: Owner, is_provisional: bool) {
        (self.registrant.owner, self.registrant.is_provisional) = (owner, is_provisional);
    }

    /// Returns the time that the expiry counts from.
    #[cfg(feature = "peers")]
    pub(super) fn since(&self) -> i64 {
        self.last_update.load(Relaxed)
    }

    pub(super) fn up_since(&self) -> UpSince {
        self.up_since
    }

    /// Returns the time at which the instance was UP first, by the clock of the leases; zero if it
    /// never was.
    pub(super) fn service_up_at(&self) -> i64 {
        self.up_since.at
    }

    /// Returns the time of the last heartbeat or registration.
    pub(super) fn renewed_at(&self) -> i64 {
        self.renewed_at.load(Relaxed)
    }

    #[cfg(feature = "page")]
    pub(super) fn registered_at(&self) -> i64 {
        self.registered_at
    }

    /// Marks the lease as one that was copied from another registry.
    #[cfg(feature = "peers")]
    pub(super) fn mark_copy(&mut self) {
        self.is_copy = true;
    }

    #[cfg(feature = "page")]
    pub(super) fn is_copy(&self) -> bool {
        self.is_copy
    }

    pub(super) fn duration_ms(&self) -> i64 {
        self.duration_ms
    }

    /// Returns the time after which the lease is expired, without the extension of a late eviction
    /// run.
    #[cfg(feature = "page")]
    pub(super) fn expires_at(&self) -> i64 {
        self.last_update.load(Relaxed).saturating_add(self.duration_ms)
    }

    /// Returns the instance with the current times of its lease. Published times are `ahead` of
    /// those of leases.
    pub(super) fn live_instance(&self, ahead: i64) -> Instance {
        let mut instance = self.instance().clone();
        if let Some(info) = &mut instance.lease {
            info.last_renewal_timestamp = self.last_update.load(Relaxed).saturating_add(ahead);
        }
        instance
    }

    /// Replaces the record by a changed [`live_instance`](Self::live_instance).
    pub(super) fn replace(&mut self, mut instance: Instance, now: Now) {
        if instance.status == InstanceStatus::Up && self.up_since.is_never() {
            self.up_since = UpSince::new(now);
        }
        if let Some(info) = &mut instance.lease {
            info.service_up_timestamp = self.up_since.published;
        }
        self.listed = ListedInstance::new(instance);
    }

    /// Converts the published times of the record.
    pub(super) fn map_published(&mut self, convert: impl Fn(i64) -> i64) {
        let mut instance = self.instance().clone();
        map_published(&mut instance, &convert);
        if !self.up_since.is_never() {
            self.up_since.published = convert(self.up_since.published);
        }
        self.listed = ListedInstance::new(instance);
    }

    /// Continues the lease that the instance had before.
    pub(super) fn continues(&mut self, before: &Self) {
        self.first_registered_at = before.first_registered_at;
        self.was_renewed = before.is_renewed();
    }

    /// Returns true if a heartbeat has renewed the lease.
    fn is_renewed(&self) -> bool {
        self.was_renewed || self.renewed_at() > self.registered_at
    }

    /// Keeps the data of the known instance, with the status, version and lease of the new one.
    ///
    /// The time of the last update is that of the known instance, so another registry that has all
    /// data has the newer state.
    pub(super) fn keep_data_of(&mut self, known: &Instance) {
        let &Instance { status, overridden_status, last_dirty_timestamp, lease, action, .. } = self.instance();
        self.listed = ListedInstance::new(Instance {
            status,
            overridden_status,
            last_dirty_timestamp,
            lease,
            action,
            ..known.clone()
        });
    }

    /// Renews the lease.
    ///
    /// Java adds the duration here and again in the test for expiry. This fault became part of the
    /// protocol: a silent instance lives for two durations, and its published renewal time lies in
    /// the future. `doubling` sets the same behaviour.
    pub(super) fn renew(&self, doubling: bool, now: i64) {
        self.last_update.store(if doubling { now.saturating_add(self.duration_ms) } else { now }, Relaxed);
        self.renewed_at.store(now, Relaxed);
    }

    pub(super) fn is_expired(&self, compensation_ms: i64, now: i64) -> bool {
        now > self.last_update.load(Relaxed).saturating_add(self.duration_ms).saturating_add(compensation_ms)
    }

    /// Returns the time of two heartbeats, by the interval that the instance announced.
    fn two_heartbeats_ms(&self) -> i64 {
        2 * 1000 * i64::from(self.instance().lease.unwrap_or_default().interval_secs())
    }

    /// Returns true if the instance missed two heartbeats in a row, by the interval that it
    /// announced, or if the lease is expired.
    pub(super) fn is_silent(&self, now: i64) -> bool {
        let silence = now.saturating_sub(self.renewed_at());
        silence > self.two_heartbeats_ms() || self.is_expired(0, now)
    }

    /// Returns the position of a silent lease in the order in which leases are evicted from a full
    /// registry, or `None` if the lease is not silent.
    ///
    /// Leases that were never renewed come before others, and the longest silence comes first. For
    /// them, only the first registration counts. Otherwise registrations that are repeated without
    /// a heartbeat would hold their place for ever.
    pub(super) fn reclaim_order(&self, now: i64) -> Option<(bool, i64)> {
        let is_renewed = self.is_renewed();
        let heard_at = if is_renewed { self.renewed_at() } else { self.first_registered_at };
        let max_silence_ms = max_silence_ms(self.duration_ms, self.two_heartbeats_ms());
        let is_silent = now.saturating_sub(heard_at) > max_silence_ms || self.is_expired(0, now);
        is_silent.then_some((is_renewed, heard_at))
    }

    /// Returns the override, if there is one, and restarts its time to live.
    pub(super) fn override_status(&self, now: i64) -> Option<InstanceStatus> {
        let status = self.overridden?;
        if now.saturating_sub(self.override_read_at.load(Relaxed)) > OVERRIDE_LIFE_MS {
            return None;
        }
        self.override_read_at.store(now, Relaxed);
        Some(status)
    }

    pub(super) fn set_override(&mut self, status: Option<InstanceStatus>, now: i64) {
        self.overridden = status;
        *self.override_read_at.get_mut() = now;
    }

    /// Returns the status that the rules give the instance now.
    pub(super) fn effective_status(&self, origin: Origin, now: i64) -> InstanceStatus {
        let status = self.status();
        rules::status(status, self.override_status(now), Some(status), origin)
    }
}
