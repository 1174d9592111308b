//! Answers without what only a clock decides, and lists by application and id.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::requests::{Form, Key};

/// Versions that are sent are far below, what a server's clock says is far above.
const CLOCK: i64 = 1_000_000_000_000;

/// Replaces every time of a server's clock by `now`, and leaves those times out that no version has.
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

/// A list answer, or one application.
pub(crate) struct List {
    /// Its hash, and the names of its members; the version of a delta is a counter.
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
            // An application that nobody has.
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

    /// Members in which they differ about an instance.
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
        let told =
            members.into_iter().map(|name| format!(" {name}: Java {:?}, ours {:?};", java.get(name), own.get(name)));
        format!("{key:?}:{}", told.collect::<String>())
    }

    /// The instances that are in one of them only, or look different, and are not alike.
    pub(crate) fn differing(&self, ours: &Self) -> BTreeSet<Key> {
        let keys = self.instances.keys().chain(ours.instances.keys());
        let listed = |list: &Self, key| list.instances.get(key).cloned().unwrap_or_default();
        keys.filter(|key| !alike(&listed(self, key), &listed(ours, key), &mut BTreeSet::new())).cloned().collect()
    }
}

/// Id under which a registry keeps an instance.
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

/// Of the metadata that are sent here.
const AMAZON: [&str; 2] = ["instance-id", "public-hostname"];

/// An instance, of which the full JSON is known, as it stands in a list of this form.
pub(crate) fn shown(form: Form, instance: &Value) -> Value {
    let mut shown = instance.clone();
    if let (true, Some(members)) = (form.is_compact(), shown.as_object_mut()) {
        members.retain(|name, _| COMPACT.contains(&name.as_str()));
        if let Some(amazon) =
            members.get_mut("dataCenterInfo").and_then(|center| center.get_mut("metadata")?.as_object_mut())
        {
            amazon.retain(|name, _| AMAZON.contains(&name.as_str()));
        }
    }
    if form.is_xml() {
        as_text(&mut shown);
    }
    shown
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

/// Whether ours says the same as Java, but for the rows of `docs/quirks.md` about single members, which are added to `met`.
pub(crate) fn alike(java: &Value, ours: &Value, met: &mut BTreeSet<&'static str>) -> bool {
    match (java, ours) {
        (Value::Object(java), Value::Object(own)) => {
            java.len() == own.len()
                && java.iter().all(|(name, member)| match own.get(name) {
                    Some(own) => {
                        alike(member, own, met) || decided(name, member, own).map(|row| met.insert(row)).is_some()
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

/// The row about a single member.
fn decided(name: &str, java: &Value, ours: &Value) -> Option<&'static str> {
    match name {
        "serviceUpTimestamp" if (*java == 0 || *java == "0") && *ours == "now" => Some("D14"),
        "actionType" if *java == "ADDED" && *ours == "MODIFIED" => Some("P31"),
        _ => None,
    }
}

/// Whether the list at this path should have the instance.
pub(crate) fn is_listed(path: &str, instance: &Value) -> bool {
    let (member, vip) = match path.split_once('/') {
        Some(("vips", vip)) => ("vipAddress", vip),
        Some(("svips", vip)) => ("secureVipAddress", vip),
        _ => return true,
    };
    instance[member].as_str().is_some_and(|vips| vips.split(',').any(|one| one == vip))
}
