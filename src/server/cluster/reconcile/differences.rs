//! Differences between the list of a peer and the registry of this node.

use std::sync::Arc;

use crate::model::{Instance, LeaseInfo};
use crate::server::node::Node;
use crate::server::registry::{Version, agree};
use crate::server::replication::Target;

/// An instance whose state in the list of a peer differs from this node's.
#[derive(Clone)]
pub(super) struct Difference {
    pub(super) target: Arc<Target>,
    /// Version of the state in which the instance was cancelled at the peer.
    pub(super) tombstone: Option<Version>,
    /// This node has neither the instance nor a tombstone of it.
    pub(super) is_new: bool,
}

impl Difference {
    /// Compares an instance in the list of a peer, or its tombstone, with the registry of this
    /// node. Returns `None` if there is nothing to resolve.
    pub(super) fn of(theirs: &Instance, tombstone: Option<Version>, node: &Node) -> Option<Self> {
        let (registry, now) = (node.registry(), node.now());
        let ours = registry.instance(theirs.app(), theirs.id(), now);
        let is_new = ours.is_none() && registry.tombstone(theirs.app(), theirs.id()).is_none();
        let differs = match (ours, tombstone) {
            (Some(ours), None) => !agree(&ours, theirs),
            (Some(ours), Some(tombstone)) => was_cancelled(theirs) && tombstone >= Version::of(&ours),
            // A list does not show whether the lease runs. The single instance does.
            (None, tombstone) => tombstone.is_none(),
        };
        differs.then(|| Self {
            target: Arc::new(Target { app: theirs.app.clone(), id: theirs.shared_id() }),
            tombstone,
            is_new,
        })
    }

    /// Returns a possible difference: the peer did not receive the last changes of the instance.
    pub(super) fn possible(target: Arc<Target>) -> Self {
        Self { target, tombstone: None, is_new: false }
    }
}

/// Returns true if the lease of the instance runs, by the times of the registry that shows it.
pub(super) fn is_alive(instance: &Instance, now: i64) -> bool {
    lease_end(instance).is_none_or(|end| now <= end)
}

/// Returns true if an instance in a delta left while its lease ran, so that it was not evicted.
fn was_cancelled(instance: &Instance) -> bool {
    instance.last_updated_timestamp.is_some_and(|at| is_alive(instance, at))
}

fn lease_end(instance: &Instance) -> Option<i64> {
    let lease = instance.lease?;
    let seconds = if lease.duration_secs > 0 { lease.duration_secs } else { LeaseInfo::DEFAULT_DURATION_SECS };
    Some(lease.last_renewal_timestamp.saturating_add(i64::from(seconds) * 1000))
}
