//! Random picks.

use super::definition::Policy;
use crate::balance::candidates::Candidates;

/// Picks an endpoint at random, in proportion to the weights.
///
/// The shares are right in the long run and the same for any number of callers, which makes it a
/// baseline for comparisons. Over a few calls, round robin is closer to the shares. It ignores
/// whether an endpoint is slow or busy, so calls accumulate there.
///
/// The share of endpoint *i* is *wᵢ ÷ Σw*. A pick reads one endpoint, by the alias method (Vose,
/// IEEE TSE 17(9), 1991).
#[derive(Clone, Copy, Debug, Default)]
pub struct Random;

impl<Req: ?Sized> Policy<Req> for Random {
    fn pick(&self, _: &Req, candidates: &Candidates<'_>) -> Option<usize> {
        Some(candidates.draw())
    }
}
