//! This node, as far as the task of a peer needs it.

use std::sync::Arc;

use super::queue::Target;
use crate::model::{Instance, InstanceStatus};
use crate::server::audit;
use crate::server::outcome::{Origin, Refused, Registrant};
use crate::server::owner::Owner;
use crate::server::registry::Registry;
use crate::time::Clock;

/// This node, as far as the task of a peer needs it.
#[derive(Clone, Debug)]
pub(in crate::server) struct LocalNode {
    pub(in crate::server) registry: Arc<Registry>,
    pub(in crate::server) clock: Clock,
    /// Sent with each batch, so that a node recognises its own batches.
    pub(in crate::server) node_id: Arc<str>,
    pub(in crate::server) take_newer_copies: bool,
}

impl LocalNode {
    pub(in crate::server) fn instance(&self, target: &Target) -> Option<Instance> {
        self.registry.instance(&target.app, &target.id, self.clock.now_ms())
    }

    /// Returns the owner of an instance, if that identity registered its present version.
    pub(in crate::server) fn owner(&self, target: &Target) -> Owner {
        self.registry.certain_owner(&target.app, &target.id)
    }

    /// Adopts the peer's copy of an instance, if it is a copy of this instance, the instance is
    /// still registered, and the copy changes it.
    pub(super) fn adopt(&self, target: &Target, copy: Instance, peer: &str) -> Result<(), Refused> {
        let now = self.clock.now_ms();
        if copy.app() != &*target.app || copy.id() != &*target.id || !self.registry.is_changed_by(&copy, now) {
            return Ok(());
        }
        let status = copy.status;
        if copy.overridden_status != InstanceStatus::Unknown {
            self.registry.store_override(&target.app, &target.id, copy.overridden_status, now);
        }
        // A newer registration may have another owner, which the next heartbeat of the peer names.
        let registrant = Registrant { is_provisional: true, ..Origin::Replica.into() };
        self.registry.register(copy, registrant, now)?;
        audit::adopted(&target.app, &target.id, status, peer);
        Ok(())
    }
}
