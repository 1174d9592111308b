use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use super::{Variant, pieces};
use crate::model::{Instance, StatusCounts};
use crate::server::registry::{AppView, Snapshot};

/// A VIP is not a registry, which clients tell by this.
const VERSION: i64 = -1;
/// Most that is kept of all answers together, names included.
const LIMIT: usize = 32 * 1024 * 1024;

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

/// Answers about VIPs, each kept until the registry changes, or until there are too many.
#[derive(Debug, Default)]
pub(super) struct Selections(Mutex<Kept>);

#[derive(Debug, Default)]
struct Kept {
    /// The revision of the registry that all of them show.
    revision: u64,
    bytes: usize,
    bodies: HashMap<Asked, Bytes>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Asked {
    pub(super) by: By,
    pub(super) name: Box<str>,
    pub(super) variant: Variant,
}

impl Selections {
    pub(super) fn at(&self, revision: u64, asked: &Asked) -> Option<Bytes> {
        let kept = self.lock();
        kept.bodies.get(asked).filter(|_| kept.revision == revision).cloned()
    }

    pub(super) fn keep(&self, revision: u64, asked: Asked, body: Bytes) {
        let mut kept = self.lock();
        let size = size_of::<(Asked, Bytes)>() + asked.name.len() + body.len();
        if revision < kept.revision || size > LIMIT {
            return;
        }
        if revision > kept.revision || kept.bytes + size > LIMIT {
            *kept = Kept { revision, ..Kept::default() };
        }
        if kept.bodies.insert(asked, body).is_none() {
            kept.bytes += size;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The instances that have this name, with a hash of their own.
pub(super) fn body(snapshot: &Snapshot, Asked { by, name, variant }: &Asked) -> Bytes {
    let matches = |instance: &Instance| by.matches(name, instance);
    let selected: Vec<_> = snapshot.applications.iter().filter_map(|view| select(view, matches)).collect();
    let counts: StatusCounts =
        selected.iter().flat_map(|view| &view.records).map(|record| record.instance.status()).collect();
    pieces::applications(VERSION, &counts, &selected, *variant)
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

    fn asked(name: &str) -> Asked {
        Asked { by: By::Vip, name: name.into(), variant: Variant { form: Form::Json, encoding: Encoding::Identity } }
    }

    #[test]
    fn an_application_that_matches_whole_is_shared() {
        let view = AppView::new("A".into(), Vec::new());
        assert!(select(&view, |_| true).is_none());
    }

    #[test]
    fn only_the_latest_revision_is_kept() {
        let selections = Selections::default();
        selections.keep(1, asked("a"), Bytes::from_static(b"1"));
        assert_eq!(selections.at(1, &asked("a")).as_deref(), Some(&b"1"[..]));
        assert_eq!(selections.at(2, &asked("a")), None);
        selections.keep(2, asked("b"), Bytes::from_static(b"2"));
        selections.keep(1, asked("a"), Bytes::from_static(b"late"));
        assert_eq!((selections.at(1, &asked("a")), selections.lock().bodies.len()), (None, 1));
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let (selections, body) = (Selections::default(), Bytes::from(vec![0; 1024 * 1024]));
        for i in 0..100 {
            selections.keep(1, asked(&i.to_string()), body.clone());
            let kept = selections.lock();
            assert!(kept.bytes <= LIMIT && kept.bytes >= kept.bodies.len() * body.len());
        }
        assert!(selections.at(1, &asked("99")).is_some());
        selections.keep(1, asked("huge"), Bytes::from(vec![0; LIMIT]));
        assert!(selections.at(1, &asked("huge")).is_none());
    }
}
