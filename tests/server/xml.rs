//! The registry's HTTP face in XML, for clients of other languages.

use axum::body::Body;
use axum::response::Response;
use http::header::{ACCEPT, ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_TYPE};
use http::{Request, StatusCode};
use tower_eureka::model::{Application, Applications, InstanceStatus};
use tower_eureka::server::Limits;
use tower_eureka::{EurekaServer, Instance};

use crate::common::{ORDER_1, ORDERS, Server, bytes, document, gunzip, gzip, text};

const GATEWAY: &str = "/eureka/apps/GATEWAY";
const REGISTER_FARGO: &str = include_str!("../fixtures/xml/x2_register_fargo.xml");

/// A request without `Accept`, as many clients of other languages send.
fn request(method: &str, path: &str) -> http::request::Builder {
    Request::builder().method(method).uri(path).header(CONTENT_TYPE, "application/xml")
}

async fn post(server: &Server, body: impl Into<Body>) -> Response {
    server.send(request("POST", GATEWAY).body(body.into()).unwrap()).await
}

async fn get(server: &Server, path: &str) -> Response {
    let response = server.send(Request::get(format!("/eureka/{path}")).body(Body::empty()).unwrap()).await;
    assert_eq!(response.status(), StatusCode::OK, "{path}");
    assert_eq!(response.headers()[CONTENT_TYPE], "application/xml", "{path}");
    response
}

#[tokio::test]
async fn an_instance_of_fargo_lives_and_leaves() {
    let server = Server::new();
    assert_eq!(post(&server, REGISTER_FARGO).await.status(), StatusCode::NO_CONTENT);
    let gateway = server.registry.instance("gateway", "gw-7").unwrap();
    assert_eq!((gateway.status(), gateway.port().number), (InstanceStatus::Up, 9090));
    assert!(gateway.last_dirty_timestamp().unwrap() > 0, "the server's clock, where the client names no time");
    let read = Instance::from_xml(&bytes(get(&server, "apps/GATEWAY/gw-7").await).await).unwrap();
    assert_eq!(read, gateway);
    let beat = || request("PUT", "/eureka/apps/GATEWAY/gw-7").body(Body::empty()).unwrap();
    let response = server.send(beat()).await;
    assert_eq!((response.status(), text(response).await), (StatusCode::OK, String::new()));
    let cancel = Request::delete("/eureka/apps/GATEWAY/gw-7").body(Body::empty()).unwrap();
    assert_eq!(server.send(cancel).await.status(), StatusCode::OK);
    let response = server.send(beat()).await;
    assert_eq!((response.status(), text(response).await), (StatusCode::NOT_FOUND, String::new()));
}

#[tokio::test]
async fn lists_contain_registered_instances() {
    let server = Server::with_order().await;
    post(&server, REGISTER_FARGO).await;
    let all = bytes(get(&server, "apps").await).await;
    assert_eq!(all, server.registry.applications().to_xml());
    assert!(all.starts_with(
        b"<applications>\n  <versions__delta>1</versions__delta>\n  <apps__hashcode>UP_2_</apps__hashcode>"
    ));
    let one = bytes(get(&server, "apps/gateway").await).await;
    assert_eq!(Application::from_xml(&one).unwrap(), *server.registry.applications().applications[0]);
    let delta = Applications::from_xml(&bytes(get(&server, "apps/delta").await).await).unwrap();
    assert_eq!((delta.len(), delta.hash.as_deref()), (2, Some("UP_2_")));
    for (path, found) in [("vips/gateway", 1), ("svips/safe", 1), ("vips/nobody", 0)] {
        let listed = Applications::from_xml(&bytes(get(&server, path).await).await).unwrap();
        assert_eq!((listed.len(), listed.version), (found, Some(-1)), "{path}");
    }
    for path in ["apps", "apps/delta", "apps/GATEWAY", "vips/gateway"] {
        for compact in ["full", "compact"] {
            let asked = |encoding| {
                let asked = Request::get(format!("/eureka/{path}")).header("x-eureka-accept", compact);
                server.send(asked.header(ACCEPT_ENCODING, encoding).body(Body::empty()).unwrap())
            };
            let (plain, zipped) = (bytes(asked("identity").await).await, asked("gzip, deflate").await);
            assert_eq!(zipped.headers()[CONTENT_ENCODING], "gzip", "{path}");
            assert_eq!(gunzip(&bytes(zipped).await), plain, "{path}");
            let plain = String::from_utf8(plain).unwrap();
            assert_eq!(plain.contains("<zone>"), compact == "full", "{path}");
            assert_eq!(plain.contains('\n'), compact == "full", "{path}");
        }
    }
}

