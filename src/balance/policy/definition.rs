//! Trait of all policies.

use std::fmt;
use std::sync::Arc;

use crate::balance::candidates::Candidates;

/// Picks an endpoint for each request.
///
/// A pick sees the request and the endpoints that may take it: those that are not ejected, in the
/// zone that was drawn for this call, with the label that the request asks for, without those that
/// have already failed it. Picks run inside `call`, many at the same time, so they should neither
/// block nor allocate. Everything that can be computed per endpoint is computed when the endpoints
/// change; see [`Candidates`].
///
/// The policy of this example sends writes to the leader, in whatever zone it is, and fails them if
/// there is none. Reads go to the best endpoint of the zone.
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
/// # let insert = |(i, role)| Ok::<_, Infallible>(Change::Insert(i, role));
/// # let discover = tokio_stream::iter(roles.into_iter().enumerate().map(insert));
///
/// let balance = Balance::builder(discover)
/// #     .endpoint(|&role| {
/// #         service_fn(move |_: Request<()>| async move { Ok::<_, Infallible>(role) })
/// #     })
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
    /// Returns the position of the endpoint that takes `request`. It is less than
    /// [`candidates.len()`](Candidates::len), which is at least 1.
    ///
    /// `None` fails the call as if there were no endpoint. So does a position that is out of range.
    /// In debug builds it panics.
    fn pick(&self, request: &Req, candidates: &Candidates<'_>) -> Option<usize>;

    /// Returns the position of the endpoint to which `request` belongs. By default, it belongs to
    /// none.
    ///
    /// Called before [`pick`](Self::pick) with the endpoints of all zones, so that neither a hash
    /// nor a session depends on the zone that was drawn. Half-open endpoints are among them; see
    /// [`is_half_open`](Candidates::is_half_open).
    fn affinity(&self, request: &Req, all: &Candidates<'_>) -> Option<usize> {
        let _ = (request, all);
        None
    }

    /// Returns the label that an endpoint should have to take this request, such as `("version",
    /// "2")`. By default, there is none.
    ///
    /// If no endpoint with the label takes calls, all endpoints are candidates, unless it is
    /// [`required`](Label::required).
    fn label<'r>(&'r self, request: &'r Req) -> Option<Label<'r>> {
        let _ = request;
        None
    }
}

/// Label that a request asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Label<'r> {
    /// Name of the label: a key of the instance's metadata.
    pub key: &'r str,
    /// Value of the label. Values of `API_VERSION` are compared as versions; see
    /// [`ByLabel`](crate::balance::ByLabel).
    pub value: &'r str,
    /// Fails the call if no endpoint with the label takes calls.
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
