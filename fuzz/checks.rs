//! What must hold for any bytes: nothing panics, and what was read is written in a form that reads the same.
//!
//! Shared by the fuzz targets and by the test that replays their corpus.
#![allow(dead_code, reason = "each target uses one")]
#![allow(clippy::unwrap_used, reason = "these are assertions")]

use axum::body::Body;
use http::{Method, Request, StatusCode};
use http_body_util::BodyExt;
use tower::ServiceExt;
use tower_eureka::model::{Applications, ReplicationList, ReplicationResponse};
use tower_eureka::{EurekaServer, Instance};

/// `{"instance": {...}}`
pub(crate) fn instance(data: &[u8]) {
    let Ok(instance) = Instance::from_json(data) else { return };
    let json = instance.to_json();
    assert_eq!(Instance::from_json(&json).expect("what is written can be read"), instance);
}

/// `{"applications": {...}}`
pub(crate) fn applications(data: &[u8]) {
    let Ok(applications) = Applications::from_json(data) else { return };
    let json = applications.to_json();
    assert_eq!(Applications::from_json(&json).expect("what is written can be read"), applications);
}

/// `{"replicationList": [...]}`
pub(crate) fn batch(data: &[u8]) {
    let Ok(list) = ReplicationList::from_json(data) else { return };
    let json = list.to_json();
    assert_eq!(ReplicationList::from_json(&json).expect("what is written can be read"), list);
}

/// `{"responseList": [...]}`
pub(crate) fn batch_reply(data: &[u8]) {
    let Ok(reply) = ReplicationResponse::from_json(data) else { return };
    let json = reply.to_json();
    assert_eq!(ReplicationResponse::from_json(&json).expect("what is written can be read"), reply);
}

/// `<instance>` and `<applications>`
#[cfg(feature = "xml")]
pub(crate) fn xml(data: &[u8]) {
    if let Ok(instance) = Instance::from_xml(data) {
        Instance::from_xml(&instance.to_xml()).expect("what is written can be read");
    }
    if let Ok(applications) = Applications::from_xml(data) {
        Applications::from_xml(&applications.to_xml()).expect("what is written can be read");
    }
}

/// A request line, `METHOD target`, sent to a registry that has one instance.
pub(crate) fn query(data: &[u8]) {
    let Ok(line) = std::str::from_utf8(data) else { return };
    let Some((method, target)) = line.split_once(' ') else { return };
    let Ok(method) = Method::from_bytes(method.as_bytes()) else { return };
    let Ok(request) = Request::builder().method(method).uri(target).body(Body::empty()) else { return };
    send(request);
}

/// A body and its headers, `Content-Type|Content-Encoding|body`, posted as a registration and as a batch.
pub(crate) fn body(data: &[u8]) {
    let mut parts = data.splitn(3, |&byte| byte == b'|');
    let (Some(media_type), Some(encoding), Some(body)) = (parts.next(), parts.next(), parts.next()) else { return };
    for path in ["/apps/ORDERS", "/peerreplication/batch"] {
        let request = Request::post(path).header("content-type", media_type).header("content-encoding", encoding);
        let Ok(request) = request.body(Body::from(body.to_vec())) else { return };
        send(request);
    }
}

/// Whatever was asked, the registry answers with a status of the protocol and can list itself afterwards.
fn send(request: Request<Body>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    runtime.block_on(async {
        let server = EurekaServer::builder().build().unwrap();
        let router = server.router();
        let known = Instance::builder("orders").id("i").host_name("h").ip_addr("10.0.0.1").port(80).build().unwrap();
        let register = Request::post("/apps/ORDERS").header("content-type", "application/json");
        let registered = router.clone().oneshot(register.body(Body::from(known.to_json())).unwrap()).await.unwrap();
        assert_eq!(registered.status(), StatusCode::NO_CONTENT);

        let response = router.clone().oneshot(request).await.unwrap();
        // The protocol has 500 for parameters that cannot be read; it is no fault of ours.
        assert!(response.status().as_u16() <= 500, "{}", response.status());
        response.into_body().collect().await.unwrap();

        let all = Request::get("/apps").header("accept", "application/json").body(Body::empty()).unwrap();
        let all = router.oneshot(all).await.unwrap().into_body().collect().await.unwrap().to_bytes();
        assert_eq!(Applications::from_json(&all).expect("the registry lists itself").applications.len(), {
            server.applications().applications.len()
        });
    });
}
