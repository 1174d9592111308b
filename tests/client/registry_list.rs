//! The list of registry servers: zones, look-ups by a function and by DNS.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::time::{Instant, sleep};
use tower_eureka::client::{Resolve, Resolved, Resolving};
use tower_eureka::model::InstanceStatus;
use tower_eureka::{Eureka, EurekaBuilder, Instance, Settings};

use crate::captured_log::Log;
use crate::common::{Asked, Reply, Scripted, instance, list, with_status};

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);

/// Returns a registry whose hosts respond, except those in `down`.
fn registry(down: &Arc<Mutex<Vec<&'static str>>>) -> Scripted {
    let down = down.clone();
    Scripted::new(move |asked| if down.lock().unwrap().contains(&&*asked.host) { Reply::Status(503) } else { sound() })
}

fn sound() -> Reply {
    Reply::Json(list(&[instance("orders", "a")]))
}

fn hosts(asked: &[Asked]) -> Vec<String> {
    asked.iter().map(|asked| asked.host.clone()).collect()
}

/// Fetches once, and returns the hosts of the requests that it took.
async fn fetch(client: &Eureka, registry: &Scripted) -> Vec<String> {
    let before = registry.asked().len();
    client.transport().applications().await.unwrap();
    hosts(&registry.asked()[before..])
}

fn urls(client: &Eureka) -> Vec<String> {
    client.registry_servers().iter().map(|server| server.url().to_owned()).collect()
}

/// List that the user's function returns, as a text or an error.
type Listed = Arc<Mutex<Result<&'static str, &'static str>>>;

fn source(builder: EurekaBuilder, listed: &Listed, calls: &Arc<AtomicUsize>) -> EurekaBuilder {
    let (listed, calls) = (listed.clone(), calls.clone());
    builder.server_source(move || {
        calls.fetch_add(1, Ordering::Relaxed);
        let listed = *listed.lock().unwrap();
        async move { listed }
    })
}

/// Runs the look-up that is due, which the next request starts.
async fn poll(client: &Eureka) {
    let _ = client.transport().applications().await;
    sleep(Duration::from_millis(1)).await;
}

#[tokio::test(start_paused = true)]
async fn servers_of_the_own_zone_are_tried_before_those_of_the_next() {
    let down = Arc::default();
    let registry = registry(&down);
    let builder = || {
        let builder = Eureka::builder().region("eu").availability_zones("EU", "zone-b, zone-a,zone-c");
        let builder = builder.zone_url("zone-a", "http://a1/,http://a2/").zone_url("zone-b", "http://b1/,http://b2/");
        builder.service_url("http://d/").http_service(registry.clone())
    };
    let mut firsts = BTreeSet::new();
    for _ in 0..40 {
        let client = builder().build().unwrap();
        let listed = urls(&client);
        assert!(listed[..2].iter().all(|url| url.contains("//b")), "{listed:?}");
        assert!(listed[2..4].iter().all(|url| url.contains("//a")) && listed[4] == "http://d/", "{listed:?}");
        firsts.extend(fetch(&client, &registry).await);
    }
    assert_eq!(firsts, ["b1", "b2"].map(str::to_owned).into());
    down.lock().unwrap().extend(["b1", "b2"]);
    let tried = fetch(&builder().build().unwrap(), &registry).await;
    assert!(tried.len() == 3 && tried[2].starts_with('a'), "{tried:?}");

    let mut firsts = BTreeSet::new();
    for _ in 0..80 {
        firsts.extend(urls(&builder().prefer_same_zone(false).build().unwrap()).into_iter().take(1));
    }
    assert_eq!(firsts.len(), 5, "one list of all zones: {firsts:?}");
}

#[tokio::test(start_paused = true)]
async fn zone_without_urls_has_those_of_the_default_zone() {
    let registry = registry(&Arc::default());
    let builder = Eureka::builder().availability_zones("us-east-1", "x").service_url("http://d/eureka");
    let client = builder.http_service(registry.clone()).build().unwrap();
    assert_eq!(fetch(&client, &registry).await, ["d"]);
    assert_eq!(client.registry_servers()[0].zone(), Some("x"));
}

