//! Questions about the registry: readiness, status, events, a refresh on demand, and the end.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use tokio::time::{sleep, timeout};
use tokio_stream::StreamExt;
use tower::ServiceExt;
use tower_eureka::cache::{DeltaUse, RegistryEvent, RegistryEvents, RegistryState};
use tower_eureka::model::InstanceStatus;
use tower_eureka::{Eureka, Instance, Settings};

use crate::common::{Memory, Reply, Scripted, edited, instance, with_status};

const MINUTE: Duration = Duration::from_secs(60);

/// A registry that can be switched off, and a client that fetches full lists every 30 seconds.
struct World {
    memory: Memory,
    down: Arc<AtomicBool>,
    scripted: Scripted,
    eureka: Eureka,
}

impl World {
    fn new(instances: impl IntoIterator<Item = Instance>) -> Self {
        let (memory, down) = (Memory::of(instances), Arc::new(AtomicBool::new(false)));
        let (served, is_down) = (memory.clone(), down.clone());
        let scripted =
            Scripted::new(move |_| if is_down.load(Ordering::SeqCst) { Reply::Status(500) } else { served.full() });
        let eureka = scripted.client().delta(false).build().unwrap();
        Self { memory, down, scripted, eureka }
    }

    fn set_down(&self, is_down: bool) {
        self.down.store(is_down, Ordering::SeqCst);
    }
}

/// Reads until no event arrives for ten seconds, and returns the events as lines.
async fn settle(events: &mut RegistryEvents) -> Vec<String> {
    let mut lines = Vec::new();
    while let Ok(Some(event)) = timeout(Duration::from_secs(10), events.next()).await {
        lines.push(event.to_string());
    }
    lines
}

#[tokio::test(start_paused = true)]
async fn ready_waits_for_the_first_fetch_that_succeeds() {
    let world = World::new([instance("orders", "a")]);
    world.set_down(true);
    assert_eq!(world.eureka.status().state(), RegistryState::NotStarted);
    assert!(timeout(MINUTE, world.eureka.ready()).await.is_err());
    let status = world.eureka.status();
    assert_eq!((status.state(), status.age(), status.is_loaded()), (RegistryState::Loading, None, false));
    assert!(status.error().unwrap().to_string().contains("500"), "{status}");
    assert!(status.failing_for().unwrap() > MINUTE / 2, "{status}");
    world.set_down(false);
    let snapshot = timeout(MINUTE, world.eureka.ready()).await.unwrap().unwrap();
    assert_eq!(snapshot.instance_count(), 1);
    assert_eq!(world.eureka.status().state(), RegistryState::Fresh);
}

#[tokio::test(start_paused = true)]
async fn ready_for_waits_for_an_instance_that_is_up() {
    let world = World::new([with_status(&instance("orders", "a"), InstanceStatus::Starting)]);
    assert!(timeout(2 * MINUTE, world.eureka.ready_for("orders")).await.is_err());
    world.memory.put(instance("orders", "b"));
    let found = timeout(MINUTE, world.eureka.ready_for("orders")).await.unwrap().unwrap();
    assert_eq!(found.iter().map(|instance| instance.id()).collect::<Vec<_>>(), ["b"]);
    let error = world.eureka.ready_for("no name").await.unwrap_err();
    assert!(error.is_config(), "{error}");
}

#[tokio::test(start_paused = true)]
async fn instances_and_applications_are_those_of_the_last_fetch() {
    let world = World::new([instance("orders", "a"), instance("billing", "b")]);
    world.memory.put(with_status(&instance("orders", "c"), InstanceStatus::Down));
    assert!(world.eureka.instances("orders").is_empty());
    world.eureka.ready().await.unwrap();
    let ids: Vec<_> = world.eureka.instances("orders").iter().map(|i| i.id().to_owned()).collect();
    assert_eq!(ids, ["a"]);
    let applications = world.eureka.applications();
    let names: Vec<_> = applications.iter().map(|app| (&*app.name, app.instances.len())).collect();
    assert_eq!(names, [("BILLING", 1), ("ORDERS", 2)]);
    assert!(world.eureka.instances("no name").is_empty());
}

