//! Index of the VIP addresses in a list.
//!
//! The index holds hashes of the names, so that its size does not depend on their length. Its keys
//! are random: nobody can choose names with one hash. An application computes its hashes once, and
//! keeps them as long as none of its instances changes.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::sync::{Arc, LazyLock, OnceLock};

use super::application::AppView;
use super::record::Record;
use crate::model::Instance;

static HASHER: LazyLock<RandomState> = LazyLock::new(RandomState::new);
/// Maximum number of names of an application per instance, beside [`SPARE_NAMES`]. An application
/// with more is not indexed, so that a long list of names does not take a multiple of its memory.
const NAMES_PER_INSTANCE: usize = 4;
/// Number of names that each application may have.
const SPARE_NAMES: usize = 64;
/// Number of hashes that are sorted, as a multiple of the names that an application may have.
const MAX_REPETITIONS: usize = 4;

/// Kind of a VIP address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(in crate::server) enum By {
    Vip,
    SecureVip,
}

impl By {
    fn list(self, instance: &Instance) -> Option<&str> {
        match self {
            Self::Vip => instance.vip_address(),
            Self::SecureVip => instance.secure_vip_address(),
        }
    }

    /// Returns true if the instance has this address. As in Java, the comparison is exact and
    /// includes blanks.
    pub(in crate::server) fn matches(self, name: &str, instance: &Instance) -> bool {
        self.list(instance).is_some_and(|names| names.split(',').any(|n| n == name))
    }
}

/// One value for each kind of address.
#[derive(Debug, Default)]
struct PerKind<T>([T; 2]);

impl<T> PerKind<T> {
    fn of(&self, by: By) -> &T {
        &self.0[by as usize]
    }
}

/// Hashes of the names of one application, without duplicates. `None` if it has too many.
#[derive(Debug, Default)]
pub(super) struct VipHashes(PerKind<OnceLock<Option<Box<[u64]>>>>);

impl VipHashes {
    fn get(&self, by: By, records: &[Arc<Record>]) -> Option<&[u64]> {
        self.0.of(by).get_or_init(|| hashes(by, records)).as_deref()
    }
}

/// Index of a list. It is built by the first search after a change of the list.
#[derive(Debug, Default)]
pub(super) struct VipIndex(PerKind<OnceLock<Entries>>);

/// Positions of applications.
#[derive(Debug)]
struct Entries {
    /// Hash of a name, and the position of an application that has it, in this order.
    by_hash: Box<[(u64, u32)]>,
    /// Applications that have too many names.
    others: Box<[u32]>,
}

impl VipIndex {
    /// Returns the positions of the applications that may have an instance with this address, in
    /// the order of the list.
    pub(super) fn candidates(&self, by: By, name: &str, applications: &[Arc<AppView>]) -> Vec<usize> {
        let Entries { by_hash, others } = self.0.of(by).get_or_init(|| Entries::of(by, applications));
        let hash = HASHER.hash_one(name);
        let first = by_hash.partition_point(|(other, _)| *other < hash);
        let found = by_hash[first..].iter().take_while(|(other, _)| *other == hash).map(|(_, position)| position);
        let mut positions: Vec<_> = found.chain(others).map(|position| *position as usize).collect();
        positions.sort_unstable();
        positions
    }
}

impl Entries {
    fn of(by: By, applications: &[Arc<AppView>]) -> Self {
        let (mut by_hash, mut others) = (Vec::new(), Vec::new());
        for (position, application) in (0..).zip(applications) {
            match application.vips.get(by, &application.records) {
                Some(hashes) => by_hash.extend(hashes.iter().map(|hash| (*hash, position))),
                None => others.push(position),
            }
        }
        by_hash.sort_unstable();
        Self { by_hash: by_hash.into(), others: others.into() }
    }
}

fn hashes(by: By, records: &[Arc<Record>]) -> Option<Box<[u64]>> {
    let limit = records.len() * NAMES_PER_INSTANCE + SPARE_NAMES;
    let (mut hashes, mut before) = (Vec::new(), None);
    for record in records {
        let list = by.list(&record.instance);
        // Usually all instances have the same addresses.
        if list != before {
            hashes.extend(list.into_iter().flat_map(|list| list.split(',')).map(|name| HASHER.hash_one(name)));
            before = list;
        }
        if hashes.len() > limit * MAX_REPETITIONS {
            return None;
        }
    }
    hashes.sort_unstable();
    hashes.dedup();
    (hashes.len() <= limit).then(|| hashes.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn application(name: &str, vips: &[&str]) -> Arc<AppView> {
        let record = |(number, vips): (usize, &&str)| {
            let instance = Instance::builder(name).id(format!("{name}-{number}")).host_name("h").ip_addr("1.1.1.1");
            let mut instance = instance.port(80).build().unwrap();
            instance.vip_address = Some((*vips).into());
            instance.secure_vip_address = None;
            Record::new(instance)
        };
        AppView::new(name.into(), vips.iter().enumerate().map(record).collect())
    }

    #[test]
    fn index_finds_the_applications_with_a_name_and_no_others() {
        let applications =
            [application("A", &["a", "a,both"]), application("B", &["b,both,"]), application("C", &["c, spaced"])];
        let index = VipIndex::default();
        for (name, expected) in [
            ("a", vec![0]),
            ("b", vec![1]),
            ("both", vec![0, 1]),
            ("c", vec![2]),
            (" spaced", vec![2]),
            ("spaced", vec![]),
            ("", vec![1]),
            ("A", vec![]),
            ("nobody", vec![]),
        ] {
            assert_eq!(index.candidates(By::Vip, name, &applications), expected, "{name:?}");
            assert!(index.candidates(By::SecureVip, name, &applications).is_empty(), "{name:?}");
        }
    }

    #[test]
    fn application_with_very_many_names_is_a_candidate_for_each_name() {
        let many: String = (0..1_000).map(|n| format!("n{n},")).collect();
        let applications = [application("A", &["a"]), application("B", &[&many, "b"]), application("C", &["a"])];
        let index = VipIndex::default();
        assert_eq!(index.candidates(By::Vip, "n7", &applications), [1]);
        assert_eq!(index.candidates(By::Vip, "a", &applications), [0, 1, 2]);
    }

    #[test]
    fn repeated_names_do_not_count_as_many() {
        let names: Vec<_> = (0..1_000).map(|n| if n % 2 == 0 { "a,b" } else { "a" }).collect();
        let index = VipIndex::default();
        let applications = [application("A", &names)];
        assert!(index.candidates(By::Vip, "c", &applications).is_empty());
        assert_eq!(index.candidates(By::Vip, "b", &applications), [0]);
    }
}
