use std::fmt;

use super::InstanceStatus;

/// How many instances have which status. Displayed, it is the apps hash: `DOWN_2_UP_7_`.
///
/// Client and server compare that text after a delta: different text, something was missed. Equal text proves little, since no
/// name enters it.
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
    /// How many have this status.
    pub fn of(&self, status: InstanceStatus) -> usize {
        self.0[status as usize]
    }

    /// How many there are in all.
    pub fn total(&self) -> usize {
        self.0.iter().sum()
    }

    pub(crate) fn add(&mut self, status: InstanceStatus) {
        self.0[status as usize] += 1;
    }

    #[cfg(any(feature = "client", feature = "server"))]
    /// Takes one back that [`add`](Self::add) counted.
    pub(crate) fn remove(&mut self, status: InstanceStatus) {
        debug_assert!(self.0[status as usize] > 0, "removed an instance that was never counted");
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

/// The apps hash, `protocol` section 6.1: the counts that are not 0, by name.
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
