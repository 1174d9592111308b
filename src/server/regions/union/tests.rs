use proptest::prelude::*;

use super::*;
use crate::model::{ActionType, InstanceStatus, StatusCounts};
use crate::server::registry::Listing;

/// Status and place of each instance, by application and id.
type Seen = BTreeMap<(String, String), (InstanceStatus, String)>;

fn instance(app: &str, id: &str, status: InstanceStatus, place: &str) -> Instance {
    let built = Instance::builder(app).id(id).ip_addr("10.0.0.1").port(80).metadata("place", place).build().unwrap();
    Instance { status, action: Some(ActionType::Added), ..built }
}

fn put(listing: &Listing, instance: Instance, now: i64) {
    listing.put(instance.id().into(), Record::new(instance), now);
}

fn remove(listing: &Listing, app: &str, id: &str, now: i64) {
    let Some(record) = listing.record(app, id) else { return };
    let ended = Instance { action: Some(ActionType::Deleted), ..(*record.instance).clone() };
    listing.remove(id, Record::new(ended), now);
}

fn union(listings: &[Listing], whitelist: Option<&HashSet<Arc<str>>>, before: Option<Arc<Union>>) -> Arc<Union> {
    union_with(&Merged::default(), listings, whitelist, before)
}

fn union_with(
    merged: &Merged,
    listings: &[Listing],
    whitelist: Option<&HashSet<Arc<str>>>,
    before: Option<Arc<Union>>,
) -> Arc<Union> {
    let snapshots = Listing::snapshots(listings.iter()).into_iter().enumerate();
    let source = |(number, (full, delta))| Source { full, delta, whitelist: whitelist.filter(|_| number == 2) };
    Union::of(snapshots.map(source).collect(), before, merged)
}

fn seen(snapshot: &Snapshot) -> Seen {
    let mut seen = Seen::new();
    apply(&mut seen, snapshot);
    seen
}

/// Applies a list as clients do.
fn apply(seen: &mut Seen, snapshot: &Snapshot) {
    for view in &snapshot.applications {
        for instance in view.records.iter().map(|record| &record.instance) {
            let key = (view.name.to_string(), instance.id().to_owned());
            let place = instance.metadata().get("place").unwrap().to_owned();
            match instance.action().unwrap() {
                ActionType::Deleted => seen.remove(&key),
                _ => seen.insert(key, (instance.status(), place)),
            };
        }
    }
}

#[derive(Clone, Debug)]
enum Step {
    Put(usize, u8, u8, usize),
    Remove(usize, u8, u8),
    /// A client fetches the delta.
    Fetch,
    /// The changes that the client has fetched are removed.
    Prune,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0usize..3, 0u8..3, 0u8..3, 0usize..5).prop_map(|(listing, app, id, status)| Step::Put(listing, app, id, status)),
        3 => (0usize..3, 0u8..3, 0u8..3).prop_map(|(listing, app, id)| Step::Remove(listing, app, id)),
        2 => Just(Step::Fetch),
        1 => Just(Step::Prune),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn client_that_applies_each_delta_has_the_full_list(steps in prop::collection::vec(step(), 0..80)) {
        let listings = [Listing::default(), Listing::default(), Listing::default()];
        let whitelist = HashSet::from(["APP-0".into(), "APP-1".into()]);
        let now = |whole: &Union| seen(&whole.full);
        let merged = Merged::default();
        let mut known = union_with(&merged, &listings, Some(&whitelist), None);
        let (mut client, mut fetched_at) = (now(&known), 0);
        for (at, step) in steps.into_iter().enumerate() {
            let at = at as i64 + 1;
            match step {
                Step::Put(listing, app, id, status) => {
                    let instance = instance(&format!("app-{app}"), &id.to_string(), InstanceStatus::ALL[status], &listing.to_string());
                    put(&listings[listing], instance, at);
                }
                Step::Remove(listing, app, id) => remove(&listings[listing], &format!("APP-{app}"), &id.to_string(), at),
                Step::Prune => listings.iter().for_each(|listing| listing.prune(fetched_at)),
                Step::Fetch => {
                    known = union_with(&merged, &listings, Some(&whitelist), Some(known));
                    apply(&mut client, &known.delta);
                    fetched_at = at;
                    prop_assert_eq!(&client, &now(&known));
                    let counts: StatusCounts = client.values().map(|(status, _)| *status).collect();
                    prop_assert_eq!(counts, known.delta.counts);
                    prop_assert_eq!(counts, known.full.counts);
                    prop_assert!(!client.iter().any(|((app, _), (_, place))| app == "APP-2" && place == "2"));
                }
            }
        }
    }
}

