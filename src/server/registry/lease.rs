use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering::Relaxed};

use super::{Now, Origin, rules};
use crate::model::{Instance, InstanceStatus, LeaseInfo};
use crate::server::view::Record;

/// An override that nobody has looked at for this long is gone.
const OVERRIDE_LIFE_MS: i64 = 3_600_000;
const MIN_SILENCE_MS: i64 = 90_000;
const MAX_SILENCE_MS: i64 = 600_000;

/// Time without a heartbeat after which a lease of this duration may give way in a full registry.
/// Clients send heartbeats every 30 seconds, those that do so less often announce longer leases.
pub(super) fn max_silence_ms(duration_ms: i64) -> i64 {
    (duration_ms / 3).clamp(MIN_SILENCE_MS, MAX_SILENCE_MS)
}

/// An instance's place in the registry and how long it may keep it. `server-behaviour` 4.1.
///
/// A heartbeat writes the atomics only; everything else changes under the write lock of the shard.
#[derive(Debug)]
pub(super) struct Lease {
    /// The instance as readers of lists see it.
    record: Arc<Record>,
    overridden: Option<InstanceStatus>,
    override_read_at: AtomicI64,
    duration_ms: i64,
    /// Expiry counts from here. After a renewal of the Java kind it lies one duration in the future.
    last_update: AtomicI64,
    /// The last heartbeat or registration.
    heard_at: AtomicI64,
    registered_at: i64,
    up_since: UpSince,
}

/// The first time at which an instance was UP; zero if it never was.
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
    /// A lease that counts from `since`, which is now unless it began elsewhere.
    pub(super) fn new(
        mut instance: Instance,
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
            record: Record::new(instance),
            overridden,
            override_read_at: now.ms.into(),
            duration_ms: i64::from(duration_secs) * 1000,
            last_update: since.into(),
            heard_at: since.min(now.ms).into(),
            registered_at: now.ms,
            up_since,
        }
    }

    pub(super) fn record(&self) -> &Arc<Record> {
        &self.record
    }

    pub(super) fn instance(&self) -> &Instance {
        &self.record.instance
    }

    /// From when its expiry counts.
    #[cfg(feature = "peers")]
    pub(super) fn since(&self) -> i64 {
        self.last_update.load(Relaxed)
    }

    pub(super) fn up_since(&self) -> UpSince {
        self.up_since
    }

    /// The first time at which the instance was UP, by the clock of the leases; zero if it never was.
    pub(super) fn service_up_at(&self) -> i64 {
        self.up_since.at
    }

    /// The last heartbeat or registration.
    pub(super) fn heard_at(&self) -> i64 {
        self.heard_at.load(Relaxed)
    }

    /// The instance with the lease as it stands now. Published times are `ahead` of those of leases.
    pub(super) fn live_instance(&self, ahead: i64) -> Instance {
        let mut instance = self.instance().clone();
        if let Some(info) = &mut instance.lease {
            info.last_renewal_timestamp = self.last_update.load(Relaxed).saturating_add(ahead);
        }
        instance
    }

    /// Replaces what readers see by a changed [`live_instance`](Self::live_instance).
    pub(super) fn replace(&mut self, mut instance: Instance, now: Now) {
        if instance.status == InstanceStatus::Up && self.up_since.is_never() {
            self.up_since = UpSince::new(now);
        }
        if let Some(info) = &mut instance.lease {
            info.service_up_timestamp = self.up_since.published;
        }
        self.record = Record::new(instance);
    }

    /// Replaces all but the state of its instance by a known record, which counts as taken in when it
    /// was. So another registry that has all of it has the newer state.
    pub(super) fn keep_texts(&mut self, known: &Instance) {
        let &Instance { status, overridden_status, last_dirty_timestamp, lease, action, .. } = self.instance();
        self.record =
            Record::new(Instance { status, overridden_status, last_dirty_timestamp, lease, action, ..known.clone() });
    }

    /// Java adds the duration here and again when it tests for expiry, a fault that became the protocol: a silent instance
    /// lives for two durations, and the time of its last renewal lies in the future.
    pub(super) fn renew(&self, doubling: bool, now: i64) {
        self.last_update.store(if doubling { now.saturating_add(self.duration_ms) } else { now }, Relaxed);
        self.heard_at.store(now, Relaxed);
    }

    pub(super) fn is_expired(&self, compensation_ms: i64, now: i64) -> bool {
        now > self.last_update.load(Relaxed).saturating_add(self.duration_ms).saturating_add(compensation_ms)
    }

    /// Whether it missed two heartbeats in a row, by the interval that it announced, or is expired already.
    pub(super) fn is_silent(&self, now: i64) -> bool {
        let interval_secs = match self.instance().lease.map_or(0, |info| info.renewal_interval_secs) {
            seconds @ 1.. => seconds,
            _ => LeaseInfo::DEFAULT_RENEWAL_INTERVAL_SECS,
        };
        let silence = now.saturating_sub(self.heard_at());
        silence > 2 * 1000 * i64::from(interval_secs) || self.is_expired(0, now)
    }

    /// Place of a silent lease in the order in which such leases give way in a full registry: those
    /// that were never renewed before others, and of either the one that is silent for the longest
    /// time before others. Returns `None` while the lease is kept.
    pub(super) fn silence(&self, now: i64) -> Option<(bool, i64)> {
        let heard_at = self.heard_at();
        let is_silent = now.saturating_sub(heard_at) > max_silence_ms(self.duration_ms) || self.is_expired(0, now);
        is_silent.then_some((heard_at > self.registered_at, heard_at))
    }

    /// The override, if there is one; asking keeps it alive.
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

    /// The status that the rules give it now.
    pub(super) fn rule(&self, origin: Origin, now: i64) -> InstanceStatus {
        let status = self.instance().status;
        rules::status(status, self.override_status(now), Some(status), origin)
    }
}
