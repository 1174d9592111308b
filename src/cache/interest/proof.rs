//! Proof that a server is a registry.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use tokio::time::Instant;

use super::used::{Finished, UsedRefresher};
use crate::cache::progress::FetchOutcome;
use crate::error::Error;
use crate::transport::{Full, NotFound, Origin, Part, Resource};

/// Servers that have proved to be registries.
///
/// A registry responds with 404 to an unknown application. So do proxies and other applications in
/// its place, to every request. Therefore a 404 is believed only if its server has sent a list or a
/// delta in the same refresh.
#[derive(Debug, Default)]
pub(super) struct Proof {
    /// Service URLs of the servers that have sent a list or a delta in this refresh.
    servers: BTreeSet<Arc<str>>,
    /// True if a list was requested in this refresh for the proof alone.
    was_requested: bool,
    /// True if any refresh has had a proof.
    is_lasting: bool,
}

impl Proof {
    /// Begins a refresh, without a proof.
    pub(super) fn begin(&mut self) {
        *self = Self { is_lasting: self.is_lasting, ..Self::default() };
    }

    /// Records a list or a delta of this server.
    pub(super) fn add(&mut self, origin: &Origin) {
        self.servers.insert(origin.url().clone());
        self.is_lasting = true;
    }

    /// Returns `true` if the server with this URL has proved in this refresh to be a registry.
    pub(super) fn covers(&self, server: &Arc<str>) -> bool {
        self.servers.contains(server)
    }

    /// Returns `true` if any server has ever proved to be a registry.
    pub(super) fn exists(&self) -> bool {
        self.is_lasting
    }
}

impl UsedRefresher {
    /// Fetches a small list that proves that the server is a registry.
    pub(super) async fn prove(&mut self) -> Result<(), Error> {
        self.proof.was_requested = true;
        let began = Instant::now();
        match self.transport.proof().await {
            Ok(full) => {
                self.received(began, &full);
                Ok(())
            }
            Err(error) => {
                self.report.failed(began, &error);
                Err(error)
            }
        }
    }

    /// Records a list that a server has sent.
    pub(super) fn received(&mut self, began: Instant, full: &Full) {
        self.responded();
        match full {
            Full::Unchanged(origin, _) => {
                self.proof.add(origin);
                self.report.unchanged(began, origin.url());
                self.cost.add(0);
            }
            Full::Changed(fetched) => {
                self.proof.add(&fetched.origin);
                self.report.fetched(FetchOutcome::Full, began, fetched);
                self.cost.add(fetched.received);
            }
        }
    }

    /// Decides on responses with 404, after a request for a proof if their servers have not proved
    /// to be registries.
    pub(super) async fn decide(&mut self, unproved: Vec<(Resource, Instant, NotFound)>) -> VecDeque<Finished> {
        let is_proved = unproved.iter().all(|(.., not_found)| self.proof.covers(not_found.server()));
        if !is_proved && !self.proof.was_requested {
            // The lists have an error of their own.
            let _ = self.prove().await;
        }
        let decide = |(resource, began, not_found): (_, _, NotFound)| {
            let is_registry = self.proof.covers(not_found.server());
            (resource, began, if is_registry { Ok(Part::NotFound(not_found)) } else { Err(not_found.into_error()) })
        };
        unproved.into_iter().map(decide).collect()
    }
}
