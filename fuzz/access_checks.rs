//! Checks of the access control: only the right credentials are accepted, whatever is sent, and no
//! error shows a secret.

use std::cell::RefCell;

use axum::body::Body;
use base64::Engine;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};
use http::header::{AUTHORIZATION, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderValue, Request};
use http_body_util::BodyExt;
use tokio::runtime::Runtime;
use tower::ServiceExt;
use tower_eureka::server::{Access, JwtKeys, RegistryService, Role};
use tower_eureka::{EurekaServer, Instance};

const BASIC: &str = "orders:correct horse";
const TOKEN: &str = "0123456789-token";
/// Keys and tokens by another library. Valid tokens have names that begin with `valid`.
const TOKENS: &str = include_str!("../src/server/access/jwt/tokens.json");

/// Locked registry with one instance, reused for many inputs.
struct Locked {
    server: EurekaServer,
    service: RegistryService,
    /// Dropped last, so that it outlives the tasks of the registry.
    runtime: Runtime,
}

thread_local! {
    static LOCKED: RefCell<Option<Locked>> = const { RefCell::new(None) };
}

impl Locked {
    /// Runs a check, and keeps the registry unless the check panicked.
    fn with(check: impl FnOnce(&Self)) {
        let locked = LOCKED.take().unwrap_or_else(|| {
            let access = Access::new()
                .user("orders", "correct horse", [Role::Read])
                .token("reader", TOKEN, [Role::Read])
                .jwt(JwtKeys::json(TOKENS))
                .subject("issued", "*", [Role::Read]);
            Self::new(access).expect("settings are valid")
        });
        check(&locked);
        LOCKED.set(Some(locked));
    }

    fn new(access: Access) -> Result<Self, String> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let builder = EurekaServer::builder().access(access.failed_attempts_per_minute(0));
        let server = runtime.block_on(async { builder.build() }).map_err(|error| error.to_string())?;
        let known = Instance::builder("orders").id("i").host_name("h").ip_addr("10.0.0.1").port(80).build().unwrap();
        server.register(known).expect("registry has room");
        Ok(Self { service: server.service(""), server, runtime })
    }

    /// Returns the status of a request with this header. Without the right credentials, nothing
    /// is sent but the challenge.
    fn status(&self, method: &str, value: &HeaderValue) -> u16 {
        let request = Request::builder().method(method).uri("/apps/ORDERS/i").header("accept", "application/json");
        let request = request.header(AUTHORIZATION, value).body(Body::empty()).unwrap();
        let (status, headers, body) = self.runtime.block_on(async {
            let response = self.service.clone().oneshot(request).await.unwrap();
            let (head, body) = response.into_parts();
            let body: Vec<u8> = body.collect().await.unwrap().to_bytes().into();
            (head.status.as_u16(), head.headers, body)
        });
        if status == 401 {
            self.check_refusal(&headers, &body);
        }
        status
    }

    fn check_refusal(&self, headers: &HeaderMap, body: &[u8]) {
        assert!(headers.contains_key(WWW_AUTHENTICATE));
        let body = std::str::from_utf8(body).expect("refusal is text");
        assert!(body.len() < 300 && !body.contains("horse") && !body.contains(TOKEN), "{body}");
        assert!(!body.contains("10.0.0.1"), "{body}");
        assert!(self.server.instance("orders", "i").is_some());
    }
}

/// Returns the tokens of the file with their names.
fn tokens() -> Vec<(String, String)> {
    let all: serde_json::Value = serde_json::from_str(TOKENS).unwrap();
    let tokens = all["tokens"].as_object().unwrap();
    tokens.iter().map(|(name, token)| (name.clone(), token.as_str().unwrap().to_owned())).collect()
}

/// Returns true if the signed part of a token is that of a valid one. Another signature of the same
/// part may be valid as well.
fn is_signed(token: &str) -> bool {
    let signed = |token: &str| token.rsplit_once('.').map(|(part, _)| part.to_owned());
    tokens().iter().any(|(name, valid)| name.starts_with("valid") && signed(valid) == signed(token))
}

