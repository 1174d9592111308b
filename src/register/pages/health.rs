use std::collections::BTreeMap;

use serde::Serialize;
use serde::ser::{SerializeMap, Serializer};

use super::super::health::{HealthReport, HealthStatus};

/// Group and component of a process that works, which an orchestrator does not restart.
const LIVENESS: (&str, &str) = ("liveness", "livenessState");
/// Group and component of a process that accepts calls.
const READINESS: (&str, &str) = ("readiness", "readinessState");
/// Component of the connection to the registry, which is no part of the groups.
const REGISTRY: &str = "eureka";

/// Health of one component.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Component<'a> {
    status: HealthStatus,
    /// Reason of the status.
    detail: Option<&'a str>,
}

impl From<HealthStatus> for Component<'_> {
    fn from(status: HealthStatus) -> Self {
        Self { status, detail: None }
    }
}

impl Serialize for Component<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("status", self.status.as_str())?;
        if let Some(detail) = self.detail {
            map.serialize_entry("details", &BTreeMap::from([("reason", detail)]))?;
        }
        map.end()
    }
}

/// Health of several components, with the worst status of theirs.
#[derive(Debug)]
struct Composite<'a> {
    components: BTreeMap<&'a str, &'a Component<'a>>,
    groups: &'static [&'static str],
}

impl Composite<'_> {
    fn status(&self) -> HealthStatus {
        // As in Spring, an unknown component has no influence.
        let known = self.components.values().map(|component| component.status);
        let known = known.filter(|status| *status != HealthStatus::Unknown);
        known.fold(HealthStatus::Up, HealthStatus::worse)
    }
}

impl Serialize for Composite<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("status", self.status().as_str())?;
        map.serialize_entry("components", &self.components)?;
        if !self.groups.is_empty() {
            map.serialize_entry("groups", self.groups)?;
        }
        map.end()
    }
}

/// Health pages of one moment.
#[derive(Debug)]
pub(super) struct HealthPages<'a> {
    components: BTreeMap<&'a str, Component<'a>>,
}

impl<'a> HealthPages<'a> {
    /// Creates the pages, with the reasons of the health checks if `shows_details` is set.
    pub(super) fn new(report: &'a HealthReport, shows_details: bool) -> Self {
        let mut components = BTreeMap::<&str, Component<'_>>::new();
        for check in &report.components {
            let component =
                Component { status: check.status, detail: check.detail.as_deref().filter(|_| shows_details) };
            let known = components.entry(&check.name).or_insert_with(|| component.clone());
            // Of two checks with one name, the worse one is shown.
            if known.status.worse(component.status) != known.status {
                *known = component;
            }
        }
        let is_ready = report.readiness == HealthStatus::Up;
        let readiness = if is_ready { HealthStatus::Up } else { HealthStatus::OutOfService };
        // The registry does not count for the health of the instance.
        let is_registered = report.registry.status == HealthStatus::Up;
        let registry = if is_registered { HealthStatus::Up } else { HealthStatus::Unknown };
        components.insert(LIVENESS.1, report.liveness.into());
        components.insert(READINESS.1, readiness.into());
        components.insert(REGISTRY, registry.into());
        Self { components }
    }

    /// Returns the status and the JSON of the page at this path below the health page. `None` if
    /// there is no such component or group.
    pub(super) fn at(&self, path: &str) -> Option<(HealthStatus, Vec<u8>)> {
        let (first, rest) = path.split_once('/').unwrap_or((path, ""));
        let composite = match first {
            "" => self.composite(|_| true, &[LIVENESS.0, READINESS.0]),
            group if group == LIVENESS.0 => self.composite(|name| name == LIVENESS.1, &[]),
            // An instance that is DOWN because of a check is not ready either.
            group if group == READINESS.0 => self.composite(|name| name != LIVENESS.1 && name != REGISTRY, &[]),
            name => {
                let component = self.components.get(name).filter(|_| rest.is_empty())?;
                return Some((component.status, encoded(component)));
            }
        };
        match rest {
            "" => Some((composite.status(), encoded(&composite))),
            name => composite.components.get(name).map(|component| (component.status, encoded(component))),
        }
    }

    fn composite(&self, is_part: impl Fn(&str) -> bool, groups: &'static [&'static str]) -> Composite<'_> {
        let parts = self.components.iter().filter(|(name, _)| is_part(name));
        Composite { components: parts.map(|(name, component)| (*name, component)).collect(), groups }
    }
}

