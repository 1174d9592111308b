mod actions;

use axum::body::Body;
use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode};
use http_body_util::BodyExt;
use std::time::Duration;
use tower::ServiceExt;

use crate::EurekaServer;
use crate::model::{Instance, InstanceStatus, app_name};
use crate::server::Eviction;
use crate::server::outcome::Origin;

const BROWSER: &str = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8";
const PAYLOADS: &str = include_str!("payloads.txt");

/// Returns an instance whose names may be those of a hostile client.
fn instance(app: &str, id: &str) -> Instance {
    let mut instance = Instance::builder("x").id("x").host_name("h").ip_addr("10.0.0.1").port(80).build().unwrap();
    (instance.app, instance.instance_id) = (app_name(app), Some(id.into()));
    instance
}

fn register(server: &EurekaServer, instance: Instance) {
    server.registry().register(instance, Origin::Client, server.now()).unwrap();
}

fn server() -> EurekaServer {
    EurekaServer::builder().build().unwrap()
}

async fn send(server: &EurekaServer, request: Request<Body>) -> (StatusCode, HeaderMap, String) {
    let response = server.service("/eureka").with_probes().with_page().oneshot(request).await.unwrap();
    let (head, body) = response.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    (head.status, head.headers, String::from_utf8(body.to_vec()).unwrap())
}

async fn get(server: &EurekaServer, uri: &str) -> (StatusCode, HeaderMap, String) {
    send(server, Request::get(uri).header("accept", BROWSER).body(Body::empty()).unwrap()).await
}

#[tokio::test]
async fn root_is_the_page_for_browsers_and_the_probe_for_others() {
    let server = server();
    register(&server, instance("orders", "orders-1"));
    let (status, headers, html) = get(&server, "/").await;
    assert_eq!((status, headers["content-type"].to_str().unwrap()), (StatusCode::OK, "text/html; charset=utf-8"));
    for words in [
        "System Status",
        "DS Replicas",
        "Instances currently registered with Eureka",
        "General Info",
        "Instance Info",
        "Renews threshold",
        "Renews (last min)",
        "Lease expiration enabled",
        "Last 1000 since startup",
        "orders-1",
        "UP (1)",
    ] {
        assert!(html.contains(words), "{words}: {html}");
    }
    for accept in ["*/*", "application/json", "text/html;q=0, */*", ""] {
        let request = Request::get("/").header("accept", accept).body(Body::empty()).unwrap();
        let (status, _, text) = send(&server, request).await;
        assert!(status == StatusCode::OK && text.contains("open for traffic"), "{accept}: {status} {text}");
    }
    let (status, _, _) = send(&server, Request::post("/").body(Body::empty()).unwrap()).await;
    assert_eq!(status, StatusCode::METHOD_NOT_ALLOWED);
    assert_eq!(get(&server, "/eureka/apps/ORDERS").await.0, StatusCode::OK);
}

#[tokio::test]
async fn dashboard_settings_move_the_page_or_leave_it_out() {
    let built = |pairs: &[(&str, &str)]| {
        let builder = pairs.iter().fold(EurekaServer::builder(), |b, (name, value)| b.property(name, value).unwrap());
        builder.build().unwrap()
    };
    let without = built(&[("eureka.dashboard.enabled", "false")]);
    assert!(get(&without, "/").await.2.contains("open for traffic"));
    assert_eq!(get(&without, "/lastn").await.0, StatusCode::NOT_FOUND);
    let moved = built(&[("eureka.dashboard.path", "ops/eureka/"), ("eureka.environment", "<prod>")]);
    let (status, _, html) = get(&moved, "/ops/eureka/").await;
    assert!(status == StatusCode::OK && html.contains("&#60;prod&#62;") && html.contains("href=\"page/style.css\""));
    assert_eq!(get(&moved, "/ops/eureka/lastn").await.0, StatusCode::OK);
    let (status, headers, _) = get(&moved, "/ops/eureka").await;
    assert_eq!((status, headers["location"].to_str().unwrap()), (StatusCode::SEE_OTHER, "eureka/"));
    assert!(get(&moved, "/").await.2.contains("open for traffic"));
    for bad in ["/a b", "/{x}", "/a//b", "/ü"] {
        let error = EurekaServer::builder().property("eureka.dashboard.path", bad).unwrap_err().to_string();
        assert!(error.contains("a path such as /dashboard"), "{error}");
    }
}

