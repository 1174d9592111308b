//! The node as an instance of its own registry, from where its peers are told of it.

use std::time::Duration;

use crate::model::{Instance, InvalidInstance, LeaseInfo, app_name};
use crate::server::Error;
use crate::server::audit::Caller;
use crate::server::node::Node;
use crate::server::outcome::{Origin, Renewal};
use crate::sync::Mutex;

/// What Spring calls an application without a name.
const NO_NAME: &str = "UNKNOWN";
/// Names that stand for something else in the paths and caches of a registry.
const RESERVED: [&str; 3] = ["DELTA", "ALL_APPS", "ALL_APPS_DELTA"];

/// How the node is described.
#[derive(Clone, Debug)]
pub(super) struct Own {
    pub(super) app: String,
    pub(super) id: Option<String>,
    pub(super) host_name: Option<String>,
    pub(super) ip_addr: Option<String>,
    pub(super) port: Option<u16>,
    pub(super) renewal_interval: Duration,
    pub(super) lease_duration: Duration,
}

impl Default for Own {
    fn default() -> Self {
        Self {
            app: NO_NAME.into(),
            id: None,
            host_name: None,
            ip_addr: None,
            port: None,
            renewal_interval: Duration::from_secs(LeaseInfo::DEFAULT_RENEWAL_INTERVAL_SECS as u64),
            lease_duration: Duration::from_secs(LeaseInfo::DEFAULT_DURATION_SECS as u64),
        }
    }
}

impl Own {
    /// The node as an instance; `None` without a port, with which it could not be reached.
    pub(super) fn instance(&self, now: i64) -> Result<Option<Instance>, Error> {
        let Some(port) = self.port else { return Ok(None) };
        if !is_usable(&self.app) {
            return Err(Error::setting("own_app", "must be a name without slashes and control characters"));
        }
        self.described(port, now).map(Some).map_err(Error::own_instance)
    }

    fn described(&self, port: u16, now: i64) -> Result<Instance, InvalidInstance> {
        let mut builder = Instance::builder(NO_NAME)
            .port(port)
            .renewal_interval(self.renewal_interval)
            .lease_duration(self.lease_duration)
            .vip_address(self.app.to_lowercase())
            .secure_vip_address(self.app.to_lowercase());
        if let Some(name) = &self.host_name {
            builder = builder.host_name(name);
        }
        if let Some(address) = &self.ip_addr {
            builder = builder.ip_addr(address);
        }
        let described = builder.clone().build()?;
        let ip = described.ip_addr().unwrap_or_default();
        let id = self.id.clone().unwrap_or_else(|| match &*self.app {
            NO_NAME => format!("{ip}:{port}"),
            app => format!("{ip}:{}:{port}", app.to_lowercase()),
        });
        let mut instance = builder.id(id).build()?;
        // Wider than the name of a provider: Spring servers have names with blanks.
        instance.app = app_name(&self.app);
        instance.last_dirty_timestamp = Some(now);
        instance.last_updated_timestamp = Some(now);
        Ok(instance)
    }
}

/// Returns true if a registry can keep an application of this name and a path can carry it.
fn is_usable(app: &str) -> bool {
    !app.trim().is_empty()
        && !app.contains(['/', '\\'])
        && !app.chars().any(char::is_control)
        && !RESERVED.iter().any(|reserved| app.eq_ignore_ascii_case(reserved))
}

/// The node's own lease. Registering and leaving exclude each other: nothing registers it after it left.
#[derive(Debug)]
pub(super) struct OwnLease {
    instance: Instance,
    state: Mutex<State>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Absent,
    Present,
    Left,
}

impl OwnLease {
    pub(super) fn new(instance: Instance) -> Self {
        Self { instance, state: Mutex::new(State::Absent) }
    }

    pub(super) fn id(&self) -> &str {
        self.instance.id()
    }

    pub(super) fn interval(&self) -> Duration {
        let seconds = self.instance.lease.map_or(0, |lease| lease.renewal_interval_secs);
        Duration::from_secs(seconds.try_into().unwrap_or(0)).max(Duration::from_secs(1))
    }

    /// Returns true if the registry has it.
    pub(super) fn is_present(&self) -> bool {
        *self.state.lock() == State::Present
    }

    /// Registers, or renews the registration.
    pub(super) fn renew(&self, node: &Node) {
        let mut state = self.state.lock();
        if *state == State::Left {
            return;
        }
        let (app, id, dirty) = (self.instance.app(), self.instance.id(), self.instance.last_dirty_timestamp);
        let known = *state == State::Present
            && matches!(node.renew(app, id, dirty, Origin::Client), Renewal::Renewed | Renewal::SenderIsOlder(_));
        if !known {
            let mut instance = self.instance.clone();
            // A copy of an earlier run that a peer still has must not win.
            instance.last_dirty_timestamp = Some(node.published_now());
            match node.register(instance, Caller::NODE) {
                Ok(()) => *state = State::Present,
                Err(refused) => {
                    tracing::warn!(app, instance = id, error = %refused, "this node cannot register itself")
                }
            }
        }
    }

    pub(super) fn leave(&self, node: &Node) {
        let mut state = self.state.lock();
        if std::mem::replace(&mut *state, State::Left) == State::Present {
            node.cancel(self.instance.app(), self.instance.id(), Caller::NODE);
        }
    }
}
