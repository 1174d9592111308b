//! Calls through a service in the place of connections, without a socket and on paused time.

use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, Version};
use http_body_util::{BodyExt, Full};
use tokio::time::{Instant, sleep};
use tower::{BoxError, service_fn};
use tower_eureka::balance::EndpointState;
use tower_eureka::client::{CallOptions, Http2, InstanceRequestBody, PickedInstance};
use tower_eureka::{Eureka, EurekaBuilder};

type Requests = Arc<Mutex<Vec<String>>>;

/// Returns a client of two static instances, whose requests a service handles. The instance at port
/// 1 refuses connections.
fn with_service(requests: &Requests) -> EurekaBuilder {
    let requests = requests.clone();
    let service = service_fn(move |request: Request<InstanceRequestBody>| {
        let requests = requests.clone();
        async move {
            let (parts, body) = request.into_parts();
            if parts.uri.port_u16() == Some(1) {
                requests.lock().unwrap().push(parts.uri.to_string());
                return Err(io::Error::from(io::ErrorKind::ConnectionRefused).into());
            }
            let host = parts.headers.get("host").map_or("-", |host| host.to_str().unwrap());
            let (version, body) = (parts.version, body.collect().await?.to_bytes());
            let text = format!("{} {} {version:?} {host} {body:?}", parts.method, parts.uri);
            requests.lock().unwrap().push(text.clone());
            match parts.uri.path() {
                "/lost" => Err(io::Error::from(io::ErrorKind::ConnectionReset).into()),
                "/slow" => std::future::pending().await,
                _ => Ok::<_, BoxError>(Response::new(Full::<Bytes>::from(text))),
            }
        }
    });
    Eureka::builder().service_url("http://registry/eureka").fetch_registry(false).instance_service(service)
}

fn eureka(requests: &Requests, urls: &[&str]) -> Eureka {
    with_service(requests).static_instances("orders", urls.iter().copied()).build().unwrap()
}

fn get(uri: &str) -> Request<Full<Bytes>> {
    Request::get(uri).body(Full::default()).unwrap()
}

#[tokio::test(start_paused = true)]
async fn http_client_calls_instances_through_the_service() {
    let requests = Requests::default();
    let eureka = eureka(&requests, &["http://10.0.0.1:80"]);
    let client = eureka.http_client::<Full<Bytes>>();
    let post = Request::post("http://orders/v1?a=b").body(Full::from("book")).unwrap();
    let response = client.request(post).await.unwrap();
    assert_eq!(response.extensions().get::<PickedInstance>().unwrap().authority(), "10.0.0.1:80");
    let body = response.into_body().collect().await.unwrap().to_bytes();
    assert_eq!(body, "POST http://10.0.0.1:80/v1?a=b HTTP/1.1 10.0.0.1:80 b\"book\"");

    let http2 = eureka.http_client_with(CallOptions::new().http2(Http2::Always));
    http2.request(get("http://orders/")).await.unwrap();
    assert_eq!(requests.lock().unwrap()[1], format!("GET http://10.0.0.1:80/ {:?} - b\"\"", Version::HTTP_2));

    let direct = eureka.http_client_with(CallOptions::new().pass_through(|host| host.contains('.')));
    direct.request(get("http://www.example.org/x")).await.unwrap();
    assert_eq!(requests.lock().unwrap()[2], "GET http://www.example.org/x HTTP/1.1 www.example.org b\"\"");
}

#[tokio::test(start_paused = true)]
async fn errors_of_the_service_count_as_those_of_connections() {
    let requests = Requests::default();
    let two = eureka(&requests, &["http://10.0.0.1:1", "http://10.0.0.2:80"]);
    let client = two.http_client::<Full<Bytes>>();
    for _ in 0..20 {
        let post = Request::post("http://orders/").body(Full::from("book")).unwrap();
        let response = client.request(post).await.unwrap();
        assert_eq!(response.extensions().get::<PickedInstance>().unwrap().authority(), "10.0.0.2:80");
    }
    let refused = requests.lock().unwrap().iter().filter(|request| request.contains("10.0.0.1:1/")).count();
    assert!((1..10).contains(&refused), "{refused}");

    let client = eureka(&requests, &["http://10.0.0.1:1"]).http_client::<Full<Bytes>>();
    assert!(client.request(get("http://orders/")).await.unwrap_err().is_connect());
    let options = CallOptions::new().timeout(Duration::from_secs(5));
    let client = eureka(&requests, &["http://10.0.0.2:80"]).http_client_with::<Full<Bytes>>(options);
    let error = client.request(get("http://orders/lost")).await.unwrap_err();
    assert!(error.to_string().contains("connection reset"), "{error}");
    let start = Instant::now();
    assert!(client.request(get("http://orders/slow")).await.unwrap_err().is_timeout());
    assert_eq!(start.elapsed().as_secs(), 5);
}

#[tokio::test(start_paused = true)]
async fn health_checks_are_sent_through_the_service() {
    let requests = Requests::default();
    let options = CallOptions::new().health_check(Duration::from_secs(10)).health_check_path("/health");
    let eureka = eureka(&requests, &["http://10.0.0.1:1", "http://10.0.0.2:80"]);
    let client = eureka.http_client_with::<Full<Bytes>>(options);
    client.request(get("http://orders/")).await.unwrap();
    sleep(Duration::from_secs(60)).await;
    let checks = requests.lock().unwrap().iter().filter(|request| request.contains("10.0.0.2:80/health")).count();
    assert!((4..=8).contains(&checks), "{checks}");
    let snapshot = client.snapshots().remove(0);
    assert_eq!(snapshot.count(EndpointState::Available), 1, "{snapshot}");
}

#[cfg(feature = "reqwest")]
#[tokio::test(start_paused = true)]
async fn reqwest_client_calls_instances_through_the_service() {
    let requests = Requests::default();
    let eureka = eureka(&requests, &["http://10.0.0.1:1", "http://10.0.0.2:80"]);
    let client = tower_eureka::reqwest::Client::new(&eureka, reqwest::Client::new());
    for _ in 0..5 {
        let response = client.post("http://orders/v1").body("book").send().await.unwrap();
        assert_eq!(response.url().as_str(), "http://10.0.0.2/v1");
        let text = response.text().await.unwrap();
        assert_eq!(text, "POST http://10.0.0.2:80/v1 HTTP/1.1 10.0.0.2:80 b\"book\"");
    }
}
