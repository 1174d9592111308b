//! Overrides of a provider's status: its own and an operator's.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::time::sleep;
use tokio_stream::StreamExt;
use tower_eureka::model::{Instance, InstanceStatus};
use tower_eureka::register::{Registrar, RegistrarEvent, RegistrarState};

use crate::common::{Reply, Scripted, instance};
use crate::provider::{registrar, writes};

const SECOND: Duration = Duration::from_secs(1);

/// Registry with the rules of Java servers for the override of one instance.
#[derive(Clone, Default)]
struct Registry(Arc<Mutex<Record>>);

#[derive(Clone, Default)]
struct Record {
    instance: Option<Instance>,
    overridden: Option<String>,
    /// True after an override was removed, until the next registration.
    unknown: bool,
}

impl Record {
    /// Returns the effective status.
    fn status(&self) -> String {
        let own = self.instance.as_ref().map_or(InstanceStatus::Unknown, Instance::status);
        match (own, &self.overridden) {
            (InstanceStatus::Up, Some(overridden)) => overridden.clone(),
            (InstanceStatus::Up, None) if self.unknown => "UNKNOWN".to_owned(),
            _ => own.to_string(),
        }
    }
}

impl Registry {
    fn respond(&self, method: &str, path: &str, body: &[u8]) -> Reply {
        let mut record = self.0.lock().unwrap();
        let (path, query) = path.split_once('?').unwrap_or((path, ""));
        match (method, path.ends_with("/status")) {
            ("POST", _) => {
                let sent = Instance::from_json(body).unwrap();
                if sent.overridden_status() != InstanceStatus::Unknown {
                    record.overridden.get_or_insert(sent.overridden_status().to_string());
                }
                *record = Record { instance: Some(sent), overridden: record.overridden.clone(), unknown: false };
                Reply::Status(204)
            }
            (_, true) if record.instance.is_none() => Reply::Status(404),
            ("PUT", true) => {
                let status = query.split('&').find_map(|part| part.strip_prefix("value=")).unwrap();
                // An override that is equal to the status is ignored.
                if record.status() != status {
                    record.overridden = Some(status.to_owned());
                }
                Reply::Status(200)
            }
            ("DELETE", true) => {
                (record.overridden, record.unknown) = (None, true);
                Reply::Status(200)
            }
            ("PUT", false) => Reply::Status(if record.instance.is_none() || record.unknown { 404 } else { 200 }),
            ("DELETE", false) => {
                *record = Record::default();
                Reply::Status(200)
            }
            _ => match &record.instance {
                None => Reply::Status(404),
                Some(instance) => {
                    let json = String::from_utf8(instance.to_json()).unwrap();
                    let overridden = record.overridden.as_deref().unwrap_or("UNKNOWN");
                    let mut json: serde_json::Value = serde_json::from_str(&json).unwrap();
                    let instance = json.get_mut("instance").and_then(|instance| instance.as_object_mut());
                    instance.unwrap().insert("overriddenstatus".into(), overridden.into());
                    Reply::Json(json.to_string())
                }
            },
        }
    }

    fn service(&self) -> Scripted {
        let this = self.clone();
        Scripted::new(move |asked| {
            let (method, path) = asked.line.split_once(' ').unwrap();
            this.respond(method, path, &asked.body)
        })
    }

    fn operator(&self, method: &str, status: &str) {
        self.respond(method, &format!("/apps/ORDERS/a/status?value={status}"), b"");
    }

    fn overridden(&self) -> Option<String> {
        self.0.lock().unwrap().overridden.clone()
    }

    /// Loses everything, as a server without peers that restarts.
    fn restart(&self) {
        *self.0.lock().unwrap() = Record::default();
    }
}

fn provider(registry: &Registry) -> Registrar {
    registry.service().client().build().unwrap().registrar(instance("orders", "a"))
}

#[tokio::test(start_paused = true)]
async fn own_out_of_service_is_set_and_cleared_by_the_status() {
    let registry = Registry::default();
    let handle = provider(&registry);
    handle.register().await.unwrap();
    handle.set_status(InstanceStatus::OutOfService).await.unwrap();
    assert_eq!(registry.overridden().as_deref(), Some("OUT_OF_SERVICE"));
    assert_eq!(*handle.state().borrow(), RegistrarState::OutOfService);
    sleep(200 * SECOND).await;
    assert_eq!(registry.overridden().as_deref(), Some("OUT_OF_SERVICE"));
    handle.set_status(InstanceStatus::Up).await.unwrap();
    assert_eq!((registry.overridden(), *handle.state().borrow()), (None, RegistrarState::Registered));
    let registered = registry.0.lock().unwrap().instance.clone().unwrap();
    assert_eq!(registered.status(), InstanceStatus::Up);
}

