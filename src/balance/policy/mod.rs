//! How an endpoint is chosen.

mod p2c;

use std::fmt;
use std::sync::Arc;

pub use self::p2c::{LeastRequests, PeakEwma};

use super::set::Candidates;

/// Picks an endpoint for each request.
///
/// A pick sees the request and the endpoints that may take it: those that are not ejected, in the zone that was drawn for this
/// call, with the label that the request asks for, and not among those that already failed it. It runs inside `call`, many at
/// the same time, so it should neither block nor allocate. Whatever can be worked out per endpoint is worked out when the
/// endpoints change; see [`Candidates`].
///
/// A policy of your own, which gives every call of one tenant to the same endpoint as long as that has little to do:
///
/// ```
/// use tower_eureka::balance::{Candidates, PeakEwma, Policy};
///
/// #[derive(Clone)]
/// struct ByTenant(PeakEwma);
///
/// impl<B> Policy<http::Request<B>> for ByTenant {
///     fn pick(&self, request: &http::Request<B>, candidates: &Candidates<'_>) -> Option<usize> {
///         let tenant = request.headers().get("x-tenant")?.to_str().ok()?;
///         let home = tenant.bytes().map(usize::from).sum::<usize>() % candidates.len();
///         if candidates.pending(home) < 100 { Some(home) } else { self.0.pick(request, candidates) }
///     }
/// }
/// ```
pub trait Policy<Req: ?Sized>: Send + Sync {
    /// The position of the endpoint that is to take `request`, below [`candidates.len()`](Candidates::len), which is at least 1.
    ///
    /// `None` refuses the call: it fails as if there were no endpoint.
    fn pick(&self, request: &Req, candidates: &Candidates<'_>) -> Option<usize>;

    /// Whether the choice is among the endpoints of all zones at once, as a hash over them must be. By default not: the zone is
    /// drawn first, and the policy chooses among its endpoints.
    fn spans_zones(&self) -> bool {
        false
    }

    /// The label that an endpoint should have to take this request, such as `("version", "2")`. By default none.
    ///
    /// Works for labels that the balancer was told to [keep apart](super::Builder::labels). Where no endpoint has it, all are
    /// candidates, unless it is [`required`](Label::required).
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

    fn spans_zones(&self) -> bool {
        (**self).spans_zones()
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
