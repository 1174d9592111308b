use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::Selection;
use crate::cache::{Lookup, Registry};
use crate::error::Error;
use crate::model::{Instance, InstanceStatus, Port, StatusCounts};
use crate::shown::Shown;

/// How many names an explanation tells before it only counts.
const SHOWN: usize = 10;

/// Why a selection has no instance to call: what the registry knows, how old that is, and what speaks against each instance.
///
/// It is a picture of one moment, made when a call finds nobody. Whoever has reasons of its own, such as a balancer that ejected an
/// instance, adds them with [`exclude`](Self::exclude). Displayed, it is a clause for an error message:
///
/// ```text
/// none of its 2 instances can be called: 10.0.0.1:orders:80 DOWN, 10.0.0.2:orders:80 ejected for 12 s
/// ```
#[derive(Clone, Debug)]
pub struct Explanation {
    lookup: Lookup,
    age: Option<Duration>,
    error: Option<Arc<Error>>,
    candidates: Vec<Candidate>,
    /// The first few of the registry, and how many there are: only for an unknown name.
    applications: Vec<Arc<str>>,
    application_count: usize,
    /// Whether there is an application of that name, where something else was looked up.
    is_application: bool,
}

/// The outcome of an [`Explanation`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Finding {
    /// The registry was never fetched, so nothing is known.
    NotLoaded,
    /// The registry has no instance under that name, whatever its status.
    UnknownName,
    /// There are instances, and something speaks against each.
    NoneCallable,
    /// Nothing speaks against an instance: whoever asks has not caught up with the registry yet.
    Callable,
}

/// One instance under the name, and what speaks against calling it.
#[derive(Clone, Debug)]
pub struct Candidate {
    instance: Arc<Instance>,
    reason: Option<Reason>,
}

/// What speaks against calling an instance.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Reason {
    /// It has this status, which is not wanted.
    Status(InstanceStatus),
    /// The selection's filter said no.
    Filtered,
    /// It has no host, or neither port can be connected to. A [`Candidate`] displays which.
    NoPort,
    /// Something else, in words that follow the instance's id: `ejected for 12 s`.
    Other(Cow<'static, str>),
}

impl Explanation {
    pub(super) fn of(selection: &Selection, registry: &Registry) -> Self {
        let snapshot = registry.snapshot();
        let freshness = registry.freshness();
        let candidate = |instance: &Arc<Instance>| Candidate {
            reason: selection.refuses(instance).or_else(|| (!reachable(instance)).then_some(Reason::NoPort)),
            instance: instance.clone(),
        };
        let sources = snapshot.sources(selection.lookup());
        let candidates: Vec<_> = selection.members(&sources).into_iter().map(candidate).collect();
        let (applications, application_count) = match candidates[..] {
            [] => {
                let names = snapshot.applications().map(|application| application.name.clone());
                (names.take(SHOWN).collect(), snapshot.applications().count())
            }
            _ => (Vec::new(), 0),
        };
        Self {
            lookup: selection.lookup().clone(),
            age: freshness.at.map(|at| at.elapsed()),
            error: freshness.error,
            candidates,
            applications,
            application_count,
            is_application: snapshot.application(selection.looked_up()).is_some(),
        }
    }

    /// The name looked up, upper case.
    pub fn name(&self) -> &str {
        self.lookup.name()
    }

    /// What it comes down to.
    pub fn finding(&self) -> Finding {
        if self.age.is_none() {
            Finding::NotLoaded
        } else if self.candidates.is_empty() {
            Finding::UnknownName
        } else if self.candidates.iter().all(|candidate| candidate.reason.is_some()) {
            Finding::NoneCallable
        } else {
            Finding::Callable
        }
    }

    /// The time since the registry was last fetched; `None` if it never was.
    pub fn age(&self) -> Option<Duration> {
        self.age
    }

    /// Whether the registry cannot be fetched at present, so that what is told is as old as [`age`](Self::age).
    pub fn is_stale(&self) -> bool {
        self.error.is_some()
    }

    /// Why the last refresh failed, if it did.
    pub fn refresh_error(&self) -> Option<&Error> {
        self.error.as_deref()
    }

    /// How many instances of each status there are under the name.
    pub fn counts(&self) -> StatusCounts {
        self.candidates.iter().map(|candidate| candidate.instance.status()).collect()
    }

    /// All instances under the name, in the registry's order.
    pub fn candidates(&self) -> &[Candidate] {
        &self.candidates
    }

    /// Adds what else speaks against instances. Asked for each against which nothing spoke so far.
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
            0 => f.write_str("; it is empty"),
            count => {
                f.write_str("; it has ")?;
                list(f, self.applications.iter().map(|name| Shown(name)), count)
            }
        }
    }
}

/// Whether any protocol could connect to it. Where both ports are marked disabled, the plain one is called.
fn reachable(instance: &Instance) -> bool {
    let is_usable = |port: Port| port.usable().is_some();
    let has_port =
        is_usable(instance.port()) || is_usable(instance.secure_port()) || instance.disabled_plain_port().is_some();
    instance.host().is_some() && has_port
}

/// The reason for which no protocol could connect to it.
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

/// The first few of `total` items.
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
                f.write_str("its instances are only just known: ")?;
                list(f, &self.candidates, total)?;
            }
        }
        match (&self.error, self.age) {
            (Some(error), Some(age)) => write!(f, " (as of {} s ago; since then: {error})", age.as_secs()),
            _ => Ok(()),
        }
    }
}

impl Candidate {
    /// The instance.
    pub fn instance(&self) -> &Arc<Instance> {
        &self.instance
    }

    /// What speaks against it; `None` if nothing does.
    pub fn reason(&self) -> Option<&Reason> {
        self.reason.as_ref()
    }
}

impl fmt::Display for Candidate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let id = Shown(self.instance.id());
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
            Self::Other(words) => f.write_str(words),
        }
    }
}

impl From<&'static str> for Reason {
    fn from(words: &'static str) -> Self {
        Self::Other(words.into())
    }
}

impl From<String> for Reason {
    fn from(words: String) -> Self {
        Self::Other(words.into())
    }
}

/// Explains a selection whenever it is asked. Made by [`EurekaDiscover::explain_later`](super::EurekaDiscover::explain_later).
///
/// Cheap to clone. Keeps the registry refreshed, as the stream itself does.
#[derive(Clone)]
pub struct Explainer {
    pub(super) selection: Selection,
    pub(super) registry: Arc<Registry>,
}

impl Explainer {
    /// Why the selection has no instance to call, now. Costs as much as there are instances under the name.
    pub fn explain(&self) -> Explanation {
        Explanation::of(&self.selection, &self.registry)
    }
}

impl fmt::Debug for Explainer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Explainer").field("selection", &self.selection).finish_non_exhaustive()
    }
}
