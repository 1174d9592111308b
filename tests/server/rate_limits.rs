//! Rate limits: Java's on fetches, and the one of an address.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use http::header::RETRY_AFTER;
use http::{Request, StatusCode};
use tokio::time::sleep;
use tower::ServiceExt;
use tower_eureka::EurekaServer;
use tower_eureka::server::{Access, RateLimits, Role};

use crate::log::Log;

const SECOND: Duration = Duration::from_secs(1);

/// Registry as a router and as a service, which have to respond alike.
struct Limited(EurekaServer);

impl Limited {
    fn new(limits: RateLimits) -> [Self; 2] {
        [(); 2].map(|()| Self(EurekaServer::builder().rate_limits(limits.clone()).build().unwrap()))
    }

    /// Sends requests and returns the number of those that are not refused.
    async fn passed(&self, routed: bool, count: usize, method: &str, path: &str, name: &str, from: &str) -> usize {
        let mut passed = 0;
        for _ in 0..count {
            let address = SocketAddr::new(from.parse::<IpAddr>().unwrap(), 4_000);
            let request = Request::builder().method(method).uri(format!("/eureka{path}"));
            let request = request.header("discoveryidentity-name", name).header("accept", "application/json");
            let request = request.extension(ConnectInfo(address)).body(Body::empty()).unwrap();
            let response = if routed {
                Router::new().nest("/eureka", self.0.router()).oneshot(request).await.unwrap()
            } else {
                self.0.service("/eureka").oneshot(request).await.unwrap()
            };
            match response.status() {
                StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => {
                    assert_eq!(response.headers()[RETRY_AFTER], "1");
                }
                _ => passed += 1,
            }
        }
        passed
    }
}

#[tokio::test(start_paused = true)]
async fn fetches_beyond_the_rate_get_503_unless_the_client_is_privileged() {
    let limits = RateLimits::new().enabled(true).burst(5).fetch_rate(2).full_fetch_rate(1);
    for (server, routed) in Limited::new(limits).iter().zip([true, false]) {
        let passed =
            async |count, method, path, name| server.passed(routed, count, method, path, name, "10.0.0.1").await;
        assert_eq!(passed(20, "GET", "/apps", "DefaultClient").await, 20, "{routed}");
        assert_eq!(passed(20, "GET", "/apps/delta", "other").await, 5, "{routed}");
        assert_eq!(passed(20, "GET", "/apps/ORDERS", "other").await, 0, "{routed}");
        for (method, path) in [("PUT", "/apps/ORDERS/1"), ("GET", "/apps/ORDERS/1"), ("GET", "/vips/orders")] {
            assert_eq!(passed(20, method, path, "other").await, 20, "{routed} {method} {path}");
        }
        sleep(SECOND).await;
        assert_eq!(passed(20, "GET", "/v2/apps/", "other").await, 2, "{routed}");
    }
    let limits = RateLimits::new().enabled(true).burst(5).throttle_standard_clients(true);
    let [server, _] = Limited::new(limits);
    assert_eq!(server.passed(false, 20, "GET", "/apps", "DefaultClient", "10.0.0.1").await, 5);
}

#[tokio::test(start_paused = true)]
async fn address_beyond_its_rate_gets_429_and_no_other_does() {
    let (log, _guard) = Log::start(tracing::Level::INFO);
    for (server, routed) in Limited::new(RateLimits::new().per_address(1)).iter().zip([true, false]) {
        let passed = async |count, method, from| server.passed(routed, count, method, "/apps/A/1", "", from).await;
        assert_eq!(passed(30, "PUT", "10.0.0.1").await, 10, "{routed}");
        assert_eq!(passed(5, "GET", "::ffff:10.0.0.1").await, 0, "the same address {routed}");
        assert_eq!(passed(5, "DELETE", "10.0.0.2").await, 5, "{routed}");
        assert_eq!(passed(10, "PUT", "2001:db8::1").await, 10, "{routed}");
        assert_eq!(passed(5, "PUT", "2001:db8::2").await, 0, "the same network {routed}");
        assert_eq!(passed(5, "PUT", "2001:db8:0:1::1").await, 5, "{routed}");
        sleep(3 * SECOND).await;
        assert_eq!(passed(5, "PUT", "10.0.0.1").await, 3, "{routed}");
    }
    let lines = log.lines(&["WARN", "too many requests from an address", "address=10.0.0.1"]);
    assert_eq!(lines.len(), 2, "one of each registry: {}", log.text());
}

