//! hyper servers that shut each connection down gracefully after some time, like proxies and
//! rolling restarts.

use std::convert::Infallible;
use std::pin::pin;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, Version};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use tokio::net::TcpListener;

use super::super::slot;
use super::{CALLS, FEWER_CALLS, Fixture, Methods, call_by_name};

/// Starts a server that shuts each connection down after 0.5 to 1.5 times `age`. Returns its port.
async fn serve(age: Duration) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback has a free port");
    let port = listener.local_addr().expect("listener is bound").port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let age = age.mul_f64(0.5 + fastrand::f64());
            tokio::spawn(async move {
                let builder = Builder::new(TokioExecutor::new());
                let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), service_fn(respond)));
                tokio::select! {
                    _ = connection.as_mut() => return,
                    () = tokio::time::sleep(age) => connection.as_mut().graceful_shutdown(),
                }
                drop(connection.await);
            });
        }
    });
    port
}

/// Reads the request to its end and responds after a millisecond, so that calls are in flight when
/// a connection ends.
async fn respond(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    drop(request.into_body().collect().await);
    tokio::time::sleep(Duration::from_millis(1)).await;
    Ok(Response::new(Full::from("hyper")))
}

async fn hyper_that_shuts_down_fails_no_call(
    name: &str,
    calls: usize,
    age: Duration,
    instances: usize,
    version: Version,
) {
    let _slot = slot().await;
    let fixture = Fixture::new().await;
    for number in 1..=instances {
        fixture.register("hyper", &format!("hyper-{number}"), serve(age).await).await;
    }
    // A request over HTTP/1.1 that meets the end of an idle connection may have been processed, so
    // only idempotent methods are repeated.
    let methods = if version == Version::HTTP_2 { Methods::GetAndPost } else { Methods::Get };
    call_by_name(name, calls, fixture.eureka.http_client(), "http://hyper/", version, methods).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn hyper_with_graceful_shutdowns_fails_no_call_over_http2() {
    hyper_that_shuts_down_fails_no_call("hyper-http2", CALLS, Duration::from_secs(1), 3, Version::HTTP_2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn single_hyper_with_frequent_shutdowns_fails_no_call_over_http2() {
    hyper_that_shuts_down_fails_no_call(
        "hyper-http2-often",
        FEWER_CALLS,
        Duration::from_millis(50),
        1,
        Version::HTTP_2,
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn hyper_with_graceful_shutdowns_fails_no_call_over_http1() {
    hyper_that_shuts_down_fails_no_call("hyper-http1", FEWER_CALLS, Duration::from_millis(200), 3, Version::HTTP_11)
        .await;
}
