//! Calls an application by name, and what can be said about such calls: `cargo run --example http_client --all-features`.
#![allow(clippy::print_stdout, reason = "an example talks on stdout")]

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

    // This is all it takes. `http://orders` is a name, not a host.
    let client = eureka.http_client();
    println!("{:?}", share(&client, 100).await?);

    // With options: further tries where an answer says that it is worth one, and a bound on each try.
    let retry = RetryPolicy::new().statuses([502, 503, 504]).attempt_timeout(Duration::from_secs(2));
    let client = eureka.http_client_with(CallOptions::new().retry(retry).pass_through(|host| host.contains('.')));

    // One instance dies. The registry does not know yet, and no call fails.
    second.abort();
    let _ = second.await;
    println!("{:?}", share(&client, 100).await?);

    // What is known of the instances by now.
    for application in client.snapshots() {
        println!("{application}");
    }

    // A call may say how much time it has.
    let hurried = Request::get("http://orders/v1/42").extension(Deadline::within(Duration::from_secs(1)));
    let response = client.clone().oneshot(hurried.body(Empty::new())?).await?;
    println!("{} from {:?}", response.status(), response.body().guard().map(|call| call.endpoint().to_owned()));

    // Nobody answers to this name, and the error says so.
    let error = client.oneshot(Request::get("http://ordres/").body(Empty::new())?).await.expect_err("no such name");
    println!("{error}");
    println!("done");
    Ok(())
}

/// Makes calls, and counts who answered.
async fn share(client: &HttpClient<Empty<Bytes>>, calls: usize) -> Result<BTreeMap<String, usize>, BoxError> {
    let mut answers = BTreeMap::new();
    for _ in 0..calls {
        let response = client.clone().oneshot(Request::get("http://orders/v1/42").body(Empty::new())?).await?;
        let body = response.into_body().collect().await?.to_bytes();
        *answers.entry(String::from_utf8_lossy(&body).into_owned()).or_default() += 1;
    }
    Ok(answers)
}
