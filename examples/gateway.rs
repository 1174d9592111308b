//! A gateway in front of all applications of a registry: `/orders/v1/42` is sent to an instance of
//! ORDERS as `/v1/42`.
//!
//! ```sh
//! cargo run --example gateway --all-features   # then open http://127.0.0.1:8080/debug
//! cargo test --example gateway --all-features  # the tests, which need no socket
//! ```
//!
//! Without `EUREKA_CLIENT_SERVICEURL_DEFAULTZONE` it starts a registry and some instances of its
//! own. `PORT` sets the port. Any application of the registry can be called: check the name against
//! a list if the gateway is public. `/debug` shows addresses: serve it on another port in
//! production.
#![allow(clippy::print_stdout, reason = "an example prints to stdout")]

mod world;

use std::time::Duration;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get};
use axum::{Router, http};
use http::{StatusCode, Uri, header};
use tokio::net::TcpListener;
use tower::util::BoxCloneSyncService;
use tower::{BoxError, ServiceExt, service_fn};
use tower_eureka::client::{AttemptBody, CallOptions, RetryPolicy};
use tower_eureka::debug::DebugService;
use tower_eureka::{Error, Eureka, shutdown_signal};

/// Calls by name, with a fallback.
type Calls = BoxCloneSyncService<Request, Response, Error>;

fn options() -> CallOptions {
    CallOptions::new()
        .timeout(Duration::from_secs(5))
        .x_forwarded(true)
        .application("reports", |options| options.timeout(Duration::from_secs(60)))
        .application("orders", |options| options.retry(RetryPolicy::new().statuses([502, 503])))
}

fn calls(eureka: &Eureka) -> Calls {
    let client = eureka.http_client_with(options());
    let client = client.fallback(service_fn(unavailable)).fallback_on(Error::is_unavailable);
    Calls::new(client.map_response(|response| response.map(Body::new)))
}

fn gateway(eureka: &Eureka) -> Router {
    Router::new()
        .route_service("/debug", DebugService::new(eureka))
        .route("/ready", get(ready))
        .with_state(eureka.clone())
        .route("/{application}/{*path}", any(forward).with_state(calls(eureka)))
}

/// Sends a request to the application that the first segment of its path names.
async fn forward(State(calls): State<Calls>, mut request: Request) -> Response {
    // `/orders/v1/42?x=y` becomes `http://orders/v1/42?x=y`. The extractor `Path` would decode
    // percent-encoding.
    let target = request.uri().path_and_query().map_or("/", |target| target.as_str());
    let Ok(uri) = format!("http:/{target}").parse::<Uri>() else {
        return StatusCode::NOT_FOUND.into_response();
    };
    *request.uri_mut() = uri;
    *request.version_mut() = http::Version::HTTP_11;
    request.headers_mut().remove(header::HOST);
    calls.oneshot(request).await.unwrap_or_else(|error| failure(&error))
}

/// Response where an application has no instance, or where none can be reached.
async fn unavailable(request: http::Request<AttemptBody<Body>>) -> Result<Response, BoxError> {
    let application = request.uri().host().unwrap_or_default().to_owned();
    let body = serde_json::json!({ "application": application, "available": false }).to_string();
    Ok((StatusCode::SERVICE_UNAVAILABLE, [(header::CONTENT_TYPE, "application/json")], body).into_response())
}

/// Response to a call that failed. The error itself names addresses, so it is only logged.
fn failure(error: &Error) -> Response {
    println!("{error}");
    (error.http_status(), error.summary()).into_response()
}

/// Responds with 200 once the registry was fetched.
async fn ready(State(eureka): State<Eureka>) -> (StatusCode, String) {
    let status = eureka.status();
    (if status.is_loaded() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }, format!("{status}\n"))
}

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let eureka = match std::env::var("EUREKA_CLIENT_SERVICEURL_DEFAULTZONE") {
        Ok(_) => Eureka::from_env()?,
        Err(_) => demo().await?,
    };
    let app = gateway(&eureka);
    let port = std::env::var("PORT").map_or(Ok(8080), |port| port.parse())?;
    let listener = TcpListener::bind(("127.0.0.1", port)).await?;
    println!("http://{}/debug", listener.local_addr()?);
    eureka.ready().await?;
    axum::serve(listener, app).with_graceful_shutdown(shutdown_signal()).await?;
    eureka.close().await?;
    Ok(())
}

