use std::collections::VecDeque;

use tokio::time::Instant;

use crate::server::regions::RegionSet;

/// Clients may name any of the regions together: there are far more choices than can be kept.
pub(super) const KEPT: usize = 8;

/// What is kept for choices of regions, for those that were asked for last.
#[derive(Debug)]
pub(super) struct Lately<T>(VecDeque<Kept<T>>);

#[derive(Debug)]
struct Kept<T> {
    choice: RegionSet,
    asked: Instant,
    what: T,
}

impl<T> Lately<T> {
    pub(super) fn get(&mut self, choice: RegionSet) -> Option<&mut T> {
        let at = self.0.iter().position(|kept| kept.choice == choice)?;
        let kept = self.0.remove(at)?;
        Some(self.put(kept.choice, kept.what))
    }

    pub(super) fn get_or_insert_with(&mut self, choice: RegionSet, make: impl FnOnce() -> T) -> &mut T {
        if self.get(choice).is_none() {
            self.put(choice, make());
        }
        &mut self.0[0].what
    }

    /// Forgets what nobody has asked for since then.
    pub(super) fn forget_before(&mut self, then: Instant) {
        self.0.retain(|kept| kept.asked >= then);
    }

    fn put(&mut self, choice: RegionSet, what: T) -> &mut T {
        self.0.truncate(KEPT - 1);
        self.0.push_front(Kept { choice, asked: Instant::now(), what });
        &mut self.0[0].what
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}

impl<T> Default for Lately<T> {
    fn default() -> Self {
        Self(VecDeque::new())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn those_asked_for_last_are_kept() {
        let mut lately = Lately::default();
        let choices = || (1..).map(RegionSet::of);
        for choice in choices().take(KEPT) {
            assert_eq!(*lately.get_or_insert_with(choice, || choice), choice);
        }
        let first = RegionSet::of(1);
        for choice in choices().skip(KEPT).take(KEPT - 1) {
            assert_eq!(lately.get(first), Some(&mut first.clone()), "asked for again and again");
            lately.get_or_insert_with(choice, || choice);
            assert_eq!(lately.len(), KEPT);
        }
        assert_eq!(lately.get(RegionSet::of(2)), None, "others were asked for since");
        lately.get_or_insert_with(first, || panic!("it is kept"));

        tokio::time::advance(Duration::from_secs(1)).await;
        let now = Instant::now();
        lately.get(first);
        lately.forget_before(now);
        assert_eq!((lately.len(), lately.get(first).is_some()), (1, true));
    }
}
