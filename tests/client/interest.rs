//! Parts of the registry: the names in use, a single VIP address, and remote regions.

use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use tokio::time::{Instant, sleep, timeout};
use tokio_stream::StreamExt;
use tower_eureka::cache::RegistryEvent;
use tower_eureka::discover::{Finding, Selection};
use tower_eureka::model::{ActionType, Application};
use tower_eureka::{Eureka, Instance, Interest};

use crate::common::{Asked, REFRESH, Reply, SOON, Scripted, delta, down, ids, instance, list, with_vips};
use crate::remote_regions::{self, REMOTE, uses_regions_in_their_order};

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3600);
/// Time for which a server keeps changes.
const KEPT: Duration = Duration::from_secs(180);

/// Registry that lists its parts, as the servers do.
#[derive(Clone)]
struct Registry {
    state: Arc<Mutex<State>>,
    service: Scripted,
}

struct State {
    instances: Vec<Instance>,
    changes: Vec<(Instant, Instance, ActionType)>,
    /// True if lists have an `ETag`, as those of this crate's server.
    has_etags: bool,
    has_deltas: bool,
    is_down: bool,
    /// True while a proxy responds in place of the registry.
    is_lost: bool,
    /// Path that fails.
    broken: &'static str,
    version: i64,
}

impl Registry {
    fn new(instances: impl IntoIterator<Item = Instance>) -> Self {
        let state = State {
            instances: instances.into_iter().collect(),
            changes: Vec::new(),
            has_etags: false,
            has_deltas: true,
            is_down: false,
            is_lost: false,
            broken: "",
            version: 1,
        };
        let state = Arc::new(Mutex::new(state));
        let served = state.clone();
        let service = Scripted::new(move |asked| served.lock().unwrap().respond(asked));
        Self { state, service }
    }

    fn with_etags(self) -> Self {
        self.state.lock().unwrap().has_etags = true;
        self
    }

    fn without_deltas(self) -> Self {
        self.state.lock().unwrap().has_deltas = false;
        self
    }

    fn client(&self) -> Eureka {
        self.service.client().interest(Interest::Used).build().unwrap()
    }

    fn put(&self, instance: Instance) {
        let mut state = self.state.lock().unwrap();
        let known = state.instances.iter().position(|known| known.id() == instance.id());
        let action = if known.is_some() { ActionType::Modified } else { ActionType::Added };
        match known {
            Some(at) => state.instances[at] = instance.clone(),
            None => state.instances.push(instance.clone()),
        }
        state.changes.push((Instant::now(), instance, action));
    }

    fn cancel(&self, id: &str) {
        let mut state = self.state.lock().unwrap();
        let at = state.instances.iter().position(|instance| instance.id() == id).unwrap();
        let instance = state.instances.remove(at);
        state.changes.push((Instant::now(), instance, ActionType::Deleted));
    }

    /// Removes instances without a trace, as a restart of the server does.
    fn forget(&self, ids: &[&str]) {
        self.state.lock().unwrap().instances.retain(|instance| !ids.contains(&instance.id()));
    }

    /// Returns the paths and queries of the requests so far.
    fn lines(&self) -> Vec<String> {
        let lines: Vec<_> = self.service.asked().into_iter().map(|asked| asked.line).collect();
        lines.into_iter().map(|line| line.trim_start_matches("GET /").to_owned()).collect()
    }

    fn lines_after(&self, seen: usize) -> Vec<String> {
        self.lines().split_off(seen)
    }
}

impl State {
    fn respond(&mut self, asked: &Asked) -> Reply {
        if self.is_down {
            return Reply::Status(503);
        }
        if self.is_lost {
            return page(404);
        }
        let path = asked.line.trim_start_matches("GET /").split('?').next().unwrap_or_default();
        if path == self.broken {
            return Reply::Status(400);
        }
        let body = match path.split_once('/') {
            Some(("apps", "")) => list(&self.instances),
            Some(("apps", "delta")) if !self.has_deltas => return Reply::Status(403),
            Some(("apps", "delta")) => self.delta(),
            Some(("apps", app)) => {
                let instances: Vec<_> =
                    self.instances.iter().filter(|i| i.app() == app).cloned().map(Arc::new).collect();
                if instances.is_empty() {
                    return Reply::Status(404);
                }
                String::from_utf8(Application { name: app.into(), instances }.to_json()).unwrap()
            }
            Some(("vips", vip)) => {
                let has = |i: &&Instance| i.vip_address().unwrap_or_default().split(',').any(|known| known == vip);
                list(&self.instances.iter().filter(has).cloned().collect::<Vec<_>>())
            }
            _ => panic!("not a request for a list: {}", asked.line),
        };
        let mut hasher = DefaultHasher::new();
        body.hash(&mut hasher);
        let etag = format!("\"{:x}\"", hasher.finish());
        let is_known = asked.headers.get("if-none-match").is_some_and(|known| *known == etag);
        let headers = if self.has_etags { vec![("etag", etag)] } else { Vec::new() };
        match is_known {
            true => Reply::With { status: 304, headers, body: Default::default() },
            false => Reply::With { status: 200, headers, body: body.into() },
        }
    }

