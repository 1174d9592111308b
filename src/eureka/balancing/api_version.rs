//! Choice of instances by the version of their API, as Spring's load balancer does it.

use std::sync::Arc;

use http::request::Parts;
use http::{HeaderName, header};

use crate::balance::{API_VERSION, Candidates, Label, Policy};

/// Places in which a request has the version of the API that it asks for.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct ApiVersion {
    pub(super) header: Option<HeaderName>,
    pub(super) query_parameter: Option<String>,
    /// Position of the part of the path, from 0.
    pub(super) path_segment: Option<usize>,
    /// Parameters of media types in `accept` and `content-type`.
    pub(super) media_types: Option<Vec<MediaType>>,
    pub(super) default: Option<Arc<str>>,
    /// True if a request has to ask for a version.
    pub(super) required: Option<bool>,
    /// True if other instances take calls for which none has the version.
    pub(super) falls_back: Option<bool>,
}

/// Media type, and the name of its parameter with the version.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct MediaType {
    kind: String,
    subtype: String,
    parameter: String,
}

/// Chooses instances by their version, and then by another policy.
struct ByVersion<P> {
    version: ApiVersion,
    inner: P,
}

impl ApiVersion {
    /// Returns these settings, and those of all applications where there is none.
    pub(super) fn over(self, all: Self) -> Self {
        Self {
            header: self.header.or(all.header),
            query_parameter: self.query_parameter.or(all.query_parameter),
            path_segment: self.path_segment.or(all.path_segment),
            media_types: self.media_types.or(all.media_types),
            default: self.default.or(all.default),
            required: self.required.or(all.required),
            falls_back: self.falls_back.or(all.falls_back),
        }
    }

    /// Chooses instances by their version, and then by this policy.
    pub(super) fn policy<P: Policy<Parts>>(self, inner: P) -> impl Policy<Parts> {
        ByVersion { version: self, inner }
    }

    /// Returns the version that a request asks for.
    fn requested<'r>(&self, request: &'r Parts) -> Option<&'r str> {
        let in_header = || request.headers.get(self.header.as_ref()?)?.to_str().ok();
        let in_query = || {
            let name = self.query_parameter.as_deref()?;
            let parameters = request.uri.query()?.split('&').filter_map(|parameter| parameter.split_once('='));
            parameters.into_iter().find(|(found, _)| *found == name).map(|(_, version)| version)
        };
        let in_path = || request.uri.path().trim_start_matches('/').split('/').nth(self.path_segment?);
        let in_media_type = || self.media_types.iter().flatten().find_map(|wanted| wanted.requested(request));
        let version = in_header().or_else(in_query).or_else(in_path).or_else(in_media_type)?.trim();
        Some(version).filter(|version| !version.is_empty())
    }
}

impl MediaType {
    /// Creates the setting for a media type like `application/json`; `None` for another text.
    pub(super) fn new(name: &str, parameter: &str) -> Option<Self> {
        let (kind, subtype) = name.trim().split_once('/').filter(|(kind, subtype)| {
            let is_token = |text: &str| !text.is_empty() && !text.contains([';', ',', '/', ' ']);
            is_token(kind) && is_token(subtype)
        })?;
        let [kind, subtype, parameter] = [kind, subtype, parameter.trim()].map(str::to_ascii_lowercase);
        Some(Self { kind, subtype, parameter })
    }

    /// Returns `true` if both settings are for the same media type.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        (&self.kind, &self.subtype) == (&other.kind, &other.subtype)
    }

    /// Returns the parameter of the first compatible media type, those in `accept` first.
    fn requested<'r>(&self, request: &'r Parts) -> Option<&'r str> {
        let values = [header::ACCEPT, header::CONTENT_TYPE].into_iter();
        let mut values = values.flat_map(|name| request.headers.get_all(name)).filter_map(|value| value.to_str().ok());
        values.find_map(|value| value.split(',').find_map(|one| self.parameter_of(one)))
    }

    /// Returns the parameter of this media type, if it is compatible.
    fn parameter_of<'v>(&self, value: &'v str) -> Option<&'v str> {
        let mut parts = value.split(';');
        let (kind, subtype) = parts.next()?.trim().split_once('/')?;
        if !(is_compatible(&self.kind, kind) && is_compatible(&self.subtype, subtype)) {
            return None;
        }
        let mut parameters = parts.filter_map(|part| part.split_once('='));
        let (_, version) = parameters.find(|(name, _)| name.trim().eq_ignore_ascii_case(&self.parameter))?;
        Some(version.trim().trim_matches('"'))
    }
}

/// Compares two parts of media types, in which `*` and `*+json` are wildcards, as Spring does.
fn is_compatible(a: &str, b: &str) -> bool {
    let b = b.to_ascii_lowercase();
    let suffix = |text: &str| text.rsplit_once('+').map(|(_, suffix)| suffix.to_owned());
    let is_of_suffix = |pattern: &str, other: &str| pattern.starts_with("*+") && suffix(pattern) == suffix(other);
    a == "*" || b == "*" || a == b || is_of_suffix(a, &b) || is_of_suffix(&b, a)
}

