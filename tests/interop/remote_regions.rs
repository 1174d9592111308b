//! A Spring server and this crate's registry in two regions, each of which lists the other.

use std::time::Duration;

use tower_eureka::model::{Applications, InstanceStatus};
use tower_eureka::transport::Transport;
use tower_eureka::{Eureka, Instance};

use super::process::free_port;
use super::rust::Registry;
use super::spring::Server;
use super::{http, slot, until};

/// Time limit of a condition. Each side fetches the other region once a second.
const SOON: Duration = Duration::from_secs(20);

fn with_remote_region(region: &str, url: &str) -> Vec<String> {
    vec![
        format!("--eureka.server.remote-region-urls-with-name.{region}={url}"),
        "--eureka.server.remote-region-registry-fetch-interval=1".into(),
    ]
}

fn transport(url: &str) -> Transport {
    Eureka::builder().service_url(url).build().expect("URL is valid").transport().clone()
}

async fn register(registry: &Transport, app: &str, id: &str) {
    let instance = Instance::builder(app).id(id).ip_addr("10.0.0.1").port(80).build().expect("instance is valid");
    registry.register(&instance).await.expect("registration succeeds");
}

async fn list(url: &str, path: &str) -> Option<Applications> {
    let body = http::text(&format!("{url}{path}")).await?;
    Some(Applications::from_json(body.as_bytes()).expect("response is a list"))
}

/// Returns the instances of a list as `id STATUS`, sorted.
async fn view(url: &str, path: &str) -> Option<Vec<String>> {
    let list = list(url, path).await?;
    let instances = list.applications.iter().flat_map(|app| &app.instances);
    let mut lines: Vec<_> = instances.map(|instance| format!("{} {}", instance.id(), instance.status())).collect();
    lines.sort();
    Some(lines)
}

#[tokio::test]
async fn spring_server_and_ours_list_each_others_region() {
    let _slot = slot().await;
    let port = free_port();
    let arguments = with_remote_region("east", &format!("http://127.0.0.1:{port}/eureka/"));
    let mut ours = Registry::start_with("regions-ours", "127.0.0.1:0", &arguments).await;
    let mut arguments = with_remote_region("home", &ours.url);
    // Changes of another region do not invalidate the cache of the Java server: it would send the
    // old list for 180 seconds.
    arguments.push("--eureka.server.response-cache-auto-expiration-in-seconds=1".into());
    let mut spring = Server::start_with("regions-spring", port, &arguments).await;
    let (home, east) = (transport(&ours.url), transport(&spring.url));
    for (registry, app, id) in
        [(&home, "shared", "h1"), (&home, "rust", "h2"), (&east, "shared", "e1"), (&east, "java", "e2")]
    {
        register(registry, app, id).await;
    }
    let both = async |what: &str, expected: &[&str]| {
        for url in [&ours.url, &spring.url] {
            let shows = async || view(url, "apps").await.filter(|lines| lines == expected);
            until(&format!("{what}: {url} shows {expected:?}"), SOON, shows).await;
        }
    };
    both("registered", &["e1 UP", "e2 UP", "h1 UP", "h2 UP"]).await;
    assert_eq!(view(&ours.url, "apps?regions=none").await.expect("registry responds"), ["h1 UP", "h2 UP"]);
    assert!(http::instance(&ours.url, "JAVA", "e2").await.is_some());
    assert!(http::instance(&spring.url, "RUST", "h2").await.is_some());

    home.cancel("shared", "h1").await.expect("instance is registered");
    east.cancel("java", "e2").await.expect("instance is registered");
    east.set_status("shared", "e1", InstanceStatus::OutOfService).await.expect("instance is registered");
    both("changed", &["e1 OUT_OF_SERVICE", "h2 UP"]).await;
    let (full, delta) = (list(&ours.url, "apps").await, list(&ours.url, "apps/delta").await);
    assert_eq!(full.expect("registry responds").hash, delta.expect("registry responds").hash);
    ours.process.assert_runs();
    spring.process.assert_runs();
}

#[tokio::test]
async fn instances_that_a_spring_server_copied_from_ours_are_not_listed_as_its_own() {
    let _slot = slot().await;
    let port = free_port();
    let arguments = with_remote_region("east", &format!("http://127.0.0.1:{port}/eureka/"));
    let ours = Registry::start_with("everything-ours", "127.0.0.1:0", &arguments).await;
    let mut arguments = with_remote_region("home", &ours.url);
    // While one region was never fetched, the server refuses requests with regions.
    arguments.push(with_remote_region("north", &format!("http://127.0.0.1:{}/eureka/", free_port())).remove(0));
    let spring = Server::start_with("everything-spring", port, &arguments).await;
    let (home, east) = (transport(&ours.url), transport(&spring.url));
    register(&home, "shared", "h1").await;
    register(&home, "shared", "h2").await;
    until("Spring has a copy", SOON, async || http::instance(&spring.url, "SHARED", "h2").await).await;
    // This registration invalidates the cache of the Spring server.
    register(&east, "shared", "e1").await;
    let shows = async |url: &str, expected: &[&str]| view(url, "apps").await.filter(|lines| lines == expected);
    let all = ["e1 UP", "h1 UP", "h2 UP"];
    until("Spring shows all", SOON, async || shows(&spring.url, &all).await).await;
    until("ours shows all", SOON, async || shows(&ours.url, &all).await).await;
    assert!(view(&spring.url, "apps?regions=none").await.is_none(), "regions are refused");

    home.cancel("shared", "h1").await.expect("instance is registered");
    // The cache of the Spring server keeps the old list for 180 seconds.
    for _ in 0..10 {
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(view(&spring.url, "apps").await.expect("registry responds"), all);
        assert_eq!(view(&ours.url, "apps").await.expect("registry responds"), ["e1 UP", "h2 UP"]);
    }
}
