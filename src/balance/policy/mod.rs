//! Policies that pick an endpoint for each request.

mod definition;
mod hash;
mod key;
mod label;
mod random;
mod round_robin;
mod sticky;
mod two_choices;

pub use self::definition::{Label, Policy};
pub use self::hash::RendezvousHash;
pub use self::key::{ExtractKey, FromCookie, FromHeader, HashFn, HashKey, RequestKey};
pub use self::label::ByLabel;
pub use self::random::Random;
pub use self::round_robin::WeightedRoundRobin;
pub use self::sticky::Sticky;
pub use self::two_choices::{LeastRequests, PeakEwma};

pub(crate) use self::sticky::INSTANCE_COOKIE;
