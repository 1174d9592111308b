//! Locks without poison, and the way to blocking threads.

mod lock;
mod offload;

pub(crate) use lock::{Mutex, MutexGuard};
#[cfg(feature = "server")]
pub(crate) use lock::{RwLock, RwLockReadGuard, RwLockWriteGuard};
#[cfg(feature = "client")]
pub(crate) use offload::OFFLOAD_THRESHOLD;
pub(crate) use offload::offload;
