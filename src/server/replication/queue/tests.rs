use super::*;

const MS: Duration = Duration::from_millis(1);
const LIMITS: Limits = Limits {
    capacity: 10_000,
    batch: BATCH_SIZE,
    workers: 20,
    life: Duration::from_secs(30),
    outage: Duration::from_secs(600),
    doubt: None,
};

fn target(id: &str) -> Arc<Target> {
    Arc::new(Target { app: "ORDERS".into(), id: id.into() })
}

/// Queue with a manual clock.
struct Bench {
    queue: Queue,
    now: Instant,
}

impl Bench {
    fn new(limits: Limits) -> Self {
        Self { queue: Queue::new(limits), now: Instant::now() }
    }

    fn push(&mut self, action: ReplicationAction, id: &str) -> bool {
        self.push_status(action, id, None)
    }

    fn push_status(&mut self, action: ReplicationAction, id: &str, status: Option<InstanceStatus>) -> bool {
        self.queue.push(Change::new(target(id), action, status), self.now)
    }

    fn push_metadata(&mut self, id: &str) {
        self.queue.push(Change::metadata(target(id)), self.now);
    }

    /// Returns the batch that is due now. Panics if none is.
    fn batch(&mut self) -> Vec<Task> {
        match self.queue.poll(self.now) {
            Step::Send(batch) => batch,
            Step::Wait(until) => panic!("waits for {:?}", until.map(|until| until - self.now)),
        }
    }

    /// Returns the time until the queue has to be polled again. Panics if a batch is due.
    fn wait(&mut self) -> Option<Duration> {
        match self.queue.poll(self.now) {
            Step::Send(batch) => panic!("sends {}", names(&batch)),
            Step::Wait(until) => until.map(|until| until - self.now),
        }
    }

    fn later(&mut self, by: Duration) -> &mut Self {
        self.now += by;
        self
    }

    fn done(&mut self, batch: Vec<Task>, outcome: Outcome) {
        self.queue.done(batch, outcome, self.now);
    }
}

fn names(batch: &[Task]) -> String {
    let names: Vec<_> = batch.iter().map(|t| format!("{} {}", t.change.action.as_str(), t.change.target.id)).collect();
    names.join(", ")
}

#[test]
fn batch_is_sent_half_a_second_after_its_first_task() {
    let mut bench = Bench::new(LIMITS);
    assert_eq!(bench.wait(), None);
    assert!(bench.push(Register, "a"), "the sending task is woken");
    bench.later(400 * MS);
    assert!(!bench.push(Heartbeat, "b"));
    assert_eq!(bench.wait(), Some(100 * MS));
    assert_eq!(names(&bench.later(100 * MS).batch()), "Register a, Heartbeat b");
}

#[test]
fn full_batch_of_250_tasks_is_sent_at_once() {
    let mut bench = Bench::new(LIMITS);
    let woken: Vec<_> = (0..600).filter(|i| bench.push(Heartbeat, &i.to_string())).collect();
    assert_eq!(woken, [0, 249], "the first, and the one that fills a batch");
    assert_eq!(bench.batch().len(), 250);
    assert_eq!(bench.batch().len(), 250);
    assert_eq!(bench.wait(), Some(500 * MS));
}

#[test]
fn full_queue_drops_its_oldest_task() {
    let mut bench = Bench::new(Limits { capacity: 3, batch: 2, ..LIMITS });
    for id in 0..4 {
        bench.push(Register, &id.to_string());
    }
    assert_eq!(bench.queue.counters(), Counters { overflowed: 1, ..Counters::default() });
    assert_eq!(names(&bench.batch()), "Register 1, Register 2");
}