#[tokio::test(start_paused = true)]
async fn status_shows_age_counts_server_and_the_last_error() {
    let world = World::new([instance("orders", "a"), with_status(&instance("orders", "b"), InstanceStatus::Down)]);
    world.eureka.ready().await.unwrap();
    sleep(Duration::from_secs(7)).await;
    let status = world.eureka.status();
    assert_eq!((status.age().unwrap().as_secs(), status.applications(), status.instances()), (7, 1, 2));
    assert_eq!(status.counts().of(InstanceStatus::Down), 1);
    assert_eq!((status.server(), status.deltas()), (Some("http://registry/eureka/"), DeltaUse::Off));
    assert_eq!((status.refreshes().full, status.refreshes().failed), (1, 0));
    assert!(status.refreshes().received_bytes > 100);
    world.set_down(true);
    sleep(3 * MINUTE).await;
    let status = world.eureka.status();
    assert!(status.is_stale() && status.age().unwrap() > 2 * MINUTE, "{status}");
    assert!(status.refreshes().failed > 1 && status.error().is_some(), "{status}");
    assert_eq!(status.instances(), 2, "the last copy remains");
    world.set_down(false);
    sleep(MINUTE).await;
    let status = world.eureka.status();
    assert!(!status.is_stale() && status.error().is_none() && status.failing_for().is_none(), "{status}");
}

#[tokio::test(start_paused = true)]
async fn events_report_each_change_and_each_refresh() {
    let world = World::new([instance("billing", "x"), instance("orders", "a")]);
    let mut events = world.eureka.events();
    assert_eq!(
        settle(&mut events).await,
        ["added BILLING x UP", "added ORDERS a UP", "refreshed: 2 instances of 2 applications"]
    );
    world.memory.put(with_status(&instance("billing", "x"), InstanceStatus::Down));
    world.memory.put(instance("orders", "b"));
    world.eureka.refresh().await.unwrap();
    let changes = ["changed BILLING x UP -> DOWN", "added ORDERS b UP", "refreshed: 3 instances of 2 applications"];
    assert_eq!(settle(&mut events).await, changes);
    world.memory.remove("b");
    world.eureka.refresh().await.unwrap();
    assert_eq!(settle(&mut events).await, ["removed ORDERS b", "refreshed: 2 instances of 2 applications"]);
    world.set_down(true);
    world.eureka.refresh().await.unwrap_err();
    let failed = settle(&mut events).await;
    assert!(failed.len() == 1 && failed[0].starts_with("refresh failed: fetch registry"), "{failed:?}");
}

#[tokio::test(start_paused = true)]
async fn slow_reader_of_events_gets_the_difference_only() {
    let world = World::new([instance("orders", "a")]);
    let mut events = world.eureka.events();
    settle(&mut events).await;
    for id in ["b", "c", "d"] {
        world.memory.put(instance("orders", id));
        world.eureka.refresh().await.unwrap();
    }
    world.memory.remove("c");
    world.set_down(true);
    world.eureka.refresh().await.unwrap_err();
    let lines = settle(&mut events).await;
    assert_eq!(
        lines[..4],
        ["added ORDERS b UP", "added ORDERS c UP", "added ORDERS d UP", "refreshed: 4 instances of 1 applications"]
    );
    assert!(lines.len() == 5 && lines[4].starts_with("refresh failed"), "{lines:?}");
    // A reader that arrives later begins with the registry as it is.
    let Some(RegistryEvent::Added(first)) = world.eureka.events().next().await else { panic!("no instance") };
    assert_eq!(first.id(), "a");
}

#[tokio::test(start_paused = true)]
async fn refresh_includes_changes_before_it_and_concurrent_calls_share_one() {
    let world = World::new([]);
    world.eureka.ready().await.unwrap();
    let before = world.scripted.asked().len();
    world.memory.put(instance("orders", "a"));
    let (first, second, third) = tokio::join!(world.eureka.refresh(), world.eureka.refresh(), world.eureka.refresh());
    for snapshot in [first, second, third] {
        assert_eq!(snapshot.unwrap().instance_count(), 1);
    }
    assert!(world.scripted.asked().len() - before <= 2, "{:?}", world.scripted.lines());
    world.set_down(true);
    let error = world.eureka.refresh().await.unwrap_err();
    assert_eq!(error.status(), Some(500), "{error}");
    assert_eq!(world.eureka.snapshot().instance_count(), 1);
}

