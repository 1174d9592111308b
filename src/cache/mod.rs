//! The consumer's copy of the registry. [`Eureka::snapshot`](crate::Eureka::snapshot) returns its
//! current state.
//!
//! ```text
//!  Transport ── full or delta ──▶ Refresher ──▶ LocalCopy ──▶ Snapshot ──▶ RegistryCache
//!                                 refresher.rs  local_copy.rs snapshot.rs  publish.rs
//!                                 continuity.rs mirror.rs     vip_index.rs lookup.rs
//!                                      │                      regions.rs   events.rs
//!                                      └─ Report (progress.rs, propagation.rs) ─▶ status.rs
//! ```
//!
//! `Refresher` fetches on a timer with jitter. `LocalCopy` is the logic without IO: the exact
//! mirror of the server's list, and the instances that disappeared from it implausibly, which are
//! held for a while. The result is an immutable [`Snapshot`] in which an unchanged application, and
//! an unchanged instance, is the same `Arc` as before. It has an index of VIP addresses, updated at
//! the cost of the changes. A subscriber of an application, a VIP or a name is woken only if the
//! instances behind it changed.
//!
//! [`Eureka::status`](crate::Eureka::status) returns the state of the refresh, and
//! [`Eureka::events`](crate::Eureka::events) streams the changes of all applications.

mod changed;
mod continuity;
mod events;
mod fetcher;
mod file;
#[cfg(test)]
mod heap;
mod held;
mod interest;
mod local_copy;
mod lookup;
mod mirror;
mod progress;
mod propagation;
mod publish;
mod refresher;
mod refusals;
mod regions;
mod saved;
mod snapshot;
mod source;
mod spare;
mod status;
mod tally;
mod vip_index;

pub use crate::config::Disappearance;
pub use events::{RegistryEvent, RegistryEvents};
pub(crate) use lookup::{Lookup, LookupName, Sources};
pub(crate) use progress::Progress;
pub use progress::{DeltaUse, RefreshCounts};
pub(crate) use publish::RegistryCache;
#[cfg(feature = "peers")]
pub(crate) use refresher::Refresher;
pub use snapshot::Snapshot;
pub use source::RegistrySource;
pub(crate) use status::server_state;
pub use status::{RegistryState, RegistryStatus};
