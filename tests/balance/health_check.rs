//! Active health checks: their effect on calls, and their schedule.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::time::Instant;
use tower_eureka::balance::{Attributes, Balance, Cause, Ejection, EndpointState, Subset};

use crate::endpoints::*;

const SEED: u64 = 8;
const INTERVAL: Duration = Duration::from_secs(10);

/// Time within which each endpoint was certainly checked once.
const A_CHECK: Duration = Duration::from_secs(12);

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn healthy(n: usize) -> Vec<Endpoint> {
    fastrand::seed(SEED);
    (0..n).map(|_| Endpoint::new(FAST)).collect()
}

async fn checked(endpoints: &[Endpoint], ejection: Ejection) -> Balance<Endpoint> {
    fixed(endpoints, |builder| builder.ejection(ejection).health_check(INTERVAL, Endpoint::check)).await
}

fn why(balance: &Balance<Endpoint>, at: usize) -> Option<Cause> {
    balance.snapshot().endpoints()[at].cause()
}

/// Endpoints that get calls.
async fn called(balance: &Balance<Endpoint>, endpoints: &[Endpoint]) -> Vec<bool> {
    let before: Vec<_> = endpoints.iter().map(Endpoint::hits).collect();
    assert_eq!(calls(balance, 2, 400).await, 400, "seed {SEED}");
    endpoints.iter().zip(before).map(|(endpoint, before)| endpoint.hits() > before).collect()
}

#[tokio::test(start_paused = true)]
async fn unhealthy_endpoint_is_ejected_until_a_check_succeeds() {
    for ejection in [Ejection::new(), Ejection::off()] {
        let endpoints = healthy(3);
        endpoints[0].feels(Health::Bad);
        let balance = checked(&endpoints, ejection).await;
        tokio::time::sleep(A_CHECK).await;
        let hits = endpoints[0].hits();
        // Longer than any ejection, whatever the outcome of its calls.
        for _ in 0..40 {
            assert_eq!(called(&balance, &endpoints).await, [false, true, true]);
            tokio::time::sleep(INTERVAL).await;
        }
        assert_eq!((endpoints[0].hits(), why(&balance, 0)), (hits, Some(Cause::HealthCheck)));
        endpoints[0].feels(Health::Good);
        tokio::time::sleep(A_CHECK).await;
        assert_eq!(called(&balance, &endpoints).await, [true, true, true]);
        assert_eq!(why(&balance, 0), None);
    }
}

#[tokio::test(start_paused = true)]
async fn unhealthy_endpoints_are_ejected_without_limit_and_get_calls_if_all_are() {
    let endpoints = healthy(5);
    endpoints[1..].iter().for_each(|endpoint| endpoint.feels(Health::Bad));
    let balance = checked(&endpoints, Ejection::new()).await;
    tokio::time::sleep(A_CHECK).await;
    assert_eq!(called(&balance, &endpoints).await, [true, false, false, false, false]);
    endpoints[0].feels(Health::Bad);
    tokio::time::sleep(A_CHECK).await;
    assert_eq!(called(&balance, &endpoints).await, [true; 5]);
    assert_eq!(balance.snapshot().count(EndpointState::Ejected), 5, "calls that succeed are no check");
    endpoints[3].feels(Health::Good);
    tokio::time::sleep(A_CHECK).await;
    assert_eq!(called(&balance, &endpoints).await, [false, false, false, true, false]);
}

#[tokio::test(start_paused = true)]
async fn failed_check_outlasts_an_earlier_ejection() {
    for behaviour in [Behaviour::Refuses, Behaviour::Status(500, None)] {
        let endpoints = healthy(3);
        endpoints[0].feels(Health::Bad);
        endpoints[0].now(behaviour);
        let balance = checked(&endpoints, Ejection::new()).await;
        calls(&balance, 2, 200).await;
        tokio::time::sleep(A_CHECK).await;
        endpoints[0].now(FAST);
        tokio::time::sleep(secs(100)).await;
        assert_eq!(called(&balance, &endpoints).await, [false, true, true], "{behaviour:?}");
        assert_eq!(why(&balance, 0), Some(Cause::HealthCheck));
    }
}

#[tokio::test(start_paused = true)]
async fn successful_check_does_not_end_an_ejection() {
    let endpoints = one_of(3, Behaviour::Status(500, None));
    let balance = checked(&endpoints, Ejection::new().consecutive_failures(1)).await;
    calls(&balance, 2, 200).await;
    endpoints[0].now(FAST);
    tokio::time::sleep(A_CHECK).await;
    assert_eq!((why(&balance, 0), endpoints[0].checks().is_empty()), (Some(Cause::Consecutive), false));
}

#[tokio::test(start_paused = true)]
async fn each_endpoint_is_checked_once_per_interval() {
    let endpoints = healthy(20);
    let begin = Instant::now();
    let _balance = checked(&endpoints, Ejection::new()).await;
    tokio::time::sleep(secs(1000)).await;
    let mut firsts = Vec::new();
    for endpoint in &endpoints {
        let checks = endpoint.checks();
        assert!(checks[0] - begin <= INTERVAL + secs(1) && (95..=106).contains(&checks.len()), "seed {SEED}");
        let apart = |pair: &[Instant]| (pair[1] - pair[0]).as_secs_f64();
        assert!(checks.windows(2).all(|pair| (8.9..11.1).contains(&apart(pair))), "seed {SEED}: {checks:?}");
        firsts.push(checks[0]);
    }
    firsts.sort();
    firsts.dedup();
    assert!(firsts.len() > 10, "seed {SEED}: they keep step");
}

