//! Comparison of the records that several servers have.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tower_eureka::Instance;

use crate::verbs::fields::differing;

/// Name of the difference if servers lack an instance.
pub(crate) const INSTANCE: &str = "instance";

/// Application and id of an instance.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Key {
    pub(crate) app: String,
    pub(crate) id: String,
}

impl Key {
    pub(crate) fn of(instance: &Instance) -> Self {
        Self { app: instance.app().to_owned(), id: instance.id().to_owned() }
    }
}

/// Instances of one server.
pub(crate) type Records = BTreeMap<Key, Arc<Instance>>;

/// Field of an instance that servers disagree about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Difference {
    pub(crate) key: Key,
    pub(crate) field: Cow<'static, str>,
    /// Value at each server. `None` if it has none.
    pub(crate) values: Vec<Option<String>>,
}

/// Returns the differences in the order of the instances, then of the fields.
pub(crate) fn differences(nodes: &[Records]) -> Vec<Difference> {
    let keys: BTreeSet<&Key> = nodes.iter().flat_map(Records::keys).collect();
    keys.into_iter().flat_map(|key| of_instance(key, nodes)).collect()
}

/// Returns the differences of one instance. If a server lacks it, that is one difference, and the
/// other servers are compared among themselves.
fn of_instance(key: &Key, nodes: &[Records]) -> Vec<Difference> {
    let records: Vec<Option<&Instance>> = nodes.iter().map(|node| node.get(key).map(|instance| &**instance)).collect();
    let mut found = Vec::new();
    if records.iter().any(Option::is_none) {
        let values = records.iter().map(|record| record.map(|instance| instance.status().to_string())).collect();
        found.push(Difference { key: key.clone(), field: INSTANCE.into(), values });
    }
    found.extend(differing(&records).into_iter().map(|(field, values)| Difference { key: key.clone(), field, values }));
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn records(instances: &[(&str, &str)]) -> Records {
        let instance = |(id, rest): &(&str, &str)| {
            let json = format!(r#"{{"instance":{{"instanceId":"{id}","app":"X","hostName":"h"{rest}}}}}"#);
            let instance = Arc::new(Instance::from_json(json.as_bytes()).unwrap());
            (Key::of(&instance), instance)
        };
        instances.iter().map(instance).collect()
    }

    fn found(nodes: &[Records]) -> Vec<String> {
        let text = |value: &Option<String>| value.clone().unwrap_or_else(|| "-".into());
        let line = |found: &Difference| {
            let values: Vec<_> = found.values.iter().map(text).collect();
            format!("{} {}: {}", found.key.id, found.field, values.join(", "))
        };
        differences(nodes).iter().map(line).collect()
    }

    #[test]
    fn missing_instance_is_one_difference() {
        let all = records(&[("a", ""), ("b", r#","status":"DOWN""#)]);
        let nodes = [all.clone(), records(&[("a", "")]), records(&[])];
        assert_eq!(found(&nodes), ["a instance: UP, UP, -", "b instance: DOWN, -, -"]);
        assert!(found(&[all.clone(), all.clone(), all]).is_empty());
        assert!(found(&[records(&[]), records(&[])]).is_empty());
    }

    #[test]
    fn fields_of_the_servers_that_have_the_instance_are_compared() {
        let nodes = [
            records(&[("a", r#","vipAddress":"x","metadata":{"k":"1"}"#)]),
            records(&[]),
            records(&[("a", r#","metadata":{"k":"2","l":"\u001b"}"#)]),
        ];
        assert_eq!(
            found(&nodes),
            ["a instance: UP, -, UP", "a vipAddress: x, -, -", "a metadata.k: 1, -, 2", "a metadata.l: -, -, \u{1b}"]
        );
    }
}
