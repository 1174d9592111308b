//! Load balancing over the endpoints that a [`Discover`](tower::discover::Discover) reports.
//!
//! ```text
//! Discover ── polled by a task ──▶ pool ── builds ──▶ picker, immutable, replaced as a whole
//!                                                        │ pick: inside `call`, without a lock
//! request ──▶ Balance::call ─────────────────────▶ endpoint service ──▶ response ──▶ Observe
//!                                  ▲                                                    │
//!                                  └─────── latency, failures, pending calls ◀──────────┘
//! ```
//!
//! [`Balance`] differs from tower's balancer in how it handles failures. Without an endpoint it
//! waits for a bounded time and then fails with an error that says why. An endpoint stays until
//! discovery removes it, whatever the results of its calls. Endpoints are kept after an error of
//! discovery and after its end. An endpoint that fails fast counts as slow, not as fast. Discovery
//! is polled by a task, with or without calls.
//!
//! The default policy draws two endpoints and picks the one whose next call has the lower expected
//! cost: latency (a moving average that rises to peaks at once) times pending calls. A pick reads
//! only these two, so its cost does not grow with the number of endpoints, and many callers do not
//! pick the same endpoint at the same time.
//!
//! A policy picks from a list that is rebuilt whenever the endpoints change. The list is limited to
//! a [`Subset`] and to the [zone](ZoneAware) of the call, has no [ejected](Ejection) endpoints, and
//! has the weights of [`SlowStart`]. [`Balance::snapshot`] shows all endpoints.
//!
//! # Example
//!
//! ```
//! use std::convert::Infallible;
//!
//! use tower::discover::ServiceList;
//! use tower::{ServiceExt, service_fn};
//! use tower_eureka::balance::{AnyResponse, Balance};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), tower_eureka::Error> {
//! let double = service_fn(|n: u32| async move { Ok::<_, Infallible>(2 * n) });
//! let discover = ServiceList::new(vec![double, double]);
//! let balance = Balance::builder(discover).observer(AnyResponse).build();
//!
//! assert_eq!(balance.oneshot(21).await?, 42);
//! # Ok(())
//! # }
//! ```
//!
//! # Policies
//!
//! | policy | use it | cost of a pick |
//! |---|---|---|
//! | [`PeakEwma`] | by default | two endpoints read |
//! | [`LeastRequests`] | if the duration of a call depends more on the request than on the endpoint | the same |
//! | [`WeightedRoundRobin`] | for exact shares by weight, whatever the endpoints' latency | one, or a few with weights |
//! | [`Random`] | for those shares without state, as a baseline | one |
//! | [`RendezvousHash`] | if endpoints cache by key | all |
//! | [`Sticky`] | if an endpoint holds a session | all, about a nanosecond each |
//! | [`ByLabel`] | to route by version or hint; wraps one of the others | that of the wrapped policy |
//!
//! The last three wrap another policy. `RendezvousHash` and `Sticky` use it for requests without a
//! key, `ByLabel` among the instances with the label. Write your own by implementing [`Policy`].

mod attributes;
mod builder;
mod candidates;
mod classify;
mod driver;
mod endpoint;
mod fail_fast;
mod future;
mod health;
mod label_value;
mod outcome;
mod outlier;
mod policy;
mod pool;
mod service;
mod shared;
mod slow_start;
mod stable_hash;
mod subset;
#[cfg(test)]
mod tests;
mod weights;
mod zone;

pub use self::attributes::Attributes;
pub use self::builder::Builder;
pub use self::candidates::Candidates;
pub use self::classify::{
    AnyResponse, ClassifyHttp, DefaultClassifier, HttpCompletion, HttpResponses, Observe, ResponseBody,
};
pub use self::endpoint::Completion;
pub use self::future::ResponseFuture;
pub use self::outcome::Outcome;
pub use self::outlier::{Cause, Ejection};
pub use self::policy::{
    ByLabel, ExtractKey, FromCookie, FromHeader, HashFn, HashKey, Label, LeastRequests, PeakEwma, Policy, Random,
    RendezvousHash, RequestKey, Sticky, WeightedRoundRobin,
};
pub use self::pool::{EndpointSnapshot, EndpointState, Snapshot, ZoneSnapshot};
pub use self::service::Balance;
pub use self::slow_start::SlowStart;
pub use self::subset::{Siblings, Subset};
pub use self::zone::{ZoneAware, ZoneRule};

pub(crate) use self::classify::{
    CallerFault, is_callers_fault, is_grpc, is_overload, is_unprocessed, outcome as outcome_of,
};
pub(crate) use self::endpoint::EndpointId;
pub(crate) use self::future::{CallFuture, Picked};
pub(crate) use self::label_value::API_VERSION;
pub(crate) use self::policy::INSTANCE_COOKIE;
pub(crate) use self::pool::Reconfiguration;