#[test]
fn change_pushed_twice_is_sent_once_in_its_latest_form() {
    let mut bench = Bench::new(LIMITS);
    bench.push_status(StatusUpdate, "a", Some(InstanceStatus::Down));
    bench.push(Register, "b");
    bench.push_status(StatusUpdate, "a", Some(InstanceStatus::Up));
    let batch = bench.later(500 * MS).batch();
    assert_eq!(names(&batch), "StatusUpdate a, Register b", "it keeps its position");
    assert_eq!(batch[0].change.status, Some(InstanceStatus::Up));
    assert_eq!(bench.queue.counters().replaced, 1);
}

#[test]
fn frequent_heartbeats_do_not_delay_other_tasks() {
    let mut bench = Bench::new(LIMITS);
    bench.push(Heartbeat, "chatty");
    bench.push(Register, "b");
    for _ in 0..4 {
        bench.later(100 * MS).push(Heartbeat, "chatty");
    }
    assert_eq!(names(&bench.later(100 * MS).batch()), "Heartbeat chatty, Register b");
}

#[test]
fn cancellation_replaces_all_earlier_tasks_of_its_instance() {
    let mut bench = Bench::new(LIMITS);
    for action in [Register, Heartbeat, StatusUpdate, DeleteStatusOverride, Cancel] {
        bench.push(action, "a");
    }
    bench.push(Heartbeat, "b");
    bench.push(Register, "a");
    assert_eq!(names(&bench.later(500 * MS).batch()), "Cancel a, Heartbeat b, Register a");
}

#[test]
fn override_and_its_removal_stay_in_order() {
    for (pushed, expected) in [
        (&[StatusUpdate, DeleteStatusOverride][..], "StatusUpdate a, DeleteStatusOverride a"),
        (&[DeleteStatusOverride, StatusUpdate], "StatusUpdate a"),
        (&[DeleteStatusOverride, StatusUpdate, DeleteStatusOverride], "StatusUpdate a, DeleteStatusOverride a"),
        (&[StatusUpdate, DeleteStatusOverride, StatusUpdate], "StatusUpdate a"),
    ] {
        let mut bench = Bench::new(LIMITS);
        for &action in pushed {
            bench.push(action, "a");
        }
        assert_eq!(names(&bench.later(500 * MS).batch()), expected, "{pushed:?}");
    }
}

#[test]
fn failed_batch_is_sent_again_first() {
    let mut bench = Bench::new(Limits { batch: 1, ..LIMITS });
    bench.push(Register, "1");
    bench.push(Register, "2");
    let first = bench.batch();
    bench.done(first, Outcome::Failed);
    assert_eq!(bench.wait(), Some(100 * MS), "the pause applies to the whole peer");
    let again = bench.later(100 * MS).batch();
    assert_eq!(names(&again), "Register 1");
    assert_eq!(bench.wait(), None, "a peer that failed gets one batch at a time");
    bench.done(again, Outcome::Done);
    assert_eq!(names(&bench.batch()), "Register 2");
}

#[test]
fn pauses_grow_with_failures_and_end_with_a_response() {
    let mut bench = Bench::new(LIMITS);
    bench.push(Register, "a");
    bench.later(500 * MS);
    for expected in [100, 200, 400, 800, 1000, 1000] {
        let batch = bench.batch();
        bench.done(batch, Outcome::Failed);
        let wait = bench.wait().unwrap();
        assert_eq!(wait, expected * MS);
        bench.later(wait);
    }
    let batch = bench.batch();
    bench.done(batch, Outcome::Congested);
    assert_eq!(bench.wait(), Some(1000 * MS));
    let batch = bench.later(1000 * MS).batch();
    bench.done(batch, Outcome::Done);
    assert!(bench.queue.is_empty());
    bench.push(Register, "b");
    assert_eq!(bench.wait(), Some(500 * MS));
}

#[test]
fn failed_task_is_replaced_by_a_newer_one() {
    let mut bench = Bench::new(LIMITS);
    for action in [Register, StatusUpdate] {
        bench.push(action, "a");
    }
    bench.push(Register, "b");
    let batch = bench.later(500 * MS).batch();
    bench.push(Register, "b");
    bench.push(Cancel, "a");
    bench.done(batch, Outcome::Failed);
    assert_eq!(names(&bench.later(500 * MS).batch()), "Register b, Cancel a");
    assert_eq!(bench.queue.counters().replaced, 3);
}

