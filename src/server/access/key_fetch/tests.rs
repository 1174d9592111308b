use std::convert::Infallible;
use std::future::pending;

use bytes::Bytes;
use http::header::{AUTHORIZATION, LOCATION};
use http::{Extensions, HeaderMap, Request, Response, StatusCode, Uri};
use http_body_util::Full;
use serde_json::Value;
use tokio::task::JoinSet;
use tokio::time::sleep;
use tower::service_fn;
use tower::util::BoxCloneSyncService;

use super::*;
use crate::server::access::Authentication;
use crate::server::access::identity::{Applications, Identity, Roles};
use crate::server::access::jwt::{Jwt, JwtKeys};
use crate::server::access::policy::Policy;
use crate::server::captured_log::Log;
use crate::sync::Mutex;
use crate::transport::RequestBody;

const URL: &str = "http://keys.example/jwks";
const SECOND: Duration = Duration::from_secs(1);
const TOKENS: &str = include_str!("../jwt/tokens.json");

/// Behaviour of the server of keys.
#[derive(Clone)]
enum Behaviour {
    Serves(String),
    Status(StatusCode),
    /// Redirects all paths but `/moved`, which has the keys.
    Redirects(&'static str),
    Refuses,
    Hangs,
}

/// Server of keys, whose behaviour a test changes, with the URLs that were requested.
#[derive(Clone)]
struct KeyServer(Arc<Mutex<(Behaviour, Vec<Uri>)>>);

type Service = BoxCloneSyncService<Request<RequestBody>, Response<Full<Bytes>>, tower::BoxError>;

impl KeyServer {
    fn new(behaviour: Behaviour) -> Self {
        Self(Arc::new(Mutex::new((behaviour, Vec::new()))))
    }

    fn becomes(&self, behaviour: Behaviour) {
        self.0.lock().0 = behaviour;
    }

    fn requests(&self) -> usize {
        self.0.lock().1.len()
    }

    fn service(&self) -> Service {
        let server = self.clone();
        BoxCloneSyncService::new(service_fn(move |request: Request<RequestBody>| {
            let uri = request.uri().clone();
            let behaviour = {
                let mut state = server.0.lock();
                state.1.push(uri.clone());
                state.0.clone()
            };
            async move {
                let response = Response::builder();
                let body = match behaviour {
                    Behaviour::Serves(body) => return Ok(Response::new(Full::from(body))),
                    Behaviour::Redirects(_) if uri.path() == "/moved" => return Ok(Response::new(Full::from(TOKENS))),
                    Behaviour::Redirects(to) => response.status(StatusCode::FOUND).header(LOCATION, to),
                    Behaviour::Status(status) => response.status(status),
                    Behaviour::Refuses => {
                        return Err(std::io::Error::from(std::io::ErrorKind::ConnectionRefused).into());
                    }
                    Behaviour::Hangs => match pending::<Infallible>().await {},
                };
                Ok(body.body(Full::default()).unwrap())
            }
        }))
    }

