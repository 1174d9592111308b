//! Repeated look-up of the list of registry servers.

use std::fmt;
use std::future::ready;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout, timeout_at};
use tower::BoxError;

use crate::config::{ListedServer, ServerSettings, ServiceUrl};
use crate::connect::Names;
use crate::sync::Mutex;
use crate::time::{Backoff, add_capped, jittered};
#[cfg(feature = "dns")]
use crate::transport::dns::DnsLookup;
use crate::untrusted::Quoted;

/// Time limit of one look-up.
const LIMIT: Duration = Duration::from_secs(30);
/// Time limit of the look-up of one host once another host is known. A server whose host takes
/// longer keeps its name.
const HOST_LIMIT: Duration = Duration::from_secs(2);
/// Maximum number of servers in a list.
const MAX_SERVERS: usize = 256;
/// Minimum time between two look-ups while no server responds.
const MIN_PAUSE: Duration = Duration::from_secs(10);
/// Maximum time between two look-ups that fail.
const MAX_BACKOFF: Duration = Duration::from_secs(30);

type Found = Pin<Box<dyn Future<Output = Result<Vec<ListedServer>, BoxError>> + Send>>;

type Find = Box<dyn Fn() -> Found + Send + Sync>;

/// Returns the function that lists the servers, if their list or the addresses in it may change.
fn list_of(settings: &ServerSettings, listed: &[ListedServer]) -> Option<Find> {
    if let Some(members) = settings.members.clone() {
        return Some(Box::new(move || {
            let members = members.clone();
            Box::pin(async move { members.servers().await })
        }));
    }
    #[cfg(feature = "dns")]
    if settings.uses_dns {
        let lookup = DnsLookup::new(&settings.dns, &settings.zones);
        return Some(Box::new(move || {
            let lookup = lookup.clone();
            Box::pin(async move { lookup.servers().await })
        }));
    }
    if let Some(source) = settings.source.clone() {
        return Some(Box::new(move || {
            let source = source.clone();
            Box::pin(async move { source.servers().await })
        }));
    }
    let listed = listed.to_vec();
    let is_expanded = settings.expand_hosts && !listed.is_empty();
    is_expanded.then(|| Box::new(move || -> Found { Box::pin(ready(Ok(listed.clone()))) }) as Find)
}

/// Replaces each server by one per address of its host. A server with HTTPS stays as it is, since
/// its certificate has the name. So does a server whose host cannot be looked up, unless that is
/// all of them.
async fn expand(listed: Vec<ListedServer>, names: &Arc<Names>) -> Result<Vec<ListedServer>, BoxError> {
    let began = Instant::now();
    // All at the same time, so that a name that takes long delays no other.
    let mut lookups = JoinSet::new();
    for (number, server) in listed.iter().cloned().enumerate() {
        let names = names.clone();
        lookups.spawn(async move { (number, addresses(&server, &names).await) });
    }
    let mut found: Vec<_> = listed.iter().map(|_| Err("its host was not found in time".into())).collect();
    let mut is_any_known = false;
    loop {
        let limit = if is_any_known { HOST_LIMIT } else { LIMIT };
        let Ok(Some(lookup)) = timeout_at(began + limit, lookups.join_next()).await else { break };
        let (number, urls) = lookup?;
        is_any_known |= urls.is_ok();
        found[number] = urls;
    }
    let (mut servers, mut fault) = (Vec::<ListedServer>::new(), None);
    for (server, urls) in listed.into_iter().zip(found) {
        match urls {
            Ok(urls) => {
                for url in urls {
                    if !servers.iter().any(|known| known.url.as_str() == url.as_str()) {
                        servers.push(ListedServer { url, ..server.clone() });
                    }
                }
            }
            Err(error) => {
                fault = Some(format!("look up {}: {error}", Quoted(&server.url.host_and_port().0)));
                servers.push(server);
            }
        }
    }
    match fault {
        Some(fault) if !is_any_known => Err(fault.into()),
        _ => Ok(servers),
    }
}

/// Returns one URL per address of the server's host.
async fn addresses(server: &ListedServer, names: &Names) -> Result<Vec<ServiceUrl>, Arc<str>> {
    let (host, port) = server.url.host_and_port();
    if server.url.is_secure() || host.parse::<IpAddr>().is_ok() {
        return Ok(vec![server.url.clone()]);
    }
    let at = |ip| server.url.at(SocketAddr::new(ip, port));
    Ok(names.all(&host, LIMIT).await?.into_iter().map(at).collect())
}

/// Look-up of the servers: due at the first use, and then at the first use after each interval.
///
/// A look-up runs in a task of its own, at most one at a time. Only operations without any list
/// wait for it.
pub(in crate::transport) struct Lookup {
    find: Find,
    interval: Duration,
    state: Mutex<State>,
    /// Number of look-ups that ended.
    ended: watch::Sender<u64>,
}

