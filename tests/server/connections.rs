//! Too many connections, HTTP/2 connections without requests, and clients that do not read their
//! responses.

use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::routing::get;
use http::header::CONTENT_TYPE;
use http::{Request, StatusCode};
use http_body::Body as _;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;
use tower::ServiceExt;
use tower_eureka::EurekaServer;
use tower_eureka::server::{Limits, Listener};

use crate::limits::{HOUR, Running, SHORT, ask, rest};
use crate::log::Log;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Empty SETTINGS.
const SETTINGS: &[u8] = b"\0\0\0\x04\0\0\0\0\0";
/// SETTINGS with an initial window of 0.
const NO_WINDOW: &[u8] = b"\0\0\x06\x04\0\0\0\0\0\0\x04\0\0\0\0";
const PING: &[u8] = b"\0\0\x08\x06\0\0\0\0\0........";

/// HEADERS that end stream 1: GET (static 2), http (static 6), path "/small" (literal, static name
/// 4), authority "x" (literal, static name 1).
const GET_SMALL: &[u8] = b"\0\0\x0d\x01\x05\0\0\0\x01\x82\x86\x04\x06/small\x01\x01x";

async fn http2(server: &Running, settings: &[u8]) -> TcpStream {
    let mut stream = server.connect().await;
    stream.write_all(PREFACE).await.unwrap();
    stream.write_all(settings).await.unwrap();
    stream
}

/// Sends pings until the server closes, and returns all that it sent.
async fn ping_until_closed(stream: TcpStream) -> Vec<u8> {
    let (mut from, mut to) = stream.into_split();
    let reading = tokio::spawn(async move {
        let mut all = Vec::new();
        let _ = from.read_to_end(&mut all).await;
        all
    });
    while to.write_all(PING).await.is_ok() {
        tokio::task::yield_now().await;
    }
    reading.await.unwrap()
}

