//! The order of servers named `0`, `1` and so on.

use std::collections::BTreeSet;

use tokio::time::advance;

use super::*;

const SECOND: Duration = Duration::from_secs(1);
const SESSION: Duration = Duration::from_secs(1200);

fn url(server: usize) -> ServiceUrl {
    ServiceUrl::parse_list(&format!("http://{server}/")).unwrap().remove(0)
}

fn number(url: &ServiceUrl) -> usize {
    url.host_and_port().0.parse().unwrap()
}

fn numbers(urls: &[ServiceUrl]) -> Vec<usize> {
    urls.iter().map(number).collect()
}

fn select(order: &ServerOrder, access: Access) -> Vec<usize> {
    numbers(&order.select(access, Some(&LastWrite::default())).unwrap())
}

/// Returns a list of the servers of each rank.
fn list(ranks: &[&[usize]]) -> Vec<ListedServer> {
    let mut list = Vec::new();
    for (rank, servers) in ranks.iter().enumerate() {
        list.extend(servers.iter().map(|&n| ListedServer { url: url(n), zone: format!("z{rank}").into(), rank }));
    }
    list
}

/// Returns an order of servers that are not shuffled.
fn order_with(ranks: &[&[usize]], threshold: f64) -> ServerOrder {
    let settings = ServerSettings { shuffle: false, quarantine_threshold: threshold, ..ServerSettings::default() };
    let order = ServerOrder::new(&settings);
    order.replace(list(ranks));
    order
}

/// Returns an order whose first session has begun.
fn order_of(servers: usize) -> ServerOrder {
    let order = order_with(&[&(0..servers).collect::<Vec<_>>()], 0.66);
    select(&order, Access::Read);
    order
}

#[tokio::test(start_paused = true)]
async fn read_at_a_server_that_refuses_writes_does_not_move_writes() {
    let order = order_of(3);
    order.succeeded(Access::Write, &url(1), &[]);
    order.succeeded(Access::Read, &url(0), &[]);
    assert_eq!(select(&order, Access::Write), [1, 2, 0]);
    assert_eq!(select(&order, Access::Read), [0, 1, 2]);
}

#[tokio::test(start_paused = true)]
async fn unavailable_server_is_left_by_both_kinds() {
    let order = order_of(2);
    order.succeeded(Access::Write, &url(1), &[&url(0)]);
    assert_eq!(select(&order, Access::Read), [1, 0]);
}

#[tokio::test(start_paused = true)]
async fn paused_server_is_skipped_in_the_background_only() {
    let order = order_of(2);
    order.pause(Access::Read, &url(0), StatusCode::TOO_MANY_REQUESTS, 60 * SECOND);
    assert_eq!(select(&order, Access::Read), [1]);
    assert_eq!(numbers(&order.select(Access::Read, None).unwrap()), [1, 0]);
    order.pause(Access::Read, &url(1), StatusCode::TOO_MANY_REQUESTS, 3600 * SECOND);
    let paused = order.select(Access::Read, Some(&LastWrite::default())).unwrap_err();
    assert_eq!((number(&paused.server), paused.wait), (0, 60 * SECOND));
    advance(60 * SECOND).await;
    assert_eq!(select(&order, Access::Read), [0]);
    advance(MAX_RETRY_AFTER - 60 * SECOND).await;
    assert_eq!(select(&order, Access::Read), [0, 1], "the pause is capped");
}

#[tokio::test(start_paused = true)]
async fn write_that_succeeds_does_not_end_the_pause_of_reads() {
    let order = order_of(1);
    for access in [Access::Read, Access::Write] {
        order.pause(access, &url(0), StatusCode::SERVICE_UNAVAILABLE, 60 * SECOND);
    }
    order.succeeded(Access::Write, &url(0), &[]);
    assert_eq!(select(&order, Access::Write), [0]);
    assert!(order.select(Access::Read, Some(&LastWrite::default())).is_err());
}

#[tokio::test(start_paused = true)]
async fn refusal_of_one_kind_does_not_pause_the_other() {
    for (refused, other) in [(Access::Read, Access::Write), (Access::Write, Access::Read)] {
        let order = order_of(1);
        order.pause(refused, &url(0), StatusCode::SERVICE_UNAVAILABLE, 60 * SECOND);
        assert!(order.select(refused, Some(&LastWrite::default())).is_err());
        assert_eq!(select(&order, other), [0]);
        assert!(order.check_pause(refused, &url(0)).is_err() && order.check_pause(other, &url(0)).is_ok());
    }
}

