//! A Spring server with many instances: the copy follows every operation, by deltas alone.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt, copy};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tower_eureka::model::{Application, Applications, InstanceStatus};
use tower_eureka::transport::Transport;
use tower_eureka::{Eureka, Instance};

use super::process::free_port;
use super::spring::Server;
use super::{http, slot, until};

const APPLICATIONS: usize = 40;
const PER_APPLICATION: usize = 50;
/// Time limit of a condition. Registration and fetch each take a second.
const SOON: Duration = Duration::from_secs(30);
/// Time for which the client follows without a change, after the changes.
const QUIET: Duration = Duration::from_secs(20);
/// Number of fetches in five minutes at the default interval.
const FIVE_MINUTES: usize = 10;

/// Proxy that records the request lines of a client.
#[derive(Clone, Default)]
struct Recorder(Arc<Mutex<Vec<String>>>);

impl Recorder {
    /// Starts the proxy in front of the server at this port. Returns its port.
    async fn start(&self, server: u16) -> u16 {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback has a free port");
        let port = listener.local_addr().expect("listener is bound").port();
        let this = self.clone();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(this.clone().forward(client, server));
            }
        });
        port
    }

    async fn forward(self, client: TcpStream, server: u16) {
        let Ok(upstream) = TcpStream::connect(("127.0.0.1", server)).await else { return };
        let ((mut requests, mut responses), (mut back, mut forth)) = (client.into_split(), upstream.into_split());
        let sent = async move {
            let mut bytes = vec![0; 64 * 1024];
            while let Ok(length @ 1..) = requests.read(&mut bytes).await {
                let text = String::from_utf8_lossy(&bytes[..length]).into_owned();
                let lines = text.lines().filter_map(|line| line.strip_suffix(" HTTP/1.1")).map(str::to_owned);
                self.0.lock().expect("mutex is not poisoned").extend(lines);
                if forth.write_all(&bytes[..length]).await.is_err() {
                    return;
                }
            }
        };
        tokio::select! {
            () = sent => {}
            _ = copy(&mut back, &mut responses) => {}
        }
    }

    fn lines(&self) -> Vec<String> {
        self.0.lock().expect("mutex is not poisoned").clone()
    }
}

/// Instances by application and id, each with all members that do not change by a heartbeat.
type View = BTreeMap<(String, String), String>;

fn view<'a>(applications: impl Iterator<Item = &'a Arc<Application>>) -> View {
    let instances = applications.flat_map(|app| app.instances.iter().map(move |instance| (app, instance)));
    let line = |instance: &Instance| {
        let metadata: BTreeMap<_, _> = instance.metadata().iter().collect();
        format!(
            "{} {} {:?} {:?} {:?} {:?} {:?} {metadata:?}",
            instance.status(),
            instance.overridden_status(),
            instance.host_name(),
            instance.ip_addr(),
            instance.port(),
            instance.vip_address(),
            instance.last_dirty_timestamp(),
        )
    };
    instances.map(|(app, i)| ((app.name.to_string(), i.id().to_owned()), line(i))).collect()
}

/// Returns the list of the server, fetched without the client.
async fn listed(url: &str) -> Option<View> {
    let body = http::text(&format!("{url}apps")).await?;
    Some(view(Applications::from_json(body.as_bytes()).expect("response is a list").applications.iter()))
}

fn instance(app: usize, number: usize) -> Instance {
    let built = Instance::builder(format!("app-{app}"))
        .id(format!("app-{app}:{number}"))
        .ip_addr(format!("10.0.{app}.{number}"))
        .port(8080)
        .metadata("zone", format!("z{}", number % 3))
        .metadata("build", "x".repeat(200))
        .lease_duration(Duration::from_secs(3600));
    built.build().expect("instance is valid")
}

async fn register_all(registry: &Transport) {
    let mut running = JoinSet::new();
    for app in 0..APPLICATIONS {
        let registry = registry.clone();
        running.spawn(async move {
            for number in 0..PER_APPLICATION {
                registry.register(&instance(app, number)).await.expect("registration succeeds");
            }
        });
    }
    while let Some(registered) = running.join_next().await {
        registered.expect("no registration panics");
    }
}

