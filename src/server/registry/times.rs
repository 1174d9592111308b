//! Limits on the times that instances and peers send.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use super::settings::Settings;
use crate::model::{Instance, LeaseInfo};
use crate::server::audit::{Lasting, Ongoing, Quoted};

/// Maximum time between now and a `lastDirtyTimestamp` in the future.
const MAX_AHEAD_MS: i64 = 24 * 3_600_000;

/// Returns the version that is used for the one that was sent. `ours` is the version of the record.
///
/// A version more than a day in the future counts as a day from now. If the version of the record
/// is in the future, too, both count as equal. Otherwise a client whose clock is years ahead would
/// have to register again with each heartbeat.
pub(super) fn clamped(sent: i64, ours: Option<i64>, now: i64) -> i64 {
    let latest = now.saturating_add(MAX_AHEAD_MS);
    if sent <= latest { sent } else { ours.filter(|&ours| ours > now).unwrap_or(latest) }
}

/// Log state of versions that are too far in the future.
#[derive(Debug, Default)]
pub(super) struct Ahead {
    fault: Ongoing,
    /// Set if there was one since the last call of `log_ended`.
    is_recent: AtomicBool,
}

impl Ahead {
    /// Clamps a version that is too far in the future, with a warning.
    pub(super) fn clamp(&self, app: &str, id: &str, sent: i64, ours: Option<i64>, now: i64) -> i64 {
        let clamped = clamped(sent, ours, now);
        if clamped == sent {
            return sent;
        }
        self.is_recent.store(true, Relaxed);
        if let Some(Lasting { count, .. }) = self.fault.occurred() {
            let (app, instance) = (Quoted(app), Quoted(id));
            let ahead = Duration::from_millis(sent.saturating_sub(now).try_into().unwrap_or(0));
            tracing::warn!(
                %app, %instance, sent, ?ahead, used = clamped, count,
                "lastDirtyTimestamp is more than a day in the future, an earlier one is used (is the clock of the instance right?)"
            );
        }
        clamped
    }

    /// Logs that no version was too far in the future since the last call.
    pub(super) fn log_ended(&self) {
        if !self.is_recent.swap(false, Relaxed)
            && let Some(Lasting { count, elapsed }) = self.fault.ended()
        {
            tracing::info!(count, ?elapsed, "no lastDirtyTimestamp is more than a day in the future any more");
        }
    }

    /// Clamps the times of a record from a peer that are too far in the future.
    #[cfg(feature = "peers")]
    pub(super) fn clamp_copy(&self, copy: &mut Instance, ours: Option<i64>, now: i64) {
        if let Some(sent) = copy.last_dirty_timestamp {
            copy.last_dirty_timestamp = Some(self.clamp(copy.app(), copy.id(), sent, ours, now));
        }
        let latest = now.saturating_add(MAX_AHEAD_MS);
        copy.last_updated_timestamp = copy.last_updated_timestamp.map(|at| at.min(latest));
    }
}

/// Converts the published times of an instance. Its version is that of the instance's own clock.
pub(in crate::server) fn map_published(instance: &mut Instance, convert: impl Fn(i64) -> i64) {
    instance.last_updated_timestamp = instance.last_updated_timestamp.map(&convert);
    if let Some(lease) = &mut instance.lease {
        for at in [
            &mut lease.registration_timestamp,
            &mut lease.last_renewal_timestamp,
            &mut lease.eviction_timestamp,
            &mut lease.service_up_timestamp,
        ] {
            // Zero means never.
            *at = if *at > 0 { convert(*at) } else { *at };
        }
    }
}

/// Returns the lease duration of an instance, and stores it in the record if it is above the limit.
pub(super) fn lease_duration_secs(instance: &mut Instance, settings: &Settings) -> i32 {
    let limit = settings.lease_limit_secs;
    let Some(lease) = instance.lease.as_mut().filter(|lease| lease.duration_secs > 0) else {
        return LeaseInfo::DEFAULT_DURATION_SECS.min(limit);
    };
    lease.duration_secs = lease.duration_secs.min(limit);
    lease.duration_secs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn version_more_than_a_day_ahead_counts_as_a_day_or_as_the_registered_one() {
        let (now, day) = (1_000, MAX_AHEAD_MS);
        for (sent, ours, expected) in [
            (0, None, 0),
            (i64::MIN, Some(5), i64::MIN),
            (now + day, None, now + day),
            (now + day + 1, None, now + day),
            (i64::MAX, Some(now), now + day),
            (i64::MAX, Some(now + 1), now + 1),
            (i64::MAX, Some(now + day), now + day),
            (now + 5, Some(now + day), now + 5),
        ] {
            assert_eq!(clamped(sent, ours, now), expected, "{sent} {ours:?}");
        }
        assert_eq!(clamped(i64::MAX, None, i64::MAX), i64::MAX);
    }
}
