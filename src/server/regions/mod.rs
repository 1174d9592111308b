//! Other regions: a read-only copy of the registry of each, and their union with this registry. See
//! `docs/server.md`, "Regions".
//!
//! ```text
//!  server of the region ── full, delta ──▶ Refresher ──▶ Region: a Listing, as the registry has
//!                                                          │ one application, one instance
//!                                                          ▼
//!  Registry: its Listing ─────────────────▶ Union of a set of regions ──▶ response cache
//! ```
//!
//! Copies are only shown. Their instances have no lease here, are not counted or evicted, and are
//! not replicated. Each region has a task of its own, so one that does not respond does not delay
//! the others. Its last known state stays.
//!
//! | module | content |
//! |---|---|
//! | `region` | one region: its copy, and the task that refreshes it |
//! | `union` | full list and delta of several registries together |
//! | `merged` | cache of the applications that are in several regions |

mod merged;
mod region;
mod union;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::Instant;

use self::merged::Merged;
use self::region::Region;
use self::union::Source;
pub(in crate::server) use self::union::Union;
use super::Error;
use super::outbound::Outbound;
use super::registry::{Listing, Registry, Settings, Version};
use super::settings::Regions;
use super::supervise::supervise;
use super::view::{AppView, RegionSet};
use crate::config::{ClientConfig, ServiceUrl};
use crate::model::Instance;
use crate::time::Clock;
use crate::transport::Transport;

/// Minimum of the maximum length of a region's list.
const MIN_BODY_LIMIT: usize = 16 << 20;
/// Maximum time that the lists of a starting server wait for the first fetch of each region.
const FIRST_FETCH_TIMEOUT: Duration = Duration::from_secs(10);

/// Other regions that this server shows.
#[derive(Debug)]
pub(in crate::server) struct RemoteRegions {
    /// Sorted by name, at most [`RegionSet::MAX`].
    regions: Vec<Arc<Region>>,
    /// Set if clients that name no regions see all of them.
    fallback: bool,
    merged: Merged,
    started: Instant,
    attempted: AtomicBool,
}

impl RemoteRegions {
    /// Creates the copies of all regions, or `None` if there are no other regions.
    ///
    /// # Errors
    /// Fails if a setting is unusable, or a region has an `https` URL and TLS cannot be used.
    pub(in crate::server) fn new(
        settings: &Regions,
        outbound: &Outbound,
        limits: &Settings,
    ) -> Result<Option<Arc<Self>>, Error> {
        settings.check(RegionSet::MAX)?;
        if let Some(url) = settings.urls.values().flatten().find(|url| url.is_secure()) {
            outbound.check_tls().map_err(|reason| Error::no_tls(url.as_str(), &reason))?;
        }
        // A list of what fits into the copy is shorter.
        let body_limit = limits.registry_size_limit.saturating_mul(2).max(MIN_BODY_LIMIT);
        let stack = outbound.stack(settings.connect_timeout, settings.read_timeout).with_max_body(body_limit);
        let config =
            ClientConfig { fetch_interval: settings.interval, delta: settings.delta, ..ClientConfig::default() };
        let region = |(name, urls): (&String, &Vec<ServiceUrl>)| {
            let transport = Transport::new(urls.clone(), stack.clone()).for_server();
            let transport = transport.without_other_regions().with_unfiltered_fallback();
            Arc::new(Region::new(name.as_str().into(), settings.whitelist_of(name), transport, config.clone(), limits))
        };
        let regions: Vec<_> = settings.urls.iter().map(region).collect();
        let (fallback, merged) = (settings.fallback, Merged::default());
        let (started, attempted) = (Instant::now(), AtomicBool::new(false));
        Ok((!regions.is_empty()).then(|| Arc::new(Self { regions, fallback, merged, started, attempted })))
    }

    /// Starts the tasks that copy the regions. Dropping the tasks ends them. The delta shows a
    /// change of a region for as long as one of this registry.
    pub(in crate::server) fn start(
        &self,
        registry: &Arc<Registry>,
        clock: Clock,
        delta_retention_ms: i64,
    ) -> JoinSet<()> {
        let mut tasks = JoinSet::new();
        for region in &self.regions {
            let (region, registry) = (region.clone(), registry.clone());
            tasks.spawn(async move {
                let start = || region.clone().run(registry.clone(), clock, delta_retention_ms);
                supervise("copy of a region", start).await;
            });
        }
        tasks
    }

