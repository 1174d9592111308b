//! Provider and consumer of this crate with a Spring server as registry.

use std::time::Duration;

use tower_eureka::model::InstanceStatus;

use super::process::{Process, free_port};
use super::rust::{Provider, consumer};
use super::spring::{Client, Server};
use super::{http, slot, until};

/// Time limit of a condition. Registration, renewal and fetch each take a second.
const SOON: Duration = Duration::from_secs(20);
/// Time limit of a shutdown with its longest drain.
const DRAINED: Duration = Duration::from_secs(45);

#[tokio::test]
async fn java_and_rust_call_each_other_and_a_leaving_provider_fails_no_call() {
    let _slot = slot().await;
    let server = Server::start("fleet-server", free_port()).await;
    let mut provider = Provider::start("fleet-provider", "rust-orders", &server.url).await;
    let java = Client::start("fleet-java", &server.url).await;
    let id = provider.id().await.expect("provider is running");

    let up = [format!("{id} UP")];
    until("Java sees our provider", SOON, async || (java.view("RUST-ORDERS").await == up).then_some(())).await;
    assert_eq!(java.call("rust-orders").await.as_deref(), Some(id.as_str()));

    let java_id = java.id().await;
    until("the Java client is registered", SOON, async || http::application(&server.url, "JAVA-CLIENT").await).await;
    let mut calls = consumer("fleet-consumer", "java-client", &server.url, 20, Duration::from_millis(50));
    assert!(calls.exit(SOON).await.success());
    let output = calls.output();
    let lines: Vec<_> = output.lines().collect();
    assert_eq!(lines.last(), Some(&"calls: 20, failed: 0"), "{output}");
    assert_eq!(lines.iter().filter(|line| line.contains(&java_id)).count(), 20, "{output}");

    provider.process.terminate().await;
    let leaving = until("the registry lists the provider as DOWN", SOON, async || {
        http::instance(&server.url, "RUST-ORDERS", &id).await.filter(|i| i.status() == InstanceStatus::Down)
    })
    .await;
    assert_eq!(leaving.id(), id);
    // The Java caller calls the instance until its own copy has the change, and no call fails
    // before.
    until("Java stops calling", SOON, async || match java.call("rust-orders").await {
        Some(responder) => {
            assert_eq!(responder, id);
            None
        }
        None => Some(()),
    })
    .await;
    assert_eq!(java.view("RUST-ORDERS").await, [format!("{id} DOWN")]);
    assert_eq!(provider.id().await, Some(id.clone()), "provider still serves callers with an old copy");

    assert!(provider.process.exit(DRAINED).await.success());
    assert!(http::is_gone(&server.url, "RUST-ORDERS", &id).await, "provider deregisters before it exits");
}

#[tokio::test]
async fn dead_registry_fails_no_call_and_providers_register_again_after_its_restart() {
    const CALLS: usize = 300;
    let _slot = slot().await;
    let server = Server::start("restart-server", free_port()).await;
    let mut provider = Provider::start("restart-provider", "rust-orders", &server.url).await;
    let id = provider.id().await.expect("provider is running");
    until("the provider is registered", SOON, async || http::application(&server.url, "RUST-ORDERS").await).await;

    let mut calls = consumer("restart-consumer", "rust-orders", &server.url, CALLS, Duration::from_millis(30));
    let succeeded = |calls: &Process| calls.output().lines().filter(|line| line.contains(&id)).count();
    until("the consumer calls", SOON, async || (succeeded(&calls) >= 20).then_some(())).await;
    let (url, port) = (server.url, server.port);
    server.process.kill().await;
    let before = succeeded(&calls);
    assert!(calls.exit(2 * SOON).await.success());
    assert_eq!(calls.output().lines().last(), Some(format!("calls: {CALLS}, failed: 0").as_str()));
    assert!(succeeded(&calls) >= before + 100, "most calls came after the registry was killed: {before}");

    let server = Server::start("restart-server-again", port).await;
    assert_eq!(server.url, url);
    let restored =
        until("the provider is registered again", SOON, async || http::instance(&url, "RUST-ORDERS", &id).await).await;
    assert_eq!((restored.id(), restored.status()), (id.as_str(), InstanceStatus::Up));
    provider.process.assert_runs();
}

#[tokio::test]
async fn java_instance_that_is_killed_and_restarted_fails_at_most_the_call_in_flight() {
    const CALLS: usize = 600;
    let _slot = slot().await;
    let server = Server::start("callee-server", free_port()).await;
    let port = free_port();
    let java = Client::start_at("callee-java", &server.url, port).await;
    let id = java.id().await;
    until("the Java client is registered", SOON, async || http::application(&server.url, "JAVA-CLIENT").await).await;

    let mut calls = consumer("callee-consumer", "java-client", &server.url, CALLS, Duration::from_millis(20));
    let succeeded = |calls: &Process| calls.output().lines().filter(|line| line.contains(&id)).count();
    until("the consumer calls", SOON, async || (succeeded(&calls) >= 20).then_some(())).await;
    java.process.kill().await;
    let before = succeeded(&calls);
    // With a single instance, callers wait until it has registered again.
    let _again = Client::start_at("callee-java-again", &server.url, port).await;
    assert!(calls.exit(3 * SOON).await.success());
    let output = calls.output();
    let last = output.lines().last().unwrap_or_default();
    let failed =
        last.strip_prefix(&format!("calls: {CALLS}, failed: ")).and_then(|failed| failed.parse::<usize>().ok());
    assert!(failed.is_some_and(|failed| failed <= 1), "one call at a time is in flight: {last}");
    assert!(succeeded(&calls) > before + 100, "most calls came after the instance was killed: {before}");
}
