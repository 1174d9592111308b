//! Limits of a listener.

use std::time::Duration;

use crate::server::Error;

/// Limits of a [`Listener`](super::Listener), whose setters document each of them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// `None` for the default, which depends on the memory.
    pub(crate) connections: Option<usize>,
    pub(crate) connections_per_address: usize,
    pub(crate) descriptors: usize,
    /// Memory of the process in bytes, as far as it is known.
    pub(crate) memory: usize,
    pub(crate) handshake_timeout: Duration,
    pub(crate) head_timeout: Duration,
    pub(crate) body_timeout: Duration,
    pub(crate) response_timeout: Duration,
    pub(crate) idle_timeout: Duration,
    pub(crate) head_bytes: usize,
    pub(crate) headers: usize,
    pub(crate) http2: bool,
    pub(crate) http2_streams: usize,
    pub(crate) shutdown_timeout: Duration,
}

impl Limits {
    /// Number of headers that hyper reads without an allocation.
    pub(super) const DEFAULT_HEADERS: usize = 100;
    /// Maximum of the setting, since hyper allocates this many headers per connection. `http` has a
    /// hard limit of 24,576.
    pub(super) const MAX_HEADERS: usize = 10_000;
    /// Minimum size of hyper's read buffer.
    pub(super) const MIN_HEAD_BYTES: usize = 8 * 1024;
    /// Default number of connections in enough memory.
    pub(super) const DEFAULT_CONNECTIONS: usize = 20_000;
    /// Share of the memory of the process that connections take by default, and the bytes of one
    /// that has served requests.
    const MEMORY_SHARE: usize = 3;
    const CONNECTION_BYTES: usize = 40 * 1024;
    /// Maximum number of descriptors that are reserved for peers, DNS and files.
    const DESCRIPTOR_RESERVE: usize = 100;

    /// Returns an error for limits with which no request could be served.
    pub(crate) fn check(&self) -> Result<(), Error> {
        for (is_wrong, name, property, reason) in [
            (self.connections == Some(0), "max_connections", "eureka.server.limits.connections", "must not be zero"),
            (
                self.connections_per_address == 0,
                "max_connections_per_address",
                "eureka.server.limits.connections-per-address",
                "must not be zero",
            ),
            (
                self.http2_streams == 0,
                "max_http2_streams",
                "eureka.server.limits.http2-streams",
                "must not be zero; server.http2.enabled=false switches HTTP/2 off",
            ),
            (
                self.head_bytes < Self::MIN_HEAD_BYTES,
                "max_head_bytes",
                "eureka.server.limits.head-bytes",
                "must be at least 8192",
            ),
            (
                !(1..=Self::MAX_HEADERS).contains(&self.headers),
                "max_headers",
                "eureka.server.limits.headers",
                "must be from 1 to 10000",
            ),
            (
                self.handshake_timeout.is_zero(),
                "handshake_timeout",
                "eureka.server.limits.handshake-time-ms",
                "must not be zero",
            ),
            (self.head_timeout.is_zero(), "head_timeout", "eureka.server.limits.head-read-time-ms", "must not be zero"),
            (self.body_timeout.is_zero(), "body_timeout", "eureka.server.limits.body-read-time-ms", "must not be zero"),
            (
                self.response_timeout.is_zero(),
                "response_timeout",
                "eureka.server.limits.response-write-time-ms",
                "must not be zero",
            ),
            (self.idle_timeout.is_zero(), "idle_timeout", "eureka.server.limits.idle-time-ms", "must not be zero"),
        ] {
            if is_wrong {
                return Err(Error::setting_of(name, property, reason));
            }
        }
        Ok(())
    }

    /// Returns the number of connections for which the memory has room beside the registry, bodies
    /// and responses.
    pub(super) fn connections_in_memory(&self) -> usize {
        self.memory / Self::MEMORY_SHARE / Self::CONNECTION_BYTES
    }

    /// Returns the maximum number of connections of the setting, or else of the memory.
    pub(super) fn wanted_connections(&self) -> usize {
        self.connections.unwrap_or_else(|| Self::DEFAULT_CONNECTIONS.min(self.connections_in_memory()))
    }

    /// Returns the maximum number of connections that leaves the reserve of descriptors.
    pub(crate) fn effective_connections(&self) -> usize {
        let reserve = Self::DESCRIPTOR_RESERVE.min(self.descriptors / 4);
        self.wanted_connections().min(self.descriptors - reserve).max(1)
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: None,
            connections_per_address: usize::MAX,
            descriptors: usize::MAX,
            memory: usize::MAX,
            handshake_timeout: Duration::from_secs(10),
            head_timeout: Duration::from_secs(10),
            body_timeout: Duration::from_secs(30),
            response_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(90),
            head_bytes: 32 * 1024,
            headers: Self::DEFAULT_HEADERS,
            http2: true,
            http2_streams: 16,
            shutdown_timeout: Duration::from_secs(5),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn effective_connections_leave_a_reserve_of_descriptors() {
        for (connections, descriptors, effective) in [
            (None, usize::MAX, 20_000),
            (None, 1_024, 924),
            (None, 20_000, 19_900),
            (Some(500), 1_024, 500),
            (None, 64, 48),
            (None, 0, 1),
            (Some(0), usize::MAX, 1),
        ] {
            let limits = Limits { connections, descriptors, ..Limits::default() };
            assert_eq!(limits.effective_connections(), effective, "{connections:?} {descriptors}");
        }
    }

    #[test]
    fn limits_of_zero_with_which_no_request_could_be_served_are_refused() {
        let default = Limits::default();
        assert!(default.check().is_ok());
        for limits in [
            Limits { connections: Some(0), ..default },
            Limits { connections_per_address: 0, ..default },
            Limits { http2_streams: 0, ..default },
            Limits { headers: 0, ..default },
        ] {
            assert!(limits.check().is_err(), "{limits:?}");
        }
    }

    #[test]
    fn connections_fit_into_the_memory_unless_their_number_is_set() {
        for (connections, memory_mib, effective) in [
            (None, 0, 1),
            (None, 128, 1_092),
            (None, 512, 4_369),
            (None, 4_096, 20_000),
            (Some(100), 512, 100),
            (Some(20_000), 512, 20_000),
            (Some(67_000), 4_096, 67_000),
        ] {
            let limits = Limits { connections, memory: memory_mib << 20, ..Limits::default() };
            assert_eq!(limits.effective_connections(), effective, "{connections:?} {memory_mib}");
        }
    }
}
