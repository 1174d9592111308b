//! Unusual but valid registrations: lease durations, ids in several applications, ids with any
//! characters.

use http::StatusCode;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use crate::common::{Server, request, text};

fn document(app: &str, id: &str, lease: &str) -> String {
    let [app, id] = [app, id].map(serde_json::Value::from);
    format!(
        r#"{{"instance":{{"instanceId":{id},"hostName":"h","app":{app},"ipAddr":"10.0.0.1","status":"UP",
        "dataCenterInfo":{{"name":"MyOwn"}},"leaseInfo":{{{lease}}}}}}}"#
    )
}

#[tokio::test(start_paused = true)]
async fn unusual_lease_durations_are_accepted() {
    for (seconds, announced) in [
        ("0", 90),
        ("-1", 90),
        ("-2147483649", 90),
        ("86400", 86_400),
        ("86401", 86_400),
        ("2147483647", 86_400),
        ("2147483648", 86_400),
        ("99999999999999999999", 86_400),
    ] {
        let server = Server::with_order().await;
        let lease = format!(r#""durationInSecs":{seconds},"renewalIntervalInSecs":{seconds}"#);
        let answer = server.post("/eureka/apps/ODD", document("ODD", "i", &lease)).await;
        assert_eq!(answer.status(), StatusCode::NO_CONTENT, "{seconds}");
        assert_eq!(server.empty("PUT", "/eureka/apps/ODD/i").await.status(), StatusCode::OK, "{seconds}");
        let lease = *server.registry.instance("ODD", "i").unwrap().lease().unwrap();
        assert_eq!(lease.duration_secs, announced, "{seconds}");
        assert_eq!(lease.last_renewal_timestamp, lease.registration_timestamp + i64::from(announced) * 1000);
        tokio::time::sleep(std::time::Duration::from_secs(180)).await;
        assert_eq!(server.empty("GET", "/eureka/apps/ODD/i").await.status(), StatusCode::OK, "{seconds}");
    }
}

#[tokio::test]
async fn id_in_two_applications_names_two_instances() {
    let server = Server::new();
    for app in ["A", "B"] {
        let answer = server.post(&format!("/eureka/apps/{app}"), document(app, "same", "")).await;
        assert_eq!(answer.status(), StatusCode::NO_CONTENT);
    }
    for (method, path) in [
        ("PUT", "/eureka/apps/A/same/status?value=OUT_OF_SERVICE"),
        ("PUT", "/eureka/apps/A/same/metadata?zone=a"),
        ("PUT", "/eureka/apps/A/same"),
    ] {
        assert_eq!(server.empty(method, path).await.status(), StatusCode::OK, "{path}");
    }
    let [a, b] = ["A", "B"].map(|app| server.registry.instance(app, "same").unwrap());
    assert_eq!((a.status().as_str(), b.status().as_str()), ("OUT_OF_SERVICE", "UP"));
    assert_eq!((a.metadata().len(), b.metadata().len()), (1, 0));
    assert_eq!(server.empty("DELETE", "/eureka/apps/A/same").await.status(), StatusCode::OK);
    assert!(server.registry.instance("A", "same").is_none());
    assert!(server.registry.instance("B", "same").is_some());
}

#[tokio::test]
async fn any_text_is_accepted_as_an_id() {
    let server = Server::new();
    let ids =
        ["a/b", "a b", "100%", "%2F", "\"'`", "..", ".", "delta", "status", "ä\u{0}\u{202e}", "?x=y#z", "<&>", "+"];
    for id in ids {
        let answer = server.post("/eureka/apps/APP", document("APP", id, "")).await;
        assert_eq!(answer.status(), StatusCode::NO_CONTENT, "{id}");
    }
    for id in ids {
        let path = format!("/eureka/apps/app/{}", utf8_percent_encode(id, NON_ALPHANUMERIC));
        for (method, path) in [
            ("PUT", path.clone()),
            ("PUT", format!("{path}/status?value=DOWN")),
            ("PUT", format!("{path}/metadata?k=v")),
            ("DELETE", format!("{path}/status?value=UP")),
            ("GET", path.clone()),
        ] {
            let answer = server.send(request(method, &path).body(axum::body::Body::empty()).unwrap()).await;
            assert_eq!(answer.status(), StatusCode::OK, "{method} {path}");
        }
    }
    assert_eq!(server.registry.applications().applications[0].instances.len(), ids.len());
    for id in ids {
        let path = format!("/eureka/apps/app/{}", utf8_percent_encode(id, NON_ALPHANUMERIC));
        assert_eq!(server.empty("DELETE", &path).await.status(), StatusCode::OK, "{path}");
    }
    assert!(server.registry.applications().applications.is_empty());
}

/// The first release of Spring Cloud sends no `instanceId`. Two instances on one host must stay
/// two.
#[tokio::test]
async fn id_in_the_metadata_is_used_without_an_instance_id() {
    let server = Server::new();
    for (members, id) in [
        (r#""metadata":{"instanceId":"a"}"#, "h:a"),
        (r#""instanceId":null,"metadata":{"instanceId":5}"#, "h:5"),
        (r#""metadata":{"instanceId":"h:c"}"#, "h:c"),
        (r#""metadata":{"instanceId":" "}"#, "h"),
        (r#""instanceId":"","metadata":{"instanceId":"d"}"#, "h"),
        (r#""instanceId":"e","metadata":{"instanceId":"f"}"#, "e"),
    ] {
        let (app, path) = ("IDS", format!("/eureka/apps/IDS/{id}"));
        let members =
            format!(r#""app":"{app}","hostName":"h","ipAddr":"1.2.3.4","dataCenterInfo":{{"name":"MyOwn"}},{members}"#);
        let body = format!(r#"{{"instance":{{{members}}}}}"#);
        assert_eq!(server.post("/eureka/apps/IDS", body).await.status(), StatusCode::NO_CONTENT, "{members}");
        assert_eq!(server.empty("DELETE", &path).await.status(), StatusCode::OK, "{members}");
        let item = r#"{"action":"Register","appName":"IDS","id":"x","lastDirtyTimestamp":1,"instanceInfo":"#;
        let batch = format!(r#"{{"replicationList":[{item}{{{members}}}}}]}}"#);
        assert_eq!(server.post("/eureka/peerreplication/batch/", batch).await.status(), StatusCode::OK, "{members}");
        assert_eq!(server.empty("DELETE", &path).await.status(), StatusCode::OK, "{members}");
    }
}

/// What a Spring Cloud server 5.0 shows for each `lastDirtyTimestamp` that a registration in JSON
/// has.
#[tokio::test]
async fn unusual_last_dirty_timestamp_is_shown_by_every_view_as_by_java() {
    let cases = [
        (r#""-1""#, "-1"),
        ("-1", "-1"),
        ("-1.0", "-1"),
        (r#""-1.0""#, "-1"),
        (r#""-5""#, "-5"),
        ("0", "0"),
        (r#"" 5 ""#, "5"),
        ("true", "1"),
        (r#""""#, "0"),
        (r#""x""#, "0"),
        (r#""-""#, "0"),
        (r#""99999999999999999999""#, "0"),
        (r#""-9223372036854775808""#, "-9223372036854775808"),
    ];
    for (sent, shown) in cases {
        let server = Server::new();
        let body = document("ODD", "i", "")
            .replace(r#""status""#, &format!(r#""vipAddress":"v","lastDirtyTimestamp":{sent},"status""#));
        assert_eq!(server.post("/eureka/apps/ODD", body).await.status(), StatusCode::NO_CONTENT, "{sent}");
        for view in ["apps", "apps/delta", "apps/ODD", "apps/ODD/i", "instances/i", "vips/v"] {
            let list = ["apps", "apps/delta", "apps/ODD", "vips/v"].contains(&view);
            for (accept, compact) in [
                ("application/json", false),
                ("application/json", true),
                ("application/xml", false),
                ("application/xml", true),
            ] {
                if accept.ends_with("xml") && cfg!(not(feature = "xml")) {
                    continue;
                }
                let mut get = request("GET", &format!("/eureka/{view}")).header("accept", accept);
                if compact {
                    get = get.header("x-eureka-accept", "compact");
                }
                let body = text(server.send(get.body(Default::default()).unwrap()).await).await;
                let json = format!(r#""lastDirtyTimestamp":"{shown}""#);
                let xml = format!("<lastDirtyTimestamp>{shown}</lastDirtyTimestamp>");
                let has = body.contains(&json) || body.contains(&xml);
                // Compact lists have no such member, and a single instance is never compact.
                assert_eq!(has, !(compact && list), "{sent} {view} {accept} {compact}: {body}");
                assert!(body.contains("instanceId"), "{view} {accept} {compact}: {body}");
            }
        }
    }
}
