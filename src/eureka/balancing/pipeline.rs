//! Pipelines of Spring's load balancer: the parts that `configurations` lists.

use std::sync::Arc;
use std::time::Duration;

use http::HeaderName;
use http::request::Parts;

use crate::balance::{ByLabel, HashKey, INSTANCE_COOKIE, Sticky, Subset, ZoneAware};
use crate::client::CallOptions;
use crate::config::Value;

/// Interval of Spring's health checks.
const HEALTH_CHECK_INTERVAL: Duration = Duration::from_secs(25);
/// Size of Spring's subsets.
const SUBSET_SIZE: usize = 100;
/// Key of the metadata with the version of an API in Spring.
const API_VERSION: &str = "API_VERSION";

const ZONE_PREFERENCE: &str = "zone-preference";

/// Parts of the pipeline, and their settings. `None` is the default.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Pipeline {
    pub(super) configurations: Option<Vec<String>>,
    pub(super) zone: Option<String>,
    pub(super) health_check_interval: Option<Duration>,
    pub(super) cookie: Option<String>,
    pub(super) subset_size: Option<usize>,
    /// Id by which the subset is chosen.
    pub(super) subset_id: Option<String>,
    pub(super) api_version: Option<ApiVersion>,
}

/// Places in which a request has the version of the API that it asks for.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct ApiVersion {
    pub(super) header: Option<HeaderName>,
    pub(super) query_parameter: Option<String>,
    /// Position of the part of the path, from 0.
    pub(super) path_segment: Option<usize>,
    pub(super) default: Option<Arc<str>>,
    /// True if other instances take calls for which none has the version.
    pub(super) falls_back: bool,
}

/// Returns the parts of the pipeline. Logs those that are unknown.
pub(super) fn configurations(value: &Value) -> Vec<String> {
    const KNOWN: [&str; 7] = [
        "default",
        "health-check",
        ZONE_PREFERENCE,
        "request-based-sticky-session",
        "subset",
        "weighted",
        "api-version",
    ];
    let configurations: Vec<String> = value.list().into_iter().map(str::to_owned).collect();
    if let Some(unknown) = configurations.iter().find(|name| !KNOWN.contains(&&***name)) {
        tracing::warn!(
            "setting without effect: {}: {unknown} is not supported: set CallOptions in code",
            value.place()
        );
    }
    configurations
}

impl Pipeline {
    /// Returns these settings, and those of all applications where there is none.
    pub(super) fn over(&self, all: &Self) -> Self {
        let all = all.clone();
        let own = self.clone();
        Self {
            configurations: own.configurations.or(all.configurations),
            zone: own.zone.or(all.zone),
            health_check_interval: own.health_check_interval.or(all.health_check_interval),
            cookie: own.cookie.or(all.cookie),
            subset_size: own.subset_size.or(all.subset_size),
            subset_id: own.subset_id.or(all.subset_id),
            api_version: own.api_version.or(all.api_version),
        }
    }

    /// Sets the options of these parts, unless no setting differs from those of all applications.
    pub(super) fn apply(&self, all: &Self, options: CallOptions) -> CallOptions {
        let merged = self.over(all);
        let Some(configurations) = merged.configurations.as_ref().filter(|_| *self != Self::default()) else {
            return options;
        };
        // Parts that only the other applications have.
        let options = if self.configurations.is_some() { options.without_pipeline() } else { options };
        configurations.iter().fold(options, |options, part| merged.add(part, options))
    }

    fn add(&self, part: &str, options: CallOptions) -> CallOptions {
        match part {
            "health-check" => options.health_check(self.health_check_interval.unwrap_or(HEALTH_CHECK_INTERVAL)),
            // Without a zone, that of this process.
            ZONE_PREFERENCE => options.zone_aware(ZoneAware::new(self.zone.as_deref().unwrap_or_default())),
            "request-based-sticky-session" => {
                let sticky = Sticky::by_cookie(self.cookie.as_deref().unwrap_or(INSTANCE_COOKIE));
                options.wrap_policy(|policy| sticky.policy(policy))
            }
            "subset" => {
                let subset = Subset::rendezvous(self.subset_size.unwrap_or(SUBSET_SIZE));
                options.subset(match &self.subset_id {
                    Some(id) => subset.seed(HashKey::from(&**id).to_u64()),
                    None => subset,
                })
            }
            "api-version" => match &self.api_version {
                Some(version) => version.add_to(options),
                None => options,
            },
            _ => options,
        }
    }

    /// Returns `true` if calls prefer a zone that is not set.
    pub(super) fn lacks_zone(&self) -> bool {
        let parts = self.configurations.iter().flatten();
        self.zone.is_none() && parts.into_iter().any(|part| part == ZONE_PREFERENCE)
    }
}

impl ApiVersion {
    /// Chooses instances by their version, and then by the policy.
    fn add_to(&self, options: CallOptions) -> CallOptions {
        let version = self.clone();
        let mut policy = ByLabel::by(API_VERSION, move |request: &Parts| version.requested(request));
        if let Some(default) = &self.default {
            policy = policy.default_value(default.clone());
        }
        if !self.falls_back {
            policy = policy.required();
        }
        options.wrap_policy(|inner| policy.policy(inner))
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
        let version = in_header().or_else(in_query).or_else(in_path)?.trim();
        Some(version).filter(|version| !version.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

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
            let mut request = Request::get(uri);
            if let Some(header) = header {
                request = request.header("x-version", header);
            }
            let (parts, ()) = request.body(()).unwrap().into_parts();
            assert_eq!(version.requested(&parts), expected, "{uri} {header:?}");
        }
    }
}
