//! Readers of replication batches and of the responses to them.

use std::fmt;
use std::sync::Arc;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};

use super::members::{Members, Registration, read, scalar, skip};
use super::shapes::OptionalObject;
use crate::model::{BatchItem, Instance, InstanceStatus, ReplicationAction, ReplicationItem, ReplicationResult};

/// Items of a replication batch. Their number is limited, so that a small body with millions of
/// empty items does not fill the memory. Java servers send up to 250.
pub(super) struct BatchItems(pub(super) Vec<BatchMembers>);

const MAX_BATCH_ITEMS: usize = 10_000;

impl<'de> Deserialize<'de> for BatchItems {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ItemsVisitor;
        impl<'de> Visitor<'de> for ItemsVisitor {
            type Value = BatchItems;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "a list of at most {MAX_BATCH_ITEMS} replicated changes")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<BatchItems, A::Error> {
                let mut items = Vec::new();
                while let Some(item) = seq.next_element()? {
                    if items.len() == MAX_BATCH_ITEMS {
                        return Err(A::Error::invalid_length(items.len() + 1, &self));
                    }
                    items.push(item);
                }
                Ok(BatchItems(items))
            }
        }
        deserializer.deserialize_seq(ItemsVisitor)
    }
}

/// Item of a replication batch.
#[derive(Default)]
pub(super) struct BatchMembers {
    app: Option<Arc<str>>,
    id: Option<Arc<str>>,
    last_dirty_timestamp: Option<i64>,
    overridden_status: Option<Arc<str>>,
    status: Option<Arc<str>>,
    instance: Option<Registration>,
    action: Option<Arc<str>>,
}

impl BatchMembers {
    /// Converts the members. Returns the action as an error if it is unknown, as in Java.
    pub(super) fn item(self) -> Result<BatchItem, Arc<str>> {
        let action = match self.action {
            Some(word) => Some(ReplicationAction::from_body(&word).ok_or(word)?),
            None => None,
        };
        let status = |word: Option<Arc<str>>| word.map(|word| InstanceStatus::from_body(&word));
        let too_much_metadata = self.instance.as_ref().is_some_and(|instance| instance.too_much_metadata);
        let item = ReplicationItem {
            app: self.app,
            id: self.id,
            last_dirty_timestamp: self.last_dirty_timestamp,
            overridden_status: status(self.overridden_status),
            status: status(self.status),
            instance: self.instance.map(|registration| registration.instance),
            action,
        };
        Ok(BatchItem { item, too_much_metadata })
    }
}

impl<'de> Members<'de> for BatchMembers {
    const EXPECTED: &'static str = "a replicated change";

    fn start() -> Self {
        Self::default()
    }

    fn member<A: MapAccess<'de>>(&mut self, name: &str, map: &mut A) -> Result<(), A::Error> {
        match name {
            "appName" => self.app = scalar(map)?.text(),
            "id" => self.id = scalar(map)?.text(),
            "lastDirtyTimestamp" => self.last_dirty_timestamp = scalar(map)?.number(),
            "overriddenStatus" => self.overridden_status = scalar(map)?.text(),
            "status" => self.status = scalar(map)?.text(),
            "instanceInfo" => self.instance = map.next_value::<OptionalObject<Registration>>()?.0,
            "action" => self.action = scalar(map)?.text(),
            _ => skip(map)?,
        }
        Ok(())
    }
}

impl<'de> Deserialize<'de> for BatchMembers {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        read(deserializer)
    }
}

pub(super) struct BatchResponseMembers(pub(super) ReplicationResult);

impl<'de> Members<'de> for BatchResponseMembers {
    const EXPECTED: &'static str = "the result of a replicated change";

    fn start() -> Self {
        Self(ReplicationResult { status: 0, entity: None })
    }

    fn member<A: MapAccess<'de>>(&mut self, name: &str, map: &mut A) -> Result<(), A::Error> {
        match name {
            "statusCode" => {
                self.0.status = scalar(map)?.number().and_then(|code| code.try_into().ok()).unwrap_or(0);
            }
            "responseEntity" => self.0.entity = map.next_value::<OptionalObject<Instance>>()?.0.map(Arc::new),
            _ => skip(map)?,
        }
        Ok(())
    }
}

impl<'de> Deserialize<'de> for BatchResponseMembers {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        read(deserializer)
    }
}
