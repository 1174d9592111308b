//! Bounded number of verifications that run on blocking threads at a time.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use super::refusal::Refusal;
use crate::server::memory;

/// Maximum time for which credentials wait for their verification.
const VERIFY_TIMEOUT: Duration = Duration::from_secs(5);
/// Maximum number of requests that wait for a verification.
const MAX_WAITING: usize = 10_000;
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
        }
    }

    /// Waits for a thread and the memory of one verification.
    ///
    /// # Errors
    /// Returns a refusal if too many requests wait, or if none ended in time.
    pub(super) async fn permits(&self, memory_kib: u32) -> Result<[OwnedSemaphorePermit; 2], Refusal> {
        const BUSY: Refusal = Refusal::Busy("too many log-ins at the same time");
        let _place = self.waiting.clone().try_acquire_owned().map_err(|_| BUSY)?;
        // A policy has no hash that needs more (`Row::check`).
        let mib = memory_kib.div_ceil(1024).min(self.memory_mib);
        let permits = async {
            let thread = self.threads.clone().acquire_owned().await.expect("semaphore is never closed");
            let memory = self.memory.clone().acquire_many_owned(mib).await.expect("semaphore is never closed");
            [thread, memory]
        };
        timeout(VERIFY_TIMEOUT, permits).await.map_err(|_| BUSY)
    }
}
