//! Origins and outcomes of changes to the registry.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use super::owner::Owner;
use crate::model::{Instance, InstanceStatus};
use crate::untrusted::Quoted;

/// Sender of a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    /// An instance, or an operator on its behalf.
    Client,
    /// Another registry server that replicates a change.
    Replica,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Client => "client",
            Self::Replica => "peer",
        })
    }
}

/// Sender of the registration that a lease has.
///
/// It is the last client that registered the instance here. Without one, as for an instance that
/// registers at another node, it is the peer that sent the registration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Registrant {
    pub(super) origin: Origin,
    pub(super) place: Place,
    /// Key of the identity, unless the sender has no credentials.
    pub(super) identity: Option<Arc<str>>,
    pub(super) owner: Owner,
    /// The owner did not register the present version of the instance: it claimed the lease by a
    /// heartbeat, or registered an earlier version. It counts here, until a peer names the owner.
    pub(super) is_provisional: bool,
}

/// Place that a change was sent from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// The server that accepted the connection does not provide addresses, or the registration was
    /// adopted from a peer.
    Unknown,
    Address(IpAddr),
    /// The process of this server.
    Here,
}

impl Registrant {
    /// Returns the sender of a lease after another registration of its instance, of a newer version
    /// if `is_newer`. A replicated registration keeps the client that registered here, and changes
    /// the owner if it has one, unless another one registered this version.
    pub(super) fn replaced_by(&self, other: Self, is_newer: bool) -> Self {
        if other.origin == Origin::Client {
            return other;
        }
        let kept = self.with_owner_of(&other, is_newer);
        if self.origin == Origin::Client {
            return kept;
        }
        Self { owner: kept.owner, is_provisional: kept.is_provisional, ..other }
    }

    /// Returns this sender with the owner that the lease has after a registration by another one.
    pub(super) fn with_owner_of(&self, other: &Self, is_newer: bool) -> Self {
        let (owner, is_provisional) = if other.owner.is_known() && (is_newer || !self.is_certain()) {
            (&other.owner, other.is_provisional)
        } else {
            (&self.owner, self.is_provisional || is_newer && other.is_provisional)
        };
        Self { owner: owner.clone(), is_provisional, ..self.clone() }
    }

    /// Returns true if an identity or a server is the owner, because it registered the instance.
    pub(super) fn is_certain(&self) -> bool {
        !self.is_provisional && matches!(self.owner, Owner::Identity(_) | Owner::Server)
    }

    /// Returns the owner as peers may know it.
    pub(super) fn certain_owner(&self) -> Owner {
        if self.is_provisional { Owner::Unknown } else { self.owner.clone() }
    }
}

impl From<Origin> for Registrant {
    fn from(origin: Origin) -> Self {
        Self { origin, place: Place::Unknown, identity: None, owner: Owner::Unknown, is_provisional: false }
    }
}

impl fmt::Display for Registrant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.place {
            Place::Unknown => self.origin.fmt(f)?,
            Place::Address(address) => write!(f, "{} {address}", self.origin)?,
            Place::Here => f.write_str("this server")?,
        }
        if let Some(key) = &self.identity {
            write!(f, " ({})", Quoted(name_of(key)))?;
        }
        Ok(())
    }
}

/// Returns the name in the key of an identity, with its kind unless that is usual.
pub(super) fn name_of(key: &str) -> &str {
    key.strip_prefix("user:").unwrap_or(key)
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

/// Instance before and after a change. One is absent if the instance is new or left, and both while
/// changes are not logged.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct States {
    pub(super) before: Option<Arc<Instance>>,
    pub(super) after: Option<Arc<Instance>>,
}

/// Result of an accepted registration.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Registered {
    /// New status of the instance.
    pub(super) status: InstanceStatus,
    pub(super) outcome: RegisterOutcome,
    /// Status that was sent, if the registry kept another one without an override.
    pub(super) kept: Option<InstanceStatus>,
    /// Reason for which only the status, the version and the lease were accepted.
    pub(super) refused: Option<Refused>,
    pub(super) states: States,
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
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Effect {
    NotFound,
    Unchanged,
    Changed(States),
}

impl Effect {
    pub(super) fn is_found(&self) -> bool {
        *self != Self::NotFound
    }

    pub(super) fn is_changed(&self) -> bool {
        matches!(self, Self::Changed(_))
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
    /// The registry already has this number of applications, the limit.
    TooManyApplications(usize),
    /// The identity already has this number of instances, the limit.
    IdentityInstances(usize),
    /// The identity already has instances of this number of applications, the limit.
    IdentityApplications(usize),
    /// The registry already has this number of instances, the limit.
    RegistryFull(usize),
    /// The instance would not fit into this number of bytes, the size limit of the registry.
    RegistryTooLarge(usize),
}

impl Refused {
    /// Names of the reasons, as the metrics show them.
    pub(super) const REASONS: [&str; 9] = [
        "application_full",
        "metadata_size",
        "name_length",
        "instance_size",
        "registry_full",
        "registry_size",
        "applications",
        "identity_instances",
        "identity_applications",
    ];

    /// Returns the position of this reason in [`REASONS`](Self::REASONS).
    pub(super) fn position(self) -> usize {
        match self {
            Self::ApplicationFull(_) => 0,
            Self::MetadataTooLarge(_) => 1,
            Self::NameTooLong(..) => 2,
            Self::InstanceTooLarge(_) => 3,
            Self::RegistryFull(_) => 4,
            Self::RegistryTooLarge(_) => 5,
            Self::TooManyApplications(_) => 6,
            Self::IdentityInstances(_) => 7,
            Self::IdentityApplications(_) => 8,
        }
    }

    /// Returns true if the registry is full, whatever the instance contains.
    pub(super) fn is_full(self) -> bool {
        matches!(self, Self::RegistryFull(_) | Self::RegistryTooLarge(_) | Self::TooManyApplications(_))
    }

    /// Returns true if the instance could be registered once others have left.
    pub(super) fn is_temporary(self) -> bool {
        match self {
            Self::MetadataTooLarge(_) | Self::NameTooLong(..) | Self::InstanceTooLarge(_) => false,
            Self::ApplicationFull(_)
            | Self::TooManyApplications(_)
            | Self::IdentityInstances(_)
            | Self::IdentityApplications(_)
            | Self::RegistryFull(_)
            | Self::RegistryTooLarge(_) => true,
        }
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ApplicationFull(limit) => write!(f, "the application has {limit} instances, which is the limit"),
            Self::TooManyApplications(limit) => {
                write!(f, "the registry is full: it has {limit} applications, which is the limit")
            }
            Self::IdentityInstances(limit) => {
                write!(f, "this identity has registered {limit} instances, which is the limit")
            }
            Self::IdentityApplications(limit) => {
                write!(f, "this identity has registered instances of {limit} applications, which is the limit")
            }
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
