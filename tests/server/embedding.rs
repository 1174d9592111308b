//! The registry as part of an application: changes without requests, events, layers of the user,
//! and the end of a server of the user.

use std::convert::Infallible;
use std::io;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, connect_info::Connected};
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse, Response};
use axum::serve::{IncomingStream, Listener};
use http::StatusCode;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep, timeout};
use tokio_stream::StreamExt;
use tower_eureka::model::InstanceStatus;
use tower_eureka::server::{DescribeLayer, Eviction, Limits, Operation, OperationKind, ServerEvent, ServerEvents};
use tower_eureka::{EurekaServer, Instance};

use crate::common::{ORDER_1, ORDERS, Server, document, request};
use crate::log::Log;

const SECOND: Duration = Duration::from_secs(1);

fn order(id: &str) -> Instance {
    Instance::builder("orders").id(id).host_name("h").ip_addr("10.0.0.1").port(80).build().unwrap()
}

/// Returns the events that were sent so far.
async fn sent(events: &mut ServerEvents) -> Vec<String> {
    let mut lines = Vec::new();
    while let Ok(Some(event)) = timeout(Duration::from_millis(1), events.next()).await {
        lines.push(event.to_string());
    }
    lines
}

#[tokio::test(start_paused = true)]
async fn change_without_a_request_has_the_effect_and_the_audit_line_of_one() {
    let (log, _guard) = Log::start(tracing::Level::INFO);
    let server = Server::new();
    let registry = &server.registry;
    registry.register(order("1")).unwrap();
    assert_eq!(server.empty("PUT", "/eureka/apps/ORDERS/1").await.status(), StatusCode::OK);
    registry.renew("orders", "1").unwrap();
    registry.set_override("orders", "1", InstanceStatus::OutOfService).unwrap();
    assert_eq!(registry.instance("orders", "1").unwrap().status(), InstanceStatus::OutOfService);
    registry.clear_override("ORDERS", "1", InstanceStatus::Up).unwrap();
    assert_eq!(registry.instance("orders", "1").unwrap().status(), InstanceStatus::Up);
    registry.set_metadata("orders", "1", [("zone", "a")]).unwrap();
    assert_eq!(registry.instance("orders", "1").unwrap().metadata().get("zone"), Some("a"));
    registry.cancel("orders", "1").unwrap();
    assert_eq!(server.empty("GET", "/eureka/apps/ORDERS/1").await.status(), StatusCode::NOT_FOUND);
    for what in ["registered", "status override set", "status override deleted", "metadata changed", "cancelled"] {
        let lines = log.lines(&["INFO", "app=ORDERS instance=1", "origin=this process", what]);
        assert_eq!(lines.len(), 1, "{what}: {}", log.text());
    }
}

#[tokio::test]
async fn change_that_a_request_could_not_make_is_refused_with_the_reason() {
    let limits = Limits::new().instances(1).metadata_bytes(100);
    let registry = EurekaServer::builder().limits(limits).build().unwrap();
    registry.register(order("1")).unwrap();
    let full = registry.register(order("2")).unwrap_err();
    assert!(full.is_limit() && !full.is_invalid(), "{full}");
    assert_eq!(
        full.to_string(),
        "cannot register ORDERS/2: the registry is full: it has 1 instances, which is the limit"
    );
    let long = registry.set_metadata("orders", "1", [("k", "x".repeat(200))]).unwrap_err();
    assert!(long.is_limit(), "{long}");
    let many = registry.set_metadata("orders", "1", (0..2_000).map(|n| (n.to_string(), ""))).unwrap_err();
    assert!(many.is_invalid(), "{many}");
    assert!(registry.set_override("orders", "1", InstanceStatus::Unknown).unwrap_err().is_invalid());
    for absent in [
        registry.renew("orders", "x"),
        registry.cancel("orders", "x"),
        registry.set_override("orders", "x", InstanceStatus::Down),
        registry.clear_override("orders", "x", InstanceStatus::Up),
        registry.set_metadata("orders", "x", [("k", "v")]),
    ] {
        assert!(absent.unwrap_err().is_not_found());
    }
    assert_eq!(registry.instance("orders", "1").unwrap().metadata().len(), 0);
}

