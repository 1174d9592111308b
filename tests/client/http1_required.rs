//! Instances that require HTTP/1.1 for requests over HTTP/2.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, Version};
use http_body_util::{BodyExt, Full};
use hyper::service::service_fn as hyper_fn;
use hyper_util::rt::TokioIo;
use tower_eureka::Error;
use tower_eureka::balance::EndpointState;
use tower_eureka::client::{CallOptions, Http2, HttpClient};

use crate::captured_log::Log;
use crate::common::{Memory, at, listen};
use crate::raw_http2::{raw, reset};

type Calls = HttpClient<Full<Bytes>>;

fn client(port: u16, options: CallOptions) -> Calls {
    let instance = at("a", port);
    Memory::of([instance]).serve().client().delta(false).build().unwrap().http_client_with(options)
}

fn request(method: Method, version: Version) -> Request<Full<Bytes>> {
    Request::builder().method(method).uri("http://orders/").version(version).body(Full::from("pay")).unwrap()
}

async fn call(client: &Calls, request: Request<Full<Bytes>>) -> Result<Bytes, Error> {
    Ok(client.request(request).await?.into_body().collect().await.unwrap().to_bytes())
}

const HTTP_1_1_REQUIRED: u8 = 13;

/// Starts a server that requires HTTP/1.1 for requests over HTTP/2. Returns the port and the number
/// of these requests.
async fn requiring_http1() -> (u16, Arc<AtomicUsize>) {
    requiring_http1_by(|stream| reset(stream, HTTP_1_1_REQUIRED)).await
}

/// Starts the same server, which responds to a stream of HTTP/2 with this frame.
async fn requiring_http1_by(frame: fn([u8; 4]) -> Vec<u8>) -> (u16, Arc<AtomicUsize>) {
    let (http2, requests) = raw(move |_, stream| frame(stream)).await;
    let (listener, port) = listen().await;
    tokio::spawn(async move {
        loop {
            let (mut socket, _) = listener.accept().await.unwrap();
            tokio::spawn(async move {
                let mut first = [0; 3];
                socket.peek(&mut first).await?;
                if first == *b"PRI" {
                    let mut other = tokio::net::TcpStream::connect(("127.0.0.1", http2)).await?;
                    return tokio::io::copy_bidirectional(&mut socket, &mut other).await.map(drop);
                }
                let service =
                    hyper_fn(|_| async { Ok::<_, Infallible>(Response::new(Full::<Bytes>::from("over HTTP/1.1"))) });
                let _ =
                    hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(socket), service).await;
                Ok(())
            });
        }
    });
    (port, requests)
}

#[tokio::test]
async fn instance_that_requires_http1_is_called_over_it_without_a_failure() {
    for (options, version) in
        [(CallOptions::new(), Version::HTTP_2), (CallOptions::new().http2(Http2::Always), Version::HTTP_11)]
    {
        let (port, requests) = requiring_http1().await;
        let client = client(port, options);
        let (log, guard) = Log::start(tracing::Level::DEBUG);
        for _ in 0..20 {
            assert_eq!(call(&client, request(Method::POST, version)).await.unwrap(), "over HTTP/1.1");
        }
        let snapshot = &client.snapshots()[0];
        assert_eq!(
            (snapshot.count(EndpointState::Available), snapshot.endpoints()[0].failures()),
            (1, 0),
            "{snapshot}"
        );
        drop(guard);
        assert_eq!(log.text().matches("falling back").count(), 1, "{}", log.text());
        assert_eq!(requests.load(Ordering::SeqCst), 1, "only the first request is sent over HTTP/2");
    }
}

#[tokio::test]
async fn instance_that_requires_http1_of_the_connection_is_called_over_it() {
    let (port, requests) = requiring_http1_by(|_| goaway(HTTP_1_1_REQUIRED)).await;
    let client = client(port, CallOptions::new());
    for _ in 0..20 {
        assert_eq!(call(&client, request(Method::POST, Version::HTTP_2)).await.unwrap(), "over HTTP/1.1");
    }
    assert_eq!(requests.load(Ordering::SeqCst), 1, "only the first request is sent over HTTP/2");
}

#[tokio::test]
async fn http2_is_tried_again_after_some_minutes() {
    let (port, requests) = requiring_http1().await;
    let client = client(port, CallOptions::new());
    for sent in [1, 2] {
        for _ in 0..3 {
            assert_eq!(call(&client, request(Method::POST, Version::HTTP_2)).await.unwrap(), "over HTTP/1.1");
        }
        assert_eq!(requests.load(Ordering::SeqCst), sent);
        tokio::time::pause();
        tokio::time::advance(Duration::from_secs(301)).await;
        tokio::time::resume();
    }
}

#[tokio::test]
async fn grpc_call_fails_without_a_repetition() {
    let (port, requests) = requiring_http1().await;
    let client = client(port, CallOptions::new());
    let mut grpc = request(Method::POST, Version::HTTP_2);
    grpc.headers_mut().insert("content-type", "application/grpc".parse().unwrap());
    let error = call(&client, grpc).await.unwrap_err();
    assert!(!error.is_unprocessed() && error.to_string().contains("HTTP_1_1_REQUIRED"), "{error}");
    let snapshot = &client.snapshots()[0];
    assert_eq!((requests.load(Ordering::SeqCst), snapshot.endpoints()[0].failures()), (1, 1), "{snapshot}");
}

/// Encodes a GOAWAY frame with this reason, of a server that has processed no stream.
fn goaway(reason: u8) -> Vec<u8> {
    vec![0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, reason]
}
