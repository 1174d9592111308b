//! By chance alone.

use super::{Candidates, Policy};

/// Draws an endpoint at random, in proportion to the weights.
///
/// For shares that are right in the long run and the same for any number of callers, and as what to compare others with. Over a
/// few calls round robin is closer to the shares. Whether an endpoint is slow or busy does not matter to it, so calls pile up
/// where it is.
///
/// The share of endpoint *i* is *wᵢ ÷ Σw*. A pick looks at one endpoint, by the alias method (Vose, IEEE TSE 17(9), 1991).
#[derive(Clone, Copy, Debug, Default)]
pub struct Random;

impl<Req: ?Sized> Policy<Req> for Random {
    fn pick(&self, _: &Req, candidates: &Candidates<'_>) -> Option<usize> {
        Some(candidates.draw())
    }
}
