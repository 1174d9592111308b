//! The lock-free words of an endpoint under loom: every interleaving of a few threads, every value that relaxed ordering allows.
#![cfg(feature = "client")]
#![allow(clippy::unwrap_used, reason = "the functions around the tests are tests, too")]
#![allow(unreachable_pub, reason = "the words are included as they are")]

use loom::sync::{Arc, MutexGuard, atomic};
use loom::thread;

#[path = "../src/balance/cells.rs"]
#[allow(dead_code, reason = "each is tried, not every reader of it")]
mod cells;

#[path = "../src/balance/ages.rs"]
mod ages;

use ages::{Ages, Ledger};
use cells::{Counts, History, Ticket, Trial};

/// Stands in for `crate::sync::Mutex`.
struct Mutex<T>(loom::sync::Mutex<T>);

impl<T> Mutex<T> {
    fn new(value: T) -> Self {
        Self(loom::sync::Mutex::new(value))
    }

    fn lock(&self) -> MutexGuard<'_, T> {
        self.0.lock().unwrap()
    }
}

/// Tries all interleavings with up to three preemptions, which finds what there is to find of so few steps (CHESS, OSDI 2008).
fn model(run: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(3);
    builder.check(run);
}

/// Runs these at the same time.
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
        let counts = Arc::new(Counts::new());
        together(
            &counts,
            &[
                |counts| {
                    counts.begin();
                    counts.answer();
                    assert!(counts.get().pending() >= 1);
                    counts.end();
                },
                |counts| {
                    counts.begin();
                    counts.give_up();
                },
                |counts| {
                    counts.begin();
                    assert!(counts.get().waiting() >= 1 && counts.get().waiting() <= 3);
                    counts.answer_and_end();
                },
            ],
        );
        let counts = counts.get();
        assert_eq!((counts.pending(), counts.waiting(), counts.answered()), (0, 0, 2));
    });
}

#[test]
fn the_history_loses_no_failure() {
    model(|| {
        let history = Arc::new(History::new());
        together(&history, &[|history| history.failed(), |history| history.failed(), |history| history.succeeded()]);
        assert_eq!(history.failures(), 2);
        assert!(history.in_a_row() <= 2);
    });
}

#[test]
fn one_call_decides_at_a_time() {
    model(|| {
        let trial = Arc::new((Trial::new(), atomic::AtomicU32::new(0)));
        trial.0.begin();
        let take: fn(&(Trial, atomic::AtomicU32)) = |(trial, taken)| {
            let ticket = trial.take();
            if ticket.is_some() {
                assert!(trial.is_current(ticket));
                taken.fetch_add(1, atomic::Ordering::Relaxed);
            }
        };
        together(&trial, &[take, take, take]);
        assert_eq!(trial.1.load(atomic::Ordering::Relaxed), 1);
        assert!(trial.0.ask_again());
        assert!(trial.0.take().is_some());
        assert!(!trial.0.take().is_some());
    });
}

#[test]
fn what_ends_while_a_call_takes_part_counts_no_more() {
    model(|| {
        let trial = Arc::new(Trial::new());
        trial.begin();
        let caller = {
            let trial = trial.clone();
            thread::spawn(move || trial.take())
        };
        // As the roster does under its lock: out again, and later on probation again.
        trial.ask_again();
        trial.end();
        trial.begin();
        let ticket = caller.join().unwrap();
        let late = trial.take();
        // Either the call came in time for the new trial, or this one did.
        assert_eq!(ticket.is_some() && trial.is_current(ticket), !late.is_some());
        trial.end();
        assert!(!trial.is_current(ticket) || ticket == Ticket::NONE);
        assert!(!trial.take().is_some());
    });
}

#[test]
fn all_calls_decide_where_none_can_be_reached() {
    model(|| {
        let trial = Arc::new(Trial::new());
        trial.end();
        trial.open(true);
        let take: fn(&Trial) = |trial| assert!(trial.is_current(trial.take()));
        together(&trial, &[take, take]);
        let ticket = trial.take();
        trial.open(true);
        assert!(trial.is_current(ticket), "the same trial goes on");
        trial.open(false);
        assert!(!trial.is_current(ticket));
    });
}

#[test]
fn permit_that_is_given_back_goes_to_one_call_of_the_same_trial() {
    model(|| {
        let trial = Arc::new(Trial::new());
        trial.begin();
        let ticket = trial.take();
        let caller = {
            let trial = trial.clone();
            thread::spawn(move || {
                trial.give_back(ticket);
                trial.take()
            })
        };
        let other = trial.take();
        let own = caller.join().unwrap();
        assert!(own.is_some() != other.is_some());
        trial.end();
        trial.give_back(ticket);
        assert!(!trial.take().is_some());
    });
}

/// Makes a call that begins in one epoch and ends, while another call makes the mark of the next epochs.
#[test]
fn ages_never_count_a_call_that_has_ended() {
    const EPOCH: u64 = 1 << 27;
    model(|| {
        let state = Arc::new((Counts::new(), Ages::new(0), Mutex::new(Ledger::default())));
        let begin = |state: &(Counts, Ages, Mutex<Ledger>), at: u64, clock: u64| {
            let (counts, ages, ledger) = state;
            if !ages.is_current(at) {
                ages.enter(at, counts, ledger, 0.0, || clock);
            }
            counts.begin();
        };
        let end = |state: &(Counts, Ages, Mutex<Ledger>), at: u64| {
            let (counts, ages, ledger) = state;
            counts.give_up();
            if !ages.is_current(at) {
                ages.leave(at, ledger);
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
        // The one that began at 3 is young, the other one fresh.
        assert_eq!(ages.load(pending, ((4 * EPOCH) >> 20) as u32, || 1.0), 2);
    });
}

#[test]
fn late_counted_call_that_ends_leaves_young_calls_alone() {
    const EPOCH: u64 = 1 << 27;
    model(|| {
        let (counts, ages, ledger) = (Counts::new(), Ages::new(0), Mutex::new(Ledger::default()));
        let begin = |at: u64| {
            ages.enter(at, &counts, &ledger, 0.0, || at);
            counts.begin();
        };
        let end = |at: u64| {
            counts.give_up();
            ages.leave(at, &ledger);
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
        // The one of the second epoch has become old.
        assert_eq!((counts.get().pending(), ages.load(2, ((4 * EPOCH) >> 20) as u32, || 1.0)), (2, 1));
    });
}
