//! Peers from DNS, with a name server of the test over a socket.

use std::time::Duration;

use tower_eureka::EurekaServer;
use tower_eureka::server::{Dns, Peers};

use crate::name_server::{Records, name_server};
use crate::network::{Network, Node};

/// Timeout for a busy machine. The expected change takes milliseconds.
const LONG: Duration = Duration::from_secs(30);

async fn peers(node: &Node) -> String {
    node.json("status").await["applicationStats"]["registered-replicas"].as_str().unwrap().to_owned()
}

async fn until(node: &Node, expected: &str) {
    let look = async {
        while peers(node).await != expected {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    if tokio::time::timeout(LONG, look).await.is_err() {
        panic!("not {expected} but {}", peers(node).await);
    }
}

#[tokio::test]
async fn records_of_region_and_zones_list_the_peers() {
    let records = Records::default();
    let set = |name: &str, texts: &[&'static str]| records.set(name, texts);
    set("txt.eu.example.com", &["zone-b.example.com zone-a.example.com"]);
    set("txt.zone-a.example.com", &["a"]);
    set("txt.zone-b.example.com", &["c", "b"]);
    let server = name_server(records.clone()).await;
    let network = Network::default();
    let a = network.node_with("a", &[], |setup| {
        let settings = [
            ("eureka.client.region", "eu"),
            ("eureka.client.availability-zones.eu", "zone-b,zone-a"),
            ("eureka.client.use-dns-for-fetching-service-urls", "true"),
            ("eureka.client.eureka-server-d-n-s-name", "example.com"),
            ("eureka.client.eureka-server-port", "8761"),
            ("eureka.client.eureka-server-u-r-l-context", "eureka"),
            ("eureka.server.peer-eureka-nodes-update-interval-ms", "20"),
        ];
        setup
            .peers(|peers| peers.dns(Dns::new("", 0).name_server(server)))
            .with(move |builder| settings.iter().fold(builder, |b, (name, value)| b.property(name, value).unwrap()))
    });
    // The first zone comes first, rotated by 97 for the host `a`. `a` itself is skipped.
    until(&a, "http://c:8761/eureka/, http://b:8761/eureka/").await;
    set("txt.zone-b.example.com", &["b"]);
    until(&a, "http://b:8761/eureka/").await;
    // A failed lookup keeps the last list.
    let name = "txt.zone-b.example.com";
    records.remove(name);
    let before = records.queries(name);
    let look_ups = async {
        while records.queries(name) < before + 3 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(LONG, look_ups).await.expect("look-ups go on");
    assert_eq!(peers(&a).await, "http://b:8761/eureka/");
}

#[tokio::test]
async fn dns_without_domain_or_port_fails_to_build() {
    for (incomplete, missing) in [
        (Dns::new("", 0), "eureka-server-d-n-s-name"),
        (Dns::new("example.com", 0), "eureka-server-port"),
        (Dns::new("", 8761), "eureka-server-d-n-s-name"),
    ] {
        let incomplete = EurekaServer::builder().peers(Peers::new().dns(incomplete));
        let error = incomplete.build().unwrap_err();
        assert!(error.is_config() && error.to_string().contains(missing), "{error}");
    }
}