#[tokio::test(start_paused = true)]
async fn fetches_without_credentials_take_no_token_and_count_for_their_address() {
    let limits = RateLimits::new().enabled(true).burst(5).fetch_rate(1).per_address(10).address_burst(20);
    for routed in [true, false] {
        let access = Access::new().token("reader", "0123456789", [Role::Read]);
        let server = EurekaServer::builder().rate_limits(limits.clone()).access(access).build().unwrap();
        let status = async |path: &str, token: &str, from: [u8; 4]| {
            let request = Request::get(path).header("accept", "application/json").header("authorization", token);
            let request = request.extension(ConnectInfo(SocketAddr::from((from, 4_000)))).body(Body::empty()).unwrap();
            let response = if routed {
                Router::new().nest("/eureka", server.router()).oneshot(request).await
            } else {
                server.service("/eureka").with_probes().oneshot(request).await
            };
            response.unwrap().status().as_u16()
        };
        let wrong = "Bearer 987654321";
        for n in 0..20 {
            assert_eq!(status("/eureka/apps", wrong, [10, 0, 0, 1]).await, 401, "{routed} {n}");
        }
        assert_eq!(status("/eureka/apps", wrong, [10, 0, 0, 1]).await, 429, "{routed}");
        for (n, expected) in [200; 5].into_iter().chain([503]).enumerate() {
            let right = "Bearer 0123456789";
            assert_eq!(status("/eureka/apps/delta", right, [10, 0, 0, 2]).await, expected, "{routed} {n}");
        }
        if !routed {
            assert_eq!(status("/actuator/info", wrong, [10, 0, 0, 1]).await, 429, "also outside the registry");
            assert_eq!(status("/health", "", [10, 0, 0, 1]).await, 200, "health is exempt");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn management_listener_limits_each_address() {
    let server = EurekaServer::builder().rate_limits(RateLimits::new().per_address(1)).build().unwrap();
    let status = async |path: &str| {
        let request = Request::get(path).extension(ConnectInfo(SocketAddr::from(([10, 0, 0, 1], 4_000))));
        server.management("/eureka").oneshot(request.body(Body::empty()).unwrap()).await.unwrap().status().as_u16()
    };
    for _ in 0..10 {
        assert_eq!(status("/actuator/info").await, 200);
    }
    assert_eq!(status("/actuator/info").await, 429);
    assert_eq!(status("/health").await, 200);
}

#[test]
fn settings_have_the_names_of_spring() {
    let set = |name: &str, value: &str| EurekaServer::builder().property(name, value);
    for (name, value) in [
        ("eureka.server.rate-limiter-enabled", "true"),
        ("eureka.server.rateLimiterThrottleStandardClients", "true"),
        ("eureka.server.rate-limiter-burst-size", "20"),
        ("eureka.server.rate-limiter-registry-fetch-average-rate", "100"),
        ("eureka.server.rate-limiter-full-fetch-average-rate", "10"),
        ("eureka.server.rate-limiter-privileged-clients", "a, b"),
        ("eureka.server.limits.requests-per-address", "50"),
    ] {
        assert!(set(name, value).unwrap().check().is_ok(), "{name}");
    }
    let zero = set("eureka.server.limits.requests-per-address", "0").unwrap().check().unwrap_err();
    assert!(zero.to_string().contains("must not be zero"), "{zero}");
    assert!(set("eureka.server.rate-limiter-burst-size", "many").is_err());
    assert!(set("eureka.server.rate-limiter-burst", "1").is_err());
}
