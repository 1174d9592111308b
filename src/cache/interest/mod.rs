//! The names in use, and the refresh of these names alone.
//!
//! ```text
//!  callers ── Lookup ──▶ Interests ──▶ UsedRefresher ──▶ List per Resource ──▶ merge ──▶ Snapshot
//!                        mod.rs        used.rs, plan.rs  list.rs              merge.rs
//!                                      └ Cost (cost.rs): the names, or the whole registry (whole.rs)?
//! ```
//!
//! A name becomes one or more resources of the registry (`Resource`): an application or a VIP
//! address. Each has a copy of its own, with the same rules as the copy of the whole registry.

mod cost;
#[cfg(test)]
mod heap;
mod list;
mod merge;
mod plan;
mod proof;
mod used;
mod whole;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use super::lookup::Lookup;
use crate::error::Error;
use crate::sync::Mutex;
use crate::time::Moment;

pub(super) use used::{Publish, UsedRefresher};

/// Time after which a name that is not used is dropped.
pub(crate) const IDLE: Duration = Duration::from_secs(900);

/// Time after which one of many names without an instance is dropped if it is not used.
const IDLE_WITHOUT_INSTANCE: Duration = Duration::from_secs(60);
/// Number of names from which those without an instance are dropped earlier.
const MANY_NAMES: usize = 64;
/// Number of names from which a new one replaces one without an instance.
const MAX_NAMES: usize = 256;

/// Names in use, shared by their users and the refresh.
#[derive(Debug)]
pub(super) struct Interests {
    names: Mutex<HashMap<Lookup, Name>>,
    /// Wakes the refresh when a name comes into use.
    fresh: Notify,
    /// True if no name can be added.
    is_fixed: bool,
}

/// A name in use.
#[derive(Clone, Debug)]
struct Name {
    last_use: Instant,
    /// Spelling of its VIP address at the server.
    vip: Arc<str>,
    /// True for a name that stays in use.
    is_kept: bool,
    /// True if the registry has no instance of it, by the last response.
    is_empty: bool,
    /// Time of the last response for the name. `None` before the first one.
    fetched: Option<Moment>,
    /// Error since then.
    error: Option<Arc<Error>>,
}

impl Name {
    fn of(lookup: &Lookup, is_kept: bool) -> Self {
        let written = lookup.name().written();
        // Spring's are in lower case, and calls by name may be in upper case.
        let is_upper = !written.chars().any(char::is_lowercase);
        let vip = if is_upper { written.to_lowercase().into() } else { written.clone() };
        Self { last_use: Instant::now(), vip, is_kept, is_empty: false, fetched: None, error: None }
    }
}

impl Interests {
    /// Creates an empty list.
    pub(super) fn new() -> Self {
        Self { names: Mutex::default(), fresh: Notify::new(), is_fixed: false }
    }

    /// Creates a list of this name alone.
    pub(super) fn only(lookup: &Lookup) -> Self {
        let name = Name { vip: lookup.name().written().clone(), ..Name::of(lookup, true) };
        let names = Mutex::new(HashMap::from([(lookup.clone(), name)]));
        Self { names, is_fixed: true, ..Self::new() }
    }

    /// Records the use of a name. A new one is fetched at once.
    pub(super) fn record_use(&self, lookup: &Lookup) {
        self.insert(lookup, false);
    }

    /// Keeps a name in use.
    pub(super) fn keep(&self, lookup: &Lookup) {
        self.insert(lookup, true);
    }

    fn insert(&self, lookup: &Lookup, is_kept: bool) {
        if self.is_fixed {
            return;
        }
        let mut names = self.names.lock();
        match names.get_mut(lookup) {
            Some(name) => {
                name.last_use = Instant::now();
                name.is_kept |= is_kept;
            }
            None => {
                if names.len() >= MAX_NAMES {
                    drop_unknown(&mut names);
                }
                names.insert(lookup.clone(), Name::of(lookup, is_kept));
                self.fresh.notify_one();
            }
        }
    }

    /// Drops the names that were not used for [`IDLE`], and if there are many, those without an
    /// instance earlier. Those of `subscribed` are in use.
    pub(super) fn drop_idle(&self, subscribed: impl IntoIterator<Item = Lookup>) {
        subscribed.into_iter().for_each(|lookup| self.record_use(&lookup));
        let mut names = self.names.lock();
        let are_many = names.len() > MANY_NAMES;
        names.retain(|lookup, name| {
            let idle = if are_many && name.is_empty { IDLE_WITHOUT_INSTANCE } else { IDLE };
            let stays = name.is_kept || name.last_use.elapsed() < idle;
            if !stays {
                tracing::debug!(name = %**lookup.name(), "name was not used for a while, fetching it no more");
            }
            stays
        });
    }

