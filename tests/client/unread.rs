//! Unread responses, and requests that the instance does not read.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, Version};
use http_body::Body;
use http_body_util::{BodyExt, Full};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::sync::Barrier;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tower_eureka::Instance;
use tower_eureka::client::{CallOptions, HttpClient, RetryPolicy};

use crate::common::{Memory, SOON, at, listen};

type Calls = HttpClient<Full<Bytes>>;

/// Starts an instance with at most four streams for each HTTP/2 connection.
async fn instance<F>(respond: impl Fn(Request<Incoming>) -> F + Clone + Send + 'static) -> Instance
where
    F: Future<Output = Response<Full<Bytes>>> + Send + 'static,
{
    let (listener, port) = listen().await;
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let respond = respond.clone();
            let service = service_fn(move |request| {
                let response = respond(request);
                async { Ok::<_, Infallible>(response.await) }
            });
            let mut server = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
            server.http2().max_concurrent_streams(4);
            tokio::spawn(async move { server.serve_connection(TokioIo::new(stream), service).await });
        }
    });
    at("a", port)
}

/// Starts an instance that refuses each upload and does not read it.
async fn refusing() -> Instance {
    let refuse =
        |_| async { Response::builder().status(StatusCode::PAYLOAD_TOO_LARGE).body(Full::from("too large")).unwrap() };
    instance(refuse).await
}

fn client(instance: Instance, options: CallOptions) -> Calls {
    Memory::of([instance]).serve().client().build().unwrap().http_client_with(options)
}

fn get(path: &str, version: Version) -> Request<Full<Bytes>> {
    Request::get(format!("http://orders/{path}")).version(version).body(Full::default()).unwrap()
}

fn body(len: usize) -> Full<Bytes> {
    Full::from(vec![b'x'; len])
}

#[tokio::test(flavor = "multi_thread")]
async fn unread_responses_do_not_stop_other_calls_on_their_http2_connection() {
    let instance = instance(|request| {
        let len = if request.uri().path() == "/large" { 10_000_000 } else { 10 };
        async move { Response::new(body(len)) }
    });
    let client = client(instance.await, CallOptions::new().http2_connections(1));
    let mut unread = Vec::new();
    for _ in 0..3 {
        unread.push(client.request(get("large", Version::HTTP_2)).await.unwrap());
    }
    for _ in 0..200 {
        let small = async { client.request(get("small", Version::HTTP_2)).await.unwrap().into_body().collect().await };
        let read = timeout(SOON, small).await.expect("call waits for the readers of other responses").unwrap();
        assert_eq!(read.to_bytes().len(), 10);
    }
    for response in unread {
        assert_eq!(response.into_body().collect().await.unwrap().to_bytes().len(), 10_000_000);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn upload_that_the_instance_refuses_unread_has_its_response() {
    let client = client(refusing().await, CallOptions::new());
    for version in [Version::HTTP_11, Version::HTTP_2] {
        for _ in 0..40 {
            let request = Request::builder().method(Method::POST).uri("http://orders/").version(version);
            let response = client.request(request.body(body(8_000_000)).unwrap()).await.unwrap();
            assert_eq!(response.status(), StatusCode::PAYLOAD_TOO_LARGE);
            assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "too large");
        }
    }
    assert_eq!(client.snapshots()[0].endpoints()[0].failures(), 0);
}

/// Body that always has a next frame.
struct Endless;

impl Body for Endless {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(&[b'x'; 10_000])))))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn endless_upload_that_the_instance_refuses_ends_with_its_response() {
    let eureka = Memory::of([refusing().await]).serve().client().build().unwrap();
    let client = eureka.http_client();
    for version in [Version::HTTP_11, Version::HTTP_2] {
        for _ in 0..20 {
            let request = Request::post("http://orders/").version(version).body(Endless).unwrap();
            let response = timeout(SOON, client.request(request)).await.expect("the upload ends").unwrap();
            assert_eq!(response.status(), StatusCode::PAYLOAD_TOO_LARGE);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn retry_does_not_wait_for_the_response_that_it_replaces() {
    for version in [Version::HTTP_11, Version::HTTP_2] {
        let (requests, all) = (Arc::new(AtomicUsize::new(0)), Arc::new(Barrier::new(4)));
        let instance = instance(move |_| {
            let (number, all) = (requests.fetch_add(1, Ordering::Relaxed), all.clone());
            async move {
                if number >= 4 {
                    return Response::new(body(4));
                }
                // Refused while all connections or streams are in use.
                all.wait().await;
                Response::builder().status(StatusCode::SERVICE_UNAVAILABLE).body(body(1_000_000)).unwrap()
            }
        });
        let options = CallOptions::new().retry(RetryPolicy::new().statuses([503]));
        let client = client(instance.await, options.http1_connections(4).http2_connections(1));
        let mut calls: JoinSet<_> = (0..4).map(|_| client.request(get("", version))).collect();
        while let Some(response) = calls.join_next().await {
            assert_eq!(response.unwrap().unwrap().status(), StatusCode::OK, "{version:?}");
        }
    }
}
