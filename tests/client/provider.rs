//! Requests of a provider from its registration to its DELETE, in paused time.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep, timeout};
use tower::{Layer, ServiceExt, service_fn};
use tower_eureka::Instance;
use tower_eureka::register::{Registrar, Shutdown};

use crate::common::{Asked, Reply, Scripted, instance};

const ID: &str = "/apps/ORDERS/a";

pub(crate) fn registrar(registry: &Scripted) -> Registrar {
    registry.client().build().unwrap().registrar(instance("orders", "a"))
}

pub(crate) fn accepting() -> Scripted {
    Scripted::new(|asked| Reply::Status(if asked.line.starts_with("POST") { 204 } else { 200 }))
}

/// Returns the registrations, each by its status, and the cancellations that the registry received.
pub(crate) fn writes(registry: &Scripted) -> Vec<String> {
    let write = |asked: &Asked| match asked.line.split(' ').next() {
        Some("POST") => Some(Instance::from_json(&asked.body).unwrap().status().to_string()),
        Some("DELETE") => Some("DELETE".to_owned()),
        _ => None,
    };
    registry.asked().iter().filter_map(write).collect()
}

/// A server that ends at the shutdown signal.
pub(crate) async fn stop_on_shutdown(shutdown: Shutdown) -> Result<(), &'static str> {
    shutdown.await;
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn server_that_cannot_start_registers_nothing() {
    let registry = accepting();
    let failed = registrar(&registry).serve(std::future::pending(), |_| async { Err::<(), _>("address in use") }).await;
    assert_eq!(failed, Err("address in use"));
    sleep(Duration::from_secs(100)).await;
    assert!(registry.asked().is_empty());
}

#[tokio::test(start_paused = true)]
async fn heartbeats_have_jitter_status_and_timestamp() {
    let registry = accepting();
    let handle = registrar(&registry);
    handle.register().await.unwrap();
    registry.wait_for(40).await;
    let mut asked = registry.asked();
    // The record in the registry is read before the registration, and after each heartbeat.
    assert_eq!([&asked[0].line, &asked[2].line], [&format!("GET {ID}"); 2]);
    asked.retain(|asked| !asked.line.starts_with("GET"));
    let version = Instance::from_json(&asked[0].body).unwrap().last_dirty_timestamp().unwrap();
    for pair in asked[1..].windows(2) {
        assert_eq!(pair[0].line, format!("PUT {ID}?status=UP&lastDirtyTimestamp={version}"));
        let pause = (pair[1].at - pair[0].at).as_secs_f64();
        assert!((26.9..=33.1).contains(&pause), "{pause}");
    }
    let pauses: Vec<_> = asked.windows(2).map(|pair| (pair[1].at - pair[0].at).as_millis()).collect();
    assert!(pauses.iter().any(|pause| pause != &pauses[0]), "no jitter: {pauses:?}");
}

#[tokio::test(start_paused = true)]
async fn unknown_lease_is_registered_again_with_a_newer_timestamp_at_the_rate_of_heartbeats() {
    let registry = Scripted::new(|asked| Reply::Status(if asked.line.starts_with("POST") { 204 } else { 404 }));
    let handle = registrar(&registry);
    handle.register().await.unwrap();
    sleep(Duration::from_secs(300)).await;
    let versions = registry.registered_versions();
    assert!((10..=12).contains(&versions.len()), "{versions:?}");
    assert!(versions.is_sorted_by(|a, b| a < b), "{versions:?}");
}

#[tokio::test(start_paused = true)]
async fn server_serves_while_the_registry_is_down_and_registers_later() {
    let down = Arc::new(AtomicBool::new(true));
    let is_down = down.clone();
    let registry = Scripted::new(move |_| Reply::Status(if is_down.load(Ordering::Relaxed) { 503 } else { 204 }));
    let (stop, stopped) = oneshot::channel::<()>();
    let serving = tokio::spawn(registrar(&registry).serve(async { drop(stopped.await) }, stop_on_shutdown));
    sleep(Duration::from_secs(200)).await;
    let attempts = registry.asked();
    let attempts: Vec<_> = attempts.into_iter().filter(|asked| !asked.line.starts_with("GET")).collect();
    assert!(!serving.is_finished() && attempts.iter().all(|asked| asked.line == "POST /apps/ORDERS"));
    assert!(attempts[1].at < Duration::from_secs(2), "repeated soon");
    assert!(attempts.len() < 15, "and then less often: {}", attempts.len());

    down.store(false, Ordering::Relaxed);
    sleep(Duration::from_secs(34)).await;
    drop(stop);
    serving.await.unwrap().unwrap();
    assert!(writes(&registry).ends_with(&["UP".into(), "DOWN".into(), "DELETE".into()]), "{:?}", writes(&registry));
}

