//! Changes of the list, as the script of the page applies them.
//!
//! A change has rendered HTML, so that the templates alone decide about escaping. Its keys are
//! encoded names. `after` is the key of the row or group before, or null for the first.

use std::cmp::Ordering;
use std::sync::Arc;

use serde_json::{Value, json};

use super::respond::render;
use super::row::{Group, Row};
use super::text::{parameter, query_of};
use crate::server::registry::Registry;
use crate::server::view::{AppView, Record, Snapshot};

/// Returns the changed applications, or `None` if more than `limit` rows changed.
pub(super) fn between(
    registry: &Registry,
    old: &Snapshot,
    new: &Snapshot,
    limit: usize,
    now: i64,
) -> Option<Vec<Value>> {
    let (mut changes, mut left, mut before) = (Vec::new(), limit, None);
    for pair in merged(&old.applications, &new.applications, |application| &*application.name) {
        match pair {
            (Some(old), None) => {
                left = left.checked_sub(1)?;
                changes.push(json!({"key": parameter(&old.name), "gone": true}));
            }
            (None, Some(new)) => {
                left = left.checked_sub(new.records.len())?;
                let group = Group::of(registry, new, new.records.iter().map(|record| &**record), now);
                changes.push(json!({"key": group.key, "after": before, "html": render(&group)}));
            }
            (Some(old), Some(new)) if !Arc::ptr_eq(old, new) => {
                let rows = rows(registry, old, new, &mut left, now)?;
                let group = Group::of(registry, new, std::iter::empty(), now);
                changes.push(json!({"key": group.key, "heading": render(&group.heading()), "rows": rows}));
            }
            _ => {}
        }
        if let (_, Some(new)) = pair {
            before = Some(parameter(&new.name));
        }
    }
    Some(changes)
}

/// Returns the changed rows of an application. `left` is the number of rows that may still change.
fn rows(registry: &Registry, old: &AppView, new: &AppView, left: &mut usize, now: i64) -> Option<Vec<Value>> {
    let (mut changes, mut before) = (Vec::new(), None);
    for pair in merged(&old.records, &new.records, |record| record.instance.id()) {
        let key = |record: &Record| query_of(&new.name, record.instance.id());
        match pair {
            (_, Some(record)) if pair.0.is_none_or(|old| !Arc::ptr_eq(old, record)) => {
                *left = left.checked_sub(1)?;
                // An instance that has just left is part of the next change.
                if let Some(lease) = registry.lease_state(&new.name, record.instance.id()) {
                    let row = Row::of(&lease, now);
                    changes.push(json!({"key": row.query, "after": before, "html": render(&row)}));
                }
            }
            (Some(record), None) => {
                *left = left.checked_sub(1)?;
                changes.push(json!({"key": key(record), "gone": true}));
            }
            _ => {}
        }
        if let (_, Some(record)) = pair {
            before = Some(key(record));
        }
    }
    Some(changes)
}

/// Merges two lists that are sorted by the same name, into pairs of equal names.
fn merged<'a, T>(
    old: &'a [T],
    new: &'a [T],
    name: impl Fn(&T) -> &str,
) -> impl Iterator<Item = (Option<&'a T>, Option<&'a T>)> {
    let (mut old, mut new) = (old.iter().peekable(), new.iter().peekable());
    std::iter::from_fn(move || {
        let order = match (old.peek(), new.peek()) {
            (Some(old), Some(new)) => name(old).cmp(name(new)),
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (None, None) => return None,
        };
        Some(match order {
            Ordering::Less => (old.next(), None),
            Ordering::Greater => (None, new.next()),
            Ordering::Equal => (old.next(), new.next()),
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Instance, InstanceStatus};
    use crate::server::outcome::Origin;
    use crate::server::registry::Settings;

    fn register(registry: &Registry, app: &str, id: &str) {
        let mut instance = Instance::builder("x").id(id).ip_addr("10.0.0.1").port(80).build().unwrap();
        // A client may send any name.
        instance.app = app.into();
        registry.register(instance, Origin::Client, 1_000).unwrap();
    }

    /// Returns the changes without their HTML, which must be there.
    fn outline(changes: &[Value]) -> Vec<String> {
        let has_html = |change: &Value| change["html"].as_str().is_some_and(|html| html.starts_with('<'));
        changes
            .iter()
            .map(|change| match &change["rows"] {
                Value::Array(rows) => {
                    assert!(change["heading"].as_str().unwrap().starts_with("<h3"));
                    format!("{}: {}", change["key"].as_str().unwrap(), outline(rows).join(", "))
                }
                _ if change["gone"] == true => format!("-{}", change["key"].as_str().unwrap()),
                _ => {
                    assert!(has_html(change), "{change}");
                    format!("{} after {}", change["key"].as_str().unwrap(), change["after"].as_str().unwrap_or("none"))
                }
            })
            .collect()
    }

    #[test]
    fn changed_rows_and_groups_have_their_place() {
        let registry = Registry::new(Settings::default());
        for (app, id) in [("B", "1"), ("B", "3"), ("C", "1"), ("D", "1")] {
            register(&registry, app, id);
        }
        let old = registry.full();
        let changes = |limit| between(&registry, &old, &registry.full(), limit, 2_000);
        assert_eq!(changes(0), Some(Vec::new()));
        register(&registry, "A&", "1");
        register(&registry, "B", "2");
        registry.set_override("B", "3", InstanceStatus::OutOfService, None, 1_500);
        registry.cancel("B", "1", 1_500);
        registry.cancel("D", "1", 1_500);
        let expected = ["A%26 after none", "B: -app=B&id=1, app=B&id=2 after none, app=B&id=3 after app=B&id=2", "-D"];
        assert_eq!(outline(&changes(5).unwrap()), expected);
        assert_eq!(changes(4), None);
    }
}
