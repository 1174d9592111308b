use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::time::{Instant, sleep};

use crate::cache::{Refresher, Snapshot};
use crate::config::ClientConfig;
use crate::model::{ActionType, Application, Instance};
use crate::server::audit::{Lasting, Ongoing};
use crate::server::outcome::Refused;
use crate::server::registry::{Listing, Registry, Settings, Version};
use crate::server::view::Record;
use crate::sync::{Mutex, offload};
use crate::time::Clock;
use crate::transport::Transport;

/// Copy of another region.
#[derive(Debug)]
pub(super) struct Region {
    /// Name in lower case.
    pub(super) name: Arc<str>,
    /// Applications that lists show of this region. `None` means all.
    pub(super) whitelist: Option<HashSet<Arc<str>>>,
    pub(super) listing: Listing,
    transport: Transport,
    config: ClientConfig,
    copied: Mutex<Copied>,
    attempted: AtomicBool,
    fetched: AtomicBool,
    /// Instances of the region exceed a limit of the copy.
    excess: Ongoing,
}

/// Source state of the copy.
#[derive(Debug, Default)]
struct Copied {
    last: Snapshot,
    /// Set if the source cannot leave out instances of other regions.
    is_unfiltered: bool,
    /// Instances in the copy that are registered here, by application. Only used if the source is
    /// unfiltered.
    ours: HashMap<Arc<str>, States>,
}

/// Versions of instances by id.
type States = HashMap<Box<str>, Version>;

impl Region {
    pub(super) fn new(
        name: Arc<str>,
        whitelist: Option<HashSet<Arc<str>>>,
        transport: Transport,
        config: ClientConfig,
        limits: &Settings,
    ) -> Self {
        let (attempted, fetched) = (AtomicBool::new(false), AtomicBool::new(false));
        Self {
            name,
            whitelist,
            listing: Listing::of_copy(limits),
            transport,
            config,
            copied: Mutex::default(),
            attempted,
            fetched,
            excess: Ongoing::default(),
        }
    }

    /// Returns true once a fetch was attempted, successful or not.
    pub(super) fn is_attempted(&self) -> bool {
        self.attempted.load(Ordering::Acquire)
    }

    /// Returns true once the region was fetched. Its last known state stays.
    pub(super) fn is_fetched(&self) -> bool {
        self.fetched.load(Ordering::Acquire)
    }

    /// Returns true if the region may contain instances that are registered elsewhere, since its
    /// server refuses to leave out its own copies.
    pub(super) fn is_unfiltered(&self) -> bool {
        self.transport.fell_back()
    }

    /// Refreshes the copy periodically. Never returns.
    pub(super) async fn run(self: Arc<Self>, registry: Arc<Registry>, clock: Clock, delta_retention_ms: i64) {
        let (mut refresher, began) = (Refresher::new(self.transport.clone(), &self.config), Instant::now());
        loop {
            let (seen, wait) = refresher.next().await;
            if let Ok(seen) = seen {
                let (region, registry, now, instances) =
                    (self.clone(), registry.clone(), clock.now_ms(), seen.instance_count());
                offload(move || region.apply(seen, &registry, now)).await;
                if !self.fetched.swap(true, Ordering::AcqRel) {
                    let region = &*self.name;
                    tracing::info!(region, instances, elapsed = ?began.elapsed(), "fetched another region");
                }
            }
            self.attempted.store(true, Ordering::Release);
            self.listing.prune(clock.now_ms().saturating_sub(delta_retention_ms));
            sleep(wait).await;
        }
    }

    /// Publishes the differences to the previous copy.
    fn apply(&self, seen: Snapshot, registry: &Registry, now: i64) {
        let mut copied = self.copied.lock();
        let is_unfiltered = self.is_unfiltered();
        let Copied { last, is_unfiltered: was_unfiltered, ours } = &mut *copied;
        // Own instances are recognised by the present registry, so all applications of an
        // unfiltered source are compared. After a panic in this function, all are compared next
        // time, too.
        let only_changes = !is_unfiltered && !std::mem::replace(was_unfiltered, is_unfiltered);
        let last = std::mem::take(last);
        for view in self.listing.full().applications.iter().filter(|view| seen.application(&view.name).is_none()) {
            self.publish(&view.name, &[], registry, now);
        }
        let mut refused = 0;
        let mut reason = None;
        ours.retain(|name, _| seen.application(name).is_some());
        for application in seen.applications() {
            let name = &application.name;
            if only_changes && last.application(name).is_some_and(|last| Arc::ptr_eq(last, application)) {
                continue;
            }
            let known = ours.remove(name).unwrap_or_default();
            let states = if is_unfiltered { own_instances(application, known, registry) } else { States::new() };
            let theirs = application.instances.iter().filter(|instance| !states.contains_key(instance.id()));
            let (count, first) = self.publish(name, &theirs.collect::<Vec<_>>(), registry, now);
            refused += count;
            reason = reason.or(first);
            if !states.is_empty() {
                ours.insert(name.clone(), states);
            }
        }
        // What was left out is tried again with the next refresh.
        copied.last = if refused == 0 { seen } else { Snapshot::default() };
        drop(copied);
        self.log_excess(refused, reason);
    }

