//! Sessions: the instance that the request names.

use std::fmt;

use http::header::HeaderName;

use super::definition::{Label, Policy};
use super::key::{ExtractKey, FromCookie, FromHeader};
use super::two_choices::PeakEwma;
use crate::balance::candidates::Candidates;

/// Name of the cookie in which Spring's load balancer keeps the id of an instance.
pub(crate) const INSTANCE_COOKIE: &str = "sc-lb-instance-id";

/// Sends a request to the instance whose id it carries, in whatever zone it is.
///
/// Use it for sessions that live in one instance. Another policy picks if the request carries no
/// id, or if the instance is gone, is ejected or has failed this call. It is [`PeakEwma`] by
/// default: see [`policy`](Self::policy). The id is a preference, not a guarantee. By default it is
/// in the cookie `sc-lb-instance-id`, as with Spring's request-based sticky sessions. As there, the
/// cookie is set by the application, to the id of an instance in the registry. With
/// [`CallOptions::instance_cookie`](crate::client::CallOptions::instance_cookie), each instance
/// receives its own id to do so.
///
/// ```
/// use http::request::Parts;
/// use tower_eureka::balance::{LeastRequests, Sticky};
///
/// let by_cookie = Sticky::default();
/// let by_header = Sticky::by_header("x-instance").policy(LeastRequests);
/// # #[derive(Clone)]
/// # struct Session { instance: String }
/// let by_extension = Sticky::by(|request: &Parts| {
///     Some(&*request.extensions.get::<Session>()?.instance)
/// });
/// ```
///
/// If the name that is called is not that of the instance's application, as with some VIP
/// addresses, the request has to carry `APPLICATION/id`.
///
/// A pick with an id searches all endpoints, which takes about a nanosecond each.
#[derive(Clone)]
pub struct Sticky<K = FromCookie, P = PeakEwma> {
    id: K,
    inner: P,
}

impl Default for Sticky {
    fn default() -> Self {
        Self::by_cookie(INSTANCE_COOKIE)
    }
}

impl Sticky {
    /// Reads the id from the cookie with this name.
    pub fn by_cookie(name: impl Into<Box<str>>) -> Self {
        Self::new(FromCookie::new(name))
    }
}

impl Sticky<FromHeader> {
    /// Reads the id from the header with this name.
    ///
    /// # Panics
    ///
    /// Panics if the name is not a valid header name.
    pub fn by_header<N>(name: N) -> Self
    where
        N: TryInto<HeaderName>,
        N::Error: fmt::Debug,
    {
        Self::new(FromHeader::new(name))
    }
}

impl<F> Sticky<F> {
    /// Reads the id by a closure, for instance from an extension of the request.
    pub fn by<Req: ?Sized>(id: F) -> Self
    where
        F: Fn(&Req) -> Option<&str> + Send + Sync,
    {
        Self::new(id)
    }
}

impl<K> Sticky<K> {
    /// Creates a policy that sends a request to the instance whose id an [`ExtractKey`] extracts
    /// from it, such as [`FromCookie`]. Other requests are balanced by
    /// [`PeakEwma`].
    pub fn new(id: K) -> Self {
        Self { id, inner: PeakEwma }
    }
}

impl<K, P> Sticky<K, P> {
    /// Sets the policy for requests without an id, and for those whose instance cannot take the
    /// call. Defaults to [`PeakEwma`].
    #[must_use]
    pub fn policy<Q>(self, policy: Q) -> Sticky<K, Q> {
        Sticky { id: self.id, inner: policy }
    }
}

impl<Req, K, P> Policy<Req> for Sticky<K, P>
where
    Req: ?Sized,
    K: ExtractKey<Req>,
    P: Policy<Req>,
{
    fn pick(&self, request: &Req, candidates: &Candidates<'_>) -> Option<usize> {
        self.inner.pick(request, candidates)
    }

    fn affinity(&self, request: &Req, all: &Candidates<'_>) -> Option<usize> {
        let named = self
            .id
            .extract(request)
            .and_then(|id| all.position(id.as_str()?))
            .filter(|&at| !all.is_half_open_and_busy(at));
        named.or_else(|| self.inner.affinity(request, all))
    }

    fn label<'r>(&'r self, request: &'r Req) -> Option<Label<'r>> {
        self.inner.label(request)
    }
}

impl<K, P: fmt::Debug> fmt::Debug for Sticky<K, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sticky").field("inner", &self.inner).finish_non_exhaustive()
    }
}