#[tokio::test(start_paused = true)]
async fn own_override_survives_a_registry_that_loses_it() {
    let registry = Registry::default();
    let handle = provider(&registry);
    handle.register().await.unwrap();
    handle.override_status(InstanceStatus::OutOfService).await.unwrap();
    let mut events = handle.events();
    registry.restart();
    sleep(60 * SECOND).await;
    assert_eq!(registry.overridden().as_deref(), Some("OUT_OF_SERVICE"));
    assert_eq!(*handle.state().borrow(), RegistrarState::OutOfService);
    handle.remove_override().await.unwrap();
    assert_eq!(registry.overridden(), None);
    handle.deregister().await.unwrap();
    drop(handle);
    while let Some(event) = events.next().await {
        assert!(!matches!(event, RegistrarEvent::StatusOverridden(_)), "no operator was involved");
    }
}

/// Ends the process without a DELETE, as a crash does.
async fn crash(handle: Registrar) {
    drop(handle.unregister_on_shutdown(false));
    sleep(SECOND).await;
}

#[tokio::test(start_paused = true)]
async fn own_override_of_a_process_that_crashed_is_removed_after_its_restart() {
    for explicit in [false, true] {
        let registry = Registry::default();
        let handle = provider(&registry).unregister_on_shutdown(false);
        handle.register().await.unwrap();
        let set = async {
            match explicit {
                true => handle.override_status(InstanceStatus::OutOfService).await,
                false => handle.set_status(InstanceStatus::OutOfService).await,
            }
        };
        set.await.unwrap();
        let shown = handle.instance().metadata().iter().count();
        assert_eq!(shown, 0, "the mark is not part of the user's metadata");
        crash(handle).await;
        assert_eq!(registry.overridden().as_deref(), Some("OUT_OF_SERVICE"));

        let handle = provider(&registry);
        let mut events = handle.events();
        handle.register().await.unwrap();
        sleep(60 * SECOND).await;
        assert_eq!((registry.overridden(), *handle.state().borrow()), (None, RegistrarState::Registered));
        let registered = registry.0.lock().unwrap().instance.clone().unwrap();
        assert!(registered.metadata().is_empty(), "{:?}", registered.metadata());
        handle.deregister().await.unwrap();
        drop(handle);
        while let Some(event) = events.next().await {
            assert!(!matches!(event, RegistrarEvent::StatusOverridden(_)), "no operator was involved");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn own_override_of_a_process_that_crashed_is_kept_if_it_is_wanted_again() {
    let registry = Registry::default();
    let handle = provider(&registry).unregister_on_shutdown(false);
    handle.register().await.unwrap();
    handle.set_status(InstanceStatus::OutOfService).await.unwrap();
    crash(handle).await;
    let handle = provider(&registry).initial_status(InstanceStatus::OutOfService);
    handle.register().await.unwrap();
    sleep(60 * SECOND).await;
    let out = (registry.overridden(), *handle.state().borrow());
    assert_eq!(out, (Some("OUT_OF_SERVICE".into()), RegistrarState::OutOfService));
    handle.set_status(InstanceStatus::Up).await.unwrap();
    assert_eq!((registry.overridden(), *handle.state().borrow()), (None, RegistrarState::Registered));
}

#[tokio::test(start_paused = true)]
async fn operators_override_is_kept_over_a_crash() {
    let registry = Registry::default();
    let handle = provider(&registry).unregister_on_shutdown(false);
    handle.register().await.unwrap();
    registry.operator("PUT", "OUT_OF_SERVICE");
    sleep(40 * SECOND).await;
    crash(handle).await;
    let handle = provider(&registry);
    handle.register().await.unwrap();
    sleep(60 * SECOND).await;
    let out = (registry.overridden(), *handle.state().borrow());
    assert_eq!(out, (Some("OUT_OF_SERVICE".into()), RegistrarState::OutOfService));
}

#[tokio::test(start_paused = true)]
async fn override_in_flight_at_the_signal_does_not_replace_the_down() {
    // A registry whose overrides take effect late, and replace the status until the next
    // registration.
    for late in [0, 5] {
        let status = Arc::new(Mutex::new(String::new()));
        let effective = status.clone();
        let registry = Scripted::new(move |asked| {
            let late = late * SECOND;
            if asked.line.starts_with("POST") {
                *effective.lock().unwrap() = Instance::from_json(&asked.body).unwrap().status().to_string();
            } else if asked.line.contains("/status?value=UP") {
                let effective = effective.clone();
                tokio::spawn(async move {
                    sleep(late + SECOND / 2).await;
                    *effective.lock().unwrap() = "UP".to_owned();
                });
                return Reply::Later(late + SECOND / 2, String::new());
            }
            Reply::Status(200)
        });
        let handle = registrar(&registry).quiet_time(20 * SECOND).max_drain(20 * SECOND).shutdown_timeout(60 * SECOND);
        handle.register().await.unwrap();
        let other = handle.clone();
        let setting = tokio::spawn(async move { other.override_status(InstanceStatus::Up).await });
        sleep(SECOND / 10).await;
        let draining = tokio::spawn(async move { handle.drain().await });
        sleep(SECOND).await;
        assert_eq!(*status.lock().unwrap(), "DOWN", "at first");
        sleep(9 * SECOND).await;
        assert_eq!(*status.lock().unwrap(), "DOWN", "and after the override has arrived");
        setting.await.unwrap().unwrap_err();
        draining.abort();
    }
}

#[tokio::test(start_paused = true)]
async fn operators_override_is_seen_kept_and_reported() {
    let registry = Registry::default();
    let handle = provider(&registry);
    let (mut events, mut state) = (handle.events(), handle.state());
    handle.register().await.unwrap();
    sleep(10 * SECOND).await;
    registry.operator("PUT", "OUT_OF_SERVICE");
    sleep(34 * SECOND).await;
    assert_eq!(*state.borrow_and_update(), RegistrarState::OutOfService, "seen with the next heartbeat");
    handle.update_metadata([("build", "2")]).await.unwrap();
    assert_eq!(registry.overridden().as_deref(), Some("OUT_OF_SERVICE"), "a change keeps it");
    registry.restart();
    sleep(60 * SECOND).await;
    assert_eq!(registry.overridden().as_deref(), Some("OUT_OF_SERVICE"), "a registration after a lost lease keeps it");
    registry.operator("DELETE", "");
    sleep(60 * SECOND).await;
    assert_eq!((registry.overridden(), *state.borrow()), (None, RegistrarState::Registered));
    handle.deregister().await.unwrap();
    drop(handle);
    let mut seen = Vec::new();
    while let Some(event) = events.next().await {
        if let RegistrarEvent::StatusOverridden(status) = event {
            seen.push(status);
        }
    }
    assert_eq!(seen, [Some(InstanceStatus::OutOfService), None]);
}

#[tokio::test(start_paused = true)]
async fn override_that_an_operator_removes_is_not_set_again() {
    let registry = Registry::default();
    let handle = provider(&registry);
    handle.register().await.unwrap();
    handle.set_status(InstanceStatus::OutOfService).await.unwrap();
    sleep(40 * SECOND).await;
    registry.operator("DELETE", "");
    sleep(100 * SECOND).await;
    assert_eq!((registry.overridden(), *handle.state().borrow()), (None, RegistrarState::Registered));
}

#[tokio::test(start_paused = true)]
async fn override_that_failed_before_the_drain_is_not_repeated_in_it() {
    for (sets, down_fails) in [(true, false), (true, true), (false, false)] {
        let downs = AtomicUsize::new(0);
        let registry = Scripted::new(move |asked| {
            let is_down = asked.line.starts_with("POST")
                && Instance::from_json(&asked.body).unwrap().status() == InstanceStatus::Down;
            if is_down && downs.fetch_add(1, Ordering::Relaxed) == 0 && down_fails {
                return Reply::Status(500);
            }
            Reply::Status(if asked.line.contains("/status") { 500 } else { 200 })
        });
        let handle = registrar(&registry).quiet_time(200 * SECOND).max_drain(200 * SECOND);
        handle.register().await.unwrap();
        let change = async {
            if sets { handle.override_status(InstanceStatus::Up).await } else { handle.remove_override().await }
        };
        change.await.unwrap_err();
        let before = registry.asked().len();
        handle.clone().shutdown_timeout(400 * SECOND).drain().await;
        let lines = registry.lines().split_off(before);
        assert!(lines.iter().any(|line| line.starts_with("PUT")), "heartbeats go on: {lines:?}");
        assert!(!lines.iter().any(|line| line.contains("/status")), "{lines:?}");
        assert_eq!(writes(&registry).last().map(String::as_str), Some("DOWN"));
    }
}

#[tokio::test(start_paused = true)]
async fn override_that_always_fails_is_repeated_ever_more_seldom_beside_the_heartbeats() {
    for status in [403, 404, 405, 429, 500] {
        for sets in [true, false] {
            let registry =
                Scripted::new(move |asked| Reply::Status(if asked.line.contains("/status") { status } else { 200 }));
            let handle = registrar(&registry);
            handle.register().await.unwrap();
            let changed = match sets {
                true => handle.override_status(InstanceStatus::OutOfService).await,
                false => handle.remove_override().await,
            };
            assert_eq!(changed.unwrap_err().status(), Some(status));
            sleep(600 * SECOND).await;
            let lines = registry.lines();
            let overrides = lines.iter().filter(|line| line.contains("/status")).count();
            let beats = lines.iter().filter(|line| line.starts_with("PUT") && !line.contains("/status")).count();
            let registrations = lines.iter().filter(|line| line.starts_with("POST")).count();
            assert!((15..=30).contains(&overrides), "{status}: {overrides} overrides");
            assert!((17..=24).contains(&beats), "{status}: {beats} heartbeats");
            assert!(registrations <= 2, "{status}: {registrations} registrations");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn own_override_survives_a_registry_that_loses_it_during_a_call() {
    let registry = Registry::default();
    let slow = registry.clone();
    let service = Scripted::new(move |asked| {
        let (method, path) = asked.line.split_once(' ').unwrap();
        match slow.respond(method, path, &asked.body) {
            // Calls arrive while the record is read.
            Reply::Status(404) if method == "GET" => Reply::Never,
            reply => reply,
        }
    });
    let handle = service.client().build().unwrap().registrar(instance("orders", "a"));
    handle.register().await.unwrap();
    handle.override_status(InstanceStatus::OutOfService).await.unwrap();
    registry.restart();
    for _ in 0..100 {
        handle.set_status(InstanceStatus::Up).await.unwrap();
        sleep(SECOND).await;
    }
    assert_eq!(registry.overridden().as_deref(), Some("OUT_OF_SERVICE"));
    assert_eq!(*handle.state().borrow(), RegistrarState::OutOfService);
}

#[tokio::test(start_paused = true)]
async fn override_equal_to_the_own_status_is_set_when_that_changes() {
    let registry = Registry::default();
    let handle = provider(&registry);
    let mut events = handle.events();
    handle.register().await.unwrap();
    handle.set_status(InstanceStatus::Down).await.unwrap();
    handle.override_status(InstanceStatus::Down).await.unwrap();
    sleep(100 * SECOND).await;
    assert_eq!((registry.overridden(), *handle.state().borrow()), (None, RegistrarState::Down));
    handle.set_status(InstanceStatus::Up).await.unwrap();
    assert_eq!((registry.overridden().as_deref(), *handle.state().borrow()), (Some("DOWN"), RegistrarState::Down));
    sleep(100 * SECOND).await;
    assert_eq!(registry.overridden().as_deref(), Some("DOWN"));
    handle.deregister().await.unwrap();
    drop(handle);
    while let Some(event) = events.next().await {
        assert!(!matches!(event, RegistrarEvent::StatusOverridden(_)), "no operator was involved");
    }
}

#[tokio::test(start_paused = true)]
async fn override_that_an_operator_removes_is_not_a_lost_lease() {
    let registry = Registry::default();
    let handle = provider(&registry);
    let mut events = handle.events();
    handle.register().await.unwrap();
    handle.override_status(InstanceStatus::OutOfService).await.unwrap();
    sleep(40 * SECOND).await;
    registry.operator("DELETE", "");
    sleep(100 * SECOND).await;
    handle.deregister().await.unwrap();
    drop(handle);
    let mut removed = false;
    while let Some(event) = events.next().await {
        assert_ne!(event, RegistrarEvent::LeaseLost);
        removed |= event == RegistrarEvent::StatusOverridden(None);
    }
    assert!(removed);
}
