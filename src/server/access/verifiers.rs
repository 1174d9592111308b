//! Bounded number of verifications that run on blocking threads at a time.

use std::net::IpAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use super::refusal::Refusal;
use crate::server::memory;
use crate::server::places::Places;

/// Maximum time for which credentials wait for their verification.
const VERIFY_TIMEOUT: Duration = Duration::from_secs(5);
/// Maximum number of requests that wait for a verification.
const MAX_WAITING: usize = 10_000;
/// The same of one address.
const MAX_WAITING_OF_ADDRESS: usize = 1_000;
/// Share of the memory of the process that verifications may use at a time, and its minimum in MiB.
const MEMORY_SHARE: usize = 8;
const MIN_MEMORY_MIB: u32 = 64;

/// Returns the MiB of memory that verifications may use at a time.
pub(super) fn memory_mib() -> u32 {
    static MIB: OnceLock<u32> = OnceLock::new();

    *MIB.get_or_init(|| {
        let limit = memory::limit().map_or(0, |(bytes, _)| bytes);
        u32::try_from(limit / MEMORY_SHARE / (1024 * 1024)).unwrap_or(u32::MAX).max(MIN_MEMORY_MIB)
    })
}

/// Permits for the verifications of one kind of credentials. Each kind has its own ones, so that a
/// flood of passwords does not exclude tokens.
pub(super) struct Verifiers {
    pub(super) threads: Arc<Semaphore>,
    pub(super) memory: Arc<Semaphore>,
    pub(super) memory_mib: u32,
    /// Places in the queue for a permit.
    pub(super) waiting: Arc<Semaphore>,
    /// Each address has one place in the order of the permits, so that one that guesses passwords
    /// does not exclude the others.
    addresses: Places<Option<IpAddr>>,
}

impl Verifiers {
    pub(super) fn new() -> Self {
        // Each kind takes at most half of the cores.
        let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get().div_ceil(2));
        let memory_mib = memory_mib();
        Self {
            threads: Arc::new(Semaphore::new(cores)),
            memory: Arc::new(Semaphore::new(memory_mib as usize)),
            memory_mib,
            waiting: Arc::new(Semaphore::new(MAX_WAITING)),
            addresses: Places::default(),
        }
    }

    /// Waits for a thread and the memory of one verification for an address, in the turn of the
    /// address.
    ///
    /// # Errors
    /// Returns a refusal if too many requests wait, or if none ended in time.
    pub(super) async fn permits(
        &self,
        address: Option<IpAddr>,
        memory_kib: u32,
    ) -> Result<[OwnedSemaphorePermit; 2], Refusal> {
        const BUSY: Refusal = Refusal::Busy("too many log-ins at the same time");
        let _waiting = self.waiting.clone().try_acquire_owned().map_err(|_| BUSY)?;
        let waiter = self.addresses.waiter(address);
        if waiter.number() > MAX_WAITING_OF_ADDRESS {
            return Err(BUSY);
        }
        // A policy has no hash that needs more (`Row::check`).
        let mib = memory_kib.div_ceil(1024).min(self.memory_mib);
        let permits = async {
            let _place = waiter.place().await;
            let thread = self.threads.clone().acquire_owned().await.expect("semaphore is never closed");
            let memory = self.memory.clone().acquire_many_owned(mib).await.expect("semaphore is never closed");
            [thread, memory]
        };
        timeout(VERIFY_TIMEOUT, permits).await.map_err(|_| BUSY)
    }
}

#[cfg(test)]
mod tests {
    use tokio::task::yield_now;

    use super::*;

    fn address(n: u8) -> Option<IpAddr> {
        Some([10, 0, 0, n].into())
    }

    #[tokio::test(start_paused = true)]
    async fn log_in_waits_for_one_of_another_address_with_many() {
        let verifiers = Arc::new(Verifiers::new());
        let all = verifiers.threads.available_permits();
        let held = verifiers.threads.clone().acquire_many_owned(u32::try_from(all).unwrap()).await.unwrap();
        let (done, mut order) = tokio::sync::mpsc::unbounded_channel();
        for n in [1; 20].into_iter().chain([2]) {
            let (verifiers, done) = (verifiers.clone(), done.clone());
            tokio::spawn(async move {
                let permits = verifiers.permits(address(n), 0).await;
                assert!(permits.is_ok());
                done.send(n).unwrap();
            });
        }
        yield_now().await;
        drop((held, done));
        let mut log_ins = Vec::new();
        while let Some(n) = order.recv().await {
            log_ins.push(n);
        }
        assert_eq!((log_ins.len(), &log_ins[..3]), (21, &[1, 2, 1][..]));
        assert!(verifiers.addresses.is_empty());
    }

    #[tokio::test]
    async fn address_has_a_part_of_the_places_in_the_queue() {
        let verifiers = Verifiers::new();
        let waiters: Vec<_> = (0..MAX_WAITING_OF_ADDRESS).map(|_| verifiers.addresses.waiter(address(1))).collect();
        assert!(verifiers.permits(address(1), 0).await.is_err());
        assert!(verifiers.permits(address(2), 0).await.is_ok());
        drop(waiters);
        assert!(verifiers.permits(address(1), 0).await.is_ok());
    }
}
