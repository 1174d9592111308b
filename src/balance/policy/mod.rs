//! Policies that pick an endpoint for each request.
//!
//! | policy | use it | cost of a pick |
//! |---|---|---|
//! | [`PeakEwma`] | by default | two endpoints read |
//! | [`LeastRequests`] | if the duration of a call depends more on the request than on the endpoint | the same |
//! | [`WeightedRoundRobin`] | for exact shares by weight, whatever the endpoints' latency | one, or a few with weights |
//! | [`Random`] | for those shares without state, as a baseline | one |
//! | [`RendezvousHash`] | if endpoints cache by key, or one of them is to be kept | all |
//! | [`Sticky`] | if an endpoint holds a session | all, at a nanosecond each |
//! | [`ByLabel`] | to route by version or hint; wraps one of the others | that of the wrapped policy |
//!
//! The last three wrap another policy, which picks for requests without a key.

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