    fn delta(&mut self) -> String {
        self.version += 1;
        self.changes.retain(|(at, ..)| at.elapsed() < KEPT);
        let counts: tower_eureka::model::StatusCounts = self.instances.iter().map(Instance::status).collect();
        // Of several changes of an instance, the server sends the latest.
        let mut entries: Vec<(Instance, ActionType)> = Vec::new();
        for (_, instance, action) in &self.changes {
            entries.retain(|(known, _)| known.id() != instance.id());
            entries.push((instance.clone(), *action));
        }
        let json = delta(&entries, &counts.to_string());
        json.replace(r#""versions__delta":"1""#, &format!(r#""versions__delta":"{}""#, self.version))
    }
}

/// Returns the page of a proxy.
fn page(status: u16) -> Reply {
    Reply::With { status, headers: vec![("content-type", "text/html".into())], body: "<html>no".into() }
}

/// Instances of an application and of others, of which the test uses the first.
fn fleet() -> Vec<Instance> {
    let others = (0..20).map(|n| instance(&format!("other{n}"), &format!("x{n}")));
    ["a", "b", "c", "d"].map(|id| instance("orders", id)).into_iter().chain(others).collect()
}

#[tokio::test(start_paused = true)]
async fn name_is_fetched_at_its_first_use_and_alone() {
    let registry = Registry::new(fleet());
    let client = registry.client();
    client.snapshot();
    sleep(SOON).await;
    assert_eq!(registry.lines(), ["apps/delta"], "a sign that the registry responds");
    let began = Instant::now();
    let instances = client.ready_for("orders").await.unwrap();
    assert_eq!((instances.len(), began.elapsed() < SECOND), (4, true));
    assert_eq!(registry.lines_after(1), ["vips/orders"]);
    let snapshot = client.snapshot();
    assert_eq!(snapshot.applications().map(|app| &*app.name).collect::<Vec<_>>(), ["ORDERS"]);
}

#[tokio::test(start_paused = true)]
async fn lists_with_an_etag_are_fetched_only_if_they_changed() {
    let registry = Registry::new(fleet()).with_etags();
    let client = registry.client();
    let _orders = client.discover(Selection::app("orders")).unwrap();
    sleep(3 * REFRESH).await;
    let asked = registry.service.asked();
    let known = asked.iter().filter(|asked| asked.headers.contains_key("if-none-match")).count();
    assert!(known >= 3 && known == asked.len() - 1, "{:?}", registry.lines());
    assert!(asked.iter().all(|asked| asked.line == "GET /apps/ORDERS"), "{:?}", registry.lines());
    registry.cancel("a");
    registry.put(down(&instance("orders", "b")));
    registry.put(instance("orders", "e"));
    sleep(REFRESH).await;
    assert_eq!(ids(&client, Selection::app("orders")), ["c", "d", "e"]);
}

#[tokio::test(start_paused = true)]
async fn lists_without_an_etag_follow_deltas_of_the_registry() {
    // The lists are larger than the changes.
    let more = (0..30).map(|n| down(&instance("orders", &format!("down{n}"))));
    let registry = Registry::new(fleet().into_iter().chain(more));
    let client = registry.client();
    let _streams = ["orders", "other1"].map(|name| client.discover(name).unwrap());
    sleep(SOON).await;
    let first = registry.lines().len();
    assert_eq!(registry.lines(), ["vips/orders", "vips/other1"]);
    for change in 0..4 {
        match change {
            0 => registry.cancel("a"),
            1 => registry.put(down(&instance("orders", "b"))),
            2 => registry.put(instance("orders", "e")),
            _ => registry.put(with_vips("orders", "c", "elsewhere")),
        }
        registry.put(instance("other9", &format!("new{change}")));
        sleep(REFRESH).await;
    }
    assert_eq!(ids(&client, "orders"), ["d", "e"]);
    assert_eq!(ids(&client, "other1"), ["x1"]);
    assert_eq!(client.snapshot().applications().count(), 2, "changes of other applications are ignored");
    assert!(registry.lines_after(first).iter().all(|line| line == "apps/delta"), "{:?}", registry.lines());
}

#[tokio::test(start_paused = true)]
async fn server_without_deltas_and_etags_is_asked_for_each_list() {
    let registry = Registry::new(fleet()).without_deltas();
    let client = registry.client();
    let _orders = client.discover("orders").unwrap();
    sleep(2 * REFRESH).await;
    registry.cancel("a");
    sleep(REFRESH).await;
    assert_eq!(ids(&client, "orders"), ["b", "c", "d"]);
    let deltas = registry.lines().iter().filter(|line| *line == "apps/delta").count();
    assert_eq!(deltas, 1, "deltas are not tried each time: {:?}", registry.lines());
}

#[tokio::test(start_paused = true)]
async fn long_gap_between_deltas_is_followed_by_complete_lists() {
    let registry = Registry::new(fleet());
    let client = registry.client();
    let _orders = client.discover("orders").unwrap();
    sleep(SOON).await;
    registry.state.lock().unwrap().is_down = true;
    registry.cancel("a");
    sleep(KEPT + 2 * REFRESH).await;
    assert_eq!(ids(&client, "orders").len(), 4, "the last list remains in use");
    registry.state.lock().unwrap().is_down = false;
    let seen = registry.lines().len();
    sleep(REFRESH).await;
    assert_eq!(ids(&client, "orders"), ["b", "c", "d"]);
    assert!(registry.lines_after(seen).contains(&"vips/orders".to_owned()), "{:?}", registry.lines_after(seen));
}

#[tokio::test(start_paused = true)]
async fn unknown_name_is_empty_until_its_first_instance_registers() {
    for registry in
        [Registry::new(fleet()), Registry::new(fleet()).with_etags(), Registry::new(fleet()).without_deltas()]
    {
        let client = registry.client();
        let late = client.discover("late").unwrap();
        assert_eq!(late.explain().finding(), Finding::NotLoaded, "nothing was fetched yet");
        sleep(SOON).await;
        let explained = late.explain();
        assert_eq!((explained.finding(), explained.refresh_error().is_none()), (Finding::UnknownName, true));
        assert!(!explained.to_string().contains("it is empty"), "{explained}");
        assert!(client.status().error().is_none());
        registry.put(instance("late", "l"));
        let found = tokio::time::timeout(2 * REFRESH, client.ready_for("late")).await;
        assert_eq!(found.unwrap().unwrap()[0].id(), "l");
        assert_eq!(late.explain().finding(), Finding::Callable);
    }
}

#[tokio::test(start_paused = true)]
async fn failed_fetch_of_a_new_name_is_repeated_soon_and_explained() {
    let registry = Registry::new(fleet());
    let client = registry.client();
    let _other = client.discover("other1").unwrap();
    sleep(SOON).await;
    registry.state.lock().unwrap().is_down = true;
    let orders = client.discover("orders").unwrap();
    sleep(SOON).await;
    let explained = orders.explain();
    assert_eq!(explained.finding(), Finding::NotLoaded);
    assert!(explained.refresh_error().is_some(), "{explained}");
    registry.state.lock().unwrap().is_down = false;
    sleep(SOON).await;
    assert_eq!(ids(&client, "orders").len(), 4);
    assert_eq!(orders.explain().finding(), Finding::Callable);
}

#[tokio::test(start_paused = true)]
async fn name_is_found_in_any_spelling() {
    let instances =
        [with_vips("orders", "a", "OrderService"), with_vips("OrderService", "b", "OrderService"), instance("x", "x")];
    let registry = Registry::new(instances);
    for name in ["OrderService", "orderservice", "ORDERSERVICE"] {
        let client = registry.client();
        let _stream = client.discover(name).unwrap();
        sleep(SOON).await;
        assert_eq!(ids(&client, name), ["a", "b"], "{name}");
    }
    let client = registry.client();
    let _stream = client.discover(Selection::vip("OrderService")).unwrap();
    sleep(SOON).await;
    assert_eq!(ids(&client, Selection::vip("ORDERSERVICE")), ["a", "b"]);
}

#[tokio::test(start_paused = true)]
async fn name_without_an_up_instance_of_its_vip_selects_the_application() {
    for registry in [Registry::new([]), Registry::new([]).with_etags(), Registry::new([]).without_deltas()] {
        let (carrier, own) = (with_vips("legacy", "v", "orders"), with_vips("orders", "o", "other"));
        registry.put(carrier.clone());
        registry.put(own);
        let client = registry.client();
        let _orders = client.discover("orders").unwrap();
        sleep(SOON).await;
        assert_eq!(ids(&client, "orders"), ["v"]);
        registry.put(down(&carrier));
        sleep(REFRESH).await;
        assert_eq!(ids(&client, "orders"), ["o"]);
        registry.put(carrier);
        sleep(REFRESH).await;
        assert_eq!(ids(&client, "orders"), ["v"]);
    }
}

#[tokio::test(start_paused = true)]
async fn implausible_disappearance_is_held_until_a_delta_or_the_lease_confirms_it() {
    for has_etags in [true, false] {
        let registry = Registry::new(fleet());
        registry.state.lock().unwrap().has_etags = has_etags;
        // Without ETags, each refresh fetches the list.
        registry.state.lock().unwrap().has_deltas = has_etags;
        let client = registry.client();
        let _orders = client.discover(Selection::app("orders")).unwrap();
        sleep(SOON).await;
        registry.forget(&["a", "b", "c", "d"]);
        sleep(REFRESH).await;
        assert_eq!(ids(&client, Selection::app("orders")).len(), 4, "404 for an application that was there");
        registry.put(instance("orders", "d"));
        sleep(REFRESH).await;
        assert_eq!(ids(&client, Selection::app("orders")).len(), 4);
        if has_etags {
            let deletion = (Instant::now(), instance("orders", "a"), ActionType::Deleted);
            registry.state.lock().unwrap().changes.push(deletion);
            sleep(REFRESH).await;
            assert_eq!(ids(&client, Selection::app("orders")), ["b", "c", "d"], "a delta deletes one");
        }
        sleep(4 * REFRESH).await;
        assert_eq!(ids(&client, Selection::app("orders")), ["d"], "with ETags: {has_etags}");
    }
}

#[tokio::test(start_paused = true)]
async fn name_that_always_fails_leaves_the_others_up_to_date() {
    let registry = Registry::new(fleet()).without_deltas();
    registry.state.lock().unwrap().broken = "vips/broken";
    let client = registry.client();
    let _streams = ["broken", "orders"].map(|name| client.discover(name).unwrap());
    sleep(SOON).await;
    registry.cancel("a");
    sleep(2 * REFRESH).await;
    assert_eq!(ids(&client, "orders"), ["b", "c", "d"]);
    assert!(client.status().error().is_some());
}

#[tokio::test(start_paused = true)]
async fn pages_of_a_proxy_with_404_leave_all_instances() {
    for registry in [Registry::new(fleet()), Registry::new(fleet()).with_etags()] {
        let client = registry.client();
        let selections = ["orders", "other1"].map(Selection::app);
        let _streams = selections.clone().map(|selection| client.discover(selection).unwrap());
        let _by_name = client.discover("other2").unwrap();
        sleep(SOON).await;
        registry.state.lock().unwrap().is_lost = true;
        sleep(HOUR).await;
        assert_eq!(selections.clone().map(|selection| ids(&client, selection).len()), [4, 1]);
        assert_eq!(ids(&client, "other2"), ["x2"]);
        assert!(client.status().error().is_some(), "no registry responds with 404 to a VIP address");
    }
}

#[tokio::test(start_paused = true)]
async fn application_that_leaves_completely_is_removed_without_deltas_while_another_one_is_used() {
    let registry = Registry::new(fleet()).without_deltas();
    let client = registry.client();
    let _streams = ["orders", "other1"].map(|name| client.discover(Selection::app(name)).unwrap());
    sleep(SOON).await;
    ["a", "b", "c", "d"].iter().for_each(|id| registry.cancel(id));
    sleep(2 * REFRESH).await;
    assert_eq!(ids(&client, Selection::app("orders")).len(), 4, "they are held at first");
    sleep(4 * REFRESH).await;
    assert_eq!(ids(&client, Selection::app("orders")), [""; 0]);
    assert_eq!(ids(&client, Selection::app("other1")), ["x1"]);
}

#[tokio::test(start_paused = true)]
async fn server_that_is_no_registry_is_not_ready_without_any_name() {
    let replies: [fn() -> Reply; 5] =
        [|| page(200), || Reply::Status(401), || Reply::Status(403), || page(404), || Reply::Status(404)];
    for reply in replies {
        let client = Scripted::new(move |_| reply()).client().interest(Interest::Used).build().unwrap();
        assert!(timeout(10 * REFRESH, client.ready()).await.is_err(), "waits for a registry");
        assert!(client.status().error().is_some() && !client.status().is_loaded());
    }
    let registry = Registry::new(fleet()).without_deltas();
    registry.client().ready().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn registry_whose_deltas_fail_or_are_off_is_ready_without_any_name() {
    let replies: [Option<fn() -> Reply>; 3] = [Some(|| Reply::Status(500)), Some(|| page(200)), None];
    for reply in replies {
        let registry = Scripted::new(move |asked| match (&*asked.line, reply) {
            ("GET /apps/delta", Some(reply)) => reply(),
            _ => Reply::Json(list(&fleet())),
        });
        let client = registry.client().interest(Interest::Used).delta(reply.is_some()).build().unwrap();
        timeout(SOON, client.ready()).await.expect("a list proves the server").unwrap();
        sleep(10 * REFRESH).await;
        let lines = registry.lines();
        assert_eq!(lines.iter().filter(|line| line.contains("/vips/")).count(), 1, "{lines:?}");
        assert!(reply.is_some() || lines.len() == 1, "{lines:?}");
        assert_eq!(client.ready_for("orders").await.unwrap().len(), 4);
    }
}

#[tokio::test(start_paused = true)]
async fn server_that_rejected_deltas_once_is_asked_for_them_again() {
    let registry = Registry::new(fleet()).with_etags();
    registry.state.lock().unwrap().broken = "apps/delta";
    let client = registry.client();
    sleep(120 * SECOND).await;
    registry.state.lock().unwrap().broken = "";
    let _orders = client.discover(Selection::app("orders")).unwrap();
    sleep(15 * Duration::from_secs(60)).await;
    ["a", "b", "c", "d"].iter().for_each(|id| registry.cancel(id));
    sleep(3 * REFRESH).await;
    assert_eq!(ids(&client, Selection::app("orders")), [""; 0], "a delta deletes them");
}

#[tokio::test(start_paused = true)]
async fn healthy_server_without_deltas_is_kept_while_an_application_leaves() {
    let registry = Registry::new(fleet()).with_etags().without_deltas();
    let client = Eureka::builder().service_url("http://a/eureka,http://b/eureka").interest(Interest::Used);
    let client = client.shuffle_servers(false).http_service(registry.service.clone()).build().unwrap();
    let _streams = ["orders", "other1"].map(|name| client.discover(Selection::app(name)).unwrap());
    sleep(SOON).await;
    ["a", "b", "c", "d"].iter().for_each(|id| registry.cancel(id));
    sleep(10 * REFRESH).await;
    assert_eq!(ids(&client, Selection::app("orders")), [""; 0]);
    assert!(registry.service.asked().iter().all(|asked| asked.host == "a"));
}

#[tokio::test(start_paused = true)]
async fn lists_stay_up_to_date_while_deltas_fail() {
    let start = Instant::now();
    let registry = Registry::new(fleet());
    let inner = registry.clone();
    let service = Scripted::new(move |asked| match asked.line.ends_with("/delta") && start.elapsed() > REFRESH {
        true => Reply::Status(500),
        false => inner.state.lock().unwrap().respond(asked),
    });
    let client = service.client().interest(Interest::Used).build().unwrap();
    let _orders = client.discover(Selection::app("orders")).unwrap();
    sleep(3 * REFRESH).await;
    for id in ["e", "f", "g"] {
        registry.put(instance("orders", id));
        sleep(REFRESH).await;
        assert!(ids(&client, Selection::app("orders")).contains(&id.to_owned()), "{id}: {:?}", service.lines());
    }
}

#[tokio::test(start_paused = true)]
async fn name_that_fails_from_the_start_does_not_hide_the_others() {
    for registry in [Registry::new(fleet()), Registry::new(fleet()).without_deltas()] {
        registry.state.lock().unwrap().broken = "vips/broken";
        let client = registry.client();
        let _streams = ["broken", "orders"].map(|name| client.discover(name).unwrap());
        timeout(SOON, client.ready()).await.expect("one list was fetched").unwrap();
        sleep(20 * REFRESH).await;
        let status = client.status();
        assert!(status.error().is_some() && status.age().is_some_and(|age| age < 2 * REFRESH), "{status}");
        assert!(client.refresh().await.is_err());
    }
}

#[tokio::test(start_paused = true)]
async fn first_lists_of_several_names_race_once() {
    let registry = Scripted::new(|asked| match &*asked.host {
        "a" => Reply::Never,
        _ => Reply::Later(2 * SECOND, list(&[with_vips("orders", "a", "orders")])),
    });
    let urls: Vec<_> = ["a", "b", "c", "d"].map(|host| format!("http://{host}/eureka")).into();
    let client = Eureka::builder().service_url(urls.join(",")).shuffle_servers(false).interest(Interest::Used);
    let client = client.http_service(registry.clone()).build().unwrap();
    let names: Vec<_> = (0..6).map(|name| format!("name{name}")).collect();
    let _streams: Vec<_> = names.iter().map(|name| client.discover(Selection::vip(name)).unwrap()).collect();
    sleep(10 * SECOND).await;
    let asked: Vec<_> = registry.asked().into_iter().filter(|asked| asked.line.contains("/vips/name")).collect();
    assert!(asked.len() <= 4 + 5 + 6 * 2, "{asked:?}");
    let late = asked.iter().filter(|asked| asked.at > 3 * SECOND).all(|asked| asked.host != "a");
    assert!(late, "the others are fetched from the server that responded");
}

#[tokio::test(start_paused = true)]
async fn application_that_leaves_completely_is_removed_while_others_are_registered() {
    for registry in [Registry::new(fleet()), Registry::new(fleet()).with_etags()] {
        let client = registry.client();
        let _orders = client.discover(Selection::app("orders")).unwrap();
        sleep(SOON).await;
        ["a", "b", "c", "d"].iter().for_each(|id| registry.cancel(id));
        sleep(2 * REFRESH).await;
        assert_eq!(ids(&client, Selection::app("orders")), [""; 0]);
    }
}

#[tokio::test(start_paused = true)]
async fn chosen_and_called_names_without_an_instance_stay_in_use() {
    let registry = Registry::new(fleet());
    let client = registry.client();
    let calls = client.http_client::<Full<Bytes>>();
    let get = || Request::get("http://nobody/").body(Full::default()).unwrap();
    let names = || calls.snapshots().iter().map(|app| app.name().unwrap().to_owned()).collect::<Vec<_>>();
    for _ in 0..5 {
        drop(calls.choose("orders", &()).await.unwrap());
        calls.request(get()).await.unwrap_err();
        sleep(Duration::from_secs(800)).await;
        assert_eq!(names(), ["NOBODY", "ORDERS"]);
    }
    sleep(Duration::from_secs(200)).await;
    assert!(names().is_empty(), "{:?}", names());
}

#[tokio::test(start_paused = true)]
async fn name_that_is_used_no_more_is_dropped_without_an_event_of_its_instances() {
    let registry = Registry::new(fleet());
    let client = registry.client();
    let mut events = client.events();
    let removed = Arc::new(Mutex::new(Vec::new()));
    let seen = removed.clone();
    tokio::spawn(async move {
        while let Some(event) = events.next().await {
            if let RegistryEvent::Removed(instance) = event {
                seen.lock().unwrap().push(instance.id().to_owned());
            }
        }
    });
    client.preload(["other1"]).unwrap();
    let kept = client.discover("other2").unwrap();
    drop(client.discover("orders").unwrap());
    sleep(SOON).await;
    assert_eq!(client.snapshot().applications().count(), 3);
    registry.cancel("a");
    sleep(Duration::from_secs(1000)).await;
    assert_eq!(client.snapshot().applications().map(|app| &*app.name).collect::<Vec<_>>(), ["OTHER1", "OTHER2"]);
    assert_eq!(*removed.lock().unwrap(), ["a"]);
    drop(kept);
    assert_eq!(client.ready_for("orders").await.unwrap().len(), 3, "it is fetched again at its next use");
}

#[tokio::test(start_paused = true)]
async fn name_that_is_used_again_has_its_last_list_while_the_registry_is_away() {
    let registry = Registry::new(fleet());
    let client = registry.client();
    for (name, count) in [("orders", 4), ("other1", 1)] {
        drop(client.discover(name).unwrap());
        sleep(SOON).await;
        assert_eq!(ids(&client, name).len(), count);
    }
    sleep(Duration::from_secs(1000)).await;
    assert_eq!(client.snapshot().applications().count(), 0);
    registry.state.lock().unwrap().is_down = true;
    for (name, count) in [("orders", 4), ("other1", 1), ("other2", 0)] {
        let _again = client.discover(name).unwrap();
        sleep(SOON).await;
        assert_eq!(ids(&client, name).len(), count, "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn name_that_is_used_again_after_hours_has_no_old_instance() {
    for registry in
        [Registry::new(fleet()), Registry::new(fleet()).with_etags(), Registry::new(fleet()).without_deltas()]
    {
        let client = registry.client();
        client.preload(["other1"]).unwrap();
        for name in ["orders", "other2"] {
            drop(client.discover(name).unwrap());
        }
        sleep(HOUR).await;
        assert_eq!(client.snapshot().applications().count(), 1);
        ["a", "b", "c", "d", "x2"].iter().for_each(|id| registry.cancel(id));
        registry.put(instance("orders", "e"));
        sleep(HOUR).await;
        let mut events = client.events();
        let streams = ["orders", "other2"].map(|name| client.discover(name).unwrap());
        sleep(SOON).await;
        assert_eq!((ids(&client, "orders"), ids(&client, "other2")), (vec!["e".into()], Vec::<String>::new()));
        let mut added = Vec::new();
        while let Ok(Some(event)) = timeout(SECOND, events.next()).await {
            if let RegistryEvent::Added(instance) = event {
                added.push(instance.id().to_owned());
            }
        }
        assert_eq!(added, ["e", "x1"], "those in use at the start are reported as well");
        drop(streams);
        sleep(HOUR).await;
        registry.state.lock().unwrap().is_down = true;
        let _again = client.discover("other2").unwrap();
        sleep(2 * REFRESH).await;
        assert_eq!(ids(&client, "other2"), [""; 0], "it had left");
    }
}

#[tokio::test(start_paused = true)]
async fn name_that_is_used_again_after_hours_has_its_last_list_until_the_registry_is_back() {
    for is_failing in [true, false] {
        let registry = Registry::new(fleet());
        let client = registry.client();
        drop(client.discover("orders").unwrap());
        sleep(2 * HOUR).await;
        registry.state.lock().unwrap().is_down = true;
        if is_failing {
            sleep(2 * REFRESH).await;
        }
        let _again = client.discover("orders").unwrap();
        sleep(SOON).await;
        assert_eq!(ids(&client, "orders").len(), 4, "while the registry is away");
        registry.forget(&["a", "b", "c", "d"]);
        registry.put(instance("orders", "e"));
        registry.state.lock().unwrap().is_down = false;
        sleep(2 * REFRESH).await;
        assert_eq!(ids(&client, "orders"), ["e"]);
    }
}

#[tokio::test(start_paused = true)]
async fn many_names_of_a_small_registry_are_fetched_together_until_few_are_left() {
    let three = |app: u32| (0..3).map(move |n| instance(&format!("app{app}"), &format!("i{app}-{n}")));
    let registry = Registry::new((0..100).flat_map(three)).with_etags();
    let client = registry.client();
    let mut streams: Vec<_> = (0..100).map(|n| client.discover(Selection::app(format!("app{n}"))).unwrap()).collect();
    sleep(SOON).await;
    assert_eq!((client.status().names(), client.status().is_whole_fetched()), (Some(100), false));
    sleep(25 * REFRESH).await;
    assert!(client.status().is_whole_fetched(), "{}", client.status());
    let seen = registry.lines().len();
    registry.cancel("i7-0");
    registry.put(instance("app8", "new"));
    sleep(2 * REFRESH).await;
    let lines = registry.lines_after(seen);
    assert!(lines.len() <= 5 && lines.iter().all(|line| line == "apps/delta" || line == "apps/"), "{lines:?}");
    assert_eq!((ids(&client, "app7").len(), ids(&client, "app8").len()), (2, 4));
    registry.state.lock().unwrap().is_down = true;
    sleep(2 * REFRESH).await;
    let late = client.discover("late").unwrap();
    sleep(SECOND).await;
    assert!(client.status().error().is_some(), "a new name proves nothing: {}", client.status());
    assert_eq!(client.status().names(), Some(101));
    registry.state.lock().unwrap().is_down = false;
    sleep(2 * REFRESH).await;
    assert!(client.status().error().is_none());
    drop(late);

    streams.truncate(1);
    sleep(150 * REFRESH).await;
    assert_eq!((client.status().names(), client.status().is_whole_fetched()), (Some(1), false), "{}", client.status());
    assert_eq!(ids(&client, "app0").len(), 3);
    assert_eq!(client.snapshot().applications().count(), 1);
}

#[tokio::test(start_paused = true)]
async fn single_vip_address_is_all_that_is_fetched() {
    let registry = Registry::new([with_vips("a", "1", "Shared"), with_vips("b", "2", "x,Shared"), instance("c", "3")]);
    let client = registry.service.client().interest(Interest::Vip("Shared".into())).build().unwrap();
    let _others = ["c", "shared"].map(|name| client.discover(name).unwrap());
    sleep(3 * REFRESH).await;
    assert_eq!(
        (ids(&client, "shared"), ids(&client, Selection::app("b"))),
        (vec!["1".into(), "2".into()], vec!["2".to_owned()])
    );
    assert_eq!(ids(&client, "c"), [""; 0]);
    assert!(registry.lines().len() >= 3);
    assert!(registry.lines().iter().all(|line| line == "vips/Shared"), "{:?}", registry.lines());
}

#[tokio::test(start_paused = true)]
async fn remote_regions_are_used_in_their_order_while_the_own_one_has_no_instance() {
    let registry = Registry::new(remote_regions::fleet());
    let client = registry.service.client().regions(REMOTE).interest(Interest::Used).build().unwrap();
    let _streams = ["orders", "billing"].map(|name| client.discover(name).unwrap());
    sleep(SOON).await;
    let expected = "vips/orders?regions=us-west-2,eu-west-1".to_owned();
    assert!(registry.lines().contains(&expected), "{:?}", registry.lines());
    uses_regions_in_their_order(&client, |instance| registry.put(instance), |id| registry.cancel(id)).await;
}

#[tokio::test(start_paused = true)]
async fn other_servers_are_asked_for_names_while_one_is_empty() {
    let names = |interest: Interest| {
        let start = Instant::now();
        let registry = Scripted::new(move |asked| {
            let is_empty = asked.host == "a" && start.elapsed() > 60 * SECOND;
            let listed = if is_empty { vec![] } else { vec![with_vips("orders", "a", "orders")] };
            match asked.line.as_str() {
                "GET /apps/delta" => Reply::Json(delta(&[], if is_empty { "" } else { "UP_1_" })),
                line if line.starts_with("GET /apps/") => Reply::Status(404),
                _ => Reply::Json(list(&listed)),
            }
        });
        let client = Eureka::builder().service_url("http://a/eureka,http://b/eureka").interest(interest);
        let client = client.shuffle_servers(false).session_duration(6_000 * SECOND).http_service(registry.clone());
        (client.build().unwrap(), registry)
    };
    for interest in [Interest::Used, Interest::Vip("orders".into())] {
        let (client, registry) = names(interest.clone());
        let _discovered = client.discover("orders");
        for _ in 0..60 {
            sleep(60 * SECOND).await;
            assert_eq!(client.snapshot().instance_count(), 1, "{interest:?}: {:?}", registry.lines());
        }
        let status = client.status();
        assert_eq!((status.held(), status.server()), (0, Some("http://b/eureka/")), "{interest:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn server_that_rejects_deltas_is_asked_for_each_list_with_its_etag() {
    let registry = Registry::new(fleet()).with_etags();
    registry.state.lock().unwrap().broken = "apps/delta";
    let client = registry.client();
    // Without a name, only deltas and one proof are fetched.
    sleep(120 * SECOND).await;
    let _discovered = client.discover("orders");
    sleep(10 * REFRESH).await;
    assert!(client.status().error().is_none(), "{:?}", client.status());
    let refreshes = client.status().refreshes();
    assert!(refreshes.unchanged >= 8, "{refreshes:?}: {:?}", registry.lines());
}

#[tokio::test(start_paused = true)]
async fn new_name_later_on_is_fetched_from_one_server_at_a_time() {
    let start = Instant::now();
    let registry = Scripted::new(move |asked| match asked.line.as_str() {
        "GET /apps/delta" => Reply::Json(delta(&[], "UP_2_")),
        _ if start.elapsed() < 60 * SECOND => Reply::Json(list(&[with_vips("orders", "a", "orders")])),
        _ => Reply::Later(6 * SECOND, list(&[with_vips("billing", "b", "billing")])),
    });
    let client = Eureka::builder().service_url("http://a/eureka,http://b/eureka").interest(Interest::Used);
    let client = client.http_service(registry.clone()).build().unwrap();
    let _orders = client.discover("orders");
    sleep(61 * SECOND).await;
    let _billing = client.discover("billing");
    sleep(5 * SECOND).await;
    assert_eq!(registry.lines().iter().filter(|line| line.contains("/vips/billing")).count(), 1);
}
