//! Order of the states of one instance in different registries. See `docs/server.md`,
//! "Reconciliation".

use std::cmp::Ordering;

use super::times::clamped;
use crate::model::{Instance, InstanceStatus};

/// Version of a state of an instance: the instance's own version, then the time at which a registry
/// accepted the state.
///
/// A cancellation has a version as well: that of the cancelled data, and the time of the
/// cancellation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::server) struct Version {
    pub(super) dirty: Option<i64>,
    pub(super) updated: Option<i64>,
}

impl Version {
    pub(in crate::server) fn of(instance: &Instance) -> Self {
        Self { dirty: instance.last_dirty_timestamp, updated: instance.last_updated_timestamp }
    }

    /// Converts the version to a clock that is behind by this number of milliseconds.
    pub(in crate::server) fn earlier_by(self, ms: i64) -> Self {
        Self { updated: self.updated.map(|at| at.saturating_sub(ms)), ..self }
    }

    /// Returns the version of a cancellation at this time. If the clock was set back since the last
    /// change of the instance, the time of that change counts.
    pub(super) fn cancelled(instance: &Instance, at: i64) -> Self {
        Self { dirty: instance.last_dirty_timestamp, updated: instance.last_updated_timestamp.max(Some(at)) }
    }

    /// Clamps times that are too far in the future. `ours` is the version of the local record.
    pub(super) fn clamped(self, ours: Self, now: i64) -> Self {
        let dirty = self.dirty.map(|dirty| clamped(dirty, ours.dirty, now));
        Self { dirty, updated: self.updated.map(|updated| clamped(updated, None, now)) }
    }
}

/// Returns true if two registries agree about an instance. Leases are not compared, since each
/// registry has its own.
pub(in crate::server) fn agree(ours: &Instance, theirs: &Instance) -> bool {
    state(ours) == state(theirs) && ours.metadata == theirs.metadata
}

/// Returns true if their state replaces ours. All registries that compare the same two states
/// choose the same one.
pub(in crate::server) fn replaces(theirs: &Instance, ours: &Instance) -> bool {
    let by_version = Version::of(theirs).cmp(&Version::of(ours));
    let by_state = by_version.then_with(|| state(theirs).cmp(&state(ours)));
    by_state.then_with(|| theirs.metadata.iter().cmp(ours.metadata.iter())) == Ordering::Greater
}

pub(super) fn state(instance: &Instance) -> (Option<i64>, InstanceStatus, InstanceStatus) {
    (instance.last_dirty_timestamp, instance.status, instance.overridden_status)
}
