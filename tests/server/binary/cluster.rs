//! Binaries as nodes of a cluster.

use std::io::{BufRead, BufReader};
use std::net::TcpListener;

use super::{Running, exchange, free_port, serve, until};

#[test]
fn node_whose_application_name_has_blanks_registers_at_its_peer() {
    let addresses = [(); 2].map(|()| format!("127.0.0.1:{}", free_port()));
    let urls = addresses.each_ref().map(|address| format!("http://{address}/eureka/")).join(",");
    let node = |address: &String| {
        let mut child = serve(address)
            .arg(format!("--eureka.client.service-url.defaultZone={urls}"))
            .args(["--spring.application.name=Service Registry", "--eureka.instance.hostname=127.0.0.1"])
            .args(["--eureka.instance.ip-address=127.0.0.1", "--eureka.server.wait-time-in-ms-when-sync-empty=0"])
            .spawn()
            .unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        stdout.read_line(&mut String::new()).unwrap();
        Running { child, stdout, port: address.rsplit_once(':').unwrap().1.parse().unwrap() }
    };
    let [first, second] = addresses.each_ref().map(node);
    for (at, other) in [(&first, &second), (&second, &first)] {
        let id = format!(r#""instanceId":"127.0.0.1:service registry:{}""#, other.port);
        until(at, "apps/SERVICE%20REGISTRY", &id, true);
        until(at, "status", &format!(r#""available-replicas":"http://127.0.0.1:{}/eureka/,""#, other.port), true);
    }
    assert_eq!(first.stop("TERM"), (Some(0), String::new()));
    let output = serve("127.0.0.1:0").arg("--spring.application.name=a/b").output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8(output.stderr).unwrap().contains("without slashes"));
}

#[test]
fn stopped_node_sends_its_last_changes_to_its_peer() {
    let free = || TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let addresses = [free(), free()];
    let urls = addresses.map(|address| format!("http://{address}/eureka/")).join(",");
    let node = |address: std::net::SocketAddr| {
        let mut child = serve(&address.to_string())
            .arg(format!("--eureka.client.service-url.defaultZone={urls}"))
            .args(["--eureka.instance.hostname=127.0.0.1", "--eureka.instance.ip-address=127.0.0.1"])
            .args(["--eureka.server.wait-time-in-ms-when-sync-empty", "0"])
            .spawn()
            .unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        stdout.read_line(&mut String::new()).unwrap();
        Running { child, stdout, port: address.port() }
    };
    let [first, second] = addresses.map(node);
    let id = format!("127.0.0.1:{}", first.port);
    until(&second, "apps/UNKNOWN", &format!(r#""instanceId":"{id}""#), true);
    let body = r#"{"instance":{"instanceId":"i","hostName":"h","app":"X","ipAddr":"10.0.0.1","status":"UP","dataCenterInfo":{"name":"MyOwn"}}}"#;
    let head = "POST /eureka/apps/X HTTP/1.0\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length";
    let response = exchange(&first, &format!("{head}: {}\r\n\r\n{body}", body.len()));
    assert!(response.contains(" 204 "), "{response}");
    assert_eq!(first.stop("TERM"), (Some(0), String::new()));
    // The last changes were sent before the process ended.
    let request = "GET /eureka/apps HTTP/1.0\r\nHost: x\r\nAccept: application/json\r\n\r\n";
    let applications = exchange(&second, request);
    assert!(applications.contains(r#""instanceId":"i""#), "{applications}");
    assert!(!applications.contains(&id), "{applications}");
}