#[tokio::test(start_paused = true)]
async fn server_without_callers_drains_for_the_quiet_time_and_nothing_follows_the_delete() {
    let registry = accepting();
    let handle = registrar(&registry);
    let _layer = handle.layer();
    let start = Instant::now();
    handle.serve(sleep(Duration::from_secs(100)), stop_on_shutdown).await.unwrap();
    // Callers may have it in their lists.
    assert_eq!(start.elapsed().as_secs(), 105);
    assert_eq!(writes(&registry), ["UP", "DOWN", "DELETE"]);
    let sent = registry.asked().len();
    sleep(Duration::from_secs(1000)).await;
    assert_eq!(registry.asked().len(), sent);
    assert!(registry.asked().last().unwrap().line.starts_with("DELETE"));
}

/// Serves until the shutdown signal, and calls itself through the layer at the given times. Returns
/// the time of the signal and the responses.
async fn called_at(handle: Registrar, signal_at: u64, calls_at: Vec<u64>) -> (Duration, Vec<Response<()>>) {
    let start = Instant::now();
    let service = handle.layer().layer(service_fn(|_: Request<()>| async {
        Ok::<_, std::convert::Infallible>(Response::new(Full::new(Bytes::from("response"))))
    }));
    let (responses, stopped_at) = (Arc::new(Mutex::new(Vec::new())), Arc::new(Mutex::new(Duration::ZERO)));
    let (collected, noted) = (responses.clone(), stopped_at.clone());
    let calls = tokio::spawn(async move {
        for at in calls_at {
            tokio::time::sleep_until(start + Duration::from_secs(at)).await;
            let response = service.clone().oneshot(Request::new(())).await.unwrap();
            let (head, body) = response.into_parts();
            body.collect().await.unwrap();
            collected.lock().unwrap().push(Response::from_parts(head, ()));
        }
    });
    handle
        .serve(sleep(Duration::from_secs(signal_at)), |shutdown| async move {
            shutdown.await;
            *noted.lock().unwrap() = start.elapsed();
        })
        .await;
    calls.abort();
    let stopped_at = *stopped_at.lock().unwrap();
    let responses = std::mem::take(&mut *responses.lock().unwrap());
    (stopped_at, responses)
}

#[tokio::test(start_paused = true)]
async fn drain_ends_after_the_quiet_time() {
    let registry = accepting();
    let (stopped_at, responses) = called_at(registrar(&registry), 10, vec![1, 11, 14, 18]).await;
    assert_eq!(stopped_at.as_secs(), 18 + 5, "5 s after the last call");
    let closing: Vec<_> = responses.iter().map(|response| response.headers().contains_key("connection")).collect();
    assert_eq!(closing, [false, true, true, true], "connections are closed while it drains");
    assert_eq!(writes(&registry), ["UP", "DOWN", "DELETE"]);
}

#[tokio::test(start_paused = true)]
async fn drain_with_continuing_calls_ends_after_max_drain() {
    let (stopped_at, _) = called_at(registrar(&accepting()), 10, (0..200).collect()).await;
    assert_eq!(stopped_at.as_secs(), 10 + 15);
}

#[tokio::test(start_paused = true)]
async fn drain_without_the_layer_takes_the_quiet_time() {
    let start = Instant::now();
    registrar(&accepting()).serve(std::future::ready(()), stop_on_shutdown).await.unwrap();
    assert_eq!(start.elapsed().as_secs(), 5);
}

