use std::sync::Arc;

use super::{Instance, InstanceStatus};

/// Change of an instance that one server replicates to a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplicationAction {
    /// Registers the instance.
    Register,
    /// Renews the lease of the instance.
    Heartbeat,
    /// Cancels the lease of the instance.
    Cancel,
    /// Sets an override of the status.
    StatusUpdate,
    /// Removes the override of the status.
    DeleteStatusOverride,
}

impl ReplicationAction {
    const ALL: [Self; 5] =
        [Self::Register, Self::Heartbeat, Self::Cancel, Self::StatusUpdate, Self::DeleteStatusOverride];

    /// Returns the name on the wire, such as `Register`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Register => "Register",
            Self::Heartbeat => "Heartbeat",
            Self::Cancel => "Cancel",
            Self::StatusUpdate => "StatusUpdate",
            Self::DeleteStatusOverride => "DeleteStatusOverride",
        }
    }

    pub(crate) fn from_body(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|action| action.as_str() == word)
    }
}

/// Item of a replication batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplicationItem {
    /// Application of the instance. An item without it fails, and the rest of the batch is applied.
    pub app: Option<Arc<str>>,
    /// Effective id of the instance.
    pub id: Option<Arc<str>>,
    /// Version of the instance's data at the sender.
    pub last_dirty_timestamp: Option<i64>,
    /// Override at the sender, if it has one.
    pub overridden_status: Option<InstanceStatus>,
    /// Status at the sender, or the new status.
    pub status: Option<InstanceStatus>,
    /// The instance itself, with [`ReplicationAction::Register`].
    pub instance: Option<Instance>,
    /// Kind of the change. An item without it fails, and the rest of the batch is applied.
    pub action: Option<ReplicationAction>,
}

/// Item of a received batch.
#[derive(Debug)]
pub(crate) struct BatchItem {
    pub(crate) item: ReplicationItem,
    /// `true` if the instance has more than [`MAX_METADATA_ENTRIES`](super::MAX_METADATA_ENTRIES).
    /// The rest is not read.
    pub(crate) too_much_metadata: bool,
}

/// Batch of replicated changes: the body of `POST peerreplication/batch`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReplicationList(pub Vec<ReplicationItem>);

/// Result of one item of a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplicationResult {
    /// HTTP status of the response that the same change would have alone.
    pub status: u16,
    /// Record of the receiver, if it is newer than the sender's.
    pub entity: Option<Arc<Instance>>,
}

/// Response to a batch: one result per item, in the same order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReplicationResponse(pub Vec<ReplicationResult>);
