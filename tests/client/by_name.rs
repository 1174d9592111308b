//! Calls by name through a user's service, in memory and on paused time: attempts, hedges,
//! deadlines and hosts.

use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use tokio::time::{Instant, sleep};
use tower::limit::ConcurrencyLimit;
use tower::{BoxError, Layer, ServiceExt, service_fn};
use tower_eureka::balance::{ClassifyHttp, DefaultClassifier, Ejection, EndpointState, Outcome};
use tower_eureka::client::{
    AttemptBody, CallOptions, Deadline, EurekaLayer, HostHeader, Ports, RetryPolicy, WaitForReady,
};
use tower_eureka::{Error, Instance};

use crate::common::{Memory, instance, two_frames};

/// Request that an instance received.
#[derive(Clone, Debug, PartialEq)]
struct Received {
    method: Method,
    uri: String,
    host: Option<String>,
    timeout: Option<String>,
    body: String,
}

/// Behaviour of an instance.
#[derive(Clone, Copy)]
enum Behaviour {
    /// Responds with this status.
    Responds(u16),
    /// Reads the body and responds after this number of milliseconds.
    RespondsLate(u64),
    Refuses,
    /// Refuses connections for this number of seconds.
    RefusesUntil(u64),
    /// Closes the connection after reading the body.
    Breaks,
    Hangs,
}

/// Instances `h1:1`, `h2:1`, … of ORDERS with their behaviours, and the requests they received.
#[derive(Clone)]
struct World {
    behaviours: Arc<Vec<Behaviour>>,
    received: Arc<Mutex<Vec<Received>>>,
    start: Instant,
}

impl World {
    fn new(behaviours: impl IntoIterator<Item = Behaviour>) -> Self {
        Self { behaviours: Arc::new(behaviours.into_iter().collect()), received: Arc::default(), start: Instant::now() }
    }

    fn eureka(&self) -> tower_eureka::Eureka {
        let memory = Memory::of([instance("billing", "b")]);
        for number in 1..=self.behaviours.len() {
            let id = format!("o{number}");
            let built = Instance::builder("orders").id(id).host_name(format!("h{number}")).ip_addr("10.0.0.1").port(1);
            memory.put(built.secure_port(2).build().unwrap());
        }
        memory.serve().client().build().unwrap()
    }

    async fn respond(self, request: Request<AttemptBody<Full<Bytes>>>) -> Result<Response<Full<Bytes>>, BoxError> {
        let (parts, body) = request.into_parts();
        let host = parts.uri.host().unwrap().to_owned();
        let behaviour = match host.strip_prefix('h').and_then(|number| number.parse::<usize>().ok()) {
            Some(number) => self.behaviours[number - 1],
            None => Behaviour::Responds(203),
        };
        let refuses = match behaviour {
            Behaviour::RefusesUntil(seconds) => self.start.elapsed().as_secs() < seconds,
            Behaviour::Refuses => true,
            _ => false,
        };
        if refuses {
            return Err(io::Error::from(io::ErrorKind::ConnectionRefused).into());
        }
        let header = |name| parts.headers.get(name).map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
        let read = body.collect().await?.to_bytes();
        self.received.lock().unwrap().push(Received {
            method: parts.method.clone(),
            uri: parts.uri.to_string(),
            host: header("host"),
            timeout: header("x-timeout-ms"),
            body: String::from_utf8(read.to_vec()).unwrap(),
        });
        match behaviour {
            Behaviour::Responds(status) => Ok(Response::builder().status(status).body(Full::from(host)).unwrap()),
            Behaviour::RespondsLate(ms) => {
                sleep(Duration::from_millis(ms)).await;
                Ok(Response::new(Full::from(host)))
            }
            Behaviour::Breaks => Err(io::Error::from(io::ErrorKind::ConnectionReset).into()),
            Behaviour::Hangs => std::future::pending().await,
            Behaviour::Refuses | Behaviour::RefusesUntil(_) => Ok(Response::new(Full::from(host))),
        }
    }

    fn client(&self, options: CallOptions) -> impl Fn(Request<Full<Bytes>>) -> futures::CallFuture + use<> {
        let world = self.clone();
        let below = service_fn(move |request| world.clone().respond(request));
        let client = EurekaLayer::new(&self.eureka()).options(options).layer(below);
        move |request| {
            let client = client.clone();
            Box::pin(async move {
                let response = client.oneshot(request).await?;
                let status = response.status();
                let body = response.into_body().collect().await.unwrap().to_bytes();
                Ok((status, String::from_utf8(body.to_vec()).unwrap()))
            })
        }
    }

