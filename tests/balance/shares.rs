//! Shares of calls by zone, slow start and subset, on paused time with fixed seeds.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::mpsc::{self, UnboundedSender};
use tokio_stream::wrappers::UnboundedReceiverStream;
use tokio_stream::{Stream, iter};
use tower::discover::Change;
use tower::util::BoxCloneSyncService;
use tower::{BoxError, ServiceExt, service_fn};
use tower_eureka::balance::{
    AnyResponse, Attributes, Balance, Builder, Candidates, Cause, Ejection, EndpointState, Label, Policy, Siblings,
    SlowStart, Subset, ZoneAware,
};

const SEED: u64 = 41;

/// Name and attributes of an endpoint.
type Known = (String, Attributes);
type Discovered = Result<Change<String, Known>, Infallible>;
type Updates = Pin<Box<dyn Stream<Item = Discovered> + Send>>;
type Endpoint = BoxCloneSyncService<(), String, BoxError>;
type Fleet = Balance<Endpoint, Draw, AnyResponse>;

/// By weight alone, so that shares can be computed.
#[derive(Clone, Debug, Default)]
struct Draw {
    label: Option<(&'static str, &'static str)>,
}

impl Policy<()> for Draw {
    fn pick(&self, (): &(), candidates: &Candidates<'_>) -> Option<usize> {
        Some(candidates.draw())
    }

    fn label<'r>(&'r self, (): &'r ()) -> Option<Label<'r>> {
        self.label.map(|(key, value)| Label { key, value, required: true })
    }
}

/// Determines which endpoints refuse connections or fail, and counts calls.
#[derive(Clone, Default)]
struct World {
    calls: Arc<Mutex<BTreeMap<String, u32>>>,
    dead: Arc<Mutex<Vec<String>>>,
    broken: Arc<Mutex<Vec<String>>>,
}

impl World {
    fn endpoint(&self, name: &str) -> Endpoint {
        let (world, name) = (self.clone(), name.to_owned());
        BoxCloneSyncService::new(service_fn(move |()| {
            *world.calls.lock().unwrap().entry(name.clone()).or_default() += 1;
            let response = if world.dead.lock().unwrap().contains(&name) {
                Err(std::io::Error::from(std::io::ErrorKind::ConnectionRefused).into())
            } else if world.broken.lock().unwrap().contains(&name) {
                Err("broken".into())
            } else {
                Ok(name.clone())
            };
            async { response }
        }))
    }

    fn balance(
        &self,
        updates: impl Stream<Item = Discovered> + Send + 'static,
        settings: impl FnOnce(
            Builder<Updates, Endpoint, Draw, AnyResponse>,
        ) -> Builder<Updates, Endpoint, Draw, AnyResponse>,
    ) -> Fleet {
        let world = self.clone();
        let builder = Balance::builder(Box::pin(updates) as Updates)
            .name("ORDERS")
            .attributes(|(_, attributes): &Known| attributes.clone())
            .endpoint(move |(name, _)| world.endpoint(name))
            .policy(Draw::default())
            .observer(AnyResponse);
        settings(builder).build()
    }

    /// Number of calls of each endpoint since the last time.
    fn take(&self) -> BTreeMap<String, u32> {
        std::mem::take(&mut self.calls.lock().unwrap())
    }
}

fn insert(name: impl Into<String>, attributes: Attributes) -> Discovered {
    let name = name.into();
    Ok(Change::Insert(name.clone(), (name, attributes)))
}

/// This many endpoints in each zone, named after it.
fn in_zones(zones: &[(&str, usize)]) -> Vec<Discovered> {
    let of = |&(zone, count): &(&str, usize)| {
        let zone = zone.to_owned();
        (0..count).map(move |i| insert(format!("{zone}{i}"), Attributes::new().with_zone(zone.as_str())))
    };
    zones.iter().flat_map(of).collect()
}

fn siblings(own: &str, zones: &[(&str, usize)]) -> Siblings {
    let ids: Vec<_> =
        zones.iter().flat_map(|(zone, count)| (0..*count).map(move |i| (format!("{zone}{i}"), *zone))).collect();
    Siblings::new(own, ids.iter().map(|(id, zone)| (id.as_str(), Some(zone))))
}

async fn until(holds: impl Fn() -> bool) {
    for _ in 0..10_000 {
        if holds() {
            return;
        }
        tokio::task::yield_now().await;
    }
    panic!("did not come about");
}

