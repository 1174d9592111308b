//! Tests of the access control as a whole, through the service of a registry.

mod ownership;

use std::net::SocketAddr;
use std::time::Duration;

use axum::body::Body;
use axum::extract::ConnectInfo;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use http::header::{AUTHORIZATION, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderMap, Request, StatusCode, Version};
use http_body_util::BodyExt;
use tower::ServiceExt;

use super::{Access, Identity, Role};
use crate::EurekaServer;
use crate::model::Instance;

const REPLICA: (&str, &str) = ("x-netflix-discovery-replication", "true");

struct Response {
    status: StatusCode,
    headers: HeaderMap,
    body: String,
}

/// Polls a request once. Returns true if it waits.
async fn waits(request: &mut (impl Future + Unpin)) -> bool {
    std::future::poll_fn(|cx| std::task::Poll::Ready(std::pin::Pin::new(&mut *request).poll(cx).is_pending())).await
}

fn basic(user: &str, password: &str) -> String {
    format!("Basic {}", BASE64_STANDARD.encode(format!("{user}:{password}")))
}

fn registration(app: &str, id: &str) -> Body {
    let instance = Instance::builder(app).id(id).host_name("h").ip_addr("10.0.0.1").port(80).build().unwrap();
    Body::from(instance.to_json())
}

/// Sends `METHOD path` with an `Authorization` header and further headers. A POST registers an
/// instance `i` of the application in the path.
async fn send(server: &EurekaServer, line: &str, authorization: &str, more: &[(&str, &str)]) -> Response {
    let (method, path) = line.split_once(' ').unwrap();
    let mut request = Request::builder().method(method).uri(path).header("content-type", "application/json");
    if !authorization.is_empty() {
        request = request.header(AUTHORIZATION, authorization);
    }
    for (name, value) in more {
        request = request.header(*name, *value);
    }
    let body = match path.split_once("/apps/") {
        Some((_, app)) if method == "POST" => registration(app, "i"),
        _ => Body::empty(),
    };
    let mut request = request.body(body).unwrap();
    request.extensions_mut().insert(ConnectInfo("192.0.2.1:4000".parse::<SocketAddr>().unwrap()));
    respond(server, request).await
}

async fn respond(server: &EurekaServer, request: Request<Body>) -> Response {
    let response = server.service("/eureka").with_probes().oneshot(request).await.unwrap();
    let (parts, body) = response.into_parts();
    let body = String::from_utf8(body.collect().await.unwrap().to_bytes().to_vec()).unwrap();
    Response { status: parts.status, headers: parts.headers, body }
}

async fn status(server: &EurekaServer, line: &str, authorization: &str) -> u16 {
    send(server, line, authorization, &[]).await.status.as_u16()
}

fn locked() -> EurekaServer {
    let client = [Role::Read, Role::Register];
    let access = Access::new()
        .user("a", "pass-a", client)
        .user("b", "{noop}pass-b", client)
        .user("named", "pass-n", client)
        .applications("named", ["BILLING", "SHOP-*"])
        .user("operator", "pass-o", [Role::Operate])
        .user("peer", "pass-p", [Role::Peer])
        .token("reader", "0123456789", [Role::Read]);
    EurekaServer::builder().access(access).build().unwrap()
}

#[tokio::test(start_paused = true)]
async fn caller_without_or_with_wrong_credentials_gets_401_and_changes_nothing() {
    let server = locked();
    let lines =
        ["GET /eureka/apps", "POST /eureka/apps/ORDERS", "PUT /eureka/apps/ORDERS/i", "DELETE /eureka/apps/ORDERS/i"];
    for line in lines {
        let response = send(&server, line, "", &[]).await;
        assert_eq!(response.status, 401, "{line}");
        assert!(response.headers[WWW_AUTHENTICATE].to_str().unwrap().starts_with("Basic realm="), "{line}");
        if line.starts_with("PUT") {
            assert_eq!(response.body, "", "Jersey clients fail on a body");
        } else {
            assert_eq!(response.body, "credentials are required\n");
        }
    }
    for wrong in [
        basic("a", "pass-b"),
        basic("x", "pass-a"),
        basic("a", ""),
        "Basic x".into(),
        "Bearer 012345678".into(),
        "Bearer eyJhbGciOiJub25lIn0.eyJzdWIiOiJhIn0.".into(),
        "Digest x".into(),
    ] {
        assert_eq!(status(&server, "POST /eureka/apps/ORDERS", &wrong).await, 401, "{wrong}");
    }
    assert_eq!(server.applications().applications.len(), 0);
}