#[tokio::test]
async fn every_response_has_the_content_security_policy() {
    let server = server();
    for uri in ["/", "/?status=GONE", "/lastn", "/page/instance", "/page/style.css", "/page/script.js", "/page/live"] {
        let request = Request::get(uri).header("accept", BROWSER).body(Body::empty()).unwrap();
        let response = server.service("/eureka").with_page().oneshot(request).await.unwrap();
        let policy = response.headers()["content-security-policy"].to_str().unwrap();
        assert!(policy.starts_with("default-src 'none'; ") && !policy.contains("unsafe"), "{uri}: {policy}");
        assert_eq!(response.headers()["x-content-type-options"], "nosniff", "{uri}");
    }
    let (_, headers, script) = get(&server, "/page/script.js").await;
    assert!(!script.is_empty());
    let request = Request::get("/page/script.js").header("if-none-match", &headers["etag"]);
    assert_eq!(send(&server, request.body(Body::empty()).unwrap()).await.0, StatusCode::NOT_MODIFIED);
}

/// Returns an instance with the payload in every field that a client chooses.
fn hostile(payload: &str) -> Instance {
    let mut instance = instance(payload, payload);
    instance.metadata.extend([("zone", payload), ("version", payload), (payload, payload)]);
    (instance.host_name, instance.ip_addr) = (Some(payload.into()), Some(payload.into()));
    let text = Some(payload.into());
    (instance.home_page_url, instance.status_page_url) = (text.clone(), text.clone());
    (instance.health_check_url, instance.secure_health_check_url) = (text.clone(), text.clone());
    (instance.app_group, instance.asg_name) = (text.clone(), text.clone());
    (instance.vip_address, instance.secure_vip_address) = (text.clone(), text);
    instance
}

#[tokio::test]
async fn hostile_values_are_text_on_every_page() {
    let payloads: Vec<&str> = PAYLOADS.lines().collect();
    assert!(payloads.len() >= 40);
    let server = server();
    for payload in &payloads {
        register(&server, hostile(payload));
    }
    let (_, _, plain) = get(&self::server(), "/").await;
    let (_, _, list) = get(&server, "/").await;
    let (_, _, last) = get(&server, "/lastn").await;
    let mut pages = vec![(list, plain.matches("<script").count()), (last, 0)];
    for payload in &payloads {
        let app = app_name(payload);
        let (status, _, html) = get(&server, &format!("/page/instance?{}", super::text::query_of(&app, payload))).await;
        assert_eq!(status, StatusCode::OK, "{payload}");
        pages.push((html, 0));
        let query = format!("/?q={}", super::text::parameter(payload));
        pages.push((get(&server, &query).await.2, 1));
        let query = format!("/?status={}", super::text::parameter(payload));
        pages.push((get(&server, &query).await.2, 0));
        let query = format!("/page/instance?{}x", super::text::query_of(&app, payload));
        pages.push((get(&server, &query).await.2, 0));
    }
    for (page, scripts) in pages {
        let lower = page.to_lowercase();
        assert_eq!(lower.matches("<script").count(), scripts, "{page}");
        for tag in ["<img", "<svg", "<iframe", "<object", "<embed", "<base", "<style", "<video", "<math", "<!--"] {
            assert!(!lower.contains(tag), "{tag}: {page}");
        }
        for tag in page.split('<').skip(1).filter_map(|rest| rest.split_once('>')).map(|(tag, _)| tag) {
            // Every second part is the value of an attribute.
            for (at, part) in tag.split('"').enumerate() {
                if at % 2 == 0 {
                    assert!(!part.contains(" on"), "handler: {tag}");
                } else if tag.split('"').nth(at - 1).is_some_and(|name| name.ends_with("href=")) {
                    let is_known = ["page/", "../", "./", "lastn", "instance?", "http", "#main", "data:image/", "?q="];
                    assert!(is_known.iter().any(|start| part.starts_with(start)), "link: {tag}");
                }
            }
        }
    }
}

#[tokio::test]
async fn invisible_characters_are_visible_and_secrets_are_masked() {
    let server = server();
    let mut with = instance("orders", "a\u{202e}b\nc");
    with.metadata.extend([("user.password", "hunter2"), ("url", "http://u:hunter3@h/")]);
    register(&server, with);
    let (status, _, html) = get(&server, "/page/instance?app=orders&id=a%E2%80%AEb%0Ac").await;
    assert_eq!(status, StatusCode::OK);
    assert!(html.contains("a\\u{202e}b\\nc") && html.contains("***") && !html.contains("hunter"), "{html}");
}

