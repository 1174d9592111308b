//! `diff`: the differences between registry servers of a cluster.
//!
//! The lists are compared first. Java servers cache theirs, so instances that differ are fetched
//! singly, which no server caches, and compared again.

mod compare;

use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};
use tower_eureka::transport::Transport;
use tower_eureka::{Error, Eureka};

use self::compare::{Difference, INSTANCE, Key, Records, differences};
use super::Context;
use super::failure::{Failure, Outcome};
use super::fields::ACTION;
use super::output::{Color, Output, Table};
use super::target::{Access, Urls, seconds};
use super::text::{clean, clean_name, count};

/// Maximum number of instances that are fetched singly. Further ones are compared as listed.
const MAX_SINGLE: usize = 500;
/// Number of instances that are fetched from one server at a time.
const CONCURRENT: usize = 8;
/// Time between two comparisons with `--wait`.
const PAUSE: Duration = Duration::from_secs(1);
/// Maximum number of servers of one comparison.
const MAX_NODES: usize = 20;

#[derive(Args, Debug)]
pub(crate) struct Diff {
    /// Registry servers to compare, each of them alone
    #[arg(value_name = "URL", required = true, num_args = 2..)]
    urls: Vec<Urls>,

    /// Compare again until the servers agree, for at most this time
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    wait: Option<Duration>,

    /// Count a different actionType as a difference
    #[arg(long)]
    strict: bool,

    /// Print a JSON object
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    access: Access,
}

pub(super) const HELP: &str = "\
Compares instances, statuses, overrides, addresses, ports, VIP addresses, data
centers, URLs, metadata, lease settings and versions (lastDirtyTimestamp). A
change takes about a second to reach the other servers.

Examples:
  tower-eureka diff http://node1:8761/eureka/ http://node2:8761/eureka/
  tower-eureka diff --wait 60 $NODE1 $NODE2 $NODE3 && echo the nodes agree

Exit codes: 0 they agree, 1 they differ, 2 wrong usage, 3 a server did not
respond, 5 a server refused";

/// Server that is compared.
struct Node {
    /// URL without credentials.
    url: String,
    client: Eureka,
}

/// Result of one comparison.
struct Comparison {
    instances: Vec<usize>,
    differences: Vec<Difference>,
}

impl Diff {
    pub(super) async fn run(self, context: &Context) -> Result<Outcome, Failure> {
        let nodes = self.nodes(context)?;
        let until = self.wait.map(|wait| Instant::now() + wait);
        let comparison = loop {
            let comparison = compare(&nodes).await;
            let is_over = until.is_none_or(|until| Instant::now() >= until);
            match comparison {
                // A server that restarts is unreachable at first, and then refuses its list.
                Err(error) if is_over || error.is_config() || error.status() == Some(401) => return Err(error.into()),
                Ok(comparison) if is_over || self.agree(&comparison) => break comparison,
                _ => sleep(PAUSE).await,
            }
        };
        let output = Output::new(self.json);
        if self.json {
            write_json(&nodes, &comparison, &output)?
        } else {
            write_table(&nodes, &comparison, &output)?
        }
        Ok(if self.agree(&comparison) { Outcome::Done } else { Outcome::Negative })
    }

    fn nodes(&self, context: &Context) -> Result<Vec<Node>, Failure> {
        if self.urls.len() > MAX_NODES {
            return Err(Failure::usage(format_args!("at most {MAX_NODES} servers can be compared at once")));
        }
        let mut nodes: Vec<Node> = Vec::new();
        for urls in &self.urls {
            let client = self.access.client(Some(urls), &context.settings)?;
            let servers = client.registry_servers();
            let [server] = &*servers else {
                return Err(Failure::usage("each server is an argument of its own, without commas in between"));
            };
            let url = server.url().to_owned();
            if nodes.iter().any(|known| known.url == url) {
                return Err(Failure::usage(format_args!("{url} is given twice")));
            }
            nodes.push(Node { url, client });
        }
        Ok(nodes)
    }

    fn agree(&self, comparison: &Comparison) -> bool {
        comparison.differences.iter().all(|difference| difference.field == ACTION && !self.strict)
    }
}

/// Compares the servers once.
async fn compare(nodes: &[Node]) -> Result<Comparison, Error> {
    let mut lists = from_each(nodes, list).await?;
    let mut suspects: Vec<Key> = differences(&lists).into_iter().map(|difference| difference.key).collect();
    suspects.dedup();
    suspects.truncate(MAX_SINGLE);
    if !suspects.is_empty() {
        let suspects: Arc<[Key]> = suspects.into();
        let fetched = from_each(nodes, |transport| single(transport, suspects.clone())).await?;
        for (list, records) in lists.iter_mut().zip(fetched) {
            suspects.iter().for_each(|key| drop(list.remove(key)));
            list.extend(records);
        }
    }
    Ok(Comparison { instances: lists.iter().map(Records::len).collect(), differences: differences(&lists) })
}

