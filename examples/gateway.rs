//! A gateway in front of all applications of a registry: `/orders/v1/42` is sent to an instance of
//! ORDERS as `/v1/42`.
//!
//! ```sh
//! cargo run --example gateway --all-features   # then open http://127.0.0.1:8080/debug
//! cargo test --example gateway --all-features  # the tests, which need no socket
//! ```
//!
//! Without `EUREKA_CLIENT_SERVICEURL_DEFAULTZONE` it starts a registry and some instances of its
//! own. `PORT` sets the port.
#![allow(clippy::print_stdout, reason = "an example prints to stdout")]

mod world;

use std::time::Duration;

use axum::body::Body;
use axum::extract::{Path, Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get};
use axum::{Router, http};
use http::{StatusCode, Uri, header};
use tokio::net::TcpListener;
use tower::{BoxError, service_fn};
use tower_eureka::client::{AttemptBody, CallOptions, HttpClient, RetryPolicy};
use tower_eureka::debug::DebugService;
use tower_eureka::{Error, Eureka, shutdown_signal};

/// Builds the gateway over a client of the registry.
fn gateway(eureka: &Eureka) -> Router {
    let options = CallOptions::new()
        .timeout(Duration::from_secs(5))
        .x_forwarded(true)
        .application("reports", |options| options.timeout(Duration::from_secs(60)))
        .application("orders", |options| options.retry(RetryPolicy::new().statuses([502, 503])));
    let client = eureka.http_client_with(options).fallback(service_fn(unavailable)).fallback_on(Error::is_unavailable);
    Router::new()
        .route_service("/debug", DebugService::new(eureka))
        .route("/ready", get(ready))
        .with_state(eureka.clone())
        .route("/{application}/{*path}", any(forward).with_state(client))
}

/// Sends a request to the application that the first segment of its path names.
async fn forward(
    State(client): State<HttpClient<Body>>,
    Path((application, path)): Path<(String, String)>,
    mut request: Request,
) -> Response {
    let query = request.uri().query().map_or_else(String::new, |query| format!("?{query}"));
    let Ok(uri) = format!("http://{application}/{path}{query}").parse::<Uri>() else {
        return StatusCode::NOT_FOUND.into_response();
    };
    *request.uri_mut() = uri;
    *request.version_mut() = http::Version::HTTP_11;
    request.headers_mut().remove(header::HOST);
    client.request(request).await.map_or_else(|error| failure(&error), IntoResponse::into_response)
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
