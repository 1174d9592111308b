//! Actions of operators, and the protection of their forms.

use axum::body::Body;
use http::{Request, StatusCode};

use super::{BROWSER, get, instance, register, send, server};
use crate::EurekaServer;
use crate::model::{Instance, InstanceStatus};
use crate::server::access::{Access, Role};
use crate::server::outcome::Origin;

/// Opens the page of an instance as a browser does. Returns the cookie and the token of the forms.
async fn open(server: &EurekaServer, uri: &str) -> (String, String) {
    let (_, headers, html) = get(server, uri).await;
    let cookie = headers["set-cookie"].to_str().unwrap().to_owned();
    assert!(cookie.contains("HttpOnly; SameSite=Lax"), "{cookie}");
    let token = html.split("name=\"token\" value=\"").nth(1).unwrap().split('"').next().unwrap().to_owned();
    (cookie.split(';').next().unwrap().to_owned(), token)
}

/// Returns a request with a form, as another program would send it.
fn act(uri: &str) -> http::request::Builder {
    Request::post(uri).header("host", "registry:8761").header("content-type", "application/x-www-form-urlencoded")
}

#[tokio::test]
async fn operator_takes_an_instance_out_of_service_and_back_and_cancels_it() {
    let server = server();
    register(&server, instance("orders", "o/1"));
    let uri = "/page/instance?app=ORDERS&id=o%2F1";
    let (cookie, token) = open(&server, uri).await;
    let status = || server.instance("ORDERS", "o/1").map(|instance| instance.status());
    for (action, expected, location) in [
        ("out_of_service", Some(InstanceStatus::OutOfService), "instance?app=ORDERS&id=o%2F1&done=out_of_service"),
        ("back", Some(InstanceStatus::Unknown), "instance?app=ORDERS&id=o%2F1&done=back"),
        ("cancel", None, "../lastn"),
    ] {
        let body = format!("token={token}&action={action}");
        let request = act(uri).header("cookie", &cookie).header("origin", "http://registry:8761");
        let (code, headers, text) = send(&server, request.body(Body::from(body)).unwrap()).await;
        assert_eq!((code, headers["location"].to_str().unwrap()), (StatusCode::SEE_OTHER, location), "{text}");
        assert_eq!(status(), expected, "{action}");
    }
    let (_, _, last) = get(&server, "/lastn").await;
    assert!(last.contains("ORDERS(o/1)") && last.contains("cancelled"), "{last}");
    let request = act(uri).header("cookie", &cookie).header("origin", "http://registry:8761");
    let (code, _, text) = send(&server, request.body(Body::from(format!("token={token}&action=back"))).unwrap()).await;
    assert!(code == StatusCode::NOT_FOUND && text.contains("ORDERS has no instance o/1"), "{text}");
}

/// Applies an action as a browser does. Returns the page that it leads to.
async fn apply(server: &EurekaServer, uri: &str, action: &str) -> String {
    let (cookie, token) = open(server, uri).await;
    let request = act(uri).header("cookie", &cookie).header("origin", "http://registry:8761");
    let body = Body::from(format!("token={token}&action={action}"));
    let (code, headers, text) = send(server, request.body(body).unwrap()).await;
    assert_eq!(code, StatusCode::SEE_OTHER, "{text}");
    get(server, &format!("/page/{}", headers["location"].to_str().unwrap())).await.2
}

