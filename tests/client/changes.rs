//! Changes of a registered instance: coalesced, limited, and never lost.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::time::{Instant, sleep};
use tokio_stream::StreamExt;
use tower_eureka::model::InstanceStatus;
use tower_eureka::register::{RegistrarEvent, RegistrarState};

use crate::common::{Reply, Scripted, instance};
use crate::provider::{accepting, registrar, stop_on_shutdown, writes};

const SECOND: Duration = Duration::from_secs(1);

#[tokio::test(start_paused = true)]
async fn changes_are_registered_at_once_then_at_the_rate_of_the_java_replicator() {
    let registry = accepting();
    let handle = registrar(&registry);
    handle.register().await.unwrap();
    let changing = handle.clone();
    // Each second another change, none of which is awaited.
    for second in 0..60 {
        let handle = changing.clone();
        tokio::spawn(async move { handle.update_metadata([("build", second.to_string())]).await });
        sleep(SECOND).await;
    }
    sleep(16 * SECOND).await;
    let sent = registry.registrations();
    assert!((6..=8).contains(&sent.len()), "two at once, four a minute: {}", sent.len());
    assert_eq!((sent[1].0.as_secs(), sent[2].0.as_secs()), (0, 1));
    assert_eq!(sent.last().unwrap().1.metadata().get("build"), Some("59"), "the last one is not lost");
    let versions = registry.registered_versions();
    assert!(versions.is_sorted_by(|a, b| a < b), "{versions:?}");
    let pauses: Vec<_> = sent[2..].windows(2).map(|pair| (pair[1].0 - pair[0].0).as_secs()).collect();
    assert!(pauses.iter().all(|pause| *pause >= 13), "{pauses:?}");
}

#[tokio::test(start_paused = true)]
async fn ports_that_were_registered_automatically_stay_when_the_metadata_is_replaced() {
    let registry = accepting();
    let handle = registrar(&registry);
    let _layer = handle.layer();
    handle.update_metadata([("gRPC_port", "9090"), ("zone", "a")]).await.unwrap();
    handle.set_metadata([("zone", "b")]).await.unwrap();
    handle.register().await.unwrap();
    handle.set_metadata([("zone", "c"), ("gRPC_port", "9091")]).await.unwrap();
    let sent = registry.registrations();
    for (grpc, zone, sent) in [("9090", "b", &sent[0].1), ("9091", "c", &sent[1].1)] {
        let mut metadata: Vec<_> = sent.metadata().iter().collect();
        metadata.sort_unstable();
        assert_eq!(metadata, [("gRPC_port", grpc), ("management.port", "1"), ("zone", zone)]);
    }
    handle.remove_metadata(["management.port"]).await.unwrap();
    assert_eq!(registry.registrations()[2].1.metadata().get("management.port"), None);
}

#[tokio::test(start_paused = true)]
async fn metadata_address_and_lease_change_together_and_are_kept() {
    let registry = accepting();
    let handle = registrar(&registry);
    handle.update_metadata([("zone", "a"), ("early", "1")]).await.unwrap();
    handle.register().await.unwrap();
    handle.set_metadata([("zone", "b"), ("old", "1")]).await.unwrap();
    handle.remove_metadata(["old", "absent"]).await.unwrap();
    let address: IpAddr = "10.0.0.9".parse().unwrap();
    let start = Instant::now();
    let (one, other, third) = tokio::join!(
        handle.set_address(address),
        handle.set_lease(10 * SECOND, 40 * SECOND),
        handle.update_metadata([("weight", "3")])
    );
    one.and(other).and(third).unwrap();
    assert_eq!(start.elapsed().as_secs(), 15);
    handle.update_metadata([("weight", "3")]).await.unwrap();
    let sent = registry.registrations();
    assert_eq!(sent.len(), 4, "the last three are one registration, and the same value again is none");
    assert_eq!(sent[0].1.metadata().get("early"), Some("1"));
    let last = &sent[3].1;
    let metadata: Vec<_> = last.metadata().iter().collect();
    assert_eq!(metadata, [("weight", "3"), ("zone", "b")]);
    assert_eq!((last.id(), last.ip_addr(), last.host_name()), ("a", Some("10.0.0.9"), Some("10.0.0.9")));
    assert_eq!(last.lease().map(|lease| (lease.renewal_interval_secs, lease.duration_secs)), Some((10, 40)));
    assert_eq!(handle.instance().metadata().get("weight"), Some("3"));
    assert!(handle.set_lease(10 * SECOND, 10 * SECOND).await.unwrap_err().is_config());

    handle.deregister().await.unwrap();
    handle.remove_metadata(["zone"]).await.unwrap();
    handle.register().await.unwrap();
    let again = registry.registrations().pop().unwrap().1;
    assert_eq!((again.metadata().get("weight"), again.metadata().get("zone")), (Some("3"), None));
    assert!(again.last_dirty_timestamp() > last.last_dirty_timestamp());
    handle.drain().await;
    assert!(handle.update_metadata([("a", "b")]).await.unwrap_err().to_string().contains("draining"));
}

