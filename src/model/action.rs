/// What happened last to an instance, as the server saw it. A delta is read by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ActionType {
    /// Registered, or registered again.
    Added,
    /// Its status was changed by an operator.
    Modified,
    /// Cancelled or evicted.
    Deleted,
}

impl ActionType {
    /// The word that travels.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Added => "ADDED",
            Self::Modified => "MODIFIED",
            Self::Deleted => "DELETED",
        }
    }

    pub(crate) fn from_body(word: &str) -> Option<Self> {
        [Self::Added, Self::Modified, Self::Deleted].into_iter().find(|a| a.as_str().eq_ignore_ascii_case(word))
    }
}
