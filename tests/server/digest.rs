//! The header `eureka-digest`, as `docs/protocol-extensions.md` specifies it.

use axum::body::Body;
use axum::response::Response;
use http::StatusCode;
use tower_eureka::EurekaServer;
use tower_eureka::model::Applications;
use tower_eureka::server::EurekaServerBuilder;

use crate::common::{Server, bytes, document, gunzip, request};

/// The digest of a list, by the words of the specification.
pub(crate) fn digest(list: &Applications) -> String {
    let mut sum = 0u64;
    for application in &list.applications {
        for instance in &application.instances {
            let [port, secure] =
                [instance.port(), instance.secure_port()].map(|p| (p.number.to_string(), p.enabled.to_string()));
            let dirty = instance.last_dirty_timestamp().unwrap_or_default().max(0).to_string();
            let mut fields = vec![
                &*application.name,
                instance.id(),
                &dirty,
                instance.status().as_str(),
                instance.overridden_status().as_str(),
                instance.host_name().unwrap_or_default(),
                instance.ip_addr().unwrap_or_default(),
                &port.0,
                &port.1,
                &secure.0,
                &secure.1,
                instance.vip_address().unwrap_or_default(),
                instance.secure_vip_address().unwrap_or_default(),
            ];
            fields.extend(instance.metadata().iter().flat_map(|(key, value)| [key, value]));
            let bytes = fields.iter().flat_map(|field| field.bytes().chain([0xff]));
            let mut hash = bytes
                .fold(0xcbf2_9ce4_8422_2325u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3));
            hash = (hash ^ hash >> 33).wrapping_mul(0xff51_afd7_ed55_8ccd);
            hash = (hash ^ hash >> 33).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
            sum = sum.wrapping_add(hash ^ hash >> 33);
        }
    }
    format!("v1={sum:016x}")
}

fn header(response: &Response) -> Option<String> {
    response.headers().get("eureka-digest").map(|value| value.to_str().unwrap().to_owned())
}

async fn get(server: &Server, path: &str, encoding: &str) -> (Option<String>, Applications) {
    let request = request("GET", &format!("/eureka/{path}")).header("accept-encoding", encoding);
    let response = server.send(request.body(Body::empty()).unwrap()).await;
    let (digest, body) = (header(&response), bytes(response).await);
    let body = if encoding == "gzip" { gunzip(&body) } else { body };
    let list = match tower_eureka::model::Application::from_json(&body) {
        Ok(application) => Applications { applications: vec![application.into()], ..Applications::default() },
        Err(_) => Applications::from_json(&body).unwrap(),
    };
    (digest, list)
}

async fn check_every_list(builder: EurekaServerBuilder) {
    let server = Server::built(builder);
    fastrand::seed(7);
    for _ in 0..100 {
        let id = format!("h:orders:{}", fastrand::u8(..6));
        let path = format!("/eureka/apps/ORDERS/{id}");
        match fastrand::u8(..5) {
            0 => drop(server.empty("DELETE", &path).await),
            1 => drop(server.empty("PUT", &format!("{path}/status?value=OUT_OF_SERVICE")).await),
            2 => drop(server.empty("PUT", &format!("{path}/metadata?a=b&%40class=x&z={}", fastrand::u8(..))).await),
            3 => drop(server.empty("PUT", &path).await),
            _ => drop(server.post("/eureka/apps/ORDERS", document(&id, "UP", fastrand::i64(-5..1000))).await),
        }
        for encoding in ["identity", "gzip"] {
            let (full, list) = get(&server, "apps", encoding).await;
            assert_eq!(full.as_ref(), Some(&digest(&list)), "{encoding}");
            for path in ["vips/orders", "svips/safe", "vips/nobody"] {
                let (header, list) = get(&server, path, encoding).await;
                assert_eq!(header, Some(digest(&list)), "{path} {encoding}");
            }
            let (header, _) = get(&server, "apps/delta", encoding).await;
            assert!(header.is_some());
            if !list.applications.is_empty() {
                let (header, list) = get(&server, "apps/ORDERS", encoding).await;
                assert_eq!(header, Some(digest(&list)), "apps/ORDERS {encoding}");
            }
        }
    }
}

#[tokio::test]
async fn each_list_has_the_digest_of_what_it_shows() {
    check_every_list(EurekaServer::builder().read_only_cache(false)).await;
}

#[tokio::test(start_paused = true)]
async fn cached_list_has_the_digest_of_what_it_shows() {
    check_every_list(EurekaServer::builder().read_only_cache(true)).await;
}

#[tokio::test]
async fn delta_has_the_digest_of_the_whole_registry() {
    let server = Server::built(EurekaServer::builder().read_only_cache(false));
    for (number, id) in ["a", "b", "a", "c"].into_iter().enumerate() {
        server.post("/eureka/apps/ORDERS", document(id, "UP", number as i64 + 1)).await;
        assert_eq!(get(&server, "apps/delta", "gzip").await.0, get(&server, "apps", "gzip").await.0);
    }
    server.empty("DELETE", "/eureka/apps/ORDERS/a").await;
    let (delta, full) = (get(&server, "apps/delta", "identity").await, get(&server, "apps", "identity").await);
    assert_eq!(delta.0, full.0);
    assert_ne!(delta.0, Some(digest(&delta.1)), "it shows what left as well");
}

#[tokio::test]
async fn list_that_cannot_show_everything_has_no_digest() {
    let server = Server::with_order().await;
    for (name, value) in [("x-eureka-accept", "compact"), ("accept", "application/xml")] {
        let mut request = request("GET", "/eureka/apps");
        request.headers_mut().unwrap().remove(name);
        let response = server.send(request.header(name, value).body(Body::empty()).unwrap()).await;
        assert_eq!(
            (response.status() == StatusCode::OK, header(&response)),
            (cfg!(feature = "xml") || name != "accept", None)
        );
    }
}

#[tokio::test]
async fn heartbeat_keeps_the_digest() {
    let server = Server::with_order().await;
    let before = get(&server, "apps", "identity").await.0;
    assert_eq!(server.empty("PUT", crate::common::ORDER_1).await.status(), StatusCode::OK);
    assert_eq!(get(&server, "apps", "identity").await.0, before);
}
