use std::time::Duration;

/// Bytes that a request and the head of its response cost in addition to the body.
pub(super) const OVERHEAD: u64 = 500;
/// Number of refreshes between two decisions.
const WINDOW: u32 = 10;
/// The other way must cost less than one divided by this number.
const FACTOR: u64 = 2;
/// Bytes per refresh that a switch must save besides, so that small differences change nothing.
const MARGIN: u64 = 8 * OVERHEAD;
/// Mean time between two fetches of the whole registry, in which it verifies its deltas.
const FULL_INTERVAL: Duration = Duration::from_secs(600);
/// Factor by which a list is compressed, if no compressed list was received yet.
const COMPRESSION: u64 = 8;

/// Cost of the refreshes in bytes, and the choice between the names in use and the whole registry.
///
/// A refresh of the names costs the bytes that are measured. What the whole registry costs is
/// measured as well while it is fetched. Before, it is estimated: a delta for each refresh, and a
/// part of a full list, whose size follows from the number of its instances and the size of those
/// that are known.
#[derive(Debug, Default)]
pub(super) struct Cost {
    refreshes: u32,
    /// Bytes of these refreshes.
    spent: u64,
    /// Mean bytes of the refreshes before.
    before: Option<u64>,
    /// True if the last decision was for the other way. A single large delta switches nothing.
    is_doubted: bool,
    /// Bytes per refresh and name, when the names were fetched last.
    per_name: Option<u64>,
    /// Size of the last delta as received.
    delta: Option<u64>,
    /// True if the delta was compressed.
    is_compressed: bool,
    /// Instances of the whole registry.
    total: Option<u64>,
}

/// Lists of the names in use.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Sizes {
    pub(super) instances: u64,
    pub(super) received: u64,
    pub(super) is_compressed: bool,
}

/// Decision for the other way, with the bytes per refresh of both.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Switch {
    pub(super) names: u64,
    pub(super) whole: u64,
}

impl Cost {
    /// Adds a request and its body.
    pub(super) fn add(&mut self, received: u64) {
        self.spent += received + OVERHEAD;
    }

    /// Records a delta, with the number of instances of the registry by its hash.
    pub(super) fn delta(&mut self, received: u64, is_compressed: bool, total: u64) {
        (self.delta, self.is_compressed, self.total) = (Some(received), is_compressed, Some(total));
    }

    /// Returns the number of instances of the registry, by the last delta.
    pub(super) fn total(&self) -> Option<u64> {
        self.total
    }

    /// Returns the size of the last delta as received.
    pub(super) fn delta_size(&self) -> Option<u64> {
        self.delta
    }

    /// Ends a refresh. Returns `true` if a decision is due.
    pub(super) fn refreshed(&mut self) -> bool {
        self.refreshes += 1;
        self.refreshes >= WINDOW
    }

    /// Decides while the names are fetched.
    pub(super) fn is_whole_cheaper(&mut self, names: u64, lists: Sizes, interval: Duration) -> Option<Switch> {
        let of_names = self.take_mean();
        self.per_name = Some(of_names / names.max(1));
        let full = self.full(lists)?;
        let refreshes = (FULL_INTERVAL.as_millis() / interval.as_millis().max(1)).max(1);
        let whole = OVERHEAD + self.delta? + full / u64::try_from(refreshes).unwrap_or(u64::MAX);
        self.confirmed(is_cheaper(whole, of_names)).then_some(Switch { names: of_names, whole })
    }

    /// Decides while the whole registry is fetched.
    pub(super) fn are_names_cheaper(&mut self, names: u64) -> Option<Switch> {
        let whole = self.take_mean();
        let of_names = self.per_name? * names;
        self.confirmed(is_cheaper(of_names, whole)).then_some(Switch { names: of_names, whole })
    }

    /// Forgets the refreshes so far, which were those of the other way.
    pub(super) fn restart(&mut self) {
        (self.refreshes, self.spent, self.before, self.is_doubted) = (0, 0, None, false);
    }

