//! Choice of the registry server, and pauses by `Retry-After`.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use tokio::time::{Instant, sleep};
use tower_eureka::model::InstanceStatus;
use tower_eureka::{BearerToken, Error, Eureka, Interest};

use crate::captured_log::Log;
use crate::common::{Asked, Memory, Reply, Scripted, delta, instance, list, with_vips};
use crate::registry_faults::{follow, gzip};

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);

/// Returns a client of the servers `a`, `b` and `c` in one script, which distinguishes them by the
/// user. It tries them in this order, with short sessions.
fn client(servers: &[&str], registry: &Scripted) -> Eureka {
    let urls: Vec<_> = servers.iter().map(|server| format!("http://{server}:p@{server}/eureka")).collect();
    let builder = Eureka::builder().service_url(urls.join(",")).shuffle_servers(false);
    builder.session_duration(5 * MINUTE).http_service(registry.clone()).build().unwrap()
}

/// Returns the server of a request.
fn server(asked: &Asked) -> char {
    match asked.headers["authorization"].to_str().unwrap() {
        "Basic YTpw" => 'a',
        "Basic Yjpw" => 'b',
        _ => 'c',
    }
}

fn servers(registry: &Scripted) -> String {
    registry.asked().iter().map(server).collect()
}

/// Responds as a server that works.
fn sound(asked: &Asked) -> Reply {
    match &*asked.line {
        "GET /apps/" => Reply::Json(list(&[instance("orders", "a")])),
        "GET /apps/delta" => Reply::Json(delta(&[], "UP_1_")),
        line if line.starts_with("POST") => Reply::Status(204),
        _ => Reply::Status(200),
    }
}

fn is_write(asked: &Asked) -> bool {
    !asked.line.starts_with("GET")
}

fn page() -> Reply {
    Reply::With { status: 200, headers: vec![("content-type", "text/html".into())], body: "<html>Login</html>".into() }
}

fn redirect() -> Reply {
    Reply::With { status: 302, headers: vec![("location", "http://login/".into())], body: Bytes::new() }
}

