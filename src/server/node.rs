//! The registry together with the peers that are told of its changes. Requests and the node's own lease come in here; the core knows
//! of no peers.
//!
//! A change that a client made is told to every peer, once it is in the registry; what a peer told is told to nobody.
//! `server-behaviour` 8.3.

use std::sync::Arc;
use std::time::Duration;

#[cfg(feature = "peers")]
use super::peers::Peers;
use super::registry::{Origin, Refused, Registry, Renewal};
use crate::clock::Clock;
use crate::model::{Instance, InstanceStatus, ReplicationAction};

#[derive(Debug)]
pub(super) struct Node {
    registry: Arc<Registry>,
    clock: Clock,
    #[cfg(feature = "peers")]
    peers: Peers,
}

impl Node {
    pub(super) fn new(registry: Arc<Registry>, clock: Clock, #[cfg(feature = "peers")] peers: Peers) -> Self {
        Self {
            registry,
            clock,
            #[cfg(feature = "peers")]
            peers,
        }
    }

    pub(super) fn registry(&self) -> &Arc<Registry> {
        &self.registry
    }

    #[cfg(feature = "peers")]
    pub(super) fn clock(&self) -> Clock {
        self.clock
    }

    pub(super) fn now(&self) -> i64 {
        self.clock.now_ms()
    }

    #[cfg(feature = "peers")]
    pub(super) fn peers(&self) -> &Peers {
        &self.peers
    }

    pub(super) fn uptime(&self) -> Duration {
        self.clock.elapsed()
    }

    /// Whether lists are answered. Not before they are worth believing. `server-behaviour` 9.4.
    pub(super) fn is_open(&self) -> bool {
        #[cfg(feature = "peers")]
        return self.peers.is_open();
        #[cfg(not(feature = "peers"))]
        true
    }

    pub(super) fn register(&self, instance: Instance, origin: Origin) -> Result<(), Refused> {
        let (app, id) = (instance.app.clone(), Arc::<str>::from(instance.id()));
        self.registry.register(instance, origin, self.now())?;
        self.tell(origin, ReplicationAction::Register, &app, &id, None);
        Ok(())
    }

    /// A heartbeat is told also where its sender is going to be asked for a registration: there is a lease.
    pub(super) fn renew(&self, app: &str, id: &str, dirty: Option<i64>, origin: Origin) -> Renewal {
        let renewal = self.registry.renew(app, id, dirty, origin, self.now());
        if renewal != Renewal::NotFound {
            self.tell(origin, ReplicationAction::Heartbeat, app, id, None);
        }
        renewal
    }

    pub(super) fn cancel(&self, app: &str, id: &str, origin: Origin) -> bool {
        let found = self.registry.cancel(app, id, self.now());
        if found {
            self.tell(origin, ReplicationAction::Cancel, app, id, None);
        }
        found
    }

    pub(super) fn set_override(
        &self,
        app: &str,
        id: &str,
        status: InstanceStatus,
        dirty: Option<i64>,
        origin: Origin,
    ) -> bool {
        let found = self.registry.set_override(app, id, status, dirty, self.now());
        if found {
            self.tell(origin, ReplicationAction::StatusUpdate, app, id, Some(status));
        }
        found
    }

    pub(super) fn delete_override(
        &self,
        app: &str,
        id: &str,
        status: InstanceStatus,
        dirty: Option<i64>,
        origin: Origin,
    ) -> bool {
        let found = self.registry.delete_override(app, id, status, dirty, self.now());
        if found {
            self.tell(origin, ReplicationAction::DeleteStatusOverride, app, id, Some(status));
        }
        found
    }

    /// Metadata travels as a registration, and counts as a client's whatever the request says, as in Java.
    pub(super) fn merge_metadata(&self, app: &str, id: &str, entries: Vec<(String, String)>) -> Result<bool, Refused> {
        let found = self.registry.merge_metadata(app, id, entries, self.now())?;
        if found {
            self.tell(Origin::Client, ReplicationAction::Register, app, id, None);
        }
        Ok(found)
    }

    #[cfg(feature = "peers")]
    fn tell(&self, origin: Origin, action: ReplicationAction, app: &str, id: &str, status: Option<InstanceStatus>) {
        if origin == Origin::Client {
            self.peers.tell(action, app, id, status);
        }
    }

    #[cfg(not(feature = "peers"))]
    #[allow(clippy::unused_self, reason = "there is nobody to tell without the feature `peers`")]
    fn tell(&self, _: Origin, _: ReplicationAction, _: &str, _: &str, _: Option<InstanceStatus>) {}
}
