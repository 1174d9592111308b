//! Questions about the registry: readiness, status, instances and events.

use std::sync::Arc;

use tokio_stream::StreamExt;

use super::Eureka;
use crate::balance;
use crate::cache::{RegistryEvents, RegistryStatus, Snapshot};
use crate::discover::{EurekaDiscover, Selection};
use crate::error::Error;
use crate::model::{Application, Instance};

impl Eureka {
    /// Waits until the registry was fetched, and returns it. Starts the refresh if nothing else has
    /// started it.
    ///
    /// Waits without a limit while no registry server responds; put a
    /// [`timeout`](tokio::time::timeout) around it if the process has to start anyway.
    /// [`status`](Self::status) returns the error meanwhile.
    ///
    /// ```no_run
    /// # async fn example(eureka: tower_eureka::Eureka) -> Result<(), tower_eureka::Error> {
    /// let registry = eureka.ready().await?;
    /// println!("{} instances", registry.instance_count());
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// If a setting switches fetches off, or the client is [closed](Self::close).
    ///
    /// # Panics
    /// Outside a tokio runtime.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn ready(&self) -> Result<Arc<Snapshot>, Error> {
        self.registry().loaded().await
    }

    /// Waits until there is an instance of an application, and returns its instances. A plain text
    /// is looked up like the host of a call by name; see [`Selection::name`].
    ///
    /// Waits without a limit, as [`ready`](Self::ready) does.
    ///
    /// # Errors
    /// If the selection can never match an instance, a setting switches fetches off, or the client
    /// is [closed](Self::close).
    ///
    /// # Panics
    /// Outside a tokio runtime.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn ready_for(&self, selection: impl Into<Selection>) -> Result<Vec<Arc<Instance>>, Error> {
        let selection = selection.into();
        selection.check()?;
        let registry = self.registry();
        let mut changes = EurekaDiscover::new(registry.clone(), selection.clone());
        loop {
            if registry.is_closed() {
                return Err(registry.ended());
            }
            let instances = selection.instances(&registry.snapshot());
            if !instances.is_empty() {
                return Ok(instances);
            }
            tokio::select! {
                // The stream never ends.
                _ = changes.next() => {}
                () = registry.wait_for_end() => return Err(registry.ended()),
            }
        }
    }

    /// Refreshes the registry now and returns it, so that changes before this call are part of it.
    ///
    /// Concurrent calls share one request. The timer of the refresh starts anew. Registry servers
    /// may cache their lists for some seconds, as Java servers do for up to 30.
    ///
    /// # Errors
    /// If the refresh fails, a setting switches fetches off, or the client is
    /// [closed](Self::close). The snapshot then remains as it was.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    ///
    /// # Cancel safety
    /// If the future is dropped, the refresh continues in the background.
    pub async fn refresh(&self) -> Result<Arc<Snapshot>, Error> {
        self.registry().refresh().await
    }

    /// Returns the status of the registry: its age, the server in use, the last error, and the
    /// numbers of applications, instances and refreshes. Prints as a table.
    ///
    /// Never waits, and never starts the refresh.
    pub fn status(&self) -> RegistryStatus {
        let registry = self.0.registry.lock().clone();
        RegistryStatus::of(registry.as_deref(), self.registry_servers())
    }

    /// Returns the instances of an application that are UP. A plain text is looked up like the host
    /// of a call by name; see [`Selection::name`]. Pass a [`Selection`] for other statuses, or to
    /// filter instances.
    ///
    /// Never waits. The result is empty until the registry was fetched, and for a name that no
    /// application can have. Starts the refresh if nothing else has started it.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn instances(&self, selection: impl Into<Selection>) -> Vec<Arc<Instance>> {
        let (selection, registry) = (selection.into(), self.registry());
        if selection.check().is_ok() {
            selection.lookups().iter().for_each(|lookup| registry.record_use(lookup));
        }
        selection.instances(&registry.snapshot())
    }

    /// Returns all applications in order of their names, with their instances of any status.
    ///
    /// Never waits. The result is empty until the registry was fetched. Starts the refresh if
    /// nothing else has started it.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn applications(&self) -> Vec<Arc<Application>> {
        self.snapshot().applications().cloned().collect()
    }

    /// Returns the changes of all applications as a stream, together with the successes and
    /// failures of the refresh. [`discover`](Self::discover) is the stream of one application.
    ///
    /// ```no_run
    /// # async fn example(eureka: tower_eureka::Eureka) {
    /// use tokio_stream::StreamExt;
    ///
    /// let mut events = eureka.events();
    /// while let Some(event) = events.next().await {
    ///     println!("{event}"); // added ORDERS orders-1 UP
    /// }
    /// # }
    /// ```
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn events(&self) -> RegistryEvents {
        RegistryEvents::new(self.registry())
    }

    /// Prepares calls to these applications, so that the first call does not wait: starts the
    /// refresh, and the discovery and the balancer of each application in all HTTP clients and
    /// layers of this client, also in those that are created later.
    ///
    /// Never waits. [`ready_for`](Self::ready_for) waits for an instance. No connection is opened.
    ///
    /// # Errors
    /// If no application can have one of the names. The others are prepared nevertheless.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn preload(&self, names: impl IntoIterator<Item = impl AsRef<str>>) -> Result<(), Error> {
        let registry = self.registry();
        let (mut valid, mut result) = (Vec::new(), Ok(()));
        for name in names {
            match Selection::name(&name).check() {
                Ok(()) => {
                    Selection::name(&name).lookups().iter().for_each(|lookup| registry.keep(lookup));
                    valid.push(name.as_ref().into());
                }
                Err(error) => result = result.and(Err(error)),
            }
        }
        self.0.clients.preload(valid);
        result
    }

    /// Returns the registry as it was last fetched, without starting the refresh.
    pub(crate) fn fetched_snapshot(&self) -> Arc<Snapshot> {
        let registry = self.0.registry.lock().clone();
        registry.map(|registry| registry.snapshot()).unwrap_or_default()
    }

    /// Returns the snapshots of the balancers of each HTTP client, channel and layer that still
    /// exists, in the order of their creation.
    pub fn snapshots(&self) -> Vec<Vec<balance::Snapshot>> {
        self.0.clients.snapshots()
    }
}
