//! The registry with replication: requests and the node's own lease change the registry through it.
//!
//! A change that a client made is queued for every peer once it is in the registry, and changes of
//! one instance in their order. A change that a peer sent is not replicated again. The registry
//! itself knows no peers.

use std::sync::Arc;
#[cfg(feature = "peers")]
use std::sync::MutexGuard;
use std::time::Duration;

use super::audit::{self, Caller};
#[cfg(feature = "peers")]
use super::gate::Gate;
use super::outcome::{Effect, Origin, Refused, Renewal};
use super::registry::Registry;
#[cfg(feature = "peers")]
use super::replication::Replication;
use crate::model::{Instance, InstanceStatus, ReplicationAction};
use crate::time::Clock;

#[derive(Debug)]
pub(super) struct Node {
    registry: Arc<Registry>,
    clock: Clock,
    #[cfg(feature = "peers")]
    replication: Replication,
    #[cfg(feature = "peers")]
    gate: Gate,
}

impl Node {
    pub(super) fn new(
        registry: Arc<Registry>,
        clock: Clock,
        #[cfg(feature = "peers")] replication: Replication,
        #[cfg(feature = "peers")] gate: Gate,
    ) -> Self {
        Self {
            registry,
            clock,
            #[cfg(feature = "peers")]
            replication,
            #[cfg(feature = "peers")]
            gate,
        }
    }

    pub(super) fn registry(&self) -> &Arc<Registry> {
        &self.registry
    }

    #[cfg(feature = "peers")]
    pub(super) fn clock(&self) -> Clock {
        self.clock
    }

    /// Returns the present time of the monotonic clock, which decides about leases.
    pub(super) fn now(&self) -> i64 {
        self.clock.now_ms()
    }

    /// Returns the present time as it is published.
    #[cfg(feature = "peers")]
    pub(super) fn published_now(&self) -> i64 {
        self.now().saturating_add(self.registry.published_ahead())
    }

    /// Returns the present time as it is published, by the system's clock: peers compare it with
    /// their wall clocks.
    pub(super) fn date_ms(&self) -> i64 {
        self.clock.system_now_ms().saturating_add(self.registry.published_ahead())
    }

    /// Returns the milliseconds by which the wall clock is ahead of the published times.
    #[cfg(feature = "peers")]
    pub(super) fn wall_ahead_ms(&self) -> i64 {
        self.clock.wall_gain_ms().saturating_sub(self.registry.published_ahead())
    }

    /// Adjusts the published times if the wall clock was set or the machine was suspended. Must be
    /// called before a change is published. Leases are not adjusted: no instance could renew its
    /// lease while the machine was suspended.
    pub(super) fn follow_wall_clock(&self) {
        follow_wall_clock(&self.registry, self.clock);
    }

    #[cfg(feature = "peers")]
    pub(super) fn replication(&self) -> &Replication {
        &self.replication
    }

    #[cfg(feature = "peers")]
    pub(super) fn gate(&self) -> &Gate {
        &self.gate
    }

    pub(super) fn uptime(&self) -> Duration {
        self.clock.elapsed()
    }

    /// Returns the reason for which lists are served or refused.
    pub(super) fn gate_reason(&self) -> String {
        #[cfg(feature = "peers")]
        return self.gate.describe();
        #[cfg(not(feature = "peers"))]
        "no peers are configured".to_owned()
    }

    /// Returns true if lists are served. A starting node refuses them until they can be trusted.
    pub(super) fn is_open(&self) -> bool {
        #[cfg(feature = "peers")]
        return self.gate.is_open();
        #[cfg(not(feature = "peers"))]
        true
    }

    pub(super) fn register(&self, instance: Instance, caller: &Caller) -> Result<(), Refused> {
        self.follow_wall_clock();
        let (app, id, origin) = (instance.app.clone(), instance.shared_id(), caller.origin());
        let _lock = self.lock(origin, &app, &id);
        let logged = self.changing(caller, &app, &id);
        let registered = self.registry.register(instance, caller.registrant(), self.now())?;
        audit::registered(&app, &id, &registered, &logged, self.registry.changes());
        self.replicate(origin, ReplicationAction::Register, &app, &id, None);
        registered.refused.map_or(Ok(()), Err)
    }

    /// Renews a lease. A heartbeat is replicated whenever there is a lease, even if its sender has
    /// to register again.
    pub(super) fn renew(&self, app: &str, id: &str, dirty: Option<i64>, origin: Origin) -> Renewal {
        let renewal = self.registry.renew(app, id, dirty, origin, self.now());
        if renewal != Renewal::NotFound {
            self.replicate(origin, ReplicationAction::Heartbeat, app, id, None);
        }
        renewal
    }

    pub(super) fn cancel(&self, app: &str, id: &str, caller: &Caller) -> bool {
        self.follow_wall_clock();
        let origin = caller.origin();
        let _lock = self.lock(origin, app, id);
        let caller = self.changing(caller, app, id);
        let Some(before) = self.registry.cancel_from(app, id, origin, self.now()) else { return false };
        audit::cancelled(app, id, before, &caller, self.registry.changes());
        self.replicate(origin, ReplicationAction::Cancel, app, id, None);
        true
    }