#[tokio::test]
async fn instance_that_is_put_back_has_the_status_that_it_reports() {
    use InstanceStatus::{Down, OutOfService, Starting, Up};
    let uri = "/page/instance?app=ORDERS&id=i";
    for (before, reports) in [(Up, Up), (Up, Down), (Down, Down), (Starting, Up), (Up, OutOfService)] {
        let server = server();
        let with = |status| Instance { status, ..instance("orders", "i") };
        register(&server, with(before));
        let html = apply(&server, uri, "out_of_service").await;
        assert!(html.contains("The override OUT_OF_SERVICE is set"), "{html}");
        register(&server, with(reports));
        let html = apply(&server, uri, "back").await;
        let status = || server.instance("ORDERS", "i").unwrap().status();
        assert_eq!(status(), InstanceStatus::Unknown, "{before} {reports}: it did not register since");
        assert!(html.contains("The instance has no override"), "{html}");
        // Until then its heartbeats would not change the status.
        let renewal = server.registry().renew("ORDERS", "i", None, Origin::Client, server.now());
        assert_eq!(renewal, crate::server::outcome::Renewal::NotFound);
        register(&server, with(reports));
        assert_eq!(status(), reports, "{before}");
    }
}

#[tokio::test]
async fn instance_that_is_kept_out_of_service_without_an_override_can_be_set_up() {
    let server = server();
    let uri = "/page/instance?app=ORDERS&id=i";
    register(&server, Instance { status: InstanceStatus::OutOfService, ..instance("orders", "i") });
    register(&server, instance("orders", "i"));
    let status = || server.instance("ORDERS", "i").unwrap().status();
    for action in ["back", "out_of_service"] {
        let html = apply(&server, uri, action).await;
        assert!(html.contains("Nothing was changed") && html.contains(">Set UP<"), "{html}");
        assert_eq!(status(), InstanceStatus::OutOfService);
    }
    let html = apply(&server, uri, "up").await;
    assert!(html.contains("The override UP is set") && !html.contains(">Set UP<"), "{html}");
    assert_eq!(status(), InstanceStatus::Up);
}

#[tokio::test]
async fn address_with_an_action_that_was_not_done_shows_no_message() {
    let server = server();
    register(&server, instance("orders", "i"));
    for action in ["out_of_service", "cancel"] {
        let (_, _, html) = get(&server, &format!("/page/instance?app=ORDERS&id=i&done={action}")).await;
        assert!(!html.contains("class=\"done\""), "{html}");
    }
    for action in ["back", "up"] {
        let (_, _, html) = get(&server, &format!("/page/instance?app=ORDERS&id=i&done={action}")).await;
        assert!(!html.contains("deleted") && !html.contains(" is set"), "{html}");
    }
}

#[tokio::test]
async fn form_of_another_site_or_without_the_token_changes_nothing() {
    let server = server();
    register(&server, instance("orders", "i"));
    let uri = "/page/instance?app=ORDERS&id=i";
    let (cookie, token) = open(&server, uri).await;
    let good = format!("token={token}&action=cancel");
    let own = ("origin", "http://registry:8761");
    type Case<'a> = (&'a [(&'a str, &'a str)], &'a str, StatusCode);
    let cases: [Case<'_>; 9] = [
        (&[("cookie", &cookie), ("origin", "http://evil.example")], &good, StatusCode::FORBIDDEN),
        (&[("cookie", &cookie), ("origin", "null")], &good, StatusCode::FORBIDDEN),
        (&[("cookie", &cookie), own, ("sec-fetch-site", "cross-site")], &good, StatusCode::FORBIDDEN),
        (&[("cookie", &cookie)], &good, StatusCode::FORBIDDEN),
        (&[own], &good, StatusCode::FORBIDDEN),
        (&[("cookie", &cookie), own], "action=cancel", StatusCode::FORBIDDEN),
        (&[("cookie", &cookie), own], "token=00000000000000000000000000000000&action=cancel", StatusCode::FORBIDDEN),
        (&[("cookie", &cookie), own], &good.replace("cancel", "explode"), StatusCode::BAD_REQUEST),
        (&[("cookie", &cookie), own], &"x".repeat(5_000), StatusCode::PAYLOAD_TOO_LARGE),
    ];
    for (headers, body, expected) in cases {
        let request = headers.iter().fold(act(uri), |request, (name, value)| request.header(*name, *value));
        let (code, _, text) = send(&server, request.body(Body::from(body.to_owned())).unwrap()).await;
        assert_eq!(code, expected, "{headers:?} {body} {text}");
        assert!(text.contains("cannot change the instance: "), "{text}");
    }
    let request = Request::post(uri).header("content-type", "text/plain").body(Body::from(good)).unwrap();
    assert_eq!(send(&server, request).await.0, StatusCode::UNSUPPORTED_MEDIA_TYPE);
    assert_eq!(server.instance("ORDERS", "i").unwrap().status(), InstanceStatus::Up);
}

