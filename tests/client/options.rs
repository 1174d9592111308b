//! Options of calls by name: by application, and changed while calls are made.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use tokio::time::{Instant, sleep};
use tower::util::BoxCloneSyncService;
use tower::{Layer, ServiceExt, service_fn};
use tower_eureka::balance::{Ejection, EndpointState, RendezvousHash, WeightedRoundRobin, ZoneAware, ZoneRule};
use tower_eureka::client::{
    AttemptBody, Backoff, CallOptions, EurekaLayer, EurekaService, InstanceScheme, Ports, RetryPolicy, UnknownName,
};
use tower_eureka::discover::Selection;
use tower_eureka::model::InstanceStatus;
use tower_eureka::{Error, Eureka, Instance};

use crate::common::{Memory, Reply, Scripted, with_status};

const SECOND: Duration = Duration::from_secs(1);

type Below = BoxCloneSyncService<Request<AttemptBody<Full<Bytes>>>, Response<Full<Bytes>>, Infallible>;
type Call = std::pin::Pin<Box<dyn Future<Output = Result<Response<Full<Bytes>>, Infallible>> + Send>>;

/// Registry, and a service below that responds with the host of each instance.
#[derive(Clone, Default)]
struct World {
    memory: Memory,
    /// Times and URIs of the requests that instances received.
    received: Arc<Mutex<Vec<(Instant, String)>>>,
    /// Status of each host. Defaults to 200.
    statuses: Arc<Mutex<BTreeMap<String, u16>>>,
    /// Milliseconds until a response.
    delay: Arc<AtomicU16>,
}

impl World {
    fn with(instances: impl IntoIterator<Item = Instance>) -> Self {
        Self { memory: Memory::of(instances), ..Self::default() }
    }

    fn eureka(&self) -> Eureka {
        self.memory.serve().client().build().unwrap()
    }

    fn respond(&self, request: &Request<AttemptBody<Full<Bytes>>>) -> Call {
        let host = request.uri().host().unwrap().to_owned();
        self.received.lock().unwrap().push((Instant::now(), request.uri().to_string()));
        let status = self.statuses.lock().unwrap().get(&host).copied().unwrap_or(200);
        let delay = Duration::from_millis(self.delay.load(Ordering::Relaxed).into());
        Box::pin(async move {
            sleep(delay).await;
            Ok(Response::builder().status(status).body(Full::from(host)).unwrap())
        })
    }

    fn below(&self) -> Below {
        let world = self.clone();
        Below::new(service_fn(move |request| world.respond(&request)))
    }

    fn service(&self, options: CallOptions) -> EurekaService<Below> {
        EurekaLayer::new(&self.eureka()).options(options.ports(Ports::Plain)).layer(self.below())
    }

    fn hosts(&self) -> Vec<String> {
        let host =
            |uri: &str| uri.split(['/', ':']).find(|part| part.starts_with('h') && *part != "http").map(str::to_owned);
        self.received.lock().unwrap().iter().filter_map(|(_, uri)| host(uri)).collect()
    }

    /// Returns the milliseconds between the requests that instances received.
    fn gaps(&self) -> Vec<u128> {
        let received = self.received.lock().unwrap();
        received.windows(2).map(|pair| (pair[1].0 - pair[0].0).as_millis()).collect()
    }
}

/// Instance `app-number` at the host `hN`.
fn numbered(app: &str, number: u8, metadata: &[(&str, &str)]) -> Instance {
    let builder = Instance::builder(app).id(format!("{app}-{number}")).host_name(format!("h{number}")).port(1);
    let builder = builder.ip_addr("10.0.0.1");
    metadata.iter().fold(builder, |builder, (key, value)| builder.metadata(*key, *value)).build().unwrap()
}

async fn call(service: &EurekaService<Below>, uri: &str) -> Result<(StatusCode, String), Error> {
    let request = Request::get(uri).body(Full::default()).unwrap();
    let response = service.clone().oneshot(request).await?;
    let status = response.status();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    Ok((status, String::from_utf8(body.to_vec()).unwrap()))
}

