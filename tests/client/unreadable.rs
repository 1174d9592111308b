//! Instances of a registry that cannot be read: all others stay in use, and deltas go on.

use std::time::Duration;

use bytes::Bytes;
use tokio::time::{Instant, sleep};

use crate::captured_log::Log;
use crate::common::{Asked, Reply, Scripted};
use crate::registry_faults::follow;

const MINUTE: Duration = Duration::from_secs(60);
const FULL: &str = "GET /apps/";

/// Members that the parser refuses, but lenient parsers read.
const REPAIRED: [&[u8]; 6] = [
    br#""metadata":{"owner":"\ud800"}"#,
    b"\"metadata\":{\"owner\":\"line\nbreak\x01\"}",
    b"\"hostName\":\"J\xf6rg\"",
    br#""lastDirtyTimestamp":1e400"#,
    br#""lastUpdatedTimestamp":NaN"#,
    br#""homePageUrl":"http:\/\/h\q""#,
];
/// Members without a meaning.
const SKIPPED: [&[u8]; 3] = [br#""vipAddress":"#, br#""port" 80"#, b"7"];

fn instance(id: &str, action: &str, member: &[u8]) -> Vec<u8> {
    let known =
        format!(r#"{{"instanceId":"{id}","app":"ORDERS","status":"UP","ipAddr":"10.0.0.1","actionType":"{action}","#);
    [known.as_bytes(), member, b"}"].concat()
}

fn good(id: &str) -> Vec<u8> {
    instance(id, "ADDED", br#""port":{"$":80,"@enabled":"true"}"#)
}

/// Returns a list of these instances with this hash.
fn list(instances: &[Vec<u8>], hash: &str) -> Reply {
    let start = format!(r#"{{"applications":{{"versions__delta":"1","apps__hashcode":"{hash}","application":["#);
    let start = [start.as_bytes(), br#"{"name":"ORDERS","instance":["#].concat();
    Reply::With {
        status: 200,
        headers: vec![("content-type", "application/json".into())],
        body: Bytes::from([&start[..], &instances.join(&b","[..]), b"]}]}}"].concat()),
    }
}

fn fulls(registry: &Scripted) -> usize {
    registry.lines().iter().filter(|line| *line == FULL).count()
}

#[tokio::test(start_paused = true)]
async fn instance_that_cannot_be_read_costs_no_other_one_and_no_full_fetch() {
    for (number, member) in REPAIRED.iter().chain(&SKIPPED).enumerate() {
        let (log, guard) = Log::start(tracing::Level::WARN);
        let id = format!("bad-{number}");
        let bad = instance(&id, "ADDED", member);
        let registry = Scripted::new(move |asked| match &*asked.line {
            FULL => list(&[good("a"), bad.clone(), good("b")], "UP_3_"),
            _ => list(&[good("a"), bad.clone()], "UP_3_"),
        });
        let client = registry.client().build().unwrap();
        let ids = follow(&client);
        sleep(4 * MINUTE).await;
        let is_repaired = number < REPAIRED.len();
        let expected = ["a", "b", &id];
        assert_eq!(*ids.lock().unwrap(), expected[..if is_repaired { 3 } else { 2 }], "{id}");
        assert_eq!(fulls(&registry), 1, "{id}: {:?}", registry.lines());
        drop(guard);
        let text = log.text();
        let warnings: Vec<_> = text.lines().filter(|line| line.contains("instance skipped or repaired")).collect();
        assert_eq!(warnings.len(), 1, "{id}: {text}");
        assert!(warnings[0].contains("app=ORDERS") && warnings[0].contains(&format!("instance={id}")), "{text}");
    }
}

#[tokio::test(start_paused = true)]
async fn change_of_an_instance_that_cannot_be_read_costs_one_full_fetch() {
    let start = Instant::now();
    let bad = |action| instance("unreadable", action, b"7");
    let registry = Scripted::new(move |asked: &Asked| {
        let minutes = start.elapsed().as_secs() / 60;
        match (&*asked.line, minutes) {
            (FULL, 0 | 4..) => list(&[good("a"), good("b")], "UP_2_"),
            (FULL, _) => list(&[good("a"), good("b"), bad("ADDED")], "UP_3_"),
            // It is registered, and cancelled three minutes later: before the first verification.
            (_, 1..3) => list(&[bad("ADDED")], "UP_3_"),
            (_, 4..6) => list(&[bad("DELETED")], "UP_2_"),
            (_, 3) => list(&[], "UP_3_"),
            _ => list(&[], "UP_2_"),
        }
    });
    let client = registry.client().build().unwrap();
    let ids = follow(&client);
    for (minutes, mismatches) in [(1, 0), (2, 1), (1, 1), (3, 2)] {
        sleep(minutes * MINUTE).await;
        assert_eq!(client.status().refreshes().mismatches, mismatches, "{:?}", registry.lines());
        assert_eq!(*ids.lock().unwrap(), ["a", "b"]);
    }
}

#[tokio::test(start_paused = true)]
async fn registry_without_a_readable_instance_keeps_the_instances_that_were_known() {
    let unreadable = [instance("x", "ADDED", b"7"), instance("y", "ADDED", b"8")];
    // Records of another form are neither read nor skipped one by one. The hash counts them.
    for later in [list(&unreadable, "UP_2_"), list(&unreadable, ""), list(&[], "UP_2_")] {
        let (start, text) = (Instant::now(), format!("{later:?}"));
        let registry = Scripted::new(move |_| match start.elapsed() < MINUTE {
            true => list(&[good("a"), good("b")], "UP_2_"),
            false => later.clone(),
        });
        let client = registry.client().delta(false).build().unwrap();
        let ids = follow(&client);
        sleep(60 * MINUTE).await;
        assert_eq!(*ids.lock().unwrap(), ["a", "b"], "{text}");
    }
}

#[tokio::test(start_paused = true)]
async fn difference_to_the_hash_that_skipped_instances_do_not_explain_is_a_mismatch() {
    let registry = Scripted::new(move |asked| match &*asked.line {
        FULL => list(&[good("a"), instance("x", "ADDED", b"7")], "UP_3_"),
        _ => list(&[], "UP_3_"),
    });
    let client = registry.client().build().unwrap();
    let _ids = follow(&client);
    sleep(MINUTE).await;
    assert!(fulls(&registry) > 1);
}
