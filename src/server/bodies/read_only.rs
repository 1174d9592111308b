//! The Java server's read-only cache: whoever asks within one interval gets the answer that the first one got. `server-behaviour` 7.2.
//!
//! Java fills it from a timer and for ever; here the first who asks in an interval does, and with the interval everything goes. So
//! an answer is at most one interval old in both, and here nothing is made that nobody asks for. That an application is missing is not
//! remembered.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

#[cfg(feature = "peers")]
use super::lately::Lately;
use super::{Body, List, Variant};
use crate::clock::Clock;
#[cfg(feature = "peers")]
use crate::server::regions::RegionSet;
use crate::sync::{Mutex, MutexGuard};

/// Most that is kept of all answers for VIPs together. There are as many names as somebody makes up.
const SELECTIONS_LIMIT: usize = 32 * 1024 * 1024;

#[derive(Debug)]
pub(super) struct ReadOnly {
    interval: Duration,
    clock: Clock,
    /// The regions that those are shown who name none. The answers that show them stay, whatever others ask for.
    #[cfg(feature = "peers")]
    pub(super) usual: RegionSet,
    kept: Mutex<Kept>,
}

type Key = (List<'static>, Variant);

/// The answers of one interval.
#[derive(Debug, Default)]
struct Kept {
    period: u64,
    selections: usize,
    bodies: HashMap<Key, Arc<Body>>,
    #[cfg(feature = "peers")]
    choices: Lately<HashMap<Key, Arc<Body>>>,
}

impl ReadOnly {
    /// `interval` is not zero.
    pub(super) fn new(interval: Duration, clock: Clock) -> Self {
        Self {
            interval,
            clock,
            #[cfg(feature = "peers")]
            usual: RegionSet::default(),
            kept: Mutex::default(),
        }
    }

    /// The number of the interval that it is now.
    pub(super) fn period(&self) -> u64 {
        (self.clock.elapsed().as_nanos() / self.interval.as_nanos()).try_into().unwrap_or(u64::MAX)
    }

    pub(super) fn at(&self, period: u64, list: &List<'_>, variant: Variant) -> Option<Arc<Body>> {
        let kept = &mut *self.lock();
        if kept.period != period {
            return None;
        }
        let key = (list.clone().into_owned(), variant);
        #[cfg(feature = "peers")]
        if let Some(choice) = self.unusual(list) {
            return kept.choices.get(choice)?.get(&key).cloned();
        }
        kept.bodies.get(&key).cloned()
    }

    /// Keeps an answer made for this interval, and gives the one that all get: the first.
    pub(super) fn keep(&self, period: u64, list: &List<'_>, variant: Variant, body: Arc<Body>) -> Arc<Body> {
        let kept = &mut *self.lock();
        if kept.period > period {
            return body;
        }
        if kept.period < period {
            *kept = Kept { period, ..Kept::default() };
        }
        let (bodies, selections) = (&mut kept.bodies, &mut kept.selections);
        #[cfg(feature = "peers")]
        let bodies = match self.unusual(list) {
            Some(choice) => kept.choices.get_or_insert_with(choice, HashMap::new),
            None => bodies,
        };
        let key = (list.clone().into_owned(), variant);
        if let Some(first) = bodies.get(&key) {
            return first.clone();
        }
        if let List::Selection(_, name) = list {
            let size = size_of_val(&key) + size_of::<Body>() + name.len() + body.bytes().len();
            if *selections + size > SELECTIONS_LIMIT {
                return body;
            }
            *selections += size;
        }
        bodies.insert(key, body.clone());
        body
    }

    /// The regions in a list that only those see who name them.
    #[cfg(feature = "peers")]
    fn unusual(&self, list: &List<'_>) -> Option<RegionSet> {
        match list {
            List::AllWith(choice) | List::DeltaWith(choice) if *choice != self.usual => Some(*choice),
            _ => None,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock()
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;
    #[cfg(feature = "peers")]
    use crate::server::bodies::lately::KEPT;
    use crate::server::bodies::{By, Encoding, Form};
    use crate::server::unsent::Unsent;

    const VARIANT: Variant = Variant { form: Form::Json, encoding: Encoding::Identity };

    fn body(revision: u64, length: usize) -> Arc<Body> {
        let unsent = Arc::new(Unsent::new(usize::MAX));
        Arc::new(Body::new(revision, HeaderValue::from_static("x"), None, vec![0; length].into(), &unsent))
    }

    fn vip(name: &str) -> List<'_> {
        List::Selection(By::Vip, name.into())
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_of_an_interval_counts() {
        let cache = ReadOnly::new(Duration::from_secs(30), Clock::start());
        let at = |list| cache.at(cache.period(), list, VARIANT).map(|body| body.revision);
        assert_eq!(at(&List::All), None);
        assert_eq!(cache.keep(0, &List::All, VARIANT, body(1, 1)).revision, 1);
        assert_eq!(cache.keep(0, &List::All, VARIANT, body(2, 1)).revision, 1, "made at the same time");
        assert_eq!((at(&List::All), at(&List::Delta)), (Some(1), None));
        tokio::time::advance(Duration::from_millis(29_999)).await;
        assert_eq!(at(&List::All), Some(1));
        tokio::time::advance(Duration::from_millis(1)).await;
        assert_eq!(at(&List::All), None);
        assert_eq!(cache.keep(1, &List::Delta, VARIANT, body(3, 1)).revision, 3);
        assert_eq!(cache.keep(0, &List::All, VARIANT, body(2, 1)).revision, 2, "late");
        assert_eq!((at(&List::All), at(&List::Delta)), (None, Some(3)));
    }

    #[test]
    fn made_up_names_take_no_more_than_their_room() {
        let cache = ReadOnly::new(Duration::from_secs(30), Clock::start());
        for i in 0..100 {
            cache.keep(0, &vip(&i.to_string()), VARIANT, body(1, 1024 * 1024));
        }
        assert!(cache.lock().selections <= SELECTIONS_LIMIT);
        assert_eq!(cache.lock().bodies.len(), 31);
        assert!(cache.at(0, &vip("0"), VARIANT).is_some() && cache.at(0, &vip("99"), VARIANT).is_none());
        cache.keep(0, &List::Application("A".into()), VARIANT, body(1, 1));
        assert!(cache.at(0, &List::Application("A".into()), VARIANT).is_some());
    }

    #[cfg(feature = "peers")]
    #[tokio::test]
    async fn of_choices_of_regions_the_usual_and_the_latest_are_kept() {
        let usual = RegionSet::of(1);
        let cache = ReadOnly { usual, ..ReadOnly::new(Duration::from_secs(30), Clock::start()) };
        for choice in (1..100).map(RegionSet::of) {
            cache.keep(0, &List::AllWith(choice), VARIANT, body(1, 1));
            cache.keep(0, &List::DeltaWith(choice), VARIANT, body(2, 1));
        }
        let at = |list| cache.at(0, &list, VARIANT).map(|body| body.revision);
        for (choice, kept) in [(1, true), (2, false), (99 - KEPT as u32, false), (100 - KEPT as u32, true), (99, true)]
        {
            let choice = RegionSet::of(choice);
            assert_eq!(at(List::AllWith(choice)), kept.then_some(1), "{choice:?}");
            assert_eq!(at(List::DeltaWith(choice)), kept.then_some(2), "{choice:?}");
        }
    }
}