    /// Starts an access control that fetches its keys here.
    fn start(&self) -> Fetching {
        let anonymous = Identity::of(Identity::ANONYMOUS.into(), Roles::NONE, Applications::default());
        let jwt = Jwt::new(JwtKeys::url(URL));
        let control = Arc::new(AccessControl::new(Policy::new([]), anonymous, 0, Some(jwt)));
        let stack = Outbound::documents_over(self.service(), MAX_BYTES);
        let mut tasks = JoinSet::new();
        tasks.spawn(KeyFetch { url: URL.parse().unwrap(), stack }.run(control.clone()));
        Fetching { control, _tasks: tasks }
    }
}

struct Fetching {
    control: Arc<AccessControl>,
    _tasks: JoinSet<()>,
}

impl Fetching {
    /// Returns the status of a request with this token.
    async fn status(&self, name: &str) -> u16 {
        let all: Value = serde_json::from_str(TOKENS).unwrap();
        let mut headers = HeaderMap::new();
        let token = format!("Bearer {}", all["tokens"][name].as_str().unwrap());
        headers.insert(AUTHORIZATION, token.parse().unwrap());
        match self.control.authenticate_now(&headers, &Extensions::new()) {
            Authentication::Done(Ok(_)) => 200,
            Authentication::Done(Err(refusal)) => refusal.status().as_u16(),
            Authentication::Slow(slow) => match self.control.authenticate(slow).await {
                Ok(_) => 200,
                Err(refusal) => refusal.status().as_u16(),
            },
        }
    }
}

/// Returns the set with these keys only.
fn keys(ids: &[&str]) -> String {
    let mut all: Value = serde_json::from_str(TOKENS).unwrap();
    let keys = all["keys"].as_array_mut().unwrap();
    keys.retain(|key| ids.contains(&key["kid"].as_str().unwrap()));
    all.to_string()
}

fn all() -> Behaviour {
    Behaviour::Serves(TOKENS.to_owned())
}

#[tokio::test(start_paused = true)]
async fn keys_are_fetched_at_the_start_and_every_five_minutes() {
    let server = KeyServer::new(all());
    let fetching = server.start();
    sleep(SECOND).await;
    assert_eq!((fetching.status("valid ES256").await, server.requests()), (200, 1));
    sleep(298 * SECOND).await;
    assert_eq!(server.requests(), 1);
    sleep(2 * SECOND).await;
    assert_eq!(server.requests(), 2);
}

#[tokio::test(start_paused = true)]
async fn tokens_get_503_until_the_keys_were_fetched() {
    let server = KeyServer::new(Behaviour::Refuses);
    let fetching = server.start();
    sleep(SECOND).await;
    assert_eq!(fetching.status("valid ES256").await, 503);
    assert_eq!(fetching.status("Algorithm none").await, 401, "a token that no key can verify");
    server.becomes(all());
    sleep(10 * SECOND).await;
    assert_eq!(fetching.status("valid ES256").await, 200);
}

#[tokio::test(start_paused = true)]
async fn new_key_is_fetched_within_ten_seconds_and_a_flood_of_unknown_ones_fetches_no_more_often() {
    let server = KeyServer::new(Behaviour::Serves(keys(&["p256"])));
    let fetching = server.start();
    sleep(30 * SECOND).await;
    assert_eq!([fetching.status("valid ES256").await, fetching.status("valid EdDSA").await], [200, 401]);
    server.becomes(Behaviour::Serves(keys(&["p256", "ed"])));
    sleep(Duration::from_millis(1)).await;
    assert_eq!([fetching.status("valid ES256").await, fetching.status("valid EdDSA").await], [200, 200]);
    assert_eq!(server.requests(), 2, "at once, since the last fetch was long ago");
    // The old key is removed as well.
    server.becomes(Behaviour::Serves(keys(&["ed"])));
    for _ in 0..600 {
        assert_eq!(fetching.status("UnknownKey").await, 401);
        sleep(SECOND / 10).await;
    }
    assert_eq!([fetching.status("valid ES256").await, fetching.status("valid EdDSA").await], [401, 200]);
    let fetched = server.requests() - 2;
    assert!((5..=6).contains(&fetched), "{fetched} fetches within a minute");
}

#[tokio::test(start_paused = true)]
async fn server_that_is_down_leaves_the_keys_and_is_logged_once_a_minute() {
    let (log, _logging) = Log::start(tracing::Level::INFO);
    let server = KeyServer::new(all());
    let fetching = server.start();
    sleep(SECOND).await;
    server.becomes(Behaviour::Refuses);
    let lines = |part: &str| log.text().lines().filter(|line| line.contains(part)).count();
    sleep(330 * SECOND).await;
    assert_eq!(lines("cannot fetch the keys of tokens"), 1);
    sleep(3_600 * SECOND).await;
    assert_eq!(fetching.status("valid ES256").await, 200);
    assert!((55..=61).contains(&lines("cannot fetch the keys of tokens")), "{}", log.text());
    server.becomes(all());
    sleep(20 * SECOND).await;
    assert_eq!(lines("keys of tokens can be fetched again"), 1);
    assert_eq!(lines("keys of tokens fetched"), 1, "they are the same");
}

#[tokio::test(start_paused = true)]
async fn unusable_response_leaves_the_keys_and_says_why() {
    for (behaviour, expected) in [
        (Behaviour::Status(StatusCode::INTERNAL_SERVER_ERROR), "the response is 500"),
        (Behaviour::Serves("<html>".into()), "it is not JSON"),
        (Behaviour::Serves(r#"{"keys":[]}"#.into()), "none of its 0 keys"),
        (Behaviour::Serves(format!("{TOKENS}{}", " ".repeat(MAX_BYTES))), "1048576"),
        (Behaviour::Hangs, "no response"),
        (
            Behaviour::Redirects("http://u:hunter2@other.example/moved?hunter2"),
            "a redirect to other.example/moved that is not followed",
        ),
        (Behaviour::Redirects("https://keys.example/moved"), "that is not followed"),
        (Behaviour::Redirects("http://keys.example:81/moved"), "that is not followed"),
    ] {
        let (log, _logging) = Log::start(tracing::Level::INFO);
        let server = KeyServer::new(all());
        let fetching = server.start();
        sleep(SECOND).await;
        server.becomes(behaviour);
        sleep(330 * SECOND).await;
        assert_eq!(fetching.status("valid ES256").await, 200, "{expected}");
        let text = log.text();
        let line = text.lines().find(|line| line.contains("cannot fetch the keys of tokens")).unwrap_or_default();
        assert!(line.contains(expected) && line.contains(URL) && !line.contains("hunter2"), "{expected}: {text}");
        assert!(line.len() < 500, "{line}");
        let requested = server.0.lock().1.clone();
        assert!(requested.iter().all(|url| *url == URL), "{requested:?}");
        assert!(server.requests() > 2, "{expected}: it is tried again");
    }
}

#[tokio::test(start_paused = true)]
async fn redirect_within_the_host_is_followed() {
    let server = KeyServer::new(Behaviour::Redirects("/moved"));
    let fetching = server.start();
    sleep(SECOND).await;
    assert_eq!((fetching.status("valid ES256").await, server.requests()), (200, 2));
}

#[test]
fn plain_http_to_another_machine_is_refused_unless_it_is_allowed() {
    for (url, allowed, expected) in [
        ("https://issuer.example/jwks", false, ""),
        ("http://127.0.0.1:8080/jwks", false, ""),
        ("http://localhost/jwks", false, ""),
        ("http://issuer.shop.svc/jwks", false, "set eureka.server.access.jwt.allow-insecure-keys-url=true"),
        ("http://issuer.shop.svc/jwks", true, ""),
        ("http://user:secret@issuer.shop.svc/jwks", true, "no credentials"),
        ("ftp://issuer.shop.svc/jwks", true, "it must begin with https://"),
        ("", true, "it is no URL"),
    ] {
        let error = keys_uri(url, allowed).err().unwrap_or_default();
        assert!(error.contains(expected) && error.is_empty() == expected.is_empty(), "{url}: {error}");
        assert!(!error.contains("secret"), "{error}");
    }
}

#[tokio::test(start_paused = true)]
async fn allowed_plain_http_is_a_warning_at_the_start() {
    const SETTING: (&str, &str) = ("eureka.server.access.jwt.allow-insecure-keys-url", "true");

    let (log, _logging) = Log::start(tracing::Level::WARN);
    let with = |url: &str, more: &[(&str, &str)]| {
        let builder = crate::EurekaServer::builder().property("eureka.server.access.jwt.keys-url", url).unwrap();
        let set = |builder: crate::server::EurekaServerBuilder, &(name, value): &(&str, &str)| {
            builder.property(name, value).unwrap()
        };
        more.iter().fold(builder, set).build()
    };
    assert!(with(URL, &[]).unwrap_err().to_string().contains(SETTING.0));
    with("http://127.0.0.1:1/jwks", &[SETTING]).unwrap();
    assert!(!log.text().contains("plain HTTP"), "{}", log.text());
    with(URL, &[SETTING]).unwrap();
    let text = log.text();
    let line =
        text.lines().find(|line| line.contains("keys of tokens are fetched over plain HTTP")).unwrap_or_default();
    assert!(line.contains("WARN") && line.contains(URL), "{text}");
}
