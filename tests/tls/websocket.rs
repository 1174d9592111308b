//! WebSockets by name over TLS.

use std::sync::Arc;

use futures_util::{SinkExt, StreamExt};
use http_body_util::Full;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::protocol::Role;

use crate::world::{World, server};

#[tokio::test]
async fn websocket_over_tls_is_sent_to_the_secure_port() {
    let world = World::new().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    // Supports HTTP/2, which has no upgrades.
    let acceptor = TlsAcceptor::from(Arc::new(server(world.ca.identity(&["localhost"]))));
    tokio::spawn(async move {
        let (tcp, _) = listener.accept().await.unwrap();
        let mut socket = tokio_tungstenite::accept_async(acceptor.accept(tcp).await.unwrap()).await.unwrap();
        let message = socket.next().await.unwrap().unwrap();
        socket.send(message).await.unwrap();
    });
    world.register("a", "localhost", port).await;
    let request = "wss://orders/".into_client_request().unwrap().map(|()| Full::default());
    let connection = world.client.upgrade(request).await.unwrap();
    let picked = connection.picked().unwrap();
    assert_eq!((picked.id(), picked.scheme().as_str()), ("a", "https"));
    let mut socket = WebSocketStream::from_raw_socket(connection, Role::Client, None).await;
    socket.send(Message::text("hello")).await.unwrap();
    assert_eq!(socket.next().await.unwrap().unwrap().into_text().unwrap(), "hello");
}
