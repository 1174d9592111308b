//! Status and metadata of a provider of this crate, at a Spring server and as a Java client sees
//! them.

use std::time::Duration;

use axum::Router;
use axum::routing::get;
use tokio::net::TcpListener;
use tokio::sync::{oneshot, watch};
use tokio_stream::StreamExt;
use tower_eureka::model::InstanceStatus::{self, Down, OutOfService, Starting, Unknown, Up};
use tower_eureka::register::{HealthStatus, RegistrarEvent, RegistrarState};
use tower_eureka::{Eureka, Instance};

use super::process::free_port;
use super::spring::{Client, Server};
use super::{http, slot, until};

/// Time limit of a condition. Registration, health check and fetch each take up to a few seconds.
const SOON: Duration = Duration::from_secs(20);
const APP: &str = "RUST-STOCK";
const ID: &str = "stock-1";

/// Both views of the instance: the record at the server, and the copy of the Java client.
struct Views<'a> {
    server: &'a str,
    java: &'a Client,
}

impl Views<'_> {
    /// Waits until both show this status, and the server this override.
    async fn until_both_show(&self, what: &str, status: InstanceStatus, overridden: InstanceStatus) {
        until(&format!("{what}: {status}, override {overridden} at the server"), SOON, async || {
            let instance = http::instance(self.server, APP, ID).await?;
            ((instance.status(), instance.overridden_status()) == (status, overridden)).then_some(())
        })
        .await;
        let line = format!("{ID} {status}");
        until(&format!("{what}: Java sees {status}"), SOON, async || {
            (self.java.view(APP).await == [line.as_str()]).then_some(())
        })
        .await;
    }

    async fn until_java_sees_metadata(&self, key: &str, value: Option<&str>) {
        until(&format!("Java sees {key}={value:?}"), SOON, async || {
            let metadata = self.java.metadata(APP).await;
            (metadata.get(ID)?.get(key).map(String::as_str) == value).then_some(())
        })
        .await;
    }
}

#[tokio::test]
async fn status_and_metadata_of_our_provider_reach_a_java_client() {
    let _slot = slot().await;
    let server = Server::start("status-server", free_port()).await;
    let java = Client::start("status-java", &server.url).await;
    let views = Views { server: &server.url, java: &java };

    let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback has a free port");
    let port = listener.local_addr().expect("listener is bound").port();
    let eureka = Eureka::builder().service_url(&server.url).build().expect("the URL is valid");
    let instance = Instance::builder(APP)
        .id(ID)
        .ip_addr("127.0.0.1")
        .port(port)
        .renewal_interval(Duration::from_secs(1))
        .lease_duration(Duration::from_secs(10))
        .build()
        .expect("instance is valid");
    // Without a value yet, the check waits.
    let (health, checked) = watch::channel(None);
    let check = move || {
        let mut checked = checked.clone();
        async move { checked.wait_for(Option::is_some).await.ok().and_then(|status| *status).unwrap_or(HealthStatus::Down) }
    };
    let registrar = eureka
        .registrar(instance)
        .health(Duration::from_secs(1), check)
        .health_timeout(SOON)
        // No limit of registrations.
        .update_interval(Duration::from_secs(121));
    let mut events = registrar.events();
    let mut state = registrar.state();
    let (stop, stopped) = oneshot::channel::<()>();
    let serving = tokio::spawn({
        let registrar = registrar.clone();
        let app = Router::new().route("/whoami", get(|| async { ID })).layer(registrar.layer());
        let signal = async move { drop(stopped.await) };
        async move { registrar.serve(signal, |stop| axum::serve(listener, app).with_graceful_shutdown(stop)).await }
    });
    let mut reaches = async |wanted: RegistrarState| {
        let reached = tokio::time::timeout(SOON, state.wait_for(|state| *state == wanted)).await;
        assert!(matches!(reached, Ok(Ok(_))), "not within {SOON:?}: {wanted:?}");
    };

    views.until_both_show("before the first health check", Starting, Unknown).await;
    assert_eq!(java.call(APP).await, None, "Java does not call an instance that is STARTING");
    health.send_replace(Some(HealthStatus::Up));
    views.until_both_show("healthy", Up, Unknown).await;
    assert_eq!(java.call(APP).await.as_deref(), Some(ID));

    health.send_replace(Some(HealthStatus::Down));
    views.until_both_show("unhealthy", Down, Unknown).await;
    assert_eq!(java.call(APP).await, None, "Java does not call an instance that is DOWN");
    health.send_replace(Some(HealthStatus::Up));
    views.until_both_show("healthy again", Up, Unknown).await;

    registrar.update_metadata([("colour", "grün"), ("canary", "yes")]).await.expect("the change is registered");
    views.until_java_sees_metadata("colour", Some("grün")).await;
    registrar.remove_metadata(["canary"]).await.expect("the change is registered");
    views.until_java_sees_metadata("canary", None).await;
    views.until_java_sees_metadata("colour", Some("grün")).await;

    registrar.set_status(OutOfService).await.expect("the status is set");
    views.until_both_show("own OUT_OF_SERVICE", OutOfService, OutOfService).await;
    reaches(RegistrarState::OutOfService).await;
    registrar.set_status(Up).await.expect("the status is set");
    views.until_both_show("own OUT_OF_SERVICE cleared", Up, Unknown).await;
    reaches(RegistrarState::Registered).await;

    let operator = Eureka::builder().service_url(&server.url).build().expect("the URL is valid");
    let operator = operator.transport();
    let mut overridden = async |wanted: Option<InstanceStatus>| {
        let event = async { while events.next().await != Some(RegistrarEvent::StatusOverridden(wanted)) {} };
        let seen = tokio::time::timeout(SOON, event).await;
        assert!(seen.is_ok(), "no event within {SOON:?}: override {wanted:?} of an operator");
    };
    operator.set_status(APP, ID, OutOfService).await.expect("the instance is registered");
    overridden(Some(OutOfService)).await;
    reaches(RegistrarState::OutOfService).await;
    registrar.update_metadata([("colour", "rot")]).await.expect("the change is registered");
    views.until_java_sees_metadata("colour", Some("rot")).await;
    views.until_both_show("override of an operator after a registration", OutOfService, OutOfService).await;
    operator.remove_status(APP, ID).await.expect("the instance is registered");
    overridden(None).await;
    views.until_both_show("override of an operator removed", Up, Unknown).await;
    reaches(RegistrarState::Registered).await;

    stop.send(()).expect("the provider is running");
    views.until_both_show("leaving", Down, Unknown).await;
    tokio::time::timeout(2 * SOON, serving).await.expect("the provider stops").expect("no panic").expect("no error");
    assert!(http::is_gone(&server.url, APP, ID).await, "the provider deregisters before it stops");
}
