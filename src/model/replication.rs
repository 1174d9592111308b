use std::sync::Arc;

use super::{DecodeError, Instance, InstanceStatus};

/// What one server tells its peer to do with one instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplicationAction {
    /// Take this registration.
    Register,
    /// The instance lives.
    Heartbeat,
    /// The instance left.
    Cancel,
    /// An operator set its status.
    StatusUpdate,
    /// An operator took the status back.
    DeleteStatusOverride,
}

impl ReplicationAction {
    const ALL: [Self; 5] =
        [Self::Register, Self::Heartbeat, Self::Cancel, Self::StatusUpdate, Self::DeleteStatusOverride];

    /// The word that travels.
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

/// One line of a replication batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplicationItem {
    /// Missing in what another implementation sent: that item fails, the batch goes on.
    pub app: Option<Arc<str>>,
    /// Effective id of the instance.
    pub id: Option<Arc<str>>,
    /// Version of the instance's data at the sender.
    pub last_dirty_timestamp: Option<i64>,
    /// Override at the sender, if there is one.
    pub overridden_status: Option<InstanceStatus>,
    /// Status at the sender, or the new one.
    pub status: Option<InstanceStatus>,
    /// The whole instance, with [`ReplicationAction::Register`].
    pub instance: Option<Instance>,
    /// Missing in what another implementation sent: that item fails, the batch goes on.
    pub action: Option<ReplicationAction>,
}

/// One line of a batch that was received.
#[derive(Debug)]
pub(crate) struct BatchItem {
    pub(crate) item: ReplicationItem,
    /// True if its instance has more metadata than a registration may have. The rest is not read.
    pub(crate) too_much_metadata: bool,
}

#[cfg(feature = "peers")]
impl ReplicationItem {
    /// Its place in the body of a batch.
    pub(crate) fn to_json(&self) -> Vec<u8> {
        super::encode::replication_item(self)
    }
}

/// A batch of changes that one server tells its peer: the body of `POST peerreplication/batch`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReplicationList(pub Vec<ReplicationItem>);

impl ReplicationList {
    /// Reads a batch.
    ///
    /// # Errors
    /// When the bytes are not JSON, the list is missing or has more than 10,000 items, an item names an action that
    /// does not exist, or an instance has more than 1,000 entries of metadata.
    pub fn from_json(body: &[u8]) -> Result<Self, DecodeError> {
        super::decode::replication_list(body)
    }

    /// The body of the request.
    pub fn to_json(&self) -> Vec<u8> {
        super::encode::replication_list(self)
    }
}

/// What became of one line of a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplicationResult {
    /// The HTTP status that the same change would have got alone.
    pub status: u16,
    /// The receiver's own copy, where it is the newer one.
    pub entity: Option<Arc<Instance>>,
}

/// The answer to a batch: one result per line, in the same order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReplicationResponse(pub Vec<ReplicationResult>);

impl ReplicationResponse {
    /// Reads the answer to a batch.
    ///
    /// # Errors
    /// When the bytes are not JSON or the list is missing.
    pub fn from_json(body: &[u8]) -> Result<Self, DecodeError> {
        super::decode::replication_response(body)
    }

    /// The body of the answer.
    pub fn to_json(&self) -> Vec<u8> {
        super::encode::replication_response(self)
    }
}
