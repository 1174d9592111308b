#[cfg(feature = "peers")]
mod consumer;

use std::time::Duration;

use super::*;
use crate::model::InstanceStatus;

fn instance(id: &str) -> Instance {
    Instance::builder("orders").id(id).host_name("h").ip_addr("10.0.0.1").port(80).build().unwrap()
}

fn register(server: &EurekaServer, id: &str) {
    server.registry().register(instance(id), outcome::Origin::Client, server.now()).unwrap();
}

fn ids(server: &EurekaServer) -> Vec<String> {
    server.applications().applications.iter().flat_map(|a| &a.instances).map(|i| i.id().to_owned()).collect()
}

#[tokio::test(start_paused = true)]
async fn silent_instance_is_evicted_and_a_renewed_one_stays() {
    let server = EurekaServer::builder().eviction(Eviction::new().self_preservation(false)).build().unwrap();
    register(&server, "silent");
    register(&server, "alive");
    tokio::time::sleep(Duration::from_secs(89)).await;
    assert_eq!(ids(&server), ["alive", "silent"]);
    for _ in 0..6 {
        tokio::time::sleep(Duration::from_secs(30)).await;
        server.registry().renew("ORDERS", "alive", None, outcome::Origin::Client, server.now());
    }
    assert_eq!(ids(&server), ["alive"]);
    assert!(server.instance("orders", "silent").is_none());
    assert_eq!(server.instance("orders", "alive").map(|i| i.status()), Some(InstanceStatus::Up));
}

#[tokio::test(start_paused = true)]
async fn self_preservation_keeps_instances_that_fall_silent_together() {
    let server = EurekaServer::builder().build().unwrap();
    (0..10).for_each(|i| register(&server, &i.to_string()));
    tokio::time::sleep(Duration::from_secs(3_600)).await;
    assert_eq!(ids(&server).len(), 10);
    // Nine send heartbeats again: 18 heartbeats a minute are more than 17.
    for _ in 0..20 {
        (0..9).for_each(|i| {
            server.registry().renew("ORDERS", &i.to_string(), None, outcome::Origin::Client, server.now());
        });
        tokio::time::sleep(Duration::from_secs(30)).await;
    }
    assert_eq!(ids(&server).len(), 9);
}

#[tokio::test(start_paused = true)]
async fn change_leaves_the_delta_after_its_retention() {
    let server = EurekaServer::builder().eviction(Eviction::new().self_preservation(false)).build().unwrap();
    register(&server, "i");
    tokio::time::sleep(Duration::from_secs(80)).await;
    assert_eq!(server.registry().delta().applications.len(), 1);
    server.registry().renew("ORDERS", "i", None, outcome::Origin::Client, server.now());
    tokio::time::sleep(Duration::from_secs(180 + 33 - 80)).await;
    assert!(server.registry().delta().applications.is_empty());
    assert_eq!(ids(&server), ["i"]);
}

#[tokio::test(start_paused = true)]
async fn timers_end_when_the_last_handle_is_dropped() {
    let server = EurekaServer::builder().build().unwrap();
    let (registry, router) = (Arc::downgrade(server.registry()), server.router());
    drop(server);
    tokio::task::yield_now().await;
    assert!(registry.upgrade().is_some(), "a router keeps the registry");
    drop(router);
    tokio::task::yield_now().await;
    assert!(registry.upgrade().is_none());
}

#[cfg(feature = "peers")]
#[tokio::test(start_paused = true)]
async fn cluster_tasks_end_when_the_last_handle_is_dropped() {
    let peers = Peers::new().url("http://127.0.0.1:1/eureka/").wait_when_empty(Duration::ZERO);
    let server = EurekaServer::builder().peers(peers).build().unwrap();
    let (registry, router) = (Arc::downgrade(server.registry()), server.router());
    drop(server);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(registry.upgrade().is_some(), "a router keeps the registry");
    drop(router);
    // Tasks that belong to other tasks end after them.
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(registry.upgrade().is_none());
}

#[tokio::test]
async fn unusable_setting_fails_the_build() {
    let builder = EurekaServer::builder;
    for (bad, name) in [
        (builder().eviction(Eviction::new().interval(Duration::ZERO)), "Eviction::interval"),
        (builder().eviction(Eviction::new().expected_renewal_interval(Duration::ZERO)), "expected_renewal_interval"),
        (builder().eviction(Eviction::new().renewal_percent_threshold(0.0)), "renewal_percent_threshold"),
        (builder().eviction(Eviction::new().renewal_percent_threshold(1.1)), "renewal_percent_threshold"),
        (builder().eviction(Eviction::new().renewal_percent_threshold(f64::NAN)), "renewal_percent_threshold"),
        (builder().read_only_cache_interval(Duration::ZERO), "read_only_cache_interval"),
        (builder().property("eureka.server.limits.idle-time-ms", "0").unwrap(), "eureka.server.limits"),
        (builder().limits(Limits::new().registration_bytes(0)), "registration_bytes"),
        (builder().limits(Limits::new().batch_bytes(0)), "batch_bytes"),
        (builder().limits(Limits::new().request_bytes_in_flight(0)), "request_bytes_in_flight"),
        (builder().limits(Limits::new().request_bytes_in_flight(13 * 1024 * 1024)), "request_bytes_in_flight"),
        (builder().limits(Limits::new().batch_bytes(usize::MAX)), "request_bytes_in_flight"),
        (builder().limits(Limits::new().instances_per_application(0)), "instances_per_application"),
        (builder().limits(Limits::new().name_bytes(0)), "name_bytes"),
        (builder().limits(Limits::new().instance_bytes(0)), "instance_bytes"),
        (builder().limits(Limits::new().instances(0)), "Limits::instances"),
        (builder().limits(Limits::new().registry_bytes(0)), "registry_bytes"),
        (builder().limits(Limits::new().lease_duration(Duration::from_millis(999))), "lease_duration"),
        (builder().property("eureka.server.limits.lease-seconds", "0").unwrap(), "lease_duration"),
    ] {
        let error = bad.build().unwrap_err();
        assert!(error.is_config() && error.to_string().contains(name), "{error}");
    }
}

#[tokio::test]
async fn registry_works_with_extreme_limits() {
    for (name, value) in [
        ("name-bytes", usize::MAX),
        ("instance-bytes", usize::MAX),
        ("metadata-bytes", usize::MAX),
        ("instances", usize::MAX),
        ("instances-per-application", usize::MAX),
        ("registry-bytes", usize::MAX),
        ("registry-bytes", 1_000_000),
        ("lease-seconds", usize::MAX),
        ("lease-seconds", 1),
    ] {
        let name = format!("eureka.server.limits.{name}");
        let server = EurekaServer::builder().property(&name, &value.to_string()).unwrap().build().unwrap();
        register(&server, "i");
        assert!(server.registry().cancel("ORDERS", "i", server.now()).is_some(), "{name}={value}");
        assert_eq!(server.registry().delta().applications.len(), 1, "{name}={value}");
    }
}

#[test]
fn build_without_a_runtime_returns_an_error() {
    let error = EurekaServer::builder().build().unwrap_err();
    assert!(!error.is_config());
    assert!(error.to_string().contains("tokio runtime"), "{error}");
}
