//! Choice between the names in use and the whole registry.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use tokio::time::Instant;

use super::cost::Sizes;
use super::used::{UsedRefresher, Whole};
use crate::cache::refresher::Refresher;
use crate::cache::snapshot::Snapshot;
use crate::error::Error;
use crate::panics::catch_panic;
use crate::time::Moment;

impl UsedRefresher {
    /// Fetches the whole registry from now on if that is cheaper.
    pub(super) async fn consider_whole(&mut self) {
        if !self.uses_deltas() {
            return;
        }
        // With `ETag`s no delta was fetched, which tells the size of the registry.
        if self.without_deltas > 0 || self.fetch_delta().await.is_err() {
            return self.cost.restart();
        }
        let sizes = self.lists.values().fold(Sizes::default(), |sum, list| Sizes {
            instances: sum.instances + list.instances().count() as u64,
            received: sum.received + list.received,
            is_compressed: sum.is_compressed || list.is_compressed,
        });
        let names = self.interests.len() as u64;
        let Some(switch) = self.cost.is_whole_cheaper(names, sizes, self.config.fetch_interval) else { return };
        let mut refresher = Refresher::new(self.transport.clone(), &self.config);
        if let (Ok(snapshot), _) = refresher.next().await {
            tracing::info!(
                names,
                bytes_of_names = switch.names,
                bytes_of_registry = switch.whole,
                "names in use cost more than the whole registry, fetching the whole registry"
            );
            self.whole = Some(Whole { refresher, snapshot });
            self.lists.clear();
            self.cost.restart();
        }
    }

    /// Refreshes while the whole registry is fetched. New names need no request.
    pub(super) async fn next_whole(&mut self, is_due: bool) -> (Result<Snapshot, Error>, Duration) {
        let Some(whole) = &mut self.whole else { return (Ok(self.snapshot()), Duration::ZERO) };
        let mut result = Ok(());
        if is_due {
            let (refreshed, wait) = whole.refresher.next().await;
            whole.refresher.report().fetches.iter().for_each(|fetch| self.cost.add(fetch.received));
            self.next_at = Instant::now() + wait;
            match refreshed {
                Ok(snapshot) => {
                    whole.snapshot = snapshot;
                    if self.cost.refreshed() {
                        self.consider_names().await;
                    }
                }
                Err(error) => result = Err(error),
            }
        }
        match (&result, &self.whole) {
            (Err(error), _) => self.mark_failed(error),
            (Ok(()), Some(_)) => {
                for (lookup, _) in self.interests.names() {
                    self.interests.update(&lookup, |name| (name.fetched, name.error) = (Some(Moment::now()), None));
                }
            }
            // The fetch of the names has marked them.
            (Ok(()), None) => {}
        }
        let wait = self.next_at.saturating_duration_since(Instant::now());
        (result.map(|()| self.snapshot()), wait)
    }

    /// Fetches the names from now on if that is cheaper.
    async fn consider_names(&mut self) {
        let names = self.interests.len() as u64;
        let Some(switch) = self.cost.are_names_cheaper(names) else { return };
        let whole = self.whole.take();
        self.last_refresh = Instant::now();
        // Nothing is published until all names were fetched.
        if catch_panic(self.fetch(VecDeque::new(), &|_| {})).await.is_ok_and(|fetched| fetched.is_ok()) {
            tracing::info!(
                names,
                bytes_of_names = switch.names,
                bytes_of_registry = switch.whole,
                "whole registry costs more than the names in use, fetching the names in use"
            );
            self.cost.restart();
        } else {
            (self.whole, self.lists) = (whole, BTreeMap::new());
        }
    }
}
