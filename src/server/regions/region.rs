use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::time::{Instant, sleep};

use crate::clock::Clock;
use crate::config::ClientConfig;
use crate::model::{ActionType, Application, Instance};
use crate::registry::{Refresher, Snapshot};
use crate::server::registry::{Log, Record, Registry, Version};
use crate::transport::Transport;

/// Another region as it was last seen.
#[derive(Debug)]
pub(super) struct Region {
    /// Lower case.
    pub(super) name: Arc<str>,
    /// The applications that lists show of it, if not all.
    pub(super) whitelist: Option<HashSet<Arc<str>>>,
    pub(super) log: Log,
    transport: Transport,
    config: ClientConfig,
    /// What came from here, by application.
    ours: Mutex<HashMap<Arc<str>, States>>,
    looked: AtomicBool,
    fetched: AtomicBool,
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
        Self { name, whitelist, log: Log::default(), transport, config, ours: Mutex::default(), looked, fetched }
    }

    /// Whether it was looked at, be it in vain.
    pub(super) fn is_looked_at(&self) -> bool {
        self.looked.load(Ordering::Acquire)
    }

    /// Whether it was ever seen. What was seen stays.
    pub(super) fn is_fetched(&self) -> bool {
        self.fetched.load(Ordering::Acquire)
    }

    /// Keeps the copy fresh for ever.
    pub(super) async fn keep(self: Arc<Self>, registry: Arc<Registry>, clock: Clock, delta_retention_ms: i64) {
        let (mut refresher, began) = (Refresher::new(self.transport.clone(), &self.config), Instant::now());
        loop {
            let (seen, wait) = refresher.next().await;
            if let Ok(seen) = seen {
                self.take(&seen, &registry, clock.now_ms()).await;
                if !self.fetched.swap(true, Ordering::AcqRel) {
                    let (region, instances) = (&*self.name, seen.instance_count());
                    tracing::info!(region, instances, elapsed = ?began.elapsed(), "fetched another region");
                }
            }
            self.looked.store(true, Ordering::Release);
            self.log.prune(clock.now_ms().saturating_sub(delta_retention_ms));
            sleep(wait).await;
        }
    }

    /// Publishes what is different from what was seen before.
    async fn take(&self, seen: &Snapshot, registry: &Registry, now: i64) {
        let known = self.log.full();
        let each_known = known.applications.iter().flat_map(|view| view.records.iter().map(move |r| (&*view.name, r)));
        let mut gone: HashMap<_, _> = each_known.map(|(app, record)| ((app, record.instance.id()), record)).collect();
        let mut known_ours = std::mem::take(&mut *self.ours());
        for application in seen.applications() {
            let known_ours = known_ours.remove(&application.name).unwrap_or_default();
            let ours = ours(application, &known_ours, registry);
            for instance in application.instances.iter().filter(|instance| !ours.contains_key(instance.id())) {
                let known = gone.remove(&(&*application.name, instance.id()));
                let instance = as_shown(&application.name, instance);
                if known.is_none_or(|known| !Arc::ptr_eq(&known.instance, &instance) && known.instance != instance) {
                    self.log.put(instance.id().into(), Record::of(instance), now);
                }
            }
            if !ours.is_empty() {
                self.ours().insert(application.name.clone(), ours);
            }
            // Others get their turn.
            tokio::task::yield_now().await;
        }
        for ((_, id), record) in gone {
            self.log.remove(id, Record::new(as_ended(&record.instance, now)), now);
        }
    }

    fn ours(&self) -> MutexGuard<'_, HashMap<Arc<str>, States>> {
        self.ours.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The instances of an application that came from here: a Java server that was asked for everything shows what it copied, too, also what
/// has left here if it cannot be told. So each is known by its state while it is here, and from then on.
fn ours(application: &Application, known: &States, registry: &Registry) -> States {
    let is_ours = |instance: &Instance, state| {
        let here = || registry.log().record(&application.name, instance.id());
        known.get(instance.id()) == Some(&state) || here().is_some_and(|here| Version::of(&here.instance) == state)
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
    use super::*;

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
}