#[tokio::test(start_paused = true)]
async fn ready_without_fetches_is_an_error_that_names_the_setting() {
    let world = World::new([]);
    let eureka = world.scripted.client().fetch_registry(false).build().unwrap();
    for error in [
        eureka.ready().await.unwrap_err(),
        eureka.ready_for("orders").await.unwrap_err(),
        eureka.refresh().await.unwrap_err(),
    ] {
        assert!(error.to_string().contains("fetch_registry(false)"), "{error}");
    }
    assert_eq!(eureka.status().state(), RegistryState::Disabled);
    assert!(world.scripted.asked().is_empty());
}

#[tokio::test(start_paused = true)]
async fn delta_that_does_not_match_is_counted() {
    let only = instance("orders", "a");
    let scripted = Scripted::new(move |asked| {
        if asked.line.contains("delta") {
            Reply::Json(crate::common::delta(&[], "UP_7_"))
        } else {
            Reply::Json(crate::common::list(std::slice::from_ref(&only)))
        }
    });
    let eureka = scripted.client().build().unwrap();
    eureka.ready().await.unwrap();
    assert_eq!(eureka.status().deltas(), DeltaUse::InUse);
    eureka.refresh().await.unwrap();
    let counts = eureka.status().refreshes();
    assert_eq!((counts.mismatches, counts.deltas, counts.full), (1, 1, 2));
    for _ in 0..2 {
        eureka.refresh().await.unwrap();
    }
    assert_eq!(eureka.status().deltas(), DeltaUse::Paused);
}

/// Returns the instance as a server sends it that changed it at this time.
fn updated_at(instance: &Instance, at_ms: i64) -> Instance {
    edited(instance, |json| json["lastUpdatedTimestamp"] = at_ms.to_string().into())
}

#[tokio::test(start_paused = true)]
async fn lag_of_a_change_is_measured_by_the_clock_of_the_server() {
    // The server's clock is an hour ahead.
    let server_ms = || wall_ms() + 3_600_000;
    let memory = Memory::of([updated_at(&instance("orders", "a"), server_ms() - 500_000)]);
    let served = memory.clone();
    let scripted = Scripted::new(move |_| {
        let Reply::Json(json) = served.full() else { unreachable!("the list is JSON") };
        let date = std::time::UNIX_EPOCH + Duration::from_millis(server_ms() as u64);
        let headers = vec![("date", httpdate::fmt_http_date(date)), ("content-type", "application/json".into())];
        Reply::With { status: 200, headers, body: json.into() }
    });
    let eureka = scripted.client().delta(false).build().unwrap();
    eureka.ready().await.unwrap();
    assert_eq!(eureka.status().propagation_lag(), None);
    memory.put(updated_at(&instance("orders", "b"), server_ms() - 12_000));
    eureka.refresh().await.unwrap();
    let lag = eureka.status().propagation_lag().unwrap().as_secs_f64();
    assert!((10.0..14.0).contains(&lag), "{lag}");
}

#[allow(clippy::disallowed_methods, reason = "servers send timestamps of the wall clock")]
fn wall_ms() -> i64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    now.as_millis().try_into().unwrap()
}