/// Fetches from all servers at the same time. Returns the results in the order of the servers.
async fn from_each<F>(nodes: &[Node], fetch: impl Fn(Transport) -> F) -> Result<Vec<Records>, Error>
where
    F: Future<Output = Result<Records, Error>> + Send + 'static,
{
    let mut fetches = JoinSet::new();
    for (number, node) in nodes.iter().enumerate() {
        let fetch = fetch(node.client.transport().clone());
        fetches.spawn(async move { (number, fetch.await) });
    }
    let mut fetched = fetches.join_all().await;
    fetched.sort_by_key(|(number, _)| *number);
    fetched.into_iter().map(|(_, records)| records).collect()
}

/// Fetches the list of one server.
async fn list(transport: Transport) -> Result<Records, Error> {
    let list = transport.applications().await?;
    let instances = list.applications.iter().flat_map(|app| app.instances.clone());
    Ok(instances.map(|instance| (Key::of(&instance), instance)).collect())
}

/// Fetches instances of one server singly. Those that it does not have are left out.
async fn single(transport: Transport, keys: Arc<[Key]>) -> Result<Records, Error> {
    let mut fetches = JoinSet::new();
    for first in 0..CONCURRENT {
        let (transport, keys) = (transport.clone(), keys.clone());
        fetches.spawn(async move {
            let mut records = Records::new();
            for key in keys.iter().skip(first).step_by(CONCURRENT) {
                if let Some(instance) = transport.instance(&key.app, &key.id).await? {
                    records.insert(key.clone(), Arc::new(instance));
                }
            }
            Ok(records)
        });
    }
    let fetched: Result<Vec<Records>, Error> = fetches.join_all().await.into_iter().collect();
    Ok(fetched?.into_iter().flatten().collect())
}

fn write_table(nodes: &[Node], comparison: &Comparison, output: &Output) -> Result<(), Failure> {
    let Comparison { instances, differences } = comparison;
    if !differences.is_empty() {
        let headings = ["APPLICATION", "INSTANCE", "FIELD"].map(str::to_owned);
        let mut table = Table::new(headings.into_iter().chain(nodes.iter().map(|node| clean(&node.url))));
        for difference in differences {
            let is_minor = difference.field == ACTION;
            let color = |value: &Option<String>| match value {
                _ if is_minor => Color::Faint,
                None => Color::Bad,
                Some(_) => Color::Warning,
            };
            let key_color = if is_minor { Color::Faint } else { Color::None };
            let key = &difference.key;
            let cells =
                [clean_name(&key.app), clean_name(&key.id), clean(&difference.field)].map(|text| (text, key_color));
            let absent = if difference.field == INSTANCE { "missing" } else { "none" };
            let values = difference
                .values
                .iter()
                .map(|value| (value.as_deref().map_or_else(|| absent.to_owned(), clean), color(value)));
            table.row(cells.into_iter().chain(values));
        }
        table.write(output)?;
    }
    let minor = differences.iter().filter(|difference| difference.field == ACTION).count();
    let serious = differences.len() - minor;
    let counts: Vec<_> =
        nodes.iter().zip(instances).map(|(node, known)| format!("{known} at {}", clean(&node.url))).collect();
    let same = instances.first().filter(|first| instances.iter().all(|known| known == *first));
    let listed = match same {
        Some(known) => format!("{} each", count(*known, "instance")),
        None => format!("instances: {}", counts.join(", ")),
    };
    let result = if serious == 0 { "agree".to_owned() } else { format!("differ in {}", count(serious, "value")) };
    let color = if serious == 0 { Color::Good } else { Color::Bad };
    let minor = if minor == 0 {
        String::new()
    } else {
        format!(", and {} of {ACTION} without harm", count(minor, "difference"))
    };
    output.line(&format!("{} servers {}{minor}; {listed}", nodes.len(), output.paint(color, &result)))?;
    Ok(())
}

fn write_json(nodes: &[Node], comparison: &Comparison, output: &Output) -> Result<(), Failure> {
    let servers: Vec<Value> = nodes
        .iter()
        .zip(&comparison.instances)
        .map(|(node, instances)| json!({ "url": node.url, "instances": instances }))
        .collect();
    let differences: Vec<Value> = comparison
        .differences
        .iter()
        .map(|difference| {
            json!({
                "app": difference.key.app,
                "instance": difference.key.id,
                "field": difference.field,
                "minor": difference.field == ACTION,
                "values": difference.values,
            })
        })
        .collect();
    output.json(&json!({ "servers": servers, "differences": differences }))?;
    Ok(())
}