#[tokio::test(start_paused = true)]
async fn change_that_fails_is_repeated_and_its_caller_gets_the_error() {
    let status = Arc::new(AtomicU16::new(204));
    let current = status.clone();
    let registry = Scripted::new(move |_| Reply::Status(current.load(Ordering::Relaxed)));
    let handle = registrar(&registry);
    handle.register().await.unwrap();
    status.store(500, Ordering::Relaxed);
    assert_eq!(handle.update_metadata([("weight", "2")]).await.unwrap_err().status(), Some(500));
    status.store(204, Ordering::Relaxed);
    let mut state = handle.state();
    state.wait_for(|state| *state == RegistrarState::Registered).await.unwrap();
    assert_eq!(registry.registrations().pop().unwrap().1.metadata().get("weight"), Some("2"));
}

#[tokio::test(start_paused = true)]
async fn change_that_the_registry_rejects_does_not_stop_the_heartbeats() {
    for status in [400, 403, 413, 429, 500, 503] {
        let (start, registrations) = (Instant::now(), AtomicUsize::new(0));
        let registry = Scripted::new(move |asked| {
            let is_change = asked.line.starts_with("POST") && registrations.fetch_add(1, Ordering::Relaxed) > 0;
            Reply::Status(if is_change && start.elapsed() < 600 * SECOND { status } else { 200 })
        });
        let handle = registrar(&registry);
        handle.register().await.unwrap();
        assert_eq!(handle.update_metadata([("weight", "2")]).await.unwrap_err().status(), Some(status));
        sleep(599 * SECOND).await;
        let at = |method: &str| -> Vec<_> {
            let asked = registry.asked().into_iter().filter(|asked| asked.line.starts_with(method));
            asked.map(|asked| asked.at).collect()
        };
        let beats = at("PUT");
        assert!((17..=23).contains(&beats.len()), "{status}: {} heartbeats", beats.len());
        assert!(beats.windows(2).all(|pair| pair[1] - pair[0] < 35 * SECOND), "{status}: {beats:?}");
        let changes = at("POST").len();
        assert!((15..=30).contains(&changes), "{status}: {changes} registrations");
        assert_eq!(*handle.state().borrow(), RegistrarState::HeartbeatFailing, "{status}");
        sleep(40 * SECOND).await;
        assert_eq!(*handle.state().borrow(), RegistrarState::Registered, "{status}");
        assert_eq!(registry.registrations().pop().unwrap().1.metadata().get("weight"), Some("2"));
    }
}

