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
