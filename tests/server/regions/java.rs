//! Java servers of other regions, and Java peers with regions: they show their copies beside their
//! own instances.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::response::IntoResponse;
use http::{Request, StatusCode};
use tower::ServiceExt;

use super::{LOOK, cancel, get, ids, knowing, lines, region, register};
use crate::network::{Network, SECOND, Setup};

/// A Java server refuses the parameter `regions` until it has fetched each of its regions.
#[tokio::test(start_paused = true)]
async fn java_server_that_refuses_the_parameter_is_requested_without_it() {
    let network = Network::default();
    let east = region(&network, "east", &[]);
    register(&east, "ORDERS", "e1").await;
    let refuses = Arc::new(AtomicBool::new(true));
    let (inner, refusing) = (east.router.clone(), refuses.clone());
    let java = Router::new().fallback(move |request: Request<Body>| {
        let names = request.uri().query() == Some("regions=none");
        let refused = names && refusing.load(Relaxed);
        assert!(refusing.load(Relaxed) || names, "what others know is asked for where nothing else can be had");
        let inner = inner.clone();
        async move {
            if refused { StatusCode::FORBIDDEN.into_response() } else { inner.oneshot(request).await.into_response() }
        }
    });
    network.host("east", java);
    let home = region(&network, "home", &["east"]);
    tokio::time::sleep(SECOND).await;
    assert_eq!(ids(&home, "apps").await, ["e1"]);
    cancel(&east, "ORDERS", "e1").await;
    register(&east, "ORDERS", "e2").await;
    refuses.store(false, Relaxed);
    tokio::time::sleep(LOOK).await;
    assert_eq!(ids(&home, "apps?regions=east").await, ["e2"]);
}

/// A Java server shows its copies to a request without `regions`, and its copies are up to an
/// interval old.
#[tokio::test(start_paused = true)]
async fn instance_that_a_java_server_copied_from_here_disappears_after_it_left() {
    let network = Network::default();
    let (home, java) = (region(&network, "home", &["java"]), region(&network, "java", &["home"]));
    let shown = java.router.clone();
    let refuses = Router::new().fallback(move |mut request: Request<Body>| {
        request.headers_mut().remove("discoveryidentity-name");
        let (refused, shown) = (request.uri().query().is_some(), shown.clone());
        async move {
            if refused { StatusCode::FORBIDDEN.into_response() } else { shown.oneshot(request).await.into_response() }
        }
    });
    network.host("java", refuses);
    for id in ["h1", "h2"] {
        register(&home, "ORDERS", id).await;
        register(&home, "WEATHER", id).await;
    }
    register(&java, "ORDERS", "j1").await;
    tokio::time::sleep(LOOK + LOOK).await;
    assert_eq!(ids(&java, "apps").await, ["h1", "h1", "h2", "h2", "j1"]);
    assert_eq!(ids(&home, "apps").await, ["h1", "h1", "h2", "h2", "j1"]);
    network.silence("java", "home");
    cancel(&home, "ORDERS", "h1").await;
    cancel(&home, "WEATHER", "h1").await;
    cancel(&home, "WEATHER", "h2").await;
    for _ in 0..10 {
        tokio::time::sleep(LOOK).await;
        assert_eq!(ids(&home, "apps").await, ["h2", "j1"]);
    }
    assert_eq!(ids(&java, "apps").await.len(), 5, "it does not hear of it");
    register(&home, "WEATHER", "h1").await;
    register(&java, "ORDERS", "j2").await;
    tokio::time::sleep(LOOK).await;
    assert_eq!(ids(&home, "apps").await, ["h1", "h2", "j1", "j2"]);
    assert_eq!(home.empty("GET", "apps/WEATHER/h2").await, StatusCode::NOT_FOUND);
    register(&java, "WEATHER", "h2").await;
    tokio::time::sleep(LOOK).await;
    assert_eq!(home.empty("GET", "apps/WEATHER/h2").await, StatusCode::OK, "it moved there");
}

/// A Java server shows an instance of another region if it has none itself, and its lists are as
/// old as its cache.
#[tokio::test(start_paused = true)]
async fn instance_of_another_region_at_a_java_peer_is_not_adopted() {
    let network = Network::default();
    let own = |setup: Setup| {
        setup.node(|node| node.register(false)).peers(|peers| peers.sync_up(false).wait_when_empty(Duration::ZERO))
    };
    let east = region(&network, "east", &[]);
    let all = ["home", "java"];
    let java =
        network.node_with("java", &all, |setup| own(setup).peers(|peers| peers.reconcile_interval(Duration::ZERO)));
    let (lists, elsewhere) = (java.router.clone(), east.router.clone());
    let shown = Router::new().fallback(move |request: Request<Body>| {
        let of = if request.uri().path().ends_with("/both") { elsewhere.clone() } else { lists.clone() };
        async move { of.oneshot(request).await.into_response() }
    });
    network.host("java", shown);
    network.silence("java", "home");
    let home = network.node_with("home", &all, |setup| knowing(own(setup), &["east"]));
    register(&east, "ORDERS", "both").await;
    tokio::time::sleep(LOOK).await;
    register(&java, "ORDERS", "both").await;
    register(&java, "ORDERS", "own").await;
    tokio::time::sleep(LOOK + LOOK).await;
    assert_eq!(lines(&home.server.applications()), ["own UP java"]);
    assert_eq!(lines(&get(&home, "apps").await), ["both UP east", "own UP java"]);
}

