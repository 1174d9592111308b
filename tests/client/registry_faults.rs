//! Faults of registry servers: errors, bounded waits, and the last good set.

use std::io::Write;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use tokio_stream::StreamExt;
use tower::discover::Change;
use tower_eureka::model::ActionType;
use tower_eureka::{Error, Eureka, Instance};

use crate::common::{Asked, Memory, Reply, Scripted, delta, edited, instance, list};

#[test]
fn unusable_settings_fail_the_build() {
    for (url, why) in [
        ("localhost:8761", "without http:// in front"),
        ("http://ho st/", "not a URL"),
        ("ftp://host/", "only http and https"),
        ("", "no service URL"),
    ] {
        let error = Eureka::builder().service_url(url).build().unwrap_err();
        assert!(error.is_config() && error.to_string().contains(why), "{url}: {error}");
    }
    let error = Eureka::builder().service_url("http://h/").fetch_interval(Duration::ZERO).build().unwrap_err();
    assert!(error.to_string().contains("is zero"), "{error}");

    for (app, why) in [("", "unusable"), ("a b", "unusable"), ("a/b", "unusable"), ("delta", "reserved")] {
        let error = Instance::builder(app).port(80).build().unwrap_err();
        assert!(error.to_string().contains(why), "{app}: {error}");
    }
    assert!(Instance::builder("a").build().unwrap_err().to_string().contains("no port"));
    assert!(Instance::builder("a").port(0).build().unwrap_err().to_string().contains("local_addr"));
}

async fn fetch_error(respond: impl Fn(&Asked) -> Reply + Send + Sync + 'static) -> Error {
    let client = Scripted::new(respond).client().body_limit(1 << 20).build().unwrap();
    client.transport().applications().await.unwrap_err()
}

pub(crate) fn gzip(bytes: &[u8]) -> Bytes {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap().into()
}

#[tokio::test(start_paused = true)]
async fn each_fault_returns_an_error_of_its_own() {
    let page = |body: &'static str| Reply::With {
        status: 200,
        headers: vec![("content-type", "text/html".into())],
        body: body.into(),
    };
    let cut_off = list(&[instance("orders", "a")]).split_at(200).0.to_owned();
    let bomb = gzip(&vec![b' '; 20 << 20]);

    type Fault = Box<dyn Fn(&Asked) -> Reply + Send + Sync>;
    let cases: Vec<(&str, Fault)> = vec![
        ("no response within", Box::new(|_| Reply::Never)),
        ("the body stopped", Box::new(|_| Reply::Stalls)),
        ("larger than", Box::new(|_| Reply::Endless)),
        ("connection reset", Box::new(|_| Reply::Breaks)),
        ("the response is markup (text/html)", Box::new(move |_| page("<html><body>Login</body></html>"))),
        ("is cut off", Box::new(move |_| Reply::Json(cut_off.clone()))),
        ("without the root member 'applications'", Box::new(|_| Reply::Json("{}".into()))),
        ("responded with 500", Box::new(|_| Reply::Status(500))),
        ("responded with 404", Box::new(|_| Reply::Status(404))),
        (
            "a redirect to /eureka/apps/",
            Box::new(|_| Reply::With {
                status: 302,
                headers: vec![("location", "/eureka/apps/".into())],
                body: Bytes::new(),
            }),
        ),
        (
            "larger than",
            Box::new(move |_| Reply::With {
                status: 200,
                headers: vec![("content-encoding", "gzip".into())],
                body: bomb.clone(),
            }),
        ),
    ];
    for (expected, respond) in cases {
        let text = fetch_error(respond).await.to_string();
        assert!(text.contains(expected), "{expected}: {text}");
        // The error names the operation and the server.
        assert!(text.starts_with("fetch registry at http://registry/eureka/: "), "{text}");
    }
}

#[tokio::test]
async fn unreachable_registry_is_named_in_the_error() {
    let port = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
    let client = Eureka::builder().service_url(format!("http://user:secret@127.0.0.1:{port}/eureka")).build().unwrap();
    let error = client.transport().register(&instance("orders", "a")).await.unwrap_err();
    assert!(error.is_connect() && error.is_unavailable());
    let text = error.to_string();
    assert!(text.contains("register ORDERS (a)") && text.contains(&format!("127.0.0.1:{port}")), "{text}");
    assert!(!format!("{error:?}").contains("secret"));
}

