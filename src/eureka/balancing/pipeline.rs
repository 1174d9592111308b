//! Pipelines of Spring's load balancer: the parts that `configurations` lists.

use std::sync::LazyLock;
use std::time::Duration;

use http::request::Parts;

use super::api_version::ApiVersion;
use crate::balance::{HashKey, INSTANCE_COOKIE, RendezvousHash, Sticky, Subset, ZoneAware};
use crate::client::CallOptions;
use crate::config::Value;

/// Interval of Spring's health checks.
const HEALTH_CHECK_INTERVAL: Duration = Duration::from_secs(25);
/// Size of Spring's subsets.
const SUBSET_SIZE: usize = 100;
/// Key by which this process prefers an instance, so that processes prefer different ones.
static OWN_KEY: LazyLock<HashKey> = LazyLock::new(|| HashKey::from(fastrand::u64(..)));

const ZONE_PREFERENCE: &str = "zone-preference";
const API_VERSION: &str = "api-version";

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

/// Returns the parts of the pipeline. Logs those that are unknown.
pub(super) fn configurations(value: &Value) -> Vec<String> {
    const KNOWN: [&str; 8] = [
        "default",
        "health-check",
        ZONE_PREFERENCE,
        "request-based-sticky-session",
        "same-instance-preference",
        "subset",
        "weighted",
        API_VERSION,
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
            api_version: match (own.api_version, all.api_version) {
                (Some(own), Some(all)) => Some(own.over(all)),
                (own, all) => own.or(all),
            },
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
            "same-instance-preference" => {
                let same = RendezvousHash::by(|_: &Parts| Some(*OWN_KEY)).load_factor(f64::INFINITY);
                options.wrap_policy(|policy| same.policy(policy))
            }
            "subset" => {
                let subset = Subset::rendezvous(self.subset_size.unwrap_or(SUBSET_SIZE));
                options.subset(match &self.subset_id {
                    Some(id) => subset.seed(HashKey::from(&**id).to_u64()),
                    None => subset,
                })
            }
            API_VERSION => match self.api_version.clone() {
                Some(version) => options.wrap_policy(|policy| version.policy(policy)),
                None => options,
            },
            _ => options,
        }
    }

    /// Returns `true` if requests need a version, although there is one for those without.
    pub(super) fn has_version_conflict(&self) -> bool {
        self.api_version.as_ref().is_some_and(|version| version.required == Some(true) && version.default.is_some())
    }

    /// Returns `true` if instances are chosen by a version that no request has.
    pub(super) fn lacks_version(&self) -> bool {
        self.api_version.is_none() && self.has(API_VERSION)
    }

    /// Returns `true` if calls prefer a zone that is not set.
    pub(super) fn lacks_zone(&self) -> bool {
        self.zone.is_none() && self.has(ZONE_PREFERENCE)
    }

    fn has(&self, wanted: &str) -> bool {
        self.configurations.iter().flatten().any(|part| part == wanted)
    }
}
