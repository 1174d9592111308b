use std::sync::Arc;

use super::encoded::AppBlocks;
use super::record::Record;
use super::vips::{By, VipHashes, VipIndex};
use crate::model::{Digest, StatusCounts};

/// An application as published.
///
/// As long as none of its instances changes, it stays the same `Arc`, and so do its encoded forms.
#[derive(Debug)]
pub(in crate::server) struct AppView {
    pub(in crate::server) name: Arc<str>,
    pub(in crate::server) records: Vec<Arc<Record>>,
    pub(in crate::server) blocks: AppBlocks,
    pub(super) vips: VipHashes,
}

impl AppView {
    pub(in crate::server) fn new(name: Arc<str>, records: Vec<Arc<Record>>) -> Arc<Self> {
        Arc::new(Self { name, records, blocks: AppBlocks::default(), vips: VipHashes::default() })
    }
}

/// A list of applications at one revision: the full registry, or a delta.
#[derive(Debug)]
pub(in crate::server) struct Snapshot {
    /// Revision of the full registry or of the delta, depending on the list.
    pub(in crate::server) revision: u64,
    /// `versions__delta` of the response: 1 for the full registry, the number of deltas created so
    /// far for a delta.
    pub(in crate::server) version: i64,
    /// Number of instances of the whole registry per status, also in a delta.
    pub(in crate::server) counts: StatusCounts,
    /// Digest of the whole registry, also in a delta.
    pub(in crate::server) digest: Digest,
    pub(in crate::server) applications: Vec<Arc<AppView>>,
    vips: VipIndex,
}

impl Snapshot {
    pub(in crate::server) fn new(
        revision: u64,
        version: i64,
        counts: StatusCounts,
        digest: Digest,
        applications: Vec<Arc<AppView>>,
    ) -> Arc<Self> {
        Arc::new(Self { revision, version, counts, digest, applications, vips: VipIndex::default() })
    }

    /// Returns the applications that may have an instance with this VIP address, in the order of
    /// the list. All others have none.
    pub(in crate::server) fn with_vip(&self, by: By, name: &str) -> impl Iterator<Item = &Arc<AppView>> {
        self.vips.candidates(by, name, &self.applications).into_iter().map(|position| &self.applications[position])
    }
}
