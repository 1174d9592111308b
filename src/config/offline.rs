//! Settings of a client for times in which the registry is away, incomplete or empty.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::{ClientConfig, ServiceUrl};
use crate::error::{Error, Kind};
use crate::model::Application;
use crate::time::LONGEST_WAIT;

/// Minimum time for which a missing instance is held. It is three default heartbeat intervals, in
/// which every provider has registered again after a restart of the registry.
const MIN_HOLD: Duration = Duration::from_secs(90);
/// Minimum time for which a list without any instance is not believed. A registry that lost its
/// content has it again after one heartbeat interval, so this leaves time to repair the way between
/// the registry and its providers.
const MIN_EMPTY_HOLD: Duration = Duration::from_secs(15 * 60);
/// Number of lists without any instance in a row that confirm it.
const EMPTY_LISTS: u32 = 3;
/// Age at which the registry file is refused.
const FILE_MAX_AGE: Duration = Duration::from_secs(24 * 3600);

/// Settings for the time without a usable registry.
#[derive(Clone, Debug)]
pub(crate) struct OfflineConfig {
    pub(crate) file: Option<PathBuf>,
    pub(crate) file_max_age: Duration,
    /// Instances of applications that the registry does not have.
    pub(crate) instances: Vec<Arc<Application>>,
    pub(crate) disappearance: Disappearance,
    /// Time within which the start requires the registry.
    pub(crate) required_within: Option<Duration>,
}

impl Default for OfflineConfig {
    fn default() -> Self {
        Self {
            file: None,
            file_max_age: FILE_MAX_AGE,
            instances: Vec::new(),
            disappearance: Disappearance::default(),
            required_within: None,
        }
    }
}

impl OfflineConfig {
    pub(crate) fn check(&self) -> Result<(), Error> {
        let invalid = |cause: &str, advice| Err(Error::new(Kind::Config, "build client").cause(cause).advice(advice));
        if self.file.as_ref().is_some_and(|path| path.file_name().is_none()) {
            return invalid(
                "the path of the registry file has no file name",
                "pass a path like /var/cache/app/registry",
            );
        }
        if self.file_max_age.is_zero() {
            return invalid("the maximum age of the registry file is zero", "set it to a positive duration");
        }
        if self.required_within.is_some_and(|timeout| timeout.is_zero()) {
            return invalid("the time to wait for the required registry is zero", "set it to a positive duration");
        }
        let share = self.disappearance.plausible_share;
        if !(0.0..=1.0).contains(&share) {
            return invalid("the plausible share of a disappearance is not a share", "set it to a number from 0 to 1");
        }
        Ok(())
    }
}

/// Names that identify the registry of a client: its region and its servers, without credentials.
/// Servers that are looked up count as one name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RegistryIdentity {
    pub(crate) region: String,
    pub(crate) servers: Vec<String>,
}

impl RegistryIdentity {
    pub(crate) fn of(config: &ClientConfig) -> Self {
        let servers = &config.servers;
        let names = if servers.uses_dns {
            vec![format!("dns:{}", servers.dns.domain.trim_matches('.').to_ascii_lowercase())]
        } else if servers.source.is_some() {
            vec!["server_source".to_owned()]
        } else {
            config.service_urls.iter().map(ServiceUrl::as_str).map(ToString::to_string).collect()
        };
        Self { region: servers.zones.region.clone(), servers: names }
    }

    /// Returns `true` if both have the same region and at least one server in common. Servers of a
    /// cluster are added and replaced.
    pub(crate) fn is_same_registry(&self, other: &Self) -> bool {
        self.region.eq_ignore_ascii_case(&other.region)
            && self.servers.iter().any(|server| other.servers.contains(server))
    }
}

/// Rule for instances that disappear from the registry's list, set by
/// [`EurekaBuilder::disappearance`](crate::EurekaBuilder::disappearance).
///
/// A registry that restarts sends a valid empty list until its providers have registered again. One
/// that is cut off from its providers evicts most of them. Therefore not every list is believed: if
/// implausibly many instances are missing from it, they are *held*, which means that they stay in
/// use. A cancellation or eviction that arrives in a delta is always believed, and so is an
/// instance that the list has in another status.
///
/// A held instance is removed once it was missing for the [hold](Self::hold), earlier if the
/// [responses](Self::confirmed_by_responses) or the [servers](Self::confirmed_by_servers) that this
/// rule requires confirm it. Only time in which the registry responds counts, so an outage removes
/// no instance. A list without any instance has a rule of its own, the
/// [`empty_hold`](Self::empty_hold).
///
/// ```
/// use std::time::Duration;
/// use tower_eureka::cache::Disappearance;
///
/// let rule = Disappearance::new().plausible_share(0.8).hold(Duration::from_secs(300)).confirmed_by_servers(2);
/// let eureka = tower_eureka::Eureka::builder().service_url("http://a/,http://b/").disappearance(rule).build()?;
/// # Ok::<_, tower_eureka::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
#[must_use]
pub struct Disappearance {
    pub(crate) plausible_share: f64,
    pub(crate) whole_applications: bool,
    pub(crate) hold: Option<Duration>,
    pub(crate) empty_hold: Option<Duration>,
    pub(crate) responses: Option<u32>,
    pub(crate) servers: Option<u32>,
}