type Refusal = (&'static str, fn() -> Reply);

/// Returns replies that are about the server or a proxy in front of it.
fn refusals() -> Vec<Refusal> {
    vec![
        ("401", || Reply::Status(401)),
        ("402", || Reply::Status(402)),
        ("403", || Reply::Status(403)),
        ("405", || Reply::Status(405)),
        ("406", || Reply::Status(406)),
        ("407", || Reply::Status(407)),
        ("410", || Reply::Status(410)),
        ("418", || Reply::Status(418)),
        ("421", || Reply::Status(421)),
        ("426", || Reply::Status(426)),
        ("451", || Reply::Status(451)),
        ("a page", page),
        ("a redirect", redirect),
    ]
}

#[tokio::test(start_paused = true)]
async fn registration_rejected_by_one_server_is_sent_to_the_next_at_once() {
    let not_found: Refusal = ("404", || Reply::Status(404));
    for (name, refusal) in refusals().into_iter().chain([not_found]) {
        let registry = Scripted::new(move |asked| if server(asked) == 'a' { refusal() } else { sound(asked) });
        let client = client(&["a", "b"], &registry);
        client.transport().register(&instance("orders", "a")).await.unwrap();
        client.transport().heartbeat("ORDERS", "a", InstanceStatus::Up, 1).await.unwrap();
        assert_eq!(servers(&registry), "abb", "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn heartbeats_rejected_by_one_server_continue_at_the_next() {
    for (name, refusal) in refusals() {
        let start = Instant::now();
        let registry =
            Scripted::new(
                move |asked| {
                    if server(asked) == 'a' && start.elapsed() > MINUTE { refusal() } else { sound(asked) }
                },
            );
        let registrar = client(&["a", "b"], &registry).registrar(instance("orders", "a"));
        registrar.register().await.unwrap();
        sleep(HOUR).await;
        let late: String = registry.asked().iter().filter(|asked| asked.at > MINUTE).map(server).collect();
        let at_a = late.matches('a').count();
        assert!(late.len() - at_a >= 100, "{name}: {late}");
        assert!(at_a <= 16, "{name}: a server that refuses is tried once in a session: {late}");
        assert!(!late.contains("aa"), "{name}: {late}");
    }
}

#[tokio::test(start_paused = true)]
async fn write_rejected_for_its_content_returns_and_the_next_write_starts_at_the_next_server() {
    for status in [400, 409, 413, 415, 422] {
        let registry =
            Scripted::new(move |asked| if server(asked) == 'a' { Reply::Status(status) } else { sound(asked) });
        let registrar = client(&["a", "b"], &registry).registrar(instance("orders", "a"));
        let writes = || -> String { registry.asked().iter().filter(|asked| is_write(asked)).map(server).collect() };
        let error = registrar.register().await.unwrap_err();
        assert_eq!((error.status(), writes()), (Some(status), "a".into()));
        sleep(MINUTE).await;
        assert!(writes().starts_with("abb"), "{status}: {}", writes());
    }
}

#[tokio::test(start_paused = true)]
async fn rejection_by_all_servers_returns_an_error_that_names_all() {
    let registry = Scripted::new(|_| Reply::Status(403));
    let error = client(&["a", "b", "c"], &registry).transport().register(&instance("orders", "a")).await.unwrap_err();
    let text = error.to_string();
    assert_eq!((error.status(), servers(&registry)), (Some(403), "abc".into()));
    assert!(["http://a/", "http://b/", "http://c/"].iter().all(|url| text.contains(url)), "{text}");
}

#[tokio::test(start_paused = true)]
async fn status_override_of_an_unknown_instance_returns_not_found() {
    let registry = Scripted::new(|_| Reply::Status(404));
    let client = client(&["a", "b"], &registry);
    let error: Error = client.transport().set_status("ORDERS", "x", InstanceStatus::Down).await.unwrap_err();
    assert!(error.is_not_found() && registry.asked().len() == 1);
}

#[tokio::test(start_paused = true)]
async fn server_that_rejects_writes_only_keeps_the_reads() {
    let registry =
        Scripted::new(|asked| if server(asked) == 'a' && is_write(asked) { Reply::Status(403) } else { sound(asked) });
    let client = client(&["a", "b"], &registry);
    let _ids = follow(&client);
    let registrar = client.registrar(instance("orders", "a"));
    registrar.register().await.unwrap();
    sleep(HOUR).await;
    let asked = registry.asked();
    // The provider fetches its own record from the server of its heartbeats.
    let is_look = |asked: &Asked| asked.line == "GET /apps/ORDERS/a";
    let looks: String = asked.iter().filter(|asked| is_look(asked)).map(server).collect();
    // The first one goes before the registration.
    assert!(looks.starts_with("ab") && !looks[1..].contains('a'), "{looks}");
    let reads: String = asked.iter().filter(|asked| !is_write(asked) && !is_look(asked)).map(server).collect();
    let writes: String = asked.iter().filter(|asked| is_write(asked)).map(server).collect();
    assert!(!reads.contains('b'), "{reads}");
    assert!(writes.matches('a').count() <= 17 && writes.matches('b').count() > 100, "{writes}");
}

#[tokio::test(start_paused = true)]
async fn clients_return_to_their_first_server_after_a_rolling_restart() {
    let start = Instant::now();
    let registry = Scripted::new(move |asked| match (server(asked), start.elapsed().as_secs()) {
        ('a', 60..120) | ('b', 180..240) => Reply::Status(503),
        _ => sound(asked),
    });
    let client = client(&["b", "a"], &registry);
    let _ids = follow(&client);
    let registrar = client.registrar(instance("orders", "a"));
    registrar.register().await.unwrap();
    sleep(30 * MINUTE).await;
    let asked = registry.asked();
    let at = |from: u32| asked.iter().filter(|a| a.at > MINUTE * from).map(server).collect::<String>();
    assert!(!at(11).contains('a'), "{}", at(11));
}

/// Returns the requests between these seconds.
fn between(registry: &Scripted, from: u64, to: u64) -> Vec<String> {
    let asked = registry.asked();
    asked.iter().filter(|a| (from..to).contains(&a.at.as_secs())).map(|a| format!("{} {}", server(a), a.line)).collect()
}

#[tokio::test(start_paused = true)]
async fn overloaded_cluster_gets_one_request_per_retry_after() {
    // In seconds, and as a date of the server's clock, which is years behind.
    let date = vec![
        ("date", "Sun, 06 Nov 1994 08:49:37 GMT".to_owned()),
        ("retry-after", "Sun, 06 Nov 1994 08:50:37 GMT".to_owned()),
    ];
    for (status, headers) in [(429, vec![("retry-after", "60".to_owned())]), (503, date)] {
        let start = Instant::now();
        let registry = Scripted::new(move |asked| match start.elapsed().as_secs() {
            100..160 => Reply::With { status, headers: headers.clone(), body: Bytes::new() },
            _ => sound(asked),
        });
        let client = client(&["a", "b", "c"], &registry);
        let ids = follow(&client);
        let registrar = client.registrar(instance("orders", "a"));
        registrar.register().await.unwrap();
        sleep(5 * MINUTE).await;
        let overload = between(&registry, 100, 160);
        let reads = overload.iter().filter(|line| line.contains("GET")).count();
        // A read asks each server once, and so does a write. One server gets further heartbeats.
        assert!(reads <= 3 && overload.len() - reads <= 5, "{status}: {overload:?}");
        assert!(!overload.iter().any(|line| line.ends_with("GET /apps/")), "{status}: {overload:?}");
        assert!(between(&registry, 165, 240).len() >= 4, "{status}: it goes on");
        assert_eq!(*ids.lock().unwrap(), ["a"]);
    }
}

#[tokio::test(start_paused = true)]
async fn server_without_retry_after_is_not_paused() {
    let registry = Scripted::new(|asked| match server(asked) {
        'a' => Reply::With { status: 503, headers: vec![("retry-after", "3600".into())], body: Bytes::new() },
        _ => sound(asked),
    });
    let client = client(&["a", "b"], &registry);
    let registrar = client.registrar(instance("orders", "a"));
    registrar.register().await.unwrap();
    sleep(HOUR).await;
    let asked = servers(&registry);
    assert!(asked.matches('b').count() > 100, "{asked}");
    assert!(asked.matches('a').count() <= 13, "five minutes at most are obeyed: {asked}");
}

#[tokio::test(start_paused = true)]
async fn lease_is_renewed_during_a_retry_after_of_an_hour() {
    let start = Instant::now();
    let registry = Scripted::new(move |asked| {
        let refused = (100..120).contains(&start.elapsed().as_secs());
        match refused {
            true => Reply::With { status: 429, headers: vec![("retry-after", "3600".into())], body: Bytes::new() },
            false => sound(asked),
        }
    });
    let client = client(&["a"], &registry);
    let _ids = follow(&client);
    let registrar = client.registrar(instance("orders", "a"));
    registrar.register().await.unwrap();
    sleep(10 * MINUTE).await;
    let beats: Vec<_> = registry.asked().iter().filter(|a| is_write(a)).map(|a| a.at.as_secs()).collect();
    assert!(beats.windows(2).all(|pair| pair[1] - pair[0] < 90), "{beats:?}");
}

#[tokio::test(start_paused = true)]
async fn short_lease_is_renewed_during_a_retry_after_of_a_minute() {
    let start = Instant::now();
    let registry = Scripted::new(move |asked| match start.elapsed().as_millis() {
        2_000..3_500 => Reply::With { status: 429, headers: vec![("retry-after", "60".into())], body: Bytes::new() },
        _ => sound(asked),
    });
    let client = client(&["a"], &registry);
    let short = tower_eureka::Instance::builder("orders").id("a").ip_addr("127.0.0.1").port(1);
    let short = short.renewal_interval(SECOND).lease_duration(6 * SECOND).build().unwrap();
    let registrar = client.registrar(short);
    registrar.register().await.unwrap();
    sleep(MINUTE).await;
    let beats: Vec<_> = registry.asked().iter().map(|asked| asked.at.as_millis()).collect();
    assert!(beats.windows(2).all(|pair| pair[1] - pair[0] < 6_000), "{beats:?}");
}

#[tokio::test(start_paused = true)]
async fn refusals_of_one_instance_cost_neither_the_lease_of_another_nor_the_lists() {
    for seconds in [10, 60, 300] {
        let registry = Scripted::new(move |asked| match asked.line.contains("BILLING") && is_write(asked) {
            true => {
                let headers = vec![("retry-after", seconds.to_string())];
                Reply::With { status: 429, headers, body: Bytes::new() }
            }
            false => sound(asked),
        });
        let client = client(&["a"], &registry);
        let registrar = client.registrar(instance("orders", "a"));
        registrar.register().await.unwrap();
        sleep(11 * SECOND).await;
        let refused = client.registrar(instance("billing", "b"));
        refused.register().await.unwrap_err();
        let ids = follow(&client);
        sleep(HOUR).await;
        assert_eq!(*ids.lock().unwrap(), ["a"], "{seconds}");
        let writes = |app| registry.asked().into_iter().filter(move |a| is_write(a) && a.line.contains(app));
        let beats: Vec<_> = writes("ORDERS").filter(|a| a.line.starts_with("PUT")).map(|a| a.at.as_secs()).collect();
        assert!(beats.windows(2).all(|pair| pair[1] - pair[0] < 40), "{seconds}: {beats:?}");
        let attempts = writes("BILLING").count();
        assert!((60..160).contains(&attempts), "{seconds}: {attempts}");
    }
}

#[tokio::test(start_paused = true)]
async fn refused_reads_do_not_delay_the_result_of_a_health_check() {
    for seconds in [300, 307, 314, 321] {
        let registry = Scripted::new(|asked| match is_write(asked) {
            true => sound(asked),
            false => Reply::With { status: 429, headers: vec![("retry-after", "60".into())], body: Bytes::new() },
        });
        let is_up = Arc::new(AtomicBool::new(true));
        let health = is_up.clone();
        let registrar = client(&["a"], &registry).registrar(instance("orders", "a"));
        let registrar = registrar.health(SECOND, move || {
            let is_up = health.load(Ordering::Relaxed);
            async move { is_up }
        });
        registrar.register().await.unwrap();
        sleep(Duration::from_secs(seconds)).await;
        is_up.store(false, Ordering::Relaxed);
        sleep(5 * SECOND).await;
        let (_, last) = registry.registrations().pop().unwrap();
        assert_eq!(last.status(), InstanceStatus::Down, "{seconds}");
        let reads = registry.asked().iter().filter(|asked| !is_write(asked)).count();
        assert!(reads <= 7, "the record is read once per pause: {reads}");
    }
}

#[tokio::test(start_paused = true)]
async fn interactive_call_to_a_paused_server_is_sent() {
    let registry = Scripted::new(|asked| match &*asked.line {
        "GET /apps/ORDERS" => {
            Reply::With { status: 429, headers: vec![("retry-after", "60".into())], body: Bytes::new() }
        }
        _ => sound(asked),
    });
    let client = client(&["a"], &registry);
    let error = client.transport().application("ORDERS").await.unwrap_err();
    assert_eq!(error.retry_after(), Some(MINUTE));
    client.transport().applications().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn delta_rejected_by_an_overloaded_server_causes_no_full_fetch() {
    for status in [429, 500, 502, 503, 504] {
        let start = Instant::now();
        let registry = Scripted::new(move |asked| match start.elapsed().as_secs() {
            50..80 => Reply::Status(status),
            _ => sound(asked),
        });
        let _ids = follow(&client(&["a"], &registry));
        sleep(3 * MINUTE).await;
        assert_eq!(between(&registry, 50, 80).len(), 1, "{status}: {:?}", between(&registry, 50, 80));
        assert_eq!(between(&registry, 1, 180).iter().filter(|line| line.ends_with("/apps/")).count(), 0, "{status}");
    }
}

#[tokio::test(start_paused = true)]
async fn overload_long_after_the_last_full_list_causes_no_full_fetch_for_ten_minutes() {
    // The copies are as old as clients are, so some have an old full list whenever it begins.
    for begin in [700, 1_000, 1_300] {
        let start = Instant::now();
        let registry = Scripted::new(move |asked| match start.elapsed().as_secs() {
            at if (begin..begin + 1_200).contains(&at) => Reply::Status(503),
            _ => sound(asked),
        });
        let _ids = follow(&client(&["a"], &registry));
        sleep(40 * MINUTE).await;
        let fulls = |from, to| between(&registry, from, to).iter().filter(|line| line.ends_with("/apps/")).count();
        assert_eq!(fulls(begin + 40, begin + 590), 0, "{begin}");
        assert_eq!(fulls(begin + 590, begin + 850), 1, "{begin}");
    }
}

#[tokio::test(start_paused = true)]
async fn server_that_rejects_deltas_sends_full_lists_each_interval() {
    for status in [400, 401, 406, 409, 451] {
        let (log, guard) = Log::start(tracing::Level::INFO);
        let registry = Scripted::new(move |asked| match &*asked.line {
            "GET /apps/delta" => Reply::Status(status),
            _ => sound(asked),
        });
        let _ids = follow(&client(&["a"], &registry));
        sleep(60 * MINUTE).await;
        drop(guard);
        let (lines, text) = (registry.lines(), log.text());
        let deltas = lines.iter().filter(|line| *line == "GET /apps/delta").count();
        assert!((5..10).contains(&deltas), "two, and one in ten minutes: {deltas}");
        assert!(lines.len() - deltas > 100, "{}", lines.len());
        for (message, count) in [("rejects deltas", 1), ("refresh failed", 1), ("refresh recovered", 1)] {
            assert_eq!(text.matches(message).count(), count, "{status}: {text}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn client_that_is_rejected_for_a_while_goes_on_with_deltas() {
    let start = Instant::now();
    let registry = Scripted::new(move |asked| match start.elapsed().as_secs() {
        100..400 => Reply::Status(401),
        _ => sound(asked),
    });
    let _ids = follow(&client(&["a"], &registry));
    sleep(10 * MINUTE).await;
    let later = between(&registry, 440, 600);
    assert!(later.len() > 3 && later.iter().all(|line| line.ends_with("/delta")), "{later:?}");
}

#[tokio::test(start_paused = true)]
async fn registry_that_was_never_fetched_is_retried_early() {
    let registry = Scripted::new(|_| Reply::Status(503));
    let _ids = follow(&client(&["a"], &registry));
    sleep(8 * SECOND).await;
    assert_eq!(registry.asked().len(), 4, "{:?}", registry.asked());
}

#[tokio::test(start_paused = true)]
async fn server_without_response_at_start_delays_the_first_list_by_a_second() {
    for (hanging, bound) in [("a", 1_200), ("ab", 2_200)] {
        let memory = Memory::of([instance("orders", "a")]);
        let registry =
            Scripted::new(move |asked| if hanging.contains(server(asked)) { Reply::Never } else { memory.full() });
        let client = client(&["a", "b", "c"], &registry);
        let start = Instant::now();
        let _ids = follow(&client);
        while client.snapshot().instance_count() == 0 {
            sleep(Duration::from_millis(10)).await;
        }
        assert!(start.elapsed().as_millis() <= bound, "{:?}", start.elapsed());
        // This is within the first session.
        sleep(2 * MINUTE).await;
        assert!(
            !servers(&registry)[hanging.len() + 1..].contains("ba"),
            "later ones are not doubled: {}",
            servers(&registry)
        );
    }
}

#[tokio::test(start_paused = true)]
async fn first_list_comes_from_the_only_sound_server_wherever_it_is_in_the_list() {
    let faults: [fn() -> Reply; 4] = [
        || Reply::Never,
        || Reply::Breaks,
        || Reply::Later(10 * SECOND, list(&[instance("orders", "late")])),
        || Reply::With { status: 503, headers: vec![("retry-after", "60".into())], body: Bytes::new() },
    ];
    for fault in faults {
        for (count, sound) in [(2, 1), (4, 0), (4, 1), (4, 3), (8, 7), (16, 15)] {
            let host = format!("r{sound}");
            let registry = Scripted::new(move |asked| match asked.host == host {
                true => Reply::Json(list(&[instance("orders", "a")])),
                false => fault(),
            });
            let urls: Vec<_> = (0..count).map(|number| format!("http://r{number}/eureka")).collect();
            let client = Eureka::builder().service_url(urls.join(",")).shuffle_servers(false);
            let client = client.http_service(registry.clone()).build().unwrap();
            let start = Instant::now();
            let ids = follow(&client);
            while client.snapshot().instance_count() == 0 {
                sleep(Duration::from_millis(10)).await;
            }
            assert!(start.elapsed() < 3 * SECOND, "within the ready timeout: {:?}", start.elapsed());
            assert_eq!(registry.asked().len(), sound + 1, "each server is asked once");
            sleep(SECOND).await;
            assert_eq!(*ids.lock().unwrap(), ["a"]);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn first_fetch_has_a_limited_number_of_requests_at_the_same_time() {
    let registry = Scripted::new(|_| Reply::Never);
    let urls: Vec<_> = (0..40).map(|number| format!("http://r{number}/eureka")).collect();
    let client = Eureka::builder().service_url(urls.join(",")).http_service(registry.clone()).build().unwrap();
    let _ids = follow(&client);
    sleep(5 * SECOND).await;
    assert_eq!(registry.asked().len(), 16);
    sleep(MINUTE).await;
    let hosts: std::collections::BTreeSet<_> = registry.asked().into_iter().map(|asked| asked.host).collect();
    assert_eq!(hosts.len(), 40, "each server is asked in the end");
}

#[tokio::test(start_paused = true)]
async fn first_list_with_a_slow_body_is_fetched_from_one_server() {
    for count in [2, 6, 16] {
        let gap = Duration::from_millis(100);
        let registry = Scripted::new(move |_| Reply::Steadily(gap, 25, list(&[instance("orders", "a")])));
        let urls: Vec<_> = (0..count).map(|number| format!("http://r{number}/eureka")).collect();
        let client = Eureka::builder().service_url(urls.join(",")).http_service(registry.clone()).build().unwrap();
        let ids = follow(&client);
        sleep(3 * SECOND).await;
        assert_eq!((registry.asked().len(), ids.lock().unwrap().len()), (1, 1), "{count}");
    }
}

#[tokio::test(start_paused = true)]
async fn server_that_stops_behind_its_head_or_drips_delays_the_first_list_for_a_bounded_time() {
    let drip = || Reply::Steadily(Duration::from_millis(100), 10_000, " ".repeat(10_000) + &list(&[]));
    let faults: [(fn() -> Reply, u64); 3] =
        [(|| Reply::Stalls, 2_200), (|| Reply::Slowly(Duration::ZERO, MINUTE, list(&[])), 2_200), (drip, 4_200)];
    for (fault, bound) in faults {
        for count in [2, 4, 16] {
            let registry = Scripted::new(move |asked| match asked.host == "r0" {
                true => fault(),
                false => Reply::Json(list(&[instance("orders", "a")])),
            });
            let urls: Vec<_> = (0..count).map(|number| format!("http://r{number}/eureka")).collect();
            let client = Eureka::builder().service_url(urls.join(",")).shuffle_servers(false);
            let client = client.http_service(registry.clone()).build().unwrap();
            let start = Instant::now();
            let _ids = follow(&client);
            while client.snapshot().instance_count() == 0 {
                sleep(Duration::from_millis(10)).await;
            }
            assert!(start.elapsed() <= Duration::from_millis(bound), "{count}: {:?}", start.elapsed());
            assert_eq!(registry.asked().len(), 2, "{count}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn connection_that_is_refused_during_an_overload_causes_no_full_fetch() {
    let start = Instant::now();
    let registry = Scripted::new(move |asked| match start.elapsed().as_secs() {
        760..800 => Reply::Refused,
        700..1_900 => Reply::Status(503),
        _ => sound(asked),
    });
    let _ids = follow(&client(&["a"], &registry));
    sleep(40 * MINUTE).await;
    let fulls = |from, to| between(&registry, from, to).iter().filter(|line| line.ends_with("/apps/")).count();
    assert_eq!((fulls(740, 1_290), between(&registry, 700, 1_290).len() > 10), (0, true));
    assert!(fulls(1_290, 1_560) >= 1);
}

#[tokio::test(start_paused = true)]
async fn full_list_in_place_of_refused_deltas_that_fails_is_repeated_soon() {
    let start = Instant::now();
    let registry = Scripted::new(move |asked| match &*asked.line {
        "GET /apps/delta" if start.elapsed() > 100 * SECOND => Reply::Status(503),
        "GET /apps/" if (100..1_000).contains(&start.elapsed().as_secs()) => Reply::Status(500),
        _ => sound(asked),
    });
    let client = client(&["a"], &registry);
    let _ids = follow(&client);
    // The first one is due up to 12.5 minutes after the first refusal, at the next refresh.
    sleep(1_000 * SECOND).await;
    let (before, failed) = (client.status().refreshes().full, between(&registry, 600, 1_000));
    let failed = failed.iter().filter(|line| line.ends_with("/apps/")).count();
    assert!((1..=10).contains(&failed), "each second refresh: {failed}");
    sleep(100 * SECOND).await;
    assert_eq!(client.status().refreshes().full, before + 1, "{:?}", between(&registry, 600, 1_100));
}

#[tokio::test(start_paused = true)]
async fn new_client_of_an_empty_server_asks_the_others() {
    for interest in [Interest::All, Interest::Used, Interest::Vip("orders".into())] {
        for sound in ["b", "c", "none"] {
            let registry = Scripted::new(move |asked| match (&*asked.line, asked.host == sound) {
                (line, true) if line.ends_with("delta") => Reply::Json(delta(&[], "UP_1_")),
                (line, false) if line.ends_with("delta") => Reply::Json(delta(&[], "")),
                ("GET /apps/ORDERS", _) => Reply::Status(404),
                (_, true) => Reply::Json(list(&[with_vips("orders", "a", "orders")])),
                (_, false) => Reply::Json(list(&[])),
            });
            let client = Eureka::builder().service_url("http://a/eureka,http://b/eureka,http://c/eureka");
            let client = client.shuffle_servers(false).interest(interest.clone()).http_service(registry.clone());
            let client = client.build().unwrap();
            let _orders = client.discover("orders").unwrap();
            sleep(3 * MINUTE).await;
            let expected = usize::from(sound != "none");
            assert_eq!(client.snapshot().instance_count(), expected, "{interest:?}, {sound}");
            let hosts: Vec<_> = registry.asked().into_iter().map(|asked| asked.host).collect();
            let changes = hosts.windows(2).filter(|pair| pair[0] != pair[1]).count();
            assert!(changes <= 3, "{interest:?}: an empty registry is not asked for ever: {hosts:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn fault_on_this_side_leaves_no_server() {
    let (registry, calls) = (Scripted::new(sound), AtomicUsize::new(0));
    let client = Eureka::builder().service_url("http://a/eureka,http://b/eureka").shuffle_servers(false);
    let client = client.bearer_token(move || {
        let fails = calls.fetch_add(1, Ordering::Relaxed) == 1;
        async move { if fails { Err("no token") } else { Ok(BearerToken::new("t").expires_in(10 * SECOND)) } }
    });
    let client = client.http_service(registry.clone()).build().unwrap();
    for fails in [false, true, false] {
        assert_eq!(client.transport().applications().await.is_err(), fails);
        sleep(20 * SECOND).await;
    }
    assert_eq!(registry.asked().iter().map(|asked| &*asked.host).collect::<Vec<_>>(), ["a", "a"]);
}

#[tokio::test(start_paused = true)]
async fn body_that_breaks_concerns_reads_only() {
    let registry = Scripted::new(|asked| match (server(asked), is_write(asked)) {
        ('a', false) => Reply::Breaks,
        _ => sound(asked),
    });
    let client = client(&["a", "b"], &registry);
    client.transport().applications().await.unwrap();
    client.transport().register(&instance("orders", "a")).await.unwrap();
    client.transport().applications().await.unwrap();
    assert_eq!(servers(&registry), "abab");
}

#[tokio::test(start_paused = true)]
async fn server_that_fails_deltas_only_is_one_lasting_error_with_fresh_lists() {
    let (log, guard) = Log::start(tracing::Level::INFO);
    let start = Instant::now();
    let registry = Scripted::new(move |asked| match &*asked.line {
        "GET /apps/delta" if start.elapsed() < 60 * MINUTE => Reply::Status(500),
        _ => sound(asked),
    });
    let client = client(&["a"], &registry);
    let _ids = follow(&client);
    sleep(2 * MINUTE).await;
    for _ in 0..50 {
        sleep(MINUTE).await;
        let status = client.status();
        assert!(status.error().is_some() && status.age().is_some_and(|age| age < 6 * MINUTE), "{status}");
    }
    sleep(20 * MINUTE).await;
    assert!(client.status().error().is_none());
    drop(guard);
    for message in ["refresh failed", "refresh recovered"] {
        assert_eq!(log.text().matches(message).count(), 1, "{}", log.text());
    }
}

#[tokio::test(start_paused = true)]
async fn server_that_was_sending_its_list_when_another_one_completed_keeps_the_writes() {
    for (head, writer) in [(1_200, 'a'), (5_000, 'b')] {
        let registry = Scripted::new(move |asked| match server(asked) {
            _ if is_write(asked) => Reply::Status(204),
            'a' => Reply::Slowly(Duration::from_millis(head), 4 * SECOND, list(&[])),
            _ => Reply::Later(Duration::from_millis(500), list(&[instance("orders", "a")])),
        });
        let client = client(&["a", "b"], &registry);
        let _ids = follow(&client);
        sleep(2 * SECOND).await;
        assert_eq!(servers(&registry), "ab");
        client.transport().register(&instance("orders", "a")).await.unwrap();
        assert_eq!(servers(&registry).pop(), Some(writer), "{head}");
    }
}

#[tokio::test(start_paused = true)]
async fn slow_first_list_is_awaited() {
    let registry = Scripted::new(|asked| match server(asked) {
        'a' => Reply::Later(5 * SECOND, list(&[instance("orders", "slow")])),
        _ => Reply::Never,
    });
    let ids = follow(&client(&["a", "b"], &registry));
    sleep(6 * SECOND).await;
    assert_eq!(*ids.lock().unwrap(), ["slow"]);
}

#[tokio::test(start_paused = true)]
async fn gzip_without_content_encoding_is_decompressed() {
    let json = list(&[instance("orders", "a")]);
    let once = gzip(json.as_bytes());
    for (packed, headers) in [
        (once.clone(), vec![]),
        (once.clone(), vec![("content-encoding", "x-gzip".to_owned())]),
        (gzip(&once), vec![]),
        (gzip(&once), vec![("content-encoding", "gzip".to_owned())]),
    ] {
        let registry =
            Scripted::new(move |_| Reply::With { status: 200, headers: headers.clone(), body: packed.clone() });
        let applications = registry.client().build().unwrap().transport().applications().await.unwrap();
        assert_eq!(applications.len(), 1);
    }
    for (body, words) in
        [(gzip(&vec![b' '; 20 << 20]), "larger than"), (once.slice(..once.len() / 2), "cannot be read")]
    {
        let registry = Scripted::new(move |_| Reply::With { status: 200, headers: vec![], body: body.clone() });
        let client = registry.client().body_limit(1 << 20).build().unwrap();
        let error = client.transport().applications().await.unwrap_err();
        assert!(error.to_string().contains(words), "{error}");
    }
}

#[tokio::test(start_paused = true)]
async fn retry_after_is_parsed_as_seconds_and_as_date() {
    for (text, expected) in [
        ("60", Some(MINUTE)),
        (" 0 ", Some(Duration::ZERO)),
        ("Sun, 06 Nov 1994 08:50:37 GMT", Some(MINUTE)),
        ("Sunday, 06-Nov-94 08:50:37 GMT", Some(MINUTE)),
        ("Sun Nov  6 08:50:37 1994", Some(MINUTE)),
        ("Sun, 06 Nov 1994 08:00:00 GMT", Some(Duration::ZERO)),
        ("99999999999999999999999999", Some(365 * 24 * HOUR)),
        ("soon", None),
        ("-1", None),
        ("", None),
    ] {
        let headers = vec![("date", "Sun, 06 Nov 1994 08:49:37 GMT".to_owned()), ("retry-after", text.to_owned())];
        let registry =
            Scripted::new(move |_| Reply::With { status: 503, headers: headers.clone(), body: Bytes::new() });
        let error = client(&["a"], &registry).transport().applications().await.unwrap_err();
        assert_eq!(error.retry_after(), expected, "{text:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn full_fetches_during_an_overload_are_delayed_until_its_end() {
    for status in [429, 502, 503, 504] {
        let start = Instant::now();
        let registry = Scripted::new(move |asked| match start.elapsed().as_secs() {
            50..600 => Reply::Status(status),
            _ => sound(asked),
        });
        let _ids = follow(&client(&["a"], &registry));
        sleep(11 * MINUTE).await;
        let overload = between(&registry, 50, 600);
        let is_full = |line: &String| line.ends_with("/apps/");
        assert!(overload.len() <= 21 && !overload.iter().any(is_full), "{status}: {overload:?}");
        assert!(between(&registry, 600, 660).iter().any(is_full), "{status}: after the gap");
    }
}

#[tokio::test(start_paused = true)]
async fn retry_after_with_a_status_other_than_overload_pauses_no_server() {
    for status in [301, 401, 404, 500] {
        let start = Instant::now();
        let registry = Scripted::new(move |asked| match start.elapsed().as_secs() {
            50..60 => Reply::With { status, headers: vec![("retry-after", "300".into())], body: Bytes::new() },
            _ => sound(asked),
        });
        let client = Eureka::builder().service_url("http://a:p@a/eureka").fetch_interval(5 * SECOND);
        let client = client.http_service(registry.clone()).build().unwrap();
        let _ids = follow(&client);
        sleep(2 * MINUTE).await;
        let after = between(&registry, 60, 72);
        assert!(!after.is_empty(), "{status}: {after:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn overloaded_server_is_paused_although_the_other_server_fails_otherwise() {
    for status in [429, 503] {
        for servers in [["a", "b"], ["b", "a"]] {
            let start = Instant::now();
            let registry = Scripted::new(move |asked| match server(asked) {
                _ if start.elapsed() < 50 * SECOND => sound(asked),
                'a' => Reply::Status(status),
                _ => page(),
            });
            let _ids = follow(&client(&servers, &registry));
            sleep(3 * MINUTE).await;
            let asked = between(&registry, 50, 180);
            let overloaded = asked.iter().filter(|line| line.starts_with('a')).count();
            assert!(overloaded <= 6, "{status} {servers:?}: {asked:?}");
            assert!(!asked.iter().any(|line| line.ends_with("GET /apps/")), "{status} {servers:?}: {asked:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn short_lease_is_renewed_while_the_first_server_does_not_respond() {
    for (renewal, lease) in [(3, 9), (5, 15), (10, 30)] {
        let start = Instant::now();
        let registry = Scripted::new(move |asked| match server(asked) {
            'a' if start.elapsed() > 20 * SECOND => Reply::Never,
            _ => sound(asked),
        });
        let client = client(&["a", "b"], &registry);
        let _ids = follow(&client);
        let short = tower_eureka::Instance::builder("orders").id("a").ip_addr("127.0.0.1").port(1);
        let short = short.renewal_interval(renewal * SECOND).lease_duration(lease * SECOND).build().unwrap();
        let registrar = client.registrar(short);
        registrar.register().await.unwrap();
        sleep(HOUR).await;
        let asked = registry.asked();
        let good = |asked: &&Asked| is_write(asked) && (server(asked) == 'b' || asked.at <= 20 * SECOND);
        let beats: Vec<_> = asked.iter().filter(good).map(|asked| asked.at).collect();
        let gap = beats.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap();
        assert!(gap < lease * SECOND, "lease of {lease} s: {gap:?}");
    }
}
