//! Cluster of one Spring node and two nodes of this crate.
//!
//! A Spring node recognizes its own URL by the host name alone, so each node has its own
//! loopback address.

mod partition;
mod proxy;

use std::time::Duration;

use tower_eureka::model::InstanceStatus::{self, OutOfService, Unknown, Up};
use tower_eureka::transport::{Renewal, Transport};
use tower_eureka::{Eureka, Instance};

use super::process::free_port;
use super::rust::Registry;
use super::spring::{Client, Server};
use super::{http, slot, until};

/// Time limit of a condition. Each side batches for half a second.
const SOON: Duration = Duration::from_secs(20);

/// Ports of a cluster: the Spring node, then the two nodes of this crate.
struct Cluster {
    ports: [u16; 3],
}

impl Cluster {
    fn new() -> Self {
        Self { ports: [free_port(), free_port(), free_port()] }
    }

    fn host(number: usize) -> String {
        format!("127.0.0.{}", number + 1)
    }

    fn url(&self, number: usize) -> String {
        format!("http://{}:{}/eureka/", Self::host(number), self.ports[number])
    }

    /// Returns the settings of a node. All nodes have the same list of peers.
    fn arguments(&self, number: usize) -> Vec<String> {
        let urls: Vec<_> = (0..3).map(|other| self.url(other)).collect();
        self.arguments_among(number, &urls.join(","))
    }

    /// Returns the settings of a node with these peers.
    fn arguments_among(&self, number: usize, urls: &str) -> Vec<String> {
        vec![
            format!("--eureka.instance.hostname={}", Self::host(number)),
            format!("--eureka.client.service-url.defaultZone={urls}"),
            "--eureka.client.register-with-eureka=true".into(),
            "--eureka.client.fetch-registry=true".into(),
            "--eureka.server.peer-eureka-nodes-update-interval-ms=2000".into(),
        ]
    }

    async fn spring(&self, name: &str) -> Server {
        Server::start_with(name, self.ports[0], &self.arguments(0)).await
    }

    async fn ours(&self, name: &str, number: usize) -> Registry {
        let listen = format!("{}:{}", Self::host(number), self.ports[number]);
        let mut arguments = self.arguments(number);
        arguments.push("--eureka.server.waitTimeInMsWhenSyncEmpty=0".into());
        Registry::start_with(name, &listen, &arguments).await
    }

    fn transport(&self, number: usize) -> Transport {
        let client = Eureka::builder().service_url(self.url(number)).build().expect("URL is valid");
        client.transport().clone()
    }

    /// Returns the id of a node's own instance, from a node of this crate, since Spring's lists may
    /// be outdated.
    async fn own_id(&self, number: usize) -> String {
        let registry = self.url(if number == 1 { 2 } else { 1 });
        until("the node registered itself", SOON, async || {
            let nodes = http::application(&registry, "UNKNOWN").await?;
            let node = nodes.instances.iter().find(|i| i.host_name() == Some(&Self::host(number)))?;
            Some(node.id().to_owned())
        })
        .await
    }

    /// Fetches one instance of a node, past all caches.
    async fn instance(&self, number: usize, app: &str, id: &str) -> Option<Instance> {
        let body = http::text(&format!("{}apps/{app}/{id}", self.url(number))).await?;
        Some(Instance::from_json(body.as_bytes()).expect("response is an instance"))
    }

    /// Waits until all nodes have an instance of MIXED in this state.
    async fn until_all_have(
        &self,
        what: &str,
        id: &str,
        expected: Option<(InstanceStatus, InstanceStatus, Option<&str>)>,
    ) {
        for number in 0..3 {
            until(&format!("{what} of {id} at {}", self.url(number)), SOON, async || {
                let seen = self.instance(number, "MIXED", id).await;
                let seen = seen.as_ref().map(|i| (i.status(), i.overridden_status(), i.metadata().get("canary")));
                (seen == expected).then_some(())
            })
            .await;
        }
    }
}

