//! The balancer through its public API, on tokio's paused clock.
#![cfg(feature = "client")]
#![allow(clippy::unwrap_used, reason = "the functions around the tests are tests, too")]

mod discovery;
mod ejection;
mod endpoints;
mod everyday;
mod health_check;
mod policies;
mod robustness;
mod shares;
