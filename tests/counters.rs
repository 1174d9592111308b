//! Lock-free counters of an endpoint under loom: every interleaving of a few threads, with every
//! value that relaxed ordering allows.
#![cfg(feature = "client")]
#![allow(clippy::unwrap_used, reason = "the functions around the tests are tests, too")]
#![allow(unreachable_pub, reason = "the counters are included as they are")]

use loom::sync::{Arc, atomic};
use loom::thread;

#[path = "../src/balance/endpoint/counters.rs"]
#[allow(dead_code, reason = "each is tried, not every reader of it")]
mod counters;

#[path = "../src/balance/endpoint/ages.rs"]
mod ages;

use ages::{AgeMarks, Ages};
use counters::{CallCounts, HalfOpen, History, Permit};
use primitives::Mutex;

/// Replaces the module of the same name by loom's primitives.
mod primitives {
    pub use loom::sync::atomic;

    /// Replaces `crate::sync::Mutex`.
    pub struct Mutex<T>(loom::sync::Mutex<T>);

    impl<T> Mutex<T> {
        pub fn new(value: T) -> Self {
            Self(loom::sync::Mutex::new(value))
        }

        pub fn lock(&self) -> loom::sync::MutexGuard<'_, T> {
            self.0.lock().unwrap()
        }
    }
}

/// Runs all interleavings with up to three preemptions, which find nearly all faults of so few
/// steps (CHESS, OSDI 2008).
fn model(run: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(3);
    builder.check(run);
}

/// Runs the closures at the same time.
fn together<T: Send + Sync + 'static>(shared: &Arc<T>, threads: &[fn(&T)]) {
    let threads: Vec<_> = threads
        .iter()
        .map(|&run| {
            let shared = shared.clone();
            thread::spawn(move || run(&shared))
        })
        .collect();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
}

#[test]
fn counts_return_to_zero_however_calls_end() {
    model(|| {
        let counts = Arc::new(CallCounts::new());
        together(
            &counts,
            &[
                |counts| {
                    counts.begin();
                    counts.respond();
                    assert!(counts.get().pending() >= 1);
                    counts.end();
                },
                |counts| {
                    counts.begin();
                    counts.cancel();
                },
                |counts| {
                    counts.begin();
                    assert!(counts.get().waiting() >= 1 && counts.get().waiting() <= 3);
                    counts.respond_and_end();
                },
            ],
        );
        let counts = counts.get();
        assert_eq!((counts.pending(), counts.waiting(), counts.responses()), (0, 0, 2));
    });
}

#[test]
fn history_loses_no_failure() {
    model(|| {
        let history = Arc::new(History::new());
        together(
            &history,
            &[
                |history| history.record_failure(),
                |history| history.record_failure(),
                |history| history.record_success(),
            ],
        );
        assert_eq!(history.failures(), 2);
        assert!(history.consecutive_failures() <= 2);
    });
}

#[test]
fn permit_is_acquired_by_one_call_at_a_time() {
    model(|| {
        let half_open = Arc::new((HalfOpen::new(), atomic::AtomicU32::new(0)));
        half_open.0.start();
        let take: fn(&(HalfOpen, atomic::AtomicU32)) = |(half_open, taken)| {
            let permit = half_open.acquire();
            if permit.is_some() {
                assert!(half_open.is_current(permit));
                taken.fetch_add(1, atomic::Ordering::Relaxed);
            }
        };
        together(&half_open, &[take, take, take]);
        assert_eq!(half_open.1.load(atomic::Ordering::Relaxed), 1);
        assert!(half_open.0.reissue());
        assert!(half_open.0.acquire().is_some());
        assert!(!half_open.0.acquire().is_some());
    });
}

#[test]
fn permit_of_an_earlier_period_is_not_current() {
    model(|| {
        let half_open = Arc::new(HalfOpen::new());
        half_open.start();
        let caller = {
            let half_open = half_open.clone();
            thread::spawn(move || half_open.acquire())
        };
        // As the pool does under its lock: ejected again, and half-open later.
        half_open.reissue();
        half_open.stop();
        half_open.start();
        let permit = caller.join().unwrap();
        let late = half_open.acquire();
        // Either the call came in time for the new period, or this one did.
        assert_eq!(permit.is_some() && half_open.is_current(permit), !late.is_some());
        half_open.stop();
        assert!(!half_open.is_current(permit) || permit == Permit::NONE);
        assert!(!half_open.acquire().is_some());
    });
}

