//! Calls by name in a Tower stack of your own, with layers above and below: `cargo run --example
//! own_stack --all-features`.
//!
//! A layer above the [`EurekaLayer`] sees a call to an application. A layer below it sees each
//! attempt at an instance.
#![allow(clippy::print_stdout, reason = "an example prints to stdout")]

mod world;

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Request, header};
use http_body_util::Full;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use tower::timeout::TimeoutLayer;
use tower::{BoxError, ServiceBuilder, ServiceExt};
use tower_eureka::client::{AttemptBody, EurekaLayer};

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let url = world::registry().await?;
    let eureka = world::eureka(&url)?;
    let first = world::instance(&eureka, "orders", "orders-1").await?;
    let _second = world::instance(&eureka, "orders", "orders-2").await?;

    // Any HTTP client can be at the bottom. Its requests have a body that can be sent more than
    // once.
    let bottom = Client::builder(TokioExecutor::new()).build_http::<AttemptBody<Full<Bytes>>>();
    let stack = ServiceBuilder::new()
        // Once per call.
        .layer(TimeoutLayer::new(Duration::from_secs(5)))
        .map_request(|mut request: Request<Full<Bytes>>| {
            request.headers_mut().insert(header::USER_AGENT, HeaderValue::from_static("own-stack"));
            request
        })
        .layer(EurekaLayer::new(&eureka))
        // Once per attempt, with the URI of the instance.
        .map_request(|request: Request<AttemptBody<Full<Bytes>>>| {
            println!("  attempt at {}", request.uri());
            request
        })
        .service(bottom);

    for call in 1..=6 {
        if call == 4 {
            first.abort();
            println!("orders-1 is gone");
        }
        // A request that may have arrived is sent again only if its method is idempotent, such as
        // PUT.
        let request = Request::put("http://orders/v1/42").body(Full::from("an order"))?;
        println!("call {call}: {}", stack.clone().oneshot(request).await?.status());
    }
    println!("done");
    Ok(())
}
