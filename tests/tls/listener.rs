//! HTTPS of the registry's own listener: versions, client certificates, changed files, and clients
//! that do not finish the handshake.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use axum::routing::get;
use rcgen::{CertificateParams, date_time_ymd};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::ClientConfig;
use tower_eureka::server::{ClientAuth, Listener, PeerCertificate, Peers, ServerTls};
use tower_eureka::{Eureka, EurekaServer, Instance, server};

use crate::captured_log::Log;
use crate::world::{Ca, pass, until};

/// Listener on a port of its own, whose handler responds with the size of the client's certificate.
struct Running {
    address: SocketAddr,
    task: JoinHandle<()>,
}

impl Running {
    async fn start(change: impl FnOnce(Listener) -> Listener) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let handler = |request: Request| async move {
            request.extensions().get::<PeerCertificate>().map_or(0, |leaf| leaf.der().len()).to_string()
        };
        let app = Router::new().route("/certificate", get(handler));
        let listener = change(Listener::new(listener));
        let task = tokio::spawn(async move { listener.serve(app, std::future::pending()).await });
        Self { address, task }
    }

    /// Performs a handshake.
    async fn connect(&self, config: ClientConfig) -> io::Result<TlsStream<TcpStream>> {
        let tcp = TcpStream::connect(self.address).await.unwrap();
        TlsConnector::from(Arc::new(config)).connect("localhost".try_into().unwrap(), tcp).await
    }

    /// Returns the response to a request over a new connection.
    async fn ask(&self, config: ClientConfig) -> io::Result<String> {
        let mut stream = self.connect(config).await?;
        stream.write_all(b"GET /certificate HTTP/1.0\r\n\r\n").await?;
        let mut response = String::new();
        stream.read_to_string(&mut response).await?;
        Ok(response.rsplit_once("\r\n\r\n").map(|(_, body)| body.to_owned()).unwrap_or_default())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn tls(ca: &Ca, name: &str) -> ServerTls {
    let (certificate, key) = ca.identity_files(name);
    ServerTls::new(certificate, key)
}

/// Returns the size of the certificate that the server shows.
async fn shown(running: &Running, ca: &Ca) -> Vec<u8> {
    let stream = running.connect(ca.client()).await.unwrap();
    stream.get_ref().1.peer_certificates().unwrap()[0].to_vec()
}

#[tokio::test]
async fn http_version_is_selected_by_alpn() {
    let ca = Ca::new();
    for (http2, offered, expected) in [
        (true, &[&b"h2"[..], b"http/1.1"][..], Some(&b"h2"[..])),
        (true, &[b"http/1.1"], Some(b"http/1.1")),
        (true, &[], None),
        (false, &[b"h2", b"http/1.1"], Some(b"http/1.1")),
    ] {
        let tls = tls(&ca, "listener-alpn");
        let running = Running::start(|listener| listener.tls(tls).unwrap().http2(http2)).await;
        let mut config = ca.client();
        config.alpn_protocols = offered.iter().map(|name| name.to_vec()).collect();
        let stream = running.connect(config).await.unwrap();
        assert_eq!(stream.get_ref().1.alpn_protocol(), expected, "{http2} {offered:?}");
    }
}

#[tokio::test]
async fn handler_finds_the_certificate_of_the_client() {
    let (log, _logging) = Log::start(tracing::Level::WARN);
    let (ca, other) = (Ca::new(), Ca::named("other"));
    let file = ca.pem_file("listener-clients.pem");
    let start = async |auth| {
        let tls = tls(&ca, "listener-auth").client_ca(&file).client_auth(auth);
        Running::start(|listener| listener.tls(tls).unwrap()).await
    };
    let identity = ca.identity(&["orders"]);
    let size = identity.0[0].len().to_string();
    let config = || ca.client_with((identity.0.clone(), identity.1.clone_key()));
    let (none, wanted, required) =
        (start(ClientAuth::None).await, start(ClientAuth::Wanted).await, start(ClientAuth::Required).await);
    assert_eq!(none.ask(config()).await.unwrap(), "0", "no certificate was requested");
    assert_eq!(wanted.ask(config()).await.unwrap(), size);
    assert_eq!(wanted.ask(ca.client()).await.unwrap(), "0");
    assert_eq!(required.ask(config()).await.unwrap(), size);

    assert!(required.ask(ca.client()).await.is_err());
    for running in [&wanted, &required] {
        assert!(running.ask(ca.client_with(other.identity(&["orders"]))).await.is_err());
        let mut expired = CertificateParams::new(vec!["orders".to_owned()]).unwrap();
        expired.not_after = date_time_ymd(2001, 1, 1);
        assert!(running.ask(ca.client_with(ca.sign(expired))).await.is_err());
    }
    // Each listener logs its own failures.
    until(|| log.text().matches("TLS handshake failed").count() == 5).await;
    let [unknown, expired] = [
        "the certificate of the client is of a CA that is not trusted here",
        "the certificate of the client has expired",
    ];
    let expected = ["the client sent no certificate, and one is required", unknown, expired, unknown, expired];
    for (line, expected) in log.text().lines().zip(expected) {
        assert!(line.contains(expected), "{expected} in {line}");
    }
}

#[tokio::test]
async fn changed_certificate_is_shown_to_new_connections() {
    let (log, _logging) = Log::start(tracing::Level::INFO);
    let ca = Ca::new();
    let (certificate, key) = ca.identity_files("listener-changed");
    let tls = ServerTls::new(&certificate, &key);
    let running = Running::start(|listener| listener.tls(tls).unwrap()).await;
    let first = shown(&running, &ca).await;

    std::fs::write(&certificate, "-----BEGIN CERTIFICATE-----\nMII").unwrap();
    for _ in 0..3 {
        pass().await;
        assert_eq!(shown(&running, &ca).await, first, "the previous one stays");
    }
    assert_eq!(log.text().matches("cannot use changed TLS files").count(), 1, "{}", log.text());

    ca.write_identity(&certificate, &key);
    assert_eq!(shown(&running, &ca).await, first, "it was checked less than 5 seconds ago");
    pass().await;
    assert_ne!(shown(&running, &ca).await, first);
    assert_eq!(log.text().matches("TLS files changed").count(), 1, "{}", log.text());
}

#[tokio::test]
async fn connection_with_a_client_certificate_ends_after_its_ca_was_removed() {
    let (ca, other) = (Ca::new(), Ca::named("other"));
    let file = ca.pem_file("listener-removed-clients.pem");
    let tls = tls(&ca, "listener-removed").client_ca(&file).client_auth(ClientAuth::Wanted);
    let running = Running::start(|listener| listener.tls(tls).unwrap()).await;
    let identity = ca.identity(&["orders"]);
    let config = || ca.client_with((identity.0.clone(), identity.1.clone_key()));
    let (mut known, mut plain) =
        (running.connect(config()).await.unwrap(), running.connect(ca.client()).await.unwrap());
    let request = async |stream: &mut TlsStream<TcpStream>| -> io::Result<usize> {
        stream.write_all(b"GET /certificate HTTP/1.1\r\nhost: x\r\n\r\n").await?;
        stream.read(&mut [0; 4096]).await
    };
    assert!(request(&mut known).await.unwrap() > 0 && request(&mut plain).await.unwrap() > 0);
    std::fs::copy(other.pem_file("listener-removed-other.pem"), &file).unwrap();
    // Nobody connects meanwhile.
    let ended = async {
        while request(&mut known).await.is_ok_and(|read| read > 0) {
            pass().await;
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(3_600), ended).await.unwrap();
    assert!(running.ask(config()).await.is_err());
    assert!(request(&mut plain).await.unwrap() > 0, "it has no certificate");
}

#[tokio::test]
async fn reload_reads_the_certificate_immediately() {
    let ca = Ca::new();
    let (certificate, key) = ca.identity_files("listener-reload");
    let registry = EurekaServer::builder().tls(ServerTls::new(&certificate, &key)).build().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let serving = registry.listener(listener).serve(registry.service("/eureka"), std::future::pending());
    let running = Running { address, task: tokio::spawn(serving) };
    let first = shown(&running, &ca).await;
    ca.write_identity(&certificate, &key);
    registry.reload().await;
    assert_ne!(shown(&running, &ca).await, first);
}

#[test]
fn unusable_files_are_errors_that_name_the_file() {
    let ca = Ca::new();
    let (certificate, key) = ca.identity_files("listener-unusable");
    let (_, other_key) = ca.identity_files("listener-other");
    let absent = PathBuf::from("absent.pem");
    for (tls, expected) in [
        (ServerTls::new(&absent, &key), "read TLS file at absent.pem"),
        (ServerTls::new(&certificate, &other_key), "do not belong together"),
        (ServerTls::new(&certificate, &certificate), "no usable private key"),
        (ServerTls::new(&certificate, &key).client_auth(ClientAuth::Required), "no CA is trusted"),
        (ServerTls::new(&certificate, &key).client_ca(&key), "it holds no certificate"),
    ] {
        let error = EurekaServer::builder().tls(tls).check().unwrap_err();
        assert!(error.is_config() && error.to_string().contains(expected), "{expected} in {error}");
    }
}

#[tokio::test]
async fn client_that_speaks_plain_http_gets_400() {
    let (log, _logging) = Log::start(tracing::Level::WARN);
    let ca = Ca::new();
    let tls = tls(&ca, "listener-plain");
    let running = Running::start(|listener| listener.tls(tls).unwrap()).await;
    let mut stream = TcpStream::connect(running.address).await.unwrap();
    stream.write_all(b"GET /certificate HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    let mut response = String::new();
    stream.read_to_string(&mut response).await.unwrap();
    assert!(response.starts_with("HTTP/1.1 400 ") && response.contains("speaks HTTPS only"), "{response}");
    until(|| log.text().contains("the client speaks plain HTTP")).await;
}

/// Client that sends nothing, or only the beginning of a handshake.
async fn silent(running: &Running, bytes: &[u8]) -> TcpStream {
    let mut stream = TcpStream::connect(running.address).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    stream
}

const HELLO: &[u8] = &[0x16, 3, 1, 2, 0, 1];

#[tokio::test]
async fn handshake_that_stalls_is_closed() {
    let (log, _logging) = Log::start(tracing::Level::WARN);
    let ca = Ca::new();
    let tls = tls(&ca, "listener-stalled");
    let running =
        Running::start(|listener| listener.tls(tls).unwrap().handshake_timeout(Duration::from_millis(20))).await;
    for bytes in [&b""[..], HELLO] {
        assert_eq!(silent(&running, bytes).await.read(&mut [0]).await.unwrap(), 0, "{bytes:?}");
    }
    drop(silent(&running, HELLO).await);
    assert_eq!(running.ask(ca.client()).await.unwrap(), "0");
    assert_eq!(log.text(), "", "port scanners and probes are no faults");
}

#[tokio::test]
async fn stalled_handshakes_give_way_to_new_connections() {
    let ca = Ca::new();
    let tls = tls(&ca, "listener-crowd");
    let running = Running::start(|listener| listener.tls(tls).unwrap().max_connections(2)).await;
    let mut first = silent(&running, HELLO).await;
    let _second = silent(&running, HELLO).await;
    assert_eq!(running.ask(ca.client()).await.unwrap(), "0");
    assert!(matches!(first.read(&mut [0]).await, Ok(0) | Err(_)), "it was idle for longest");
}

#[tokio::test]
async fn nodes_replicate_over_their_https_listeners() {
    let ca = Ca::new();
    let file = ca.pem_file("listener-peers.pem");
    let bind = async || TcpListener::bind("127.0.0.1:0").await.unwrap();
    let listeners = [bind().await, bind().await];
    let port = |listener: &TcpListener| listener.local_addr().unwrap().port();
    let urls = listeners.each_ref().map(|listener| format!("https://localhost:{}/eureka/", port(listener)));
    let nodes = listeners.map(|listener| {
        let (certificate, key) = ca.identity_files(&format!("listener-peer-{}", port(&listener)));
        let peers = Peers::new().url(urls.join(",")).wait_when_empty(Duration::ZERO).tls_ca_file(&file);
        let builder = EurekaServer::builder().port(port(&listener)).peers(peers);
        let builder = builder.node(server::Node::new().app("registry").host_name("localhost"));
        let builder = [("certificate", certificate), ("certificate-private-key", key)]
            .into_iter()
            .fold(builder, |builder, (name, path)| {
                builder.property(&format!("server.ssl.{name}"), path.to_str().unwrap()).unwrap()
            });
        let node = builder.build().unwrap();
        assert!(node.is_https());
        let serving = node.listener(listener).serve(node.service("/eureka"), std::future::pending());
        tokio::spawn(serving);
        node
    });
    let eureka = Eureka::builder().service_url(&urls[0]).tls_ca_file(&file).build().unwrap();
    let instance = Instance::builder("orders").id("1").ip_addr("127.0.0.1").port(1).build().unwrap();
    eureka.transport().register(&instance).await.unwrap();
    until(|| nodes[1].instance("orders", "1").is_some()).await;
    let own = || nodes[1].applications().applications.iter().find(|app| &*app.name == "REGISTRY").cloned();
    until(|| own().is_some()).await;
    let own = own().unwrap().instances[0].clone();
    assert!(own.secure_port().enabled && !own.port().enabled, "{own:?}");
}

#[cfg(feature = "pkcs12")]
#[tokio::test]
async fn key_store_of_java_is_the_certificate_of_the_listener() {
    let store = |name: &str| format!("{}/tests/tls/stores/{name}", env!("CARGO_MANIFEST_DIR"));
    let build = |password: &str, trust: &str| {
        let settings = [
            ("key-store", store("identity-keytool.p12")),
            ("key-store-password", password.to_owned()),
            ("trust-store", store(trust)),
            ("trust-store-password", password.to_owned()),
            ("client-auth", "want".to_owned()),
        ];
        let builder = settings.into_iter().fold(EurekaServer::builder(), |builder, (name, value)| {
            builder.property(&format!("server.ssl.{name}"), &value).unwrap()
        });
        builder.build()
    };
    assert!(build("changeit", "trust-openssl.p12").unwrap().is_https());
    let error = build("hunter2", "trust-openssl.p12").unwrap_err();
    assert!(error.to_string().contains("its password is wrong"), "{error}");
    assert!(!format!("{error} {error:?}").contains("hunter2"), "{error:?}");
}

#[cfg(all(feature = "cli", unix))]
#[tokio::test]
async fn signal_stops_a_server_whose_certificate_cannot_be_read_again_for_now() {
    use std::process::{Command, Stdio};

    use tokio::io::{AsyncBufReadExt, BufReader};

    use crate::world::temporary;

    let ca = Ca::new();
    // The pipe of an earlier run.
    let _ = std::fs::remove_file(temporary("listener-pipe.pem"));
    let (certificate, key) = ca.identity_files("listener-pipe");
    let setting = |name: &str, path: &PathBuf| format!("--server.ssl.{name}={}", path.display());
    let mut child = tokio::process::Command::new(env!("CARGO_BIN_EXE_tower-eureka"))
        .args(["serve", "--listen", "127.0.0.1:0"])
        .args([setting("certificate", &certificate), setting("certificate-private-key", &key)])
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut log = BufReader::new(child.stderr.take().unwrap()).lines();
    let mut wait_for = async |words: &str| {
        let line = async { while !log.next_line().await.unwrap().unwrap().contains(words) {} };
        tokio::time::timeout(Duration::from_secs(30), line).await.unwrap_or_else(|_| panic!("no line with: {words}"));
    };
    wait_for("started").await;
    let run =
        |program: &str, arguments: &[&str]| assert!(Command::new(program).args(arguments).status().unwrap().success());
    // A file system that does not respond: opening a pipe waits for its other end.
    std::fs::remove_file(&certificate).unwrap();
    run("mkfifo", &[certificate.to_str().unwrap()]);
    let pid = child.id().unwrap().to_string();
    run("kill", &["-s", "USR1", &pid]);
    wait_for("reading certificates").await;
    run("kill", &["-s", "TERM", &pid]);
    wait_for("stopping").await;
    assert_eq!(child.wait().await.unwrap().code(), Some(0));
}
