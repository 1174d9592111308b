//! Addresses on which the binary listens.

use std::io::{BufRead, BufReader, Read};
use std::net::{TcpListener, TcpStream};

use super::{Running, ask, free_port, listens, plain, serve};

#[test]
fn port_in_use_is_an_error_on_stderr() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let output = serve(&address).output().unwrap();
    let error = String::from_utf8(output.stderr).unwrap();
    assert_eq!((output.status.code(), output.stdout), (Some(1), Vec::new()));
    assert!(error.contains(&address) && error.contains("in use"), "{error}");
}

fn has_ipv6() -> bool {
    TcpListener::bind("[::1]:0").is_ok()
}

/// Returns the address of all interfaces as the binary prints it.
fn unspecified() -> &'static str {
    if TcpListener::bind("[::]:0").is_ok() { "[::]" } else { "0.0.0.0" }
}

#[test]
fn port_alone_listens_on_both_families_and_logs_ipv4_clients_as_such() {
    for (variables, arguments) in
        [(vec![("SERVER_PORT", "0")], vec![]), (vec![], vec!["--listen=:0"]), (vec![], vec!["--listen", "[::]:0"])]
    {
        let mut command = plain();
        command.envs(variables).args(&arguments);
        let mut child = command.spawn().unwrap();
        let mut line = String::new();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        stdout.read_line(&mut line).unwrap();
        let port = line.trim_end_matches("/eureka/\n").rsplit_once(':').unwrap().1.parse::<u16>().unwrap();
        let mut running = Running { child, stdout, port };
        let mut stderr = running.child.stderr.take().unwrap();
        let head = "PUT /eureka/apps/X/1/status HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n";
        assert!(ask(&mut running.connect(), head).starts_with("HTTP/1.1 "), "{arguments:?}");
        if has_ipv6() {
            let mut connection = TcpStream::connect(("::1", port)).unwrap();
            let head = "GET /eureka/apps HTTP/1.1\r\nHost: x\r\n\r\n";
            assert_eq!(ask(&mut connection, head), "HTTP/1.1 200 OK\r\n", "{arguments:?}");
        }
        running.stop("TERM");
        let mut log = String::new();
        stderr.read_to_string(&mut log).unwrap();
        assert!(log.contains("127.0.0.1:") && !log.contains("ffff"), "{arguments:?}: {log}");
    }
}

#[test]
fn port_in_use_on_ipv4_is_an_error() {
    let taken = TcpListener::bind("0.0.0.0:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let output = plain().args(["--listen", &port]).output().unwrap();
    let error = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(error.contains(&port) && error.contains("in use"), "{error}");
}

#[test]
fn port_and_address_of_a_spring_server_are_used() {
    let port = free_port().to_string();
    let (everywhere, local) = (format!("{}:{port}", unspecified()), format!("127.0.0.1:{port}"));
    type Case<'a> = (&'a [(&'a str, &'a str)], Vec<String>, &'a str);
    let argument = |name: &str, value: &str| format!("--{name}={value}");
    let cases: [Case<'_>; 12] = [
        (&[("SERVER_PORT", &port)], vec![], &everywhere),
        (&[("server.port", &port)], vec![], &everywhere),
        (&[("SERVER_PORT", &format!(" {port} ")), ("SERVER_ADDRESS", "127.0.0.1")], vec![], &local),
        (&[("SERVER_PORT", "1")], vec![argument("server.port", &port)], &everywhere),
        (
            &[("SERVER_ADDRESS", "")],
            vec![argument("server.port", &port), argument("server.address", "127.0.0.1")],
            &local,
        ),
        (&[], vec!["--server.port".into(), port.clone(), "--server.address".into(), "localhost".into()], &local),
        (&[("SERVER_PORT", "1"), ("SERVER_ADDRESS", "192.0.2.1")], vec!["--listen".into(), local.clone()], &local),
        (&[], vec!["--listen".into(), format!(":{port}")], &everywhere),
        (&[], vec![argument("listen", &port)], &everywhere),
        (&[("TOWER_EUREKA_LISTEN", &local), ("SERVER_PORT", "1")], vec![], &local),
        (&[("TOWER_EUREKA_LISTEN", "1")], vec!["--listen".into(), local.clone()], &local),
        (&[("TOWER_EUREKA_LISTEN", " "), ("SERVER_PORT", &port)], vec![], &everywhere),
    ];
    for (variables, arguments, expected) in cases {
        let mut command = plain();
        command.envs(variables.iter().copied()).args(&arguments);
        let (address, log) = listens(command);
        assert_eq!(address, expected, "{variables:?} {arguments:?}");
        let is_listen = |name: &str| name == "TOWER_EUREKA_LISTEN";
        let is_given = arguments.contains(&"--listen".to_owned())
            || variables.iter().any(|(name, value)| is_listen(name) && *value != " ");
        let ignored = is_given && variables.iter().any(|(name, _)| *name == "SERVER_PORT");
        assert_eq!(log.contains("SERVER_PORT is ignored"), ignored, "{log}");
    }
    // Port 0 selects a free port.
    let mut command = plain();
    command.env("SERVER_PORT", "0");
    assert!(listens(command).0.starts_with(unspecified()));
    if has_ipv6() {
        assert!(listens(serve("[::1]:0")).0.starts_with("[::1]:"));
        let mut command = plain();
        command.args(["--server.address=::1", "--server.port=0"]);
        assert!(listens(command).0.starts_with("[::1]:"));
    }
}

#[test]
fn invalid_address_is_an_error() {
    for (variable, argument, code, expected) in [
        (("SERVER_PORT", "abc"), "", 1, "SERVER_PORT is 'abc': expected a port, 0 to 65535"),
        (("SERVER_PORT", "-1"), "", 1, "expected a port"),
        (("SERVER_PORT", "65536"), "", 1, "expected a port"),
        (("SERVER_PORT", "${PORT}"), "", 1, "SERVER_PORT: placeholder ${PORT} has no value"),
        (("SERVER_ADDRESS", "a b"), "", 1, "SERVER_ADDRESS is 'a b': expected a host name"),
        (("X", "x"), "--server.port=8k", 1, "--server.port is '8k'"),
        (("X", "x"), "--server.port", 1, "needs a value"),
        (("X", "x"), "--server.prot=1", 1, "server.prot is no setting"),
        (("X", "x"), "--server.ssl.enabled=true", 1, "server.ssl has settings, but no certificate"),
        (("TOWER_EUREKA_LISTEN", "a b"), "", 2, "expected a host name"),
        (("X", "x"), "--listen=no nsense", 2, "expected a host name or an address"),
        (("X", "x"), "--listen=70000", 2, "expected a port"),
        (("X", "x"), "--listen=", 2, "expected"),
        (("X", "x"), "--listen=::1:8761", 2, "expected brackets"),
        (("X", "x"), "--listen=[nonsense]:1", 2, "expected an IPv6 address"),
        (("X", "x"), "--listen=http://localhost:8761", 2, "expected"),
    ] {
        let mut command = plain();
        command.env(variable.0, variable.1);
        if !argument.is_empty() {
            command.arg(argument);
        }
        let output = command.output().unwrap();
        let error = String::from_utf8(output.stderr).unwrap();
        assert_eq!((output.status.code(), output.stdout.len()), (Some(code), 0), "{variable:?} {argument}: {error}");
        assert!(error.contains(expected), "{variable:?} {argument}: {error}");
    }
}