#[test]
fn instance_in_flight_holds_back_its_later_tasks() {
    let mut bench = Bench::new(LIMITS);
    bench.push(Register, "a");
    let first = bench.later(500 * MS).batch();
    bench.push(Cancel, "a");
    bench.push(Register, "b");
    assert_eq!(names(&bench.later(500 * MS).batch()), "Register b");
    assert_eq!(bench.wait(), None);
    bench.done(first, Outcome::Done);
    assert_eq!(names(&bench.batch()), "Cancel a");
}

#[test]
fn expired_task_is_not_sent() {
    let mut bench = Bench::new(LIMITS);
    bench.push(Register, "a");
    bench.later(Duration::from_secs(30)).push(Register, "b");
    assert_eq!(names(&bench.later(500 * MS).batch()), "Register b");
    assert_eq!(bench.queue.counters(), Counters { expired: 1, ..Counters::default() });
}

#[test]
fn heartbeat_that_is_not_sent_counts_apart_from_changes() {
    let mut bench = Bench::new(Limits { capacity: 4, ..LIMITS });
    bench.push(Heartbeat, "a");
    let batch = bench.later(500 * MS).batch();
    bench.later(Duration::from_secs(30)).done(batch, Outcome::Failed);
    let heartbeats = |heartbeats| Counters { heartbeats, ..Counters::default() };
    assert_eq!(bench.queue.counters(), heartbeats(1), "it expired");
    for id in ["b", "c", "d"] {
        bench.push(Heartbeat, id);
    }
    assert_eq!(bench.queue.counters(), heartbeats(2), "heartbeats fill half of the queue of a peer that fails");
    for id in ["e", "f", "g", "h"] {
        bench.push(Register, id);
    }
    assert_eq!(bench.queue.counters(), heartbeats(4), "heartbeats give way to changes");
    bench.push(Register, "i");
    assert_eq!(bench.queue.counters(), Counters { overflowed: 1, ..heartbeats(4) });
}

#[test]
fn changes_outlast_an_outage_and_heartbeats_do_not() {
    let mut bench = Bench::new(LIMITS);
    bench.push(Register, "a");
    bench.push(Heartbeat, "b");
    bench.push(Cancel, "c");
    for _ in 0..120 {
        let batch = bench.later(1000 * MS).batch();
        bench.done(batch, Outcome::Failed);
    }
    bench.push(Heartbeat, "d");
    let batch = bench.later(1000 * MS).batch();
    assert_eq!(names(&batch), "Register a, Cancel c, Heartbeat d");
    bench.push(Cancel, "e");
    bench.done(batch, Outcome::Done);
    bench.later(Duration::from_secs(31));
    assert_eq!(bench.wait(), None, "once the peer responds, late changes expire");
}

#[test]
fn changes_expire_at_the_outage_limit() {
    let mut bench = Bench::new(LIMITS);
    bench.push(Register, "a");
    for _ in 0..600 {
        let Step::Send(batch) = bench.queue.poll(bench.now + 1000 * MS) else { break };
        bench.later(1000 * MS);
        bench.done(batch, Outcome::Failed);
    }
    assert_eq!(bench.later(2000 * MS).wait(), None);
    assert!(bench.queue.is_empty());
}