/// Frames of HTTP/2: type, flags and payload.
fn frames(mut bytes: &[u8]) -> Vec<(u8, u8, &[u8])> {
    let mut frames = Vec::new();
    while let [a, b, c, kind, flags, _, _, _, _, rest @ ..] = bytes {
        let length = usize::from(*a) << 16 | usize::from(*b) << 8 | usize::from(*c);
        if rest.len() < length {
            break;
        }
        frames.push((*kind, *flags, &rest[..length]));
        bytes = &rest[length..];
    }
    frames
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn burst_of_connections_waits_to_be_accepted() {
    let registry = EurekaServer::builder().build().unwrap();
    let listener = registry.listener(tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap());
    let address = listener.local_addr().unwrap();
    let limit = std::fs::read_to_string("/proc/sys/net/core/somaxconn").unwrap();
    let mut connections = Vec::new();
    // Nothing accepts them. One more than fit would not connect.
    for _ in 0..limit.trim().parse::<usize>().unwrap().min(500) {
        connections.push(TcpStream::connect(address).await.unwrap());
    }
    drop((connections, listener));
}

#[tokio::test]
async fn full_listener_closes_the_longest_idle_connection_for_a_new_one() {
    let server = Running::start(|listener| listener.max_connections(2)).await;
    let (mut first, mut second) = (server.connect().await, server.connect().await);
    ask(&mut first).await;
    ask(&mut second).await;
    ask(&mut first).await;
    let mut third = server.connect().await;
    ask(&mut third).await;
    assert_eq!(rest(&mut second).await, "");
    ask(&mut first).await;
}

#[tokio::test]
async fn connections_in_use_are_not_closed_for_a_new_one() {
    let (reached, mut reaches) = tokio::sync::mpsc::unbounded_channel::<tokio::sync::oneshot::Sender<()>>();
    let handler = move || {
        let (release, released) = tokio::sync::oneshot::channel();
        reached.send(release).unwrap();
        async { released.await.map_or("dropped", |()| "done") }
    };
    let app = Router::new().route("/slow", get(handler));
    let server = Running::start_with(|listener| listener.max_connections(1), app).await;
    let mut slow = server.connect().await;
    slow.write_all(b"GET /slow HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await.unwrap();
    let release = reaches.recv().await.unwrap();
    // The new connection waits for a permit, and is closed after a timeout.
    assert_eq!(server.closes("GET /eureka/apps HTTP/1.1\r\nhost: x\r\n\r\n").await, "");
    release.send(()).unwrap();
    assert!(rest(&mut slow).await.ends_with("done"));
    server.assert_serves().await;
}

const STALLED: &[u8] = b"PUT /eureka/apps/X/y HTTP/1.1\r\nhost: x\r\ncontent-length: 10\r\n\r\n{";

async fn connect_from(address: &str, server: &Running) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(format!("{address}:0").parse().unwrap()).unwrap();
    socket.connect(server.address).await.unwrap()
}

/// Opens this number of connections, each with a response.
async fn asked(server: &Running, number: usize) -> Vec<TcpStream> {
    let mut open = Vec::new();
    for _ in 0..number {
        let mut stream = server.connect().await;
        ask(&mut stream).await;
        open.push(stream);
    }
    open
}

/// Connects from each address this number of times, with a body of which one byte arrives.
async fn stall(server: &Running, addresses: &[&str], number: usize) -> Vec<TcpStream> {
    let mut stalled = Vec::new();
    for _ in 0..number {
        for address in addresses {
            let mut stream = connect_from(address, server).await;
            // The server may have refused it already.
            let _ = stream.write_all(STALLED).await;
            stalled.push(stream);
        }
    }
    stalled
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn addresses_with_stalled_requests_beyond_the_limit_do_not_delay_others() {
    for (addresses, number) in [(&["127.0.0.2"][..], 40), (&["127.0.0.2", "127.0.0.3"], 20)] {
        let server = Running::start(|listener| listener.max_connections(10)).await;
        let stalled = stall(&server, addresses, number).await;
        // The 30 surplus connections delayed others by a second each before.
        timeout(Duration::from_secs(15), server.assert_serves()).await.expect("others are served");
        drop(stalled);
    }
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn clients_of_one_address_beyond_the_limit_are_served() {
    let server = Running::start(|listener| listener.max_connections(10)).await;
    let open = asked(&server, 100).await;
    let stalled = stall(&server, &["127.0.0.1"], 10).await;
    server.assert_serves().await;
    drop((open, stalled));
}

#[tokio::test]
async fn address_at_its_limit_closes_its_longest_idle_connection() {
    let server = Running::start(|listener| listener.max_connections_per_address(2)).await;
    let (mut first, mut second) = (server.connect().await, server.connect().await);
    ask(&mut first).await;
    ask(&mut second).await;
    let mut other = connect_from("127.0.0.2", &server).await;
    ask(&mut other).await;
    let mut third = server.connect().await;
    ask(&mut third).await;
    assert_eq!(rest(&mut first).await, "");
    ask(&mut second).await;
    ask(&mut other).await;
}

#[tokio::test]
async fn listener_with_few_descriptors_accepts_fewer_connections() {
    let server = Running::start(|listener| listener.descriptors(4)).await;
    let mut open = asked(&server, 4).await;
    assert_eq!(rest(&mut open[0]).await, "", "one of four descriptors is kept");
    ask(&mut open[1]).await;
}

#[tokio::test]
async fn lowered_connection_limit_is_a_warning_unless_only_the_reserve_is_missing() {
    let (log, _guard) = Log::start(tracing::Level::INFO);
    for (descriptors, level) in [(20_099, "INFO"), (20_000, "INFO"), (19_999, "WARN"), (4, "WARN")] {
        let server = Running::start(|listener| listener.descriptors(descriptors)).await;
        server.assert_serves().await;
        let lines = log.lines(&["connection limit lowered", &format!("descriptors={descriptors}")]);
        assert_eq!(lines.len(), 1, "{descriptors}");
        assert!(lines[0].starts_with(level), "{lines:?}");
    }
}

#[tokio::test]
async fn http2_connection_that_only_pings_is_closed_with_goaway() {
    let server = Running::start(|listener| listener.idle_timeout(SHORT)).await;
    let sent = ping_until_closed(http2(&server, SETTINGS).await).await;
    assert!(frames(&sent).iter().any(|(kind, ..)| *kind == 7), "no GOAWAY");
    server.assert_serves().await;
}

#[tokio::test]
async fn short_http2_response_that_is_not_read_times_out() {
    let app = Router::new().route("/small", get(|| async { vec![b'x'; 10_000] }));
    let server = Running::start_with(|listener| listener.response_timeout(SHORT).idle_timeout(HOUR), app).await;
    let mut stream = http2(&server, NO_WINDOW).await;
    stream.write_all(GET_SMALL).await.unwrap();
    let sent = ping_until_closed(stream).await;
    let kinds: Vec<_> = frames(&sent).iter().map(|(kind, ..)| *kind).collect();
    assert!(kinds.contains(&1) && !kinds.contains(&0), "a head without a body: {kinds:?}");
    server.assert_serves().await;
}

#[tokio::test]
async fn http2_streams_are_limited_to_16() {
    for (streams, expected) in [(None, 16), (Some(3), 3), (Some(0), 1)] {
        let limit = |listener: Listener| match streams {
            Some(streams) => listener.max_http2_streams(streams),
            None => listener,
        };
        let server = Running::start(|listener| limit(listener).idle_timeout(SHORT)).await;
        let sent = ping_until_closed(http2(&server, SETTINGS).await).await;
        let frames = frames(&sent);
        let (.., settings) = frames.iter().find(|(kind, flags, _)| (*kind, *flags) == (4, 0)).unwrap();
        let streams = settings.chunks(6).find(|setting| setting[..2] == [0, 3]).unwrap();
        assert_eq!(streams[2..], u32::to_be_bytes(expected));
    }
}

#[tokio::test]
async fn http2_is_refused_if_it_is_disabled() {
    let server = Running::start(|listener| listener.http2(false)).await;
    let mut stream = http2(&server, SETTINGS).await;
    let response = rest(&mut stream).await;
    assert!(response.is_empty() || response.starts_with("HTTP/1.1 "), "{response}");
    server.assert_serves().await;
}

/// Starts a registry with a list of more than 1 MiB, and a budget of 4 MiB for slow clients.
async fn large(limits: impl FnOnce(Listener) -> Listener) -> Running {
    let registry = EurekaServer::builder().limits(Limits::new().response_bytes(4 << 20)).build().unwrap();
    let server = Running::start_registry(registry, limits).await;
    for i in 0..20 {
        change(&server, i, "x").await;
    }
    server
}

/// Registers an instance of 60 KB, or one that differs from before.
async fn change(server: &Running, id: usize, text: &str) {
    let instance = tower_eureka::Instance::builder("LARGE").id(id.to_string()).host_name("h").ip_addr("10.0.0.1");
    let body = instance.port(80).metadata("k", text.repeat(60_000)).build().unwrap().to_json();
    let head = format!(
        "POST /eureka/apps/LARGE HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    let mut stream = server.connect().await;
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.write_all(&body).await.unwrap();
    let response = rest(&mut stream).await;
    assert!(response.starts_with("HTTP/1.1 204 "), "{response}");
}

async fn stalled_reader(server: &Running) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4_096).unwrap();
    let mut stream = socket.connect(server.address).await.unwrap();
    stream.write_all(b"GET /eureka/apps HTTP/1.1\r\nhost: x\r\naccept: application/json\r\n\r\n").await.unwrap();
    assert_ne!(stream.read(&mut [0; 1]).await.unwrap(), 0);
    stream
}

fn list_of(response: &str) -> &str {
    let (head, body) = response.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200 OK"), "{head}");
    body
}

const GET_APPS: &str = "GET /eureka/apps HTTP/1.1\r\nhost: x\r\naccept: application/json\r\nconnection: close\r\n\r\n";

/// Opens connections that read nothing of a list. Each requests another revision of the list.
async fn stalled_readers(server: &Running) -> Vec<TcpStream> {
    let mut stalled = Vec::new();
    for i in 0..20 {
        change(server, 0, ["a", "b"][i % 2]).await;
        stalled.push(stalled_reader(server).await);
    }
    stalled
}

#[tokio::test]
async fn latest_list_is_served_while_stalled_readers_hold_the_budget() {
    let server = large(|listener| listener.response_timeout(HOUR)).await;
    let _stalled = stalled_readers(&server).await;
    let first = server.closes(GET_APPS).await;
    assert!(list_of(&first).len() > 20 * 60_000);
    change(&server, 0, "c").await;
    assert_eq!(list_of(&server.closes(GET_APPS).await), list_of(&first), "no new list is made meanwhile");
}

#[tokio::test]
async fn stalled_readers_are_closed_when_the_budget_is_exhausted() {
    let server = large(|listener| listener.response_timeout(4 * SHORT).idle_timeout(HOUR)).await;
    let mut stalled = stalled_readers(&server).await;
    change(&server, 0, "c").await;
    while !list_of(&server.closes(GET_APPS).await).contains("cccc") {}
    let first = rest(&mut stalled[0]).await;
    assert!(first.len() < 20 * 60_000, "all of it came");
}

#[tokio::test]
async fn budget_without_a_listener_never_refuses_lists() {
    let (log, _guard) = Log::start(tracing::Level::INFO);
    let registry = EurekaServer::builder().limits(Limits::new().response_bytes(1 << 10)).build().unwrap();
    let send = async |request: Request<Body>| registry.router().oneshot(request).await.unwrap();
    let mut held = Vec::new();
    for i in 0..20 {
        let instance = tower_eureka::Instance::builder("A").id(i.to_string()).host_name("h").ip_addr("10.0.0.1");
        let body = instance.port(80).vip_address("v").metadata("k", "x".repeat(20_000)).build().unwrap().to_json();
        let register = Request::post("/apps/A").header(CONTENT_TYPE, "application/json").body(Body::from(body));
        assert_eq!(send(register.unwrap()).await.status(), StatusCode::NO_CONTENT);
        for path in ["/apps", "/apps/A", "/vips/v"] {
            let response = send(Request::get(path).body(Body::empty()).unwrap()).await;
            assert_eq!(response.status(), StatusCode::OK, "{path} after {i}");
            assert!(response.body().size_hint().exact() > Some((i + 1) * 20_000), "an old one of {path} after {i}");
            held.push(response);
        }
    }
    let lines = log.lines(&["Limits::response_bytes"]);
    assert!(lines.len() == 1 && lines[0].starts_with("WARN") && lines[0].contains("no Listener"), "{lines:?}");
}

/// Starts a registry whose budget is exhausted by responses that nobody reads. Returns it with the
/// first response that was refused.
async fn exhausted() -> (Running, Vec<TcpStream>, String) {
    let app = Router::new().route("/own", get(own).post(own));
    let registry = EurekaServer::builder().limits(Limits::new().response_bytes(2 << 20)).build().unwrap();
    let server = Running::start_registry_with(registry, |listener| listener.response_timeout(HOUR), app).await;
    let mut stalled = Vec::new();
    loop {
        let (mut stream, start) = begin("GET", &server).await;
        if start[9..] == *b"503" {
            return (server, stalled, rest(&mut stream).await);
        }
        stalled.push(stream);
        assert!(stalled.len() < 20, "all of them were taken");
    }
}

async fn own() -> Vec<u8> {
    vec![b'x'; 1 << 20]
}

/// Begins to read a response of 1 MiB.
async fn begin(method: &str, server: &Running) -> (TcpStream, [u8; 12]) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4_096).unwrap();
    let mut stream = socket.connect(server.address).await.unwrap();
    let request = format!("{method} /own HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut start = [0; 12];
    stream.read_exact(&mut start).await.unwrap();
    (stream, start)
}

#[tokio::test]
async fn unshared_response_is_refused_with_503_while_the_budget_is_exhausted() {
    let (log, _guard) = Log::start(tracing::Level::INFO);
    let (server, _stalled, refused) = exhausted().await;
    let lines = log.lines(&["responses refused with 503"]);
    assert!(lines.len() == 1 && lines[0].starts_with("WARN"), "{lines:?}");
    assert!(refused.contains("retry-after: 2\r\n"), "{refused}");
    assert!(
        server.closes("PUT /eureka/apps/X/y HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await.contains("404")
    );
}

#[tokio::test]
async fn response_to_a_write_is_sent_while_the_budget_is_exhausted() {
    let (server, _stalled, _) = exhausted().await;
    let (mut stream, start) = begin("POST", &server).await;
    assert_eq!(start[9..], *b"200");
    assert!(rest(&mut stream).await.len() > 1 << 20);
}

#[tokio::test]
async fn limits_of_connections_can_be_set_as_properties() {
    let properties = [
        ("eureka.server.limits.connections-per-address", "1"),
        ("eureka.server.limits.http2-streams", "3"),
        ("eureka.server.limits.response-bytes", "100"),
        ("server.http2.enabled", "false"),
    ];
    let builder = properties
        .into_iter()
        .try_fold(EurekaServer::builder(), |builder, (name, value)| builder.property(name, value))
        .unwrap();
    let server = Running::start_registry(builder.build().unwrap(), |listener| listener).await;
    let mut first = server.connect().await;
    ask(&mut first).await;
    let mut second = http2(&server, SETTINGS).await;
    assert_eq!(rest(&mut first).await, "");
    assert!(!rest(&mut second).await.contains("\0\0"), "frames of HTTP/2");
}
