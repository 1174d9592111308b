//! Registration while registry servers do not respond.

use std::time::Duration;

use tokio::time::{Instant, sleep};
use tokio_stream::StreamExt;
use tower_eureka::Eureka;
use tower_eureka::register::{Registrar, RegistrarEvent};

use crate::common::{Asked, Reply, Scripted, instance};

const ALL: [&str; 4] = ["a", "b", "c", "d"];
const MINUTE: Duration = Duration::from_secs(60);

fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// Returns a registrar at these servers, which are tried in this order.
fn registrar(servers: &[&str], registry: &Scripted) -> Registrar {
    let urls: Vec<_> = servers.iter().map(|server| format!("http://{server}/eureka")).collect();
    let builder = Eureka::builder().service_url(urls.join(",")).shuffle_servers(false);
    builder.http_service(registry.clone()).build().unwrap().registrar(instance("orders", "a"))
}

/// Responds as a server that works.
fn sound(asked: &Asked) -> Reply {
    match asked.line.split(' ').next() {
        Some("POST") => Reply::Status(204),
        Some("GET") => Reply::Status(404),
        _ => Reply::Status(200),
    }
}

fn is_registration(asked: &Asked) -> bool {
    asked.line.starts_with("POST")
}

/// Returns the servers that received requests with this method, in order.
fn asked_with(registry: &Scripted, method: &str) -> String {
    registry.asked().iter().filter(|asked| asked.line.starts_with(method)).map(|asked| &*asked.host).collect()
}

/// Returns the servers that received a registration, in order.
fn registered_at(registry: &Scripted) -> String {
    asked_with(registry, "POST")
}

/// Returns the servers that received a heartbeat, in order.
fn renewed_at(registry: &Scripted) -> String {
    asked_with(registry, "PUT")
}

/// Returns the four servers with each number of silent ones before a sound one, and after it.
fn silent_sets() -> impl Iterator<Item = &'static [&'static str]> {
    (1..=3).flat_map(|silent| [&ALL[..silent], &ALL[4 - silent..]])
}

#[tokio::test(start_paused = true)]
async fn registration_with_silent_servers_takes_less_than_a_second() {
    for silent in silent_sets() {
        let start = Instant::now();
        let registry = Scripted::new(|asked| if silent.contains(&&*asked.host) { Reply::Never } else { sound(asked) });
        let registrar = registrar(&ALL, &registry);
        registrar.register().await.unwrap();
        let elapsed = start.elapsed();
        assert!(elapsed <= millis(600), "{silent:?}: {elapsed:?}");
        sleep(2 * MINUTE).await;
        let (registrations, renewals) = (registered_at(&registry), renewed_at(&registry));
        assert_eq!(registrations.len(), 1, "{silent:?}: {registrations}");
        assert!(renewals.len() >= 3 && renewals.chars().all(|server| registrations.contains(server)), "{renewals}");
    }
}

#[tokio::test(start_paused = true)]
async fn registration_with_servers_silent_for_writes_takes_less_than_three_seconds() {
    for silent in silent_sets() {
        let start = Instant::now();
        let registry = Scripted::new(|asked| {
            if silent.contains(&&*asked.host) && is_registration(asked) { Reply::Never } else { sound(asked) }
        });
        let registrar = registrar(&ALL, &registry);
        registrar.register().await.unwrap();
        let elapsed = start.elapsed();
        assert!(elapsed <= millis(1800), "{silent:?}: {elapsed:?}");
        let responded = ALL.iter().find(|server| !silent.contains(server)).unwrap();
        assert!(registered_at(&registry).ends_with(responded), "{silent:?}: {}", registered_at(&registry));
        sleep(2 * MINUTE).await;
        assert_eq!(renewed_at(&registry).replace(responded, ""), "", "{silent:?}: heartbeats at the first to accept");
    }
}

#[tokio::test(start_paused = true)]
async fn servers_that_are_all_silent_fail_the_registration_after_the_timeouts_of_one() {
    let start = Instant::now();
    let registry = Scripted::new(|_| Reply::Never);
    let error = registrar(&ALL, &registry).register().await.unwrap_err();
    assert!(error.is_timeout(), "{error}");
    let elapsed = start.elapsed();
    assert!(elapsed <= millis(1000 + 1800 + 13_000), "{elapsed:?}");
    assert!(ALL.iter().all(|server| error.to_string().contains(&format!("http://{server}/"))), "{error}");
}

#[tokio::test(start_paused = true)]
async fn late_response_of_a_slow_server_changes_nothing() {
    let start = Instant::now();
    let registry = Scripted::new(|asked| match &*asked.host {
        "a" if is_registration(asked) => Reply::Later(millis(1500), String::new()),
        _ => sound(asked),
    });
    let registrar = registrar(&ALL[..2], &registry);
    let mut events = registrar.events();
    registrar.register().await.unwrap();
    assert_eq!((start.elapsed(), &*registered_at(&registry)), (Duration::from_secs(1), "ab"));
    sleep(MINUTE).await;
    assert_eq!(renewed_at(&registry).replace('b', ""), "", "the lease is renewed where it was accepted");
    registrar.deregister().await.unwrap();
    drop(registrar);
    let mut seen = Vec::new();
    while let Some(event) = events.next().await {
        seen.push(event);
    }
    let registrations = seen.iter().filter(|event| matches!(event, RegistrarEvent::Registered(_))).count();
    let failovers = seen.iter().filter(|event| matches!(event, RegistrarEvent::FailedOver { .. })).count();
    assert_eq!((registrations, failovers), (1, 0), "{seen:?}");
}

#[tokio::test(start_paused = true)]
async fn slow_server_decides_after_another_one_rejected_the_registration() {
    let registry = Scripted::new(|asked| match &*asked.host {
        "a" if is_registration(asked) => Reply::Later(millis(2500), String::new()),
        _ if is_registration(asked) => Reply::Status(400),
        _ => sound(asked),
    });
    let registrar = registrar(&ALL, &registry);
    registrar.register().await.unwrap();
    assert_eq!(registered_at(&registry), "ab", "a rejected registration is sent to no further server");
    sleep(MINUTE).await;
    assert_eq!((renewed_at(&registry).replace('a', ""), registered_at(&registry)), (String::new(), "ab".into()));
}

#[tokio::test(start_paused = true)]
async fn rejection_is_returned_once_the_silent_server_has_timed_out() {
    let registry = Scripted::new(|asked| match &*asked.host {
        "a" if is_registration(asked) => Reply::Never,
        _ if is_registration(asked) => Reply::Status(400),
        _ => sound(asked),
    });
    let error = registrar(&ALL, &registry).register().await.unwrap_err();
    assert_eq!((error.status(), &*registered_at(&registry)), (Some(400), "ab"));
}

#[tokio::test(start_paused = true)]
async fn overloaded_servers_get_three_requests_of_a_registration() {
    let registry = Scripted::new(|_| Reply::Status(503));
    let servers = ["a", "b", "c", "d", "e"];
    registrar(&servers, &registry).register().await.unwrap_err();
    assert_eq!(registered_at(&registry).len(), 3);
    assert_eq!(asked_with(&registry, "GET").len(), 3);
}

#[tokio::test(start_paused = true)]
async fn registration_with_unreachable_servers_is_sent_to_the_last_one_at_once() {
    let start = Instant::now();
    let registry = Scripted::new(|asked| if asked.host == "d" { sound(asked) } else { Reply::Refused });
    registrar(&ALL, &registry).register().await.unwrap();
    assert_eq!((start.elapsed(), registered_at(&registry).chars().last()), (Duration::ZERO, Some('d')));
}