#[derive(Debug)]
struct State {
    is_running: bool,
    /// `None` before the first look-up.
    due: Option<Instant>,
    last_end: Option<Instant>,
    backoff: Backoff,
    failing_since: Option<Instant>,
    /// Error of the last look-up.
    error: Option<Arc<str>>,
}

impl Lookup {
    /// Creates the look-up of these settings; `None` if they contain the list itself.
    pub(in crate::transport) fn new(settings: &ServerSettings, listed: &[ListedServer]) -> Option<Self> {
        let list = list_of(settings, listed)?;
        if !settings.expand_hosts {
            return Some(Self::of(settings.poll_interval, list));
        }
        let names = settings.names.clone();
        let expanded = move || -> Found {
            let (listed, names) = (list(), names.clone());
            Box::pin(async move { expand(listed.await?, &names).await })
        };
        Some(Self::of(settings.poll_interval, expanded))
    }

    fn of(interval: Duration, find: impl Fn() -> Found + Send + Sync + 'static) -> Self {
        let state = State {
            is_running: false,
            due: None,
            last_end: None,
            backoff: Backoff::new(Duration::from_secs(1).min(interval), MAX_BACKOFF.min(interval)),
            failing_since: None,
            error: None,
        };
        Self { find: Box::new(find), interval, state: Mutex::new(state), ended: watch::Sender::new(0) }
    }

    /// Starts a look-up if one is due, and passes its list to `found`. Must be called on a tokio
    /// runtime.
    pub(in crate::transport) fn start_if_due<F>(self: &Arc<Self>, found: F)
    where
        F: FnOnce(Vec<ListedServer>) + Send + 'static,
    {
        {
            let mut state = self.state.lock();
            if state.is_running || state.due.is_some_and(|due| Instant::now() < due) {
                return;
            }
            state.is_running = true;
        }
        let running = Running { lookup: self.clone(), result: None };
        tokio::spawn(running.run(found));
    }

    /// Returns a receiver of the number of look-ups that ended.
    pub(in crate::transport) fn subscribe(&self) -> watch::Receiver<u64> {
        self.ended.subscribe()
    }

    pub(in crate::transport) fn is_running(&self) -> bool {
        self.state.lock().is_running
    }

    /// Returns the error of the last look-up, if it failed.
    pub(in crate::transport) fn error(&self) -> Option<Arc<str>> {
        self.state.lock().error.clone()
    }

    /// Makes a look-up due soon, since no server of the list responds.
    pub(in crate::transport) fn hurry(&self) {
        let mut state = self.state.lock();
        if let Some(soonest) = state.last_end.map(|end| end + MIN_PAUSE) {
            state.due = state.due.map(|due| due.min(soonest));
        }
    }

    fn end(&self, result: Result<(), Arc<str>>) {
        let now = Instant::now();
        let mut state = self.state.lock();
        state.is_running = false;
        state.last_end = Some(now);
        match result {
            Ok(()) => {
                state.backoff.reset();
                state.error = None;
                state.due = Some(add_capped(now, jittered(self.interval)));
                if let Some(since) = state.failing_since.take() {
                    tracing::info!(elapsed = ?since.elapsed(), "look-up of registry servers recovered");
                }
            }
            Err(error) => {
                state.due = Some(now + state.backoff.next());
                if state.failing_since.is_none() {
                    state.failing_since = Some(now);
                    tracing::warn!(%error, "look-up of registry servers failed, keeping the last list");
                } else {
                    tracing::debug!(%error, "look-up of registry servers failed again");
                }
                state.error = Some(error);
            }
        }
        drop(state);
        self.ended.send_modify(|ended| *ended += 1);
    }
}

/// Look-up in progress. If it is dropped, because its runtime ends, another one can start.
struct Running {
    lookup: Arc<Lookup>,
    result: Option<Result<(), Arc<str>>>,
}

impl Running {
    async fn run(mut self, found: impl FnOnce(Vec<ListedServer>)) {
        let result = match timeout(LIMIT, (self.lookup.find)()).await {
            Err(_) => Err(format!("no result within {LIMIT:?}")),
            Ok(Err(error)) => Err(error.to_string()),
            Ok(Ok(list)) if list.is_empty() => Err("the list is empty".to_owned()),
            Ok(Ok(list)) if list.len() > MAX_SERVERS => {
                Err(format!("the list has {} servers, more than {MAX_SERVERS}", list.len()))
            }
            Ok(Ok(list)) => {
                found(list);
                Ok(())
            }
        };
        self.result = Some(result.map_err(Into::into));
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let result = self.result.take().unwrap_or_else(|| Err("it was cancelled, since its runtime ended".into()));
        self.lookup.end(result);
    }
}

impl fmt::Debug for Lookup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lookup").field("interval", &self.interval).finish_non_exhaustive()
    }
}
