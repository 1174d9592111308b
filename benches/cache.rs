//! Compares a refresh of the registry with the naive way: gunzip, serde_json into owned structs,
//! and every index rebuilt.
//!
//! Both process the same bytes in the same run, in turns. The time of ours is from the response of
//! the registry to the next request: it includes the HTTP stack without a connection, the snapshot
//! and its subscribers. The medians of the rounds are printed, and the ratios to the naive way and
//! to a bare scan, which decompresses the bytes and skips the JSON.
//!
//! A first fetch is the first work of a process. Each is measured in a process of its own, since
//! the memory that earlier fetches freed would decide about its time.
//!
//! On Linux, times are CPU times of all threads of the process, so that other processes matter
//! little. A delta of ours is too short for that clock: each is measured by itself, and the median
//! excludes those that were interrupted. The sizes take turns.
#![allow(clippy::print_stdout, reason = "a bench reports to a person")]
#![allow(clippy::unwrap_used, reason = "a bench is a test")]

use std::collections::{BTreeMap, HashMap};
use std::convert::Infallible;
use std::fmt::Write as _;
use std::hint::black_box;
use std::io::{Read, Write};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};
use std::{fs, thread};

use bytes::Bytes;
use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use http::{Request, Response};
use http_body_util::Full;
use serde::Deserialize;
use serde::de::IgnoredAny;
use tokio::sync::{mpsc, oneshot};
use tower::service_fn;
use tower_eureka::Eureka;
use tower_eureka::discover::EurekaDiscover;
use tower_eureka::transport::RequestBody;

const APPS: usize = 100;
/// Number of instances of the rows of full fetches.
const SIZE: usize = 10_000;
const DELTA_SIZES: [usize; 3] = [1_000, 10_000, 100_000];
const ROUNDS: usize = 9;
/// First argument of a process that measures one first fetch.
const FIRST: &str = "first-fetch";
/// Number of deltas of one kind in one round.
const DELTAS: usize = 100;

/// Runs the parts `full` and `deltas` that the arguments name. Defaults to both.
fn main() {
    let args: Vec<_> = std::env::args().skip(1).collect();
    // `cargo bench -- --test` and `cargo test --benches` only check that the bench works.
    let quick = args.iter().any(|arg| arg == "--test");
    let has = |part: &str| args.iter().all(|arg| arg.starts_with('-')) || args.iter().any(|arg| arg == part);
    let (rounds, size) = if quick { (1, 1_000) } else { (ROUNDS, SIZE) };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    if let [FIRST, way, size] = args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        let time = runtime.block_on(first_fetch(way, size.parse().unwrap()));
        println!("{}", time.as_nanos());
        return;
    }
    runtime.block_on(async {
        if has("full") {
            full(rounds, size).await;
        }
        let sizes = if quick { &DELTA_SIZES[..1] } else { &DELTA_SIZES };
        if has("deltas") {
            deltas(rounds, sizes).await;
        }
    });
}

/// Measures the first fetch of this process, and nothing else.
async fn first_fetch(way: &str, size: usize) -> Duration {
    let Body { gzip, .. } = Fleet::new(size).list(0, |_| None);
    match way {
        "gunzip" => timed(|| gunzip(&gzip)),
        "scan" => timed(|| scan(&gzip)),
        "naive" => timed(|| {
            let mut naive = Naive::default();
            naive.full(&gzip);
            naive
        }),
        "ours" => {
            let mut ours = Ours::start(false).await;
            let time = ours.timed(&gzip).await;
            assert_eq!(ours.eureka.snapshot().instance_count(), size);
            time
        }
        _ => panic!("unknown way '{way}'"),
    }
}

/// Measures the first fetch of a new process.
fn in_new_process(way: &str, size: usize) -> Duration {
    let bench = std::env::current_exe().unwrap();
    let output = Command::new(bench).args([FIRST, way, &size.to_string()]).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    Duration::from_nanos(String::from_utf8(output.stdout).unwrap().trim().parse().unwrap())
}

