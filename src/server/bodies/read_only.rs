//! The Java server's read-only cache: whoever asks within one interval gets the answer that the first one got. `server-behaviour` 7.2.
//!
//! Java fills it from a timer and for ever; here the first who asks in an interval does, and with the interval everything goes. So
//! an answer is at most one interval old in both, and here nothing is made that nobody asks for. That an application is missing is not
//! remembered.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::{Body, List, Variant};
use crate::clock::Clock;
#[cfg(feature = "peers")]
use crate::server::regions::RegionSet;

/// Most that is kept of all answers for VIPs together. There are as many names as somebody makes up.
const SELECTIONS_LIMIT: usize = 32 * 1024 * 1024;
/// Of so many choices of other regions the answers are kept, the latest. There are many more choices.
#[cfg(feature = "peers")]
const CHOICES_LIMIT: usize = 8;

#[derive(Debug)]
pub(super) struct ReadOnly {
    interval: Duration,
    clock: Clock,
    kept: Mutex<Kept>,
}

/// The answers of one interval.
#[derive(Debug, Default)]
struct Kept {
    period: u64,
    selections: usize,
    #[cfg(feature = "peers")]
    choices: std::collections::VecDeque<RegionSet>,
    bodies: HashMap<(List<'static>, Variant), Arc<Body>>,
}

impl ReadOnly {
    /// `interval` is not zero.
    pub(super) fn new(interval: Duration, clock: Clock) -> Self {
        Self { interval, clock, kept: Mutex::default() }
    }

    /// The number of the interval that it is now.
    pub(super) fn period(&self) -> u64 {
        (self.clock.elapsed().as_nanos() / self.interval.as_nanos()).try_into().unwrap_or(u64::MAX)
    }

    pub(super) fn at(&self, period: u64, list: &List<'_>, variant: Variant) -> Option<Arc<Body>> {
        let kept = self.lock();
        let key = (list.clone().into_owned(), variant);
        kept.bodies.get(&key).filter(|_| kept.period == period).cloned()
    }

    /// Keeps an answer made for this interval, and gives the one that all get: the first.
    pub(super) fn keep(&self, period: u64, list: &List<'_>, variant: Variant, body: Arc<Body>) -> Arc<Body> {
        let mut kept = self.lock();
        if kept.period > period {
            return body;
        }
        if kept.period < period {
            *kept = Kept { period, ..Kept::default() };
        }
        let key = (list.clone().into_owned(), variant);
        if let Some(first) = kept.bodies.get(&key) {
            return first.clone();
        }
        if let List::Selection(_, name) = list {
            let size = size_of_val(&key) + size_of::<Body>() + name.len() + body.bytes.len();
            if kept.selections + size > SELECTIONS_LIMIT {
                return body;
            }
            kept.selections += size;
        }
        #[cfg(feature = "peers")]
        if let List::AllWith(choice) | List::DeltaWith(choice) = list
            && !kept.choices.contains(choice)
        {
            if kept.choices.len() == CHOICES_LIMIT {
                let oldest = kept.choices.pop_front();
                kept.bodies.retain(|(list, _), _| match list {
                    List::AllWith(choice) | List::DeltaWith(choice) => Some(*choice) != oldest,
                    _ => true,
                });
            }
            kept.choices.push_back(*choice);
        }
        kept.bodies.insert(key, body.clone());
        body
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;
    use crate::server::bodies::{By, Encoding, Form};

    const VARIANT: Variant = Variant { form: Form::Json, encoding: Encoding::Identity };

    fn body(revision: u64, length: usize) -> Arc<Body> {
        Arc::new(Body { revision, tag: HeaderValue::from_static("x"), bytes: vec![0; length].into() })
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
    #[test]
    fn the_answers_of_the_latest_choices_of_regions_are_kept() {
        let cache = ReadOnly::new(Duration::from_secs(30), Clock::start());
        for choice in (0..100).map(RegionSet::of) {
            cache.keep(0, &List::AllWith(choice), VARIANT, body(1, 1));
            cache.keep(0, &List::DeltaWith(choice), VARIANT, body(1, 1));
        }
        assert_eq!(cache.lock().bodies.len(), 2 * CHOICES_LIMIT);
        let at = |choice| cache.at(0, &List::AllWith(RegionSet::of(choice)), VARIANT).is_some();
        assert_eq!([0, 91, 92, 99].map(at), [false, false, true, true]);
    }
}
