//! Partition of one minute between the Spring node and the two nodes of this crate.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep};
use tower_eureka::model::InstanceStatus::{self, Down, OutOfService, Unknown, Up};
use tower_eureka::transport::Transport;

use super::proxy::Proxy;
use super::{Cluster, SOON, registration};
use crate::rust::Registry;
use crate::spring::Server;
use crate::until;

const PARTITION: Duration = Duration::from_secs(60);
const MINUTE: Duration = Duration::from_secs(60);
const NAMES: [&str; 3] = ["spring", "ours-1", "ours-2"];

/// State that all nodes must agree on: status, override, version, metadata.
type State = (InstanceStatus, InstanceStatus, Option<i64>, Vec<(String, String)>);

/// Clients that send to one node only.
struct Clients {
    name: &'static str,
    node: Transport,
    alive: BTreeSet<String>,
    gone: BTreeSet<String>,
}

impl Clients {
    async fn register(&mut self, kind: &str, version: i64) {
        let id = format!("{}-{kind}", self.name);
        self.node.register(&registration(&id, version)).await.expect("registered");
        self.alive.insert(id);
    }

    async fn metadata(&self, kind: &str, key: &str, value: &str) {
        let id = format!("{}-{kind}", self.name);
        self.node.update_metadata("MIXED", &id, &[(key, value)]).await.expect("updated");
    }

    async fn status(&self, kind: &str, status: Option<InstanceStatus>) {
        let id = format!("{}-{kind}", self.name);
        match status {
            Some(status) => self.node.set_status("MIXED", &id, status).await.expect("set"),
            None => self.node.remove_status("MIXED", &id).await.expect("removed"),
        }
    }

    async fn cancel(&mut self, kind: &str) {
        let id = format!("{}-{kind}", self.name);
        assert!(self.node.cancel("MIXED", &id).await.expect("cancelled"));
        self.alive.remove(&id);
        self.gone.insert(id);
    }

    async fn prepare(&mut self) {
        for kind in ["idle", "out", "back", "marked", "both", "gone", "late-gone", "changed"] {
            self.register(kind, 1_000).await;
        }
        self.status("back", Some(OutOfService)).await;
    }

    /// Sends the changes of this second of the partition.
    async fn write(&mut self, second: u32) {
        self.metadata("marked", "second", &second.to_string()).await;
        match second {
            2 => self.status("out", Some(OutOfService)).await,
            4 => self.metadata("both", "canary", "yes").await,
            5 => self.status("both", Some(Down)).await,
            6 => self.cancel("gone").await,
            8 => self.status("back", None).await,
            10 => self.register("changed", 2_000).await,
            12 => self.register("new", 3_000).await,
            14 => self.status("new", Some(OutOfService)).await,
            50 => self.cancel("late-gone").await,
            52 => self.register("late-new", 4_000).await,
            54 => self.metadata("late-new", "canary", "yes").await,
            _ => {}
        }
    }

    async fn heartbeats(&self) {
        for id in &self.alive {
            // Without its override an instance is UNKNOWN. Real clients would register again.
            let version = if id.ends_with("changed") { 2_000 } else { 1_000 };
            self.node.heartbeat("MIXED", id, Up, version).await.expect("heartbeat has a response");
        }
    }
}

async fn state(cluster: &Cluster, number: usize, id: &str) -> Option<State> {
    let instance = cluster.instance(number, "MIXED", id).await?;
    let metadata = instance.metadata().iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
    Some((instance.status(), instance.overridden_status(), instance.last_dirty_timestamp(), metadata))
}

async fn differences(cluster: &Cluster, clients: &[Clients]) -> Vec<String> {
    let mut differences = Vec::new();
    for id in clients.iter().flat_map(|clients| clients.alive.iter().chain(&clients.gone)) {
        let mut states = Vec::new();
        for number in 0..3 {
            states.push(state(cluster, number, id).await);
        }
        if states.iter().any(|state| *state != states[0]) {
            differences.push(format!("{id}: {states:?}"));
        }
    }
    differences
}