#[tokio::test(start_paused = true)]
async fn requests_in_flight_are_abandoned_after_the_grace_time() {
    let registry = accepting();
    let handle = registrar(&registry).grace(Duration::from_secs(7));
    let _layer = handle.layer();
    let start = Instant::now();
    let stuck = |shutdown: Shutdown| async move {
        shutdown.await;
        std::future::pending::<Result<(), &str>>().await
    };
    assert_eq!(handle.serve(sleep(Duration::from_secs(1)), stuck).await, Ok(()));
    assert_eq!(start.elapsed().as_secs(), 1 + 5 + 7);
    assert_eq!(writes(&registry), ["UP", "DOWN", "DELETE"]);
}

#[tokio::test(start_paused = true)]
async fn server_that_ends_by_itself_is_deregistered_at_once() {
    let registry = accepting();
    let crash = |_| async {
        sleep(Duration::from_secs(50)).await;
        Err::<(), _>("listener broke")
    };
    let start = Instant::now();
    assert_eq!(registrar(&registry).serve(std::future::pending(), crash).await, Err("listener broke"));
    assert_eq!(start.elapsed().as_secs(), 50);
    assert_eq!(writes(&registry), ["UP", "DELETE"]);
}

#[tokio::test(start_paused = true)]
async fn dropped_serve_future_deregisters_in_the_background() {
    let registry = accepting();
    let serving = registrar(&registry).serve(std::future::pending(), stop_on_shutdown);
    assert!(timeout(Duration::from_secs(40), serving).await.is_err());
    sleep(Duration::from_secs(1)).await;
    assert_eq!(writes(&registry), ["UP", "DELETE"]);
}

#[tokio::test(start_paused = true)]
async fn handle_registers_drains_deregisters_and_registers_again() {
    let registry = accepting();
    let handle = registrar(&registry);
    handle.deregister().await.unwrap();
    assert!(registry.asked().is_empty(), "it was never registered");
    handle.register().await.unwrap();
    handle.drain().await;
    handle.deregister().await.unwrap();
    handle.deregister().await.unwrap();
    assert_eq!(writes(&registry), ["UP", "DOWN", "DELETE"]);
    handle.register().await.unwrap();
    handle.deregister().await.unwrap();
    assert_eq!(writes(&registry)[3..], ["UP", "DELETE"], "it can be registered again");
}

#[tokio::test(start_paused = true)]
async fn registration_that_fails_is_repeated_in_the_background() {
    let asked = AtomicUsize::new(0);
    let registry = Scripted::new(move |request| {
        let fails = request.line.starts_with("POST") && asked.fetch_add(1, Ordering::Relaxed) < 2;
        Reply::Status(if fails { 500 } else { 204 })
    });
    let handle = registrar(&registry);
    let error = handle.register().await.unwrap_err();
    assert_eq!(error.status(), Some(500));
    sleep(Duration::from_secs(10)).await;
    assert_eq!(writes(&registry), ["UP", "UP", "UP"]);
}

#[tokio::test(start_paused = true)]
async fn dropped_serve_future_deregisters_although_a_clone_is_held() {
    let registry = accepting();
    let handle = registrar(&registry);
    let serving = handle.clone().serve(std::future::pending(), stop_on_shutdown);
    assert!(timeout(Duration::from_secs(40), serving).await.is_err());
    sleep(Duration::from_secs(1)).await;
    assert_eq!(writes(&registry), ["UP", "DELETE"]);
    let sent = registry.asked().len();
    let error = handle.set_status(tower_eureka::model::InstanceStatus::Up).await.unwrap_err();
    assert!(error.to_string().contains("call register() first"), "{error}");
    handle.drain().await;
    sleep(Duration::from_secs(300)).await;
    assert_eq!(registry.asked().len(), sent, "nothing follows the DELETE");
}

#[tokio::test(start_paused = true)]
async fn delete_that_fails_is_repeated_and_no_heartbeat_follows() {
    let failing = Arc::new(AtomicUsize::new(2));
    let left = failing.clone();
    let registry = Scripted::new(move |asked| {
        let fails = asked.line.starts_with("DELETE")
            && left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1)).is_ok();
        Reply::Status(if fails { 500 } else { 204 })
    });
    let handle = registrar(&registry);
    handle.register().await.unwrap();
    handle.deregister().await.unwrap();
    assert_eq!(writes(&registry), ["UP", "DELETE", "DELETE", "DELETE"]);

    failing.store(usize::MAX, Ordering::Relaxed);
    handle.register().await.unwrap();
    assert_eq!(handle.deregister().await.unwrap_err().status(), Some(500));
    sleep(Duration::from_secs(300)).await;
    assert!(!registry.lines().iter().any(|line| line.starts_with("PUT")), "no heartbeat after the first DELETE");
    failing.store(0, Ordering::Relaxed);
    handle.deregister().await.unwrap();
    let sent = registry.asked().len();
    handle.deregister().await.unwrap();
    assert_eq!(registry.asked().len(), sent);
}