#[tokio::test(start_paused = true)]
async fn client_with_credentials_registers_renews_reads_and_cancels() {
    let server = locked();
    let a = basic("a", "pass-a");
    for (line, expected) in [
        ("POST /eureka/apps/ORDERS", 204),
        ("PUT /eureka/apps/orders/i", 200),
        ("PUT /eureka/apps/ORDERS/%69", 200),
        ("GET /eureka/apps", 200),
        ("GET /eureka/apps/delta", 200),
        ("GET /eureka/apps/ORDERS/i", 200),
        ("PUT /eureka/apps/ORDERS/i/metadata?k=v", 200),
        ("PUT /eureka/apps/ORDERS/i/status?value=OUT_OF_SERVICE", 200),
        ("DELETE /eureka/apps/ORDERS/i/status", 200),
        ("DELETE /eureka/apps/ORDERS/i", 200),
    ] {
        assert_eq!(status(&server, line, &a).await, expected, "{line}");
    }
}

#[tokio::test(start_paused = true)]
async fn application_belongs_to_its_first_identity_until_its_last_lease_ends() {
    let server = locked();
    let [a, b] = [basic("a", "pass-a"), basic("b", "pass-b")];
    assert_eq!(status(&server, "POST /eureka/apps/ORDERS", &a).await, 204);
    for line in [
        "POST /eureka/apps/ORDERS",
        "POST /eureka/v2/apps/orders",
        "PUT /eureka/apps/ORDERS/i",
        "PUT /eureka//apps/ORDERS/%69/",
        "DELETE /eureka/apps/ORDERS/i",
        "PUT /eureka/apps/ORDERS/i/status?value=DOWN",
        "DELETE /eureka/apps/ORDERS/i/status",
        "PUT /eureka/apps/ORDERS/i/metadata?k=v",
    ] {
        let response = send(&server, line, &b, &[]).await;
        assert_eq!(response.status, 403, "{line}");
        assert!(!response.body.contains("a registered it"), "the owner is not shown: {}", response.body);
    }
    assert_eq!(server.instance("ORDERS", "i").unwrap().status().as_str(), "UP");
    assert_eq!(status(&server, "PUT /eureka/apps/ORDERS/i", &a).await, 200);
    assert_eq!(status(&server, "DELETE /eureka/apps/ORDERS/i", &a).await, 200);
    assert_eq!(status(&server, "POST /eureka/apps/ORDERS", &b).await, 204);
    assert_eq!(status(&server, "POST /eureka/apps/ORDERS", &a).await, 403);
}

#[tokio::test(start_paused = true)]
async fn application_that_the_policy_names_is_for_its_identity_only() {
    let server = locked();
    let [a, named] = [basic("a", "pass-a"), basic("named", "pass-n")];
    for (line, who, expected) in [
        ("POST /eureka/apps/BILLING", &a, 403),
        ("POST /eureka/apps/SHOP-X", &a, 403),
        ("POST /eureka/apps/BILLING", &named, 204),
        ("POST /eureka/apps/shop-x", &named, 204),
        ("POST /eureka/apps/ORDERS", &named, 403),
        ("PUT /eureka/apps/BILLING/i", &a, 403),
        ("PUT /eureka/apps/BILLING/i", &named, 200),
    ] {
        assert_eq!(status(&server, line, who).await, expected, "{line}");
    }
}

