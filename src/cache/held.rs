use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::config::Disappearance;
use crate::model::Instance;
use crate::transport::Origin;

/// Instance that is missing from the server's list and stays in use.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) instance: Arc<Instance>,
    since: Instant,
    /// Number of responses in a row that lack the instance.
    responses: u32,
    /// Servers that sent these responses.
    servers: Vec<Origin>,
}

impl Held {
    pub(super) fn new(instance: Arc<Instance>, since: Instant) -> Self {
        Self { instance, since, responses: 0, servers: Vec::new() }
    }

    /// Records a response of a server that lacks the instance.
    pub(super) fn was_missing(&mut self, origin: Option<&Origin>) {
        let Some(origin) = origin else { return };
        self.responses = self.responses.saturating_add(1);
        if !self.servers.contains(origin) {
            self.servers.push(origin.clone());
        }
    }

    /// Starts again, since the server lists nothing.
    pub(super) fn restart(&mut self, now: Instant) {
        *self = Self::new(self.instance.clone(), now);
    }

    /// Returns the duration of the instance's lease.
    pub(super) fn lease(&self) -> Duration {
        lease_of(&self.instance)
    }

    /// Returns `true` if the rule confirms that the instance disappeared.
    pub(super) fn is_confirmed(&self, rule: &Disappearance, now: Instant) -> bool {
        let hold = rule.hold_of(self.lease());
        now.duration_since(self.since) >= hold
            || rule.responses.is_some_and(|responses| self.responses >= responses)
            || rule.servers.is_some_and(|servers| self.servers.len() >= servers as usize)
    }
}

/// Returns the duration of an instance's lease.
pub(super) fn lease_of(instance: &Instance) -> Duration {
    let seconds = instance.lease.map_or(0, |lease| lease.duration_secs.max(0).unsigned_abs());
    Duration::from_secs(seconds.into())
}