#[tokio::test(start_paused = true)]
async fn registration_waits_for_the_delete_before_it() {
    let registry = Scripted::new(|asked| match asked.line.split(' ').next() {
        Some("DELETE") => Reply::Never,
        _ => Reply::Status(204),
    });
    let handle = registrar(&registry);
    handle.register().await.unwrap();
    assert!(handle.deregister().await.unwrap_err().is_timeout());
    handle.register().await.unwrap();
    sleep(Duration::from_secs(100)).await;
    assert_eq!(writes(&registry).last().map(String::as_str), Some("UP"), "{:?}", writes(&registry));
}

#[tokio::test(start_paused = true)]
async fn command_does_not_wait_for_a_heartbeat_that_hangs() {
    let registry = Scripted::new(|asked| match asked.line.split(' ').next() {
        Some("PUT") => Reply::Never,
        _ => Reply::Status(204),
    });
    let handle = registrar(&registry);
    handle.register().await.unwrap();
    sleep(Duration::from_secs(35)).await;
    let start = Instant::now();
    handle.deregister().await.unwrap();
    assert_eq!(start.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn delete_is_sent_to_the_second_server_when_the_first_hangs() {
    let hangs = Arc::new(AtomicBool::new(false));
    let hanging = hangs.clone();
    let registry = Scripted::new(move |asked| {
        let first = !asked.headers.contains_key("authorization");
        if first && hanging.load(Ordering::Relaxed) { Reply::Never } else { Reply::Status(204) }
    });
    let client = tower_eureka::Eureka::builder().service_url("http://a/eureka,http://u:p@b/eureka");
    let handle = client
        .shuffle_servers(false)
        .http_service(registry.clone())
        .build()
        .unwrap()
        .registrar(instance("orders", "a"));
    handle.register().await.unwrap();
    hangs.store(true, Ordering::Relaxed);
    handle.deregister().await.unwrap();
    let deleted = registry.asked().into_iter().filter(|asked| asked.line.starts_with("DELETE")).count();
    assert_eq!(deleted, 2, "one to the server that hangs, one to the other");
}

#[tokio::test(start_paused = true)]
async fn shutdown_completes_each_time_it_is_awaited() {
    let handle = registrar(&accepting());
    let _layer = handle.layer();
    let start = Instant::now();
    handle
        .serve(sleep(Duration::from_secs(10)), |mut shutdown| async move {
            let clone = shutdown.clone();
            (&mut shutdown).await;
            shutdown.await;
            clone.await;
        })
        .await;
    assert_eq!(start.elapsed().as_secs(), 15);
}

#[tokio::test(start_paused = true)]
async fn maximum_durations_do_not_panic() {
    let registry = accepting();
    let client = registry.client().read_timeout(Duration::MAX).connect_timeout(Duration::MAX);
    let client = client.fetch_interval(Duration::MAX).build().unwrap();
    let _copy = client.snapshot();
    let handle = client.registrar(instance("orders", "a")).max_drain(Duration::MAX).grace(Duration::MAX);
    let handle = handle.registry_timeout(Duration::MAX).shutdown_timeout(Duration::MAX);
    handle.quiet_time(Duration::from_secs(1)).serve(sleep(Duration::from_secs(1)), stop_on_shutdown).await.unwrap();
    assert_eq!(writes(&registry), ["UP", "DOWN", "DELETE"]);
}

#[tokio::test(start_paused = true)]
async fn drain_signal_completes_after_the_drain() {
    let registry = accepting();
    let handle = registrar(&registry);
    handle.register().await.unwrap();
    let start = Instant::now();
    tokio::spawn(handle.drain_signal(sleep(Duration::from_secs(7)))).await.unwrap();
    assert_eq!(start.elapsed().as_secs(), 7 + 5);
    handle.deregister().await.unwrap();
    assert_eq!(writes(&registry), ["UP", "DOWN", "DELETE"]);
}
