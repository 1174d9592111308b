//! Endpoints for orchestrators and operators.

use std::net::TcpStream;

use super::{Running, ask, exchange, free_port, start};

#[test]
fn probes_respond_with_200_once_open_for_traffic_and_with_503_until_then() {
    let open = start(&[]);
    let closed = start(&["--eureka.client.serviceUrl.defaultZone=http://127.0.0.1:1/eureka/"]);
    let (up, out) = (r#"{"status":"UP"}"#, r#"{"status":"OUT_OF_SERVICE"}"#);
    for (path, ready, closed_status, not_ready) in [
        ("/", "open for traffic", 503, "not open for traffic yet"),
        ("/health", up, 503, out),
        ("/actuator/health", up, 503, out),
        ("/actuator/health/", up, 503, out),
        ("/actuator/health/readiness", up, 503, out),
        ("/actuator/health/liveness", up, 200, up),
    ] {
        let get = |running: &Running, method: &str| {
            exchange(running, &format!("{method} {path} HTTP/1.0\r\nHost: x\r\nAccept: */*\r\n\r\n"))
        };
        for (running, status, words) in [(&open, 200, ready), (&closed, closed_status, not_ready)] {
            let response = get(running, "GET");
            assert!(response.starts_with(&format!("HTTP/1.0 {status} ")), "{path}: {response}");
            assert!(response.contains(words), "{path}: {response}");
            let head = get(running, "HEAD");
            assert!(head.starts_with(&format!("HTTP/1.0 {status} ")) && head.ends_with("\r\n\r\n"), "{path}: {head}");
        }
    }
    let missing = exchange(&open, "GET /actuator/env HTTP/1.0\r\nHost: x\r\n\r\n");
    assert!(missing.starts_with("HTTP/1.0 404 "), "{missing}");
    let apps = exchange(&closed, "GET /eureka/apps HTTP/1.0\r\nHost: x\r\n\r\n");
    assert!(apps.starts_with("HTTP/1.0 403 "), "{apps}");
}

#[test]
fn management_port_has_the_endpoints_for_operators_alone() {
    let port = free_port();
    let running = start(&[&format!("--management.server.port={port}")]);
    let status = |port: u16, path: &str| {
        let mut connection = TcpStream::connect(("127.0.0.1", port)).unwrap();
        ask(&mut connection, &format!("GET {path} HTTP/1.0\r\nHost: x\r\n\r\n"))[9..12].to_owned()
    };
    for (path, registry, management) in [
        ("/eureka/apps", "200", "404"),
        ("/actuator/health", "200", "200"),
        ("/actuator/health/liveness", "200", "200"),
        ("/actuator/info", "404", "200"),
    ] {
        assert_eq!((status(running.port, path), status(port, path)), (registry.into(), management.into()), "{path}");
    }
    assert_eq!(running.stop("TERM"), (Some(0), String::new()));
}
