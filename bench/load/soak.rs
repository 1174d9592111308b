//! Load of a fleet: each instance sends a heartbeat and fetches the delta every 30 s, and some
//! change.

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::time::{Instant, Interval, MissedTickBehavior, interval};

use crate::connection::Connection;
use crate::{names, register};

const PERIOD: Duration = Duration::from_secs(30);
/// Number of connections for heartbeats, and as many for deltas.
const CONNECTIONS: usize = 64;
const REPORT: Duration = Duration::from_secs(10);
/// Kernel ticks per second in /proc on Linux.
const TICKS: f64 = 100.0;

pub(crate) struct Fleet<'a> {
    pub(crate) address: &'a str,
    pub(crate) instances: usize,
    pub(crate) apps: usize,
    pub(crate) changes_per_second: u32,
}

/// Microseconds between the due time of a request and its response, since the last report.
type Latencies = Arc<Mutex<Vec<u32>>>;

pub(crate) async fn run(fleet: Fleet<'_>, duration: Duration, pid: &str) {
    let Fleet { address, instances, apps, changes_per_second } = fleet;
    let (heartbeats, deltas, changes) = (Latencies::default(), Latencies::default(), Latencies::default());
    let period = PERIOD.mul_f64(CONNECTIONS as f64 / instances as f64);
    let mut tasks = tokio::task::JoinSet::new();
    for first in 0..CONNECTIONS {
        let (mut connection, mut pace) = (Connection::open(address).await.unwrap(), Pace::new(period, &heartbeats));
        tasks.spawn(async move {
            for i in (first..instances).step_by(CONNECTIONS).cycle() {
                let due = pace.due().await;
                let (app, id) = names(i, apps);
                let response = connection.send("PUT", &format!("/eureka/apps/{app}/{id}?status=UP"), "").await.unwrap();
                assert_eq!(response.status, 200, "heartbeat of {id}");
                pace.responded(due);
            }
        });
        let (mut connection, mut pace) = (Connection::open(address).await.unwrap(), Pace::new(period, &deltas));
        tasks.spawn(async move {
            loop {
                let due = pace.due().await;
                assert_eq!(connection.send("GET", "/eureka/apps/delta", "").await.unwrap().status, 200, "delta");
                pace.responded(due);
            }
        });
    }
    let mut connection = Connection::open(address).await.unwrap();
    // Like a client at its start. From now on the encoded form of each instance is cached.
    assert_eq!(connection.send("GET", "/eureka/apps", "").await.unwrap().status, 200, "everything");
    let mut pace = Pace::new(Duration::from_secs(1) / changes_per_second, &changes);
    tasks.spawn(async move {
        for version in 1.. {
            let due = pace.due().await;
            // A stride without a common divisor reaches all instances in turn.
            register(&mut connection, version * 7919 % instances, apps, version).await;
            pace.responded(due);
        }
    });

    println!(
        "  s | CPU % of a core | RSS MB | heartbeats/s, p50, p99, max ms | deltas/s, p50, p99, max ms | changes/s, p99 ms"
    );
    let (start, mut cpu) = (Instant::now(), cpu_ticks(pid));
    let mut reports = interval(REPORT);
    reports.tick().await;
    while start.elapsed() + REPORT / 2 < duration {
        tokio::select! {
            _ = reports.tick() => {}
            Some(ended) = tasks.join_next() => ended.unwrap(),
        }
        let now = cpu_ticks(pid);
        let share = (now - cpu) / TICKS / REPORT.as_secs_f64() * 100.0;
        cpu = now;
        let [h, d, c] = [&heartbeats, &deltas, &changes].map(summary);
        println!(
            "{:3.0} | {share:5.1} | {} | {:.0} {:.2} {:.2} {:.1} | {:.0} {:.2} {:.2} {:.1} | {:.0} {:.2}",
            start.elapsed().as_secs_f64(),
            rss_mb(pid),
            h[0],
            h[1],
            h[2],
            h[3],
            d[0],
            d[1],
            d[2],
            d[3],
            c[0],
            c[2],
        );
    }
}

/// Schedules requests at a fixed rate and records their latencies.
struct Pace {
    interval: Interval,
    latencies: Latencies,
}

impl Pace {
    fn new(period: Duration, latencies: &Latencies) -> Self {
        let mut interval = interval(period);
        interval.set_missed_tick_behavior(MissedTickBehavior::Burst);
        Self { interval, latencies: latencies.clone() }
    }

    async fn due(&mut self) -> Instant {
        self.interval.tick().await
    }

    fn responded(&self, due: Instant) {
        self.latencies.lock().unwrap().push(due.elapsed().as_micros() as u32);
    }
}

/// Returns the rate per second, and the median, 99th percentile and maximum in milliseconds.
fn summary(latencies: &Latencies) -> [f64; 4] {
    let mut all = std::mem::take(&mut *latencies.lock().unwrap());
    all.sort_unstable();
    let at =
        |share: f64| all.get((all.len() as f64 * share) as usize).or(all.last()).map_or(0.0, |&us| f64::from(us) / 1e3);
    [all.len() as f64 / REPORT.as_secs_f64(), at(0.5), at(0.99), at(1.0)]
}

/// Returns the user and system time of a process in ticks.
fn cpu_ticks(pid: &str) -> f64 {
    let stat = std::fs::read_to_string(Path::new("/proc").join(pid).join("stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap()
}

pub(crate) fn rss_mb(pid: &str) -> u64 {
    rss_kb(pid) / 1024
}

/// Returns the resident memory of a process.
pub(crate) fn rss_kb(pid: &str) -> u64 {
    let status = std::fs::read_to_string(Path::new("/proc").join(pid).join("status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}
