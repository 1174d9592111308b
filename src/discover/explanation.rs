use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::Selection;
use crate::cache::{Lookup, RegistryCache, RegistrySource};
use crate::error::Error;
use crate::model::{Instance, InstanceStatus, Port, StatusCounts};
use crate::untrusted::Quoted;

/// Maximum number of names in a message. Further ones are only counted.
const SHOWN: usize = 10;

/// Report on why a selection has no instance to call.
///
/// It holds the instances under the name, the reason why each of them cannot be called, and the age
/// of the data, all at one moment. Add reasons that the registry does not know, such as an ejection
/// by a balancer, with [`exclude`](Self::exclude). Its `Display` is a clause for an error message:
///
/// ```text
/// none of its 2 instances can be called: 10.0.0.1:orders:80 DOWN, 10.0.0.2:orders:80 ejected for 12 s
/// ```
#[derive(Clone, Debug)]
pub struct Explanation {
    name: Arc<str>,
    /// First look-up of the selection.
    lookup: Lookup,
    age: Option<Duration>,
    error: Option<Arc<Error>>,
    source: RegistrySource,
    candidates: Vec<Candidate>,
    /// First few application names in the registry. Filled for an unknown name only, as is the
    /// count.
    applications: Vec<Arc<str>>,
    application_count: usize,
    /// True if an application has the name, whatever kind of name was looked up.
    is_application: bool,
    /// True if only a part of the registry is fetched.
    is_partial: bool,
}

/// Conclusion of an [`Explanation`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Finding {
    /// The registry was never fetched.
    NotLoaded,
    /// The registry has no instance under the name, in any status.
    UnknownName,
    /// There are instances, but none of them can be called.
    NoneCallable,
    /// At least one instance can be called. A balancer that found none has not yet received it.
    Callable,
}

/// One instance under the name, with the reason why it cannot be called, if there is one.
#[derive(Clone, Debug)]
pub struct Candidate {
    instance: Arc<Instance>,
    reason: Option<Reason>,
}

/// Reason why an instance cannot be called.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Reason {
    /// The selection does not accept this status.
    Status(InstanceStatus),
    /// A filter of the selection rejected the instance.
    Filtered,
    /// The instance has no host or no usable port. The `Display` of [`Candidate`] says which.
    NoPort,
    /// Another reason, as a text that follows the id of the instance: `ejected for 12 s`.
    Other(Cow<'static, str>),
}

impl Explanation {
    pub(crate) fn of(selection: &Selection, registry: &RegistryCache) -> Self {
        let snapshot = registry.snapshot();
        let (fetched, error) = registry.freshness_of(selection.lookups());
        let candidate = |instance: &Arc<Instance>| Candidate {
            reason: selection.rejection(instance).or_else(|| (!reachable(instance)).then_some(Reason::NoPort)),
            instance: instance.clone(),
        };
        let sources = selection.sources(&snapshot);
        let candidates: Vec<_> = selection.named(&sources).into_iter().map(candidate).collect();
        let (applications, application_count) = match candidates[..] {
            [] => {
                let names = snapshot.applications().map(|application| application.name.clone());
                (names.take(SHOWN).collect(), snapshot.applications().count())
            }
            _ => (Vec::new(), 0),
        };
        Self {
            name: selection.looked_up().into(),
            lookup: selection.lookups()[0].clone(),
            age: fetched.map(|at| at.elapsed()),
            error,
            source: registry.progress().source,
            candidates,
            applications,
            application_count,
            is_partial: snapshot.is_partial(),
            is_application: snapshot.application(selection.looked_up()).is_some(),
        }
    }

    /// Returns the name that was looked up, in upper case.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns the conclusion.
    pub fn finding(&self) -> Finding {
        // Instances may come from the registry file.
        if self.age.is_none() && self.candidates.is_empty() {
            Finding::NotLoaded
        } else if self.candidates.is_empty() {
            Finding::UnknownName
        } else if self.candidates.iter().all(|candidate| candidate.reason.is_some()) {
            Finding::NoneCallable
        } else {
            Finding::Callable
        }
    }

    /// Returns the time since the last successful fetch of the registry, at the moment of the
    /// report. `None` if there was none.
    pub fn age(&self) -> Option<Duration> {
        self.age
    }

    /// Returns `true` if the last refresh failed, or the data comes from the registry file. The
    /// data is then as old as [`age`](Self::age), or was never fetched.
    pub fn is_stale(&self) -> bool {
        self.error.is_some() || self.source == RegistrySource::File
    }

    /// Returns the error of the last refresh, if it failed.
    pub fn refresh_error(&self) -> Option<&Error> {
        self.error.as_deref()
    }

    /// Returns the number of instances under the name in each status.
    pub fn counts(&self) -> StatusCounts {
        self.candidates.iter().map(|candidate| candidate.instance.status()).collect()
    }

    /// Returns all instances under the name, in the order of the registry.
    pub fn candidates(&self) -> &[Candidate] {
        &self.candidates
    }

    /// Adds reasons that the registry does not know. `reason` is called for each instance that has
    /// none so far, and returns `None` if the instance can be called.
    #[must_use]
    pub fn exclude<R: Into<Reason>>(mut self, mut reason: impl FnMut(&Instance) -> Option<R>) -> Self {
        for candidate in self.candidates.iter_mut().filter(|candidate| candidate.reason.is_none()) {
            candidate.reason = reason(&candidate.instance).map(Into::into);
        }
        self
    }

