//! Rate limit of each client address.

use std::collections::HashMap;
use std::net::IpAddr;

use super::bucket::Bucket;
use crate::server::settings::RateLimits as Settings;
use crate::sync::Mutex;

/// Maximum number of addresses in the table, which then takes about 3 MB.
const MAX_ADDRESSES: usize = 50_000;
/// Minimum time between two removals of addresses that are not used. Each reads the whole table.
const SWEEP_INTERVAL_MS: i64 = 1_000;

/// Bucket of each address that sent a request recently.
///
/// While the table is full of active addresses, further ones are not limited. Otherwise a sender
/// with many addresses could exclude all others.
#[derive(Debug)]
pub(super) struct Addresses {
    rate: u32,
    burst: u32,
    table: Mutex<Table>,
}

#[derive(Debug, Default)]
struct Table {
    buckets: HashMap<IpAddr, Bucket>,
    swept_at: Option<i64>,
}

impl Addresses {
    pub(super) fn new(settings: &Settings) -> Option<Self> {
        let rate = settings.per_address?;
        let burst = settings.address_burst.unwrap_or(rate.saturating_mul(Settings::BURST_SECS));
        Some(Self { rate, burst, table: Mutex::default() })
    }

    /// Takes a token of this address.
    pub(super) fn admit(&self, network: IpAddr, now: i64) -> bool {
        let Table { buckets, swept_at } = &mut *self.table.lock();
        if let Some(bucket) = buckets.get_mut(&network) {
            return bucket.acquire(self.burst, self.rate, now);
        }
        if buckets.len() >= MAX_ADDRESSES {
            if swept_at.is_some_and(|at| now.saturating_sub(at) < SWEEP_INTERVAL_MS) {
                return true;
            }
            *swept_at = Some(now);
            buckets.retain(|_, bucket| !bucket.is_full(self.rate, now));
            if buckets.len() >= MAX_ADDRESSES {
                return true;
            }
        }
        buckets.entry(network).or_default().acquire(self.burst, self.rate, now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: i64 = 1_700_000_000_000;

    fn addresses(rate: u32, burst: u32) -> Addresses {
        Addresses::new(&Settings::new().per_address(rate).address_burst(burst)).unwrap()
    }

    #[test]
    fn address_that_exceeds_its_rate_harms_no_other() {
        let addresses = addresses(1, 3);
        let admitted = |address: [u8; 4], at| (0..10).filter(|_| addresses.admit(address.into(), START + at)).count();
        assert_eq!(admitted([10, 0, 0, 1], 0), 3);
        assert_eq!(admitted([10, 0, 0, 2], 0), 3);
        assert_eq!(admitted([10, 0, 0, 1], 2_000), 2);
    }

    #[test]
    fn table_stays_bounded_and_further_addresses_pass() {
        let addresses = addresses(1, 1);
        let address = |n: u32| IpAddr::from(n.to_be_bytes());
        let len = || addresses.table.lock().buckets.len();
        let max = u32::try_from(MAX_ADDRESSES).unwrap();
        for n in 0..max + 1_000 {
            assert!(addresses.admit(address(n), START));
        }
        assert_eq!(len(), MAX_ADDRESSES);
        assert!((0..10).all(|_| addresses.admit(address(max + 1), START)), "it has no bucket");
        assert!(!addresses.admit(address(0), START), "a known one is limited as before");
        assert!(addresses.admit(address(max + 1), START + 1_000));
        assert_eq!(len(), 1, "buckets that are full again are removed");
    }
}
