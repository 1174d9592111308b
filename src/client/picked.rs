//! The instance that was picked for an attempt, as callers see it.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use arc_swap::ArcSwap;
use http::Uri;
use http::uri::{Authority, Scheme};

use super::address::{Address, HasAddress};
use crate::model::Instance;

/// Instance that was picked for an attempt of a call by name.
///
/// It is an extension of the response of every call by name, and of the request of each attempt as
/// the service below an [`EurekaLayer`](super::EurekaLayer) receives it. Responses of a fallback
/// and of hosts that are not applications have none. Cloning it is cheap.
///
/// ```
/// use tower_eureka::client::PickedInstance;
///
/// fn log<B>(response: &http::Response<B>) {
///     if let Some(picked) = response.extensions().get::<PickedInstance>() {
///         let (id, zone) = (picked.id(), picked.zone().unwrap_or("none"));
///         println!("attempt {} at {id} ({}) in zone {zone}", picked.attempt(), picked.authority());
///     }
/// }
/// ```
#[derive(Clone)]
pub struct PickedInstance {
    listed: Arc<Listed>,
    attempt: u32,
}

impl PickedInstance {
    pub(super) fn new(endpoint: &impl HasAddress, attempt: u32) -> Self {
        Self { listed: endpoint.presence().record.load_full(), attempt }
    }

    /// Returns the instance, as it was registered when it was picked.
    pub fn instance(&self) -> &Arc<Instance> {
        &self.listed.instance
    }

    /// Returns the id of the instance.
    pub fn id(&self) -> &str {
        self.listed.instance.id()
    }

    /// Returns the id by which policies know the instance, as
    /// [`Candidates::id`](crate::balance::Candidates::id) does.
    ///
    /// It is the id of the instance. If the name that was called is not that of the instance's
    /// application, it is `APPLICATION/id`. A cookie for [`Sticky`](crate::balance::Sticky) has
    /// this value.
    pub fn endpoint(&self) -> &str {
        &self.listed.key
    }

    /// Returns the scheme by which the instance is called: `http` or `https`.
    pub fn scheme(&self) -> &Scheme {
        &self.listed.address.scheme
    }

    /// Returns the host and port at which the instance is called.
    pub fn authority(&self) -> &Authority {
        &self.listed.address.authority
    }

    /// Returns the URI of the root path of the instance.
    pub fn uri(&self) -> Uri {
        self.listed.address.uri_of(None)
    }

    /// Returns the zone of the instance, if it has one.
    pub fn zone(&self) -> Option<&str> {
        self.listed.instance.zone()
    }

    /// Returns the number of the attempt. The first attempt of a call is 1.
    pub fn attempt(&self) -> u32 {
        self.attempt
    }
}

impl fmt::Debug for PickedInstance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PickedInstance")
            .field("app", &self.listed.instance.app())
            .field("id", &self.id())
            .field("authority", self.authority())
            .field("zone", &self.zone())
            .field("attempt", &self.attempt)
            .finish()
    }
}

/// An instance as discovery listed it, with the address at which it is called.
pub(super) struct Listed {
    /// Id of the endpoint.
    pub(super) key: Arc<str>,
    pub(super) instance: Arc<Instance>,
    pub(super) address: Address,
}

/// Latest listing of an instance. It changes with the record, while the endpoint is kept.
pub(super) type Record = Arc<ArcSwap<Listed>>;

/// Records of the instances of a route, by endpoint id.
#[derive(Default)]
pub(super) struct Records(BTreeMap<Arc<str>, Record>);

impl Records {
    /// Updates the record of an endpoint. An endpoint at another address gets a new record.
    pub(super) fn update(&mut self, listed: Listed) -> Record {
        match self.0.get(&listed.key) {
            Some(record) if record.load().address == listed.address => {
                record.store(Arc::new(listed));
                record.clone()
            }
            _ => {
                let (key, record) = (listed.key.clone(), Arc::new(ArcSwap::from_pointee(listed)));
                self.0.insert(key, record.clone());
                record
            }
        }
    }

    pub(super) fn remove(&mut self, key: &str) {
        self.0.remove(key);
    }
}
