//! Listener that withstands slow and hostile peers: slow loris, crowds of idle connections, endless
//! heads and bodies, and clients that do not read their responses.
//!
//! ```text
//!  accept ─▶ ConnectionTable: a permit ─▶ TLS ─▶ TrackedStream ─▶ hyper ─▶ TrackedService ─▶ Router
//!            (closes idle connections)                │ bytes moved           │ request begins,
//!                                                     ▼                       ▼ response is written
//!                                                 Activity ◀── read after each poll of the connection
//! ```
//!
//! Each connection has one timer. It is reset only when a deadline has moved to an earlier time or
//! when it fires, so that a busy connection pays two clock readings per request. Bodies are timed
//! only while a handler waits for them.

mod accept;
mod activity;
mod body;
mod connection;
#[cfg(all(feature = "tls", feature = "access"))]
mod expiry;
mod limits;
mod log;
mod response;
mod stream;
mod table;
#[cfg(feature = "tls")]
mod tls;
#[cfg(not(feature = "tls"))]
#[path = "no_tls.rs"]
mod tls;
mod waiting;

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::response::Response;
use http::Request;
use socket2::SockRef;
use tokio::net::TcpListener;
use tower::Service;

use self::accept::AcceptLoop;
pub(crate) use self::limits::Limits;
pub(super) use self::tls::Acceptor;
#[cfg(feature = "tls")]
pub use self::tls::{ClientAuth, ServerTls};
#[cfg(feature = "tls")]
use super::Error;
use super::connections::ConnectionCounts;
use super::memory;
use super::unsent::Unsent;

/// Maximum number of established connections that wait to be accepted, unless the system's limit is
/// lower. tokio's listeners have 128 on Linux.
///
/// Beyond it the system drops the first packet of a connection, which the client repeats after a
/// second.
const BACKLOG: i32 = 1024;

/// Serves a router, or any other HTTP service, over HTTP/1.1 and HTTP/2 on a TCP listener, within
/// limits.
///
/// `axum::serve` has no such limits, and suits a server behind a proxy that has them. Each limit
/// has a setter here and a default that no client of a registry reaches. Each request has its
/// sender's address in axum's `ConnectInfo<SocketAddr>`. Up to 1,024 connections wait to be
/// accepted, if the system allows it (`net.core.somaxconn` on Linux).
///
/// ```no_run
/// use std::time::Duration;
///
/// use axum::Router;
/// use tokio::net::TcpListener;
/// use tower_eureka::EurekaServer;
/// use tower_eureka::server::Listener;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let registry = EurekaServer::builder().build()?;
/// let app = Router::new().nest("/eureka", registry.router());
/// Listener::new(TcpListener::bind("127.0.0.1:8761").await?)
///     .max_connections(1_000)
///     .idle_timeout(Duration::from_secs(120))
///     .serve(app, async { drop(tokio::signal::ctrl_c().await) })
///     .await;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
#[must_use = "a listener does nothing until `serve`"]
pub struct Listener {
    listener: TcpListener,
    tls: Option<Acceptor>,
    limits: Limits,
    unsent: Arc<Unsent>,
    counts: Arc<ConnectionCounts>,
}

impl Listener {
    /// Creates a listener with the default limits. It has no budget of unsent bytes, since the
    /// budget belongs to a registry: see [`EurekaServer::listener`](crate::EurekaServer::listener).
    pub fn new(listener: TcpListener) -> Self {
        Self::with_limits(listener, None, Limits::default(), Arc::new(Unsent::new(usize::MAX)), Arc::default())
    }

    pub(super) fn with_limits(
        listener: TcpListener,
        tls: Option<Acceptor>,
        limits: Limits,
        unsent: Arc<Unsent>,
        counts: Arc<ConnectionCounts>,
    ) -> Self {
        // Systems allow this for a socket that listens already. One that refuses keeps its queue.
        let _ = SockRef::from(&listener).listen(BACKLOG);
        let memory = memory::limit().map_or(usize::MAX, |(bytes, _)| bytes);
        let limits = Limits { memory, ..limits };
        Self { listener, tls, limits, unsent, counts }
    }