    fn received(&self) -> Vec<Received> {
        self.received.lock().unwrap().clone()
    }
}

mod futures {
    use std::pin::Pin;

    use http::StatusCode;

    pub(super) type CallFuture =
        Pin<Box<dyn Future<Output = Result<(StatusCode, String), tower_eureka::Error>> + Send>>;
}

fn request(method: Method, uri: &str, body: &'static str) -> Request<Full<Bytes>> {
    Request::builder().method(method).uri(uri).body(Full::from(body)).unwrap()
}

fn get() -> Request<Full<Bytes>> {
    request(Method::GET, "http://orders/v1/42?a=b", "")
}

/// Asserts that about this time has passed. Timers round up to the millisecond.
fn assert_elapsed(start: Instant, ms: u128) {
    let elapsed = start.elapsed().as_millis();
    assert!((ms..ms + 5).contains(&elapsed), "{elapsed} ms instead of {ms}");
}

fn plain() -> CallOptions {
    CallOptions::new().ports(Ports::Plain)
}

#[tokio::test(start_paused = true)]
async fn service_below_receives_the_address_of_an_instance() {
    let world = World::new([Behaviour::Responds(200)]);
    let call = world.client(plain());
    assert_eq!(call(get()).await.unwrap(), (StatusCode::OK, "h1".into()));
    assert_eq!(call(request(Method::POST, "lb://ORDERS/p", "hello")).await.unwrap().1, "h1");
    assert_eq!(call(request(Method::GET, "https://orders", "")).await.unwrap().1, "h1");
    let received = world.received();
    let uris: Vec<_> = received.iter().map(|received| &*received.uri).collect();
    assert_eq!(uris, ["http://h1:1/v1/42?a=b", "http://h1:1/p", "https://h1:2/"]);
    assert_eq!(received[1].body, "hello");
}

#[tokio::test(start_paused = true)]
async fn unsent_call_of_any_method_goes_to_another_instance() {
    let world = World::new([Behaviour::Refuses, Behaviour::Responds(200), Behaviour::Refuses]);
    let call = world.client(plain().retry(RetryPolicy::unsent_only()));
    for _ in 0..20 {
        assert_eq!(call(request(Method::POST, "http://orders/", "hello")).await.unwrap().1, "h2");
    }
    assert!(world.received().iter().all(|received| received.body == "hello"));
}

#[tokio::test(start_paused = true)]
async fn call_that_may_have_been_received_is_repeated_as_the_policy_allows() {
    for (method, policy, attempts) in [
        (Method::GET, RetryPolicy::new(), 3),
        (Method::PUT, RetryPolicy::new().attempts(2), 2),
        (Method::PUT, RetryPolicy::new().replay_limit(4), 1),
        (Method::POST, RetryPolicy::new(), 1),
        (Method::POST, RetryPolicy::new().all_methods(), 3),
        (Method::GET, RetryPolicy::unsent_only(), 1),
        (Method::GET, RetryPolicy::new().budget(0.0, 0, Duration::from_secs(1)), 1),
    ] {
        let world = World::new([Behaviour::Breaks; 5]);
        let call = world.client(plain().retry(policy.clone()));
        let error = call(request(method.clone(), "http://orders/", "hello")).await.unwrap_err();
        assert!(!error.is_connect() && !error.is_no_endpoints(), "{error}");
        let received = world.received();
        assert_eq!(received.len(), attempts, "{method} {policy:?}");
        let mut uris: Vec<_> = received.iter().map(|received| &received.uri).collect();
        uris.sort();
        uris.dedup();
        assert_eq!(uris.len(), attempts, "another instance each time");
        assert!(received.iter().all(|received| received.body == "hello"), "with the complete body each time");
    }
}

#[tokio::test(start_paused = true)]
async fn attempt_cancelled_while_sending_leaves_the_body_to_the_next() {
    let world = World::new([Behaviour::Responds(200); 2]);
    let attempts = Arc::new(AtomicUsize::new(0));
    let reader = service_fn(move |request: Request<AttemptBody<_>>| {
        let is_first = attempts.fetch_add(1, Ordering::Relaxed) == 0;
        async move {
            let mut body = request.into_body();
            let first = body.frame().await.unwrap()?.into_data().unwrap();
            if is_first {
                std::future::pending::<()>().await;
            }
            let rest = body.collect().await?.to_bytes();
            Ok::<_, BoxError>(Response::new(Full::<Bytes>::from([first, rest].concat())))
        }
    });
    let retry = RetryPolicy::new().attempt_timeout(Duration::from_millis(50));
    let client = EurekaLayer::new(&world.eureka()).options(plain().retry(retry)).layer(reader);
    let request = Request::put("http://orders/").body(two_frames()).unwrap();
    let response = client.oneshot(request).await.unwrap().into_body().collect().await.unwrap().to_bytes();
    assert_eq!(response, "onetwo");
}

