//! Snapshot of a balancer's endpoints, for operators.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::balance::outlier::Cause;
use crate::balance::zone::ZoneRule;
use crate::untrusted::Quoted;

/// Endpoints of a balancer at one moment. Prints as a table. Returned by
/// [`Balance::snapshot`](crate::balance::Balance::snapshot).
///
/// ```
/// use std::convert::Infallible;
///
/// use tokio_stream::iter;
/// use tower::discover::Change;
/// use tower::{ServiceExt, service_fn};
/// use tower_eureka::balance::{AnyResponse, Attributes, Balance, ZoneAware};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), tower_eureka::Error> {
/// let insert = |id, zone, weight| Ok::<_, Infallible>(Change::Insert(id, (zone, weight)));
/// let discover = iter([
///     insert("10.20.0.1:8080", "a", 2.0),
///     insert("10.20.0.2:8080", "a", 1.0),
///     insert("10.20.1.1:8080", "b", 1.0),
/// ]);
/// let balance = Balance::builder(discover)
///     .name("ORDERS")
///     .attributes(|(zone, weight)| Attributes::new().with_zone(*zone).with_weight(*weight))
///     .endpoint(|_| service_fn(|()| async { Ok::<_, Infallible>(()) }))
///     .observer(AnyResponse)
///     .zone_aware(ZoneAware::new("a").min_endpoints(2))
///     .build();
/// balance.clone().oneshot(()).await?;
///
/// let table = balance.snapshot().to_string();
/// let mut lines = table.lines();
/// let totals = "ORDERS: 3 of 3 endpoints available; calls by zone: a 100 %, b 0 %";
/// let head = "endpoint        zone  weight  effective  latency  pending  failures  state";
/// assert_eq!((lines.next(), lines.next()), (Some(totals), Some(head)));
/// // 10.20.0.1:8080  a     2       2          1ms      0        0/64      available
/// # let line = lines.next().unwrap();
/// # assert!(line.starts_with("10.20.0.1:8080  a     2       2          "), "{line}");
/// # assert!(line.ends_with("  0/64      available"), "{line}");
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Snapshot {
    pub(crate) name: Option<Arc<str>>,
    pub(crate) endpoints: Vec<EndpointSnapshot>,
    pub(crate) zones: Vec<ZoneSnapshot>,
    pub(crate) zone_rule: ZoneRule,
    pub(crate) own_zone: Option<Arc<str>>,
    pub(crate) is_panic: bool,
}

/// Endpoint in a [`Snapshot`].
#[derive(Clone, Debug, PartialEq)]
pub struct EndpointSnapshot {
    pub(crate) id: Arc<str>,
    pub(crate) zone: Option<Arc<str>>,
    pub(crate) weight: f64,
    pub(crate) effective_weight: f64,
    pub(crate) latency: Duration,
    pub(crate) pending: usize,
    pub(crate) failures: u32,
    pub(crate) state: EndpointState,
    pub(crate) cause: Option<Cause>,
    pub(crate) retry_in: Option<Duration>,
}

/// Zone in a [`Snapshot`].
#[derive(Clone, Debug, PartialEq)]
pub struct ZoneSnapshot {
    pub(crate) name: Option<Arc<str>>,
    pub(crate) share: f64,
    pub(crate) endpoints: usize,
    pub(crate) available: usize,
}

/// State of an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum EndpointState {
    /// Takes calls.
    Available,
    /// Takes no calls, for a [cause](EndpointSnapshot::cause), unless ejections are
    /// [ignored](Snapshot::is_panic) or no endpoint can be reached.
    Ejected,
    /// Was ejected, and gets one call at a time, which decides whether it is restored.
    HalfOpen,
    /// Not in the [subset](crate::balance::Subset).
    Outside,
}

impl Snapshot {
    /// Returns the application's [name](crate::balance::Builder::name), if there is one.
    pub fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    /// Returns all endpoints by id, those outside the subset last.
    pub fn endpoints(&self) -> &[EndpointSnapshot] {
        &self.endpoints
    }

    /// Returns the zones by name, with their shares of the calls. Empty if calls are not [split by
    /// zone](crate::balance::ZoneAware).
    pub fn zones(&self) -> &[ZoneSnapshot] {
        &self.zones
    }

