//! Fallbacks of HTTP clients and layers.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use tokio::time::{Instant, sleep};
use tower::{BoxError, Layer, Service, ServiceExt, service_fn};
use tower_eureka::client::{AttemptBody, CallOptions, Deadline, EurekaLayer, HttpClient, PickedInstance, RetryPolicy};
use tower_eureka::{Error, Eureka, Instance};

use crate::common::{Memory, two_frames};

type Body = Full<Bytes>;

fn eureka(instances: &[(&str, u16)]) -> Eureka {
    let instances = instances
        .iter()
        .map(|(id, port)| Instance::builder("orders").id(*id).ip_addr("127.0.0.1").port(*port).build().unwrap());
    Memory::of(instances).serve().client().build().unwrap()
}

fn post(body: &'static str) -> Request<Body> {
    Request::builder().method(Method::POST).uri("http://orders/v1").body(Full::from(body)).unwrap()
}

async fn text<B>(response: Response<B>) -> String
where
    B: http_body::Body<Error: std::fmt::Debug>,
{
    String::from_utf8(response.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap()
}

/// Returns URI and body of the request.
async fn describe(request: Request<AttemptBody<Body>>) -> Result<Response<Body>, BoxError> {
    let uri = request.uri().to_string();
    let body = request.into_body().collect().await?.to_bytes();
    Ok(Response::new(Full::from(format!("{uri} {}", String::from_utf8_lossy(&body)))))
}

/// Service below a layer that fails in this way after it has read the body.
fn failing(
    kind: io::ErrorKind,
) -> impl Service<Request<AttemptBody<Body>>, Response = Response<Body>, Error = BoxError, Future: Send> + Clone + Send + Sync
{
    service_fn(move |request: Request<AttemptBody<Body>>| async move {
        if kind != io::ErrorKind::ConnectionRefused {
            request.into_body().collect().await?;
        }
        Err(io::Error::from(kind).into())
    })
}

#[tokio::test(start_paused = true)]
async fn fallback_handles_calls_without_an_instance() {
    let eureka = eureka(&[]);
    let client = eureka.http_client::<Body>().fallback(service_fn(describe));
    let response = client.request(post("pay")).await.unwrap();
    assert!(response.extensions().get::<PickedInstance>().is_none());
    assert_eq!(text(response).await, "http://orders/v1 pay");
    let layer = EurekaLayer::new(&eureka).fallback(service_fn(describe));
    let client = layer.layer(failing(io::ErrorKind::ConnectionRefused));
    assert_eq!(text(client.oneshot(post("pay")).await.unwrap()).await, "http://orders/v1 pay");
    // The condition replaces the default.
    let client = client_with(&eureka, |error| error.is_timeout());
    assert!(client.request(post("pay")).await.unwrap_err().is_no_endpoints());
}

fn client_with(eureka: &Eureka, condition: fn(&Error) -> bool) -> HttpClient<Body> {
    eureka.http_client::<Body>().fallback(service_fn(describe)).fallback_on(condition)
}

#[tokio::test]
async fn fallback_handles_calls_to_unreachable_instances_only_if_the_condition_says_so() {
    let refusing = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let eureka = eureka(&[("a", refusing)]);
    let client = eureka.http_client::<Body>().fallback(service_fn(describe));
    assert!(client.request(post("pay")).await.unwrap_err().is_connect());
    // In either order.
    for client in [
        client.fallback_on(Error::is_unavailable),
        eureka.http_client::<Body>().fallback_on(Error::is_connect).fallback(service_fn(describe)),
    ] {
        assert_eq!(text(client.request(post("pay")).await.unwrap()).await, "http://orders/v1 pay");
        assert_eq!(text(client.clone().oneshot(post("pay")).await.unwrap()).await, "http://orders/v1 pay");
    }
}

#[tokio::test(start_paused = true)]
async fn fallback_receives_the_complete_body_or_is_not_called() {
    let eureka = eureka(&[("a", 1), ("b", 1)]);
    let calls = Arc::new(AtomicUsize::new(0));
    for (limit, expected) in [(1024, Some("http://orders/v1 onetwo")), (4, None)] {
        let options = CallOptions::new().retry(RetryPolicy::new().replay_limit(limit));
        let counted = calls.clone();
        let fallback = service_fn(move |request: Request<AttemptBody<_>>| {
            counted.fetch_add(1, Ordering::Relaxed);
            async move {
                let uri = request.uri().to_string();
                let body = request.into_body().collect().await?.to_bytes();
                Ok::<_, BoxError>(Response::new(Full::from(format!("{uri} {}", String::from_utf8_lossy(&body)))))
            }
        });
        let below = service_fn(|request: Request<AttemptBody<_>>| async move {
            request.into_body().collect().await?;
            Err::<Response<Body>, BoxError>(io::Error::from(io::ErrorKind::ConnectionReset).into())
        });
        let layer = EurekaLayer::new(&eureka).options(options).fallback(fallback).fallback_on(|_| true);
        let client = layer.layer(below);
        let request = Request::post("http://orders/v1").body(two_frames()).unwrap();
        match (client.oneshot(request).await, expected) {
            (Ok(response), Some(expected)) => assert_eq!(text(response).await, expected),
            (Err(error), None) => assert!(error.is_unavailable() && !error.is_connect(), "{error}"),
            (result, _) => panic!("{limit}: {result:?}"),
        }
    }
    assert_eq!(calls.load(Ordering::Relaxed), 1);
}

#[tokio::test(start_paused = true)]
async fn fallback_has_the_rest_of_the_deadline_and_at_least_a_second() {
    let eureka = eureka(&[]);
    for (limit, took, succeeds) in [(5_000, 1_900, true), (5_000, 2_100, false), (500, 900, true), (500, 1_100, false)]
    {
        let fallback = service_fn(move |_: Request<AttemptBody<Body>>| async move {
            sleep(Duration::from_millis(took)).await;
            Ok::<_, Infallible>(Response::new(Full::<Bytes>::default()))
        });
        // The default ready timeout is 3 seconds.
        let client = eureka.http_client::<Body>().fallback(fallback).fallback_on(|_| true);
        let start = Instant::now();
        let mut request = post("");
        request.extensions_mut().insert(Deadline::within(Duration::from_millis(limit)));
        let result = client.request(request).await;
        assert_eq!(result.is_ok(), succeeds, "{limit} {took}: {result:?} after {:?}", start.elapsed());
        if let Err(error) = result {
            assert!(error.is_timeout() && error.to_string().contains("fallback"), "{error}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn failed_fallback_is_an_error_with_both_causes() {
    let fallback = service_fn(|_: Request<AttemptBody<Body>>| async {
        Err::<Response<Body>, BoxError>("the cache is cold".into())
    });
    let client = eureka(&[]).http_client::<Body>().fallback(fallback);
    let error = client.request(post("")).await.unwrap_err();
    let (text, source) = (error.to_string(), std::error::Error::source(&error).unwrap().to_string());
    assert!(text.contains("the fallback failed") && text.contains("ORDERS") && text.contains("no endpoint"), "{text}");
    // Its text may contain secrets.
    assert!(source == "the cache is cold" && !text.contains(&source), "{text}: {source}");
}

#[tokio::test(start_paused = true)]
async fn fallback_handles_a_deadline_that_passes_while_there_is_no_instance() {
    let client = eureka(&[]).http_client::<Body>().fallback(service_fn(describe));
    let mut request = post("pay");
    // The default ready timeout is 3 seconds.
    request.extensions_mut().insert(Deadline::within(Duration::from_millis(500)));
    assert_eq!(text(client.request(request).await.unwrap()).await, "http://orders/v1 pay");
}

#[tokio::test(start_paused = true)]
async fn fallback_is_not_called_for_responses_and_invalid_names() {
    let eureka = eureka(&[("a", 1)]);
    let below = service_fn(|_: Request<AttemptBody<Body>>| async {
        let response = Response::builder().status(StatusCode::SERVICE_UNAVAILABLE);
        Ok::<_, Infallible>(response.body(Full::<Bytes>::default()).unwrap())
    });
    let client = EurekaLayer::new(&eureka)
        .fallback_on(|_| true)
        .fallback(service_fn(async |_: Request<AttemptBody<Body>>| Err::<Response<Body>, BoxError>("called".into())))
        .layer(below);
    let response = client.clone().oneshot(post("")).await.unwrap();
    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert!(response.extensions().get::<PickedInstance>().is_some());
    let invalid = Request::get("ftp://orders/").body(Full::default()).unwrap();
    assert!(client.oneshot(invalid).await.unwrap_err().is_config());
}
