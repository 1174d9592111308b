//! Draws in proportion to weights, in constant time: Vose's alias method (IEEE TSE 17(9), 1991).

/// Table of the weights, built once per change.
#[derive(Debug)]
pub(super) struct Weights {
    /// Relative to the mean: the average endpoint has weight 1.
    relative: Box<[f32]>,
    heaviest: f32,
    /// For each column, the 32-bit number below which the column itself is drawn, and the index
    /// that is drawn above it.
    columns: Box<[(u32, u32)]>,
}

impl Weights {
    /// Returns `None` if all weights are equal. Invalid weights count as the smallest valid one.
    pub(super) fn new(weights: impl IntoIterator<Item = f32>) -> Option<Self> {
        let mut weights: Vec<f32> = weights.into_iter().collect();
        let smallest = weights.iter().copied().filter(|w| *w > 0.0 && w.is_finite()).fold(f32::INFINITY, f32::min);
        let smallest = if smallest.is_finite() { smallest } else { 1.0 };
        weights.iter_mut().filter(|w| !(**w > 0.0 && w.is_finite())).for_each(|w| *w = smallest);
        if weights.iter().all(|w| *w == weights[0]) {
            return None;
        }
        let mean = weights.iter().map(|w| f64::from(*w)).sum::<f64>() / weights.len() as f64;
        let relative: Box<[f32]> = weights.iter().map(|w| (f64::from(*w) / mean) as f32).collect();
        let columns = columns(weights.iter().map(|w| f64::from(*w) / mean).collect());
        let heaviest = relative.iter().copied().fold(0.0, f32::max);
        Some(Self { relative, heaviest, columns })
    }

    pub(super) fn relative(&self, at: usize) -> f32 {
        self.relative[at]
    }

    pub(super) fn heaviest(&self) -> f32 {
        self.heaviest
    }

    /// Returns the index that this random number draws.
    pub(super) fn draw(&self, random: u64) -> usize {
        let column = below(self.columns.len(), random >> 32);
        let (threshold, alias) = self.columns[column];
        if (random as u32) < threshold { column } else { alias as usize }
    }
}

/// Fills columns as wide as the mean: small shares are filled up from large ones.
fn columns(mut shares: Vec<f64>) -> Box<[(u32, u32)]> {
    let mut columns: Vec<(u32, u32)> = (0..shares.len()).map(|i| (u32::MAX, i as u32)).collect();
    let (mut small, mut large): (Vec<_>, Vec<_>) = (0..shares.len()).partition(|&i| shares[i] < 1.0);
    while let (Some(less), Some(&more)) = (small.pop(), large.last()) {
        columns[less] = ((shares[less] * 2f64.powi(32)) as u32, more as u32);
        shares[more] -= 1.0 - shares[less];
        if shares[more] < 1.0 {
            large.pop();
            small.push(more);
        }
    }
    columns.into()
}

/// Returns a number below `n` from 32 random bits. The bias of n / 2^32 is negligible.
#[inline]
pub(super) fn below(n: usize, bits: u64) -> usize {
    (((bits & 0xffff_ffff) * n as u64) >> 32) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_are_in_proportion_to_weights() {
        let weights = [3.0, 1.0, 10.0, 0.5, 0.0, f32::NAN];
        let table = Weights::new(weights).unwrap();
        let mut random = fastrand::Rng::with_seed(7);
        let mut drawn = [0; 6];
        for _ in 0..160_000 {
            drawn[table.draw(random.u64(..))] += 1;
        }
        for (drawn, share) in drawn.into_iter().zip([3.0, 1.0, 10.0, 0.5, 0.5, 0.5]) {
            let expected = 160_000.0 * share / 15.5;
            assert!((f64::from(drawn) - expected).abs() < expected * 0.05, "seed 7: {drawn} instead of {expected}");
        }
        assert!((table.relative(2) - 10.0 * 6.0 / 15.5).abs() < 1e-5);
    }

    #[test]
    fn equal_weights_need_no_table() {
        assert!(Weights::new([2.0; 5]).is_none());
        assert!(Weights::new([0.0, f32::NAN, -1.0]).is_none());
        assert!(Weights::new([]).is_none());
    }
}