    /// Returns the rule in force for zones.
    pub fn zone_rule(&self) -> ZoneRule {
        self.zone_rule
    }

    /// Returns the name of the caller's zone as configured. `None` if it is unknown, or if
    /// zone-aware routing is off.
    pub fn own_zone(&self) -> Option<&str> {
        self.own_zone.as_deref()
    }

    /// Returns the number of endpoints in this state.
    pub fn count(&self, state: EndpointState) -> usize {
        self.endpoints.iter().filter(|endpoint| endpoint.state == state).count()
    }

    /// Returns `true` if so few endpoints are available that ejections are
    /// [ignored](crate::balance::Ejection::panic_threshold).
    pub fn is_panic(&self) -> bool {
        self.is_panic
    }
}

impl EndpointSnapshot {
    /// Returns the id of the endpoint, as [`Candidates::id`](crate::balance::Candidates::id) does.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Returns the zone that the endpoint runs in.
    pub fn zone(&self) -> Option<&str> {
        self.zone.as_deref()
    }

    /// Returns the weight as configured, or 1.
    pub fn weight(&self) -> f64 {
        self.weight
    }

    /// Returns the weight after slow start and subset. Zero outside the subset.
    pub fn effective_weight(&self) -> f64 {
        self.effective_weight
    }

    /// Returns the expected latency of the next call.
    pub fn latency(&self) -> Duration {
        self.latency
    }

    /// Returns the number of pending calls.
    pub fn pending(&self) -> usize {
        self.pending
    }

    /// Returns the number of failures among the last 64 calls.
    pub fn failures(&self) -> u32 {
        self.failures
    }

    /// Returns the state of the endpoint.
    pub fn state(&self) -> EndpointState {
        self.state
    }

    /// Returns the cause of the ejection, if the endpoint is ejected or half-open.
    pub fn cause(&self) -> Option<Cause> {
        self.cause
    }

    /// Returns the time until an ejected endpoint is tried again, if it is ejected.
    pub fn retry_in(&self) -> Option<Duration> {
        self.retry_in
    }
}

impl ZoneSnapshot {
    /// Returns the name in lower case. `None` for the endpoints without a zone.
    pub fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    /// Returns the share of the calls, from 0 to 1.
    pub fn share(&self) -> f64 {
        self.share
    }

    /// Returns the number of endpoints, including those outside the subset.
    pub fn endpoints(&self) -> usize {
        self.endpoints
    }

    /// Returns the number of endpoints that can take calls.
    pub fn available(&self) -> usize {
        self.available
    }
}

/// Replaces a missing text.
const NONE: &str = "-";

const HEAD: [&str; 8] = ["endpoint", "zone", "weight", "effective", "latency", "pending", "failures", "state"];

impl fmt::Display for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.totals(f)?;
        let rows: Vec<_> = self.endpoints.iter().map(EndpointSnapshot::row).collect();
        let width = |column: usize| {
            let texts = rows.iter().map(|row| row[column].chars().count());
            texts.chain([HEAD[column].len()]).max().unwrap_or_default()
        };
        let widths: [usize; HEAD.len()] = std::array::from_fn(width);
        let mut line = |row: [&str; HEAD.len()]| {
            writeln!(f)?;
            for (text, width) in row.iter().zip(widths).take(HEAD.len() - 1) {
                write!(f, "{text:width$}  ")?;
            }
            // The last column has no padding, so that no line ends in blanks.
            f.write_str(row[HEAD.len() - 1])
        };
        line(HEAD)?;
        rows.iter().try_for_each(|row| line(std::array::from_fn(|column| &*row[column])))
    }
}

impl Snapshot {
    fn totals(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (all, available) = (self.endpoints.len(), self.count(EndpointState::Available));
        let name = self.name.as_deref().unwrap_or("endpoints");
        write!(f, "{name}: {available} of {all} endpoints available")?;
        let others = [
            (EndpointState::Ejected, "ejected"),
            (EndpointState::HalfOpen, "half-open"),
            (EndpointState::Outside, "outside the subset"),
        ];
        for (state, text) in others {
            match self.count(state) {
                0 => {}
                count => write!(f, ", {count} {text}")?,
            }
        }
        for (at, zone) in self.zones.iter().enumerate() {
            let separator = if at == 0 { "; calls by zone:" } else { "," };
            write!(f, "{separator} {} {} %", Quoted(zone.name().unwrap_or(NONE)), (zone.share * 100.0).round())?;
        }
        // The other rules show in the shares, and in the text below.
        if self.zone_rule.ignores_zones() && self.zone_rule != ZoneRule::TooFewAvailable {
            write!(f, "; {}", self.zone_rule)?;
        }
        if self.is_panic {
            f.write_str("; too few are available, ejections are ignored")?;
        }
        Ok(())
    }
}

