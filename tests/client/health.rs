//! Readiness and health checks of a provider, and the status that follows from them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::{Instant, sleep};
use tower::service_fn;
use tower_eureka::model::InstanceStatus;
use tower_eureka::register::{HealthStatus, Registrar, RegistrarState};

use crate::captured_log::Log;
use crate::common::{Reply, Scripted};
use crate::provider::{accepting, registrar, stop_on_shutdown, writes};

const SECOND: Duration = Duration::from_secs(1);
const UP: u8 = 0;
const DOWN: u8 = 1;
const OUT_OF_SERVICE: u8 = 2;
const PANICS: u8 = 3;
const HANGS: u8 = 4;

/// Health of a program, as its check reports it.
#[derive(Clone, Default)]
struct Program(Arc<AtomicU8>);

impl Program {
    fn set(&self, health: u8) {
        self.0.store(health, Ordering::Relaxed);
    }

    async fn check(self) -> Result<HealthStatus, &'static str> {
        match self.0.load(Ordering::Relaxed) {
            UP => Ok(HealthStatus::Up),
            DOWN => Err("the database is gone"),
            OUT_OF_SERVICE => Ok(HealthStatus::OutOfService),
            PANICS => panic!("a fault of the check"),
            _ => std::future::pending().await,
        }
    }

    /// Returns a registrar that checks this program every 10 seconds.
    fn registrar(&self, registry: &Scripted) -> Registrar {
        let this = self.clone();
        registrar(registry).health(10 * SECOND, move || this.clone().check())
    }
}

#[tokio::test(start_paused = true)]
async fn instance_is_starting_until_its_readiness_future_completes() {
    let registry = accepting();
    let (ready, is_ready) = oneshot::channel::<()>();
    let handle = registrar(&registry).ready_when(async { drop(is_ready.await) });
    let (report, mut state) = (handle.clone(), handle.state());
    let serving = tokio::spawn(handle.serve(sleep(100 * SECOND), stop_on_shutdown));
    sleep(20 * SECOND).await;
    assert_eq!((writes(&registry), *state.borrow()), (vec!["STARTING".to_owned()], RegistrarState::Starting));
    assert_eq!(report.health_report().readiness, HealthStatus::OutOfService);
    ready.send(()).unwrap();
    state.wait_for(|state| *state == RegistrarState::Registered).await.unwrap();
    assert_eq!(report.health_report().readiness, HealthStatus::Up);
    serving.await.unwrap().unwrap();
    assert_eq!(writes(&registry), ["STARTING", "UP", "DOWN", "DELETE"]);
}

#[tokio::test(start_paused = true)]
async fn readiness_that_fails_or_panics_leaves_the_instance_starting_and_is_logged() {
    for panics in [false, true] {
        let (log, _logging) = Log::start(tracing::Level::ERROR);
        let registry = accepting();
        let handle = registrar(&registry).ready_when(async move {
            sleep(SECOND).await;
            assert!(!panics, "a fault of the future");
            Err::<(), _>("cannot load the cache")
        });
        handle.register().await.unwrap();
        sleep(100 * SECOND).await;
        assert_eq!(
            (writes(&registry), *handle.state().borrow()),
            (vec!["STARTING".to_owned()], RegistrarState::Starting)
        );
        let reason = if panics { "panicked" } else { "cannot load the cache" };
        assert!(log.text().contains("readiness failed") && log.text().contains(reason), "{}", log.text());
    }
}

#[tokio::test(start_paused = true)]
async fn initial_status_is_registered_until_it_is_set() {
    for (initial, expected) in [(InstanceStatus::Starting, "STARTING"), (InstanceStatus::Down, "DOWN")] {
        let registry = accepting();
        let handle = registrar(&registry).initial_status(initial);
        handle.register().await.unwrap();
        sleep(100 * SECOND).await;
        handle.set_status(InstanceStatus::Up).await.unwrap();
        assert_eq!(writes(&registry), [expected, "UP"]);
    }
    let registry = accepting();
    let handle = registrar(&registry).enabled_on_start(true).ready_when(std::future::pending::<()>());
    handle.register().await.unwrap();
    assert_eq!(writes(&registry), ["UP"]);
}