async fn calls(balance: &Fleet, count: u32) {
    for _ in 0..count {
        let _ = balance.clone().oneshot(()).await;
    }
}

/// Five standard deviations of chance, plus the tolerance of the expectation itself.
#[track_caller]
fn assert_share(got: u32, of: u32, expected: f64, slack: f64) {
    let share = f64::from(got) / f64::from(of);
    let chance = 5.0 * (expected * (1.0 - expected) / f64::from(of)).sqrt();
    assert!((share - expected).abs() <= chance + slack, "seed {SEED}: {share} of the calls instead of {expected}");
}

fn by_zone(calls: &BTreeMap<String, u32>, zone: &str) -> u32 {
    calls.iter().filter(|(name, _)| name.starts_with(zone)).map(|(_, calls)| calls).sum()
}

#[tokio::test(start_paused = true)]
async fn calls_are_split_over_the_zones_by_the_formula() {
    fastrand::seed(SEED);
    let world = World::default();
    let (fleet, callers) = mpsc::unbounded_channel();
    let zones = [("a", 3), ("b", 4), ("c", 3)];
    let balance = world.balance(iter(in_zones(&zones)), |builder| {
        builder.zone_aware(ZoneAware::new("A")).siblings(UnboundedReceiverStream::new(callers))
    });
    let shares = || balance.snapshot().zones().iter().map(|zone| zone.share()).collect::<Vec<_>>();
    until(|| balance.len() == 10).await;

    // Unknown callers count as equally many in each zone: 30 % of the endpoints for a third of the
    // callers.
    let count = 20_000;
    calls(&balance, count).await;
    let got = world.take();
    assert_share(by_zone(&got, "a"), count, 0.9, 0.0);
    assert_share(by_zone(&got, "b"), count, 0.1, 0.0);
    assert_share(by_zone(&got, "c"), count, 0.0, 0.0);

    // Capacity 30 for 50 % of the callers; b and c have 10 each to spare.
    fleet.send(siblings("a0", &[("a", 5), ("b", 3), ("c", 2)])).unwrap();
    until(|| (shares()[0] - 0.6).abs() < 1e-9).await;
    calls(&balance, count).await;
    let got = world.take();
    for (zone, share) in [("a", 0.6), ("b", 0.2), ("c", 0.2)] {
        assert_share(by_zone(&got, zone), count, share, 0.0);
    }
    for name in ["a0", "a1", "a2"] {
        assert_share(got[name], count, 0.2, 0.0);
    }

    fleet.send(siblings("a0", &[("a", 2), ("b", 5), ("c", 1)])).unwrap();
    until(|| shares() == [1.0, 0.0, 0.0]).await;
    drop(fleet);
    calls(&balance, 1_000).await;
    assert_eq!(by_zone(&world.take(), "a"), 1_000);
}

#[tokio::test(start_paused = true)]
async fn calls_leave_a_failing_zone_and_return() {
    fastrand::seed(SEED);
    let world = World::default();
    let balance =
        world.balance(iter(in_zones(&[("a", 4), ("b", 4)])), |builder| builder.zone_aware(ZoneAware::new("a")));
    until(|| balance.len() == 8).await;
    calls(&balance, 1_000).await;
    assert_eq!(by_zone(&world.take(), "b"), 0);

    *world.dead.lock().unwrap() = vec!["a0".into(), "a1".into(), "a2".into()];
    calls(&balance, 100).await;
    world.take();
    // One of four can take 1.4 of 4 endpoints' calls, beside 4 of 4: 0.259 of the capacity, for
    // half of the callers.
    let local = 1.4 / 5.4 / 0.5;
    let count = 10_000;
    calls(&balance, count).await;
    let got = world.take();
    assert_share(by_zone(&got, "a"), count, local, 0.0);
    assert_eq!(balance.snapshot().zones()[0].available(), 1);

    world.dead.lock().unwrap().clear();
    tokio::time::sleep(Duration::from_secs(60)).await;
    calls(&balance, 1_000).await;
    world.take();
    calls(&balance, 1_000).await;
    assert_eq!(by_zone(&world.take(), "b"), 0);
}

