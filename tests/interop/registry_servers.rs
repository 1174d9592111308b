//! Provider of this crate with a cluster of two Spring servers, whose list comes from DNS.

use std::time::Duration;

use tokio::net::UdpSocket;
use tokio::time::{Instant, timeout};
use tokio_stream::StreamExt;
use tower_eureka::model::InstanceStatus::Up;
use tower_eureka::register::{RegistrarEvent, RegistrarState};
use tower_eureka::{DnsServers, Eureka, Instance};

use super::name_server::{Records, name_server};
use super::process::free_port;
use super::spring::Server;
use super::{http, slot, until};

/// Time limit of a condition. Heartbeat, replication and DNS look-up each take about a second.
const SOON: Duration = Duration::from_secs(20);
/// Lease of the instance. The servers evict it at once when it has expired.
const LEASE: Duration = Duration::from_secs(4);
const APP: &str = "RUST-STOCK";
const ID: &str = "stock-1";
const HOSTS: [&str; 2] = ["127.0.0.1", "127.0.0.2"];

/// Starts one of the nodes. Both have the same port, since records in DNS have none.
async fn node(number: usize, port: u16) -> Server {
    let urls = HOSTS.map(|host| format!("http://{host}:{port}/eureka/")).join(",");
    let host = HOSTS[number];
    let arguments = [
        format!("--server.address={host}"),
        format!("--eureka.instance.hostname={host}"),
        format!("--eureka.client.service-url.defaultZone={urls}"),
        "--eureka.client.register-with-eureka=true".into(),
        "--eureka.client.fetch-registry=true".into(),
        "--eureka.server.enable-self-preservation=false".into(),
        "--eureka.server.eviction-interval-timer-in-ms=500".into(),
    ];
    Server::start_at(&format!("dns-spring-{number}"), host, port, &arguments).await
}

/// Registration and last heartbeat of the instance at a node, in milliseconds.
async fn lease(node: &Server) -> Option<(i64, i64)> {
    let instance = http::instance(&node.url, APP, ID).await?;
    assert_eq!(instance.status(), Up);
    let lease = instance.lease().expect("registry lists a lease");
    Some((lease.registration_timestamp, lease.last_renewal_timestamp))
}

/// Waits until a node receives a heartbeat, and asserts that the lease exists meanwhile.
async fn next_heartbeat(what: &str, node: &Server) -> (i64, i64) {
    let (_, before) = until(&format!("{what}: {} has the instance", node.url), SOON, async || lease(node).await).await;
    until(&format!("{what}: {} receives a heartbeat", node.url), SOON, async || {
        let now = lease(node).await;
        assert!(now.is_some(), "{what}: {} has no lease", node.url);
        now.filter(|&(_, renewed)| renewed > before)
    })
    .await
}

#[tokio::test]
async fn provider_follows_dns_and_fails_over_without_a_lost_lease() {
    let _slot = slot().await;
    let port = free_port();
    UdpSocket::bind((HOSTS[1], 0)).await.expect("the machine has further loopback addresses");
    let records = Records::default();
    let set = |name: &str, texts: &[&'static str]| records.set(name, texts);
    set("txt.eu.example.com", &["zone-a.example.com"]);
    set("txt.zone-a.example.com", &[HOSTS[0]]);
    let dns = name_server(records.clone()).await;
    let (first, second) = tokio::join!(node(0, port), node(1, port));

    let servers = DnsServers::new("example.com", port).context("eureka").name_server(dns);
    let builder = Eureka::builder().region("eu").availability_zones("eu", "zone-a").dns(servers);
    let eureka = builder.server_poll_interval(Duration::from_secs(1)).build().expect("the settings are valid");
    let instance = Instance::builder(APP)
        .id(ID)
        .ip_addr("127.0.0.1")
        .port(1)
        .renewal_interval(Duration::from_secs(1))
        .lease_duration(LEASE)
        .build()
        .expect("instance is valid");
    let registrar = eureka.registrar(instance);
    let mut events = registrar.events();
    registrar.register().await.expect("registration succeeds");
    let (registered, _) = next_heartbeat("registered", &first).await;
    next_heartbeat("replicated", &second).await;

    // URLs of the listed servers, with a mark at the one that receives the heartbeats.
    let listed = || {
        let servers = eureka.registry_servers().into_iter();
        let mut lines: Vec<_> = servers
            .map(|server| format!("{}{}", server.url(), if server.serves_writes() { " *" } else { "" }))
            .collect();
        lines.sort();
        lines
    };
    let until_listed = async |what: &str, expected: &[String]| {
        until(&format!("{what}: {expected:?}"), SOON, async || (listed() == expected).then_some(())).await;
    };
    let in_use = |server: &Server| format!("{} *", server.url);
    until_listed("the only server", &[in_use(&first)]).await;
    set("txt.zone-a.example.com", &[HOSTS[1]]);
    until_listed("another server", &[in_use(&second)]).await;
    next_heartbeat("after a change of DNS", &second).await;
    set("txt.zone-a.example.com", &HOSTS);
    until_listed("both servers", &[first.url.clone(), in_use(&second)]).await;

    let (first_url, second_url) = (first.url.clone(), second.url.clone());
    second.process.kill().await;
    let killed = Instant::now();
    while killed.elapsed() < 2 * LEASE {
        let (same, _) = next_heartbeat("after a node was killed", &first).await;
        assert_eq!(same, registered, "the lease at the first node was lost");
    }
    assert_eq!(*registrar.state().borrow(), RegistrarState::Registered);
    let (mut moves, mut lost) = (Vec::new(), false);
    while let Ok(Some(event)) = timeout(Duration::ZERO, events.next()).await {
        match event {
            RegistrarEvent::FailedOver { from, to } => moves.push((from.to_string(), to.to_string())),
            RegistrarEvent::LeaseLost => lost = true,
            _ => {}
        }
    }
    assert_eq!(moves, [(first_url.clone(), second_url.clone()), (second_url, first_url)]);
    assert!(!lost, "the lease was lost");
    registrar.deregister().await.expect("the first node is running");
    assert!(http::is_gone(&first.url, APP, ID).await);
}