#[test]
fn changes_that_others_may_have_overtaken_are_compared_after_a_long_outage() {
    let doubt = Duration::from_secs(10);
    let mut bench = Bench::new(Limits { doubt: Some(doubt), ..LIMITS });
    let doubtful =
        |bench: &Bench| bench.queue.doubtful().iter().map(|target| target.id.to_string()).collect::<Vec<_>>();
    bench.push(Register, "a");
    bench.push(StatusUpdate, "b");
    bench.push(Register, "b");
    for _ in 0..10 {
        let batch = bench.later(1000 * MS).batch();
        assert_eq!(names(&batch), "Register a, StatusUpdate b, Register b", "a short outage");
        bench.done(batch, Outcome::Failed);
    }
    bench.push(Heartbeat, "b");
    let batch = bench.later(1000 * MS).batch();
    assert_eq!((names(&batch), doubtful(&bench)), ("Register a, Heartbeat b".into(), vec!["b".into()]));
    assert!(!bench.push(Register, "b"), "is not sent before the comparison");
    bench.done(batch, Outcome::Done);
    bench.push(Cancel, "c");
    let batch = bench.later(500 * MS).batch();
    assert_eq!(names(&batch), "Cancel c", "the outage is over");
    bench.done(batch, Outcome::Done);
    assert!(bench.queue.is_empty() && !bench.queue.is_flushed());
    let target = Target { app: "ORDERS".into(), id: "b".into() };
    assert_eq!([(); 2].map(|()| bench.queue.settle(&target)), [Some(Doubt::Changed), None]);
    assert!(bench.queue.is_flushed() && bench.push(Register, "b"));
}

#[test]
fn change_of_metadata_is_compared_after_a_long_outage() {
    for (action, is_compared) in [(None, true), (Some(Heartbeat), true), (Some(Register), false)] {
        let mut bench = Bench::new(Limits { doubt: Some(Duration::from_secs(10)), ..LIMITS });
        bench.push_metadata("a");
        for _ in 0..10 {
            let batch = bench.later(1000 * MS).batch();
            assert_eq!(names(&batch), "Register a", "a short outage");
            bench.done(batch, Outcome::Failed);
        }
        action.map(|action| bench.push(action, "a"));
        bench.later(1000 * MS).batch();
        assert_eq!(bench.queue.doubtful().len(), usize::from(is_compared), "{action:?} follows");
    }
}

#[test]
fn doubt_shows_whether_the_last_change_of_the_instance_is_its_cancellation() {
    let refused = Change::new(target("a"), Cancel, None);
    for (before, is_refused, after, cancelled) in [
        (&[StatusUpdate, Cancel][..], false, &[][..], true),
        (&[Cancel, Register], false, &[], false),
        (&[Cancel], false, &[Register, StatusUpdate], false),
        (&[StatusUpdate], false, &[Cancel], true),
        (&[], true, &[], true),
        (&[Register], true, &[], false),
    ] {
        let mut bench = Bench::new(Limits { doubt: Some(Duration::ZERO), ..LIMITS });
        bench.push(Heartbeat, "b");
        let batch = bench.later(500 * MS).batch();
        for &action in before {
            bench.push(action, "a");
        }
        bench.done(batch, Outcome::Failed);
        if is_refused {
            bench.queue.doubt_refused(&refused);
        }
        bench.later(1000 * MS).batch();
        for &action in after {
            bench.push(action, "a");
        }
        let expected = if cancelled { Doubt::Cancelled } else { Doubt::Changed };
        assert_eq!(bench.queue.settle(&refused.target), Some(expected), "{before:?}, {is_refused}, {after:?}");
    }
}

#[test]
fn peer_with_only_instances_in_doubt_is_tried_with_empty_batches() {
    let mut bench = Bench::new(Limits { doubt: Some(Duration::ZERO), ..LIMITS });
    bench.push(Cancel, "a");
    let batch = bench.later(500 * MS).batch();
    bench.done(batch, Outcome::Failed);
    for outcome in [Outcome::Failed, Outcome::Done] {
        let batch = bench.later(1000 * MS).batch();
        assert_eq!(names(&batch), "");
        bench.done(batch, outcome);
    }
    assert_eq!(bench.wait(), None);
    assert_eq!(bench.queue.doubtful().len(), 1);
    let target = Target { app: "ORDERS".into(), id: "a".into() };
    bench.queue.give_up(&target);
    assert_eq!(bench.queue.counters().lost().dropped, 1, "a full comparison follows");
}

