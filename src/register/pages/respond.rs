use bytes::Bytes;
use http::header::{ACCEPT, ALLOW, CONTENT_LENGTH, CONTENT_TYPE, HOST, RETRY_AFTER};
use http::uri::Authority;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};

use super::super::health::HealthStatus;
use super::super::lifecycle::Lifecycle;
use super::health::HealthPages;
use super::{Page, Pages};

/// Media type of Spring Boot's actuator.
const ACTUATOR_JSON: &str = "application/vnd.spring-boot.actuator.v3+json";
const JSON: &str = "application/json";

/// gRPC's code UNAVAILABLE.
const GRPC_UNAVAILABLE: &str = "14";

/// Response that the layer sends itself.
pub(in crate::register) type Reply = Response<Bytes>;

impl Pages {
    /// Returns the response to a request for one of the pages; `None` for all other paths.
    pub(in crate::register) fn reply<B>(&self, request: &Request<B>, lifecycle: &Lifecycle) -> Option<Reply> {
        let page = self.at(request.uri().path())?;
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            let mut reply = empty(StatusCode::METHOD_NOT_ALLOWED);
            reply.headers_mut().insert(ALLOW, HeaderValue::from_static("GET,HEAD"));
            return Some(reply);
        }
        let (status, content) = match page {
            Page::Info => (StatusCode::OK, self.0.info_json.clone()),
            Page::Index => (StatusCode::OK, self.links(request).into()),
            Page::Health(path) => {
                let report = lifecycle.health_report();
                match HealthPages::new(&report, self.0.shows_details).at(path) {
                    Some((HealthStatus::Up | HealthStatus::Unknown, json)) => (StatusCode::OK, json.into()),
                    Some((_, json)) => (StatusCode::SERVICE_UNAVAILABLE, json.into()),
                    None => return Some(empty(StatusCode::NOT_FOUND)),
                }
            }
        };
        let length = HeaderValue::from(content.len());
        let is_head = request.method() == Method::HEAD;
        let mut reply = Response::new(if is_head { Bytes::new() } else { content });
        *reply.status_mut() = status;
        reply.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(media_type(request.headers())));
        reply.headers_mut().insert(CONTENT_LENGTH, length);
        Some(reply)
    }

    /// Returns the JSON of the links to the pages, which Spring Boot Admin reads.
    fn links<B>(&self, request: &Request<B>) -> String {
        let authority = request.uri().authority().map(|authority| authority.as_str());
        let host = authority.or_else(|| request.headers().get(HOST)?.to_str().ok());
        let scheme = self.scheme(request, host);
        let base = host.map(|host| format!("{scheme}://{host}")).unwrap_or_default();
        let mut links = serde_json::Map::new();
        let mut add = |name: &str, path: Option<&str>, rest: &str| {
            if let Some(path) = path {
                let link = serde_json::json!({"href": format!("{base}{path}{rest}"), "templated": !rest.is_empty()});
                links.insert(name.into(), link);
            }
        };
        add("self", self.0.index.as_deref(), "");
        add("health", self.health_path(), "");
        add("health-path", self.health_path(), "/{*path}");
        add("info", self.info_path(), "");
        serde_json::json!({ "_links": links }).to_string()
    }

    /// Returns the scheme of the links: that which a proxy has received the request with, else that
    /// of the URI, else that of the requested port. Over HTTP/1, URIs have no scheme.
    fn scheme<B>(&self, request: &Request<B>, host: Option<&str>) -> &'static str {
        let forwarded = request.headers().get("x-forwarded-proto").and_then(|value| value.to_str().ok());
        let forwarded = forwarded.and_then(|schemes| schemes.split(',').next());
        let known =
            |scheme: &str| ["http", "https"].into_iter().find(|known| known.eq_ignore_ascii_case(scheme.trim()));
        let of_port = || match self.0.ports {
            [_, None] => "http",
            [None, Some(_)] => "https",
            [Some(plain), Some(secure)] => {
                let port = host.and_then(|host| host.parse::<Authority>().ok()?.port_u16()).map(i32::from);
                let port = port.unwrap_or(if plain == 80 { 80 } else { 443 });
                if port == secure && port != plain { "https" } else { "http" }
            }
        };
        forwarded.and_then(known).or_else(|| known(request.uri().scheme_str()?)).unwrap_or_else(of_port)
    }
}

