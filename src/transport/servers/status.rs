use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// Maximum number of URLs in a log line.
const MAX_LOGGED: usize = 20;

/// Registry server in the list of a client. Returned by
/// [`Eureka::registry_servers`](crate::Eureka::registry_servers).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegistryServer {
    pub(in crate::transport) url: Arc<str>,
    pub(in crate::transport) zone: Option<Arc<str>>,
    /// True for reads and for writes if they begin at this server.
    pub(in crate::transport) serves: [bool; 2],
    pub(in crate::transport) is_quarantined: bool,
    pub(in crate::transport) pause: Option<Duration>,
}

impl RegistryServer {
    /// Returns the URL without credentials. It ends in a slash.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Returns the zone. `None` if the list comes from a function without zones.
    pub fn zone(&self) -> Option<&str> {
        self.zone.as_deref()
    }

    /// Returns `true` if this server is in use for reads: it responded last, so that the next fetch
    /// begins here.
    pub fn serves_reads(&self) -> bool {
        self.serves[0]
    }

    /// Returns `true` if this server is in use for writes: it responded last, so that the next
    /// heartbeat begins here.
    pub fn serves_writes(&self) -> bool {
        self.serves[1]
    }

    /// Returns `true` while the server is left out because it failed.
    pub fn is_quarantined(&self) -> bool {
        self.is_quarantined
    }

    /// Returns the remaining pause that the server asked for with `Retry-After`: the longer one if
    /// it paused both reads and writes.
    pub fn pause(&self) -> Option<Duration> {
        self.pause
    }
}

/// Difference between two lists of servers, as URLs. Both are empty if only the order changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::transport) struct ServerChange {
    pub(in crate::transport) added: Vec<Arc<str>>,
    pub(in crate::transport) removed: Vec<Arc<str>>,
}

/// Displays URLs, separated by commas, at most 20 of them.
pub(in crate::transport) struct Urls<'a>(pub(in crate::transport) &'a [Arc<str>]);

impl fmt::Display for Urls<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, url) in self.0.iter().take(MAX_LOGGED).enumerate() {
            if number > 0 {
                f.write_str(", ")?;
            }
            f.write_str(url)?;
        }
        match self.0.len().checked_sub(MAX_LOGGED) {
            Some(more @ 1..) => write!(f, " and {more} more"),
            _ => Ok(()),
        }
    }
}
