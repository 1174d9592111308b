//! One Spring node and two of ours as each other's peers.
//!
//! A Spring node tells itself from its peers by host name alone, so each node has an address of its own: loopback has many.

mod partition;
mod proxy;

use std::time::Duration;

use tower_eureka::model::InstanceStatus::{self, OutOfService, Unknown, Up};
use tower_eureka::transport::{Renewal, Transport};
use tower_eureka::{Eureka, Instance};

use super::process::free_port;
use super::rust::Registry;
use super::spring::{Client, Server};
use super::{alone, http, until};

/// Half a second of batching on each side, with room for a busy machine.
const SOON: Duration = Duration::from_secs(20);

/// The URLs of a cluster: Spring, ours, ours.
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

    /// What a node is told, in the words of Spring. All get the same list.
    fn arguments(&self, number: usize) -> Vec<String> {
        let urls: Vec<_> = (0..3).map(|other| self.url(other)).collect();
        self.arguments_among(number, &urls.join(","))
    }

    /// The same with another list.
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
        let client = Eureka::builder().service_url(self.url(number)).build().expect("a good URL");
        client.transport().clone()
    }

    /// The id under which a node registered itself, as one of ours lists it: Spring's lists may be stale.
    async fn own_id(&self, number: usize) -> String {
        let registry = self.url(if number == 1 { 2 } else { 1 });
        until("the node registered itself", SOON, async || {
            let nodes = http::application(&registry, "UNKNOWN").await?;
            let node = nodes.instances.iter().find(|i| i.host_name() == Some(&Self::host(number)))?;
            Some(node.id().to_owned())
        })
        .await
    }

    /// One instance as a node has it now, past all caches.
    async fn instance(&self, number: usize, app: &str, id: &str) -> Option<Instance> {
        let body = http::text(&format!("{}apps/{app}/{id}", self.url(number))).await?;
        Some(Instance::from_json(body.as_bytes()).expect("a registry answers with an instance"))
    }

    /// Waits until all nodes see an instance of MIXED like this.
    async fn agrees(&self, what: &str, id: &str, expected: Option<(InstanceStatus, InstanceStatus, Option<&str>)>) {
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
    let instance = Instance::builder("mixed").id(id).ip_addr("127.0.0.1").port(1).build().expect("a good instance");
    let json = String::from_utf8(instance.to_json()).expect("JSON is UTF-8");
    let json = json.trim_end_matches('}').to_owned() + &format!(r#","lastDirtyTimestamp":"{version}"}}}}"#);
    Instance::from_json(json.as_bytes()).expect("still an instance")
}

#[tokio::test]
async fn every_kind_of_write_is_replicated_to_all_nodes() {
    let _turn = alone().await;
    let cluster = Cluster::new();
    let _first = cluster.ours("mixed-ours-1", 1).await;
    let _second = cluster.ours("mixed-ours-2", 2).await;
    let _spring = cluster.spring("mixed-spring").await;
    for number in 0..3 {
        let (transport, id) = (cluster.transport(number), format!("order-{number}"));
        transport.register(&registration(&id, 1_000)).await.expect("registered");
        cluster.agrees("the registration", &id, Some((Up, Unknown, None))).await;
        transport.update_metadata("MIXED", &id, &[("canary", "yes")]).await.expect("updated");
        cluster.agrees("the metadata", &id, Some((Up, Unknown, Some("yes")))).await;
        transport.set_status("MIXED", &id, OutOfService).await.expect("set");
        // A single instance in JSON shows what it is.
        cluster.agrees("the override", &id, Some((OutOfService, OutOfService, Some("yes")))).await;
        transport.remove_status("MIXED", &id).await.expect("removed");
        cluster.agrees("the removal of the override", &id, Some((Unknown, Unknown, Some("yes")))).await;
        let renewal = transport.heartbeat("MIXED", &id, Up, 1_000).await;
        assert_eq!(renewal.ok(), Some(Renewal::Unknown), "it has to register again");
        transport.register(&registration(&id, 2_000)).await.expect("registered");
        cluster.agrees("the new registration", &id, Some((Up, Unknown, None))).await;
        let renewed = async |node| Some(cluster.instance(node, "MIXED", &id).await?.lease()?.last_renewal_timestamp);
        let mut before = Vec::new();
        for node in 0..3 {
            before.push(renewed(node).await.expect("it is registered"));
        }
        // Once: a Spring node that hears one more than twice a second tells its peers nothing any more.
        assert_eq!(transport.heartbeat("MIXED", &id, Up, 2_000).await.ok(), Some(Renewal::Renewed));
        for (node, before) in before.into_iter().enumerate() {
            until("the heartbeat has reached all", SOON, async || renewed(node).await.filter(|&now| now > before))
                .await;
        }
        assert!(transport.cancel("MIXED", &id).await.expect("cancelled"));
        cluster.agrees("the cancellation", &id, None).await;
    }
    // Each registered itself, and each tells itself from the others.
    for host in 0..3 {
        let id = cluster.own_id(host).await;
        for number in 0..3 {
            let me =
                until("the nodes see each other", SOON, async || cluster.instance(number, "UNKNOWN", &id).await).await;
            assert_eq!(me.is_coordinating_discovery_server(), host == number, "{id} at {number}");
        }
    }
}

#[tokio::test]
async fn java_client_stays_registered_while_its_nodes_restart() {
    let _turn = alone().await;
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
    let goes_on = async |what: &str, nodes: &[usize]| {
        for &number in nodes {
            let before = until(&format!("{what}: node {number} has it"), SOON, async || renewed(number).await).await;
            until(&format!("{what}: node {number} hears it"), SOON, async || {
                let now = renewed(number).await;
                assert!(now.is_some(), "{what}: node {number} lost it");
                now.filter(|&now| now > before)
            })
            .await;
        }
    };
    goes_on("at the start", &[0, 1, 2]).await;

    first.process.kill().await;
    goes_on("without the first", &[0, 2]).await;
    first = cluster.ours("moved-ours-1-again", 1).await;
    goes_on("with the first again", &[0, 1, 2]).await;
    second.process.kill().await;
    goes_on("without the second", &[0, 1]).await;
    second = cluster.ours("moved-ours-2-again", 2).await;

    // One of ours takes the Spring node's place, under its address, and gives it back.
    spring.process.kill().await;
    goes_on("without the Spring node", &[1, 2]).await;
    let stand_in = cluster.ours("moved-ours-for-spring", 0).await;
    goes_on("with ours in its place", &[0, 1, 2]).await;
    stand_in.process.terminate().await;
    goes_on("without it", &[1, 2]).await;
    drop(stand_in);
    let spring = cluster.spring("moved-spring-again").await;
    goes_on("with the Spring node again", &[0, 1, 2]).await;

    java.process.terminate().await;
    for number in 0..3 {
        until("it took itself out everywhere", SOON, async || {
            http::is_gone(&cluster.url(number), "JAVA-CLIENT", &id).await.then_some(())
        })
        .await;
    }
    // A node that is stopped tells the others.
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
