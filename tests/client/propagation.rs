//! A rolling restart under callers with the delays of Java, in paused time.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::Request;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::sleep;
use tower_eureka::Instance;
use tower_eureka::model::InstanceStatus;
use tower_eureka::register::{RegistrationLayer, Shutdown, ShutdownPreset};

use crate::common::{Reply, Scripted, instance};
use crate::pages::send;

type Shared<T> = Arc<Mutex<T>>;

/// Ids of the instances that are UP, as a registry or a caller knows them.
type Ids = BTreeSet<String>;

/// A registry, and the servers that accept calls.
#[derive(Clone)]
struct World {
    registry: Scripted,
    up: Shared<Ids>,
    listening: Shared<BTreeMap<&'static str, RegistrationLayer>>,
    calls: Arc<AtomicUsize>,
    failed: Arc<AtomicUsize>,
}

impl World {
    fn new() -> Self {
        let up = Shared::<Ids>::default();
        let known = up.clone();
        let registry = Scripted::new(move |asked| {
            let mut known = known.lock().unwrap();
            match asked.line.split_once(' ').unwrap() {
                ("POST", _) => {
                    let instance = Instance::from_json(&asked.body).unwrap();
                    known.remove(instance.id());
                    if instance.status() == InstanceStatus::Up {
                        known.insert(instance.id().to_owned());
                    }
                }
                ("DELETE", path) => {
                    known.remove(path.rsplit('/').next().unwrap());
                }
                _ => {}
            }
            Reply::Status(if asked.line.starts_with("POST") { 204 } else { 200 })
        });
        Self { registry, up, listening: Arc::default(), calls: Arc::default(), failed: Arc::default() }
    }

    /// Starts a server that stops when the sender is dropped.
    fn start(&self, id: &'static str, preset: ShutdownPreset) -> (oneshot::Sender<()>, JoinHandle<()>) {
        let client = self.registry.client().build().unwrap();
        let handle = client.registrar(instance("orders", id)).shutdown_preset(preset);
        let (layer, listening) = (handle.layer(), self.listening.clone());
        let server = move |shutdown: Shutdown| async move {
            listening.lock().unwrap().insert(id, layer);
            shutdown.await;
            listening.lock().unwrap().remove(id);
        };
        let (stop, stopped) = oneshot::channel::<()>();
        (stop, tokio::spawn(handle.serve(async { drop(stopped.await) }, server)))
    }

    /// Calls the instances of a list in turn, ten times per second, without a retry.
    async fn call(self, list: Shared<Ids>) {
        for turn in 0.. {
            let id = {
                let list = list.lock().unwrap();
                list.iter().nth(turn % list.len().max(1)).cloned().unwrap_or_default()
            };
            let layer = self.listening.lock().unwrap().get(&*id).cloned();
            let is_served = match layer {
                Some(layer) => send(&layer, Request::new(())).await.status() == 200,
                None => false,
            };
            self.calls.fetch_add(1, Ordering::Relaxed);
            self.failed.fetch_add(usize::from(!is_served), Ordering::Relaxed);
            sleep(Duration::from_millis(100)).await;
        }
    }
}

/// Returns a copy of a list that is refreshed at this interval, the first time after `offset`.
fn copied(list: &Shared<Ids>, offset: u64, interval: u64) -> Shared<Ids> {
    let (list, copy) = (list.clone(), Shared::<Ids>::default());
    let copied = copy.clone();
    tokio::spawn(async move {
        sleep(Duration::from_secs(offset)).await;
        loop {
            let latest = list.lock().unwrap().clone();
            *copied.lock().unwrap() = latest;
            sleep(Duration::from_secs(interval)).await;
        }
    });
    copy
}

/// Restarts four instances one after the other. Returns the number of calls, and of failed ones.
async fn restarted(preset: ShutdownPreset) -> (usize, usize) {
    let world = World::new();
    let ids = ["a", "b", "c", "d"];
    let mut servers = ids.map(|id| Some(world.start(id, preset)));
    let response_cache = copied(&world.up, 1, 30);
    let callers: Vec<_> = [2, 9, 21, 29]
        .map(|offset| copied(&copied(&response_cache, offset, 30), offset + 3, 35))
        .map(|list| {
            let world = world.clone();
            tokio::spawn(async move {
                sleep(Duration::from_secs(120)).await;
                world.call(list).await;
            })
        })
        .into();
    sleep(Duration::from_secs(150)).await;
    for (number, id) in ids.into_iter().enumerate() {
        let (stop, serving) = servers[number].take().unwrap();
        drop(stop);
        serving.await.unwrap();
        sleep(Duration::from_secs(10)).await;
        servers[number] = Some(world.start(id, preset));
        sleep(Duration::from_secs(10)).await;
    }
    sleep(Duration::from_secs(120)).await;
    for caller in callers {
        caller.abort();
    }
    (world.calls.load(Ordering::Relaxed), world.failed.load(Ordering::Relaxed))
}

#[tokio::test(start_paused = true)]
async fn full_propagation_fails_no_call_of_callers_with_the_delays_of_java() {
    let (calls, failed) = restarted(ShutdownPreset::FullPropagation).await;
    assert!(calls > 20_000, "{calls}");
    assert_eq!(failed, 0);
}

#[tokio::test(start_paused = true)]
async fn adaptive_drain_is_too_short_for_callers_with_the_delays_of_java() {
    let (calls, failed) = restarted(ShutdownPreset::Adaptive).await;
    assert!(failed > 0 && failed < calls / 2, "{failed} of {calls}");
}