#[tokio::test]
async fn a_single_instance_shows_its_real_status() {
    let server = Server::with_order().await;
    let put = Request::put(format!("{ORDER_1}/status?value=OUT_OF_SERVICE")).body(Body::empty()).unwrap();
    assert_eq!(server.send(put).await.status(), StatusCode::OK);
    for path in ["apps/ORDERS/h:orders:1", "instances/h:orders:1", "v1/instances/h:orders:1", "apps"] {
        let answer = text(get(&server, path).await).await;
        assert!(answer.contains("<status>OUT_OF_SERVICE</status>"), "{path}: {answer}");
    }
}

#[tokio::test]
async fn a_replica_with_older_data_gets_ours_in_the_format_it_takes() {
    let server = Server::with_order().await;
    for (accept, xml) in [(Some("application/json"), false), (Some("*/*"), true), (None, true)] {
        let mut beat =
            Request::put(format!("{ORDER_1}?lastDirtyTimestamp=99")).header("x-netflix-discovery-replication", "true");
        if let Some(accept) = accept {
            beat = beat.header(ACCEPT, accept);
        }
        let response = server.send(beat.body(Body::empty()).unwrap()).await;
        assert_eq!(response.status(), StatusCode::CONFLICT);
        let body = bytes(response).await;
        let ours = if xml { Instance::from_xml(&body) } else { Instance::from_json(&body) };
        assert_eq!(ours.unwrap(), server.order(), "{accept:?}");
    }
}

#[tokio::test]
async fn registration_is_validated_in_javas_order() {
    let server = Server::with_order().await;
    let unreadable = "<error><message>cannot parse request body</message></error>";
    for (from, to, expected) in [
        ("<ipAddr>10.20.3.7</ipAddr>", "<ipAddr></ipAddr>", "Missing ip address"),
        ("<hostName>gw-7.corp.example</hostName>", "<hostName/>", "Missing hostname"),
        ("<app>GATEWAY</app>", "<app></app>", "Missing appName"),
        ("<app>GATEWAY</app>", "<app>other</app>", "Mismatched appName, expecting GATEWAY but was OTHER"),
        ("<name>MyOwn</name>", "", "Missing dataCenterInfo"),
        ("<app>GATEWAY</app>", "", unreadable),
        ("<name>MyOwn</name>", "<name>Moon</name>", unreadable),
        ("<countryId>0</countryId>", "<countryId>x</countryId>", unreadable),
        (">9090<", ">http<", unreadable),
    ] {
        let body = REGISTER_FARGO.replacen(from, to, 1);
        assert_ne!(body, REGISTER_FARGO, "{from} is in it");
        let refused = request("POST", GATEWAY).body(body.into()).unwrap();
        assert_eq!(server.refuses(StatusCode::BAD_REQUEST, refused).await, expected, "{to}");
    }
}