    /// Logs the number of instances that a limit leaves out, or that there are none any more.
    fn log_excess(&self, refused: usize, reason: Option<Refused>) {
        let region = &*self.name;
        if let Some(error) = reason {
            if let Some(Lasting { elapsed, .. }) = self.excess.occurred() {
                tracing::warn!(
                    region, refused, %error, ?elapsed,
                    "instances of another region exceed a limit and are left out (eureka.server.limits.*)"
                );
            }
        } else if let Some(Lasting { elapsed, .. }) = self.excess.ended() {
            tracing::info!(region, ?elapsed, "all instances of another region are within the limits again");
        }
    }

    /// Publishes the differences in one application. Returns the number of instances that a limit
    /// leaves out, and the first reason.
    fn publish(
        &self,
        name: &Arc<str>,
        instances: &[&Arc<Instance>],
        registry: &Registry,
        now: i64,
    ) -> (usize, Option<Refused>) {
        let (mut refused, mut reason) = (0, None);
        let known = self.listing.application(name);
        let known = known.iter().flat_map(|view| &view.records);
        let mut removed: HashMap<_, _> = known.map(|record| (record.instance.id(), record)).collect();
        for instance in instances {
            let known = removed.get(instance.id());
            let instance = as_shown(name, instance);
            if known.is_none_or(|known| !Arc::ptr_eq(&known.instance, &instance) && known.instance != instance) {
                let id = instance.shared_id();
                let put = registry
                    .check(&instance)
                    .and_then(|()| self.listing.put_within_limits(id, Record::of(instance.clone()), now));
                if let Err(error) = put {
                    // An old state would be wrong, so it is removed.
                    refused += 1;
                    reason.get_or_insert(error);
                    continue;
                }
            }
            removed.remove(instance.id());
        }
        for (id, record) in removed {
            self.listing.remove(id, Record::new(as_deleted(&record.instance, now)), now);
        }
        (refused, reason)
    }
}

/// Returns the instances of an application that the region copied from this registry.
///
/// An unfiltered Java server also shows its own copies, for a while even after an instance has left
/// here. Therefore each is recognised by its version while it is registered here, since the version
/// is the same on all nodes of a cluster, and later by the state that it had then.
fn own_instances(application: &Application, known: States, registry: &Registry) -> States {
    let is_ours = |instance: &Instance, state| {
        let here = || registry.listing().record(&application.name, instance.id());
        let is_here = || here().is_some_and(|here| here.instance.last_dirty_timestamp == instance.last_dirty_timestamp);
        known.get(instance.id()) == Some(&state) || is_here()
    };
    let states = application.instances.iter().map(|instance| (instance, Version::of(instance)));
    states.filter(|(instance, state)| is_ours(instance, *state)).map(|(i, state)| (i.id().into(), state)).collect()
}

/// Returns the instance as it is shown to clients. Without an action they would skip it in a delta,
/// and it cannot be this server.
fn as_shown(app: &Arc<str>, instance: &Arc<Instance>) -> Arc<Instance> {
    let has_action = matches!(instance.action, Some(ActionType::Added | ActionType::Modified));
    if has_action && instance.app == *app && !instance.is_coordinating_discovery_server {
        return instance.clone();
    }
    Arc::new(Instance {
        app: app.clone(),
        action: instance.action.filter(|_| has_action).or(Some(ActionType::Added)),
        is_coordinating_discovery_server: false,
        ..(**instance).clone()
    })
}