/// A connection may still hold the body of an attempt when the attempt has failed.
#[tokio::test(start_paused = true)]
async fn lost_call_is_repeated_once_the_connection_returns_its_body() {
    for hold in [None, Some(Duration::from_millis(1))] {
        let world = World::new([Behaviour::Responds(200); 2]);
        let attempts = Arc::new(AtomicUsize::new(0));
        let below = service_fn(move |request: Request<AttemptBody<_>>| {
            let is_first = attempts.fetch_add(1, Ordering::Relaxed) == 0;
            async move {
                let mut body = request.into_body();
                let first = body.frame().await.unwrap()?.into_data().unwrap();
                if is_first {
                    tokio::spawn(async move {
                        match hold {
                            Some(time) => sleep(time).await,
                            None => tokio::task::yield_now().await,
                        }
                        drop(body);
                    });
                    return Err(BoxError::from(io::Error::from(io::ErrorKind::BrokenPipe)));
                }
                let rest = body.collect().await?.to_bytes();
                Ok(Response::new(Full::<Bytes>::from([first, rest].concat())))
            }
        });
        let client = EurekaLayer::new(&world.eureka()).options(plain()).layer(below);
        let request = Request::put("http://orders/").body(two_frames()).unwrap();
        let response = client.oneshot(request).await.unwrap().into_body().collect().await.unwrap().to_bytes();
        assert_eq!(response, "onetwo");
    }
}

#[tokio::test(start_paused = true)]
async fn response_is_returned_unless_the_policy_selects_its_status() {
    let world = World::new([Behaviour::Responds(503), Behaviour::Responds(503), Behaviour::Responds(200)]);
    let call = world.client(plain().retry(RetryPolicy::new().statuses([502, 503, 504])));
    for _ in 0..20 {
        assert_eq!(call(get()).await.unwrap().0, StatusCode::OK);
    }
    let world = World::new([Behaviour::Responds(503); 2]);
    let call = world.client(plain());
    assert_eq!(call(get()).await.unwrap().0, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(world.received().len(), 1);
    // Without a better response, the last one is returned.
    let call = world.client(plain().retry(RetryPolicy::new().statuses([503])));
    assert_eq!(call(get()).await.unwrap().0, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(world.received().len(), 1 + 3);
}

#[tokio::test(start_paused = true)]
async fn failed_responses_are_repeated_as_the_classifier_decides() {
    struct NotFoundIsFailing;
    impl ClassifyHttp for NotFoundIsFailing {
        fn head(&self, status: StatusCode, _: &HeaderMap) -> Outcome {
            if status == 404 { Outcome::Failure { retry_after: None } } else { Outcome::Success }
        }
    }
    let retry = || plain().retry(RetryPolicy::new().failed_responses());
    for (options, status, attempts) in [
        (retry(), 404, 1),
        (retry(), 500, 3),
        (retry(), 429, 3),
        (retry().classifier(NotFoundIsFailing), 404, 3),
        (retry().classifier(NotFoundIsFailing), 500, 1),
        (plain().classifier(NotFoundIsFailing), 404, 1),
    ] {
        let world = World::new([Behaviour::Responds(status); 3]);
        assert_eq!(world.client(options)(get()).await.unwrap().0, status);
        assert_eq!(world.received().len(), attempts, "{status}");
    }
}

/// Error of a user's service.
#[derive(Clone, Copy, Debug, PartialEq)]
enum UserError {
    /// Nothing was sent.
    PoolIsFull,
    /// The service refuses to send the request.
    TooLarge,
    Lost,
}

impl std::fmt::Display for UserError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{self:?}")
    }
}

impl std::error::Error for UserError {}

struct KnowsUserError;

impl ClassifyHttp for KnowsUserError {
    fn head(&self, status: StatusCode, headers: &HeaderMap) -> Outcome {
        DefaultClassifier.head(status, headers)
    }

