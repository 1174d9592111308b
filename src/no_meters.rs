//! Without the feature `metrics` nothing is counted, and nothing is left of it in the code.

use std::sync::Arc;
use std::time::Duration;

#[derive(Clone)]
pub(crate) struct Meters;

pub(crate) struct Picks;

impl Meters {
    pub(crate) fn new(_: Option<&Arc<str>>) -> Self {
        Self
    }

    pub(crate) fn endpoints(&self, _: usize, _: usize, _: usize) {}

    pub(crate) fn picks(&self, _: Option<&str>) -> Picks {
        Picks
    }

    pub(crate) fn taken_out(&self, _: &'static str) {}

    pub(crate) fn fail_fast(&self, _: bool) {}

    pub(crate) fn failed_fast_for(&self, _: Duration) {}

    pub(crate) fn withdraw(&self) {}

    pub(crate) fn succeeded(&self, _: Duration) {}

    pub(crate) fn failed(&self, _: Duration) {}

    pub(crate) fn overloaded(&self, _: Duration) {}

    pub(crate) fn retried(&self, _: &'static str) {}

    pub(crate) fn over_budget(&self) {}
}

impl Picks {
    pub(crate) fn count(&self) {}
}
