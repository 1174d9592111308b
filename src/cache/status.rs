use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::progress::{DeltaUse, InterestUse, Progress, RefreshCounts};
use super::publish::RegistryCache;
use super::snapshot::Snapshot;
use super::source::RegistrySource;
use crate::error::Error;
use crate::model::{InstanceStatus, StatusCounts, shown_address};
use crate::table::Table;
use crate::transport::RegistryServer;
use crate::untrusted::Quoted;

/// Status of a client's registry at one moment. Returned by
/// [`Eureka::status`](crate::Eureka::status).
///
/// Prints as a few lines and a table of the registry servers:
///
/// ```text
/// registry: fresh, 12 s old, from http://eureka1:8761/eureka/
/// 30 applications, 212 instances: DOWN 3, UP 209
/// refreshes: 41 succeeded, 1 failed; deltas in use, 1 mismatch; 1204312 bytes received
/// latest change arrived after 14.2 s
/// registry server               zone         state
/// http://eureka1:8761/eureka/   defaultZone  in use
/// http://eureka2:8761/eureka/   defaultZone  available
/// ```
#[derive(Clone, Debug)]
pub struct RegistryStatus {
    state: RegistryState,
    source: RegistrySource,
    age: Option<Duration>,
    error: Option<Arc<Error>>,
    failing_for: Option<Duration>,
    instances: Counted,
    held: usize,
    refreshes: RefreshCounts,
    deltas: DeltaUse,
    interest: Option<InterestUse>,
    lag: Option<Duration>,
    servers: Vec<RegistryServer>,
}

/// Instances, which are counted only when their number is asked for.
#[derive(Clone)]
struct Counted(Arc<Snapshot>);

impl fmt::Debug for Counted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.counts().fmt(f)
    }
}

/// State of a client's copy of the registry. Part of [`RegistryStatus`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum RegistryState {
    /// Nothing has used the registry yet, so it is not fetched.
    NotStarted,
    /// A setting switches fetches off. The [error](RegistryStatus::error) names it.
    Disabled,
    /// No fetch has succeeded yet.
    Loading,
    /// The latest refresh succeeded.
    Fresh,
    /// The latest refresh failed. The instances of the last successful one are in use.
    Stale,
    /// The runtime on which the refresh was started has ended. The next use of the registry starts
    /// it again.
    Stopped,
    /// The client was [closed](crate::Eureka::close).
    Closed,
}

impl RegistryState {
    fn of(registry: &RegistryCache, progress: &Progress) -> Self {
        match (progress.at, &progress.error) {
            _ if registry.is_closed() => Self::Closed,
            _ if registry.is_disabled() => Self::Disabled,
            _ if !registry.is_running() => Self::Stopped,
            (None, _) => Self::Loading,
            (Some(_), None) => Self::Fresh,
            (Some(_), Some(_)) => Self::Stale,
        }
    }

    /// Returns the state as a word: `fresh`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NotStarted => "not started",
            Self::Disabled => "disabled",
            Self::Loading => "loading",
            Self::Fresh => "fresh",
            Self::Stale => "stale",
            Self::Stopped => "stopped",
            Self::Closed => "closed",
        }
    }
}

impl fmt::Display for RegistryState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl RegistryStatus {
    /// Returns the status of a registry that may not be started yet.
    pub(crate) fn of(registry: Option<&RegistryCache>, servers: Vec<RegistryServer>) -> Self {
        let progress = registry.map_or_else(Progress::new, RegistryCache::progress);
        let snapshot = registry.map(RegistryCache::snapshot).unwrap_or_default();
        Self {
            state: registry.map_or(RegistryState::NotStarted, |registry| RegistryState::of(registry, &progress)),
            source: progress.source,
            age: progress.at.map(|at| at.elapsed()),
            error: progress.error,
            failing_for: progress.failing_since.map(|since| since.elapsed()),
            instances: Counted(snapshot),
            held: progress.held,
            refreshes: progress.counts,
            deltas: progress.deltas,
            interest: progress.interest,
            lag: progress.lag,
            servers,
        }
    }

    /// Returns the state.
    pub fn state(&self) -> RegistryState {
        self.state
    }

    /// Returns the origin of the instances: the registry, its file or static instances.
    pub fn source(&self) -> RegistrySource {
        self.source
    }

    /// Returns `true` once the registry was fetched.
    pub fn is_loaded(&self) -> bool {
        self.age.is_some()
    }

    /// Returns the time since the last successful refresh. `None` if there was none.
    pub fn age(&self) -> Option<Duration> {
        self.age
    }