impl Default for Disappearance {
    fn default() -> Self {
        Self::new()
    }
}

impl Disappearance {
    /// Creates the default rule: if more than half of all instances or a whole application are
    /// missing, they are held for their lease, at least 90 seconds. After an empty list all are
    /// held for their lease, at least 15 minutes.
    pub fn new() -> Self {
        Self {
            plausible_share: 0.5,
            whole_applications: true,
            hold: None,
            empty_hold: None,
            responses: None,
            servers: None,
        }
    }

    /// Creates a rule that believes every list at once, as a Java client does, an empty one as
    /// well. No instance is held, so a registry that has just restarted leaves no instance to call.
    pub fn believed() -> Self {
        Self { plausible_share: 0.0, whole_applications: false, empty_hold: Some(Duration::ZERO), ..Self::new() }
    }

    /// Sets the share of the instances that a list must still have, counting new ones, so that the
    /// others are believed to be gone. Defaults to 0.5.
    ///
    /// With 0 every list that is not empty is plausible, apart from applications that disappear as
    /// a [whole](Self::hold_whole_applications). With 1 every list is implausible that has fewer
    /// instances than before.
    pub fn plausible_share(mut self, share: f64) -> Self {
        self.plausible_share = share;
        self
    }

    /// Sets whether the instances of an application are held if none of them is listed any more.
    /// Defaults to `true`. With `false`, only the [share](Self::plausible_share) of all instances
    /// and an empty list count.
    pub fn hold_whole_applications(mut self, hold: bool) -> Self {
        self.whole_applications = hold;
        self
    }

    /// Sets the time for which a held instance stays in use. Defaults to the lease of the instance,
    /// at least 90 seconds.
    ///
    /// It counts while the registry responds with a list that is not empty.
    pub fn hold(mut self, time: Duration) -> Self {
        self.hold = Some(time.min(LONGEST_WAIT));
        self
    }

    /// Sets the time after which a list without any instance is believed. Defaults to the lease of
    /// each instance, at least 15 minutes.
    ///
    /// It counts while the registry responds. At least three empty lists in a row, and as many as
    /// there are registry servers, have to confirm it. The servers are asked in turn. A list whose
    /// instances cannot be read is not empty. Zero believes an empty list at once, and
    /// `Duration::MAX` never.
    pub fn empty_hold(mut self, time: Duration) -> Self {
        self.empty_hold = Some(time.min(LONGEST_WAIT));
        self
    }

    /// Removes a held instance before its [hold](Self::hold) ends, after this number of responses
    /// in a row that lack it. Defaults to no such number: only the hold counts.
    ///
    /// The first such response counts, so 1 believes every list that is not empty.
    pub fn confirmed_by_responses(mut self, responses: u32) -> Self {
        self.responses = Some(responses);
        self
    }

    /// Removes a held instance before its [hold](Self::hold) ends, after responses that lack it
    /// from this number of different registry servers. Defaults to no such number: only the hold
    /// counts.
    ///
    /// A client changes its server about every 20 minutes, and when its server fails.
    pub fn confirmed_by_servers(mut self, servers: u32) -> Self {
        self.servers = Some(servers);
        self
    }

    /// Returns the time for which an instance with this lease duration is held.
    pub(crate) fn hold_of(&self, lease: Duration) -> Duration {
        self.hold.unwrap_or_else(|| lease.max(MIN_HOLD))
    }

    /// Returns `true` if this number of lists in a row without any instance, over this time, from
    /// this number of servers in turn, is believed for an instance with this lease duration.
    pub(crate) fn is_empty_believed(&self, lists: u32, servers: u32, elapsed: Duration, lease: Duration) -> bool {
        let hold = self.empty_hold.unwrap_or_else(|| lease.max(MIN_EMPTY_HOLD));
        elapsed >= hold && (lists >= servers.max(EMPTY_LISTS) || hold.is_zero())
    }

    /// Returns `true` if a list of this length is implausible after one with `before` instances.
    pub(crate) fn is_implausible(&self, listed: usize, before: usize) -> bool {
        (listed as f64) < before as f64 * self.plausible_share || listed == 0 && before > 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity(region: &str, servers: &[&str]) -> RegistryIdentity {
        RegistryIdentity { region: region.into(), servers: servers.iter().map(ToString::to_string).collect() }
    }

    #[test]
    fn registries_with_a_common_server_in_one_region_are_the_same() {
        let known = identity("eu", &["http://a/", "http://b/"]);
        assert!(known.is_same_registry(&identity("EU", &["http://c/", "http://b/"])));
        assert!(!known.is_same_registry(&identity("eu", &["http://c/"])));
        assert!(!known.is_same_registry(&identity("us", &["http://a/", "http://b/"])));
        assert!(!known.is_same_registry(&identity("eu", &[])));
    }

    #[test]
    fn list_is_implausible_below_the_share_and_when_empty() {
        let rule = Disappearance::new();
        let verdicts = [(2, 4), (1, 4), (0, 0), (0, 1), (9, 4)].map(|(now, before)| rule.is_implausible(now, before));
        assert_eq!(verdicts, [false, true, false, true, false]);
        assert!(!Disappearance::believed().is_implausible(1, 100));
        assert!(Disappearance::new().plausible_share(1.0).is_implausible(99, 100));
    }
}
