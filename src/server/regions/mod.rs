//! Other regions: a read-only copy of each, and what lists show of them beside what is registered here. `server-behaviour` 10.5.
//!
//! ```text
//!  a server of the region ── full, delta ──▶ Refresher (the client's) ──▶ Region: a Listing, like the registry's own
//!                                                                           │ one application, one instance
//!                                                                           ▼
//!  Registry: its Listing ───────────────────────────────────────────────────▶ Union: what a set of regions shows together ──▶ bodies
//! ```
//!
//! A copy is shown and nothing else is done with it: its instances have no lease here, are not counted or evicted, and no peer is told
//! of them. Each region has a task of its own, so one that does not answer costs the others nothing; what was last known of it stays.
//!
//! | module | what it knows |
//! |---|---|
//! | `region` | one region: its copy and the task that keeps it fresh |
//! | `union` | what several registries show together, as a whole and as a delta |
//! | `merged` | the applications that are in several, each put together once for all who are shown the same of it |

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
use super::registry::{Listing, Registry, Version};
use super::settings::Regions;
use super::supervise::supervise;
use super::view::{AppView, RegionSet};
use crate::config::{ClientConfig, ServiceUrl};
use crate::model::Instance;
use crate::time::Clock;
use crate::transport::Transport;

/// Lists of a server that starts wait this long for the first look at each region.
const FIRST_LOOK: Duration = Duration::from_secs(10);

/// The other regions that this server shows.
#[derive(Debug)]
pub(in crate::server) struct RemoteRegions {
    /// By name, at most [`RegionSet::MAX`].
    regions: Vec<Arc<Region>>,
    /// Whether they are shown to those who name none.
    fallback: bool,
    merged: Merged,
    since: Instant,
    looked: AtomicBool,
}

impl RemoteRegions {
    /// Creates the copies of all regions, or `None` if there are no other regions.
    ///
    /// # Errors
    /// Fails if a setting is unusable, or a region has an `https` URL and TLS cannot be used.
    pub(in crate::server) fn new(settings: &Regions, outbound: &Outbound) -> Result<Option<Arc<Self>>, Error> {
        settings.check(RegionSet::MAX)?;
        if let Some(url) = settings.urls.values().flatten().find(|url| url.is_secure()) {
            outbound.check_tls().map_err(|reason| Error::no_tls(url.as_str(), &reason))?;
        }
        let stack = outbound.stack(settings.connect_timeout, settings.read_timeout);
        let config =
            ClientConfig { fetch_interval: settings.interval, delta: settings.delta, ..ClientConfig::default() };
        let region = |(name, urls): (&String, &Vec<ServiceUrl>)| {
            let transport = Transport::new(urls.clone(), stack.clone()).for_server();
            let transport = transport.without_other_regions().with_unfiltered_fallback();
            Arc::new(Region::new(name.as_str().into(), settings.whitelist_of(name), transport, config.clone()))
        };
        let regions: Vec<_> = settings.urls.iter().map(region).collect();
        let (fallback, merged) = (settings.fallback, Merged::default());
        let (since, looked) = (Instant::now(), AtomicBool::new(false));
        Ok((!regions.is_empty()).then(|| Arc::new(Self { regions, fallback, merged, since, looked })))
    }

    /// Starts to copy what is not of this registry. It ends when the tasks are dropped. The delta tells a change for as long as the registry's
    /// own does.
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
                let start = || region.clone().keep(registry.clone(), clock, delta_retention_ms);
                supervise("copy of a region", start).await;
            });
        }
        tasks
    }

    /// Whether each was looked at, or had its time for it: until then lists would lack what a moment later they had.
    pub(in crate::server) fn are_looked_at(&self) -> bool {
        let looked = || self.regions.iter().all(|region| region.is_looked_at());
        self.looked.load(Ordering::Relaxed) || {
            let now = looked() || self.since.elapsed() >= FIRST_LOOK;
            self.looked.fetch_or(now, Ordering::Relaxed) || now
        }
    }

    /// Whether each was fetched once. Java answers nobody who names a region before. `server-behaviour` 9.4.
    pub(in crate::server) fn are_fetched(&self) -> bool {
        self.regions.iter().all(|region| region.is_fetched())
    }

    /// What those see who name no region: all, or none.
    pub(in crate::server) fn default_set(&self) -> RegionSet {
        (0..self.regions.len()).filter(|_| self.fallback).collect()
    }

    /// The regions of a list of names. One that nobody knows says nothing.
    pub(in crate::server) fn named(&self, names: &str) -> RegionSet {
        let position = |name: &str| {
            let name = name.trim().to_lowercase();
            self.regions.iter().position(|region| *region.name == *name)
        };
        names.split(',').filter_map(position).collect()
    }

    /// An application that is not registered here: that of the first region that has it, whatever the white lists say.
    pub(in crate::server) fn application(&self, name: &str) -> Option<Arc<AppView>> {
        self.of(self.default_set()).find_map(|region| region.listing.application(name))
    }

    /// An instance that is not registered here, and its region. Java gives up at the first region that has the application.
    pub(in crate::server) fn instance(&self, app: &str, id: &str) -> Option<(&str, Arc<Instance>)> {
        let of = |region: &Region| region.listing.record(app, id).map(|record| record.instance.clone());
        self.regions.iter().find_map(|region| Some((&*region.name, of(region)?)))
    }

    /// The same whatever its application.
    pub(in crate::server) fn instance_by_id(&self, id: &str) -> Option<Arc<Instance>> {
        self.regions.iter().find_map(|region| region.listing.record_by_id(id)).map(|record| record.instance.clone())
    }

    /// Whether one of them has this very state of an instance as its own.
    pub(in crate::server) fn have(&self, instance: &Instance) -> bool {
        let of_their_own = self.regions.iter().filter(|region| !region.is_of_everything());
        let records = of_their_own.filter_map(|region| region.listing.record(instance.app(), instance.id()));
        records.map(|record| Version::of(&record.instance)).any(|version| version == Version::of(instance))
    }

    /// Raised by every change of what the [union](Self::union) with these regions shows, before anybody can know of the change.
    pub(in crate::server) fn revision(&self, registry: &Registry, set: RegionSet) -> u64 {
        self.listings(registry, set).map(Listing::revision).sum()
    }

    /// The same of its delta.
    pub(in crate::server) fn delta_revision(&self, registry: &Registry, set: RegionSet) -> u64 {
        self.listings(registry, set).map(Listing::delta_revision).sum()
    }

    /// What is registered here and in these regions; `before` is what it was.
    pub(in crate::server) fn union(
        &self,
        registry: &Registry,
        set: RegionSet,
        before: Option<Arc<Union>>,
    ) -> Arc<Union> {
        let whitelists = std::iter::once(None).chain(self.of(set).map(|region| region.whitelist.as_ref()));
        let moment = Listing::snapshots(self.listings(registry, set));
        let source = |((full, delta), whitelist)| Source { full, delta, whitelist };
        Union::of(moment.into_iter().zip(whitelists).map(source).collect(), before, &self.merged)
    }

    /// The registry's own first.
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
