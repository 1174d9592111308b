//! Servers of several regions that show each other's instances, over a network in memory under
//! paused time.

mod java;

use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::BodyExt;
use serde_json::json;
use tower::{Service, ServiceExt};
use tower_eureka::Eureka;
use tower_eureka::model::{Applications, StatusCounts};
use tower_eureka::transport::RequestBody;

use crate::network::{Link, Network, Node, SECOND, Setup};

/// Time within which each region was fetched again.
const LOOK: Duration = Duration::from_secs(35);
const HOUR: Duration = Duration::from_secs(3600);

/// Starts the only server of a region, which shows these others.
fn region(network: &Network, name: &str, others: &[&str]) -> Node {
    region_with(network, name, others, |setup| setup)
}

fn region_with(network: &Network, name: &str, others: &[&str], configure: impl FnOnce(Setup) -> Setup) -> Node {
    network.node_with(name, &[], |setup| configure(knowing(setup, others)))
}

fn knowing(setup: Setup, others: &[&str]) -> Setup {
    let url = |name: &str| format!("http://{}:8761/eureka/", name.to_lowercase());
    others.iter().fold(setup, |setup, name| setup.regions(|regions| regions.region(name, url(name))))
}

async fn register(node: &Node, app: &str, id: &str) {
    let document = json!({ "instance": {
        "instanceId": id, "hostName": node.name, "app": app, "ipAddr": "10.0.0.1", "status": "UP",
        "vipAddress": app.to_lowercase(), "secureVipAddress": "safe", "metadata": { "place": node.name },
        "dataCenterInfo": { "@class": "com.netflix.appinfo.InstanceInfo$DefaultDataCenterInfo", "name": "MyOwn" },
    }});
    assert_eq!(node.send("POST", &format!("apps/{app}"), document.to_string()).await, StatusCode::NO_CONTENT);
}

async fn cancel(node: &Node, app: &str, id: &str) {
    assert_eq!(node.empty("DELETE", &format!("apps/{app}/{id}")).await, StatusCode::OK);
}

async fn get_as(node: &Node, path: &str, headers: &[(&str, &str)]) -> (StatusCode, HeaderMap, Vec<u8>) {
    let mut request = Request::get(format!("/eureka/{path}")).header("accept", "application/json");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let response = node.router.clone().oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
    let (parts, body) = response.into_parts();
    (parts.status, parts.headers, body.collect().await.unwrap().to_bytes().into())
}

async fn get(node: &Node, path: &str) -> Applications {
    let (status, _, body) = get_as(node, path, &[]).await;
    assert_eq!(status, StatusCode::OK, "GET {path} at {}", node.name);
    Applications::from_json(&body).unwrap()
}

/// Returns the sorted lines `id STATUS place`.
fn lines(list: &Applications) -> Vec<String> {
    let instances = list.applications.iter().flat_map(|app| &app.instances);
    let place = |i: &tower_eureka::Instance| i.metadata().get("place").unwrap_or("?").to_owned();
    let mut lines: Vec<_> = instances.map(|i| format!("{} {} {}", i.id(), i.status(), place(i))).collect();
    lines.sort();
    lines
}

/// Returns the sorted ids of a list, and asserts its hash.
async fn ids(node: &Node, path: &str) -> Vec<String> {
    let list = get(node, path).await;
    assert_eq!(list.hash.as_deref(), Some(&*list.counts().to_string()), "GET {path} at {}", node.name);
    lines(&list).iter().map(|line| line.split(' ').next().unwrap().to_owned()).collect()
}

/// Starts three regions with an application in two of them, one in one of them, and one in all.
async fn three_regions(configure: impl FnOnce(Setup) -> Setup) -> (Network, [Node; 3]) {
    let network = Network::default();
    let (east, west) = (region(&network, "east", &[]), region(&network, "west", &[]));
    register(&east, "ORDERS", "e1").await;
    register(&east, "BILLING", "e2").await;
    register(&west, "ORDERS", "w1").await;
    register(&west, "WEATHER", "w2").await;
    let home = region_with(&network, "home", &["west", "East"], configure);
    register(&home, "ORDERS", "h1").await;
    tokio::time::sleep(SECOND).await;
    (network, [home, east, west])
}

