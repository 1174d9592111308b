//! What readers get: immutable, shared, and with a place for what the bodies encode of it.

use std::sync::{Arc, OnceLock};

use super::size;
use crate::model::{Digest, Instance, StatusCounts};
use crate::server::bodies::{AppBlocks, Fragment};

/// An instance as published. A change makes a new one.
#[derive(Debug)]
pub(in crate::server) struct Record {
    pub(in crate::server) instance: Arc<Instance>,
    pub(in crate::server) fragment: Fragment,
    digest: OnceLock<Digest>,
    weight: usize,
}

impl Record {
    pub(in crate::server) fn new(instance: Instance) -> Arc<Self> {
        Self::of(Arc::new(instance))
    }

    pub(in crate::server) fn of(instance: Arc<Instance>) -> Arc<Self> {
        let weight = size::weight(&instance);
        Arc::new(Self { instance, fragment: Fragment::default(), digest: OnceLock::new(), weight })
    }

    /// Bytes that it counts for in the limit on the registry.
    pub(super) fn weight(&self) -> usize {
        self.weight
    }

    /// The digest of the instance, computed once.
    pub(in crate::server) fn digest(&self) -> Digest {
        *self.digest.get_or_init(|| Digest::of(&self.instance.app, &self.instance))
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
    /// Of the whole registry, also in a delta.
    pub(in crate::server) digest: Digest,
    pub(in crate::server) applications: Vec<Arc<AppView>>,
}
