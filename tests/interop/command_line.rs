//! The verbs of the binary against a Spring server.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::{Value, json};
use tower_eureka::model::InstanceStatus::{Down, OutOfService, Up};
use tower_eureka::transport::Transport;
use tower_eureka::{Eureka, Instance};

use super::process::{Process, free_port};
use super::rust::{Registry, verb};
use super::spring::Server;
use super::{slot, until};

/// Time limit of a condition. The Spring server updates its lists every 500 ms here.
const SOON: Duration = Duration::from_secs(20);

/// Runs a verb. Returns its exit code and its output.
async fn run(arguments: &[&str]) -> (i32, String) {
    let output = tokio::time::timeout(SOON, verb(arguments).output()).await.expect("it ends in time").expect("it runs");
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    (output.status.code().expect("no signal ended it"), format!("{out}{err}"))
}

fn transport(url: &str) -> Transport {
    Eureka::builder().service_url(url).build().expect("URL is valid").transport().clone()
}

/// Returns an instance of ORDERS with these members in place of the usual ones.
fn orders(id: &str, members: &Value) -> Instance {
    let mut instance = json!({
        "instanceId": id,
        "app": "ORDERS",
        "hostName": "orders.example",
        "ipAddr": "10.0.0.1",
        "status": "UP",
        "port": { "$": 8080, "@enabled": "true" },
        "vipAddress": "orders",
        "dataCenterInfo": { "@class": "com.netflix.appinfo.InstanceInfo$DefaultDataCenterInfo", "name": "MyOwn" },
        "leaseInfo": { "renewalIntervalInSecs": 30, "durationInSecs": 300 },
        "metadata": { "zone": "rack-a" },
        "homePageUrl": "http://orders.example/",
        "lastDirtyTimestamp": "1000",
    });
    let (known, members) = (instance.as_object_mut().expect("an object"), members.as_object().expect("an object"));
    known.extend(members.clone());
    Instance::from_json(json!({ "instance": instance }).to_string().as_bytes()).expect("instance is valid")
}

#[tokio::test]
async fn apps_watch_and_status_work_with_a_spring_server() {
    let _slot = slot().await;
    let port = free_port();
    let server = Server::start("cli-spring", port).await;
    let (url, registry) = (server.url.clone(), transport(&server.url));
    registry.register(&orders("orders-1", &json!({}))).await.expect("registered");
    let watching = Process::start("cli-watch", verb(&["watch", "--json", "--interval", "0.5", "--url", &url]));
    let event = async |name: &str, id: Option<&str>| {
        until(&format!("the event {name} of {id:?}"), SOON, async || {
            let output = watching.output();
            let mut events = output.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
            events.find(|event| event["event"] == name && id.is_none_or(|id| event["instance"] == id))
        })
        .await
    };
    event("connected", None).await;

    until("the list has the instance", SOON, async || {
        let (code, all) = run(&["apps", "--url", &url]).await;
        (code == 0 && all.contains("orders-1") && all.contains("rack-a")).then_some(())
    })
    .await;
    assert_eq!(run(&["apps", "nobody", "--url", &url]).await.0, 4);
    let (code, set) = run(&["status", "set", "orders", "orders-1", "OUT_OF_SERVICE", "--url", &url]).await;
    assert_eq!((code, &*set), (0, "ORDERS orders-1 UP -> OUT_OF_SERVICE (override OUT_OF_SERVICE)\n"));
    let changed = event("changed", Some("orders-1")).await;
    assert_eq!(changed["status"], "OUT_OF_SERVICE");
    let (code, cleared) = run(&["status", "clear", "orders", "orders-1", "--fallback", "UP", "--url", &url]).await;
    assert_eq!((code, &*cleared), (0, "ORDERS orders-1 OUT_OF_SERVICE -> UP\n"));
    let (code, metadata) = run(&["metadata", "orders", "orders-1", "canary=yes", "--url", &url]).await;
    assert_eq!((code, &*metadata), (0, "canary=yes\nzone=rack-a\n"));
    let (code, drained) = run(&["drain", "orders", "orders-1", "--wait", "0.1", "--cancel", "--url", &url]).await;
    assert!(code == 0 && drained.contains("and drained"), "{drained}");
    event("removed", Some("orders-1")).await;
    assert_eq!(run(&["cancel", "orders", "orders-1", "--url", &url]).await.0, 4);
    assert_eq!(run(&["health", "--url", &url]).await, (0, "UP\n".to_owned()));

    registry.register(&orders("orders-2", &json!({}))).await.expect("registered");
    event("added", Some("orders-2")).await;
    server.process.kill().await;
    event("disconnected", None).await;
    let (code, error) = run(&["apps", "--url", &url]).await;
    assert!(code == 3 && error.contains("is the server running"), "{error}");
    let _server = Server::start("cli-spring-again", port).await;
    event("reconnected", None).await;
    event("removed", Some("orders-2")).await;
}

