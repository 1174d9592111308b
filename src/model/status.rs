use std::fmt;
use std::str::FromStr;

/// Status of an instance, set by itself or by an operator. Only [`Up`](Self::Up) instances receive
/// calls.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum InstanceStatus {
    /// Does not accept calls.
    Down,
    /// Removed from traffic by an operator.
    OutOfService,
    /// Not ready for calls yet.
    Starting,
    /// Not known. A server responds to the heartbeats of such an instance with 404.
    Unknown,
    /// Accepts calls.
    #[default]
    Up,
}

impl InstanceStatus {
    /// All statuses, in the order of the apps hash.
    pub const ALL: [Self; 5] = [Self::Down, Self::OutOfService, Self::Starting, Self::Unknown, Self::Up];

    /// Returns the name on the wire, such as `OUT_OF_SERVICE`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Down => "DOWN",
            Self::OutOfService => "OUT_OF_SERVICE",
            Self::Starting => "STARTING",
            Self::Unknown => "UNKNOWN",
            Self::Up => "UP",
        }
    }

    /// Reads a status of a body in any case. An unknown word is [`Unknown`](Self::Unknown).
    ///
    /// Java's XML reader does the same. Its JSON reader accepts upper case only: it reads `up` as
    /// UNKNOWN, which makes the client register again and again.
    pub(crate) fn from_body(word: &str) -> Self {
        Self::ALL.into_iter().find(|s| s.as_str().eq_ignore_ascii_case(word)).unwrap_or(Self::Unknown)
    }
}

impl fmt::Display for InstanceStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// Accepts the exact upper-case name only, as query parameters of the protocol require.
impl FromStr for InstanceStatus {
    type Err = UnknownStatus;

    fn from_str(word: &str) -> Result<Self, UnknownStatus> {
        Self::ALL.into_iter().find(|s| s.as_str() == word).ok_or_else(|| UnknownStatus(word.into()))
    }
}

/// Text that is not the name of a status.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownStatus(Box<str>);

impl fmt::Display for UnknownStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "'{}' is not a status; use UP, DOWN, STARTING, OUT_OF_SERVICE or UNKNOWN", self.0)
    }
}

impl std::error::Error for UnknownStatus {}