#[tokio::test(start_paused = true)]
async fn rejected_registration_is_not_sent_to_other_servers() {
    let registry = Scripted::new(|_| Reply::With { status: 400, headers: vec![], body: "Missing hostname".into() });
    let client = Eureka::builder().service_url("http://a/,http://b/").http_service(registry.clone()).build().unwrap();
    let error = client.transport().register(&instance("orders", "a")).await.unwrap_err();
    assert_eq!((error.status(), registry.asked().len()), (Some(400), 1));
    assert!(error.to_string().contains("Missing hostname"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn failed_server_is_replaced_by_the_next_one_that_responds() {
    let registry = Scripted::new(|asked| match asked.headers.get("authorization") {
        Some(_) => Reply::Json(list(&[])),
        None => Reply::Status(503),
    });
    let client = Eureka::builder()
        .service_url("http://a/eureka,http://u:p@b/eureka")
        .shuffle_servers(false)
        .http_service(registry.clone())
        .build()
        .unwrap();
    client.transport().applications().await.unwrap();
    client.transport().applications().await.unwrap();
    assert_eq!(registry.asked().len(), 3, "one failure, then the second server, then only that one");

    let all_down = Scripted::new(|_| Reply::Status(503));
    let client = Eureka::builder().service_url("http://a/,http://b/").http_service(all_down).build().unwrap();
    let text = client.transport().applications().await.unwrap_err().to_string();
    assert!(text.contains("http://a/") && text.contains("http://b/"), "both are named: {text}");
}

/// Subscribes to ORDERS, and keeps the current ids.
pub(crate) fn follow(client: &Eureka) -> Arc<Mutex<Vec<String>>> {
    let mut orders = client.discover("orders").unwrap();
    let ids = Arc::<Mutex<Vec<String>>>::default();
    let seen = ids.clone();
    tokio::spawn(async move {
        while let Some(Ok(change)) = orders.next().await {
            let mut seen = seen.lock().unwrap();
            match change {
                Change::Insert(id, _) if seen.iter().all(|known| **known != *id) => seen.push(id.to_string()),
                Change::Insert(..) => {}
                Change::Remove(id) => seen.retain(|known| **known != *id),
            }
            seen.sort();
        }
    });
    ids
}

#[tokio::test(start_paused = true)]
async fn last_good_set_survives_every_failure() {
    let faults: Vec<fn() -> Reply> = vec![
        || Reply::Never,
        || Reply::Stalls,
        || Reply::Breaks,
        || Reply::Status(500),
        || Reply::Status(403),
        || Reply::Json("{}".into()),
        || Reply::Json(list(&[])),
        || Reply::Json(r#"{"applications":{"versions__delta":"1","apps__hashcode":"","application":[]}}"#.into()),
        // Most instances are missing.
        || Reply::Json(list(&[instance("orders", "a")])),
    ];
    let next = Arc::new(AtomicUsize::new(0));
    let (asked, count) = (next.clone(), faults.len());
    let registry = Scripted::new(move |_| match next.fetch_add(1, Ordering::Relaxed) {
        0 => Reply::Json(list(&["a", "b", "c"].map(|id| instance("orders", id)))),
        n => faults[n % faults.len()](),
    });
    let client = registry.client().fetch_interval(Duration::from_secs(1)).build().unwrap();
    let ids = follow(&client);
    while asked.load(Ordering::Relaxed) <= 3 * count {
        tokio::time::sleep(Duration::from_millis(100)).await;
        if asked.load(Ordering::Relaxed) > 1 {
            assert_eq!(*ids.lock().unwrap(), ["a", "b", "c"]);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn changes_after_the_first_fetch_arrive_by_delta() {
    let registry = Scripted::new(|asked| match &*asked.line {
        "GET /apps/" => Reply::Json(list(&[instance("orders", "a"), instance("orders", "b")])),
        _ => Reply::Json(delta(
            &[
                (instance("orders", "a"), ActionType::Deleted),
                (instance("orders", "c"), ActionType::Modified),
                (instance("orders", "nobody-knows"), ActionType::Deleted),
                (instance("gone", "x"), ActionType::Deleted),
            ],
            "UP_2_",
        )),
    });
    let client = registry.client().build().unwrap();
    let ids = follow(&client);
    registry.wait_for(5).await;
    assert_eq!(*ids.lock().unwrap(), ["b", "c"]);
    assert_eq!(
        registry.lines()[..5],
        ["GET /apps/", "GET /apps/delta", "GET /apps/delta", "GET /apps/delta", "GET /apps/delta"]
    );
}

#[tokio::test(start_paused = true)]
async fn deltas_that_never_match_are_paused_without_losing_changes() {
    let registry = Scripted::new(|asked| match &*asked.line {
        "GET /apps/" => Reply::Json(list(&[instance("orders", "a")])),
        _ => Reply::Json(delta(&[], "UP_99_")),
    });
    let client = registry.client().build().unwrap();
    let ids = follow(&client);
    tokio::time::sleep(Duration::from_secs(30 * 100)).await;
    assert_eq!(*ids.lock().unwrap(), ["a"]);
    let lines = registry.lines();
    let full = lines.iter().filter(|line| *line == "GET /apps/").count();
    let deltas = lines.len() - full;
    assert!((40..=75).contains(&full), "one full fetch a minute while deltas are paused, got {full}");
    assert!(deltas <= 30, "deltas that do not help are asked for less often, got {deltas}");
}

#[tokio::test(start_paused = true)]
async fn server_without_deltas_is_fetched_in_full() {
    for refusal in [403, 404, 405, 410, 501] {
        let registry = Scripted::new(move |asked| match &*asked.line {
            "GET /apps/" => Reply::Json(list(&[instance("orders", "a")])),
            _ => Reply::Status(refusal),
        });
        let client = registry.client().build().unwrap();
        let ids = follow(&client);
        registry.wait_for(5).await;
        assert_eq!(registry.lines()[..3], ["GET /apps/", "GET /apps/delta", "GET /apps/"]);
        assert_eq!(*ids.lock().unwrap(), ["a"]);
    }
}

#[tokio::test(start_paused = true)]
async fn failed_fetches_back_off_to_the_interval() {
    let registry = Scripted::new(|_| Reply::Status(500));
    let client = registry.client().fetch_interval(Duration::from_secs(30)).build().unwrap();
    let _ids = follow(&client);
    registry.wait_for(8).await;
    let at: Vec<u64> = registry.asked().iter().map(|asked| asked.at.as_secs()).collect();
    assert!(at[1] <= 1 && at[2] <= 4, "the first retries come soon: {at:?}");
    assert!(at[7] - at[6] >= 27, "later ones no faster than the interval: {at:?}");
}

#[tokio::test(start_paused = true)]
async fn subscriber_is_woken_only_by_relevant_changes_of_its_application() {
    let memory = Memory::of([instance("orders", "a")]);
    let client = memory.serve().client().delta(false).build().unwrap();
    let mut orders = client.discover("orders").unwrap();
    assert!(matches!(orders.next().await, Some(Ok(Change::Insert(id, _))) if *id == *"a"));

    let quiet = Duration::from_secs(100);
    memory.put(instance("billing", "b"));
    assert!(tokio::time::timeout(quiet, orders.next()).await.is_err(), "another application came");

    memory.put(edited(&instance("orders", "a"), |json| json["leaseInfo"]["lastRenewalTimestamp"] = 5.into()));
    assert!(tokio::time::timeout(quiet, orders.next()).await.is_err(), "only its lease was renewed");

    let moved = Instance::builder("orders").id("a").ip_addr("127.0.0.1").port(2).build().unwrap();
    memory.put(moved);
    match orders.next().await {
        Some(Ok(Change::Insert(id, instance))) => assert_eq!((&*id, instance.port().number), ("a", 2)),
        other => panic!("{other:?}"),
    }
    memory.put(crate::common::with_status(&instance("orders", "a"), tower_eureka::model::InstanceStatus::Down));
    assert!(matches!(orders.next().await, Some(Ok(Change::Remove(id))) if *id == *"a"));
}

#[tokio::test(start_paused = true)]
async fn each_of_many_servers_is_tried() {
    let registry = Scripted::new(|asked| match asked.headers.get("authorization") {
        Some(_) => Reply::Json(list(&[])),
        None => Reply::Status(503),
    });
    let client = Eureka::builder().service_url("http://a/,http://b/,http://c/,http://u:p@d/").shuffle_servers(false);
    let client = client.http_service(registry).build().unwrap();
    assert!(client.transport().applications().await.is_err());
    client.transport().applications().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn login_page_in_response_to_a_registration_is_an_error() {
    let page = || Reply::With {
        status: 200,
        headers: vec![("content-type", "text/html".into())],
        body: "<html>Login</html>".into(),
    };
    let to_login = || Reply::With {
        status: 302,
        headers: vec![("location", "http://sso:hunter2@login/?token=abc".into())],
        body: Bytes::new(),
    };
    for reply in [page, to_login] {
        let client = Scripted::new(move |asked| if asked.line.contains("login") { page() } else { reply() });
        let client = client.client().build().unwrap();
        let error = client.transport().register(&instance("orders", "a")).await.unwrap_err();
        assert!(!error.to_string().contains("hunter2") && !error.to_string().contains("abc"), "{error}");
        let up = tower_eureka::model::InstanceStatus::Up;
        client.transport().heartbeat("orders", "a", up, 1).await.unwrap_err();
    }
}

#[tokio::test(start_paused = true)]
async fn refused_delta_causes_a_full_fetch_only_now_and_then() {
    const OTHERS: [u16; 5] = [304, 408, 500, 507, 599];
    const OVERLOADS: [u16; 7] = [420, 429, 502, 503, 504, 509, 529];
    for (status, most, minutes) in OTHERS.map(|status| (status, 4, 4)).into_iter().chain(OVERLOADS.map(|s| (s, 1, 11)))
    {
        let memory = Memory::of([instance("orders", "a")]);
        let served = memory.clone();
        let registry = Scripted::new(move |asked| match &*asked.line {
            "GET /apps/" => served.full(),
            _ => Reply::Status(status),
        });
        let client = registry.client().fetch_interval(Duration::from_secs(10)).build().unwrap();
        let ids = follow(&client);
        registry.wait_for(1).await;
        memory.put(instance("orders", "b"));
        tokio::time::sleep(Duration::from_secs(595)).await;
        let lines = registry.lines();
        let full = lines.iter().filter(|line| *line == "GET /apps/").count();
        assert!(full <= most && lines.len() - full <= 66, "{status}: {lines:?}");
        tokio::time::sleep(Duration::from_secs(minutes * 60)).await;
        assert_eq!(*ids.lock().unwrap(), ["a", "b"], "{status}: the copy is never left behind");
    }
}

#[tokio::test(start_paused = true)]
async fn deltas_that_cannot_be_read_are_paused() {
    let registry = Scripted::new(|asked| match &*asked.line {
        "GET /apps/" => Reply::Json(list(&[instance("orders", "a")])),
        _ => Reply::Json("<html>Login</html>".into()),
    });
    let ids = follow(&registry.client().build().unwrap());
    tokio::time::sleep(Duration::from_secs(30 * 100)).await;
    assert_eq!(*ids.lock().unwrap(), ["a"]);
    let full = registry.lines().iter().filter(|line| *line == "GET /apps/").count();
    assert!((40..=75).contains(&full), "one full fetch a minute while deltas are paused, got {full}");
}

#[tokio::test(start_paused = true)]
async fn http_service_that_panics_fails_one_refresh_and_one_heartbeat() {
    let asked = AtomicUsize::new(0);
    let registry = Scripted::new(move |_| match asked.fetch_add(1, Ordering::Relaxed) {
        0 => Reply::Json(list(&[instance("orders", "a")])),
        1 => panic!("on purpose"),
        _ => Reply::Json(list(&[instance("orders", "a"), instance("orders", "b")])),
    });
    let client = registry.client().delta(false).build().unwrap();
    let ids = follow(&client);
    registry.wait_for(2).await;
    assert_eq!(*ids.lock().unwrap(), ["a", "b"]);

    let asked = AtomicUsize::new(0);
    let registry = Scripted::new(move |_| match asked.fetch_add(1, Ordering::Relaxed) {
        // After the read before the registration, and the registration.
        2 => panic!("on purpose"),
        _ => Reply::Status(204),
    });
    let registrar = registry.client().build().unwrap().registrar(instance("orders", "a"));
    registrar.register().await.unwrap();
    registry.wait_for(5).await;
}

#[tokio::test(start_paused = true)]
async fn http_service_that_panics_fails_the_call_with_an_error() {
    let error = fetch_error(|_| panic!("a secret")).await;
    let text = error.to_string();
    assert!(text.contains("the HTTP service panicked") && !text.contains("a secret"), "{text}");
}
