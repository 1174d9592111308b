//! Changes of a registry without requests, for the tests of users.

use http::Extensions;

use super::EurekaServer;
use super::audit::Caller;
use super::outcome::Origin;
use crate::model::{Instance, InstanceStatus, app_name};

impl EurekaServer {
    /// Registers an instance as of now. Returns the reason if a limit of the registry refuses it.
    pub(crate) fn insert(&self, mut instance: Instance) -> Result<(), String> {
        // An older time than the registered one would make this registration a late repetition.
        instance.last_dirty_timestamp = None;
        self.state.node().register(instance, caller()).map_err(|refused| refused.to_string())
    }

    /// Cancels an instance. Returns `false` if there is none.
    pub(crate) fn remove(&self, app: &str, id: &str) -> bool {
        self.state.node().cancel(&app_name(app), id, caller())
    }

    /// Sets the override of an instance. Returns `false` if there is no such instance.
    pub(crate) fn set_status(&self, app: &str, id: &str, status: InstanceStatus) -> bool {
        self.state.node().set_override(&app_name(app), id, status, None, caller())
    }
}

fn caller() -> Caller {
    Caller::of(Origin::Client, &Extensions::new())
}