#[tokio::test(start_paused = true)]
async fn zones_are_ignored_for_few_endpoints_in_panic_or_for_an_unknown_own_zone() {
    fastrand::seed(SEED);
    let split = |zones: &'static [(&str, usize)], own: &'static str| {
        let aware = ZoneAware::new(own).min_endpoints(6);
        World::default().balance(iter(in_zones(zones)), |builder| builder.zone_aware(aware))
    };
    for (balance, count) in [(split(&[("a", 3), ("b", 2)], "a"), 5), (split(&[("a", 3), ("b", 3)], ""), 6)] {
        until(|| balance.len() == count).await;
        assert!(balance.snapshot().zones().is_empty());
    }
    let world = World::default();
    let panics = Ejection::new().panic_threshold(0.9).consecutive_failures(1);
    let balance = world.balance(iter(in_zones(&[("a", 3), ("b", 3)])), |builder| {
        builder.zone_aware(ZoneAware::new("a")).ejection(panics)
    });
    until(|| balance.len() == 6).await;
    assert_eq!(balance.snapshot().zones().len(), 2);
    *world.broken.lock().unwrap() = vec!["a0".into()];
    calls(&balance, 100).await;
    let snapshot = balance.snapshot();
    assert_eq!((snapshot.is_panic(), snapshot.zones()), (true, &[][..]), "{snapshot}");
    world.take();
    calls(&balance, 6_000).await;
    assert_share(by_zone(&world.take(), "a"), 6_000, 0.5, 0.0);
}

#[tokio::test(start_paused = true)]
async fn weight_of_a_new_endpoint_follows_the_slow_start_curve() {
    fastrand::seed(SEED);
    for (aggression, minimum) in [(1.0, 0.1), (2.0, 0.1), (1.0, 0.4)] {
        let world = World::default();
        let window = Duration::from_secs(100);
        let slow_start = SlowStart::new(window).aggression(aggression).min_share(minimum);
        let old = ["a", "b", "c"].map(|name| insert(name, Attributes::new().with_up_since_ms(1)));
        // Its clock is ahead.
        let new = insert("new", Attributes::new().with_weight(2.0).with_up_since_ms(u64::MAX));
        let balance = world.balance(iter(old.into_iter().chain([new])), |builder| builder.slow_start(slow_start));
        until(|| balance.len() == 4).await;
        let count = 10_000;
        let mut age = 0.0_f64;
        for step in [0.0, 5.0, 15.0, 20.0, 35.0, 24.0, 2.0] {
            tokio::time::sleep(Duration::from_secs_f64(step)).await;
            age += step;
            calls(&balance, count).await;
            let factor = if age >= 100.0 { 1.0 } else { (age / 100.0).powf(1.0 / aggression).max(minimum) };
            let got = world.take();
            let share = 2.0 * factor / (3.0 + 2.0 * factor);
            assert_share(got.get("new").copied().unwrap_or_default(), count, share, 0.005);
        }
        assert_eq!(balance.snapshot().endpoints()[3].effective_weight(), 2.0);
    }
}

