//! Everyday events at healthy endpoints: long polls, late heads, callers that disconnect,
//! connections that end, full connections. None of them may eject an endpoint, or take its share of
//! the other calls.

use std::convert::Infallible;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tower::discover::Change;
use tower::util::BoxCloneSyncService;
use tower::{ServiceExt, service_fn};
use tower_eureka::balance::{Balance, Cause, Completion, Ejection, EndpointState, Observe, Outcome};

const SEED: u64 = 3;

const fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

const fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// Kind of a call.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Call {
    /// Has a response after about 5 ms.
    Short,
    /// Has a response after this time.
    Long(Duration),
    /// Meets its deadline after this time, which the observer records.
    Deadline(Duration),
}

/// Reason for which a call was not processed.
#[derive(Debug)]
enum Refused {
    Unprocessed,
    Deadline,
}

impl std::fmt::Display for Refused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{self:?}")
    }
}

impl std::error::Error for Refused {}

#[derive(Clone)]
struct Judge;

impl Observe<()> for Judge {
    type Response = ();

    fn observe(&self, mut completion: Completion, (): ()) {
        completion.success();
    }

    fn observe_error(&self, error: &(dyn std::error::Error + 'static)) -> Outcome {
        match error.downcast_ref() {
            Some(Refused::Unprocessed) => Outcome::Unprocessed,
            Some(Refused::Deadline) => Outcome::TimedOut,
            None => Outcome::Failure { retry_after: None },
        }
    }
}

/// Events at the endpoints beside the calls.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct World {
    /// Connections end every second: the next call after that is not processed.
    goes_away: bool,
    /// A connection takes two calls at a time. Sixteen more wait, others are not processed.
    two_streams: bool,
}

type Endpoint = BoxCloneSyncService<Call, (), Refused>;

struct Fleet {
    balance: Balance<Endpoint, tower_eureka::balance::PeakEwma, Judge>,
    /// Short calls by endpoint.
    hits: Arc<Vec<AtomicUsize>>,
}

impl Fleet {
    async fn new(n: usize, world: World) -> Self {
        fastrand::seed(SEED);
        let hits: Arc<Vec<_>> = Arc::new((0..n).map(|_| AtomicUsize::new(0)).collect());
        let start = Instant::now();
        let endpoint = |number: usize| -> Endpoint {
            let (hits, ended) = (hits.clone(), Arc::new(Mutex::new(0)));
            let (streams, waiting) = (Arc::new(Semaphore::new(2)), Arc::new(Semaphore::new(18)));
            BoxCloneSyncService::new(service_fn(move |call| {
                let (hits, ended, streams, waiting) = (hits.clone(), ended.clone(), streams.clone(), waiting.clone());
                async move {
                    // Each at a moment of its own.
                    let second = (start.elapsed() + millis(137) * number as u32).as_secs();
                    if world.goes_away && std::mem::replace(&mut *ended.lock().unwrap(), second) != second {
                        return Err(Refused::Unprocessed);
                    }
                    let _place = match world.two_streams {
                        true => {
                            let place = waiting.try_acquire().map_err(|_| Refused::Unprocessed)?;
                            let stream = streams.acquire().await.unwrap();
                            Some((place, stream))
                        }
                        false => None,
                    };
                    match call {
                        Call::Short => {
                            hits[number].fetch_add(1, Ordering::Relaxed);
                            sleep(Duration::from_micros(fastrand::u64(4_000..6_000))).await;
                        }
                        Call::Long(time) => sleep(time).await,
                        Call::Deadline(time) => {
                            sleep(time).await;
                            return Err(Refused::Deadline);
                        }
                    }
                    Ok(())
                }
            }))
        };
        let changes: Vec<_> = (0..n).map(|i| Ok::<_, Infallible>(Change::Insert(i, endpoint(i)))).collect();
        let balance = Balance::builder(tokio_stream::iter(changes)).observer(Judge).build();
        crate::endpoints::until(|| balance.len() == n).await;
        Self { balance, hits }
    }