    fn unknown_name(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.lookup {
            Lookup::App(_) => "the registry has no application of that name",
            Lookup::Vip(_) => "the registry has no instance with that VIP address",
            Lookup::SecureVip(_) => "the registry has no instance with that secure VIP address",
            Lookup::Name(_) => "the registry has no VIP address or application of that name",
        })?;
        if self.is_application {
            return f.write_str(", though there is an application of that name");
        }
        match self.application_count {
            _ if self.is_partial => Ok(()),
            0 => f.write_str("; it is empty"),
            count => {
                f.write_str("; it has ")?;
                list(f, self.applications.iter().map(|name| Quoted(name)), count)
            }
        }
    }
}

/// Returns `true` if the instance has a host and a usable port. If both ports are marked as
/// disabled, calls go to the plain one.
fn reachable(instance: &Instance) -> bool {
    let is_usable = |port: Port| port.usable().is_some();
    let has_port =
        is_usable(instance.port()) || is_usable(instance.secure_port()) || instance.disabled_plain_port().is_some();
    instance.host().is_some() && has_port
}

/// Describes the missing host or the unusable ports of an instance.
fn unreachable(instance: &Instance) -> String {
    let port = |name: &str, port: Port| match port {
        Port { enabled: false, .. } => format!("its {name} port is disabled"),
        Port { number, .. } => format!("its {name} port is {number}"),
    };
    match (instance.host(), instance.port(), instance.secure_port()) {
        (None, ..) => "without a host".into(),
        (_, Port { enabled: false, number: 0 }, Port { enabled: false, .. }) => "both its ports are disabled".into(),
        (_, plain, secure) => format!("{}, {}", port("plain", plain), port("secure", secure)),
    }
}

/// Writes the first few of `total` items and the number of the others.
fn list<T: fmt::Display>(f: &mut fmt::Formatter<'_>, items: impl IntoIterator<Item = T>, total: usize) -> fmt::Result {
    for (at, item) in items.into_iter().take(SHOWN).enumerate() {
        write!(f, "{}{item}", if at == 0 { "" } else { ", " })?;
    }
    match total.saturating_sub(SHOWN) {
        0 => Ok(()),
        more => write!(f, " and {more} more"),
    }
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let total = self.candidates.len();
        match (self.finding(), &self.error) {
            (Finding::NotLoaded, None) => return f.write_str("the registry has not been fetched yet"),
            (Finding::NotLoaded, Some(error)) => return write!(f, "the registry was never fetched: {error}"),
            (Finding::UnknownName, _) => self.unknown_name(f)?,
            (Finding::NoneCallable, _) => {
                match total {
                    1 => f.write_str("its only instance cannot be called: ")?,
                    _ => write!(f, "none of its {total} instances can be called: ")?,
                }
                list(f, &self.candidates, total)?;
            }
            (Finding::Callable, _) => {
                f.write_str("its instances were only just discovered: ")?;
                list(f, &self.candidates, total)?;
            }
        }
        match (&self.error, self.age) {
            (Some(error), Some(age)) => write!(f, " (as of {} s ago; since then: {error})", age.as_secs()),
            (None, Some(_)) => Ok(()),
            (error, None) => {
                f.write_str(match self.source {
                    RegistrySource::File => " (from the registry file; the registry was not fetched",
                    _ => " (static instances; the registry was not fetched",
                })?;
                error.as_ref().map_or(Ok(()), |error| write!(f, ": {error}"))?;
                f.write_str(")")
            }
        }
    }
}

impl Candidate {
    /// Returns the instance.
    pub fn instance(&self) -> &Arc<Instance> {
        &self.instance
    }

    /// Returns the reason why the instance cannot be called; `None` if it can.
    pub fn reason(&self) -> Option<&Reason> {
        self.reason.as_ref()
    }
}

impl fmt::Display for Candidate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let id = Quoted(self.instance.id());
        match &self.reason {
            Some(Reason::NoPort) => {
                write!(f, "{id} without a usable address ({})", unreachable(&self.instance))
            }
            Some(reason) => write!(f, "{id} {reason}"),
            None => write!(f, "{id} {}", self.instance.status()),
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Status(status) => status.fmt(f),
            Self::Filtered => f.write_str("filtered out"),
            Self::NoPort => f.write_str("without a usable address"),
            Self::Other(text) => f.write_str(text),
        }
    }
}

impl From<&'static str> for Reason {
    fn from(text: &'static str) -> Self {
        Self::Other(text.into())
    }
}

impl From<String> for Reason {
    fn from(text: String) -> Self {
        Self::Other(text.into())
    }
}

/// Handle that explains a selection at any time. Created by
/// [`EurekaDiscover::explainer`](super::EurekaDiscover::explainer).
///
/// Cheap to clone. It keeps the refresh loop running, as the stream does.
#[derive(Clone)]
pub struct Explainer {
    pub(super) selection: Selection,
    pub(super) registry: Arc<RegistryCache>,
}

impl Explainer {
    /// Explains why the selection has no instance to call at present. The cost grows with the
    /// number of instances under the name.
    pub fn explain(&self) -> Explanation {
        Explanation::of(&self.selection, &self.registry)
    }
}

impl fmt::Debug for Explainer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Explainer").field("selection", &self.selection).finish_non_exhaustive()
    }
}