#[tokio::test]
async fn only_operators_of_a_locked_registry_have_forms_and_act() {
    let access =
        Access::new().token("reader", "reader-token", [Role::Read]).token("ops", "operator-token", [Role::Operate]);
    let server = EurekaServer::builder().access(access).build().unwrap();
    register(&server, instance("orders", "i"));
    let uri = "/page/instance?app=ORDERS&id=i";
    let token = "0123456789abcdef0123456789abcdef";
    let good = format!("token={token}&action=out_of_service");
    for (authorization, seen, changed) in [
        ("Bearer reader-token", (StatusCode::OK, false), StatusCode::FORBIDDEN),
        ("", (StatusCode::UNAUTHORIZED, false), StatusCode::UNAUTHORIZED),
        ("Bearer operator-token", (StatusCode::OK, true), StatusCode::SEE_OTHER),
    ] {
        let request = Request::get(uri).header("accept", BROWSER).header("authorization", authorization);
        let (status, headers, html) = send(&server, request.body(Body::empty()).unwrap()).await;
        assert_eq!((status, html.contains("<form")), seen, "{authorization}: {html}");
        assert_eq!(headers.contains_key("set-cookie"), seen.1, "{authorization}");
        assert_eq!(html.contains("You may look at this instance"), seen == (StatusCode::OK, false), "{html}");
        let up = server.instance("ORDERS", "i").unwrap().status();
        assert_eq!(up, InstanceStatus::Up, "nothing changed before {authorization}");
        let cookie = format!("tower-eureka-page={token}");
        let request = act(uri).header("authorization", authorization).header("cookie", cookie);
        let request = request.header("origin", "http://registry:8761").body(Body::from(good.clone())).unwrap();
        assert_eq!(send(&server, request).await.0, changed, "{authorization}");
    }
    assert_eq!(server.instance("ORDERS", "i").unwrap().status(), InstanceStatus::OutOfService);
}

#[tokio::test]
async fn operator_logs_in_where_everybody_may_read() {
    let access = Access::new().anonymous([Role::Read]).token("ops", "operator-token", [Role::Operate]);
    let server = EurekaServer::builder().access(access).build().unwrap();
    register(&server, instance("orders", "o/1"));
    let (status, _, html) = get(&server, "/page/instance?app=ORDERS&id=o%2F1").await;
    let link = "login?app=ORDERS&#38;id=o%2F1";
    assert!(status == StatusCode::OK && html.contains(link) && !html.contains("<form"), "{html}");
    let uri = "/page/login?app=ORDERS&id=o%2F1";
    let (status, headers, _) = get(&server, uri).await;
    assert_eq!(status, StatusCode::UNAUTHORIZED);
    assert!(headers["www-authenticate"].to_str().unwrap().starts_with("Basic "), "{headers:?}");
    let request = Request::get(uri).header("accept", BROWSER).header("authorization", "Bearer operator-token");
    let (status, headers, _) = send(&server, request.body(Body::empty()).unwrap()).await;
    let location = headers["location"].to_str().unwrap();
    assert_eq!((status, location), (StatusCode::SEE_OTHER, "instance?app=ORDERS&id=o%2F1"));
    let uri = format!("/page/{location}");
    let request = Request::get(uri).header("accept", BROWSER).header("authorization", "Bearer operator-token");
    let (_, _, html) = send(&server, request.body(Body::empty()).unwrap()).await;
    assert!(html.contains("<form"), "{html}");
}
