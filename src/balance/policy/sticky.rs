//! To the instance that the request names.

use std::fmt;

use http::header::HeaderName;

use super::request::{FromCookie, FromHeader, Select};
use super::{Candidates, Label, PeakEwma, Policy};

/// Where Spring's load balancer expects the instance's id.
const COOKIE: &str = "sc-lb-instance-id";

/// Sends a request to the instance whose id it carries, in whatever zone that is.
///
/// For sessions that live in one instance. Where the request carries none, or one that is gone, ejected or has failed this call
/// already, another policy chooses: [`PeakEwma`] unless [told otherwise](Self::policy). It is a preference, not a promise. By
/// default the id is in the cookie `sc-lb-instance-id`, as with Spring's request-based sticky sessions, and like there nobody but
/// your application sets it: to the id of an instance in the registry.
///
/// ```
/// use http::request::Parts;
/// use tower_eureka::balance::{LeastRequests, Sticky};
///
/// let by_cookie = Sticky::default();
/// let by_header = Sticky::by_header("x-instance").policy(LeastRequests);
/// # #[derive(Clone)]
/// # struct Session { instance: String }
/// let by_extension = Sticky::by(|request: &Parts| Some(&*request.extensions.get::<Session>()?.instance));
/// ```
///
/// A pick with an id looks it up among all endpoints, which costs about a nanosecond each.
#[derive(Clone)]
pub struct Sticky<K = FromCookie, P = PeakEwma> {
    id: K,
    inner: P,
}

impl Default for Sticky {
    fn default() -> Self {
        Self::by_cookie(COOKIE)
    }
}

impl Sticky {
    /// By the cookie of this name.
    pub fn by_cookie(name: impl Into<Box<str>>) -> Self {
        Self { id: FromCookie::new(name), inner: PeakEwma }
    }
}

impl Sticky<FromHeader> {
    /// By the header of this name.
    ///
    /// # Panics
    ///
    /// If no header can have this name.
    pub fn by_header<N>(name: N) -> Self
    where
        N: TryInto<HeaderName>,
        N::Error: fmt::Debug,
    {
        Self { id: FromHeader::new(name), inner: PeakEwma }
    }
}

impl<F> Sticky<F> {
    /// By what the closure finds in the request, or is told by an extension of it.
    pub fn by<Req: ?Sized>(id: F) -> Self
    where
        F: Fn(&Req) -> Option<&str> + Send + Sync,
    {
        Self { id, inner: PeakEwma }
    }
}

impl<K, P> Sticky<K, P> {
    /// What chooses where no instance is named or the named one cannot take the call. By default [`PeakEwma`].
    #[must_use]
    pub fn policy<Q>(self, policy: Q) -> Sticky<K, Q> {
        Sticky { id: self.id, inner: policy }
    }
}

impl<Req, K, P> Policy<Req> for Sticky<K, P>
where
    Req: ?Sized,
    K: Select<Req>,
    P: Policy<Req>,
{
    fn pick(&self, request: &Req, candidates: &Candidates<'_>) -> Option<usize> {
        self.inner.pick(request, candidates)
    }

    fn affinity(&self, request: &Req, all: &Candidates<'_>) -> Option<usize> {
        let named = self.id.select(request).and_then(|id| all.position(id)).filter(|&at| !all.is_busy_in_probation(at));
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
