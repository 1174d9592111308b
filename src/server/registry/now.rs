/// Time of the clock of the leases, and the difference of published times to it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Now {
    pub(super) ms: i64,
    pub(super) ahead: i64,
}

impl Now {
    pub(super) fn published(self) -> i64 {
        self.ms.saturating_add(self.ahead)
    }
}
