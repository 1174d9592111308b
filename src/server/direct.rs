//! Changes of a registry without requests, for the tests of users.

use super::EurekaServer;
use super::embed::ChangeError;
use crate::model::{Instance, InstanceStatus};

impl EurekaServer {
    /// Registers an instance as of now.
    pub(crate) fn insert(&self, mut instance: Instance) -> Result<(), ChangeError> {
        // An older time than the registered one would make this registration a late repetition.
        instance.last_dirty_timestamp = None;
        self.register(instance)
    }

    /// Cancels an instance. Returns `false` if there is none.
    pub(crate) fn remove(&self, app: &str, id: &str) -> bool {
        self.cancel(app, id).is_ok()
    }

    /// Sets the override of an instance. Returns `false` if there is no such instance.
    pub(crate) fn set_status(&self, app: &str, id: &str, status: InstanceStatus) -> bool {
        self.set_override(app, id, status).is_ok()
    }
}
