//! Core of the registry: leases, status rules, eviction, self-preservation and recent changes.
//!
//! ```text
//!  register, cancel, ──▶ shard (write lock) ──▶ Listing (one mutex): lists, apps hash, ──▶ views
//!  overrides, evict        Lease per instance     recent changes
//!  renew ─────────────▶ shard (read lock), atomics in the lease
//! ```
//!
//! The core does no IO, and each operation takes `now`. An instance belongs to the shard that its
//! application and id hash to. A heartbeat takes the read lock of that shard and writes atomics, so
//! it waits neither for other heartbeats nor for readers of the whole registry. Changes are
//! published as immutable records while the write lock of the shard is held, so the listing has the
//! changes of one instance in their order. Locks are always taken in this order: shard, then
//! listing. Only a step back of the published times locks all shards at once.
//!
//! `now` is in milliseconds since the epoch, from a clock that never goes back. Leases use this
//! clock. Published times follow the wall clock: [`Registry::published_ahead`] returns the
//! difference.
//!
//! `state` defines [`Registry`]. The files of its fields do not import it. Each operation is an
//! `impl Registry` in a file of its own.
//!
//! The rules are specified in `docs/server.md`.

#[cfg(feature = "peers")]
mod adopt;
mod capacity;
mod eviction;
mod history;
mod id_index;
mod lease;
#[cfg(feature = "page")]
mod lease_state;
mod limits;
mod listing;
mod now;
mod overrides;
mod owners;
mod preservation;
mod preserved;
mod queries;
mod recent_changes;
mod reclaim;
mod registration;
mod removal;
mod renewal;
mod rules;
mod settings;
mod shards;
mod silent;
mod state;
#[cfg(test)]
mod tests;
mod thresholds;
mod times;
#[cfg(feature = "peers")]
mod tombstones;
#[cfg(feature = "peers")]
mod version;

#[cfg(feature = "page")]
pub(super) use self::history::{End, PastLease};
#[cfg(feature = "page")]
pub(super) use self::lease_state::LeaseState;
#[cfg(feature = "peers")]
pub(super) use self::listing::Listing;
#[cfg(feature = "prometheus")]
pub(super) use self::listing::Totals;
#[cfg(feature = "page")]
pub(super) use self::preserved::Preservation;
pub(super) use self::preserved::Renewals;
pub(super) use self::settings::Settings;
pub(super) use self::state::Registry;
#[cfg(feature = "peers")]
pub(super) use self::times::map_published;
#[cfg(feature = "peers")]
pub(super) use self::version::{Version, agree, replaces};
