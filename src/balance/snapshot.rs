//! What a balancer knows of its endpoints, for people.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::eject::Cause;
use crate::shown::Shown;

/// A balancer's endpoints at one moment, as a table where it is printed. Made by [`Balance::snapshot`](super::Balance::snapshot).
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
/// let instances = [("10.20.0.1:8080", "a", 2.0), ("10.20.0.2:8080", "a", 1.0), ("10.20.1.1:8080", "b", 1.0)];
/// let discover = iter(instances.map(|(id, zone, weight)| Ok::<_, Infallible>(Change::Insert(id, (zone, weight)))));
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
/// assert_eq!(lines.next(), Some("ORDERS: 3 of 3 endpoints available; calls by zone: a 100 %, b 0 %"));
/// assert_eq!(lines.next(), Some("endpoint        zone  weight  effective  latency  pending  failures  state"));
/// // 10.20.0.1:8080  a     2       2          1ms      0        0/64      available
/// # let line = lines.next().unwrap();
/// # assert!(line.starts_with("10.20.0.1:8080  a     2       2          ") && line.ends_with("  0/64      available"), "{line}");
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Snapshot {
    pub(super) name: Option<Arc<str>>,
    pub(super) endpoints: Vec<EndpointSnapshot>,
    pub(super) zones: Vec<ZoneSnapshot>,
    pub(super) is_panic: bool,
}

/// An endpoint in a [`Snapshot`].
#[derive(Clone, Debug, PartialEq)]
pub struct EndpointSnapshot {
    pub(super) id: Arc<str>,
    pub(super) zone: Option<Arc<str>>,
    pub(super) weight: f64,
    pub(super) effective_weight: f64,
    pub(super) latency: Duration,
    pub(super) pending: usize,
    pub(super) failures: u32,
    pub(super) state: EndpointState,
    pub(super) cause: Option<Cause>,
    pub(super) back_in: Option<Duration>,
}

/// A zone in a [`Snapshot`].
#[derive(Clone, Debug, PartialEq)]
pub struct ZoneSnapshot {
    pub(super) name: Option<Arc<str>>,
    pub(super) share: f64,
    pub(super) endpoints: usize,
    pub(super) available: usize,
}

/// Whether an endpoint takes calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum EndpointState {
    /// It does.
    Available,
    /// It was taken out.
    Out,
    /// It was out, and gets one call at a time that decides.
    Probation,
    /// It is not in the [subset](super::Subset).
    Outside,
}

impl Snapshot {
    /// The application that is called, if it was [named](super::Builder::name).
    pub fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    /// All endpoints by id, those outside the subset last.
    pub fn endpoints(&self) -> &[EndpointSnapshot] {
        &self.endpoints
    }

    /// The zones, by name, with their shares of the calls. Empty where calls are not [split by zone](super::ZoneAware).
    pub fn zones(&self) -> &[ZoneSnapshot] {
        &self.zones
    }

    /// How many endpoints are in this state.
    pub fn count(&self, state: EndpointState) -> usize {
        self.endpoints.iter().filter(|endpoint| endpoint.state == state).count()
    }

    /// Whether so few endpoints are left that ejections are [disregarded](super::Ejection::panic_threshold).
    pub fn is_panic(&self) -> bool {
        self.is_panic
    }
}

impl EndpointSnapshot {
    /// The instance's id, or the key under which discovery reported it.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The zone it runs in.
    pub fn zone(&self) -> Option<&str> {
        self.zone.as_deref()
    }

    /// Its weight as it was given, 1 where none was.
    pub fn weight(&self) -> f64 {
        self.weight
    }

    /// What slow start and the subset leave of its weight; 0 outside the subset.
    pub fn effective_weight(&self) -> f64 {
        self.effective_weight
    }

    /// The latency expected of its next call.
    pub fn latency(&self) -> Duration {
        self.latency
    }

    /// Calls that are not over.
    pub fn pending(&self) -> usize {
        self.pending
    }

    /// How many of its last 64 calls failed.
    pub fn failures(&self) -> u32 {
        self.failures
    }

    /// Whether it takes calls.
    pub fn state(&self) -> EndpointState {
        self.state
    }

