//! Encoded forms that records and applications keep.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::envelope;
use super::form::{Form, PerForm, PerVariant};
use super::gzip::Block;
use super::single_flight::SingleFlight;
use crate::model::Instance;

/// Encoding of one instance inside a list, for each form that was requested so far.
#[derive(Debug, Default)]
pub(super) struct Fragment(PerForm<OnceLock<Box<[u8]>>>);

impl Fragment {
    /// Returns the encoded instance. `instance` must be the one that the fragment belongs to.
    pub(super) fn get(&self, form: Form, instance: &Instance) -> &[u8] {
        self.0.of(form).get_or_init(|| envelope::instance(form, instance).into())
    }
}

/// Encoded forms of one application.
#[derive(Debug)]
pub(in crate::server) struct AppBlocks {
    /// Unique among all states of all applications in this process.
    number: u64,
    /// The application inside a list, compressed.
    pub(super) deflated: PerForm<OnceLock<Block>>,
    /// Response that holds this application alone, at the revision [`number`](Self::number).
    pub(in crate::server) alone: PerVariant<SingleFlight>,
}

impl AppBlocks {
    pub(in crate::server) fn number(&self) -> u64 {
        self.number
    }
}

impl Default for AppBlocks {
    fn default() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Self { number: NEXT.fetch_add(1, Relaxed), deflated: PerForm::default(), alone: PerVariant::default() }
    }
}
