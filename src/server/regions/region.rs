use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::time::{Instant, sleep};

use crate::cache::{Refresher, Snapshot};
use crate::config::ClientConfig;
use crate::model::{ActionType, Application, Instance};
use crate::server::registry::{Listing, Registry, Version};
use crate::server::view::Record;
use crate::sync::{Mutex, offload};
use crate::time::Clock;
use crate::transport::Transport;

/// Another region as it was last seen.
#[derive(Debug)]
pub(super) struct Region {
    /// Lower case.
    pub(super) name: Arc<str>,
    /// The applications that lists show of it, if not all.
    pub(super) whitelist: Option<HashSet<Arc<str>>>,
    pub(super) listing: Listing,
    transport: Transport,
    config: ClientConfig,
    copied: Mutex<Copied>,
    looked: AtomicBool,
    fetched: AtomicBool,
}

/// Of what the copy is.
#[derive(Debug, Default)]
struct Copied {
    last: Snapshot,
    is_of_everything: bool,
    /// What of it came from here, by application. Only where it is of everything.
    ours: HashMap<Arc<str>, States>,
}

/// States of instances by id.
type States = HashMap<Box<str>, Version>;

impl Region {
    pub(super) fn new(
        name: Arc<str>,
        whitelist: Option<HashSet<Arc<str>>>,
        transport: Transport,
        config: ClientConfig,
    ) -> Self {
        let (looked, fetched) = (AtomicBool::new(false), AtomicBool::new(false));
        Self {
            name,
            whitelist,
            listing: Listing::default(),
            transport,
            config,
            copied: Mutex::default(),
            looked,
            fetched,
        }
    }

    /// Whether it was looked at, be it in vain.
    pub(super) fn is_looked_at(&self) -> bool {
        self.looked.load(Ordering::Acquire)
    }

    /// Whether it was ever seen. What was seen stays.
    pub(super) fn is_fetched(&self) -> bool {
        self.fetched.load(Ordering::Acquire)
    }

    /// Whether what it shows as its own may be another's: it refuses to leave out what it copied itself.
    pub(super) fn is_of_everything(&self) -> bool {
        self.transport.fell_back()
    }

    /// Keeps the copy fresh for ever.
    pub(super) async fn keep(self: Arc<Self>, registry: Arc<Registry>, clock: Clock, delta_retention_ms: i64) {
        let (mut refresher, began) = (Refresher::new(self.transport.clone(), &self.config), Instant::now());
        loop {
            let (seen, wait) = refresher.next().await;
            if let Ok(seen) = seen {
                let (region, registry, now, instances) =
                    (self.clone(), registry.clone(), clock.now_ms(), seen.instance_count());
                offload(move || region.take(seen, &registry, now)).await;
                if !self.fetched.swap(true, Ordering::AcqRel) {
                    let region = &*self.name;
                    tracing::info!(region, instances, elapsed = ?began.elapsed(), "fetched another region");
                }
            }
            self.looked.store(true, Ordering::Release);
            self.listing.prune(clock.now_ms().saturating_sub(delta_retention_ms));
            sleep(wait).await;
        }
    }

    /// Publishes what is different from what was seen before.
    fn take(&self, seen: Snapshot, registry: &Registry, now: i64) {
        let mut copied = self.copied.lock();
        let is_of_everything = self.is_of_everything();
        let Copied { last, is_of_everything: was_of_everything, ours } = &mut *copied;
        // What came from here is told by what is here now, which may have changed. Should a panic interrupt this, all is compared next time.
        let only_changes = !is_of_everything && !std::mem::replace(was_of_everything, is_of_everything);
        let last = std::mem::take(last);
        for view in self.listing.full().applications.iter().filter(|view| seen.application(&view.name).is_none()) {
            self.publish(&view.name, &[], now);
        }
        ours.retain(|name, _| seen.application(name).is_some());
        for application in seen.applications() {
            let name = &application.name;
            if only_changes && last.application(name).is_some_and(|last| Arc::ptr_eq(last, application)) {
                continue;
            }
            let known = ours.remove(name).unwrap_or_default();
            let states = if is_of_everything { from_here(application, known, registry) } else { States::new() };
            let theirs = application.instances.iter().filter(|instance| !states.contains_key(instance.id()));
            self.publish(name, &theirs.collect::<Vec<_>>(), now);
            if !states.is_empty() {
                ours.insert(name.clone(), states);
            }
        }
        copied.last = seen;
    }

    /// Publishes what is different in one application.
    fn publish(&self, name: &Arc<str>, instances: &[&Arc<Instance>], now: i64) {
        let known = self.listing.application(name);
        let known = known.iter().flat_map(|view| &view.records);
        let mut gone: HashMap<_, _> = known.map(|record| (record.instance.id(), record)).collect();
        for instance in instances {
            let known = gone.remove(instance.id());
            let instance = as_shown(name, instance);
            if known.is_none_or(|known| !Arc::ptr_eq(&known.instance, &instance) && known.instance != instance) {
                self.listing.put(instance.id().into(), Record::of(instance), now);
            }
        }
        for (id, record) in gone {
            self.listing.remove(id, Record::new(as_ended(&record.instance, now)), now);
        }
    }
}

