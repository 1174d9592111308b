//! Rendezvous hashing: the same endpoint for the same key.

use std::fmt;

use http::header::HeaderName;

use super::definition::{Label, Policy};
use super::key::{ExtractKey, FromHeader, HashFn, HashKey};
use super::two_choices::PeakEwma;
use crate::balance::candidates::Candidates;
use crate::balance::stable_hash::mix;

/// Sends requests with the same key to the same endpoint, in whatever zone it is, unless that
/// endpoint has too many pending calls.
///
/// Use it for endpoints that cache, batch or lock by key. All callers that see the same instances
/// pick the same endpoint without communication. If an endpoint is added or removed, only its own
/// share of the keys moves. For requests without a key another policy picks, by default
/// [`PeakEwma`]: see [`policy`](Self::policy).
///
/// ```
/// use http::request::Parts;
/// use tower_eureka::balance::{Random, RendezvousHash};
///
/// let by_header = RendezvousHash::by_header("x-tenant").policy(Random);
/// let by_path = RendezvousHash::by(|request: &Parts| Some(request.uri.path().into()));
/// let spread_sooner = by_path.load_factor(1.1);
/// ```
///
/// With one key for all requests, a caller uses one instance as long as that takes calls, as with
/// Spring's `same-instance-preference`. If the key is the caller's own, callers choose different
/// instances. Unlike Spring's, this policy has no memory: calls return to an instance that has
/// recovered, and an instance that is added as the *n*-th takes them over with a probability of
/// 1/*n*.
///
/// ```
/// use http::request::Parts;
/// use tower_eureka::balance::{HashKey, RendezvousHash};
///
/// # let own_id = "10.0.0.1:checkout:8080";
/// let own = HashKey::from(own_id);
/// let same_instance = RendezvousHash::by(move |_: &Parts| Some(own)).load_factor(f64::INFINITY);
/// ```
///
/// The endpoint with the highest *−wᵢ ÷ ln h(key, idᵢ)* takes the call, with *h* between 0 and 1:
/// rendezvous hashing (Thaler and Ravishankar, IEEE/ACM ToN 6(1), 1998) with weights (Schindelhauer
/// and Schomaker, SPAA 2005). So each endpoint gets *wᵢ ÷ Σw* of the keys. Endpoints are identified
/// by their ids, which should not change when an instance restarts.
///
/// An endpoint holds at most *⌈c · (calls + 1) · wᵢ ÷ Σw⌉* of all calls pending here, where *c* is
/// the [load factor](Self::load_factor). Further calls go to the next endpoint in the key's order
/// (Mirrokni, Thorup and Zadimoghaddam, SODA 2018). A half-open endpoint holds one call at a time.
///
/// The bound takes precedence over the shares. It is meant for keys with too many calls. If there
/// are few calls in total, an endpoint with two of them may exceed it.
///
/// A pick reads all endpoints, for a few nanoseconds each. If the first endpoint is busy, it reads
/// the pending calls of each as well.
#[derive(Clone)]
pub struct RendezvousHash<K = FromHeader, P = PeakEwma> {
    key: K,
    load_factor: f64,
    inner: P,
}

impl RendezvousHash {
    /// Hashes requests by the value of this header.
    ///
    /// # Panics
    ///
    /// Panics if the name is not a valid header name.
    pub fn by_header<N>(name: N) -> Self
    where
        N: TryInto<HeaderName>,
        N::Error: fmt::Debug,
    {
        Self::new(FromHeader::new(name))
    }
}

impl<F> RendezvousHash<HashFn<F>> {
    /// Hashes requests by the key that the closure returns.
    pub fn by<Req: ?Sized>(key: F) -> Self
    where
        F: Fn(&Req) -> Option<HashKey> + Send + Sync,
    {
        Self::new(HashFn(key))
    }
}

impl<K> RendezvousHash<K> {
    /// Creates a policy that sends requests with the same key to the same endpoint. `key` extracts
    /// the key; requests without one are balanced by [`PeakEwma`].
    pub fn new(key: K) -> Self {
        Self { key, load_factor: 1.25, inner: PeakEwma }
    }
}

