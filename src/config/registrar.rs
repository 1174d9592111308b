use std::time::Duration;

use crate::model::InstanceStatus;

/// Settings of a registration. Each is documented at the setter on
/// [`Registrar`](crate::register::Registrar).
#[derive(Clone, Debug)]
pub(crate) struct RegistrarConfig {
    pub(crate) initial_status: Option<InstanceStatus>,
    pub(crate) enabled_on_start: bool,
    pub(crate) health_sets_status: bool,
    /// Value of `eureka.client.healthcheck.enabled`, if it is set.
    pub(crate) health_key: Option<bool>,
    pub(crate) update_interval: Duration,
    pub(crate) enforce_registration: bool,
    pub(crate) unregister_on_shutdown: bool,
}

impl Default for RegistrarConfig {
    fn default() -> Self {
        Self {
            initial_status: None,
            enabled_on_start: false,
            health_sets_status: true,
            health_key: None,
            update_interval: Duration::from_secs(30),
            enforce_registration: false,
            unregister_on_shutdown: true,
        }
    }
}