    /// Waits until a name comes into use.
    pub(super) async fn fresh(&self) {
        self.fresh.notified().await;
    }

    /// Returns the time of the oldest response for these names, and an error since then. The time
    /// is `None` if one of them was not fetched.
    pub(super) fn freshness(&self, lookups: &[Lookup]) -> (Option<Moment>, Option<Arc<Error>>) {
        let names = self.names.lock();
        let known: Vec<_> = match self.is_fixed {
            true => names.values().map(Some).collect(),
            false => lookups.iter().map(|lookup| names.get(lookup)).collect(),
        };
        let error = known.iter().flatten().find_map(|name| name.error.clone());
        (oldest(known.into_iter().map(|name| name?.fetched)), error)
    }

    /// Returns the number of names in use.
    pub(super) fn len(&self) -> usize {
        self.names.lock().len()
    }

    /// Returns the names in use, in a fixed order.
    fn names(&self) -> Vec<(Lookup, Name)> {
        let names = self.names.lock();
        let mut names: Vec<_> = names.iter().map(|(lookup, name)| (lookup.clone(), name.clone())).collect();
        names.sort_by(|(a, _), (b, _)| a.name().cmp(b.name()));
        names
    }

    fn lookups(&self) -> Vec<Lookup> {
        self.names.lock().keys().cloned().collect()
    }

    fn update_all(&self, change: impl FnMut(&mut Name)) {
        self.names.lock().values_mut().for_each(change);
    }

    /// Changes a name that is still in use.
    fn update(&self, lookup: &Lookup, change: impl FnOnce(&mut Name)) {
        if let Some(name) = self.names.lock().get_mut(lookup) {
            change(name);
        }
    }
}

/// Returns the oldest of these times. `None` if one of them is `None`, or if there are none.
fn oldest(times: impl Iterator<Item = Option<Moment>>) -> Option<Moment> {
    times.collect::<Option<Vec<_>>>()?.into_iter().max_by_key(Moment::elapsed)
}

/// Drops the name without an instance that was not used for the longest time. Calls to random names
/// must not fill the list.
fn drop_unknown(names: &mut HashMap<Lookup, Name>) {
    let unknown = names.iter().filter(|(_, name)| name.is_empty && !name.is_kept);
    if let Some(oldest) = unknown.min_by_key(|(_, name)| name.last_use).map(|(lookup, _)| lookup.clone()) {
        names.remove(&oldest);
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    fn app(name: &str) -> Lookup {
        Lookup::App(name.into())
    }

    fn names(interests: &Interests) -> Vec<String> {
        interests.names().into_iter().map(|(lookup, _)| lookup.name().to_string()).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn name_without_use_is_dropped_unless_it_is_kept_or_subscribed() {
        let interests = Interests::new();
        for name in ["a", "b", "c"] {
            interests.record_use(&app(name));
        }
        interests.keep(&app("kept"));
        advance(IDLE / 2).await;
        interests.record_use(&app("A"));
        advance(IDLE / 2).await;
        interests.drop_idle([app("c")]);
        assert_eq!(names(&interests), ["A", "C", "KEPT"]);
    }

    #[tokio::test(start_paused = true)]
    async fn names_without_an_instance_are_bounded_and_names_with_one_stay() {
        let interests = Interests::new();
        interests.keep(&app("kept"));
        interests.update(&app("kept"), |name| name.is_empty = true);
        interests.record_use(&app("orders"));
        for number in 0..1_000 {
            let lookup = app(&format!("unknown{number}"));
            interests.record_use(&lookup);
            interests.update(&lookup, |name| name.is_empty = true);
            advance(Duration::from_millis(1)).await;
        }
        assert_eq!(interests.len(), MAX_NAMES);
        let known = names(&interests);
        for name in ["KEPT", "ORDERS", "UNKNOWN999"] {
            assert!(known.iter().any(|known| known == name), "{name}");
        }
        advance(IDLE_WITHOUT_INSTANCE).await;
        interests.drop_idle([app("unknown999")]);
        assert_eq!(names(&interests), ["KEPT", "ORDERS", "UNKNOWN999"]);
    }

    #[tokio::test(start_paused = true)]
    async fn fixed_list_has_one_name_for_all_lookups() {
        let interests = Interests::only(&Lookup::Vip("Orders".into()));
        interests.record_use(&app("billing"));
        advance(2 * IDLE).await;
        interests.drop_idle([]);
        assert_eq!(names(&interests), ["ORDERS"]);
        interests.update(&Lookup::Vip("orders".into()), |name| name.fetched = Some(Moment::now()));
        assert!(interests.freshness(&[app("billing")]).0.is_some());
    }
}
