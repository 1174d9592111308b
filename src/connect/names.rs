//! Cache of host names.

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, timeout, timeout_at};
use tracing::warn;

use super::error::root_cause;
use super::resolve::{Resolve, SystemResolver};
use crate::sync::Mutex;
use crate::untrusted::{Excerpt, Quoted};

/// Time for which addresses without a TTL are used.
const DEFAULT_TTL: Duration = Duration::from_secs(30);
/// Minimum and maximum time for which addresses are used.
const TTL_BOUNDS: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(24 * 3_600));
/// Time between a failed lookup and the next one.
const FAILURE_TTL: Duration = Duration::from_secs(10);
/// Time limit of a lookup.
const LOOKUP_LIMIT: Duration = Duration::from_secs(30);
/// Time limit of waiting for a lookup if there are other addresses.
const PATIENCE: Duration = Duration::from_secs(1);
/// Minimum number of names from which expired ones are removed.
const MIN_NAMES: usize = 256;

/// Addresses of host names, shared by all connections of a client.
///
/// A name is looked up when a connection needs it and the last result has expired, in a task that
/// serves all connections. After a failed lookup, the addresses of the last successful one remain.
#[derive(Debug)]
pub(crate) struct Names {
    resolver: Arc<dyn Resolve>,
    entries: Arc<Mutex<HashMap<Arc<str>, Entry>>>,
    /// Applications with a host name that did not resolve and was logged.
    logged: Mutex<HashSet<Arc<str>>>,
}

#[derive(Debug)]
struct Entry {
    /// Addresses of the last successful lookup.
    addresses: Arc<[SocketAddr]>,
    /// Reason why the last lookup failed.
    failure: Option<Arc<str>>,
    /// End of the last lookup.
    looked_up: Instant,
    /// Time of the next lookup.
    expires: Instant,
    pending: Option<Pending>,
}

/// A lookup that has not ended.
#[derive(Clone, Debug)]
struct Pending {
    since: Instant,
    /// Closed when the lookup ends.
    ended: watch::Receiver<()>,
}

/// Result of a lookup.
#[derive(Clone, Debug)]
pub(super) struct Addresses {
    /// Known addresses. After a failed lookup, those of the last successful one.
    pub(super) known: Arc<[SocketAddr]>,
    /// Reason why the name does not resolve now.
    pub(super) failure: Option<Arc<str>>,
}

impl Default for Names {
    fn default() -> Self {
        Self::new(Arc::new(SystemResolver))
    }
}

impl Names {
    pub(crate) fn new(resolver: Arc<dyn Resolve>) -> Self {
        Self { resolver, entries: Arc::default(), logged: Mutex::default() }
    }

    /// Returns the addresses of a host name.
    ///
    /// Waits for a lookup for at most this time since its start. If the caller has an alternative,
    /// or the name resolved before, the wait is shorter.
    pub(super) async fn lookup(&self, host: &str, limit: Duration, has_alternative: bool) -> Addresses {
        let (mut pending, has_known) = match self.current(host) {
            Ok(addresses) => return addresses,
            Err(pending) => pending,
        };
        let patience = if has_alternative || has_known { PATIENCE.min(limit / 2) } else { limit };
        let ended = timeout_at(pending.since + patience, pending.ended.changed()).await;
        let entries = self.entries.lock();
        let entry = entries.get(host);
        let known = entry.map_or_else(|| Arc::from([]), |entry| entry.addresses.clone());
        let failure = match (ended, entry) {
            (Ok(Ok(())), Some(entry)) => entry.failure.clone(),
            (Ok(_), _) => Some("the lookup was interrupted".into()),
            (Err(_), _) => Some(format!("no response of the resolver within {patience:?}").into()),
        };
        Addresses { known, failure }
    }

    /// Returns the addresses of a name if they have not expired, else the pending lookup. Starts it
    /// if there is none. The flag is `true` if there are addresses of an earlier lookup.
    fn current(&self, host: &str) -> Result<Addresses, (Pending, bool)> {
        let now = Instant::now();
        let mut entries = self.entries.lock();
        if let Some(entry) = entries.get_mut(host) {
            // A lookup ends without a result if it panics, or with its runtime.
            if let Some(pending) = entry.pending.clone().filter(|pending| pending.ended.has_changed().is_ok()) {
                return Err((pending, !entry.addresses.is_empty()));
            }
            if entry.expires > now {
                return Ok(Addresses { known: entry.addresses.clone(), failure: entry.failure.clone() });
            }
        }
        if entries.len() >= MIN_NAMES && entries.len() == entries.capacity() {
            entries.retain(|_, entry| entry.expires > now || entry.pending.is_some());
        }
        let host = Arc::<str>::from(host);
        let entry = entries.entry(host.clone()).or_insert_with(|| Entry {
            addresses: Arc::from([]),
            failure: None,
            looked_up: now,
            expires: now,
            pending: None,
        });
        let pending = self.start(host, now);
        entry.pending = Some(pending.clone());
        Err((pending, !entry.addresses.is_empty()))
    }

