//! Power of two choices: draw two, take the better one.
//!
//! With equal weights the two are different, so a bad endpoint is compared whenever it is drawn. With weights they are drawn in
//! proportion to them, with replacement, and the first one is taken unless the second is clearly better: the draw makes the
//! shares, the comparison only keeps calls away from what is slow, failing or full. Comparing `load ÷ weight` after a weighted
//! draw would count the weights twice (tower-rs/tower#696 is the opposite mistake, to divide after a uniform draw).

use super::{Candidates, Policy};

/// How many times better the second one of a weighted draw has to be.
const CLEARLY: f32 = 2.0;

/// Power of two choices over latency and pending calls. The default.
///
/// The one of two is taken whose latency (a moving average that follows peaks at once, and failures as if they had been slow)
/// times pending calls is lower.
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub struct PeakEwma;

/// Power of two choices over pending calls alone, as most proxies do by default.
///
/// For calls whose duration says more about the request than about the endpoint.
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub struct LeastRequests;

impl<Req: ?Sized> Policy<Req> for PeakEwma {
    fn pick(&self, _: &Req, candidates: &Candidates<'_>) -> Option<usize> {
        if candidates.are_equal() {
            Some(better_of_two(candidates, |i| candidates.cost(i)))
        } else {
            Some(weighted(candidates, |i| candidates.latency_nanos(i)))
        }
    }
}

impl<Req: ?Sized> Policy<Req> for LeastRequests {
    fn pick(&self, _: &Req, candidates: &Candidates<'_>) -> Option<usize> {
        if candidates.are_equal() {
            Some(better_of_two(candidates, |i| candidates.pending(i) as f32))
        } else {
            Some(weighted(candidates, |_| 1.0))
        }
    }
}

fn better_of_two(candidates: &Candidates<'_>, metric: impl Fn(usize) -> f32) -> usize {
    let (first, second) = candidates.draw_two();
    if metric(second) < metric(first) { second } else { first }
}

fn weighted(candidates: &Candidates<'_>, latency: impl Fn(usize) -> f32) -> usize {
    // One pending call is what every endpoint can take; what is more counts in proportion to the weight.
    let metric = |i| latency(i) * (1.0 + candidates.pending(i).saturating_sub(1) as f32 / candidates.weight(i));
    let (first, mut second) = (candidates.draw(), candidates.draw());
    if first == second {
        second = candidates.draw_two().1;
    }
    if metric(second) * CLEARLY < metric(first) { second } else { first }
}
