//! Changes of the registry by the application around it, without requests.
//!
//! They take the path of a request after its body was decoded: the same validation, the same
//! operations of the [`Node`](super::node::Node), so the same audit lines, events and replication.

use std::fmt;

use super::audit::Caller;
use super::events::ServerEvents;
use super::http::{Invalid, valid};
use super::outcome::{Origin, Refused, Renewal};
use super::{EurekaServer, http};
use crate::model::{Instance, InstanceStatus, MAX_METADATA_ENTRIES, app_name};
use crate::untrusted::Quoted;

/// The operations of the REST interface without requests, for the application that the registry is
/// part of. Names of applications may be in any case.
///
/// A change is validated, logged, and replicated to the peers like that of a request. Access
/// control and rate limits do not apply to it. No method waits for IO.
///
/// ```
/// use tokio_stream::StreamExt;
/// use tower_eureka::model::InstanceStatus;
/// use tower_eureka::server::ServerEvent;
/// use tower_eureka::{EurekaServer, Instance};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let registry = EurekaServer::builder().build()?;
/// let mut events = registry.events();
/// registry.register(Instance::builder("orders").id("orders-1").ip_addr("10.0.0.1").port(80).build()?)?;
/// registry.set_override("orders", "orders-1", InstanceStatus::OutOfService)?;
/// registry.cancel("orders", "orders-1")?;
/// assert!(registry.renew("orders", "orders-1").is_err_and(|error| error.is_not_found()));
///
/// let Some(ServerEvent::Registered { instance, is_new: true, .. }) = events.next().await else { panic!() };
/// assert_eq!(instance.id(), "orders-1");
/// assert!(matches!(events.next().await, Some(ServerEvent::Overridden { .. })));
/// assert!(matches!(events.next().await, Some(ServerEvent::Cancelled { replicated: false, .. })));
/// # Ok(())
/// # }
/// ```
impl EurekaServer {
    /// Registers an instance, or replaces the data of a registered one, as `POST apps/{APP}` does.
    ///
    /// An instance whose `lastDirtyTimestamp` is older than the registered one changes nothing but
    /// the lease. One that was built without it counts as new. Its lease expires unless it is
    /// [renewed](Self::renew).
    ///
    /// # Errors
    /// Fails if the instance is invalid, or if a limit of the registry refuses it.
    pub fn register(&self, instance: Instance) -> Result<(), ChangeError> {
        let (app, id) = (instance.app().to_owned(), instance.id().to_owned());
        let error = |kind| ChangeError::new("register", &app, &id, kind);
        if instance.metadata().iter().nth(MAX_METADATA_ENTRIES).is_some() {
            return Err(error(Kind::Invalid(too_many_entries())));
        }
        let instance = valid(instance, &app).map_err(|invalid| {
            error(Kind::Invalid(match invalid {
                Invalid::Unreadable => "unknown data center name, use MyOwn or Amazon".to_owned(),
                Invalid::Text(text) => text,
            }))
        })?;
        self.state.node().register(instance, &Caller::PROCESS).map_err(|refused| error(Kind::Refused(refused)))
    }

    /// Renews the lease of an instance, as a heartbeat does.
    ///
    /// # Errors
    /// Fails if the instance has no lease, or has the status UNKNOWN. Then it must be registered.
    pub fn renew(&self, app: &str, id: &str) -> Result<(), ChangeError> {
        match self.state.node().renew(&app_name(app), id, None, Origin::Client) {
            Renewal::NotFound => Err(self.absent("renew", app, id)),
            Renewal::Renewed | Renewal::SenderIsNewer | Renewal::SenderIsOlder(_) => Ok(()),
        }
    }

    /// Cancels the lease of an instance, as `DELETE apps/{APP}/{ID}` does.
    ///
    /// # Errors
    /// Fails if there is no such instance.
    pub fn cancel(&self, app: &str, id: &str) -> Result<(), ChangeError> {
        let found = self.state.node().cancel(&app_name(app), id, &Caller::PROCESS);
        self.found(found, "cancel", app, id)
    }

    /// Sets a status that overrides the one of the instance, until
    /// [`clear_override`](Self::clear_override) or the end of its lease.
    ///
    /// # Errors
    /// Fails if there is no such instance, or if the status is UNKNOWN.
    pub fn set_override(&self, app: &str, id: &str, status: InstanceStatus) -> Result<(), ChangeError> {
        const ACTION: &str = "override the status of";
        if status == InstanceStatus::Unknown {
            return Err(ChangeError::new(ACTION, app, id, Kind::Invalid(http::UNKNOWN_OVERRIDE.to_owned())));
        }
        let found = self.state.node().set_override(&app_name(app), id, status, None, &Caller::PROCESS);
        self.found(found, ACTION, app, id)
    }