#[tokio::test]
async fn nodes_agree_a_minute_after_a_partition() {
    // Without a slot, since it waits for minutes.
    let cluster = Cluster::new();
    let (cut, is_cut) = watch::channel(false);
    let address = |number: usize| format!("{}:{}", Cluster::host(number), cluster.ports[number]);
    let to_spring = Proxy::new("127.0.0.4", address(0), is_cut.clone()).await;
    let to_first = Proxy::new("127.0.0.5", address(1), is_cut.clone()).await;
    let to_second = Proxy::new("127.0.0.6", address(2), is_cut).await;
    let among = |spring: String, first: String, second: String| [spring, first, second].join(",");
    let ours = |number| (number, among(to_spring.url.clone(), cluster.url(1), cluster.url(2)));
    let mut nodes = Vec::new();
    for (number, peers) in [ours(1), ours(2)] {
        let mut arguments = cluster.arguments_among(number, &peers);
        arguments.push("--eureka.server.waitTimeInMsWhenSyncEmpty=0".into());
        nodes.push(Registry::start_with(&format!("parted-ours-{number}"), &address(number), &arguments).await);
    }
    let peers = among(cluster.url(0), to_first.url.clone(), to_second.url.clone());
    let _spring = Server::start_with("parted-spring", cluster.ports[0], &cluster.arguments_among(0, &peers)).await;

    let mut clients = Vec::new();
    for (number, name) in NAMES.into_iter().enumerate() {
        let node = cluster.transport(number);
        clients.push(Clients { name, node, alive: BTreeSet::new(), gone: BTreeSet::new() });
    }
    for clients in &mut clients {
        clients.prepare().await;
    }
    until("all nodes agree before the partition", SOON, async || {
        let known = async |number| state(&cluster, number, "ours-2-changed").await.is_some();
        (known(0).await && differences(&cluster, &clients).await.is_empty()).then_some(())
    })
    .await;

    cut.send_replace(true);
    let began = Instant::now();
    let mut second = 0;
    while began.elapsed() < PARTITION {
        for clients in &mut clients {
            clients.write(second).await;
            if second % 10 == 0 {
                clients.heartbeats().await;
            }
        }
        second += 1;
        sleep((began + second * Duration::from_secs(1)).saturating_duration_since(Instant::now())).await;
    }
    let apart = differences(&cluster, &clients).await;
    assert!(apart.len() >= 20, "nodes differ after the partition: {apart:#?}");

    cut.send_replace(false);
    let healed = Instant::now();
    let mut remaining = Vec::new();
    until("all nodes agree", MINUTE, async || {
        if healed.elapsed().as_secs().is_multiple_of(10) {
            for clients in &clients {
                clients.heartbeats().await;
            }
        }
        let differ = differences(&cluster, &clients).await;
        if differ.len() != remaining.len() {
            eprintln!("{:?} after the partition {} instances differ: {differ:#?}", healed.elapsed(), differ.len());
        }
        remaining = differ;
        remaining.is_empty().then_some(())
    })
    .await;

    // The common state has the last changes.
    for name in NAMES {
        let is = async |kind: &str| state(&cluster, 0, &format!("{name}-{kind}")).await;
        let entry = |key: &str, value: &str| vec![(key.to_owned(), value.to_owned())];
        assert_eq!(is("idle").await, Some((Up, Unknown, Some(1_000), Vec::new())), "{name}");
        assert_eq!(is("out").await, Some((OutOfService, OutOfService, Some(1_000), Vec::new())), "{name}");
        assert_eq!(is("back").await, Some((Unknown, Unknown, Some(1_000), Vec::new())), "{name}");
        assert_eq!(is("both").await, Some((Down, Down, Some(1_000), entry("canary", "yes"))), "{name}");
        assert_eq!(is("marked").await.map(|state| state.3), Some(entry("second", &(second - 1).to_string())), "{name}");
        assert_eq!(is("changed").await, Some((Up, Unknown, Some(2_000), Vec::new())), "{name}");
        assert_eq!(is("new").await, Some((OutOfService, OutOfService, Some(3_000), Vec::new())), "{name}");
        assert_eq!(is("late-new").await, Some((Up, Unknown, Some(4_000), entry("canary", "yes"))), "{name}");
        for kind in ["gone", "late-gone"] {
            assert_eq!(is(kind).await, None, "{name}-{kind}");
        }
    }
}
