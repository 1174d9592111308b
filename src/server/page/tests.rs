use axum::body::Body;
use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode};
use http_body_util::BodyExt;
use std::time::Duration;
use tower::ServiceExt;

use crate::EurekaServer;
use crate::model::{Instance, InstanceStatus, app_name};
use crate::server::Eviction;
use crate::server::access::{Access, Role};
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
    let (status, _, html) = get(&server, "/?status=GONE").await;
    assert!(status == StatusCode::BAD_REQUEST && html.contains("use one of DOWN"), "{html}");
}

#[tokio::test]
async fn compressed_page_equals_the_plain_one() {
    let server = server();
    register(&server, instance("orders", "orders-1"));
    let request = Request::get("/").header("accept", BROWSER).header("accept-encoding", "gzip, br");
    let service = server.service("/eureka").with_page();
    let response = service.clone().oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
    assert_eq!(response.headers()["content-encoding"], "gzip");
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    let mut text = String::new();
    std::io::Read::read_to_string(&mut flate2::read::GzDecoder::new(&bytes[..]), &mut text).unwrap();
    let request = Request::get("/").header("accept", BROWSER).body(Body::empty()).unwrap();
    let plain = service.oneshot(request).await.unwrap().into_body().collect().await.unwrap().to_bytes();
    assert_eq!(text.as_bytes(), plain);
}

/// Opens the page of an instance as a browser does. Returns the cookie and the token of the forms.
async fn open(server: &EurekaServer, uri: &str) -> (String, String) {
    let (_, headers, html) = get(server, uri).await;
    let cookie = headers["set-cookie"].to_str().unwrap().to_owned();
    assert!(cookie.contains("HttpOnly; SameSite=Lax"), "{cookie}");
    let token = html.split("name=\"token\" value=\"").nth(1).unwrap().split('"').next().unwrap().to_owned();
    (cookie.split(';').next().unwrap().to_owned(), token)
}

/// Returns a request with a form, as another program would send it.
fn act(uri: &str) -> http::request::Builder {
    Request::post(uri).header("host", "registry:8761").header("content-type", "application/x-www-form-urlencoded")
}

#[tokio::test]
async fn operator_takes_an_instance_out_of_service_and_back_and_cancels_it() {
    let server = server();
    register(&server, instance("orders", "o/1"));
    let uri = "/page/instance?app=ORDERS&id=o%2F1";
    let (cookie, token) = open(&server, uri).await;
    let status = || server.instance("ORDERS", "o/1").map(|instance| instance.status());
    for (action, expected, location) in [
        ("out_of_service", Some(InstanceStatus::OutOfService), "instance?app=ORDERS&id=o%2F1&done=out_of_service"),
        ("back", Some(InstanceStatus::Unknown), "instance?app=ORDERS&id=o%2F1&done=back"),
        ("cancel", None, "../lastn"),
    ] {
        let body = format!("token={token}&action={action}");
        let request = act(uri).header("cookie", &cookie).header("origin", "http://registry:8761");
        let (code, headers, text) = send(&server, request.body(Body::from(body)).unwrap()).await;
        assert_eq!((code, headers["location"].to_str().unwrap()), (StatusCode::SEE_OTHER, location), "{text}");
        assert_eq!(status(), expected, "{action}");
    }
    let (_, _, last) = get(&server, "/lastn").await;
    assert!(last.contains("ORDERS(o/1)") && last.contains("cancelled"), "{last}");
    let request = act(uri).header("cookie", &cookie).header("origin", "http://registry:8761");
    let (code, _, text) = send(&server, request.body(Body::from(format!("token={token}&action=back"))).unwrap()).await;
    assert!(code == StatusCode::NOT_FOUND && text.contains("ORDERS has no instance o/1"), "{text}");
}

/// Applies an action as a browser does. Returns the page that it leads to.
async fn apply(server: &EurekaServer, uri: &str, action: &str) -> String {
    let (cookie, token) = open(server, uri).await;
    let request = act(uri).header("cookie", &cookie).header("origin", "http://registry:8761");
    let body = Body::from(format!("token={token}&action={action}"));
    let (code, headers, text) = send(server, request.body(body).unwrap()).await;
    assert_eq!(code, StatusCode::SEE_OTHER, "{text}");
    get(server, &format!("/page/{}", headers["location"].to_str().unwrap())).await.2
}

#[tokio::test]
async fn instance_that_is_put_back_has_the_status_that_it_reports() {
    use InstanceStatus::{Down, OutOfService, Starting, Up};
    let uri = "/page/instance?app=ORDERS&id=i";
    for (before, reports) in [(Up, Up), (Up, Down), (Down, Down), (Starting, Up), (Up, OutOfService)] {
        let server = server();
        let with = |status| Instance { status, ..instance("orders", "i") };
        register(&server, with(before));
        let html = apply(&server, uri, "out_of_service").await;
        assert!(html.contains("The override OUT_OF_SERVICE is set"), "{html}");
        register(&server, with(reports));
        let html = apply(&server, uri, "back").await;
        let status = || server.instance("ORDERS", "i").unwrap().status();
        assert_eq!(status(), InstanceStatus::Unknown, "{before} {reports}: it did not register since");
        assert!(html.contains("The instance has no override"), "{html}");
        // Until then its heartbeats would not change the status.
        let renewal = server.registry().renew("ORDERS", "i", None, Origin::Client, server.now());
        assert_eq!(renewal, crate::server::outcome::Renewal::NotFound);
        register(&server, with(reports));
        assert_eq!(status(), reports, "{before}");
    }
}

