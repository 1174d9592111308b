//! How an endpoint is chosen.
//!
//! | policy | choose it | a pick costs |
//! |---|---|---|
//! | [`PeakEwma`] | unless you know better | two endpoints looked at |
//! | [`LeastRequests`] | where a call's duration says more about the request than about the endpoint | the same |
//! | [`WeightedRoundRobin`] | for the very shares that the weights say, whatever the endpoints do | one, or a few with weights |
//! | [`Random`] | for those shares without any memory, as a baseline | one |
//! | [`RendezvousHash`] | where endpoints cache by key, or one is to be kept to | all |
//! | [`Sticky`] | where an endpoint holds a session | all, at a nanosecond each |
//! | [`ByLabel`] | to route by version or hint; wraps one of the others | what that one costs |
//!
//! The last three wrap another policy, for what they have no say in.

mod hash;
mod label;
mod p2c;
mod random;
mod request;
mod round_robin;
mod sticky;

use std::fmt;
use std::sync::Arc;

pub use self::hash::{HashKey, RendezvousHash};
pub use self::label::ByLabel;
pub use self::p2c::{LeastRequests, PeakEwma};
pub use self::random::Random;
pub use self::request::{FromCookie, FromHeader};
pub use self::round_robin::WeightedRoundRobin;
pub use self::sticky::Sticky;

pub(super) use self::hash::hash;

use super::set::Candidates;

/// Picks an endpoint for each request.
///
/// A pick sees the request and the endpoints that may take it: those that are not ejected, in the zone that was drawn for this
/// call, with the label that the request asks for, and not among those that already failed it. It runs inside `call`, many at
/// the same time, so it should neither block nor allocate. Whatever can be worked out per endpoint is worked out when the
/// endpoints change; see [`Candidates`].
///
/// A policy of your own: what changes something goes to the leader, wherever that is, or fails if there is none; what only reads
/// goes to the best of the zone.
///
/// ```
/// # use std::convert::Infallible;
/// # use tower::discover::Change;
/// # use tower::{ServiceExt, service_fn};
/// # use tower_eureka::balance::{AnyResponse, Attributes, Balance};
/// use http::Request;
/// use tower_eureka::balance::{Candidates, PeakEwma, Policy};
///
/// #[derive(Clone)]
/// struct WritesToLeader;
///
/// impl<B> Policy<Request<B>> for WritesToLeader {
///     fn affinity(&self, request: &Request<B>, all: &Candidates<'_>) -> Option<usize> {
///         let is_leader = |&i: &usize| all.attributes(i).label("role") == Some("leader");
///         if request.method().is_safe() { None } else { (0..all.len()).find(is_leader) }
///     }
///
///     fn pick(&self, request: &Request<B>, candidates: &Candidates<'_>) -> Option<usize> {
///         if request.method().is_safe() { PeakEwma.pick(request, candidates) } else { None }
///     }
/// }
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), tower_eureka::Error> {
/// # let roles = ["follower", "leader", "follower"];
/// # let discover = tokio_stream::iter(roles.into_iter().enumerate().map(|(i, role)| Ok::<_, Infallible>(Change::Insert(i, role))));
///
/// let balance = Balance::builder(discover)
/// #     .endpoint(|&role| service_fn(move |_: Request<()>| async move { Ok::<_, Infallible>(role) }))
/// #     .attributes(|&role| Attributes::new().with_labels([("role", role)]))
/// #     .observer(AnyResponse)
///     .policy(WritesToLeader)
///     .build();
/// let request = Request::post("/orders").body(()).expect("a path is a URI");
/// assert_eq!(balance.oneshot(request).await?, "leader");
/// # Ok(())
/// # }
/// ```
pub trait Policy<Req: ?Sized>: Send + Sync {
    /// The position of the endpoint that is to take `request`, below [`candidates.len()`](Candidates::len), which is at least 1.
    ///
    /// `None` refuses the call: it fails as if there were no endpoint.
    fn pick(&self, request: &Req, candidates: &Candidates<'_>) -> Option<usize>;

    /// The position of the endpoint to which `request` belongs, if it belongs to one. By default to none.
    ///
    /// Asked before [`pick`](Self::pick), and with the endpoints of all zones, as a hash over them must be: a session does not move
    /// with the zone that happens to be drawn. Those in probation are among them; see [`on_probation`](Candidates::on_probation).
    fn affinity(&self, request: &Req, all: &Candidates<'_>) -> Option<usize> {
        let _ = (request, all);
        None
    }

    /// The label that an endpoint should have to take this request, such as `("version", "2")`. By default none.
    ///
    /// Where no endpoint has it, all are candidates, unless it is [`required`](Label::required).
    fn label<'r>(&'r self, request: &'r Req) -> Option<Label<'r>> {
        let _ = request;
        None
    }
}

/// What a request asks of the endpoints that may take it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Label<'r> {
    /// The label's name: a key of the instance's metadata.
    pub key: &'r str,
    /// The value that the endpoint should have there.
    pub value: &'r str,
    /// Whether the call fails where no endpoint has it.
    pub required: bool,
}

impl<Req: ?Sized, P: Policy<Req> + ?Sized> Policy<Req> for Arc<P> {
    fn pick(&self, request: &Req, candidates: &Candidates<'_>) -> Option<usize> {
        (**self).pick(request, candidates)
    }

    fn affinity(&self, request: &Req, all: &Candidates<'_>) -> Option<usize> {
        (**self).affinity(request, all)
    }

    fn label<'r>(&'r self, request: &'r Req) -> Option<Label<'r>> {
        (**self).label(request)
    }
}

impl<Req: ?Sized> fmt::Debug for dyn Policy<Req> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Policy")
    }
}