#[tokio::test]
async fn copy_of_two_thousand_instances_equals_the_servers_after_every_operation() {
    let _slot = slot().await;
    let arguments =
        ["--eureka.server.eviction-interval-timer-in-ms=500", "--eureka.server.enable-self-preservation=false"];
    let server = Server::start_with("many-server", free_port(), &arguments.map(String::from)).await;
    let operator = Eureka::builder().service_url(&server.url).build().expect("URL is valid").transport().clone();
    register_all(&operator).await;

    let recorder = Recorder::default();
    let proxied = format!("http://127.0.0.1:{}/eureka/", recorder.start(server.port).await);
    let client = Eureka::builder().service_url(proxied).fetch_interval(Duration::from_secs(1)).build();
    let client = client.expect("URL is valid");
    let polls = AtomicUsize::new(0);
    let equal = async |what: &str| {
        until(what, SOON, async || {
            let (ours, theirs) = (view(client.snapshot().applications()), listed(&server.url).await?);
            // Java keeps a delta that it was building during a change, without the change, until
            // the next one.
            if ours != theirs && polls.fetch_add(1, Relaxed) % 50 == 49 {
                operator.register(&instance(0, 0)).await.expect("registration succeeds");
            }
            (ours == theirs).then_some(ours)
        })
        .await
    };
    let first = equal("the first copy").await;
    assert_eq!(first.len(), APPLICATIONS * PER_APPLICATION);
    assert!(recorder.lines()[0].starts_with("GET /eureka/apps/"), "{:?}", recorder.lines());

    let changed = |app: usize, number: usize| instance(app, number).id().to_owned();
    let succeeds = "the instance is registered";
    operator.register(&instance(3, 200)).await.expect("registration succeeds");
    let copy = equal("an instance registers").await;
    assert!(copy.contains_key(&("APP-3".into(), changed(3, 200))));

    let moved = Instance::builder("app-4").id(changed(4, 1)).ip_addr("10.9.9.9").port(9090).vip_address("moved");
    operator.register(&moved.build().expect("instance is valid")).await.expect("registration succeeds");
    let copy = equal("an instance registers again with other data").await;
    assert!(copy[&("APP-4".into(), changed(4, 1))].contains("10.9.9.9"));

    operator.set_status("APP-5", &changed(5, 2), InstanceStatus::OutOfService).await.expect(succeeds);
    let copy = equal("a status is overridden").await;
    assert!(copy[&("APP-5".into(), changed(5, 2))].starts_with("OUT_OF_SERVICE"));
    operator.remove_status("APP-5", &changed(5, 2)).await.expect(succeeds);
    let copy = equal("the override is removed").await;
    assert!(copy[&("APP-5".into(), changed(5, 2))].starts_with("UNKNOWN"));

    operator.update_metadata("APP-6", &changed(6, 3), &[("colour", "blue")]).await.expect(succeeds);
    let copy = equal("metadata changes").await;
    assert!(copy[&("APP-6".into(), changed(6, 3))].contains("blue"));

    assert!(operator.cancel("APP-7", &changed(7, 4)).await.expect("registry responds"));
    let copy = equal("an instance is cancelled").await;
    assert!(!copy.contains_key(&("APP-7".into(), changed(7, 4))));

    let short = Instance::builder("app-8").id("short").ip_addr("10.0.0.1").port(1);
    let short = short.renewal_interval(Duration::from_secs(1)).lease_duration(Duration::from_secs(2));
    operator.register(&short.build().expect("instance is valid")).await.expect("registration succeeds");
    let evicted = async || {
        let is_gone = http::is_gone(&server.url, "APP-8", "short").await;
        is_gone.then_some(())
    };
    until("an instance is evicted", SOON, evicted).await;
    equal("after the eviction").await;

    for number in 0..PER_APPLICATION {
        assert!(operator.cancel("APP-9", &changed(9, number)).await.expect("registry responds"));
    }
    let copy = equal("an application leaves").await;
    assert!(!copy.keys().any(|(app, _)| app == "APP-9"));

    let before = recorder.lines().len();
    tokio::time::sleep(QUIET).await;
    equal("at the end").await;
    let lines = recorder.lines();
    assert!(lines.len() >= before + FIVE_MINUTES, "{before} before: {lines:?}");
    assert!(
        lines[1..].iter().all(|line| line == "GET /eureka/apps/delta"),
        "after the first fetch only deltas: {lines:?}"
    );
}
