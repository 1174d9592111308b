//! Faults around a provider: each ends within its bound, is logged, and sends nothing after the
//! DELETE.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use tokio::time::{Instant, sleep};
use tokio_stream::StreamExt;
use tower_eureka::Eureka;
use tower_eureka::model::{Instance, InstanceStatus};
use tower_eureka::register::{HealthStatus, RegistrarEvent, RegistrarState, ShutdownPreset};

use crate::captured_log::Log;
use crate::common::{Reply, Scripted, instance};
use crate::provider::{accepting, registrar, stop_on_shutdown, writes};

const SECOND: Duration = Duration::from_secs(1);

fn html(status: u16) -> Reply {
    let headers = vec![("content-type", "text/html".to_owned())];
    Reply::With { status, headers, body: Bytes::from("<html>log in</html>") }
}

fn redirect_loop() -> Reply {
    let headers = vec![("location", "http://registry/eureka/again".to_owned())];
    Reply::With { status: 302, headers, body: Bytes::new() }
}

#[tokio::test(start_paused = true)]
async fn faulty_registry_gets_few_requests_and_the_server_serves_and_ends_in_time() {
    type Fault = (&'static str, fn() -> Reply);
    let faults: [Fault; 8] = [
        ("500", || Reply::Status(500)),
        ("503", || Reply::Status(503)),
        ("404 for ever", || Reply::Status(404)),
        ("HTML", || html(200)),
        ("redirect loop", redirect_loop),
        ("silent", || Reply::Never),
        ("closed in mid-body", || Reply::Breaks),
        ("stalls in mid-body", || Reply::Stalls),
    ];
    for (name, fault) in faults {
        // From the start, and after ten minutes of service.
        for healthy in [0, 600] {
            let start = Instant::now();
            let registry = Scripted::new(move |asked| match start.elapsed().as_secs() {
                at if at < healthy => Reply::Status(if asked.line.starts_with("POST") { 204 } else { 200 }),
                _ => fault(),
            });
            let handle = registrar(&registry);
            let (state, report) = (handle.state(), handle.clone());
            let signal = sleep(Duration::from_secs(healthy + 600));
            let serving = tokio::spawn(handle.serve(signal, stop_on_shutdown));
            sleep(Duration::from_secs(healthy + 599)).await;
            let expected = if healthy == 0 { RegistrarState::NotRegistered } else { RegistrarState::HeartbeatFailing };
            // Java clients accept a body that ends early, since nothing reads it.
            assert_eq!(*state.borrow(), expected, "{name}");
            assert_eq!(report.health_report().registry.status, HealthStatus::Down, "{name}");
            assert_eq!(report.health_report().readiness, HealthStatus::Up, "{name}: it serves");
            let sent = registry.asked().iter().filter(|asked| asked.at.as_secs() >= healthy).count();
            assert!(sent < 200, "{name}: {sent} requests in ten minutes");
            drop(report);
            serving.await.unwrap().unwrap();
            let took = start.elapsed() - Duration::from_secs(healthy + 600);
            assert!(took <= 12 * SECOND, "{name}: {took:?}");
            let count = registry.asked().len();
            assert!(registry.lines().last().unwrap().contains("/apps/ORDERS/a") || name == "redirect loop");
            sleep(300 * SECOND).await;
            let late = registry.lines().split_off(count);
            assert!(late.iter().all(|line| line.starts_with("DELETE")), "{name}: {late:?}");
            assert_eq!(*state.borrow(), RegistrarState::Deregistered, "{name}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn flapping_registry_keeps_the_lease() {
    let start = Instant::now();
    // Down for ten of each twenty seconds.
    let registry = Scripted::new(move |_| {
        Reply::Status(if (start.elapsed().as_secs() / 10).is_multiple_of(2) { 204 } else { 500 })
    });
    let handle = registrar(&registry);
    handle.register().await.unwrap();
    sleep(1200 * SECOND).await;
    let succeeded: Vec<_> = registry.asked().into_iter().filter(|asked| !asked.line.starts_with("GET")).collect();
    let succeeded: Vec<_> = succeeded.iter().map(|asked| asked.at.as_secs()).filter(|at| at / 10 % 2 == 0).collect();
    let longest = succeeded.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap();
    assert!(longest < 90, "{longest} s without a heartbeat");
}

#[tokio::test(start_paused = true)]
async fn failover_keeps_the_lease_and_is_an_event() {
    let down = Arc::new(AtomicBool::new(false));
    let is_down = down.clone();
    let registry = Scripted::new(move |asked| {
        let first = !asked.headers.contains_key("authorization");
        Reply::Status(if first && is_down.load(Ordering::Relaxed) { 503 } else { 204 })
    });
    let client = Eureka::builder().service_url("http://a/eureka,http://u:secret@b/eureka");
    let client = client.shuffle_servers(false).http_service(registry.clone()).build().unwrap();
    let handle = client.registrar(instance("orders", "a"));
    handle.register().await.unwrap();
    let mut events = handle.events();
    down.store(true, Ordering::Relaxed);
    let failed_over = loop {
        match events.next().await.unwrap() {
            RegistrarEvent::FailedOver { from, to } => break (from, to),
            RegistrarEvent::HeartbeatFailed | RegistrarEvent::LeaseLost => panic!("the second server accepts it"),
            _ => {}
        }
    };
    assert_eq!((&*failed_over.0, &*failed_over.1), ("http://a/eureka/", "http://b/eureka/"));
}

#[tokio::test(start_paused = true)]
async fn another_process_with_the_same_id_is_warned_about_and_not_fought() {
    let (log, _logging) = Log::start(tracing::Level::WARN);
    let ahead = Arc::new(AtomicI64::new(0));
    let theirs = ahead.clone();
    let registered = Arc::new(AtomicI64::new(0));
    let registry = Scripted::new(move |asked| {
        if asked.line.starts_with("POST") {
            let version = Instance::from_json(&asked.body).unwrap().last_dirty_timestamp().unwrap();
            registered.store(version, Ordering::Relaxed);
        }
        if !asked.line.starts_with("GET") {
            return Reply::Status(200);
        }
        let ahead = theirs.load(Ordering::Relaxed);
        let ip = if ahead == 0 { "127.0.0.1" } else { "10.9.9.9" };
        let other = Instance::builder("orders").id("a").ip_addr(ip).port(1).build().unwrap();
        let json = String::from_utf8(other.to_json()).unwrap();
        let version = registered.load(Ordering::Relaxed) + ahead;
        Reply::Json(json.replacen(
            r#"{"instanceId""#,
            &format!(r#"{{"lastDirtyTimestamp":"{version}","instanceId""#),
            1,
        ))
    });
    let handle = registrar(&registry);
    handle.register().await.unwrap();
    sleep(100 * SECOND).await;
    assert!(!log.text().contains("another process"), "{}", log.text());
    ahead.store(1000, Ordering::Relaxed);
    sleep(400 * SECOND).await;
    let warnings = log.text().matches("another process registers the same instance id").count();
    assert_eq!(warnings, 1, "{}", log.text());
    assert!(log.text().contains("10.9.9.9"));
    assert_eq!(writes(&registry), ["UP"]);
}

#[tokio::test(start_paused = true)]
async fn enforced_registration_that_fails_is_the_error_of_try_serve() {
    let registry = Scripted::new(|asked| Reply::Status(if asked.line.starts_with("POST") { 403 } else { 200 }));
    let handle = registrar(&registry).enforce_registration(true);
    let error = handle.try_serve(std::future::pending(), stop_on_shutdown).await.unwrap_err();
    assert_eq!(error.status(), Some(403));
    let sent = registry.asked().len();
    sleep(300 * SECOND).await;
    assert_eq!(registry.asked().len(), sent, "nothing follows");

    let handle = registrar(&registry).enforce_registration(true);
    let panicked = tokio::spawn(handle.serve(std::future::pending(), stop_on_shutdown)).await.unwrap_err();
    let message = *panicked.into_panic().downcast::<String>().unwrap();
    assert!(message.contains("403") && message.contains("try_serve"), "{message}");

    let registry = accepting();
    let handle = registrar(&registry).enforce_registration(true);
    handle.try_serve(sleep(50 * SECOND), stop_on_shutdown).await.unwrap().unwrap();
    assert_eq!(writes(&registry), ["UP", "DOWN", "DELETE"]);

    let registry = Scripted::new(|_| Reply::Never);
    let handle = registrar(&registry).enforce_registration(true);
    let start = Instant::now();
    handle.serve(sleep(SECOND), stop_on_shutdown).await.unwrap();
    assert!(start.elapsed() <= 13 * SECOND, "a signal while it registers: {:?}", start.elapsed());
}

#[tokio::test(start_paused = true)]
async fn registration_that_is_not_deleted_becomes_down_and_its_heartbeats_end() {
    let registry = accepting();
    let handle = registrar(&registry).unregister_on_shutdown(false);
    let state = handle.state();
    handle.serve(sleep(50 * SECOND), stop_on_shutdown).await.unwrap();
    assert_eq!((writes(&registry), *state.borrow()), (vec!["UP".into(), "DOWN".into()], RegistrarState::Deregistered));
    let sent = registry.asked().len();
    sleep(300 * SECOND).await;
    assert_eq!(registry.asked().len(), sent);

    let registry = accepting();
    let handle = registrar(&registry).unregister_on_shutdown(false);
    handle.register().await.unwrap();
    drop(handle);
    sleep(300 * SECOND).await;
    assert_eq!(writes(&registry), ["UP"]);
}

#[tokio::test(start_paused = true)]
async fn full_propagation_serves_until_the_last_java_caller_knows() {
    let (log, _logging) = Log::start(tracing::Level::WARN);
    for (preset, seconds) in [(ShutdownPreset::Fast, 1), (ShutdownPreset::FullPropagation, 100)] {
        let handle = registrar(&accepting()).shutdown_preset(preset).termination_grace(30 * SECOND);
        // It was never called, as far as it knows.
        let _layer = handle.layer();
        let start = Instant::now();
        handle.serve(sleep(10 * SECOND), stop_on_shutdown).await.unwrap();
        assert_eq!(start.elapsed().as_secs(), 10 + seconds, "{preset:?}");
    }
    assert_eq!(log.text().matches("the orchestrator may kill the process").count(), 1, "{}", log.text());
}

#[tokio::test(start_paused = true)]
async fn two_servers_under_one_instance_end_together() {
    let registry = accepting();
    let both = registrar(&registry)
        .serve(sleep(10 * SECOND), |shutdown| async move {
            tokio::join!(stop_on_shutdown(shutdown.clone()), stop_on_shutdown(shutdown))
        })
        .await;
    assert_eq!(both, (Ok(()), Ok(())));
    let stuck = registrar(&registry).serve(sleep(10 * SECOND), |_| async {
        tokio::try_join!(std::future::pending::<Result<(), &str>>(), std::future::pending::<Result<(), &str>>())
    });
    assert_eq!(stuck.await, Ok(((), ())));
}

#[test]
fn runtime_that_is_dropped_ends_the_registration_and_leaves_a_handle_that_says_so() {
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    let registry = {
        let _guard = runtime();
        let _entered = _guard.enter();
        accepting()
    };
    let handle = registrar(&registry).health(SECOND, || async { true });
    let first = runtime();
    first.block_on(handle.register()).unwrap();
    drop(first);
    let sent = registry.asked().len();
    runtime().block_on(async {
        assert!(
            handle.set_status(InstanceStatus::Down).await.unwrap_err().to_string().contains("call register() first")
        );
        let error = handle.deregister().await.unwrap_err();
        assert!(error.to_string().contains("runtime"), "{error}");
        assert_eq!(registry.asked().len(), sent);
        handle.register().await.unwrap();
        sleep(100 * SECOND).await;
        assert!(handle.state().borrow().is_registered());
        handle.deregister().await.unwrap();
    });
    assert_eq!(writes(&registry).last().map(String::as_str), Some("DELETE"));
}

#[tokio::test(start_paused = true)]
async fn health_check_that_never_ends_is_not_started_again_and_does_not_delay_the_shutdown() {
    let (registry, runs) = (accepting(), Arc::new(AtomicUsize::new(0)));
    let counted = runs.clone();
    let handle = registrar(&registry).health_timeout(SECOND).health(SECOND, move || {
        counted.fetch_add(1, Ordering::Relaxed);
        std::future::pending::<bool>()
    });
    let start = Instant::now();
    handle.serve(sleep(100 * SECOND), stop_on_shutdown).await.unwrap();
    assert_eq!(start.elapsed().as_secs(), 105);
    assert_eq!(writes(&registry), ["STARTING", "DOWN", "DOWN", "DELETE"]);
    let run = runs.load(Ordering::Relaxed);
    assert!((40..=60).contains(&run), "each run takes its limit: {run}");
}

#[tokio::test(start_paused = true)]
async fn registration_after_a_deregistration_that_failed_is_not_shown_as_deregistered() {
    let down = Arc::new(AtomicBool::new(false));
    let is_down = down.clone();
    let registry = Scripted::new(move |_| Reply::Status(if is_down.load(Ordering::Relaxed) { 500 } else { 200 }));
    let handle = registrar(&registry);
    handle.register().await.unwrap();
    down.store(true, Ordering::Relaxed);
    handle.deregister().await.unwrap_err();
    down.store(false, Ordering::Relaxed);
    let (mut events, state) = (handle.events(), handle.state());
    handle.register().await.unwrap();
    sleep(100 * SECOND).await;
    assert_eq!(*state.borrow(), RegistrarState::Registered);
    assert_eq!(events.next().await, Some(RegistrarEvent::Registered(InstanceStatus::Up)));
    assert_eq!(writes(&registry).last().map(String::as_str), Some("UP"));
    handle.deregister().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn second_server_registers_after_the_delete_of_the_first_one_that_was_dropped() {
    let registry = Scripted::new(|asked| match asked.line.starts_with("DELETE") {
        true => Reply::Later(SECOND, String::new()),
        false => Reply::Status(200),
    });
    let handle = registrar(&registry);
    let first = tokio::spawn(handle.clone().serve(std::future::pending(), stop_on_shutdown));
    sleep(10 * SECOND).await;
    first.abort();
    first.await.unwrap_err();
    let state = handle.state();
    let second = tokio::spawn(handle.clone().serve(sleep(50 * SECOND), stop_on_shutdown));
    sleep(40 * SECOND).await;
    assert_eq!(
        (writes(&registry), *state.borrow()),
        (["UP", "DELETE", "UP"].map(String::from).to_vec(), RegistrarState::Registered)
    );
    let at: Vec<_> = registry.asked().into_iter().filter(|asked| !asked.line.starts_with("GET")).collect();
    assert!(at[2].at >= at[1].at + SECOND, "the DELETE has ended before");
    second.await.unwrap().unwrap();
    assert_eq!(*state.borrow(), RegistrarState::Deregistered);
}

#[tokio::test(start_paused = true)]
async fn calls_while_reads_of_the_record_hang_do_not_stop_the_heartbeats() {
    let registry = Scripted::new(|asked| match asked.line.starts_with("GET") {
        true => Reply::Never,
        false => Reply::Status(200),
    });
    let handle = registrar(&registry);
    handle.register().await.unwrap();
    for _ in 0..60 {
        handle.set_status(InstanceStatus::Up).await.unwrap();
        sleep(5 * SECOND).await;
    }
    let beats: Vec<_> = registry.asked().into_iter().filter(|asked| asked.line.starts_with("PUT")).collect();
    assert!(beats.len() >= 7, "{} heartbeats in five minutes", beats.len());
    assert!(beats.windows(2).all(|pair| pair[1].at - pair[0].at < 45 * SECOND));
}

#[tokio::test(start_paused = true)]
async fn server_that_ends_by_itself_becomes_down_if_its_registration_is_not_deleted() {
    let registry = accepting();
    let handle = registrar(&registry).unregister_on_shutdown(false);
    let state = handle.state();
    handle.serve(std::future::pending(), |_| sleep(50 * SECOND)).await;
    assert_eq!((writes(&registry), *state.borrow()), (vec!["UP".into(), "DOWN".into()], RegistrarState::Deregistered));
}

#[tokio::test(start_paused = true)]
async fn call_that_waits_during_a_deregistration_gets_an_error_that_says_so() {
    let registry = Scripted::new(|asked| match asked.body.windows(5).any(|part| part == b"build") {
        true => Reply::Never,
        false => Reply::Status(200),
    });
    let handle = registrar(&registry);
    handle.register().await.unwrap();
    let changing = handle.clone();
    let changing = tokio::spawn(async move { changing.update_metadata([("build", "2")]).await });
    sleep(SECOND).await;
    handle.deregister().await.unwrap();
    let error = changing.await.unwrap().unwrap_err().to_string();
    assert!(error.starts_with("change ORDERS") && error.contains("deregistered"), "{error}");
    assert!(!error.contains("draining"), "{error}");
}