#[test]
fn refused_change_is_compared_if_its_order_matters() {
    let mut bench = Bench::new(Limits { doubt: Some(Duration::from_secs(10)), ..LIMITS });
    bench.push(DeleteStatusOverride, "a");
    bench.push(Register, "b");
    let batch = bench.later(500 * MS).batch();
    bench.push(Register, "a");
    let changes: Vec<_> = batch.iter().map(|task| task.change.clone()).collect();
    bench.queue.note_refused_batch(&changes);
    bench.done(batch, Outcome::Done);
    assert_eq!(bench.queue.doubtful().len(), 1);
    assert_eq!(bench.wait(), None, "the registration would keep the override");
}

#[test]
fn registration_is_sent_after_the_override_changes_that_it_follows() {
    let mut bench = Bench::new(LIMITS);
    for action in [Register, StatusUpdate, DeleteStatusOverride, Register] {
        bench.push(action, "a");
    }
    let batch = bench.later(500 * MS).batch();
    assert_eq!(names(&batch), "StatusUpdate a, DeleteStatusOverride a, Register a");
}

#[test]
fn flush_is_over_once_nothing_is_left_or_the_peer_does_not_respond() {
    let mut bench = Bench::new(LIMITS);
    bench.push(Cancel, "a");
    bench.push(Heartbeat, "b");
    bench.queue.flush();
    let batch = bench.batch();
    bench.done(batch, Outcome::Congested);
    assert!(!bench.queue.is_flush_over(), "the peer may be starting");
    bench.queue.note_silence();
    assert!(bench.queue.is_flush_over());

    let mut bench = Bench::new(LIMITS);
    bench.push(Heartbeat, "b");
    bench.queue.flush();
    let batch = bench.batch();
    bench.done(batch, Outcome::Congested);
    assert!(bench.queue.is_flush_over(), "only heartbeats are left");
}

#[test]
fn flush_sends_an_incomplete_batch_at_once() {
    let mut bench = Bench::new(LIMITS);
    bench.push(Cancel, "a");
    bench.queue.flush();
    let batch = bench.batch();
    assert!(!bench.queue.is_empty());
    bench.done(batch, Outcome::Done);
    assert!(bench.queue.is_empty());
}

#[test]
fn heartbeats_never_displace_changes() {
    let mut bench = Bench::new(Limits { capacity: 4, ..LIMITS });
    bench.push(StatusUpdate, "a");
    let batch = bench.later(BATCHING_DELAY).batch();
    bench.done(batch, Outcome::Failed);
    for id in ["1", "2", "3", "4", "5"] {
        bench.push(Heartbeat, id);
    }
    bench.push(Register, "b");
    bench.push(Register, "c");
    bench.push(Register, "d");
    let batch = bench.later(2 * CONGESTION_DELAY).batch();
    assert_eq!(names(&batch), "StatusUpdate a, Register b, Register c, Register d");
}

#[test]
fn task_of_another_instance_does_not_wait_for_a_slow_batch() {
    let mut bench = Bench::new(LIMITS);
    bench.push(Register, "a");
    let slow = bench.later(BATCHING_DELAY).batch();
    bench.push(Heartbeat, "a");
    assert_eq!(bench.later(BATCHING_DELAY).wait(), None);
    assert!(bench.push(Heartbeat, "b"), "the sending task is woken");
    let batch = bench.later(BATCHING_DELAY).batch();
    assert_eq!(names(&batch), "Heartbeat b");
    bench.done(slow, Outcome::Done);
}

#[test]
fn longest_times_do_not_panic() {
    let outage = crate::time::LONGEST_WAIT;
    let mut bench = Bench::new(Limits { life: outage, outage, ..LIMITS });
    bench.push(StatusUpdate, "a");
    let batch = bench.later(BATCHING_DELAY).batch();
    bench.done(batch, Outcome::Failed);
    assert!(bench.wait().is_some());
}
