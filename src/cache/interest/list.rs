use std::sync::Arc;
use std::time::Duration;

use http::HeaderValue;
use tokio::time::Instant;

use crate::cache::continuity::Continuity;
use crate::cache::held::lease_of;
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
    /// Old instances, which are used if the first fetch fails.
    old: Option<Snapshot>,
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
            old: None,
            continuity: Continuity::new(),
            etag: None,
            updated: None,
            received: 0,
            is_compressed: false,
            mean: 0,
        }
    }

    /// Returns a list that begins with instances that were fetched earlier.
    ///
    /// Those that would not be held so long are old: nothing is known about them but that there
    /// were such instances. They are used only if the first fetch fails.
    pub(super) fn restored(offline: &OfflineConfig, resource: &Resource, earlier: &[Earlier]) -> Self {
        let select = |is_used: &dyn Fn(&Instance, Duration) -> bool| {
            let of_application = |Earlier { application, fetched }: &Earlier| {
                let age = fetched.elapsed();
                let is_used = |i: &Arc<Instance>| lists(resource, &application.name, i) && is_used(i, age);
                part(application, |instance| is_used(instance).then(|| instance.clone()))
            };
            let applications = earlier.iter().filter_map(of_application).collect();
            Applications { version: None, hash: None, applications }
        };
        let is_recent = |instance: &Instance, age| {
            let lease = lease_of(instance);
            age <= offline.disappearance.hold_of(lease).max(lease)
        };
        let (all, recent) = (select(&|_, _| true), select(&is_recent));
        let mut list = Self::new(offline);
        if recent.len() < all.len() {
            let mut copy = LocalCopy::new(offline);
            copy.restore(&all);
            list.old = Some(copy.snapshot());
        }
        if !recent.is_empty() {
            list.local.restore(&recent);
            list.snapshot = list.local.snapshot();
        }
        list
    }

    /// Uses old instances, since the list could not be fetched.
    pub(super) fn use_old(&mut self) {
        if let Some(old) = self.old.take().filter(|_| self.updated.is_none()) {
            self.snapshot = old;
        }
    }

    /// Returns a list with the same instances that must be fetched completely.
    pub(super) fn without_list(&self) -> Self {
        Self {
            local: self.local.without_list(),
            snapshot: self.snapshot.clone(),
            old: self.old.clone(),
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
        let entry = |app: &str, instance: &Arc<Instance>| {
            if lists(resource, app, instance) {
                return Some(instance.clone());
            }
            self.snapshot.instance(app, instance.id())?;
            Some(Arc::new(Instance { action: Some(ActionType::Deleted), ..Instance::clone(instance) }))
        };
        let applications = delta.applications.iter();
        let applications = applications.filter_map(|app| part(app, |instance| entry(&app.name, instance))).collect();
        Applications { version: None, hash: None, applications }
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

/// Application of a list that was fetched earlier.
#[derive(Debug)]
pub(super) struct Earlier {
    pub(super) application: Arc<Application>,
    /// Time of the last response for the list, or the time at which it was read from a file.
    pub(super) fetched: Moment,
}

impl Earlier {
    /// Returns `true` if an instance of the application is part of the resource.
    pub(super) fn is_listed(&self, resource: &Resource) -> bool {
        let application = &self.application;
        application.instances.iter().any(|instance| lists(resource, &application.name, instance))
    }
}

/// Returns the entries of an application. `None` if there are none.
fn part(
    application: &Application,
    entry: impl Fn(&Arc<Instance>) -> Option<Arc<Instance>>,
) -> Option<Arc<Application>> {
    let instances: Vec<_> = application.instances.iter().filter_map(entry).collect();
    (!instances.is_empty()).then(|| Arc::new(Application { name: application.name.clone(), instances }))
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