#[tokio::test(start_paused = true)]
async fn events_tell_each_change_of_requests_timers_and_the_application() {
    let eviction = Eviction::new().lease_doubling(false).interval(Duration::from_secs(10));
    let server = Server::built(EurekaServer::builder().eviction(eviction));
    let mut events = server.registry.events();
    for id in ["1", "2", "3"] {
        server.registry.register(order(id)).unwrap();
    }
    server.registry.register(order("1")).unwrap();
    assert_eq!(server.empty("PUT", "/eureka/apps/ORDERS/1").await.status(), StatusCode::OK);
    server.empty("PUT", "/eureka/apps/ORDERS/1/status?value=DOWN").await;
    server.empty("PUT", "/eureka/apps/ORDERS/1/metadata?k=v").await;
    server.empty("DELETE", "/eureka/apps/ORDERS/1/status?value=UP").await;
    server.empty("DELETE", "/eureka/apps/ORDERS/1").await;
    server.empty("DELETE", "/eureka/apps/ORDERS/1").await;
    assert_eq!(
        sent(&mut events).await,
        [
            "registered ORDERS 1 UP",
            "registered ORDERS 2 UP",
            "registered ORDERS 3 UP",
            "registered again ORDERS 1 UP",
            "renewed ORDERS 1 UP",
            "overridden ORDERS 1 DOWN",
            "metadata changed ORDERS 1 DOWN",
            "overridden ORDERS 1 UP",
            "cancelled ORDERS 1 UP",
        ]
    );
    sleep(200 * SECOND).await;
    assert_eq!(sent(&mut events).await, ["self-preservation on, 2 expired leases kept"]);
}

#[tokio::test(start_paused = true)]
async fn events_tell_evictions() {
    let eviction = Eviction::new().lease_doubling(false).self_preservation(false).interval(Duration::from_secs(10));
    let registry = EurekaServer::builder().eviction(eviction).build().unwrap();
    let mut events = registry.events();
    registry.register(order("1")).unwrap();
    sleep(120 * SECOND).await;
    assert_eq!(sent(&mut events).await, ["registered ORDERS 1 UP", "evicted ORDERS 1 UP"]);
}

#[cfg(feature = "peers")]
#[tokio::test(start_paused = true)]
async fn events_tell_changes_of_peers_and_their_replicated_changes() {
    use crate::network::{Network, ORDER, soon};
    let network = Network::default();
    let a = network.node("a", &["a", "b"]);
    let mut events = a.server.events();
    soon().await;
    assert_eq!(sent(&mut events).await, ["peer down http://b:8761/eureka/"]);
    let b = network.node("b", &["a", "b"]);
    sleep(120 * SECOND).await;
    assert_eq!(sent(&mut events).await, ["peer up http://b:8761/eureka/"]);
    b.register(ORDER, 100).await;
    b.server.cancel("orders", ORDER).unwrap();
    b.register(ORDER, 200).await;
    // The clock of `a` is ahead by the first wait, and a change by its clock must not be newer than
    // the cancellation.
    sleep(5 * SECOND).await;
    let replicated = sent(&mut events).await;
    assert!(replicated.contains(&format!("registered ORDERS {ORDER} UP")), "{replicated:?}");
    b.server.cancel("orders", ORDER).unwrap();
    soon().await;
    let cancelled = timeout(SECOND, events.next()).await.unwrap().unwrap();
    assert!(matches!(cancelled, ServerEvent::Cancelled { replicated: true, .. }), "{cancelled}");
}

#[cfg(feature = "peers")]
#[tokio::test(start_paused = true)]
async fn change_without_a_request_is_replicated() {
    use crate::network::{Network, ORDER, soon};
    let network = Network::default();
    let [a, b] = ["a", "b"].map(|name| network.node(name, &["a", "b"]));
    a.server.register(order(ORDER)).unwrap();
    soon().await;
    assert!(b.order(ORDER).is_some());
    a.server.set_override("orders", ORDER, InstanceStatus::OutOfService).unwrap();
    soon().await;
    assert_eq!(b.order(ORDER).unwrap().status(), InstanceStatus::OutOfService);
    a.server.cancel("orders", ORDER).unwrap();
    soon().await;
    assert!(b.order(ORDER).is_none());
}

