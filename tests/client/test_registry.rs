//! The registry for tests of users: its changes, and each of its faults.

use std::time::Duration;

use axum::Router;
use axum::routing::get;
use bytes::Bytes;
use http::{Method, Request};
use http_body_util::Full;
use tokio::time::{Instant, sleep};
use tower_eureka::client::CallOptions;
use tower_eureka::model::InstanceStatus;
use tower_eureka::testing::{Fault, TestRegistry};
use tower_eureka::{Eureka, Instance};

use crate::common::instance;

/// Returns a registry with this number of instances of `orders`, and a client that has fetched it.
async fn world(instances: usize) -> (TestRegistry, Eureka) {
    let registry = TestRegistry::new();
    (1..=instances).for_each(|number| registry.insert(instance("orders", &format!("o{number}"))));
    let orders = Router::new().route("/", get(async || "orders"));
    let eureka = registry.client().instance_service(orders).build().unwrap();
    eureka.ready().await.unwrap();
    (registry, eureka)
}

fn ids(eureka: &Eureka) -> Vec<String> {
    let mut ids: Vec<_> = eureka.instances("orders").iter().map(|instance| instance.id().to_owned()).collect();
    ids.sort();
    ids
}

#[tokio::test(start_paused = true)]
async fn changes_are_seen_after_a_refresh_and_within_two_seconds() {
    let (registry, eureka) = world(2).await;
    registry.remove("Orders", "o1");
    registry.insert(instance("orders", "o3"));
    registry.set_status("orders", "o2", InstanceStatus::OutOfService);
    eureka.refresh().await.unwrap();
    assert_eq!(ids(&eureka), ["o3"]);
    registry.set_status("orders", "o2", InstanceStatus::Up);
    sleep(Duration::from_secs(2)).await;
    assert_eq!(ids(&eureka), ["o2", "o3"]);
    let before = Instance::clone(&eureka.instances("orders")[1]);
    let moved = Instance::builder("orders").id("o3").ip_addr("10.0.0.9").port(9).build().unwrap();
    // The second one has the older time, which a server takes for a late repetition.
    for instance in [moved, before] {
        let address = instance.ip_addr().map(str::to_owned);
        sleep(Duration::from_millis(10)).await;
        registry.insert(instance);
        eureka.refresh().await.unwrap();
        assert_eq!(eureka.instances("orders")[1].ip_addr(), address.as_deref());
    }
    registry.remove("orders", "unknown");
    registry.set_status("orders", "unknown", InstanceStatus::Down);
    // Without heartbeats, leases would have expired.
    sleep(Duration::from_secs(3600)).await;
    assert_eq!(ids(&eureka), ["o2", "o3"]);
}

#[tokio::test(start_paused = true)]
async fn provider_registers_and_its_requests_are_recorded() {
    // For the jitter of the heartbeats.
    fastrand::seed(7);
    let registry = TestRegistry::new();
    let eureka = registry.client().build().unwrap();
    let registrar = eureka.registrar(instance("orders", "o1"));
    registrar.register().await.unwrap();
    sleep(Duration::from_secs(65)).await;
    registrar.deregister().await.unwrap();
    let requests = registry.requests();
    let of = |method: Method| requests.iter().filter(|(used, _)| *used == method).count();
    assert!(of(Method::POST) >= 1 && of(Method::DELETE) == 1, "{requests:?}");
    let heartbeats = requests.iter().filter(|(method, uri)| method == Method::PUT && !uri.path().ends_with("/status"));
    assert!((2..=3).contains(&heartbeats.count()), "{requests:?}");
    eureka.refresh().await.unwrap();
    assert!(ids(&eureka).is_empty());
}

#[tokio::test(start_paused = true)]
async fn calls_survive_ten_minutes_of_each_fault() {
    for fault in [
        Fault::Down,
        Fault::Hang,
        Fault::Status(503),
        Fault::Empty,
        Fault::Garbage,
        Fault::Half,
        Fault::WrongHash,
        Fault::Delay(Duration::from_secs(600)),
    ] {
        let (registry, eureka) = world(3).await;
        let client = eureka.http_client_with(CallOptions::new().timeout(Duration::from_secs(1)));
        registry.fault(fault);
        for _ in 0..10 {
            sleep(Duration::from_secs(60)).await;
            let request = Request::get("http://orders/").body(Full::<Bytes>::default()).unwrap();
            assert_eq!(client.request(request).await.unwrap().status(), 200, "{fault:?}");
        }
        registry.fault(Fault::None);
        registry.insert(instance("orders", "o4"));
        sleep(Duration::from_secs(620)).await;
        assert_eq!(ids(&eureka), ["o1", "o2", "o3", "o4"], "{fault:?}");
        assert!(!eureka.status().is_stale(), "{fault:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn refresh_returns_the_error_of_the_fault() {
    let (registry, eureka) = world(1).await;
    let start = Instant::now();
    registry.fault(Fault::Down);
    assert!(eureka.refresh().await.unwrap_err().is_connect());
    registry.fault(Fault::Status(418));
    assert_eq!(eureka.refresh().await.unwrap_err().status(), Some(418));
    registry.fault(Fault::Garbage);
    let error = eureka.refresh().await.unwrap_err().to_string();
    assert!(error.contains("markup"), "{error}");
    registry.fault(Fault::Half);
    let error = eureka.refresh().await.unwrap_err().to_string();
    assert!(error.contains("connection closed within the body"), "{error}");
    assert!(start.elapsed() < Duration::from_secs(1));
    registry.fault(Fault::Hang);
    assert!(eureka.refresh().await.unwrap_err().is_timeout());
    assert_eq!(start.elapsed().as_secs(), 13);
    registry.fault(Fault::Delay(Duration::from_secs(5)));
    assert_eq!(eureka.refresh().await.unwrap().instance_count(), 1);
    assert_eq!(start.elapsed().as_secs(), 18);
}

#[tokio::test(start_paused = true)]
async fn empty_lists_hide_instances_from_new_clients_only() {
    let (registry, eureka) = world(2).await;
    registry.fault(Fault::Empty);
    let new = registry.client().build().unwrap();
    assert_eq!(new.ready().await.unwrap().instance_count(), 0);
    eureka.refresh().await.unwrap();
    assert_eq!(ids(&eureka), ["o1", "o2"]);
    // Writes succeed, and are seen once the fault ends.
    let registrar = new.registrar(instance("orders", "o3"));
    registrar.register().await.unwrap();
    registry.fault(Fault::None);
    assert_eq!(new.refresh().await.unwrap().instance_count(), 3);
}

#[tokio::test(start_paused = true)]
async fn wrong_hash_of_a_delta_makes_the_client_fetch_everything() {
    let (registry, eureka) = world(2).await;
    let fulls = || registry.requests().iter().filter(|(_, uri)| uri.path() == "/eureka/apps/").count();
    sleep(Duration::from_secs(30)).await;
    assert_eq!(fulls(), 1);
    registry.fault(Fault::WrongHash);
    registry.insert(instance("orders", "o3"));
    sleep(Duration::from_secs(30)).await;
    assert!(fulls() > 1, "{:?}", registry.requests());
    assert_eq!(ids(&eureka), ["o1", "o2", "o3"]);
    assert!(eureka.status().to_string().contains("mismatch"), "{}", eureka.status());
}

#[tokio::test]
#[should_panic = "the status is between 100 and 999"]
async fn invalid_status_of_a_fault_panics() {
    TestRegistry::new().fault(Fault::Status(20));
}
