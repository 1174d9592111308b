use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;

use crate::model::{Digest, Instance, StatusCounts};
use crate::server::view::{AppView, Body, By, SingleFlight, Snapshot, Variant, assemble};
use crate::sync::{Mutex, MutexGuard};

/// `versions__delta` of a list for a VIP. Clients recognise by it that the list is not a registry.
const VERSION: i64 = -1;
/// Maximum size of all cached responses together, names included.
const LIMIT: usize = 32 * 1024 * 1024;
/// Approximate bytes of a cached response beside its name and its body.
const OVERHEAD: usize = size_of::<(Selection, Entry)>() + size_of::<(SingleFlight, Body)>() + 64;

/// Cache of the responses for VIPs. It is cleared when it exceeds its size limit.
#[derive(Debug, Default)]
pub(super) struct Selections(Mutex<Entries>);

#[derive(Debug, Default)]
struct Entries {
    bytes: usize,
    by_selection: HashMap<Selection, Entry>,
}

#[derive(Debug)]
struct Entry {
    cell: Arc<SingleFlight>,
    bytes: usize,
}

/// Requested VIP, and the variant of its list.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Selection {
    pub(super) by: By,
    pub(super) name: Box<str>,
    pub(super) variant: Variant,
}

impl Selection {
    pub(super) fn new(by: By, name: &str, variant: Variant) -> Self {
        Self { by, name: name.into(), variant }
    }
}

impl Selections {
    /// Returns the cell that all requests for this list share.
    pub(super) fn cell(&self, selection: &Selection) -> Arc<SingleFlight> {
        let mut entries = self.lock();
        if let Some(entry) = entries.by_selection.get(selection) {
            return entry.cell.clone();
        }
        let (cell, bytes) = (Arc::new(SingleFlight::default()), OVERHEAD + selection.name.len());
        entries.clear_for(bytes);
        entries.bytes += bytes;
        entries.by_selection.insert(selection.clone(), Entry { cell: cell.clone(), bytes });
        cell
    }

    /// Counts the length of a response that is stored in its cell. Evicts a response that exceeds
    /// the limit by itself.
    pub(super) fn count(&self, selection: &Selection, cell: &Arc<SingleFlight>, length: usize) {
        let mut entries = self.lock();
        // A cell that was evicted during the build belongs to its waiters.
        if !entries.by_selection.get(selection).is_some_and(|entry| Arc::ptr_eq(&entry.cell, cell)) {
            return;
        }
        let Some(Entry { cell, bytes }) = entries.by_selection.remove(selection) else { return };
        entries.bytes -= bytes;
        let bytes = OVERHEAD + selection.name.len() + length;
        if bytes <= LIMIT {
            entries.clear_for(bytes);
            entries.bytes += bytes;
            entries.by_selection.insert(selection.clone(), Entry { cell, bytes });
        }
    }

    fn lock(&self) -> MutexGuard<'_, Entries> {
        self.0.lock()
    }
}

impl Entries {
    /// Drops all entries if so many more bytes would exceed the limit.
    fn clear_for(&mut self, bytes: usize) {
        if self.bytes + bytes > LIMIT {
            *self = Self::default();
        }
    }
}

/// Returns the applications with their instances that have the requested VIP.
pub(super) fn selected(snapshot: &Snapshot, Selection { by, name, .. }: &Selection) -> Vec<Arc<AppView>> {
    let matches = |instance: &Instance| by.matches(name, instance);
    snapshot.with_vip(*by, name).filter_map(|view| select(view, matches)).collect()
}

/// Returns the body of a list of these instances, and its digest. Its apps hash covers only them.
pub(super) fn body(selected: &[Arc<AppView>], variant: Variant) -> (Bytes, Digest) {
    let counts: StatusCounts =
        selected.iter().flat_map(|view| &view.records).map(|record| record.instance.status()).collect();
    (assemble::applications(VERSION, &counts, selected, variant), assemble::digest(selected))
}

/// Returns the matching part of an application. Usually all or none of its instances match; the
/// whole application is shared, together with its encoded forms.
fn select(view: &Arc<AppView>, matches: impl Fn(&Instance) -> bool) -> Option<Arc<AppView>> {
    let count = view.records.iter().filter(|record| matches(&record.instance)).count();
    match count {
        0 => None,
        all if all == view.records.len() => Some(view.clone()),
        _ => {
            let records = view.records.iter().filter(|record| matches(&record.instance)).cloned().collect();
            Some(AppView::new(view.name.clone(), records))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::view::{Encoding, Form, Record};

    fn selection(name: &str) -> Selection {
        Selection::new(By::Vip, name, Variant { form: Form::Json, encoding: Encoding::Identity })
    }

    #[test]
    fn application_that_matches_whole_is_shared() {
        let record =
            |id| Record::new(Instance::builder("A").id(id).host_name("h").ip_addr("1.1.1.1").port(80).build().unwrap());
        let view = AppView::new("A".into(), vec![record("1"), record("2")]);
        assert!(select(&view, |_| true).is_some_and(|all| Arc::ptr_eq(&all, &view)));
        assert_eq!(select(&view, |instance| instance.id() == "2").map(|part| part.records.len()), Some(1));
        assert!(select(&view, |_| false).is_none());
    }

    #[test]
    fn response_has_one_cell_and_is_counted_once() {
        let selections = Selections::default();
        let cell = selections.cell(&selection("a"));
        assert!(Arc::ptr_eq(&cell, &selections.cell(&selection("a"))));
        assert!(!Arc::ptr_eq(&cell, &selections.cell(&selection("b"))));
        let before = selections.lock().bytes;
        for length in [1_000, 10, 1_000] {
            selections.count(&selection("a"), &cell, length);
            assert_eq!(selections.lock().bytes, before + length);
        }
        assert!(Arc::ptr_eq(&cell, &selections.cell(&selection("a"))));
    }

    #[test]
    fn cached_responses_stay_within_the_limit() {
        let selections = Selections::default();
        let build = |name: &str, length| selections.count(&selection(name), &selections.cell(&selection(name)), length);
        for i in 0..100 {
            build(&i.to_string(), 1024 * 1024);
            let entries = selections.lock();
            assert!(entries.bytes <= LIMIT && entries.bytes >= entries.by_selection.len() * 1024 * 1024);
        }
        assert!(selections.lock().by_selection.contains_key(&selection("99")));
        build("huge", LIMIT);
        assert!(!selections.lock().by_selection.contains_key(&selection("huge")));
        assert!(selections.lock().by_selection.contains_key(&selection("99")), "it evicts no others");
        for i in 0..200_000 {
            selections.cell(&selection(&format!("unknown {i}")));
            assert!(selections.lock().bytes <= LIMIT);
        }
        let (evicted, cell) = (selection("unknown 0"), Arc::new(SingleFlight::default()));
        let before = selections.lock().bytes;
        selections.count(&evicted, &cell, 1_000);
        assert_eq!(selections.lock().bytes, before, "an evicted response is not counted");
    }
}