    pub(super) fn set_override(
        &self,
        app: &str,
        id: &str,
        status: InstanceStatus,
        dirty: Option<i64>,
        caller: &Caller,
    ) -> bool {
        self.change_override(app, id, status, caller, ReplicationAction::StatusUpdate, || {
            self.registry.set_override(app, id, status, dirty, self.now())
        })
    }

    pub(super) fn delete_override(
        &self,
        app: &str,
        id: &str,
        status: InstanceStatus,
        dirty: Option<i64>,
        caller: &Caller,
    ) -> bool {
        self.change_override(app, id, status, caller, ReplicationAction::DeleteStatusOverride, || {
            self.registry.delete_override(app, id, status, dirty, self.now())
        })
    }

    /// Applies a change of an override, logs it and replicates it. Returns false if there is no
    /// such instance.
    fn change_override(
        &self,
        app: &str,
        id: &str,
        status: InstanceStatus,
        caller: &Caller,
        action: ReplicationAction,
        apply: impl FnOnce() -> Effect,
    ) -> bool {
        self.follow_wall_clock();
        let origin = caller.origin();
        let _lock = self.lock(origin, app, id);
        let effect = apply();
        let log = match action {
            ReplicationAction::StatusUpdate => audit::override_set,
            _ => audit::override_deleted,
        };
        let caller = self.changing(caller, app, id);
        log(app, id, status, &effect, &caller, self.registry.changes());
        if effect.is_found() {
            self.replicate(origin, action, app, id, Some(status));
        }
        effect.is_found()
    }

    /// Merges metadata. It is replicated as a registration, and always has client origin, as in
    /// Java.
    pub(super) fn merge_metadata(
        &self,
        app: &str,
        id: &str,
        entries: Vec<(String, String)>,
        caller: &Caller,
    ) -> Result<bool, Refused> {
        self.follow_wall_clock();
        let _lock = self.lock(Origin::Client, app, id);
        let Some(registered) = self.registry.merge_metadata(app, id, entries, self.now())? else { return Ok(false) };
        let caller = self.changing(caller, app, id);
        audit::metadata_changed(app, id, &registered, &caller, self.registry.changes());
        #[cfg(feature = "peers")]
        self.replication.replicate_metadata(app, id);
        Ok(true)
    }

    /// Returns the caller of a change of a lease as the log counts it. Nothing is counted while the
    /// log has no lines of changes.
    fn changing(&self, caller: &Caller, app: &str, id: &str) -> Caller {
        if audit::is_enabled() { caller.changing(self.registry.registrant(app, id)) } else { caller.clone() }
    }

    /// Locks an instance until its change is queued for the peers.
    #[cfg(feature = "peers")]
    fn lock(&self, origin: Origin, app: &str, id: &str) -> Option<MutexGuard<'_, ()>> {
        if origin == Origin::Client { self.replication.lock(app, id) } else { None }
    }

    #[cfg(not(feature = "peers"))]
    #[allow(clippy::unused_self, reason = "nothing is replicated without the feature `peers`")]
    fn lock(&self, _: Origin, _: &str, _: &str) -> Option<()> {
        None
    }

    #[cfg(feature = "peers")]
    fn replicate(
        &self,
        origin: Origin,
        action: ReplicationAction,
        app: &str,
        id: &str,
        status: Option<InstanceStatus>,
    ) {
        if origin == Origin::Client {
            self.replication.replicate(action, app, id, status);
        }
    }

    #[cfg(not(feature = "peers"))]
    #[allow(clippy::unused_self, reason = "nothing is replicated without the feature `peers`")]
    fn replicate(&self, _: Origin, _: ReplicationAction, _: &str, _: &str, _: Option<InstanceStatus>) {}
}

/// Difference between the wall clock and the published times above which the latter are adjusted.
const CLOCK_TOLERANCE_MS: i64 = 60_000;

/// Adjusts the times that a registry publishes if the wall clock differs from them by more than a
/// minute.
pub(super) fn follow_wall_clock(registry: &Registry, clock: Clock) {
    let (gain, ahead) = (clock.wall_gain_ms(), registry.published_ahead());
    let by_ms = gain.saturating_sub(ahead);
    if by_ms.saturating_abs() <= CLOCK_TOLERANCE_MS || !registry.move_published(ahead, gain, clock.now_ms()) {
        return;
    }
    let by_secs = by_ms / 1000;
    if by_ms > 0 {
        tracing::warn!(
            by_secs,
            "wall clock is ahead of the monotonic clock: it was set forward, or the machine was suspended; published \
             times follow it, and leases last as long as before"
        );
    } else {
        tracing::warn!(
            by_secs,
            "wall clock was set back; published times follow it, and leases last as long as before"
        );
    }
}

#[cfg(all(test, feature = "peers"))]
mod tests {
    use std::sync::Barrier;

    use super::*;
    use crate::server::registry::Settings;
    use crate::server::settings::Peers;
    use crate::time::{move_wall_clock, wall_clock_ms};
    use InstanceStatus::{OutOfService, Up};