#[test]
fn lists_that_cannot_be_meant_fail_the_build() {
    let with = |change: fn(EurekaBuilder) -> EurekaBuilder| change(Eureka::builder()).build().unwrap_err().to_string();
    let error = with(|builder| builder.zone_url("west", "http://w/"));
    assert!(error.contains("west") && error.contains("availability-zones"), "{error}");
    assert!(with(|builder| builder.zone_url("a", "registry:8761")).contains("without http://"));
    assert!(with(|b| b.service_url("http://a/").session_duration(Duration::ZERO)).contains("session"));
    assert!(with(|b| b.service_url("http://a/").server_poll_interval(Duration::ZERO)).contains("poll interval"));
    for share in [-0.1, f64::NAN, f64::INFINITY] {
        let error = Eureka::builder().service_url("http://a/").quarantine_threshold(share).build().unwrap_err();
        assert!(error.is_config() && error.to_string().contains("quarantine"), "{error}");
    }
    let longest = Eureka::builder().service_url("http://a/").session_duration(Duration::MAX);
    assert!(longest.server_poll_interval(Duration::MAX).build().is_ok());
}

#[tokio::test(start_paused = true)]
async fn function_is_called_again_after_each_interval_and_servers_in_use_stay() {
    let (listed, calls): (Listed, _) = (Arc::new(Mutex::new(Ok("http://a/"))), Arc::default());
    let registry = registry(&Arc::default());
    let client = source(Eureka::builder(), &listed, &calls).http_service(registry.clone()).build().unwrap();
    assert!(client.registry_servers().is_empty(), "nothing happens before the first request");
    assert_eq!(fetch(&client, &registry).await, ["a"]);
    *listed.lock().unwrap() = Ok("http://b/,http://a/,http://c/");
    for _ in 0..8 {
        assert_eq!(fetch(&client, &registry).await, ["a"]);
        sleep(30 * SECOND).await;
    }
    assert_eq!(calls.load(Ordering::Relaxed), 1);
    sleep(2 * MINUTE).await;
    poll(&client).await;
    assert_eq!((calls.load(Ordering::Relaxed), urls(&client).len()), (2, 3));
    assert_eq!(fetch(&client, &registry).await, ["a"], "it is still listed");
    *listed.lock().unwrap() = Ok("http://b/");
    sleep(6 * MINUTE).await;
    poll(&client).await;
    assert_eq!(fetch(&client, &registry).await, ["b"]);
}

#[tokio::test(start_paused = true)]
async fn look_up_that_fails_keeps_the_list_and_is_logged_once() {
    let (log, _guard) = Log::start(tracing::Level::INFO);
    let (listed, calls): (Listed, _) = (Arc::new(Mutex::new(Ok("http://u:secret@a/,http://b/"))), Arc::default());
    let registry = registry(&Arc::default());
    let client = source(Eureka::builder(), &listed, &calls).http_service(registry.clone()).build().unwrap();
    poll(&client).await;
    for failing in [Err("no route"), Ok(""), Ok(" , "), Ok("b:8761"), Err("again")] {
        *listed.lock().unwrap() = failing;
        sleep(6 * MINUTE).await;
        poll(&client).await;
        assert_eq!(urls(&client).len(), 2, "{failing:?}");
    }
    *listed.lock().unwrap() = Ok("http://b/,http://c/");
    sleep(MINUTE).await;
    poll(&client).await;
    assert_eq!(urls(&client).iter().map(|url| &**url).collect::<BTreeSet<_>>(), ["http://b/", "http://c/"].into());
    let text = log.text();
    assert_eq!(text.matches("look-up of registry servers failed").count(), 1, "{text}");
    assert_eq!(text.matches("look-up of registry servers recovered").count(), 1, "{text}");
    assert_eq!(text.matches("list of registry servers changed").count(), 1, "{text}");
    assert!(text.contains("registry servers servers=http://") && !text.contains("secret"), "{text}");
}

#[tokio::test(start_paused = true)]
async fn requests_before_the_first_list_wait_for_it_or_return_its_error() {
    let (listed, calls): (Listed, _) = (Arc::new(Mutex::new(Err("not yet"))), Arc::default());
    let registry = registry(&Arc::default());
    let client = source(Eureka::builder(), &listed, &calls).http_service(registry.clone()).build().unwrap();
    for _ in 0..5 {
        let error = client.transport().applications().await.unwrap_err();
        assert!(error.is_unavailable() && error.to_string().contains("not yet"), "{error}");
    }
    assert_eq!(calls.load(Ordering::Relaxed), 1, "failed look-ups are not repeated at once");
    *listed.lock().unwrap() = Ok("http://a/");
    sleep(2 * SECOND).await;
    assert_eq!(fetch(&client, &registry).await, ["a"]);
}

