//! The balancer as a user meets it, on tokio's paused clock: whom it knows, whom it calls, whom it leaves out.
#![cfg(feature = "client")]
#![allow(clippy::unwrap_used, reason = "the functions around the tests are tests, too")]

mod discovery;
mod ejection;
mod endpoints;
mod everyday;
mod health_check;
mod policies;
mod shares;