/// Returns true if a header may be accepted.
fn may_be_right(value: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(value) else { return false };
    let words: Vec<_> = text.split([' ', '\t']).filter(|word| !word.is_empty()).collect();
    let [scheme, credentials] = words[..] else { return false };
    if scheme.eq_ignore_ascii_case("basic") {
        return credentials.trim_end_matches('=') == BASE64_STANDARD.encode(BASIC).trim_end_matches('=');
    }
    scheme.eq_ignore_ascii_case("bearer") && (credentials == TOKEN || is_signed(credentials))
}

/// Sends a value of the header `Authorization`.
pub(crate) fn credentials(data: &[u8]) {
    let Ok(value) = HeaderValue::from_bytes(data) else { return };
    Locked::with(|locked| {
        let status = locked.status("GET", &value);
        assert!([200, 401].contains(&status), "{status}");
        if status == 200 {
            assert!(may_be_right(data), "{}", String::from_utf8_lossy(data));
            assert_eq!(locked.status("DELETE", &value), 403);
        } else {
            let right = [format!("Basic {}", BASE64_STANDARD.encode(BASIC)), format!("Bearer {TOKEN}")];
            assert!(!right.iter().any(|right| right.as_bytes() == data), "right credentials are accepted");
            assert_eq!(locked.status("DELETE", &value), 401);
        }
    });
}

/// Sends a bearer token: a text, or `header|claims|signature`, of which the token is made.
pub(crate) fn token(data: &[u8]) {
    let parts: Vec<_> = data.split(|&byte| byte == b'|').collect();
    let token = match parts[..] {
        [header, claims, signature] => {
            let [header, claims, signature] =
                [header, claims, signature].map(|part| BASE64_URL_SAFE_NO_PAD.encode(part));
            format!("{header}.{claims}.{signature}")
        }
        _ => match std::str::from_utf8(data) {
            Ok(text) => text.to_owned(),
            Err(_) => return,
        },
    };
    let Ok(value) = HeaderValue::try_from(format!("Bearer {token}")) else { return };
    Locked::with(|locked| match locked.status("GET", &value) {
        200 => assert!(may_be_right(value.as_bytes()), "{token}"),
        status => assert_eq!(status, 401, "{token}"),
    });
}

/// Uses a JSON Web Key Set. Whatever keys it has, tokens without a signature and those that take a
/// public key for a secret are refused.
pub(crate) fn keys(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let locked = match Locked::new(Access::new().jwt(JwtKeys::json(text))) {
        Ok(locked) => locked,
        Err(error) => return assert!(error.len() < 1_000 && !error.contains('\n'), "{error}"),
    };
    for (name, token) in tokens() {
        let value = HeaderValue::try_from(format!("Bearer {token}")).unwrap();
        let status = locked.status("GET", &value);
        // The keys of the file itself may be among them.
        assert!(status == 401 || status == 200 && name.starts_with("valid"), "{name}: {status}");
    }
}

/// Uses a file of users. No error shows a secret, and the passwords of a file that is accepted are
/// right.
pub(crate) fn users(data: &[u8]) {
    let path = std::env::temp_dir().join(format!("tower-eureka-fuzz-users-{}", std::process::id()));
    std::fs::write(&path, data).unwrap();
    let locked = Locked::new(Access::new().users_file(&path));
    std::fs::remove_file(&path).unwrap();
    let locked = match locked {
        Ok(locked) => locked,
        Err(error) => {
            assert!(error.len() < 1_000 && !error.contains('\n') && !error.contains("hunter"), "{error}");
            return;
        }
    };
    let text = std::str::from_utf8(data).expect("other files are refused");
    // The verification of an expensive hash takes seconds.
    if text.contains("argon2") || text.contains("bcrypt") {
        return;
    }
    for line in text.lines().filter(|line| !line.contains(['"', '#', '\u{feff}'])) {
        let columns: Vec<_> = line.split_whitespace().collect();
        let [name, credential, _, ..] = columns[..] else { continue };
        let Some(password) = credential.strip_prefix("{noop}") else { continue };
        let value = format!("Basic {}", BASE64_STANDARD.encode(format!("{name}:{password}")));
        let status = locked.status("GET", &HeaderValue::try_from(value).unwrap());
        // The roles may lack `read`.
        assert!([200, 403].contains(&status), "{line}: {status}");
    }
    let nobody = HeaderValue::try_from(format!("Basic {}", BASE64_STANDARD.encode("\u{1}:\u{2}"))).unwrap();
    assert_eq!(locked.status("GET", &nobody), 401);
}
