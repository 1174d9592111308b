//! Status and state of a provider.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU16, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::time::{Instant, sleep};
use tower_eureka::model::{Instance, InstanceStatus};
use tower_eureka::register::RegistrarState;

use crate::captured_log::Log;
use crate::common::{Asked, Reply, Scripted, instance};
use crate::provider::{accepting, registrar, stop_on_shutdown, writes};

const ID: &str = "/apps/ORDERS/a";

#[tokio::test(start_paused = true)]
async fn status_set_during_the_drain_is_an_error_and_the_instance_stays_down() {
    let registry = accepting();
    let handle = registrar(&registry);
    let health = handle.clone();
    let (state, start) = (handle.state(), Instant::now());
    // A health check of the user sets the status each second.
    let checks = tokio::spawn(async move {
        let (mut accepted, mut refused) = (0, Vec::new());
        for _ in 0..30 {
            sleep(Duration::from_secs(1)).await;
            match health.set_status(InstanceStatus::Up).await {
                Ok(()) => accepted = start.elapsed().as_secs(),
                Err(error) => refused.push(error.to_string()),
            }
        }
        (accepted, refused)
    });
    handle.serve(sleep(Duration::from_millis(10_500)), stop_on_shutdown).await.unwrap();
    assert_eq!(writes(&registry).last().map(String::as_str), Some("DELETE"));
    let sent = writes(&registry);
    assert_eq!(sent[sent.len() - 2], "DOWN", "{sent:?}");
    let (accepted, refused) = checks.await.unwrap();
    assert_eq!(accepted, 10);
    assert!(refused[0].contains("stays DOWN") && refused[0].contains("state()"), "{refused:?}");
    assert_eq!(*state.borrow(), RegistrarState::Deregistered);
}

#[tokio::test(start_paused = true)]
async fn status_change_in_flight_when_the_drain_begins_does_not_undo_the_down() {
    let slow = Arc::new(AtomicBool::new(false));
    let is_slow = slow.clone();
    let registry = Scripted::new(move |asked| {
        let starting = asked.line.starts_with("POST")
            && Instance::from_json(&asked.body).unwrap().status() == InstanceStatus::Starting;
        if starting && is_slow.load(Ordering::Relaxed) { Reply::Never } else { Reply::Status(204) }
    });
    let handle = registrar(&registry);
    handle.register().await.unwrap();
    slow.store(true, Ordering::Relaxed);
    let (one, other) = (handle.clone(), handle.clone());
    let under_way = tokio::spawn(async move { one.set_status(InstanceStatus::Starting).await });
    let waiting = tokio::spawn(async move { other.set_status(InstanceStatus::Starting).await });
    sleep(Duration::from_secs(1)).await;
    let start = Instant::now();
    handle.drain().await;
    assert_eq!(start.elapsed().as_secs(), 5, "the DOWN does not wait for the status changes");
    assert!(under_way.await.unwrap().is_err() && waiting.await.unwrap().is_err());
    assert_eq!(writes(&registry), ["UP", "STARTING", "DOWN"]);
    let versions = registry.registered_versions();
    assert!(versions[1] < versions[2], "a registration that arrives late is the older one");
    assert!(handle.register().await.unwrap_err().to_string().contains("deregister()"));
    handle.deregister().await.unwrap();
    slow.store(false, Ordering::Relaxed);
    handle.register().await.unwrap();
    handle.set_status(InstanceStatus::Starting).await.unwrap();
    assert_eq!(writes(&registry)[3..], ["DELETE", "UP", "STARTING"], "it can be registered again");
}

#[tokio::test(start_paused = true)]
async fn status_that_servers_refuse_is_an_error_that_names_override_status() {
    let registry = accepting();
    let handle = registrar(&registry);
    handle.register().await.unwrap();
    let error = handle.set_status(InstanceStatus::Unknown).await.unwrap_err();
    assert!(error.is_config() && error.to_string().contains("override_status"), "{error}");
    assert!(handle.override_status(InstanceStatus::Unknown).await.unwrap_err().is_config());
    assert_eq!(writes(&registry), ["UP"]);
}

