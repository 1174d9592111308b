//! Responses with 404: those of a registry without the application, and those of a proxy or
//! another application in the place of the registry.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::time::{sleep, timeout};
use tower_eureka::discover::{Finding, Selection};
use tower_eureka::model::{Application, StatusCounts};
use tower_eureka::{Eureka, Instance, Interest};

use crate::common::{Asked, REFRESH, Reply, SOON, Scripted, delta, ids, instance, list};

const HOUR: Duration = Duration::from_secs(3600);

/// Returns the response of a registry with these instances.
fn listed(asked: &Asked, instances: &[Instance], has_deltas: bool) -> Reply {
    let path = asked.line.trim_start_matches("GET /").split('?').next().unwrap_or_default();
    let of = |is_part: &dyn Fn(&Instance) -> bool| instances.iter().filter(|i| is_part(i)).cloned().collect::<Vec<_>>();
    match path.split_once('/') {
        Some(("apps", "")) => Reply::Json(list(instances)),
        Some(("apps", "delta")) if !has_deltas => Reply::Status(403),
        Some(("apps", "delta")) => {
            let counts: StatusCounts = instances.iter().map(Instance::status).collect();
            Reply::Json(delta(&[], &counts.to_string()))
        }
        Some(("apps", app)) => match of(&|instance| instance.app() == app) {
            none if none.is_empty() => Reply::Status(404),
            some => {
                let application = Application { name: app.into(), instances: some.into_iter().map(Arc::new).collect() };
                Reply::Json(String::from_utf8(application.to_json()).unwrap())
            }
        },
        Some(("vips", vip)) => Reply::Json(list(&of(&|instance| instance.vip_address() == Some(vip)))),
        _ => panic!("not a request for a list: {}", asked.line),
    }
}

/// Returns responses with 404 as proxies and other applications send them.
fn not_found() -> [Reply; 4] {
    let with = |content_type: &str, body: &'static str| Reply::With {
        status: 404,
        headers: vec![("content-type", content_type.into())],
        body: body.into(),
    };
    [
        Reply::Status(404),
        with("text/plain", "404 page not found\n"),
        with("text/html", "<html>not found</html>"),
        with("application/json", r#"{"status":404,"error":"Not Found","path":"/eureka/apps/"}"#),
    ]
}

fn fleet() -> Vec<Instance> {
    let others = (0..5).map(|n| instance(&format!("other{n}"), &format!("x{n}")));
    ["a", "b", "c", "d"].map(|id| instance("orders", id)).into_iter().chain(others).collect()
}

fn interests() -> [Interest; 3] {
    [Interest::All, Interest::Used, Interest::Vip("orders".into())]
}