/// Measures full fetches.
async fn full(rounds: usize, size: usize) {
    let first = Fleet::new(size).list(0, |_| None);
    let renewed = Fleet::new(size).list(1, |_| None);
    // About 1 %, spread over all applications.
    let changed = Fleet::new(size).list(2, |at| (at % (APPS + 1) == 0).then_some(1));
    let plain = first.plain_len;
    println!(
        "{size} instances of {} bytes in {APPS} applications, {plain} bytes, {} compressed",
        plain / size,
        first.gzip.len()
    );
    let mut rows = Rows::default();
    for _ in 0..rounds {
        for way in ["gunzip", "scan", "naive", "ours"] {
            rows.add(&format!("first: {way}"), in_new_process(way, size));
        }
        rows.add("unchanged: scan", timed(|| scan(&renewed.gzip)));
        rows.add("1 % changed: scan", timed(|| scan(&changed.gzip)));
        let mut naive = Naive::default();
        naive.full(&first.gzip);
        rows.add("unchanged: naive", timed(|| naive.full(&renewed.gzip)));
        rows.add("1 % changed: naive", timed(|| naive.full(&changed.gzip)));
        drop(naive);
        let mut ours = Ours::start(false).await;
        ours.respond(&first.gzip).await;
        assert_eq!(ours.eureka.snapshot().instance_count(), size);
        let before = ours.eureka.snapshot();
        rows.add("unchanged: ours", ours.timed(&renewed.gzip).await);
        let after = ours.eureka.snapshot();
        assert!(before.applications().zip(after.applications()).all(|(before, after)| Arc::ptr_eq(before, after)));
        rows.add("1 % changed: ours", ours.timed(&changed.gzip).await);
        let now = ours.eureka.snapshot();
        let is_new = |app: &str, at: usize| {
            !Arc::ptr_eq(&now.application(app).unwrap().instances[at], &after.application(app).unwrap().instances[at])
        };
        assert!(is_new("APP000", 0) && !is_new("APP001", 0));
    }
    rows.print(&["first", "unchanged", "1 % changed"]);
}

/// Measures deltas at several sizes of the registry, in turns.
async fn deltas(rounds: usize, sizes: &[usize]) {
    let mut registries = Vec::new();
    for &size in sizes {
        let list = Fleet::new(size).list(0, |_| None);
        let mut naive = Naive::default();
        naive.full(&list.gzip);
        let mut series = Vec::new();
        for changes in [1, 100] {
            let deltas = [0, 1].map(|state| Fleet::new(size).delta(state, changes).gzip);
            // The list after each of them.
            let lists = [0, 1].map(|version| Fleet::new(size).list(0, |at| (at < changes).then_some(version)).gzip);
            let mut ours = Ours::start(true).await;
            ours.respond(&list.gzip).await;
            series.push((format!("delta of {changes}"), ours, lists, deltas));
        }
        registries.push((size, naive, series, Rows::default()));
    }
    for _ in 0..rounds {
        for (size, naive, series, rows) in &mut registries {
            for (name, ours, lists, deltas) in series {
                ours.timed_deltas(name, lists, deltas, rows).await;
                assert_eq!(ours.eureka.snapshot().instance_count(), *size);
                let count = if *size > SIZE { 2 } else { 4 };
                let time = timed(|| (0..count).for_each(|number| naive.delta(&deltas[number % 2])));
                rows.add(&format!("{name}: naive"), time / count as u32);
            }
        }
    }
    let median = |rows: &Rows| rows.quantile("delta of 1: ours", 0.5).unwrap();
    let least = median(&registries[0].3);
    for (size, _, _, rows) in &registries {
        println!("\n{size} instances");
        rows.print(&["delta of 1", "delta of 100"]);
        println!("delta of 1: {:.2} × that of {} instances", median(rows) / least, sizes[0]);
    }
}

fn timed<T>(run: impl FnOnce() -> T) -> Duration {
    let start = Clock::now();
    let output = black_box(run());
    let elapsed = start.elapsed();
    drop(output);
    elapsed
}

/// CPU time of the process so far, or the time if that is unknown.
enum Clock {
    Cpu(Duration),
    Wall(Instant),
}

impl Clock {
    #[allow(clippy::disallowed_methods, reason = "a bench measures real time")]
    fn now() -> Self {
        // The kernel adds the time since the last tick when the thread yields.
        thread::yield_now();
        let Ok(tasks) = fs::read_dir("/proc/self/task") else { return Self::Wall(Instant::now()) };
        let nanoseconds = |task: fs::DirEntry| {
            let stat = fs::read_to_string(task.path().join("schedstat")).ok()?;
            stat.split(' ').next()?.parse::<u64>().ok()
        };
        match tasks.map(|task| task.ok().and_then(nanoseconds)).sum() {
            Some(nanoseconds) => Self::Cpu(Duration::from_nanos(nanoseconds)),
            None => Self::Wall(Instant::now()),
        }
    }

