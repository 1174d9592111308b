//! End of a client.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;

use super::Eureka;
use crate::cache::RegistryCache;
use crate::client::drained;
use crate::error::{Error, Kind};

/// Default time limit for calls in flight.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(10);

impl Eureka {
    /// Closes the client: ends its tasks and connections, after the calls in flight have ended.
    /// Takes at most 10 seconds; see [`close_within`](Self::close_within).
    ///
    /// # Errors
    /// As [`close_within`](Self::close_within).
    ///
    /// # Cancel safety
    /// As [`close_within`](Self::close_within).
    pub async fn close(&self) -> Result<(), Error> {
        self.close_within(CLOSE_TIMEOUT).await
    }

    /// Closes the client as [`close`](Self::close) does, within this time. Clones are closed as
    /// well, and closing twice has no further effect.
    ///
    /// From the first poll on, further calls by name fail, and the refresh ends. The last
    /// [`snapshot`](Self::snapshot) remains. Calls in flight continue until the end of their
    /// response bodies. The connections to instances are closed once their application has no call
    /// in flight. When the time is over, the remaining calls lose nothing but their client:
    /// they still end by themselves.
    ///
    /// The [registry file](crate::EurekaBuilder::registry_file) is saved within three seconds, if
    /// the registry changed.
    ///
    /// Instances that this client has registered are deregistered, each within the
    /// [`registry_timeout`](crate::register::Registrar::registry_timeout) of its registrar, unless
    /// that was done before. Call this after [`serve`](crate::register::Registrar::serve) has
    /// returned.
    ///
    /// # Errors
    /// If calls are still in flight after this time, or an instance cannot be deregistered.
    ///
    /// # Cancel safety
    /// If the future is dropped, the client is closed, but nothing waits for the calls in flight.
    pub async fn close_within(&self, time: Duration) -> Result<(), Error> {
        let registry = self.close_registry();
        let applications = self.0.clients.close();
        let calls = drained(applications);
        let registrars = self.0.registrars.end();
        let (calls, deregistered, ()) = tokio::join!(timeout(time, calls), registrars, registry.save());
        self.0.transport.close_connections();
        deregistered?;
        calls.map_err(|_| {
            let cause = format!("calls are still in flight after {} s", time.as_secs_f64());
            Error::new(Kind::Timeout, "close client").cause(cause).advice("set a deadline for calls by name")
        })
    }

    /// Ends the refresh. A client that never started it does not start it later either.
    fn close_registry(&self) -> Arc<RegistryCache> {
        let mut registry = self.0.registry.lock();
        let reason = || Error::new(Kind::Closed, "fetch registry");
        let never_started = || RegistryCache::without_fetches(reason(), &self.0.config);
        let registry = registry.get_or_insert_with(never_started);
        registry.close();
        registry.clone()
    }
}
