//! Looks up host names: the user's interface and the resolver of the operating system.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::time::Duration;

use tokio::net::lookup_host;
use tower::BoxError;

/// Looks up the addresses of host names.
///
/// Set it with [`EurekaBuilder::resolver`](crate::EurekaBuilder::resolver). Results are cached, so
/// an implementation needs no cache. A closure that returns a future implements this trait:
///
/// ```
/// use std::net::IpAddr;
/// use tower_eureka::client::Resolved;
///
/// let resolver = |host: &str| {
///     let address = if host == "orders-1" { Some(IpAddr::from([10, 0, 0, 1])) } else { None };
///     async move { Ok::<_, std::io::Error>(Resolved::new(address)) }
/// };
/// let builder = tower_eureka::Eureka::builder().resolver(resolver);
/// ```
pub trait Resolve: Send + Sync + 'static {
    /// Looks up the addresses of a host name, which is never an IP address.
    ///
    /// An error and an empty result both mean that the name does not resolve. The future runs in a
    /// task of its own, on the runtime of the connection, and is dropped after 30 seconds.
    fn resolve(&self, host: &str) -> Resolving;
}

/// Future of a lookup by a [`Resolve`].
pub type Resolving = Pin<Box<dyn Future<Output = Result<Resolved, BoxError>> + Send>>;

/// Addresses of a host name, in the order of preference.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolved {
    pub(super) addresses: Vec<SocketAddr>,
    pub(super) ttl: Option<Duration>,
}

impl Resolved {
    /// Creates a result with these addresses, the preferred one first.
    pub fn new(addresses: impl IntoIterator<Item = IpAddr>) -> Self {
        let addresses = addresses.into_iter().map(|address| SocketAddr::new(address, 0)).collect();
        Self { addresses, ttl: None }
    }

    /// Sets the time for which the result is used: the TTL of the DNS records. Defaults to 30
    /// seconds, and is at least 1 second.
    #[must_use]
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.ttl = Some(ttl);
        self
    }
}

impl<F, T, E> Resolve for F
where
    F: Fn(&str) -> T + Send + Sync + 'static,
    T: Future<Output = Result<Resolved, E>> + Send + 'static,
    E: Into<BoxError>,
{
    fn resolve(&self, host: &str) -> Resolving {
        let resolved = self(host);
        Box::pin(async move { resolved.await.map_err(Into::into) })
    }
}

/// Resolver of the operating system, which includes `/etc/hosts`. It does not report a TTL.
#[derive(Debug)]
pub(super) struct SystemResolver;

impl Resolve for SystemResolver {
    fn resolve(&self, host: &str) -> Resolving {
        let host = host.to_owned();
        Box::pin(async move {
            let addresses = lookup_host((host, 0)).await?.collect();
            Ok(Resolved { addresses, ttl: None })
        })
    }
}

impl fmt::Debug for dyn Resolve {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Resolve")
    }
}
