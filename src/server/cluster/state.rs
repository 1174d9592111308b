//! State that the tasks of a node with peers share.

use std::sync::Arc;
use std::time::Duration;

use super::own_lease::OwnLease;
use crate::model::Instance;
use crate::server::node::Node;
use crate::server::regions::RemoteRegions;
use crate::server::replication::Replication;
use crate::server::settings::{self, Peers};

/// The part of this node in its cluster.
#[derive(Debug)]
pub(in crate::server) struct Cluster {
    pub(super) node: Arc<Node>,
    pub(super) settings: Peers,
    pub(super) own: settings::Node,
    /// Time between two heartbeats of an instance, as the registry expects it.
    pub(super) renewal_interval: Duration,
    /// Copies of other regions in this node.
    pub(super) regions: Option<Arc<RemoteRegions>>,
    pub(super) own_lease: Option<OwnLease>,
    /// Set once a peer that has more than this node was copied. Locked while peers are copied.
    pub(super) is_synced: tokio::sync::Mutex<bool>,
}

impl Cluster {
    /// Creates the cluster of a node. It registers `instance`, if any, in the node's registry.
    pub(in crate::server) fn new(
        node: Arc<Node>,
        settings: Peers,
        own: settings::Node,
        renewal_interval: Duration,
        regions: Option<Arc<RemoteRegions>>,
        instance: Option<Instance>,
    ) -> Arc<Self> {
        Arc::new(Self {
            node,
            settings,
            own,
            renewal_interval,
            regions,
            own_lease: instance.map(OwnLease::new),
            is_synced: tokio::sync::Mutex::new(false),
        })
    }

    /// Cancels the node's own lease, here and at the peers.
    pub(in crate::server) fn withdraw(&self) {
        if let Some(own) = &self.own_lease
            && self.own.unregister
        {
            own.leave(&self.node);
        }
    }

    pub(super) fn replication(&self) -> &Replication {
        self.node.replication()
    }

    /// Returns the id of the node's own instance, if it registers itself.
    pub(super) fn own_id(&self) -> Option<&str> {
        self.own_lease.as_ref().map(OwnLease::id)
    }

    /// Returns the number of leases in the registry that are this node's own.
    pub(super) fn own_leases(&self) -> usize {
        usize::from(self.own_lease.as_ref().is_some_and(OwnLease::is_present))
    }
}
