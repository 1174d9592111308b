//! Start and calls while the registry is away, empty, incomplete or wrong.

use std::convert::Infallible;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use tokio::time::{Instant, sleep};
use tokio_stream::StreamExt;
use tower::discover::Change;
use tower::{Layer, ServiceExt, service_fn};
use tower_eureka::cache::Disappearance;
use tower_eureka::client::{AttemptBody, EurekaLayer};
use tower_eureka::model::ActionType;
use tower_eureka::{Error, Eureka, EurekaBuilder, Instance};

use crate::captured_log::Log;
use crate::common::{Asked, Reply, Scripted, delta, instance, list};

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const FULL: &str = "GET /apps/";

/// File of one test, removed at its end.
struct File(PathBuf);

impl File {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("tower-eureka-offline-{}-{name}", std::process::id()));
        let _ = fs::remove_file(&path);
        Self(path)
    }

    /// Lets a client save these instances.
    async fn save(&self, instances: &[Instance]) {
        let json = list(instances);
        let client = Scripted::new(move |_| Reply::Json(json.clone())).client().registry_file(&self.0).build().unwrap();
        client.snapshot();
        while !self.0.exists() {
            sleep(SECOND).await;
        }
    }
}

impl Drop for File {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// Returns instances of ORDERS whose host names are their ids.
fn orders(ids: &[&str]) -> Vec<Instance> {
    let order = |id| Instance::builder("orders").id(id).host_name(id).ip_addr("127.0.0.1").port(1).build().unwrap();
    ids.iter().copied().map(order).collect()
}

/// Calls ORDERS by name. Returns the host of the instance that was called.
async fn call(eureka: &Eureka) -> Result<String, Error> {
    let below = service_fn(|request: Request<AttemptBody<Full<Bytes>>>| async move {
        let host = request.uri().host().unwrap().to_owned();
        Ok::<_, Infallible>(Response::new(Full::<Bytes>::from(host)))
    });
    let request = Request::get("http://orders/").body(Full::default()).unwrap();
    let response = EurekaLayer::new(eureka).layer(below).oneshot(request).await?;
    Ok(String::from_utf8(response.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap())
}

fn names(path: &Path) -> Vec<String> {
    let (folder, name) = (path.parent().unwrap(), path.file_name().unwrap().to_string_lossy().into_owned());
    let all = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned());
    all.filter(|found| found.starts_with(&name)).collect()
}

#[tokio::test(start_paused = true)]
async fn process_with_a_file_calls_at_once_while_the_registry_is_away() {
    let file = File::new("away");
    file.save(&orders(&["a", "b"])).await;
    let faults: [fn() -> Reply; 5] = [
        || Reply::Never,
        || Reply::Status(503),
        || Reply::Breaks,
        || Reply::Json("<html>".into()),
        || Reply::Json(list(&[])),
    ];
    for fault in faults {
        let eureka = Scripted::new(move |_| fault()).client().registry_file(&file.0).build().unwrap();
        let start = Instant::now();
        let host = call(&eureka).await.unwrap();
        assert!(["a", "b"].contains(&&*host), "{host}");
        assert!(start.elapsed() < Duration::from_millis(100), "{:?}", start.elapsed());
        sleep(10 * MINUTE).await;
        assert!(call(&eureka).await.is_ok());
    }
    assert_eq!(names(&file.0).len(), 1, "no temporary file remains");
}

#[tokio::test(start_paused = true)]
async fn file_is_stale_until_a_fetch_replaces_it() {
    let file = File::new("stale");
    file.save(&orders(&["a", "b", "c"])).await;
    let start = Instant::now();
    let registry = Scripted::new(move |_| match start.elapsed().as_secs() {
        0..60 => Reply::Status(503),
        _ => Reply::Json(list(&orders(&["b", "d", "e"]))),
    });
    let eureka = registry.client().registry_file(&file.0).build().unwrap();
    let explainer = eureka.discover("orders").unwrap().explainer();
    let ids = || eureka.snapshot().application("orders").map_or(0, |application| application.instances.len());
    while ids() == 0 {
        sleep(SECOND / 10).await;
    }
    sleep(SECOND).await;
    let explanation = explainer.explain();
    assert!(explanation.is_stale() && explanation.age().is_none() && ids() == 3, "{explanation}");
    assert!(explanation.to_string().contains("503"), "{explanation}");
    sleep(2 * MINUTE).await;
    assert!(!explainer.explain().is_stale());
    let snapshot = eureka.snapshot();
    let found: Vec<_> = snapshot.application("orders").unwrap().instances.iter().map(|i| i.id().to_owned()).collect();
    assert_eq!(found, ["b", "d", "e"], "as many others appeared");
}

#[tokio::test(start_paused = true)]
async fn unusable_file_is_one_warning_and_replaced_by_the_next_fetch() {
    type Spoil = fn(&Path);
    let spoils: [(&str, Spoil); 4] = [
        ("corrupt", |path| fs::write(path, "{}").unwrap()),
        ("cut off", |path| fs::write(path, &fs::read(path).unwrap()[..300]).unwrap()),
        ("another registry", |path| {
            let other = fs::read_to_string(path).unwrap().replace("http://registry/", "http://elsewhere/");
            let lines = &other[..other.rfind("crc32").unwrap()];
            let mut crc = flate2::Crc::new();
            crc.update(lines.as_bytes());
            fs::write(path, format!("{lines}crc32 {:08x}\n", crc.sum())).unwrap();
        }),
        ("larger than 131072 bytes", |path| fs::write(path, vec![b'x'; 140_000]).unwrap()),
    ];
    for (why, spoil) in spoils {
        let file = File::new("spoiled");
        file.save(&orders(&["a"])).await;
        spoil(&file.0);
        let (log, guard) = Log::start(tracing::Level::WARN);
        let start = Instant::now();
        let registry = Scripted::new(move |_| match start.elapsed().as_secs() {
            0..5 => Reply::Status(503),
            _ => Reply::Json(list(&orders(&["b"]))),
        });
        let eureka = registry.client().registry_file(&file.0).body_limit(1 << 16).build().unwrap();
        assert!(call(&eureka).await.is_err(), "{why}");
        sleep(10 * MINUTE).await;
        assert_eq!(call(&eureka).await.unwrap(), "b");
        drop(guard);
        let warnings: Vec<_> =
            log.text().lines().filter(|line| line.contains("registry file")).map(str::to_owned).collect();
        assert!(warnings.len() == 1 && warnings[0].contains(why), "{why}: {warnings:?}");
        assert!(fs::read_to_string(&file.0).unwrap().contains(r#""instanceId":"b""#), "{why}");
    }
}

#[tokio::test(start_paused = true)]
async fn unwritable_file_is_one_warning() {
    let (log, guard) = Log::start(tracing::Level::WARN);
    let missing = std::env::temp_dir().join("tower-eureka-no-such-folder/registry");
    let turn = std::sync::atomic::AtomicUsize::new(0);
    let registry = Scripted::new(move |_| {
        let turn = turn.fetch_add(1, std::sync::atomic::Ordering::Relaxed).to_string();
        Reply::Json(list(&orders(&["a", &turn])))
    });
    let eureka = registry.client().delta(false).registry_file(missing).build().unwrap();
    assert!(call(&eureka).await.is_ok());
    sleep(60 * MINUTE).await;
    assert!(call(&eureka).await.is_ok());
    drop(guard);
    let text = log.text();
    assert_eq!(text.matches("registry file").count(), 1, "{text}");
    assert!(text.contains("check that its folder exists"), "{text}");
}

#[tokio::test(start_paused = true)]
async fn empty_list_is_never_saved() {
    let file = File::new("empty");
    let start = Instant::now();
    let registry = Scripted::new(move |_| match start.elapsed().as_secs() {
        0..60 => Reply::Json(list(&orders(&["a"]))),
        _ => Reply::Json(list(&[])),
    });
    let eureka = registry.client().registry_file(&file.0).build().unwrap();
    call(&eureka).await.unwrap();
    sleep(60 * MINUTE).await;
    assert!(fs::read_to_string(&file.0).unwrap().contains(r#""instanceId":"a""#));
    // The next process has it as well.
    let next = Scripted::new(|_| Reply::Json(list(&[]))).client().registry_file(&file.0).build().unwrap();
    assert_eq!(call(&next).await.unwrap(), "a");
}

type Shared<T> = Arc<Mutex<Vec<T>>>;

/// Records the instances of ORDERS that a caller lost, with their times in seconds.
fn losses(client: &Eureka, start: Instant) -> (Shared<String>, Shared<(u64, String)>) {
    let mut orders = client.discover("orders").unwrap();
    let (present, lost) = (Shared::<String>::default(), Shared::<(u64, String)>::default());
    let (now, gone) = (present.clone(), lost.clone());
    tokio::spawn(async move {
        while let Some(Ok(change)) = orders.next().await {
            match change {
                Change::Insert(id, _) => {
                    now.lock().unwrap().retain(|known| **known != *id);
                    now.lock().unwrap().push(id.to_string());
                }
                Change::Remove(id) => {
                    now.lock().unwrap().retain(|known| **known != *id);
                    gone.lock().unwrap().push((start.elapsed().as_secs(), id.to_string()));
                }
            }
        }
    });
    (present, lost)
}

/// Registry whose faults follow each other, while `a`, `b` and `c` live.
fn trouble(asked: &Asked, second: u64) -> Reply {
    let alive = || Reply::Json(list(&[orders(&["a", "b", "c"]), vec![instance("stock", "s")]].concat()));
    let is_full = asked.line == FULL;
    let wrong = |entries: &[(Instance, ActionType)]| Reply::Json(delta(entries, "UP_99_"));
    let deleted = |ids: &[&str]| orders(ids).into_iter().map(|o| (o, ActionType::Deleted)).collect::<Vec<_>>();
    match second {
        // Killed for ten minutes.
        60..660 => match second % 4 {
            0 => Reply::Never,
            1 => Reply::Breaks,
            _ => Reply::Status(502),
        },
        // Restarted without its content, until all have registered again.
        660..720 if is_full => Reply::Json(list(&[])),
        660..720 => Reply::Json(delta(&[], "")),
        720..750 if is_full => Reply::Json(list(&orders(&["b"]))),
        750..780 if is_full => Reply::Json(list(&orders(&["b", "c"]))),
        720..780 => wrong(&[]),
        // Poisoned: a page, half a body, wrong hashes, the content of another registry, emptied.
        900..960 => Reply::With {
            status: 200,
            headers: vec![("content-type", "text/html".into())],
            body: "<html>login</html>".into(),
        },
        960..1020 => {
            let whole = list(&orders(&["a", "b", "c"]));
            Reply::Json(whole[..whole.len() / 2].to_owned())
        }
        1020..1200 if !is_full => wrong(&deleted(&["a", "b", "c"])),
        1200..1260 => Reply::Json(list(&[instance("foreign", "x"), instance("other", "y")])),
        1320..1380 => Reply::Json(list(&[])),
        // A deployment once all is well.
        1800.. if is_full => Reply::Json(list(&[orders(&["a", "b", "d"]), vec![instance("stock", "s")]].concat())),
        1800..1980 => {
            let added = orders(&["d"]).into_iter().map(|o| (o, ActionType::Added));
            Reply::Json(delta(&added.chain(deleted(&["c"])).collect::<Vec<_>>(), "UP_4_"))
        }
        _ if is_full => alive(),
        _ => Reply::Json(delta(&[], "UP_4_")),
    }
}

#[tokio::test(start_paused = true)]
async fn callers_lose_no_living_endpoint_while_the_registry_is_in_trouble() {
    let file = File::new("trouble");
    let start = Instant::now();
    let registry = Scripted::new(move |asked| trouble(asked, start.elapsed().as_secs()));
    let client = registry.client().registry_file(&file.0).build().unwrap();
    let (present, lost) = losses(&client, start);
    let mut late = Vec::new();
    while start.elapsed() < 30 * MINUTE {
        sleep(SECOND).await;
        assert!(call(&client).await.is_ok());
        // Processes that start in the middle of it.
        if start.elapsed().as_secs() % 100 == 99 {
            let late_client = registry.client().registry_file(&file.0).build().unwrap();
            let (present, lost) = losses(&late_client, start);
            assert!(call(&late_client).await.is_ok(), "at {:?}", start.elapsed());
            late.push((late_client, present, lost));
        }
    }
    let all = || late.iter().map(|(_, present, lost)| (present, lost)).chain([(&present, &lost)]);
    for (present, lost) in all() {
        assert!(lost.lock().unwrap().is_empty(), "lost: {lost:?}");
        assert_eq!(present.lock().unwrap().len(), 3);
    }
    sleep(5 * MINUTE).await;
    for (present, _) in all() {
        let mut present = present.lock().unwrap().clone();
        present.sort();
        assert_eq!(present, ["a", "b", "d"]);
    }
}

#[tokio::test(start_paused = true)]
async fn static_instances_are_called_while_the_registry_lacks_the_application() {
    let start = Instant::now();
    let respond = move |_: &Asked| match start.elapsed().as_secs() {
        0..60 => Reply::Status(503),
        60..120 => Reply::Json(list(&[instance("stock", "s")])),
        _ => Reply::Json(list(&[orders(&["a"]), vec![instance("stock", "s")]].concat())),
    };
    let fixed = |builder: EurekaBuilder| builder.static_instances("Orders", ["http://fixed:1"]);
    let eureka = fixed(Scripted::new(respond).client()).build().unwrap();
    assert_eq!(call(&eureka).await.unwrap(), "fixed");
    assert_eq!(start.elapsed(), Duration::ZERO);
    sleep(90 * SECOND).await;
    assert_eq!(call(&eureka).await.unwrap(), "fixed");
    sleep(90 * SECOND).await;
    assert_eq!(call(&eureka).await.unwrap(), "a");

    // They are below the file.
    let file = File::new("static");
    file.save(&orders(&["b"])).await;
    let away = || Scripted::new(|_| Reply::Status(503)).client();
    let eureka = fixed(away().registry_file(&file.0)).build().unwrap();
    eureka.snapshot();
    sleep(SECOND).await;
    assert_eq!(call(&eureka).await.unwrap(), "b");

    // They need no registry.
    for off in [fixed(away()).fetch_registry(false), fixed(away()).enabled(false)] {
        assert_eq!(call(&off.build().unwrap()).await.unwrap(), "fixed");
    }
}

#[tokio::test(start_paused = true)]
async fn required_registry_fails_the_start_within_its_bound() {
    let bound = 5 * SECOND;
    for fault in [|| Reply::Never, || Reply::Status(503)] as [fn() -> Reply; 2] {
        let start = Instant::now();
        let error = Scripted::new(move |_| fault()).client().require_registry(bound).start().await.unwrap_err();
        assert!(start.elapsed() <= bound + SECOND / 10, "{:?}", start.elapsed());
        assert!(error.is_timeout() && error.to_string().contains("not fetched within 5s"), "{error}");
        assert!(error.to_string().contains("registry_file()"), "{error}");
    }
    // A registry that starts in time.
    let start = Instant::now();
    let registry = Scripted::new(move |_| match start.elapsed() < 2 * SECOND {
        true => Reply::Status(503),
        false => Reply::Json(list(&orders(&["a"]))),
    });
    let eureka = registry.client().require_registry(bound).start().await.unwrap();
    assert_eq!(eureka.snapshot().instance_count(), 1);

    // A file counts, once the registry has failed.
    let file = File::new("required");
    file.save(&orders(&["b"])).await;
    for fault in [|| Reply::Never, || Reply::Status(503)] as [fn() -> Reply; 2] {
        let builder = Scripted::new(move |_| fault()).client().registry_file(&file.0).require_registry(bound);
        assert_eq!(call(&builder.start().await.unwrap()).await.unwrap(), "b");
    }
    // Without fetches nothing is required.
    let off = Scripted::new(|_| Reply::Never).client().fetch_registry(false).require_registry(bound);
    assert!(off.start().await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn disappearance_that_is_believed_empties_the_registry_at_once() {
    let start = Instant::now();
    let registry = Scripted::new(move |_| match start.elapsed().as_secs() {
        0..60 => Reply::Json(list(&orders(&["a", "b"]))),
        _ => Reply::Json(list(&[])),
    });
    let client = || registry.client().delta(false);
    let held = client().build().unwrap();
    let believed = client().disappearance(Disappearance::believed()).build().unwrap();
    for client in [&held, &believed] {
        client.snapshot();
    }
    sleep(100 * SECOND).await;
    assert_eq!((held.snapshot().instance_count(), believed.snapshot().instance_count()), (2, 0));
}

/// Returns the number of instances in the snapshot of a client at these times, in seconds.
async fn counts_at<const N: usize>(client: &Eureka, start: Instant, times: [u64; N]) -> [usize; N] {
    // Starts the refresh.
    client.snapshot();
    let mut counts = [0; N];
    for (at, count) in times.into_iter().zip(&mut counts) {
        tokio::time::sleep_until(start + Duration::from_secs(at)).await;
        *count = client.snapshot().instance_count();
    }
    counts
}

#[tokio::test(start_paused = true)]
async fn registry_that_stays_empty_is_believed_after_a_quarter_of_an_hour() {
    let empty = |asked: &Asked| if asked.line == FULL { list(&[]) } else { delta(&[], "") };
    for outage in [0, 600] {
        let start = Instant::now();
        let registry = Scripted::new(move |asked| match start.elapsed().as_secs() {
            0..60 => Reply::Json(list(&orders(&["a", "b"]))),
            at if at < 60 + outage => Reply::Status(502),
            _ => Reply::Json(empty(asked)),
        });
        let client = registry.client().build().unwrap();
        let end = outage + 60 + 15 * 60;
        assert_eq!(counts_at(&client, start, [30, end - 10, end + 120]).await, [2, 2, 0], "{outage}");
    }
    // An interval longer than the hold needs three lists as well.
    let start = Instant::now();
    let registry = Scripted::new(move |_| match start.elapsed().as_secs() {
        0..60 => Reply::Json(list(&orders(&["a"]))),
        _ => Reply::Json(list(&[])),
    });
    let client = registry.client().fetch_interval(60 * MINUTE).build().unwrap();
    assert_eq!(counts_at(&client, start, [30, 9_000, 12_500]).await, [1, 1, 0]);
}

#[tokio::test(start_paused = true)]
async fn lease_longer_than_the_hold_of_empty_lists_is_waited_for() {
    let start = Instant::now();
    let registry = Scripted::new(move |_| match start.elapsed().as_secs() {
        0..60 => {
            let long = Instance::builder("orders").id("long").ip_addr("127.0.0.1").port(1);
            let long = long.renewal_interval(10 * MINUTE).lease_duration(60 * MINUTE).build().unwrap();
            Reply::Json(list(&[orders(&["a"]), vec![long]].concat()))
        }
        _ => Reply::Json(list(&[])),
    });
    let client = registry.client().build().unwrap();
    assert_eq!(counts_at(&client, start, [30, 1_200, 3_500, 3_900]).await, [2, 1, 1, 0]);
}

#[tokio::test(start_paused = true)]
async fn empty_list_is_believed_never_if_the_rule_says_so() {
    let start = Instant::now();
    let registry = Scripted::new(move |_| match start.elapsed().as_secs() {
        0..60 => Reply::Json(list(&orders(&["a"]))),
        _ => Reply::Json(list(&[])),
    });
    let rule = Disappearance::new().empty_hold(Duration::MAX);
    let client = registry.client().disappearance(rule).build().unwrap();
    assert_eq!(counts_at(&client, start, [30, 48 * 3600]).await, [1, 1]);
}

#[tokio::test(start_paused = true)]
async fn application_that_turns_empty_beside_others_is_removed_after_its_lease() {
    let start = Instant::now();
    let registry = Scripted::new(move |asked| match (&*asked.line, start.elapsed().as_secs()) {
        (FULL, 0..60) => Reply::Json(list(&[orders(&["a", "b"]), vec![instance("stock", "s")]].concat())),
        (FULL, _) => Reply::Json(list(&[instance("stock", "s")])),
        (_, 0..60) => Reply::Json(delta(&[], "UP_3_")),
        _ => Reply::Json(delta(&[], "UP_1_")),
    });
    let client = registry.client().build().unwrap();
    assert_eq!(counts_at(&client, start, [30, 130, 240]).await, [3, 3, 1]);
}

#[tokio::test(start_paused = true)]
async fn registry_that_fills_again_replaces_its_last_list() {
    let start = Instant::now();
    let registry = Scripted::new(move |_| match start.elapsed().as_secs() {
        0..60 => Reply::Json(list(&orders(&["a", "b"]))),
        60..800 => Reply::Json(list(&[])),
        _ => Reply::Json(list(&orders(&["b"]))),
    });
    let client = registry.client().build().unwrap();
    assert_eq!(counts_at(&client, start, [790, 850, 1_000]).await, [2, 2, 1], "the hold of `a` begins anew");
}

#[tokio::test(start_paused = true)]
async fn other_servers_are_asked_while_one_is_empty() {
    let start = Instant::now();
    let registry = Scripted::new(move |asked| match &*asked.host {
        "a" if start.elapsed() > MINUTE => Reply::Json(list(&[])),
        "c" => Reply::Json(list(&[])),
        _ => Reply::Json(list(&orders(&["a", "b"]))),
    });
    let client = Eureka::builder().service_url("http://a/eureka,http://c/eureka,http://b/eureka").delta(false);
    let client = client.shuffle_servers(false).session_duration(600 * MINUTE).http_service(registry.clone());
    let client = client.build().unwrap();
    assert_eq!(counts_at(&client, start, [30, 3_600]).await, [2, 2]);
    let status = client.status();
    assert_eq!((status.held(), status.server()), (0, Some("http://b/eureka/")));
    assert!(registry.asked().iter().all(|asked| asked.host == "b" || asked.at < 3 * MINUTE));
}
