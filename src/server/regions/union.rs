//! Union of several registries.
//!
//! A client that has a full list and applies each delta in time has what the next full list shows.
//! In Java, full list and delta follow two rules that disagree if an application is in several
//! regions (quirk P50). Here there is one rule: of two instances with one id in an application, the
//! one of the first registry is shown. The delta contains each instance that changed in any
//! registry, as the full list shows it.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use super::merged::Merged;
use crate::model::Instance;
use crate::server::view::{AppView, Record, Snapshot};

/// Snapshot of one of the registries. All are taken at the same moment.
pub(super) struct Source<'a> {
    pub(super) full: Arc<Snapshot>,
    pub(super) delta: Arc<Snapshot>,
    /// Applications to show. `None` means all.
    pub(super) whitelist: Option<&'a HashSet<Arc<str>>>,
}

/// Union of several registries at one moment. Applications that are in one registry only are shared
/// with it.
#[derive(Debug)]
pub(in crate::server) struct Union {
    pub(in crate::server) full: Arc<Snapshot>,
    pub(in crate::server) delta: Arc<Snapshot>,
}

/// Parts of each application, with the number of the source.
type Parts<'a> = BTreeMap<&'a Arc<str>, Vec<(usize, &'a Arc<AppView>)>>;

impl Union {
    /// Builds a union. `before` is an earlier union of the same registries, whose unchanged parts
    /// are kept.
    pub(super) fn of(sources: Vec<Source<'_>>, before: Option<Arc<Self>>, merged: &Merged) -> Arc<Self> {
        let sum = |number: fn(&Source<'_>) -> u64| sources.iter().map(number).sum::<u64>();
        // Revisions only grow, so each state of all registries has a distinct sum.
        let (revision, delta_revision) = (sum(|source| source.full.revision), sum(|source| source.delta.revision));
        if let Some(before) = &before
            && before.delta.revision == delta_revision
        {
            return before.clone();
        }
        let parts = parts(&sources, |source| &source.full);
        let view = |(&name, parts): (&&Arc<str>, &Vec<(usize, &Arc<AppView>)>)| match parts[..] {
            [(_, whole)] => whole.clone(),
            _ => {
                let parts: Vec<_> = parts.iter().map(|(_, part)| *part).collect();
                merged.get_or_merge(&parts, || merge(name, &parts))
            }
        };
        let applications: Vec<_> = parts.iter().map(view).collect();
        let records = || applications.iter().flat_map(|view| &view.records);
        let counts = records().map(|record| record.instance.status()).collect();
        let digest = records().map(|record| record.digest()).collect();
        let changes = delta(&sources, &parts, &applications, merged);
        let version = sources.iter().map(|source| source.delta.version).sum();
        let full = Snapshot::new(revision, sources[0].full.version, counts, digest, applications);
        let delta = Snapshot::new(delta_revision, version, counts, digest, changes);
        // Dropped only now, so that parts that are still in use stay cached.
        drop(before);
        merged.evict_unused();
        Arc::new(Self { full, delta })
    }
}

fn parts<'a>(sources: &'a [Source<'_>], list: impl Fn(&'a Source<'_>) -> &'a Arc<Snapshot>) -> Parts<'a> {
    let mut parts = Parts::new();
    for (number, source) in sources.iter().enumerate() {
        let is_shown = |view: &&Arc<AppView>| source.whitelist.is_none_or(|shown| shown.contains(&view.name));
        for view in list(source).applications.iter().filter(is_shown) {
            parts.entry(&view.name).or_default().push((number, view));
        }
    }
    parts
}

fn merge(name: &Arc<str>, parts: &[&Arc<AppView>]) -> Arc<AppView> {
    AppView::new(name.clone(), first_of_each(parts.iter().flat_map(|part| &part.records)).cloned().collect())
}

fn first_of_each<'a>(records: impl Iterator<Item = &'a Arc<Record>>) -> impl Iterator<Item = &'a Arc<Record>> {
    let mut ids = HashSet::new();
    records.filter(move |record| ids.insert(record.instance.id()))
}

/// Returns the recent changes, as `applications` show them now.
fn delta(
    sources: &[Source<'_>],
    full: &Parts<'_>,
    applications: &[Arc<AppView>],
    merged: &Merged,
) -> Vec<Arc<AppView>> {
    let changed = parts(sources, |source| &source.delta);
    let merge = |(&name, changes): (&&Arc<str>, &Vec<(usize, &Arc<AppView>)>)| {
        let present = full.get(name).map_or(&[][..], Vec::as_slice);
        // No other source has this application.
        if let [(number, change)] = changes[..]
            && present.iter().all(|(other, _)| *other == number)
        {
            return change.clone();
        }
        let at = applications.binary_search_by(|view| view.name.cmp(name)).ok();
        let now = at.map(|at| &applications[at]);
        let changes: Vec<_> = changes.iter().map(|(_, change)| *change).collect();
        let source_parts: Vec<_> = changes.iter().copied().chain(now).collect();
        merged.get_or_merge(&source_parts, || {
            let now: HashMap<_, _> = now.iter().flat_map(|view| &view.records).map(by_id).collect();
            let changes = first_of_each(changes.iter().flat_map(|change| &change.records));
            let records = changes.map(|change| now.get(change.instance.id()).copied().unwrap_or(change).clone());
            AppView::new(name.clone(), records.collect())
        })
    };
    changed.iter().map(merge).collect()
}

fn by_id(record: &Arc<Record>) -> (&str, &Arc<Record>) {
    (Instance::id(&record.instance), record)
}

#[cfg(test)]
mod tests;
