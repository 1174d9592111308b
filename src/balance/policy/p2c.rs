//! Power of two choices: draw two, take the better one.
//!
//! With equal weights the two are different and whatever differs decides, so a bad endpoint is compared whenever it is drawn.
//!
//! With weights both are drawn in proportion to them, and the first is taken unless the second is clearly better: the draw makes
//! the shares, the comparison only keeps calls away from what is slow, failing or full. Comparing `load ÷ weight` after a weighted
//! draw would count the weights twice (tower-rs/tower#696 is the opposite mistake, to divide after a uniform draw). And it would
//! lead calls to light endpoints: these have one call or none, and when they have none they look better than any heavy one, whose
//! calls hardly vary. So what is pending counts only where it is no chance, and only as far as the latencies do not explain it:
//! an endpoint that is half as fast has twice the calls pending at the same share.

use super::{Candidates, Policy};

/// How many times better the second one of a weighted draw has to be. Below it, the weights are what was asked for.
const CLEARLY: f32 = 2.0;

/// So many standard deviations, squared, make a difference of pending calls more than chance: three, which is one in a thousand.
const NO_CHANCE: f32 = 9.0;

/// Power of two choices over latency and pending calls. The default.
///
/// The one of two is taken whose latency (a moving average that follows peaks at once, and failures as if they had been slow)
/// times pending calls is lower. A call that lasts far longer than expected, such as a long poll or an open stream, is no load,
/// and an unusually slow response counts once another one confirms it.
#[derive(Clone, Copy, Debug, Default)]
pub struct PeakEwma;

/// Power of two choices over pending calls alone, as most proxies do by default.
///
/// For calls whose duration says more about the request than about the endpoint. A call counts as long as it lasts, be it a long
/// poll or a stream. An endpoint where several calls wait in silence is passed over for a while.
#[derive(Clone, Copy, Debug, Default)]
pub struct LeastRequests;

impl<Req: ?Sized> Policy<Req> for PeakEwma {
    fn pick(&self, _: &Req, candidates: &Candidates<'_>) -> Option<usize> {
        if candidates.are_equal() {
            Some(better_of_two(candidates, |i| candidates.cost(i)))
        } else {
            Some(weighted(candidates, |i| candidates.latency_nanos(i), |i| candidates.busy(i) as f32))
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

/// Added to the pending calls of an endpoint where several of them wait in silence.
const SILENT: f32 = 1e6;

fn requests(candidates: &Candidates<'_>, i: usize) -> f32 {
    let pending = candidates.pending(i) as f32;
    if pending > 0.0 && candidates.is_silent(i) { pending + SILENT } else { pending }
}

#[inline(always)]
fn better_of_two(candidates: &Candidates<'_>, metric: impl Fn(usize) -> f32) -> usize {
    let (first, second) = candidates.draw_two();
    if metric(second) < metric(first) { second } else { first }
}

fn weighted(candidates: &Candidates<'_>, latency: impl Fn(usize) -> f32, pending: impl Fn(usize) -> f32) -> usize {
    let (first, mut second) = (candidates.draw(), candidates.draw());
    if first == second {
        // One of a great weight would else hardly ever be compared with another.
        let (one, other) = candidates.draw_two();
        second = if one == first { other } else { one };
    }
    let slower = latency(first) / latency(second);
    let of = |i| (pending(i), candidates.weight(i));
    let fuller = fuller(of(first), of(second));
    // Both the same way is one reason, seen twice; opposite ways outweigh each other.
    let worse = if (slower > 1.0) == (fuller > 1.0) { slower.max(fuller) } else { slower * fuller };
    if worse > CLEARLY { second } else { first }
}

/// How many times fuller the first is than the second for its weight, if that is no chance, else 1.
fn fuller((first, weight): (f32, f32), (second, other_weight): (f32, f32)) -> f32 {
    // Where calls go by weight, the first one's share of the calls of both has a binomial distribution.
    let difference = first * other_weight - second * weight;
    if difference * difference <= NO_CHANCE * (first + second) * weight * other_weight {
        return 1.0;
    }
    (1.0 + first / weight) / (1.0 + second / other_weight)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chance_does_not_count_and_fullness_does() {
        assert_eq!(fuller((6.0, 3.0), (0.0, 0.3)), 1.0, "a light one that happens to be idle");
        assert_eq!(fuller((0.0, 1.0), (0.0, 1.0)), 1.0);
        assert_eq!(fuller((5.0, 1.0), (0.0, 1.0)), 1.0);
        assert_eq!(fuller((19.0, 1.0), (1.0, 1.0)), 10.0);
        assert_eq!(fuller((1.0, 1.0), (19.0, 1.0)), 0.1);
        assert_eq!(fuller((300.0, 3.0), (100.0, 1.0)), 1.0);
        assert!(fuller((600.0, 3.0), (100.0, 1.0)) > 1.9);
    }
}
