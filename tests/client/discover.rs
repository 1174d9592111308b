//! Selections: their instances, the changes that subscribers receive, and explanations.

use std::collections::BTreeSet;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Wake};
use std::time::Duration;

use tokio_stream::{Stream, StreamExt};
use tower::discover::Change;
use tower_eureka::balance::Attributes;
use tower_eureka::discover::{EurekaDiscover, Finding, Reason, Selection};
use tower_eureka::model::{InstanceChange, InstanceStatus};
use tower_eureka::{Eureka, Instance};

use crate::common::{Memory, Reply, Scripted, down, edited, instance, with_status, with_vips};

/// Time after which every refresh has arrived.
const QUIET: Duration = Duration::from_secs(100);

/// Returns a registry with these instances, and a client that refreshes every 30 seconds.
fn registry(instances: impl IntoIterator<Item = Instance>) -> (Memory, Eureka) {
    let memory = Memory::of(instances);
    let client = memory.serve().client().delta(false).build().unwrap();
    (memory, client)
}

/// Returns the instance with these timestamps in seconds: its last change, and its first UP at the
/// server.
fn stamped(instance: &Instance, dirty: i64, up: i64) -> Instance {
    edited(instance, |json| {
        json["lastDirtyTimestamp"] = (dirty * 1000).to_string().into();
        json["leaseInfo"]["serviceUpTimestamp"] = (up * 1000).into();
    })
}

/// Reads until no change arrives, and returns the inserted (`+`) and removed (`-`) keys, sorted.
async fn settle(discover: &mut EurekaDiscover) -> Vec<String> {
    let mut changes = Vec::new();
    while let Ok(Some(Ok(change))) = tokio::time::timeout(QUIET, discover.next()).await {
        changes.push(match change {
            Change::Insert(key, _) => format!("+{key}"),
            Change::Remove(key) => format!("-{key}"),
        });
    }
    changes.sort();
    changes
}

async fn found(client: &Eureka, selection: impl Into<Selection>) -> Vec<String> {
    settle(&mut client.discover(selection).unwrap()).await
}