#[tokio::test]
async fn instance_that_is_kept_out_of_service_without_an_override_can_be_set_up() {
    let server = server();
    let uri = "/page/instance?app=ORDERS&id=i";
    register(&server, Instance { status: InstanceStatus::OutOfService, ..instance("orders", "i") });
    register(&server, instance("orders", "i"));
    let status = || server.instance("ORDERS", "i").unwrap().status();
    for action in ["back", "out_of_service"] {
        let html = apply(&server, uri, action).await;
        assert!(html.contains("Nothing was changed") && html.contains(">Set UP<"), "{html}");
        assert_eq!(status(), InstanceStatus::OutOfService);
    }
    let html = apply(&server, uri, "up").await;
    assert!(html.contains("The override UP is set") && !html.contains(">Set UP<"), "{html}");
    assert_eq!(status(), InstanceStatus::Up);
}

#[tokio::test]
async fn address_with_an_action_that_was_not_done_shows_no_message() {
    let server = server();
    register(&server, instance("orders", "i"));
    for action in ["out_of_service", "cancel"] {
        let (_, _, html) = get(&server, &format!("/page/instance?app=ORDERS&id=i&done={action}")).await;
        assert!(!html.contains("class=\"done\""), "{html}");
    }
    for action in ["back", "up"] {
        let (_, _, html) = get(&server, &format!("/page/instance?app=ORDERS&id=i&done={action}")).await;
        assert!(!html.contains("deleted") && !html.contains(" is set"), "{html}");
    }
}

#[tokio::test]
async fn form_of_another_site_or_without_the_token_changes_nothing() {
    let server = server();
    register(&server, instance("orders", "i"));
    let uri = "/page/instance?app=ORDERS&id=i";
    let (cookie, token) = open(&server, uri).await;
    let good = format!("token={token}&action=cancel");
    let own = ("origin", "http://registry:8761");
    type Case<'a> = (&'a [(&'a str, &'a str)], &'a str, StatusCode);
    let cases: [Case<'_>; 9] = [
        (&[("cookie", &cookie), ("origin", "http://evil.example")], &good, StatusCode::FORBIDDEN),
        (&[("cookie", &cookie), ("origin", "null")], &good, StatusCode::FORBIDDEN),
        (&[("cookie", &cookie), own, ("sec-fetch-site", "cross-site")], &good, StatusCode::FORBIDDEN),
        (&[("cookie", &cookie)], &good, StatusCode::FORBIDDEN),
        (&[own], &good, StatusCode::FORBIDDEN),
        (&[("cookie", &cookie), own], "action=cancel", StatusCode::FORBIDDEN),
        (&[("cookie", &cookie), own], "token=00000000000000000000000000000000&action=cancel", StatusCode::FORBIDDEN),
        (&[("cookie", &cookie), own], &good.replace("cancel", "explode"), StatusCode::BAD_REQUEST),
        (&[("cookie", &cookie), own], &"x".repeat(5_000), StatusCode::PAYLOAD_TOO_LARGE),
    ];
    for (headers, body, expected) in cases {
        let request = headers.iter().fold(act(uri), |request, (name, value)| request.header(*name, *value));
        let (code, _, text) = send(&server, request.body(Body::from(body.to_owned())).unwrap()).await;
        assert_eq!(code, expected, "{headers:?} {body} {text}");
        assert!(text.contains("cannot change the instance: "), "{text}");
    }
    let request = Request::post(uri).header("content-type", "text/plain").body(Body::from(good)).unwrap();
    assert_eq!(send(&server, request).await.0, StatusCode::UNSUPPORTED_MEDIA_TYPE);
    assert_eq!(server.instance("ORDERS", "i").unwrap().status(), InstanceStatus::Up);
}

#[tokio::test]
async fn only_operators_of_a_locked_registry_have_forms_and_act() {
    let access =
        Access::new().token("reader", "reader-token", [Role::Read]).token("ops", "operator-token", [Role::Operate]);
    let server = EurekaServer::builder().access(access).build().unwrap();
    register(&server, instance("orders", "i"));
    let uri = "/page/instance?app=ORDERS&id=i";
    let token = "0123456789abcdef0123456789abcdef";
    let good = format!("token={token}&action=out_of_service");
    for (authorization, seen, changed) in [
        ("Bearer reader-token", (StatusCode::OK, false), StatusCode::FORBIDDEN),
        ("", (StatusCode::UNAUTHORIZED, false), StatusCode::UNAUTHORIZED),
        ("Bearer operator-token", (StatusCode::OK, true), StatusCode::SEE_OTHER),
    ] {
        let request = Request::get(uri).header("accept", BROWSER).header("authorization", authorization);
        let (status, headers, html) = send(&server, request.body(Body::empty()).unwrap()).await;
        assert_eq!((status, html.contains("<form")), seen, "{authorization}: {html}");
        assert_eq!(headers.contains_key("set-cookie"), seen.1, "{authorization}");
        assert_eq!(html.contains("You may look at this instance"), seen == (StatusCode::OK, false), "{html}");
        let up = server.instance("ORDERS", "i").unwrap().status();
        assert_eq!(up, InstanceStatus::Up, "nothing changed before {authorization}");
        let cookie = format!("tower-eureka-page={token}");
        let request = act(uri).header("authorization", authorization).header("cookie", cookie);
        let request = request.header("origin", "http://registry:8761").body(Body::from(good.clone())).unwrap();
        assert_eq!(send(&server, request).await.0, changed, "{authorization}");
    }
    assert_eq!(server.instance("ORDERS", "i").unwrap().status(), InstanceStatus::OutOfService);
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
async fn page_and_health_agree_about_self_preservation_between_two_eviction_runs() {
    let eviction = Eviction::new().interval(Duration::from_secs(300));
    let server = EurekaServer::builder().eviction(eviction).build().unwrap();
    for id in 0..10 {
        register(&server, instance("orders", &id.to_string()));
    }
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