    /// Returns the number of names that are fetched. `None` with
    /// [`Interest::All`](crate::Interest::All).
    pub fn names(&self) -> Option<usize> {
        self.interest.map(|interest| interest.names)
    }

    /// Returns `true` if the whole registry is fetched: always with
    /// [`Interest::All`](crate::Interest::All), and with [`Interest::Used`](crate::Interest::Used)
    /// while that is cheaper than the names in use.
    pub fn is_whole_fetched(&self) -> bool {
        self.interest.is_none_or(|interest| interest.is_whole_fetched)
    }

    /// Returns `true` if the instances may be out of date: the latest refresh failed, or they are
    /// those of the registry file. Static instances of a client that fetches nothing are not stale.
    pub fn is_stale(&self) -> bool {
        match self.state {
            RegistryState::Stale => true,
            RegistryState::Disabled => false,
            _ => self.source == RegistrySource::File || self.error.is_some() && self.applications() > 0,
        }
    }

    /// Returns the error of the latest refresh, if it failed.
    pub fn error(&self) -> Option<&Error> {
        self.error.as_deref()
    }

    /// Returns the time since the first of the refreshes in a row that have failed. `None` if the
    /// latest one succeeded.
    pub fn failing_for(&self) -> Option<Duration> {
        self.failing_for
    }

    /// Returns the URL, without credentials, of the registry server in use for reads.
    pub fn server(&self) -> Option<&str> {
        self.servers.iter().find(|server| server.serves_reads()).map(RegistryServer::url)
    }

    /// Returns the registry servers, in the order in which they are tried.
    pub fn servers(&self) -> &[RegistryServer] {
        &self.servers
    }

    /// Returns the number of applications.
    pub fn applications(&self) -> usize {
        self.instances.0.applications.len()
    }

    /// Returns the number of instances of any status.
    pub fn instances(&self) -> usize {
        self.instances.0.instance_count()
    }

    /// Returns the number of instances in each status.
    pub fn counts(&self) -> StatusCounts {
        self.instances.0.counts()
    }

    /// Returns the number of instances that the registry server no longer lists, but that
    /// disappeared in an implausible way and are kept for now.
    pub fn held(&self) -> usize {
        self.held
    }

    /// Returns the numbers of refreshes, fetches and bytes so far.
    pub fn refreshes(&self) -> RefreshCounts {
        self.refreshes
    }

    /// Returns the use of deltas.
    pub fn deltas(&self) -> DeltaUse {
        self.deltas
    }

    /// Returns the time that the latest change took from the registry server to this client.
    ///
    /// It is measured from the timestamp of the change, by the server's clock. The error is at most
    /// about a second. `None` before the first change.
    pub fn propagation_lag(&self) -> Option<Duration> {
        self.lag
    }
}

impl fmt::Display for RegistryStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "registry: {}", self.state)?;
        if let Some(age) = self.age {
            write!(f, ", {} s old", age.as_secs())?;
        }
        match (self.source, self.server()) {
            (RegistrySource::File, _) => f.write_str(", from the registry file")?,
            (RegistrySource::Static, _) => f.write_str(", static instances")?,
            (_, Some(server)) => write!(f, ", from {server}")?,
            (_, None) => {}
        }
        if let Some(error) = &self.error {
            write!(f, "\nerror: {error}")?;
            if let Some(failing_for) = self.failing_for {
                write!(f, " (failing for {} s)", failing_for.as_secs())?;
            }
        }
        let counts = self.counts();
        write!(f, "\n{} applications, {} instances", self.applications(), counts.total())?;
        let present = InstanceStatus::ALL.into_iter().filter(|status| counts.of(*status) > 0);
        for (at, status) in present.enumerate() {
            write!(f, "{} {status} {}", if at == 0 { ":" } else { "," }, counts.of(status))?;
        }
        if self.held > 0 {
            write!(f, "; {} held", self.held)?;
        }
        match self.interest {
            None => {}
            Some(InterestUse { names, is_whole_fetched: false }) => write!(f, "\nnames in use: {names}")?,
            Some(InterestUse { names, is_whole_fetched: true }) => {
                write!(f, "\nnames in use: {names}, fetched with the whole registry, which is cheaper")?;
            }
        }
        let RefreshCounts { succeeded, failed, mismatches, received_bytes, .. } = self.refreshes;
        let plural = if mismatches == 1 { "" } else { "es" };
        write!(f, "\nrefreshes: {succeeded} succeeded, {failed} failed; deltas {}", self.deltas.as_str())?;
        write!(f, ", {mismatches} mismatch{plural}; {received_bytes} bytes received")?;
        if let Some(lag) = self.lag {
            write!(f, "\nlatest change arrived after {:.1} s", lag.as_secs_f64())?;
        }
        if self.servers.is_empty() {
            return Ok(());
        }
        let rows = self.servers.iter().map(|server| {
            let zone = zone_text(server.zone());
            [server.url().to_owned(), zone, server_state(server)]
        });
        write!(f, "\n{}", Table::new(["registry server", "zone", "state"], rows))
    }
}

