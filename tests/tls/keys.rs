//! Keys of tokens that the access control fetches over HTTPS.

use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::routing::get;
use http::Request;
use tokio::time::timeout;
use tower::ServiceExt;
use tower_eureka::EurekaServer;
use tower_eureka::server::{Access, JwtKeys, Peers};

use crate::captured_log::Log;
use crate::world::{Ca, serve, server};

/// Maximum time for a fetch.
const LIMIT: Duration = Duration::from_secs(60);
const TOKENS: &str = include_str!("../../src/server/access/jwt/tokens.json");

/// Returns a registry that fetches its keys from this port, and trusts this authority.
fn registry(port: u16, trusted: &Ca, file: &str) -> EurekaServer {
    let access = Access::new().jwt(JwtKeys::url(format!("https://localhost:{port}/keys")));
    let peers = Peers::new().tls_ca_file(trusted.pem_file(file));
    EurekaServer::builder().access(access).peers(peers).build().unwrap()
}

async fn status(registry: &EurekaServer, token: &str) -> u16 {
    let all: serde_json::Value = serde_json::from_str(TOKENS).unwrap();
    let authorization = format!("Bearer {}", all["tokens"][token].as_str().unwrap());
    let request = Request::get("/apps").header("authorization", authorization).body(Body::empty()).unwrap();
    registry.router().oneshot(request).await.unwrap().status().as_u16()
}

async fn key_server(ca: &Ca) -> u16 {
    serve(server(ca.identity(&["localhost"])), Router::new().route("/keys", get(async || TOKENS))).await
}

#[tokio::test]
async fn keys_are_fetched_over_https_from_a_server_of_the_ca_of_peers() {
    let ca = Ca::new();
    let registry = registry(key_server(&ca).await, &ca, "keys-ca.pem");
    let fetched = async {
        while status(&registry, "valid ES256").await == 503 {
            tokio::task::yield_now().await;
        }
    };
    timeout(LIMIT, fetched).await.unwrap();
    assert_eq!(status(&registry, "valid ES256").await, 200);
    for refused in ["Algorithm none", "Expired", "UnknownKey", "Signature of another key"] {
        assert_eq!(status(&registry, refused).await, 401, "{refused}");
    }
}

#[tokio::test]
async fn keys_of_a_server_that_is_not_trusted_are_not_used() {
    let (log, _logging) = Log::start(tracing::Level::WARN);
    let (ca, other) = (Ca::new(), Ca::named("other"));
    let registry = registry(key_server(&other).await, &ca, "keys-other.pem");
    let why = "its certificate is of a CA that is not trusted here";
    let is_logged = |line: &str| line.contains("cannot fetch the keys of tokens") && line.contains(why);
    let refused = async {
        while !log.text().lines().any(is_logged) {
            tokio::task::yield_now().await;
        }
    };
    timeout(LIMIT, refused).await.unwrap();
    assert_eq!(status(&registry, "valid ES256").await, 503);
}
