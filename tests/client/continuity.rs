//! Continuity of deltas: a delta is applied only if it continues the copy.

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use http::{Request, Response};
use tokio::time::{Instant, sleep};
use tower::{BoxError, Service};
use tower_eureka::model::{ActionType, InstanceStatus};
use tower_eureka::transport::RequestBody;
use tower_eureka::{Eureka, EurekaServer};

use crate::common::{Asked, Reply, Scripted, delta, instance, list};
use crate::registry_faults::follow;

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);
const FULL: &str = "GET /apps/";

fn orders(ids: &[&str]) -> Reply {
    Reply::Json(list(&ids.iter().map(|id| instance("orders", id)).collect::<Vec<_>>()))
}

fn fulls(registry: &Scripted) -> usize {
    registry.lines().iter().filter(|line| *line == FULL).count()
}

#[tokio::test(start_paused = true)]
async fn outage_beyond_the_delta_retention_is_followed_by_a_full_fetch() {
    // Outages within the retention of deltas, and beyond it.
    for (outage, expected) in [(25, 1), (120, 2), (600, 2)] {
        let start = Instant::now();
        let registry = Scripted::new(move |asked| {
            let t = start.elapsed().as_secs();
            match &*asked.line {
                _ if (100..100 + outage).contains(&t) => Reply::Status(503),
                FULL if t < 100 => orders(&["a", "b", "c"]),
                FULL => orders(&["b", "c", "d"]),
                _ => Reply::Json(delta(&[], "UP_3_")),
            }
        });
        let client = registry.client().build().unwrap();
        let ids = follow(&client);
        sleep(Duration::from_secs(100 + outage + 45)).await;
        let good = |asked: &&Asked| asked.line == FULL && !(100..100 + outage).contains(&asked.at.as_secs());
        assert_eq!(registry.asked().iter().filter(good).count(), expected, "after {outage} s");
        let seen = if expected > 1 { ["b", "c", "d"] } else { ["a", "b", "c"] };
        assert_eq!(*ids.lock().unwrap(), seen, "after {outage} s");
    }
}

#[tokio::test(start_paused = true)]
async fn slow_delta_that_ends_after_the_gap_is_followed_by_a_full_fetch() {
    let start = Instant::now();
    let registry = Scripted::new(move |asked| match &*asked.line {
        FULL if start.elapsed() < MINUTE => orders(&["a"]),
        FULL => orders(&["b"]),
        _ => Reply::Later(Duration::from_secs(100), delta(&[], "UP_1_")),
    });
    let client = registry.client().read_timeout(HOUR).build().unwrap();
    let ids = follow(&client);
    sleep(3 * MINUTE).await;
    assert_eq!(*ids.lock().unwrap(), ["b"]);
}

#[tokio::test(start_paused = true)]
async fn fetch_interval_beyond_the_delta_retention_makes_every_fetch_a_full_one() {
    let start = Instant::now();
    let registry = Scripted::new(move |asked| match &*asked.line {
        FULL if start.elapsed() < MINUTE => orders(&["a", "b"]),
        FULL => orders(&["b", "c"]),
        _ => Reply::Json(delta(&[], "UP_2_")),
    });
    let client = registry.client().fetch_interval(5 * MINUTE).build().unwrap();
    let ids = follow(&client);
    sleep(6 * MINUTE).await;
    assert_eq!(
        (&ids.lock().unwrap()[..], registry.lines()),
        (&["b".to_owned(), "c".to_owned()][..], vec![FULL.to_owned(); 2])
    );
}

#[tokio::test(start_paused = true)]
async fn response_from_another_server_is_followed_by_a_full_fetch() {
    let start = Instant::now();
    let registry = Scripted::new(move |asked| {
        let is_first = !asked.headers.contains_key("authorization");
        let ids = if is_first { ["a", "b"] } else { ["b", "c"] };
        match &*asked.line {
            _ if is_first && start.elapsed() > MINUTE => Reply::Status(503),
            FULL => orders(&ids),
            _ => Reply::Json(delta(&[], "UP_2_")),
        }
    });
    let client = Eureka::builder().service_url("http://a/eureka,http://u:p@b/eureka").http_service(registry.clone());
    let client = client.shuffle_servers(false).build().unwrap();
    let ids = follow(&client);
    sleep(3 * MINUTE).await;
    assert_eq!(*ids.lock().unwrap(), ["b", "c"]);
    assert_eq!(fulls(&registry), 2, "{:?}", registry.lines());
}

