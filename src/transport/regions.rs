//! Lists that include remote regions.

use std::sync::Arc;

use super::operations::Transport;
use super::request::query;

impl Transport {
    /// Returns the same transport with lists that include these regions.
    ///
    /// Java servers reject such lists with 403 as long as one of their remote regions was never
    /// fetched. The list without the parameter is fetched then, so that a failed region does not
    /// hide the own one.
    pub(crate) fn with_regions(mut self, regions: &[Arc<str>]) -> Self {
        if regions.is_empty() {
            return self;
        }
        let regions: Vec<_> = regions.iter().map(|region| query(region).to_string()).collect();
        self.list_query = format!("?regions={}", regions.join(",")).into();
        (self.fallback_query, self.deltas_fall_back) = (Some(""), true);
        self
    }
}
