//! Measurements of one endpoint, and the record of each call to it.

mod ages;
mod completion;
mod counters;
mod id;
mod load;
mod missing_responses;
mod primitives;
mod silence;
mod stats;
mod timestamp;

pub use self::completion::Completion;

pub(crate) use self::counters::Permit;
pub(crate) use self::id::EndpointId;
pub(crate) use self::load::Load;
pub(crate) use self::missing_responses::MissingResponses;
pub(crate) use self::stats::{Details, OutlierDetector, Stats};
pub(crate) use self::timestamp::{Tick, Timestamp, elapsed, nanos};
