//! Cached lists that show other regions beside the registry. See `docs/server.md`, "Regions".
//!
//! Nearly all clients see the default regions, those that are shown to clients that name none.
//! Lists of other regions are built one at a time, so that clients that request ever other
//! combinations keep at most one core busy. They are cached for the combinations that were
//! requested last.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::OwnedMutexGuard;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use super::etag::Kind;
use super::lru::LruCache;
use crate::server::regions::{RemoteRegions, Union};
use crate::server::registry::Registry;
use crate::server::view::{AppView, PerVariant, RegionSet, SingleFlight, Snapshot};
use crate::sync::Mutex;

/// Time after which lists that nobody requests are dropped. It may take half as long again.
const IDLE: Duration = Duration::from_secs(300);

/// Cached lists by the regions that they show.
#[derive(Debug)]
pub(super) struct MultiRegion {
    regions: Arc<RemoteRegions>,
    /// Lists of the default regions. Requests for other regions never evict them.
    default: Arc<RegionLists>,
    others: Arc<Mutex<LruCache<Arc<RegionLists>>>>,
    /// Held while a list of other regions is built.
    building: Arc<tokio::sync::Mutex<()>>,
    _tasks: JoinSet<()>,
}

/// Cached lists of one set of regions, together with the registry.
#[derive(Debug)]
pub(super) struct RegionLists {
    regions: Arc<RemoteRegions>,
    pub(super) set: RegionSet,
    full: Arc<PerVariant<SingleFlight>>,
    delta: Arc<PerVariant<SingleFlight>>,
    /// State that the latest lists show. Lists in other forms are built from it, too.
    latest: Mutex<Option<Arc<Union>>>,
}

/// One of the two lists of a union.
#[derive(Clone, Copy, Debug)]
pub(super) enum Part {
    Full,
    Delta,
}

impl MultiRegion {
    /// Must be called inside a tokio runtime.
    pub(super) fn new(regions: Arc<RemoteRegions>) -> Self {
        let default = RegionLists::new(&regions, regions.default_set());
        let others = Arc::<Mutex<LruCache<_>>>::default();
        let mut tasks = JoinSet::new();
        tasks.spawn(evict_idle(others.clone()));
        Self { regions, default, others, building: Arc::default(), _tasks: tasks }
    }

    /// Returns the lists for clients that name no regions. `None` if those see the registry alone.
    pub(super) fn default_lists(&self) -> Option<Arc<RegionLists>> {
        (!self.default.set.is_empty()).then(|| self.default.clone())
    }

    /// Returns the revision that a list of these regions must show at least.
    pub(super) fn revision(&self, registry: &Registry, set: RegionSet, part: Part) -> u64 {
        match part {
            Part::Full => self.regions.revision(registry, set),
            Part::Delta => self.regions.delta_revision(registry, set),
        }
    }

    /// Returns the cached lists of these regions.
    pub(super) fn cached(&self, set: RegionSet) -> Option<Arc<RegionLists>> {
        if set == self.default.set { Some(self.default.clone()) } else { self.others.lock().get(set).cloned() }
    }

    /// Returns the lists of these regions, and unless they are the default ones, the permit to
    /// build one of them.
    ///
    /// The entry is created only after the permit is acquired, so waiters hold no memory.
    pub(super) async fn lists(&self, set: RegionSet) -> (Arc<RegionLists>, Option<OwnedMutexGuard<()>>) {
        if set == self.default.set {
            return (self.default.clone(), None);
        }
        let permit = self.building.clone().lock_owned().await;
        let lists = self.others.lock().get_or_insert_with(set, || RegionLists::new(&self.regions, set)).clone();
        (lists, Some(permit))
    }

    /// Returns an application that is not registered here.
    pub(super) fn application(&self, name: &str) -> Option<Arc<AppView>> {
        self.regions.application(name)
    }
}

impl RegionLists {
    fn new(regions: &Arc<RemoteRegions>, set: RegionSet) -> Arc<Self> {
        let regions = regions.clone();
        Arc::new(Self { regions, set, full: Arc::default(), delta: Arc::default(), latest: Mutex::default() })
    }

    pub(super) fn cells(&self, part: Part) -> &Arc<PerVariant<SingleFlight>> {
        match part {
            Part::Full => &self.full,
            Part::Delta => &self.delta,
        }
    }

    /// Returns the current state. Parts that did not change keep their encoded forms.
    pub(super) fn snapshot(&self, registry: &Registry, part: Part) -> Arc<Snapshot> {
        let mut latest = self.latest.lock();
        let union = self.regions.union(registry, self.set, latest.take());
        let union = latest.insert(union);
        match part {
            Part::Full => union.full.clone(),
            Part::Delta => union.delta.clone(),
        }
    }
}

impl Part {
    pub(super) fn kind(self, set: RegionSet) -> Kind {
        match self {
            Self::Full => Kind::RegistryWith(set),
            Self::Delta => Kind::DeltaWith(set),
        }
    }
}