#[tokio::test]
async fn diff_finds_each_planted_difference_between_a_spring_server_and_ours() {
    let _slot = slot().await;
    let theirs = Server::start("cli-diff-spring", free_port()).await;
    let ours = Registry::start("cli-diff-ours").await;
    let registries = [transport(&theirs.url), transport(&ours.url)];
    let amazon = json!({
        "@class": "com.netflix.appinfo.AmazonInfo",
        "name": "Amazon",
        "metadata": { "instance-id": "i-1", "availability-zone": "eu-1a" },
    });
    // Members that our registry has in place of Spring's, and the fields that differ.
    let planted = [
        ("status", json!({ "status": "DOWN" }), &["status"][..]),
        ("metadata", json!({ "metadata": { "zone": "rack-b" } }), &["metadata.zone"]),
        ("address", json!({ "ipAddr": "10.0.0.2", "hostName": "other" }), &["hostName", "ipAddr"]),
        ("port", json!({ "port": { "$": 8081, "@enabled": "true" } }), &["port"]),
        ("secure-port", json!({ "securePort": { "$": 8443, "@enabled": "true" } }), &["securePort"]),
        ("vip", json!({ "vipAddress": "orders,orders-canary" }), &["vipAddress"]),
        (
            "lease",
            json!({ "leaseInfo": { "renewalIntervalInSecs": 30, "durationInSecs": 120 } }),
            &["leaseDurationSeconds"],
        ),
        ("version", json!({ "lastDirtyTimestamp": "2000" }), &["lastDirtyTimestamp"]),
        ("data-center", json!({ "dataCenterInfo": amazon }), &["dataCenter"]),
        ("url", json!({ "homePageUrl": "http://other/" }), &["homePageUrl"]),
    ];
    let mut expected = BTreeSet::new();
    for (id, members, fields) in &planted {
        registries[0].register(&orders(id, &json!({}))).await.expect("registered");
        registries[1].register(&orders(id, members)).await.expect("registered");
        expected.extend(fields.iter().map(|field| ((*id).to_owned(), (*field).to_owned())));
    }
    for (here, there, id) in [(0, 1, "missing-at-ours"), (1, 0, "missing-at-theirs")] {
        registries[here].register(&orders(id, &json!({}))).await.expect("registered");
        assert!(registries[there].instance("ORDERS", id).await.expect("a response").is_none());
        expected.insert((id.to_owned(), "instance".to_owned()));
    }
    for registry in &registries {
        for id in ["same", "override", "action"] {
            registry.register(&orders(id, &json!({}))).await.expect("registered");
        }
    }
    registries[0].set_status("ORDERS", "override", OutOfService).await.expect("set");
    for field in ["status", "overriddenStatus", "actionType"] {
        expected.insert(("override".to_owned(), field.to_owned()));
    }
    registries[1].set_status("ORDERS", "action", Down).await.expect("set");
    registries[1].replace_status("ORDERS", "action", Up).await.expect("replaced");
    expected.insert(("action".to_owned(), "actionType".to_owned()));

    let differences = async || {
        let (code, output) = run(&["diff", "--json", &theirs.url, &ours.url]).await;
        let document: Value = serde_json::from_str(&output).unwrap_or_else(|error| panic!("{error}: {output}"));
        let found = document["differences"].as_array().expect("an array").iter();
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let found: BTreeSet<_> = found.map(|found| (text(&found["instance"]), text(&found["field"]))).collect();
        (code, found)
    };
    // The metadata of the data center are fields of their own.
    let is_center = |(_, field): &(String, String)| field.starts_with("dataCenter.");
    until("each planted difference is found, and no other", SOON, async || {
        let (code, mut found) = differences().await;
        found.retain(|found| !is_center(found));
        (code == 1 && found == expected).then_some(())
    })
    .await;
    let (_, table) = run(&["diff", &theirs.url, &ours.url]).await;
    println!("{table}");

    // Without the differences, the servers agree.
    for (id, _) in &expected {
        for registry in &registries {
            registry.cancel("ORDERS", id).await.expect("cancelled");
        }
    }
    let (code, output) = run(&["diff", "--wait", "15", &theirs.url, &ours.url]).await;
    assert_eq!((code, &*output), (0, "2 servers agree; 1 instance each\n"));
}
