use std::sync::Arc;

use super::{DecodeError, Instance, InstanceStatus, StatusCounts};

/// The instances of one name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Application {
    /// Upper case.
    pub name: Arc<str>,
    /// In the order in which the server listed them.
    pub instances: Vec<Arc<Instance>>,
}

impl Application {
    /// The instance with this id.
    pub fn instance(&self, id: &str) -> Option<&Arc<Instance>> {
        self.instances.iter().find(|i| i.id() == id)
    }

    /// The instances that take calls.
    pub fn up(&self) -> impl Iterator<Item = &Arc<Instance>> {
        self.instances.iter().filter(|i| i.status() == InstanceStatus::Up)
    }

    /// Reads one from its JSON document, `{"application": {...}}`.
    ///
    /// # Errors
    /// When the bytes are not JSON, the wrapper or the name is missing, or an instance has no id.
    pub fn from_json(body: &[u8]) -> Result<Self, DecodeError> {
        super::decode::application_document(body)
    }

    /// Its JSON document, `{"application": {...}}`, as a Java server writes it.
    pub fn to_json(&self) -> Vec<u8> {
        super::encode::application_document(self)
    }
}

/// A list of applications as a server answers it: the whole registry, what changed lately, or what matched a VIP.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Applications {
    /// 1 in a full answer, a counter in a delta, -1 for a VIP; `None` if the server sent none.
    pub version: Option<i64>,
    /// The apps hash that the server computed, of its *whole* registry; see [`StatusCounts`].
    pub hash: Option<Arc<str>>,
    /// In the order in which the server listed them.
    pub applications: Vec<Arc<Application>>,
}

impl Applications {
    /// Reads them from their JSON document, `{"applications": {...}}`.
    ///
    /// # Errors
    /// When the bytes are not JSON, the wrapper is missing, an application has no name, or an instance no id.
    pub fn from_json(body: &[u8]) -> Result<Self, DecodeError> {
        super::decode::applications_document(body)
    }

    /// Their JSON document, `{"applications": {...}}`, as a Java server writes it.
    pub fn to_json(&self) -> Vec<u8> {
        super::encode::applications_document(self)
    }

    /// How many instances of each status they hold.
    pub fn counts(&self) -> StatusCounts {
        self.applications.iter().flat_map(|a| &a.instances).map(|i| i.status()).collect()
    }

    /// How many instances they hold.
    pub fn len(&self) -> usize {
        self.applications.iter().map(|a| a.instances.len()).sum()
    }

    /// Whether they hold no instance.
    pub fn is_empty(&self) -> bool {
        self.applications.iter().all(|a| a.instances.is_empty())
    }
}