#[tokio::test(start_paused = true)]
async fn lists_show_the_named_regions_or_all() {
    let (_network, [home, east, _]) = three_regions(|setup| setup).await;
    for (regions, expected) in [
        ("", vec!["e1", "e2", "h1", "w1", "w2"]),
        ("?regions=", vec!["e1", "e2", "h1", "w1", "w2"]),
        ("?regions=east", vec!["e1", "e2", "h1"]),
        ("?regions=EAST,nowhere", vec!["e1", "e2", "h1"]),
        ("?regions=west", vec!["h1", "w1", "w2"]),
        ("?regions=west%2Ceast", vec!["e1", "e2", "h1", "w1", "w2"]),
        ("?regions=nowhere", vec!["h1"]),
    ] {
        assert_eq!(ids(&home, &format!("apps{regions}")).await, expected, "{regions}");
        // All changes are recent, so the delta shows all instances.
        let (full, delta) =
            (get(&home, &format!("apps{regions}")).await, get(&home, &format!("apps/delta{regions}")).await);
        assert_eq!((lines(&full), &full.hash), (lines(&delta), &delta.hash), "{regions}");
        for list in ["apps", "apps/delta"] {
            let (_, headers, _) = get_as(&home, &format!("{list}{regions}"), &[]).await;
            assert_eq!(headers["eureka-digest"], crate::digest::digest(&full), "{list}{regions}");
        }
    }
    assert_eq!(ids(&home, "vips/orders").await, ["e1", "h1", "w1"]);
    assert_eq!(ids(&home, "vips/weather?regions=east").await, ["w2"], "VIPs don't ask for regions");
    assert_eq!(ids(&home, "svips/safe").await.len(), 5);

    let tag = |headers: &HeaderMap| headers["etag"].to_str().unwrap().to_owned();
    let (_, headers, _) = get_as(&home, "apps?regions=east,west", &[]).await;
    let first = tag(&headers);
    assert!(headers["vary"].to_str().unwrap().contains("discoveryidentity-name"));
    let (status, headers, _) = get_as(&home, "apps?regions=west,east", &[("if-none-match", &first)]).await;
    assert_eq!((status, tag(&headers)), (StatusCode::NOT_MODIFIED, first.clone()), "the order does not matter");
    register(&east, "ORDERS", "e3").await;
    tokio::time::sleep(LOOK).await;
    let (status, headers, _) = get_as(&home, "apps?regions=west,east", &[("if-none-match", &first)]).await;
    assert!(status == StatusCode::OK && tag(&headers) != first);
    assert_eq!(ids(&home, "vips/orders").await, ["e1", "e3", "h1", "w1"]);
    assert_eq!(lines(&get(&home, "apps/delta?regions=east").await)[2], "e3 UP east");
}

