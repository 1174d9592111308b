use std::convert::Infallible;

use http_body_util::BodyExt;
use serde_json::{Value, json};
use tower::{ServiceExt, service_fn};

use super::*;
use crate::model::Applications;
use crate::transport::RequestBody;

const HOSTILE: &str = "\"><script>alert(1)</script><img src=x onerror=y>";

/// Returns the JSON of an instance with this id and further members.
fn instance(id: &str, more: Value) -> Value {
    let mut instance = json!({
        "instanceId": id,
        "app": "ORDERS",
        "hostName": "10.0.0.1",
        "ipAddr": "10.0.0.1",
        "status": "UP",
        "port": { "$": 80, "@enabled": "true" },
    });
    instance.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    instance
}

/// Returns a service over a registry with these instances of ORDERS.
async fn service_of(instances: Vec<Value>) -> DebugService {
    let application = json!({ "name": "ORDERS", "instance": instances });
    let list = json!({ "applications": {
        "versions__delta": "1",
        "apps__hashcode": format!("UP_{}_", instances.len()),
        "application": [application],
    }});
    let list = Bytes::from(list.to_string());
    Applications::from_json(&list).expect("test data is a list");
    let registry = service_fn(move |_: Request<RequestBody>| {
        let response = Response::builder().header("content-type", "application/json").body(Full::new(list.clone()));
        async move { Ok::<_, Infallible>(response.unwrap()) }
    });
    let url = "http://user:hunter1@registry/eureka/";
    let eureka = Eureka::builder().service_url(url).http_service(registry).build().unwrap();
    eureka.ready().await.unwrap();
    DebugService::new(&eureka)
}

async fn get(service: &DebugService, uri: &str, accept: &str) -> (Response<()>, String) {
    let request = Request::get(uri).header(header::ACCEPT, accept).body(()).unwrap();
    let (head, body) = service.clone().oneshot(request).await.unwrap().into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    (Response::from_parts(head, ()), String::from_utf8(body.to_vec()).unwrap())
}

#[tokio::test(start_paused = true)]
async fn hostile_metadata_and_ids_are_escaped_and_secrets_are_masked() {
    let metadata = json!({
        HOSTILE: HOSTILE,
        "user.password": "hunter2",
        "management.url": "http://admin:hunter3@10.0.0.1/",
        "colour": "blue",
    });
    let more = json!({ "metadata": metadata, "homePageUrl": "http://u:hunter4@10.0.0.1/", "vipAddress": HOSTILE });
    let service = service_of(vec![instance(HOSTILE, more)]).await;
    for uri in ["/", "/?application=orders"] {
        let (head, page) = get(&service, uri, "text/html,*/*;q=0.8").await;
        assert_eq!(head.status(), 200);
        assert!(head.headers()["content-security-policy"].to_str().unwrap().starts_with("default-src 'none'"));
        assert!(!page.contains("<script") && !page.contains("<img") && !page.contains("hunter"), "{page}");
        assert!(page.contains("&lt;script&gt;") && page.contains("colour: blue") && page.contains("***"), "{page}");
        let (_, text) = get(&service, uri, "*/*").await;
        assert!(!text.contains("hunter"), "{text}");
        let json: Value = serde_json::from_str(&text).unwrap();
        let shown = &json["applications"][0]["instances"][0];
        assert_eq!((&shown["id"], &shown["metadata"][HOSTILE]), (&HOSTILE.into(), &HOSTILE.into()));
        assert_eq!(shown["metadata"]["user.password"], "***");
        assert_eq!(shown["metadata"]["management.url"], "http://***@10.0.0.1/");
    }
}

#[tokio::test(start_paused = true)]
async fn accept_header_and_query_choose_the_form() {
    let service = service_of(vec![instance("a", json!({}))]).await;
    let browser = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8";
    for (uri, accept, expected) in [
        ("/", browser, "text/html; charset=utf-8"),
        ("/", "*/*", "application/json"),
        ("/", "application/json, text/html;q=0.5", "application/json"),
        ("/", "application/json;q=0.1, text/html;q=0.5", "text/html; charset=utf-8"),
        ("/", "text/html;q=0", "application/json"),
        ("/?format=json", browser, "application/json"),
        ("/?format=html&x=y", "*/*", "text/html; charset=utf-8"),
    ] {
        let (head, _) = get(&service, uri, accept).await;
        assert_eq!(head.headers()["content-type"], expected, "{uri} {accept}");
        assert_eq!(
            (&head.headers()["vary"], &head.headers()["cache-control"]),
            (&"accept".parse().unwrap(), &"no-store".parse().unwrap())
        );
    }
}

