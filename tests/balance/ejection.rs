//! Effect of bad endpoints on their callers: unreachable, slow, partly failing and silent ones, and
//! their recovery.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::time::Instant;
use tower::Service;
use tower::discover::Change;
use tower_eureka::balance::{Attributes, Balance, Ejection, EndpointState, LeastRequests};

use crate::endpoints::*;

const SEED: u64 = 5;

/// For tests of minutes, with fewer calls.
const MODERATE: Behaviour = Behaviour::Responds(Duration::from_millis(50));

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// One failure ejects. With the default, the policy would keep calls away before there are five
/// failures.
fn strict() -> Ejection {
    Ejection::new().consecutive_failures(1)
}

#[tokio::test(start_paused = true)]
async fn unreachable_endpoint_gets_at_most_three_of_a_thousand_calls() {
    println!("calls that hit the dead endpoint (seed {SEED})");
    for behaviour in [Behaviour::Refuses, Behaviour::Status(500, None)] {
        for (n, callers) in [2, 3, 5, 10].into_iter().flat_map(|n| [(n, 1), (n, 16)]) {
            fastrand::seed(SEED);
            // Most calls meet the dead endpoint at the start. The pair shows the rate over minutes.
            let made = if n == 2 { 100_000 } else { 20_000 };
            let endpoints = one_of(n, behaviour);
            let balance = default(&endpoints).await;
            let succeeded = calls(&balance, callers, made).await;
            let hits = endpoints[0].hits();
            println!("  {behaviour:?}, 1 of {n}, {callers} callers: {hits} of {made}");
            assert!((1..=made * 3 / 1_000).contains(&hits), "seed {SEED}: {hits}");
            assert_eq!(succeeded, made - hits, "seed {SEED}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn silent_endpoint_costs_a_sequential_caller_three_timeouts_then_one_per_ejection() {
    for n in [2, 5] {
        fastrand::seed(SEED);
        let endpoints = one_among(n, Behaviour::Hangs, MODERATE);
        let balance = default(&endpoints).await;
        // Otherwise it might be that no endpoint responds in time.
        endpoints[0].now(MODERATE);
        calls(&balance, 1, 20).await;
        let before = endpoints[0].hits();
        endpoints[0].now(Behaviour::Hangs);
        calls_for(&balance, 1, secs(600)).await;
        let times = &endpoints[0].times()[before..];
        // Ejected for 30, 60, 90, 120, 150 and 180 seconds with a jitter of 10 %: the sixth
        // ejection ends after ten minutes. The third timeout in a row ejects, or the fourth if the
        // other endpoint did not respond meanwhile.
        let at: Vec<_> = times.iter().map(|time| (*time - times[0]).as_secs()).collect();
        assert!((6..=9).contains(&times.len()), "seed {SEED}: time-outs at {at:?} s");
        for (i, pair) in times[3..].windows(2).enumerate() {
            let least = secs(30 * (i as u64 + 1)).mul_f64(0.9);
            assert!(pair[1] - pair[0] > least, "seed {SEED}: call {} after {:?}", i + 5, pair[1] - pair[0]);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn silent_endpoint_costs_concurrent_callers_the_pending_calls_one_more_and_one_per_ejection() {
    for callers in [8, 64] {
        fastrand::seed(SEED);
        let endpoints = one_among(3, Behaviour::Hangs, MODERATE);
        let balance = default(&endpoints).await;
        calls_for(&balance, callers, secs(200)).await;
        let hits = endpoints[0].hits();
        assert!(hits <= callers / 3 + 1 + 1 + 4, "seed {SEED}: {hits} time-outs of {callers} callers");
    }
}

#[tokio::test(start_paused = true)]
async fn silent_endpoint_is_ejected_if_timeouts_are_a_small_multiple_of_the_latency() {
    fastrand::seed(SEED);
    let endpoints: Vec<_> =
        [Behaviour::Hangs, Behaviour::Responds(Duration::from_millis(300))].map(Endpoint::new).into();
    let balance = fixed(&endpoints, |builder| builder.policy(LeastRequests)).await;
    calls_for(&balance, 1, secs(60)).await;
    assert!(endpoints[0].hits() <= 8, "seed {SEED}: {} time-outs", endpoints[0].hits());
}

#[tokio::test(start_paused = true)]
async fn endpoint_ten_times_slower_gets_at_most_a_fifth_of_its_fair_share() {
    for (n, callers) in [2, 3, 5, 10].into_iter().flat_map(|n| [(n, 1), (n, 8), (n, 64)]) {
        fastrand::seed(SEED);
        let endpoints = one_of(n, Behaviour::Responds(Duration::from_millis(50)));
        let balance = default(&endpoints).await;
        let total = 16_000;
        assert_eq!(calls(&balance, callers, total).await, total, "a slow endpoint is not ejected");
        let hits = endpoints[0].hits();
        assert!(hits * n * 5 <= total, "seed {SEED}: 1 of {n}, {callers} callers: {hits} of {total}");
    }
}

#[tokio::test(start_paused = true)]
async fn partly_failing_endpoint_is_ejected_within_fifty_of_its_calls() {
    let gray = Behaviour::FailsSometimes(0.3, Duration::from_millis(5));
    for (n, seed) in [2, 3, 10].into_iter().flat_map(|n| (0..10).map(move |seed| (n, seed))) {
        fastrand::seed(seed);
        let endpoints = one_of(n, gray);
        // Ignores latency, so that only the ejection keeps calls away.
        let balance = fixed(&endpoints, |builder| builder.policy(LeastRequests)).await;
        calls_for(&balance, 4, secs(10)).await;
        assert!(endpoints[0].hits() <= 50, "seed {seed}: 1 of {n}: {} calls", endpoints[0].hits());
        assert!(endpoints[1..].iter().all(|healthy| healthy.hits() > 50), "seed {seed}: 1 of {n}");
    }
}

#[tokio::test(start_paused = true)]
async fn endpoints_that_fail_equally_often_are_not_ejected() {
    fastrand::seed(SEED);
    let endpoints: Vec<_> =
        (0..10).map(|_| Endpoint::new(Behaviour::FailsSometimes(0.05, Duration::from_millis(5)))).collect();
    let balance = fixed(&endpoints, |builder| builder.policy(LeastRequests)).await;
    let mut before = vec![0; 10];
    for second in 0..60 {
        calls_for(&balance, 4, secs(1)).await;
        for (endpoint, before) in endpoints.iter().zip(&mut before) {
            assert!(endpoint.hits() > *before, "seed {SEED}: one is ejected after {second} s");
            *before = endpoint.hits();
        }
    }
}

#[tokio::test(start_paused = true)]
async fn all_endpoints_get_calls_if_all_fail() {
    for (n, max_share) in [(1, 1.0), (2, 0.1), (2, 1.0), (5, 0.1), (5, 1.0)] {
        fastrand::seed(SEED);
        let endpoints: Vec<_> = (0..n).map(|_| Endpoint::new(Behaviour::Status(500, None))).collect();
        let balance = fixed(&endpoints, |b| b.ejection(Ejection::new().max_share(max_share))).await;
        for call in 0..1_000 {
            assert_eq!(crate::endpoints::call(&balance).await, Some(500), "call {call} of {n}");
        }
        let hits: Vec<_> = endpoints.iter().map(Endpoint::hits).collect();
        assert_eq!(hits.iter().sum::<usize>(), 1_000);
        if max_share == 1.0 {
            assert!(hits.iter().all(|hits| *hits > 1_000 / n / 2), "seed {SEED}: {hits:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn first_successful_call_restores_an_endpoint_if_all_are_unreachable() {
    for n in [1, 2, 5] {
        fastrand::seed(SEED);
        let endpoints: Vec<_> = (0..n).map(|_| Endpoint::new(Behaviour::Refuses)).collect();
        let balance = default(&endpoints).await;
        assert_eq!(calls(&balance, 4, 1_000).await, 0);
        assert!(endpoints.iter().all(|endpoint| endpoint.hits() > 0), "seed {SEED}");
        endpoints[0].now(FAST);
        while call(&balance).await.is_none() {}
        assert_eq!(calls(&balance, 1, 100).await, 100, "seed {SEED}, {n}: the others are out");
    }
}

#[tokio::test(start_paused = true)]
async fn only_reachable_endpoint_gets_calls_whatever_their_outcome() {
    fastrand::seed(SEED);
    let endpoints = [Endpoint::new(Behaviour::Refuses), Endpoint::new(Behaviour::Status(500, None))];
    let balance = default(&endpoints).await;
    calls_for(&balance, 2, secs(20)).await;
    assert!(endpoints[0].hits() <= 8, "seed {SEED}: {}", endpoints[0].hits());
    assert!(endpoints[1].hits() > 1_000, "seed {SEED}: {}", endpoints[1].hits());
}

#[tokio::test(start_paused = true)]
async fn recovered_endpoint_is_restored_within_one_ejection_time() {
    for behaviour in [Behaviour::Refuses, Behaviour::Status(500, None), Behaviour::Hangs] {
        fastrand::seed(SEED);
        let endpoints = one_of(3, behaviour);
        let balance = fixed(&endpoints, |builder| builder.policy(LeastRequests)).await;
        calls_for(&balance, 4, secs(5)).await;
        let while_bad = endpoints[0].hits();
        endpoints[0].now(FAST);
        // Ejected in the first four seconds, since a silent call of the third second fails one
        // second later. Restored after 30 seconds and the longest jitter.
        calls_for(&balance, 4, secs(4 + 33 - 5)).await;
        assert!(endpoints[0].hits() > while_bad, "seed {SEED}: {behaviour:?}");
        let (before, others) = (endpoints[0].hits(), endpoints[1].hits());
        calls_for(&balance, 4, secs(10)).await;
        let (share, fair) = (endpoints[0].hits() - before, endpoints[1].hits() - others);
        assert!(share > fair / 2, "seed {SEED}: {behaviour:?}: {share} calls, {fair} to another");
    }
}

/// Durations for which an endpoint that always fails gets no calls.
async fn pauses(seed: u64, ejection: Ejection, time: Duration) -> Vec<f64> {
    fastrand::seed(seed);
    let endpoints = one_among(3, Behaviour::Status(500, None), MODERATE);
    let balance = fixed(&endpoints, |builder| builder.policy(LeastRequests).ejection(ejection)).await;
    calls_for(&balance, 1, time).await;
    let times = endpoints[0].times();
    let pauses = times.windows(2).map(|pair| (pair[1] - pair[0]).as_secs_f64());
    // The first five calls came before the first ejection.
    pauses.skip(4).collect()
}

#[tokio::test(start_paused = true)]
async fn ejection_time_grows_to_its_maximum_and_has_jitter() {
    let ejection = Ejection::new().base_time(secs(20)).max_time(secs(50));
    let mut first = Vec::new();
    for seed in 0..10 {
        let pauses = pauses(seed, ejection.clone(), secs(200)).await;
        assert!(pauses.len() >= 4, "seed {seed}: {pauses:?}");
        for (pause, expected) in pauses.iter().zip([20.0, 40.0, 50.0, 50.0, 50.0]) {
            // The next call comes within the interval of 50 ms.
            assert!((pause / expected - 1.0).abs() < 0.104, "seed {seed}: {pauses:?}");
        }
        first.push(pauses[0]);
    }
    let (least, most) = (first.iter().copied().fold(f64::MAX, f64::min), first.iter().copied().fold(0.0, f64::max));
    assert!(most - least > 1.0, "{first:?}");
    let without = pauses(SEED, ejection.jitter(0.0), secs(100)).await;
    assert!((without[0] - 20.0).abs() < 0.06, "{without:?}");
}

#[tokio::test(start_paused = true)]
async fn extreme_settings_neither_panic_nor_spin() {
    for time in [Duration::ZERO, Duration::MAX] {
        fastrand::seed(SEED);
        let ejection =
            Ejection::new().base_time(time).max_time(time).interval(time).jitter(f64::NAN).max_share(f64::NAN);
        let endpoints = one_of(2, Behaviour::Status(500, None));
        let balance = fixed(&endpoints, |builder| builder.ejection(ejection).decay(time)).await;
        assert!(calls(&balance, 2, 1_000).await > 0);
    }
}

#[tokio::test(start_paused = true)]
async fn at_most_a_tenth_but_at_least_one_of_several_endpoints_is_ejected() {
    for (n, failing, ejected) in [(1, 1, 0), (2, 2, 1), (5, 3, 1), (20, 5, 2)] {
        fastrand::seed(SEED);
        let endpoints: Vec<_> =
            (0..n).map(|i| Endpoint::new(if i < failing { Behaviour::Status(500, None) } else { FAST })).collect();
        let balance = fixed(&endpoints, |builder| builder.policy(LeastRequests)).await;
        calls_for(&balance, 8, secs(20)).await;
        let left_alone = endpoints.iter().filter(|endpoint| endpoint.hits() < 50).count();
        assert_eq!(left_alone, ejected, "seed {SEED}: {failing} of {n} fail");
    }
}

#[tokio::test(start_paused = true)]
async fn unreachable_endpoints_are_ejected_without_limit_and_with_ejection_off() {
    fastrand::seed(SEED);
    let endpoints: Vec<_> = (0..10).map(|i| Endpoint::new(if i < 8 { Behaviour::Refuses } else { FAST })).collect();
    let balance = fixed(&endpoints, |builder| builder.policy(LeastRequests).ejection(Ejection::off())).await;
    calls_for(&balance, 8, secs(20)).await;
    for endpoint in &endpoints[..8] {
        assert!(endpoint.hits() <= 12, "seed {SEED}: {}", endpoint.hits());
    }
}

#[tokio::test(start_paused = true)]
async fn overload_raises_the_load_and_does_not_eject() {
    fastrand::seed(SEED);
    let endpoints = one_of(2, Behaviour::Status(429, None));
    let by_requests = fixed(&endpoints, |builder| builder.policy(LeastRequests)).await;
    calls_for(&by_requests, 1, secs(20)).await;
    let (hits, others) = (endpoints[0].hits(), endpoints[1].hits());
    assert!(hits * 2 > others, "seed {SEED}: {hits} and {others} calls: not ejected");

    let endpoints = one_of(2, Behaviour::Status(429, Some(10)));
    let by_latency = default(&endpoints).await;
    calls_for(&by_latency, 1, secs(20)).await;
    assert_eq!(endpoints[0].hits(), 1, "seed {SEED}: it asked for ten seconds");
    calls_for(&by_latency, 1, secs(100)).await;
    assert!(endpoints[0].hits() > 1, "seed {SEED}");
}

#[tokio::test(start_paused = true)]
async fn failure_with_retry_after_keeps_calls_away_for_that_time() {
    fastrand::seed(SEED);
    let endpoints = one_of(2, Behaviour::Status(503, Some(10)));
    let balance = default(&endpoints).await;
    calls_for(&balance, 1, secs(20)).await;
    assert_eq!(endpoints[0].hits(), 1, "seed {SEED}");
}

#[tokio::test(start_paused = true)]
async fn endpoint_that_is_overloaded_when_restored_does_not_get_all_calls() {
    fastrand::seed(SEED);
    let endpoints = one_of(2, Behaviour::Status(500, None));
    let balance = fixed(&endpoints, |builder| builder.ejection(strict())).await;
    calls_for(&balance, 1, secs(5)).await;
    let ejected = endpoints[0].hits();
    endpoints[0].now(Behaviour::Status(429, None));
    calls_for(&balance, 1, secs(60)).await;
    let hits = endpoints[0].hits() - ejected;
    assert!((1..200).contains(&hits), "seed {SEED}: {hits} calls");
}

#[tokio::test(start_paused = true)]
async fn probe_call_that_is_not_polled_does_not_prevent_the_restore() {
    fastrand::seed(SEED);
    let endpoints = one_among(2, Behaviour::Status(500, None), MODERATE);
    let mut balance = fixed(&endpoints, |builder| builder.ejection(strict())).await;
    calls_for(&balance, 1, secs(5)).await;
    assert_eq!(endpoints[0].hits(), 1);
    endpoints[0].now(MODERATE);
    tokio::time::sleep(secs(30)).await;
    // Each of them has a permit and does nothing.
    let mut forgotten = Vec::new();
    for _ in 0..3 {
        forgotten.push(balance.call(()));
        tokio::time::sleep(secs(11)).await;
    }
    // They count as pending as long as they are kept, and as waiting for one minute.
    calls_for(&balance, 16, secs(70)).await;
    let before = endpoints[0].hits();
    calls_for(&balance, 16, secs(10)).await;
    assert!(endpoints[0].hits() > before + 500, "seed {SEED}: {}", endpoints[0].hits() - before);
    drop(forgotten);
}

#[tokio::test(start_paused = true)]
async fn probe_calls_cancelled_early_neither_prevent_the_restore_nor_take_all_calls() {
    fastrand::seed(SEED);
    let endpoints = one_of(2, Behaviour::Status(500, None));
    let mut balance = fixed(&endpoints, |builder| builder.ejection(strict())).await;
    calls_for(&balance, 1, secs(5)).await;
    let ejected = endpoints[0].hits();
    endpoints[0].now(Behaviour::Hangs);
    let impatient =
        |balance: &mut Balance<Endpoint>, ms| tokio::time::timeout(Duration::from_millis(ms), balance.call(()));
    for _ in 0..2_000 {
        let _ = impatient(&mut balance, 50).await;
    }
    assert!(endpoints[0].hits() <= ejected + 4, "seed {SEED}: {}", endpoints[0].hits() - ejected);
    for _ in 0..10 {
        tokio::time::sleep(secs(31)).await;
        drop(balance.call(()));
    }
    endpoints[0].now(FAST);
    let before = endpoints[0].hits();
    calls_for(&balance, 1, secs(150)).await;
    assert!(endpoints[0].hits() > before + 100, "seed {SEED}");
}

#[tokio::test(start_paused = true)]
async fn restored_endpoint_may_be_slow_in_its_first_response() {
    fastrand::seed(SEED);
    let slow = Behaviour::Responds(Duration::from_millis(80));
    let endpoints = [slow, Behaviour::Status(500, None)].map(Endpoint::new);
    let mut balance = default(&endpoints).await;
    while balance.snapshot().count(EndpointState::Ejected) == 0 {
        balance.call(()).await.unwrap();
    }
    endpoints[1].now(slow);
    while balance.snapshot().count(EndpointState::Available) < 2 {
        balance.call(()).await.unwrap();
    }
    endpoints.iter().for_each(|endpoint| endpoint.now(Behaviour::Hangs));
    for _ in 0..2 {
        let _ = tokio::time::timeout(Duration::from_millis(120), balance.call(())).await;
    }
    assert_eq!(balance.snapshot().count(EndpointState::Available), 2, "{}", balance.snapshot());
}

#[tokio::test(start_paused = true)]
async fn half_open_endpoint_may_be_removed() {
    fastrand::seed(SEED);
    let (sender, discover) = channel();
    let bad = Endpoint::new(Behaviour::Status(500, None));
    let balance = Balance::builder(discover).endpoint(|t: &Target| t.endpoint.clone()).ejection(strict()).build();
    sender.send(insert(0, &bad, Attributes::new())).unwrap();
    sender.send(insert(1, &Endpoint::new(FAST), Attributes::new())).unwrap();
    until(|| balance.len() == 2).await;
    calls_for(&balance, 1, secs(5)).await;
    bad.now(Behaviour::Hangs);
    tokio::time::sleep(secs(34)).await;
    let before = bad.hits();
    let probe = tokio::spawn(balance.clone().call(()));
    until(|| bad.hits() > before).await;
    sender.send(Ok(Change::Remove(0))).unwrap();
    until(|| balance.len() == 1).await;
    assert_eq!(calls(&balance, 1, 100).await, 100);
    probe.abort();
    let _ = probe.await;
    until(|| bad.clones() == 1).await;
}

struct Restarts {
    sender: tokio::sync::mpsc::UnboundedSender<Update>,
    balance: Balance<Endpoint>,
    bad: Endpoint,
    made: Arc<AtomicUsize>,
}

impl Restarts {
    /// Two endpoints, of which the first is ejected.
    async fn new(behaviour: Behaviour) -> Self {
        fastrand::seed(SEED);
        let (sender, discover) = channel();
        let (bad, made) = (Endpoint::new(behaviour), Arc::new(AtomicUsize::new(0)));
        let counted = made.clone();
        let balance = Balance::builder(discover)
            .attributes(|target: &Target| target.attributes.clone())
            .endpoint(move |target| {
                counted.fetch_add(1, Ordering::SeqCst);
                target.endpoint.clone()
            })
            .ejection(strict())
            .build();
        sender.send(insert(1, &Endpoint::new(FAST), Attributes::new())).unwrap();
        sender.send(insert(0, &bad, Attributes::new().with_generation(1).with_address("a:80"))).unwrap();
        until(|| balance.len() == 2).await;
        calls_for(&balance, 2, secs(5)).await;
        bad.now(FAST);
        Self { sender, balance, bad, made }
    }

    /// Number of calls to it in the seconds after discovery reports it with these attributes, and
    /// number of services that are built.
    async fn after(&self, attributes: Attributes) -> (usize, usize) {
        let (hits, made) = (self.bad.hits(), self.made.load(Ordering::SeqCst));
        self.sender.send(insert(0, &self.bad, attributes)).unwrap();
        calls_for(&self.balance, 2, secs(5)).await;
        (self.bad.hits() - hits, self.made.load(Ordering::SeqCst) - made)
    }
}

#[tokio::test(start_paused = true)]
async fn new_generation_ends_an_ejection_and_other_changes_do_not() {
    let restarts = Restarts::new(Behaviour::Status(500, None)).await;
    let known = Attributes::new().with_generation(1).with_address("a:80");
    assert_eq!(restarts.after(known.clone().with_weight(2.0)).await, (0, 0), "seed {SEED}");
    assert_eq!(restarts.after(known.clone().with_address("b:80")).await, (0, 1), "seed {SEED}");
    let (hits, made) = restarts.after(known.with_generation(2)).await;
    assert!(hits > 100 && made == 1, "seed {SEED}: {hits} calls, {made} made");
}

#[tokio::test(start_paused = true)]
async fn new_address_of_an_unreachable_endpoint_is_tried_at_once() {
    let restarts = Restarts::new(Behaviour::Refuses).await;
    let (hits, made) = restarts.after(Attributes::new().with_generation(1).with_address("b:80")).await;
    assert!(hits > 100 && made == 1, "seed {SEED}: {hits} calls, {made} made");
}

#[tokio::test(start_paused = true)]
async fn background_probe_restores_an_endpoint_without_a_call() {
    fastrand::seed(SEED);
    let endpoints = one_of(2, Behaviour::Refuses);
    let reachable = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let (probes, asked) = (Arc::new(AtomicUsize::new(0)), reachable.clone());
    let counted = probes.clone();
    let balance = fixed(&endpoints, |builder| {
        builder.probe(move |_| {
            let number = counted.fetch_add(1, Ordering::SeqCst);
            assert!(number != 1, "one that panics is just lost");
            let reachable = asked.load(Ordering::SeqCst);
            async move {
                assert!(number != 2, "so is one that panics later");
                reachable
            }
        })
    })
    .await;
    calls_for(&balance, 2, secs(300)).await;
    assert_eq!(endpoints[0].hits(), 1, "seed {SEED}: no call is lost to it");
    assert!(probes.load(Ordering::SeqCst) > 5);
    reachable.store(true, Ordering::SeqCst);
    endpoints[0].now(FAST);
    let start = Instant::now();
    while endpoints[0].hits() == 1 {
        assert!(start.elapsed() < secs(34), "seed {SEED}");
        calls_for(&balance, 2, secs(1)).await;
    }
}
