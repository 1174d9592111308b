use std::collections::BTreeMap;
use std::sync::Weak;
use std::time::Duration;

use arc_swap::ArcSwap;

use super::*;
use crate::balance::candidates::two_of;
use crate::balance::endpoint::{Details, Load, OutlierDetector};
use crate::balance::outlier::Ejection;
use crate::balance::policy::{FromHeader, PeakEwma, Random, Sticky, WeightedRoundRobin};
use crate::balance::shared::Shared;
use crate::balance::stable_hash::hash;
use crate::metrics::Metrics;

const SEED: u64 = 7;

fn member(id: u64) -> Member {
    let details = Details {
        id: EndpointId(id),
        app: None,
        instance: id.to_string().into(),
        penalty: Duration::ZERO,
        rules: Arc::new(ArcSwap::from_pointee(Ejection::default().rules())),
        missing_responses: Arc::default(),
        detector: Weak::<Shared<()>>::new() as Weak<dyn OutlierDetector>,
        failed: Default::default(),
        lost_at: Default::default(),
        evaluated: Default::default(),
        responses: Default::default(),
        silent: Default::default(),
        marks: Default::default(),
        picks: Metrics::new(None).pick_counter(None),
        metrics: Metrics::new(None),
    };
    let now = Timestamp::now();
    let stats = Arc::new(Stats::new(Load::new(1e6, Duration::from_secs(10), now), details, now));
    Member { id: EndpointId(id), position: (id / 3) as u32, stats, attributes: Arc::default() }
}

/// Picker of the endpoints 0, 3, 6, ... with these weights, of which those in `half_open` are
/// half-open.
fn picker_with(weights: &[f32], half_open: &[u64]) -> Picker<()> {
    fastrand::seed(SEED);
    let members: Vec<_> = weights.iter().zip(0..).map(|(weight, i)| (member(i * 3), *weight)).collect();
    let services = vec![(); members.len()];
    let (out, left): (Vec<_>, Vec<_>) =
        members.iter().cloned().partition(|(member, _)| half_open.contains(&member.id.0));
    out.iter().for_each(|(member, _)| member.stats.half_open.start());
    let with_half_open = (!out.is_empty()).then(|| EndpointList::new(members));
    let scope = Scope { available: EndpointList::new(left), with_half_open, ..Scope::default() };
    Picker::new(1, services, scope, HashMap::new(), out.into_iter().map(|(member, _)| member).collect(), Vec::new())
}

fn picker(n: usize) -> Picker<()> {
    picker_with(&vec![1.0; n], &[])
}

fn pick(picker: &Picker<()>, policy: &impl Policy<()>, tried: &[EndpointId]) -> Option<u64> {
    picker.pick(Timestamp::now(), &(), policy, None, tried).map(|chosen| chosen.id().0)
}

fn counts(calls: usize, mut pick: impl FnMut() -> u64) -> BTreeMap<u64, usize> {
    let mut counts = BTreeMap::new();
    (0..calls).for_each(|_| *counts.entry(pick()).or_default() += 1);
    counts
}

#[test]
fn two_of_returns_every_pair_and_never_the_same_twice() {
    fastrand::seed(SEED);
    let mut seen = [[0; 3]; 3];
    for _ in 0..9_000 {
        let (first, second) = two_of(3);
        seen[first][second] += 1;
    }
    for (first, row) in seen.iter().enumerate() {
        for (second, &count) in row.iter().enumerate() {
            let expected = if first == second { 0..=0 } else { 1_300..=1_700 };
            assert!(expected.contains(&count), "seed {SEED}: ({first}, {second}) drawn {count} times");
        }
    }
    assert_eq!(two_of(1), (0, 0));
}

#[test]
fn pick_excludes_tried_endpoints_and_spreads_over_the_rest() {
    let picker = picker(5);
    let tried = [EndpointId(9), EndpointId(0), EndpointId(9), EndpointId(1_000)];
    let counts = counts(3_000, || pick(&picker, &PeakEwma, &tried).unwrap());
    assert_eq!(counts.keys().copied().collect::<Vec<_>>(), [3, 6, 12]);
    assert!(counts.values().all(|count| (850..=1_150).contains(count)), "seed {SEED}: {counts:?}");
}

#[test]
fn draw_of_a_retry_respects_weights() {
    let picker = picker_with(&[5.0, 1.0, 2.0, 4.0], &[]);
    let counts = counts(7_000, || pick(&picker, &Random, &[EndpointId(0)]).unwrap());
    for (id, expected) in [(3, 1_000), (6, 2_000), (9, 4_000)] {
        assert!(counts[&id].abs_diff(expected) < 100, "seed {SEED}: {counts:?}");
    }
}

#[test]
fn pick_returns_the_last_untried_endpoint_and_then_none() {
    let picker = picker(3);
    let all = [EndpointId(0), EndpointId(3), EndpointId(6)];
    assert_eq!(pick(&picker, &PeakEwma, &all[..2]), Some(6));
    assert_eq!(pick(&picker, &PeakEwma, &all), None);
    assert_eq!(pick(&self::picker(0), &PeakEwma, &[]), None);
}

#[test]
fn pick_prefers_fewer_pending_calls() {
    let picker = picker(2);
    picker.stats().next().unwrap().begin(Timestamp::now());
    for _ in 0..100 {
        assert_eq!(pick(&picker, &PeakEwma, &[]), Some(3));
    }
}

#[test]
fn position_skips_excluded_endpoints() {
    let picker = picker(5);
    let excluded = [1, 3];
    let candidates = Candidates { list: &picker.all.available, excluded: &excluded, now: 0 };
    let positions = ["0", "3", "6", "9", "12", "1"].map(|id| candidates.position(id));
    assert_eq!(positions, [Some(0), None, Some(1), None, Some(2), None]);
    assert_eq!([0, 1, 2].map(|position| candidates.id(position)), ["0", "6", "12"]);
    assert_eq!(candidates.identity(1), hash(b"6"));
}

#[test]
fn retry_takes_no_turn() {
    let picker = picker(2);
    let first_tries = counts(100, || {
        let first = pick(&picker, &WeightedRoundRobin, &[]).unwrap();
        if first == 0 {
            assert_eq!(pick(&picker, &WeightedRoundRobin, &[EndpointId(0)]), Some(3));
        }
        first
    });
    assert_eq!(first_tries, BTreeMap::from([(0, 50), (3, 50)]));
}

#[test]
fn half_open_endpoint_gets_one_call_by_affinity() {
    let picker = picker_with(&[1.0; 3], &[3]);
    let sticky: Sticky<FromHeader> = Sticky::by_header("x-instance");
    let request = http::Request::builder().header("x-instance", "3").body(()).unwrap();
    let pick = || picker.pick(Timestamp::now(), &request, &sticky, None, &[]).unwrap();
    let probe = pick();
    assert_eq!((probe.id().0, probe.permit.is_some()), (3, true));
    probe.stats.load.begin(Timestamp::now());
    let next = pick();
    assert!(next.id().0 != 3 && !next.permit.is_some());
    probe.stats.load.cancel();
    assert_eq!(pick().id().0, 3);
}

#[test]
fn half_open_endpoint_gets_one_call_out_of_turn() {
    let picker = picker_with(&[1.0; 3], &[3]);
    let counts = counts(100, || pick(&picker, &WeightedRoundRobin, &[]).unwrap());
    assert_eq!(counts.get(&3), Some(&1));
}