    /// Callers that make short calls for a minute, one after the other with a pause, beside these
    /// that do something else. Returns the number of failed short calls.
    async fn minute(&self, callers: usize, pause: Duration, others: &[Other]) -> usize {
        let end = Instant::now() + secs(60);
        let mut tasks = tokio::task::JoinSet::new();
        for other in others {
            let (balance, other) = (self.balance.clone(), *other);
            tasks.spawn(async move {
                while Instant::now() < end {
                    sleep(other.pause.mul_f64(0.5 + fastrand::f64())).await;
                    let _ = timeout(other.patience, balance.clone().oneshot(other.call)).await;
                }
                0
            });
        }
        for _ in 0..callers {
            let balance = self.balance.clone();
            tasks.spawn(async move {
                let mut failed = 0;
                while Instant::now() < end {
                    let mut made = false;
                    // Calls that were not processed are sent again, as calls by name are.
                    for _ in 0..3 {
                        made |= !made
                            && timeout(secs(1), balance.clone().oneshot(Call::Short)).await.is_ok_and(|r| r.is_ok());
                    }
                    failed += usize::from(!made);
                    sleep(pause.mul_f64(0.5 + fastrand::f64())).await;
                }
                failed
            });
        }
        // Reads the state of the endpoints all the time.
        let balance = self.balance.clone();
        let reads = tokio::spawn(async move {
            while Instant::now() < end {
                let snapshot = balance.snapshot();
                assert_eq!(snapshot.count(EndpointState::Available), balance.len(), "{snapshot}");
                sleep_until(Instant::now() + millis(50)).await;
            }
        });
        let failed = tasks.join_all().await.into_iter().sum();
        reads.await.unwrap();
        failed
    }

    /// Least and greatest share of the short calls, in percent of the fair share.
    fn shares(&self) -> (usize, usize) {
        let hits: Vec<_> = self.hits.iter().map(|hits| hits.load(Ordering::Relaxed)).collect();
        let of_fair = |hits: usize, all: usize| 100 * hits * self.hits.len() / all;
        let all = hits.iter().sum();
        (of_fair(*hits.iter().min().unwrap(), all), of_fair(*hits.iter().max().unwrap(), all))
    }
}

/// Calls beside the short ones.
#[derive(Clone, Copy, Debug)]
struct Other {
    call: Call,
    patience: Duration,
    pause: Duration,
}

/// One caller that always waits in a long poll.
fn poll(call: Call, patience: Duration) -> Other {
    Other { call, patience, pause: millis(20) }
}

/// Uptimes shortly before a stamp of the balancer wraps. All count from 365 days before the
/// process.
fn wraps() -> [Duration; 3] {
    // Epochs of long calls, ticks of silence, ticks of latency.
    [43, 49, 52].map(|bits| {
        let period = Duration::from_nanos(1 << bits);
        let before = secs(365 * 24 * 3_600).as_nanos();
        let next = before.next_multiple_of(period.as_nanos());
        Duration::from_nanos(u64::try_from(next - before).unwrap()) - secs(30)
    })
}

/// Neither ejects an endpoint nor fails a call, and leaves each endpoint its share, within a tenth.
async fn leaves_all_alike(what: &str, world: World, others: &[Other]) {
    for n in [2, 5] {
        // One caller makes so few calls that chance moves the shares of a single minute.
        for (callers, pause, minutes) in [(1, millis(5), 4), (16, millis(20), 1)] {
            let fleet = Fleet::new(n, world).await;
            let mut failed = 0;
            for _ in 0..minutes {
                failed += fleet.minute(callers, pause, others).await;
            }
            let (least, most) = fleet.shares();
            assert!(least >= 90 && most <= 110, "seed {SEED}: {what}, {n}, {callers}: {least} to {most} % of fair");
            assert_eq!(failed, 0, "seed {SEED}: {what}, {n}, {callers}");
        }
    }
}