impl EndpointSnapshot {
    fn row(&self) -> [String; HEAD.len()] {
        [
            Quoted(&self.id).to_string(),
            Quoted(self.zone.as_deref().unwrap_or(NONE)).to_string(),
            rounded(self.weight),
            rounded(self.effective_weight),
            // Rounded to a tenth of a millisecond.
            format!("{:?}", Duration::from_micros(self.latency.as_micros() as u64 / 100 * 100)),
            self.pending.to_string(),
            format!("{}/64", self.failures),
            self.to_string(),
        ]
    }
}

/// Prints the state and its cause.
impl fmt::Display for EndpointSnapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.state {
            EndpointState::Available => "available",
            EndpointState::Ejected => "ejected",
            EndpointState::HalfOpen => "half-open",
            EndpointState::Outside => "outside the subset",
        })?;
        if let Some(retry_in) = self.retry_in {
            write!(f, " for {:.1} s", retry_in.as_secs_f64())?;
        }
        match self.cause {
            Some(cause) => write!(f, ": {cause}"),
            None => Ok(()),
        }
    }
}

/// Rounds to two decimals.
fn rounded(weight: f64) -> String {
    ((weight * 100.0).round() / 100.0).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn snapshot_prints_as_a_table() {
        let endpoint = |id: &str, state, cause, retry_in| EndpointSnapshot {
            id: id.into(),
            zone: None,
            weight: 3.0,
            effective_weight: 0.3,
            latency: Duration::from_nanos(5_432_100),
            pending: 12,
            failures: 5,
            state,
            cause,
            retry_in,
        };
        let minute = Some(Duration::from_secs(60));
        let zone =
            |name: Option<&str>, share| ZoneSnapshot { name: name.map(Arc::from), share, endpoints: 2, available: 1 };
        let snapshot = Snapshot {
            name: Some("ORDERS".into()),
            endpoints: vec![
                endpoint("a", EndpointState::Available, None, None),
                endpoint("long-enough", EndpointState::Ejected, Some(Cause::Consecutive), minute),
                endpoint("c", EndpointState::HalfOpen, Some(Cause::Unreachable), None),
                EndpointSnapshot { zone: Some("z".into()), ..endpoint("d", EndpointState::Outside, None, None) },
            ],
            zones: vec![zone(None, 0.335), zone(Some("z"), 0.665)],
            zone_rule: ZoneRule::Overflow,
            own_zone: Some("z".into()),
            is_panic: true,
        };
        let expected = "\
ORDERS: 1 of 4 endpoints available, 1 ejected, 1 half-open, 1 outside the subset; calls by zone: - 34 %, z 67 %; too few are available, ejections are ignored
endpoint     zone  weight  effective  latency  pending  failures  state
a            -     3       0.3        5.4ms    12       5/64      available
long-enough  -     3       0.3        5.4ms    12       5/64      ejected for 60.0 s: calls failed in a row
c            -     3       0.3        5.4ms    12       5/64      half-open: cannot be connected to
d            z     3       0.3        5.4ms    12       5/64      outside the subset";
        assert_eq!(snapshot.to_string(), expected);
        let ignored = Snapshot { endpoints: Vec::new(), zones: Vec::new(), is_panic: false, ..snapshot };
        for (rule, text) in [
            (ZoneRule::Off, ""),
            (ZoneRule::UnknownZone, "; zones are ignored: the own zone is unknown"),
            (ZoneRule::TooFewEndpoints { min: 2 }, "; zones are ignored: there are fewer than 2 endpoints"),
        ] {
            let snapshot = Snapshot { zone_rule: rule, ..ignored.clone() }.to_string();
            assert_eq!(snapshot.lines().next(), Some(&*format!("ORDERS: 0 of 0 endpoints available{text}")));
        }
    }
}
