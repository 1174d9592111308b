use std::fmt;
use std::sync::Arc;

use tokio::sync::watch;

use super::health::{ComponentHealth, Health, HealthReport, HealthStatus, RegistryHealth};
use crate::model::InstanceStatus;
use crate::sync::Mutex;

/// Readiness and health of an instance, from which its own status follows.
pub(super) struct Vitals {
    state: Mutex<State>,
    changed: watch::Sender<()>,
}

#[derive(Debug, Default)]
struct State {
    readiness: Option<Readiness>,
    components: Vec<ComponentHealth>,
}

/// State of a readiness future.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Readiness {
    Pending,
    Ready,
    /// It failed, panicked or was dropped. The instance never becomes ready by itself.
    Failed,
}

/// Settings from which the own status follows, besides the vitals.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct StatusRules {
    /// Status until the readiness future and the health checks are UP for the first time.
    pub(super) initial: Option<InstanceStatus>,
    /// True if the instance is registered as UP before the first result.
    pub(super) enabled_on_start: bool,
    /// False if health checks do not change the status.
    pub(super) maps_health: bool,
    /// Status that the program has set.
    pub(super) manual: Option<InstanceStatus>,
}

/// Status that an instance shall have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Wanted {
    /// Own status, to be registered: UP, DOWN or STARTING.
    pub(super) status: InstanceStatus,
    /// True if an override shall make the instance OUT_OF_SERVICE.
    pub(super) out_of_service: bool,
}

impl Default for Vitals {
    fn default() -> Self {
        Self { state: Mutex::default(), changed: watch::Sender::new(()) }
    }
}

impl Vitals {
    /// Adds a health check and returns its number.
    pub(super) fn add_component(&self, name: Option<Arc<str>>) -> usize {
        let components = &mut self.state.lock().components;
        let number = components.len();
        let name = name.unwrap_or_else(|| match number {
            0 => "check".into(),
            _ => format!("check{}", number + 1).into(),
        });
        components.push(ComponentHealth { name, status: HealthStatus::Unknown, detail: None });
        number
    }

    /// Records the damped status of a health check. Returns the status before.
    pub(super) fn set_component(&self, number: usize, health: Health) -> HealthStatus {
        let mut state = self.state.lock();
        let component = &mut state.components[number];
        let before = std::mem::replace(&mut component.status, health.status);
        component.detail = health.detail;
        drop(state);
        if before != health.status {
            self.changed.send_replace(());
        }
        before
    }

    pub(super) fn set_readiness(&self, readiness: Readiness) {
        self.state.lock().readiness = Some(readiness);
        self.changed.send_replace(());
    }

    /// Records that the readiness future has ended, unless it was UP.
    pub(super) fn fail_if_pending(&self) {
        let mut state = self.state.lock();
        if state.readiness == Some(Readiness::Pending) {
            state.readiness = Some(Readiness::Failed);
        }
    }

    pub(super) fn has_checks(&self) -> bool {
        !self.state.lock().components.is_empty()
    }

    pub(super) fn subscribe(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// Returns the own status that follows from the vitals and the rules.
    ///
    /// Before the readiness future and the first health checks have succeeded, it is at best
    /// STARTING. After that the worst of the health checks and of the program's own setting counts.
    pub(super) fn wanted(&self, rules: &StatusRules) -> Wanted {
        let state = self.state.lock();
        let checks = if rules.maps_health { &*state.components } else { &[] };
        let health = checks.iter().fold(HealthStatus::Up, |worst, check| worst.worse(check.status));
        let unknown = checks.iter().any(|check| check.status == HealthStatus::Unknown);
        let pending = unknown || state.readiness.is_some_and(|readiness| readiness != Readiness::Ready);
        let has_result = state.readiness.is_some() || !checks.is_empty();
        let initial = rules.initial.unwrap_or(InstanceStatus::Up);
        let set = match rules.manual {
            Some(manual) => manual,
            None if pending && rules.enabled_on_start => InstanceStatus::Up,
            None if pending || !has_result => initial,
            None => InstanceStatus::Up,
        };
        let set_out = set == InstanceStatus::OutOfService;
        let starts = pending && !rules.enabled_on_start;
        let status = match (set, health) {
            (InstanceStatus::Down, _) | (_, HealthStatus::Down) => InstanceStatus::Down,
            (InstanceStatus::Starting | InstanceStatus::Unknown, _) => InstanceStatus::Starting,
            _ if starts => InstanceStatus::Starting,
            _ => InstanceStatus::Up,
        };
        Wanted { status, out_of_service: set_out || health == HealthStatus::OutOfService }
    }

    /// Returns the report for the health pages.
    pub(super) fn report(&self, is_draining: bool, registry: RegistryHealth) -> HealthReport {
        let state = self.state.lock();
        let components = state.components.clone();
        let checks = components.iter().fold(HealthStatus::Up, |worst, check| match check.status {
            HealthStatus::Unknown => worst.worse(HealthStatus::OutOfService),
            status => worst.worse(status),
        });
        let is_ready = state.readiness.is_none_or(|readiness| readiness == Readiness::Ready);
        let readiness = if is_ready && !is_draining { checks } else { checks.worse(HealthStatus::OutOfService) };
        HealthReport { status: readiness, readiness, liveness: HealthStatus::Up, is_draining, registry, components }
    }
}

impl fmt::Debug for Vitals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.state.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use InstanceStatus::{Down, OutOfService, Starting, Up};