#[tokio::test(start_paused = true)]
async fn function_that_hangs_or_panics_ends_within_its_bound() {
    let registry = registry(&Arc::default());
    let hangs = Arc::new(AtomicBool::new(true));
    let hanging = hangs.clone();
    let client = Eureka::builder().http_service(registry.clone()).server_source(move || {
        let hangs = hanging.load(Ordering::Relaxed);
        async move { if hangs { std::future::pending().await } else { Ok::<_, std::io::Error>("http://a/") } }
    });
    let client = client.build().unwrap();
    let start = Instant::now();
    let error = client.transport().applications().await.unwrap_err();
    assert!(error.to_string().contains("no result within 30s"), "{error}");
    assert!(start.elapsed() < 31 * SECOND);
    hangs.store(false, Ordering::Relaxed);
    sleep(2 * SECOND).await;
    assert_eq!(fetch(&client, &registry).await, ["a"]);

    let client = Eureka::builder().http_service(registry.clone()).server_source(|| {
        assert!(fastrand::u8(..) > 254 && fastrand::u64(..) == 7, "from the test");
        std::future::ready(Ok::<_, std::io::Error>("http://a/"))
    });
    let error = client.build().unwrap().transport().applications().await.unwrap_err();
    assert!(error.to_string().contains("panicked"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn servers_that_moved_are_looked_up_before_the_interval() {
    let (listed, calls): (Listed, _) = (Arc::new(Mutex::new(Ok("http://a/,http://b/"))), Arc::default());
    let down = Arc::default();
    let registry = registry(&down);
    let client = source(Eureka::builder(), &listed, &calls).http_service(registry.clone()).build().unwrap();
    let registrar = client.registrar(instance("orders", "a"));
    registrar.register().await.unwrap();
    sleep(15 * SECOND).await;
    down.lock().unwrap().extend(["a", "b"]);
    *listed.lock().unwrap() = Ok("http://c/");
    let start = registry.asked().len();
    sleep(70 * SECOND).await;
    let hosts = hosts(&registry.asked()[start..]);
    assert!(hosts.contains(&"c".to_owned()), "{hosts:?}");
    assert!(calls.load(Ordering::Relaxed) <= 3);
}

#[tokio::test]
async fn runtime_that_ends_during_a_look_up_permits_another_one() {
    let registry = registry(&Arc::default());
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = calls.clone();
    let client = Eureka::builder().http_service(registry.clone()).server_source(move || {
        let first = counted.fetch_add(1, Ordering::Relaxed) == 0;
        async move { if first { std::future::pending().await } else { Ok::<_, std::io::Error>("http://a/") } }
    });
    let client = client.build().unwrap();
    let first = client.clone();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let fetch = first.transport().applications();
            assert!(tokio::time::timeout(Duration::from_millis(50), fetch).await.is_err());
        });
    })
    .join()
    .unwrap();
    tokio::time::pause();
    sleep(2 * SECOND).await;
    assert_eq!(fetch(&client, &registry).await, ["a"]);
}

#[tokio::test(start_paused = true)]
async fn list_in_force_shows_the_server_in_use_without_credentials() {
    let (log, _guard) = Log::start(tracing::Level::INFO);
    let down = Arc::new(Mutex::new(vec!["a"]));
    let registry = registry(&down);
    let builder = Eureka::builder().service_url("http://user:secret@a/eureka,http://b/").shuffle_servers(false);
    let client = builder.http_service(registry.clone()).build().unwrap();
    assert_eq!(fetch(&client, &registry).await, ["a", "b"]);
    fetch(&client, &registry).await;
    let servers = client.registry_servers();
    assert_eq!(urls(&client), ["http://a/eureka/", "http://b/"]);
    assert!(servers[1].serves_reads() && !servers[0].serves_reads() && !servers[0].serves_writes());
    assert!(!format!("{servers:?} {client:?}").contains("secret"));
    let text = log.text();
    assert_eq!(text.matches("registry servers servers=http://a/eureka/, http://b/").count(), 1, "{text}");
    assert!(!text.contains("secret") && !text.contains("user"), "{text}");
}

