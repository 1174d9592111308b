//! Log lines for operators: changes of the registry, and requests that were refused.
//!
//! Changes are logged under the target [`TARGET`], one line each, with the fields `app`,
//! `instance`, `status`, `origin`, `by`, `before` and `after`. A change is an info line; what
//! changes nothing, and each change of a batch from a peer, is a debug line. Clients choose most of
//! the values, so every value is escaped and has a maximum length. Lines about faults of clients
//! are limited in number as well, and so are the info lines about changes ([`burst`]).

mod burst;
mod counts;
mod ongoing;
mod repeats;
mod states;

use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use axum::extract::ConnectInfo;
use http::Extensions;
#[cfg(feature = "peers")]
use tokio::time::Instant;
use tracing::field::{DisplayValue, display};

use self::burst::{Budget, Bursts};
pub(in crate::server) use self::counts::{Change, Counts};
pub(in crate::server) use self::ongoing::{Lasting, Ongoing};
pub(in crate::server) use self::repeats::Repeats;
pub(in crate::server) use self::states::list;
use super::access::Identity;
use super::outcome::{Effect, Origin, Place, RegisterOutcome, Registered, Registrant, States};
use super::owner::Owner;
use crate::model::{Instance, InstanceStatus};
#[cfg(feature = "peers")]
use crate::sync::Mutex;
pub(super) use crate::untrusted::Quoted;

/// Target of the lines about changes.
pub(super) const TARGET: &str = "tower_eureka::server::audit";

/// Sender of a change, as the log names it.
#[derive(Clone, Debug)]
pub(super) struct Caller {
    origin: Origin,
    sender: Sender,
    /// Authenticated identity.
    by: Option<Identity>,
    /// Set for a change of a batch, which has a line of its own.
    batched: bool,
    /// Set for a change of an instance that another sender registered.
    is_other: bool,
}

#[derive(Clone, Copy, Debug)]
enum Sender {
    Unknown,
    Address(SocketAddr),
    #[cfg(feature = "peers")]
    Node,
    /// The application around the registry, without a request.
    Process,
}

impl Caller {
    /// This node, when it registers itself.
    #[cfg(feature = "peers")]
    pub(super) const NODE: Self = Self::new(Origin::Client, Sender::Node);

    /// The application around the registry, when it changes the registry without a request.
    pub(super) const PROCESS: Self = Self::new(Origin::Client, Sender::Process);

    const fn new(origin: Origin, sender: Sender) -> Self {
        Self { origin, sender, by: None, batched: false, is_other: false }
    }

    /// Creates the caller of a request with these extensions.
    pub(super) fn of(origin: Origin, extensions: &Extensions) -> Self {
        let sender = address(extensions).map_or(Sender::Unknown, Sender::Address);
        Self { by: extensions.get::<Identity>().cloned(), ..Self::new(origin, sender) }
    }

    /// Sets the identity of a request that does not carry it.
    pub(super) fn authenticated(self, identity: Option<&Identity>) -> Self {
        Self { by: identity.cloned().or(self.by), ..self }
    }

    /// Returns the caller of a change of a lease with this registrant.
    pub(super) fn changing(&self, registrant: Option<Registrant>) -> Self {
        let own = self.registrant();
        let is_own = |known: Registrant| match known.owner {
            Owner::Identity(key) => own.identity == Some(key),
            _ => own.place == known.place,
        };
        let is_other = self.origin == Origin::Client && registrant.is_some_and(|known| !is_own(known));
        Self { is_other, ..self.clone() }
    }

    /// Marks the caller of a change in a batch.
    pub(super) fn batched(self) -> Self {
        Self { batched: true, ..self }
    }

    /// Returns true if a change of this caller is a debug line.
    fn is_quiet(&self, changes: &Changes) -> bool {
        self.batched || !changes.pass(self)
    }

    /// Returns the sender that the lines about changes are counted for.
    fn budget(&self) -> Budget {
        match (&self.by, self.sender) {
            (Some(identity), _) if !identity.is_anonymous() => Budget::Identity(identity.key().clone()),
            (_, Sender::Address(address)) => Budget::Network(network(address.ip())),
            _ => Budget::Other,
        }
    }

    pub(super) fn origin(&self) -> Origin {
        self.origin
    }