fn zone_text(zone: Option<&str>) -> String {
    zone.map_or_else(|| "-".into(), |zone| Quoted(zone).to_string())
}

/// Describes the state of a registry server.
pub(crate) fn server_state(server: &RegistryServer) -> String {
    match server.pause() {
        Some(pause) => format!("asked for a pause of {} s", pause.as_secs()),
        None if server.is_quarantined() => "failed".into(),
        None if server.serves_reads() => "in use".into(),
        None => "available".into(),
    }
}

/// Prints as a table of all instances.
impl fmt::Display for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let instances = self.applications().flat_map(|app| app.instances.iter().map(move |i| (&app.name, i)));
        let rows = instances.map(|(app, instance)| {
            let zone = zone_text(instance.zone());
            let id = Quoted(instance.id()).to_string();
            [Quoted(app).to_string(), id, instance.status().to_string(), shown_address(instance), zone]
        });
        Table::new(["application", "instance", "status", "address", "zone"], rows).fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;
    use crate::model::{Application, Instance};

    fn status(state: RegistryState) -> RegistryStatus {
        RegistryStatus { state, ..RegistryStatus::of(None, Vec::new()) }
    }

    #[test]
    fn status_without_a_fetch_prints_its_state_and_error() {
        let error = Error::new(Kind::Connect, "fetch registry").cause("connection refused");
        let failing_for = Some(Duration::from_secs(7));
        let loading = RegistryStatus { error: Some(Arc::new(error)), failing_for, ..status(RegistryState::Loading) };
        let expected = "\
registry: loading
error: fetch registry: connection refused (failing for 7 s)
0 applications, 0 instances
refreshes: 0 succeeded, 0 failed; deltas undecided, 0 mismatches; 0 bytes received";
        assert_eq!(loading.to_string(), expected);
        assert!(!loading.is_loaded() && !loading.is_stale());
    }

    /// Returns applications with an instance of each of these statuses.
    fn instances(statuses: [&[InstanceStatus]; 2]) -> Counted {
        let applications = ["A", "B"].into_iter().zip(statuses).map(|(name, statuses)| {
            let instance = |status| Arc::new(Instance { status, ..Instance::bare(name.into()) });
            Arc::new(Application { name: name.into(), instances: statuses.iter().copied().map(instance).collect() })
        });
        Counted(Arc::new(Snapshot::of(applications)))
    }

    #[test]
    fn status_before_the_first_fetch_tells_whence_the_instances_are() {
        let of = |source, error: Option<Error>| RegistryStatus {
            source,
            error: error.map(Arc::new),
            instances: instances([&[InstanceStatus::Up], &[]]),
            ..status(RegistryState::Loading)
        };
        let error = || Some(Error::new(Kind::Connect, "fetch registry"));
        for (status, is_stale, first) in [
            (of(RegistrySource::File, None), true, "registry: loading, from the registry file\n"),
            (of(RegistrySource::Static, error()), true, "registry: loading, static instances\n"),
            (of(RegistrySource::Static, None), false, "registry: loading, static instances\n"),
        ] {
            assert_eq!(status.is_stale(), is_stale, "{status}");
            assert!(status.to_string().starts_with(first), "{status}");
        }
        let disabled = RegistryStatus { state: RegistryState::Disabled, ..of(RegistrySource::Static, error()) };
        assert!(!disabled.is_stale());
    }

    #[test]
    fn status_after_refreshes_prints_counts_and_lag() {
        let refreshes =
            RefreshCounts { succeeded: 3, failed: 2, mismatches: 1, received_bytes: 99, ..Default::default() };
        let stale = RegistryStatus {
            age: Some(Duration::from_millis(12_900)),
            instances: instances([&[InstanceStatus::Up, InstanceStatus::Down], &[InstanceStatus::Up]]),
            held: 1,
            refreshes,
            deltas: DeltaUse::InUse,
            lag: Some(Duration::from_millis(1_240)),
            ..status(RegistryState::Stale)
        };
        let expected = "\
registry: stale, 12 s old
2 applications, 3 instances: DOWN 1, UP 2; 1 held
refreshes: 3 succeeded, 2 failed; deltas in use, 1 mismatch; 99 bytes received
latest change arrived after 1.2 s";
        assert_eq!(stale.to_string(), expected);
        assert!(stale.is_loaded() && stale.is_stale());
    }
}
