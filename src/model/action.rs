/// Last change of an instance, as seen by the server. Clients apply the entries of a delta by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ActionType {
    /// The instance registered, possibly again.
    Added,
    /// An operator changed its status.
    Modified,
    /// Its lease was cancelled or evicted.
    Deleted,
}

impl ActionType {
    /// Returns the name on the wire, such as `ADDED`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Added => "ADDED",
            Self::Modified => "MODIFIED",
            Self::Deleted => "DELETED",
        }
    }

    /// Reads a name in any case.
    pub(crate) fn from_body(word: &str) -> Option<Self> {
        [Self::Added, Self::Modified, Self::Deleted].into_iter().find(|a| a.as_str().eq_ignore_ascii_case(word))
    }
}