/// Starts a registry and some instances.
async fn demo() -> Result<Eureka, BoxError> {
    let eureka = world::eureka(&world::registry().await?)?;
    for (app, id) in [("orders", "orders-1"), ("orders", "orders-2"), ("reviews", "reviews-1")] {
        world::instance(&eureka, app, id).await?;
    }
    Ok(eureka)
}

/// The registry runs inside the tests and the instances are functions, so that no test needs a
/// socket. Time is paused.
#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "the functions around the tests are tests, too")]
mod tests {
    use http_body_util::BodyExt;
    use tower_eureka::client::InstanceRequestBody;
    use tower_eureka::transport::RequestBody;
    use tower_eureka::{EurekaServer, Instance};

    use super::*;

    /// Returns a client of a registry with these instances, which respond with their id and the
    /// path.
    async fn registry(instances: &[(&str, &str)]) -> Eureka {
        let server = EurekaServer::builder().build().unwrap();
        let http = Router::new().nest("/eureka", server.router());
        let http = http.map_request(|request: http::Request<RequestBody>| request.map(Body::new));
        let instance_service = service_fn(async |request: http::Request<InstanceRequestBody>| {
            let (host, path) = (request.uri().host().unwrap(), request.uri().path());
            Ok::<_, BoxError>(Response::new(Body::from(format!("{host} {path}"))))
        });
        let builder = Eureka::builder().service_url("http://registry/eureka/").http_service(http);
        let eureka = builder.instance_service(instance_service).build().unwrap();
        for (app, id) in instances {
            let instance = Instance::builder(*app).id(*id).host_name(*id).ip_addr("10.0.0.1").port(80).build().unwrap();
            eureka.transport().register(&instance).await.unwrap();
        }
        eureka
    }

    async fn get(gateway: &Router, uri: &str) -> (u16, String) {
        let request = Request::get(uri).header(header::ACCEPT, "text/html").body(Body::empty()).unwrap();
        let response = gateway.clone().oneshot(request).await.unwrap();
        let status = response.status().as_u16();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    #[tokio::test(start_paused = true)]
    async fn request_is_sent_to_the_application_in_its_path() {
        let eureka = registry(&[("orders", "orders-1"), ("reviews", "reviews-1")]).await;
        let gateway = gateway(&eureka);
        assert_eq!(get(&gateway, "/orders/v1/42?x=y").await, (200, "orders-1 /v1/42".to_owned()));
        assert_eq!(get(&gateway, "/reviews/top").await, (200, "reviews-1 /top".to_owned()));
    }

    #[tokio::test(start_paused = true)]
    async fn percent_encoding_of_the_path_is_kept() {
        let gateway = gateway(&registry(&[("orders", "orders-1")]).await);
        assert_eq!(get(&gateway, "/orders/a%20b%2Fc%3F").await, (200, "orders-1 /a%20b%2Fc%3F".to_owned()));
    }

    #[tokio::test(start_paused = true)]
    async fn application_without_an_instance_gets_the_fallback() {
        let gateway = gateway(&registry(&[("orders", "orders-1")]).await);
        let expected = r#"{"application":"reviews","available":false}"#.to_owned();
        assert_eq!(get(&gateway, "/reviews/top").await, (503, expected));
    }

    #[tokio::test(start_paused = true)]
    async fn gateway_is_ready_once_the_registry_was_fetched() {
        let eureka = registry(&[("orders", "orders-1")]).await;
        let gateway = gateway(&eureka);
        assert_eq!(get(&gateway, "/ready").await.0, 503);
        eureka.ready().await.unwrap();
        let (status, text) = get(&gateway, "/ready").await;
        assert!(status == 200 && text.contains("1 applications, 1 instances: UP 1"), "{status} {text}");
    }

    #[tokio::test(start_paused = true)]
    async fn debug_page_shows_instances_and_balancers() {
        let eureka = registry(&[("orders", "orders-1")]).await;
        let gateway = gateway(&eureka);
        get(&gateway, "/orders/v1/42").await;
        let (status, page) = get(&gateway, "/debug").await;
        assert!(status == 200 && page.contains("<code>orders-1</code>") && page.contains("1 of 1 available"), "{page}");
    }
}