    fn error(&self, error: &(dyn std::error::Error + 'static)) -> Outcome {
        match error.downcast_ref() {
            Some(UserError::PoolIsFull) => Outcome::Unreachable,
            Some(UserError::TooLarge) => Outcome::Cancelled,
            _ => DefaultClassifier.error(error),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn errors_of_the_service_below_are_classified_by_the_classifier() {
    let world = World::new([Behaviour::Responds(200); 3]);
    let options = plain().retry(RetryPolicy::new().attempts(2)).ejection(Ejection::new().consecutive_failures(1));
    for (error, classified, method, attempts, ejected) in [
        (UserError::PoolIsFull, true, Method::POST, 3, 3),
        (UserError::PoolIsFull, false, Method::POST, 1, 1),
        (UserError::TooLarge, true, Method::GET, 1, 0),
        (UserError::TooLarge, false, Method::GET, 2, 1),
        (UserError::Lost, true, Method::GET, 2, 1),
    ] {
        let count = Arc::new(AtomicUsize::new(0));
        let counted = count.clone();
        let below = service_fn(move |_: Request<AttemptBody<Full<Bytes>>>| {
            counted.fetch_add(1, Ordering::Relaxed);
            async move { Err::<Response<Full<Bytes>>, _>(error) }
        });
        let options = if classified { options.clone().classifier(KnowsUserError) } else { options.clone() };
        let client = EurekaLayer::new(&world.eureka()).options(options).layer(below);
        let returned = client.clone().oneshot(request(method, "http://orders/", "")).await.unwrap_err();
        let case = format!("{error:?} {classified}: {returned}");
        assert_eq!(count.load(Ordering::Relaxed), attempts, "{case}");
        assert_eq!(std::error::Error::source(&returned).unwrap().downcast_ref(), Some(&error), "{case}");
        assert_eq!(returned.is_connect(), classified && error == UserError::PoolIsFull, "{case}");
        assert_eq!(returned.is_unavailable(), !classified || error != UserError::TooLarge, "{case}");
        let snapshots = client.snapshots();
        assert_eq!(snapshots[0].count(EndpointState::Ejected), ejected, "{case} {}", snapshots[0]);
    }
}

#[tokio::test(start_paused = true)]
async fn attempts_and_calls_end_at_their_time_limits() {
    let world = World::new([Behaviour::Hangs, Behaviour::Hangs, Behaviour::RespondsLate(300)]);
    let call = world.client(plain().retry(RetryPolicy::new().attempt_timeout(Duration::from_millis(500))));
    for _ in 0..10 {
        assert_eq!(call(get()).await.unwrap().1, "h3");
    }

    let world = World::new([Behaviour::Hangs; 3]);
    let call = world.client(plain().deadline_header("x-timeout-ms".parse().unwrap()));
    let mut within = get();
    within.extensions_mut().insert(Deadline::within(Duration::from_millis(800)));
    let start = Instant::now();
    let error = call(within).await.unwrap_err();
    assert!(error.is_timeout(), "{error}");
    assert!(error.to_string().contains("ORDERS"), "{error}");
    assert_elapsed(start, 800);
    assert_eq!(world.received().last().unwrap().timeout.as_deref(), Some("800"));
    let mut with_header = get();
    with_header.headers_mut().insert("x-timeout-ms", "200".parse().unwrap());
    assert!(call(with_header).await.unwrap_err().is_timeout());
    assert_elapsed(start, 800 + 200);

    let call = world.client(plain().timeout(Duration::from_secs(3)));
    let start = Instant::now();
    assert!(call(get()).await.unwrap_err().is_timeout());
    assert_elapsed(start, 3_000);
}

#[tokio::test(start_paused = true)]
async fn wait_for_the_service_below_ejects_no_instance() {
    let world = World::new([Behaviour::RespondsLate(400); 2]);
    let serving = world.clone();
    // One call at a time, for all instances together.
    let below = ConcurrencyLimit::new(service_fn(move |request| serving.clone().respond(request)), 1);
    let options = plain().timeout(Duration::from_millis(1_650));
    let client = EurekaLayer::new(&world.eureka()).options(options).layer(below);
    let calls: tokio::task::JoinSet<_> = (0..20).map(|_| client.clone().oneshot(get())).collect();
    let results = calls.join_all().await;
    assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 4);
    assert!(results.iter().flat_map(|result| result.as_ref().err()).all(Error::is_timeout));
    drop(results);
    let snapshot = client.snapshots().remove(0);
    for endpoint in snapshot.endpoints() {
        assert_eq!((endpoint.state(), endpoint.pending()), (EndpointState::Available, 0), "{snapshot}");
        assert!(endpoint.failures() == 0 && endpoint.latency() < Duration::from_millis(410), "{snapshot}");
    }
}

#[tokio::test(start_paused = true)]
async fn hedge_after_a_slow_attempt_returns_the_first_response() {
    let world = World::new([Behaviour::RespondsLate(10_000), Behaviour::RespondsLate(5), Behaviour::RespondsLate(5)]);
    let policy = RetryPolicy::new().hedge_after(Duration::from_millis(50)).budget(1.0, 100, Duration::from_secs(10));
    let call = world.client(plain().retry(policy.clone()));
    let start = Instant::now();
    for _ in 0..20 {
        assert_ne!(call(get()).await.unwrap().1, "h1");
        // A hedge sends the complete body.
        assert_ne!(call(request(Method::PUT, "http://orders/", "hello")).await.unwrap().1, "h1");
    }
    assert!(start.elapsed() < Duration::from_secs(3), "{:?}", start.elapsed());
    assert!(world.received().iter().all(|received| received.method != Method::PUT || received.body == "hello"));

    let slow = World::new([Behaviour::RespondsLate(200); 3]);
    let call = slow.client(plain().retry(policy));
    call(request(Method::POST, "http://orders/", "once")).await.unwrap();
    assert_eq!(slow.received().len(), 1, "no hedge for a method that is not idempotent");
}

#[tokio::test(start_paused = true)]
async fn pass_through_hosts_are_called_without_discovery() {
    let world = World::new([Behaviour::Responds(200)]);
    let call = world.client(plain().pass_through(|host| host.contains('.')));
    assert_eq!(call(request(Method::GET, "https://www.example.org:8443/x?y", "")).await.unwrap().0, 203);
    assert_eq!(world.received()[0].uri, "https://www.example.org:8443/x?y");
    assert_eq!(call(get()).await.unwrap().1, "h1");
    let call = world.client(plain());
    let error = call(request(Method::GET, "http://www.example.org/", "")).await.unwrap_err();
    assert!(error.is_no_endpoints(), "{error}");
}

#[tokio::test(start_paused = true)]
async fn host_header_is_that_of_the_instance_unless_original() {
    let world = World::new([Behaviour::Responds(200)]);
    let with_host = || {
        let mut request = get();
        request.headers_mut().insert("host", "shop.example.org".parse().unwrap());
        request
    };
    world.client(plain())(with_host()).await.unwrap();
    let original = world.client(plain().host_header(HostHeader::Original));
    original(with_host()).await.unwrap();
    original(get()).await.unwrap();
    let hosts: Vec<_> = world.received().into_iter().map(|received| received.host).collect();
    assert_eq!(hosts, [None, Some("shop.example.org".into()), Some("orders".into())]);
}

#[tokio::test(start_paused = true)]
async fn name_without_an_instance_fails_after_the_ready_timeout_and_then_at_once() {
    let world = World::new([Behaviour::Responds(200)]);
    let call = world.client(plain());
    let start = Instant::now();
    for waited in [3, 3, 3] {
        let error = call(request(Method::GET, "http://nobody/", "")).await.unwrap_err();
        assert!(error.is_no_endpoints() && error.to_string().contains("NOBODY"), "{error}");
        assert_eq!(start.elapsed().as_secs(), waited);
    }
    let mut waiting = request(Method::GET, "http://nobody/", "");
    waiting.extensions_mut().insert(WaitForReady(Duration::from_secs(7)));
    assert!(call(waiting).await.unwrap_err().is_no_endpoints());
    assert_eq!(start.elapsed().as_secs(), 10);
    let mut with_deadline = request(Method::GET, "http://nobody-else/", "");
    with_deadline.extensions_mut().insert(Deadline::within(Duration::from_millis(300)));
    let error = call(with_deadline).await.unwrap_err();
    assert!(error.is_timeout() && error.to_string().contains("no instance came before the deadline"), "{error}");
    assert_elapsed(start, 10_300);
}

#[tokio::test(start_paused = true)]
async fn call_that_waits_for_ready_waits_for_a_reachable_instance() {
    let world = World::new([Behaviour::Refuses; 2]);
    let call = world.client(plain());
    let start = Instant::now();
    assert!(call(get()).await.unwrap_err().is_connect());
    assert_elapsed(start, 0);

    let call = world.client(plain().wait_for_ready(Duration::from_secs(5)));
    let start = Instant::now();
    assert!(call(get()).await.unwrap_err().is_connect());
    assert_eq!(start.elapsed().as_secs(), 5);

    let back = World::new([Behaviour::RefusesUntil(4)]);
    let call = back.client(plain().wait_for_ready(Duration::from_secs(20)));
    let posted = call(request(Method::POST, "http://orders/", "hello"));
    assert_eq!(posted.await.unwrap().1, "h1");
    assert_eq!(back.received().len(), 1);
}
