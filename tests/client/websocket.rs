//! WebSockets by name: connections that switch to another protocol.

use std::time::Duration;

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use http::{Request, StatusCode};
use http_body_util::Empty;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::protocol::Role;
use tower_eureka::balance::LeastRequests;
use tower_eureka::client::{CallOptions, Http2, HttpClient, PickedInstance, WaitForReady, parse_uri};
use tower_eureka::{ErrorKind, Eureka, Instance};

use crate::common::{Memory, listen};

type Client = HttpClient<Empty<Bytes>>;

/// Starts an instance that sends each message back with its id in front.
async fn echo(id: &'static str) -> Instance {
    let (listener, port) = listen().await;
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve(id, stream));
        }
    });
    Instance::builder("chat").id(id).ip_addr("127.0.0.1").port(port).build().unwrap()
}

async fn serve(id: &str, stream: TcpStream) {
    let mut socket = tokio_tungstenite::accept_async(stream).await.unwrap();
    while let Some(Ok(Message::Text(text))) = socket.next().await {
        socket.send(Message::text(format!("{id}: {text}"))).await.unwrap();
    }
}

fn eureka(instances: impl IntoIterator<Item = Instance>) -> Eureka {
    Memory::of(instances).serve().client().build().unwrap()
}

fn request(uri: &str) -> Request<Empty<Bytes>> {
    parse_uri(uri).unwrap().into_client_request().unwrap().map(|()| Empty::new())
}

async fn ask<S: AsyncRead + AsyncWrite + Unpin>(socket: &mut WebSocketStream<S>, text: &str) -> String {
    socket.send(Message::text(text)).await.unwrap();
    socket.next().await.unwrap().unwrap().into_text().unwrap().to_string()
}

fn pending(client: &Client) -> usize {
    client.snapshots()[0].endpoints().iter().map(|endpoint| endpoint.pending()).sum()
}

#[tokio::test]
async fn websocket_by_name_carries_messages_in_both_directions() {
    let eureka = eureka([echo("a").await]);
    for http2 in [Http2::AsRequested, Http2::Always] {
        let client: Client = eureka.http_client_with(CallOptions::new().http2(http2));
        for uri in ["ws://chat/room?id=1", "lb:ws://chat/room", "lb://chat/room", "http://chat/room"] {
            let connection = client.upgrade(request(uri)).await.unwrap();
            assert_eq!(connection.picked().unwrap().id(), "a");
            assert!(connection.response().headers().contains_key("sec-websocket-accept"));
            let mut socket = WebSocketStream::from_raw_socket(connection, Role::Client, None).await;
            for text in ["one", "two"] {
                assert_eq!(ask(&mut socket, text).await, format!("a: {text}"));
            }
        }
    }
}

#[tokio::test]
async fn open_websockets_count_as_load_until_they_are_dropped() {
    let eureka = eureka([echo("a").await, echo("b").await]);
    let client: Client = eureka.http_client_with(CallOptions::new().policy(LeastRequests));
    let mut connections = Vec::new();
    for _ in 0..10 {
        connections.push(client.upgrade(request("ws://chat/")).await.unwrap());
    }
    assert_eq!(pending(&client), 10);
    for endpoint in client.snapshots()[0].endpoints() {
        assert_eq!(endpoint.pending(), 5, "{}", client.snapshots()[0]);
    }
    drop(connections);
    assert_eq!(pending(&client), 0);
    // Responses count until they, too, are dropped.
    let response = client.request(request("ws://chat/")).await.unwrap();
    assert_eq!(response.status(), StatusCode::SWITCHING_PROTOCOLS);
    assert!(response.extensions().get::<PickedInstance>().is_some());
    assert_eq!(pending(&client), 1);
    let stream = TokioIo::new(hyper::upgrade::on(response).await.unwrap());
    assert_eq!(pending(&client), 0);
    let mut socket = WebSocketStream::from_raw_socket(stream, Role::Client, None).await;
    assert!(ask(&mut socket, "hello").await.ends_with(": hello"));
}

#[tokio::test]
async fn websocket_that_no_instance_accepts_fails_with_the_reason() {
    let (listener, port) = listen().await;
    let router = axum::Router::new();
    tokio::spawn(async move { axum::serve(listener, router).await });
    let instance = Instance::builder("chat").id("plain").ip_addr("127.0.0.1").port(port).build().unwrap();
    let client: Client = eureka([instance]).http_client();
    let error = client.upgrade(request("ws://chat/")).await.unwrap_err();
    assert_eq!((error.kind(), error.status()), (ErrorKind::Status(404), Some(404)));
    assert_eq!((error.instance_id(), error.http_status()), (Some("plain"), StatusCode::BAD_GATEWAY));
    // Without the headers of an upgrade, and for an application that does not exist.
    let plain = Request::get("ws://chat/").body(Empty::new()).unwrap();
    assert!(client.upgrade(plain).await.unwrap_err().is_config());
    let mut nobody = request("ws://nobody/");
    nobody.extensions_mut().insert(WaitForReady(Duration::ZERO));
    assert!(client.upgrade(nobody).await.unwrap_err().is_no_endpoints());
}

#[tokio::test]
async fn websocket_to_a_host_that_is_no_application_is_passed_through() {
    let instance = echo("a").await;
    let options = CallOptions::new().pass_through(|host| host == "127.0.0.1");
    let client: Client = eureka([]).http_client_with(options);
    let uri = format!("ws://127.0.0.1:{}/", instance.port().number);
    let connection = client.upgrade(request(&uri)).await.unwrap();
    assert!(connection.picked().is_none());
    let mut socket = WebSocketStream::from_raw_socket(connection, Role::Client, None).await;
    assert_eq!(ask(&mut socket, "hello").await, "a: hello");
}

#[cfg(feature = "reqwest")]
#[tokio::test]
async fn websocket_through_reqwest_carries_messages() {
    let eureka = eureka([echo("a").await]);
    let client = tower_eureka::reqwest::Client::new(&eureka, reqwest::Client::new());
    let response = client.get("lb:ws://chat/room").headers(request("ws://chat/").headers().clone()).send();
    let response = response.await.unwrap();
    assert_eq!(response.extensions().get::<PickedInstance>().unwrap().id(), "a");
    let connection = response.upgrade().await.unwrap();
    let mut socket = WebSocketStream::from_raw_socket(connection, Role::Client, None).await;
    assert_eq!(ask(&mut socket, "hello").await, "a: hello");
}

#[tokio::test]
async fn websocket_outlives_its_instance_in_the_registry() {
    let memory = Memory::of([echo("a").await]);
    let registry = memory.serve().client().delta(false);
    let eureka = registry.fetch_interval(Duration::from_millis(20)).build().unwrap();
    let client: Client = eureka.http_client_with(CallOptions::new().removal_grace(Duration::from_millis(50)));
    let connection = client.upgrade(request("ws://chat/")).await.unwrap();
    let mut socket = WebSocketStream::from_raw_socket(connection, Role::Client, None).await;
    memory.put(echo("b").await);
    memory.remove("a");
    let only_b = async || {
        let response = client.request(request("http://chat/")).await.unwrap();
        response.extensions().get::<PickedInstance>().is_some_and(|picked| picked.id() == "b")
    };
    while !(only_b().await && only_b().await && only_b().await) {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(ask(&mut socket, "still here").await, "a: still here");
}
