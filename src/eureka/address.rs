//! Lookup of host names.

use std::sync::Arc;

use super::EurekaBuilder;
use crate::connect::{Names, Resolve};

impl EurekaBuilder {
    /// Sets the resolver of host names, both of instances and of registry servers. Defaults to the
    /// resolver of the operating system.
    ///
    /// It has no effect on connections that services of the user establish: those of
    /// [`http_service`](Self::http_service), and those below an
    /// [`EurekaLayer`](crate::client::EurekaLayer).
    pub fn resolver(mut self, resolver: impl Resolve) -> Self {
        self.config.names = Arc::new(Names::new(Arc::new(resolver)));
        self.config.servers.names = self.config.names.clone();
        self
    }
}
