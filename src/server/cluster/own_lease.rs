//! The lease of this node in its own registry. It is replicated to the peers like other leases.

use std::time::Duration;

use crate::model::Instance;
use crate::server::audit::Caller;
use crate::server::node::Node;
use crate::server::outcome::{Origin, Renewal};
use crate::sync::Mutex;

/// The node's own lease. Registration and cancellation exclude each other: the node never registers
/// again after it has left.
#[derive(Debug)]
pub(super) struct OwnLease {
    instance: Instance,
    state: Mutex<State>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Absent,
    Present,
    Left,
}

impl OwnLease {
    pub(super) fn new(instance: Instance) -> Self {
        Self { instance, state: Mutex::new(State::Absent) }
    }

    pub(super) fn id(&self) -> &str {
        self.instance.id()
    }

    /// Returns the time between two heartbeats.
    pub(super) fn interval(&self) -> Duration {
        let seconds = self.instance.lease.map_or(0, |lease| lease.renewal_interval_secs);
        Duration::from_secs(seconds.try_into().unwrap_or(0)).max(Duration::from_secs(1))
    }

    /// Returns true if the lease is in the registry.
    pub(super) fn is_present(&self) -> bool {
        *self.state.lock() == State::Present
    }

    /// Renews the lease, or registers the node if there is none.
    pub(super) fn renew(&self, node: &Node) {
        let mut state = self.state.lock();
        if *state == State::Left {
            return;
        }
        let (app, id, dirty) = (self.instance.app(), self.instance.id(), self.instance.last_dirty_timestamp);
        let known = *state == State::Present
            && matches!(node.renew(app, id, dirty, Origin::Client), Renewal::Renewed | Renewal::SenderIsOlder(_));
        if !known {
            let mut instance = self.instance.clone();
            // Otherwise a copy of an earlier run at a peer would be newer.
            instance.last_dirty_timestamp = Some(node.published_now());
            match node.register(instance, &Caller::NODE) {
                Ok(()) => *state = State::Present,
                Err(refused) => {
                    tracing::warn!(app, instance = id, error = %refused, "cannot register this node in its own registry")
                }
            }
        }
    }

    /// Cancels the lease for good.
    pub(super) fn leave(&self, node: &Node) {
        let mut state = self.state.lock();
        if std::mem::replace(&mut *state, State::Left) == State::Present {
            node.cancel(self.instance.app(), self.instance.id(), &Caller::NODE);
        }
    }
}