#[tokio::test(start_paused = true)]
async fn checks_that_hang_fail_and_delay_all_endpoints_alike() {
    let endpoints = healthy(40);
    endpoints[1..].iter().for_each(|endpoint| endpoint.feels(Health::Unknown));
    let (running, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let high = most.clone();
    let balance = fixed(&endpoints, |builder| {
        builder.health_check(INTERVAL, move |endpoint: Endpoint| {
            let guard = Running(running.clone());
            high.fetch_max(running.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            async move {
                let _guard = guard;
                endpoint.check().await
            }
        })
    })
    .await;
    tokio::time::sleep(secs(300)).await;
    assert_eq!(most.load(Ordering::SeqCst), 16);
    assert_eq!(balance.snapshot().count(EndpointState::Available), 1);
    for endpoint in &endpoints {
        let checks = endpoint.checks();
        // 40 checks, 16 at a time for 10 s each.
        assert!((9..=16).contains(&checks.len()), "seed {SEED}: {} checks", checks.len());
    }
    for endpoint in &endpoints[1..] {
        assert!(endpoint.checks().windows(2).all(|pair| pair[1] - pair[0] >= INTERVAL), "two at a time");
    }
}

/// Counts running checks.
struct Running(Arc<AtomicUsize>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

#[tokio::test(start_paused = true)]
async fn check_that_panics_is_ignored_and_repeated() {
    let endpoints = healthy(2);
    endpoints[0].feels(Health::Broken);
    let balance = checked(&endpoints, Ejection::new()).await;
    tokio::time::sleep(secs(100)).await;
    assert_eq!(called(&balance, &endpoints).await, [true, true]);
    endpoints[0].feels(Health::Bad);
    tokio::time::sleep(2 * A_CHECK).await;
    assert_eq!(called(&balance, &endpoints).await, [false, true]);
}

#[tokio::test(start_paused = true)]
async fn endpoints_outside_the_subset_are_not_checked() {
    let endpoints = healthy(10);
    let balance = fixed_subset(&endpoints).await;
    tokio::time::sleep(secs(100)).await;
    let snapshot = balance.snapshot();
    for outside in snapshot.endpoints() {
        let checks = endpoints[outside.id().parse::<usize>().unwrap()].checks().len();
        assert_eq!(
            outside.state() == EndpointState::Outside,
            checks == 0,
            "{} was checked {checks} times",
            outside.id()
        );
    }
    assert_eq!(snapshot.count(EndpointState::Outside), 7);
}

async fn fixed_subset(endpoints: &[Endpoint]) -> Balance<Endpoint> {
    let changes: Vec<Update> = (0..).zip(endpoints).map(|(i, e)| insert(i, e, Attributes::new())).collect();
    let balance = Balance::builder(tokio_stream::iter(changes))
        .endpoint(|target: &Target| target.endpoint.clone())
        .health_check(INTERVAL, Endpoint::check)
        .subset(Subset::rendezvous(3).seed(SEED))
        .build();
    until(|| balance.len() == 3).await;
    balance
}

#[tokio::test(start_paused = true)]
async fn new_address_is_called_before_its_check_and_a_late_result_is_ignored() {
    let (old, new) = (Endpoint::new(FAST), Endpoint::new(FAST));
    let other = Endpoint::new(FAST);
    old.feels(Health::Unknown);
    let (updates, discover) = channel();
    let balance = Balance::builder(discover)
        .endpoint(|target: &Target| target.endpoint.clone())
        .attributes(|target: &Target| target.attributes.clone())
        .health_check(INTERVAL, Endpoint::check)
        .build();
    let at = |address: &str| Attributes::new().with_generation(1).with_address(address);
    updates.send(insert(0, &old, at("a"))).unwrap();
    updates.send(insert(1, &other, at("c"))).unwrap();
    until(|| balance.len() == 2).await;
    while old.checks().is_empty() {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    updates.send(insert(0, &new, at("b"))).unwrap();
    for _ in 0..A_CHECK.as_secs() * 10 {
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert_eq!(why(&balance, 0), None);
    }
    assert!((1..=3).contains(&new.checks().len()));
    assert_eq!(called(&balance, &[new, other]).await, [true, true]);
}

#[tokio::test(start_paused = true)]
async fn only_the_configured_number_of_failed_checks_in_a_row_ejects() {
    for (ejection, needed) in [
        (Ejection::new(), 3),
        (Ejection::off(), 3),
        (Ejection::new().failed_checks(1), 1),
        (Ejection::new().failed_checks(0), 1),
        (Ejection::new().failed_checks(5), 5),
    ] {
        let endpoints = healthy(2);
        let balance = checked(&endpoints, ejection).await;
        tokio::time::sleep(secs(25)).await;
        // One less than needed fail, again and again.
        for _ in 0..10 {
            let before = endpoints[0].checks().len();
            endpoints[0].feels(Health::Bad);
            while endpoints[0].checks().len() < before + needed - 1 {
                tokio::time::sleep(Duration::from_millis(5)).await;
                assert_eq!(why(&balance, 0), None);
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
            endpoints[0].feels(Health::Good);
            tokio::time::sleep(A_CHECK).await;
            assert_eq!(why(&balance, 0), None);
        }
        endpoints[0].feels(Health::Bad);
        let before = endpoints[0].checks().len();
        tokio::time::sleep(A_CHECK + secs(1)).await;
        assert_eq!(why(&balance, 0), Some(Cause::HealthCheck), "{needed}");
        let checks = &endpoints[0].checks()[before..before + needed];
        assert!(checks[needed - 1] - checks[0] <= secs(2), "repeated soon: {checks:?}");
    }
}
