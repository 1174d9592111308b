//! Normalized responses: without values that depend on a clock, and lists by application and id.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::requests::{Form, Key};

/// Boundary between the versions that the test sends and the times of a server's clock.
const CLOCK: i64 = 1_000_000_000_000;

/// Replaces each time of a server's clock with `now`.
pub(crate) fn normal(mut value: Value) -> Value {
    match &mut value {
        Value::Object(members) => {
            for (name, member) in members.iter_mut() {
                let by_clock = name.ends_with("imestamp") && number(member).is_some_and(|n| n > CLOCK);
                *member = if by_clock { "now".into() } else { normal(member.take()) };
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| *item = normal(item.take())),
        _ => {}
    }
    value
}

fn number(value: &Value) -> Option<i64> {
    value.as_i64().or_else(|| value.as_str()?.parse().ok())
}

/// List or single application of a response.
pub(crate) struct List {
    /// Hash and names of the members. The version is left out, since it is a counter in a delta.
    pub(crate) head: Vec<Value>,
    pub(crate) instances: BTreeMap<Key, Value>,
}

impl List {
    pub(crate) fn of(body: &Value) -> Option<Self> {
        let (mut head, mut instances) = (Vec::new(), BTreeMap::new());
        let applications = match (body.get("applications"), body.get("application")) {
            (Some(all), _) => {
                head.push(all["apps__hashcode"].clone());
                head.extend(all.as_object()?.keys().map(|name| Value::from(name.as_str())));
                all["application"].as_array()?.iter().collect()
            }
            (None, Some(one)) => vec![one],
            // There is no such application.
            (None, None) if body.is_null() => Vec::new(),
            (None, None) => return None,
        };
        for application in applications {
            for instance in application["instance"].as_array()? {
                let key = (application["name"].as_str()?.to_owned(), id(instance)?.to_owned());
                instances.insert(key, instance.clone());
            }
        }
        Some(Self { head, instances })
    }

    /// Describes the members in which an instance differs.
    pub(crate) fn difference(&self, ours: &Self, key: &Key) -> String {
        let (Some(java), Some(own)) = (self.instances.get(key), ours.instances.get(key)) else {
            return format!(
                "{key:?}: listed by Java {}, by ours {}",
                self.instances.contains_key(key),
                ours.instances.contains_key(key)
            );
        };
        let members = [java, own].into_iter().filter_map(Value::as_object).flat_map(|members| members.keys());
        let members: BTreeSet<_> = members.filter(|name| java.get(name) != own.get(name)).collect();
        let differences =
            members.into_iter().map(|name| format!(" {name}: Java {:?}, ours {:?};", java.get(name), own.get(name)));
        format!("{key:?}:{}", differences.collect::<String>())
    }

    /// Returns the instances that are in one list only or differ in an undocumented way.
    pub(crate) fn differing(&self, ours: &Self) -> BTreeSet<Key> {
        let keys = self.instances.keys().chain(ours.instances.keys());
        let listed = |list: &Self, key| list.instances.get(key).cloned().unwrap_or_default();
        keys.filter(|key| !alike(&listed(self, key), &listed(ours, key), &mut BTreeSet::new())).cloned().collect()
    }
}

/// Returns the effective id of an instance.
fn id(instance: &Value) -> Option<&str> {
    let ids = [&instance["instanceId"], &instance["dataCenterInfo"]["metadata"]["instance-id"], &instance["hostName"]];
    ids.into_iter().filter_map(Value::as_str).find(|id| !id.is_empty())
}

const COMPACT: [&str; 13] = [
    "instanceId",
    "app",
    "ipAddr",
    "vipAddress",
    "secureVipAddress",
    "dataCenterInfo",
    "hostName",
    "status",
    "lastUpdatedTimestamp",
    "actionType",
    "asgName",
    "port",
    "securePort",
];

/// Amazon metadata of the compact form, among those that the test sends.
const AMAZON: [&str; 2] = ["instance-id", "public-hostname"];

/// Converts the full JSON of an instance to the form of a list.
pub(crate) fn in_form(form: Form, instance: &Value) -> Value {
    let mut converted = instance.clone();
    if let (true, Some(members)) = (form.is_compact(), converted.as_object_mut()) {
        members.retain(|name, _| COMPACT.contains(&name.as_str()));
        if let Some(amazon) =
            members.get_mut("dataCenterInfo").and_then(|center| center.get_mut("metadata")?.as_object_mut())
        {
            amazon.retain(|name, _| AMAZON.contains(&name.as_str()));
        }
    }
    if form.is_xml() {
        as_text(&mut converted);
    }
    converted
}

fn as_text(value: &mut Value) {
    match value {
        Value::Object(members) => {
            if let Some(status) = members.remove("overriddenStatus") {
                members.insert("overriddenstatus".into(), status);
            }
            members.values_mut().for_each(as_text);
        }
        Value::Number(number) => *value = number.to_string().into(),
        Value::Bool(flag) => *value = flag.to_string().into(),
        _ => {}
    }
}

/// Returns `true` if the values are equal, apart from documented differences of single members,
/// whose rows are added to `met`.
pub(crate) fn alike(java: &Value, ours: &Value, met: &mut BTreeSet<&'static str>) -> bool {
    match (java, ours) {
        (Value::Object(java), Value::Object(own)) => {
            java.len() == own.len()
                && java.iter().all(|(name, member)| match own.get(name) {
                    Some(own) => {
                        alike(member, own, met) || documented(name, member, own).map(|row| met.insert(row)).is_some()
                    }
                    None => false,
                })
        }
        (Value::Array(java), Value::Array(own)) => {
            java.len() == own.len() && java.iter().zip(own).all(|(java, own)| alike(java, own, met))
        }
        _ => java == ours,
    }
}

/// Returns the row of a documented difference of a member.
fn documented(name: &str, java: &Value, ours: &Value) -> Option<&'static str> {
    match name {
        "serviceUpTimestamp" if (*java == 0 || *java == "0") && *ours == "now" => Some("D14"),
        "actionType" if *java == "ADDED" && *ours == "MODIFIED" => Some("P31"),
        _ => None,
    }
}

/// Returns `true` if the list at this path should have the instance.
pub(crate) fn is_listed(path: &str, instance: &Value) -> bool {
    let (member, vip) = match path.split_once('/') {
        Some(("vips", vip)) => ("vipAddress", vip),
        Some(("svips", vip)) => ("secureVipAddress", vip),
        _ => return true,
    };
    instance[member].as_str().is_some_and(|vips| vips.split(',').any(|one| one == vip))
}
