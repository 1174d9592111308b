//! Numbers that follow from the share of heartbeats that a registry expects.

/// Returns the maximum number of leases that one run may evict from a registry of this size.
pub(super) fn eviction_limit(instances: usize, percent: f64) -> usize {
    instances - ((instances as f64 * percent) as usize).min(instances)
}

/// Returns the number of heartbeats per minute of this number of instances.
pub(super) fn expected_renewals(instances: usize, renewal_interval_secs: f64) -> f64 {
    instances as f64 * (60.0 / renewal_interval_secs)
}

/// Returns the maximum number of heartbeats per minute at which nothing is evicted.
pub(super) fn renewal_threshold(expected: f64, percent: f64) -> u64 {
    (expected * percent) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn eviction_limit_truncates_the_number_that_stays() {
        for (instances, limit) in [(0, 0), (1, 1), (5, 1), (6, 1), (7, 2), (10, 2), (20, 3), (100, 15)] {
            assert_eq!(eviction_limit(instances, 0.85), limit, "{instances} instances");
        }
    }

    #[test]
    fn renewal_threshold_equals_that_of_java() {
        for (instances, threshold) in
            [(0, 0), (1, 1), (2, 3), (3, 5), (6, 10), (7, 11), (10, 17), (18, 30), (51, 86), (151, 256)]
        {
            let actual = renewal_threshold(expected_renewals(instances, 30.0), 0.85);
            assert_eq!(actual, threshold, "{instances} instances");
        }
        assert_eq!(renewal_threshold(expected_renewals(18, 15.0), 0.85), 61);
    }
}