async fn evict_idle(others: Arc<Mutex<LruCache<Arc<RegionLists>>>>) {
    loop {
        sleep(IDLE / 2).await;
        if let Some(time) = Instant::now().checked_sub(IDLE) {
            others.lock().evict_unused_since(time);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::{Future, poll_fn};
    use std::pin::{Pin, pin};
    use std::task::Poll;

    use tokio::sync::oneshot;
    use tokio::task::spawn_blocking;

    use super::*;
    use crate::model::Instance;
    use crate::server::outbound::Outbound;
    use crate::server::outcome::Origin;
    use crate::server::registry::Settings;
    use crate::server::response_cache::{List, ResponseCache};
    use crate::server::settings::Regions;
    use crate::server::unsent::Unsent;
    use crate::server::view::{Encoding, Form, Variant};
    use crate::time::Clock;

    fn regions() -> Arc<RemoteRegions> {
        let names = ["a", "b", "c", "d", "e"];
        let settings = names.iter().fold(Regions::new(), |regions, name| regions.region(name, "http://nowhere/"));
        RemoteRegions::new(&settings, &Outbound::default(), &Default::default()).unwrap().unwrap()
    }

    fn multi_region() -> MultiRegion {
        MultiRegion::new(regions())
    }

    async fn is_pending(future: Pin<&mut impl Future>) -> bool {
        let mut future = Some(future);
        poll_fn(|cx| Poll::Ready(future.take().expect("polled once").poll(cx).is_pending())).await
    }

    #[tokio::test]
    async fn lists_of_the_default_regions_are_never_evicted() {
        let cache = multi_region();
        let all = cache.regions.default_set();
        let (default, first) = (cache.cached(all).unwrap(), cache.lists(RegionSet::of(1)).await.0);
        for choice in (2..31).map(RegionSet::of) {
            assert!(cache.cached(choice).is_none());
            cache.lists(choice).await;
            assert!(cache.cached(choice).is_some());
        }
        assert!(Arc::ptr_eq(&cache.lists(all).await.0, &default));
        assert!(!Arc::ptr_eq(&cache.lists(RegionSet::of(1)).await.0, &first), "many others were requested since");
    }

    #[tokio::test(start_paused = true)]
    async fn lists_that_nobody_requests_are_dropped() {
        let cache = multi_region();
        let [idle, busy] = [1, 2].map(RegionSet::of);
        for choice in [idle, busy] {
            cache.lists(choice).await;
        }
        for _ in 0..8 {
            assert!(cache.cached(busy).is_some());
            sleep(Duration::from_secs(60)).await;
        }
        assert!(cache.cached(idle).is_none() && cache.cached(busy).is_some());
    }

    #[tokio::test]
    async fn waiter_for_a_permit_has_no_entry() {
        let cache = multi_region();
        let (_, permit) = cache.lists(RegionSet::of(1)).await;
        assert!(permit.is_some());
        assert!(cache.lists(cache.regions.default_set()).await.1.is_none(), "the default regions need no permit");
        let mut next = pin!(cache.lists(RegionSet::of(2)));
        assert!(is_pending(next.as_mut()).await);
        assert!(cache.cached(RegionSet::of(2)).is_none());
        drop(permit);
        next.await;
    }

    #[tokio::test]
    async fn lists_of_other_regions_are_built_one_at_a_time() {
        let responses =
            ResponseCache::new(None, Clock::start(), Arc::new(Unsent::new(usize::MAX))).with_regions(regions());
        let (cache, registry) = (responses.multi_region().unwrap(), Arc::new(Registry::new(Settings::default())));
        let get = async |choice| {
            let variant = Variant { form: Form::Json, encoding: Encoding::Gzip };
            responses.get(&registry, &List::AllWith(choice), variant).await.unwrap().unwrap()
        };
        let [first, second] = [1, 2].map(RegionSet::of);
        get(second).await;
        let lists = cache.lists(first).await.0;
        let ((start, started), (finish, finishes)) = (oneshot::channel(), std::sync::mpsc::channel());
        let held = spawn_blocking(move || {
            let _latest = lists.latest.lock();
            start.send(()).unwrap();
            finishes.recv().unwrap();
        });
        started.await.unwrap();
        assert!(is_pending(pin!(get(first))).await);
        get(second).await;
        get(cache.regions.default_set()).await;
        let mut third = pin!(get(RegionSet::of(3)));
        assert!(is_pending(third.as_mut()).await && cache.building.try_lock().is_err(), "although no waiter is left");
        finish.send(()).unwrap();
        third.await;
        held.await.unwrap();
    }

    #[tokio::test]
    async fn waiter_gets_the_list_of_the_moment_of_its_request() {
        let responses =
            ResponseCache::new(None, Clock::start(), Arc::new(Unsent::new(usize::MAX))).with_regions(regions());
        let (cache, registry) = (responses.multi_region().unwrap(), Arc::new(Registry::new(Settings::default())));
        let get = async || {
            let variant = Variant { form: Form::Json, encoding: Encoding::Gzip };
            responses.get(&registry, &List::AllWith(RegionSet::of(1)), variant).await.unwrap().unwrap()
        };
        let permit = cache.lists(RegionSet::of(2)).await.1;
        let (mut first, mut second) = (pin!(get()), pin!(get()));
        assert!(is_pending(first.as_mut()).await && is_pending(second.as_mut()).await);
        drop(permit);
        let built = first.await;
        let instance = Instance::builder("A").id("1").ip_addr("10.0.0.1").port(80).build().unwrap();
        registry.register(instance, Origin::Client, 1).unwrap();
        assert!(Arc::ptr_eq(&second.await, &built));
        assert!(!Arc::ptr_eq(&get().await, &built));
    }
}