fn registration(id: &str, version: i64) -> Instance {
    let instance = Instance::builder("mixed").id(id).ip_addr("127.0.0.1").port(1).build().expect("instance is valid");
    let json = String::from_utf8(instance.to_json()).expect("JSON is UTF-8");
    let json = json.trim_end_matches('}').to_owned() + &format!(r#","lastDirtyTimestamp":"{version}"}}}}"#);
    Instance::from_json(json.as_bytes()).expect("instance is valid")
}

#[tokio::test]
async fn every_kind_of_write_is_replicated_to_all_nodes() {
    let _slot = slot().await;
    let cluster = Cluster::new();
    let _first = cluster.ours("mixed-ours-1", 1).await;
    let _second = cluster.ours("mixed-ours-2", 2).await;
    let _spring = cluster.spring("mixed-spring").await;
    for number in 0..3 {
        let (transport, id) = (cluster.transport(number), format!("order-{number}"));
        transport.register(&registration(&id, 1_000)).await.expect("registered");
        cluster.until_all_have("the registration", &id, Some((Up, Unknown, None))).await;
        transport.update_metadata("MIXED", &id, &[("canary", "yes")]).await.expect("updated");
        cluster.until_all_have("the metadata", &id, Some((Up, Unknown, Some("yes")))).await;
        transport.set_status("MIXED", &id, OutOfService).await.expect("set");
        cluster.until_all_have("the override", &id, Some((OutOfService, OutOfService, Some("yes")))).await;
        transport.remove_status("MIXED", &id).await.expect("removed");
        cluster.until_all_have("the removal of the override", &id, Some((Unknown, Unknown, Some("yes")))).await;
        let renewal = transport.heartbeat("MIXED", &id, Up, 1_000).await;
        assert_eq!(renewal.ok(), Some(Renewal::Unknown), "the client must register again");
        transport.register(&registration(&id, 2_000)).await.expect("registered");
        cluster.until_all_have("the new registration", &id, Some((Up, Unknown, None))).await;
        let renewed = async |node| Some(cluster.instance(node, "MIXED", &id).await?.lease()?.last_renewal_timestamp);
        let mut before = Vec::new();
        for node in 0..3 {
            before.push(renewed(node).await.expect("instance is registered"));
        }
        // One heartbeat only: a Spring node that receives more than two per second stops
        // replicating.
        assert_eq!(transport.heartbeat("MIXED", &id, Up, 2_000).await.ok(), Some(Renewal::Renewed));
        for (node, before) in before.into_iter().enumerate() {
            until("the heartbeat is replicated", SOON, async || renewed(node).await.filter(|&now| now > before)).await;
        }
        assert!(transport.cancel("MIXED", &id).await.expect("cancelled"));
        cluster.until_all_have("the cancellation", &id, None).await;
    }
    // Each node registered itself and recognizes its own instance.
    for host in 0..3 {
        let id = cluster.own_id(host).await;
        for number in 0..3 {
            let own =
                until("the nodes see each other", SOON, async || cluster.instance(number, "UNKNOWN", &id).await).await;
            assert_eq!(own.is_coordinating_discovery_server(), host == number, "{id} at {number}");
        }
    }
}

#[tokio::test]
async fn java_client_stays_registered_while_its_nodes_restart() {
    let _slot = slot().await;
    let cluster = Cluster::new();
    let mut first = cluster.ours("moved-ours-1", 1).await;
    let mut second = cluster.ours("moved-ours-2", 2).await;
    let spring = cluster.spring("moved-spring").await;
    let java = Client::start("moved-java", &format!("{},{}", cluster.url(1), cluster.url(2))).await;
    let id = java.id().await;
    let renewed = async |number| {
        let instance = cluster.instance(number, "JAVA-CLIENT", &id).await?;
        (instance.status() == Up).then(|| instance.lease().map(|lease| lease.last_renewal_timestamp))?
    };
    let stays_registered = async |what: &str, nodes: &[usize]| {
        for &number in nodes {
            let before = until(&format!("{what}: node {number} has it"), SOON, async || renewed(number).await).await;
            until(&format!("{what}: node {number} renews it"), SOON, async || {
                let now = renewed(number).await;
                assert!(now.is_some(), "{what}: node {number} has no lease");
                now.filter(|&now| now > before)
            })
            .await;
        }
    };
    stays_registered("at the start", &[0, 1, 2]).await;

    first.process.kill().await;
    stays_registered("without the first", &[0, 2]).await;
    first = cluster.ours("moved-ours-1-again", 1).await;
    stays_registered("with the first again", &[0, 1, 2]).await;
    second.process.kill().await;
    stays_registered("without the second", &[0, 1]).await;
    second = cluster.ours("moved-ours-2-again", 2).await;

    // A node of this crate replaces the Spring node at its address for some time.
    spring.process.kill().await;
    stays_registered("without the Spring node", &[1, 2]).await;
    let stand_in = cluster.ours("moved-ours-for-spring", 0).await;
    stays_registered("with a node of this crate in its place", &[0, 1, 2]).await;
    stand_in.process.terminate().await;
    stays_registered("without it", &[1, 2]).await;
    drop(stand_in);
    let spring = cluster.spring("moved-spring-again").await;
    stays_registered("with the Spring node again", &[0, 1, 2]).await;

    java.process.terminate().await;
    for number in 0..3 {
        until("the client is deregistered everywhere", SOON, async || {
            http::is_gone(&cluster.url(number), "JAVA-CLIENT", &id).await.then_some(())
        })
        .await;
    }
    // A node that stops cancels its own lease on all nodes.
    let second_id = cluster.own_id(2).await;
    second.process.terminate().await;
    assert!(second.process.exit(SOON).await.success());
    for number in [0, 1] {
        until("the stopped node is gone", SOON, async || {
            http::is_gone(&cluster.url(number), "UNKNOWN", &second_id).await.then_some(())
        })
        .await;
    }
    first.process.assert_runs();
    drop(spring);
}
