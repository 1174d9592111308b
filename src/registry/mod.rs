//! The consumer's copy of the registry.
//!
//! ```text
//!  Transport ─ full, delta ─▶ Refresher ─ applies ─▶ LocalRegistry ─▶ Snapshot ─▶ the applications that changed
//!                             (refresher.rs)         (local.rs, mirror.rs)         (publish.rs)
//! ```
//!
//! `Refresher` asks, on a timer with jitter. `LocalRegistry` is the logic without IO: the exact mirror of what the
//! server holds, and the instances that it lost without saying so, which are kept for a while. What comes out is an immutable
//! [`Snapshot`] in which an application that did not change is the same `Arc` as before; whoever follows an application is
//! woken only when that `Arc` is another.

mod local;
mod mirror;
mod publish;
mod refresher;
mod snapshot;

pub(crate) use publish::Registry;
pub use snapshot::Snapshot;
