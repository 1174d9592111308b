//! Clocks, jitter and backoff.
//!
//! Delays and timeouts run on tokio's clock, which tests can pause. `clock.rs` alone reads the wall
//! clock, and `jitter.rs` alone makes delays random.

mod clock;
mod jitter;

pub(crate) use clock::LONGEST_WAIT;
#[cfg(test)]
pub(crate) use clock::move_wall_clock;
#[cfg(any(feature = "client", feature = "server"))]
pub(crate) use clock::wall_clock_ms;
#[cfg(feature = "server")]
pub(crate) use clock::{Clock, milliseconds};
#[cfg(feature = "client")]
pub(crate) use clock::{Moment, add_capped};
pub(crate) use jitter::lengthened;
#[cfg(feature = "client")]
pub(crate) use jitter::{Backoff, jittered, jittered_by, random_part};