#[tokio::test(start_paused = true)]
async fn roles_decide_about_operations() {
    let server = locked();
    let [a, operator, peer] = [basic("a", "pass-a"), basic("operator", "pass-o"), basic("peer", "pass-p")];
    let reader = "Bearer 0123456789".to_owned();
    assert_eq!(status(&server, "POST /eureka/apps/ORDERS", &a).await, 204);
    let (batch, set, cancel) = (
        "POST /eureka/peerreplication/batch/",
        "PUT /eureka/apps/ORDERS/i/status?value=DOWN",
        "DELETE /eureka/apps/ORDERS/i",
    );
    for (line, who, expected) in [
        ("GET /eureka/apps", &reader, 200),
        ("GET /eureka/status", &reader, 200),
        ("GET /", &reader, 200),
        ("POST /eureka/apps/X", &reader, 403),
        ("PUT /eureka/apps/ORDERS/i", &reader, 403),
        (set, &reader, 403),
        (batch, &reader, 403),
        ("GET /eureka/apps", &operator, 200),
        ("POST /eureka/apps/X", &operator, 403),
        (set, &operator, 200),
        (batch, &operator, 403),
        ("PUT /eureka/asg/x/status?value=ENABLED", &operator, 400),
        ("PUT /eureka/asg/x/status?value=ENABLED", &a, 403),
        (batch, &a, 403),
        ("GET /eureka/apps", &peer, 200),
        (batch, &peer, 400),
        (cancel, &operator, 200),
    ] {
        assert_eq!(status(&server, line, who).await, expected, "{line}");
    }
}

#[tokio::test(start_paused = true)]
async fn replicated_change_needs_the_role_peer() {
    let server = locked();
    let [a, peer] = [basic("a", "pass-a"), basic("peer", "pass-p")];
    assert_eq!(send(&server, "POST /eureka/apps/ORDERS", &a, &[REPLICA]).await.status, 403);
    assert_eq!(send(&server, "POST /eureka/apps/ORDERS", &peer, &[REPLICA]).await.status, 204);
    assert_eq!(send(&server, "PUT /eureka/apps/ORDERS/i", &a, &[REPLICA]).await.status, 403);
    assert_eq!(send(&server, "PUT /eureka/apps/ORDERS/i", &peer, &[REPLICA]).await.status, 200);
}

#[tokio::test(start_paused = true)]
async fn health_is_readable_without_credentials() {
    let server = locked();
    for path in ["/health", "/actuator/health", "/actuator/health/liveness", "/actuator/health/readiness/"] {
        assert_eq!(status(&server, &format!("GET {path}"), "").await, 200, "{path}");
    }
    for path in ["/", "/nothing", "/eureka", "/eureka/status", "/eureka/serverinfo/statusoverrides", "/eureka/nothing"]
    {
        assert_eq!(status(&server, &format!("GET {path}"), "").await, 401, "{path}");
    }
}

#[tokio::test(start_paused = true)]
async fn anonymous_has_its_roles_and_wrong_credentials_have_none() {
    let access = Access::new().user("a", "pass-a", [Role::Register]).anonymous([Role::Read]);
    let server = EurekaServer::builder().access(access).build().unwrap();
    assert_eq!(status(&server, "GET /eureka/apps", "").await, 200);
    assert_eq!(status(&server, "POST /eureka/apps/ORDERS", "").await, 401);
    assert_eq!(status(&server, "GET /eureka/apps", &basic("a", "wrong")).await, 401);
    assert_eq!(status(&server, "POST /eureka/apps/ORDERS", &basic("a", "pass-a")).await, 204);
    assert_eq!(status(&server, "GET /eureka/apps", &basic("a", "pass-a")).await, 403, "read is no part of register");
}

#[tokio::test(start_paused = true)]
async fn address_with_too_many_failures_gets_429_and_known_callers_go_on() {
    let server = locked();
    let a = basic("a", "pass-a");
    assert_eq!(status(&server, "POST /eureka/apps/ORDERS", &a).await, 204);
    for n in 0..10 {
        assert_eq!(status(&server, "GET /eureka/apps", &basic("a", &format!("wrong-{n}"))).await, 401);
    }
    let refused = send(&server, "GET /eureka/apps", &basic("a", "wrong"), &[]).await;
    assert_eq!((refused.status.as_u16(), refused.headers[RETRY_AFTER].to_str().unwrap()), (429, "6"));
    let right = basic("operator", "pass-o");
    assert_eq!(status(&server, "GET /eureka/apps", &right).await, 200, "one caller behind a proxy excludes no other");
    for n in 0..100 {
        status(&server, "GET /eureka/apps", &basic(&format!("user-{n}"), "wrong")).await;
    }
    assert_eq!(status(&server, "GET /eureka/apps", &basic("b", "pass-b")).await, 429, "also with right credentials");
    assert_eq!(status(&server, "PUT /eureka/apps/ORDERS/i", &a).await, 200, "its credentials are known");
    // The same wrong credentials count once.
    tokio::time::advance(Duration::from_secs(120)).await;
    for _ in 0..100 {
        assert_eq!(status(&server, "GET /eureka/apps", &basic("a", "wrong")).await, 401);
    }
    assert_eq!(status(&server, "GET /eureka/apps", &basic("b", "pass-b")).await, 200);
}

