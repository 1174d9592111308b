//! Time limits of a provider's shutdown, in paused time.

use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use tokio::time::{Instant, sleep, sleep_until};
use tower::{Layer, ServiceExt, service_fn};
use tower_eureka::Eureka;
use tower_eureka::model::{Instance, InstanceStatus};
use tower_eureka::register::{Registrar, Shutdown};

use crate::common::{Reply, Scripted, instance};
use crate::provider::{accepting, registrar, stop_on_shutdown, writes};

const ONE: &str = "http://a/eureka";
const THREE: &str = "http://a/eureka,http://b/eureka,http://c/eureka";

/// Creates a registrar whose registry servers never respond.
fn hanging(urls: &str) -> (Scripted, Registrar) {
    let registry = Scripted::new(|_| Reply::Never);
    let client = Eureka::builder().service_url(urls).http_service(registry.clone()).build().unwrap();
    (registry, client.registrar(instance("orders", "a")))
}

/// Returns the time from the signal until the server has to stop, and until `serve` returns.
/// `server` continues after that.
async fn leave<F: Future<Output = ()>>(handle: Registrar, signal_at: Duration, server: F) -> (Duration, Duration) {
    let signalled = Instant::now() + signal_at;
    let stopped_at = Arc::new(Mutex::new(Duration::ZERO));
    let noted = stopped_at.clone();
    let serving = |shutdown: Shutdown| async move {
        shutdown.await;
        *noted.lock().unwrap() = signalled.elapsed();
        server.await;
    };
    handle.serve(sleep_until(signalled), serving).await;
    let stopped_at = *stopped_at.lock().unwrap();
    (stopped_at, signalled.elapsed())
}

