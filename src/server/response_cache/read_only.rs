//! Read-only cache, as in a Java server: within one interval, all requests for a list get the same
//! response. See `docs/server.md`, "Response cache".
//!
//! A Java server fills this cache from a timer and never empties it. Here the first request in an
//! interval fills an entry, and all entries are dropped when the interval ends. In both a response
//! is at most one interval old, but here nothing is built that nobody requests. A missing
//! application is not cached.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use super::list::List;
#[cfg(feature = "peers")]
use super::lru::LruCache;
#[cfg(feature = "peers")]
use crate::server::view::RegionSet;
use crate::server::view::{Body, Variant};
use crate::sync::{Mutex, MutexGuard};
use crate::time::Clock;

/// Maximum size of all responses for VIPs together. Clients may request arbitrary names.
const VIP_LIMIT: usize = 32 * 1024 * 1024;

#[derive(Debug)]
pub(super) struct ReadOnly {
    interval: Duration,
    clock: Clock,
    /// Regions that are shown to clients that name none. Lists of other regions never evict theirs.
    #[cfg(feature = "peers")]
    pub(super) default_regions: RegionSet,
    entries: Mutex<Entries>,
}

type Key = (List<'static>, Variant);

/// Responses of one interval.
#[derive(Debug, Default)]
struct Entries {
    period: u64,
    /// Bytes of the responses for VIPs.
    vip_bytes: usize,
    bodies: HashMap<Key, Arc<Body>>,
    /// Lists of regions that clients named.
    #[cfg(feature = "peers")]
    by_regions: LruCache<HashMap<Key, Arc<Body>>>,
}

impl ReadOnly {
    /// `interval` must not be zero.
    pub(super) fn new(interval: Duration, clock: Clock) -> Self {
        Self {
            interval,
            clock,
            #[cfg(feature = "peers")]
            default_regions: RegionSet::default(),
            entries: Mutex::default(),
        }
    }

    /// Returns the number of the current interval.
    pub(super) fn period(&self) -> u64 {
        (self.clock.elapsed().as_nanos() / self.interval.as_nanos()).try_into().unwrap_or(u64::MAX)
    }

    /// Returns the response of this interval, if there is one.
    pub(super) fn get(&self, period: u64, list: &List<'_>, variant: Variant) -> Option<Arc<Body>> {
        let entries = &mut *self.lock();
        if entries.period != period {
            return None;
        }
        let key = (list.clone().into_owned(), variant);
        #[cfg(feature = "peers")]
        if let Some(regions) = self.named_regions(list) {
            return entries.by_regions.get(regions)?.get(&key).cloned();
        }
        entries.bodies.get(&key).cloned()
    }

    /// Inserts a response that was built for this interval. Returns the one that is served during
    /// the interval, which is the first.
    pub(super) fn insert(&self, period: u64, list: &List<'_>, variant: Variant, body: Arc<Body>) -> Arc<Body> {
        let entries = &mut *self.lock();
        if entries.period > period {
            return body;
        }
        if entries.period < period {
            *entries = Entries { period, ..Entries::default() };
        }
        let (bodies, vip_bytes) = (&mut entries.bodies, &mut entries.vip_bytes);
        #[cfg(feature = "peers")]
        let bodies = match self.named_regions(list) {
            Some(regions) => entries.by_regions.get_or_insert_with(regions, HashMap::new),
            None => bodies,
        };
        let key = (list.clone().into_owned(), variant);
        if let Some(first) = bodies.get(&key) {
            return first.clone();
        }
        if let List::Selection(_, name) = list {
            let size = size_of_val(&key) + size_of::<Body>() + name.len() + body.bytes().len();
            if *vip_bytes + size > VIP_LIMIT {
                return body;
            }
            *vip_bytes += size;
        }
        bodies.insert(key, body.clone());
        body
    }

    /// Returns the regions of a list, unless they are the default ones.
    #[cfg(feature = "peers")]
    fn named_regions(&self, list: &List<'_>) -> Option<RegionSet> {
        match list {
            List::AllWith(regions) | List::DeltaWith(regions) if *regions != self.default_regions => Some(*regions),
            _ => None,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Entries> {
        self.entries.lock()
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;
    #[cfg(feature = "peers")]
    use crate::server::response_cache::lru::CAPACITY;
    use crate::server::unsent::Unsent;
    use crate::server::view::By;
    use crate::server::view::{Encoding, Form};

    const VARIANT: Variant = Variant { form: Form::Json, encoding: Encoding::Identity };

    fn body(revision: u64, length: usize) -> Arc<Body> {
        let unsent = Arc::new(Unsent::new(usize::MAX));
        Arc::new(Body::new(revision, HeaderValue::from_static("x"), None, vec![0; length].into(), &unsent))
    }

    fn vip(name: &str) -> List<'_> {
        List::Selection(By::Vip, name.into())
    }

    #[tokio::test(start_paused = true)]
    async fn first_response_of_an_interval_is_returned_until_its_end() {
        let cache = ReadOnly::new(Duration::from_secs(30), Clock::start());
        let at = |list| cache.get(cache.period(), list, VARIANT).map(|body| body.revision);
        assert_eq!(at(&List::All), None);
        assert_eq!(cache.insert(0, &List::All, VARIANT, body(1, 1)).revision, 1);
        assert_eq!(cache.insert(0, &List::All, VARIANT, body(2, 1)).revision, 1, "built at the same time");
        assert_eq!((at(&List::All), at(&List::Delta)), (Some(1), None));
        tokio::time::advance(Duration::from_millis(29_999)).await;
        assert_eq!(at(&List::All), Some(1));
        tokio::time::advance(Duration::from_millis(1)).await;
        assert_eq!(at(&List::All), None);
        assert_eq!(cache.insert(1, &List::Delta, VARIANT, body(3, 1)).revision, 3);
        assert_eq!(cache.insert(0, &List::All, VARIANT, body(2, 1)).revision, 2, "built for an earlier interval");
        assert_eq!((at(&List::All), at(&List::Delta)), (None, Some(3)));
    }

    #[test]
    fn arbitrary_names_stay_within_the_limit() {
        let cache = ReadOnly::new(Duration::from_secs(30), Clock::start());
        for i in 0..100 {
            cache.insert(0, &vip(&i.to_string()), VARIANT, body(1, 1024 * 1024));
        }
        assert!(cache.lock().vip_bytes <= VIP_LIMIT);
        assert_eq!(cache.lock().bodies.len(), 31);
        assert!(cache.get(0, &vip("0"), VARIANT).is_some() && cache.get(0, &vip("99"), VARIANT).is_none());
        cache.insert(0, &List::Application("A".into()), VARIANT, body(1, 1));
        assert!(cache.get(0, &List::Application("A".into()), VARIANT).is_some());
    }

    #[cfg(feature = "peers")]
    #[tokio::test]
    async fn default_and_latest_choices_of_regions_are_kept() {
        let default_regions = RegionSet::of(1);
        let cache = ReadOnly { default_regions, ..ReadOnly::new(Duration::from_secs(30), Clock::start()) };
        for choice in (1..100).map(RegionSet::of) {
            cache.insert(0, &List::AllWith(choice), VARIANT, body(1, 1));
            cache.insert(0, &List::DeltaWith(choice), VARIANT, body(2, 1));
        }
        let at = |list| cache.get(0, &list, VARIANT).map(|body| body.revision);
        for (choice, is_kept) in
            [(1, true), (2, false), (99 - CAPACITY as u32, false), (100 - CAPACITY as u32, true), (99, true)]
        {
            let choice = RegionSet::of(choice);
            assert_eq!(at(List::AllWith(choice)), is_kept.then_some(1), "{choice:?}");
            assert_eq!(at(List::DeltaWith(choice)), is_kept.then_some(2), "{choice:?}");
        }
    }
}
