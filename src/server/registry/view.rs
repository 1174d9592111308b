//! What readers get: immutable, shared, and with a place for what the bodies encode of it.

use std::sync::Arc;

use crate::model::{Instance, StatusCounts};
use crate::server::bodies::{AppBlocks, Fragment};

/// An instance as published. A change makes a new one.
#[derive(Debug)]
pub(in crate::server) struct Record {
    pub(in crate::server) instance: Arc<Instance>,
    pub(in crate::server) fragment: Fragment,
}

impl Record {
    pub(in crate::server) fn new(instance: Instance) -> Arc<Self> {
        Self::of(Arc::new(instance))
    }

    pub(in crate::server) fn of(instance: Arc<Instance>) -> Arc<Self> {
        Arc::new(Self { instance, fragment: Fragment::default() })
    }
}

/// An application as published. As long as nothing in it changes, it stays the same `Arc`, and so does what was encoded of it.
#[derive(Debug)]
pub(in crate::server) struct AppView {
    pub(in crate::server) name: Arc<str>,
    pub(in crate::server) records: Vec<Arc<Record>>,
    pub(in crate::server) blocks: AppBlocks,
}

impl AppView {
    pub(in crate::server) fn new(name: Arc<str>, records: Vec<Arc<Record>>) -> Arc<Self> {
        Arc::new(Self { name, records, blocks: AppBlocks::default() })
    }
}

/// A list of applications at one revision.
#[derive(Debug)]
pub(in crate::server) struct Snapshot {
    /// Of [`Registry::revision`](super::Registry::revision) or [`Registry::delta_revision`](super::Registry::delta_revision).
    pub(in crate::server) revision: u64,
    /// The `versions__delta` of the answer: 1 for the full registry, the number of deltas made so far for a delta.
    pub(in crate::server) version: i64,
    /// Of the whole registry, also in a delta.
    pub(in crate::server) counts: StatusCounts,
    pub(in crate::server) applications: Vec<Arc<AppView>>,
}
