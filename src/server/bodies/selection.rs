use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;

use super::slot::Slot;
use super::{Body, Variant, pieces};
use crate::model::{Digest, Instance, StatusCounts};
use crate::server::registry::{AppView, Snapshot};
use crate::sync::{Mutex, MutexGuard};

/// A VIP is not a registry, which clients tell by this.
const VERSION: i64 = -1;
/// Most that is kept of all answers together, names included.
const LIMIT: usize = 32 * 1024 * 1024;
/// What an answer costs beside its name and bytes, about.
const OVERHEAD: usize = size_of::<(Asked, Answer)>() + size_of::<(Slot, Body)>() + 64;

/// Which of the two lists of names decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(in crate::server) enum By {
    Vip,
    SecureVip,
}

impl By {
    /// Whether the name is one of the instance's, as Java compares: exactly, blanks included.
    fn matches(self, name: &str, instance: &Instance) -> bool {
        let names = match self {
            Self::Vip => instance.vip_address(),
            Self::SecureVip => instance.secure_vip_address(),
        };
        names.is_some_and(|names| names.split(',').any(|n| n == name))
    }
}

/// Answers about VIPs, each kept until it is made anew, or until there are too many.
#[derive(Debug, Default)]
pub(super) struct Selections(Mutex<Kept>);

#[derive(Debug, Default)]
struct Kept {
    bytes: usize,
    answers: HashMap<Asked, Answer>,
}

#[derive(Debug)]
struct Answer {
    slot: Arc<Slot>,
    bytes: usize,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Asked {
    pub(super) by: By,
    pub(super) name: Box<str>,
    pub(super) variant: Variant,
}

impl Asked {
    pub(super) fn new(by: By, name: &str, variant: Variant) -> Self {
        Self { by, name: name.into(), variant }
    }
}

impl Selections {
    /// The room for this answer, which all share who ask for it.
    pub(super) fn slot(&self, asked: &Asked) -> Arc<Slot> {
        let mut kept = self.lock();
        if let Some(answer) = kept.answers.get(asked) {
            return answer.slot.clone();
        }
        let (slot, bytes) = (Arc::new(Slot::default()), OVERHEAD + asked.name.len());
        kept.make_room(bytes);
        kept.bytes += bytes;
        kept.answers.insert(asked.clone(), Answer { slot: slot.clone(), bytes });
        slot
    }

    /// Counts an answer that is put into its room. What is too much for all of them together is not kept.
    pub(super) fn made(&self, asked: &Asked, slot: &Arc<Slot>, length: usize) {
        let mut kept = self.lock();
        // Room that was cleared away meanwhile belongs to those who wait for it.
        if !kept.answers.get(asked).is_some_and(|answer| Arc::ptr_eq(&answer.slot, slot)) {
            return;
        }
        let Some(Answer { slot, bytes }) = kept.answers.remove(asked) else { return };
        kept.bytes -= bytes;
        let bytes = OVERHEAD + asked.name.len() + length;
        if bytes <= LIMIT {
            kept.make_room(bytes);
            kept.bytes += bytes;
            kept.answers.insert(asked.clone(), Answer { slot, bytes });
        }
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.0.lock()
    }
}

impl Kept {
    fn make_room(&mut self, bytes: usize) {
        if self.bytes + bytes > LIMIT {
            *self = Self::default();
        }
    }
}

/// Applications with the instances that have this name.
pub(super) fn selected(snapshot: &Snapshot, Asked { by, name, .. }: &Asked) -> Vec<Arc<AppView>> {
    let matches = |instance: &Instance| by.matches(name, instance);
    snapshot.applications.iter().filter_map(|view| select(view, matches)).collect()
}

/// A list of these instances, with a hash and a digest of its own.
pub(super) fn body(selected: &[Arc<AppView>], variant: Variant) -> (Bytes, Digest) {
    let counts: StatusCounts =
        selected.iter().flat_map(|view| &view.records).map(|record| record.instance.status()).collect();
    (pieces::applications(VERSION, &counts, selected, variant), pieces::digest(selected))
}

/// The part of an application that matches: usually all of it, whose blocks exist already, or nothing.
fn select(view: &Arc<AppView>, matches: impl Fn(&Instance) -> bool) -> Option<Arc<AppView>> {
    let found = view.records.iter().filter(|record| matches(&record.instance)).count();
    match found {
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
    use crate::server::bodies::{Encoding, Form};
    use crate::server::registry::Record;

    fn asked(name: &str) -> Asked {
        Asked::new(By::Vip, name, Variant { form: Form::Json, encoding: Encoding::Identity })
    }

    #[test]
    fn an_application_that_matches_whole_is_shared() {
        let record =
            |id| Record::new(Instance::builder("A").id(id).host_name("h").ip_addr("1.1.1.1").port(80).build().unwrap());
        let view = AppView::new("A".into(), vec![record("1"), record("2")]);
        assert!(select(&view, |_| true).is_some_and(|all| Arc::ptr_eq(&all, &view)));
        assert_eq!(select(&view, |instance| instance.id() == "2").map(|part| part.records.len()), Some(1));
        assert!(select(&view, |_| false).is_none());
    }

    #[test]
    fn an_answer_has_one_room_and_is_counted_once() {
        let selections = Selections::default();
        let slot = selections.slot(&asked("a"));
        assert!(Arc::ptr_eq(&slot, &selections.slot(&asked("a"))));
        assert!(!Arc::ptr_eq(&slot, &selections.slot(&asked("b"))));
        let before = selections.lock().bytes;
        for length in [1_000, 10, 1_000] {
            selections.made(&asked("a"), &slot, length);
            assert_eq!(selections.lock().bytes, before + length);
        }
        assert!(Arc::ptr_eq(&slot, &selections.slot(&asked("a"))));
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let selections = Selections::default();
        let make = |name: &str, length| selections.made(&asked(name), &selections.slot(&asked(name)), length);
        for i in 0..100 {
            make(&i.to_string(), 1024 * 1024);
            let kept = selections.lock();
            assert!(kept.bytes <= LIMIT && kept.bytes >= kept.answers.len() * 1024 * 1024);
        }
        assert!(selections.lock().answers.contains_key(&asked("99")));
        make("huge", LIMIT);
        assert!(!selections.lock().answers.contains_key(&asked("huge")));
        assert!(selections.lock().answers.contains_key(&asked("99")), "it drives out no others");
        for i in 0..200_000 {
            selections.slot(&asked(&format!("nobody's {i}")));
            assert!(selections.lock().bytes <= LIMIT);
        }
        let (cleared, slot) = (asked("nobody's 0"), Arc::new(Slot::default()));
        let before = selections.lock().bytes;
        selections.made(&cleared, &slot, 1_000);
        assert_eq!(selections.lock().bytes, before, "what has no room any more is not counted");
    }
}
