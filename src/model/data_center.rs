use std::sync::Arc;

use super::Metadata;

/// Where an instance runs, as far as Eureka cares.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum DataCenter {
    /// The usual one: nobody's cloud in particular.
    MyOwn,
    /// Netflix' own.
    Netflix,
    /// AWS, with what the instance learnt of itself: `instance-id`, `availability-zone`, `local-ipv4`, ...
    Amazon(Metadata),
    /// A name that the protocol does not know; empty where the name was missing. Java servers refuse both.
    Other(Arc<str>),
}

impl DataCenter {
    /// The name that travels.
    pub fn name(&self) -> &str {
        match self {
            Self::MyOwn => "MyOwn",
            Self::Netflix => "Netflix",
            Self::Amazon(_) => "Amazon",
            Self::Other(name) => name,
        }
    }

    /// The id that the data centre itself gave the instance: `instance-id` of Amazon, if it has one.
    pub fn instance_id(&self) -> Option<&str> {
        match self {
            Self::Amazon(metadata) => metadata.get("instance-id").filter(|id| !id.is_empty()),
            _ => None,
        }
    }

    /// Zone in which the data centre put the instance: the `availability-zone` of Amazon, without the
    /// blanks around it. A blank zone is none.
    pub fn zone(&self) -> Option<&str> {
        match self {
            Self::Amazon(metadata) => metadata.get("availability-zone").map(str::trim).filter(|zone| !zone.is_empty()),
            _ => None,
        }
    }
}
