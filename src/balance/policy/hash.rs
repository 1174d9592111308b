//! The same endpoint for the same key.

use std::fmt;

use http::header::HeaderName;

use super::request::{FromHeader, Head};
use super::{Candidates, Label, PeakEwma, Policy};

/// Sends requests with the same key to the same endpoint, in whatever zone that is, as long as it has not too much to do.
///
/// For endpoints that cache, batch or lock by key. All callers that see the same instances agree on the endpoint without a word,
/// and where one comes or goes only its own share of the keys moves. For a request without a key another policy chooses,
/// [`PeakEwma`] unless [told otherwise](Self::policy).
///
/// ```
/// use http::request::Parts;
/// use tower_eureka::balance::{Random, RendezvousHash};
///
/// let by_header = RendezvousHash::by_header("x-tenant").policy(Random);
/// let by_path = RendezvousHash::by(|request: &Parts| Some(request.uri.path().into())).load_factor(1.5);
/// ```
///
/// With one key for all requests, an application goes on with one instance as long as that takes calls, as Spring's
/// `same-instance-preference` does. Where the key is the caller's own, callers choose different ones. Unlike Spring's nothing is
/// remembered: calls return to an instance that is well again, and one that comes as the *n*-th takes them over with a chance of 1 in *n*.
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
/// The endpoint of the highest *−wᵢ ÷ ln h(key, idᵢ)* takes the call, with *h* between 0 and 1: rendezvous hashing (Thaler and
/// Ravishankar, IEEE/ACM ToN 6(1), 1998) with weights (Schindelhauer and Schomaker, SPAA 2005), so each gets *wᵢ ÷ Σw* of the keys.
/// Endpoints are told apart by their ids, which should stay the same over restarts.
///
/// An endpoint holds at most *⌈c · (calls + 1) · wᵢ ÷ Σw⌉* of all calls pending here, where *c* is the
/// [load factor](Self::load_factor); further ones go to the next in the key's order (Mirrokni, Thorup and Zadimoghaddam, SODA 2018).
/// One in probation holds one call at a time.
///
/// So the bound goes before the shares. It is meant for keys of which there are too many calls; where there are few calls at all, an
/// endpoint that holds two of them at a time may be over it.
///
/// A pick looks at all endpoints: at a few nanoseconds each for the hash, and at what is pending at each if the first one is busy.
#[derive(Clone)]
pub struct RendezvousHash<K = FromHeader, P = PeakEwma> {
    key: K,
    load_factor: f64,
    inner: P,
}

/// What requests that belong together have in common, as far as a hash goes.
///
/// Made of text, bytes or a number. Its value is the same on every machine and in every version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HashKey(u64);

impl From<&str> for HashKey {
    fn from(key: &str) -> Self {
        Self(hash(key.as_bytes()))
    }
}

impl From<&[u8]> for HashKey {
    fn from(key: &[u8]) -> Self {
        Self(hash(key))
    }
}

impl From<u64> for HashKey {
    fn from(key: u64) -> Self {
        Self(mix(key))
    }
}

impl RendezvousHash {
    /// By the value of this header. An empty one is no key.
    ///
    /// # Panics
    ///
    /// If no header can have this name.
    pub fn by_header<N>(name: N) -> Self
    where
        N: TryInto<HeaderName>,
        N::Error: fmt::Debug,
    {
        Self::new(FromHeader::new(name))
    }
}

impl<F> RendezvousHash<F> {
    /// By what the closure makes of the request.
    pub fn by<Req: ?Sized>(key: F) -> Self
    where
        F: Fn(&Req) -> Option<HashKey> + Send + Sync,
    {
        Self::new(key)
    }

    fn new(key: F) -> Self {
        Self { key, load_factor: 1.25, inner: PeakEwma }
    }
}

impl<K, P> RendezvousHash<K, P> {
    /// How many times its fair share of the pending calls an endpoint may hold. By default 1.25; less than 1 counts as 1,
    /// infinity switches the bound off.
    ///
    /// Lower spreads the calls of a busy key sooner, higher keeps them together longer. Envoy's documentation recommends 1.2 to 2.
    #[must_use]
    pub fn load_factor(mut self, factor: f64) -> Self {
        // `max` prefers a number to what is none.
        self.load_factor = factor.max(1.0);
        self
    }

