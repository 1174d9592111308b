use std::sync::Arc;

use super::Metadata;

/// Data center of an instance.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum DataCenter {
    /// Any data center without metadata of its own. The usual choice.
    MyOwn,
    /// The data center of Netflix.
    Netflix,
    /// AWS, with the metadata of the instance: `instance-id`, `availability-zone`, `local-ipv4`,
    /// ...
    Amazon(Metadata),
    /// A name that the protocol does not define, empty if the name was missing. Java servers refuse
    /// both.
    Other(Arc<str>),
}

impl DataCenter {
    /// Returns the name on the wire, such as `MyOwn`.
    pub fn name(&self) -> &str {
        match self {
            Self::MyOwn => "MyOwn",
            Self::Netflix => "Netflix",
            Self::Amazon(_) => "Amazon",
            Self::Other(name) => name,
        }
    }

    /// Returns the id that the data center assigned: `instance-id` of Amazon, if it is not empty.
    pub fn instance_id(&self) -> Option<&str> {
        match self {
            Self::Amazon(metadata) => metadata.get("instance-id").filter(|id| !id.is_empty()),
            _ => None,
        }
    }

    /// Returns the zone of the instance: `availability-zone` of Amazon, trimmed. A blank zone
    /// counts as none.
    pub fn zone(&self) -> Option<&str> {
        match self {
            Self::Amazon(metadata) => metadata.get("availability-zone").map(str::trim).filter(|zone| !zone.is_empty()),
            _ => None,
        }
    }
}
