use std::convert::Infallible;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response};
use http_body_util::{BodyExt, Full};
use tokio::time::{Instant, sleep};
use tower::service_fn;

use crate::Eureka;
use crate::model::{Instance, InstanceStatus};
use crate::register::Registrar;
use crate::time::{move_wall_clock, wall_clock_ms};
use crate::transport::RequestBody;

/// Times and bodies of the writes that a registry received.
type Writes = Arc<Mutex<Vec<(Duration, Method, Bytes)>>>;

/// Returns a registrar whose registry accepts everything.
fn provider() -> (Writes, Registrar) {
    let (writes, start) = (Writes::default(), Instant::now());
    let received = writes.clone();
    let service = service_fn(move |request: Request<RequestBody>| {
        let writes = received.clone();
        async move {
            let method = request.method().clone();
            let body = request.into_body().collect().await.unwrap().to_bytes();
            if method != Method::GET {
                writes.lock().unwrap().push((start.elapsed(), method, body));
            }
            Ok::<_, Infallible>(Response::new(Full::<Bytes>::default()))
        }
    });
    let eureka = Eureka::builder().service_url("http://registry/eureka").http_service(service).build().unwrap();
    let instance = Instance::builder("orders").ip_addr("10.0.0.1").port(80).build().unwrap();
    (writes, eureka.registrar(instance))
}

#[tokio::test(start_paused = true)]
async fn heartbeat_after_a_suspension_is_sent_at_once() {
    let (writes, handle) = provider();
    handle.register().await.unwrap();
    sleep(Duration::from_secs(10)).await;
    // The lid was closed for an hour, in which tokio's clock stood still.
    move_wall_clock(3_600_000);
    sleep(Duration::from_secs(5)).await;
    let sent: Vec<_> = writes.lock().unwrap().iter().map(|(at, method, _)| (at.as_secs(), method.clone())).collect();
    assert_eq!((sent.len(), &sent[1].1), (2, &Method::PUT));
    assert!((10..=15).contains(&sent[1].0), "{sent:?}");
    assert!(handle.health_report().registry.lease_age.unwrap() < Duration::from_secs(6));
}

#[tokio::test(start_paused = true)]
async fn newer_record_is_replaced_once_a_clock_that_was_years_behind_is_set() {
    let instance = |ip: &str| Instance::builder("orders").id("a").ip_addr(ip).port(80).build().unwrap();
    let mut before = instance("10.0.0.1");
    before.last_dirty_timestamp = Some(wall_clock_ms() - 30_000);
    let (record, sent) = (Arc::new(Mutex::new(before)), Arc::new(Mutex::new(0)));
    let (held, count) = (record.clone(), sent.clone());
    let service = service_fn(move |request: Request<RequestBody>| {
        let (held, count) = (held.clone(), count.clone());
        async move {
            let method = request.method().clone();
            let body = request.into_body().collect().await.unwrap().to_bytes();
            let mut held = held.lock().unwrap();
            if method == Method::POST {
                *count.lock().unwrap() += 1;
                let sent = Instance::from_json(&body).unwrap();
                if sent.last_dirty_timestamp >= held.last_dirty_timestamp {
                    *held = sent;
                }
            }
            Ok::<_, Infallible>(Response::new(Full::<Bytes>::from(held.to_json())))
        }
    });
    let years = 3 * 366 * 24 * 3_600_000;
    move_wall_clock(-years);
    let eureka = Eureka::builder().service_url("http://registry/eureka").http_service(service).build().unwrap();
    let handle = eureka.registrar(instance("10.0.0.2"));
    handle.register().await.unwrap();
    sleep(Duration::from_secs(600)).await;
    assert_eq!((record.lock().unwrap().ip_addr(), *sent.lock().unwrap()), (Some("10.0.0.1"), 1));
    move_wall_clock(years);
    sleep(Duration::from_secs(10)).await;
    assert_eq!((record.lock().unwrap().ip_addr(), *sent.lock().unwrap()), (Some("10.0.0.2"), 2));
    sleep(Duration::from_secs(600)).await;
    assert_eq!(*sent.lock().unwrap(), 2);
}