    /// What chooses for requests without a key. By default [`PeakEwma`].
    #[must_use]
    pub fn policy<Q>(self, policy: Q) -> RendezvousHash<K, Q> {
        RendezvousHash { key: self.key, load_factor: self.load_factor, inner: policy }
    }

    /// The first in the key's order that has room.
    fn place(&self, HashKey(key): HashKey, all: &Candidates<'_>) -> Option<usize> {
        let first = first_in_order(key, all, |_| true)?;
        // Nearly always: whatever the others hold, one call is in everybody's bound.
        if all.pending(first) == 0 {
            return Some(first);
        }
        let calls: usize = (0..all.len()).map(|at| all.pending(at)).sum();
        let fair = (calls + 1) as f64 / all.len() as f64;
        let has_room = |at: usize| {
            let bound = (self.load_factor * fair * f64::from(all.weight(at))).ceil();
            ((all.pending(at) + 1) as f64) <= bound && !all.is_busy_in_probation(at)
        };
        if has_room(first) {
            return Some(first);
        }
        // There is room somewhere, as the bounds add up to more than the calls, unless calls came while they were counted.
        first_in_order(key, all, has_room).or(Some(first))
    }
}

impl<Req, K, P> Policy<Req> for RendezvousHash<K, P>
where
    Req: ?Sized,
    K: Key<Req>,
    P: Policy<Req>,
{
    fn pick(&self, request: &Req, candidates: &Candidates<'_>) -> Option<usize> {
        self.inner.pick(request, candidates)
    }

    fn affinity(&self, request: &Req, all: &Candidates<'_>) -> Option<usize> {
        match self.key.key(request) {
            Some(key) => self.place(key, all),
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

/// Where in a request its key is found.
pub trait Key<Req: ?Sized>: Send + Sync {
    fn key(&self, request: &Req) -> Option<HashKey>;
}

impl<Req: Head> Key<Req> for FromHeader {
    fn key(&self, request: &Req) -> Option<HashKey> {
        self.bytes(request).map(HashKey::from)
    }
}

impl<Req: ?Sized, F> Key<Req> for F
where
    F: Fn(&Req) -> Option<HashKey> + Send + Sync,
{
    fn key(&self, request: &Req) -> Option<HashKey> {
        self(request)
    }
}

/// The one with the highest score among those that may.
fn first_in_order(key: u64, all: &Candidates<'_>, may: impl Fn(usize) -> bool) -> Option<usize> {
    let positions = (0..all.len()).filter(|at| may(*at));
    if all.are_equal() {
        return positions.max_by_key(|at| mix(key ^ all.identity(*at)));
    }
    // The lowest of 1 ÷ score, which has an exponential distribution of rate w.
    let mut best = (None, f64::INFINITY);
    for at in positions {
        let weight = f64::from(all.weight(at));
        let unit = ((mix(key ^ all.identity(at)) >> 11) as f64 + 0.5) / (1u64 << 53) as f64;
        // 1 - x is at most -ln x, which spares nearly all of the logarithms.
        if (1.0 - unit) / weight < best.1 {
            let time = -unit.ln() / weight;
            if time < best.1 {
                best = (Some(at), time);
            }
        }
    }
    best.0
}

/// FNV-1a with 64 bits, mixed: stable over versions and machines, as what callers agree by has to be.
pub(in crate::balance) fn hash(bytes: &[u8]) -> u64 {
    mix(bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)))
}

/// The finalizer of SplitMix64: each bit of the input moves half of the output's.
fn mix(mut bits: u64) -> u64 {
    bits = (bits ^ bits >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ bits >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ bits >> 31
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_are_what_they_are_elsewhere() {
        // FNV-1a of "a" and SplitMix64's first number from state 0, whose input is its increment.
        assert_eq!(hash(b"a"), mix(0xaf63_dc4c_8601_ec8c));
        assert_eq!(mix(0x9e37_79b9_7f4a_7c15), 0xe220_a839_7b1d_cdaf);
        assert_eq!(HashKey::from("a"), HashKey::from(&b"a"[..]));
        assert_ne!(HashKey::from(1), HashKey::from(2));
    }

    #[test]
    fn the_load_factor_is_at_least_one() {
        let factor = |factor| RendezvousHash::by_header("x-tenant").load_factor(factor).load_factor;
        assert_eq!([factor(0.5), factor(f64::NAN), factor(1.5)], [1.0, 1.0, 1.5]);
    }
}
