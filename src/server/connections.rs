//! Counters of the connections of all listeners of a server, and expiry of their certificates,
//! which the metrics show.

#[cfg(all(feature = "tls", feature = "access"))]
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};

#[cfg(all(feature = "tls", feature = "access"))]
use crate::sync::Mutex;

/// Bytes of a request body that HTTP/2 receives before the service reads them: its own default.
/// That of hyper is 1 MiB.
pub(in crate::server) const STREAM_WINDOW: u32 = 65_535;

/// Numbers of connections, and expiry of certificates. Shared by all listeners of a server.
#[derive(Debug, Default)]
pub(in crate::server) struct ConnectionCounts {
    open: AtomicUsize,
    accepted: AtomicU64,
    /// By position in [`REFUSED`](Self::REFUSED).
    refused: [AtomicU64; Self::REFUSED.len()],
    /// By position in [`CLOSED`](Self::CLOSED).
    closed: [AtomicU64; Self::CLOSED.len()],
    /// Expiry of the certificates by listener and use.
    #[cfg(all(feature = "tls", feature = "access"))]
    certificates: Mutex<BTreeMap<(String, &'static str), i64>>,
}

/// Reason for which a connection was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::server) enum RefusedFor {
    /// All connections are in use.
    Full,
    /// The address has reached its share.
    Address,
    /// The system refused it, usually for lack of file descriptors.
    System,
}

/// Reason for which the listener closed a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::server) enum ClosedFor {
    /// It was idle, and another one needed its place.
    Other,
    /// Its client reads responses too slowly.
    Slow,
    /// Its client does not speak HTTP, or its head is too large.
    Unreadable,
    /// The TLS handshake failed.
    #[cfg(feature = "tls")]
    Handshake,
}

/// Counts an open connection until it is dropped.
#[derive(Debug)]
pub(in crate::server) struct OpenConnection(Arc<ConnectionCounts>);

impl ConnectionCounts {
    const REFUSED: [&str; 3] = ["full", "address", "system"];
    const CLOSED: [&str; 4] = ["room", "slow", "unreadable", "handshake"];

    pub(in crate::server) fn opened(self: &Arc<Self>) -> OpenConnection {
        self.accepted.fetch_add(1, Relaxed);
        self.open.fetch_add(1, Relaxed);
        OpenConnection(self.clone())
    }

    pub(in crate::server) fn add_refused(&self, reason: RefusedFor) {
        self.refused[reason as usize].fetch_add(1, Relaxed);
    }

    pub(in crate::server) fn add_closed(&self, reason: ClosedFor, number: usize) {
        self.closed[reason as usize].fetch_add(number as u64, Relaxed);
    }

    /// Sets the earliest expiry of the certificates of a listener with this use, as a Unix time in
    /// seconds.
    #[cfg(all(feature = "tls", feature = "access"))]
    pub(in crate::server) fn set_certificate(&self, listener: &str, certificate: &'static str, not_after: Option<i64>) {
        let (mut certificates, key) = (self.certificates.lock(), (listener.to_owned(), certificate));
        match not_after {
            Some(not_after) => certificates.insert(key, not_after),
            None => certificates.remove(&key),
        };
    }
}

#[cfg(feature = "prometheus")]
impl ConnectionCounts {
    pub(in crate::server) fn open(&self) -> usize {
        self.open.load(Relaxed)
    }

    pub(in crate::server) fn accepted(&self) -> u64 {
        self.accepted.load(Relaxed)
    }

    /// Returns the listener, the use and the expiry of the certificates.
    pub(in crate::server) fn certificates(&self) -> Vec<(String, &'static str, i64)> {
        #[cfg(all(feature = "tls", feature = "access"))]
        return self
            .certificates
            .lock()
            .iter()
            .map(|((listener, kind), time)| (listener.clone(), *kind, *time))
            .collect();
        #[cfg(not(all(feature = "tls", feature = "access")))]
        Vec::new()
    }

    /// Returns the numbers of refused connections by reason.
    pub(in crate::server) fn refused(&self) -> impl Iterator<Item = (&'static str, u64)> {
        Self::REFUSED.into_iter().zip(&self.refused).map(|(reason, number)| (reason, number.load(Relaxed)))
    }

    /// Returns the numbers of connections that a listener closed, by reason.
    pub(in crate::server) fn closed(&self) -> impl Iterator<Item = (&'static str, u64)> {
        Self::CLOSED.into_iter().zip(&self.closed).map(|(reason, number)| (reason, number.load(Relaxed)))
    }
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Relaxed);
    }
}