#[tokio::test(start_paused = true)]
async fn health_decides_about_the_status_after_two_signs() {
    for (fault, seconds) in [(DOWN, 2), (PANICS, 2), (HANGS, 12)] {
        let (registry, program) = (accepting(), Program::default());
        let handle = program.registrar(&registry);
        let mut state = handle.state();
        handle.register().await.unwrap();
        state.wait_for(|state| *state == RegistrarState::Registered).await.unwrap();
        assert_eq!(writes(&registry), ["STARTING", "UP"]);
        sleep(30 * SECOND).await;
        program.set(fault);
        let start = Instant::now();
        state.wait_for(|state| *state == RegistrarState::Down).await.unwrap();
        // The first sign comes within the interval, 10 % longer at most.
        assert!(start.elapsed() <= (11 + seconds) * SECOND, "{fault}: {:?}", start.elapsed());
        let report = handle.health_report();
        assert_eq!((report.status, report.components[0].status), (HealthStatus::Down, HealthStatus::Down));
        program.set(UP);
        let start = Instant::now();
        state.wait_for(|state| *state == RegistrarState::Registered).await.unwrap();
        assert!(start.elapsed() <= 40 * SECOND, "{fault}: {:?}", start.elapsed());
        handle.deregister().await.unwrap();
        assert_eq!(writes(&registry), ["STARTING", "UP", "DOWN", "UP", "DELETE"]);
    }
}

#[tokio::test(start_paused = true)]
async fn health_that_alternates_changes_nothing() {
    let (registry, count) = (accepting(), Arc::new(AtomicUsize::new(0)));
    let counted = count.clone();
    let handle = registrar(&registry).health(SECOND, move || {
        let is_up = counted.fetch_add(1, Ordering::Relaxed) % 2 == 0;
        async move { is_up }
    });
    handle.register().await.unwrap();
    sleep(600 * SECOND).await;
    assert_eq!(writes(&registry), ["STARTING", "UP"]);
    assert!(count.load(Ordering::Relaxed) > 500);
}

#[tokio::test(start_paused = true)]
async fn health_out_of_service_is_an_override_and_is_never_registered() {
    let (registry, program) = (accepting(), Program::default());
    let handle = program.registrar(&registry);
    let mut state = handle.state();
    handle.register().await.unwrap();
    sleep(30 * SECOND).await;
    program.set(OUT_OF_SERVICE);
    state.wait_for(|state| *state == RegistrarState::OutOfService).await.unwrap();
    program.set(UP);
    state.wait_for(|state| *state == RegistrarState::Registered).await.unwrap();
    let lines: Vec<_> = registry.asked().into_iter().map(|asked| asked.line).collect();
    let overrides: Vec<_> = lines.iter().filter(|line| line.contains("/status")).collect();
    assert!(overrides[0].starts_with("PUT /apps/ORDERS/a/status?value=OUT_OF_SERVICE&lastDirtyTimestamp="));
    assert!(overrides[1].starts_with("DELETE /apps/ORDERS/a/status?lastDirtyTimestamp="));
    assert_eq!(overrides.len(), 2);
    // The second UP has the mark of the override. The DELETE of the override is counted among the
    // writes.
    assert_eq!(writes(&registry), ["STARTING", "UP", "UP", "DELETE", "UP"]);
}

#[tokio::test(start_paused = true)]
async fn health_of_a_service_counts_its_errors_and_its_readiness() {
    let (registry, program) = (accepting(), Program::default());
    let checked = program.clone();
    let handle = registrar(&registry)
        .health_service(10 * SECOND, service_fn(move |()| checked.clone().check()))
        .health_sets_status(true);
    let mut state = handle.state();
    handle.register().await.unwrap();
    state.wait_for(|state| *state == RegistrarState::Registered).await.unwrap();
    program.set(DOWN);
    state.wait_for(|state| *state == RegistrarState::Down).await.unwrap();
    assert_eq!(handle.health_report().components[0].detail.as_deref(), Some("the database is gone"));
}

