use std::sync::Arc;

use http::HeaderValue;
use tokio::time::Instant;

use crate::cache::continuity::Continuity;
use crate::cache::local_copy::LocalCopy;
use crate::cache::lookup::equals_upper;
use crate::cache::snapshot::Snapshot;
use crate::config::OfflineConfig;
use crate::model::{ActionType, Application, Applications, Instance, InstanceStatus};
use crate::time::Moment;
use crate::transport::{Fetched, Full, Resource};

/// Copy of one resource.
#[derive(Debug)]
pub(super) struct List {
    pub(super) local: LocalCopy,
    pub(super) snapshot: Snapshot,
    pub(super) continuity: Continuity,
    /// `ETag` of the last list, and the number of changes of the copy at that time.
    etag: Option<(HeaderValue, u64)>,
    /// Time of the last response.
    pub(super) updated: Option<Moment>,
    /// Size of the last list as received, in bytes.
    pub(super) received: u64,
    pub(super) is_compressed: bool,
    /// Mean size of the latest responses. It is 0 for 304.
    pub(super) mean: u64,
}

impl List {
    fn new(offline: &OfflineConfig) -> Self {
        Self {
            local: LocalCopy::new(offline),
            snapshot: Snapshot::default(),
            continuity: Continuity::new(),
            etag: None,
            updated: None,
            received: 0,
            is_compressed: false,
            mean: 0,
        }
    }

    /// Returns a list that begins with the instances of a list that was saved earlier.
    pub(super) fn restored(offline: &OfflineConfig, resource: &Resource, saved: &Applications) -> Self {
        let mut list = Self::new(offline);
        let part = part(saved, |app, instance| lists(resource, app, instance).then(|| instance.clone()));
        if !part.applications.is_empty() {
            list.local.restore(&part);
            list.snapshot = list.local.snapshot();
        }
        list
    }

    /// Returns a list with the same instances that must be fetched completely.
    pub(super) fn without_list(&self) -> Self {
        Self {
            local: self.local.without_list(),
            snapshot: self.snapshot.clone(),
            continuity: Continuity::new(),
            etag: None,
            ..*self
        }
    }

    /// Applies a response to a request for the resource. `servers` is the number of all servers.
    pub(super) fn apply(&mut self, full: Full, servers: usize, now: Instant) {
        let is_first = self.updated.replace(Moment::now()).is_none();
        match full {
            Full::Unchanged(origin, requested) => {
                self.local.set_responder(&origin, servers);
                self.local.apply_unchanged(now);
                self.continuity.renewed(origin, requested);
                self.mean = self.mean * 4 / 5;
            }
            Full::Changed(fetched) => {
                let Fetched { list, skipped, origin, requested, digest, etag, received, is_compressed, .. } = fetched;
                self.local.set_responder(&origin, servers);
                self.local.apply_full(&list, skipped, digest, now);
                self.continuity.renewed(origin, requested);
                self.mean = match (is_first, &etag) {
                    (true, Some(_)) => 0,
                    (true, None) => received,
                    (false, _) => (self.mean * 4 + received) / 5,
                };
                self.etag = etag.map(|etag| (etag, self.local.changes()));
                (self.received, self.is_compressed) = (received, is_compressed);
            }
        }
        self.snapshot = self.local.snapshot();
    }

    /// Applies the part of a delta that concerns the resource. The caller has checked that it
    /// continues the list: the hash of a delta is that of the whole registry, and proves nothing
    /// here.
    pub(super) fn apply_delta(&mut self, resource: &Resource, delta: &Applications, now: Instant) {
        self.updated = Some(Moment::now());
        self.local.apply_part(&self.part_of(resource, delta), true, now);
        self.snapshot = self.local.snapshot();
    }

    /// Removes held instances that a delta deletes, and changes nothing else.
    pub(super) fn confirm(&mut self, resource: &Resource, delta: &Applications, now: Instant) {
        let mut part = self.part_of(resource, delta);
        for application in &mut part.applications {
            Arc::make_mut(application).instances.retain(|instance| instance.action() == Some(ActionType::Deleted));
        }
        // The list of the same refresh has counted as a response without them.
        self.local.apply_part(&part, false, now);
        self.snapshot = self.local.snapshot();
    }

    /// Returns the entries of a delta that concern the resource. An instance that has lost the VIP
    /// address is an entry that deletes it.
    fn part_of(&self, resource: &Resource, delta: &Applications) -> Applications {
        part(delta, |app, instance| {
            if lists(resource, app, instance) {
                return Some(instance.clone());
            }
            self.snapshot.instance(app, instance.id())?;
            Some(Arc::new(Instance { action: Some(ActionType::Deleted), ..Instance::clone(instance) }))
        })
    }

    /// Returns the `ETag` of the list, unless a delta has changed the copy since then.
    pub(super) fn known_etag(&self) -> Option<HeaderValue> {
        self.etag.as_ref().filter(|(_, changes)| *changes == self.local.changes()).map(|(etag, _)| etag.clone())
    }

    /// Returns `true` if each request for the list returns it completely.
    pub(super) fn is_costly(&self) -> bool {
        self.updated.is_some() && self.etag.is_none() && !self.is_empty()
    }

    pub(super) fn instances(&self) -> impl Iterator<Item = &Arc<Instance>> {
        self.snapshot.applications().flat_map(|application| &application.instances)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.instances().next().is_none()
    }

    pub(super) fn has_up(&self) -> bool {
        self.instances().any(|instance| instance.status() == InstanceStatus::Up)
    }

    /// Returns the spelling of a VIP address, which is given in upper case, by the instances.
    pub(super) fn spelling(&self, upper: &str) -> Option<Arc<str>> {
        self.instances().flat_map(|instance| instance.vips()).find(|vip| equals_upper(vip, upper)).map(Arc::from)
    }
}

/// Returns the entries of a list, by their applications. Applications without an entry are left
/// out.
fn part(list: &Applications, entry: impl Fn(&str, &Arc<Instance>) -> Option<Arc<Instance>>) -> Applications {
    let part = |application: &Arc<Application>| {
        let entries = application.instances.iter().filter_map(|instance| entry(&application.name, instance));
        let instances: Vec<_> = entries.collect();
        (!instances.is_empty()).then(|| Arc::new(Application { name: application.name.clone(), instances }))
    };
    Applications { version: None, hash: None, applications: list.applications.iter().filter_map(part).collect() }
}

/// Returns `true` if the server lists the instance under the resource. Servers compare VIP
/// addresses with case, and do not trim them.
fn lists(resource: &Resource, app: &str, instance: &Instance) -> bool {
    let has =
        |vips: &Option<Arc<str>>, vip: &str| vips.as_deref().is_some_and(|vips| vips.split(',').any(|v| v == vip));
    match resource {
        Resource::App(name) => **name == *app,
        Resource::Vip(vip) => has(&instance.vip_address, vip),
        Resource::SecureVip(vip) => has(&instance.secure_vip_address, vip),
    }
}
