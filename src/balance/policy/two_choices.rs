//! Power of two choices: draw two endpoints, and pick the better one.
//!
//! With equal weights the two are different and any difference decides, so a bad endpoint is
//! compared whenever it is drawn.
//!
//! With weights both are drawn in proportion to them, and the first is picked unless the second is
//! clearly better. The draw determines the shares; the comparison only keeps calls away from
//! endpoints that are slow, failing or full. Comparing `load ÷ weight` after a weighted draw would
//! count the weights twice (tower-rs/tower#696 is the opposite mistake, a division after a uniform
//! draw). It would also send calls to light endpoints: these have one call or none, and without one
//! they look better than any heavy endpoint, whose number of calls hardly varies. So pending calls
//! count only if their difference is not due to chance, and only as far as the latencies do not
//! explain it: an endpoint that is half as fast has twice the pending calls at the same share.

use super::definition::Policy;
use crate::balance::candidates::Candidates;

/// Factor by which the second endpoint of a weighted draw has to be better. Below it, the weights
/// decide.
const MIN_ADVANTAGE: f32 = 2.0;

/// Squared number of standard deviations beyond which a difference of pending calls is not due to
/// chance: three, or one in a thousand.
const SIGNIFICANCE: f32 = 9.0;

/// Power of two choices over latency and pending calls. The default policy.
///
/// Of two endpoints, it picks the one with the lower product of latency and pending calls. The
/// latency is a moving average that rises to peaks at once and counts failures as slow. A call that
/// lasts far longer than expected, such as a long poll or an open stream, is no load. An unusually
/// slow response counts once another one confirms it.
///
/// Endpoints with different weights are drawn in proportion to them. The second one drawn is picked
/// only if it is more than twice as good.
#[derive(Clone, Copy, Debug, Default)]
pub struct PeakEwma;

/// Power of two choices over pending calls alone, the default of most proxies.
///
/// Use it if the duration of a call depends more on the request than on the endpoint. A call counts
/// as long as it lasts, even if it is a long poll or a stream. An endpoint on which several calls
/// wait without activity is avoided for a while. Weights have the same effect as with [`PeakEwma`].
#[derive(Clone, Copy, Debug, Default)]
pub struct LeastRequests;

impl<Req: ?Sized> Policy<Req> for PeakEwma {
    fn pick(&self, _: &Req, candidates: &Candidates<'_>) -> Option<usize> {
        if candidates.are_equal() {
            Some(better_of_two(candidates, |i| candidates.cost(i)))
        } else {
            Some(weighted(candidates, |i| candidates.latency_nanos(i), |i| candidates.active_calls(i) as f32))
        }
    }
}

impl<Req: ?Sized> Policy<Req> for LeastRequests {
    fn pick(&self, _: &Req, candidates: &Candidates<'_>) -> Option<usize> {
        if candidates.are_equal() {
            Some(better_of_two(candidates, |i| requests(candidates, i)))
        } else {
            Some(weighted(candidates, |_| 1.0, |i| requests(candidates, i)))
        }
    }
}

/// Added to the pending calls of an endpoint on which several of them wait without activity.
const SILENT_PENALTY: f32 = 1e6;

fn requests(candidates: &Candidates<'_>, i: usize) -> f32 {
    let pending = candidates.pending(i) as f32;
    if pending > 0.0 && candidates.is_silent(i) { pending + SILENT_PENALTY } else { pending }
}

#[inline(always)]
fn better_of_two(candidates: &Candidates<'_>, metric: impl Fn(usize) -> f32) -> usize {
    let (first, second) = candidates.draw_two();
    if metric(second) < metric(first) { second } else { first }
}

fn weighted(candidates: &Candidates<'_>, latency: impl Fn(usize) -> f32, pending: impl Fn(usize) -> f32) -> usize {
    let (first, mut second) = (candidates.draw(), candidates.draw());
    if first == second {
        // Otherwise an endpoint of great weight would hardly ever be compared with another one.
        let (one, other) = candidates.draw_two();
        second = if one == first { other } else { one };
    }
    let slower = latency(first) / latency(second);
    let of = |i| (pending(i), candidates.weight(i));
    let fuller = fuller(of(first), of(second));
    // Two differences in the same direction have one cause. Opposite ones outweigh each other.
    let worse = if (slower > 1.0) == (fuller > 1.0) { slower.max(fuller) } else { slower * fuller };
    if worse > MIN_ADVANTAGE { second } else { first }
}

/// Returns how many times fuller the first endpoint is than the second, for its weight, if that is
/// not due to chance, and else 1.
fn fuller((first, weight): (f32, f32), (second, other_weight): (f32, f32)) -> f32 {
    // If calls are distributed by weight, the first one's share of the calls of both has a binomial
    // distribution.
    let difference = first * other_weight - second * weight;
    if difference * difference <= SIGNIFICANCE * (first + second) * weight * other_weight {
        return 1.0;
    }
    (1.0 + first / weight) / (1.0 + second / other_weight)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fuller_ignores_chance_and_counts_differences() {
        assert_eq!(fuller((6.0, 3.0), (0.0, 0.3)), 1.0, "a light endpoint is idle by chance");
        assert_eq!(fuller((0.0, 1.0), (0.0, 1.0)), 1.0);
        assert_eq!(fuller((5.0, 1.0), (0.0, 1.0)), 1.0);
        assert_eq!(fuller((19.0, 1.0), (1.0, 1.0)), 10.0);
        assert_eq!(fuller((1.0, 1.0), (19.0, 1.0)), 0.1);
        assert_eq!(fuller((300.0, 3.0), (100.0, 1.0)), 1.0);
        assert!(fuller((600.0, 3.0), (100.0, 1.0)) > 1.9);
    }
}
