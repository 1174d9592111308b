//! Connections that do little: the server's memory for each, and their effect on others.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpSocket;
use tokio::task::JoinSet;
use tokio::time::{Instant, interval, sleep};

use crate::connection::Connection;
use crate::soak::{rss_kb, rss_mb};
use crate::{names, register};

const OTHERS: Duration = Duration::from_secs(5);
/// Number of bytes that a slow reader reads between two pauses.
const SIP: usize = 4 * 1024;
const PAUSE: Duration = Duration::from_secs(1);
/// Time after which the server has closed the slow readers.
const CLOSE_TIME: Duration = Duration::from_secs(15);

/// Opens connections, sends one request on each, and keeps them open.
pub(crate) async fn idle(address: &str, connections: usize, apps: usize, pid: &str) {
    let before = rss_kb(pid);
    let mut idle = Vec::new();
    for _ in 0..connections {
        let mut connection = Connection::open(address).await.unwrap();
        connection.send("PUT", "/eureka/apps/NONE/none", "").await.unwrap();
        idle.push(connection);
    }
    let each = (rss_kb(pid).saturating_sub(before)) as f64 / connections as f64;
    println!(
        "{connections} idle connections: {each:.1} KB each, {} MB in all; {}",
        rss_mb(pid),
        others(address, apps).await
    );
    // Fails if one was closed meanwhile.
    for connection in &mut idle {
        connection.send("PUT", "/eureka/apps/NONE/none", "").await.unwrap();
    }
    drop(idle);
}

/// Requests the full registry on many connections, each after a change, and reads the responses so
/// slowly that the server closes the connections.
pub(crate) async fn slow(address: &str, connections: usize, apps: usize, pid: &str) {
    println!("before: {} MB", rss_mb(pid));
    let mut changing = Connection::open(address).await.unwrap();
    let mut readers = JoinSet::new();
    for version in 0..connections {
        register(&mut changing, version % 100, apps, 1_000 + version).await;
        readers.spawn(sip(address.parse().unwrap()));
        // Wait until the request is sent.
        sleep(PAUSE / 50).await;
    }
    println!(
        "{connections} slow readers, each of another version: {} MB; {}",
        rss_mb(pid),
        others(address, apps).await
    );
    sleep(CLOSE_TIME).await;
    println!("{} s later: {} MB", (OTHERS + CLOSE_TIME).as_secs(), rss_mb(pid));
}

async fn sip(address: SocketAddr) {
    let socket = TcpSocket::new_v4().unwrap();
    // Else the buffers of both systems hold most of the response.
    socket.set_recv_buffer_size(16 * 1024).unwrap();
    let mut stream = socket.connect(address).await.unwrap();
    let head = "GET /eureka/apps HTTP/1.1\r\nhost: x\r\naccept: application/json\r\nconnection: close\r\n\r\n";
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut sip = vec![0; SIP];
    while stream.read(&mut sip).await.is_ok_and(|read| read > 0) {
        sleep(PAUSE).await;
    }
}

/// Measures the heartbeats of a client without and with failed log-ins of others, each with another
/// password.
pub(crate) async fn guess(address: &str, apps: usize, per_second: u32) {
    const CONNECTIONS: u32 = 20;
    println!("without failed log-ins: {}", others(address, apps).await);
    let mut guesses = JoinSet::new();
    let statuses = Arc::<Mutex<BTreeMap<u16, u64>>>::default();
    for connection in 0..CONNECTIONS {
        let (address, statuses) = (address.to_owned(), statuses.clone());
        guesses.spawn(async move {
            let mut ticks = interval(Duration::from_secs(1) * CONNECTIONS / per_second);
            let mut opened = Connection::open(&address).await.unwrap();
            for attempt in 0_u32.. {
                ticks.tick().await;
                let password = BASE64_STANDARD.encode(format!("guesser:{connection}-{attempt}"));
                let credentials = format!("Basic {password}");
                let response = opened.send_as(Some(&credentials), "GET", "/eureka/apps/NONE", "").await.unwrap();
                *statuses.lock().unwrap().entry(response.status).or_default() += 1;
            }
        });
    }
    // The first responses take the attempts that are allowed at once.
    sleep(PAUSE).await;
    let start = statuses.lock().unwrap().clone();
    let measured = others(address, apps).await;
    let mut during = statuses.lock().unwrap().clone();
    for (status, count) in start {
        during.entry(status).and_modify(|now| *now -= count);
    }
    let rate = |count: u64| format!("{:.0} a second", count as f64 / OTHERS.as_secs_f64());
    let shown: Vec<_> = during.iter().map(|(status, count)| format!("{status}: {}", rate(*count))).collect();
    println!("with failed log-ins ({}): {measured}", shown.join(", "));
}

/// Measures the heartbeats of one client meanwhile.
async fn others(address: &str, apps: usize) -> String {
    let (mut connection, start) = (Connection::open(address).await.unwrap(), Instant::now());
    let mut latencies = Vec::new();
    while start.elapsed() < OTHERS {
        let ((app, id), sent) = (names(latencies.len() % 100, apps), Instant::now());
        let response = connection.send("PUT", &format!("/eureka/apps/{app}/{id}?status=UP"), "").await.unwrap();
        assert_eq!(response.status, 200);
        latencies.push(sent.elapsed());
    }
    latencies.sort_unstable();
    let at = |share: f64| latencies[(latencies.len() as f64 * share) as usize].as_secs_f64() * 1e3;
    format!("another client's heartbeats: {}, p50 {:.2} ms, p99 {:.2} ms", latencies.len(), at(0.5), at(0.99))
}
