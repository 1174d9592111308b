//! Own override of the instance: the mark by which a restarted process recognizes it, and a change
//! of it that outlives its operation.

use std::future::pending;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::overrides::Due;
use super::{Agent, Interruption, Outcome, unless_shut_down};
use crate::error::{Error, Kind};
use crate::model::{Instance, InstanceStatus, OVERRIDE_KEY};
use crate::transport::Transport;

/// Longest time of the read before the first registration, which it delays.
const RECALL_TIME: Duration = Duration::from_secs(1);

#[derive(Debug, Default)]
pub(super) struct OwnOverride {
    /// True once the record of an earlier process was read or replaced.
    recalled: bool,
    /// Override that the mark in the registered record names.
    marked: Option<InstanceStatus>,
    /// Change that a shutdown interrupted. It may still arrive at the registry.
    stray: Option<JoinHandle<Result<(), Error>>>,
}

impl OwnOverride {
    /// Waits until the interrupted change has ended. Never completes without one.
    pub(super) async fn stray_ended(&mut self) {
        match &mut self.stray {
            Some(stray) => {
                // It failed or not: the registry may have received it.
                let _ = stray.await;
                self.stray = None;
            }
            None => pending().await,
        }
    }
}

impl Agent {
    /// Returns the record as it is sent. While the instance has an own override, its metadata
    /// contains a mark, so that the process recognizes the override after a crash. Without the
    /// mark, it would keep the override as one of an operator.
    pub(super) fn outgoing(&self) -> Instance {
        let mut instance = self.instance.clone();
        if let Some(status) = self.overrides.own() {
            instance.metadata.insert(OVERRIDE_KEY, status.to_string());
        }
        instance
    }

    /// Returns `true` if the registered record has the mark of the override.
    pub(super) fn is_marked(&self) -> bool {
        self.overrides.own() == self.own_override.marked
    }

    /// Records that the registry has the record with its mark.
    pub(super) fn note_mark(&mut self) {
        (self.own_override.recalled, self.own_override.marked) = (true, self.overrides.own());
    }

    /// Reads the record that an earlier process with the same id may have left, before it is
    /// replaced. An override with the mark is the own one, and is removed unless it is wanted. A
    /// pause of reads does not hold it back, since the registration follows.
    pub(super) async fn recall(&mut self) -> Result<(), Interruption> {
        if self.own_override.recalled {
            return Ok(());
        }
        let (transport, own) = (self.transport.clone(), self.instance.clone());
        let read = timeout(RECALL_TIME, transport.instance_within(own.app(), own.id(), RECALL_TIME));
        let Ok(Ok(found)) = unless_shut_down(&mut self.shutdown, read).await? else { return Ok(()) };
        self.own_override.recalled = true;
        let Some(found) = found.filter(|found| found.overridden_status != InstanceStatus::Unknown) else {
            return Ok(());
        };
        let status = found.overridden_status;
        if found.metadata.get(OVERRIDE_KEY).is_some_and(|mark| mark.parse().ok() == Some(status)) {
            let (app, instance) = (own.app(), own.id());
            tracing::info!(app, instance, %status, "override of an earlier process with this id recognized");
            self.overrides.recall(status);
        }
        Ok(())
    }

    /// Sets or removes the override in the registry.
    pub(super) async fn change_override(&mut self, transport: &Transport, due: Due) -> Outcome {
        let (transport, instance, dirty) = (transport.clone(), self.instance.clone(), self.sent.1);
        let status = match due {
            Due::Set(status) => Some(status),
            Due::Remove => None,
        };
        // A task of its own, since its end has to be known even if a shutdown interrupts it.
        let mut change =
            tokio::spawn(async move { transport.override_status(instance.app(), instance.id(), status, dirty).await });
        let ended = match unless_shut_down(&mut self.shutdown, &mut change).await {
            Ok(ended) => ended,
            Err(command) => {
                self.own_override.stray = Some(change);
                return Err(command);
            }
        };
        let result = ended.unwrap_or_else(|_| {
            let error =
                Error::new(Kind::Closed, "change override of").app(self.instance.app()).instance(self.instance.id());
            Err(error.cause("the runtime has ended"))
        });
        if result.is_ok() {
            self.note_server();
            self.overrides.done(due, self.sent.0, self.server.clone());
            self.show_state();
        }
        Ok(result)
    }

    /// Waits for an interrupted change of the override, at most for this time, since it would
    /// replace the DOWN that follows. One that takes longer is followed by another DOWN.
    pub(super) async fn await_stray(&mut self, within: Duration) {
        if self.own_override.stray.is_some() {
            let _ = timeout(within, self.own_override.stray_ended()).await;
        }
    }
}
