use std::fmt;
use std::str::FromStr;

/// What an instance says of itself, or an operator of it. Only [`Up`](Self::Up) instances receive calls.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum InstanceStatus {
    /// Does not take calls, and says so.
    Down,
    /// Taken out of traffic by an operator.
    OutOfService,
    /// Not ready yet.
    Starting,
    /// Nobody knows. A server answers the heartbeats of such an instance with 404.
    Unknown,
    /// Takes calls.
    #[default]
    Up,
}

impl InstanceStatus {
    /// All of them, in the order of the apps hash.
    pub const ALL: [Self; 5] = [Self::Down, Self::OutOfService, Self::Starting, Self::Unknown, Self::Up];

    /// The word that travels.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Down => "DOWN",
            Self::OutOfService => "OUT_OF_SERVICE",
            Self::Starting => "STARTING",
            Self::Unknown => "UNKNOWN",
            Self::Up => "UP",
        }
    }

    /// Reads a status from a body: any case, and a word that nobody knows is [`Unknown`](Self::Unknown).
    ///
    /// Java's JSON reader knows upper case only and so stores `up` as `UNKNOWN`, which sends the client into an endless loop
    /// of registrations; its XML reader takes any case. This follows the latter.
    pub(crate) fn from_body(word: &str) -> Self {
        Self::ALL.into_iter().find(|s| s.as_str().eq_ignore_ascii_case(word)).unwrap_or(Self::Unknown)
    }
}

impl fmt::Display for InstanceStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// The exact upper-case word, as the query parameters of the protocol want it.
impl FromStr for InstanceStatus {
    type Err = UnknownStatus;

    fn from_str(word: &str) -> Result<Self, UnknownStatus> {
        Self::ALL.into_iter().find(|s| s.as_str() == word).ok_or_else(|| UnknownStatus(word.into()))
    }
}

/// A word that is no status.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownStatus(Box<str>);

impl fmt::Display for UnknownStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "'{}' is not a status; use UP, DOWN, STARTING, OUT_OF_SERVICE or UNKNOWN", self.0)
    }
}

impl std::error::Error for UnknownStatus {}