    /// Returns the caller as a lease keeps it.
    pub(super) fn registrant(&self) -> Registrant {
        let place = match self.sender {
            Sender::Unknown => Place::Unknown,
            Sender::Address(address) => Place::Address(address.ip().to_canonical()),
            #[cfg(feature = "peers")]
            Sender::Node => Place::Here,
            Sender::Process => Place::Here,
        };
        let owner = match (&self.by, place) {
            (_, Place::Here) => Owner::Server,
            (Some(identity), _) if self.origin == Origin::Client => identity.owner(),
            _ => Owner::Unknown,
        };
        let identity = self.by.as_ref().filter(|identity| !identity.is_anonymous());
        let identity = identity.map(|identity| identity.key().clone());
        Registrant { origin: self.origin, place, identity, owner, is_provisional: false }
    }

    /// Returns the name of the authenticated identity as a field, which is absent without one.
    fn by(&self) -> Option<DisplayValue<Quoted<'_>>> {
        self.by.as_ref().map(|identity| display(Quoted(identity.name())))
    }
}

#[cfg(test)]
impl From<Origin> for Caller {
    fn from(origin: Origin) -> Self {
        Self::new(origin, Sender::Unknown)
    }
}

impl fmt::Display for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.sender {
            Sender::Unknown => self.origin.fmt(f),
            Sender::Address(address) => write!(f, "{} {}", self.origin, canonical(address)),
            #[cfg(feature = "peers")]
            Sender::Node => f.write_str("this node"),
            Sender::Process => f.write_str("this process"),
        }
    }
}

/// Returns the remote address of a connection, if the server that accepted it provides it:
/// [`Listener`](super::Listener) does, and so does
/// `axum::serve` with `into_make_service_with_connect_info`.
pub(super) fn address(extensions: &Extensions) -> Option<SocketAddr> {
    extensions.get::<ConnectInfo<SocketAddr>>().map(|&ConnectInfo(address)| address)
}

/// Returns an IPv4 address in its own form, also if a socket for both families accepted the
/// connection.
pub(super) fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// Returns the part of an address that counts as one sender: an IPv4 address, also if it is mapped
/// to IPv6, or the first 64 bits of an IPv6 address.
pub(super) fn network(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V6(ip) => Ipv6Addr::from_bits(ip.to_bits() >> 64 << 64).into(),
        v4 => v4,
    }
}

/// Lets one log line pass per interval and counts those between.
#[cfg(feature = "peers")]
#[derive(Debug)]
pub(super) struct Throttle {
    interval: Duration,
    state: Mutex<Passed>,
}

#[cfg(feature = "peers")]
#[derive(Debug, Default)]
struct Passed {
    last: Option<Instant>,
    suppressed: u64,
}

#[cfg(feature = "peers")]
impl Throttle {
    pub(super) fn new(interval: Duration) -> Self {
        Self { interval, state: Mutex::default() }
    }

    /// Returns the number of lines that were suppressed since the last one, if a line may be
    /// written now.
    pub(super) fn pass(&self) -> Option<u64> {
        let mut state = self.state.lock();
        let now = Instant::now();
        if state.last.is_some_and(|last| now < last + self.interval) {
            state.suppressed += 1;
            return None;
        }
        state.last = Some(now);
        Some(std::mem::take(&mut state.suppressed))
    }
}

/// Limits the lines about changes of a registry, and counts the changes beyond.
#[derive(Debug, Default)]
pub(super) struct Changes {
    bursts: Bursts,
    counts: Counts,
    /// Registrations that are older than the record in the registry.
    older: Repeats,
}

impl Changes {
    /// Returns the numbers of changes since the start.
    pub(super) fn counts(&self) -> &Counts {
        &self.counts
    }

    /// Returns true if a change gets an info line. Without info lines nothing is counted.
    fn pass(&self, caller: &Caller) -> bool {
        if !is_enabled() {
            return false;
        }
        let (passes, count) = self.bursts.pass(caller.budget(), caller.is_other);
        log_quiet(count);
        passes
    }

    /// Logs the number of changes without an info line, once their interval is over. Must be called
    /// periodically, since there may be no change for long after a burst.
    pub(super) fn flush(&self) {
        log_quiet(self.bursts.flush());
        self.older.flush();
    }
}

fn log_quiet(count: u64) {
    if count > 0 {
        tracing::info!(target: TARGET, count, "changes not logged singly");
    }
}

