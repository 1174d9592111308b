//! Data of the protocol: instances, applications, leases and statuses, with their JSON and XML
//! forms.
//!
//! The types are plain values without IO. They write the JSON of the Java servers, byte for byte:
//! timestamps and flags as strings, ports and lease values as numbers, absent members left out.
//! They read every form that clients and servers in the field send: numbers as strings, `null`, a
//! bare object in place of a list, unknown members. XML needs the feature `xml`. `docs/protocol.md`
//! specifies all forms.

mod action;
mod address;
mod application;
mod builder;
mod change;
mod counts;
mod data_center;
#[cfg(any(feature = "client", feature = "server"))]
mod digest;
mod error;
mod fingerprint;
mod instance;
mod json;
mod lease;
mod lists;
mod local;
mod metadata;
mod port;
mod replication;
#[cfg(feature = "client")]
mod sharing;
mod status;
#[cfg(feature = "xml")]
pub(crate) mod xml;

pub use action::ActionType;
pub(crate) use address::AddressRules;
#[cfg(feature = "client")]
pub(crate) use address::{addresses_of, is_loopback, name_of, name_within};
pub use application::{Application, Applications};
pub(crate) use builder::HOST_PLACEHOLDER;
pub use builder::{InstanceBuilder, InvalidInstance};
#[cfg(feature = "client")]
pub(crate) use builder::{check_address, check_app};
pub use change::InstanceChange;
pub use counts::StatusCounts;
pub use data_center::DataCenter;
#[cfg(any(feature = "client", feature = "server"))]
pub(crate) use digest::Digest;
pub use error::DecodeError;
pub use instance::Instance;
#[cfg(feature = "client")]
pub(crate) use json::{DecodedList, Known, ListDecoder};
#[cfg(feature = "server")]
pub(crate) use json::{batch, compact, registration};
pub use lease::LeaseInfo;
pub(crate) use local::{Facts, HostLookup, LocalFacts};
pub(crate) use metadata::MANAGEMENT_PORT_KEY;
pub use metadata::Metadata;
#[cfg(feature = "client")]
pub(crate) use metadata::{GRPC_PORT_KEY, OVERRIDE_KEY};
pub use port::Port;
pub(crate) use replication::BatchItem;
pub use replication::{ReplicationAction, ReplicationItem, ReplicationList, ReplicationResponse, ReplicationResult};
pub use status::{InstanceStatus, UnknownStatus};

use std::sync::Arc;

/// Maximum number of metadata entries of a registration. Real instances have about 50 at most.
pub(crate) const MAX_METADATA_ENTRIES: usize = 1_000;

/// Returns the name of an application in the registry: `name` in upper case.
///
/// Upper-casing follows the root locale. One place in the Java code uses the locale of the JVM,
/// which makes a difference in Turkey.
pub(crate) fn app_name(name: &str) -> Arc<str> {
    if name.bytes().all(|b| b.is_ascii() && !b.is_ascii_lowercase()) {
        Arc::from(name)
    } else {
        Arc::from(name.to_uppercase())
    }
}

/// Puts an IPv6 address into brackets, which URLs require and the fields of an instance lack.
pub(crate) fn host_in_url(host: &str) -> String {
    if host.contains(':') && !host.starts_with('[') { format!("[{host}]") } else { host.into() }
}

/// Returns the host with the plain port, else with the secure one, or `-`. The host is untrusted,
/// so it is escaped and truncated.
#[cfg(any(feature = "client", feature = "page"))]
pub(crate) fn shown_address(instance: &Instance) -> String {
    let Some(host) = instance.host() else { return "-".into() };
    let host = crate::untrusted::Excerpt(host_in_url(host));
    match instance.port().usable().or_else(|| instance.secure_port().usable()) {
        Some(port) => format!("{host}:{port}"),
        None => host.to_string(),
    }
}

/// Parses an IP address. Brackets and the zone of an IPv6 address, which Java adds, are ignored:
/// `fe80:0:0:0:0:0:0:1%eth0`. The zone is the name of an interface of the provider.
#[cfg(feature = "client")]
pub(crate) fn ip_of(text: &str) -> Option<std::net::IpAddr> {
    let text = text.trim();
    let text = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    text.split_once('%').map_or(text, |(address, _)| address).parse().ok()
}
