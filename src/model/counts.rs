use std::fmt;

use super::InstanceStatus;

/// Number of instances by status. Its [`Display`](fmt::Display) form is the apps hash:
/// `DOWN_2_UP_7_`.
///
/// A client compares the apps hash of its copy with that of the server after each delta. Different
/// hashes mean that the client missed a change. Equal hashes prove little, since they cover neither
/// names nor ids.
///
/// ```
/// use tower_eureka::model::{InstanceStatus::*, StatusCounts};
///
/// let counts: StatusCounts = [Up, Down, Up, Starting].into_iter().collect();
/// assert_eq!(counts.to_string(), "DOWN_1_STARTING_1_UP_2_");
/// assert_eq!(StatusCounts::default().to_string(), "");
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StatusCounts([usize; 5]);

impl StatusCounts {
    /// Returns the number of instances with this status.
    pub fn of(&self, status: InstanceStatus) -> usize {
        self.0[status as usize]
    }

    /// Returns the number of all instances.
    pub fn total(&self) -> usize {
        self.0.iter().sum()
    }

    /// Parses an apps hash.
    #[cfg(feature = "client")]
    pub(crate) fn of_hash(hash: &str) -> Option<Self> {
        let (mut counts, mut rest) = (Self::default(), hash);
        while !rest.is_empty() {
            let status = |status: &InstanceStatus| rest.strip_prefix(status.as_str())?.strip_prefix('_');
            let (status, number) = InstanceStatus::ALL.into_iter().find_map(|s| Some((s, status(&s)?)))?;
            let (number, others) = number.split_once('_')?;
            counts.0[status as usize] = number.parse().ok()?;
            rest = others;
        }
        Some(counts)
    }

    /// Returns the counts of both.
    #[cfg(feature = "client")]
    pub(crate) fn plus(mut self, other: Self) -> Self {
        self.0.iter_mut().zip(other.0).for_each(|(count, more)| *count += more);
        self
    }

    /// Returns the counts without others, or `None` if it has not as many.
    #[cfg(feature = "client")]
    pub(crate) fn minus(mut self, other: Self) -> Option<Self> {
        for (count, less) in self.0.iter_mut().zip(other.0) {
            *count = count.checked_sub(less)?;
        }
        Some(self)
    }

    /// Counts an instance.
    pub(crate) fn add(&mut self, status: InstanceStatus) {
        self.0[status as usize] += 1;
    }

    /// Reverses [`add`](Self::add).
    #[cfg(any(feature = "client", feature = "server"))]
    pub(crate) fn remove(&mut self, status: InstanceStatus) {
        debug_assert!(self.0[status as usize] > 0, "every removed instance was added before");
        self.0[status as usize] = self.0[status as usize].saturating_sub(1);
    }
}

impl FromIterator<InstanceStatus> for StatusCounts {
    fn from_iter<I: IntoIterator<Item = InstanceStatus>>(statuses: I) -> Self {
        let mut counts = Self::default();
        statuses.into_iter().for_each(|s| counts.add(s));
        counts
    }
}

/// Writes the apps hash: the counts above 0, by status name. `docs/protocol.md`, "Apps hash".
impl fmt::Display for StatusCounts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for status in InstanceStatus::ALL {
            if self.of(status) > 0 {
                write!(f, "{status}_{}_", self.of(status))?;
            }
        }
        Ok(())
    }
}

#[cfg(all(test, feature = "client"))]
mod tests {
    use super::*;

    #[test]
    fn hash_is_parsed_and_compared_by_status() {
        for hash in ["", "UP_1_", "DOWN_2_OUT_OF_SERVICE_30_STARTING_4_UNKNOWN_5_UP_6_"] {
            assert_eq!(StatusCounts::of_hash(hash).unwrap().to_string(), hash);
        }
        for other in ["UP", "UP_1", "UP_x_", "UP__", "up_1_", "HEALTHY_1_", "UP_-1_", "UP_1_ "] {
            assert_eq!(StatusCounts::of_hash(other), None, "{other}");
        }
        let [few, many] = ["DOWN_1_UP_2_", "DOWN_1_STARTING_1_UP_5_"].map(|hash| StatusCounts::of_hash(hash).unwrap());
        let more = many.minus(few).unwrap();
        assert_eq!((more.to_string().as_str(), few.plus(more)), ("STARTING_1_UP_3_", many));
        assert_eq!(few.minus(many), None);
    }
}