impl<K, P> RendezvousHash<K, P> {
    /// Sets the number of pending calls that an endpoint may hold, as a multiple of its fair share.
    /// Values below 1 count as 1; infinity disables the bound. Defaults to 1.25.
    ///
    /// A lower factor spreads the calls of a busy key sooner, a higher one keeps them together
    /// longer. Envoy's documentation recommends 1.2 to 2.
    #[must_use]
    pub fn load_factor(mut self, factor: f64) -> Self {
        // `max` returns the number if the other value is NaN.
        self.load_factor = factor.max(1.0);
        self
    }

    /// Sets the policy for requests without a key. Defaults to [`PeakEwma`].
    #[must_use]
    pub fn policy<Q>(self, policy: Q) -> RendezvousHash<K, Q> {
        RendezvousHash { key: self.key, load_factor: self.load_factor, inner: policy }
    }

    /// Returns the first endpoint in the key's order that may take another call.
    fn pick_by_key(&self, HashKey(key): HashKey, all: &Candidates<'_>) -> Option<usize> {
        let first = first_in_order(key, all, |_| true)?;
        // The usual case: one call is within the bound, whatever the others hold.
        if all.pending(first) == 0 {
            return Some(first);
        }
        let calls: usize = (0..all.len()).map(|at| all.pending(at)).sum();
        let fair = (calls + 1) as f64 / all.len() as f64;
        let may_take = |at: usize| {
            let bound = (self.load_factor * fair * f64::from(all.weight(at))).ceil();
            ((all.pending(at) + 1) as f64) <= bound && !all.is_half_open_and_busy(at)
        };
        if may_take(first) {
            return Some(first);
        }
        // The bounds add up to more than the calls, so there is one, unless calls began meanwhile.
        first_in_order(key, all, may_take).or(Some(first))
    }
}

impl<Req, K, P> Policy<Req> for RendezvousHash<K, P>
where
    Req: ?Sized,
    K: ExtractKey<Req>,
    P: Policy<Req>,
{
    fn pick(&self, request: &Req, candidates: &Candidates<'_>) -> Option<usize> {
        self.inner.pick(request, candidates)
    }

    fn affinity(&self, request: &Req, all: &Candidates<'_>) -> Option<usize> {
        match self.key.extract(request).and_then(|key| key.to_hash()) {
            Some(key) => self.pick_by_key(key, all),
            None => self.inner.affinity(request, all),
        }
    }

    fn label<'r>(&'r self, request: &'r Req) -> Option<Label<'r>> {
        self.inner.label(request)
    }
}

impl<K, P: fmt::Debug> fmt::Debug for RendezvousHash<K, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RendezvousHash")
            .field("load_factor", &self.load_factor)
            .field("inner", &self.inner)
            .finish_non_exhaustive()
    }
}

/// Returns the position with the highest score, of those that `may` accepts.
fn first_in_order(key: u64, all: &Candidates<'_>, may: impl Fn(usize) -> bool) -> Option<usize> {
    let positions = (0..all.len()).filter(|at| may(*at));
    if all.are_equal() {
        return positions.max_by_key(|at| mix(key ^ all.identity(*at)));
    }
    // Minimum of 1 ÷ score, which has an exponential distribution of rate w.
    let mut best = (None, f64::INFINITY);
    for at in positions {
        let weight = f64::from(all.weight(at));
        let unit = ((mix(key ^ all.identity(at)) >> 11) as f64 + 0.5) / (1u64 << 53) as f64;
        // 1 - x is at most -ln x, which saves nearly all of the logarithms.
        if (1.0 - unit) / weight < best.1 {
            let time = -unit.ln() / weight;
            if time < best.1 {
                best = (Some(at), time);
            }
        }
    }
    best.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::balance::stable_hash::hash;

    #[test]
    fn hashes_equal_those_of_the_references() {
        // FNV-1a of "a", and SplitMix64's first number from state 0, whose input is its increment.
        assert_eq!(hash(b"a"), mix(0xaf63_dc4c_8601_ec8c));
        assert_eq!(mix(0x9e37_79b9_7f4a_7c15), 0xe220_a839_7b1d_cdaf);
        assert_eq!(HashKey::from("a"), HashKey::from(&b"a"[..]));
        assert_ne!(HashKey::from(1), HashKey::from(2));
    }

    #[test]
    fn load_factor_is_at_least_one() {
        let factor = |factor| RendezvousHash::by_header("x-tenant").load_factor(factor).load_factor;
        assert_eq!([factor(0.5), factor(f64::NAN), factor(1.5)], [1.0, 1.0, 1.5]);
    }
}
