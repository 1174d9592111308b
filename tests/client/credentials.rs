//! Credentials for registry servers: Basic, bearer tokens and own headers.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use tokio::time::{Instant, advance};
use tower_eureka::{BearerToken, Eureka, EurekaBuilder};

use crate::common::{Asked, Reply, Scripted, instance, list};

fn authorization(asked: &Asked) -> &str {
    asked.headers.get("authorization").map_or("", |value| value.to_str().unwrap())
}

fn working() -> Scripted {
    Scripted::new(|_| Reply::Json(list(&[])))
}

fn at(urls: &str, registry: &Scripted) -> EurekaBuilder {
    Eureka::builder().service_url(urls).http_service(registry.clone())
}

/// Returns a provider of `t1`, `t2` and so on, and the number of its calls.
fn numbered(builder: EurekaBuilder) -> (EurekaBuilder, Arc<AtomicUsize>) {
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = calls.clone();
    let builder = builder.bearer_token(move || {
        let number = counted.fetch_add(1, Ordering::SeqCst) + 1;
        async move { Ok::<_, String>(BearerToken::new(format!("t{number}")).expires_in(Duration::from_secs(300))) }
    });
    (builder, calls)
}

#[tokio::test(start_paused = true)]
async fn basic_credentials_are_sent_to_servers_without_credentials_in_the_url() {
    let registry = working();
    for (url, expected) in [
        // "us/er:p@ss:w0rd" and "u:p" in base64
        ("http://registry/", "Basic dXMvZXI6cEBzczp3MHJk"),
        ("http://u:p@registry/", "Basic dTpw"),
    ] {
        let eureka = at(url, &registry).basic_auth("us/er", "p@ss:w0rd").build().unwrap();
        eureka.transport().applications().await.unwrap();
        assert_eq!(authorization(registry.asked().last().unwrap()), expected, "{url}");
    }
}

#[tokio::test(start_paused = true)]
async fn bearer_token_is_cached_until_it_expires() {
    let registry = working();
    let (builder, calls) = numbered(at("http://registry/", &registry));
    let eureka = builder.build().unwrap();
    for wait in [0, 299, 1] {
        advance(Duration::from_secs(wait)).await;
        eureka.transport().applications().await.unwrap();
    }
    let sent: Vec<_> = registry.asked().iter().map(|asked| authorization(asked).to_owned()).collect();
    assert_eq!(sent, ["Bearer t1", "Bearer t1", "Bearer t2"]);
    assert_eq!(calls.load(Ordering::SeqCst), 2);
}

#[tokio::test(start_paused = true)]
async fn rejected_bearer_token_is_renewed_once() {
    let registry = Scripted::new(|asked| match authorization(asked) {
        "Bearer t2" => Reply::Status(204),
        _ => Reply::Status(401),
    });
    let (builder, calls) = numbered(at("http://registry/", &registry));
    let eureka = builder.build().unwrap();
    eureka.transport().register(&instance("orders", "a")).await.unwrap();
    let asked = registry.asked();
    assert_eq!(asked.len(), 2);
    assert!(asked[0].body == asked[1].body && asked[1].line == asked[0].line, "the request is sent again as it was");
    eureka.transport().register(&instance("orders", "a")).await.unwrap();
    assert_eq!((registry.asked().len(), calls.load(Ordering::SeqCst)), (3, 2));

    let rejecting = Scripted::new(|_| Reply::Status(401));
    let (builder, calls) = numbered(at("http://registry/", &rejecting));
    let error = builder.build().unwrap().transport().register(&instance("orders", "a")).await.unwrap_err();
    assert_eq!((error.status(), rejecting.asked().len(), calls.load(Ordering::SeqCst)), (Some(401), 2, 2));
    assert!(error.to_string().contains("bearer_token()"), "{error}");

    let same = Scripted::new(|_| Reply::Status(401));
    let eureka = at("http://registry/", &same).bearer_token(|| async { Ok::<_, String>("constant") }).build().unwrap();
    eureka.transport().register(&instance("orders", "a")).await.unwrap_err();
    assert_eq!(same.asked().len(), 1, "the same token would be rejected again");
}

