//! Copy of a registry, kept by deltas, and the events of its changes.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tower_eureka::model::{ActionType, Application, Applications, StatusCounts};
use tower_eureka::{Error, Eureka, Instance};

use crate::verbs::fields::{ACTION, Change, changes};

/// Maximum time between two fetches for a delta to continue the copy. It is half of the time for
/// which servers keep changes.
const MAX_GAP: Duration = Duration::from_secs(90);
/// Time after which the whole registry is fetched, since the hash of a delta only counts statuses.
const VERIFY_INTERVAL: Duration = Duration::from_secs(600);

/// Change of the registry.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Event {
    Added(Arc<Instance>),
    Removed(Arc<Instance>),
    Changed(Arc<Instance>, Vec<Change>),
}

/// Instances by application and id.
type Records = BTreeMap<(Arc<str>, String), Arc<Instance>>;

/// Copy of the registry, or of one application.
pub(crate) struct Copy {
    client: Eureka,
    app: Option<String>,
    records: Records,
    /// Times of the last fetch and of the last full one.
    fetched: Option<(Instant, Instant)>,
    server: Option<String>,
}

impl Copy {
    pub(crate) fn new(client: Eureka, app: Option<String>) -> Self {
        Self { client, app, records: Records::new(), fetched: None, server: None }
    }

    pub(crate) fn is_loaded(&self) -> bool {
        self.fetched.is_some()
    }

    /// Returns the URL of the server that responded last.
    pub(crate) fn server(&self) -> Option<String> {
        self.server.clone()
    }

    /// Returns the numbers of instances and applications.
    pub(crate) fn counts(&self) -> (usize, usize) {
        let mut applications: Vec<_> = self.records.keys().map(|(app, _)| app).collect();
        applications.dedup();
        (self.records.len(), applications.len())
    }

    /// Fetches once. Returns `true` if it was the first time, and the events since the last fetch.
    ///
    /// # Errors
    /// When no server responds. The copy stays as it was.
    ///
    /// # Cancel safety
    /// Cancel safe: the copy changes only after the last response.
    pub(crate) async fn fetch(&mut self) -> Result<(bool, Vec<Event>), Error> {
        let (now, is_first) = (Instant::now(), self.fetched.is_none());
        let continued = match self.fetched {
            Some((last, full)) if self.app.is_none() && now - last < MAX_GAP && now - full < VERIFY_INTERVAL => {
                self.continued().await?.map(|records| (records, full))
            }
            _ => None,
        };
        let (records, full) = match continued {
            Some(continued) => continued,
            None => (self.full().await?, now),
        };
        let events = events(&self.records, &records);
        self.records = records;
        self.fetched = Some((now, full));
        self.server = self.responder();
        Ok((is_first, events))
    }

    /// Fetches the delta. Returns `None` if it does not continue the copy.
    async fn continued(&self) -> Result<Option<Records>, Error> {
        let Some(delta) = self.client.transport().delta().await? else { return Ok(None) };
        if self.responder() != self.server {
            return Ok(None);
        }
        let records = applied(&self.records, &delta);
        let counts: StatusCounts = records.values().map(|instance| instance.status()).collect();
        Ok(delta.hash.is_some_and(|hash| *hash == *counts.to_string()).then_some(records))
    }

    async fn full(&self) -> Result<Records, Error> {
        let transport = self.client.transport();
        let applications = match &self.app {
            None => transport.applications().await?.applications,
            Some(app) => transport.application(app).await?.map(Arc::new).into_iter().collect(),
        };
        Ok(instances(&applications).collect())
    }

    fn responder(&self) -> Option<String> {
        let servers = self.client.registry_servers();
        servers.iter().find(|server| server.serves_reads()).map(|server| server.url().to_owned())
    }
}

fn instances(applications: &[Arc<Application>]) -> impl Iterator<Item = ((Arc<str>, String), Arc<Instance>)> {
    let instances = applications.iter().flat_map(|app| app.instances.iter().map(move |instance| (app, instance)));
    instances.map(|(app, instance)| ((app.name.clone(), instance.id().to_owned()), instance.clone()))
}

/// Returns the records after a delta. Java servers cache the delta and the list separately, so the
/// state in a delta may be older.
fn applied(records: &Records, delta: &Applications) -> Records {
    let mut records = records.clone();
    for (key, instance) in instances(&delta.applications) {
        let known = records.get(&key).and_then(|known| known.last_updated_timestamp());
        if known > instance.last_updated_timestamp() {
            continue;
        }
        if instance.action() == Some(ActionType::Deleted) {
            records.remove(&key);
        } else {
            records.insert(key, instance);
        }
    }
    records
}

/// Returns the differences in the order of the instances.
fn events(before: &Records, now: &Records) -> Vec<Event> {
    let removed = before.iter().filter(|(key, _)| !now.contains_key(key));
    let mut events: Vec<_> = removed.map(|(_, instance)| Event::Removed(instance.clone())).collect();
    for (key, instance) in now {
        match before.get(key) {
            None => events.push(Event::Added(instance.clone())),
            Some(known) if Arc::ptr_eq(known, instance) => {}
            Some(known) => {
                let mut changes = changes(known, instance);
                changes.retain(|change| change.field != ACTION);
                if !changes.is_empty() {
                    events.push(Event::Changed(instance.clone(), changes));
                }
            }
        }
    }
    events
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(instances: &[(&str, &str)]) -> Applications {
        let of = |(id, rest): &(&str, &str)| format!(r#"{{"instanceId":"{id}","app":"X","hostName":"h"{rest}}}"#);
        let all: Vec<_> = instances.iter().map(of).collect();
        let json = format!(r#"{{"applications":{{"application":[{{"name":"X","instance":[{}]}}]}}}}"#, all.join(","));
        Applications::from_json(json.as_bytes()).unwrap()
    }

    fn records(instances_of: &[(&str, &str)]) -> Records {
        instances(&list(instances_of).applications).collect()
    }

    #[test]
    fn delta_that_is_received_again_has_no_events() {
        let before = records(&[("a", ""), ("b", "")]);
        let delta = list(&[
            ("a", r#","status":"DOWN","actionType":"MODIFIED""#),
            ("b", r#","actionType":"DELETED""#),
            ("c", r#","actionType":"ADDED""#),
        ]);
        let now = applied(&before, &delta);
        let found: Vec<_> = events(&before, &now)
            .iter()
            .map(|event| match event {
                Event::Added(instance) => format!("+ {}", instance.id()),
                Event::Removed(instance) => format!("- {}", instance.id()),
                Event::Changed(instance, changes) => format!("~ {} {}", instance.id(), changes[0].field),
            })
            .collect();
        assert_eq!(found, ["- b", "~ a status", "+ c"]);
        assert!(events(&now, &applied(&now, &delta)).is_empty());
    }

    #[test]
    fn older_state_in_a_delta_is_ignored() {
        let updated = |at: u32, status: &str| format!(r#","lastUpdatedTimestamp":"{at}","status":"{status}""#);
        let before = records(&[("a", &updated(2, "DOWN"))]);
        assert!(events(&before, &applied(&before, &list(&[("a", &updated(1, "UP"))]))).is_empty());
        assert_eq!(events(&before, &applied(&before, &list(&[("a", &updated(3, "UP"))]))).len(), 1);
    }

    #[test]
    fn new_action_alone_is_no_event() {
        let before = records(&[("a", r#","actionType":"ADDED""#)]);
        assert!(events(&before, &records(&[("a", r#","actionType":"MODIFIED""#)])).is_empty());
    }
}
