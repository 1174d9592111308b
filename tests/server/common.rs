//! Requests to a registry without a socket.

use std::io::{Read, Write};
use std::ops::Range;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::response::Response;
use http::header::{ACCEPT, CONTENT_TYPE};
use http::{Method, Request, StatusCode};
use http_body_util::BodyExt;
use tower::ServiceExt;
use tower_eureka::model::Applications;
use tower_eureka::server::{EurekaServerBuilder, Eviction};
use tower_eureka::{EurekaServer, Instance};

pub(crate) const ORDERS: &str = "/eureka/apps/ORDERS";
pub(crate) const ORDER_1: &str = "/eureka/apps/ORDERS/h:orders:1";

pub(crate) struct Server {
    pub(crate) registry: EurekaServer,
    pub(crate) router: Router,
}

/// Returns a request whose body and response are JSON.
pub(crate) fn request(method: &str, path: &str) -> http::request::Builder {
    Request::builder()
        .method(Method::from_bytes(method.as_bytes()).unwrap())
        .uri(path)
        .header(CONTENT_TYPE, "application/json")
        .header(ACCEPT, "application/json")
}

impl Server {
    pub(crate) fn new() -> Self {
        Self::built(EurekaServer::builder())
    }

    pub(crate) fn built(builder: EurekaServerBuilder) -> Self {
        let registry = builder.build().unwrap();
        let router = Router::new().nest("/eureka", registry.router());
        Self { registry, router }
    }

    /// Creates a server with one instance of ORDERS: UP, version 100.
    pub(crate) async fn with_order() -> Self {
        let server = Self::new();
        assert_eq!(server.post(ORDERS, document("h:orders:1", "UP", 100)).await.status(), StatusCode::NO_CONTENT);
        server
    }

    pub(crate) async fn send(&self, request: Request<Body>) -> Response {
        self.router.clone().oneshot(request).await.unwrap()
    }

    pub(crate) async fn empty(&self, method: &str, path: &str) -> Response {
        self.send(request(method, path).body(Body::empty()).unwrap()).await
    }

    pub(crate) async fn post(&self, path: &str, body: impl Into<Body>) -> Response {
        self.send(request("POST", path).body(body.into()).unwrap()).await
    }

    /// Sends a request that is refused, and asserts that it changes nothing. Returns the text of
    /// the response.
    pub(crate) async fn refuses(&self, status: StatusCode, request: Request<Body>) -> String {
        let what = format!("{} {}", request.method(), request.uri());
        let (before, delta) = (self.registry.applications(), self.delta().await);
        let response = self.send(request).await;
        assert_eq!(response.status(), status, "{what}");
        assert_eq!((self.registry.applications(), self.delta().await), (before, delta), "{what} left a trace");
        text(response).await
    }

    pub(crate) async fn delta(&self) -> Applications {
        Applications::from_json(&bytes(self.empty("GET", "/eureka/apps/delta").await).await).unwrap()
    }

    pub(crate) fn order(&self) -> Instance {
        self.registry.instance("ORDERS", "h:orders:1").expect("ORDERS is registered")
    }
}

pub(crate) fn document(id: &str, status: &str, dirty: i64) -> String {
    format!(
        r#"{{"instance":{{"instanceId":"{id}","hostName":"h","app":"ORDERS","ipAddr":"10.0.0.1","status":"{status}",
        "vipAddress":"orders,shop","secureVipAddress":"safe","lastDirtyTimestamp":"{dirty}",
        "dataCenterInfo":{{"@class":"com.netflix.appinfo.InstanceInfo$DefaultDataCenterInfo","name":"MyOwn"}}}}}}"#
    )
}

/// Lets one minute pass, in which these instances send heartbeats.
pub(crate) async fn minute(server: &Server, instances: Range<usize>) {
    for _ in 0..2 {
        for n in instances.clone() {
            server.empty("PUT", &format!("{ORDERS}/i-{n}")).await;
        }
        tokio::time::sleep(Duration::from_secs(30)).await;
    }
}

/// Creates a server with ten instances of ORDERS, which evicts every 10 seconds.
pub(crate) async fn ten(eviction: Eviction) -> Server {
    let server = Server::built(EurekaServer::builder().eviction(eviction.interval(Duration::from_secs(10))));
    for n in 0..10 {
        server.post(ORDERS, document(&format!("i-{n}"), "UP", 1)).await;
    }
    server
}

pub(crate) async fn bytes(response: Response) -> Vec<u8> {
    response.into_body().collect().await.unwrap().to_bytes().into()
}

pub(crate) async fn text(response: Response) -> String {
    String::from_utf8(bytes(response).await).unwrap()
}

pub(crate) fn gzip(text: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(text).unwrap();
    encoder.finish().unwrap()
}

pub(crate) fn gunzip(bytes: &[u8]) -> Vec<u8> {
    let mut plain = Vec::new();
    flate2::read::GzDecoder::new(bytes).read_to_end(&mut plain).unwrap();
    plain
}