#[tokio::test]
async fn layer_of_the_user_decides_by_the_operation() {
    async fn only_orders(request: Request, next: Next) -> Response {
        let operation = request.extensions().get::<Operation>().unwrap();
        match (operation.kind, operation.app.as_deref()) {
            (OperationKind::Read, _) | (_, Some("ORDERS")) => next.run(request).await,
            _ => StatusCode::FORBIDDEN.into_response(),
        }
    }
    let registry = EurekaServer::builder().build().unwrap();
    let router = registry.router().layer(from_fn(only_orders)).layer(DescribeLayer::new(""));
    let server = Server { router: Router::new().nest("/eureka", router), registry };
    assert_eq!(server.post(ORDERS, document("h:orders:1", "UP", 1)).await.status(), StatusCode::NO_CONTENT);
    assert_eq!(server.empty("PUT", ORDER_1).await.status(), StatusCode::OK);
    assert_eq!(server.empty("GET", "/eureka/apps").await.status(), StatusCode::OK);
    for (method, path) in [
        ("PUT", "/eureka/apps/USERS/1"),
        ("PUT", "/eureka//apps/users/1"),
        ("DELETE", "/eureka/v2/apps/%55SERS/1"),
        ("POST", "/eureka/peerreplication/batch"),
    ] {
        assert_eq!(server.empty(method, path).await.status(), StatusCode::FORBIDDEN, "{method} {path}");
    }
}

/// Listener of connections in memory, so that a server runs on paused time.
struct InMemory(mpsc::Receiver<DuplexStream>);

impl Listener for InMemory {
    type Io = DuplexStream;
    type Addr = ();

    async fn accept(&mut self) -> (DuplexStream, ()) {
        match self.0.recv().await {
            Some(stream) => (stream, ()),
            None => std::future::pending().await,
        }
    }

    fn local_addr(&self) -> io::Result<()> {
        Ok(())
    }
}

#[derive(Clone)]
struct Nobody;

impl Connected<IncomingStream<'_, InMemory>> for Nobody {
    fn connect_info(_: IncomingStream<'_, InMemory>) -> Self {
        Self
    }
}

#[tokio::test(start_paused = true)]
async fn graceful_shutdown_of_axum_ends_with_idle_clients_and_bodies_that_never_arrive() {
    let registry = EurekaServer::builder().build().unwrap();
    for n in 0..2_000 {
        registry.register(order(&n.to_string())).unwrap();
    }
    let events = registry.events();
    let (connections, accepted) = mpsc::channel(10);
    let (stop, stopped) = oneshot::channel::<()>();
    let app = Router::new().nest("/eureka", registry.router());
    let serving = tokio::spawn(async move {
        let service = app.into_make_service_with_connect_info::<Nobody>();
        axum::serve(InMemory(accepted), service).with_graceful_shutdown(async { drop(stopped.await) }).await
    });
    let connect = async |head: &str| {
        let (mut client, server) = duplex(64 * 1024);
        connections.send(server).await.unwrap();
        client.write_all(head.as_bytes()).await.unwrap();
        client
    };
    let mut idle = connect("GET /eureka/apps/ORDERS/1 HTTP/1.1\r\nhost: x\r\n\r\n").await;
    let mut head = [0; 12];
    idle.read_exact(&mut head).await.unwrap();
    assert_eq!(&head, b"HTTP/1.1 200");
    let unused = connect("").await;
    let heartbeat = connect("PUT /eureka/apps/ORDERS/1 HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\n{").await;
    let post = "POST /eureka/apps/ORDERS HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 900";
    let mut registration = connect(&format!("{post}\r\n\r\n{{")).await;
    sleep(SECOND).await;
    drop(stop);
    let began = Instant::now();
    timeout(60 * SECOND, serving).await.expect("the server ends").unwrap().unwrap();
    assert!(began.elapsed() <= 30 * SECOND, "{:?}", began.elapsed());
    let mut response = String::new();
    registration.read_to_string(&mut response).await.unwrap();
    assert!(response.starts_with("HTTP/1.1 408"), "{response}");
    drop((idle, unused, heartbeat, events));
}

#[tokio::test(start_paused = true)]
async fn body_that_never_arrives_is_given_up() {
    let server = Server::with_order().await;
    let endless = || Body::from_stream(tokio_stream::pending::<Result<String, Infallible>>());
    let began = Instant::now();
    let heartbeat = server.send(request("PUT", ORDER_1).body(endless()).unwrap()).await;
    assert_eq!((heartbeat.status(), began.elapsed()), (StatusCode::OK, 30 * SECOND));
    let registration = server.send(request("POST", ORDERS).body(endless()).unwrap()).await;
    assert_eq!((registration.status(), began.elapsed()), (StatusCode::REQUEST_TIMEOUT, 60 * SECOND));
}