fn as_deleted(instance: &Instance, now: i64) -> Instance {
    let mut deleted =
        Instance { action: Some(ActionType::Deleted), last_updated_timestamp: Some(now), ..instance.clone() };
    if let Some(lease) = &mut deleted.lease {
        lease.eviction_timestamp = now;
    }
    deleted
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use http::{Request, Response};
    use tower::service_fn;

    use super::*;
    use crate::config::ServiceUrl;
    use crate::server::outcome::Origin;
    use crate::transport::{HttpStack, RequestBody};

    fn region() -> Region {
        region_with(&Settings::default())
    }

    fn region_with(limits: &Settings) -> Region {
        let nobody =
            service_fn(async |_: Request<RequestBody>| Ok::<_, Infallible>(Response::new(RequestBody::default())));
        let config = ClientConfig::default();
        let urls = ServiceUrl::parse_list("http://nowhere/").unwrap();
        Region::new("east".into(), None, Transport::new(urls, HttpStack::over(nobody, &config)), config, limits)
    }

    fn application(name: &str, ids: &[&str]) -> Arc<Application> {
        let instance = |id: &&str| Instance::builder(name).id(*id).ip_addr("10.0.0.1").port(80).build().unwrap();
        let instances = ids.iter().map(|id| Arc::new(instance(id))).collect();
        Arc::new(Application { name: name.into(), instances })
    }

    #[test]
    fn unchanged_application_is_not_compared() {
        let (region, registry) = (region(), Registry::new(Settings::default()));
        let apply = |seen: &[&Arc<Application>]| {
            region.apply(Snapshot::of(seen.iter().map(|application| (*application).clone())), &registry, 1);
            let shown = region.listing.full();
            let records = shown.applications.iter().flat_map(|view| &view.records);
            records.map(|record| format!("{} {}", record.instance.app(), record.instance.id())).collect::<Vec<_>>()
        };
        let (a, b) = (application("A", &["1", "2"]), application("B", &["1"]));
        assert_eq!(apply(&[&a, &b]), ["A 1", "A 2", "B 1"]);
        region.listing.remove("1", region.listing.record("A", "1").unwrap(), 1);
        assert_eq!(apply(&[&a, &b]), ["A 2", "B 1"]);
        assert_eq!(apply(&[&application("A", &["1", "3"]), &b]), ["A 1", "A 3", "B 1"]);
        assert_eq!(apply(&[&b]), ["B 1"]);
        assert_eq!(apply(&[]), <[&str; 0]>::default());
    }

    #[test]
    fn copy_stays_within_its_limits_and_shows_what_fits_again() {
        let limits = Settings { registry_limit: 2, ..Settings::default() };
        let (region, registry) = (region_with(&limits), Registry::new(limits));
        let apply = |ids: &[&str]| {
            region.apply(Snapshot::of([application("A", ids)]), &registry, 1);
            let shown = region.listing.full();
            let records = shown.applications.iter().flat_map(|view| &view.records);
            records.map(|record| record.instance.id().to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(apply(&["1", "2", "3"]), ["1", "2"]);
        assert_eq!(apply(&["2", "3"]), ["2"], "the removal comes after");
        assert_eq!(apply(&["2", "3"]), ["2", "3"]);
        let long = Arc::new(Instance {
            host_name: Some("x".repeat(2_000).into()),
            ..(*application("A", &["2"]).instances[0]).clone()
        });
        let grown = Application { name: "A".into(), instances: vec![long] };
        region.apply(Snapshot::of([Arc::new(grown)]), &registry, 1);
        assert_eq!(
            region.listing.full().applications.len(),
            0,
            "neither the old state nor one beyond a limit is shown"
        );
    }

    #[test]
    fn shown_instance_has_an_action_and_is_not_this_server() {
        let built = Instance::builder("orders").id("1").ip_addr("10.0.0.1").port(80).build().unwrap();
        let with_action = |action| Arc::new(Instance { action, ..built.clone() });
        for (action, expected) in [
            (None, ActionType::Added),
            (Some(ActionType::Deleted), ActionType::Added),
            (Some(ActionType::Added), ActionType::Added),
            (Some(ActionType::Modified), ActionType::Modified),
        ] {
            let known = Instance { is_coordinating_discovery_server: true, ..(*with_action(action)).clone() };
            let shown = as_shown(&"ORDERS".into(), &Arc::new(known));
            assert_eq!(*shown, *with_action(Some(expected)), "{action:?}");
        }
        let modified = with_action(Some(ActionType::Modified));
        assert!(
            Arc::ptr_eq(&as_shown(&"ORDERS".into(), &modified), &modified),
            "an instance without a change is shared"
        );
        assert_eq!(as_shown(&"OTHER".into(), &modified).app(), "OTHER");
    }

    #[test]
    fn own_instance_is_recognised_although_the_region_showed_it_before() {
        let (region, registry) = (region(), Registry::new(Settings::default()));
        let other = Registry::new(Settings::default());
        let built = Instance::builder("A").id("1").ip_addr("10.0.0.1").port(80).build().unwrap();
        other.register(built, Origin::Client, 5).unwrap();
        let copy = other.listing().record("A", "1").unwrap().instance.clone();
        let a = Arc::new(Application { name: "A".into(), instances: vec![copy.clone()] });
        region.transport.set_fell_back();
        region.apply(Snapshot::of([a.clone()]), &registry, 6);
        registry.adopt((*copy).clone(), 7, 7).unwrap();
        region.apply(Snapshot::of([a.clone()]), &registry, 8);
        assert_eq!(region.listing.full().applications.len(), 0, "it is registered here");
    }
}