#[tokio::test(start_paused = true)]
async fn instances_stay_while_404_comes_in_the_place_of_the_registry() {
    for reply in not_found() {
        for (interest, has_deltas) in
            interests().into_iter().flat_map(|interest| [(interest.clone(), true), (interest, false)])
        {
            for selection in [Selection::name("orders"), Selection::app("orders")] {
                let (is_lost, reply) = (Arc::new(AtomicBool::new(false)), reply.clone());
                let lost = is_lost.clone();
                let registry = Scripted::new(move |asked| match lost.load(Ordering::Relaxed) {
                    true => reply.clone(),
                    false => listed(asked, &fleet(), has_deltas),
                });
                let client = registry.client().interest(interest.clone()).build().unwrap();
                let _stream = client.discover(selection.clone()).unwrap();
                sleep(2 * REFRESH).await;
                assert!(client.status().error().is_none(), "{interest:?}: {}", client.status());
                is_lost.store(true, Ordering::Relaxed);
                sleep(HOUR).await;
                assert_eq!(ids(&client, selection.clone()).len(), 4, "{interest:?} {selection:?}");
                let status = client.status();
                assert_eq!(status.error().and_then(|error| error.status()), Some(404), "{interest:?}: {status}");
                assert!(status.age().is_some_and(|age| age >= HOUR), "{interest:?}: {status}");
                is_lost.store(false, Ordering::Relaxed);
                sleep(2 * REFRESH).await;
                assert!(client.status().error().is_none(), "{interest:?}: {}", client.status());
                assert_eq!(ids(&client, selection).len(), 4);
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn service_url_that_leads_to_404_is_never_ready() {
    for reply in not_found() {
        for interest in interests() {
            for selection in [Selection::name("orders"), Selection::app("orders")] {
                let reply = reply.clone();
                let client = Scripted::new(move |_| reply.clone()).client().interest(interest.clone()).build().unwrap();
                let stream = client.discover(selection.clone()).unwrap();
                assert!(timeout(HOUR, client.ready()).await.is_err(), "{interest:?} {selection:?}");
                let status = client.status();
                assert!(!status.is_loaded() && status.error().is_some(), "{interest:?}: {status}");
                assert!(stream.explain().refresh_error().is_some(), "{interest:?}: {}", stream.explain());
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn client_without_a_name_has_an_error_while_404_comes_in_the_place_of_the_registry() {
    for reply in not_found() {
        for has_deltas in [true, false] {
            let (is_lost, reply) = (Arc::new(AtomicBool::new(false)), reply.clone());
            let lost = is_lost.clone();
            let registry = Scripted::new(move |asked| match lost.load(Ordering::Relaxed) {
                true => reply.clone(),
                false => listed(asked, &fleet(), has_deltas),
            });
            let client = registry.client().interest(Interest::Used).build().unwrap();
            timeout(SOON, client.ready()).await.expect("it is a registry").unwrap();
            sleep(10 * REFRESH).await;
            assert!(client.status().error().is_none(), "{}", client.status());
            is_lost.store(true, Ordering::Relaxed);
            sleep(10 * REFRESH).await;
            assert!(client.status().error().is_some(), "with deltas: {has_deltas}: {}", client.status());
        }
    }
}

#[tokio::test(start_paused = true)]
async fn unknown_application_costs_one_small_list_that_proves_the_registry() {
    for has_deltas in [true, false] {
        let registry = Scripted::new(move |asked| listed(asked, &fleet(), has_deltas));
        let client = registry.client().interest(Interest::Used).build().unwrap();
        let streams = ["nobody", "nowhere"].map(|app| client.discover(Selection::app(app)).unwrap());
        timeout(SOON, client.ready()).await.expect("the registry has no such application").unwrap();
        assert_eq!(streams.each_ref().map(|stream| stream.explain().finding()), [Finding::UnknownName; 2]);
        sleep(10 * REFRESH).await;
        assert!(client.status().error().is_none(), "{}", client.status());
        let lines = registry.lines();
        let proofs = lines.iter().filter(|line| line.starts_with("GET /vips/tower-eureka-")).count();
        let refreshes = lines.iter().filter(|line| *line == "GET /apps/NOBODY").count();
        assert!((1..=refreshes).contains(&proofs), "{lines:?}");
        assert!(lines.iter().all(|line| line != "GET /apps/"), "{lines:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn only_name_in_use_disappears_once_its_application_has_left_a_registry_without_deltas() {
    let has_left = Arc::new(AtomicBool::new(false));
    let left = has_left.clone();
    let registry = Scripted::new(move |asked| match left.load(Ordering::Relaxed) {
        true => listed(asked, &fleet()[4..], false),
        false => listed(asked, &fleet(), false),
    });
    let client = registry.client().interest(Interest::Used).build().unwrap();
    let _stream = client.discover(Selection::app("orders")).unwrap();
    sleep(2 * REFRESH).await;
    has_left.store(true, Ordering::Relaxed);
    sleep(5 * REFRESH).await;
    assert_eq!(ids(&client, Selection::app("orders")).len(), 4, "they are held at first");
    sleep(Duration::from_secs(1200)).await;
    assert_eq!(ids(&client, Selection::app("orders")), [""; 0]);
    assert!(client.status().error().is_none(), "{}", client.status());
}

#[tokio::test(start_paused = true)]
async fn application_is_found_at_the_server_behind_one_that_responds_with_404() {
    for selection in [Selection::name("orders"), Selection::app("orders"), Selection::vip("orders")] {
        let registry = Scripted::new(|asked| match &*asked.host {
            "wrong" => Reply::Status(404),
            _ => listed(asked, &fleet(), true),
        });
        let client = Eureka::builder().service_url("http://wrong/,http://registry/eureka").interest(Interest::Used);
        let client = client.shuffle_servers(false).http_service(registry).build().unwrap();
        let _stream = client.discover(selection.clone()).unwrap();
        sleep(SOON).await;
        assert_eq!(ids(&client, selection.clone()).len(), 4, "{selection:?}");
        assert!(client.status().error().is_none(), "{selection:?}: {}", client.status());
    }
}
