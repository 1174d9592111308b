//! Round robin, and its generalization to weights: the static stride scheduler of gRPC.
//!
//! Turns are numbered. With *n* endpoints, turn *t* belongs to endpoint *t mod n* in round *t ÷ n*.
//! The heaviest endpoint takes a call in each of its rounds, one of half its weight in every second
//! round, and so on: an endpoint takes a call if the sum of its weights so far passes the next
//! multiple of the heaviest weight. Otherwise it passes the turn on. Since each turn is taken by
//! one caller only, the order and the shares are the same for any number of threads.

use super::definition::Policy;
use crate::balance::candidates::Candidates;

/// Weight of the heaviest endpoint in the sums, which are kept modulo this value.
const FULL_WEIGHT: u64 = 1 << 32;

/// Golden ratio of that weight. The i-th endpoint starts at i times this value, so that light
/// endpoints do not take their calls in the same round.
const PHASE: u32 = 0x9e37_79b9;

/// Picks endpoints in a fixed order, each as often as its weight says.
///
/// The shares are exact over any short time, whatever the endpoints' latency. Use it for parity
/// with Spring's round robin, or for calls that cost the same everywhere. A slow endpoint gets as
/// many calls as a fast one; only ejection takes calls from it.
///
/// With weights 3 and 1 the shares are exact over each four calls, with 10, 20 and 30 over each
/// six. The order starts at a random endpoint, so that callers that start together do not begin
/// with the same one, and restarts when the endpoints change. A retry does not use a turn but is
/// drawn by weight. Otherwise the retries of one endpoint's calls would move with its turns.
///
/// With equal weights, a pick reads one endpoint. With others it reads *max(w) ÷ mean(w)* on
/// average and never waits, as gRPC's static stride (`static_stride_scheduler.cc`). Unlike gRPC's
/// it does not limit that quotient, so shares are always exact.
#[derive(Clone, Copy, Debug, Default)]
pub struct WeightedRoundRobin;

impl<Req: ?Sized> Policy<Req> for WeightedRoundRobin {
    fn pick(&self, _: &Req, candidates: &Candidates<'_>) -> Option<usize> {
        if candidates.is_retry() {
            return Some(candidates.draw());
        }
        let n = candidates.len() as u64;
        loop {
            let turn = candidates.turn();
            let (round, at) = (turn / n, (turn % n) as usize);
            if candidates.are_equal() || takes(round, at, candidates.weight(at) / candidates.heaviest()) {
                return Some(at);
            }
        }
    }
}

/// Returns `true` if the endpoint at this position takes a call in this round, given its share of
/// the heaviest weight.
fn takes(round: u64, at: usize, share: f32) -> bool {
    // Rounded up, so that with a third the third round is taken and not the fourth.
    let stride = (f64::from(share) * FULL_WEIGHT as f64).ceil() as u64;
    let sum = (round as u32).wrapping_mul(stride as u32).wrapping_add((at as u32).wrapping_mul(PHASE));
    u64::from(sum) + stride >= FULL_WEIGHT
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Calls in a whole number of periods that start at this round.
    fn counts(weights: &[u32], start: u64, rounds: u64) -> Vec<u32> {
        let heaviest = *weights.iter().max().unwrap() as f32;
        let takes = |round, at: usize| takes(round, at, weights[at] as f32 / heaviest);
        (0..weights.len()).map(|at| (start..start + rounds).filter(|round| takes(*round, at)).count() as u32).collect()
    }

    #[test]
    fn shares_are_exact_over_each_period() {
        for weights in [&[3, 1][..], &[2, 1, 1], &[10, 20, 30], &[7, 5, 3, 1], &[100, 1, 99, 50], &[1, 1, 1]] {
            let heaviest = u64::from(*weights.iter().max().unwrap());
            for start in [0, 1, 2, 17, 4_711] {
                assert_eq!(counts(weights, start, heaviest), weights, "from round {start}");
            }
        }
    }

    #[test]
    fn shares_hold_over_many_rounds_and_a_wrap_of_the_sums() {
        let rounds = 1_000_000;
        for (at, count) in counts(&[7, 3, 1, 5], (1 << 32) - rounds / 2, rounds).into_iter().enumerate() {
            let expected = [7.0, 3.0, 1.0, 5.0][at] / 7.0 * rounds as f64;
            assert!((f64::from(count) - expected).abs() <= 2.0, "{at}: {count} instead of {expected}");
        }
    }

    #[test]
    fn turns_of_light_endpoints_are_spread_over_the_rounds() {
        let in_round = |round| (1..=100).filter(|at| takes(round, *at, 0.01)).count();
        let most = (0..100).map(in_round).max().unwrap();
        assert!(most <= 3, "{most} of 100 in one round");
    }
}