    /// Serves HTTPS only. Defaults to plain HTTP, or to the TLS of the registry, see
    /// [`EurekaServerBuilder::tls`](crate::server::EurekaServerBuilder::tls).
    ///
    /// A client that speaks plain HTTP gets 400 with a text that says so.
    ///
    /// # Errors
    /// Fails if a file cannot be read or is unusable. Reading takes some milliseconds, in which the
    /// thread is blocked.
    #[cfg(feature = "tls")]
    #[cfg_attr(docsrs, doc(cfg(feature = "tls")))]
    pub fn tls(mut self, tls: ServerTls) -> Result<Self, Error> {
        self.tls = Some(Acceptor::new(tls.into_files()).map_err(Error::tls)?);
        Ok(self)
    }

    /// Serves plain HTTP, also if the registry has TLS settings.
    pub fn without_tls(mut self) -> Self {
        self.tls = None;
        self
    }

    /// Sets the maximum number of open connections. Zero counts as one. Defaults to 20,000, or to
    /// what a third of the memory of the process has room for, with 40 KiB for each connection, if
    /// that is less. A number that exceeds this is used, with a warning.
    ///
    /// At the limit, a new connection replaces an idle one: the longest idle connection of the
    /// address with the most connections. It replaces one of an address with fewer connections than
    /// its own only after a second without a byte. While no connection is idle, it replaces one
    /// whose request body or response has made no progress for a second: first those of the address
    /// with the most connections, last those of its own address, and those of other addresses only
    /// if they have at least two connections more than its own. A connection whose handler is
    /// running is never closed.
    ///
    /// A new connection that can replace none waits for up to a second and is then closed. Others
    /// are accepted meanwhile, and those of addresses with fewer connections come first. At most 64
    /// wait, or a quarter of the limit if that is less. Beyond it, the newest one of the address
    /// with the most connections is closed.
    ///
    /// The process needs a file descriptor for each connection, see
    /// [`descriptors`](Self::descriptors).
    pub fn max_connections(mut self, connections: usize) -> Self {
        self.limits.connections = Some(connections);
        self
    }

    /// Sets the maximum number of open connections from one address. Zero counts as one. Defaults
    /// to no limit: an address may have all connections.
    ///
    /// At the limit, a new connection replaces the longest idle one of the same address, or is
    /// closed if none is idle. An IPv6 address counts by its first 64 bits. All clients behind one
    /// proxy or NAT share one address.
    pub fn max_connections_per_address(mut self, connections: usize) -> Self {
        self.limits.connections_per_address = connections;
        self
    }

    /// Sets the number of file descriptors that the process may have open. Defaults to no limit:
    /// the listener assumes that there are enough, and lowers its limit when the system first
    /// refuses a connection.
    ///
    /// The listener reserves 100 descriptors, or a quarter of them if that is less, for connections
    /// to peers, DNS and files. It accepts fewer connections than
    /// [`max_connections`](Self::max_connections) if the remaining descriptors are fewer.
    pub fn descriptors(mut self, soft_limit: usize) -> Self {
        self.limits.descriptors = soft_limit;
        self
    }

    /// Enables HTTP/2 in addition to HTTP/1.1. Defaults to `true`.
    pub fn http2(mut self, enabled: bool) -> Self {
        self.limits.http2 = enabled;
        self
    }

    /// Sets the maximum number of concurrent requests on one HTTP/2 connection. Defaults to 16.
    /// Zero counts as one.
    ///
    /// The limit is part of the HTTP/2 settings, so that clients queue further requests.
    pub fn max_http2_streams(mut self, streams: usize) -> Self {
        self.limits.http2_streams = streams;
        self
    }

