use std::io::Read;

use flate2::read::{GzDecoder, MultiGzDecoder};
use proptest::prelude::*;

use super::*;
use crate::model::{Application, Applications, Instance, Metadata};
use crate::server::registry::{Origin, Settings};

fn instance(app: &str, id: &str, status: InstanceStatus, note: &str) -> Instance {
    let mut instance = Instance::builder(app).id(id).host_name("h").ip_addr("10.0.0.1").port(80).build().unwrap();
    instance.status = status;
    instance.vip_address = Some(note.into());
    instance.metadata = [("note", note)].into_iter().collect::<Metadata>();
    instance
}

fn gunzip(body: &[u8]) -> Vec<u8> {
    let mut plain = Vec::new();
    GzDecoder::new(body).read_to_end(&mut plain).expect("one gzip member");
    let mut multi = Vec::new();
    MultiGzDecoder::new(body).read_to_end(&mut multi).expect("nothing behind it");
    assert_eq!(plain, multi);
    plain
}

fn filled(entries: &[(u8, u8, usize, String)]) -> Arc<Registry> {
    let registry = Arc::new(Registry::new(Settings::default()));
    for (now, (app, id, status, note)) in entries.iter().enumerate() {
        let status = InstanceStatus::ALL[status % 5];
        let instance = instance(&format!("app-{}", app % 5), &format!("i:{id}"), status, note);
        registry.register(instance, Origin::Replica, now as i64).unwrap();
        if note.len() % 7 == 6 {
            registry.cancel(&format!("APP-{}", app % 5), &format!("i:{id}"), now as i64);
        }
    }
    registry
}

/// What the codec writes of the same registry in one go.
fn encoded_in_one_go(snapshot: &Snapshot) -> Vec<u8> {
    let applications = snapshot.applications.iter().map(|view| {
        let instances = view.records.iter().map(|record| record.instance.clone()).collect();
        Arc::new(Application { name: view.name.clone(), instances })
    });
    let hash = Some(snapshot.counts.to_string().into());
    Applications { version: Some(snapshot.version), hash, applications: applications.collect() }.to_json()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn assembled_is_encoded_and_gzip_is_plain(
        entries in prop::collection::vec((any::<u8>(), 0u8..20, any::<usize>(), "\\PC{0,40}"), 0..60),
    ) {
        let registry = filled(&entries);
        for snapshot in [registry.full(), registry.delta()] {
            let of = |encoding| json::applications(snapshot.version, &snapshot.counts, &snapshot.applications, encoding);
            let plain = of(Encoding::Identity);
            prop_assert_eq!(&plain[..], &encoded_in_one_go(&snapshot)[..]);
            prop_assert_eq!(&gunzip(&of(Encoding::Gzip))[..], &plain[..]);
        }
        let full = registry.full();
        for view in &full.applications {
            prop_assert_eq!(&gunzip(&application(view, Encoding::Gzip))[..], &application(view, Encoding::Identity)[..]);
        }
        let counts: StatusCounts = full.applications.iter().flat_map(|a| &a.records).map(|r| r.instance.status).collect();
        prop_assert_eq!(counts, full.counts);
    }

    #[test]
    fn a_block_of_any_text_comes_back(text in prop::collection::vec(any::<u8>(), 0..100_000), stored in any::<bool>()) {
        let block = Block::compress(&text);
        let mut member = gzip::Member::with_room_for(std::iter::once(&block));
        if stored {
            member.text(&text);
        }
        member.block(&block);
        member.block(&block);
        let plain = gunzip(&member.finish());
        prop_assert_eq!(plain, text.repeat(if stored { 3 } else { 2 }));
    }
}

#[tokio::test]
async fn nothing_is_encoded_again_without_a_change() {
    let registry = filled(&[(0, 0, 4, "a".into()), (1, 0, 4, "b".into())]);
    let bodies = Bodies::default();
    for encoding in [Encoding::Identity, Encoding::Gzip] {
        let (full, delta) = (bodies.full(&registry, encoding).await, bodies.delta(&registry, encoding).await);
        assert_eq!(bodies.full(&registry, encoding).await.as_ptr(), full.as_ptr());
        assert_eq!(bodies.delta(&registry, encoding).await.as_ptr(), delta.as_ptr());
        registry.renew("APP-0", "i:0", None, Origin::Client, 50);
        assert_eq!(bodies.full(&registry, encoding).await.as_ptr(), full.as_ptr(), "a heartbeat changes nothing");
    }
}

#[tokio::test]
async fn a_change_costs_the_application_that_changed() {
    let registry = filled(&[(0, 0, 4, "a".into()), (1, 0, 4, "b".into())]);
    let bodies = Bodies::default();
    let before = registry.full();
    let old = bodies.full(&registry, Encoding::Gzip).await;
    registry.register(instance("app-1", "i:1", InstanceStatus::Up, "c"), Origin::Client, 100).unwrap();
    let new = bodies.full(&registry, Encoding::Gzip).await;
    assert_ne!(old, new);
    let after = registry.full();
    assert!(Arc::ptr_eq(&before.applications[0], &after.applications[0]));
    assert!(!Arc::ptr_eq(&before.applications[1], &after.applications[1]));
    assert!(Arc::ptr_eq(&before.applications[1].records[0], &after.applications[1].records[0]));
}

#[test]
fn a_selection_shares_applications_that_match_whole() {
    let registry =
        filled(&[(0, 0, 4, "x".into()), (0, 1, 0, "x".into()), (1, 0, 4, "x".into()), (1, 1, 4, "y".into())]);
    let full = registry.full();
    let body = selection(&full, Encoding::Gzip, |instance| instance.vip_address() == Some("x"));
    let selected = Applications::from_json(&gunzip(&body)).unwrap();
    assert_eq!((selected.version, selected.hash.as_deref()), (Some(-1), Some("DOWN_1_UP_2_")));
    assert_eq!(selected.applications.iter().map(|a| a.instances.len()).collect::<Vec<_>>(), [2, 1]);
    assert!(Arc::ptr_eq(&select(&full.applications[0], |_| true).unwrap(), &full.applications[0]));
}
