//! No credential appears in a `Debug`, an error, a log line or a metric.

use std::error::Error as _;
use std::fmt::Write as _;
use std::time::Duration;

use axum::Router;
use http::{Request, StatusCode, header};
use http_body_util::Full;
use tokio::net::TcpListener;
use tower::ServiceExt;
use tower_eureka::client::HttpClient;
use tower_eureka::model::InstanceStatus;
use tower_eureka::{BearerToken, Error, Eureka, EurekaBuilder, Instance, Settings};

use crate::access::registry;
use crate::captured_log::Log;
use crate::world::{Ca, serve, server};

/// Part of each secret of this test, as text and in base64. `us:` is encoded to whole characters,
/// so that `hunter` always has this form after it.
const PARTS: [&str; 2] = ["hunter", "aHVudGVy"];

/// All that a user or operator can see.
#[derive(Default)]
struct Seen(String);

impl Seen {
    fn add(&mut self, text: impl std::fmt::Debug) {
        writeln!(self.0, "{text:?}").unwrap();
    }

    fn add_error<T>(&mut self, result: Result<T, Error>) {
        let Err(error) = result else { return };
        write!(self.0, "{error} {error:?} {error:#?}").unwrap();
        let mut source = error.source();
        while let Some(error) = source {
            write!(self.0, " {error} {error:?}").unwrap();
            source = error.source();
        }
        self.0.push('\n');
    }

    fn check(&self) {
        for line in self.0.lines() {
            assert!(!PARTS.iter().any(|part| line.contains(part)), "a secret in {line}");
        }
    }
}

fn responding(status: StatusCode, headers: &'static [(&'static str, &'static str)], body: &'static str) -> Router {
    Router::new().fallback(async move || {
        let mut response = http::Response::new(axum::body::Body::from(body));
        *response.status_mut() = status;
        for (name, value) in headers {
            response.headers_mut().insert(*name, value.parse().unwrap());
        }
        response
    })
}

/// Returns the ports of servers that work, fail in several ways, or do not exist.
async fn servers(ca: &Ca) -> Vec<u16> {
    let markup = &[("content-type", "text/html")];
    let mut ports = Vec::new();
    for router in [
        registry(),
        responding(StatusCode::UNAUTHORIZED, &[("www-authenticate", "Basic")], "no"),
        responding(StatusCode::PROXY_AUTHENTICATION_REQUIRED, &[], "no"),
        responding(StatusCode::SERVICE_UNAVAILABLE, &[("retry-after", "1")], "later"),
        responding(StatusCode::OK, markup, "<html>"),
        responding(StatusCode::OK, &[], "{"),
        responding(StatusCode::TEMPORARY_REDIRECT, &[("location", "https://us:hunter-redirect@localhost:1/")], ""),
        responding(StatusCode::FOUND, &[("location", "ftp://us:hunter-redirect@localhost/?hunter=1")], ""),
    ] {
        ports.push(serve(server(ca.identity(&["localhost"])), router).await);
    }
    ports.push(serve(server(Ca::new().identity(&["localhost"])), registry()).await);
    ports.push(TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port());
    ports
}

/// Returns a builder for each kind of credentials. The files of each test have a name of their own,
/// since the tests run at the same time.
fn builders(name: &str, ca: &Ca, port: u16) -> Vec<EurekaBuilder> {
    let (certificate, key) = ca.identity_files(&format!("secrets-{name}"));
    let store = std::fs::read(&certificate).unwrap().into_iter().chain(std::fs::read(&key).unwrap());
    let store_path = crate::world::temporary(&format!("secrets-{name}-store.pem"));
    std::fs::write(&store_path, store.collect::<Vec<_>>()).unwrap();
    let at = |user: &str| {
        let builder = Eureka::builder().service_url(format!("https://{user}localhost:{port}/eureka/"));
        let builder = builder.tls_ca_file(ca.pem_file(&format!("secrets-{name}-ca.pem")));
        let builder = builder.ready_timeout(Duration::from_millis(1));
        builder.tls_key_store(&store_path, "hunter-store").header("x-api-key", "hunter-header")
    };
    let token = || async { Ok::<_, Error>(BearerToken::new("hunter-token").expires_in(Duration::from_secs(60))) };
    vec![
        at("us:hunter-url@"),
        at("").basic_auth("us", "hunter-basic"),
        at("").bearer_token(token),
        at("").bearer_token(|| async { Ok::<_, Error>("hunter-\ntoken") }),
        at("us:hunter-url@").proxy("http://us:hunter-proxy@127.0.0.1:1").no_proxy(""),
        at("us:hunter-url@").proxy(format!("http://us:hunter-proxy@127.0.0.1:{port}")).no_proxy(""),
        // Errors of the build.
        at("us:hunter-url@").proxy("socks5://us:hunter-proxy@127.0.0.1:1"),
        at("us:hunter,url@"),
        at("").tls_trust_store("missing.p12", "hunter-store"),
        at("").basic_auth("us:hunter", "hunter-basic"),
        at("").header("x y", "hunter-header"),
    ]
}