#[tokio::test(start_paused = true)]
async fn override_sends_the_timestamp_and_its_removal_registers_again() {
    let registry = accepting();
    let handle = registrar(&registry);
    let error = handle.override_status(InstanceStatus::OutOfService).await.unwrap_err();
    assert!(error.to_string().contains("call register() first"), "{error}");
    handle.register().await.unwrap();
    let sent = |asked: &Asked| Instance::from_json(&asked.body).unwrap();
    let version = |asked: &Asked| sent(asked).last_dirty_timestamp().unwrap();
    let mark = |asked: &Asked| sent(asked).metadata().get("tower-eureka.override").map(str::to_owned);
    handle.override_status(InstanceStatus::OutOfService).await.unwrap();
    handle.remove_override().await.unwrap();
    let asked: Vec<_> = registry.asked().into_iter().filter(|asked| !asked.line.starts_with("GET")).collect();
    // The mark by which a restarted process recognizes the override goes first.
    let marked = version(&asked[1]);
    assert!(marked > version(&asked[0]) && mark(&asked[0]).is_none());
    assert_eq!(mark(&asked[1]).as_deref(), Some("OUT_OF_SERVICE"));
    assert_eq!(asked[2].line, format!("PUT {ID}/status?value=OUT_OF_SERVICE&lastDirtyTimestamp={marked}"));
    assert_eq!(asked[3].line, format!("DELETE {ID}/status?lastDirtyTimestamp={marked}"));
    assert_eq!(asked[4].line, "POST /apps/ORDERS");
    assert!(version(&asked[4]) > marked && mark(&asked[4]).is_none());
    handle.drain().await;
    assert!(handle.override_status(InstanceStatus::OutOfService).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn state_follows_the_registration() {
    let status = Arc::new(AtomicU16::new(503));
    let current = status.clone();
    let registry = Scripted::new(move |_| Reply::Status(current.load(Ordering::Relaxed)));
    let handle = registrar(&registry);
    let mut state = handle.state();
    assert_eq!(*state.borrow(), RegistrarState::NotRegistered);
    handle.register().await.unwrap_err();
    assert_eq!(*state.borrow(), RegistrarState::NotRegistered);
    status.store(204, Ordering::Relaxed);
    state.wait_for(|state| *state == RegistrarState::Registered).await.unwrap();
    status.store(500, Ordering::Relaxed);
    state.wait_for(|state| *state == RegistrarState::HeartbeatFailing).await.unwrap();
    status.store(200, Ordering::Relaxed);
    state.wait_for(|state| *state == RegistrarState::Registered).await.unwrap();
    handle.drain().await;
    assert_eq!(*state.borrow(), RegistrarState::Draining);
    sleep(Duration::from_secs(100)).await;
    assert_eq!(*state.borrow(), RegistrarState::Draining, "a heartbeat does not end it");
    handle.deregister().await.unwrap();
    assert_eq!(*state.borrow(), RegistrarState::Deregistered);
    handle.register().await.unwrap();
    assert_eq!(*state.borrow(), RegistrarState::Registered);

    status.store(500, Ordering::Relaxed);
    handle.set_status(InstanceStatus::Starting).await.unwrap_err();
    assert_eq!(*state.borrow(), RegistrarState::HeartbeatFailing, "a failed change of the status counts, too");

    let off = registry.client().register_with_eureka(false).build().unwrap().registrar(instance("orders", "a"));
    off.register().await.unwrap();
    off.drain().await;
    off.deregister().await.unwrap();
    assert_eq!(*off.state().borrow(), RegistrarState::Disabled);
}

#[tokio::test(start_paused = true)]
async fn drain_without_a_registration_ends_deregistered() {
    let registry = accepting();
    let handle = registrar(&registry);
    handle.drain().await;
    assert_eq!(*handle.state().borrow(), RegistrarState::Draining);
    handle.deregister().await.unwrap();
    assert_eq!(*handle.state().borrow(), RegistrarState::Deregistered);
    assert!(registry.lines().is_empty());
}

#[tokio::test(start_paused = true)]
async fn registration_that_fails_is_logged_every_ten_minutes_and_not_as_a_heartbeat() {
    let (log, _logging) = Log::start(tracing::Level::INFO);
    let lines = |text: &str| log.text().matches(text).count();
    let status = Arc::new(AtomicU16::new(503));
    let current = status.clone();
    let registry = Scripted::new(move |_| Reply::Status(current.load(Ordering::Relaxed)));
    let handle = registrar(&registry);
    handle.register().await.unwrap_err();
    sleep(Duration::from_secs(500)).await;
    assert_eq!(lines("registration failed, retrying"), 1);
    sleep(Duration::from_secs(3000)).await;
    assert!((5..=6).contains(&lines("registration failed, retrying")), "{}", log.text());
    status.store(204, Ordering::Relaxed);
    let mut state = handle.state();
    state.wait_for(|state| *state == RegistrarState::Registered).await.unwrap();
    assert_eq!((lines("heartbeat failed"), lines("heartbeat recovered")), (0, 0), "{}", log.text());
    status.store(500, Ordering::Relaxed);
    state.wait_for(|state| *state == RegistrarState::HeartbeatFailing).await.unwrap();
    status.store(200, Ordering::Relaxed);
    state.wait_for(|state| *state == RegistrarState::Registered).await.unwrap();
    assert_eq!((lines("heartbeat failed"), lines("heartbeat recovered")), (1, 1), "{}", log.text());
}

/// A registry that already has a record of the instance, with this timestamp.
fn with_record(timestamp: Arc<AtomicI64>) -> Scripted {
    Scripted::new(move |asked| {
        if !asked.line.starts_with("GET") {
            return Reply::Status(204);
        }
        let json = String::from_utf8(instance("orders", "a").to_json()).unwrap();
        let record = format!(r#"{{"lastDirtyTimestamp":"{}","#, timestamp.load(Ordering::Relaxed));
        Reply::Json(json.replacen(r#"{"instanceId""#, &format!(r#"{record}"instanceId""#), 1))
    })
}

#[tokio::test(start_paused = true)]
async fn newer_record_of_a_clock_that_was_ahead_is_replaced_once() {
    let timestamp = Arc::new(AtomicI64::new(0));
    let registry = with_record(timestamp.clone());
    registrar(&registry).register().await.unwrap();
    sleep(Duration::from_secs(1)).await;
    let ours = registry.registered_versions();
    assert_eq!(ours.len(), 1, "an older record is replaced by the registry itself");
    // The clock of the next process runs behind this record by an hour.
    let theirs = ours[0] + 3_600_000;
    timestamp.store(theirs, Ordering::Relaxed);
    let registry = with_record(timestamp.clone());
    let handle = registrar(&registry);
    handle.register().await.unwrap();
    sleep(Duration::from_secs(100)).await;
    let sent = registry.registered_versions();
    assert_eq!((sent.len(), sent[1]), (2, theirs + 1));
    handle.set_status(InstanceStatus::Down).await.unwrap();
    assert!(registry.registered_versions()[2] > theirs + 1, "later changes are newer still");
}

#[tokio::test(start_paused = true)]
async fn record_that_is_years_ahead_is_not_replaced() {
    for theirs in [i64::MAX, 32_503_680_000_000] {
        let registry = with_record(Arc::new(AtomicI64::new(theirs)));
        let handle = registrar(&registry);
        handle.register().await.unwrap();
        sleep(Duration::from_secs(100)).await;
        assert_eq!(registry.registered_versions().len(), 1);
        drop(handle);
    }
}

#[tokio::test(start_paused = true)]
async fn check_of_the_own_record_delays_only_the_first_registration_and_may_fail() {
    let registry = Scripted::new(|asked| match asked.line.starts_with("GET") {
        true => Reply::Never,
        false => Reply::Status(204),
    });
    let handle = registrar(&registry);
    let start = Instant::now();
    handle.register().await.unwrap();
    handle.set_status(InstanceStatus::Down).await.unwrap();
    handle.deregister().await.unwrap();
    assert_eq!(start.elapsed(), Duration::from_secs(1));
    for reply in [404, 500, 200] {
        let registry =
            Scripted::new(move |asked| Reply::Status(if asked.line.starts_with("GET") { reply } else { 204 }));
        let handle = registrar(&registry);
        handle.register().await.unwrap();
        sleep(Duration::from_secs(100)).await;
        assert_eq!(*handle.state().borrow(), RegistrarState::Registered);
        assert_eq!(writes(&registry), ["UP"]);
    }
}

#[tokio::test(start_paused = true)]
async fn overloaded_registry_gets_no_more_heartbeats_than_a_healthy_one() {
    for status in [429, 503] {
        let start = Instant::now();
        let registry = Scripted::new(move |asked| match start.elapsed().as_secs() {
            20.. if asked.line.starts_with("PUT") => Reply::Status(status),
            _ => Reply::Status(204),
        });
        let handle = registrar(&registry);
        handle.register().await.unwrap();
        sleep(Duration::from_secs(600)).await;
        let beats = registry.lines().iter().filter(|line| line.starts_with("PUT")).count();
        assert!((16..=22).contains(&beats), "{status}: {beats}");
    }
}

#[tokio::test(start_paused = true)]
async fn panic_of_the_http_service_does_not_end_the_heartbeats() {
    let calls = AtomicUsize::new(0);
    let registry = Scripted::new(move |_| match calls.fetch_add(1, Ordering::Relaxed) {
        // The first two are the read before the registration, and the registration.
        0 | 1 | 5 | 6 => panic!("a fault of the user's service"),
        _ => Reply::Status(204),
    });
    let handle = registrar(&registry);
    handle.register().await.unwrap_err();
    let mut state = handle.state();
    state.wait_for(|state| *state == RegistrarState::Registered).await.unwrap();
    sleep(Duration::from_secs(600)).await;
    assert_eq!(*state.borrow(), RegistrarState::Registered);
    assert!(registry.lines().iter().filter(|line| line.starts_with("PUT")).count() > 15);
}