#[tokio::test(start_paused = true)]
async fn endpoints_outside_the_subset_get_no_calls_until_it_is_extended() {
    fastrand::seed(SEED);
    let world = World::default();
    let (updates, discover) = mpsc::unbounded_channel();
    let balance = world.balance(UnboundedReceiverStream::new(discover), |builder| {
        let probe = |endpoint: Endpoint| async { endpoint.oneshot(()).await.is_ok() };
        builder.subset(Subset::rendezvous(10).seed(SEED)).probe(probe)
    });
    let send =
        |updates: &UnboundedSender<_>, i: usize| updates.send(insert(format!("e{i:03}"), Attributes::new())).unwrap();
    (0..100).for_each(|i| send(&updates, i));
    until(|| balance.snapshot().endpoints().len() == 100).await;
    assert_eq!(balance.len(), 10);
    let ids = || {
        let snapshot = balance.snapshot();
        let inside = snapshot.endpoints().iter().filter(|endpoint| endpoint.state() != EndpointState::Outside);
        inside.map(|endpoint| endpoint.id().to_owned()).collect::<Vec<_>>()
    };
    let subset = ids();
    calls(&balance, 10_000).await;
    let got = world.take();
    assert_eq!(got.keys().cloned().collect::<Vec<_>>(), subset);
    got.values().for_each(|calls| assert_share(*calls, 10_000, 0.1, 0.0));

    // An endpoint outside is added and removed.
    let outside = (0..100).map(|i| format!("e{i:03}")).find(|id| !subset.contains(id)).unwrap();
    updates.send(Ok(Change::Remove(outside.clone()))).unwrap();
    until(|| balance.snapshot().endpoints().len() == 99).await;
    assert_eq!(ids(), subset);
    updates.send(insert(outside, Attributes::new())).unwrap();
    until(|| balance.snapshot().endpoints().len() == 100).await;
    assert_eq!(ids(), subset);

    *world.dead.lock().unwrap() = subset[..8].to_vec();
    for _ in 0..20 {
        calls(&balance, 50).await;
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    let snapshot = balance.snapshot();
    assert_eq!((snapshot.count(EndpointState::Available), balance.len()), (5, 13), "{snapshot}");
    let asked = world.take();
    assert!(asked.keys().all(|id| ids().contains(id)), "{asked:?} by calls and probes");
    world.dead.lock().unwrap().clear();
    for _ in 0..60 {
        calls(&balance, 50).await;
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    assert_eq!((ids(), balance.snapshot().count(EndpointState::Available)), (subset, 10));
}

#[tokio::test(start_paused = true)]
async fn callers_with_apertures_load_every_endpoint_equally() {
    fastrand::seed(SEED);
    let world = World::default();
    let endpoints = || (0..25).map(|i| insert(format!("e{i:02}"), Attributes::new())).collect::<Vec<_>>();
    let (callers, each) = (8, 5_000);
    for rank in 0..callers {
        let own = siblings(&format!("a{rank}"), &[("a", callers)]);
        let mut updates = endpoints();
        fastrand::shuffle(&mut updates);
        let balance = world.balance(iter(updates), |builder| builder.subset(Subset::aperture(6)).siblings(iter([own])));
        // 6 of 25 by 8 callers: a section is 2/8 of the ring, or 6.25 endpoints, at whatever edges.
        let effective =
            || balance.snapshot().endpoints().iter().map(|endpoint| endpoint.effective_weight()).sum::<f64>();
        until(|| balance.snapshot().endpoints().len() == 25 && (effective() - 6.25).abs() < 1e-6).await;
        assert!((7..=8).contains(&balance.len()), "{}", balance.snapshot());
        calls(&balance, each).await;
    }
    let all = callers as u32 * each;
    let got = world.take();
    assert_eq!(got.len(), 25);
    got.values().for_each(|calls| assert_share(*calls, all, 1.0 / 25.0, 0.0));
}

#[tokio::test(start_paused = true)]
async fn siblings_that_change_without_end_do_not_block_discovery() {
    let world = World::default();
    let (updates, discover) = mpsc::unbounded_channel();
    let mut count = 0;
    let fleet = std::iter::repeat_with(move || {
        count += 1;
        siblings("a0", &[("a", 1 + count % 2)])
    });
    let balance = world.balance(UnboundedReceiverStream::new(discover), |builder| builder.siblings(iter(fleet)));
    for name in ["a", "b", "c"] {
        tokio::task::yield_now().await;
        updates.send(insert(name, Attributes::new())).unwrap();
    }
    until(|| balance.len() == 3).await;
}

#[tokio::test(start_paused = true)]
async fn error_of_a_call_without_an_endpoint_has_the_reason() {
    let world = World::default();
    let version = |name, version| insert(name, Attributes::new().with_labels([("version", version)]));
    let discover = [version("a", "1"), version("b", "1"), version("c", "2")];
    let requiring = |label| {
        world.balance(iter(discover.clone()), |builder| builder.labels(["version"]).policy(Draw { label: Some(label) }))
    };
    let refusal = async |balance: &Fleet| balance.clone().oneshot(()).await.unwrap_err();

    let balance = requiring(("version", "3"));
    let error = refusal(&balance).await;
    assert!(error.is_no_endpoints());
    let expected =
        "call to ORDERS: no endpoint of 3 has version=3; register an instance with this metadata, or do not require it";
    assert_eq!(error.to_string(), expected);
    let error = refusal(&requiring(("stage", "test"))).await.to_string();
    assert!(error.starts_with("call to ORDERS: no endpoint of 3 has stage=test"), "{error}");

    let balance = requiring(("version", "2"));
    assert_eq!(balance.clone().oneshot(()).await.unwrap(), "c");
    *world.dead.lock().unwrap() = vec!["c".into()];
    assert!(balance.clone().oneshot(()).await.is_err());
    let error = refusal(&balance).await.to_string();
    assert!(
        error.starts_with("call to ORDERS: every endpoint with version=2 is ejected: c (cannot be connected to)"),
        "{error}"
    );
    let snapshot = balance.snapshot();
    let c = &snapshot.endpoints()[2];
    assert_eq!((c.state(), c.cause(), c.failures()), (EndpointState::Ejected, Some(Cause::Unreachable), 1));
    assert!(c.retry_in().unwrap() <= Duration::from_millis(1_100), "{snapshot}");
}
