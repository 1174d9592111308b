//! Health and info pages of a provider of this crate, as Spring Boot Admin shows them, and a Java
//! caller that calls healthy instances only.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use axum::Router;
use axum::http::StatusCode;
use serde_json::Value;
use tokio::net::TcpListener;
use tower_eureka::model::InstanceStatus;
use tower_eureka::{Eureka, Instance};

use super::process::free_port;
use super::rust::Provider;
use super::spring::{Admin, Client, Server};
use super::{http, slot, until};

/// Time limit of a condition. Fetch, health check and monitor each run every two seconds at most.
const SOON: Duration = Duration::from_secs(30);
/// Time limit of a shutdown with its longest drain.
const DRAINED: Duration = Duration::from_secs(45);
const APP: &str = "RUST-ORDERS";

/// Server in this process whose pages all respond with 503.
struct Unhealthy {
    requests: Arc<AtomicUsize>,
}

impl Unhealthy {
    /// Starts the server, and registers it as a further instance of the application.
    async fn start(registry: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback has a free port");
        let port = listener.local_addr().expect("listener is bound").port();
        let requests = Arc::new(AtomicUsize::new(0));
        let counted = requests.clone();
        let app = Router::new().fallback(async move || {
            counted.fetch_add(1, Relaxed);
            StatusCode::SERVICE_UNAVAILABLE
        });
        tokio::spawn(async move { axum::serve(listener, app).await });
        let instance = Instance::builder(APP).id("unhealthy").ip_addr("127.0.0.1").port(port);
        let instance = instance.lease_duration(Duration::from_secs(600)).build().expect("instance is valid");
        let eureka = Eureka::builder().service_url(registry).build().expect("the URL is valid");
        eureka.transport().register(&instance).await.expect("registration succeeds");
        Self { requests }
    }
}

#[tokio::test]
async fn spring_boot_admin_and_a_java_caller_accept_the_pages_of_our_provider() {
    let _slot = slot().await;
    let server = Server::start("pages-server", free_port()).await;
    let mut provider = Provider::start("pages-provider", "rust-orders", &server.url).await;
    let id = provider.id().await.expect("provider is running");
    let unhealthy = Unhealthy::start(&server.url).await;
    let healthy_only = [
        "--spring.cloud.loadbalancer.configurations=health-check",
        "--spring.cloud.loadbalancer.health-check.interval=1s",
        "--spring.cloud.loadbalancer.health-check.refetch-instances=true",
        "--spring.cloud.loadbalancer.health-check.refetch-instances-interval=1s",
    ];
    let (admin, java) = tokio::join!(
        Admin::start("pages-admin", &server.url),
        Client::start_with("pages-java", &server.url, free_port(), &healthy_only),
    );

    let instance = http::instance(&server.url, APP, &id).await.expect("provider is registered");
    let (health, info) = (instance.health_check_url(), instance.status_page_url());
    let (health, info) = (health.expect("a page by default"), info.expect("a page by default"));
    let shown = async |wanted: &str| {
        let instances = admin.instances().await?;
        let instance = instances.into_iter().find(|instance| instance["registration"]["healthUrl"] == health)?;
        (instance["statusInfo"]["status"] == wanted).then_some(instance)
    };
    let page = until("Spring Boot Admin shows the provider as UP", SOON, async || {
        let instance = shown("UP").await?;
        // The pages are detected after the first health check.
        instance["endpoints"].as_array().filter(|endpoints| endpoints.len() > 1)?;
        Some(instance)
    })
    .await;
    assert_eq!(page["registration"]["name"], APP);
    assert_eq!(page["statusInfo"]["details"]["livenessState"]["status"], "UP", "{page}");
    assert_eq!(page["statusInfo"]["details"]["readinessState"]["status"], "UP", "{page}");
    let endpoint = |id: &str| {
        let endpoints = page["endpoints"].as_array().expect("a list of endpoints").iter();
        endpoints.filter(|endpoint| endpoint["id"] == id).map(|endpoint| endpoint["url"].clone()).next()
    };
    assert_eq!(endpoint("health").as_ref().and_then(Value::as_str), Some(health), "{page}");
    assert_eq!(endpoint("info").as_ref().and_then(Value::as_str), Some(info), "{page}");

    until("Java calls the provider", SOON, async || java.call("rust-orders").await).await;
    for _ in 0..20 {
        assert_eq!(java.call("rust-orders").await.as_deref(), Some(id.as_str()));
    }
    assert!(java.view(APP).await.contains(&"unhealthy UP".to_owned()), "Java knows the other instance");
    assert!(unhealthy.requests.load(Relaxed) > 0, "Java checks the health of instances");

    provider.process.terminate().await;
    until("the registry lists the provider as DOWN", SOON, async || {
        http::instance(&server.url, APP, &id).await.filter(|instance| instance.status() == InstanceStatus::Down)
    })
    .await;
    assert_eq!(http::get(health).await.map(|(status, _)| status), Some(503), "the page of a leaving instance");
    until("Java calls the provider no longer", SOON, async || java.call("rust-orders").await.is_none().then_some(()))
        .await;
    assert!(provider.process.exit(DRAINED).await.success());
    until("Spring Boot Admin shows the provider no longer", SOON, async || {
        let instances = admin.instances().await?;
        instances.iter().all(|instance| instance["registration"]["healthUrl"] != health).then_some(())
    })
    .await;
}
