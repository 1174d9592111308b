//! Selection of the instances that a name stands for.

use std::fmt;
use std::sync::Arc;

use super::CallOptions;
use crate::discover::Selection;

/// Returns the selection of a name.
#[derive(Clone)]
pub(in crate::client) struct Select(Arc<dyn Fn(&str) -> Selection + Send + Sync>);

impl CallOptions {
    /// Sets the instances that a name stands for, by a closure that receives the name in upper
    /// case. Defaults to [`Selection::name`]: those with the VIP address that are UP, else those of
    /// the application.
    ///
    /// Use it to look up applications or secure VIP addresses only, to accept further statuses, or
    /// to leave out instances. It is called when a name is first called, and when options are
    /// replaced. If no instance can ever match the selection, calls fail with its error.
    ///
    /// ```
    /// use tower_eureka::client::{CallOptions, Ports};
    /// use tower_eureka::discover::Selection;
    ///
    /// let options = CallOptions::new()
    ///     .selection(|name| Selection::app(name))
    ///     .application("payments", |options| {
    ///         options.selection(|_| Selection::secure_vip("payments-v2,payments")).ports(Ports::Secure)
    ///     });
    /// ```
    pub fn selection(mut self, select: impl Fn(&str) -> Selection + Send + Sync + 'static) -> Self {
        self.selection = Some(Select(Arc::new(select)));
        self
    }

    /// Returns the selection of a name in upper case.
    pub(in crate::client) fn selection_of(&self, name: &Arc<str>) -> Selection {
        let selection = match &self.selection {
            Some(select) => (select.0)(name),
            None => Selection::name(name),
        };
        selection.called(name.clone())
    }
}

impl fmt::Debug for Select {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Select")
    }
}
