use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use tokio::time::{advance, sleep};

use super::*;
use crate::cache::lookup::Lookup;
use crate::config::{OfflineConfig, ServiceUrl};
use crate::model::Instance;

const MINUTE: Duration = Duration::from_secs(60);

fn path(name: &str) -> PathBuf {
    std::env::temp_dir().join(format!("tower-eureka-file-{}-{name}", std::process::id()))
}

fn file(path: PathBuf) -> Arc<RegistryFile> {
    let offline = OfflineConfig { file: Some(path), ..OfflineConfig::default() };
    let service_urls = ServiceUrl::parse_list("http://registry/").unwrap();
    RegistryFile::of(&ClientConfig { offline, service_urls, ..ClientConfig::default() }).unwrap()
}

/// Returns a snapshot with one instance.
fn snapshot(id: &str) -> Arc<Snapshot> {
    let instance = Instance::builder("orders").id(id).ip_addr("10.0.0.1").port(80).build().unwrap();
    let application = Application { name: "ORDERS".into(), instances: vec![Arc::new(instance)] };
    Arc::new(Snapshot::of([Arc::new(application)]))
}

/// Waits until no save is running.
async fn settled(file: &RegistryFile) {
    while file.latest.lock().running.strong_count() > 0 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(start_paused = true)]
async fn changing_registry_is_saved_at_most_every_few_minutes() {
    let file = file(path("changing"));
    let mut saved = BTreeSet::new();
    for fetch in 0..60 {
        file.fetched(snapshot(&fetch.to_string()));
        settled(&file).await;
        saved.insert(file.written.lock().number);
        sleep(MINUTE / 2).await;
    }
    // 30 minutes: at the start, and then about every five minutes.
    assert!((6..=8).contains(&saved.len()), "{saved:?}");
    file.close().await;
    assert_eq!(file.written.lock().number, 60, "the close saves the last state");
    let restored = file.restore().await.unwrap();
    assert_eq!(restored.list.applications[0].instances[0].id(), "59");
    fs::remove_file(&file.saved.path).unwrap();
}

#[tokio::test(start_paused = true)]
async fn unchanged_registry_is_saved_only_to_stay_young() {
    let file = file(path("unchanged"));
    file.fetched(snapshot("a"));
    settled(&file).await;
    for (advanced, number) in [(170, 1), (11, 3)] {
        advance(MINUTE * advanced).await;
        crate::time::move_wall_clock(i64::from(advanced) * 60_000);
        file.fetched(snapshot("a"));
        settled(&file).await;
        assert_eq!(file.written.lock().number, number, "after {advanced} more minutes");
    }
    // One that was deleted is saved again.
    fs::remove_file(&file.saved.path).unwrap();
    file.close().await;
    assert!(file.saved.path.exists());
    fs::remove_file(&file.saved.path).unwrap();
}

#[tokio::test(start_paused = true)]
async fn process_that_restarts_unchanged_saves_nothing() {
    let first = file(path("restarted"));
    first.fetched(snapshot("a"));
    first.close().await;
    settled(&first).await;
    let second = file(first.saved.path.clone());
    assert!(second.restore().await.is_some());
    second.fetched(snapshot("a"));
    settled(&second).await;
    assert_eq!(second.written.lock().number, 0);
    second.fetched(snapshot("b"));
    second.close().await;
    assert_eq!(second.written.lock().number, 2);
    fs::remove_file(&first.saved.path).unwrap();
}

#[tokio::test(start_paused = true)]
async fn static_instances_are_not_saved() {
    let fixed = snapshot("fixed").applications().next().unwrap().clone();
    let offline =
        OfflineConfig { file: Some(path("static")), instances: vec![fixed.clone()], ..OfflineConfig::default() };
    let service_urls = ServiceUrl::parse_list("http://registry/").unwrap();
    let file = RegistryFile::of(&ClientConfig { offline, service_urls, ..ClientConfig::default() }).unwrap();
    let other = Arc::new(Application { name: "STOCK".into(), instances: fixed.instances.clone() });
    file.fetched(Arc::new(Snapshot::of([fixed, other])));
    file.close().await;
    let restored = file.restore().await.unwrap().list;
    assert_eq!(restored.applications.iter().map(|app| &*app.name).collect::<Vec<_>>(), ["STOCK"]);
    fs::remove_file(&file.saved.path).unwrap();
}

#[tokio::test(start_paused = true)]
async fn names_that_are_not_used_yet_stay_in_the_file_until_they_are_too_old() {
    let path = path("unused");
    let file = |interest| {
        let offline = OfflineConfig { file: Some(path.clone()), ..OfflineConfig::default() };
        let service_urls = ServiceUrl::parse_list("http://registry/").unwrap();
        RegistryFile::of(&ClientConfig { offline, service_urls, interest, ..ClientConfig::default() }).unwrap()
    };
    let named = |name: &str, id: &str| {
        let instance = Instance { instance_id: Some(id.into()), ..Instance::bare(name.into()) };
        Arc::new(Application { name: name.into(), instances: vec![Arc::new(instance)] })
    };
    let ids = |list: &Applications| -> BTreeSet<String> {
        list.applications.iter().flat_map(|app| &app.instances).map(|instance| instance.id().to_owned()).collect()
    };
    let first = file(Interest::All);
    first.fetched(Arc::new(Snapshot::of([named("A", "a1"), named("B", "b1")])));
    first.close().await;
    settled(&first).await;

    let second = file(Interest::Used);
    second.restore().await.unwrap();
    let used = || {
        let applications = Snapshot::of([named("A", "a2")]).applications;
        Arc::new(Snapshot::partial(applications, Arc::default(), vec![Lookup::App("A".into())]))
    };
    crate::time::move_wall_clock(3_600_000);
    second.fetched(used());
    second.close().await;
    settled(&second).await;
    let restored = second.saved.load(wall_clock_ms()).unwrap().unwrap();
    assert_eq!(ids(&restored.list), ["a2", "b1"].map(String::from).into());
    assert!(restored.oldest_ms < restored.fetched_ms);

    crate::time::move_wall_clock(second.saved.max_age.as_millis() as i64);
    second.fetched(used());
    second.close().await;
    let restored = second.saved.load(wall_clock_ms()).unwrap().unwrap();
    assert_eq!(ids(&restored.list), ["a2".to_owned()].into());
    assert_eq!(restored.oldest_ms, restored.fetched_ms);
    fs::remove_file(&path).unwrap();
}
