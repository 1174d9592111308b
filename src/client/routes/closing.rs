//! The end of all routes, when their client is closed.

use std::sync::Arc;
use std::time::Duration;

use super::{Route, Routes};
use crate::balance::Snapshot;
use crate::client::clients::{Client, Closing};
use crate::error::{Error, Kind};

impl<E> Routes<E> {
    /// Returns an error after the end.
    pub(super) fn check_open(&self, app: &str) -> Result<(), Error> {
        if !self.table.load().is_closed {
            return Ok(());
        }
        Err(Error::new(Kind::Closed, "call").app(app).cause("the client was closed"))
    }
}

impl<E: Clone + Send + Sync + 'static> Client for Routes<E> {
    fn preload(&self, name: &str) {
        // The caller has checked the name.
        let _ = self.route(name, false);
    }

    fn snapshots(&self) -> Vec<Snapshot> {
        Self::snapshots(self)
    }

    fn drop_idle(&self, idle: Duration) {
        let is_idle = |route: &Route<E>| route.budget.idle_for() >= idle && !route.balance.has_pending();
        if self.distinct_routes().iter().any(|route| is_idle(route)) {
            self.change_table(|table| table.routes.iter_mut().for_each(|map| map.retain(|_, route| !is_idle(route))));
        }
    }

    fn close(&self) -> Vec<Box<dyn Closing>> {
        self.change_table(|table| table.is_closed = true);
        // None is added from now on.
        let routes = self.distinct_routes();
        self.change_table(|table| table.routes = Default::default());
        routes.into_iter().map(|route| Box::new(ClosingRoute(route)) as _).collect()
    }
}

struct ClosingRoute<E>(Arc<Route<E>>);

impl<E: Send + Sync + 'static> Closing for ClosingRoute<E> {
    fn is_idle(&self) -> bool {
        // A call has the route until the head of its response, and is pending until the end of the
        // body.
        Arc::strong_count(&self.0) == 1 && !self.0.balance.has_pending()
    }
}