    /// Removes the override of the status. Does nothing without one.
    ///
    /// Lists show the status `until_registered` until the instance registers again. With UNKNOWN
    /// its next heartbeat is refused, after which clients register immediately.
    ///
    /// # Errors
    /// Fails if there is no such instance.
    pub fn clear_override(&self, app: &str, id: &str, until_registered: InstanceStatus) -> Result<(), ChangeError> {
        let found = self.state.node().delete_override(&app_name(app), id, until_registered, None, &Caller::PROCESS);
        self.found(found, "clear the override of", app, id)
    }

    /// Adds entries to the metadata of an instance, or replaces those with the same keys. They last
    /// until the instance registers again.
    ///
    /// # Errors
    /// Fails if there is no such instance, or if its metadata would exceed a limit.
    pub fn set_metadata<K: Into<String>, V: Into<String>>(
        &self,
        app: &str,
        id: &str,
        entries: impl IntoIterator<Item = (K, V)>,
    ) -> Result<(), ChangeError> {
        const ACTION: &str = "change the metadata of";
        let entries = entries.into_iter().map(|(key, value)| (key.into(), value.into()));
        let entries: Vec<(String, String)> = entries.take(MAX_METADATA_ENTRIES + 1).collect();
        if entries.len() > MAX_METADATA_ENTRIES {
            return Err(ChangeError::new(ACTION, app, id, Kind::Invalid(too_many_entries())));
        }
        match self.state.node().merge_metadata(&app_name(app), id, entries, &Caller::PROCESS) {
            Ok(found) => self.found(found, ACTION, app, id),
            Err(refused) => Err(ChangeError::new(ACTION, app, id, Kind::Refused(refused))),
        }
    }

    /// Returns the stream of the events of this registry from now on.
    ///
    /// The changes of requests, peers, timers and of this process are events alike. Without a
    /// stream they cost nothing.
    pub fn events(&self) -> ServerEvents {
        self.registry().subscribe()
    }

    fn found(&self, found: bool, action: &'static str, app: &str, id: &str) -> Result<(), ChangeError> {
        if found { Ok(()) } else { Err(self.absent(action, app, id)) }
    }

    fn absent(&self, action: &'static str, app: &str, id: &str) -> ChangeError {
        let region = self.state.region_of(&app_name(app), id);
        ChangeError::new(action, app, id, Kind::NotFound { region })
    }
}

fn too_many_entries() -> String {
    format!("more than {MAX_METADATA_ENTRIES} metadata entries")
}

/// Reason why the registry did not make a change. Returned by [`EurekaServer::register`] and the
/// other changes without a request.
pub struct ChangeError {
    action: &'static str,
    app: String,
    id: String,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    NotFound {
        /// Other region in which the instance is registered.
        region: Option<String>,
    },
    Invalid(String),
    Refused(Refused),
}

impl ChangeError {
    fn new(action: &'static str, app: &str, id: &str, kind: Kind) -> Self {
        Self { action, app: app_name(app).to_string(), id: id.to_owned(), kind }
    }

    /// Returns true if the instance has no lease in this registry.
    pub fn is_not_found(&self) -> bool {
        matches!(self.kind, Kind::NotFound { .. })
    }

    /// Returns true if the change is invalid in any registry.
    pub fn is_invalid(&self) -> bool {
        matches!(self.kind, Kind::Invalid(_))
    }

    /// Returns true if a limit of this registry refused the change. It may succeed later if the
    /// registry was full.
    pub fn is_limit(&self) -> bool {
        matches!(self.kind, Kind::Refused(_))
    }
}

impl fmt::Display for ChangeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { action, app, id, kind } = self;
        write!(f, "cannot {action} {}/{}: ", Quoted(app), Quoted(id))?;
        match kind {
            Kind::NotFound { region: None } => f.write_str("the registry has no such instance; register it first"),
            Kind::NotFound { region: Some(region) } => {
                write!(f, "it is registered in the region {}; change it at a registry there", Quoted(region))
            }
            Kind::Invalid(reason) => f.write_str(reason),
            Kind::Refused(refused) => refused.fmt(f),
        }
    }
}

impl fmt::Debug for ChangeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ChangeError").field(&self.to_string()).finish()
    }
}

impl std::error::Error for ChangeError {}