#[tokio::test]
async fn search_shows_the_matching_instances_only() {
    let server = server();
    for id in ["a-1", "a-2", "b-1"] {
        register(&server, instance("orders", id));
    }
    server.registry().set_override("ORDERS", "a-2", InstanceStatus::OutOfService, None, server.now());
    for (query, shown) in
        [("q=a-", [true, true, false]), ("status=OUT_OF_SERVICE", [false, true, false]), ("q=none", [false; 3])]
    {
        let (_, _, html) = get(&server, &format!("/?{query}")).await;
        assert_eq!(["a-1", "a-2", "b-1"].map(|id| html.contains(&format!(">{id}</a>"))), shown, "{query}");
    }
    let (_, _, html) = get(&server, "/?page=99").await;
    assert!(
        html.contains("There is no page 99: the list has 1.") && !html.contains("No instances available"),
        "{html}"
    );
    // The search in the browser looks at the same names, also at those that no column shows.
    let (_, _, html) = get(&server, "/?q=10.0.0.1").await;
    assert!(html.contains("data-text=\"ORDERS\na-1\nh:80\n10.0.0.1\nUP\n\""), "{html}");
    let (status, _, html) = get(&server, "/?status=GONE").await;
    assert!(status == StatusCode::BAD_REQUEST && html.contains("use one of DOWN"), "{html}");
}

#[tokio::test]
async fn compressed_page_equals_the_plain_one() {
    let server = server();
    register(&server, instance("orders", "orders-1"));
    let request = Request::get("/").header("accept", BROWSER).header("accept-encoding", "gzip, br");
    let service = server.service("/eureka").with_page();
    let last = Request::get("/lastn").header("accept-encoding", "gzip").body(Body::empty()).unwrap();
    let last = service.clone().oneshot(last).await.unwrap();
    assert_eq!(last.headers()["content-encoding"], "gzip");
    let response = service.clone().oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
    assert_eq!(response.headers()["content-encoding"], "gzip");
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    let mut text = String::new();
    std::io::Read::read_to_string(&mut flate2::read::GzDecoder::new(&bytes[..]), &mut text).unwrap();
    let request = Request::get("/").header("accept", BROWSER).body(Body::empty()).unwrap();
    let plain = service.oneshot(request).await.unwrap().into_body().collect().await.unwrap().to_bytes();
    assert_eq!(text.as_bytes(), plain);
}

/// Streams of one page, as dashboards open them.
struct Dashboards(axum::Router);

impl Dashboards {
    async fn position(&self) -> String {
        let request = Request::get("/").body(Body::empty()).unwrap();
        let html = self.0.clone().oneshot(request).await.unwrap().into_body().collect().await.unwrap().to_bytes();
        let html = String::from_utf8(html.to_vec()).unwrap();
        html.split("data-position=\"").nth(1).unwrap().split('"').next().unwrap().to_owned()
    }

    async fn open(&self, position: &str) -> Body {
        let request = Request::get(format!("/page/live?since={position}")).body(Body::empty()).unwrap();
        let response = self.0.clone().oneshot(request).await.unwrap();
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        response.into_body()
    }
}

async fn event(body: &mut Body) -> Option<Bytes> {
    let next = tokio::time::timeout(Duration::from_secs(60), body.frame()).await.expect("an event or the end");
    next.map(|frame| frame.unwrap().into_data().unwrap())
}

fn text(bytes: &Bytes) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[tokio::test(start_paused = true)]
async fn change_reaches_every_dashboard_within_a_second_and_is_rendered_once() {
    let server = server();
    register(&server, instance("orders", "a"));
    let page = Dashboards(server.page());
    let position = page.position().await;
    let mut dashboards = Vec::new();
    for _ in 0..10_000 {
        let mut body = page.open(&position).await;
        assert!(text(&event(&mut body).await.unwrap()).contains("event: open"));
        dashboards.push(body);
    }
    // The status is sent once, since it has not been sent before.
    for body in &mut dashboards {
        assert!(text(&event(body).await.unwrap()).contains("System Status"));
    }
    register(&server, instance("orders", "b<i>"));
    let changed = tokio::time::Instant::now();
    let first = event(&mut dashboards[0]).await.unwrap();
    assert!(changed.elapsed() <= Duration::from_secs(1));
    let shown = text(&first);
    assert!(shown.contains("b&#60;i&#62;") && shown.contains("UP (2)") && !shown.contains("orders-a"), "{shown}");
    for body in &mut dashboards[1..] {
        let other = event(body).await.unwrap();
        assert_eq!(other.as_ptr(), first.as_ptr(), "all dashboards share the bytes");
    }
}