#[tokio::test(start_paused = true)]
async fn failed_heartbeats_are_repeated_by_the_interval_that_was_set_last() {
    let is_down = Arc::new(AtomicBool::new(false));
    let (down, beats) = (is_down.clone(), Arc::new(Mutex::new(Vec::new())));
    let (sent, start) = (beats.clone(), Instant::now());
    let service = service_fn(move |request: Request<RequestBody>| {
        let status = if down.load(Ordering::Relaxed) { 500 } else { 200 };
        if request.method() == Method::PUT {
            sent.lock().unwrap().push(start.elapsed());
        }
        std::future::ready(Ok::<_, Infallible>(
            Response::builder().status(status).body(Full::<Bytes>::default()).unwrap(),
        ))
    });
    let eureka = Eureka::builder().service_url("http://registry/eureka").http_service(service).build().unwrap();
    let handle = eureka.registrar(Instance::builder("orders").ip_addr("10.0.0.1").port(80).build().unwrap());
    handle.register().await.unwrap();
    handle.set_lease(Duration::from_secs(3), Duration::from_secs(9)).await.unwrap();
    is_down.store(true, Ordering::Relaxed);
    sleep(Duration::from_secs(120)).await;
    let beats = beats.lock().unwrap();
    assert!(beats.windows(2).all(|pair| pair[1] - pair[0] < Duration::from_secs(4)), "{beats:?}");
    assert!(beats.len() > 30, "{beats:?}");
}

#[tokio::test(start_paused = true)]
async fn clock_that_is_set_back_delays_no_heartbeat_and_loses_no_change() {
    let (writes, handle) = provider();
    handle.register().await.unwrap();
    move_wall_clock(-7_200_000);
    handle.set_status(InstanceStatus::Starting).await.unwrap();
    handle.update_metadata([("a", "b")]).await.unwrap();
    let versions: Vec<_> = writes
        .lock()
        .unwrap()
        .iter()
        .map(|(.., body)| Instance::from_json(body).unwrap().last_dirty_timestamp().unwrap())
        .collect();
    assert_eq!(versions, [versions[0], versions[0] + 1, versions[0] + 2]);
    sleep(Duration::from_secs(600)).await;
    let beats = writes.lock().unwrap().iter().filter(|(_, method, _)| *method == Method::PUT).count();
    assert!((17..=23).contains(&beats), "{beats}");
}

#[tokio::test(start_paused = true)]
async fn status_is_not_held_back_by_the_delay_after_a_refused_change() {
    let refuses = Arc::new(AtomicBool::new(false));
    let (refused, statuses) = (refuses.clone(), Arc::new(Mutex::new(Vec::new())));
    let registered = statuses.clone();
    let service = service_fn(move |request: Request<RequestBody>| {
        let (is_refused, registered) = (refused.load(Ordering::Relaxed), registered.clone());
        async move {
            let is_registration = request.method() == Method::POST;
            let body = request.into_body().collect().await.unwrap().to_bytes();
            if is_registration && !is_refused {
                registered.lock().unwrap().push(Instance::from_json(&body).unwrap().status());
            }
            let status = if is_registration && is_refused { 503 } else { 200 };
            Ok::<_, Infallible>(Response::builder().status(status).body(Full::<Bytes>::default()).unwrap())
        }
    });
    let eureka = Eureka::builder().service_url("http://registry/eureka").http_service(service).build().unwrap();
    let handle = eureka.registrar(Instance::builder("orders").ip_addr("10.0.0.1").port(80).build().unwrap());
    handle.register().await.unwrap();
    refuses.store(true, Ordering::Relaxed);
    assert!(handle.update_metadata([("load", "1")]).await.is_err());
    refuses.store(false, Ordering::Relaxed);
    let begun = Instant::now();
    handle.set_status(InstanceStatus::Down).await.unwrap();
    assert!(begun.elapsed() < Duration::from_secs(16), "{:?}", begun.elapsed());
    assert_eq!(*statuses.lock().unwrap(), [InstanceStatus::Up, InstanceStatus::Down]);
}