#[tokio::test(start_paused = true)]
async fn write_is_sent_to_one_paused_server_per_quarter_of_the_lease() {
    let (order, last_write) = (order_of(2), LastWrite::default());
    let pause = |server: &ServiceUrl| order.pause(Access::Write, server, StatusCode::TOO_MANY_REQUESTS, 3600 * SECOND);
    order.record_lease(40 * SECOND);
    pause(&url(1));
    advance(SECOND).await;
    pause(&url(0));
    let mut sent = Vec::new();
    for second in 1..=30 {
        advance(SECOND).await;
        if let Ok(servers) = order.select(Access::Write, Some(&last_write)) {
            servers.iter().for_each(pause);
            sent.push((second, numbers(&servers)));
        }
    }
    assert_eq!(sent, [(9, vec![1]), (19, vec![0]), (29, vec![1])]);
}

#[tokio::test(start_paused = true)]
async fn each_loop_sends_its_writes_although_another_one_is_refused_again_and_again() {
    let (order, loops) = (order_of(1), [LastWrite::default(), LastWrite::default(), LastWrite::default()]);
    let pause = || order.pause(Access::Write, &url(0), StatusCode::TOO_MANY_REQUESTS, 3600 * SECOND);
    order.record_lease(40 * SECOND);
    assert!(order.select(Access::Write, Some(&loops[0])).is_ok());
    pause();
    let mut sent = [const { Vec::new() }; 3];
    for second in 1..=60 {
        advance(SECOND).await;
        for (last_write, sent) in loops.iter().zip(&mut sent) {
            if order.select(Access::Write, Some(last_write)).is_ok() {
                sent.push(second);
                pause();
            }
        }
    }
    assert_eq!(sent, [[10, 20, 30, 40, 50, 60], [10, 20, 30, 40, 50, 60], [10, 20, 30, 40, 50, 60]]);
}

#[tokio::test(start_paused = true)]
async fn session_end_returns_to_the_configured_order() {
    let order = order_of(2);
    order.succeeded(Access::Read, &url(1), &[&url(0)]);
    advance(SESSION / 2 - SECOND).await;
    assert_eq!(select(&order, Access::Read), [1, 0]);
    advance(SESSION + SECOND).await;
    assert_eq!(select(&order, Access::Read), [0, 1]);
    assert_eq!(select(&order, Access::Write), [0, 1]);
}

#[tokio::test(start_paused = true)]
async fn session_lasts_from_half_to_one_and_a_half_of_its_duration() {
    let mut lengths = Vec::new();
    for _ in 0..200 {
        let order = order_of(1);
        let ends = order.lock().session_ends.unwrap() - Instant::now();
        lengths.push(ends);
    }
    let (shortest, longest) = (*lengths.iter().min().unwrap(), *lengths.iter().max().unwrap());
    assert!(shortest >= SESSION / 2 && longest < SESSION * 3 / 2, "{shortest:?} to {longest:?}");
    assert!(shortest < SESSION * 6 / 10 && longest > SESSION * 14 / 10, "{shortest:?} to {longest:?}");
}

#[tokio::test(start_paused = true)]
async fn sessions_of_a_shuffled_list_begin_at_each_server_of_the_first_zone() {
    let order = ServerOrder::new(&ServerSettings::default());
    order.replace(list(&[&[0, 1, 2], &[3, 4]]));
    let mut firsts = BTreeSet::new();
    for _ in 0..60 {
        let selected = select(&order, Access::Write);
        assert!(selected.iter().all(|&server| server < 3), "{selected:?}");
        assert_eq!(select(&order, Access::Read), selected, "the order is kept during a session");
        firsts.insert(selected[0]);
        advance(SESSION * 3 / 2).await;
    }
    assert_eq!(firsts, BTreeSet::from([0, 1, 2]));
}

#[test]
fn quarantine_threshold_is_the_share_rounded_down() {
    let thresholds: Vec<_> = (1..=10).map(|servers| threshold(servers, 0.66)).collect();
    assert_eq!(thresholds, [0, 1, 1, 2, 3, 3, 4, 5, 5, 6]);
    assert_eq!([0.0, 1.0, 1.5, 66.0].map(|share| threshold(4, share)), [0, 4, 4, 4]);
}

#[tokio::test(start_paused = true)]
async fn server_that_failed_is_left_out_until_most_have_failed() {
    let order = order_of(4);
    order.attempt_failed(Access::Read, &url(0), true);
    assert_eq!(select(&order, Access::Read), [1, 2, 3]);
    assert_eq!(select(&order, Access::Write), [1, 2, 3]);
    order.attempt_failed(Access::Read, &url(1), true);
    assert_eq!(select(&order, Access::Read), [0, 1, 2], "two of four are most, so all are candidates");
    assert_eq!(select(&order, Access::Read), [0, 1, 2]);
}

#[tokio::test(start_paused = true)]
async fn preferred_server_that_failed_is_left_out_as_well() {
    let order = order_of(5);
    order.succeeded(Access::Write, &url(3), &[]);
    order.attempt_failed(Access::Write, &url(3), false);
    assert_eq!(select(&order, Access::Write), [4, 0, 1]);
    assert_eq!(select(&order, Access::Read), [0, 1, 2], "the failure concerns writes only");
    advance(QUARANTINE).await;
    assert_eq!(select(&order, Access::Write), [3, 4, 0], "the quarantine has an end");
}