#[tokio::test(start_paused = true)]
async fn malformed_credentials_keep_no_log_in_out() {
    let server = locked();
    for n in 0..20 {
        for malformed in [&*format!("Digest {n}"), &format!("Basic {n}"), "Basic", &basic("a", "x")[..9]] {
            assert_eq!(status(&server, "GET /eureka/apps", malformed).await, 401, "{malformed}");
        }
        let two = send(&server, "GET /eureka/apps", "Bearer 0123456789", &[("authorization", "Bearer 0123456789")]);
        assert_eq!(two.await.status, 401);
    }
    assert_eq!(status(&server, "GET /eureka/apps", &basic("b", "pass-b")).await, 200);
}

#[tokio::test(start_paused = true)]
async fn router_inside_an_application_is_locked_and_takes_its_identities() {
    let server = locked();
    let router = || axum::Router::new().nest("/eureka", server.router());
    let request = |identity: Option<Identity>| {
        let mut request = Request::post("/eureka/apps/ORDERS")
            .header("content-type", "application/json")
            .body(registration("ORDERS", "i"))
            .unwrap();
        request.extensions_mut().extend(
            identity
                .map(|identity| {
                    let mut extensions = http::Extensions::new();
                    extensions.insert(identity);
                    extensions
                })
                .unwrap_or_default(),
        );
        request
    };
    let status = async |identity| router().oneshot(request(identity)).await.unwrap().status().as_u16();
    assert_eq!(status(None).await, 401);
    assert_eq!(status(Some(Identity::new("own", [Role::Read]))).await, 403);
    assert_eq!(status(Some(Identity::new("own", [Role::Register]).with_applications(["billing"]))).await, 403);
    assert_eq!(status(Some(Identity::new("own", [Role::Register]))).await, 204);
}

#[tokio::test(start_paused = true)]
async fn registry_without_access_control_is_open() {
    let server = EurekaServer::builder().build().unwrap();
    assert_eq!(status(&server, "POST /eureka/apps/ORDERS", "").await, 204);
    assert_eq!(status(&server, "GET /eureka/apps", "Basic nonsense").await, 200);
}

#[tokio::test(start_paused = true)]
async fn inserted_identity_without_access_control_is_refused_and_changes_nothing() {
    let server = EurekaServer::builder().build().unwrap();
    let router = || axum::Router::new().nest("/eureka", server.router());
    for line in ["POST /eureka/apps/ORDERS", "PUT /eureka/apps/ORDERS/i", "GET /eureka/apps", "GET /eureka/status"] {
        let request = || {
            let (method, path) = line.split_once(' ').unwrap();
            let request = Request::builder().method(method).uri(path).header("content-type", "application/json");
            let mut request = request.body(registration("ORDERS", "i")).unwrap();
            request.extensions_mut().insert(Identity::new("own", Role::ALL));
            request
        };
        let refused = respond(&server, request()).await;
        assert_eq!(refused.status, 500, "{line}");
        assert_eq!(refused.body.contains("EurekaServerBuilder::access"), !line.starts_with("PUT"), "{line}");
        assert_eq!(router().oneshot(request()).await.unwrap().status(), 500, "{line}");
    }
    assert_eq!(server.applications().applications.len(), 0);
    assert_eq!(status(&server, "POST /eureka/apps/ORDERS", "").await, 204, "others are not affected");
}

