use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use super::interest::{Interests, Publish, UsedRefresher};
use super::lookup::Lookup;
use super::progress::{DeltaUse, InterestUse, Report};
use super::refresher::Refresher;
use super::snapshot::Snapshot;
use crate::config::{ClientConfig, Interest};
use crate::error::Error;
use crate::model::Applications;
use crate::transport::Transport;

/// Refresh of the whole registry or of a part of it.
pub(super) enum Fetcher {
    All(Box<Refresher>),
    Part(Box<UsedRefresher>),
}

impl Fetcher {
    /// Returns the refresh of these names, or of the whole registry.
    pub(super) fn new(transport: Transport, config: &ClientConfig, interests: Option<&Arc<Interests>>) -> Self {
        match interests {
            None => Self::All(Box::new(Refresher::new(transport, config))),
            Some(interests) => Self::Part(Box::new(UsedRefresher::new(transport, config, interests.clone()))),
        }
    }

    /// Refreshes as [`Refresher::next`] does. Snapshots in the middle of a refresh are published.
    pub(super) async fn next(&mut self, publish: &impl Publish) -> (Result<Snapshot, Error>, Duration) {
        match self {
            Self::All(refresher) => refresher.next().await,
            Self::Part(refresher) => refresher.next(publish).await,
        }
    }

    /// Takes over a list that was saved earlier, before the first fetch. Returns its snapshot.
    pub(super) async fn restore(&mut self, list: Applications) -> Snapshot {
        match self {
            Self::All(refresher) => refresher.restore(list).await,
            Self::Part(refresher) => refresher.restore(list),
        }
    }

    /// Returns `true` if the server's list has an instance.
    pub(super) fn lists_any(&self) -> bool {
        match self {
            Self::All(refresher) => refresher.lists_any(),
            Self::Part(refresher) => refresher.lists_any(),
        }
    }

    /// Returns `false` if the latest refresh needed no request, so that it tells nothing about the
    /// registry.
    pub(super) fn has_asked(&self) -> bool {
        match self {
            Self::All(_) => true,
            Self::Part(refresher) => refresher.has_asked(),
        }
    }

    /// Returns the error of a part of the latest refresh, which was a success otherwise.
    pub(super) fn partial_error(&self) -> Option<&Error> {
        match self {
            Self::All(refresher) => refresher.partial_error(),
            Self::Part(refresher) => refresher.partial_error(),
        }
    }

    /// Makes the next refresh a complete one, although it is not due.
    pub(super) fn hurry(&mut self) {
        if let Self::Part(refresher) = self {
            refresher.hurry();
        }
    }

    /// Waits until something must be fetched before the next refresh.
    pub(super) async fn fresh(&self) {
        match self {
            Self::All(_) => pending().await,
            Self::Part(refresher) => refresher.fresh().await,
        }
    }

    /// Returns the report on the latest refresh.
    pub(super) fn report(&self) -> &Report {
        match self {
            Self::All(refresher) => refresher.report(),
            Self::Part(refresher) => refresher.report(),
        }
    }

    /// Returns the use of deltas from now on.
    pub(super) fn deltas(&self) -> DeltaUse {
        match self {
            Self::All(refresher) => refresher.deltas(),
            Self::Part(refresher) => refresher.deltas(),
        }
    }

    /// Returns the number of held instances.
    pub(super) fn held(&self) -> usize {
        match self {
            Self::All(refresher) => refresher.held(),
            Self::Part(refresher) => refresher.held(),
        }
    }

    /// Returns the part of the registry that is fetched. `None` if it is all of it.
    pub(super) fn interest(&self) -> Option<InterestUse> {
        match self {
            Self::All(_) => None,
            Self::Part(refresher) => Some(refresher.interest()),
        }
    }
}

/// Returns the list of names in use for an interest in a part of the registry.
pub(super) fn interests(interest: &Interest) -> Option<Arc<Interests>> {
    match interest {
        Interest::All => None,
        Interest::Used => Some(Arc::new(Interests::new())),
        Interest::Vip(vip) => Some(Arc::new(Interests::only(&Lookup::Vip(vip.trim().into())))),
    }
}