/// Has no effect beside a call with a late head, in a process that has been up for this time, once
/// no call was made for this time.
fn late_head_leaves_all_alike(uptime: Duration, idle: Duration) {
    const LATE_HEAD: Other = Other { call: Call::Long(secs(70)), patience: FOREVER, pause: millis(20) };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(async {
        // The first balancer of the process sets the origin of all times.
        drop(Fleet::new(1, World::default()).await);
        tokio::time::advance(uptime).await;
        let fleet = Fleet::new(2, World::default()).await;
        if !idle.is_zero() {
            fleet.minute(4, millis(20), &[LATE_HEAD]).await;
            tokio::time::advance(idle).await;
            fleet.hits.iter().for_each(|hits| hits.store(0, Ordering::Relaxed));
        }
        let failed = fleet.minute(16, millis(20), &[LATE_HEAD]).await;
        let (least, most) = fleet.shares();
        let what = format!("seed {SEED}: up for {uptime:?}, idle for {idle:?}");
        assert!(least >= 90 && most <= 110, "{what}: {least} to {most} % of fair");
        assert_eq!(failed, 0, "{what}");
    });
}

#[test]
fn late_head_leaves_shares_equal_at_any_uptime() {
    for minutes in [1, 45, 100] {
        late_head_leaves_all_alike(secs(60 * minutes), Duration::ZERO);
    }
}

#[test]
fn late_head_leaves_shares_equal_after_any_idle_time() {
    for minutes in [60, 100, 147] {
        late_head_leaves_all_alike(secs(60), secs(60 * minutes));
    }
}

#[test]
fn late_head_leaves_shares_equal_while_a_stamp_wraps() {
    for uptime in wraps() {
        late_head_leaves_all_alike(uptime, Duration::ZERO);
    }
}

const FOREVER: Duration = Duration::from_secs(1_000);

#[tokio::test(start_paused = true)]
async fn short_calls_alone_leave_shares_equal() {
    leaves_all_alike("nothing", World::default(), &[]).await;
}

#[tokio::test(start_paused = true)]
async fn long_poll_that_meets_its_deadline_leaves_shares_equal() {
    for polls in [1, 4] {
        let others = vec![poll(Call::Deadline(secs(30)), FOREVER); polls];
        leaves_all_alike("deadlines", World::default(), &others).await;
    }
}

#[tokio::test(start_paused = true)]
async fn long_poll_that_its_caller_cancels_leaves_shares_equal() {
    for polls in [1, 4] {
        let others = vec![poll(Call::Long(FOREVER), secs(20)); polls];
        leaves_all_alike("given up", World::default(), &others).await;
    }
}

#[tokio::test(start_paused = true)]
async fn stream_with_a_late_head_leaves_shares_equal() {
    for streams in [1, 4] {
        let others = vec![poll(Call::Long(secs(10)), FOREVER); streams];
        leaves_all_alike("late heads", World::default(), &others).await;
    }
}

/// Two callers that give up a long call about each second.
const DISCONNECTS: [Other; 2] = [Other { call: Call::Long(secs(60)), patience: millis(350), pause: millis(650) }; 2];

#[tokio::test(start_paused = true)]
async fn callers_that_disconnect_leave_shares_equal() {
    leaves_all_alike("disconnects", World::default(), &DISCONNECTS).await;
}

/// For a moment, chance may send an endpoint nothing but calls that are given up.
#[tokio::test(start_paused = true)]
async fn callers_that_disconnect_eject_no_endpoint_in_an_hour() {
    for seed in 0..60 {
        fastrand::seed(seed);
        tokio::time::advance(Duration::from_micros(fastrand::u64(0..3_000_000))).await;
        let fleet = Fleet::new(2, World::default()).await;
        // A new fleet sets the seed of all tests.
        fastrand::seed(seed);
        // Panics if an endpoint is ejected.
        assert_eq!(fleet.minute(1, millis(5), &DISCONNECTS).await, 0, "seed {seed}");
    }
}

#[tokio::test(start_paused = true)]
async fn connections_that_end_every_second_leave_shares_equal() {
    leaves_all_alike("goaway", World { goes_away: true, ..World::default() }, &[]).await;
}

