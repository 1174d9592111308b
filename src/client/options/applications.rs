//! Options for single applications.

use std::fmt;
use std::sync::Arc;

use super::CallOptions;
use crate::config::names::relaxed;
use crate::model::app_name;

/// Change of the options for one application.
#[derive(Clone)]
pub(in crate::client) struct ApplicationOptions {
    name: Arc<str>,
    /// True if dashes, dots and underscores in the name do not count, since it is part of the name
    /// of an environment variable.
    is_relaxed: bool,
    change: Arc<dyn Fn(CallOptions) -> CallOptions + Send + Sync>,
}

impl ApplicationOptions {
    fn is_for(&self, name: &str) -> bool {
        *self.name == *name || self.is_relaxed && relaxed(&self.name) == relaxed(name)
    }
}

impl CallOptions {
    /// Changes the options for one application: `|options| options.timeout(...)`. By default, all
    /// applications have the same options.
    ///
    /// The name is the one that is called, in any case: `orders` for `http://orders/`. `change`
    /// receives the final options of all applications, whether they were set before or after it. It
    /// is called when the application is first called, and when options are
    /// [replaced](crate::client::HttpClient::set_options). Changes for one application add up, in
    /// the order in which they were made.
    ///
    /// [`pass_through`](Self::pass_through) and `application` have no effect in `change`.
    ///
    /// ```
    /// use std::time::Duration;
    /// use tower_eureka::balance::WeightedRoundRobin;
    /// use tower_eureka::client::{CallOptions, RetryPolicy};
    ///
    /// let options = CallOptions::new()
    ///     .timeout(Duration::from_secs(2))
    ///     .application("reports", |options| {
    ///         options.timeout(Duration::from_secs(60)).retry(RetryPolicy::unsent_only())
    ///     })
    ///     .application("legacy", |options| options.policy(WeightedRoundRobin));
    /// ```
    pub fn application(
        self,
        name: impl AsRef<str>,
        change: impl Fn(CallOptions) -> CallOptions + Send + Sync + 'static,
    ) -> Self {
        self.with_application(name.as_ref(), false, change)
    }

    /// Changes the options for one application. A relaxed name has no dashes, dots and underscores.
    pub(crate) fn with_application(
        mut self,
        name: &str,
        is_relaxed: bool,
        change: impl Fn(CallOptions) -> CallOptions + Send + Sync + 'static,
    ) -> Self {
        let name = app_name(name.trim());
        self.applications.push(ApplicationOptions { name, is_relaxed, change: Arc::new(change) });
        self
    }

    /// Removes the changes for one application, including those of the settings.
    pub fn without_application(mut self, name: impl AsRef<str>) -> Self {
        let name = app_name(name.as_ref().trim());
        self.applications.retain(|application| !application.is_for(&name));
        self
    }

    /// Returns the options of the application with this name in upper case.
    pub(crate) fn for_application(&self, name: &str) -> Self {
        let mut options = Self { applications: Vec::new(), ..self.clone() };
        for application in self.applications.iter().filter(|application| application.is_for(name)) {
            options = (application.change)(options);
            if !options.applications.is_empty() {
                tracing::warn!(app = name, "options of an application have no effect within those of another one");
                options.applications.clear();
            }
        }
        options
    }
}

impl fmt::Debug for ApplicationOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn changes_of_an_application_add_up_on_the_final_options_of_all() {
        let options = CallOptions::new()
            .application("orders", |options| options.wait_for_ready(SECOND))
            .application(" Orders ", |options| {
                let timeout = options.timeout.unwrap_or_default();
                options.timeout(2 * timeout)
            })
            .application("reviews", |options| options.timeout(9 * SECOND))
            .timeout(3 * SECOND);
        let orders = options.for_application("ORDERS");
        assert_eq!((orders.timeout, orders.wait_for_ready), (Some(6 * SECOND), Some(SECOND)));
        assert_eq!(options.for_application("ORDER").timeout, Some(3 * SECOND));
        let without = options.without_application("ORDERS");
        assert_eq!(without.for_application("ORDERS").timeout, Some(3 * SECOND));
        assert_eq!(without.for_application("REVIEWS").timeout, Some(9 * SECOND));
    }

    #[test]
    fn relaxed_name_matches_without_dashes() {
        for (name, is_relaxed, called, matches) in [
            ("order.service", true, "ORDER-SERVICE", true),
            ("order.service", true, "ORDER_SERVICE", true),
            ("orderservice", true, "ORDER-SERVICE", true),
            ("order.service", true, "ORDERS", false),
            ("order-service", false, "ORDER_SERVICE", false),
            ("order-service", false, "ORDER-SERVICE", true),
        ] {
            let options = CallOptions::new().with_application(name, is_relaxed, |options| options.timeout(SECOND));
            assert_eq!(options.for_application(called).timeout.is_some(), matches, "{name} {called}");
        }
    }
}