    /// Starts a lookup in a task of its own, which is not cancelled with a connection.
    fn start(&self, host: Arc<str>, since: Instant) -> Pending {
        let (running, ended) = watch::channel(());
        let (entries, resolver) = (self.entries.clone(), self.resolver.clone());
        tokio::spawn(async move {
            let resolved = timeout(LOOKUP_LIMIT, async { resolver.resolve(&host).await }).await;
            let failure = match &resolved {
                Ok(Ok(resolved)) if !resolved.addresses.is_empty() => None,
                Ok(Ok(_)) => Some("it has no address".into()),
                Ok(Err(error)) => Some(Excerpt(root_cause(&**error)).to_string().into()),
                Err(_) => Some(format!("no response of the resolver within {LOOKUP_LIMIT:?}").into()),
            };
            let now = Instant::now();
            if let Some(entry) = entries.lock().get_mut(&host) {
                let mut ttl = FAILURE_TTL;
                if let (None, Ok(Ok(resolved))) = (&failure, resolved) {
                    ttl = resolved.ttl.unwrap_or(DEFAULT_TTL).clamp(TTL_BOUNDS.0, TTL_BOUNDS.1);
                    entry.addresses = resolved.addresses.into();
                }
                (entry.failure, entry.looked_up, entry.expires, entry.pending) = (failure, now, now + ttl, None);
            }
            let _ = running.send(());
        });
        Pending { since, ended }
    }

    /// Returns all addresses of a host name, those of the last successful lookup if the latest one
    /// failed. Waits for at most this time.
    ///
    /// # Errors
    /// Returns the reason if there are none.
    pub(crate) async fn all(&self, host: &str, limit: Duration) -> Result<Vec<IpAddr>, Arc<str>> {
        let Addresses { known, failure } = self.lookup(host, limit, false).await;
        match failure {
            Some(failure) if known.is_empty() => Err(failure),
            _ => Ok(known.iter().map(SocketAddr::ip).collect()),
        }
    }

    /// Looks up a name again at its next use, since none of its addresses could be connected to.
    pub(super) fn expire(&self, host: &str) {
        if let Some(entry) = self.entries.lock().get_mut(host) {
            entry.expires = entry.expires.min(entry.looked_up + TTL_BOUNDS.0);
        }
    }