    use super::*;

    const RULES: StatusRules = StatusRules { initial: None, enabled_on_start: false, maps_health: true, manual: None };

    fn wanted(vitals: &Vitals, rules: StatusRules) -> (InstanceStatus, bool) {
        let Wanted { status, out_of_service } = vitals.wanted(&rules);
        (status, out_of_service)
    }

    #[test]
    fn status_without_checks_is_the_initial_one_until_it_is_set() {
        let vitals = Vitals::default();
        assert_eq!(wanted(&vitals, RULES), (Up, false));
        for (initial, expected) in [(Starting, (Starting, false)), (Down, (Down, false)), (OutOfService, (Up, true))] {
            let rules = StatusRules { initial: Some(initial), ..RULES };
            assert_eq!(wanted(&vitals, rules), expected);
            assert_eq!(wanted(&vitals, StatusRules { manual: Some(Up), ..rules }), (Up, false));
        }
    }

    #[test]
    fn status_is_starting_until_ready_and_healthy() {
        let vitals = Vitals::default();
        vitals.set_readiness(Readiness::Pending);
        let db = vitals.add_component(None);
        let up_at_start = StatusRules { initial: Some(Up), ..RULES };
        for rules in [RULES, up_at_start] {
            assert_eq!(wanted(&vitals, rules), (Starting, false));
        }
        assert_eq!(wanted(&vitals, StatusRules { enabled_on_start: true, ..RULES }), (Up, false));
        vitals.set_readiness(Readiness::Ready);
        assert_eq!(wanted(&vitals, RULES), (Starting, false));
        assert_eq!(wanted(&vitals, StatusRules { maps_health: false, ..RULES }), (Up, false));
        vitals.set_component(db, Health::up());
        let down_at_start = StatusRules { initial: Some(Down), ..RULES };
        for rules in [RULES, up_at_start, down_at_start] {
            assert_eq!(wanted(&vitals, rules), (Up, false));
        }
    }

    #[test]
    fn worst_of_health_and_setting_counts() {
        let vitals = Vitals::default();
        let (one, other) = (vitals.add_component(None), vitals.add_component(None));
        vitals.set_component(one, Health::up());
        vitals.set_component(other, Health::out_of_service("maintenance"));
        assert_eq!(wanted(&vitals, RULES), (Up, true));
        assert_eq!(wanted(&vitals, StatusRules { manual: Some(Down), ..RULES }), (Down, true));
        vitals.set_component(one, Health::down("gone"));
        vitals.set_component(other, Health::up());
        assert_eq!(wanted(&vitals, StatusRules { manual: Some(Up), ..RULES }), (Down, false));
        assert_eq!(wanted(&vitals, StatusRules { maps_health: false, ..RULES }), (Up, false));
    }

    #[test]
    fn report_is_out_of_service_before_it_is_ready_and_while_it_drains() {
        let vitals = Vitals::default();
        let registry = RegistryHealth { status: HealthStatus::Down, lease_age: None };
        assert_eq!(vitals.report(false, registry).status, HealthStatus::Up, "the registry does not count");
        vitals.set_readiness(Readiness::Pending);
        assert_eq!(vitals.report(false, registry).readiness, HealthStatus::OutOfService);
        vitals.set_readiness(Readiness::Ready);
        let check = vitals.add_component(Some("db".into()));
        assert_eq!(vitals.report(false, registry).readiness, HealthStatus::OutOfService);
        vitals.set_component(check, Health::up());
        assert_eq!(vitals.report(false, registry).readiness, HealthStatus::Up);
        let draining = vitals.report(true, registry);
        assert_eq!((draining.readiness, draining.liveness), (HealthStatus::OutOfService, HealthStatus::Up));
        vitals.set_component(check, Health::down("refused"));
        let report = vitals.report(true, registry);
        assert_eq!((report.status, report.components[0].detail.as_deref()), (HealthStatus::Down, Some("refused")));
    }
}