/// Calls each operation, and keeps what it returns.
async fn use_all(eureka: &Eureka, seen: &mut Seen) {
    let transport = eureka.transport();
    let instance = Instance::builder("orders").id("a").host_name("localhost").ip_addr("127.0.0.1").port(1);
    let instance = instance.build().unwrap();
    seen.add_error(transport.register(&instance).await);
    seen.add_error(transport.heartbeat("ORDERS", "a", InstanceStatus::Up, 1).await);
    seen.add_error(transport.set_status("ORDERS", "a", InstanceStatus::OutOfService).await);
    seen.add_error(transport.remove_status("ORDERS", "a").await);
    seen.add_error(transport.update_metadata("ORDERS", "a", &[("k", "v")]).await);
    seen.add_error(transport.applications().await);
    seen.add_error(transport.delta().await);
    seen.add_error(transport.application("ORDERS").await);
    seen.add_error(transport.instance("ORDERS", "a").await);
    seen.add_error(transport.vip("orders").await);
    seen.add_error(transport.secure_vip("orders").await);
    seen.add_error(transport.cancel("ORDERS", "a").await);
    let registrar = eureka.registrar(instance).registry_timeout(Duration::from_millis(20));
    seen.add_error(registrar.register().await);
    seen.add(&registrar);
    seen.add_error(registrar.deregister().await);
    let client: HttpClient<Full<bytes::Bytes>> = eureka.http_client();
    let request = || Request::get("http://orders/").header(header::AUTHORIZATION, "Bearer hunter-call");
    seen.add_error(client.clone().oneshot(request().body(Full::default()).unwrap()).await);
    seen.add((&client, transport));
}

#[tokio::test]
async fn no_secret_is_displayed() {
    let (log, _logging) = Log::start(tracing::Level::TRACE);
    let ca = Ca::new();
    let mut seen = Seen::default();
    let mut errors = 0;
    for port in servers(&ca).await {
        for builder in builders("displayed", &ca, port) {
            seen.add(&builder);
            match builder.build() {
                Ok(eureka) => {
                    seen.add(&eureka);
                    use_all(&eureka, &mut seen).await;
                }
                error => {
                    errors += 1;
                    seen.add_error(error);
                }
            }
        }
    }
    assert_eq!(errors, 5 * 10, "the last five builders are unusable");
    assert!(seen.0.contains("register ORDERS (a)") && log.text().contains("registry server failed"));
    seen.check();
    // Other crates log as well, hyper for example.
    let own = log.text().lines().filter(|line| line.contains(" tower_eureka::")).collect::<Vec<_>>().join("\n");
    Seen(own).check();
}

#[test]
fn no_secret_of_the_settings_is_displayed() {
    let (log, _logging) = Log::start(tracing::Level::TRACE);
    let mut seen = Seen::default();
    let document = r#"{"eureka":{"client":{"tls":{"trust-store-password":"hunter-json"}}}}"#;
    let missing = ("EUREKA_CLIENT_TLS_KEYSTORE", "missing.p12");
    for changed in [
        missing,
        ("EUREKA_CLIENT_TLS_KEYSTORE", "classpath:store.p12"),
        ("EUREKA_CLIENT_TLS_ENABLED", "false"),
        ("EUREKA_CLIENT_PROXYHOST", "http://us:hunter-proxy@127.0.0.1"),
        ("EUREKA_CLIENT_PROXYHOST", ""),
        ("EUREKA_CLIENT_SERVICEURL_DEFAULTZONE", "https://us:hunter,url@localhost/"),
        ("EUREKA_CLIENT_PROXYPASWORD", "hunter-mistyped"),
    ] {
        let variables = [
            ("EUREKA_CLIENT_SERVICEURL_DEFAULTZONE", "https://us:hunter-url@localhost:1/eureka/"),
            ("HTTPS_PROXY", "http://us:hunter-variable@127.0.0.1:1"),
            ("EUREKA_CLIENT_PROXYHOST", "127.0.0.1"),
            ("EUREKA_CLIENT_PROXYPORT", "1"),
            ("EUREKA_CLIENT_PROXYUSERNAME", "us"),
            ("EUREKA_CLIENT_PROXYPASSWORD", "hunter-proxy"),
            ("EUREKA_CLIENT_TLS_ENABLED", "true"),
            ("EUREKA_CLIENT_TLS_KEYPASSWORD", "hunter-key"),
            ("SPRING_APPLICATION_JSON", document),
            missing,
        ];
        let variables = variables.into_iter().filter(|(name, _)| *name != changed.0).chain([changed]);
        let settings = Settings::builder().environment(variables).without_files();
        let settings = settings.property("eureka.client.tls.key-store-password", "hunter-property");
        let settings = settings.arguments(["--eureka.client.tls.trust-store-password=hunter-argument"]);
        seen.add(&settings);
        let settings = settings.load().unwrap();
        seen.add(&settings);
        match Eureka::builder_from(&settings) {
            Ok(builder) => {
                seen.add(&builder);
                let built = builder.build();
                seen.add(&built);
                seen.add_error(built);
            }
            error => seen.add_error(error),
        }
    }
    seen.0.push_str(&log.text());
    assert!(seen.0.contains("missing.p12") && seen.0.contains("eureka.client.proxy-host"), "{}", seen.0);
    seen.check();
}

#[cfg(feature = "metrics")]
#[test]
fn no_secret_is_in_a_metric() {
    use metrics_util::debugging::DebuggingRecorder;

    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    metrics::with_local_recorder(&recorder, || {
        runtime.block_on(async {
            let ca = Ca::new();
            for port in servers(&ca).await.into_iter().take(3) {
                for eureka in builders("metrics", &ca, port).into_iter().filter_map(|builder| builder.build().ok()) {
                    use_all(&eureka, &mut Seen::default()).await;
                }
            }
        });
    });
    let mut seen = Seen::default();
    for (key, unit, description, _) in snapshotter.snapshot().into_vec() {
        seen.add((key, unit, description));
    }
    assert!(!seen.0.is_empty());
    seen.check();
}
