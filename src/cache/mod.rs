//! The consumer's copy of the registry.
//!
//! ```text
//!  Transport ─ full, delta ─▶ Refresher ─ applies ─▶ LocalRegistry ─▶ Snapshot ─▶ the look-ups whose answer changed
//!                             (refresher.rs)         (local.rs, mirror.rs, vips.rs)  (publish.rs, lookup.rs)
//! ```
//!
//! `Refresher` asks, on a timer with jitter. `LocalRegistry` is the logic without IO: the exact
//! mirror of what the server holds, and the instances that it lost without saying so, which are
//! kept for a while. What comes out is an immutable [`Snapshot`] in which an application, and an
//! instance, that did not change is the same `Arc` as before. Beside the applications it has an
//! index of VIP addresses, kept at the cost of what changed. Whoever follows an application, a VIP
//! or a name is woken only when the instances behind it are others.

mod continuity;
mod local;
mod lookup;
mod mirror;
mod publish;
mod refresher;
mod snapshot;
mod vips;

pub(crate) use lookup::{Lookup, Sources};
pub(crate) use publish::Registry;
#[cfg(feature = "peers")]
pub(crate) use refresher::Refresher;
pub use snapshot::Snapshot;
