use std::collections::BTreeMap;
use std::sync::Weak;

use super::*;
use crate::balance::eject::{Control, Ejection};
use crate::balance::endpoint::Details;
use crate::balance::load::Load;
use crate::balance::policy::{PeakEwma, Random, Sticky, WeightedRoundRobin};
use crate::balance::{FromHeader, Shared};
use crate::metrics::Metrics;

const SEED: u64 = 7;

fn member(id: u64) -> Member {
    let details = Details {
        id: EndpointId(id),
        app: None,
        instance: id.to_string().into(),
        penalty: Duration::ZERO,
        rules: Ejection::default().rules(),
        control: Weak::<Shared<()>>::new() as Weak<dyn Control>,
        failed: Default::default(),
        looked: Default::default(),
        answered: Default::default(),
        silent: Default::default(),
        ledger: Default::default(),
        picks: Metrics::new(None).pick_counter(None),
        metrics: Metrics::new(None),
    };
    let now = Moment::now();
    let stats = Arc::new(Stats::new(Load::new(1e6, Duration::from_secs(10), now), details, now));
    Member { id: EndpointId(id), position: (id / 3) as u32, stats, attributes: Arc::default() }
}

/// Endpoints 0, 3, 6, ... of these weights, those of `probing` in probation.
fn set_with(weights: &[f32], probing: &[u64]) -> EndpointSet<()> {
    fastrand::seed(SEED);
    let members: Vec<_> = weights.iter().zip(0..).map(|(weight, i)| (member(i * 3), *weight)).collect();
    let services = vec![(); members.len()];
    let (out, left): (Vec<_>, Vec<_>) = members.iter().cloned().partition(|(member, _)| probing.contains(&member.id.0));
    out.iter().for_each(|(member, _)| member.stats.trial.begin());
    let every = (!out.is_empty()).then(|| Group::new(members));
    let view = View { whole: Group::new(left), every, ..View::default() };
    EndpointSet::new(1, services, view, HashMap::new(), out.into_iter().map(|(member, _)| member).collect(), Vec::new())
}

fn set(n: usize) -> EndpointSet<()> {
    set_with(&vec![1.0; n], &[])
}

fn choose(set: &EndpointSet<()>, policy: &impl Policy<()>, tried: &[EndpointId]) -> Option<u64> {
    set.choose(Moment::now(), &(), policy, None, tried).map(|chosen| chosen.id().0)
}

fn counts(calls: usize, mut choose: impl FnMut() -> u64) -> BTreeMap<u64, usize> {
    let mut counts = BTreeMap::new();
    (0..calls).for_each(|_| *counts.entry(choose()).or_default() += 1);
    counts
}

#[test]
fn draws_every_pair_and_never_twice_the_same() {
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
fn leaves_out_the_tried_and_spreads_over_the_rest() {
    let set = set(5);
    let tried = [EndpointId(9), EndpointId(0), EndpointId(9), EndpointId(1_000)];
    let counts = counts(3_000, || choose(&set, &PeakEwma, &tried).unwrap());
    assert_eq!(counts.keys().copied().collect::<Vec<_>>(), [3, 6, 12]);
    assert!(counts.values().all(|count| (850..=1_150).contains(count)), "seed {SEED}: {counts:?}");
}

#[test]
fn draws_by_weight_among_the_rest() {
    let set = set_with(&[5.0, 1.0, 2.0, 4.0], &[]);
    let counts = counts(7_000, || choose(&set, &Random, &[EndpointId(0)]).unwrap());
    for (id, expected) in [(3, 1_000), (6, 2_000), (9, 4_000)] {
        assert!(counts[&id].abs_diff(expected) < 100, "seed {SEED}: {counts:?}");
    }
}

#[test]
fn takes_the_last_one_left_and_none_when_all_were_tried() {
    let set = set(3);
    let all = [EndpointId(0), EndpointId(3), EndpointId(6)];
    assert_eq!(choose(&set, &PeakEwma, &all[..2]), Some(6));
    assert_eq!(choose(&set, &PeakEwma, &all), None);
    assert_eq!(choose(&self::set(0), &PeakEwma, &[]), None);
}

#[test]
fn prefers_the_one_with_fewer_pending_calls() {
    let set = set(2);
    set.stats().next().unwrap().begin(Moment::now());
    for _ in 0..100 {
        assert_eq!(choose(&set, &PeakEwma, &[]), Some(3));
    }
}

#[test]
fn finds_a_position_among_those_that_were_not_tried() {
    let set = set(5);
    let excluded = [1, 3];
    let candidates = Candidates { group: &set.all.whole, excluded: &excluded, now: 0 };
    let positions = ["0", "3", "6", "9", "12", "1"].map(|id| candidates.position(id));
    assert_eq!(positions, [Some(0), None, Some(1), None, Some(2), None]);
    assert_eq!([0, 1, 2].map(|position| candidates.id(position)), ["0", "6", "12"]);
    assert_eq!(candidates.identity(1), policy::hash(b"6"));
}

#[test]
fn a_retry_takes_no_turn() {
    let set = set(2);
    let first_tries = counts(100, || {
        let first = choose(&set, &WeightedRoundRobin, &[]).unwrap();
        if first == 0 {
            assert_eq!(choose(&set, &WeightedRoundRobin, &[EndpointId(0)]), Some(3));
        }
        first
    });
    assert_eq!(first_tries, BTreeMap::from([(0, 50), (3, 50)]));
}

#[test]
fn an_endpoint_in_probation_gets_one_call_of_those_that_belong_to_it() {
    let set = set_with(&[1.0; 3], &[3]);
    let sticky: Sticky<FromHeader> = Sticky::by_header("x-instance");
    let request = http::Request::builder().header("x-instance", "3").body(()).unwrap();
    let choose = || set.choose(Moment::now(), &request, &sticky, None, &[]).unwrap();
    let probe = choose();
    assert_eq!((probe.id().0, probe.ticket.is_some()), (3, true));
    probe.stats.load.begin(Moment::now());
    let next = choose();
    assert!(next.id().0 != 3 && !next.ticket.is_some());
    probe.stats.load.give_up();
    assert_eq!(choose().id().0, 3);
}

#[test]
fn an_endpoint_in_probation_gets_one_call_out_of_turn_and_no_other() {
    let set = set_with(&[1.0; 3], &[3]);
    let counts = counts(100, || choose(&set, &WeightedRoundRobin, &[]).unwrap());
    assert_eq!(counts.get(&3), Some(&1));
}