    /// Logs the first use of an IP address for an application.
    pub(crate) fn log_fallback(&self, app: &Arc<str>, host: &str, ip: IpAddr, error: &str) {
        if self.logged.lock().insert(app.clone()) {
            warn!(
                app = %Quoted(app), host = %Quoted(host), %ip, error,
                "host name does not resolve, calling the IP address \
                (set eureka.instance.prefer-ip-address at the provider, or InstanceAddress::Ip here)"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::time::{advance, sleep};
    use tower::BoxError;

    use super::super::resolve::Resolved;
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// Names whose lookups return the results in order, the last one for ever, and the number of
    /// lookups so far. `None` never returns.
    fn names(results: Vec<Option<Result<Resolved, &'static str>>>) -> (Names, Arc<AtomicUsize>) {
        let count = Arc::new(AtomicUsize::new(0));
        let lookups = count.clone();
        let resolver = move |_: &str| {
            let at = lookups.fetch_add(1, Ordering::SeqCst).min(results.len() - 1);
            let result = results[at].clone();
            async move {
                sleep(Duration::from_millis(10)).await;
                match result {
                    Some(result) => result.map_err(BoxError::from),
                    None => std::future::pending().await,
                }
            }
        };
        (Names::new(Arc::new(resolver)), count)
    }

    fn resolved(last: u8) -> Option<Result<Resolved, &'static str>> {
        Some(Ok(Resolved::new([[10, 0, 0, last].into()])))
    }

    async fn lookup(names: &Names) -> (Vec<String>, Option<String>) {
        let Addresses { known, failure } = names.lookup("h", 2 * SECOND, false).await;
        let known = known.iter().map(|address| address.ip().to_string()).collect();
        (known, failure.map(|failure| failure.to_string()))
    }

    fn found(address: &str) -> (Vec<String>, Option<String>) {
        (vec![address.to_owned()], None)
    }

    #[tokio::test(start_paused = true)]
    async fn name_is_looked_up_again_after_its_ttl_or_thirty_seconds() {
        for (ttl, seconds) in [(None, 30), (Some(5), 5), (Some(0), 1), (Some(u64::MAX), 24 * 3_600)] {
            let first = Resolved::new([[10, 0, 0, 1].into()]);
            let first = Resolved { ttl: ttl.map(Duration::from_secs), ..first };
            let (names, count) = names(vec![Some(Ok(first)), resolved(2)]);
            assert_eq!(lookup(&names).await, found("10.0.0.1"));
            advance(seconds * SECOND - Duration::from_millis(50)).await;
            assert_eq!(lookup(&names).await, found("10.0.0.1"), "{ttl:?}");
            advance(Duration::from_millis(100)).await;
            assert_eq!(lookup(&names).await, found("10.0.0.2"), "{ttl:?}");
            assert_eq!(count.load(Ordering::SeqCst), 2);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn concurrent_lookups_of_a_name_are_one() {
        let (names, count) = names(vec![resolved(1)]);
        let (a, b) = tokio::join!(lookup(&names), lookup(&names));
        assert_eq!((a, b), (found("10.0.0.1"), found("10.0.0.1")));
        assert_eq!(count.load(Ordering::SeqCst), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn lookup_of_a_dropped_caller_serves_the_next() {
        let (names, count) = names(vec![resolved(1)]);
        assert!(timeout(Duration::from_millis(1), lookup(&names)).await.is_err());
        assert_eq!(lookup(&names).await, found("10.0.0.1"));
        assert_eq!(count.load(Ordering::SeqCst), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn failed_lookup_keeps_the_addresses_and_is_repeated_after_ten_seconds() {
        let (names, count) = names(vec![resolved(1), Some(Err("no such name")), resolved(2)]);
        assert_eq!(lookup(&names).await, found("10.0.0.1"));
        advance(31 * SECOND).await;
        for _ in 0..2 {
            assert_eq!(lookup(&names).await, (vec!["10.0.0.1".into()], Some("no such name".into())));
        }
        advance(11 * SECOND).await;
        assert_eq!(lookup(&names).await, found("10.0.0.2"));
        assert_eq!(count.load(Ordering::SeqCst), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn empty_result_is_a_failed_lookup() {
        let (names, _) = names(vec![Some(Ok(Resolved::new([])))]);
        assert_eq!(lookup(&names).await, (Vec::new(), Some("it has no address".into())));
    }

    #[tokio::test(start_paused = true)]
    async fn resolver_that_hangs_delays_only_the_first_connection() {
        let (names, count) = names(vec![None]);
        let start = Instant::now();
        for (alternative, at) in [(true, SECOND), (true, SECOND), (false, 2 * SECOND), (false, 2 * SECOND)] {
            let failure = names.lookup("h", 2 * SECOND, alternative).await.failure;
            assert!(failure.unwrap().contains("no response of the resolver"), "{at:?}");
            assert_eq!(start.elapsed(), at);
        }
        assert_eq!(count.load(Ordering::SeqCst), 1);
        // The lookup itself ends as well, and is repeated.
        sleep(LOOKUP_LIMIT + FAILURE_TTL).await;
        lookup(&names).await;
        assert_eq!(count.load(Ordering::SeqCst), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn name_that_could_not_be_connected_to_is_looked_up_once_a_second() {
        let (names, count) = names(vec![resolved(1), resolved(2)]);
        lookup(&names).await;
        names.expire("h");
        assert_eq!(lookup(&names).await, found("10.0.0.1"));
        advance(SECOND).await;
        assert_eq!(lookup(&names).await, found("10.0.0.2"));
        assert_eq!(count.load(Ordering::SeqCst), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn lookup_that_panics_is_repeated() {
        let is_first = AtomicUsize::new(0);
        let resolver = move |_: &str| {
            assert!(is_first.fetch_add(1, Ordering::SeqCst) > 0, "panic of the test");
            async { Ok::<_, BoxError>(Resolved::new([[10, 0, 0, 1].into()])) }
        };
        let names = Names::new(Arc::new(resolver));
        assert!(lookup(&names).await.1.is_some());
        assert_eq!(lookup(&names).await, found("10.0.0.1"));
    }

    #[tokio::test(start_paused = true)]
    async fn expired_names_are_removed_when_there_are_many() {
        let (names, _) = names(vec![resolved(1)]);
        for number in 0..20 * MIN_NAMES {
            names.lookup(&number.to_string(), SECOND, false).await;
            if number % 100 == 0 {
                sleep(60 * SECOND).await;
            }
        }
        assert!(names.entries.lock().len() < 4 * MIN_NAMES);
    }
}
