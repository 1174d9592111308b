//! To the instances that have what the request asks for.

use std::fmt;
use std::sync::Arc;

use http::header::HeaderName;

use super::request::{FromHeader, Select};
use super::{Candidates, Label, PeakEwma, Policy};

/// Sends a request to the instances whose metadata has the value that it asks for, and lets another policy choose among them.
///
/// For versions that run side by side, canaries, and tenants with instances of their own. Among the instances with the value
/// [`PeakEwma`] chooses unless [told otherwise](Self::policy). Where none has it, or the ones that have it are all ejected, all
/// instances may take the call, unless it is [required](Self::required).
///
/// ```
/// use http::request::Parts;
/// use tower_eureka::balance::{ByLabel, RendezvousHash, Sticky};
///
/// let as_spring_does = ByLabel::hint();
/// let canaries = ByLabel::version("x-version").default_value("1").required();
/// let by_path = ByLabel::by("API_VERSION", |request: &Parts| request.uri.path().split('/').nth(1));
///
/// let everything = ByLabel::version("x-version").policy(Sticky::default().policy(RendezvousHash::by_header("x-tenant")));
/// ```
///
/// One value is asked for per call. Where policies that ask for labels wrap each other, what the request itself says goes before a
/// default, and the outer one before the inner. To ask for two things at once, give instances a label that says both, or let a
/// [policy](Self::policy) of your own look for the second one among those with the first: [`Candidates::attributes`] tells it.
///
/// The instances with a value are found by a look into a map that is worked out when they change: at the first request that asks
/// for the label, unless the balancer was [told before](crate::balance::Builder::labels).
#[derive(Clone)]
pub struct ByLabel<K = FromHeader, P = PeakEwma> {
    key: Arc<str>,
    value: K,
    default: Option<Arc<str>>,
    required: bool,
    inner: P,
}

impl ByLabel {
    /// As Spring's load balancer takes hints: the header `X-SC-LB-Hint`, else the value `default`, preferred in the metadata `hint`.
    ///
    /// So instances with a hint of their own get no calls without it as long as there is one whose hint is `default`.
    pub fn hint() -> Self {
        Self::new("hint".into(), FromHeader::from_static("x-sc-lb-hint")).default_value("default")
    }

    /// By the value of this header, preferred in the metadata `version`. For Spring's `API_VERSION` see [`key`](Self::key).
    ///
    /// # Panics
    ///
    /// If no header can have this name.
    pub fn version<N>(header: N) -> Self
    where
        N: TryInto<HeaderName>,
        N::Error: fmt::Debug,
    {
        Self::by_header("version", header)
    }

    /// By the value of this header, preferred under this key of the metadata.
    ///
    /// # Panics
    ///
    /// If no header can have this name.
    pub fn by_header<N>(key: impl Into<Arc<str>>, header: N) -> Self
    where
        N: TryInto<HeaderName>,
        N::Error: fmt::Debug,
    {
        Self::new(key.into(), FromHeader::new(header))
    }
}

impl<F> ByLabel<F> {
    /// By what the closure finds in the request, preferred under this key of the metadata.
    pub fn by<Req: ?Sized>(key: impl Into<Arc<str>>, value: F) -> Self
    where
        F: Fn(&Req) -> Option<&str> + Send + Sync,
    {
        Self::new(key.into(), value)
    }

    fn new(key: Arc<str>, value: F) -> Self {
        Self { key, value, default: None, required: false, inner: PeakEwma }
    }
}

impl<K, P> ByLabel<K, P> {
    /// The key of the metadata under which instances have the value.
    #[must_use]
    pub fn key(mut self, key: impl Into<Arc<str>>) -> Self {
        self.key = key.into();
        self
    }

    /// What a request that says nothing asks for. By default nothing, but `default` of [`hint`](ByLabel::hint).
    #[must_use]
    pub fn default_value(mut self, value: impl Into<Arc<str>>) -> Self {
        self.default = Some(value.into());
        self
    }

    /// Fails a call for which no instance has the value. By default all may take it then.
    #[must_use]
    pub fn required(mut self) -> Self {
        self.required = true;
        self
    }

    /// What chooses among the instances with the value. By default [`PeakEwma`].
    #[must_use]
    pub fn policy<Q>(self, policy: Q) -> ByLabel<K, Q> {
        let Self { key, value, default, required, .. } = self;
        ByLabel { key, value, default, required, inner: policy }
    }
}

impl<Req, K, P> Policy<Req> for ByLabel<K, P>
where
    Req: ?Sized,
    K: Select<Req>,
    P: Policy<Req>,
{
    fn pick(&self, request: &Req, candidates: &Candidates<'_>) -> Option<usize> {
        self.inner.pick(request, candidates)
    }

    fn affinity(&self, request: &Req, all: &Candidates<'_>) -> Option<usize> {
        self.inner.affinity(request, all)
    }

    fn label<'r>(&'r self, request: &'r Req) -> Option<Label<'r>> {
        let with = |value| Label { key: &self.key, value, required: self.required };
        let asked = self.value.select(request).map(with);
        asked.or_else(|| self.inner.label(request)).or_else(|| self.default.as_deref().map(with))
    }
}

impl<K, P: fmt::Debug> fmt::Debug for ByLabel<K, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ByLabel")
            .field("key", &self.key)
            .field("default", &self.default)
            .field("required", &self.required)
            .field("inner", &self.inner)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;
    use crate::balance::Sticky;

    fn asked(policy: &impl Policy<Request<()>>, headers: &[(&str, &str)]) -> Option<(String, String, bool)> {
        let mut request = Request::builder();
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(()).unwrap();
        policy.label(&request).map(|label| (label.key.to_owned(), label.value.to_owned(), label.required))
    }

    fn says(key: &str, value: &str) -> Option<(String, String, bool)> {
        Some((key.to_owned(), value.to_owned(), false))
    }

    #[test]
    fn hints_are_spring_s() {
        let hint = ByLabel::hint();
        assert_eq!(asked(&hint, &[("X-SC-LB-Hint", "canary")]), says("hint", "canary"));
        assert_eq!(asked(&hint, &[]), says("hint", "default"));
        assert_eq!(asked(&hint, &[("X-SC-LB-Hint", "")]), says("hint", "default"));
        assert_eq!(asked(&hint.default_value("green"), &[]), says("hint", "green"));
    }

    #[test]
    fn the_key_and_the_severity_can_be_set() {
        let version = ByLabel::version("x-version").key("API_VERSION").required();
        let expected = Some(("API_VERSION".to_owned(), "2".to_owned(), true));
        assert_eq!(asked(&version, &[("x-version", "2")]), expected);
        assert_eq!(asked(&version, &[]), None);
    }

    #[test]
    fn what_is_said_goes_before_defaults_and_outer_before_inner() {
        let version = || ByLabel::version("x-version").default_value("1");
        let (said_hint, said_version) = (("x-sc-lb-hint", "canary"), ("x-version", "2"));
        let outer_hint = ByLabel::hint().policy(Sticky::default().policy(version()));
        assert_eq!(asked(&outer_hint, &[said_hint, said_version]), says("hint", "canary"));
        assert_eq!(asked(&outer_hint, &[said_version]), says("version", "2"));
        assert_eq!(asked(&outer_hint, &[]), says("version", "1"), "a default of the inner one counts as said by it");
        let outer_version = version().policy(ByLabel::hint());
        assert_eq!(asked(&outer_version, &[said_hint]), says("hint", "canary"));
    }
}