#[tokio::test(start_paused = true)]
async fn changes_that_are_faster_than_the_registry_do_not_stop_the_heartbeats() {
    for (status, update_interval) in [(204, 30), (400, 30), (500, 60), (413, 121)] {
        let start = Instant::now();
        let registry = Scripted::new(move |asked| match asked.line.split(' ').next().unwrap() {
            "POST" => Reply::Status(if start.elapsed() < SECOND { 204 } else { status }),
            "PUT" => Reply::Later(SECOND, String::new()),
            _ => Reply::Status(404),
        });
        let handle = registrar(&registry).update_interval(Duration::from_secs(update_interval));
        handle.register().await.unwrap();
        let mut oldest = Duration::ZERO;
        for number in 0..2_000 {
            sleep(Duration::from_millis(300)).await;
            let changing = handle.clone();
            tokio::spawn(async move { changing.update_metadata([("load", number.to_string())]).await });
            oldest = oldest.max(handle.health_report().registry.lease_age.unwrap());
        }
        assert!(oldest < 40 * SECOND, "{status}: {oldest:?}");
        let beats = registry.lines().iter().filter(|line| line.starts_with("PUT")).count();
        assert!(beats <= 40, "{status}: {beats}");
    }
}

#[tokio::test(start_paused = true)]
async fn change_during_an_outage_adds_no_requests_of_its_own() {
    let start = Instant::now();
    let registry = Scripted::new(move |_| Reply::Status(if start.elapsed() < 10 * SECOND { 200 } else { 500 }));
    let handle = registrar(&registry);
    handle.register().await.unwrap();
    sleep(60 * SECOND).await;
    handle.update_metadata([("weight", "2")]).await.unwrap_err();
    let before = registry.asked().len();
    sleep(600 * SECOND).await;
    let sent = registry.lines().split_off(before);
    assert!((17..=30).contains(&sent.len()), "{sent:?}");
}

#[tokio::test(start_paused = true)]
async fn events_tell_the_life_of_a_registration_and_what_was_missed() {
    let beats = AtomicUsize::new(0);
    let registry = Scripted::new(move |asked| {
        let beat = if asked.line.starts_with("PUT") { beats.fetch_add(1, Ordering::Relaxed) } else { 0 };
        Reply::Status(match beat {
            2 => 404,
            4 => 500,
            _ => 204,
        })
    });
    let handle = registrar(&registry);
    let (mut events, mut slow) = (handle.events(), handle.events());
    let registered = handle.registered();
    handle.register().await.unwrap();
    registered.await.unwrap();
    sleep(300 * SECOND).await;
    handle.deregister().await.unwrap();
    assert!(handle.registered().await.is_err());
    drop(handle);
    let mut seen = Vec::new();
    while let Some(event) = events.next().await {
        if event != RegistrarEvent::Renewed {
            seen.push(event);
        }
    }
    let up = RegistrarEvent::Registered(InstanceStatus::Up);
    let lost = RegistrarEvent::LeaseLost;
    assert_eq!(seen, [up.clone(), lost, up, RegistrarEvent::HeartbeatFailed, RegistrarEvent::Deregistered]);
    assert!(slow.next().await.is_some());

    let handle = registrar(&registry);
    let mut slow = handle.events();
    for _ in 0..50 {
        handle.register().await.unwrap();
        handle.deregister().await.unwrap();
    }
    assert_eq!(slow.next().await, Some(RegistrarEvent::Missed(100 - 64)));
}

#[tokio::test(start_paused = true)]
async fn registered_returns_at_once_when_registration_is_switched_off() {
    let registry = accepting();
    let off = registry.client().register_with_eureka(false).build().unwrap().registrar(instance("orders", "a"));
    off.registered().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn instances_of_two_applications_share_one_client() {
    let registry = accepting();
    let client = registry.client().build().unwrap();
    let [orders, reviews] = ["orders", "reviews"].map(|app| client.registrar(instance(app, "a")));
    let both = tokio::join!(
        orders.serve(sleep(50 * SECOND), stop_on_shutdown),
        reviews.serve(sleep(80 * SECOND), stop_on_shutdown)
    );
    assert_eq!(both, (Ok(()), Ok(())));
    let lines = registry.lines();
    for app in ["ORDERS", "REVIEWS"] {
        assert_eq!(lines.iter().filter(|line| **line == format!("POST /apps/{app}")).count(), 2);
        assert_eq!(lines.iter().filter(|line| **line == format!("DELETE /apps/{app}/a")).count(), 1);
    }
    assert_eq!(writes(&registry).iter().filter(|write| *write == "DELETE").count(), 2);
}