/// Returns a Java server that copies `home2` and refuses to leave its copy out.
fn java_that_refuses(network: &Network) -> crate::network::Node {
    let java = network.node_with("java", &[], |setup| {
        setup.regions(|regions| regions.region("home", "http://home2:8761/eureka/").interval(Duration::from_secs(1)))
    });
    let lists = java.router.clone();
    let refuses = Router::new().fallback(move |mut request: Request<Body>| {
        request.headers_mut().remove("discoveryidentity-name");
        let (is_refused, lists) = (request.uri().query().is_some(), lists.clone());
        async move {
            if is_refused {
                StatusCode::FORBIDDEN.into_response()
            } else {
                lists.oneshot(request).await.into_response()
            }
        }
    });
    network.host("java", refuses);
    java
}

const CLUSTER: [&str; 2] = ["home1", "home2"];

fn of_cluster(setup: Setup) -> Setup {
    setup.node(|node| node.register(false)).peers(|peers| peers.wait_when_empty(Duration::ZERO))
}

#[tokio::test(start_paused = true)]
async fn instance_that_a_java_server_copied_from_a_peer_disappears_after_it_left() {
    let network = Network::default();
    let home2 = network.node_with("home2", &CLUSTER, |setup| of_cluster(setup).peers(|peers| peers.sync_up(false)));
    let _java = java_that_refuses(&network);
    let home1 = network.node_with("home1", &CLUSTER, |setup| knowing(of_cluster(setup), &["java"]));
    register(&home2, "ORDERS", "x").await;
    tokio::time::sleep(LOOK * 3).await;
    assert_eq!(ids(&home1, "apps").await, ["x"]);
    network.silence("java", "home2");
    cancel(&home2, "ORDERS", "x").await;
    tokio::time::sleep(LOOK * 10).await;
    assert_eq!((home1.server.applications().len(), ids(&home1, "apps").await), (0, vec![]));
}

#[tokio::test(start_paused = true)]
async fn lost_change_of_a_peer_is_found_although_a_java_server_shows_the_instance() {
    let network = Network::default();
    let home2 = network.node_with("home2", &CLUSTER, |setup| of_cluster(setup).peers(|peers| peers.sync_up(false)));
    let _java = java_that_refuses(&network);
    let home1 = network.node_with("home1", &CLUSTER, |setup| {
        knowing(of_cluster(setup), &["java"])
            .regions(|regions| regions.interval(Duration::from_secs(1)))
            .peers(|peers| peers.sync_up(false))
    });
    network.silence("home2", "home1");
    tokio::time::sleep(LOOK).await;
    register(&home2, "ORDERS", "x").await;
    for _ in 0..10 {
        tokio::time::sleep(Duration::from_secs(20)).await;
        home2.heartbeat("x", 0).await;
    }
    assert_eq!(lines(&home1.server.applications()), ["x UP home2"]);
}

#[tokio::test(start_paused = true)]
async fn starting_node_recognises_own_instances_at_a_java_server() {
    let network = Network::default();
    let home2 = network.node_with("home2", &CLUSTER, |setup| of_cluster(setup).peers(|peers| peers.sync_up(false)));
    let _java = java_that_refuses(&network);
    register(&home2, "ORDERS", "x").await;
    tokio::time::sleep(LOOK).await;
    network.kill("home2");
    let home1 = network.node_with("home1", &CLUSTER, |setup| {
        knowing(of_cluster(setup), &["java"]).peers(|peers| peers.wait_when_empty(Duration::from_secs(60)))
    });
    tokio::time::sleep(Duration::from_millis(500)).await;
    network.host("home2", home2.router.clone());
    tokio::time::sleep(LOOK * 3).await;
    assert_eq!(lines(&home1.server.applications()), ["x UP home2"]);
    network.silence("java", "home2");
    cancel(&home2, "ORDERS", "x").await;
    tokio::time::sleep(LOOK * 10).await;
    assert_eq!((home1.server.applications().len(), ids(&home1, "apps").await), (0, vec![]));
}
