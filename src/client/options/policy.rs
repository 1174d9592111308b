//! Policies of calls by name.

use std::sync::Arc;

use http::request::Parts;

use super::CallOptions;
use crate::balance::{Candidates, Label, PeakEwma, Policy};

impl CallOptions {
    /// Replaces the policy by one that contains it.
    pub(crate) fn wrap_policy<P: Policy<Parts> + 'static>(self, wrap: impl FnOnce(AnyPolicy) -> P) -> Self {
        let inner = self.policy.clone();
        self.policy(wrap(inner))
    }
}

/// Policy of a client, without a type parameter. The default is called directly.
#[derive(Clone, Debug)]
pub(crate) enum AnyPolicy {
    PeakEwma(PeakEwma),
    Custom(Arc<dyn Policy<Parts>>),
}

impl Policy<Parts> for AnyPolicy {
    fn pick(&self, request: &Parts, candidates: &Candidates<'_>) -> Option<usize> {
        match self {
            Self::PeakEwma(policy) => policy.pick(request, candidates),
            Self::Custom(policy) => policy.pick(request, candidates),
        }
    }

    fn affinity(&self, request: &Parts, all: &Candidates<'_>) -> Option<usize> {
        match self {
            Self::PeakEwma(_) => None,
            Self::Custom(policy) => policy.affinity(request, all),
        }
    }

    fn label<'r>(&'r self, request: &'r Parts) -> Option<Label<'r>> {
        match self {
            Self::PeakEwma(_) => None,
            Self::Custom(policy) => policy.label(request),
        }
    }
}
