//! Signals of a supervisor, sent for real to this process. In a program of their own, since other tests would see them.
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

/// Sends the signal, and waits until it is here without letting paused time pass.
async fn terminate() {
    let mut seen = signal(SignalKind::terminate()).unwrap();
    let killed = Command::new("kill").args(["-TERM", &std::process::id().to_string()]).status().unwrap();
    assert!(killed.success());
    loop {
        tokio::select! {
            biased;
            _ = seen.recv() => return,
            () = tokio::task::yield_now() => {}
        }
    }
}

/// Time from the first signal until the server is told to stop, and until it is not waited for any more. Further signals come at
/// these times. The server has callers and never ends.
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
    let told_at = Arc::new(Mutex::new(Duration::ZERO));
    let noted = told_at.clone();
    handle
        .serve(shutdown_signal(), |shutdown: Shutdown| async move {
            shutdown.await;
            *noted.lock().unwrap() = first.elapsed();
            std::future::pending::<()>().await;
        })
        .await;
    calls.abort();
    let told_at = *told_at.lock().unwrap();
    (told_at, first.elapsed())
}

#[tokio::test(start_paused = true)]
async fn signal_within_half_a_second_is_the_same_and_a_later_one_ends_the_wait() {
    let near = |time: Duration, millis: u64| time.as_millis().abs_diff(millis.into()) < 100;
    for (further, told_at, exit) in [
        (&[][..], 15_000, 22_000),
        // The process and its group.
        (&[0, 100, 400], 15_000, 22_000),
        (&[600], 600, 20_600),
        (&[300, 2000], 2000, 22_000),
        (&[2000, 2300], 2000, 22_000),
        (&[2000, 4000], 2000, 4000),
    ] {
        let (told, left) = signalled(further).await;
        assert!(near(told, told_at) && near(left, exit), "{further:?}: {told:?} {left:?}");
    }
}
