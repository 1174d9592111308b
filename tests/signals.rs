//! Signals that are really sent to this process. They are a test program of their own, since other
//! tests would receive them.
#![cfg(all(unix, feature = "client"))]
#![allow(clippy::unwrap_used, reason = "the functions around the tests are tests, too")]

use std::convert::Infallible;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{Instant, sleep};
use tower::{Layer, ServiceExt, service_fn};
use tower_eureka::register::Shutdown;
use tower_eureka::transport::RequestBody;
use tower_eureka::{Eureka, Instance, shutdown_signal};

/// Sends SIGTERM and waits until it was received, without advancing the paused time.
async fn terminate() {
    let mut received = signal(SignalKind::terminate()).unwrap();
    let killed = Command::new("kill").args(["-TERM", &std::process::id().to_string()]).status().unwrap();
    assert!(killed.success());
    loop {
        tokio::select! {
            biased;
            _ = received.recv() => return,
            () = tokio::task::yield_now() => {}
        }
    }
}

/// Returns the time from the first signal until the server has to stop, and until `serve` returns.
/// Further signals are sent at these times, in milliseconds. The server has callers and never ends.
async fn signalled(further: &'static [u64]) -> (Duration, Duration) {
    let registry = service_fn(|_: Request<RequestBody>| async {
        Ok::<_, Infallible>(Response::builder().status(204).body(Full::<Bytes>::default()).unwrap())
    });
    let eureka = Eureka::builder().service_url("http://registry/eureka").http_service(registry).build().unwrap();
    let instance = Instance::builder("orders").ip_addr("10.0.0.1").port(80).build().unwrap();
    let handle = eureka.registrar(instance);
    let service = handle.layer().layer(service_fn(|_: Request<()>| async {
        Ok::<_, Infallible>(Response::new(Full::new(Bytes::from("response"))))
    }));
    let calls = tokio::spawn(async move {
        loop {
            let response = service.clone().oneshot(Request::new(())).await.unwrap();
            response.into_body().collect().await.unwrap();
            sleep(Duration::from_secs(1)).await;
        }
    });
    let first = Instant::now() + Duration::from_secs(10);
    tokio::spawn(async move {
        tokio::time::sleep_until(first).await;
        terminate().await;
        for at in further {
            tokio::time::sleep_until(first + Duration::from_millis(*at)).await;
            terminate().await;
        }
    });
    let stopped_at = Arc::new(Mutex::new(Duration::ZERO));
    let noted = stopped_at.clone();
    handle
        .serve(shutdown_signal(), |shutdown: Shutdown| async move {
            shutdown.await;
            *noted.lock().unwrap() = first.elapsed();
            std::future::pending::<()>().await;
        })
        .await;
    calls.abort();
    let stopped_at = *stopped_at.lock().unwrap();
    (stopped_at, first.elapsed())
}

#[tokio::test(start_paused = true)]
async fn signal_within_half_a_second_is_ignored_and_a_later_one_ends_the_wait() {
    let near = |time: Duration, millis: u64| time.as_millis().abs_diff(millis.into()) < 100;
    for (further, stopped_at, exit) in [
        (&[][..], 15_000, 22_000),
        // As a supervisor signals the process and its group.
        (&[0, 100, 400], 15_000, 22_000),
        (&[600], 600, 20_600),
        (&[300, 2000], 2000, 22_000),
        (&[2000, 2300], 2000, 22_000),
        (&[2000, 4000], 2000, 4000),
    ] {
        let (stopped, left) = signalled(further).await;
        assert!(near(stopped, stopped_at) && near(left, exit), "{further:?}: {stopped:?} {left:?}");
    }
}
