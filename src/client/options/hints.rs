//! Hints of Spring's load balancer.

use std::sync::Arc;

use http::HeaderName;

use super::{AnyPolicy, CallOptions};
use crate::balance::ByLabel;

/// Header with the hint of a request in Spring.
const HEADER: HeaderName = HeaderName::from_static("x-sc-lb-hint");
/// Hint of requests without one in Spring.
const DEFAULT: &str = "default";

/// Hints by which instances are chosen.
#[derive(Clone, Debug)]
pub(in crate::client) struct Hints {
    value: Arc<str>,
    header: HeaderName,
}

impl Default for Hints {
    fn default() -> Self {
        Self { value: DEFAULT.into(), header: HEADER }
    }
}

impl CallOptions {
    /// Prefers instances whose metadata has this value under the key `hint`, and those with the
    /// value of the header `X-SC-LB-Hint` for requests that have it. Defaults to off.
    ///
    /// If no instance with the hint takes calls, all instances may take the call. The
    /// [policy](Self::policy) picks one of them. This is [`ByLabel::hint`] around the policy.
    pub fn hint(mut self, hint: impl Into<Arc<str>>) -> Self {
        self.hints.get_or_insert_default().value = hint.into();
        self
    }

    /// Sets the header with the hint of a request, and chooses instances by hints. Defaults to
    /// `X-SC-LB-Hint`.
    ///
    /// Requests without the header have the [hint](Self::hint) of the options, `default` unless it
    /// is set.
    pub fn hint_header(mut self, name: HeaderName) -> Self {
        self.hints.get_or_insert_default().header = name;
        self
    }

    /// Returns the policy with the hints.
    pub(in crate::client) fn effective_policy(&self) -> AnyPolicy {
        match &self.hints {
            None => self.policy.clone(),
            Some(Hints { value, header }) => {
                let by_hint = ByLabel::by_header("hint", header.clone()).default_value(value.clone());
                AnyPolicy::Custom(Arc::new(by_hint.policy(self.policy.clone())))
            }
        }
    }
}