fn encoded(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).expect("text keys and values are encodable")
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::super::health::{Health, RegistryHealth};
    use super::super::super::vitals::{Readiness, Vitals};
    use super::*;

    const REGISTERED: RegistryHealth = RegistryHealth { status: HealthStatus::Up, lease_age: None };

    fn page(report: &HealthReport, path: &str) -> Option<(HealthStatus, Value)> {
        let (status, json) = HealthPages::new(report, false).at(path)?;
        Some((status, serde_json::from_slice(&json).unwrap()))
    }

    fn with_check(health: Health) -> HealthReport {
        let vitals = Vitals::default();
        let check = vitals.add_component(Some("db".into()));
        vitals.set_component(check, health);
        vitals.report(false, REGISTERED)
    }

    #[test]
    fn page_has_status_components_and_groups_in_the_order_of_spring() {
        let report = with_check(Health::up());
        let (status, json) = HealthPages::new(&report, true).at("").unwrap();
        assert_eq!(status, HealthStatus::Up);
        let expected = concat!(
            r#"{"status":"UP","components":{"db":{"status":"UP"},"eureka":{"status":"UP"},"#,
            r#""livenessState":{"status":"UP"},"readinessState":{"status":"UP"}},"groups":["liveness","readiness"]}"#
        );
        assert_eq!(String::from_utf8(json).unwrap(), expected);
    }

    #[test]
    fn worst_status_is_that_of_the_page_and_the_registry_does_not_count() {
        let unreachable = RegistryHealth { status: HealthStatus::Down, lease_age: None };
        let draining = Vitals::default().report(true, unreachable);
        assert_eq!(page(&draining, "").unwrap().0, HealthStatus::OutOfService);
        assert_eq!(page(&draining, "readiness").unwrap().0, HealthStatus::OutOfService);
        let liveness = json!({"status": "UP", "components": {"livenessState": {"status": "UP"}}});
        assert_eq!(page(&draining, "liveness").unwrap(), (HealthStatus::Up, liveness));

        let vitals = Vitals::default();
        let (status, json) = page(&vitals.report(false, unreachable), "").unwrap();
        assert_eq!((status, &json["components"]["eureka"]["status"]), (HealthStatus::Up, &json!("UNKNOWN")));
        vitals.set_readiness(Readiness::Pending);
        assert_eq!(page(&vitals.report(false, REGISTERED), "").unwrap().0, HealthStatus::OutOfService);
        vitals.set_readiness(Readiness::Ready);
        let check = vitals.add_component(None);
        let (status, json) = page(&vitals.report(false, REGISTERED), "").unwrap();
        assert_eq!((status, &json["components"]["check"]["status"]), (HealthStatus::OutOfService, &json!("UNKNOWN")));
        vitals.set_component(check, Health::down("refused"));
        let failed = vitals.report(false, REGISTERED);
        for (path, status) in
            [("", HealthStatus::Down), ("readiness", HealthStatus::Down), ("liveness", HealthStatus::Up)]
        {
            assert_eq!(page(&failed, path).unwrap().0, status, "{path}");
        }
    }

    #[test]
    fn component_has_a_page_also_below_its_group() {
        let failed = with_check(Health::down("connection refused"));
        let db = (HealthStatus::Down, json!({"status": "DOWN"}));
        assert_eq!(page(&failed, "db"), Some(db.clone()));
        assert_eq!(page(&failed, "readiness/db"), Some(db));
        assert_eq!(page(&failed, "livenessState").unwrap().0, HealthStatus::Up);
        for path in ["nothing", "liveness/db", "db/more", "readiness/db/more", "readiness/eureka"] {
            assert_eq!(page(&failed, path), None, "{path}");
        }
    }

    #[test]
    fn reasons_are_shown_on_request_and_encoded() {
        let failed = with_check(Health::down("no \"orders\""));
        let (_, json) = HealthPages::new(&failed, true).at("db").unwrap();
        let expected = json!({"status": "DOWN", "details": {"reason": "no \"orders\""}});
        assert_eq!(serde_json::from_slice::<Value>(&json).unwrap(), expected);
        let (_, json) = HealthPages::new(&failed, false).at("").unwrap();
        assert!(!String::from_utf8(json).unwrap().contains("orders"));
    }

    #[test]
    fn worse_of_two_checks_with_one_name_is_shown() {
        for (one, other) in [(Health::up(), Health::down("gone")), (Health::down("gone"), Health::up())] {
            let vitals = Vitals::default();
            for health in [one, other] {
                let check = vitals.add_component(Some("db".into()));
                vitals.set_component(check, health);
            }
            assert_eq!(page(&vitals.report(false, REGISTERED), "db").unwrap().0, HealthStatus::Down);
        }
    }
}