/// Returns true if changes are logged. Otherwise the effect of a registration is not determined.
pub(super) fn is_enabled() -> bool {
    tracing::enabled!(target: TARGET, tracing::Level::INFO)
}

/// A line about a change: debug if it is quiet, else info.
macro_rules! change {
    ($quiet:expr, $app:expr, $id:expr, $status:expr, $caller:expr, $message:literal $(, $field:ident = $value:expr)*) => {
        if $quiet {
            tracing::debug!(target: TARGET, app = %Quoted($app), instance = %Quoted($id), status = %$status, origin = %$caller, $($field = $value,)* $message)
        } else {
            tracing::info!(target: TARGET, app = %Quoted($app), instance = %Quoted($id), status = %$status, origin = %$caller, $($field = $value,)* $message)
        }
    };
}

/// A line about a change by a caller, with the state before and after it.
macro_rules! changed {
    ($quiet:expr, $app:expr, $id:expr, $status:expr, $caller:expr, $message:literal, $states:expr) => {
        change!(
            $quiet,
            $app,
            $id,
            $status,
            $caller,
            $message,
            by = $caller.by(),
            before = $states.before_field(),
            after = $states.after_field()
        )
    };
}

/// Logs a registration, or that it was older than the record in the registry.
pub(super) fn registered(
    app: &str,
    id: &str,
    &Registered { status, outcome, kept, ref states, .. }: &Registered,
    caller: &Caller,
    changes: &Changes,
) {
    changes.counts.add(Change::Registration, caller.origin);
    let kept = kept.filter(|_| caller.origin == Origin::Client);
    // Both lines about a registration take one of the budget.
    let is_change = kept.is_some() || matches!(outcome, RegisterOutcome::New | RegisterOutcome::Changed);
    let is_quiet = !is_change || caller.is_quiet(changes);
    if let Some(sent) = kept.filter(|_| !is_quiet) {
        let (app, instance) = (Quoted(app), Quoted(id));
        tracing::info!(
            target: TARGET, %app, %instance, %status, origin = %caller, by = caller.by(), %sent,
            "status of a registration not taken: the one before may be an operator's decision, an override or a cancellation ends it"
        );
    }
    match outcome {
        RegisterOutcome::New => {
            changed!(is_quiet, app, id, status, caller, "registered", states)
        }
        RegisterOutcome::Changed => {
            changed!(is_quiet, app, id, status, caller, "registration changed", states)
        }
        RegisterOutcome::Unchanged => change!(true, app, id, status, caller, "registration repeated", by = caller.by()),
        RegisterOutcome::Stale { ours, sent } => {
            let (app, instance) = (Quoted(app), Quoted(id));
            // An old state from a peer is no fault.
            if caller.origin == Origin::Replica {
                tracing::debug!(target: TARGET, %app, %instance, %status, origin = %caller, by = caller.by(), ours, sent, "older registration dropped");
            } else if let Some(suppressed) = changes.older.pass(format_args!("older registration of {app}/{instance}"))
            {
                let ahead = Duration::from_millis(ours.saturating_sub(sent).try_into().unwrap_or(0));
                tracing::warn!(
                    target: TARGET, %app, %instance, %status, origin = %caller, by = caller.by(), ours, sent, ?ahead, suppressed,
                    "older registration dropped: the registry keeps its record, which has a newer lastDirtyTimestamp (are the clocks right?)"
                );
            }
        }
    }
}

/// Logs a cancellation by the instance or by an operator.
pub(super) fn cancelled(app: &str, id: &str, before: Arc<Instance>, caller: &Caller, changes: &Changes) {
    changes.counts.add(Change::Cancellation, caller.origin);
    let status = before.status();
    let states = States { before: Some(before), after: None };
    changed!(caller.is_quiet(changes), app, id, status, caller, "cancelled", states);
}

/// Logs that a status override was set.
pub(super) fn override_set(
    app: &str,
    id: &str,
    status: InstanceStatus,
    effect: &Effect,
    caller: &Caller,
    changes: &Changes,
) {
    let log = |quiet, states: &States| changed!(quiet, app, id, status, caller, "status override set", states);
    override_changed(effect, caller, changes, log);
}

