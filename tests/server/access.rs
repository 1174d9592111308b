//! A locked registry behind its listener.

use std::net::SocketAddr;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tower_eureka::EurekaServer;
use tower_eureka::server::{Access, Role};

use crate::common::{ORDER_1, ORDERS, document};

const BATCH: &str = "/eureka/peerreplication/batch/";
const EMPTY_BATCH: &str = r#"{"replicationList":[]}"#;

struct Locked {
    address: SocketAddr,
    registry: EurekaServer,
    _stop: oneshot::Sender<()>,
}

/// Response with its head in lower case.
struct Response {
    status: u16,
    head: String,
    body: String,
}

impl Locked {
    async fn start(access: Access) -> Self {
        let registry = EurekaServer::builder().access(access).build().unwrap();
        let listener = registry.listener(TcpListener::bind("127.0.0.1:0").await.unwrap());
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel();
        let app = registry.service("/eureka").with_probes();
        tokio::spawn(listener.serve(app, async { drop(stopped.await) }));
        Self { address, registry, _stop: stop }
    }

    /// Sends a request whose header lines are these bytes, on a connection of its own.
    async fn raw(&self, line: &str, headers: &[u8], body: &str) -> Response {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        let length = body.len();
        let common = format!(
            "{line} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n"
        );
        let request = [common.as_bytes(), headers, b"\r\n", body.as_bytes()].concat();
        // The registry may respond before it has read everything.
        let _ = stream.write_all(&request).await;
        let mut read = Vec::new();
        let _ = stream.read_to_end(&mut read).await;
        let text = String::from_utf8_lossy(&read).into_owned();
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
        Response { status, head: head.to_ascii_lowercase(), body: body.to_owned() }
    }

    async fn send(&self, line: &str, authorization: &str, body: &str) -> Response {
        let headers = match authorization {
            "" => String::new(),
            value => format!("authorization: {value}\r\n"),
        };
        self.raw(line, headers.as_bytes(), body).await
    }

    async fn status(&self, line: &str, authorization: &str) -> u16 {
        let body = match line {
            _ if line.contains("peerreplication") => EMPTY_BATCH.to_owned(),
            _ if line.starts_with("POST") => document("h:orders:1", "UP", 100),
            _ => String::new(),
        };
        self.send(line, authorization, &body).await.status
    }

    fn is_empty(&self) -> bool {
        self.registry.applications().applications.is_empty()
    }
}

pub(crate) fn basic(user: &str, password: &str) -> String {
    format!("Basic {}", BASE64_STANDARD.encode(format!("{user}:{password}")))
}

fn users() -> Access {
    let client = [Role::Read, Role::Register];
    Access::new()
        .user("orders", "pass-1", client)
        .user("other", "pass-2", client)
        .user("peer", "pass-3", [Role::Peer])
        .failed_attempts_per_minute(0)
}

#[tokio::test]
async fn registry_asks_for_credentials_and_changes_nothing_without_them() {
    let server = Locked::start(users()).await;
    let order = document("h:orders:1", "UP", 100);
    for wrong in [String::new(), basic("orders", "pass-2"), basic("nobody", "pass-1"), "Bearer pass-1".to_owned()] {
        for (line, body) in [
            (format!("POST {ORDERS}"), &*order),
            (format!("PUT {ORDER_1}"), ""),
            (format!("DELETE {ORDER_1}"), ""),
            ("GET /eureka/apps".into(), ""),
            ("GET /eureka/status".into(), ""),
            (format!("POST {BATCH}"), EMPTY_BATCH),
        ] {
            let response = server.send(&line, &wrong, body).await;
            assert_eq!(response.status, 401, "{line} {wrong}");
            let scheme = if wrong.starts_with("Bearer") { "bearer" } else { "basic" };
            assert!(response.head.contains(&format!("www-authenticate: {scheme} realm=")), "{line} {}", response.head);
            assert!(!response.body.contains("pass"), "{}", response.body);
        }
    }
    assert!(server.is_empty());
    assert_eq!(server.status("GET /actuator/health", "").await, 200);
}