#[tokio::test(start_paused = true)]
async fn few_servers_are_tried_again_at_once() {
    for servers in 1..=3 {
        let order = order_of(servers);
        order.attempt_failed(Access::Read, &url(0), true);
        assert_eq!(select(&order, Access::Read)[0], 0, "{servers}");
    }
}

#[tokio::test(start_paused = true)]
async fn operations_that_fail_try_every_server_in_turn() {
    for threshold in [0.0, 0.66, 1.0] {
        let order = order_with(&[&[0, 1], &[2, 3, 4, 5, 6, 7], &[8]], threshold);
        let mut tried = BTreeSet::new();
        for _ in 0..4 {
            let servers = order.select(Access::Write, Some(&LastWrite::default())).unwrap();
            servers.iter().for_each(|server| order.attempt_failed(Access::Write, server, true));
            order.failed(Access::Write, servers.last().unwrap());
            tried.extend(numbers(&servers));
        }
        assert_eq!(tried.len(), 9, "{threshold}: {tried:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn own_zone_is_tried_again_after_the_server_of_another_zone() {
    let order = order_with(&[&[0, 1], &[2, 3], &[4]], 1.0);
    assert_eq!(select(&order, Access::Read), [0, 1, 2]);
    order.succeeded(Access::Read, &url(3), &[]);
    assert_eq!(select(&order, Access::Read), [3, 0, 1]);
}

#[tokio::test(start_paused = true)]
async fn replaced_list_keeps_the_preferred_server_and_the_states() {
    let order = order_of(4);
    order.succeeded(Access::Read, &url(2), &[]);
    order.succeeded(Access::Write, &url(3), &[]);
    order.attempt_failed(Access::Read, &url(1), true);
    assert_eq!(order.replace(list(&[&[0, 1, 2, 3]])), None, "the same servers");
    let change = order.replace(list(&[&[5, 4, 2, 1, 0]])).unwrap();
    let urls = |servers: &[usize]| -> Vec<_> { servers.iter().map(|&n| url(n).as_str().clone()).collect() };
    assert_eq!(change, ServerChange { added: urls(&[5, 4]), removed: urls(&[3]) });
    assert_eq!(select(&order, Access::Read), [2, 0, 5], "1 is still left out");
    assert_eq!(select(&order, Access::Write), [5, 4, 2], "3 is gone");
    // A response of a server that was removed meanwhile changes nothing.
    order.succeeded(Access::Write, &url(3), &[]);
    order.failed(Access::Write, &url(3));
    order.attempt_failed(Access::Write, &url(3), true);
    assert_eq!(select(&order, Access::Write), [5, 4, 2]);
}

#[tokio::test(start_paused = true)]
async fn new_order_of_the_same_servers_counts_unless_they_are_shuffled() {
    let unchanged = Some(ServerChange { added: Vec::new(), removed: Vec::new() });
    for shuffle in [false, true] {
        let order = ServerOrder::new(&ServerSettings { shuffle, ..ServerSettings::default() });
        order.replace(list(&[&[0, 1], &[2]]));
        let reordered = order.replace(list(&[&[1, 0], &[2]]));
        assert_eq!(reordered, unchanged.clone().filter(|_| !shuffle));
        if !shuffle {
            assert_eq!(select(&order, Access::Read), [1, 0, 2]);
        }
        // Zones are sorted by rank before the lists are compared.
        let mut later_zone_first = list(&[&[1, 0], &[2]]);
        later_zone_first.rotate_right(1);
        assert_eq!(order.replace(later_zone_first), None);
    }
}

#[tokio::test(start_paused = true)]
async fn status_shows_the_servers_in_use_without_credentials() {
    let order = ServerOrder::new(&ServerSettings { shuffle: false, ..ServerSettings::default() });
    let secret = ServiceUrl::parse_list("http://user:secret@0/").unwrap().remove(0);
    let mut servers = list(&[&[0], &[1, 2, 3]]);
    servers[0].url = secret;
    order.replace(servers);
    order.succeeded(Access::Read, &url(1), &[]);
    order.attempt_failed(Access::Write, &url(2), false);
    order.pause(Access::Read, &url(3), StatusCode::TOO_MANY_REQUESTS, 60 * SECOND);
    let status = order.status();
    assert!(!format!("{status:?}").contains("secret"), "{status:?}");
    assert_eq!((status[0].url(), status[0].zone()), ("http://0/", Some("z0")));
    assert_eq!(status.iter().map(RegistryServer::serves_reads).collect::<Vec<_>>(), [false, true, false, false]);
    assert!(!status.iter().any(RegistryServer::serves_writes) && status[2].is_quarantined());
    assert_eq!((status[0].pause(), status[3].pause()), (None, Some(60 * SECOND)));
}