#[tokio::test(start_paused = true)]
async fn close_ends_the_refresh_the_waits_and_the_events() {
    let world = World::new([instance("orders", "a")]);
    world.eureka.ready().await.unwrap();
    let waiting = tokio::spawn({
        let eureka = world.eureka.clone();
        async move { eureka.ready_for("billing").await }
    });
    let mut events = world.eureka.events();
    settle(&mut events).await;
    let client = world.eureka.http_client::<Full<Bytes>>();
    world.eureka.close().await.unwrap();
    let asked = world.scripted.asked().len();
    assert!(events.next().await.is_none());
    let error = waiting.await.unwrap().unwrap_err();
    assert!(error.to_string().contains("the client was closed"), "{error}");
    let late = world.eureka.http_client::<Full<Bytes>>();
    for client in [client, late] {
        let request = Request::get("http://orders/").body(Full::default()).unwrap();
        let error = timeout(MINUTE, client.oneshot(request)).await.unwrap().unwrap_err();
        assert!(error.to_string().contains("the client was closed"), "{error}");
    }
    assert!(world.eureka.refresh().await.is_err() && world.eureka.ready_for("billing").await.is_err());
    assert!(world.eureka.ready().await.is_err() && world.eureka.ready_for("orders").await.is_err());
    sleep(10 * MINUTE).await;
    assert_eq!(world.scripted.asked().len(), asked, "nothing is fetched any more");
    assert_eq!(world.eureka.status().state(), RegistryState::Closed);
    assert_eq!(world.eureka.instances("orders").len(), 1, "the last copy remains");
    timeout(MINUTE, world.eureka.close()).await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn close_before_the_first_use_starts_nothing() {
    let world = World::new([instance("orders", "a")]);
    world.eureka.close().await.unwrap();
    assert!(world.eureka.ready().await.is_err());
    assert!(world.scripted.asked().is_empty());
}

#[tokio::test(start_paused = true)]
async fn close_deregisters_the_instances_that_are_still_registered() {
    let world = World::new([]);
    let registrar = world.eureka.registrar(instance("orders", "a"));
    let unregistered = world.eureka.registrar(instance("orders", "b"));
    registrar.register().await.unwrap();
    timeout(MINUTE, world.eureka.close()).await.unwrap().unwrap();
    let deletes = || world.scripted.lines().into_iter().filter(|line| line.starts_with("DELETE")).collect::<Vec<_>>();
    assert_eq!(deletes(), ["DELETE /apps/ORDERS/a"]);
    drop((registrar, unregistered));
    sleep(MINUTE).await;
    assert_eq!(deletes().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn preload_prepares_present_and_later_clients() {
    let world = World::new([instance("orders", "a")]);
    let present = world.eureka.http_client::<Full<Bytes>>();
    let error = world.eureka.preload(["no name", "orders"]).unwrap_err();
    assert!(error.is_config(), "{error}");
    let later = world.eureka.http_client::<Full<Bytes>>();
    world.eureka.ready_for("orders").await.unwrap();
    sleep(Duration::from_millis(1)).await;
    for client in [present, later] {
        let snapshots = client.snapshots();
        assert_eq!(
            snapshots.iter().map(|s| (s.name().unwrap(), s.endpoints().len())).collect::<Vec<_>>(),
            [("ORDERS", 1)]
        );
    }
    assert_eq!(world.eureka.snapshots().len(), 0, "dropped clients are forgotten");
}

#[tokio::test(start_paused = true)]
async fn eager_load_prepares_the_applications_of_the_setting_in_each_client() {
    let memory = Memory::of([instance("orders", "a"), instance("reviews", "b"), instance("other", "c")]);
    let scripted = Scripted::new(move |_| memory.full());
    let settings = Settings::builder().environment([("", ""); 0]).without_files();
    let settings = settings.property("spring.cloud.loadbalancer.eager-load.clients", "orders, reviews").load().unwrap();
    let builder = Eureka::builder_from(&settings).unwrap().service_url("http://registry/eureka");
    let eureka = builder.http_service(scripted.clone()).build().unwrap();
    sleep(MINUTE).await;
    assert!(scripted.lines().is_empty(), "a process that only provides fetches nothing");
    let clients = [eureka.http_client::<Full<Bytes>>(), eureka.http_client()];
    eureka.ready().await.unwrap();
    sleep(Duration::from_millis(1)).await;
    for client in clients {
        let mut loaded: Vec<_> =
            client.snapshots().iter().map(|s| (s.name().unwrap().to_owned(), s.endpoints().len())).collect();
        loaded.sort();
        assert_eq!(loaded, [("ORDERS".to_owned(), 1), ("REVIEWS".to_owned(), 1)]);
    }
}

#[tokio::test(start_paused = true)]
async fn status_after_the_runtime_of_the_refresh_has_ended_is_stopped() {
    let world = World::new([instance("orders", "a")]);
    let eureka = world.eureka.clone();
    let other = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            eureka.ready().await.unwrap();
        });
    });
    other.join().unwrap();
    assert_eq!(world.eureka.status().state(), RegistryState::Stopped);
    assert_eq!(world.eureka.ready().await.unwrap().instance_count(), 1, "the next use starts it again");
}