#[tokio::test(start_paused = true)]
async fn exit_with_a_registry_that_hangs_takes_the_registry_timeout_whenever_the_signal_comes() {
    for urls in [ONE, THREE] {
        for millis in (0..60_000).step_by(1500).chain([1, 12_999, 13_001, 39_001]) {
            let (_, handle) = hanging(urls);
            let _layer = handle.layer();
            let (stopped_at, exit) = leave(handle, Duration::from_millis(millis), async {}).await;
            assert!(
                stopped_at <= Duration::from_millis(3001),
                "{urls}: stopped {stopped_at:?} after a signal at {millis} ms"
            );
            assert!(exit <= Duration::from_millis(6002), "{urls}: left {exit:?} after a signal at {millis} ms");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn deregister_during_a_registration_that_hangs_ends_within_the_registry_timeout() {
    for urls in [ONE, THREE] {
        let (registry, handle) = hanging(urls);
        let registering = handle.clone();
        let registering = tokio::spawn(async move { registering.register().await });
        sleep(Duration::from_secs(2)).await;
        let start = Instant::now();
        assert!(handle.deregister().await.unwrap_err().is_timeout());
        assert!(start.elapsed() <= Duration::from_millis(3001), "{:?}", start.elapsed());
        assert!(registering.await.unwrap().is_err(), "its caller gets an error");
        assert!(registry.lines().last().unwrap().starts_with("DELETE"));
    }
}

#[tokio::test(start_paused = true)]
async fn drain_during_a_registration_that_hangs_begins_within_the_registry_timeout() {
    let (_, handle) = hanging(THREE);
    let registering = handle.clone();
    tokio::spawn(async move { registering.register().await });
    sleep(Duration::from_secs(1)).await;
    let start = Instant::now();
    handle.drain().await;
    assert_eq!(start.elapsed().as_secs(), 3 + 5);
}

/// Calls the service on this path at this interval until the task is aborted.
fn called(handle: &Registrar, path: &'static str, every: Duration) -> tokio::task::JoinHandle<()> {
    let service = handle.layer().layer(service_fn(|_: Request<()>| async {
        Ok::<_, Infallible>(Response::new(Full::new(Bytes::from("response"))))
    }));
    tokio::spawn(async move {
        loop {
            let request = Request::get(path).body(()).unwrap();
            service.clone().oneshot(request).await.unwrap().into_body().collect().await.unwrap();
            sleep(every).await;
        }
    })
}

#[tokio::test(start_paused = true)]
async fn steps_of_a_shutdown_share_one_budget() {
    for (registry, handle) in [hanging(ONE), hanging(THREE)] {
        let calls = called(&handle, "/v1/orders", Duration::from_secs(1));
        let (stopped_at, exit) = leave(handle, Duration::from_secs(100), std::future::pending()).await;
        assert_eq!(stopped_at.as_secs(), 17, "the drain leaves a reserve for the requests in flight");
        assert_eq!(exit.as_secs(), 25);
        assert!(registry.lines().last().unwrap().starts_with("DELETE"), "and they leave one for the DELETE");
        calls.abort();
    }
}

#[tokio::test(start_paused = true)]
async fn shutdown_timeout_limits_steps_with_longer_limits() {
    let registry = accepting();
    let minutes = Duration::from_secs(300);
    let handle = registrar(&registry).max_drain(minutes).grace(minutes).quiet_time(minutes);
    let handle = handle.shutdown_timeout(Duration::from_secs(10));
    let calls = called(&handle, "/v1/orders", Duration::from_secs(1));
    let (stopped_at, exit) = leave(handle, Duration::from_secs(10), std::future::pending()).await;
    assert!(stopped_at < Duration::from_secs(6) && exit <= Duration::from_secs(8), "{stopped_at:?} {exit:?}");
    assert_eq!(writes(&registry), ["UP", "DOWN", "DELETE"]);
    calls.abort();

    let longer = registrar(&registry).max_drain(minutes).shutdown_timeout(minutes * 2);
    let calls = called(&longer, "/v1/orders", Duration::from_secs(1));
    let (stopped_at, _) = leave(longer, Duration::from_secs(10), async {}).await;
    assert_eq!(stopped_at, minutes, "a longer drain with a longer shutdown");
    calls.abort();
}

#[tokio::test(start_paused = true)]
async fn probes_do_not_prolong_the_drain() {
    let health = Instance::builder("orders").id("a").ip_addr("10.0.0.1").port(80);
    let health = health.health_check_url("http://10.0.0.1:80/orders/up").build().unwrap();
    let client = accepting().client().build().unwrap();
    for path in ["/health", "/actuator/health/liveness?x=1", "/readyz", "/grpc.health.v1.Health/Check", "/orders/up"] {
        let handle = client.registrar(health.clone());
        let probes = called(&handle, path, Duration::from_secs(4));
        let (stopped_at, _) = leave(handle, Duration::from_secs(10), async {}).await;
        assert_eq!(stopped_at.as_secs(), 5, "{path}: no calls, as far as it knows");
        probes.abort();

        let handle = client.registrar(health.clone());
        let (probes, calls) =
            (called(&handle, path, Duration::from_secs(4)), called(&handle, "/", Duration::from_secs(9)));
        let (stopped_at, _) = leave(handle, Duration::from_secs(10), async {}).await;
        assert_eq!(stopped_at.as_secs(), 5, "{path}: it was called before");
        probes.abort();
        calls.abort();
    }
    let handle = client.registrar(health).uncounted_paths(["/ping/*"]);
    let (ping, other) =
        (called(&handle, "/ping/1", Duration::from_secs(1)), called(&handle, "/health", Duration::from_secs(4)));
    let (stopped_at, _) = leave(handle, Duration::from_secs(10), async {}).await;
    assert_eq!(stopped_at.as_secs(), 15, "/health counts once the paths are others");
    ping.abort();
    other.abort();
}

#[tokio::test(start_paused = true)]
async fn probe_in_flight_does_not_prolong_the_drain() {
    let handle = registrar(&accepting());
    let watch = handle
        .layer()
        .layer(service_fn(|_: Request<()>| std::future::pending::<Result<Response<Full<Bytes>>, Infallible>>()));
    let watching = tokio::spawn(watch.oneshot(Request::post("/grpc.health.v1.Health/Watch").body(()).unwrap()));
    let (stopped_at, _) = leave(handle, Duration::from_secs(10), async {}).await;
    assert_eq!(stopped_at.as_secs(), 5);
    watching.abort();
}

#[tokio::test(start_paused = true)]
async fn instance_that_was_never_called_drains_if_callers_may_know_it() {
    for (status, seconds) in [(204, 5), (500, 0)] {
        let handle = registrar(&Scripted::new(move |_| Reply::Status(status)));
        let _layer = handle.layer();
        let (stopped_at, _) = leave(handle, Duration::from_secs(10), async {}).await;
        assert_eq!(stopped_at.as_secs(), seconds, "{status}");
    }
    let handle = registrar(&accepting()).initial_status(InstanceStatus::Starting);
    let _layer = handle.layer();
    let (stopped_at, _) = leave(handle, Duration::from_secs(10), async {}).await;
    assert_eq!(stopped_at, Duration::ZERO, "it was never UP");
}

#[tokio::test(start_paused = true)]
async fn delete_is_the_last_request_when_a_registration_is_interrupted() {
    let start = Instant::now();
    // It hangs at first.
    let registry =
        Scripted::new(move |_| if start.elapsed().as_secs() < 2 { Reply::Never } else { Reply::Status(204) });
    let handle = registrar(&registry);
    let _layer = handle.layer();
    handle.serve(sleep(Duration::from_secs(3)), stop_on_shutdown).await.unwrap();
    sleep(Duration::from_secs(300)).await;
    assert_eq!(writes(&registry), ["UP", "DOWN", "DELETE"]);
    assert!(registry.lines().last().unwrap().starts_with("DELETE"));
}

#[tokio::test(start_paused = true)]
async fn concurrent_deregister_calls_end_within_the_registry_timeout() {
    let (_, handle) = hanging(THREE);
    let registering = handle.clone();
    tokio::spawn(async move { registering.register().await });
    sleep(Duration::from_secs(2)).await;
    let start = Instant::now();
    let (one, other) = tokio::join!(handle.deregister(), handle.deregister());
    assert!(one.unwrap_err().is_timeout() && other.unwrap_err().is_timeout());
    assert!(start.elapsed() < Duration::from_millis(3100), "{:?}", start.elapsed());
}
