//! Random operations on the registry and on a [`Reference`] written from the rules: all results and
//! all visible states agree.
//!
//! `EUREKA_MODEL_OPERATIONS` sets the number of operations. Defaults to 50,000; `cargo test
//! --release` does a million in seconds. `EUREKA_MODEL_SEED` repeats a failure.

mod measures;
mod operation;
mod reference;

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::str::FromStr;
use std::time::Duration;

use self::operation::Operation;
use self::reference::{Key, Reference};
use super::*;

/// Number of operations after which a registry with other settings replaces the present one.
const OPERATIONS_PER_REGISTRY: u64 = 5_000;
/// Number of operations between two comparisons of the whole state.
const WHOLE_STATE_EVERY: u64 = 16;

#[test]
fn registry_agrees_with_the_reference_on_random_operations() {
    let operations = variable("EUREKA_MODEL_OPERATIONS").unwrap_or(50_000);
    let seed = variable("EUREKA_MODEL_SEED");
    let first = seed.unwrap_or_else(|| fastrand::u64(..));
    let mut left = operations;
    for run in 0.. {
        let operations = left.min(OPERATIONS_PER_REGISTRY);
        Run::new(first.wrapping_add(run)).go(operations);
        left -= operations;
        if left == 0 {
            break;
        }
    }
}

fn variable<T: FromStr<Err: Debug>>(name: &str) -> Option<T> {
    std::env::var(name).ok().map(|value| value.replace('_', "").parse().expect("a whole number"))
}

struct Run {
    seed: u64,
    rng: fastrand::Rng,
    now: i64,
    registry: Registry,
    reference: Reference,
    /// Last operations, printed on failure.
    history: Vec<String>,
    /// Revision of the registry and number of changes of the reference at the last comparison.
    seen: (u64, u64),
}

impl Drop for Run {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("EUREKA_MODEL_SEED={} EUREKA_MODEL_OPERATIONS={OPERATIONS_PER_REGISTRY} repeats it", self.seed);
            eprintln!("the last operations:\n{}", self.history.join("\n"));
        }
    }
}

impl Run {
    fn new(seed: u64) -> Self {
        let mut rng = fastrand::Rng::with_seed(seed);
        let settings = Settings {
            lease_doubling: rng.bool(),
            self_preservation: rng.u8(..3) > 0,
            preservation_by_application: rng.bool(),
            renewal_percent_threshold: *rng.choice(&[0.85, 0.5, 0.1, 1.0]).unwrap(),
            expected_renewal_interval: Duration::from_secs(*rng.choice(&[30, 15, 300]).unwrap()),
            eviction_interval: Duration::from_secs(*rng.choice(&[1, 60]).unwrap()),
            delta_retention: Duration::from_secs(*rng.choice(&[0, 180]).unwrap()),
            metadata_limit: *rng.choice(&[4, 1_000]).unwrap(),
            application_limit: *rng.choice(&[1, 3, 1_000]).unwrap(),
            applications_limit: *rng.choice(&[2, 1_000, 1_000]).unwrap(),
            name_limit: *rng.choice(&[10, 1_024, 1_024]).unwrap(),
            instance_size_limit: *rng.choice(&[250, 64 * 1024, 64 * 1024]).unwrap(),
            registry_limit: *rng.choice(&[2, 5, 1_000]).unwrap(),
            registry_size_limit: *rng.choice(&[4_000, 8_000, 20_000, 1_000_000]).unwrap(),
            lease_limit_secs: *rng.choice(&[60, 86_400, i32::MAX]).unwrap(),
            ..Settings::default()
        };
        Self {
            seed,
            rng,
            now: 1_700_000_000_000,
            registry: Registry::new(settings.clone()),
            reference: Reference::new(settings),
            history: Vec::new(),
            seen: (0, 0),
        }
    }

    fn go(&mut self, operations: u64) {
        for number in 1..=operations {
            let operation = Operation::random(&mut self.rng, &self.reference, self.now);
            if self.history.len() == 20 {
                self.history.remove(0);
            }
            self.history.push(format!("{number} at {}: {operation:?}", self.now));
            self.apply(operation);
            if number % WHOLE_STATE_EVERY == 0 || number == operations {
                self.compare();
            }
        }
    }

