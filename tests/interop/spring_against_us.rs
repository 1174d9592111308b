//! Spring client with this crate's registry.

use std::time::Duration;

use tower_eureka::Instance;
use tower_eureka::model::InstanceStatus;

use super::rust::{Provider, Registry};
use super::spring::Client;
use super::{http, slot, until};

const SOON: Duration = Duration::from_secs(20);

#[tokio::test]
async fn java_client_registers_follows_changes_renews_and_leaves() {
    let _slot = slot().await;
    let mut registry = Registry::start("ours-registry").await;
    let url = registry.url.clone();
    // With an empty copy, the Java client would fetch the full registry again.
    let mut first = Provider::start("ours-provider-1", "rust-orders", &url).await;
    until("our provider is registered", SOON, async || http::application(&url, "RUST-ORDERS").await).await;
    let mut java = Client::start("ours-java", &url).await;
    let java_id = java.id().await;
    let up = async || http::only_instance(&url, "JAVA-CLIENT").await.filter(|i| i.status() == InstanceStatus::Up);
    let registered = until("the Java client is registered and UP", SOON, up).await;
    assert_eq!(registered.id(), java_id);
    assert!(registered.lease().is_some_and(|lease| lease.renewal_interval_secs == 1), "{registered:?}");

    let first_line = format!("{} UP", first.id().await.expect("provider is running"));
    until("Java sees the first provider", SOON, async || {
        (java.view("RUST-ORDERS").await == [first_line.as_str()]).then_some(())
    })
    .await;
    let second = Provider::start("ours-provider-2", "rust-orders", &url).await;
    let second_line = format!("{} UP", second.id().await.expect("provider is running"));
    let mut both = [first_line.clone(), second_line.clone()];
    both.sort();
    until("Java sees the second provider", SOON, async || (java.view("RUST-ORDERS").await == both).then_some(())).await;
    assert!(java.call("rust-orders").await.is_some());

    first.process.terminate().await;
    let seen = until("Java sees that the first provider is leaving", SOON, async || {
        let view = java.view("RUST-ORDERS").await;
        (!view.contains(&first_line)).then_some(view)
    })
    .await;
    assert!(seen.contains(&second_line), "{seen:?}");
    assert!(first.process.exit(3 * SOON).await.success());
    until("Java sees only the second provider", SOON, async || {
        (java.view("RUST-ORDERS").await == [second_line.as_str()]).then_some(())
    })
    .await;
    let (full, deltas) = java.fetches();
    assert_eq!(full, 1, "every later change came by delta");
    assert!(deltas >= 3, "{deltas}");

    // A renewal shows in the single instance only: Java servers take lists from a cache that a
    // renewal does not invalidate.
    let renewal = async || {
        let (_, body) = http::get(&format!("{url}apps/JAVA-CLIENT/{java_id}")).await?;
        let instance = Instance::from_json(body.as_bytes()).expect("response is an instance");
        Some(instance.lease()?.last_renewal_timestamp)
    };
    let before = renewal().await.expect("client is registered");
    until("the Java client's lease is renewed", SOON, async || renewal().await.filter(|&now| now > before)).await;

    java.process.terminate().await;
    until("the Java client deregistered", SOON, async || {
        http::is_gone(&url, "JAVA-CLIENT", &java_id).await.then_some(())
    })
    .await;
    // The JVM exits with 143 after SIGTERM.
    java.process.exit(SOON).await;
    registry.process.assert_runs();
}