#[test]
fn every_call_gets_a_permit_if_none_is_limited() {
    model(|| {
        let half_open = Arc::new(HalfOpen::new());
        half_open.stop();
        half_open.admit_all(true);
        let take: fn(&HalfOpen) = |half_open| assert!(half_open.is_current(half_open.acquire()));
        together(&half_open, &[take, take]);
        let permit = half_open.acquire();
        half_open.admit_all(true);
        assert!(half_open.is_current(permit), "the same period continues");
        half_open.admit_all(false);
        assert!(!half_open.is_current(permit));
    });
}

#[test]
fn released_permit_goes_to_one_call_of_the_same_period() {
    model(|| {
        let half_open = Arc::new(HalfOpen::new());
        half_open.start();
        let permit = half_open.acquire();
        let caller = {
            let half_open = half_open.clone();
            thread::spawn(move || {
                half_open.release(permit);
                half_open.acquire()
            })
        };
        let other = half_open.acquire();
        let own = caller.join().unwrap();
        assert!(own.is_some() != other.is_some());
        half_open.stop();
        half_open.release(permit);
        assert!(!half_open.acquire().is_some());
    });
}

/// One call begins in one epoch and ends while another call sets the mark of the next epochs.
#[test]
fn ages_never_count_a_call_that_has_ended() {
    const EPOCH: u64 = 1 << 27;
    model(|| {
        let state = Arc::new((CallCounts::new(), Ages::new(0), Mutex::new(AgeMarks::default())));
        let begin = |state: &(CallCounts, Ages, Mutex<AgeMarks>), at: u64, clock: u64| {
            let (counts, ages, marks) = state;
            if !ages.is_current(at) {
                ages.enter(at, counts, marks, 0.0, || clock);
            }
            counts.begin();
        };
        let end = |state: &(CallCounts, Ages, Mutex<AgeMarks>), at: u64| {
            let (counts, ages, marks) = state;
            counts.cancel();
            if !ages.is_current(at) {
                ages.leave(at, marks);
            }
        };
        begin(&state, EPOCH, EPOCH);
        let first = {
            let state = state.clone();
            thread::spawn(move || end(&state, EPOCH))
        };
        let second = {
            let state = state.clone();
            thread::spawn(move || {
                begin(&state, 2 * EPOCH + 1, 2 * EPOCH + 2);
                end(&state, 2 * EPOCH + 1);
            })
        };
        first.join().unwrap();
        second.join().unwrap();
        begin(&state, 3 * EPOCH, 3 * EPOCH);
        begin(&state, 4 * EPOCH, 4 * EPOCH);
        let (counts, ages, _) = &*state;
        let pending = counts.get().pending();
        assert_eq!(pending, 2);
        // The call that began at 3 is young, the other one has just begun.
        assert_eq!(ages.load(pending, ((4 * EPOCH) >> 20) as u32, || 1.0), 2);
    });
}

#[test]
fn late_counted_call_that_ends_leaves_young_calls_alone() {
    const EPOCH: u64 = 1 << 27;
    model(|| {
        let (counts, ages, marks) = (CallCounts::new(), Ages::new(0), Mutex::new(AgeMarks::default()));
        let begin = |at: u64| {
            ages.enter(at, &counts, &marks, 0.0, || at);
            counts.begin();
        };
        let end = |at: u64| {
            counts.cancel();
            ages.leave(at, &marks);
        };
        begin(EPOCH);
        begin(2 * EPOCH);
        // A call of the first epoch is counted late, when no call is old any more.
        begin(3 * EPOCH);
        end(EPOCH);
        counts.begin();
        end(EPOCH);
        end(3 * EPOCH);
        begin(4 * EPOCH);
        // The call of the second epoch has become old.
        assert_eq!((counts.get().pending(), ages.load(2, ((4 * EPOCH) >> 20) as u32, || 1.0)), (2, 1));
    });
}