#[tokio::test(start_paused = true)]
async fn health_that_does_not_set_the_status_is_only_reported() {
    let (registry, program) = (accepting(), Program::default());
    program.set(DOWN);
    let handle = program.registrar(&registry).health_sets_status(false);
    handle.register().await.unwrap();
    sleep(100 * SECOND).await;
    assert_eq!(writes(&registry), ["UP"]);
    assert_eq!(handle.health_report().status, HealthStatus::Down);
}

#[tokio::test(start_paused = true)]
async fn health_during_the_drain_does_not_undo_the_down() {
    let (registry, program) = (accepting(), Program::default());
    program.set(DOWN);
    let handle = program.registrar(&registry);
    let recovering = program.clone();
    tokio::spawn(async move {
        sleep(101 * SECOND).await;
        recovering.set(UP);
    });
    let handle = handle.quiet_time(60 * SECOND).max_drain(60 * SECOND).shutdown_timeout(100 * SECOND);
    handle.serve(sleep(100 * SECOND), stop_on_shutdown).await.unwrap();
    assert_eq!(writes(&registry), ["STARTING", "DOWN", "DOWN", "DELETE"]);
}

#[tokio::test(start_paused = true)]
async fn health_checks_run_although_registration_is_switched_off() {
    let (registry, program) = (accepting(), Program::default());
    let off = registry.client().enabled(false).build().unwrap().registrar(crate::common::instance("orders", "a"));
    let checked = program.clone();
    let off = off.named_health("db", SECOND, move || checked.clone().check());
    off.register().await.unwrap();
    sleep(SECOND).await;
    let report = off.health_report();
    assert_eq!((report.status, &*report.components[0].name), (HealthStatus::Up, "db"));
    assert_eq!(report.registry.status, HealthStatus::Unknown);
    assert!(registry.asked().is_empty());
}

#[tokio::test(start_paused = true)]
async fn health_that_fails_is_registered_at_once_although_the_registry_is_slow() {
    for slow in ["PUT", "GET"] {
        let registry = Scripted::new(move |asked| match asked.line.starts_with(slow) {
            true => Reply::Never,
            false => Reply::Status(204),
        });
        let failed = Arc::new(AtomicU8::new(UP));
        let checked = failed.clone();
        let handle = registrar(&registry).health(SECOND, move || {
            let is_up = checked.load(Ordering::Relaxed) == UP;
            async move { is_up }
        });
        handle.register().await.unwrap();
        while !registry.lines().iter().any(|line| line.starts_with(slow)) {
            sleep(SECOND / 10).await;
        }
        sleep(SECOND).await;
        failed.store(DOWN, Ordering::Relaxed);
        let start = Instant::now();
        while writes(&registry).last().map(String::as_str) != Some("DOWN") {
            sleep(SECOND / 10).await;
        }
        // Two signs, one second apart each.
        assert!(start.elapsed() <= 3 * SECOND, "{slow}: {:?}", start.elapsed());
    }
}

#[tokio::test(start_paused = true)]
async fn check_and_readiness_that_are_added_after_the_registration_start_at_once() {
    let (registry, program) = (accepting(), Program::default());
    let handle = registrar(&registry);
    let mut state = handle.state();
    handle.register().await.unwrap();
    let checked = program.clone();
    let _ = handle.clone().health(10 * SECOND, move || checked.clone().check());
    sleep(SECOND).await;
    handle.set_status(InstanceStatus::Up).await.unwrap();
    assert_eq!((writes(&registry), *state.borrow()), (vec!["UP".to_owned()], RegistrarState::Registered));
    let _ = handle.clone().ready_when(sleep(5 * SECOND));
    sleep(SECOND).await;
    assert_eq!(*state.borrow(), RegistrarState::Starting);
    sleep(20 * SECOND).await;
    assert_eq!(*state.borrow(), RegistrarState::Registered);
    program.set(DOWN);
    state.wait_for(|state| *state == RegistrarState::Down).await.unwrap();
}