/// The instances of an application that came from here: a Java server that was asked for everything shows what it copied, too, also what
/// has left here if it cannot be told. So each is known while it is here, by the one time that is the same on all nodes of a cluster, and
/// from then on by its state.
fn from_here(application: &Application, known: States, registry: &Registry) -> States {
    let is_ours = |instance: &Instance, state| {
        let here = || registry.listing().record(&application.name, instance.id());
        let is_here = || here().is_some_and(|here| here.instance.last_dirty_timestamp == instance.last_dirty_timestamp);
        known.get(instance.id()) == Some(&state) || is_here()
    };
    let states = application.instances.iter().map(|instance| (instance, Version::of(instance)));
    states.filter(|(instance, state)| is_ours(instance, *state)).map(|(i, state)| (i.id().into(), state)).collect()
}

/// The instance as clients of this server see it: without an action they would skip it in a delta, and no other server is this one.
fn as_shown(app: &Arc<str>, instance: &Arc<Instance>) -> Arc<Instance> {
    let told = matches!(instance.action, Some(ActionType::Added | ActionType::Modified));
    if told && instance.app == *app && !instance.is_coordinating_discovery_server {
        return instance.clone();
    }
    Arc::new(Instance {
        app: app.clone(),
        action: instance.action.filter(|_| told).or(Some(ActionType::Added)),
        is_coordinating_discovery_server: false,
        ..(**instance).clone()
    })
}

fn as_ended(instance: &Instance, now: i64) -> Instance {
    let mut ended =
        Instance { action: Some(ActionType::Deleted), last_updated_timestamp: Some(now), ..instance.clone() };
    if let Some(lease) = &mut ended.lease {
        lease.eviction_timestamp = now;
    }
    ended
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use http::{Request, Response};
    use tower::service_fn;

    use super::*;
    use crate::config::ServiceUrl;
    use crate::server::outcome::Origin;
    use crate::server::registry::Settings;
    use crate::transport::{HttpStack, RequestBody};

    fn region() -> Region {
        let nobody =
            service_fn(async |_: Request<RequestBody>| Ok::<_, Infallible>(Response::new(RequestBody::default())));
        let config = ClientConfig::default();
        let urls = ServiceUrl::parse_list("http://nowhere/").unwrap();
        Region::new("east".into(), None, Transport::new(urls, HttpStack::over(nobody, &config)), config)
    }

    fn application(name: &str, ids: &[&str]) -> Arc<Application> {
        let instance = |id: &&str| Instance::builder(name).id(*id).ip_addr("10.0.0.1").port(80).build().unwrap();
        let instances = ids.iter().map(|id| Arc::new(instance(id))).collect();
        Arc::new(Application { name: name.into(), instances })
    }

    #[test]
    fn an_application_that_is_the_same_as_before_is_not_compared() {
        let (region, registry) = (region(), Registry::new(Settings::default()));
        let take = |seen: &[&Arc<Application>]| {
            region.take(Snapshot::of(seen.iter().map(|application| (*application).clone())), &registry, 1);
            let shown = region.listing.full();
            let records = shown.applications.iter().flat_map(|view| &view.records);
            records.map(|record| format!("{} {}", record.instance.app(), record.instance.id())).collect::<Vec<_>>()
        };
        let (a, b) = (application("A", &["1", "2"]), application("B", &["1"]));
        assert_eq!(take(&[&a, &b]), ["A 1", "A 2", "B 1"]);
        region.listing.remove("1", region.listing.record("A", "1").unwrap(), 1);
        assert_eq!(take(&[&a, &b]), ["A 2", "B 1"]);
        assert_eq!(take(&[&application("A", &["1", "3"]), &b]), ["A 1", "A 3", "B 1"]);
        assert_eq!(take(&[&b]), ["B 1"]);
        assert_eq!(take(&[]), <[&str; 0]>::default());
    }

    #[test]
    fn what_is_shown_can_be_told_in_a_delta_and_is_not_this_server() {
        let built = Instance::builder("orders").id("1").ip_addr("10.0.0.1").port(80).build().unwrap();
        let told = |action| Arc::new(Instance { action, ..built.clone() });
        for (action, expected) in [
            (None, ActionType::Added),
            (Some(ActionType::Deleted), ActionType::Added),
            (Some(ActionType::Added), ActionType::Added),
            (Some(ActionType::Modified), ActionType::Modified),
        ] {
            let known = Instance { is_coordinating_discovery_server: true, ..(*told(action)).clone() };
            let shown = as_shown(&"ORDERS".into(), &Arc::new(known));
            assert_eq!(*shown, *told(Some(expected)), "{action:?}");
        }
        let modified = told(Some(ActionType::Modified));
        assert!(Arc::ptr_eq(&as_shown(&"ORDERS".into(), &modified), &modified), "what needs no change is shared");
        assert_eq!(as_shown(&"OTHER".into(), &modified).app(), "OTHER");
    }

    #[test]
    fn what_came_from_here_is_known_also_if_it_was_seen_there_before() {
        let (region, registry) = (region(), Registry::new(Settings::default()));
        let other = Registry::new(Settings::default());
        let built = Instance::builder("A").id("1").ip_addr("10.0.0.1").port(80).build().unwrap();
        other.register(built, Origin::Client, 5).unwrap();
        let copy = other.listing().record("A", "1").unwrap().instance.clone();
        let a = Arc::new(Application { name: "A".into(), instances: vec![copy.clone()] });
        region.transport.set_fell_back();
        region.take(Snapshot::of([a.clone()]), &registry, 6);
        registry.adopt((*copy).clone(), 7, 7).unwrap();
        region.take(Snapshot::of([a.clone()]), &registry, 8);
        assert_eq!(region.listing.full().applications.len(), 0, "it came from here");
    }
}