#[tokio::test(start_paused = true)]
async fn options_of_an_application_hold_for_it_alone() {
    let world = World::with([numbered("orders", 1, &[]), numbered("reports", 2, &[])]);
    world.delay.store(1_500, Ordering::Relaxed);
    let options = CallOptions::new().application("reports", |options| options.timeout(2 * SECOND)).timeout(SECOND);
    let service = world.service(options);
    assert!(call(&service, "http://orders/").await.unwrap_err().is_timeout());
    for name in ["reports", "Reports:8080", "REPORTS"] {
        assert_eq!(call(&service, &format!("http://{name}/")).await.unwrap().1, "h2", "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn changed_options_keep_endpoints_and_their_measurements() {
    let world = World::with([1, 2].map(|number| numbered("orders", number, &[])));
    world.statuses.lock().unwrap().insert("h2".into(), 500);
    let ejection = Ejection::new().consecutive_failures(3);
    let service = world.service(CallOptions::new().policy(WeightedRoundRobin).ejection(ejection));
    for _ in 0..10 {
        call(&service, "http://orders/").await.unwrap();
        sleep(SECOND / 10).await;
    }
    let before = service.snapshots()[0].clone();
    service.update_options(|options| {
        options
            .timeout(SECOND)
            .policy(RendezvousHash::by_header("x-user"))
            .application("orders", |options| options.wait_for_ready(3 * SECOND))
    });
    let after = service.snapshots()[0].clone();
    assert_eq!([&before, &after].map(|orders| orders.count(EndpointState::Ejected)), [1, 1], "{after}");
    let failures = |snapshot: &tower_eureka::balance::Snapshot| -> Vec<_> {
        snapshot.endpoints().iter().map(|endpoint| (endpoint.id().to_owned(), endpoint.failures())).collect()
    };
    assert_eq!(failures(&before), failures(&after));
    world.delay.store(1_500, Ordering::Relaxed);
    assert!(call(&service, "http://orders/").await.unwrap_err().is_timeout(), "the new timeout counts");
    service.set_options(CallOptions::new().ports(Ports::Plain));
    assert_eq!(call(&service, "http://orders/").await.unwrap().1, "h1", "there is no timeout any more");
}

#[tokio::test(start_paused = true)]
async fn call_in_flight_keeps_the_options_that_it_began_with() {
    let world = World::with([numbered("orders", 1, &[])]);
    let service = world.service(CallOptions::new().timeout(2 * SECOND));
    call(&service, "http://orders/").await.unwrap();
    world.delay.store(1_500, Ordering::Relaxed);
    let pending = tokio::spawn({
        let service = service.clone();
        async move { call(&service, "http://orders/").await }
    });
    sleep(SECOND / 10).await;
    service.update_options(|options| options.timeout(SECOND));
    assert_eq!(pending.await.unwrap().unwrap().1, "h1");
    assert!(call(&service, "http://orders/").await.unwrap_err().is_timeout());
}

#[tokio::test(start_paused = true)]
async fn changed_selection_adds_and_removes_endpoints() {
    let old = numbered("orders", 1, &[("colour", "blue")]);
    let new = numbered("orders", 2, &[("colour", "green")]);
    let world = World::with([old, new]);
    let service = world.service(CallOptions::new());
    let ids = || -> Vec<String> {
        service.snapshots()[0].endpoints().iter().map(|endpoint| endpoint.id().to_owned()).collect()
    };
    call(&service, "http://orders/").await.unwrap();
    assert_eq!(ids(), ["orders-1", "orders-2"]);
    let of_colour = |colour: &'static str| {
        move |options: CallOptions| {
            options.selection(move |name| {
                Selection::name(name).filter(move |instance| instance.metadata().get("colour") == Some(colour))
            })
        }
    };
    for (colour, expected) in [("green", "orders-2"), ("blue", "orders-1")] {
        service
            .update_options(|options| options.without_application("orders").application("orders", of_colour(colour)));
        sleep(SECOND / 100).await;
        assert_eq!(ids(), [expected]);
    }
    // A selection that can never match is the error of the next call.
    service.update_options(|options| options.selection(|name| Selection::name(name).statuses([])));
    let service_options = |options: CallOptions| options.without_application("orders");
    service.update_options(service_options);
    let error = call(&service, "http://orders/").await.unwrap_err();
    assert!(error.is_config() && error.to_string().contains("no status is accepted"), "{error}");
    service.update_options(|options| options.selection(|name| Selection::app(name)));
    assert!(call(&service, "http://orders/").await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn changed_scheme_and_ports_move_endpoints_to_another_address() {
    let world = World::with([numbered("orders", 1, &[("admin", "9000")])]);
    let service = world.service(CallOptions::new());
    call(&service, "http://orders/x").await.unwrap();
    service.update_options(|options| options.port_key("admin").scheme(InstanceScheme::Https));
    sleep(SECOND / 100).await;
    call(&service, "http://orders/x").await.unwrap();
    let uris: Vec<_> = world.received.lock().unwrap().iter().map(|(_, uri)| uri.clone()).collect();
    assert_eq!(uris, ["http://h1:1/x", "https://h1:9000/x"]);
}

#[tokio::test(start_paused = true)]
async fn first_vip_address_of_a_list_with_an_instance_counts_unless_merged() {
    let named = |number, vip: &str| {
        let builder = Instance::builder("payments").id(format!("p{number}")).host_name(format!("h{number}"));
        builder.ip_addr("10.0.0.1").port(1).vip_address(vip).build().unwrap()
    };
    let (newer, older) = (named(1, "payments-v2"), named(2, "payments-v1"));
    let world = World::with([newer.clone(), older]);
    let eureka = world.eureka();
    eureka.snapshot();
    sleep(SECOND).await;
    let ids = |selection: &Selection| -> Vec<String> {
        selection.instances(&eureka.snapshot()).iter().map(|instance| instance.id().to_owned()).collect()
    };
    let list = Selection::vip("payments-v2, payments-v1");
    assert_eq!(ids(&list), ["p1"]);
    assert_eq!(ids(&list.clone().merged()), ["p1", "p2"]);
    assert_eq!(ids(&Selection::vip("nobody,payments-v1")), ["p2"]);
    assert!(ids(&Selection::secure_vip("a,b")).is_empty());
    let service = EurekaLayer::new(&eureka)
        .options(
            CallOptions::new()
                .ports(Ports::Plain)
                .application("payments", |options| options.selection(|_| Selection::vip("payments-v2,payments-v1"))),
        )
        .layer(world.below());
    assert_eq!(call(&service, "http://payments/").await.unwrap().1, "h1");
    assert_eq!(service.snapshots()[0].endpoints()[0].id(), "p1", "ids of the called application have no prefix");
    world.memory.put(with_status(&newer, InstanceStatus::Down));
    sleep(60 * SECOND).await;
    assert_eq!(call(&service, "http://payments/").await.unwrap().1, "h2");
}

#[tokio::test(start_paused = true)]
async fn unknown_name_fails_at_once_once_the_registry_is_loaded() {
    let known = numbered("orders", 1, &[]);
    let memory = Memory::of([with_status(&known, InstanceStatus::Down)]);
    let start = Instant::now();
    let registry = {
        let memory = memory.clone();
        // The first fetch takes a second.
        Scripted::new(move |asked| match (asked.at, memory.full()) {
            (at, Reply::Json(json)) if at.is_zero() => Reply::Later(SECOND, json),
            (_, reply) => reply,
        })
    };
    let world = World { memory, ..World::default() };
    let service = EurekaLayer::new(&registry.client().build().unwrap())
        .options(CallOptions::new().ports(Ports::Plain).unknown_name(UnknownName::Fail))
        .layer(world.below());
    let error = call(&service, "http://nobody/").await.unwrap_err();
    assert!(error.is_no_endpoints() && error.to_string().contains("NOBODY"), "{error}");
    assert!((1_000..1_200).contains(&start.elapsed().as_millis()), "{:?}: it waits for the registry", start.elapsed());
    let loaded = Instant::now();
    assert!(call(&service, "http://nobody-else/").await.unwrap_err().is_no_endpoints());
    assert_eq!(loaded.elapsed(), Duration::ZERO);
    assert!(call(&service, "http://orders/").await.unwrap_err().is_no_endpoints());
    assert_eq!(loaded.elapsed().as_secs(), 3, "a known application may come up");
}

#[tokio::test(start_paused = true)]
async fn hint_of_an_application_prefers_instances_with_it() {
    let world = World::with([
        numbered("orders", 1, &[("hint", "blue")]),
        numbered("orders", 2, &[("hint", "green")]),
        numbered("reviews", 3, &[]),
    ]);
    let options = CallOptions::new().hint("blue").application("orders", |options| options.hint("green"));
    let service = world.service(options);
    for _ in 0..10 {
        assert_eq!(call(&service, "http://orders/").await.unwrap().1, "h2");
    }
    assert_eq!(call(&service, "http://reviews/").await.unwrap().1, "h3", "no instance has the hint");
    let request = Request::get("http://orders/").header("x-sc-lb-hint", "blue").body(Full::default()).unwrap();
    let response = service.clone().oneshot(request).await.unwrap();
    assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "h1");
}

#[tokio::test(start_paused = true)]
async fn retries_of_responses_pause_as_long_as_the_deadline_allows() {
    let world = World::with([1, 2, 3].map(|number| numbered("orders", number, &[])));
    world.statuses.lock().unwrap().extend([1, 2, 3].map(|number| (format!("h{number}"), 503)));
    let pauses = Backoff::new(Duration::from_millis(100), SECOND).jitter(0.0);
    let retry = RetryPolicy::new().statuses([503]).backoff(pauses);
    let service = world.service(CallOptions::new().retry(retry));
    assert_eq!(call(&service, "http://orders/").await.unwrap().0, 503);
    let near = |gaps: Vec<u128>, expected: &[u128]| {
        gaps.len() == expected.len()
            && gaps.iter().zip(expected).all(|(gap, wanted)| (*wanted..wanted + 5).contains(gap))
    };
    assert!(near(world.gaps(), &[100, 200]), "{:?}", world.gaps());
    assert_eq!(world.hosts().iter().collect::<std::collections::BTreeSet<_>>().len(), 3);
    // The second pause would last beyond the deadline.
    world.received.lock().unwrap().clear();
    service.update_options(|options| options.timeout(Duration::from_millis(250)));
    let start = Instant::now();
    assert_eq!(call(&service, "http://orders/").await.unwrap().0, 503);
    assert!(near(world.gaps(), &[100]), "{:?}", world.gaps());
    assert!(start.elapsed() < Duration::from_millis(120), "{:?}", start.elapsed());
}

#[tokio::test(start_paused = true)]
async fn two_instances_per_zone_keep_calls_in_the_zone_of_the_caller() {
    let zoned = |number, zone| numbered("orders", number, &[("zone", zone)]);
    let world = World::with([zoned(1, "a"), zoned(2, "a"), zoned(3, "b"), zoned(4, "b")]);
    let caller = Instance::builder("shop").ip_addr("10.0.0.9").port(1).metadata("zone", "b").build().unwrap();
    let service = world.service(CallOptions::new().zone_aware(ZoneAware::default()).caller(&caller));
    for _ in 0..50 {
        call(&service, "http://orders/").await.unwrap();
    }
    assert!(world.hosts().iter().all(|host| host == "h3" || host == "h4"), "{:?}", world.hosts());
    let snapshot = service.snapshots()[0].clone();
    assert_eq!((snapshot.zone_rule(), snapshot.own_zone()), (ZoneRule::OwnZone, Some("b")));
    service.update_options(|options| options.zone_aware(ZoneAware::new("a").min_endpoints(6)));
    let snapshot = service.snapshots()[0].clone();
    assert_eq!(snapshot.zone_rule(), ZoneRule::TooFewEndpoints { min: 6 });
    service.set_options(CallOptions::new().ports(Ports::Plain));
    assert_eq!(service.snapshots()[0].zone_rule(), ZoneRule::Off);
}