    #[tokio::test]
    async fn concurrent_overrides_are_replicated_in_the_order_of_their_effect() {
        let clock = Clock::start();
        let node = node_with(&Peers::new().url("http://peer:1/"), clock);
        let peer = Registry::new(Settings::default());
        let instance = Instance::builder("orders").id("1").ip_addr("10.0.0.1").port(80).build().unwrap();
        node.register(instance.clone(), &Origin::Client.into()).unwrap();
        peer.register(instance, Origin::Replica, 0).unwrap();
        let (rounds, barrier, mut differ) = (3_000, Barrier::new(3), Vec::new());
        let operator = |act: &dyn Fn()| {
            for _ in 0..rounds {
                barrier.wait();
                act();
                barrier.wait();
            }
        };
        std::thread::scope(|scope| {
            scope.spawn(|| {
                operator(&|| assert!(node.set_override("ORDERS", "1", OutOfService, None, &Origin::Client.into())))
            });
            scope
                .spawn(|| operator(&|| assert!(node.delete_override("ORDERS", "1", Up, None, &Origin::Client.into()))));
            for round in 0..rounds {
                barrier.wait();
                barrier.wait();
                for (action, status) in node.replication.drain_first_queue() {
                    match (action, status) {
                        (ReplicationAction::StatusUpdate, Some(status)) => {
                            peer.set_override("ORDERS", "1", status, None, 0);
                        }
                        (ReplicationAction::DeleteStatusOverride, Some(status)) => {
                            peer.delete_override("ORDERS", "1", status, None, 0);
                        }
                        _ => {}
                    }
                }
                let state = |registry: &Registry| {
                    let order = registry.instance("ORDERS", "1", 0).unwrap();
                    (order.status(), order.overridden_status())
                };
                // A panic here would leave the operators waiting for each other.
                if state(&node.registry) != state(&peer) {
                    differ.push(round);
                }
            }
        });
        assert!(differ.is_empty(), "in rounds {differ:?}");
    }

    fn node_with(settings: &Peers, clock: Clock) -> Node {
        let replication =
            Replication::new(settings, Default::default(), None, false, Arc::default()).expect("settings are valid");
        Node::new(Arc::new(Registry::new(Settings::default())), clock, replication, Gate::single())
    }

    fn node(clock: Clock) -> Node {
        node_with(&Peers::new(), clock)
    }

    fn instance(id: &str) -> Instance {
        Instance::builder("orders").id(id).ip_addr("10.0.0.1").port(80).build().expect("instance is complete")
    }

    #[tokio::test(start_paused = true)]
    async fn wall_clock_set_by_more_than_a_minute_moves_published_times_and_no_lease() {
        const HOUR: i64 = 3_600_000;
        for (by, follows) in [(2 * HOUR, true), (-2 * HOUR, true), (61_500, true), (58_500, false), (-58_500, false)] {
            let node = node(Clock::start());
            node.register(instance("before"), &Origin::Client.into()).unwrap();
            let seen = |id: &str| node.registry.instance("ORDERS", id, node.now()).unwrap();
            let renewed = |id: &str| seen(id).lease().unwrap().last_renewal_timestamp;
            let before = renewed("before");
            tokio::time::advance(Duration::from_millis(10)).await;
            move_wall_clock(by);
            node.register(instance("after"), &Origin::Client.into()).unwrap();
            let off = seen("after").last_updated_timestamp().unwrap() - wall_clock_ms();
            let expected = if follows { 0 } else { -by };
            assert!((off - expected).abs() < 1_000, "{by}: {off}");
            if follows && by < 0 {
                assert!((renewed("before") - before - by).abs() < 1_000, "{by}: a renewal is set back");
            } else {
                assert_eq!(renewed("before"), before, "{by}: a renewal keeps its time");
            }
            // No instance could renew its lease while the machine was suspended.
            assert_eq!(node.registry.evict(&mut fastrand::Rng::with_seed(1), node.now()), 0, "{by}");
            assert_eq!(node.renew("ORDERS", "before", None, Origin::Client), Renewal::Renewed);
            tokio::time::advance(Duration::from_secs(1)).await;
            let lease = seen("before").lease().unwrap().last_renewal_timestamp - 90_000 - wall_clock_ms();
            assert!((lease - expected).abs() < 2_000, "{by}: {lease}");
            move_wall_clock(-by);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn cancellation_after_the_clock_was_set_back_is_newer_than_the_registration() {
        let node = node(Clock::start());
        move_wall_clock(7_200_000);
        node.register(instance("1"), &Origin::Client.into()).unwrap();
        let known = node.registry.instance("ORDERS", "1", node.now()).unwrap();
        move_wall_clock(-7_200_000);
        let registry = Registry::new(Settings { tombstone_retention: Duration::from_secs(600), ..Settings::default() });
        let now = wall_clock_ms();
        registry.adopt(known.clone(), now, now).unwrap();
        registry.cancel("ORDERS", "1", now + 1);
        assert_eq!(
            registry.adopt(known, now + 2, now + 2),
            Ok(false),
            "the tombstone is newer than the copy of a peer"
        );
    }
}