/// Logs that a status override was deleted.
pub(super) fn override_deleted(
    app: &str,
    id: &str,
    status: InstanceStatus,
    effect: &Effect,
    caller: &Caller,
    changes: &Changes,
) {
    let log = |quiet, states: &States| changed!(quiet, app, id, status, caller, "status override deleted", states);
    override_changed(effect, caller, changes, log);
}

fn override_changed(effect: &Effect, caller: &Caller, changes: &Changes, log: impl FnOnce(bool, &States)) {
    match effect {
        Effect::NotFound => {}
        Effect::Unchanged => log(true, &States::default()),
        Effect::Changed(states) => {
            changes.counts.add(Change::Override, caller.origin);
            log(caller.is_quiet(changes), states);
        }
    }
}

/// Logs that metadata was merged.
pub(super) fn metadata_changed(
    app: &str,
    id: &str,
    Registered { status, outcome, states, .. }: &Registered,
    caller: &Caller,
    changes: &Changes,
) {
    let is_changed = *outcome != RegisterOutcome::Unchanged;
    if is_changed {
        changes.counts.add(Change::Metadata, caller.origin);
    }
    let is_quiet = !is_changed || caller.is_quiet(changes);
    changed!(is_quiet, app, id, status, caller, "metadata changed", states);
}

/// Logs that the newer state of a peer was adopted.
#[cfg(feature = "peers")]
pub(super) fn adopted(app: &str, id: &str, status: InstanceStatus, peer: &str) {
    tracing::debug!(target: TARGET, app = %Quoted(app), instance = %Quoted(id), %status, %peer, "adopted from a peer");
}

/// Logs that a cancellation at a peer was adopted.
#[cfg(feature = "peers")]
pub(super) fn ended(app: &str, id: &str, status: InstanceStatus, peer: &str) {
    tracing::debug!(target: TARGET, app = %Quoted(app), instance = %Quoted(id), %status, %peer, "cancellation adopted from a peer");
}

/// Logs the numbers of registrations, cancellations and overrides that a batch changed.
pub(super) fn batch_applied(origin: &Caller, [registered, cancelled, overrides]: [usize; 3], changes: &Changes) {
    if changes.pass(origin) {
        tracing::info!(target: TARGET, %origin, by = origin.by(), registered, cancelled, overrides, "batch applied");
    } else {
        tracing::debug!(target: TARGET, %origin, by = origin.by(), registered, cancelled, overrides, "batch applied");
    }
}

/// Logs the eviction of an expired lease.
pub(super) fn expired(app: &str, id: &str, status: InstanceStatus, quiet: bool) {
    change!(quiet, app, id, status, "eviction", "lease expired");
}

/// Logs that a silent instance was evicted for a new one in a full registry.
pub(super) fn evicted_silent(app: &str, id: &str, status: InstanceStatus) {
    change!(true, app, id, status, "eviction", "silent instance evicted for a new one");
}

/// Logs the number of leases that expired in one run, and the number of those with a line each.
pub(super) fn many_expired(evicted: usize, shown: usize) {
    tracing::info!(target: TARGET, evicted, shown, "many leases expired, further ones are debug lines");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(feature = "peers")]
    #[tokio::test(start_paused = true)]
    async fn lines_within_an_interval_are_counted_and_suppressed() {
        let throttle = Throttle::new(Duration::from_secs(1));
        assert_eq!(throttle.pass(), Some(0));
        tokio::time::advance(Duration::from_millis(999)).await;
        assert_eq!([throttle.pass(), throttle.pass()], [None; 2]);
        tokio::time::advance(Duration::from_millis(1)).await;
        assert_eq!([throttle.pass(), throttle.pass()], [Some(2), None]);
        tokio::time::advance(Duration::from_secs(3600)).await;
        assert_eq!(throttle.pass(), Some(1));
    }

    #[test]
    fn address_of_both_families_is_shown_as_what_it_is() {
        for (address, shown) in [
            ("10.0.0.1:80", "client 10.0.0.1:80"),
            ("[::ffff:10.0.0.1]:80", "client 10.0.0.1:80"),
            ("[::1]:80", "client [::1]:80"),
        ] {
            let mut extensions = Extensions::new();
            extensions.insert(ConnectInfo(address.parse::<SocketAddr>().unwrap()));
            assert_eq!(Caller::of(Origin::Client, &extensions).to_string(), shown);
        }
        assert_eq!(Caller::of(Origin::Replica, &Extensions::new()).to_string(), "peer");
    }
}