    /// Why it does not.
    pub fn cause(&self) -> Option<Cause> {
        self.cause
    }

    /// In what time it is tried again, if it is out.
    pub fn back_in(&self) -> Option<Duration> {
        self.back_in
    }
}

impl ZoneSnapshot {
    /// Its name in lower case; `None` for the endpoints without a zone.
    pub fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    /// Its share of the calls, from 0 to 1.
    pub fn share(&self) -> f64 {
        self.share
    }

    /// How many endpoints it has, with those outside the subset.
    pub fn endpoints(&self) -> usize {
        self.endpoints
    }

    /// How many of them can take calls.
    pub fn available(&self) -> usize {
        self.available
    }
}

/// What stands for a missing text.
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
            // The last one, so that no line ends in blanks.
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
            (EndpointState::Out, "out"),
            (EndpointState::Probation, "on probation"),
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
            write!(f, "{separator} {} {} %", Shown(zone.name().unwrap_or(NONE)), (zone.share * 100.0).round())?;
        }
        if self.is_panic {
            f.write_str("; too few are left, ejections are disregarded")?;
        }
        Ok(())
    }
}

impl EndpointSnapshot {
    fn row(&self) -> [String; HEAD.len()] {
        [
            Shown(&self.id).to_string(),
            Shown(self.zone.as_deref().unwrap_or(NONE)).to_string(),
            rounded(self.weight),
            rounded(self.effective_weight),
            // To a tenth of a millisecond.
            format!("{:?}", Duration::from_micros(self.latency.as_micros() as u64 / 100 * 100)),
            self.pending.to_string(),
            format!("{}/64", self.failures),
            self.to_string(),
        ]
    }
}

/// The state and the reason for it.
impl fmt::Display for EndpointSnapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.state {
            EndpointState::Available => "available",
            EndpointState::Out => "out",
            EndpointState::Probation => "on probation",
            EndpointState::Outside => "outside the subset",
        })?;
        if let Some(back_in) = self.back_in {
            write!(f, " for {:.1} s", back_in.as_secs_f64())?;
        }
        match self.cause {
            Some(cause) => write!(f, ": {cause}"),
            None => Ok(()),
        }
    }
}

/// With two decimals at most.
fn rounded(weight: f64) -> String {
    ((weight * 100.0).round() / 100.0).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_a_table() {
        let endpoint = |id: &str, state, cause, back_in| EndpointSnapshot {
            id: id.into(),
            zone: None,
            weight: 3.0,
            effective_weight: 0.3,
            latency: Duration::from_nanos(5_432_100),
            pending: 12,
            failures: 5,
            state,
            cause,
            back_in,
        };
        let minute = Some(Duration::from_secs(60));
        let zone =
            |name: Option<&str>, share| ZoneSnapshot { name: name.map(Arc::from), share, endpoints: 2, available: 1 };
        let snapshot = Snapshot {
            name: Some("ORDERS".into()),
            endpoints: vec![
                endpoint("a", EndpointState::Available, None, None),
                endpoint("long-enough", EndpointState::Out, Some(Cause::Consecutive), minute),
                endpoint("c", EndpointState::Probation, Some(Cause::Unreachable), None),
                EndpointSnapshot { zone: Some("z".into()), ..endpoint("d", EndpointState::Outside, None, None) },
            ],
            zones: vec![zone(None, 0.335), zone(Some("z"), 0.665)],
            is_panic: true,
        };
        let expected = "\
ORDERS: 1 of 4 endpoints available, 1 out, 1 on probation, 1 outside the subset; calls by zone: - 34 %, z 67 %; too few are left, ejections are disregarded
endpoint     zone  weight  effective  latency  pending  failures  state
a            -     3       0.3        5.4ms    12       5/64      available
long-enough  -     3       0.3        5.4ms    12       5/64      out for 60.0 s: calls failed in a row
c            -     3       0.3        5.4ms    12       5/64      on probation: cannot be connected to
d            z     3       0.3        5.4ms    12       5/64      outside the subset";
        assert_eq!(snapshot.to_string(), expected);
    }
}
