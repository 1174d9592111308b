use std::future::poll_fn;
use std::pin::pin;

use bytes::Bytes;
use http::{Request, Response, StatusCode, Uri, header};
use http_body_util::Empty;
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use super::Target;
use crate::connect::error::ConnectError;

/// Opens a tunnel through a proxy to the host of an https URI (`CONNECT`).
///
/// Waits for the response without a limit, so the caller sets one. Dropping the future closes the
/// connection.
pub(in crate::connect) async fn tunnel(tcp: TcpStream, uri: &Uri, proxy: &Target) -> Result<TcpStream, ConnectError> {
    let place = format!("{}:{}", uri.host().unwrap_or_default(), uri.port_u16().unwrap_or(443));
    let failed = |why: &dyn std::fmt::Display| {
        ConnectError::new(format!("the proxy {proxy} opened no tunnel to {place}: {why}"))
    };
    let mut request = Request::connect(&place).header(header::HOST, &place);
    request = request.header(header::USER_AGENT, concat!("tower-eureka/", env!("CARGO_PKG_VERSION")));
    if let Some(authorization) = proxy.authorization() {
        request = request.header(header::PROXY_AUTHORIZATION, authorization);
    }
    let request = request.body(Empty::<Bytes>::new()).map_err(|error| failed(&error))?;
    let handshake = http1::Builder::new().max_buf_size(64 * 1024).handshake(TokioIo::new(tcp)).await;
    let (mut sender, connection) = handshake.map_err(|error| failed(&error))?;
    let mut opened = pin!(async {
        let response = sender.send_request(request).await.map_err(|error| failed(&error).with_source(error))?;
        accepted(response, proxy).await.map_err(|why| failed(&why))
    });
    let mut connection = pin!(connection.with_upgrades());
    let mut is_connected = true;
    let upgraded = poll_fn(|cx| {
        if is_connected {
            is_connected = connection.as_mut().poll(cx).is_pending();
        }
        opened.as_mut().poll(cx)
    });
    let parts = upgraded.await?.downcast::<TokioIo<TcpStream>>().expect("connection is over TCP");
    if !parts.read_buf.is_empty() {
        return Err(failed(&"it sent data before the TLS handshake"));
    }
    Ok(parts.io.into_inner())
}

async fn accepted(response: Response<Incoming>, proxy: &Target) -> Result<Upgraded, String> {
    match response.status() {
        status if status.is_success() => hyper::upgrade::on(response).await.map_err(|error| error.to_string()),
        status @ StatusCode::PROXY_AUTHENTICATION_REQUIRED if proxy.authorization().is_none() => {
            Err(format!("{status} (it requires credentials)"))
        }
        status @ StatusCode::PROXY_AUTHENTICATION_REQUIRED => Err(format!("{status} (it rejects the credentials)")),
        status => Err(status.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;
    use crate::connect::Proxies;

    /// Opens a tunnel through a proxy that sends this response, and returns what the proxy
    /// received.
    async fn open(url: &str, response: &'static [u8]) -> (Result<TcpStream, ConnectError>, String) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let tcp = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let proxy = tokio::spawn(async move {
            let (mut socket, _) = listener.accept().await.unwrap();
            let mut received = Vec::new();
            while !received.ends_with(b"\r\n\r\n") {
                received.push(socket.read_u8().await.unwrap());
            }
            socket.write_all(response).await.unwrap();
            (socket, String::from_utf8(received).unwrap())
        });
        let proxies = Proxies::default().with_url("proxy()", url).unwrap();
        let uri: Uri = "https://registry/eureka/".parse().unwrap();
        let opened = tunnel(tcp, &uri, proxies.of(&uri).unwrap().target().unwrap()).await;
        let (mut socket, received) = proxy.await.unwrap();
        if opened.is_ok() {
            socket.write_all(b"tls").await.unwrap();
        }
        (opened, received)
    }

    #[tokio::test]
    async fn accepted_tunnel_carries_bytes() {
        let (opened, received) = open("http://user:hunter2@proxy:3128", b"HTTP/1.1 200 OK\r\n\r\n").await;
        let mut bytes = [0; 3];
        opened.unwrap().read_exact(&mut bytes).await.unwrap();
        assert_eq!(&bytes, b"tls");
        assert!(received.starts_with("CONNECT registry:443 HTTP/1.1\r\n"), "{received}");
        assert!(received.to_lowercase().contains("\r\nhost: registry:443\r\n"), "{received}");
        assert!(received.contains("Basic dXNlcjpodW50ZXIy"), "{received}");
    }

    #[tokio::test]
    async fn rejected_tunnel_is_an_error_with_the_status_and_without_the_password() {
        let (url, bare) = ("http://user:hunter2@proxy:3128", "http://proxy:3128");
        for (url, response, why) in [
            (
                url,
                &b"HTTP/1.1 407 Proxy Authentication Required\r\ncontent-length: 0\r\n\r\n"[..],
                "rejects the credentials",
            ),
            (bare, b"HTTP/1.1 407 Proxy Authentication Required\r\ncontent-length: 0\r\n\r\n", "requires credentials"),
            (url, b"HTTP/1.1 403 Forbidden\r\ncontent-length: 5\r\n\r\nhtml", "403 Forbidden"),
            (url, b"HTTP/1.1 200 OK\r\n\r\nearly", "before the TLS handshake"),
            (url, b"SSH-2.0\r\n\r\n", "opened no tunnel"),
        ] {
            let error = open(url, response).await.0.unwrap_err();
            let text = format!("{error} {error:?}");
            assert!(
                text.contains("the proxy proxy:3128 opened no tunnel to registry:443") && text.contains(why),
                "{text}"
            );
            assert!(!text.contains("hunter2") && !text.contains("dXNlcj"), "{text}");
        }
    }
}