#[tokio::test]
async fn client_with_credentials_has_its_application_for_itself() {
    let server = Locked::start(users()).await;
    let [orders, other] = [basic("orders", "pass-1"), basic("other", "pass-2")];
    assert_eq!(server.status(&format!("POST {ORDERS}"), &orders).await, 204);
    let before = server.registry.applications();
    for line in [
        format!("POST {ORDERS}"),
        format!("PUT {ORDER_1}"),
        format!("PUT {ORDER_1}/status?value=DOWN"),
        format!("PUT {ORDER_1}/metadata?a=b"),
        format!("DELETE {ORDER_1}/status"),
        format!("DELETE {ORDER_1}"),
    ] {
        assert_eq!(server.status(&line, &other).await, 403, "{line}");
    }
    assert_eq!(server.registry.applications(), before);
    for (line, expected) in [
        (format!("PUT {ORDER_1}"), 200),
        ("GET /eureka/apps".into(), 200),
        ("GET /eureka/apps/delta".into(), 200),
        (format!("DELETE {ORDER_1}"), 200),
    ] {
        assert_eq!(server.status(&line, &orders).await, expected, "{line}");
    }
    assert!(server.is_empty());
}

#[tokio::test]
async fn only_a_peer_replicates() {
    let server = Locked::start(users()).await;
    let batch = format!("POST {BATCH}");
    assert_eq!(server.status(&batch, &basic("orders", "pass-1")).await, 403);
    assert_eq!(server.status(&batch, &basic("peer", "pass-3")).await, 200);
}

#[tokio::test]
async fn malformed_and_oversized_credentials_are_refused() {
    let server = Locked::start(users()).await;
    let right = basic("orders", "pass-1");
    let line = |value: &[u8]| [b"authorization: ", value, b"\r\n"].concat();
    for (headers, expected) in [
        (line(b""), &[401][..]),
        (line(b"Basic"), &[401]),
        (line(b"Basic !!!"), &[401]),
        (line(b"Basic \xff\xfe"), &[401]),
        (line(b"Digest username=orders"), &[401]),
        (line(basic(&"u".repeat(2_000), "p").as_bytes()), &[401]),
        (line(&[b'x'; 20_000]), &[401, 431]),
        (line(&[b'x'; 2_000_000]), &[431]),
        ([line(right.as_bytes()), line(right.as_bytes())].concat(), &[401]),
        (line(b"Basic \0"), &[400]),
    ] {
        let response = server.raw(&format!("POST {ORDERS}"), &headers, &document("h:orders:1", "UP", 100)).await;
        let shown = String::from_utf8_lossy(&headers[..headers.len().min(80)]).into_owned();
        assert!(expected.contains(&response.status), "{shown}: {} {}", response.head, response.body);
        assert!(server.is_empty(), "{shown}");
    }
    assert_eq!(server.status(&format!("POST {ORDERS}"), &right).await, 204);
}

#[tokio::test]
async fn thousand_failed_log_ins_are_limited_and_known_callers_go_on() {
    let server = Locked::start(users().failed_attempts_per_minute(10)).await;
    let orders = basic("orders", "pass-1");
    assert_eq!(server.status(&format!("POST {ORDERS}"), &orders).await, 204);
    let mut wrong = 0;
    for n in 0..1_000 {
        let response = server.send("GET /eureka/apps", &basic("orders", &format!("guess-{n}")), "").await;
        match response.status {
            401 => wrong += 1,
            429 => assert!(response.head.contains("retry-after: "), "{}", response.head),
            other => panic!("{other} {}", response.body),
        }
        if n % 100 == 0 {
            assert_eq!(server.status(&format!("PUT {ORDER_1}"), &orders).await, 200);
        }
    }
    // One more is allowed every 6 seconds.
    assert!((10..500).contains(&wrong), "{wrong} passwords were tried");
}

#[cfg(feature = "access")]
#[tokio::test]
async fn tokens_are_verified_and_unsigned_or_expired_ones_refused() {
    use tower_eureka::server::JwtKeys;

    let text = include_str!("../../src/server/access/jwt/tokens.json");
    let all: serde_json::Value = serde_json::from_str(text).unwrap();
    let server = Locked::start(users().jwt(JwtKeys::json(text))).await;
    for (name, token) in all["tokens"].as_object().unwrap() {
        let authorization = format!("Bearer {}", token.as_str().unwrap());
        let response = server.send(&format!("POST {ORDERS}"), &authorization, &document("h:orders:1", "UP", 100)).await;
        if name.starts_with("valid") {
            assert_eq!(response.status, 204, "{name}: {}", response.body);
            assert_eq!(server.status(&format!("PUT {ORDER_1}"), &authorization).await, 200, "{name}");
            assert_eq!(server.status(&format!("DELETE {ORDER_1}"), &authorization).await, 200, "{name}");
        } else {
            assert_eq!(response.status, 401, "{name}: {}", response.body);
            assert!(response.head.contains("www-authenticate: "), "{name}");
        }
        assert!(server.is_empty(), "{name}");
    }
}
