//! Evidence about an instance: calls without a response, hedges, and calls of its predecessor.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use tokio::time::{Instant, sleep, timeout};
use tower::{Layer, Service, ServiceExt, service_fn};
use tower_eureka::balance::{EndpointState, Random};
use tower_eureka::client::{AttemptBody, CallOptions, Deadline, EurekaLayer, RetryPolicy};
use tower_eureka::{Eureka, Instance};

use crate::common::{Memory, at, edited};

type Body = Full<Bytes>;

/// Returns a client of two instances: `a` at port 1 and `b` at port 2.
fn two_instances() -> Eureka {
    Memory::of([at("a", 1), at("b", 2)]).serve().client().build().unwrap()
}

fn get(path: &str) -> Request<Body> {
    Request::get(format!("http://orders{path}")).body(Body::default()).unwrap()
}

/// Service that responds after 2 ms, to `/pause` after 400 ms and to `/poll` after a minute.
/// Instance `b` responds with 500 while `fails` is set.
fn instances(
    fails: Arc<AtomicBool>,
) -> impl Service<Request<AttemptBody<Body>>, Response = Response<Body>, Error = Infallible, Future: Send>
+ Clone
+ Send
+ Sync
+ 'static {
    service_fn(move |request: Request<AttemptBody<Body>>| {
        let fails = fails.load(Ordering::Relaxed) && request.uri().port_u16() == Some(2);
        async move {
            sleep(match request.uri().path() {
                "/poll" => Duration::from_secs(60),
                "/pause" => Duration::from_millis(400),
                _ => Duration::from_millis(2),
            })
            .await;
            Ok(Response::builder().status(if fails { 500 } else { 200 }).body(Body::default()).unwrap())
        }
    })
}

#[tokio::test(start_paused = true)]
async fn call_without_a_response_ejects_no_instance() {
    fastrand::seed(9);
    let hedge = RetryPolicy::new().hedge_after(Duration::from_millis(310));
    let cases = [
        ("long poll meets its deadline", "/poll", Some(30_000), None, RetryPolicy::new()),
        ("deadline of a slow call", "/pause", Some(150), None, RetryPolicy::new()),
        (
            "time limit of an attempt",
            "/poll",
            Some(9_000),
            None,
            RetryPolicy::new().attempt_timeout(Duration::from_secs(2)),
        ),
        ("client disconnects", "/poll", None, Some(350), RetryPolicy::new()),
        ("hedge wins", "/pause", None, None, hedge),
    ];
    for (what, path, deadline, client_timeout, retry) in cases {
        let layer = EurekaLayer::new(&two_instances()).options(CallOptions::new().retry(retry));
        let client = layer.layer(instances(Arc::default()));
        for _ in 0..1_000 {
            client.clone().oneshot(get("/")).await.unwrap();
        }
        for _ in 0..2 {
            let mut request = get(path);
            if let Some(ms) = deadline {
                request.extensions_mut().insert(Deadline::within(Duration::from_millis(ms)));
            }
            let client_timeout = Duration::from_millis(client_timeout.unwrap_or(100_000));
            let _ = timeout(client_timeout, client.clone().oneshot(request)).await;
            let snapshot = &client.snapshots()[0];
            assert_eq!(snapshot.count(EndpointState::Available), 2, "{what}: {snapshot}");
        }
        assert!(client.snapshots()[0].endpoints().iter().all(|endpoint| endpoint.failures() == 0), "{what}");
    }
}

#[tokio::test(start_paused = true)]
async fn cancelled_polls_before_a_fault_fail_no_call() {
    fastrand::seed(9);
    let fails = Arc::new(AtomicBool::new(false));
    let options = CallOptions::new().retry(RetryPolicy::new().statuses([500]));
    let client = EurekaLayer::new(&two_instances()).options(options).layer(instances(fails.clone()));
    for _ in 0..200 {
        client.clone().oneshot(get("/")).await.unwrap();
    }
    for _ in 0..4 {
        assert!(timeout(Duration::from_secs(2), client.clone().oneshot(get("/poll"))).await.is_err());
    }
    fails.store(true, Ordering::Relaxed);
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(60) {
        sleep(Duration::from_millis(98)).await;
        let response = client.clone().oneshot(get("/")).await.unwrap();
        assert_eq!(response.status(), 200, "after {:?}: {}", start.elapsed(), client.snapshots()[0]);
    }
}