#[tokio::test(start_paused = true)]
async fn servers_that_are_instances_are_looked_up_at_the_others() {
    let members = Arc::new(Mutex::new(vec!["10.0.0.1"]));
    let current = members.clone();
    let registry = Scripted::new(move |asked| {
        if !asked.line.starts_with("GET /vips/registry") {
            return sound();
        }
        let member = |ip: &&str| {
            let builder = Instance::builder("registry").id(*ip).host_name(format!("node-{ip}")).ip_addr(*ip).port(7001);
            builder.build().unwrap()
        };
        let mut found: Vec<_> = current.lock().unwrap().iter().map(member).collect();
        found.push(with_status(&member(&"10.0.0.9"), InstanceStatus::Down));
        Reply::Json(list(&found))
    });
    let settings = |by_ip: &str| {
        let settings = [
            ("eureka.client.service-url.defaultZone", "http://known/eureka"),
            ("eureka.client.transport.bootstrap-resolver-strategy", "composite"),
            ("eureka.client.transport.write-cluster-vip", "registry"),
            ("eureka.client.transport.applications-resolver-use-ip", by_ip),
            ("eureka.client.eureka-server-u-r-l-context", "/eureka/v2/"),
        ];
        let builder = Settings::builder().environment([("", ""); 0]).without_files();
        settings.into_iter().fold(builder, |builder, (name, value)| builder.property(name, value)).load().unwrap()
    };
    let build = |by_ip: &str| Eureka::builder_from(&settings(by_ip)).unwrap().http_service(registry.clone()).build();
    let client = build("true").unwrap();
    assert_eq!(fetch(&client, &registry).await, ["known", "10.0.0.1"]);
    assert_eq!(urls(&client), ["http://10.0.0.1:7001/eureka/v2/"]);
    members.lock().unwrap().push("10.0.0.2");
    sleep(6 * MINUTE).await;
    poll(&client).await;
    assert_eq!(urls(&client).len(), 2);
    // Without a member, the last list stays.
    members.lock().unwrap().clear();
    sleep(6 * MINUTE).await;
    poll(&client).await;
    assert_eq!(urls(&client).len(), 2);
    members.lock().unwrap().push("10.0.0.3");
    assert_eq!(fetch(&build("false").unwrap(), &registry).await, ["known", "node-10.0.0.3"]);

    let composite = [("eureka.client.transport.bootstrap-resolver-strategy", "composite")];
    let without_vip = Settings::builder().environment(composite).without_files().load().unwrap();
    let error = Eureka::builder_from(&without_vip).unwrap().build().unwrap_err();
    assert!(error.is_config() && error.to_string().contains("write-cluster-vip"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn registry_is_fetched_from_the_cluster_for_reads_and_written_to_the_other() {
    let registry = Scripted::new(move |asked| {
        let member = |id: &str, zone: &str| {
            let builder = Instance::builder("readers").id(id).host_name(id).ip_addr("10.0.0.1").metadata("zone", zone);
            if id == "secure" { builder.secure_port(8443).port_enabled(false) } else { builder.port(7001) }
                .build()
                .unwrap()
        };
        match &*asked.line {
            "GET /vips/readers" => {
                Reply::Json(list(&[member("far", "z2"), member("near", "Z1"), member("secure", "z1")]))
            }
            line if line.starts_with("GET") => sound(),
            _ => Reply::Status(204),
        }
    });
    let settings = |for_query: &str| {
        let settings = [
            ("eureka.client.service-url.defaultZone", "http://known/eureka"),
            ("eureka.client.transport.bootstrap-resolver-for-query", for_query),
            ("eureka.client.transport.read-cluster-vip", "readers"),
            ("eureka.client.availability-zones.us-east-1", "z1"),
            ("eureka.client.eureka-server-u-r-l-context", "eureka"),
        ];
        let builder = Settings::builder().environment([("", ""); 0]).without_files();
        settings.into_iter().fold(builder, |builder, (name, value)| builder.property(name, value)).load().unwrap()
    };
    let build = |for_query: &str| {
        let builder = Eureka::builder_from(&settings(for_query)).unwrap();
        builder.shuffle_servers(false).http_service(registry.clone()).build()
    };
    let client = build("false").unwrap();
    client.ready().await.unwrap();
    assert_eq!(hosts(&registry.asked()), ["known", "near"]);
    let listed = ["http://known/", "http://near:7001/", "https://secure:8443/", "http://far:7001/"];
    assert_eq!(urls(&client), listed.map(|url| format!("{url}eureka/")));
    let servers = client.registry_servers();
    assert_eq!((servers[1].zone(), servers[1].serves_reads()), (Some("Z1"), true));
    client.transport().register(&instance("orders", "a")).await.unwrap();
    client.transport().heartbeat("ORDERS", "a", InstanceStatus::Up, 1).await.unwrap();
    assert_eq!(hosts(&registry.asked())[2..], ["known", "known"]);
    client.refresh().await.unwrap();
    assert_eq!(hosts(&registry.asked())[4..], ["near"]);

    let (log, _logging) = Log::start(tracing::Level::WARN);
    let same = build("true").unwrap();
    same.ready().await.unwrap();
    assert_eq!(hosts(&registry.asked())[5..], ["known"]);
    assert!(log.text().contains("read-cluster-vip has no effect without"), "{}", log.text());
    let without_vip = [("eureka.client.transport.bootstrap-resolver-for-query", "false")];
    let without_vip = Settings::builder().environment(without_vip).without_files().load().unwrap();
    let error = Eureka::builder_from(&without_vip).unwrap().build().unwrap_err();
    assert!(error.is_config() && error.to_string().contains("read-cluster-vip"), "{error}");
}

#[tokio::test]
async fn each_address_of_a_host_is_a_server() {
    let registry = registry(&Arc::default());
    let list = "http://user:secret@localhost:8761/eureka,https://localhost/eureka,http://192.0.2.7/,http://no.invalid/";
    let client = Eureka::builder().service_url(list).expand_hosts(true).http_service(registry.clone());
    let client = client.shuffle_servers(false).build().unwrap();
    assert!(urls(&client).is_empty(), "nothing is looked up before the first request");
    client.transport().applications().await.unwrap();
    let listed = urls(&client);
    let is_local = |url: &String| ["http://127.0.0.1:8761/eureka/", "http://[::1]:8761/eureka/"].contains(&&**url);
    let local = listed.iter().filter(|url| is_local(url)).count();
    assert!(local >= 1 && is_local(&listed[0]), "{listed:?}");
    assert_eq!(listed[local..], ["https://localhost/eureka/", "http://192.0.2.7/", "http://no.invalid/"]);
    let asked = registry.asked();
    assert!(asked[0].headers.contains_key("authorization") && asked[0].host != "localhost", "{:?}", asked[0]);

    let unknown = Eureka::builder().service_url("http://no.invalid/").expand_hosts(true).http_service(registry);
    let error = unknown.build().unwrap().transport().applications().await.unwrap_err();
    assert!(error.is_unavailable() && error.to_string().contains("look up no.invalid"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn addresses_of_hosts_come_from_the_resolver_of_the_user() {
    struct Resolver;
    impl Resolve for Resolver {
        fn resolve(&self, host: &str) -> Resolving {
            let host = host.to_owned();
            Box::pin(async move {
                match &*host {
                    "two.internal" => Ok(Resolved::new(["10.0.0.1", "fd00::1"].map(|ip| ip.parse().unwrap()))),
                    "hangs.internal" => std::future::pending().await,
                    "slow.internal" => {
                        tokio::time::sleep(Duration::from_secs(5)).await;
                        Ok(Resolved::new(["10.0.0.2".parse().unwrap()]))
                    }
                    _ => Err("unknown".into()),
                }
            })
        }
    }
    let registry = registry(&Arc::default());
    let list = "http://hangs.internal/,http://two.internal:8761/eureka,http://no.internal/";
    let client = Eureka::builder().service_url(list).expand_hosts(true).http_service(registry.clone());
    let client = client.shuffle_servers(false).resolver(Resolver).build().unwrap();
    let start = Instant::now();
    client.transport().applications().await.unwrap();
    assert!(start.elapsed() <= Duration::from_secs(2), "{:?}", start.elapsed());
    let expected = [
        "http://hangs.internal/",
        "http://10.0.0.1:8761/eureka/",
        "http://[fd00::1]:8761/eureka/",
        "http://no.internal/",
    ];
    assert_eq!(urls(&client), expected);

    let client = Eureka::builder().service_url("http://slow.internal/").expand_hosts(true).http_service(registry);
    let client = client.resolver(Resolver).build().unwrap();
    client.transport().applications().await.unwrap();
    assert_eq!(urls(&client), ["http://10.0.0.2:80/"], "the only host has more time");
}

#[cfg(feature = "dns")]
#[tokio::test]
async fn servers_of_an_srv_record_have_its_ports_and_priorities() {
    use crate::name_server::{Records, name_server};
    use tower_eureka::DnsServers;

    let records = Records::default();
    let name = "_eureka._tcp.example.net";
    records
        .set_service(name, &[(20, 8762, "h3.example.net"), (10, 8761, "h2.example.net"), (10, 80, "h1.example.net")]);
    let dns = DnsServers::srv(name).context("eureka").name_server(name_server(records.clone()).await);
    let registry = registry(&Arc::default());
    let client = Eureka::builder().dns(dns).shuffle_servers(false).http_service(registry.clone()).build().unwrap();
    assert_eq!(fetch(&client, &registry).await, ["h1.example.net"]);
    let expected =
        ["http://h1.example.net/eureka/", "http://h2.example.net:8761/eureka/", "http://h3.example.net:8762/eureka/"];
    assert_eq!(urls(&client), expected);
}

#[cfg(feature = "dns")]
#[tokio::test]
async fn servers_from_dns_follow_their_records() {
    use crate::name_server::{Records, name_server};
    use tower_eureka::DnsServers;

    let records = Records::default();
    let set = |name: &str, texts: &[&'static str]| records.set(name, texts);
    set("txt.us-east-1.eureka.example.net", &["us-east-1a.eureka.example.net us-east-1b.eureka.example.net"]);
    set("txt.us-east-1a.eureka.example.net", &["h1.example.net h2.example.net"]);
    set("txt.us-east-1b.eureka.example.net", &["\"h3.example.net\""]);
    let name_server = name_server(records.clone()).await;
    let registry = registry(&Arc::default());
    let dns = DnsServers::new("eureka.example.net", 7001).context("/eureka/v2/").name_server(name_server);
    let builder = || {
        let builder = Eureka::builder().availability_zones("us-east-1", "us-east-1b,us-east-1a");
        builder.server_poll_interval(Duration::from_millis(20)).http_service(registry.clone())
    };
    let client = builder().dns(dns.clone()).build().unwrap();
    assert_eq!(fetch(&client, &registry).await, ["h3.example.net"]);
    let (mut listed, servers) = (urls(&client), client.registry_servers());
    listed.sort();
    let expected = [1, 2, 3].map(|host| format!("http://h{host}.example.net:7001/eureka/v2/"));
    assert_eq!(listed, expected);
    assert_eq!((servers[0].zone(), servers[2].zone()), (Some("us-east-1b"), Some("us-east-1a")));

    let until = async |expected: &str| {
        let look = async {
            while !urls(&client).iter().any(|url| url.contains(expected)) {
                let _ = client.transport().applications().await;
                sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(MINUTE, look).await.unwrap_or_else(|_| panic!("{expected}: {:?}", urls(&client)));
    };
    // Look-ups run one at a time, so each but the last has ended.
    let looked_up = async |name: &str| {
        let before = records.queries(name);
        let look = async {
            while records.queries(name) < before + 3 {
                poll(&client).await;
            }
        };
        tokio::time::timeout(MINUTE, look).await.unwrap_or_else(|_| panic!("{name} is not looked up"));
    };
    set("txt.us-east-1b.eureka.example.net", &["h4.example.net"]);
    until("h4").await;
    // A record that disappears or is empty keeps the list.
    records.remove("txt.us-east-1a.eureka.example.net");
    looked_up("txt.us-east-1a.eureka.example.net").await;
    assert_eq!(urls(&client).len(), 3);
    set("txt.us-east-1a.eureka.example.net", &["v=spf1 -all"]);
    looked_up("txt.us-east-1a.eureka.example.net").await;
    assert_eq!(urls(&client).len(), 3);
    set("txt.us-east-1a.eureka.example.net", &["h5.example.net"]);
    until("h5").await;
    // The record of a zone may have no prefix. One with it takes precedence.
    set("us-east-1b.eureka.example.net", &["h6.example.net"]);
    looked_up("txt.us-east-1b.eureka.example.net").await;
    assert!(!urls(&client).iter().any(|url| url.contains("h6")));
    records.remove("txt.us-east-1b.eureka.example.net");
    until("h6").await;

    let error = builder().dns(DnsServers::new("nowhere", 1).name_server(name_server)).build().unwrap();
    let error = error.transport().applications().await.unwrap_err();
    assert!(error.is_unavailable() && error.to_string().contains("txt.us-east-1.nowhere"), "{error}");
    for (incomplete, missing) in [
        (DnsServers::new("", 1), "eureka-server-d-n-s-name"),
        (DnsServers::new(".", 1), "eureka-server-d-n-s-name"),
        (DnsServers::new("example.net", 0), "eureka-server-port"),
    ] {
        let error = builder().dns(incomplete).build().unwrap_err();
        assert!(error.is_config() && error.to_string().contains(missing), "{error}");
    }
}
