//! Origins and outcomes of changes to the registry.

use std::fmt;
use std::sync::Arc;

use crate::model::{Instance, InstanceStatus};

/// Sender of a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    /// An instance, or an operator on its behalf.
    Client,
    /// Another registry server that replicates a change.
    Replica,
}

/// Outcome of a heartbeat.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Renewal {
    /// The lease was renewed.
    Renewed,
    /// There is no lease, or its status is UNKNOWN. The instance has to register.
    NotFound,
    /// The lease was renewed, but the sender has newer data than the registry. It has to register.
    SenderIsNewer,
    /// The lease was renewed, but the replica has older data than the registry, which is this
    /// instance.
    SenderIsOlder(Arc<Instance>),
}

/// Result of an accepted registration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Registered {
    /// New status of the instance.
    pub(super) status: InstanceStatus,
    pub(super) outcome: RegisterOutcome,
    /// Status that was sent, if the registry kept another one without an override.
    pub(super) kept: Option<InstanceStatus>,
    /// Reason for which only the status, the version and the lease were accepted.
    pub(super) refused: Option<Refused>,
}

/// Change that a registration made.
///
/// [`Changed`](Self::Changed) includes [`Unchanged`](Self::Unchanged) while changes are not logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RegisterOutcome {
    /// There was no such instance.
    New,
    Changed,
    /// Nothing but times changed.
    Unchanged,
    /// The registry kept its own record, since its version is newer than the one that was sent.
    Stale {
        ours: i64,
        sent: i64,
    },
}

/// Effect of a change on one instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Effect {
    NotFound,
    Unchanged,
    Changed,
}

impl Effect {
    pub(super) fn is_found(self) -> bool {
        self != Self::NotFound
    }
}

/// Reason for which the registry refuses an instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refused {
    /// The application already has this number of instances, the limit.
    ApplicationFull(usize),
    /// The keys and values of the metadata are longer than this number of bytes, the limit.
    MetadataTooLarge(usize),
    /// The named text is longer than this number of bytes, the limit.
    NameTooLong(&'static str, usize),
    /// The texts of the instance are longer than this number of bytes, the limit.
    InstanceTooLarge(usize),
    /// The registry already has this number of instances, the limit.
    RegistryFull(usize),
    /// The instance would not fit into this number of bytes, the size limit of the registry.
    RegistryTooLarge(usize),
}

impl Refused {
    /// Returns true if the registry is full, whatever the instance contains.
    pub(super) fn is_full(self) -> bool {
        matches!(self, Self::RegistryFull(_) | Self::RegistryTooLarge(_))
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ApplicationFull(limit) => write!(f, "the application has {limit} instances, which is the limit"),
            Self::MetadataTooLarge(limit) => write!(f, "the metadata is larger than {limit} bytes"),
            Self::NameTooLong(name, limit) => write!(f, "the {name} is longer than {limit} bytes"),
            Self::InstanceTooLarge(limit) => write!(f, "the instance is larger than {limit} bytes"),
            Self::RegistryFull(limit) => {
                write!(f, "the registry is full: it has {limit} instances, which is the limit")
            }
            Self::RegistryTooLarge(limit) => {
                write!(f, "the registry is full: its instances take nearly {limit} bytes, which is the limit")
            }
        }
    }
}
