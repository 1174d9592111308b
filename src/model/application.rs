use std::sync::Arc;

use super::{Instance, InstanceStatus, StatusCounts};

/// Application: all instances of one name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Application {
    /// Name in upper case.
    pub name: Arc<str>,
    /// Instances, in the order of the server's list.
    pub instances: Vec<Arc<Instance>>,
}

impl Application {
    /// Returns the instance with this id.
    pub fn instance(&self, id: &str) -> Option<&Arc<Instance>> {
        self.instances.iter().find(|i| i.id() == id)
    }

    /// Iterates over the instances with status [`Up`](InstanceStatus::Up), which accept calls.
    pub fn up(&self) -> impl Iterator<Item = &Arc<Instance>> {
        self.instances.iter().filter(|i| i.status() == InstanceStatus::Up)
    }
}

/// List of applications as a registry sends it: the full registry, a delta, or the matches of a
/// VIP.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Applications {
    /// Version of the list: 1 in a full list, a counter in a delta, -1 for a VIP. `None` if the
    /// server sent none.
    pub version: Option<i64>,
    /// Apps hash that the server computed over its *whole* registry, see [`StatusCounts`].
    pub hash: Option<Arc<str>>,
    /// Applications, in the order of the server's list.
    pub applications: Vec<Arc<Application>>,
}

impl Applications {
    /// Counts the instances by status.
    pub fn counts(&self) -> StatusCounts {
        self.applications.iter().flat_map(|a| &a.instances).map(|i| i.status()).collect()
    }

    /// Returns the number of instances.
    pub fn len(&self) -> usize {
        self.applications.iter().map(|a| a.instances.len()).sum()
    }

    /// Returns `true` if the list has no instance.
    pub fn is_empty(&self) -> bool {
        self.applications.iter().all(|a| a.instances.is_empty())
    }
}
