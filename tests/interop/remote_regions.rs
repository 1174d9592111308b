//! A Spring server and ours in two regions, each of which shows the other.

use std::time::Duration;

use tower_eureka::model::{Applications, InstanceStatus};
use tower_eureka::transport::Transport;
use tower_eureka::{Eureka, Instance};

use super::process::free_port;
use super::rust::Registry;
use super::spring::Server;
use super::{alone, http, until};

/// A look each second on both sides, with room for a busy machine.
const SOON: Duration = Duration::from_secs(20);

fn knowing(region: &str, url: &str) -> Vec<String> {
    vec![
        format!("--eureka.server.remote-region-urls-with-name.{region}={url}"),
        "--eureka.server.remote-region-registry-fetch-interval=1".into(),
    ]
}

fn transport(url: &str) -> Transport {
    Eureka::builder().service_url(url).build().expect("a good URL").transport().clone()
}

async fn register(registry: &Transport, app: &str, id: &str) {
    let instance = Instance::builder(app).id(id).ip_addr("10.0.0.1").port(80).build().expect("a good instance");
    registry.register(&instance).await.expect("a registry takes it");
}

async fn list(url: &str, path: &str) -> Option<Applications> {
    let body = http::text(&format!("{url}{path}")).await?;
    Some(Applications::from_json(body.as_bytes()).expect("a registry answers with a list"))
}

/// What a server shows: `id STATUS`, sorted.
async fn view(url: &str, path: &str) -> Option<Vec<String>> {
    let list = list(url, path).await?;
    let instances = list.applications.iter().flat_map(|app| &app.instances);
    let mut lines: Vec<_> = instances.map(|instance| format!("{} {}", instance.id(), instance.status())).collect();
    lines.sort();
    Some(lines)
}

#[tokio::test]
async fn spring_server_and_ours_list_each_others_region() {
    let _turn = alone().await;
    let port = free_port();
    let arguments = knowing("east", &format!("http://127.0.0.1:{port}/eureka/"));
    let mut ours = Registry::start_with("regions-ours", "127.0.0.1:0", &arguments).await;
    let mut arguments = knowing("home", &ours.url);
    // What it learns from another region replaces no answer that it has kept: it would show the old one for 180 s.
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
    assert_eq!(view(&ours.url, "apps?regions=none").await.expect("it answers"), ["h1 UP", "h2 UP"]);
    assert!(http::instance(&ours.url, "JAVA", "e2").await.is_some());
    assert!(http::instance(&spring.url, "RUST", "h2").await.is_some());

    home.cancel("shared", "h1").await.expect("it is there");
    east.cancel("java", "e2").await.expect("it is there");
    east.set_status("shared", "e1", InstanceStatus::OutOfService).await.expect("it is there");
    both("changed", &["e1 OUT_OF_SERVICE", "h2 UP"]).await;
    let (full, delta) = (list(&ours.url, "apps").await, list(&ours.url, "apps/delta").await);
    assert_eq!(full.expect("it answers").hash, delta.expect("it answers").hash);
    ours.process.assert_runs();
    spring.process.assert_runs();
}

#[tokio::test]
async fn instances_that_a_spring_server_copied_from_ours_are_not_listed_as_its_own() {
    let _turn = alone().await;
    let port = free_port();
    let arguments = knowing("east", &format!("http://127.0.0.1:{port}/eureka/"));
    let ours = Registry::start_with("everything-ours", "127.0.0.1:0", &arguments).await;
    let mut arguments = knowing("home", &ours.url);
    // As long as there is a region that it could never fetch, it refuses who names regions.
    arguments.push(knowing("north", &format!("http://127.0.0.1:{}/eureka/", free_port())).remove(0));
    let spring = Server::start_with("everything-spring", port, &arguments).await;
    let (home, east) = (transport(&ours.url), transport(&spring.url));
    register(&home, "shared", "h1").await;
    register(&home, "shared", "h2").await;
    until("Spring has a copy", SOON, async || http::instance(&spring.url, "SHARED", "h2").await).await;
    // Here its cache is emptied.
    register(&east, "shared", "e1").await;
    let shows = async |url: &str, expected: &[&str]| view(url, "apps").await.filter(|lines| lines == expected);
    let all = ["e1 UP", "h1 UP", "h2 UP"];
    until("Spring shows all", SOON, async || shows(&spring.url, &all).await).await;
    until("ours shows all", SOON, async || shows(&ours.url, &all).await).await;
    assert!(view(&spring.url, "apps?regions=none").await.is_none(), "it refuses");

    home.cancel("shared", "h1").await.expect("it is there");
    // Its cache has the old answer for 180 s.
    for _ in 0..10 {
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(view(&spring.url, "apps").await.expect("it answers"), all);
        assert_eq!(view(&ours.url, "apps").await.expect("it answers"), ["e1 UP", "h2 UP"]);
    }
}