#[tokio::test]
async fn unreadable_body_returns_400() {
    let server = Server::built(EurekaServer::builder().limits(Limits::new().gzip_requests(true)));
    let bomb = (1..20).fold(String::from("<!DOCTYPE x [<!ENTITY e0 'ha'>"), |bomb, i| {
        format!("{bomb}<!ENTITY e{i} '&e{};&e{};'>", i - 1, i - 1)
    }) + "]><instance><app>&e19;</app></instance>";
    let bodies: [Vec<u8>; 8] = [
        "".into(),
        "{}".into(),
        REGISTER_FARGO[..REGISTER_FARGO.len() - 5].into(),
        REGISTER_FARGO.replace("gw-7", "&unknown;").into(),
        bomb.into(),
        "<a>".repeat(300_000).into(),
        format!("<instance><metadata>{}", "<a>".repeat(1000)).into(),
        [b"<instance><app>\xff</app></instance>".as_slice()].concat(),
    ];
    for body in &bodies {
        let start = String::from_utf8_lossy(&body[..body.len().min(60)]).into_owned();
        for kind in ["application/xml", "application/xml; charset=utf-8", "text/xml"] {
            let refused = Request::post(GATEWAY).header(CONTENT_TYPE, kind).body(body.clone().into()).unwrap();
            let before = server.registry.applications();
            let response = server.send(refused).await;
            assert_eq!(response.status(), StatusCode::BAD_REQUEST, "{start}");
            assert_eq!(response.headers()[CONTENT_TYPE], "application/xml", "{start}");
            assert_eq!(text(response).await, "<error><message>cannot parse request body</message></error>", "{start}");
            assert_eq!(server.registry.applications(), before);
        }
    }
    let large = format!("{REGISTER_FARGO}{}", " ".repeat(1024 * 1024));
    for body in [large.clone().into_bytes(), gzip(large.as_bytes())] {
        let mut refused = request("POST", GATEWAY);
        if body[0] != b'<' {
            refused = refused.header(CONTENT_ENCODING, "gzip");
        }
        server.refuses(StatusCode::PAYLOAD_TOO_LARGE, refused.body(body.into()).unwrap()).await;
    }
}

#[tokio::test]
async fn one_bad_instance_does_not_spoil_the_list() {
    let server = Server::with_order().await;
    let bad = document("h:orders:2", "UP", 1)
        .replace("\"vipAddress\"", r#""metadata":{"a:b c":"x\u0001\ud83d\ude00","":"empty","<&>":"]]>"},"vipAddress""#);
    assert_eq!(server.post(ORDERS, bad).await.status(), StatusCode::NO_CONTENT);
    let all = Applications::from_xml(&bytes(get(&server, "apps").await).await).unwrap();
    let metadata = all.applications[0].instances[1].metadata().clone();
    assert_eq!(metadata.iter().collect::<Vec<_>>(), [("<&>", "]]>"), ("a:b c", "x\u{fffd}\u{1f600}")]);
}

#[tokio::test]
async fn gzip_and_latin1_bodies_are_decoded() {
    let server = Server::built(EurekaServer::builder().limits(Limits::new().gzip_requests(true)));
    let zipped = request("POST", GATEWAY).header(CONTENT_ENCODING, "gzip");
    let zipped = zipped.body(gzip(REGISTER_FARGO.as_bytes()).into()).unwrap();
    assert_eq!(server.send(zipped).await.status(), StatusCode::NO_CONTENT);
    let latin: Vec<u8> = REGISTER_FARGO.replace("gw-7<", "fr\u{e9}d<").chars().map(|c| c as u8).collect();
    let latin = Request::post(GATEWAY).header(CONTENT_TYPE, "application/xml;charset=ISO-8859-1").body(latin.into());
    assert_eq!(server.send(latin.unwrap()).await.status(), StatusCode::NO_CONTENT);
    assert!(server.registry.instance("GATEWAY", "fr\u{e9}d").is_some());
}

#[tokio::test]
async fn the_server_tells_of_itself() {
    let server = Server::new();
    let status = text(get(&server, "status").await).await;
    let root = "com.netflix.eureka.util.StatusInfo";
    assert!(
        status.starts_with(&format!("<{root}>\n  <generalStats>\n    <server-uptime>00:00</server-uptime>")),
        "{status}"
    );
    assert!(status.ends_with(&format!("\n  </applicationStats>\n</{root}>")), "{status}");
}