#[tokio::test(start_paused = true)]
async fn access_control_without_identities_lets_nobody_in() {
    let server = EurekaServer::builder().access(Access::new()).build().unwrap();
    assert_eq!(status(&server, "GET /eureka/apps", "").await, 401);
}

#[tokio::test(start_paused = true)]
async fn unusable_access_control_is_an_error_without_secrets() {
    let user = || Access::new().user("a", "hunter2", [Role::Read]);
    for (access, expected) in [
        (Access::new().user("a:b", "hunter2", [Role::Read]), "no colon"),
        (Access::new().user("a", "{pbkdf2}hunter2", [Role::Read]), "{pbkdf2} is not supported"),
        (Access::new().token("a", "hunter", [Role::Read]), "8 to 1024"),
        (Access::new().applications("a", ["ORDERS"]), "no such identity"),
        (user().applications("a", ["*-BILLING"]), "identity a is unusable: \"*-BILLING\" is no name"),
        (user().applications("a", ["SHOP*-API"]), "* stands at the end"),
        (user().applications("a", ["ORDERS", "SHOP-**"]), "* stands at the end"),
        (user().applications("a", ["ORDERS,BILLING"]), "a comma or a blank"),
        (user().applications("a", ["ORDERS BILLING"]), "a comma or a blank"),
        (user().applications("a", [""]), "is blank"),
        (user().applications("anonymous", ["ORDERS,BILLING"]), "anonymous is unusable: "),
        (user().applications("anonymous", ["*-BILLING"]), "* stands at the end"),
        (user().applications("anonymous", ["{}"]), "{} stands for"),
        (user().user("anonymous", "hunter3", [Role::Read]), "name of callers without credentials"),
        (Access::new().users_file("/nonexistent/users"), "cannot read the users in /nonexistent/users"),
    ] {
        let error = EurekaServer::builder().access(access).build().unwrap_err().to_string();
        assert!(error.contains(expected) && !error.contains("hunter"), "{error}");
    }
}

#[cfg(feature = "access")]
mod hashes {
    use super::super::password::Password;
    use super::super::pattern::Grant;
    use super::super::policy::{Credential, Policy, Row};
    use super::super::{Authentication, JwtKeys};
    use super::*;