#[tokio::test(start_paused = true)]
async fn each_selection_yields_its_own_instances() {
    let secure = Instance::builder("billing").id("s").ip_addr("127.0.0.1").secure_port(1);
    let instances = [
        with_vips("orders", "a", "Orders, orders-v2"),
        with_vips("orders", "b", "orders"),
        down(&with_vips("orders", "c", "orders-v2")),
        with_vips("legacy", "a", "x,ORDERS-V2 ,y"),
        secure.vip_address("plain").secure_vip_address("Secret").build().unwrap(),
    ];
    let client = Scripted::new(move |_| Reply::Json(crate::common::list(&instances))).client().build().unwrap();
    for name in ["orders", "ORDERS", " Orders "] {
        assert_eq!(found(&client, Selection::app(name)).await, ["+a", "+b"], "{name}");
    }
    assert_eq!(found(&client, Selection::vip("orders-V2")).await, ["+LEGACY/a", "+ORDERS/a"]);
    assert_eq!(found(&client, Selection::vip("ORDERS")).await, ["+a", "+b"]);
    assert_eq!(found(&client, Selection::vip("order")).await, [""; 0]);
    assert_eq!(found(&client, Selection::secure_vip("secret")).await, ["+BILLING/s"]);
    assert_eq!(found(&client, Selection::vip("secret")).await, [""; 0]);
    assert_eq!(found(&client, Selection::app("orders-v2")).await, [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn name_without_an_up_instance_of_its_vip_selects_the_application() {
    let (carrier, own) = (with_vips("legacy", "v", "orders"), with_vips("orders", "o", "other"));
    let (memory, client) = registry([carrier.clone(), own]);
    let mut orders = client.discover("orders").unwrap();
    assert_eq!(settle(&mut orders).await, ["+LEGACY/v"]);
    memory.put(down(&carrier));
    assert_eq!(settle(&mut orders).await, ["+o", "-LEGACY/v"].map(String::from));
    memory.put(carrier);
    assert_eq!(settle(&mut orders).await, ["+LEGACY/v", "-o"].map(String::from));
}

#[tokio::test(start_paused = true)]
async fn statuses_and_filters_narrow_every_selection() {
    let coloured = |id, colour| {
        Instance::builder("orders").id(id).ip_addr("127.0.0.1").port(1).metadata("colour", colour).build().unwrap()
    };
    let (_, client) = registry([
        coloured("blue", "blue"),
        coloured("green", "green"),
        with_status(&coloured("early", "blue"), InstanceStatus::Starting),
        down(&coloured("gone", "blue")),
    ]);
    let blue = |i: &Instance| i.metadata().get("colour") == Some("blue");
    for selection in [Selection::app("orders"), Selection::vip("orders"), Selection::name("orders")] {
        assert_eq!(found(&client, selection.clone().filter(blue)).await, ["+blue"]);
        let both = selection.clone().statuses([InstanceStatus::Up, InstanceStatus::Starting]);
        assert_eq!(found(&client, both.clone()).await, ["+blue", "+early", "+green"]);
        let early = both.filter(blue).filter(|i| i.id().starts_with('e'));
        assert_eq!(found(&client, early.clone()).await, ["+early"]);
        assert_eq!(early.instances(&client.snapshot()).len(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn status_change_among_wanted_statuses_is_reported() {
    let (memory, client) = registry([with_status(&instance("orders", "a"), InstanceStatus::Starting)]);
    let both = Selection::app("orders").statuses([InstanceStatus::Up, InstanceStatus::Starting]);
    let mut orders = client.discover(both).unwrap();
    assert_eq!(settle(&mut orders).await, ["+a"]);
    memory.put(instance("orders", "a"));
    assert_eq!(settle(&mut orders).await, ["+a"]);
}

#[tokio::test(start_paused = true)]
async fn vip_selection_follows_all_applications() {
    let (memory, client) = registry([with_vips("orders", "a", "shop"), with_vips("other", "z", "unrelated")]);
    let mut shop = client.discover(Selection::vip("shop")).unwrap();
    assert_eq!(settle(&mut shop).await, ["+ORDERS/a"]);
    memory.put(with_vips("legacy", "b", "shop"));
    assert_eq!(settle(&mut shop).await, ["+LEGACY/b"]);
    memory.put(with_vips("orders", "quiet", "unrelated"));
    memory.put(with_vips("other", "z2", "unrelated"));
    assert_eq!(settle(&mut shop).await, [""; 0], "nothing that carries it changed");
    memory.put(with_vips("other", "z", "unrelated,shop"));
    memory.put(with_vips("orders", "a", "elsewhere"));
    assert_eq!(settle(&mut shop).await, ["+OTHER/z", "-ORDERS/a"].map(String::from));
}

#[tokio::test(start_paused = true)]
async fn subscriber_is_not_woken_by_other_instances_of_its_application() {
    let (memory, client) = registry([with_vips("orders", "a", "shop")]);
    let mut shop = client.discover(Selection::vip("shop")).unwrap();
    assert_eq!(settle(&mut shop).await, ["+ORDERS/a"]);
    let woken = Arc::<Woken>::default();
    let waker = woken.clone().into();
    let mut poll = || Pin::new(&mut shop).poll_next(&mut Context::from_waker(&waker));
    assert!(poll().is_pending());
    memory.put(with_vips("orders", "b", "elsewhere"));
    memory.put(with_vips("billing", "c", "elsewhere"));
    tokio::time::sleep(QUIET).await;
    assert!(!woken.0.load(Ordering::Relaxed), "it was woken for an instance that does not carry its VIP");
    memory.put(with_vips("orders", "b", "shop"));
    tokio::time::sleep(QUIET).await;
    assert!(woken.0.load(Ordering::Relaxed) && poll().is_ready());
}

#[derive(Default)]
struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[tokio::test(start_paused = true)]
async fn restarted_instance_is_inserted_again_and_a_reregistered_one_is_not() {
    let first = stamped(&instance("orders", "a"), 99, 100);
    let (memory, client) = registry([first.clone()]);
    let mut orders = client.discover("orders").unwrap();
    assert_eq!(settle(&mut orders).await, ["+a"]);

    memory.put(stamped(&first, 99, 150));
    assert_eq!(settle(&mut orders).await, [""; 0], "another server has its own times");
    memory.put(stamped(&first, 129, 100));
    assert_eq!(settle(&mut orders).await, [""; 0], "registered again within its lease");

    memory.put(stamped(&first, 600, 601));
    match orders.next().await {
        Some(Ok(Change::Insert(_, now))) => assert_eq!(now.change_since(&first), InstanceChange::Restarted),
        other => panic!("{other:?}"),
    }
    assert_eq!(settle(&mut orders).await, [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn generation_of_an_instance_changes_after_a_restart_only() {
    let first = stamped(&instance("orders", "a"), 99, 100);
    let (memory, client) = registry([first.clone()]);
    let mut orders = client.discover("orders").unwrap();
    let starts = settle_now(&mut orders).await;
    assert!(starts.is_empty());
    let mut start = async |record: Instance| {
        memory.put(record);
        match orders.next().await {
            Some(Ok(Change::Insert(_, instance))) => Attributes::of(&instance).generation,
            other => panic!("{other:?}"),
        }
    };
    let moved = |record: &Instance, port: u16| edited(record, |json| json["port"]["$"] = port.into());
    assert_eq!(start(first.clone()).await, Some(0));
    assert_eq!(start(moved(&first, 2)).await, Some(0));
    let restarted = stamped(&first, 600, 601);
    assert_eq!(start(moved(&restarted, 2)).await, Some(1));
    assert_eq!(start(restarted).await, Some(1), "it keeps its start when its address changes");
}

#[tokio::test(start_paused = true)]
async fn selection_that_cannot_match_is_rejected() {
    let (_, client) = registry([]);
    for (selection, why) in [
        (Selection::name(""), "not an application name"),
        (Selection::name("a b"), "Selection::vip"),
        (Selection::app("a/b"), "not an application name"),
        (Selection::app("delta"), "not an application name"),
        (Selection::vip(" "), "not a VIP address"),
        (Selection::vip(" , "), "not a VIP address"),
        (Selection::secure_vip("a\u{7}b"), "not a VIP address"),
        (Selection::app("a").statuses([]), "no status is accepted"),
    ] {
        let shown = format!("{selection:?}");
        let error = client.discover(selection).expect_err(&shown);
        assert!(error.is_config() && error.to_string().contains(why), "{shown}: {error}");
    }
    client.discover(Selection::vip("host.example:8080")).unwrap();
    client.discover(Selection::vip("a,b")).unwrap();
}

#[tokio::test(start_paused = true)]
async fn explanation_lists_the_reason_for_each_instance() {
    let portless = edited(&instance("orders", "no-port"), |json| {
        json["port"] = serde_json::json!({ "$": 0, "@enabled": "false" });
    });
    let (_, client) =
        registry([down(&instance("orders", "a")), instance("orders", "b"), instance("orders", "c"), portless]);
    let mut orders = client.discover(Selection::app("orders").filter(|i| i.id() != "b")).unwrap();
    assert_eq!(orders.explain().finding(), Finding::NotLoaded);
    assert_eq!(orders.explain().to_string(), "the registry has not been fetched yet");
    settle(&mut orders).await;

    let explanation = orders.explain();
    assert_eq!((explanation.finding(), explanation.name()), (Finding::Callable, "ORDERS"));
    assert!(!explanation.is_stale() && explanation.age().unwrap() <= Duration::from_secs(34));
    assert_eq!(explanation.counts().to_string(), "DOWN_1_UP_3_");
    let explanation = explanation.exclude(|i| (i.id() == "c").then(|| format!("ejected for {} s", 12)));
    assert_eq!(explanation.finding(), Finding::NoneCallable);
    let reasons: Vec<_> = explanation.candidates().iter().map(|c| c.reason().cloned().unwrap()).collect();
    let expected = [
        Reason::Status(InstanceStatus::Down),
        Reason::Filtered,
        Reason::Other("ejected for 12 s".into()),
        Reason::NoPort,
    ];
    assert_eq!(reasons, expected);
    assert_eq!(
        explanation.to_string(),
        "none of its 4 instances can be called: a DOWN, b filtered out, c ejected for 12 s, \
         no-port without a usable address (both its ports are disabled)"
    );
}

#[tokio::test(start_paused = true)]
async fn explanation_of_an_unknown_name_lists_the_applications() {
    let (memory, client) = registry([with_vips("orders", "a", "shop")]);
    let explain = async |selection: Selection| {
        let mut discover = client.discover(selection).unwrap();
        settle(&mut discover).await;
        let explanation = discover.explain();
        assert_eq!(explanation.finding(), Finding::UnknownName);
        explanation.to_string()
    };
    assert_eq!(
        explain("oders".into()).await,
        "the registry has no VIP address or application of that name; it has ORDERS"
    );
    assert_eq!(
        explain(Selection::vip("orders")).await,
        "the registry has no instance with that VIP address, though there is an application of that name"
    );
    for n in 0..20 {
        memory.put(instance(&format!("app-{n:02}"), &format!("app-{n:02}")));
    }
    let many = explain(Selection::app("shop")).await;
    assert!(many.starts_with("the registry has no application of that name; it has APP-00, APP-01, "), "{many}");
    assert!(many.ends_with(", APP-09 and 11 more"), "{many}");
}

#[tokio::test(start_paused = true)]
async fn explanation_after_failed_refreshes_has_the_age_of_the_copy() {
    let never = Scripted::new(|_| Reply::Status(500)).client().build().unwrap();
    let discover = never.discover("orders").unwrap();
    let explainer = discover.explainer();
    tokio::time::sleep(QUIET).await;
    let explanation = explainer.explain();
    assert_eq!((explanation.finding(), explanation.age()), (Finding::NotLoaded, None));
    assert!(explanation.is_stale() && explanation.refresh_error().unwrap().status() == Some(500));
    assert!(explanation.to_string().starts_with("the registry was never fetched: "), "{explanation}");

    let asked = AtomicUsize::new(0);
    let once = Scripted::new(move |_| match asked.fetch_add(1, Ordering::Relaxed) {
        0 => Reply::Json(crate::common::list(&[down(&instance("orders", "a"))])),
        _ => Reply::Status(500),
    });
    let client = once.client().build().unwrap();
    let discover = client.discover("orders").unwrap();
    tokio::time::sleep(Duration::from_secs(300)).await;
    let explanation = discover.explain();
    assert_eq!(explanation.age().map(|age| age.as_secs()), Some(300));
    let text = explanation.to_string();
    assert!(text.starts_with("its only instance cannot be called: a DOWN (as of 300 s ago; since then: "), "{text}");
}

/// After each random delta, a subscriber of a VIP has exactly the instances that a scan of the
/// whole registry finds.
#[tokio::test(start_paused = true)]
async fn subscribers_after_random_changes_match_a_full_scan() {
    let seed = 11;
    let mut random = fastrand::Rng::with_seed(seed);
    let (memory, client) = registry([with_vips("app-0", "first", "v0")]);
    let selections = [Selection::vip("V1"), Selection::name("v2"), Selection::app("app-1"), Selection::name("app-2")];
    let mut followers: Vec<_> =
        selections.iter().map(|s| (client.discover(s.clone()).unwrap(), BTreeSet::<String>::new())).collect();
    for round in 0..60 {
        for _ in 0..random.usize(0..6) {
            let (app, n) = (format!("app-{}", random.u8(0..4)), random.u8(0..12));
            let vips: Vec<_> = (0..random.u8(1..3)).map(|_| format!("V{}", random.u8(0..4))).collect();
            let one = with_vips(&app, &format!("i{n}"), &vips.join(","));
            match random.u8(0..4) {
                0 => memory.put(down(&one)),
                1 => drop(memory.instances.lock().unwrap().remove(one.id())),
                _ => memory.put(one),
            }
        }
        tokio::time::sleep(Duration::from_secs(300)).await;
        let snapshot = client.snapshot();
        for ((discover, held), selection) in followers.iter_mut().zip(&selections) {
            for change in settle_now(discover).await {
                match change {
                    Change::Insert(key, _) => drop(held.insert(key.to_string())),
                    Change::Remove(key) => assert!(held.remove(&*key), "seed {seed}, round {round}"),
                }
            }
            let name = selection.looked_up();
            let all: Vec<_> = snapshot.applications().flat_map(|app| &app.instances).collect();
            let up = |i: &Instance| i.status() == InstanceStatus::Up;
            let of_app = |i: &Instance| i.app() == name;
            let of_vip = |i: &Instance| i.vips().any(|vip| vip.eq_ignore_ascii_case(name));
            let by_vip = name.starts_with('V') || all.iter().any(|i| up(i) && of_vip(i));
            let expected: BTreeSet<_> = all
                .iter()
                .filter(|i| up(i) && if by_vip { of_vip(i) } else { of_app(i) })
                .map(|i| if of_app(i) { i.id().to_owned() } else { format!("{}/{}", i.app(), i.id()) })
                .collect();
            assert_eq!(*held, expected, "seed {seed}, round {round}, {selection:?}");
        }
    }
}

/// Returns the changes that are available without waiting for a refresh.
async fn settle_now(discover: &mut EurekaDiscover) -> Vec<Change<Arc<str>, Arc<Instance>>> {
    let mut changes = Vec::new();
    while let Ok(Some(Ok(change))) = tokio::time::timeout(Duration::ZERO, discover.next()).await {
        changes.push(change);
    }
    changes
}