#[tokio::test(start_paused = true)]
async fn registry_and_balancers_are_shown_as_json() {
    let service = service_of(vec![instance("a", json!({})), instance("b", json!({}))]).await;
    let client = service.0.eureka.http_client::<RequestBody>();
    service.0.eureka.preload(["orders"]).unwrap();
    while client.snapshots().iter().all(|snapshot| snapshot.endpoints().is_empty()) {
        tokio::task::yield_now().await;
    }
    let service = service.balancers("mine", move || client.snapshots());
    let (_, text) = get(&service, "/", "application/json").await;
    let json: Value = serde_json::from_str(&text).unwrap();
    let registry = &json["registry"];
    assert_eq!((&registry["state"], &registry["instances"]), (&json!("fresh"), &json!(2)));
    assert_eq!((&registry["stale"], &registry["source"]), (&json!(false), &json!("fetched")));
    assert_eq!((&registry["server"], &registry["byStatus"]["UP"]), (&json!("http://registry/eureka/"), &json!(2)));
    assert!(registry["refreshes"]["receivedBytes"].as_u64().unwrap() > 100);
    let balancers = json["balancers"].as_array().unwrap();
    let shown: Vec<_> =
        balancers.iter().map(|b| (b["client"].as_str().unwrap(), b["endpoints"][0]["id"].clone())).collect();
    assert_eq!(shown, [("client", json!("a")), ("mine", json!("a"))]);
    let (_, page) = get(&service, "/", "text/html").await;
    assert!(page.contains("2 of 2 available"), "{page}");
    assert!(page.contains("<dt>source</dt><dd>registry</dd>"), "{page}");
}

#[tokio::test(start_paused = true)]
async fn unknown_application_and_other_methods_are_rejected() {
    let service = service_of(vec![instance("a", json!({}))]).await;
    for accept in ["text/html", "*/*"] {
        let (head, body) = get(&service, "/?application=%3Cscript%3E", accept).await;
        assert_eq!(head.status(), 404);
        assert!(!body.contains("<script>"), "{body}");
    }
    let response = service.clone().oneshot(Request::post("/").body(()).unwrap()).await.unwrap();
    assert_eq!((response.status().as_u16(), &response.headers()["allow"]), (405, &"GET, HEAD".parse().unwrap()));
    let response = service.oneshot(Request::head("/").body(()).unwrap()).await.unwrap();
    let length: usize = response.headers()["content-length"].to_str().unwrap().parse().unwrap();
    assert!(length > 100 && response.into_body().collect().await.unwrap().to_bytes().is_empty());
}

#[tokio::test(start_paused = true)]
async fn instances_beyond_the_limit_are_counted_only() {
    let instances = (0..MAX_INSTANCES + 7).map(|id| instance(&id.to_string(), json!({})));
    let service = service_of(instances.collect()).await;
    let (_, text) = get(&service, "/", "*/*").await;
    let json: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(json["applications"][0]["instances"].as_array().unwrap().len(), MAX_INSTANCES);
    assert_eq!((&json["omittedInstances"], &json["registry"]["instances"]), (&json!(7), &json!(MAX_INSTANCES + 7)));
    let (_, page) = get(&service, "/", "text/html").await;
    assert!(page.contains("7 further instances"), "the number of the others is shown");
}

#[tokio::test]
async fn page_of_a_registry_that_was_never_used_starts_nothing() {
    let eureka = Eureka::builder().service_url("http://127.0.0.1:9/eureka/").build().unwrap();
    let (_, text) = get(&DebugService::new(&eureka), "/", "*/*").await;
    let json: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(json["registry"]["state"], "not started");
    assert!(eureka.status().age().is_none());
}