    fn elapsed(&self) -> Duration {
        match (self, Self::now()) {
            (Self::Cpu(start), Self::Cpu(now)) => now.saturating_sub(*start),
            (Self::Wall(start), _) => start.elapsed(),
            (Self::Cpu(_), Self::Wall(_)) => panic!("the CPU time can be read at all times or never"),
        }
    }
}

/// Measured times by row.
#[derive(Default)]
struct Rows(BTreeMap<String, Vec<Duration>>);

impl Rows {
    fn add(&mut self, row: &str, time: Duration) {
        self.0.entry(row.to_owned()).or_default().push(time);
    }

    /// Returns the quantile of a row in microseconds.
    fn quantile(&self, row: &str, quantile: f64) -> Option<f64> {
        let mut times = self.0.get(row)?.clone();
        times.sort();
        Some(times[(quantile * (times.len() - 1) as f64).round() as usize].as_secs_f64() * 1e6)
    }

    /// Prints all rows, and the ratios of ours in each group to the naive way and to a scan.
    fn print(&self, groups: &[&str]) {
        println!("{:<36}{:>12}{:>12}{:>12}", "", "median µs", "10 %", "90 %");
        for row in self.0.keys() {
            let [low, median, high] = [0.1, 0.5, 0.9].map(|quantile| self.quantile(row, quantile).unwrap());
            println!("{row:<36}{median:>12.1}{low:>12.1}{high:>12.1}");
        }
        for group in groups {
            let median = |way: &str| self.quantile(&format!("{group}: {way}"), 0.5);
            let (Some(ours), Some(naive)) = (median("ours"), median("naive")) else { continue };
            match median("scan") {
                Some(scan) => println!("{group}: {:.2} × naive, {:.2} × scan", ours / naive, ours / scan),
                None => println!("{group}: {:.3} × naive", ours / naive),
            }
        }
    }
}

/// Bytes of a response.
struct Body {
    gzip: Bytes,
    plain_len: usize,
}

/// Instances as a Spring server lists them.
struct Fleet {
    size: usize,
}

impl Fleet {
    fn new(size: usize) -> Self {
        Self { size }
    }

    /// Returns the list after this number of heartbeats, in which some instances were changed to a
    /// version.
    fn list(&self, heartbeats: usize, changed: impl Fn(usize) -> Option<usize>) -> Body {
        let mut apps = vec![String::new(); APPS];
        for at in 0..self.size {
            let (version, action) = changed(at).map_or((0, "ADDED"), |version| (version, "MODIFIED"));
            self.write(&mut apps[at % APPS], at, heartbeats, version, action);
        }
        self.body(apps)
    }

    /// Returns the delta in which the first `changes` instances get this version.
    fn delta(&self, version: usize, changes: usize) -> Body {
        let mut apps = vec![String::new(); APPS];
        for at in 0..changes {
            self.write(&mut apps[at % APPS], at, 0, version, "MODIFIED");
        }
        self.body(apps)
    }

    fn write(&self, list: &mut String, at: usize, heartbeats: usize, version: usize, action: &str) {
        let (app, separator) = (at % APPS, if list.is_empty() { "" } else { "," });
        let (host, time) = (format!("host-{at:06}.prod.example.com"), 1_700_000_000_000 + at);
        let (renewed, ip) = (time + 30_000 * heartbeats, format!("10.{}.{}.{}", at >> 16, (at >> 8) & 255, at & 255));
        write!(
            list,
            concat!(
                r#"{separator}{{"instanceId":"{host}:app{app:03}:8080","hostName":"{host}","app":"APP{app:03}","#,
                r#""ipAddr":"{ip}","status":"UP","overriddenStatus":"UNKNOWN","port":{{"$":8080,"@enabled":"true"}},"#,
                r#""securePort":{{"$":443,"@enabled":"false"}},"countryId":1,"dataCenterInfo":"#,
                r#"{{"@class":"com.netflix.appinfo.InstanceInfo$DefaultDataCenterInfo","name":"MyOwn"}},"#,
                r#""leaseInfo":{{"renewalIntervalInSecs":30,"durationInSecs":90,"registrationTimestamp":{time},"#,
                r#""lastRenewalTimestamp":{renewed},"evictionTimestamp":0,"serviceUpTimestamp":{time}}},"#,
                r#""metadata":{{"zone":"zone-{zone}","version":"1.{version}","management.port":"8081"}},"#,
                r#""homePageUrl":"http://{host}:8080/","statusPageUrl":"http://{host}:8081/actuator/info","#,
                r#""healthCheckUrl":"http://{host}:8081/actuator/health","vipAddress":"app{app:03}","#,
                r#""secureVipAddress":"app{app:03}","isCoordinatingDiscoveryServer":"false","#,
                r#""lastUpdatedTimestamp":"{time}","lastDirtyTimestamp":"{dirty}","actionType":"{action}"}}"#,
            ),
            separator = separator,
            host = host,
            app = app,
            ip = ip,
            time = time,
            renewed = renewed,
            zone = at / APPS % 3,
            version = version,
            dirty = time + version,
            action = action,
        )
        .unwrap();
    }