#[tokio::test(start_paused = true)]
async fn router_and_service_show_the_same_regions() {
    let (_network, [home, ..]) = three_regions(|setup| setup).await;
    for path in ["apps", "apps?regions=east", "apps/delta", "apps/WEATHER", "apps/ORDERS", "apps/NOBODY"] {
        let (status, headers, body) = get_as(&home, path, &[]).await;
        for _ in 0..2 {
            let request = Request::get(format!("/eureka/{path}")).header("accept", "application/json");
            let service = home.server.service("/eureka");
            let short = service.oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
            assert_eq!((short.status(), short.headers().get("etag")), (status, headers.get("etag")), "{path}");
            assert_eq!(short.into_body().collect().await.unwrap().to_bytes(), body, "{path}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn application_is_searched_here_and_then_in_other_regions() {
    let (_network, [home, ..]) = three_regions(|setup| setup).await;
    let ids = async |path: &str| {
        let (status, _, body) = get_as(&home, path, &[]).await;
        let application = tower_eureka::model::Application::from_json(&body);
        let ids = application.map(|app| app.instances.iter().map(|i| i.id().to_owned()).collect::<Vec<_>>());
        (status.as_u16(), ids.unwrap_or_default())
    };
    assert_eq!(ids("apps/ORDERS").await, (200, vec!["h1".into()]));
    assert_eq!(ids("apps/weather").await, (200, vec!["w2".into()]));
    assert_eq!(ids("apps/NOBODY").await, (404, vec![]));
    cancel(&home, "ORDERS", "h1").await;
    assert_eq!(ids("apps/ORDERS").await, (200, vec!["e1".into()]), "the first region by name");
}

#[tokio::test(start_paused = true)]
async fn instance_of_another_region_is_found_and_cannot_be_changed() {
    let (_network, [home, ..]) = three_regions(|setup| setup.regions(|regions| regions.fallback(false))).await;
    for path in ["apps/ORDERS/h1", "apps/orders/w1", "apps/BILLING/e2", "instances/w2", "instances/h1"] {
        assert_eq!(home.empty("GET", path).await, StatusCode::OK, "{path}");
    }
    for path in ["apps/ORDERS/w2", "apps/NOBODY/e1", "instances/x"] {
        assert_eq!(home.empty("GET", path).await, StatusCode::NOT_FOUND, "{path}");
    }
    let before = home.server.applications();
    for (method, path) in [
        ("PUT", "apps/ORDERS/e1/status?value=DOWN"),
        ("DELETE", "apps/ORDERS/e1/status"),
        ("PUT", "apps/ORDERS/e1/metadata?a=b"),
    ] {
        let response = Request::builder().method(method).uri(format!("/eureka/{path}")).body(Body::empty()).unwrap();
        let response = home.router.clone().oneshot(response).await.unwrap();
        assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR, "{method} {path}");
        let text = response.into_body().collect().await.unwrap().to_bytes();
        assert_eq!(text, "the instance is registered in the region east", "{method} {path}");
        assert_eq!(home.empty(method, &path.replace("e1", "x")).await, StatusCode::NOT_FOUND);
    }
    assert_eq!(
        home.empty("PUT", "apps/ORDERS/e1").await,
        StatusCode::NOT_FOUND,
        "a heartbeat is for who has the lease"
    );
    assert_eq!(home.empty("DELETE", "apps/ORDERS/e1").await, StatusCode::NOT_FOUND);
    assert_eq!(home.server.applications(), before);
    assert!(home.server.instance("ORDERS", "e1").is_none());
}

#[tokio::test(start_paused = true)]
async fn white_list_applies_to_lists_only() {
    let (_network, [home, ..]) = three_regions(|setup| {
        setup.regions(|regions| regions.whitelist("EAST", "billing, nothing").whitelist("global", "Weather"))
    })
    .await;
    assert_eq!(ids(&home, "apps").await, ["e2", "h1", "w2"]);
    assert_eq!(ids(&home, "apps?regions=east").await, ["e2", "h1"]);
    assert_eq!(lines(&get(&home, "apps/delta").await).len(), 3);
    assert_eq!(ids(&home, "vips/orders").await, ["h1"]);
    assert_eq!(home.empty("GET", "apps/ORDERS/e1").await, StatusCode::OK, "by its name it is found");
    cancel(&home, "ORDERS", "h1").await;
    assert_eq!(home.empty("GET", "apps/ORDERS").await, StatusCode::OK);
}

#[tokio::test(start_paused = true)]
async fn disabled_fallback_shows_other_regions_only_to_requests_that_name_them() {
    let (_network, [home, ..]) = three_regions(|setup| setup.regions(|regions| regions.fallback(false))).await;
    assert_eq!(ids(&home, "apps").await, ["h1"]);
    assert_eq!(ids(&home, "apps?regions=west").await, ["h1", "w1", "w2"]);
    assert_eq!((ids(&home, "vips/orders").await, ids(&home, "vips/weather").await), (vec!["h1".into()], vec![]));
    assert_eq!(home.empty("GET", "apps/WEATHER").await, StatusCode::NOT_FOUND);
    assert_eq!(get(&home, "apps/delta").await.hash.as_deref(), Some("UP_1_"));
}

#[tokio::test(start_paused = true)]
async fn disabled_delta_is_disabled_for_other_regions() {
    let (_network, [home, ..]) = three_regions(|setup| setup.with(|builder| builder.delta(false))).await;
    assert_eq!(home.empty("GET", "apps/delta").await, StatusCode::FORBIDDEN);
    assert_eq!(home.empty("GET", "apps/delta?regions=east").await, StatusCode::FORBIDDEN);
}

#[tokio::test(start_paused = true)]
async fn read_only_cache_has_a_response_for_each_choice_of_regions() {
    let (_network, [home, ..]) = three_regions(|setup| setup.with(|builder| builder.read_only_cache(true))).await;
    let all = async || [ids(&home, "apps").await.len(), ids(&home, "apps?regions=east").await.len()];
    assert_eq!(all().await, [5, 3]);
    register(&home, "ORDERS", "h2").await;
    assert_eq!(all().await, [5, 3]);
    tokio::time::sleep(30 * SECOND).await;
    assert_eq!(all().await, [6, 4]);
}

#[tokio::test(start_paused = true)]
async fn region_that_starts_later_is_shown_after_its_first_fetch() {
    let network = Network::default();
    let home = region(&network, "home", &["east", "west"]);
    register(&home, "ORDERS", "h1").await;
    let west = region(&network, "west", &[]);
    register(&west, "WEATHER", "w2").await;
    tokio::time::sleep(SECOND * 5).await;
    assert_eq!(ids(&home, "apps").await, ["h1", "w2"], "one that is not there keeps nobody from the others");
    for names in ["east", "west", "nowhere"] {
        let path = format!("apps?regions={names}");
        assert_eq!(home.empty("GET", &path).await, StatusCode::FORBIDDEN, "{names}: there is one never fetched");
    }
    assert_eq!(home.empty("GET", "vips/weather?regions=east").await, StatusCode::OK);
    let east = region(&network, "east", &[]);
    register(&east, "ORDERS", "e1").await;
    tokio::time::sleep(LOOK).await;
    assert_eq!(ids(&home, "apps?regions=east").await, ["e1", "h1"]);
}

#[tokio::test(start_paused = true)]
async fn lists_wait_for_the_first_fetch_within_a_time_limit() {
    let network = Network::default();
    let (east, west) = (region(&network, "east", &[]), region(&network, "west", &[]));
    register(&east, "ORDERS", "e1").await;
    register(&west, "WEATHER", "w2").await;
    network.cut("home", "east");
    let home = region(&network, "home", &["east", "west"]);
    register(&home, "ORDERS", "h1").await;
    tokio::time::sleep(SECOND).await;
    assert!(!home.server.is_open());
    for path in ["apps", "apps/delta", "apps/ORDERS", "vips/orders"] {
        assert_eq!(home.empty("GET", path).await, StatusCode::FORBIDDEN, "{path}");
    }
    let (status, ..) = get_as(&home, "apps", &[("DiscoveryIdentity-Name", "DefaultServer")]).await;
    assert_eq!(status, StatusCode::OK, "what is registered here is there");
    assert_eq!(home.empty("GET", "apps/ORDERS/h1").await, StatusCode::OK);
    tokio::time::sleep(9 * SECOND).await;
    assert!(home.server.is_open());
    assert_eq!(ids(&home, "apps").await, ["h1", "w2"]);
}

#[tokio::test(start_paused = true)]
async fn list_without_other_regions_does_not_wait_for_them() {
    let network = Network::default();
    let _east = region(&network, "east", &[]);
    network.cut("home", "east");
    let home = region_with(&network, "home", &["east"], |setup| setup.regions(|regions| regions.fallback(false)));
    register(&home, "ORDERS", "h1").await;
    assert!(home.server.is_open());
    for path in ["apps", "apps/delta", "apps/ORDERS", "vips/orders"] {
        assert_eq!(home.empty("GET", path).await, StatusCode::OK, "{path}");
    }
    assert_eq!(home.empty("GET", "apps?regions=east").await, StatusCode::FORBIDDEN);
}

#[tokio::test(start_paused = true)]
async fn region_that_stops_responding_keeps_its_last_state() {
    let (network, [home, east, west]) = three_regions(|setup| setup).await;
    network.cut("home", "east");
    cancel(&east, "BILLING", "e2").await;
    for hour in 0..5 {
        tokio::time::sleep(HOUR).await;
        assert_eq!(ids(&home, "apps?regions=east").await, ["e1", "e2", "h1"], "hour {hour}");
    }
    let silent = get(&home, "apps/delta?regions=east").await;
    assert!(lines(&silent).is_empty(), "nothing happened lately");
    register(&west, "WEATHER", "w3").await;
    tokio::time::sleep(LOOK).await;
    assert_eq!(ids(&home, "apps?regions=west").await, ["h1", "w1", "w2", "w3"], "the others go on");
    network.heal();
    register(&east, "ORDERS", "e3").await;
    // The last fetch may still wait for its response.
    tokio::time::sleep(LOOK + 10 * SECOND).await;
    let seen = ids(&home, "apps?regions=east").await;
    assert_eq!(seen, ["e1", "e2", "e3", "h1"], "it does not say any more that one left, who may have been forgotten");
    tokio::time::sleep(Duration::from_secs(150)).await;
    assert_eq!(ids(&home, "apps?regions=east").await, ["e1", "e3", "h1"]);
}

#[tokio::test(start_paused = true)]
async fn deployment_in_a_region_during_an_outage_is_shown_after_it() {
    let (network, [home, east, _]) = three_regions(|setup| setup).await;
    network.cut("home", "east");
    register(&east, "ORDERS", "e3").await;
    register(&east, "BILLING", "e4").await;
    cancel(&east, "ORDERS", "e1").await;
    cancel(&east, "BILLING", "e2").await;
    tokio::time::sleep(HOUR).await;
    assert_eq!(ids(&home, "apps?regions=east").await, ["e1", "e2", "h1"]);
    network.heal();
    tokio::time::sleep(2 * LOOK).await;
    assert_eq!(ids(&home, "apps?regions=east").await, ["e3", "e4", "h1"]);
}

#[tokio::test(start_paused = true)]
async fn instance_that_left_disappears_in_regions_that_show_each_other() {
    let network = Network::default();
    let (a, b) = (region(&network, "a", &["b"]), region(&network, "b", &["a"]));
    register(&a, "ORDERS", "a1").await;
    register(&a, "ORDERS", "a2").await;
    register(&b, "ORDERS", "b1").await;
    tokio::time::sleep(LOOK).await;
    for node in [&a, &b] {
        assert_eq!(ids(node, "apps").await, ["a1", "a2", "b1"]);
        let (_, _, body) = get_as(node, "apps", &[("DiscoveryIdentity-Name", "DefaultServer")]).await;
        let own = lines(&Applications::from_json(&body).unwrap());
        assert!(own.iter().all(|line| line.ends_with(&*node.name)), "{own:?}");
    }
    cancel(&a, "ORDERS", "a1").await;
    tokio::time::sleep(LOOK).await;
    for _ in 0..10 {
        for node in [&a, &b] {
            assert_eq!(ids(node, "apps").await, ["a2", "b1"], "at {}", node.name);
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// Large registries are compared on a blocking thread.
#[tokio::test(start_paused = true)]
async fn large_region_is_copied() {
    let network = Network::default();
    let east = region(&network, "east", &[]);
    let numbers = 0..300;
    for number in numbers.clone() {
        register(&east, "ORDERS", &number.to_string()).await;
    }
    let home = region(&network, "home", &["east"]);
    tokio::time::sleep(SECOND).await;
    assert_eq!(ids(&home, "apps").await.len(), 300);
    // Longer than the retention time of the delta.
    tokio::time::sleep(Duration::from_secs(300)).await;
    cancel(&east, "ORDERS", "7").await;
    tokio::time::sleep(LOOK).await;
    assert_eq!(ids(&home, "apps").await.len(), 299, "a small delta");
    for number in numbers {
        assert_eq!(
            east.empty("PUT", &format!("apps/ORDERS/{number}/status?value=DOWN")).await.is_success(),
            number != 7
        );
    }
    tokio::time::sleep(LOOK).await;
    assert_eq!(get(&home, "apps").await.hash.as_deref(), Some("DOWN_299_"), "a large one");
}

#[tokio::test(start_paused = true)]
async fn peers_do_not_adopt_instances_of_other_regions() {
    let network = Network::default();
    let east = region(&network, "east", &[]);
    register(&east, "ORDERS", "e1").await;
    let all = ["home1", "home2", "home3"];
    let own =
        |setup: Setup| setup.node(|node| node.register(false)).peers(|peers| peers.wait_when_empty(Duration::ZERO));
    let home1 = network.node_with("home1", &all, |setup| knowing(own(setup), &["east"]));
    let home2 = network.node_with("home2", &all, own);
    register(&home1, "ORDERS", "h1").await;
    tokio::time::sleep(LOOK).await;
    let home3 = network.node_with("home3", &all, own);
    tokio::time::sleep(Duration::from_secs(300)).await;
    assert_eq!(ids(&home1, "apps").await, ["e1", "h1"]);
    for node in [&home1, &home2, &home3] {
        let registered = lines(&node.server.applications());
        assert_eq!(registered, ["h1 UP home1"], "at {}", node.name);
    }
    assert!(network.sent().iter().all(|line| line.ends_with(" h1")), "{:?}", network.sent());
}

/// HTTP service of a client that records its requests.
#[derive(Clone)]
struct Counted {
    link: Link,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Service<Request<RequestBody>> for Counted {
    type Response = Response<Body>;
    type Error = std::io::Error;
    type Future = Pin<Box<dyn Future<Output = std::io::Result<Response<Body>>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        self.link.poll_ready(cx)
    }

    fn call(&mut self, request: Request<RequestBody>) -> Self::Future {
        self.asked.lock().unwrap().push(request.uri().path().to_owned());
        self.link.call(request)
    }
}

/// Full list and delta agree: a client that applies deltas never needs the full list again.
#[tokio::test(start_paused = true)]
async fn client_that_applies_deltas_never_finds_another_hash() {
    let (network, nodes) = three_regions(|setup| setup.regions(|regions| regions.interval(3 * SECOND))).await;
    let asked = Arc::new(Mutex::new(Vec::new()));
    let service = Counted { link: network.link("client"), asked: asked.clone() };
    let client = Eureka::builder().service_url("http://home:8761/eureka").http_service(service);
    let client = client.fetch_interval(5 * SECOND).build().unwrap();
    client.snapshot();
    let seed = fastrand::u64(..);
    let mut rng = fastrand::Rng::with_seed(seed);
    for round in 0..60 {
        for _ in 0..rng.usize(..4) {
            let (node, app, id) = (&nodes[rng.usize(..3)], ["ORDERS", "BILLING"][rng.usize(..2)], rng.u8(..4));
            match rng.u8(..4) {
                0 => drop(node.empty("DELETE", &format!("apps/{app}/{id}")).await),
                1 => drop(node.empty("PUT", &format!("apps/{app}/{id}/status?value=DOWN")).await),
                _ => register(node, app, &id.to_string()).await,
            }
        }
        tokio::time::sleep(12 * SECOND).await;
        let snapshot = client.snapshot();
        let seen = Applications { applications: snapshot.applications().cloned().collect(), ..Applications::default() };
        assert_eq!(lines(&seen), lines(&get(&nodes[0], "apps").await), "round {round}, seed {seed}");
        let counts: StatusCounts = seen.counts();
        assert_eq!(get(&nodes[0], "apps/delta").await.hash.as_deref(), Some(&*counts.to_string()), "seed {seed}");
    }
    let asked = asked.lock().unwrap();
    let whole = asked.iter().filter(|path| path.ends_with("/apps/")).count();
    // The copy is verified every 5 to 15 minutes.
    assert!((1..=3).contains(&whole) && asked.len() > 100, "seed {seed}: {asked:?}");
}
