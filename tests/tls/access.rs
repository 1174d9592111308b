//! Access to a registry over HTTPS: credentials, own CA, client certificate, and a proxy.

use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::Request;
use axum::middleware::{Next, from_fn};
use axum::response::IntoResponse;
use http::{StatusCode, header};
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tower_eureka::{Error, Eureka, EurekaBuilder, EurekaServer, Instance};

use crate::world::{Ca, serve, server};

/// Returns a registry at `/eureka`.
pub(crate) fn registry() -> Router {
    Router::new().nest("/eureka", EurekaServer::builder().build().unwrap().router())
}

/// Returns a registry that requires this `Authorization` header.
pub(crate) fn guarded(expected: &'static str) -> Router {
    registry().layer(from_fn(move |request: Request, next: Next| async move {
        match request.headers().get(header::AUTHORIZATION) {
            Some(value) if value == expected => next.run(request).await,
            _ => StatusCode::UNAUTHORIZED.into_response(),
        }
    }))
}

pub(crate) async fn register(builder: EurekaBuilder) -> Result<(), Error> {
    let instance = Instance::builder("orders").id("a").ip_addr("127.0.0.1").port(1).build().unwrap();
    builder.build()?.transport().register(&instance).await
}

/// Registers, and asserts that the error has these parts and none of the secrets of these tests.
async fn refused(builder: EurekaBuilder, parts: &[&str]) {
    let error = register(builder).await.unwrap_err();
    for part in parts {
        assert!(error.to_string().contains(part), "{part} in {error}");
    }
    let text = format!("{error} {error:?}");
    assert!(!text.contains("hunter") && !text.contains("aHVudGVy"), "{text}");
}

// "user:hunter2" in base64.
const BASIC: &str = "Basic dXNlcjpodW50ZXIy";

#[tokio::test]
async fn right_credentials_register_over_tls_and_wrong_ones_are_a_clear_error() {
    let ca = Ca::new();
    let file = ca.pem_file("access-ca.pem");
    let url = |user: &str, port: u16| format!("https://{user}localhost:{port}/eureka/");
    let basic = serve(server(ca.identity(&["localhost"])), guarded(BASIC)).await;
    let bearer = serve(server(ca.identity(&["localhost"])), guarded("Bearer hunter2")).await;
    let builder = |url: String| Eureka::builder().service_url(url).tls_ca_file(&file);
    let token = |token: &'static str| move || async move { Ok::<_, Error>(token) };

    register(builder(url("user:hunter2@", basic))).await.unwrap();
    register(builder(url("", basic)).basic_auth("user", "hunter2")).await.unwrap();
    register(builder(url("", bearer)).bearer_token(token("hunter2"))).await.unwrap();

    let parts = ["register ORDERS (a) at https://localhost", "401", "give valid credentials"];
    refused(builder(url("", basic)), &parts).await;
    refused(builder(url("user:hunter3@", basic)), &parts).await;
    refused(builder(url("", basic)).basic_auth("user", "hunter3"), &parts).await;
    refused(builder(url("", bearer)).bearer_token(token("hunter3")), &parts).await;
}

#[tokio::test]
async fn own_ca_is_required_for_its_servers() {
    let ca = Ca::new();
    let port = serve(server(ca.identity(&["localhost"])), registry()).await;
    let builder = || Eureka::builder().service_url(format!("https://localhost:{port}/eureka/"));
    register(builder().tls_ca_file(ca.pem_file("access-own.pem"))).await.unwrap();
    let other = Ca::named("other").pem_file("access-other.pem");
    refused(builder().tls_ca_file(other), &["its certificate is of a CA that is not trusted here"]).await;
}

#[tokio::test]
async fn client_certificate_is_required_by_a_strict_server() {
    let (ca, other) = (Ca::new(), Ca::named("other"));
    let port = serve(ca.strict_server(), registry()).await;
    let file = ca.pem_file("access-strict.pem");
    let builder = || Eureka::builder().service_url(format!("https://localhost:{port}/eureka/")).tls_ca_file(&file);
    let (certificate, key) = ca.identity_files("access-client");
    register(builder().tls_identity_file(certificate, key)).await.unwrap();

    let parts = ["the server rejected the TLS handshake", "tls_identity_file()"];
    refused(builder(), &parts).await;
    let (certificate, key) = other.identity_files("access-stranger");
    refused(builder().tls_identity_file(certificate, key), &parts).await;
}

/// Proxy that opens tunnels to this port, whatever the host. Returns its port and the heads of the
/// requests that it received.
async fn proxy(target: u16) -> (u16, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let heads = Arc::<Mutex<Vec<String>>>::default();
    let received = heads.clone();
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let received = received.clone();
            tokio::spawn(async move {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    head.push(client.read_u8().await.unwrap());
                }
                let head = String::from_utf8(head).unwrap();
                let is_known = head.contains("Basic dXNlcjpodW50ZXIy");
                received.lock().unwrap().push(head);
                if !is_known {
                    let refusal = b"HTTP/1.1 407 Proxy Authentication Required\r\ncontent-length: 0\r\n\r\n";
                    return client.write_all(refusal).await.unwrap();
                }
                let mut server = TcpStream::connect(("127.0.0.1", target)).await.unwrap();
                client.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").await.unwrap();
                let _ = copy_bidirectional(&mut client, &mut server).await;
            });
        }
    });
    (port, heads)
}

#[tokio::test]
async fn https_registry_is_reached_through_a_tunnel() {
    let ca = Ca::new();
    let registry = serve(server(ca.identity(&["registry.example"])), guarded("Basic dTpw")).await;
    let (port, heads) = proxy(registry).await;
    let builder = |proxy: String| {
        let builder = Eureka::builder().service_url("https://u:p@registry.example:8761/eureka/").proxy(proxy);
        builder.tls_ca_file(ca.pem_file("access-proxy.pem"))
    };
    register(builder(format!("http://user:hunter2@127.0.0.1:{port}"))).await.unwrap();
    let head = heads.lock().unwrap()[0].clone();
    assert!(head.starts_with("CONNECT registry.example:8761 HTTP/1.1\r\n"), "{head}");
    assert!(!head.contains("dTpw"), "credentials of the registry stay within the tunnel: {head}");

    let place = "opened no tunnel to registry.example:8761";
    refused(builder(format!("http://user:hunter3@127.0.0.1:{port}")), &[place, "407", "rejects the credentials"]).await;
    refused(builder(format!("http://127.0.0.1:{port}")), &[place, "407", "requires credentials"]).await;
}
