//! Metrics of the server, described in `docs/metrics.md`.
//!
//! ```text
//!  request ──▶ Measured: a histogram by operation and status ────────┐
//!  registry, replication, response cache, listeners: counters, state ┴▶ families ──▶ Prometheus text
//!                                                     read per scrape            └─▶ JSON of Spring
//! ```
//!
//! Only latencies are recorded for the metrics. Everything else is read from the parts of the
//! server at the time of a scrape, so that metrics cost a heartbeat two clock readings and a
//! histogram. Labels have values of a fixed list, or those of settings: never text that a client
//! sent. The one exception is the number of instances by application, which is off by default and
//! bounded.
//!
//! These numbers are counted from all instances, on a blocking thread and once a second at most.
//!
//! Without the feature `prometheus`, nothing is measured.

#[cfg(feature = "prometheus")]
mod families;
mod measured;
mod operation;
#[cfg(feature = "prometheus")]
mod parts;
#[cfg(feature = "prometheus")]
mod spring;
#[cfg(feature = "prometheus")]
mod text;

#[cfg(feature = "prometheus")]
pub(super) use self::families::Families;
pub(super) use self::measured::{Measured, Started, Timer};
pub(super) use self::operation::OperationLabel;
#[cfg(feature = "prometheus")]
pub(super) use self::parts::Parts;
#[cfg(feature = "prometheus")]
pub(super) use self::spring::{names, one};
#[cfg(feature = "prometheus")]
pub(super) use self::text::{CONTENT_TYPE, text};