    fn apply(&mut self, operation: Operation) {
        let Self { registry, reference, now, .. } = self;
        let now_ms = *now;
        match operation {
            Operation::Wait(ms) => *now += ms,
            Operation::Register(instance, origin) => {
                assert_eq!(
                    registry.register((*instance).clone(), origin, now_ms).map(|done| done.refused),
                    reference.register(*instance, origin, now_ms)
                );
            }
            Operation::Renew(key, dirty, origin) => assert_eq!(
                registry.renew(&key.0, &key.1, dirty, origin, now_ms),
                reference.renew(&key, dirty, origin, now_ms)
            ),
            Operation::Cancel(key) => {
                assert_eq!(registry.cancel(&key.0, &key.1, now_ms).is_some(), reference.cancel(&key, now_ms));
            }
            Operation::SetOverride(key, status, dirty) => assert_eq!(
                registry.set_override(&key.0, &key.1, status, dirty, now_ms).is_found(),
                reference.set_override(&key, status, dirty, now_ms)
            ),
            Operation::DeleteOverride(key, status, dirty) => assert_eq!(
                registry.delete_override(&key.0, &key.1, status, dirty, now_ms).is_found(),
                reference.delete_override(&key, status, dirty, now_ms)
            ),
            Operation::StoreOverride(key, status) => {
                registry.store_override(&key.0, &key.1, status, now_ms);
                reference.store_override(&key, status, now_ms);
            }
            Operation::MergeMetadata(key, entries) => assert_eq!(
                registry.merge_metadata(&key.0, &key.1, entries.clone(), now_ms).map(|done| done.is_some()),
                reference.merge_metadata(&key, &entries, now_ms)
            ),
            Operation::Read(key) => {
                assert_eq!(registry.instance(&key.0, &key.1, now_ms), reference.instance(&key, now_ms));
            }
            Operation::ReadById(id) => {
                assert_eq!(registry.instance_by_id(&id, now_ms), reference.instance_by_id(&id, now_ms));
            }
            Operation::Evict(seed) => assert_eq!(
                registry.evict(&mut fastrand::Rng::with_seed(seed), now_ms),
                reference.evict(&mut fastrand::Rng::with_seed(seed), now_ms)
            ),
            Operation::EndMinute => {
                registry.end_minute();
                reference.end_minute();
            }
            Operation::Prune => {
                registry.prune_delta(now_ms);
                reference.prune(now_ms);
            }
        }
    }

    fn compare(&mut self) {
        let Self { registry, reference, now, seen, .. } = self;
        let full = registry.full();
        assert_eq!(listed(&full), reference.full());
        assert!(full.applications.is_sorted_by(|a, b| a.name < b.name), "applications are sorted and unique");
        assert_eq!((full.version, full.counts), (1, reference.counts()));
        assert_eq!(full.counts.to_string(), reference.hash());
        assert_eq!(registry.size(), full.counts.total());
        let (weight, deleted) = registry.listing.weights();
        assert_eq!(weight, reference.weight());
        assert!(weight + deleted <= registry.settings.registry_size_limit, "{weight} + {deleted}");
        let (revision, changes) = *seen;
        assert_eq!(registry.revision() != revision, reference.full_changes != changes, "each revision is a change");
        assert_eq!(full.revision, registry.revision());
        *seen = (registry.revision(), reference.full_changes);

        let (version, changes) = reference.delta();
        let delta = registry.delta();
        assert_eq!(listed(&delta), changes);
        assert_eq!((delta.version, delta.counts), (version, full.counts));

        for app in operation::APPS {
            assert_eq!(registry.is_expiration_enabled(app), reference.is_expiration_enabled(app), "{app}");
            let view = registry.application(app).map(|view| view.records.len());
            assert_eq!(view, reference.full().get(app).map(Vec::len), "{app}");
            for id in operation::IDS {
                let key: Key = (app.into(), id.into());
                assert_eq!(registry.instance(app, id, *now), reference.instance(&key, *now), "{app}/{id}");
            }
        }
    }
}

fn listed(snapshot: &Snapshot) -> BTreeMap<String, Vec<Instance>> {
    let applications = snapshot.applications.iter();
    applications
        .map(|view| (view.name.to_string(), view.records.iter().map(|record| (*record.instance).clone()).collect()))
        .collect()
}
