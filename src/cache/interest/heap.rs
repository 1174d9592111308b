//! Heap of the copies of the names in use, compared with a copy of a registry that has only these.

use tokio::time::Instant;

use super::list::List;
use super::merge::Merged;
use crate::cache::heap::{APPS, SIZE, body, instance};
use crate::cache::local_copy::LocalCopy;
use crate::config::OfflineConfig;
use crate::model::Applications;
use crate::transport::Resource;

const USED: usize = 3;

#[test]
fn three_of_a_hundred_applications_take_at_most_twice_the_heap_of_a_registry_of_three() {
    let of_app = |app: usize| (0..SIZE).filter(move |at| at % APPS == app).map(|at| instance(at, 0));
    let names: Vec<_> = (0..USED).map(|app| format!("APP{app:03}")).collect();
    let bodies: Vec<_> = (0..USED).map(|app| body(of_app(app))).collect();
    let whole = body((0..USED).flat_map(of_app));
    let (offline, now) = (OfflineConfig::default(), Instant::now());

    let mut kept = None;
    let used = allocation_counter::measure(|| {
        let lists = names.iter().zip(&bodies).map(|(name, body)| {
            let resource = Resource::App(name.as_str().into());
            let mut list = List::restored(&offline, &resource, &[]);
            list.local.apply_full(&Applications::from_json(body).unwrap(), 0, None, now);
            list.snapshot = list.local.snapshot();
            list
        });
        let (lists, mut merged): (Vec<_>, _) = (lists.collect(), Merged::new(Vec::new()));
        let snapshot = merged.lists(lists.iter().map(|list| &list.snapshot), Vec::new());
        assert_eq!(snapshot.instance_count(), USED * SIZE / APPS);
        kept = Some((lists, merged, snapshot));
    });

    let mut kept_whole = None;
    let alone = allocation_counter::measure(|| {
        let mut copy = LocalCopy::new(&offline);
        copy.apply_full(&Applications::from_json(&whole).unwrap(), 0, None, now);
        let snapshot = copy.snapshot();
        assert_eq!(snapshot.instance_count(), USED * SIZE / APPS);
        kept_whole = Some((copy, snapshot));
    });
    let (used, alone) = (used.bytes_current, alone.bytes_current);
    assert!(alone > 0 && used <= 2 * alone, "{used} bytes, {alone} bytes of three alone");
    drop((kept, kept_whole));
}