    /// Sets the maximum time of a TLS handshake. Defaults to 10 seconds.
    ///
    /// Then the connection is closed. A connection counts against the limits of connections from
    /// the moment at which it is accepted. During the handshake it counts as idle, so that a new
    /// connection may replace it.
    pub fn handshake_timeout(mut self, timeout: Duration) -> Self {
        self.limits.handshake_timeout = timeout;
        self
    }

    /// Sets the maximum time from the first byte of a request to the end of its headers. Defaults
    /// to 10 seconds.
    ///
    /// Then the connection is closed. It does not apply to HTTP/2 connections, which only
    /// [`idle_timeout`](Self::idle_timeout) bounds.
    pub fn head_timeout(mut self, timeout: Duration) -> Self {
        self.limits.head_timeout = timeout;
        self
    }

    /// Sets the maximum time for a request's body, from the moment at which the handler first waits
    /// for it. Defaults to 30 seconds.
    ///
    /// Then the body fails with [`io::ErrorKind::TimedOut`], the registry responds with 408, and
    /// the connection is closed. A registry limits its bodies to
    /// `eureka.server.limits.body-read-time-ms` by itself, so a longer time has no effect on them.
    pub fn body_timeout(mut self, timeout: Duration) -> Self {
        self.limits.body_timeout = timeout;
        self
    }

    /// Sets the maximum time in which a client reads less than 64 KiB of its responses, or less
    /// than the rest of them. Defaults to 10 seconds.
    ///
    /// Then the connection is closed. So the length of a response bounds how long a slow client
    /// keeps it in memory. On an HTTP/2 connection, all responses count together. On an HTTP/1
    /// connection, a response of at most 64 KiB is bounded by [`idle_timeout`](Self::idle_timeout)
    /// alone.
    ///
    /// While the budget of [`Limits::response_bytes`](crate::server::Limits::response_bytes)
    /// is exhausted, a connection is also closed if its client has read less than 1 MB a second for
    /// a quarter of this time.
    pub fn response_timeout(mut self, timeout: Duration) -> Self {
        self.limits.response_timeout = timeout;
        self
    }

    /// Sets the maximum time in which no byte moves on a connection while no handler is running for
    /// it. Defaults to 90 seconds, since heartbeats and fetches come every 30 seconds.
    ///
    /// Then the connection is closed. This bounds keep-alive between requests, new connections
    /// without a request, and clients that do not read their responses. On an HTTP/2 connection,
    /// only requests and responses count, not other frames such as pings.
    pub fn idle_timeout(mut self, timeout: Duration) -> Self {
        self.limits.idle_timeout = timeout;
        self
    }

    /// Sets the maximum size of a request's line and headers together, in bytes. Defaults to 32
    /// KiB, and is at least 8 KiB. The response to a larger head is 431.
    pub fn max_head_bytes(mut self, bytes: usize) -> Self {
        self.limits.head_bytes = bytes;
        self
    }

    /// Sets the maximum number of headers of a request, from 1 to 10,000. Defaults to 100. The
    /// response to more headers is 431.
    pub fn max_headers(mut self, headers: usize) -> Self {
        self.limits.headers = headers;
        self
    }

    /// Sets the maximum time for requests in flight after the shutdown signal. Defaults to 5
    /// seconds. Idle connections are closed immediately.
    pub fn shutdown_timeout(mut self, timeout: Duration) -> Self {
        self.limits.shutdown_timeout = timeout;
        self
    }

    /// Returns the local address of the listener.
    ///
    /// # Errors
    /// Fails if the system does not know the address.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves until `shutdown` completes. Then waits for the requests in flight, for at most the
    /// [`shutdown_timeout`](Self::shutdown_timeout).
    ///
    /// # Cancel safety
    /// Dropping the future closes the listener and all connections immediately.
    pub async fn serve<S>(self, app: S, shutdown: impl Future<Output = ()>)
    where
        S: Service<Request<Body>, Response = Response, Error = Infallible, Future: Send> + Clone + Send + 'static,
    {
        AcceptLoop::new(self.listener, self.tls, self.limits, self.unsent, self.counts, app).run(shutdown).await;
    }
}
