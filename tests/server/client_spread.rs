//! Many clients of a cluster: their spread over the nodes, and their leases during outages.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::sleep;
use tower_eureka::register::Registrar;
use tower_eureka::{Eureka, Instance};

use crate::network::{Network, Node};

const CLIENTS: usize = 50;
const MINUTE: Duration = Duration::from_secs(60);
const NODES: [&str; 3] = ["a", "b", "c"];

/// Starts a provider that is a consumer as well.
async fn client(network: &Network, number: usize) -> (Eureka, Registrar) {
    let urls = NODES.map(|node| format!("http://{node}:8761/eureka/")).join(",");
    let eureka = Eureka::builder().service_url(urls).fetch_interval(Duration::from_secs(90));
    let eureka = eureka.http_service(network.link("client")).build().unwrap();
    let instance = Instance::builder("orders").id(format!("i-{number}")).ip_addr("192.0.2.9").port(80);
    let registrar = eureka.registrar(instance.build().unwrap());
    registrar.register().await.unwrap();
    eureka.snapshot();
    (eureka, registrar)
}

/// Returns the number of clients whose reads or writes are at each node.
fn spread(clients: &[(Eureka, Registrar)], serves: fn(&tower_eureka::transport::RegistryServer) -> bool) -> Vec<usize> {
    let mut counts: BTreeMap<_, _> = NODES.map(|node| (format!("http://{node}:8761/eureka/"), 0)).into();
    for (eureka, _) in clients {
        if let Some(server) = eureka.registry_servers().iter().find(|server| serves(server)) {
            *counts.get_mut(server.url()).unwrap() += 1;
        }
    }
    counts.into_values().collect()
}

/// Asserts that each node that lives has all leases.
fn assert_leases(nodes: &[&Node], when: &str) {
    for node in nodes {
        let ids: Vec<_> = (0..CLIENTS).filter(|n| node.order(&format!("i-{n}")).is_none()).collect();
        assert!(ids.is_empty(), "{when}: {} has no lease of {ids:?}", node.name);
    }
}

#[tokio::test(start_paused = true)]
async fn clients_spread_evenly_and_return_to_a_restarted_node_without_losing_a_lease() {
    fastrand::seed(7);
    let network = Network::default();
    let [a, b, c] = NODES.map(|node| network.node(node, &NODES));
    let mut clients = Vec::new();
    for number in 0..CLIENTS {
        clients.push(client(&network, number).await);
        sleep(Duration::from_millis(100)).await;
    }
    sleep(MINUTE).await;
    for counts in [spread(&clients, |s| s.serves_reads()), spread(&clients, |s| s.serves_writes())] {
        assert!(counts.iter().all(|count| (14..=20).contains(count)), "{counts:?}");
    }

    // One node restarts: its clients continue at the others, and no lease is lost.
    network.kill("a");
    for _ in 0..10 {
        sleep(MINUTE).await;
        assert_leases(&[&b, &c], "while a is down");
    }
    assert_eq!(spread(&clients, |s| s.serves_writes())[0], 0);
    drop(a);
    let a = network.node("a", &NODES);
    let (mut total, mut samples) = ([0; 3], 0);
    for minute in 0..90 {
        sleep(MINUTE).await;
        // The restarted node first has to receive the leases.
        assert_leases(&[&b, &c, &a][..if minute < 3 { 2 } else { 3 }], "after the restart");
        if minute == 30 {
            let counts = spread(&clients, |s| s.serves_writes());
            assert!(counts[0] >= 8, "the clients return within a session: {counts:?}");
        }
        if minute >= 30 {
            spread(&clients, |s| s.serves_writes()).iter().zip(&mut total).for_each(|(count, total)| *total += count);
            samples += 1;
        }
    }
    let even = (CLIENTS * samples / 3) as f64;
    assert!(total.iter().all(|&count| (count as f64 / even - 1.0).abs() < 0.2), "{total:?} of {even}");

    // Two of three nodes fail, one after the other. Each lease is renewed at the last one.
    network.kill("b");
    sleep(5 * MINUTE).await;
    network.kill("a");
    for _ in 0..10 {
        sleep(MINUTE).await;
        assert_leases(&[&c], "with one node");
    }
    assert_eq!(spread(&clients, |s| s.serves_writes()), [0, 0, CLIENTS]);
}