#[tokio::test(start_paused = true)]
async fn hedge_without_another_instance_costs_no_retry() {
    let memory = Memory::of([at("a", 1)]);
    let requests = Arc::new(AtomicUsize::new(0));
    let count = requests.clone();
    let service = service_fn(move |_: Request<AttemptBody<Body>>| {
        let number = count.fetch_add(1, Ordering::Relaxed);
        async move {
            sleep(Duration::from_millis(20)).await;
            let status = if number == 100 { 503 } else { 200 };
            Ok::<_, Infallible>(Response::builder().status(status).body(Body::default()).unwrap())
        }
    });
    let retry = RetryPolicy::new().statuses([503]).hedge_after(Duration::from_millis(10));
    let retry = retry.budget(0.0, 10, Duration::from_secs(10));
    let eureka = memory.serve().client().build().unwrap();
    let client = EurekaLayer::new(&eureka).options(CallOptions::new().retry(retry)).layer(service);
    for _ in 0..=100 {
        assert_eq!(client.clone().oneshot(get("/")).await.unwrap().status(), 200);
    }
    assert_eq!(requests.load(Ordering::Relaxed), 102, "one call is retried, and no hedge is sent");
}

#[tokio::test(start_paused = true)]
async fn hedge_without_budget_leaves_the_other_instance_to_a_retry() {
    fastrand::seed(9);
    // The first instance that is called does not take its call, which fails after 40 ms.
    let requests = Arc::new(AtomicUsize::new(0));
    let count = requests.clone();
    let service = service_fn(move |_: Request<AttemptBody<Body>>| {
        let is_first = count.fetch_add(1, Ordering::Relaxed) == 0;
        async move {
            sleep(Duration::from_millis(40)).await;
            if is_first {
                return Err(std::io::Error::from(std::io::ErrorKind::ConnectionRefused));
            }
            Ok(Response::new(Body::default()))
        }
    });
    let retry = RetryPolicy::new().hedge_after(Duration::from_millis(10)).budget(0.0, 0, Duration::from_secs(10));
    let client = EurekaLayer::new(&two_instances()).options(CallOptions::new().retry(retry)).layer(service);
    assert_eq!(client.clone().oneshot(get("/")).await.unwrap().status(), 200);
    assert_eq!(requests.load(Ordering::Relaxed), 2);
}

/// Record of instance `a` at this port, as its process registered it at this time.
fn registered(port: u16, time: i64) -> Instance {
    edited(&at("a", port), |json| json["lastDirtyTimestamp"] = time.to_string().into())
}

#[tokio::test(start_paused = true)]
async fn process_at_another_address_has_no_record_of_its_predecessor() {
    fastrand::seed(9);
    let memory = Memory::of([registered(1, 1_000), at("b", 2)]);
    // Port 1 responds with 500, the other ports with 200. Calls of `/pending` end later.
    let service = service_fn(|request: Request<AttemptBody<Body>>| async move {
        if request.uri().path() == "/pending" {
            sleep(Duration::from_secs(40)).await;
        }
        let status = if request.uri().port_u16() == Some(1) { 500 } else { 200 };
        Ok::<_, Infallible>(Response::builder().status(status).body(Body::default()).unwrap())
    });
    let eureka = memory.serve().client().delta(false).fetch_interval(Duration::from_secs(1)).build().unwrap();
    let client = EurekaLayer::new(&eureka).options(CallOptions::new().policy(Random)).layer(service);
    client.clone().oneshot(get("/")).await.unwrap();
    let pending: Vec<_> = (0..100).map(|_| tokio::spawn(client.clone().oneshot(get("/pending")))).collect();
    for _ in 0..100 {
        client.clone().oneshot(get("/")).await.unwrap();
    }
    assert_eq!(client.snapshots()[0].count(EndpointState::Available), 1, "{}", client.snapshots()[0]);
    memory.put(registered(3, 2_000));
    sleep(Duration::from_secs(2)).await;
    assert_eq!(client.snapshots()[0].count(EndpointState::Available), 2, "{}", client.snapshots()[0]);
    for call in pending {
        call.await.unwrap().unwrap();
    }
    let snapshot = &client.snapshots()[0];
    assert_eq!(snapshot.count(EndpointState::Available), 2, "{snapshot}");
    assert!(snapshot.endpoints().iter().all(|endpoint| endpoint.failures() == 0), "{snapshot}");
}