fn empty(status: StatusCode) -> Reply {
    let mut reply = Response::new(Bytes::new());
    *reply.status_mut() = status;
    reply
}

/// Returns the first media type that the client accepts and the pages have. Defaults to that of
/// Spring Boot's actuator.
fn media_type(headers: &HeaderMap) -> &'static str {
    let accepted = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
    let names = accepted.flat_map(|value| value.split(',')).map(|range| range.split(';').next().unwrap_or("").trim());
    let mut known = names.filter_map(|name| match name {
        _ if name.eq_ignore_ascii_case(JSON) => Some(JSON),
        "*/*" | "application/*" => Some(ACTUATOR_JSON),
        _ => name.eq_ignore_ascii_case(ACTUATOR_JSON).then_some(ACTUATOR_JSON),
    });
    known.next().unwrap_or(ACTUATOR_JSON)
}

/// Returns the response to a call that arrives when the server has nearly stopped.
pub(in crate::register) fn refusal(headers: &HeaderMap) -> Reply {
    let content_type = headers.get(CONTENT_TYPE).map(HeaderValue::as_bytes).unwrap_or_default();
    if content_type.starts_with(b"application/grpc") {
        let mut reply = empty(StatusCode::OK);
        let headers = reply.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        headers.insert("grpc-status", HeaderValue::from_static(GRPC_UNAVAILABLE));
        headers.insert("grpc-message", HeaderValue::from_static("the server is stopping"));
        return reply;
    }
    let mut reply = empty(StatusCode::SERVICE_UNAVAILABLE);
    reply.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
    reply
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::model::Instance;

    const HEALTH_PATH: &str = "/actuator/health";
    const INFO_PATH: &str = "/actuator/info";

    fn reply_to(method: Method, path: &str, lifecycle: &Lifecycle) -> Option<Reply> {
        let request = Request::builder().method(method).uri(path).header(HOST, "10.0.0.1:80").body(()).unwrap();
        Pages::default().reply(&request, lifecycle)
    }

    fn json_of(reply: &Reply) -> Value {
        serde_json::from_slice(reply.body()).unwrap()
    }

    #[test]
    fn health_is_503_from_the_signal_on_but_liveness_stays_200() {
        let lifecycle = Lifecycle::default();
        let status = |path: &str| reply_to(Method::GET, path, &lifecycle).unwrap().status().as_u16();
        let statuses =
            || ["", "/liveness", "/readiness", "/nothing"].map(|below| status(&format!("{HEALTH_PATH}{below}")));
        assert_eq!(statuses(), [200, 200, 200, 404]);
        lifecycle.set_draining(true);
        assert_eq!(statuses(), [503, 200, 503, 404]);
        assert_eq!(status(INFO_PATH), 200);
        let reply = reply_to(Method::GET, HEALTH_PATH, &lifecycle).unwrap();
        assert_eq!(json_of(&reply)["status"], "OUT_OF_SERVICE");
    }

    #[test]
    fn head_has_the_head_of_get_and_other_methods_are_405() {
        let lifecycle = Lifecycle::default();
        let get = reply_to(Method::GET, HEALTH_PATH, &lifecycle).unwrap();
        let head = reply_to(Method::HEAD, HEALTH_PATH, &lifecycle).unwrap();
        assert_eq!((head.status(), head.headers()), (get.status(), get.headers()));
        assert!(head.body().is_empty());
        assert_eq!(get.headers()[CONTENT_LENGTH], get.body().len().to_string().as_str());
        for method in [Method::POST, Method::PUT, Method::DELETE, Method::OPTIONS] {
            let reply = reply_to(method, INFO_PATH, &lifecycle).unwrap();
            assert_eq!(
                (reply.status().as_u16(), &reply.headers()[ALLOW]),
                (405, &HeaderValue::from_static("GET,HEAD"))
            );
        }
        assert!(reply_to(Method::POST, "/orders", &lifecycle).is_none());
    }

    #[test]
    fn media_type_is_the_first_that_the_client_accepts() {
        for (accept, media_type) in [
            (None, ACTUATOR_JSON),
            (Some("*/*"), ACTUATOR_JSON),
            (Some("text/html,application/xhtml+xml,*/*;q=0.8"), ACTUATOR_JSON),
            (Some("application/json"), JSON),
            (Some("text/plain, Application/JSON;q=0.9, */*;q=0.1"), JSON),
            (Some("application/vnd.spring-boot.actuator.v3+json, application/json"), ACTUATOR_JSON),
            (Some("text/plain"), ACTUATOR_JSON),
        ] {
            let mut headers = HeaderMap::new();
            headers.extend(accept.map(|accept| (ACCEPT, HeaderValue::from_static(accept))));
            assert_eq!(super::media_type(&headers), media_type, "{accept:?}");
        }
    }

    #[test]
    fn index_links_to_the_pages_at_the_requested_host() {
        let reply = reply_to(Method::GET, "/actuator", &Lifecycle::default()).unwrap();
        let link = |path: &str, templated| json!({"href": format!("http://10.0.0.1:80{path}"), "templated": templated});
        let links = json!({
            "self": link("/actuator", false),
            "health": link("/actuator/health", false),
            "health-path": link("/actuator/health/{*path}", true),
            "info": link("/actuator/info", false),
        });
        assert_eq!(json_of(&reply), json!({ "_links": links }));
        let request = Request::get("https://orders:443/actuator").body(()).unwrap();
        let reply = Pages::default().reply(&request, &Lifecycle::default()).unwrap();
        assert_eq!(json_of(&reply)["_links"]["info"]["href"], "https://orders:443/actuator/info");
    }

    #[test]
    fn links_have_the_scheme_that_the_client_used() {
        let orders = || Instance::builder("orders").ip_addr("10.0.0.1");
        let secure_only = orders().secure_port(443).port_enabled(false);
        let both = || orders().port(8080).secure_port(8443);
        for (instance, host, forwarded, expected) in [
            (orders().port(8080), "10.0.0.1:8080", None, "http"),
            (orders().port(8080), "orders.example", None, "http"),
            (orders().port(8080), "orders.example", Some("https"), "https"),
            (orders().port(8080), "orders.example", Some("HTTPS, http"), "https"),
            (orders().port(8080), "orders.example", Some("javascript"), "http"),
            (secure_only.clone(), "orders", None, "https"),
            (secure_only, "orders", Some("http"), "http"),
            (both(), "orders:8443", None, "https"),
            (both(), "[::1]:8443", None, "https"),
            (both(), "orders:8080", None, "http"),
            (orders().port(80).secure_port(443), "orders", None, "http"),
            (orders().port(8080).secure_port(443), "orders", None, "https"),
        ] {
            let pages = Pages::of(&instance.build().unwrap());
            let mut request = Request::get("/actuator").header(HOST, host).body(()).unwrap();
            let forwarded = forwarded.map(|scheme| ("x-forwarded-proto", scheme));
            if let Some((name, scheme)) = forwarded {
                request.headers_mut().insert(name, HeaderValue::from_static(scheme));
            }
            let reply = pages.reply(&request, &Lifecycle::default()).unwrap();
            let link = format!("{expected}://{host}/actuator/health");
            assert_eq!(json_of(&reply)["_links"]["health"]["href"], link, "{forwarded:?}");
        }
    }

    #[test]
    fn info_is_the_json_of_the_user() {
        let info = json!({"app": {"name": "orders", "motto": "ä \" \n"}});
        let request = Request::get(INFO_PATH).body(()).unwrap();
        let reply = Pages::default().with_info_json(&info).reply(&request, &Lifecycle::default()).unwrap();
        assert_eq!(json_of(&reply), info);
        assert_eq!(json_of(&Pages::default().reply(&request, &Lifecycle::default()).unwrap()), json!({}));
    }

    #[test]
    fn refusal_is_503_or_unavailable_of_grpc() {
        let mut headers = HeaderMap::new();
        let reply = refusal(&headers);
        assert_eq!((reply.status().as_u16(), &reply.headers()[RETRY_AFTER]), (503, &HeaderValue::from_static("1")));
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc+proto"));
        let reply = refusal(&headers);
        assert_eq!((reply.status().as_u16(), &reply.headers()["grpc-status"]), (200, &HeaderValue::from_static("14")));
    }
}
