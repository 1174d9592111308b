//! Differences between two states of the applications.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::model::{Application, Instance};

/// Name of an application, its earlier state and its present state.
pub(super) type Changed<'a> = (&'a Arc<str>, Option<&'a Application>, Option<&'a Application>);

/// Returns the applications that are not the same `Arc` in both states.
pub(super) fn changed<'a>(
    before: &'a BTreeMap<Arc<str>, Arc<Application>>,
    after: &'a BTreeMap<Arc<str>, Arc<Application>>,
) -> impl Iterator<Item = Changed<'a>> {
    let (mut before, mut after) = (before.iter().peekable(), after.iter().peekable());
    std::iter::from_fn(move || {
        loop {
            let known = match (before.peek(), after.peek()) {
                (None, None) => return None,
                (Some((known, _)), Some((now, _))) if known > now => None,
                (None, Some(_)) => None,
                _ => before.next(),
            };
            let now = after.next_if(|(now, _)| known.is_none_or(|(known, _)| known == *now));
            match (known, now) {
                (Some((_, known)), Some((_, now))) if Arc::ptr_eq(known, now) => {}
                (Some((name, known)), now) => return Some((name, Some(&**known), now.map(|(_, now)| &**now))),
                (None, Some((name, now))) => return Some((name, None, Some(&**now))),
                (None, None) => return None,
            }
        }
    })
}

/// Instances that differ between two states of an application.
#[derive(Clone, Copy)]
pub(super) struct Differing<'a> {
    pub(super) known: &'a [Arc<Instance>],
    pub(super) now: &'a [Arc<Instance>],
    /// Instance that is in both states. `None` if none is known to be.
    pub(super) stayed: Option<&'a Arc<Instance>>,
}

impl<'a> Differing<'a> {
    /// Excludes the instances that both states begin and end with.
    pub(super) fn between(known: Option<&'a Application>, now: Option<&'a Application>) -> Self {
        let instances = |app: Option<&'a Application>| app.map_or(&[][..], |app| &app.instances);
        let (mut known, mut now, mut stayed) = (instances(known), instances(now), None);
        while let ([first, known_rest @ ..], [same, now_rest @ ..]) = (known, now)
            && Arc::ptr_eq(first, same)
        {
            (known, now, stayed) = (known_rest, now_rest, Some(first));
        }
        while let ([known_rest @ .., last], [now_rest @ .., same]) = (known, now)
            && Arc::ptr_eq(last, same)
        {
            (known, now, stayed) = (known_rest, now_rest, Some(last));
        }
        Self { known, now, stayed }
    }
}