#[tokio::test(start_paused = true)]
async fn provider_whose_tokens_are_rejected_is_called_after_ever_longer_pauses() {
    let accepts = Arc::new(AtomicBool::new(false));
    let accepting = accepts.clone();
    let registry = Scripted::new(move |_| Reply::Status(if accepting.load(Ordering::SeqCst) { 204 } else { 401 }));
    let (builder, calls) = numbered(at("http://a/,http://b/,http://c/", &registry));
    let eureka = builder.build().unwrap();
    let register = async || eureka.transport().register(&instance("orders", "a")).await;
    register().await.unwrap_err();
    assert_eq!(calls.load(Ordering::SeqCst), 2, "one token and one renewal, whatever the number of servers");
    for _ in 0..120 {
        advance(Duration::from_secs(5)).await;
        register().await.unwrap_err();
    }
    let while_rejected = calls.load(Ordering::SeqCst);
    assert!((10..=25).contains(&while_rejected), "{while_rejected} calls in 10 minutes");
    accepts.store(true, Ordering::SeqCst);
    register().await.unwrap();
    accepts.store(false, Ordering::SeqCst);
    let accepted = calls.load(Ordering::SeqCst);
    for renewals in 1..=2 {
        register().await.unwrap_err();
        assert_eq!(calls.load(Ordering::SeqCst), accepted + renewals, "the pauses begin anew");
        advance(Duration::from_secs(2)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn failing_provider_is_an_error_and_nothing_is_sent() {
    let registry = working();
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = calls.clone();
    let eureka = at("http://a/,http://b/,http://c/", &registry)
        .bearer_token(move || {
            counted.fetch_add(1, Ordering::SeqCst);
            async { Err::<&str, _>("the token endpoint responded with 500") }
        })
        .build()
        .unwrap();
    let error = eureka.transport().register(&instance("orders", "a")).await.unwrap_err();
    for part in ["register ORDERS (a)", "the token endpoint responded with 500", "bearer_token()"] {
        assert!(error.to_string().contains(part), "{part} in {error}");
    }
    assert!(error.is_unavailable());
    assert_eq!((registry.asked().len(), calls.load(Ordering::SeqCst)), (0, 1));
}

#[tokio::test(start_paused = true)]
async fn provider_that_hangs_or_panics_is_an_error_within_its_bound() {
    let registry = working();
    let start = Instant::now();
    let eureka =
        at("http://registry/", &registry).bearer_token(std::future::pending::<Result<&str, String>>).build().unwrap();
    let error = eureka.transport().applications().await.unwrap_err();
    assert!(error.is_timeout() && error.to_string().contains("returned nothing within 13s"), "{error}");
    assert_eq!(start.elapsed(), Duration::from_secs(13));

    let panicking = || async { if true { panic!("expected by the test") } else { Ok::<_, String>("t") } };
    let eureka = at("http://registry/", &registry).bearer_token(panicking).build().unwrap();
    let error = eureka.transport().applications().await.unwrap_err();
    assert!(error.to_string().contains("panicked"), "{error}");
    assert!(registry.asked().is_empty());
}

/// Each kind of credentials, with the header that carries it.
fn kinds(registry: &Scripted) -> [(&'static str, EurekaBuilder); 4] {
    let plain = || at("http://registry/eureka", registry);
    [
        ("authorization", at("http://u:p@registry/eureka", registry)),
        ("authorization", plain().basic_auth("u", "p")),
        ("authorization", plain().bearer_token(|| async { Ok::<_, String>("t") })),
        ("x-api-key", plain().header("X-Api-Key", "k")),
    ]
}

#[tokio::test(start_paused = true)]
async fn redirect_takes_no_credentials_to_another_host() {
    for location in [
        "http://other/eureka/moved",
        "http://registry:8080/eureka/moved",
        "https://registry/eureka/moved",
        "//other/eureka/moved",
        "http://u:p@other/eureka/moved",
    ] {
        for status in [302, 307] {
            let registry = Scripted::new(move |asked| match asked.line.ends_with("/moved") {
                true => Reply::Json(list(&[])),
                false => Reply::With { status, headers: vec![("location", location.to_owned())], body: Bytes::new() },
            });
            for (count, (name, builder)) in kinds(&registry).into_iter().enumerate() {
                builder.build().unwrap().transport().applications().await.unwrap();
                let asked = registry.asked();
                let [first, moved] = &asked[2 * count..] else { panic!("two requests: {asked:?}") };
                assert!(first.headers.contains_key(name), "{location} {name}");
                assert!(!moved.headers.contains_key(name), "{location} {name}: {:?}", moved.headers);
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn redirect_back_to_the_first_host_does_not_restore_credentials() {
    let registry = Scripted::new(|asked| match &*asked.line {
        "GET /away" => redirect("http://registry/back"),
        "GET /back" => Reply::Json(list(&[])),
        _ => redirect("http://other/away"),
    });
    for (count, (name, builder)) in kinds(&registry).into_iter().enumerate() {
        builder.build().unwrap().transport().applications().await.unwrap();
        let sent: Vec<_> = registry.asked()[3 * count..].iter().map(|asked| asked.headers.contains_key(name)).collect();
        assert_eq!(sent, [true, false, false], "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn redirect_within_the_host_keeps_credentials() {
    let registry = Scripted::new(|asked| match asked.line.ends_with("/moved") {
        true => Reply::Json(list(&[])),
        false => redirect("/eureka/moved"),
    });
    for (name, builder) in kinds(&registry) {
        builder.build().unwrap().transport().applications().await.unwrap();
        assert!(registry.asked().last().unwrap().headers.contains_key(name), "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn token_is_not_renewed_for_a_host_that_never_received_it() {
    let registry = Scripted::new(|asked| match asked.line.ends_with("/moved") {
        true => Reply::Status(401),
        false => redirect("http://other/moved"),
    });
    let (builder, calls) = numbered(at("http://registry/", &registry));
    let error = builder.build().unwrap().transport().applications().await.unwrap_err();
    assert_eq!((error.status(), registry.asked().len(), calls.load(Ordering::SeqCst)), (Some(401), 2, 1));
}

fn redirect(location: &str) -> Reply {
    Reply::With { status: 307, headers: vec![("location", location.to_owned())], body: Bytes::new() }
}

#[test]
fn unusable_credentials_fail_the_build_without_the_secret() {
    let builder = || Eureka::builder().service_url("http://registry/");
    let token = || async { Ok::<_, String>("secret") };
    for (builder, why) in [
        (builder().basic_auth("secret:user", "secret"), "contains a colon"),
        (builder().basic_auth("u", "secret").bearer_token(token), "both set"),
        (builder().bearer_token(token).basic_auth("u", "secret"), "both set"),
        (builder().header("x key", "secret"), "no valid header"),
        (builder().header("x-key", "secret\n"), "no valid header"),
    ] {
        let text = format!("{builder:?}");
        assert!(!text.contains("secret"), "{text}");
        let error = builder.build().unwrap_err();
        assert!(error.is_config() && error.to_string().contains(why), "{error}");
        assert!(!format!("{error} {error:?}").contains("secret"), "{error:?}");
    }
}