#[test]
fn first_region_is_shown_and_the_next_one_after_it_left() {
    let listings = [Listing::default(), Listing::default(), Listing::default()];
    for (place, listing) in listings.iter().enumerate().rev() {
        put(listing, instance("app", "1", InstanceStatus::Up, &place.to_string()), 1);
    }
    for place in 0..3 {
        let union = union(&listings, None, None);
        let expected = Seen::from([(("APP".into(), "1".into()), (InstanceStatus::Up, place.to_string()))]);
        assert_eq!((seen(&union.full), seen(&union.delta)), (expected.clone(), expected));
        assert_eq!(union.delta.counts.to_string(), "UP_1_");
        remove(&listings[place], "APP", "1", 2);
    }
    let union = union(&listings, None, None);
    assert!(union.full.applications.is_empty() && seen(&union.delta).is_empty());
    assert_eq!(union.delta.applications[0].records.len(), 1, "an instance that left everywhere is deleted");
}

#[test]
fn unchanged_parts_are_shared_with_the_previous_union() {
    let (listings, merged) = ([Listing::default(), Listing::default()], Merged::default());
    for (listing, app) in [(0, "both"), (1, "both"), (0, "here"), (1, "there")] {
        put(&listings[listing], instance(app, &listing.to_string(), InstanceStatus::Up, "x"), 1);
    }
    let first = union_with(&merged, &listings, None, None);
    assert!(Arc::ptr_eq(&union_with(&merged, &listings, None, Some(first.clone())), &first));
    assert!(Arc::ptr_eq(&application(&first.full, "HERE"), &listings[0].application("HERE").unwrap()));
    assert!(Arc::ptr_eq(&application(&first.full, "THERE"), &listings[1].application("THERE").unwrap()));
    put(&listings[1], instance("there", "1", InstanceStatus::Down, "x"), 2);
    let second = union_with(&merged, &listings, None, Some(first.clone()));
    assert!(second.full.revision > first.full.revision && second.delta.revision > first.delta.revision);
    for (name, same) in [("BOTH", true), ("HERE", true), ("THERE", false)] {
        for list in [|union: &Union| union.full.clone(), |union: &Union| union.delta.clone()] {
            let [before, after] = [&first, &second].map(|union| application(&list(union), name));
            assert_eq!(Arc::ptr_eq(&before, &after), same, "{name}");
        }
    }
}

#[test]
fn combinations_that_show_the_same_parts_share_the_application() {
    let (listings, merged) = ([Listing::default(), Listing::default(), Listing::default()], Merged::default());
    for (listing, app) in [(0, "two"), (1, "two"), (0, "all"), (1, "all"), (2, "all")] {
        put(&listings[listing], instance(app, &listing.to_string(), InstanceStatus::Up, "x"), 1);
    }
    let (fewer, more) = (union_with(&merged, &listings[..2], None, None), union_with(&merged, &listings, None, None));
    for list in [|union: &Union| union.full.clone(), |union: &Union| union.delta.clone()] {
        for (name, same) in [("TWO", true), ("ALL", false)] {
            let [fewer, more] = [&fewer, &more].map(|union| application(&list(union), name));
            assert_eq!(Arc::ptr_eq(&fewer, &more), same, "{name}");
        }
    }
    assert_eq!(merged.len(), 6, "each of the two applications whole and in the delta, one of them twice");
    drop((fewer, more));
    merged.evict_unused();
    assert_eq!(merged.len(), 0);
}

fn application(list: &Snapshot, name: &str) -> Arc<AppView> {
    list.applications.iter().find(|view| &*view.name == name).unwrap().clone()
}