    /// Returns `true` if the last two decisions are for the other way.
    fn confirmed(&mut self, is_doubted: bool) -> bool {
        std::mem::replace(&mut self.is_doubted, is_doubted) && is_doubted
    }

    /// Estimates the size of a full list as received.
    fn full(&self, lists: Sizes) -> Option<u64> {
        let total = self.total?;
        let full = total.saturating_mul(lists.received) / lists.instances.max(1);
        // Java servers compress full lists and deltas, but no list of a part.
        let is_smaller = self.is_compressed && !lists.is_compressed;
        Some(if is_smaller { full / COMPRESSION } else { full })
    }

    /// Returns the mean bytes of a refresh. Complete lists come seldom, so the refreshes before
    /// count as well.
    fn take_mean(&mut self) -> u64 {
        let latest = self.spent / u64::from(self.refreshes.max(1));
        let mean = self.before.map_or(latest, |before| (before + latest) / 2);
        (self.refreshes, self.spent, self.before) = (0, 0, Some(mean));
        mean
    }
}

/// Returns `true` if the first number of bytes is so much smaller that a switch is worth it.
pub(super) fn is_cheaper(bytes: u64, than: u64) -> bool {
    bytes.saturating_mul(FACTOR).saturating_add(MARGIN) < than
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTERVAL: Duration = Duration::from_secs(30);

    /// Returns the cost after refreshes of this number of names, each with a body of this size.
    fn cost(names: u64, body: u64, delta: (u64, bool, u64)) -> Cost {
        let mut cost = Cost::default();
        for refresh in 1..=WINDOW {
            (0..names).for_each(|_| cost.add(body));
            cost.delta(delta.0, delta.1, delta.2);
            assert_eq!(cost.refreshed(), refresh == WINDOW);
        }
        cost
    }

    fn sizes(instances: u64, received: u64, is_compressed: bool) -> Sizes {
        Sizes { instances, received, is_compressed }
    }

    #[test]
    fn few_names_of_a_large_registry_stay_cheaper() {
        let mut cost = cost(3, 0, (120, true, 10_000));
        assert_eq!(cost.is_whole_cheaper(3, sizes(300, 30_000, true), INTERVAL), None);
        let mut uncompressed = self::cost(3, 1_000, (120, true, 10_000));
        assert_eq!(uncompressed.is_whole_cheaper(3, sizes(300, 300_000, false), INTERVAL), None);
    }

    #[test]
    fn many_names_of_a_small_registry_cost_more_until_few_are_left() {
        let mut cost = cost(40, 0, (120, true, 200));
        let lists = sizes(160, 16_000, true);
        assert_eq!(cost.is_whole_cheaper(40, lists, INTERVAL), None, "one decision may be due to a single large delta");
        for _ in 0..WINDOW {
            (0..40).for_each(|_| cost.add(0));
            cost.refreshed();
        }
        let switch = cost.is_whole_cheaper(40, lists, INTERVAL).unwrap();
        assert!(switch.whole * 2 < switch.names, "{switch:?}");
        cost.restart();
        let mut whole = |names| {
            for _ in 0..WINDOW {
                cost.add(9_000);
                cost.refreshed();
            }
            cost.are_names_cheaper(names)
        };
        assert_eq!(whole(40), None);
        assert_eq!(whole(10), None, "hysteresis");
        assert_eq!(whole(1), None);
        assert!(whole(1).is_some());
    }

    #[test]
    fn small_saving_or_unknown_registry_switches_nothing() {
        let mut small = cost(3, 0, (100, false, 3));
        assert_eq!(small.is_whole_cheaper(3, sizes(3, 3_000, false), INTERVAL), None);
        let mut unknown = Cost::default();
        (0..WINDOW).for_each(|_| unknown.add(1_000_000));
        assert_eq!(unknown.is_whole_cheaper(1, sizes(1, 1_000, false), INTERVAL), None);
        assert_eq!(unknown.are_names_cheaper(1), None);
    }
}