    fn body(&self, apps: Vec<String>) -> Body {
        let apps = apps.into_iter().enumerate().filter(|(_, instances)| !instances.is_empty());
        let apps: Vec<_> =
            apps.map(|(app, instances)| format!(r#"{{"name":"APP{app:03}","instance":[{instances}]}}"#)).collect();
        let plain = format!(
            r#"{{"applications":{{"versions__delta":"1","apps__hashcode":"UP_{}_","application":[{}]}}}}"#,
            self.size,
            apps.join(",")
        );
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(plain.as_bytes()).unwrap();
        Body { gzip: encoder.finish().unwrap().into(), plain_len: plain.len() }
    }
}

fn gunzip(body: &[u8]) -> Vec<u8> {
    let mut plain = Vec::new();
    GzDecoder::new(body).read_to_end(&mut plain).unwrap();
    plain
}

fn scan(body: &[u8]) {
    serde_json::from_slice::<IgnoredAny>(&gunzip(body)).unwrap();
}

/// Client of this crate whose registry responds with given bytes.
struct Ours {
    eureka: Eureka,
    requests: mpsc::UnboundedReceiver<Asked>,
    asked: Asked,
    /// Number of the delta that was sent last.
    state: usize,
    /// A subscriber, as every caller has one.
    _orders: EurekaDiscover,
}

/// Request: its path, and the place for the response.
type Asked = (String, oneshot::Sender<Bytes>);

impl Ours {
    async fn start(delta: bool) -> Self {
        let (sender, mut requests) = mpsc::unbounded_channel();
        let service = service_fn(move |request: Request<RequestBody>| {
            let (reply, response) = oneshot::channel();
            sender.send((request.uri().path().to_owned(), reply)).unwrap();
            async move {
                let body = response.await.unwrap();
                let response = Response::builder().header("content-encoding", "gzip");
                Ok::<_, Infallible>(response.header("content-type", "application/json").body(Full::new(body)).unwrap())
            }
        });
        let builder = Eureka::builder().service_url("http://registry/eureka/").http_service(service);
        // No request may end while the bench prepares something.
        let builder = builder.read_timeout(Duration::from_secs(1_000_000)).delta(delta);
        let eureka = builder.build().unwrap();
        let orders = eureka.discover("app001").unwrap();
        let asked = requests.recv().await.unwrap();
        Self { eureka, requests, asked, state: 0, _orders: orders }
    }

    fn asks_for_delta(&self) -> bool {
        self.asked.0.ends_with("/delta")
    }

    /// Responds, and waits until the next request.
    async fn respond(&mut self, body: &Bytes) {
        let (_, reply) = std::mem::replace(&mut self.asked, (String::new(), oneshot::channel().0));
        reply.send(body.clone()).unwrap();
        self.asked = self.requests.recv().await.unwrap();
    }

    /// Responds, and returns the time until the next request.
    async fn timed(&mut self, body: &Bytes) -> Duration {
        let start = Clock::now();
        self.respond(body).await;
        start.elapsed()
    }

    /// Responds to a request for a delta, or for the whole registry, which gets the list without a
    /// change. Returns `true` for a delta.
    async fn respond_as_asked(&mut self, lists: &[Bytes; 2], deltas: &[Bytes; 2]) -> bool {
        let is_delta = self.asks_for_delta();
        if is_delta {
            self.state = 1 - self.state;
        }
        let bodies = if is_delta { deltas } else { lists };
        self.respond(&bodies[self.state]).await;
        is_delta
    }

    /// Responds to [`DELTAS`] requests for deltas, and adds the time of each. Lists in between,
    /// which verify the copy, are not measured.
    ///
    /// A delta behind a list has a row of its own. The list has replaced everything in the caches
    /// of the processor, so that this row depends on the size of the list.
    #[allow(clippy::disallowed_methods, reason = "a bench measures real time")]
    async fn timed_deltas(&mut self, name: &str, lists: &[Bytes; 2], deltas: &[Bytes; 2], rows: &mut Rows) {
        // After the turns of the other sizes, a delta is too late to continue the copy.
        self.respond_as_asked(lists, deltas).await;
        let (mut begun, mut row) = (0, "ours");
        while begun < DELTAS {
            let start = Instant::now();
            let is_delta = self.respond_as_asked(lists, deltas).await;
            let time = start.elapsed();
            if is_delta {
                rows.add(&format!("{name}: {row}"), time);
                begun += 1;
            }
            row = if is_delta { "ours" } else { "ours, behind a list" };
        }
    }
}

/// The naive way: owned structs, and every index rebuilt.
#[derive(Default)]
struct Naive {
    apps: HashMap<String, Vec<Arc<NaiveInstance>>>,
    vips: HashMap<String, Vec<Arc<NaiveInstance>>>,
}

impl Naive {
    fn full(&mut self, body: &[u8]) {
        let NaiveList { application, .. } = Self::decode(body);
        let apps = application.into_iter().map(|app| (app.name, app.instance.into_iter().map(Arc::new).collect()));
        self.apps = apps.collect();
        self.index();
    }

    fn delta(&mut self, body: &[u8]) {
        for app in Self::decode(body).application {
            let known = self.apps.entry(app.name).or_default();
            for instance in app.instance {
                match known.iter_mut().find(|known| known.instance_id == instance.instance_id) {
                    Some(known) => *known = Arc::new(instance),
                    None => known.push(Arc::new(instance)),
                }
            }
        }
        self.index();
    }

    fn decode(body: &[u8]) -> NaiveList {
        serde_json::from_slice::<NaiveDocument>(&gunzip(body)).unwrap().applications
    }

    fn index(&mut self) {
        self.vips = HashMap::new();
        for instance in self.apps.values().flatten() {
            self.vips.entry(instance.vip_address.clone()).or_default().push(instance.clone());
        }
    }
}

#[derive(Deserialize)]
struct NaiveDocument {
    applications: NaiveList,
}

#[derive(Deserialize)]
#[allow(dead_code, reason = "fields are decoded, not read")]
struct NaiveList {
    #[serde(rename = "versions__delta")]
    version: String,
    #[serde(rename = "apps__hashcode")]
    hash: String,
    application: Vec<NaiveApplication>,
}

#[derive(Deserialize)]
struct NaiveApplication {
    name: String,
    instance: Vec<NaiveInstance>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
#[allow(dead_code, reason = "fields are decoded, not read")]
struct NaiveInstance {
    instance_id: String,
    host_name: String,
    app: String,
    ip_addr: String,
    status: String,
    overridden_status: String,
    port: NaivePort,
    secure_port: NaivePort,
    country_id: i32,
    data_center_info: NaiveDataCenter,
    lease_info: NaiveLease,
    metadata: HashMap<String, String>,
    home_page_url: String,
    status_page_url: String,
    health_check_url: String,
    vip_address: String,
    secure_vip_address: String,
    is_coordinating_discovery_server: String,
    last_updated_timestamp: String,
    last_dirty_timestamp: String,
    action_type: String,
}

#[derive(Deserialize)]
#[allow(dead_code, reason = "fields are decoded, not read")]
struct NaivePort {
    #[serde(rename = "$")]
    number: u16,
    #[serde(rename = "@enabled")]
    enabled: String,
}

#[derive(Deserialize)]
#[allow(dead_code, reason = "fields are decoded, not read")]
struct NaiveDataCenter {
    #[serde(rename = "@class")]
    class: String,
    name: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
#[allow(dead_code, reason = "fields are decoded, not read")]
struct NaiveLease {
    renewal_interval_in_secs: i32,
    duration_in_secs: i32,
    registration_timestamp: i64,
    last_renewal_timestamp: i64,
    eviction_timestamp: i64,
    service_up_timestamp: i64,
}
