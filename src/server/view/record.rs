use std::sync::{Arc, OnceLock};

use super::encoded::Fragment;
use super::weight;
use crate::model::{Digest, Instance};

/// An instance as published. A change publishes a new record.
#[derive(Debug)]
pub(in crate::server) struct Record {
    pub(in crate::server) instance: Arc<Instance>,
    pub(super) fragment: Fragment,
    digest: OnceLock<Digest>,
    weight: usize,
}

impl Record {
    pub(in crate::server) fn new(instance: Instance) -> Arc<Self> {
        Self::of(Arc::new(instance))
    }

    pub(in crate::server) fn of(instance: Arc<Instance>) -> Arc<Self> {
        let weight = weight::weight(&instance);
        Arc::new(Self { instance, fragment: Fragment::default(), digest: OnceLock::new(), weight })
    }

    /// Returns the bytes that the record counts for in the size limit of the registry.
    pub(in crate::server) fn weight(&self) -> usize {
        self.weight
    }

    /// Returns the digest of the instance. It is computed once.
    pub(in crate::server) fn digest(&self) -> Digest {
        *self.digest.get_or_init(|| Digest::of(&self.instance.app, &self.instance))
    }
}
