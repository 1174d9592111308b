//! Measurements of one endpoint, and the record of each call to it.

mod ages;
mod completion;
mod counters;
mod id;
mod load;
mod moment;
mod primitives;
mod silence;
mod stats;

pub use self::completion::Completion;

pub(crate) use self::counters::Permit;
pub(crate) use self::id::EndpointId;
pub(crate) use self::load::Load;
pub(crate) use self::moment::{Moment, Tick, elapsed, nanos};
pub(crate) use self::stats::{Details, OutlierDetector, Stats};
