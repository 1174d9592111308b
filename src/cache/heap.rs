//! Heap of the copy, as `docs/benchmarks.md` states it.

use tokio::time::Instant;

use super::local_copy::LocalCopy;
use super::snapshot::Snapshot;
use crate::model::{ActionType, Application, Applications, Instance, LeaseInfo, Port};

pub(super) const APPS: usize = 100;
pub(super) const SIZE: usize = 10_000;
/// Documented bytes of heap for an instance of 1 KB.
const DOCUMENTED: u64 = 900;

/// Returns an instance like those of Spring, whose JSON has about 1 KB.
pub(super) fn instance(at: usize, version: i64) -> Instance {
    let (app, host) = (at % APPS, format!("host-{at:06}.prod.example.com"));
    let time = 1_700_000_000_000 + at as i64;
    let built = Instance::builder(format!("app{app:03}")).id(format!("{host}:app{app:03}:8080")).host_name(&host);
    let built = built
        .ip_addr(format!("10.0.{}.{}", at / 256, at % 256))
        .port(8080)
        .metadata("zone", format!("zone-{}", at % 3));
    let built = built.metadata("version", format!("1.{version}")).metadata("management.port", "8081").build().unwrap();
    Instance {
        secure_port: Port { number: 443, enabled: false },
        home_page_url: Some(format!("http://{host}:8080/").into()),
        status_page_url: Some(format!("http://{host}:8081/actuator/info").into()),
        health_check_url: Some(format!("http://{host}:8081/actuator/health").into()),
        secure_vip_address: built.vip_address.clone(),
        lease: Some(LeaseInfo {
            registration_timestamp: time,
            last_renewal_timestamp: time,
            service_up_timestamp: time,
            ..LeaseInfo::default()
        }),
        last_updated_timestamp: Some(time),
        last_dirty_timestamp: Some(time + version),
        action: Some(ActionType::Added),
        ..built
    }
}

pub(super) fn body(instances: impl Iterator<Item = Instance>) -> Vec<u8> {
    let mut applications = vec![Application::default(); APPS];
    for instance in instances {
        let app = instance.app()[3..].parse::<usize>().unwrap();
        applications[app].name = instance.app().into();
        applications[app].instances.push(instance.into());
    }
    applications.retain(|application| !application.instances.is_empty());
    let hash = format!("UP_{SIZE}_");
    let applications = applications.into_iter().map(Into::into).collect();
    Applications { version: Some(1), hash: Some(hash.into()), applications }.to_json()
}

#[test]
fn heap_of_an_instance_is_as_documented_and_stays_so() {
    let full = body((0..SIZE).map(|at| instance(at, 0)));
    assert!((900..1_100).contains(&(full.len() / SIZE)), "{} bytes", full.len() / SIZE);
    let mut held = None::<(LocalCopy, Snapshot)>;
    let first = allocation_counter::measure(|| {
        let mut copy = LocalCopy::new(&crate::config::OfflineConfig::default());
        copy.apply_full(&Applications::from_json(&full).unwrap(), 0, None, Instant::now());
        let snapshot = copy.snapshot();
        held = Some((copy, snapshot));
    });
    let (mut copy, mut snapshot) = held.unwrap();
    let heap = u64::try_from(first.bytes_current).unwrap() / SIZE as u64;
    assert!((DOCUMENTED * 8 / 10..=DOCUMENTED).contains(&heap), "{heap} bytes of heap for each instance");

    // Each instance changes once, in deltas of 100.
    let deltas: Vec<_> = (0..SIZE / 100)
        .map(|delta| {
            body((0..100).map(|at| Instance { action: Some(ActionType::Modified), ..instance(delta * 100 + at, 1) }))
        })
        .collect();
    let changes = allocation_counter::measure(|| {
        for delta in &deltas {
            assert!(copy.apply_delta(&Applications::from_json(delta).unwrap(), None, Instant::now()));
            snapshot = copy.snapshot();
        }
    });
    assert_eq!(snapshot.application("APP000").unwrap().instances[0].last_dirty_timestamp(), Some(1_700_000_000_001));
    // Instances with the same metadata share it until they change.
    let heap = heap as i64 + changes.bytes_current / SIZE as i64;
    assert!(heap <= DOCUMENTED as i64, "{heap} bytes of heap for each instance that changed");
}

#[test]
fn list_in_which_only_heartbeats_changed_is_not_decoded_again() {
    let full = body((0..SIZE).map(|at| instance(at, 0)));
    let mut copy = LocalCopy::new(&crate::config::OfflineConfig::default());
    copy.apply_full(&Applications::from_json(&full).unwrap(), 0, None, Instant::now());
    let before = copy.snapshot();
    let renewed = body((0..SIZE).map(|at| {
        let instance = instance(at, 0);
        let lease = instance.lease.map(|lease| LeaseInfo { last_renewal_timestamp: 1_800_000_000_000, ..lease });
        Instance { lease, ..instance }
    }));
    let mut decoder = crate::model::ListDecoder::new(copy.known(), usize::MAX);
    let decoded = allocation_counter::measure(|| decoder.push(&renewed).unwrap());
    let list = decoder.finish().unwrap().list;
    // The index of what is known, the list, and the skeleton.
    assert!(decoded.bytes_total < 150 * SIZE as u64, "{} bytes", decoded.bytes_total);
    copy.apply_full(&list, 0, None, Instant::now());
    let after = copy.snapshot();
    assert!(before.applications().zip(after.applications()).all(|(a, b)| std::sync::Arc::ptr_eq(a, b)));
}
