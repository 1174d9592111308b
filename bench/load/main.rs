//! Load generator for what wrk cannot do: register each instance once, change one and fetch, keep a
//! rate.
//!
//! | command | action |
//! |---|---|
//! | `load wait ADDRESS` | waits until the registry at `ADDRESS` responds |
//! | `load populate ADDRESS INSTANCES APPS` | registers instances of about 1 KB |
//! | `load change ADDRESS APPS ROUNDS` | changes one instance and fetches the full registry with gzip, repeatedly |
//! | `load idle ADDRESS CONNECTIONS APPS PID` | opens idle connections and measures the server |
//! | `load slow ADDRESS CONNECTIONS APPS PID` | the same with connections that read their responses slowly |
//! | `load guess ADDRESS APPS RATE` | measures heartbeats during so many failed log-ins a second |
//! | `load soak ADDRESS INSTANCES APPS CHANGES SECONDS PID` | sends a fleet's load at a fixed rate, and prints a line about the server every 10 s |
#![allow(clippy::unwrap_used, reason = "a panic is reported by the script that runs it")]

mod connection;
mod crowd;
mod soak;

use std::time::Duration;

use connection::Connection;

#[tokio::main]
async fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match *words.as_slice() {
        ["wait", address] => wait(address).await,
        ["populate", address, instances, apps] => {
            populate(address, instances.parse().unwrap(), apps.parse().unwrap()).await;
        }
        ["change", address, apps, rounds] => {
            change(address, apps.parse().unwrap(), rounds.parse().unwrap()).await;
        }
        ["idle", address, connections, apps, pid] => {
            crowd::idle(address, connections.parse().unwrap(), apps.parse().unwrap(), pid).await;
        }
        ["slow", address, connections, apps, pid] => {
            crowd::slow(address, connections.parse().unwrap(), apps.parse().unwrap(), pid).await;
        }
        ["guess", address, apps, rate] => crowd::guess(address, apps.parse().unwrap(), rate.parse().unwrap()).await,
        ["soak", address, instances, apps, changes, seconds, pid] => {
            let fleet = soak::Fleet {
                address,
                instances: instances.parse().unwrap(),
                apps: apps.parse().unwrap(),
                changes_per_second: changes.parse().unwrap(),
            };
            soak::run(fleet, Duration::from_secs(seconds.parse().unwrap()), pid).await;
        }
        _ => panic!("wait, populate, change, idle, slow, guess or soak; see the head of bench/load/main.rs"),
    }
}

async fn wait(address: &str) {
    loop {
        if let Ok(mut connection) = Connection::open(address).await
            && connection.send("GET", "/eureka/apps", "").await.is_ok_and(|response| response.status == 200)
        {
            return;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

async fn populate(address: &str, instances: usize, apps: usize) {
    const CONNECTIONS: usize = 4;
    let mut tasks = tokio::task::JoinSet::new();
    for first in 0..CONNECTIONS {
        let mut connection = Connection::open(address).await.unwrap();
        tasks.spawn(async move {
            for i in (first..instances).step_by(CONNECTIONS) {
                register(&mut connection, i, apps, 0).await;
            }
        });
    }
    while let Some(done) = tasks.join_next().await {
        done.unwrap();
    }
}

async fn change(address: &str, apps: usize, rounds: usize) {
    let mut connection = Connection::open(address).await.unwrap();
    for round in 1..=rounds {
        register(&mut connection, round, apps, round).await;
        assert_eq!(connection.send("GET", "/eureka/apps", "").await.unwrap().status, 200);
    }
}

/// Returns the application and id of an instance, as in the scripts of wrk.
pub(crate) fn names(i: usize, apps: usize) -> (String, String) {
    let app = i % apps;
    (format!("APP{app:03}"), format!("host-{i:05}:app{app:03}:8080"))
}

/// Registers an instance. Another `version` is a change.
pub(crate) async fn register(connection: &mut Connection, i: usize, apps: usize, version: usize) {
    let (app, id) = names(i, apps);
    let body = include_str!("../wrk/instance.json")
        .trim_end()
        .replace("@APP@", &app)
        .replace("@VIP@", &app.to_lowercase())
        .replace("@ID@", &id)
        .replace("@HOST@", &format!("host-{i:05}"))
        .replace("@IP@", &format!("10.{}.{}.{}", i >> 16 & 255, i >> 8 & 255, i & 255))
        .replace("@DIRTY@", &(1_700_000_000_000 + version as u64).to_string());
    let response = connection.send("POST", &format!("/eureka/apps/{app}"), &body).await.unwrap();
    assert_eq!(response.status, 204, "registration of {id}");
}