#[tokio::test(start_paused = true)]
async fn limit_of_two_streams_leaves_shares_equal() {
    leaves_all_alike("two streams", World { two_streams: true, ..World::default() }, &[]).await;
}

#[tokio::test(start_paused = true)]
async fn callers_of_long_polls_alone_eject_no_endpoint() {
    for n in [1, 2, 5] {
        for call in [Call::Deadline(secs(30)), Call::Long(FOREVER)] {
            let fleet = Fleet::new(n, World::default()).await;
            // They were short before.
            for _ in 0..100 {
                fleet.balance.clone().oneshot(Call::Short).await.unwrap();
            }
            for poll in 0..60 {
                let _ = timeout(secs(30), fleet.balance.clone().oneshot(call)).await;
                let snapshot = fleet.balance.snapshot();
                assert_eq!(snapshot.count(EndpointState::Available), n, "seed {SEED}: poll {poll} of {n}: {snapshot}");
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn frozen_endpoint_is_ejected_for_silence_beside_long_polls() {
    for n in [2, 5] {
        let fleet = Fleet::new(n, World::default()).await;
        let frozen = Arc::new(Mutex::new(None));
        let is_frozen = frozen.clone();
        let endpoint = |number: usize| {
            let is_frozen = is_frozen.clone();
            BoxCloneSyncService::new(service_fn(move |call| {
                let is_frozen = *is_frozen.lock().unwrap() == Some(number);
                async move {
                    match call {
                        _ if is_frozen => std::future::pending().await,
                        Call::Short => sleep(millis(5)).await,
                        Call::Long(time) | Call::Deadline(time) => sleep(time).await,
                    }
                    Ok::<_, Refused>(())
                }
            }))
        };
        let changes: Vec<_> = (0..n).map(|i| Ok::<_, Infallible>(Change::Insert(i, endpoint(i)))).collect();
        let balance = Balance::builder(tokio_stream::iter(changes)).observer(Judge).build();
        crate::endpoints::until(|| balance.len() == n).await;
        let mut tasks = tokio::task::JoinSet::new();
        for caller in 0..16 {
            let balance: Balance<_, _, _> = balance.clone();
            tasks.spawn(async move {
                let call = if caller < 2 { Call::Long(secs(10)) } else { Call::Short };
                let end = Instant::now() + secs(20);
                while Instant::now() < end {
                    let _: Result<Result<(), _>, _> = timeout(secs(1), balance.clone().oneshot(call)).await;
                    sleep(millis(20)).await;
                }
            });
        }
        sleep(secs(10)).await;
        assert_eq!(balance.snapshot().count(EndpointState::Available), n, "{}", balance.snapshot());
        *frozen.lock().unwrap() = Some(1);
        // One call more than without the long polls, to which no endpoint responds in time.
        sleep(secs(6)).await;
        let snapshot = balance.snapshot();
        assert_eq!(snapshot.endpoints()[1].cause(), Some(Cause::Silent), "seed {SEED}: {snapshot}");
        tasks.join_all().await;
        drop(fleet);
    }
}

#[tokio::test(start_paused = true)]
async fn silent_calls_rule_can_be_disabled_alone() {
    assert_eq!(Ejection::new().silent_calls(1), Ejection::new().silent_calls(2));
    for (rule, ejects) in [(Ejection::new().silent_calls(0), false), (Ejection::new().silent_calls(5), true)] {
        fastrand::seed(SEED);
        let endpoints = crate::endpoints::one_of(2, crate::endpoints::FAST);
        let balance = crate::endpoints::fixed(&endpoints, |builder| builder.ejection(rule)).await;
        crate::endpoints::calls(&balance, 1, 100).await;
        endpoints[0].now(crate::endpoints::Behaviour::Hangs);
        crate::endpoints::calls_for(&balance, 4, secs(120)).await;
        assert_eq!(balance.snapshot().endpoints()[0].cause() == Some(Cause::Silent), ejects);
    }
}
