//! What the registry is made of: instances, applications, leases, statuses, and the JSON and XML in which they travel.
//!
//! The types are plain values without IO. Their JSON form is that of the Java servers, byte type by byte type: timestamps
//! and flags as strings, ports and lease values as numbers, nothing that is absent. What they *read* is far wider, because
//! the field is: numbers as strings, `null`s, single objects where a list is meant, members nobody knows. XML needs the feature `xml`.

mod action;
mod address;
mod application;
mod builder;
mod change;
#[cfg(feature = "server")]
pub(crate) mod compact;
mod data_center;
mod decode;
#[cfg(any(feature = "client", feature = "server"))]
mod digest;
mod encode;
mod hash;
mod instance;
mod lease;
mod metadata;
mod port;
mod replication;
mod status;
#[cfg(feature = "xml")]
pub(crate) mod xml;

pub use action::ActionType;
pub(crate) use address::AddressOrigin;
#[cfg(feature = "client")]
pub(crate) use address::{detect_ip, is_loopback, source_ip};
pub use application::{Application, Applications};
pub use builder::{InstanceBuilder, InvalidInstance};
#[cfg(feature = "client")]
pub(crate) use builder::{check_app, host_in_url};
pub use change::InstanceChange;
pub use data_center::DataCenter;
pub use decode::DecodeError;
#[cfg(feature = "server")]
pub(crate) use decode::{batch, registration};
#[cfg(any(feature = "client", feature = "server"))]
pub(crate) use digest::Digest;
pub use hash::StatusCounts;
pub use instance::Instance;
pub use lease::LeaseInfo;
pub use metadata::Metadata;
pub use port::Port;
pub(crate) use replication::BatchItem;
pub use replication::{ReplicationAction, ReplicationItem, ReplicationList, ReplicationResponse, ReplicationResult};
pub use status::{InstanceStatus, UnknownStatus};

use std::sync::Arc;

/// Maximum number of metadata entries of a registration. Those of real instances have up to some 50.
pub(crate) const MAX_METADATA_ENTRIES: usize = 1_000;

/// The name under which the registry keeps an application: upper case, whatever a client sent.
///
/// Upper-casing follows the root locale, as everywhere in the Java code but one place (a Turkish JVM there differs).
pub(crate) fn app_name(name: &str) -> Arc<str> {
    if name.bytes().all(|b| b.is_ascii() && !b.is_ascii_lowercase()) {
        Arc::from(name)
    } else {
        Arc::from(name.to_uppercase())
    }
}