impl<P: Policy<Parts>> Policy<Parts> for ByVersion<P> {
    fn pick(&self, request: &Parts, candidates: &Candidates<'_>) -> Option<usize> {
        self.inner.pick(request, candidates)
    }

    fn affinity(&self, request: &Parts, all: &Candidates<'_>) -> Option<usize> {
        self.inner.affinity(request, all)
    }

    fn label<'r>(&'r self, request: &'r Parts) -> Option<Label<'r>> {
        let version = &self.version;
        let falls_back = version.falls_back == Some(true);
        let with = |value, required| Label { key: API_VERSION, value, required };
        if let Some(requested) = version.requested(request) {
            return Some(with(requested, !falls_back));
        }
        if let Some(default) = &version.default {
            return self.inner.label(request).or(Some(with(default, !falls_back)));
        }
        // No instance has an empty version, so that the call fails.
        if version.required == Some(true) || !falls_back { Some(with("", true)) } else { self.inner.label(request) }
    }
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;
    use crate::balance::PeakEwma;

    fn request(uri: &str, headers: &[(&str, &str)]) -> Parts {
        let request = headers.iter().fold(Request::get(uri), |request, (name, value)| request.header(*name, *value));
        request.body(()).unwrap().into_parts().0
    }

    #[test]
    fn version_is_taken_from_header_query_and_path_in_this_order() {
        let version = ApiVersion {
            header: Some(HeaderName::from_static("x-version")),
            query_parameter: Some("v".into()),
            path_segment: Some(1),
            ..ApiVersion::default()
        };
        for (uri, header, expected) in [
            ("http://orders/api/3/x?v=2", Some("1"), Some("1")),
            ("http://orders/api/3/x?a=b&v=2", None, Some("2")),
            ("http://orders/api/3/x?vv=2", None, Some("3")),
            ("http://orders/api", None, None),
            ("http://orders/api/3", Some(""), None),
        ] {
            let headers: Vec<_> = header.map(|header| ("x-version", header)).into_iter().collect();
            assert_eq!(version.requested(&request(uri, &headers)), expected, "{uri} {header:?}");
        }
    }

    #[test]
    fn version_is_taken_from_the_parameter_of_a_compatible_media_type() {
        let version = |types: &[&str]| ApiVersion {
            media_types: Some(types.iter().map(|name| MediaType::new(name, "Version").unwrap()).collect()),
            ..ApiVersion::default()
        };
        for (types, headers, expected) in [
            (&["application/json"][..], &[("accept", "text/html, application/JSON; q=1; version=2")][..], Some("2")),
            (&["application/json"], &[("content-type", "application/json;version=\"3\"")], Some("3")),
            (
                &["application/json"],
                &[("content-type", "application/json;version=3"), ("accept", "*/*;version=4")],
                Some("4"),
            ),
            (&["application/*+json"], &[("accept", "application/vnd.orders+json;version=5")], Some("5")),
            (&["application/xml", "text/plain"], &[("accept", "text/plain;version=6")], Some("6")),
            (&["application/json"], &[("accept", "application/xml;version=7")], None),
            (&["application/json"], &[("accept", "application/json;v=7")], None),
            (&["application/json"], &[], None),
        ] {
            assert_eq!(
                version(types).requested(&request("http://orders/", headers)),
                expected,
                "{types:?} {headers:?}"
            );
        }
        for name in ["json", "a/b/c", "/json", "application/json;q=1", ""] {
            assert_eq!(MediaType::new(name, "version"), None, "{name}");
        }
    }

    #[test]
    fn request_without_a_version_fails_unless_instances_without_one_may_take_it() {
        let label = |version: ApiVersion, headers: &[(&str, &str)]| {
            let version = ApiVersion { header: Some(HeaderName::from_static("x-version")), ..version };
            let (policy, request) = (version.policy(PeakEwma), request("http://orders/", headers));
            policy.label(&request).map(|label| (label.value.to_owned(), label.required))
        };
        let fallback = || ApiVersion { falls_back: Some(true), ..ApiVersion::default() };
        let required = || ApiVersion { required: Some(true), ..fallback() };
        let default = || ApiVersion { default: Some("1".into()), ..ApiVersion::default() };
        for (version, without, with) in [
            (ApiVersion::default(), Some(("", true)), ("2", true)),
            (fallback(), None, ("2", false)),
            (required(), Some(("", true)), ("2", false)),
            (default(), Some(("1", true)), ("2", true)),
        ] {
            let expected = |label: (&str, bool)| (label.0.to_owned(), label.1);
            assert_eq!(label(version.clone(), &[]), without.map(expected), "{version:?}");
            assert_eq!(label(version, &[("x-version", "2")]), Some(expected(with)));
        }
    }
}
