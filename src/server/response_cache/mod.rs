//! Response cache: complete bodies of the lists, each built once per revision and shared by all
//! requests.
//!
//! Bodies are assembled from the encoded parts in [`view`](super::view). The first response after a
//! change costs the encoding of the application that changed, plus copying. All further ones cost
//! nothing.
//!
//! # Memory
//!
//! Let *S* be the length of the whole registry in one form. A form that is requested takes *S* for
//! the fragments and the length of one gzip body (about *S* / 20) for the blocks. Each encoding of
//! it that is requested takes the latest full list and the latest delta, whose predecessors are
//! dropped when any newer one is built, and the lists of single applications, together no more than
//! one full list. Lists for VIPs share 32 MiB. So JSON with gzip alone, which is what Java clients
//! request, takes little more than *S*, and four forms in both encodings take about 4 × 4 *S* at
//! most. The read-only cache, if it is on, keeps one more body of each list that is requested.
//!
//! Other regions have fragments and blocks of their own. An application that is in several regions
//! has them once more. Lists that show other regions are cached like those of the registry alone:
//! once for the default regions, and for eight other combinations of regions until nobody requests
//! them.
//!
//! Bodies that no cache holds any more live until their last response was sent. [`Unsent`] counts
//! their bytes. While they exceed the budget, requests get the latest body instead of a new one,
//! see [`SingleFlight::get_or_build`].

mod counts;
mod etag;
mod list;
#[cfg(feature = "peers")]
mod lru;
#[cfg(feature = "peers")]
mod multi_region;
mod read_only;
mod selection;
#[cfg(test)]
mod tests;

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::Duration;

use http::HeaderValue;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use self::counts::Counts;
use self::etag::{Kind, etag};
pub(super) use self::list::List;
#[cfg(feature = "peers")]
use self::multi_region::{MultiRegion, Part, RegionLists};
use self::read_only::ReadOnly;
use self::selection::{Selection, Selections};
#[cfg(feature = "peers")]
use super::regions::RemoteRegions;
use super::registry::Registry;
use super::unsent::Unsent;
#[cfg(feature = "peers")]
use super::view::RegionSet;
use super::view::{
    Admission, AppView, Body, BudgetExhausted, Form, PerVariant, SingleFlight, Snapshot, Variant, assemble,
};
use crate::model::Digest;
use crate::time::Clock;

/// Cached bodies of all lists that were requested so far.
#[derive(Debug)]
pub(super) struct ResponseCache {
    /// Distinguishes this registry from others, and from itself before a restart, where revisions
    /// begin anew.
    run: u64,
    /// Hash of bodies that have no revision of their own. Its keys are random, so that nobody can
    /// choose bodies with one hash.
    hasher: RandomState,
    full: Arc<PerVariant<SingleFlight>>,
    delta: Arc<PerVariant<SingleFlight>>,
    selections: Arc<Selections>,
    options: Option<Box<Options>>,
    unsent: Arc<Unsent>,
    /// Permits to build a body that is one of many.
    permits: Arc<Semaphore>,
    /// `None` unless metrics are enabled.
    counts: Option<Counts>,
}

/// Maximum number of concurrent builds of bodies that are one of many.
const CONCURRENT_BUILDS: usize = 4;

/// Approximate length of an instance in a list, used where the size is needed before the build.
const INSTANCE_BYTES: usize = 1024;

/// Parts that most servers do not have, so that a request needs one check for all of them.
#[derive(Debug, Default)]
struct Options {
    read_only: Option<ReadOnly>,
    #[cfg(feature = "peers")]
    multi_region: Option<MultiRegion>,
}

