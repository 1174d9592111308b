//! Calls an application by name, with and without options: `cargo run --example http_client
//! --all-features`.
#![allow(clippy::print_stdout, reason = "an example prints to stdout")]

mod world;

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Empty};
use tower::{BoxError, ServiceExt};
use tower_eureka::client::{CallOptions, Deadline, HttpClient, RetryPolicy};

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let url = world::registry().await?;
    let eureka = world::eureka(&url)?;
    let _first = world::instance(&eureka, "orders", "orders-1").await?;
    let second = world::instance(&eureka, "orders", "orders-2").await?;

    // `orders` is the name of an application, not a host.
    let client = eureka.http_client();
    println!("{:?}", share(&client, 100).await?);

    // Options: retries after certain statuses, and a time limit for each attempt.
    let retry = RetryPolicy::new().statuses([502, 503, 504]).attempt_timeout(Duration::from_secs(2));
    let client = eureka.http_client_with(CallOptions::new().retry(retry).pass_through(|host| host.contains('.')));

    // One instance dies. The registry does not know it yet, but no call fails.
    second.abort();
    let _ = second.await;
    println!("{:?}", share(&client, 100).await?);

    // Print the state of the instances.
    for application in client.snapshots() {
        println!("{application}");
    }

    // A call can have a deadline.
    let request = Request::get("http://orders/v1/42").extension(Deadline::within(Duration::from_secs(1)));
    let response = client.clone().oneshot(request.body(Empty::new())?).await?;
    println!("{} from {:?}", response.status(), response.body().guard().map(|call| call.endpoint().to_owned()));

    // No application has this name, and the error says so.
    let error = client.oneshot(Request::get("http://ordres/").body(Empty::new())?).await.expect_err("no such name");
    println!("{error}");
    println!("done");
    Ok(())
}

/// Makes calls and counts the responses of each instance.
async fn share(client: &HttpClient<Empty<Bytes>>, calls: usize) -> Result<BTreeMap<String, usize>, BoxError> {
    let mut responses = BTreeMap::new();
    for _ in 0..calls {
        let response = client.clone().oneshot(Request::get("http://orders/v1/42").body(Empty::new())?).await?;
        let body = response.into_body().collect().await?.to_bytes();
        *responses.entry(String::from_utf8_lossy(&body).into_owned()).or_default() += 1;
    }
    Ok(responses)
}
