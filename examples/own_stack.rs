//! Calls by name inside one's own Tower stack, with layers above and below: `cargo run --example own_stack --all-features`.
//!
//! Above the [`EurekaLayer`], a layer sees one call to an application; below it, one try at an instance.
#![allow(clippy::print_stdout, reason = "an example talks on stdout")]

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

    // A client of one's own choice at the bottom. Its requests have the body that can be sent more than once.
    let bottom = Client::builder(TokioExecutor::new()).build_http::<AttemptBody<Full<Bytes>>>();
    let stack = ServiceBuilder::new()
        // Once per call.
        .layer(TimeoutLayer::new(Duration::from_secs(5)))
        .map_request(|mut request: Request<Full<Bytes>>| {
            request.headers_mut().insert(header::USER_AGENT, HeaderValue::from_static("own-stack"));
            request
        })
        .layer(EurekaLayer::new(&eureka))
        // Once per try: the URI is that of the instance here.
        .map_request(|request: Request<AttemptBody<Full<Bytes>>>| {
            println!("  trying {}", request.uri());
            request
        })
        .service(bottom);

    for call in 1..=6 {
        if call == 4 {
            first.abort();
            println!("orders-1 is gone");
        }
        // What may have arrived is sent again only if that does no harm, as with PUT.
        let request = Request::put("http://orders/v1/42").body(Full::from("an order"))?;
        println!("call {call}: {}", stack.clone().oneshot(request).await?.status());
    }
    println!("done");
    Ok(())
}
