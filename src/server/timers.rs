//! Periodic tasks of the registry.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval_at};

use super::http::Refusals;
use super::node::follow_wall_clock;
use super::registry::{Registry, Settings};
use crate::time::{Clock, LONGEST_WAIT, lengthened};

const MINUTE: Duration = Duration::from_secs(60);
/// Interval in which old changes are removed from the delta. Java has the setting
/// `deltaRetentionTimerIntervalInMs`.
const PRUNE_INTERVAL: Duration = Duration::from_secs(30);

/// Interval in which the wall clock is compared with the monotonic clock. They are also compared
/// before each change.
const CLOCK_INTERVAL: Duration = Duration::from_secs(10);

/// Handle of the periodic tasks. Dropping it ends them.
#[derive(Debug)]
pub(super) struct Timers {
    _tasks: JoinSet<()>,
}

impl Timers {
    /// Starts the tasks. Must be called inside a tokio runtime.
    pub(super) fn start(registry: &Arc<Registry>, refusals: Arc<Refusals>, settings: &Settings, clock: Clock) -> Self {
        let mut tasks = JoinSet::new();
        // Not jittered: the renewal threshold is a number per minute.
        tasks.spawn(every(MINUTE, MINUTE, registry.clone(), |registry| registry.end_minute()));
        // Only the first wait is random, so that servers started together do not act together.
        // Later waits keep the interval: an eviction that comes late would compensate for the
        // delay.
        tasks.spawn(every(lengthened(PRUNE_INTERVAL), PRUNE_INTERVAL, registry.clone(), move |registry| {
            registry.prune_delta(clock.now_ms());
            registry.changes().flush();
            refusals.flush();
        }));
        tasks.spawn(every(CLOCK_INTERVAL, CLOCK_INTERVAL, registry.clone(), move |registry| {
            follow_wall_clock(registry, clock);
        }));
        let mut rng = fastrand::Rng::new();
        let interval = settings.eviction_interval.min(LONGEST_WAIT);
        tasks.spawn(every(lengthened(interval), interval, registry.clone(), move |registry| {
            registry.evict(&mut rng, clock.now_ms());
        }));
        Self { _tasks: tasks }
    }
}

async fn every(first: Duration, period: Duration, registry: Arc<Registry>, mut act: impl FnMut(&Registry)) {
    let mut ticks = interval_at(Instant::now() + first, period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        act(&registry);
    }
}