#[tokio::test(start_paused = true)]
async fn dashboard_that_is_behind_or_from_another_run_loads_the_page_again() {
    let server = server();
    register(&server, instance("orders", "a"));
    let page = Dashboards(server.page());
    let position = page.position().await;
    for known in ["", "x", "0.0", "ffffffff.1", "zz.zz"] {
        let mut body = page.open(known).await;
        assert!(text(&event(&mut body).await.unwrap()).contains("event: reload"), "{known}");
        assert!(event(&mut body).await.is_none());
    }
    // A change between the page and its stream is sent after the connection.
    register(&server, instance("orders", "b"));
    tokio::time::sleep(Duration::from_secs(2)).await;
    let mut body = page.open(&position).await;
    assert!(text(&event(&mut body).await.unwrap()).contains("event: open"));
    assert!(text(&event(&mut body).await.unwrap()).contains("app=ORDERS&id=b"));
    // Too many changes for one event.
    for id in 0..300 {
        register(&server, instance("orders", &format!("many-{id}")));
    }
    let change = text(&event(&mut body).await.unwrap());
    assert!(change.contains("\"reload\":") && !change.contains("many-"), "{change}");
}

#[tokio::test(start_paused = true)]
async fn stream_ends_after_half_a_minute_and_nobody_keeps_the_task() {
    let server = server();
    let page = Dashboards(server.page());
    let position = page.position().await;
    let mut body = page.open(&position).await;
    let opened = tokio::time::Instant::now();
    let mut last = String::new();
    while let Some(bytes) = event(&mut body).await {
        last = text(&bytes);
    }
    assert!(last.contains("event: end") && opened.elapsed() <= Duration::from_secs(31), "{last}");
    drop(body);
    tokio::time::sleep(Duration::from_secs(120)).await;
    // The position of a page from before the pause cannot be continued.
    register(&server, instance("orders", "a"));
    let mut body = page.open(&position).await;
    assert!(text(&event(&mut body).await.unwrap()).contains("event: reload"));
}

#[tokio::test(start_paused = true)]
async fn stream_ends_when_the_last_listener_stops() {
    let server = server();
    let page = Dashboards(server.page());
    let [main, management] = [(), ()].map(|()| server.state.unsent().closing());
    let position = page.position().await;
    let mut body = page.open(&position).await;
    event(&mut body).await.unwrap();
    drop(main);
    assert!(text(&event(&mut body).await.unwrap()).contains("System Status"));
    drop(management);
    let stopped = tokio::time::Instant::now();
    assert!(text(&event(&mut body).await.unwrap()).contains("event: end"));
    assert!(event(&mut body).await.is_none() && stopped.elapsed() < Duration::from_secs(1));
    // Otherwise the dashboard would be connected again at once, and again.
    let response = page.0.clone().oneshot(Request::get("/page/live").body(Body::empty()).unwrap()).await.unwrap();
    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(response.headers()["retry-after"], "10");
    let _next = server.state.unsent().closing();
    let mut body = page.open(&position).await;
    assert!(text(&event(&mut body).await.unwrap()).contains("event: open"), "a listener serves again");
}

#[cfg(feature = "peers")]
#[tokio::test(start_paused = true)]
async fn stream_ends_when_the_server_leaves() {
    let server = server();
    let page = Dashboards(server.page());
    let position = page.position().await;
    let mut body = page.open(&position).await;
    event(&mut body).await.unwrap();
    server.leave(Duration::from_secs(1)).await;
    let left = tokio::time::Instant::now();
    while event(&mut body).await.is_some() {}
    assert!(left.elapsed() < Duration::from_secs(1));
}

