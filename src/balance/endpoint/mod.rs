//! Measurements of one endpoint, and the record of each call to it.

mod ages;
mod completion;
mod counters;
mod load;
mod moment;
mod silence;
mod stats;

use std::sync::atomic;

pub use self::completion::Completion;

pub(crate) use self::counters::Permit;
pub(crate) use self::load::Load;
pub(crate) use self::moment::{Moment, Tick, elapsed, nanos};
pub(crate) use self::stats::{Details, OutlierDetector, Stats};

use crate::sync::Mutex;

/// Identifies an endpoint of one balancer. Ids are never reused: an endpoint that was replaced has
/// another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct EndpointId(pub(crate) u64);
