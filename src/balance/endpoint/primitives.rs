//! Synchronization primitives of the counters, which `tests/counters.rs` replaces by loom's.

pub(super) use std::sync::atomic;

pub(super) use crate::sync::Mutex;
