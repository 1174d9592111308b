//! Choice between the names in use and the whole registry.

use std::collections::{BTreeMap, VecDeque};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::cost::Sizes;
use super::list::Earlier;
use super::used::{Publish, UsedRefresher, Whole};
use crate::cache::mirror::is_among;
use crate::cache::refresher::Refresher;
use crate::cache::snapshot::Snapshot;
use crate::error::Error;
use crate::model::{Application, Applications};
use crate::panics::catch_panic;
use crate::time::Moment;

impl UsedRefresher {
    /// Fetches the whole registry from now on if that is cheaper.
    pub(super) async fn consider_whole(&mut self) {
        if !self.uses_deltas() {
            return;
        }
        if !self.may_switch() {
            return self.cost.restart();
        }
        // With `ETag`s no delta was fetched, which tells the size of the registry.
        if self.refusals.are_deltas_off() || !matches!(self.fetch_delta().await, Ok(Some(_))) {
            return self.cost.restart();
        }
        let sizes = self.lists.values().fold(Sizes::default(), |sum, list| Sizes {
            instances: sum.instances + list.instances().count() as u64,
            received: sum.received + list.received,
            is_compressed: sum.is_compressed || list.is_compressed,
        });
        let names = self.interests.len() as u64;
        let Some(switch) = self.cost.is_whole_cheaper(names, sizes, self.config.fetch_interval) else { return };
        let mut refresher = Refresher::new(self.transport.clone(), &self.config).without_race();
        // It begins with the instances in use, so that it holds those of which it has no trace.
        refresher.restore(list_of(self.lists.values().flat_map(|list| list.snapshot.applications()))).await;
        if let (Ok(snapshot), _) = refresher.next().await {
            if refresher.held() > 0 {
                return self.cost.restart();
            }
            tracing::info!(
                names,
                bytes_of_names = switch.names,
                bytes_of_registry = switch.whole,
                "names in use cost more than the whole registry, fetching the whole registry"
            );
            self.whole = Some(Whole { refresher, snapshot, at: Moment::now() });
            self.lists.clear();
            self.cost.restart();
        }
    }

    /// Returns `true` if all instances in use are those of the server. What is held would be lost,
    /// and the size of a registry that lists nothing tells nothing.
    fn may_switch(&self) -> bool {
        self.held() == 0 && self.lists_any()
    }

    /// Refreshes while the whole registry is fetched. New names need no request.
    pub(super) async fn next_whole(
        &mut self,
        is_due: bool,
        publish: &impl Publish,
    ) -> (Result<Snapshot, Error>, Duration) {
        let Some(whole) = &mut self.whole else { return (Ok(self.snapshot()), Duration::ZERO) };
        let mut result = Ok(());
        if is_due {
            let (refreshed, wait) = {
                let mut refresh = pin!(whole.refresher.next());
                loop {
                    tokio::select! {
                        refreshed = &mut refresh => break refreshed,
                        // The instances of a new name are known already.
                        () = self.interests.fresh() => {
                            publish(self.merged.of_whole(&whole.snapshot, self.interests.lookups()));
                        }
                    }
                }
            };
            whole.refresher.report().fetches.iter().for_each(|fetch| self.cost.add(fetch.received));
            self.next_at = Instant::now() + wait;
            match refreshed {
                Ok(snapshot) => {
                    (whole.snapshot, whole.at) = (snapshot, Moment::now());
                    if self.cost.refreshed() {
                        self.consider_names().await;
                    }
                }
                Err(error) => result = Err(error),
            }
        }
        match (&result, &self.whole) {
            (Err(error), _) => self.mark_failed(error),
            (Ok(()), Some(whole)) => self.interests.update_all(|name| {
                // Without a request, nothing is known about the registry but its last list.
                if is_due {
                    name.error = None;
                }
                (name.fetched, name.is_empty) = (Some(whole.at), false);
            }),
            // The fetch of the names has marked them.
            (Ok(()), None) => {}
        }
        let wait = self.next_at.saturating_duration_since(Instant::now());
        (result.map(|()| self.snapshot()), wait)
    }

    /// Fetches the names from now on if that is cheaper.
    async fn consider_names(&mut self) {
        let names = self.interests.len() as u64;
        if !self.may_switch() {
            return self.cost.restart();
        }
        let Some(switch) = self.cost.are_names_cheaper(names) else { return };
        let Some(whole) = self.whole.take() else { return };
        self.last_refresh = Instant::now();
        // The lists begin with the instances in use, so that missing ones are held.
        let fixed = &self.config.offline.instances;
        let known = whole.snapshot.applications().filter(|application| !is_among(fixed, application));
        let known = known.map(|application| Earlier { application: application.clone(), fetched: whole.at }).collect();
        let saved = std::mem::replace(&mut self.restored, known);
        // Nothing is published until all names were fetched.
        let fetched = catch_panic(self.fetch(VecDeque::new(), &|_| {})).await;
        self.restored = saved;
        if fetched.is_ok_and(|fetched| fetched.is_ok()) && self.partial.is_none() && self.held() == 0 {
            tracing::info!(
                names,
                bytes_of_names = switch.names,
                bytes_of_registry = switch.whole,
                "whole registry costs more than the names in use, fetching the names in use"
            );
            self.cost.restart();
        } else {
            (self.whole, self.lists) = (Some(whole), BTreeMap::new());
        }
    }
}

/// Returns a list of these applications.
fn list_of<'a>(applications: impl Iterator<Item = &'a Arc<Application>>) -> Applications {
    Applications { version: None, hash: None, applications: applications.cloned().collect() }
}