    /// Argon2 hash of `secret` with small costs.
    fn hash() -> String {
        use argon2::{Algorithm, Argon2, Params, PasswordHasher, Version};
        let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, Params::new(64, 1, 1, None).unwrap());
        argon2.hash_password_with_salt(b"secret", b"somesaltsomesalt").unwrap().to_string()
    }

    #[tokio::test]
    async fn hashed_password_is_verified_off_the_runtime_and_remembered() {
        let access = Access::new().user("a", &hash(), [Role::Read]).user("plain", "pass", [Role::Read]);
        let server = EurekaServer::builder().access(access).build().unwrap();
        let control = server.state.access().unwrap().clone();
        let right = Request::get("/").header(AUTHORIZATION, basic("a", "secret")).body(()).unwrap();
        let now = || control.authenticate_now(right.headers(), right.extensions());
        assert!(matches!(now(), Authentication::Slow(_)));
        assert_eq!(status(&server, "GET /eureka/apps", &basic("a", "secret")).await, 200);
        assert!(matches!(now(), Authentication::Done(Ok(_))));
        assert_eq!(status(&server, "GET /eureka/apps", &basic("a", "wrong")).await, 401);
        assert_eq!(status(&server, "GET /eureka/apps", &basic("unknown", "secret")).await, 401);
        assert_eq!(status(&server, "GET /eureka/apps", &basic("plain", "pass")).await, 200);
    }

    #[tokio::test]
    async fn bodies_of_requests_that_wait_for_a_log_in_count_as_in_flight() {
        let access = || Access::new().user("a", &hash(), [Role::Register]);
        let limits = crate::server::Limits::new().batch_bytes(1024).registration_bytes(1024);
        let cases = [
            (60 * 1024, Version::HTTP_2, 503),
            (128 * 1024, Version::HTTP_2, 401),
            // The body stays in the connection.
            (60 * 1024, Version::HTTP_11, 401),
        ];
        for (budget, version, expected) in cases {
            let limits = limits.request_bytes_in_flight(budget);
            let server = EurekaServer::builder().access(access()).limits(limits).build().unwrap();
            let endless = futures_util::stream::once(async { Ok::<_, std::io::Error>("{") });
            let status = async |body: Body| {
                let request = Request::post("/eureka/apps/ORDERS").version(version);
                let request = request.header(AUTHORIZATION, basic("a", "wrong")).body(body).unwrap();
                server.service("/eureka").oneshot(request).await.unwrap().status()
            };
            assert_eq!(status(Body::from_stream(endless)).await, expected, "{budget} {version:?}");
            // A short body is charged for its length.
            assert_eq!(status(Body::from("{}")).await, 401, "{budget} {version:?}");
        }
    }

    #[tokio::test]
    async fn change_of_the_users_forgets_only_the_changed_ones() {
        let hash = hash();
        let row = |name: &str, role: Role| {
            let credential = Credential::Password(Password::parse(&hash).unwrap());
            Row { grant: Grant::new(name, [role].into_iter().collect(), ""), credential }
        };
        let access = Access::new().user("a", &hash, [Role::Read]).user("b", &hash, [Role::Read]);
        let server = EurekaServer::builder().access(access.token("t", "0123456789", [Role::Read])).build().unwrap();
        let control = server.state.access().unwrap().clone();
        let is_known = |authorization: &str| {
            let request = Request::get("/").header(AUTHORIZATION, authorization).body(()).unwrap();
            matches!(control.authenticate_now(request.headers(), request.extensions()), Authentication::Done(Ok(_)))
        };
        let [a, b] = ["a", "b"].map(|name| basic(name, "secret"));
        for authorization in [&*a, &*b, "Bearer 0123456789"] {
            assert_eq!(status(&server, "GET /eureka/apps", authorization).await, 200);
        }
        let anonymous = || Identity::new("anonymous", []);
        control.set_policy(
            Policy::new([row("a", Role::Read), row("b", Role::Operate), row("c", Role::Read)]),
            anonymous(),
        );
        assert_eq!([is_known(&a), is_known(&b), is_known("Bearer 0123456789")], [true, false, false]);
        assert_eq!(status(&server, "GET /eureka/apps", &b).await, 200);
        control.forget_tokens();
        assert_eq!([is_known(&a), is_known(&b)], [true, true]);
        control.set_policy(Policy::new([row("b", Role::Operate)]), anonymous());
        assert_eq!([is_known(&a), is_known(&b)], [false, true]);
    }

    #[tokio::test(start_paused = true)]
    async fn faults_of_signed_tokens_block_nobody_and_signed_tokens_pass_a_blocked_address() {
        let tokens: serde_json::Value = serde_json::from_str(KEYS).unwrap();
        let tokens = tokens["tokens"].as_object().unwrap();
        let bearer = |name: &str| format!("Bearer {}", tokens[name].as_str().unwrap());
        let access = Access::new().user("a", "pass-a", [Role::Read]).jwt(JwtKeys::json(KEYS));
        let server = EurekaServer::builder().access(access).build().unwrap();
        let faulty = tokens.keys().filter(|name| !name.starts_with("valid") && !name.starts_with("Unreadable"));
        let mut refused = 0;
        for name in faulty {
            assert_eq!(status(&server, "GET /eureka/apps", &bearer(name)).await, 401, "{name}");
            refused += 1;
        }
        assert!(refused > 10, "{refused}");
        assert_eq!(status(&server, "GET /eureka/apps", &basic("a", "pass-a")).await, 200);
        for n in 0..10 {
            assert_eq!(status(&server, "GET /eureka/apps", &basic("a", &n.to_string())).await, 401);
        }
        assert_eq!(status(&server, "GET /eureka/apps", &basic("a", "x")).await, 429);
        for n in 0..10 {
            assert_eq!(status(&server, "GET /eureka/apps", &format!("Bearer not-signed-{n}")).await, 401);
        }
        assert_eq!(status(&server, "GET /eureka/apps", "Bearer not-signed").await, 429);
        for round in 0..3 {
            assert_eq!(status(&server, "GET /eureka/apps", &bearer("valid ES256")).await, 200, "{round}");
            tokio::time::advance(Duration::from_secs(20)).await;
        }
    }

    const KEYS: &str = include_str!("jwt/tokens.json");

    /// Returns a header with a valid token of a user.
    fn signed() -> String {
        let tokens: serde_json::Value = serde_json::from_str(KEYS).unwrap();
        format!("Bearer {}", tokens["tokens"]["valid ES256"].as_str().unwrap())
    }

    /// Returns a header with a token that has another signature for each number.
    fn forged(n: u8) -> String {
        use base64::prelude::BASE64_URL_SAFE_NO_PAD;
        let signed = signed();
        let (claims, _) = signed.rsplit_once('.').unwrap();
        format!("{claims}.{}", BASE64_URL_SAFE_NO_PAD.encode([n; 64]))
    }

    fn signed_server() -> EurekaServer {
        EurekaServer::builder().access(Access::new().jwt(JwtKeys::json(KEYS))).build().unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn signature_waits_for_a_blocking_thread_while_known_tokens_are_handled_at_once() {
        let server = signed_server();
        let control = server.state.access().unwrap().clone();
        let (signed, forged) = (signed(), forged(1));
        assert_eq!(status(&server, "POST /eureka/apps/ORDERS", &signed).await, 204);
        let signatures = &control.signatures;
        let threads = u32::try_from(signatures.threads.available_permits()).unwrap();
        let held = signatures.threads.clone().acquire_many_owned(threads).await.unwrap();
        let mut flood = Box::pin(send(&server, "GET /eureka/apps", &forged, &[]));
        assert!(waits(&mut flood).await, "all threads are busy");
        let mut heartbeat = Box::pin(status(&server, "PUT /eureka/apps/ORDERS/i", &signed));
        assert!(!waits(&mut heartbeat).await, "the token is known");
        // A policy that does not name the subject changes nothing for it.
        control.set_policy(Policy::new([]), Identity::new("anonymous", []));
        assert_eq!(status(&server, "PUT /eureka/apps/ORDERS/i", &signed).await, 200);
        let refused = flood.await;
        assert_eq!((refused.status.as_u16(), refused.headers[RETRY_AFTER].to_str().unwrap()), (503, "1"));
        let places = u32::try_from(signatures.waiting.available_permits()).unwrap();
        let queue = signatures.waiting.clone().acquire_many_owned(places).await.unwrap();
        let refused = send(&server, "GET /eureka/apps", &forged, &[]).await;
        assert_eq!((refused.status.as_u16(), refused.headers[RETRY_AFTER].to_str().unwrap()), (503, "1"));
        drop((held, queue));
        assert_eq!(status(&server, "GET /eureka/apps", &forged).await, 401);
    }

    #[tokio::test(start_paused = true)]
    async fn address_with_too_many_forged_tokens_gets_429_and_known_tokens_and_passwords_go_on() {
        let access = Access::new().user("a", "pass-a", [Role::Read]).jwt(JwtKeys::json(KEYS));
        let server = EurekaServer::builder().access(access).build().unwrap();
        let signed = signed();
        assert_eq!(status(&server, "POST /eureka/apps/ORDERS", &signed).await, 204);
        for n in 0..10 {
            assert_eq!(status(&server, "GET /eureka/apps", &forged(n)).await, 401, "{n}");
            assert_eq!(status(&server, "GET /eureka/apps", &forged(n)).await, 401, "the same one counts once");
        }
        let refused = send(&server, "GET /eureka/apps", &forged(10), &[]).await;
        assert_eq!((refused.status.as_u16(), refused.headers[RETRY_AFTER].to_str().unwrap()), (429, "6"));
        assert_eq!(status(&server, "PUT /eureka/apps/ORDERS/i", &signed).await, 200);
        assert_eq!(status(&server, "GET /eureka/apps", &basic("a", "pass-a")).await, 200);
    }

    #[tokio::test]
    async fn caller_that_disconnects_returns_its_place_and_its_permit() {
        let access = Access::new().user("a", &hash(), [Role::Read]).jwt(JwtKeys::json(KEYS));
        let server = EurekaServer::builder().access(access).build().unwrap();
        let control = server.state.access().unwrap().clone();
        for (verifiers, authorization) in [(&control.hashes, basic("a", "secret")), (&control.signatures, signed())] {
            let (places, threads) = (verifiers.waiting.available_permits(), verifiers.threads.available_permits());
            let all = u32::try_from(threads).unwrap();
            // While it waits for a thread.
            let held = verifiers.threads.clone().acquire_many_owned(all).await.unwrap();
            let mut caller = Box::pin(status(&server, "PUT /eureka/apps/ORDERS/i", &authorization));
            assert!(waits(&mut caller).await);
            assert_eq!(verifiers.waiting.available_permits(), places - 1);
            drop((caller, held));
            assert_eq!(verifiers.waiting.available_permits(), places);
            assert_eq!(verifiers.threads.available_permits(), threads);
            // While it is verified: the permit returns once that is done, and the result is known.
            let mut caller = Box::pin(status(&server, "PUT /eureka/apps/ORDERS/i", &authorization));
            waits(&mut caller).await;
            drop(caller);
            drop(verifiers.threads.clone().acquire_many_owned(all).await.unwrap());
            let mut caller = Box::pin(status(&server, "PUT /eureka/apps/ORDERS/i", &authorization));
            assert!(!waits(&mut caller).await, "it is verified");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn requests_that_waited_for_a_signature_count_the_failures_of_each_other() {
        let server = signed_server();
        let mut callers = tokio::task::JoinSet::new();
        for n in 0..100 {
            let server = server.clone();
            callers.spawn(async move { status(&server, "GET /eureka/apps", &forged(n)).await });
        }
        let statuses = callers.join_all().await;
        let verified = statuses.iter().filter(|status| **status == 401).count();
        let threads = server.state.access().unwrap().signatures.threads.available_permits();
        assert!((10..=10 + threads).contains(&verified), "{statuses:?}");
        assert!(statuses.iter().all(|status| [401, 429].contains(status)), "{statuses:?}");
    }

    #[tokio::test]
    async fn verifications_share_the_memory_of_the_process() {
        let server = EurekaServer::builder().access(Access::new().user("a", &hash(), [Role::Read])).build().unwrap();
        let control = server.state.access().unwrap().clone();
        let memory = control.hashes.memory.clone().acquire_many_owned(control.hashes.memory_mib).await.unwrap();
        let wanted = basic("a", "secret");
        let mut caller = Box::pin(status(&server, "GET /eureka/apps", &wanted));
        assert!(waits(&mut caller).await, "there is no memory");
        drop(memory);
        assert_eq!(caller.await, 200);
    }

    #[tokio::test]
    async fn log_in_that_waited_during_a_change_of_the_users_and_keys_is_remembered() {
        let hash = hash();
        let server = EurekaServer::builder().access(Access::new().user("a", &hash, [Role::Read])).build().unwrap();
        let control = server.state.access().unwrap().clone();
        let memory = control.hashes.memory.clone().acquire_many_owned(control.hashes.memory_mib).await.unwrap();
        let wanted = basic("a", "secret");
        let mut caller = Box::pin(status(&server, "GET /eureka/apps", &wanted));
        assert!(waits(&mut caller).await, "there is no memory");
        let credential = Credential::Password(Password::parse(&hash).unwrap());
        let row = Row { grant: Grant::new("a", [Role::Read].into_iter().collect(), ""), credential };
        control.set_policy(Policy::new([row]), Identity::new("anonymous", []));
        control.forget_tokens();
        drop(memory);
        assert_eq!(caller.await, 200);
        let request = Request::get("/").header(AUTHORIZATION, &wanted).body(()).unwrap();
        let again = control.authenticate_now(request.headers(), request.extensions());
        assert!(matches!(again, Authentication::Done(Ok(_))));
    }

    #[tokio::test]
    async fn many_callers_with_one_password_share_its_verification() {
        let access = Access::new().user("a", &hash(), [Role::Read]);
        let server = EurekaServer::builder().access(access).build().unwrap();
        let mut callers = tokio::task::JoinSet::new();
        for _ in 0..200 {
            let server = server.clone();
            callers.spawn(async move { status(&server, "GET /eureka/apps", &basic("a", "secret")).await });
        }
        assert!(callers.join_all().await.into_iter().all(|status| status == 200));
    }
}