#[tokio::test(start_paused = true)]
async fn self_preservation_is_shown_from_its_beginning_to_its_end() {
    let server = server();
    for id in 0..10 {
        register(&server, instance("orders", &id.to_string()));
    }
    let renew_all = || {
        for id in 0..10 {
            server.registry().renew("ORDERS", &id.to_string(), None, Origin::Client, server.now());
        }
    };
    let beat = async |minutes: u32, renews: bool| {
        for _ in 0..4 * minutes {
            if renews {
                renew_all();
            }
            tokio::time::sleep(Duration::from_secs(15)).await;
        }
    };
    beat(3, true).await;
    let (_, _, html) = get(&server, "/").await;
    assert!(html.contains("Self-preservation does not hold") && !html.contains("EMERGENCY"), "{html}");
    beat(6, false).await;
    let (_, _, html) = get(&server, "/").await;
    assert!(html.contains("EMERGENCY! EUREKA MAY BE INCORRECTLY CLAIMING"), "{html}");
    assert!(html.contains("10 expired leases are kept") && html.contains("Self-preservation has held for"), "{html}");
    let (_, _, html) = get(&server, "/page/instance?app=ORDERS&id=3").await;
    assert!(html.contains("Self-preservation keeps it"), "{html}");
    beat(3, true).await;
    let (_, _, html) = get(&server, "/").await;
    assert!(html.contains("Self-preservation does not hold") && !html.contains("EMERGENCY"), "{html}");
}

#[tokio::test(start_paused = true)]
async fn dashboard_learns_which_applications_are_preserved_and_which_instances_sent_no_heartbeat() {
    let server = server();
    for id in ["a", "b"] {
        register(&server, instance("orders", id));
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    server.registry().renew("ORDERS", "b", None, Origin::Client, server.now());
    let page = Dashboards(server.page());
    let html = get(&server, "/").await.2;
    let of_row = |id: &str| {
        html.split(&format!("<tr data-key=\"app=ORDERS&#38;id={id}\"")).nth(1).unwrap().split("</tr>").next().unwrap()
    };
    assert!(of_row("a").contains(">none yet<") && !of_row("a").contains("data-beat"), "{html}");
    assert!(of_row("b").contains("data-beat=\"0\""), "{html}");
    let mut body = page.open(&page.position().await).await;
    let mut seen = Vec::new();
    // The stream ends within half a minute.
    while let Some(bytes) = event(&mut body).await {
        let text = text(&bytes);
        let data = text.lines().find_map(|line| line.strip_prefix("data: ")).unwrap().to_owned();
        seen.push(serde_json::from_str::<serde_json::Value>(&data).unwrap());
    }
    let kept: Vec<_> = seen.iter().filter_map(|data| data.get("kept")).collect();
    let all = serde_json::json!({"apps": true, "marked": false});
    assert!(kept.iter().all(|kept| **kept == all) && kept.len() > 2, "no heartbeats were counted: {seen:?}");
    let beats = seen.iter().find_map(|data| data.get("beats")).unwrap()["ORDERS"].as_array().unwrap();
    assert!(beats[0].is_null() && beats[1].is_i64() && beats[2].is_i64() && beats[3].is_i64(), "{beats:?}");
}

#[tokio::test(start_paused = true)]
async fn page_and_health_agree_about_self_preservation_between_two_eviction_runs() {
    let eviction = Eviction::new().interval(Duration::from_secs(300));
    let server = EurekaServer::builder().eviction(eviction).build().unwrap();
    for id in 0..10 {
        register(&server, instance("orders", &id.to_string()));
    }
    // Never at the end of a minute, when heartbeats are counted while the page is rendered.
    tokio::time::sleep(Duration::from_secs(7)).await;
    for seconds in (15..=1_200).step_by(15) {
        if seconds <= 400 {
            (0..10).for_each(|id| {
                server.registry().renew("ORDERS", &id.to_string(), None, Origin::Client, server.now());
            });
        }
        tokio::time::sleep(Duration::from_secs(15)).await;
        let (_, _, html) = get(&server, "/").await;
        let (_, _, health) = get(&server, "/actuator/health/selfPreservation").await;
        let (_, _, status) = get(&server, "/eureka/status").await;
        let is_active = html.contains("Self-preservation holds") || html.contains("Self-preservation has held");
        assert_eq!(health.contains(r#""state":"active""#), is_active, "{seconds}: {health} {html}");
        assert_eq!(status.contains(">active<"), is_active, "{seconds}: {status}");
    }
}