    /// Returns true once a fetch of each region was attempted, or the time for it is over. Before,
    /// lists would lack instances that they show a moment later.
    pub(in crate::server) fn are_attempted(&self) -> bool {
        let attempted = || self.regions.iter().all(|region| region.is_attempted());
        self.attempted.load(Ordering::Relaxed) || {
            let now = attempted() || self.started.elapsed() >= FIRST_FETCH_TIMEOUT;
            self.attempted.fetch_or(now, Ordering::Relaxed) || now
        }
    }

    /// Returns true once each region was fetched. Before, requests that name regions are refused,
    /// as in Java (quirk D31).
    pub(in crate::server) fn are_fetched(&self) -> bool {
        self.regions.iter().all(|region| region.is_fetched())
    }

    /// Returns the regions that are shown to clients that name none: all of them, or none.
    pub(in crate::server) fn default_set(&self) -> RegionSet {
        (0..self.regions.len()).filter(|_| self.fallback).collect()
    }

    /// Parses a list of region names. Unknown names are ignored.
    pub(in crate::server) fn named(&self, names: &str) -> RegionSet {
        let position = |name: &str| {
            let name = name.trim().to_lowercase();
            self.regions.iter().position(|region| *region.name == *name)
        };
        names.split(',').filter_map(position).collect()
    }

    /// Returns an application that is not registered here, from the first region that has it. White
    /// lists do not apply.
    pub(in crate::server) fn application(&self, name: &str) -> Option<Arc<AppView>> {
        self.of(self.default_set()).find_map(|region| region.listing.application(name))
    }

    /// Returns an instance that is not registered here, and its region. Java searches only the
    /// first region that has the application (quirk D28).
    pub(in crate::server) fn instance(&self, app: &str, id: &str) -> Option<(&str, Arc<Instance>)> {
        let of = |region: &Region| region.listing.record(app, id).map(|record| record.instance.clone());
        self.regions.iter().find_map(|region| Some((&*region.name, of(region)?)))
    }

    /// Returns an instance that is not registered here, from any application.
    pub(in crate::server) fn instance_by_id(&self, id: &str) -> Option<Arc<Instance>> {
        self.regions.iter().find_map(|region| region.listing.record_by_id(id)).map(|record| record.instance.clone())
    }

    /// Returns true if exactly this state of an instance is registered in one of the regions.
    pub(in crate::server) fn have(&self, instance: &Instance) -> bool {
        let unmixed = self.regions.iter().filter(|region| !region.is_unfiltered());
        let records = unmixed.filter_map(|region| region.listing.record(instance.app(), instance.id()));
        records.map(|record| Version::of(&record.instance)).any(|version| version == Version::of(instance))
    }

    /// Returns the revision of the full list of the [union](Self::union) with these regions. It is
    /// raised before a change is acknowledged.
    pub(in crate::server) fn revision(&self, registry: &Registry, set: RegionSet) -> u64 {
        self.listings(registry, set).map(Listing::revision).sum()
    }

    /// Returns the revision of the delta of the [union](Self::union) with these regions.
    pub(in crate::server) fn delta_revision(&self, registry: &Registry, set: RegionSet) -> u64 {
        self.listings(registry, set).map(Listing::delta_revision).sum()
    }

    /// Returns the union of this registry and these regions. `before` is the previous union, whose
    /// unchanged parts are shared.
    pub(in crate::server) fn union(
        &self,
        registry: &Registry,
        set: RegionSet,
        before: Option<Arc<Union>>,
    ) -> Arc<Union> {
        let whitelists = std::iter::once(None).chain(self.of(set).map(|region| region.whitelist.as_ref()));
        let snapshots = Listing::snapshots(self.listings(registry, set));
        let source = |((full, delta), whitelist)| Source { full, delta, whitelist };
        Union::of(snapshots.into_iter().zip(whitelists).map(source).collect(), before, &self.merged)
    }

    /// Returns the listing of this registry, followed by those of the regions.
    fn listings<'a>(&'a self, registry: &'a Registry, set: RegionSet) -> impl Iterator<Item = &'a Listing> {
        std::iter::once(registry.listing()).chain(self.of(set).map(|region| &region.listing))
    }

    fn of(&self, set: RegionSet) -> impl Iterator<Item = &Region> {
        self.regions
            .iter()
            .enumerate()
            .filter(move |(position, _)| set.contains(*position))
            .map(|(_, region)| &**region)
    }
}
