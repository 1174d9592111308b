use std::collections::BTreeMap;

use serde::Serialize;
use serde::ser::{SerializeMap, Serializer};

use super::super::lifecycle::Lifecycle;

/// Component and group of a process that works, which an orchestrator does not restart.
const LIVENESS: (&str, &str) = ("liveness", "livenessState");
/// Component and group of a process that accepts calls.
const READINESS: (&str, &str) = ("readiness", "readinessState");

/// Status of a component, in the words of Spring. The most severe one comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Status {
    #[cfg_attr(not(test), allow(dead_code, reason = "only health checks report it"))]
    Down,
    OutOfService,
    Up,
}

impl Status {
    fn as_str(self) -> &'static str {
        match self {
            Self::Down => "DOWN",
            Self::OutOfService => "OUT_OF_SERVICE",
            Self::Up => "UP",
        }
    }
}

/// Health of one component.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Component {
    pub(super) status: Status,
    /// Reason of the status, without secrets.
    pub(super) details: BTreeMap<String, String>,
}

impl From<Status> for Component {
    fn from(status: Status) -> Self {
        Self { status, details: BTreeMap::new() }
    }
}

impl Serialize for Component {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("status", self.status.as_str())?;
        if !self.details.is_empty() {
            map.serialize_entry("details", &self.details)?;
        }
        map.end()
    }
}

/// Health of several components, with the most severe status of theirs.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Composite<'a> {
    components: BTreeMap<&'a str, &'a Component>,
    groups: &'static [&'static str],
}

impl Composite<'_> {
    fn status(&self) -> Status {
        self.components.values().map(|component| component.status).min().unwrap_or(Status::Up)
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

/// Health of the whole process.
#[derive(Debug)]
pub(super) struct HealthPages {
    components: BTreeMap<String, Component>,
}

impl HealthPages {
    pub(super) fn of(lifecycle: &Lifecycle) -> Self {
        let mut components = BTreeMap::new();
        let accepts = !lifecycle.is_draining();
        let readiness = if accepts { Status::Up } else { Status::OutOfService };
        components.insert(LIVENESS.1.to_owned(), Status::Up.into());
        components.insert(READINESS.1.to_owned(), readiness.into());
        Self { components }
    }

    /// Returns the status and the JSON of the page at this path below the health page. `None` if
    /// there is no such component or group.
    pub(super) fn page(&self, path: &str) -> Option<(Status, Vec<u8>)> {
        let (first, rest) = path.split_once('/').unwrap_or((path, ""));
        let composite = match first {
            "" => self.composite(|_| true, &[LIVENESS.0, READINESS.0]),
            group if group == LIVENESS.0 => self.composite(|name| name == LIVENESS.1, &[]),
            // An instance that is DOWN because of a check is not ready either.
            group if group == READINESS.0 => self.composite(|name| name != LIVENESS.1, &[]),
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
        Composite { components: parts.map(|(name, component)| (&**name, component)).collect(), groups }
    }
}

fn encoded(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).expect("text keys and values are encodable")
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn page(health: &HealthPages, path: &str) -> Option<(Status, Value)> {
        health.page(path).map(|(status, json)| (status, serde_json::from_slice(&json).unwrap()))
    }

    fn with_check(status: Status, detail: Option<&str>) -> HealthPages {
        let mut health = HealthPages::of(&Lifecycle::default());
        let details = detail.into_iter().map(|text| ("error".to_owned(), text.to_owned())).collect();
        health.components.insert("db".into(), Component { status, details });
        health
    }

    #[test]
    fn page_has_status_components_and_groups_in_the_order_of_spring() {
        let (status, json) = with_check(Status::Up, None).page("").unwrap();
        assert_eq!(status, Status::Up);
        let expected = concat!(
            r#"{"status":"UP","components":{"db":{"status":"UP"},"livenessState":{"status":"UP"},"#,
            r#""readinessState":{"status":"UP"}},"groups":["liveness","readiness"]}"#
        );
        assert_eq!(String::from_utf8(json).unwrap(), expected);
    }

    #[test]
    fn most_severe_status_is_that_of_the_page() {
        let lifecycle = Lifecycle::default();
        lifecycle.set_draining(true);
        let draining = HealthPages::of(&lifecycle);
        assert_eq!(page(&draining, "").unwrap().0, Status::OutOfService);
        assert_eq!(page(&draining, "readiness").unwrap().0, Status::OutOfService);
        assert_eq!(
            page(&draining, "liveness").unwrap(),
            (Status::Up, json!({"status": "UP", "components": {"livenessState": {"status": "UP"}}}))
        );

        let failed = with_check(Status::Down, Some("connection refused"));
        assert_eq!(page(&failed, "").unwrap().0, Status::Down);
        assert_eq!(page(&failed, "readiness").unwrap().0, Status::Down);
        assert_eq!(page(&failed, "liveness").unwrap().0, Status::Up);
    }

    #[test]
    fn component_has_a_page_also_below_its_group() {
        let failed = with_check(Status::Down, Some("connection refused"));
        let db = (Status::Down, json!({"status": "DOWN", "details": {"error": "connection refused"}}));
        assert_eq!(page(&failed, "db"), Some(db.clone()));
        assert_eq!(page(&failed, "readiness/db"), Some(db));
        assert_eq!(page(&failed, "livenessState").unwrap().0, Status::Up);
        for path in ["nothing", "liveness/db", "db/more", "readiness/db/more", "livenessState/"] {
            let expected = path.ends_with('/');
            assert_eq!(page(&failed, path).is_some(), expected, "{path}");
        }
    }
}
