//! Items of a batch, encoded in parts that every peer accepts.

use super::local_node::LocalNode;
use super::queue::Change;
use crate::model::{InstanceStatus, ReplicationAction, ReplicationItem};
use crate::server::owner::{Owner, Owners};

/// Maximum length of a part with more than one item. It is well below the limits of servers and
/// proxies.
const PART_BYTES: usize = 1 << 20;
/// Text before the items of a batch, and after them.
const LIST_BEGIN: &[u8] = br#"{"replicationList":["#;
const LIST_END: &[u8] = b"]}";

/// Returns what to send for a queued change, with the items.
pub(super) fn items<'a>(
    local: &'a LocalNode,
    change: &Change,
) -> impl Iterator<Item = (Change, ReplicationItem)> + use<'a> {
    let item = move |change: Change| item(local, &change).map(|item| (change, item));
    sent_for(local, change).into_iter().flatten().filter_map(item)
}

/// Returns the changes to send for a queued one, which is the only one as a rule.
///
/// If the instance has registered again since its cancellation, the registration is sent. The
/// cancellation also ended the override, which the peer would otherwise apply to the registration.
fn sent_for(local: &LocalNode, change: &Change) -> [Option<Change>; 2] {
    let returned = (change.action == ReplicationAction::Cancel).then(|| local.instance(&change.target)).flatten();
    let Some(ours) = returned else { return [Some(change.clone()), None] };
    let with = |action, status| Change::new(change.target.clone(), action, status);
    let has_none = ours.overridden_status == InstanceStatus::Unknown;
    let end = has_none.then(|| with(ReplicationAction::DeleteStatusOverride, Some(ours.status)));
    [end, Some(with(ReplicationAction::Register, None))]
}

/// Returns the item for a change, with the present instance, or `None` if the instance has left:
/// its cancellation is sent as a change of its own.
fn item(local: &LocalNode, change: &Change) -> Option<ReplicationItem> {
    let Change { target, action, status, .. } = change;
    let bare = ReplicationItem {
        app: Some(target.app.clone()),
        id: Some(target.id.clone()),
        last_dirty_timestamp: None,
        overridden_status: None,
        status: None,
        instance: None,
        action: Some(*action),
    };
    if *action == ReplicationAction::Cancel {
        return Some(bare);
    }
    let instance = local.instance(target)?;
    let overridden = Some(instance.overridden_status).filter(|&status| status != InstanceStatus::Unknown);
    let heartbeat = *action == ReplicationAction::Heartbeat;
    Some(ReplicationItem {
        last_dirty_timestamp: instance.last_dirty_timestamp,
        overridden_status: overridden.filter(|_| heartbeat),
        status: status.or(Some(instance.status)),
        instance: (*action == ReplicationAction::Register).then_some(instance),
        action: Some(*action),
        ..bare
    })
}

/// Part of a batch.
#[derive(Debug)]
pub(super) struct Part {
    pub(super) changes: Vec<Change>,
    pub(super) body: Vec<u8>,
    pub(super) owners: Owners,
}

impl Part {
    /// Returns a part without items. Its response only shows that the peer takes batches.
    pub(super) fn empty() -> Self {
        Self { changes: Vec::new(), body: [LIST_BEGIN, LIST_END].concat(), owners: Owners::default() }
    }

    /// Adds an item. Returns false if there is no room for it.
    fn push(&mut self, change: &Change, line: &[u8], owner: &Owner) -> bool {
        let has_room = self.body.len() + line.len() <= PART_BYTES && self.owners.push(owner);
        if has_room {
            self.changes.push(change.clone());
            self.body.push(b',');
            self.body.extend(line);
        }
        has_room
    }
}

/// Encodes a batch in parts that are not too long for peers.
pub(super) fn in_parts(lines: impl Iterator<Item = (Change, ReplicationItem, Owner)>) -> Vec<Part> {
    let mut parts: Vec<Part> = Vec::new();
    for (change, item, owner) in lines {
        let line = item.to_json();
        if !parts.last_mut().is_some_and(|part| part.push(&change, &line, &owner)) {
            let mut owners = Owners::default();
            owners.push(&owner);
            parts.push(Part { changes: vec![change], body: [LIST_BEGIN, &line].concat(), owners });
        }
    }
    parts.iter_mut().for_each(|part| part.body.extend(LIST_END));
    parts
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::queue::Target;
    use super::*;
    use crate::model::{Instance, ReplicationList};

    #[test]
    fn long_batch_is_divided() {
        let line = |id: &str, bytes: usize| {
            let target = Arc::new(Target { app: "ORDERS".into(), id: id.into() });
            let change = Change::new(target, ReplicationAction::Register, None);
            let instance = (bytes > 0).then(|| {
                Instance::builder("orders")
                    .ip_addr("10.0.0.1")
                    .port(1)
                    .metadata("long", "x".repeat(bytes))
                    .build()
                    .unwrap()
            });
            let item = ReplicationItem {
                app: None,
                id: None,
                last_dirty_timestamp: None,
                overridden_status: None,
                status: None,
                instance,
                action: None,
            };
            (change, item, Owner::Unknown)
        };
        let third = PART_BYTES / 3;
        let lines = [("a", 0), ("b", third), ("c", third), ("d", third), ("e", 0), ("f", 2 * PART_BYTES), ("g", 0)];
        let parts = in_parts(lines.iter().map(|&(id, bytes)| line(id, bytes)));
        let ids: Vec<Vec<_>> = parts.iter().map(|part| part.changes.iter().map(|c| &*c.target.id).collect()).collect();
        assert_eq!(ids, [vec!["a", "b", "c"], vec!["d", "e"], vec!["f"], vec!["g"]]);
        for Part { changes, body, .. } in &parts {
            let sent = ReplicationList::from_json(body).unwrap();
            assert_eq!(sent.0.len(), changes.len());
            assert_eq!(sent.to_json(), *body, "as it is encoded at one go");
        }
        assert!(in_parts(std::iter::empty()).is_empty());
    }
}