impl ResponseCache {
    /// Creates an empty cache. `read_only` is the interval of the read-only cache, if it is on.
    pub(super) fn new(read_only: Option<Duration>, clock: Clock, unsent: Arc<Unsent>) -> Self {
        Self {
            run: RandomState::new().hash_one(0),
            hasher: RandomState::new(),
            full: Arc::default(),
            delta: Arc::default(),
            selections: Arc::default(),
            options: read_only.map(|interval| {
                Box::new(Options {
                    read_only: Some(ReadOnly::new(interval, clock)),
                    #[cfg(feature = "peers")]
                    multi_region: None,
                })
            }),
            unsent,
            permits: Arc::new(Semaphore::new(CONCURRENT_BUILDS)),
            counts: None,
        }
    }

    /// Counts the hits from now on.
    #[cfg(feature = "prometheus")]
    pub(super) fn counting(mut self) -> Self {
        self.counts = Some(Counts::default());
        self
    }

    /// Returns the numbers of responses that were cached, and of those that were built for a
    /// request. They are zero unless they are counted.
    #[cfg(feature = "prometheus")]
    pub(super) fn hits_and_misses(&self) -> [u64; 2] {
        self.counts.as_ref().map_or([0, 0], Counts::hits_and_misses)
    }

    /// Adds other regions to the lists.
    #[cfg(feature = "peers")]
    pub(super) fn with_regions(mut self, regions: Arc<RemoteRegions>) -> Self {
        let options = self.options.get_or_insert_default();
        if let Some(cache) = &mut options.read_only {
            cache.default_regions = regions.default_set();
        }
        options.multi_region = Some(MultiRegion::new(regions));
        self
    }

    /// Returns the body if it is cached and shows the latest state.
    ///
    /// Lists for VIPs are found in the read-only cache only. With other regions nothing is found,
    /// since the list does not say yet which regions it shows.
    pub(super) fn cached(&self, registry: &Registry, list: &List<'_>, variant: Variant) -> Option<Arc<Body>> {
        let body = self.find(registry, list, variant)?;
        if let Some(counts) = &self.counts {
            counts.add_hit();
        }
        Some(body)
    }

    fn find(&self, registry: &Registry, list: &List<'_>, variant: Variant) -> Option<Arc<Body>> {
        if let Some(options) = &self.options {
            return options.cached(list, variant);
        }
        match list {
            List::All => self.full.of(variant).cached(registry.revision()),
            List::Delta => self.delta.of(variant).cached(registry.delta_revision()),
            List::Application(name) => {
                let blocks = &registry.application(name)?.blocks;
                blocks.alone.of(variant).cached(blocks.number())
            }
            // A lookup would have to copy the name.
            List::Selection(..) => None,
            #[cfg(feature = "peers")]
            List::AllWith(_) | List::DeltaWith(_) => None,
        }
    }

    /// Returns the body with every change that was acknowledged before the call. `None` if there is
    /// no such application.
    ///
    /// The body may be older if it comes from the read-only cache, or while slow clients exhaust
    /// the budget of unsent bytes. In the latter case it is at most 30 seconds old.
    ///
    /// # Errors
    /// The budget is exhausted and no body is cached.
    pub(super) async fn get(
        &self,
        registry: &Arc<Registry>,
        list: &List<'_>,
        variant: Variant,
    ) -> Result<Option<Arc<Body>>, BudgetExhausted> {
        let Some(counts) = &self.counts else { return self.read(registry, list, variant).await };
        let started = Instant::now();
        let body = self.read(registry, list, variant).await?;
        if let Some(body) = &body {
            counts.add(body.built < started);
        }
        Ok(body)
    }

    /// Returns the body from the read-only cache, if it is on, or else the latest one.
    async fn read(
        &self,
        registry: &Arc<Registry>,
        list: &List<'_>,
        variant: Variant,
    ) -> Result<Option<Arc<Body>>, BudgetExhausted> {
        let Some(cache) = self.options.as_ref().and_then(|options| options.read_only.as_ref()) else {
            return self.latest(registry, list, variant).await;
        };
        let period = cache.period();
        if let Some(body) = cache.get(period, list, variant) {
            return Ok(Some(body));
        }
        let body = self.latest(registry, list, variant).await?;
        Ok(body.map(|body| cache.insert(period, list, variant, body)))
    }