#[tokio::test(start_paused = true)]
async fn server_reached_by_a_redirect_is_another_server() {
    let start = Instant::now();
    let registry = Scripted::new(move |asked| {
        let is_other = asked.line.contains("/other/");
        let line = asked.line.replace("/other/eureka", "");
        match &*line {
            _ if !is_other && start.elapsed() > MINUTE => Reply::With {
                status: 307,
                headers: vec![("location", asked.line.replace("GET ", "http://elsewhere/other/eureka"))],
                body: Default::default(),
            },
            FULL => orders(if is_other { &["b"] } else { &["a"] }),
            _ => Reply::Json(delta(&[], "UP_1_")),
        }
    });
    let ids = follow(&registry.client().build().unwrap());
    sleep(3 * MINUTE).await;
    assert_eq!(*ids.lock().unwrap(), ["b"]);
}

#[tokio::test(start_paused = true)]
async fn server_whose_delta_counter_decreased_is_fetched_in_full() {
    let start = Instant::now();
    let registry = Scripted::new(move |asked| {
        let restarted = start.elapsed() > 2 * MINUTE;
        match &*asked.line {
            FULL if restarted => orders(&["b"]),
            FULL => orders(&["a"]),
            _ => {
                let version = if restarted { r#""versions__delta":"3""# } else { r#""versions__delta":"90""# };
                Reply::Json(delta(&[], "UP_1_").replace(r#""versions__delta":"1""#, version))
            }
        }
    });
    let ids = follow(&registry.client().build().unwrap());
    sleep(2 * MINUTE).await;
    assert_eq!((&ids.lock().unwrap()[..], fulls(&registry)), (&["a".to_owned()][..], 1));
    sleep(MINUTE).await;
    assert_eq!((&ids.lock().unwrap()[..], fulls(&registry)), (&["b".to_owned()][..], 2));
}

#[tokio::test(start_paused = true)]
async fn copy_is_verified_by_a_full_fetch_about_every_ten_minutes() {
    let registry = Scripted::new(|asked| match &*asked.line {
        FULL => orders(&["a"]),
        _ => Reply::Json(delta(&[], "UP_1_")),
    });
    let clients: Vec<_> = (0..20).map(|_| registry.client().build().unwrap()).collect();
    let _ids: Vec<_> = clients.iter().map(follow).collect();
    sleep(5 * HOUR).await;
    let per_client = fulls(&registry) / clients.len();
    assert!((25..=37).contains(&per_client), "30 in five hours: {per_client}");
    let first_hour: Vec<_> =
        registry.asked().iter().filter(|a| a.line == FULL && a.at < HOUR).map(|a| a.at.as_secs() / 60).collect();
    let minutes: std::collections::BTreeSet<_> = first_hour.iter().collect();
    assert!(minutes.len() > 30, "clients spread: {minutes:?}");
}

#[tokio::test(start_paused = true)]
async fn full_fetches_of_many_clients_after_one_mismatch_are_spread() {
    // For the jitter of the clients.
    fastrand::seed(7);
    let start = Instant::now();
    let registry = Scripted::new(move |asked| match &*asked.line {
        FULL => orders(&["a"]),
        _ if (60..90).contains(&start.elapsed().as_secs()) => Reply::Json(delta(&[], "UP_2_")),
        _ => Reply::Json(delta(&[], "UP_1_")),
    });
    let client = |number: usize| {
        let client = Eureka::builder().service_url(format!("http://{number}:p@registry/eureka"));
        client.http_service(registry.clone()).build().unwrap()
    };
    let clients: Vec<_> = (0..40).map(client).collect();
    let _ids: Vec<_> = clients.iter().map(follow).collect();
    sleep(2 * MINUTE).await;
    let mut by_client = std::collections::BTreeMap::<_, Vec<Asked>>::new();
    for asked in registry.asked() {
        by_client.entry(asked.headers["authorization"].to_str().unwrap().to_owned()).or_default().push(asked);
    }
    let delay = |asked: &Vec<Asked>| {
        let full = asked.iter().rposition(|asked| asked.line == FULL).filter(|at| *at > 0)?;
        Some((asked[full].at - asked[full - 1].at).as_millis())
    };
    let delays: Vec<_> = by_client.values().filter_map(delay).collect();
    let (least, most) = (delays.iter().min().unwrap(), delays.iter().max().unwrap());
    assert!(delays.len() >= 30 && most - least > 5_000 && *most <= 10_100, "{delays:?}");
}

#[tokio::test(start_paused = true)]
async fn held_instances_expire_although_some_fetches_fail() {
    for failing in [2, 3, 5] {
        let count = AtomicUsize::new(0);
        let registry = Scripted::new(move |_| match count.fetch_add(1, Ordering::Relaxed) {
            0 => orders(&["a", "b", "c"]),
            n if n % failing == 0 => Reply::Status(503),
            _ => orders(&["a"]),
        });
        let client = registry.client().delta(false).build().unwrap();
        let ids = follow(&client);
        sleep(MINUTE).await;
        assert_eq!(*ids.lock().unwrap(), ["a", "b", "c"], "one fetch in {failing} fails");
        sleep(10 * MINUTE).await;
        assert_eq!(*ids.lock().unwrap(), ["a"], "one fetch in {failing} fails");
    }
}

#[tokio::test(start_paused = true)]
async fn held_instances_outlast_an_outage() {
    // For the jitter of the clients.
    fastrand::seed(7);
    let start = Instant::now();
    let registry = Scripted::new(move |_| match start.elapsed().as_secs() {
        0..10 => orders(&["a", "b", "c"]),
        10..70 => orders(&["a"]),
        70..3600 => Reply::Status(503),
        _ => orders(&["a"]),
    });
    let ids = follow(&registry.client().delta(false).build().unwrap());
    sleep(HOUR + Duration::from_secs(35)).await;
    assert_eq!(*ids.lock().unwrap(), ["a", "b", "c"]);
    sleep(3 * MINUTE).await;
    assert_eq!(*ids.lock().unwrap(), ["a"]);
}

#[tokio::test(start_paused = true)]
async fn application_removed_and_added_again_within_one_delta_is_present() {
    let old = |id| (instance("orders", id), ActionType::Deleted);
    let new = |id| (instance("orders", id), ActionType::Added);
    for (entries, expected) in [
        (vec![old("a"), old("b"), new("c"), new("d")], vec!["c", "d"]),
        (vec![new("c"), old("a"), old("b")], vec!["c"]),
        (vec![old("a"), new("b")], vec!["b"]),
    ] {
        let hash = format!("UP_{}_", expected.len());
        let registry = Scripted::new(move |asked| match &*asked.line {
            FULL => orders(&["a", "b"]),
            _ => Reply::Json(delta(&entries, &hash)),
        });
        let ids = follow(&registry.client().build().unwrap());
        sleep(2 * MINUTE).await;
        assert_eq!(*ids.lock().unwrap(), expected);
        assert_eq!(fulls(&registry), 1, "{:?}", registry.lines());
    }
}

/// Registry of this crate behind a link that can fail, with a record of the responses.
#[derive(Clone)]
struct Wire {
    router: Router,
    cut: Arc<AtomicBool>,
    /// True if deltas lose their changes.
    lossy: Arc<AtomicBool>,
    /// True if deltas have a wrong digest.
    wrong: Arc<AtomicBool>,
    passed: Arc<Mutex<Vec<(String, u16)>>>,
}

impl Wire {
    fn new(server: &EurekaServer) -> Self {
        let router = Router::new().nest("/eureka", server.router());
        Self { router, cut: Arc::default(), lossy: Arc::default(), wrong: Arc::default(), passed: Arc::default() }
    }

    fn client(&self) -> Eureka {
        Eureka::builder().service_url("http://registry/eureka").http_service(self.clone()).build().unwrap()
    }

    /// Returns the number of responses to this path with this status.
    fn count(&self, path: &str, status: u16) -> usize {
        self.passed.lock().unwrap().iter().filter(|passed| **passed == (path.to_owned(), status)).count()
    }
}

impl Service<Request<RequestBody>> for Wire {
    type Response = Response<axum::body::Body>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<RequestBody>) -> Self::Future {
        let (mut this, path) = (self.clone(), request.uri().path().to_owned());
        Box::pin(async move {
            if this.cut.load(Ordering::Relaxed) {
                return Err("cut".into());
            }
            let mut response = this.router.call(request).await?;
            if this.wrong.load(Ordering::Relaxed) && path.ends_with("/delta") {
                response.headers_mut().insert("eureka-digest", "v1=0123456789abcdef".parse()?);
            }
            let is_lost = this.lossy.load(Ordering::Relaxed) && path.ends_with("/delta");
            this.passed.lock().unwrap().push((path, response.status().as_u16()));
            if !is_lost {
                return Ok(response);
            }
            let (mut head, _) = response.into_parts();
            head.headers.remove("content-encoding");
            Ok(Response::from_parts(head, delta(&[], "UP_1_").into()))
        })
    }
}

fn server() -> EurekaServer {
    EurekaServer::builder().read_only_cache(false).build().unwrap()
}

#[tokio::test(start_paused = true)]
async fn deployment_during_a_gap_is_seen_at_our_server() {
    // Within the retention, the delta contains the change. Beyond it, the digest differs.
    for (gap, expected) in [(100, 1), (600, 2)] {
        let server = server();
        let (operator, wire) = (Wire::new(&server).client(), Wire::new(&server));
        for id in ["a", "b", "same"] {
            operator.transport().register(&instance("orders", id)).await.unwrap();
        }
        let client = wire.client();
        let ids = follow(&client);
        sleep(Duration::from_secs(100)).await;
        wire.cut.store(true, Ordering::Relaxed);
        for (old, new) in [("a", "c"), ("b", "d")] {
            operator.transport().register(&instance("orders", new)).await.unwrap();
            operator.transport().cancel("ORDERS", old).await.unwrap();
        }
        for _ in 0..gap / 10 {
            sleep(Duration::from_secs(10)).await;
            for id in ["c", "d", "same"] {
                operator.transport().heartbeat("ORDERS", id, InstanceStatus::Up, 0).await.unwrap();
            }
        }
        wire.cut.store(false, Ordering::Relaxed);
        sleep(Duration::from_secs(45)).await;
        assert_eq!(*ids.lock().unwrap(), ["c", "d", "same"], "after {gap} s");
        assert_eq!(wire.count("/eureka/apps/", 200), expected, "after {gap} s");
    }
}

#[tokio::test(start_paused = true)]
async fn unchanged_registry_of_ours_is_verified_by_a_304() {
    let server = server();
    let wire = Wire::new(&server);
    let heartbeats = wire.client().registrar(instance("orders", "a"));
    heartbeats.register().await.unwrap();
    let client = wire.client();
    let ids = follow(&client);
    sleep(2 * HOUR).await;
    assert_eq!(*ids.lock().unwrap(), ["a"]);
    assert_eq!(wire.count("/eureka/apps/", 200), 1);
    assert!(wire.count("/eureka/apps/", 304) >= 8);
}

#[tokio::test(start_paused = true)]
async fn full_list_that_failed_is_verified_by_a_304_later() {
    let server = server();
    let (operator, wire) = (Wire::new(&server).client(), Wire::new(&server));
    let heartbeats = operator.registrar(instance("orders", "a"));
    heartbeats.register().await.unwrap();
    let client = Eureka::builder().service_url("http://registry/eureka").http_service(wire.clone());
    let client = client.delta(false).build().unwrap();
    let ids = follow(&client);
    for _ in 0..3 {
        sleep(MINUTE).await;
        wire.cut.store(true, Ordering::Relaxed);
        sleep(MINUTE).await;
        wire.cut.store(false, Ordering::Relaxed);
    }
    sleep(MINUTE).await;
    assert_eq!((wire.count("/eureka/apps/", 200), wire.count("/eureka/apps/", 304) >= 3), (1, true));
    assert_eq!(*ids.lock().unwrap(), ["a"]);
}

/// Returns a response with a digest.
fn with_digest(json: String, digest: &str) -> Reply {
    let headers =
        vec![("content-type", "application/json".into()), ("eureka-digest", digest.into()), ("etag", "\"1\"".into())];
    Reply::With { status: 200, headers, body: json.into() }
}

#[tokio::test(start_paused = true)]
async fn missing_change_with_equal_counts_is_detected_by_the_digest() {
    let server = server();
    let (operator, wire) = (Wire::new(&server).client(), Wire::new(&server));
    operator.transport().register(&instance("orders", "a")).await.unwrap();
    let client = wire.client();
    let ids = follow(&client);
    sleep(MINUTE).await;
    wire.lossy.store(true, Ordering::Relaxed);
    operator.transport().register(&instance("orders", "b")).await.unwrap();
    operator.transport().cancel("ORDERS", "a").await.unwrap();
    sleep(MINUTE).await;
    assert_eq!(*ids.lock().unwrap(), ["b"]);
    assert_eq!(wire.count("/eureka/apps/", 200), 2);
}

#[tokio::test(start_paused = true)]
async fn digest_that_does_not_match_its_own_list_is_ignored() {
    let registry = Scripted::new(|asked| match &*asked.line {
        FULL => with_digest(list(&[instance("orders", "a")]), "v1=0123456789abcdef"),
        _ => with_digest(delta(&[], "UP_1_"), "v1=0123456789abcdef"),
    });
    let ids = follow(&registry.client().build().unwrap());
    sleep(4 * MINUTE).await;
    assert_eq!(*ids.lock().unwrap(), ["a"]);
    assert_eq!(fulls(&registry), 1, "{:?}", registry.lines());
}

#[tokio::test(start_paused = true)]
async fn deltas_of_our_server_need_no_second_full_fetch() {
    let server = server();
    let (operator, wire) = (Wire::new(&server).client(), Wire::new(&server));
    let transport = operator.transport();
    transport.register(&instance("orders", "kept")).await.unwrap();
    let client = Eureka::builder().service_url("http://registry/eureka").http_service(wire.clone());
    let client = client.fetch_interval(Duration::from_secs(2)).build().unwrap();
    let _ids = follow(&client);
    let mut random = fastrand::Rng::with_seed(7);
    // Ends before the first verification is due.
    for round in 0..100 {
        for _ in 0..random.usize(..4) {
            let (app, id) = (["ORDERS", "BILLING"][random.usize(..2)], random.u8(..5).to_string());
            let entry = [("a \u{e4}\"", "<&>\n"), ("@class", "x"), ("", "")][random.usize(..3)];
            // Some changes concern no subscriber.
            let _ = match random.u8(..6) {
                0 => transport.cancel(app, &id).await.map(drop),
                1 => transport.set_status(app, &id, InstanceStatus::OutOfService).await,
                2 => transport.remove_status(app, &id).await,
                3 => transport.update_metadata(app, &id, &[entry]).await,
                _ => transport.register(&instance(app, &id)).await,
            };
        }
        transport.heartbeat("ORDERS", "kept", InstanceStatus::Up, 0).await.unwrap();
        sleep(Duration::from_millis(2_500)).await;
        let whole = transport.applications().await.unwrap();
        let mut there: Vec<_> = whole.applications.iter().flat_map(|app| &app.instances).cloned().collect();
        let snapshot = client.snapshot();
        let mut seen: Vec<_> = snapshot.applications().flat_map(|app| &app.instances).cloned().collect();
        for instances in [&mut there, &mut seen] {
            instances.sort_by(|a, b| (a.app(), a.id()).cmp(&(b.app(), b.id())));
        }
        let lines = |instances: &[Arc<tower_eureka::Instance>]| {
            instances
                .iter()
                .map(|i| format!("{} {} {} {:?}", i.app(), i.id(), i.status(), i.metadata()))
                .collect::<Vec<_>>()
        };
        assert_eq!(lines(&seen), lines(&there), "round {round}");
    }
    assert_eq!(wire.count("/eureka/apps/", 200), 1);
}

#[tokio::test(start_paused = true)]
async fn nodes_behind_one_url_with_separate_counters_are_refreshed_by_deltas() {
    for is_random in [false, true] {
        let (start, turn) = (Instant::now(), AtomicUsize::new(0));
        let registry = Scripted::new(move |asked| {
            let turn = turn.fetch_add(1, Ordering::Relaxed);
            let node = if is_random { fastrand::usize(..3) } else { turn % 3 };
            // One instance replaces another every ten minutes, which leaves the counts equal.
            let (t, age) = (start.elapsed().as_secs() / 600, start.elapsed().as_secs() % 600);
            let version = [5000, 300, 90_000][node] + start.elapsed().as_secs() / 30;
            let entries = match t > 0 && age < 180 {
                true => vec![
                    (instance("orders", &format!("i{}", t - 1)), ActionType::Deleted),
                    (instance("orders", &format!("i{t}")), ActionType::Added),
                ],
                false => vec![],
            };
            match &*asked.line {
                FULL => orders(&["kept", &format!("i{t}")]),
                _ => {
                    let version = format!(r#""versions__delta":"{version}""#);
                    Reply::Json(delta(&entries, "UP_2_").replace(r#""versions__delta":"1""#, &version))
                }
            }
        });
        let client = registry.client().build().unwrap();
        let ids = follow(&client);
        for round in 0..6 {
            sleep(10 * MINUTE - Duration::from_secs(1)).await;
            assert_eq!(*ids.lock().unwrap(), [format!("i{round}"), "kept".to_owned()]);
            sleep(Duration::from_secs(1)).await;
        }
        assert!((10..=40).contains(&fulls(&registry)), "random {is_random}: {}", fulls(&registry));
    }
}

#[tokio::test(start_paused = true)]
async fn digests_that_are_wrong_in_each_delta_are_replaced_by_counts() {
    let server = server();
    let wire = Wire::new(&server);
    wire.wrong.store(true, Ordering::Relaxed);
    let heartbeats = Wire::new(&server).client().registrar(instance("orders", "a"));
    heartbeats.register().await.unwrap();
    let ids = follow(&wire.client());
    sleep(2 * HOUR).await;
    assert_eq!(*ids.lock().unwrap(), ["a"]);
    let fulls = wire.count("/eureka/apps/", 200) + wire.count("/eureka/apps/", 304);
    assert!((20..=42).contains(&fulls), "17 until digests are not used, then one in ten minutes: {fulls}");
}
