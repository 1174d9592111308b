//! Routing by the labels of instances.

use std::fmt;
use std::sync::Arc;

use http::header::HeaderName;

use super::definition::{Label, Policy};
use super::key::{ExtractKey, FromHeader};
use super::two_choices::PeakEwma;
use crate::balance::candidates::Candidates;

/// Sends a request to the instances whose metadata has the value that the request asks for. Another
/// policy picks one of them.
///
/// Use it for versions that run side by side, canaries, and tenants with their own instances. The
/// other policy is [`PeakEwma`] by default: see [`policy`](Self::policy). If no instance has the
/// value, or all of those that have it are ejected, all instances may take the call, unless the
/// value is [required](Self::required).
///
/// ```
/// use http::request::Parts;
/// use tower_eureka::balance::{ByLabel, RendezvousHash, Sticky};
///
/// let as_spring_does = ByLabel::hint();
/// let canaries = ByLabel::version("x-version").default_value("1").required();
/// let by_path = ByLabel::by("API_VERSION", |request: &Parts| {
///     request.uri.path().split('/').nth(1)
/// });
///
/// let by_tenant = RendezvousHash::by_header("x-tenant");
/// let nested = ByLabel::version("x-version").policy(Sticky::default().policy(by_tenant));
/// ```
///
/// A call asks for one value. If several such policies are nested, a value from the request takes
/// precedence over a default, and the outer policy over the inner one. To ask for two values at
/// once, give instances a label that combines them, or use a [policy](Self::policy) of your own
/// that filters the instances by [`Candidates::attributes`].
///
/// Values are compared as text, except for those of Spring's `API_VERSION`: they are compared as
/// Spring's load balancer compares them, so that `1`, `v1` and `1.0.0` are equal. A version has up
/// to three numbers after any characters that are no digits. Other values of `API_VERSION` are
/// compared as text.
///
/// Instances with a value are found in an index, which is built whenever the instances change. The
/// first request that asks for a label adds it to the index, unless it is
/// [listed](crate::balance::Builder::labels) in the builder.
#[derive(Clone)]
pub struct ByLabel<K = FromHeader, P = PeakEwma> {
    key: Arc<str>,
    value: K,
    default: Option<Arc<str>>,
    required: bool,
    inner: P,
}

impl ByLabel {
    /// Chooses instances by Spring's hints: the header `X-SC-LB-Hint`, or the value `default`,
    /// under the metadata key `hint`.
    ///
    /// Instances with another hint therefore get only calls with that hint, as long as there is an
    /// instance whose hint is `default`.
    pub fn hint() -> Self {
        Self::new("hint", FromHeader::from_static("x-sc-lb-hint")).default_value("default")
    }

    /// Chooses instances by the value of this header, under the metadata key `version`. For
    /// Spring's `API_VERSION`, see [`key`](Self::key).
    ///
    /// # Panics
    ///
    /// Panics if the name is not a valid header name.
    pub fn version<N>(header: N) -> Self
    where
        N: TryInto<HeaderName>,
        N::Error: fmt::Debug,
    {
        Self::by_header("version", header)
    }

    /// Chooses instances by the value of this header, under this key of the metadata.
    ///
    /// # Panics
    ///
    /// Panics if the name is not a valid header name.
    pub fn by_header<N>(key: impl Into<Arc<str>>, header: N) -> Self
    where
        N: TryInto<HeaderName>,
        N::Error: fmt::Debug,
    {
        Self::new(key, FromHeader::new(header))
    }
}

impl<F> ByLabel<F> {
    /// Chooses instances by the value that the closure returns, under this key of the metadata.
    pub fn by<Req: ?Sized>(key: impl Into<Arc<str>>, value: F) -> Self
    where
        F: Fn(&Req) -> Option<&str> + Send + Sync,
    {
        Self::new(key, value)
    }
}

impl<K> ByLabel<K> {
    /// Chooses instances by the value that an [`ExtractKey`] extracts, under this key of the
    /// metadata.
    pub fn new(key: impl Into<Arc<str>>, value: K) -> Self {
        Self { key: key.into(), value, default: None, required: false, inner: PeakEwma }
    }
}

impl<K, P> ByLabel<K, P> {
    /// Replaces the key of the metadata whose value is compared with the value of the request.
    /// Instances without this key have no value.
    #[must_use]
    pub fn key(mut self, key: impl Into<Arc<str>>) -> Self {
        self.key = key.into();
        self
    }

    /// Sets the value for requests that ask for none. Only [`hint`](ByLabel::hint) has one by
    /// default.
    #[must_use]
    pub fn default_value(mut self, value: impl Into<Arc<str>>) -> Self {
        self.default = Some(value.into());
        self
    }

    /// Fails a call if no instance with the value takes calls. By default, all instances may then
    /// take it.
    #[must_use]
    pub fn required(mut self) -> Self {
        self.required = true;
        self
    }

    /// Sets the policy that picks one of the instances with the value. Defaults to [`PeakEwma`].
    #[must_use]
    pub fn policy<Q>(self, policy: Q) -> ByLabel<K, Q> {
        let Self { key, value, default, required, .. } = self;
        ByLabel { key, value, default, required, inner: policy }
    }
}

impl<Req, K, P> Policy<Req> for ByLabel<K, P>
where
    Req: ?Sized,
    K: ExtractKey<Req>,
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
        let asked = self.value.extract(request).and_then(|value| value.as_str()).map(with);
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

    fn requested(key: &str, value: &str) -> Option<(String, String, bool)> {
        Some((key.to_owned(), value.to_owned(), false))
    }

    #[test]
    fn hints_are_read_as_by_spring() {
        let hint = ByLabel::hint();
        assert_eq!(asked(&hint, &[("X-SC-LB-Hint", "canary")]), requested("hint", "canary"));
        assert_eq!(asked(&hint, &[]), requested("hint", "default"));
        assert_eq!(asked(&hint, &[("X-SC-LB-Hint", "")]), requested("hint", "default"));
        assert_eq!(asked(&hint.default_value("green"), &[]), requested("hint", "green"));
    }

    #[test]
    fn key_and_requirement_can_be_set() {
        let version = ByLabel::version("x-version").key("API_VERSION").required();
        let expected = Some(("API_VERSION".to_owned(), "2".to_owned(), true));
        assert_eq!(asked(&version, &[("x-version", "2")]), expected);
        assert_eq!(asked(&version, &[]), None);
    }

    #[test]
    fn value_of_the_request_precedes_defaults_and_outer_precedes_inner() {
        let version = || ByLabel::version("x-version").default_value("1");
        let (hint_header, version_header) = (("x-sc-lb-hint", "canary"), ("x-version", "2"));
        let outer_hint = ByLabel::hint().policy(Sticky::default().policy(version()));
        assert_eq!(asked(&outer_hint, &[hint_header, version_header]), requested("hint", "canary"));
        assert_eq!(asked(&outer_hint, &[version_header]), requested("version", "2"));
        assert_eq!(
            asked(&outer_hint, &[]),
            requested("version", "1"),
            "a default of the inner policy counts as its value"
        );
        let outer_version = version().policy(ByLabel::hint());
        assert_eq!(asked(&outer_version, &[hint_header]), requested("hint", "canary"));
    }
}