    async fn latest(
        &self,
        registry: &Arc<Registry>,
        list: &List<'_>,
        variant: Variant,
    ) -> Result<Option<Arc<Body>>, BudgetExhausted> {
        let built = match list {
            List::All => {
                let (wanted, registry) = (registry.revision(), registry.clone());
                let snapshot = move || registry.full();
                self.applications(&self.full, wanted, Kind::Registry, snapshot, variant, Admission::Always, ()).await
            }
            List::Delta => {
                let (wanted, registry) = (registry.delta_revision(), registry.clone());
                let snapshot = move || registry.delta();
                self.applications(&self.delta, wanted, Kind::Delta, snapshot, variant, Admission::Always, ()).await
            }
            List::Application(name) => match self.find_application(registry, name) {
                Some(view) => self.application(view, variant).await,
                None => return Ok(None),
            },
            List::Selection(by, name) => self.selection(registry, Selection::new(*by, name, variant)).await,
            #[cfg(feature = "peers")]
            List::AllWith(set) => return self.with_other_regions(registry, *set, Part::Full, variant).await,
            #[cfg(feature = "peers")]
            List::DeltaWith(set) => return self.with_other_regions(registry, *set, Part::Delta, variant).await,
        };
        built.map(Some)
    }

    /// Returns the admission of a body that is one of many and shows this number of instances.
    fn within_budget(&self, instances: usize) -> Admission<'_> {
        Admission::WithinBudget { size: instances.saturating_mul(INSTANCE_BYTES), permits: &self.permits }
    }

    #[cfg(feature = "peers")]
    async fn with_other_regions(
        &self,
        registry: &Arc<Registry>,
        set: RegionSet,
        part: Part,
        variant: Variant,
    ) -> Result<Option<Arc<Body>>, BudgetExhausted> {
        let Some(cache) = self.multi_region() else { return Ok(None) };
        // Read once. A change during the wait for a permit is shown by the next response.
        let wanted = cache.revision(registry, set, part);
        let cached = |lists: Arc<RegionLists>| lists.cells(part).of(variant).cached(wanted);
        if let Some(body) = cache.cached(set).and_then(cached) {
            return Ok(Some(body));
        }
        let (lists, permit) = cache.lists(set).await;
        // Only lists of the default regions need no permit; there are many combinations of others.
        let admission = if permit.is_none() { Admission::Always } else { self.within_budget(registry.size()) };
        let (cells, registry) = (lists.cells(part).clone(), registry.clone());
        let snapshot = move || lists.snapshot(&registry, part);
        self.applications(&cells, wanted, part.kind(set), snapshot, variant, admission, permit).await.map(Some)
    }

    /// Builds a list of applications. `permit` is held until the build ends.
    #[allow(clippy::too_many_arguments, reason = "each of the three callers has all of them")]
    async fn applications(
        &self,
        cells: &Arc<PerVariant<SingleFlight>>,
        wanted: u64,
        kind: Kind,
        snapshot: impl FnOnce() -> Arc<Snapshot> + Send + 'static,
        variant: Variant,
        admission: Admission<'_>,
        permit: impl Send + 'static,
    ) -> Result<Arc<Body>, BudgetExhausted> {
        let (run, all, unsent) = (self.run, cells.clone(), self.unsent.clone());
        let build = move || {
            let _permit = permit;
            let Snapshot { revision, version, counts, digest, applications, .. } = &*snapshot();
            let bytes = assemble::applications(*version, counts, applications, variant);
            // While the budget is exhausted, clients get the other variants although they are
            // older.
            if !unsent.is_exhausted() {
                all.iter().for_each(|cell| cell.clear_before(*revision));
            }
            let digest = digest_header(variant, || *digest);
            Ok(Body::new(*revision, etag(run, kind, *revision, variant), digest, bytes, &unsent))
        };
        cells.of(variant).get_or_build(wanted, &self.unsent, admission, build).await
    }

    /// Returns an application that is registered here, or else one of another region.
    fn find_application(&self, registry: &Registry, name: &str) -> Option<Arc<AppView>> {
        let here = registry.application(name);
        #[cfg(feature = "peers")]
        let here = here.or_else(|| self.multi_region()?.application(name));
        here
    }

    #[cfg(feature = "peers")]
    fn multi_region(&self) -> Option<&MultiRegion> {
        self.options.as_ref()?.multi_region.as_ref()
    }

    async fn application(&self, view: Arc<AppView>, variant: Variant) -> Result<Arc<Body>, BudgetExhausted> {
        let (run, revision, source) = (self.run, view.blocks.number(), view.clone());
        let unsent = self.unsent.clone();
        let build = move || {
            let digest = digest_header(variant, || assemble::digest(std::slice::from_ref(&source)));
            let bytes = assemble::application(&source, variant);
            Ok(Body::new(revision, etag(run, Kind::Application, revision, variant), digest, bytes, &unsent))
        };
        let admission = self.within_budget(view.records.len());
        view.blocks.alone.of(variant).get_or_build(revision, &self.unsent, admission, build).await
    }

    async fn selection(&self, registry: &Arc<Registry>, selection: Selection) -> Result<Arc<Body>, BudgetExhausted> {
        let registry = registry.clone();
        #[cfg(feature = "peers")]
        if let Some(cache) = self.multi_region()
            && let Some(lists) = cache.default_lists()
        {
            let wanted = cache.revision(&registry, lists.set, Part::Full);
            return self.selected(wanted, move || lists.snapshot(&registry, Part::Full), selection).await;
        }
        self.selected(registry.revision(), move || registry.full(), selection).await
    }

    async fn selected(
        &self,
        wanted: u64,
        snapshot: impl FnOnce() -> Arc<Snapshot> + Send + 'static,
        selection: Selection,
    ) -> Result<Arc<Body>, BudgetExhausted> {
        let (run, hasher, cell) = (self.run, self.hasher.clone(), self.selections.cell(&selection));
        let (selections, own_cell, unsent) = (self.selections.clone(), cell.clone(), self.unsent.clone());
        let build = move || {
            let snapshot = snapshot();
            let revision = snapshot.revision;
            let selected = selection::selected(&snapshot, &selection);
            let instances: usize = selected.iter().map(|view| view.records.len()).sum();
            if own_cell.is_empty() && !unsent.has_room_for(instances.saturating_mul(INSTANCE_BYTES)) {
                return Err(BudgetExhausted);
            }
            let (bytes, digest) = selection::body(&selected, selection.variant);
            selections.count(&selection, &own_cell, bytes.len());
            let digest = digest_header(selection.variant, || digest);
            // Not the revision: a change of another instance must not change the etag.
            let etag = etag(run, Kind::Selection, hasher.hash_one(&*bytes), selection.variant);
            Ok(Body::new(revision, etag, digest, bytes, &unsent))
        };
        // The number of instances is known only during the build.
        cell.get_or_build(wanted, &self.unsent, self.within_budget(0), build).await
    }
}

/// Returns the header with a digest. Compact lists lack some of the digested data, and XML cannot
/// represent every text.
fn digest_header(variant: Variant, digest: impl FnOnce() -> Digest) -> Option<HeaderValue> {
    (variant.form == Form::Json).then(|| digest().to_header())
}

impl Options {
    fn cached(&self, list: &List<'_>, variant: Variant) -> Option<Arc<Body>> {
        #[cfg(feature = "peers")]
        if self.multi_region.is_some() {
            return None;
        }
        let cache = self.read_only.as_ref()?;
        cache.get(cache.period(), list, variant)
    }
}
