//! Options of the connections to instances: address, TLS, number and lifetime.

use std::sync::Arc;
use std::time::Duration;

use super::CallOptions;
use crate::client::address::ServerNameOf;
use crate::model::Instance;

/// Part of an instance's record that is called.
///
/// A record contains a host name, which may be an IP address, and an IP address. With TLS, the
/// certificate must be valid for the host of the URL; see [`CallOptions::tls_server_name`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum InstanceAddress {
    /// The host name, as Spring callers do. An instance without one is called at its IP address.
    Host,
    /// The IP address. An instance without one is called at its host name.
    Ip,
    /// The host name. If it does not resolve, a connection is established to the IP address
    /// instead, and the first one of each application is logged as a warning.
    ///
    /// The URL, the `host` header and the name in the certificate stay those of the host name. A
    /// host that resolves and refuses connections is not called at its IP address. A loopback
    /// address is not used instead of a host name, since it is an address of the caller.
    ///
    /// Below an [`EurekaLayer`](crate::client::EurekaLayer), whose service resolves names by
    /// itself, this is the same as [`Host`](Self::Host).
    #[default]
    HostOrIp,
}

/// Limits of the connections to one instance, and of the bodies that they carry.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(in crate::client) struct Limits {
    pub(in crate::client) idle: Duration,
    pub(in crate::client) max_age: Option<Duration>,
    pub(in crate::client) http1: Option<usize>,
    pub(in crate::client) body: Option<Duration>,
}

impl Default for Limits {
    fn default() -> Self {
        Self { idle: Duration::from_secs(90), max_age: None, http1: None, body: None }
    }
}

impl CallOptions {
    /// Sets which part of its record an instance is called at. Defaults to
    /// [`InstanceAddress::HostOrIp`].
    ///
    /// Names are looked up by the operating system, or by
    /// [`EurekaBuilder::resolver`](crate::EurekaBuilder::resolver). A result is used for its TTL,
    /// or for 30 seconds if that is unknown, and is discarded earlier if no address can be
    /// connected to. If a name has several addresses, all of them are tried, each 250 milliseconds
    /// after the one before (RFC 8305).
    ///
    /// An open connection is closed after its calls once its name resolves to other addresses for
    /// 30 to 60 seconds.
    pub fn address(mut self, address: InstanceAddress) -> Self {
        self.address = address;
        self
    }

    /// Sets whether the IPv6 addresses of a name are tried before its IPv4 addresses (`true`), or
    /// after them (`false`). Defaults to the order of the resolver.
    ///
    /// Has no effect below an [`EurekaLayer`](crate::client::EurekaLayer).
    pub fn prefer_ipv6(mut self, prefer: bool) -> Self {
        self.prefer_ipv6 = Some(prefer);
        self
    }

    /// Sets the name for which the certificate of an instance must be valid. Defaults to the host
    /// of its URL, also for instances for which the function returns `None`.
    ///
    /// Instances that register by IP address rarely have a certificate for it:
    ///
    /// ```
    /// use tower_eureka::client::CallOptions;
    ///
    /// let options = CallOptions::new()
    ///     .tls_server_name(|instance| instance.metadata().get("certificate-name").map(str::to_owned));
    /// ```
    ///
    /// The name is sent to the server as well (SNI). Anyone who can register an instance chooses
    /// its metadata, and thus the name. A name that is invalid fails the connection. The function
    /// is called when the record of an instance changes, and should return the same name for the
    /// same record.
    ///
    /// Has no effect below an [`EurekaLayer`](crate::client::EurekaLayer).
    pub fn tls_server_name<N: AsRef<str>>(
        mut self,
        name: impl Fn(&Instance) -> Option<N> + Send + Sync + 'static,
    ) -> Self {
        let name = move |instance: &Instance| name(instance).map(|name| Arc::from(name.as_ref()));
        self.server_name = Some(ServerNameOf(Arc::new(name)));
        self
    }

    /// Sets the time after which an idle connection is closed. Defaults to 90 seconds.
    ///
    /// Connections are checked at most every 30 seconds, so one may be closed up to a third of the
    /// time earlier. Of the HTTP/2 connections to an instance, one stays open.
    ///
    /// Has no effect below an [`EurekaLayer`](crate::client::EurekaLayer).
    pub fn connection_idle_timeout(mut self, timeout: Duration) -> Self {
        self.connections.idle = timeout;
        self
    }

    /// Sets the maximum age of a connection. Defaults to no limit.
    ///
    /// An older connection is closed after its calls, and the next call establishes a new one. Ages
    /// vary by a tenth, so that connections are not replaced at the same time. Set it if instances
    /// are behind a load balancer, which distributes connections.
    ///
    /// Has no effect below an [`EurekaLayer`](crate::client::EurekaLayer).
    pub fn connection_max_age(mut self, age: Duration) -> Self {
        self.connections.max_age = Some(age);
        self
    }

    /// Sets the maximum number of HTTP/1.1 connections to one instance, each of which carries one
    /// call at a time. It is at least 1. Defaults to no limit.
    ///
    /// A call that finds all connections in use waits for the
    /// [connect timeout](crate::EurekaBuilder::instance_connect_timeout), and is then sent to
    /// another instance. A connection that was upgraded, such as a WebSocket, is not counted.
    ///
    /// Has no effect below an [`EurekaLayer`](crate::client::EurekaLayer).
    pub fn http1_connections(mut self, connections: usize) -> Self {
        self.connections.http1 = Some(connections.max(1));
        self
    }

    /// Sets the maximum time without progress while a response body is read. Defaults to no limit.
    ///
    /// The time starts when the caller reads and no data is there, so that a slow caller is no
    /// fault of the instance. When it has passed, the body ends with an error, which counts as a
    /// failure of the instance, and its connection or stream is closed. Do not set it for streams
    /// that may be silent for long, such as server-sent events.
    ///
    /// Has no effect below an [`EurekaLayer`](crate::client::EurekaLayer).
    pub fn body_timeout(mut self, timeout: Duration) -> Self {
        self.connections.body = Some(timeout);
        self
    }
}
