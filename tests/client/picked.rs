//! The picked instance of an attempt: in extensions, hooks, headers and cookies, and chosen without
//! a call.

use std::convert::Infallible;
use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::header::COOKIE;
use http::request::Parts;
use http::{HeaderValue, Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::{Full, StreamBody};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep};
use tokio_stream::wrappers::ReceiverStream;
use tower::{BoxError, Layer, Service, ServiceExt, service_fn};
use tower_eureka::balance::{Ejection, EndpointState, Outcome, Sticky};
use tower_eureka::client::{
    AttemptBody, CallOptions, Deadline, EurekaLayer, ForwardedFor, PickedInstance, RetryPolicy, WaitForReady,
};
use tower_eureka::{ErrorKind, Eureka, Instance};
use tracing::{Instrument, Level, info, info_span};

use crate::captured_log::Log;
use crate::common::Memory;

type Body = Full<Bytes>;
type Frames = StreamBody<ReceiverStream<Result<Frame<Bytes>, Infallible>>>;

fn orders(id: &str, port: u16) -> tower_eureka::model::InstanceBuilder {
    Instance::builder("orders").id(id).host_name(id).ip_addr("10.0.0.1").port(port)
}

fn eureka(memory: &Memory) -> Eureka {
    memory.serve().client().delta(false).fetch_interval(Duration::from_secs(1)).build().unwrap()
}

/// Heads of the requests that instances received.
type Received = Arc<Mutex<Vec<Parts>>>;

/// Service that records requests. An instance whose id begins with `dead` refuses connections.
fn below(
    received: &Received,
) -> impl Service<Request<AttemptBody<Body>>, Response = Response<Body>, Error = BoxError, Future: Send>
+ Clone
+ Send
+ Sync
+ 'static {
    let received = received.clone();
    service_fn(move |request: Request<AttemptBody<Body>>| {
        let (parts, _) = request.into_parts();
        let is_dead = parts.uri.host().unwrap().starts_with("dead");
        received.lock().unwrap().push(parts);
        async move {
            if is_dead {
                return Err(io::Error::from(io::ErrorKind::ConnectionRefused).into());
            }
            Ok(Response::new(Full::default()))
        }
    })
}

fn get(headers: &[(&str, &str)]) -> Request<Body> {
    let request = Request::get("http://orders/v1");
    let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
    request.body(Full::default()).unwrap()
}

fn picked_of<B>(response: &Response<B>) -> &PickedInstance {
    response.extensions().get().unwrap()
}

#[tokio::test(start_paused = true)]
async fn picked_instance_is_in_the_extensions_of_attempts_and_response() {
    let alive = orders("alive", 80).metadata("zone", "east").build().unwrap();
    let memory = Memory::of([alive, orders("dead-1", 80).build().unwrap(), orders("dead-2", 80).build().unwrap()]);
    let received = Received::default();
    let client = EurekaLayer::new(&eureka(&memory)).layer(below(&received));
    for _ in 0..10 {
        received.lock().unwrap().clear();
        let response = client.clone().oneshot(get(&[])).await.unwrap();
        let sent = std::mem::take(&mut *received.lock().unwrap());
        for (at, request) in sent.iter().enumerate() {
            let picked = request.extensions.get::<PickedInstance>().unwrap();
            assert_eq!(picked.attempt() as usize, at + 1);
            assert_eq!(Some(picked.authority()), request.uri.authority());
        }
        let picked = picked_of(&response);
        assert_eq!((picked.id(), picked.endpoint(), picked.zone()), ("alive", "alive", Some("east")));
        assert_eq!(picked.attempt() as usize, sent.len());
        assert_eq!((picked.instance().app(), picked.uri().to_string()), ("ORDERS", "http://alive:80/".to_owned()));
        assert!(format!("{picked:?}").contains("alive:80"));
    }
}

#[tokio::test(start_paused = true)]
async fn picked_instance_has_metadata_that_changed_after_the_first_call() {
    let memory = Memory::of([orders("a", 80).metadata("token", "old").build().unwrap()]);
    let received = Received::default();
    let client = EurekaLayer::new(&eureka(&memory)).layer(below(&received));
    let token = async || {
        let response = client.clone().oneshot(get(&[])).await.unwrap();
        picked_of(&response).instance().metadata().get("token").unwrap().to_owned()
    };
    assert_eq!(token().await, "old");
    memory.put(orders("a", 80).metadata("token", "new").build().unwrap());
    sleep(Duration::from_secs(3)).await;
    assert_eq!(token().await, "new");
}

#[tokio::test(start_paused = true)]
async fn hook_changes_the_request_of_each_attempt() {
    let memory = Memory::of(["a", "dead"].map(|id| orders(id, 80).metadata("key", id).build().unwrap()));
    let received = Received::default();
    let options = CallOptions::new().on_attempt(|picked, request| {
        let value = format!("{}-{}", picked.instance().metadata().get("key").unwrap(), picked.attempt());
        request.headers.insert("x-signature", HeaderValue::from_str(&value)?);
        Ok(())
    });
    let client = EurekaLayer::new(&eureka(&memory)).options(options).layer(below(&received));
    for _ in 0..10 {
        client.clone().oneshot(get(&[])).await.unwrap();
    }
    let received = received.lock().unwrap();
    let signatures: Vec<_> = received.iter().map(|sent| sent.headers["x-signature"].to_str().unwrap()).collect();
    assert!(signatures.contains(&"dead-1") && signatures.contains(&"a-2"), "{signatures:?}");
    assert!(signatures.iter().all(|signature| ["a-1", "a-2", "dead-1"].contains(signature)), "{signatures:?}");
}

#[tokio::test(start_paused = true)]
async fn error_of_the_hook_ends_the_call_before_anything_is_sent() {
    let memory = Memory::of(["a", "b"].map(|id| orders(id, 80).build().unwrap()));
    let received = Received::default();
    let options = CallOptions::new()
        .ejection(Ejection::new().consecutive_failures(1))
        .on_attempt(|_, _| Err("the key store is locked".into()));
    let client = EurekaLayer::new(&eureka(&memory)).options(options).layer(below(&received));
    for _ in 0..5 {
        let error = client.clone().oneshot(get(&[])).await.unwrap_err();
        assert_eq!((error.kind(), error.http_status()), (ErrorKind::Hook, StatusCode::INTERNAL_SERVER_ERROR));
        assert!(error.to_string().contains("the key store is locked"), "{error}");
        assert!(!error.summary().contains("key store"), "{}", error.summary());
    }
    assert!(received.lock().unwrap().is_empty());
    let snapshot = client.snapshots().remove(0);
    assert_eq!(snapshot.count(EndpointState::Available), 2, "{snapshot}");
    assert!(snapshot.endpoints().iter().all(|endpoint| endpoint.pending() == 0), "{snapshot}");
}

#[tokio::test(start_paused = true)]
async fn request_body_of_a_call_that_ends_at_its_start_is_dropped() {
    let memory = Memory::of([orders("a", 80).build().unwrap()]);
    let options = CallOptions::new().on_attempt(|_, request| match request.headers.contains_key("refused") {
        true => Err("refused by the hook".into()),
        false => Ok(()),
    });
    let service = service_fn(async |_: Request<AttemptBody<Frames>>| Ok::<_, BoxError>(Response::new(Body::default())));
    let mut client = EurekaLayer::new(&eureka(&memory)).options(options).layer(service);
    let post = || {
        let (frames, body) = mpsc::channel(1);
        (frames, Request::post("http://orders/v1").body(StreamBody::new(ReceiverStream::new(body))).unwrap())
    };
    client.ready().await.unwrap().call(post().1).await.unwrap();

    for is_late in [false, true] {
        let (frames, mut request) = post();
        if is_late {
            request.extensions_mut().insert(Deadline::within(Duration::ZERO));
        } else {
            request.headers_mut().insert("refused", HeaderValue::from_static("true"));
        }
        let mut call = client.call(request);
        (&mut call).await.unwrap_err();
        assert!(frames.is_closed(), "late: {is_late}");
        drop(call);
    }
}

#[tokio::test(start_paused = true)]
async fn span_of_a_call_is_within_that_of_the_caller_who_polls() {
    let (log, _guard) = Log::start(Level::DEBUG);
    let memory = Memory::of([orders("a", 80).build().unwrap()]);
    let service = service_fn(async |_: Request<AttemptBody<Body>>| {
        info!("received");
        Ok::<_, BoxError>(Response::new(Body::default()))
    });
    let mut client = EurekaLayer::new(&eureka(&memory)).layer(service);
    // The route of the second call is known.
    for _ in 0..2 {
        let call = info_span!("elsewhere").in_scope(|| client.call(get(&[])));
        call.instrument(info_span!("caller")).await.unwrap();
    }
    let text = log.text();
    let received: Vec<_> = text.lines().filter(|line| line.ends_with("received")).collect();
    assert_eq!(received.len(), 2, "{text}");
    assert!(received.iter().all(|line| line.contains(" caller:eureka.call{")), "{text}");
}

#[tokio::test(start_paused = true)]
async fn forwarded_headers_are_sent_only_with_the_option() {
    let memory = Memory::of([orders("a", 80).build().unwrap()]);
    for (is_on, expected) in [(false, None), (true, Some(("shop.example", "http", "192.0.2.7")))] {
        let received = Received::default();
        let options = CallOptions::new().x_forwarded(is_on);
        let client = EurekaLayer::new(&eureka(&memory)).options(options).layer(below(&received));
        let mut request = get(&[("host", "shop.example")]);
        request.extensions_mut().insert(ForwardedFor([192, 0, 2, 7].into()));
        client.oneshot(request).await.unwrap();
        let headers = &received.lock().unwrap()[0].headers;
        let value = |name| headers.get(name).map(|value: &HeaderValue| value.to_str().unwrap());
        let sent = value("x-forwarded-host").zip(value("x-forwarded-proto")).zip(value("x-forwarded-for"));
        assert_eq!(sent.map(|((host, proto), client)| (host, proto, client)), expected);
    }
}

#[tokio::test(start_paused = true)]
async fn instance_cookie_keeps_a_session_at_its_instance() {
    let memory = Memory::of(["a:orders:80", "b:orders:80", "c:orders:80"].map(|id| {
        Instance::builder("orders").id(id).host_name(&id[..1]).ip_addr("10.0.0.1").port(80).build().unwrap()
    }));
    for name in [None, Some("session")] {
        let received = Received::default();
        let policy = Sticky::by_cookie(name.unwrap_or("sc-lb-instance-id"));
        let mut options = CallOptions::new().policy(policy).instance_cookie(true);
        if let Some(name) = name {
            options = options.instance_cookie_name(name);
        }
        let client = EurekaLayer::new(&eureka(&memory)).options(options).layer(below(&received));
        client.clone().oneshot(get(&[("cookie", "theme=dark")])).await.unwrap();
        let first = received.lock().unwrap()[0].clone();
        let cookies = first.headers[COOKIE].to_str().unwrap();
        let cookie = cookies.strip_prefix("theme=dark; ").unwrap();
        for _ in 0..20 {
            // The client returns the cookie that the instance set.
            client.clone().oneshot(get(&[("cookie", cookie)])).await.unwrap();
        }
        for sent in received.lock().unwrap().iter().skip(1) {
            assert_eq!(sent.uri.host(), first.uri.host());
            assert_eq!(sent.headers[COOKIE], cookie);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn chosen_instance_reports_its_outcome() {
    let memory = Memory::of(["a", "b"].map(|id| orders(id, 5672).build().unwrap()));
    let eureka = eureka(&memory);
    let first = eureka.choose("orders", &()).await.unwrap();
    assert_eq!((first.authority().port_u16(), first.attempt()), (Some(5672), 1));
    // A connection that is open counts as load, so the other instance is chosen.
    first.success();
    let second = eureka.choose("ORDERS", &Request::new(Full::<Bytes>::default())).await.unwrap();
    assert_ne!(first.id(), second.id());
    drop(second);
    drop(first);
    let unreachable = eureka.choose("orders", &()).await.unwrap();
    unreachable.unreachable();
    for _ in 0..20 {
        let next = eureka.choose("orders", &Request::new(()).into_parts().0).await.unwrap();
        assert_ne!(next.id(), unreachable.id());
        next.success();
    }
}

#[tokio::test(start_paused = true)]
async fn choice_without_an_outcome_is_no_evidence() {
    let memory = Memory::of([orders("a", 80).build().unwrap()]);
    let client =
        eureka(&memory).http_client_with::<Body>(CallOptions::new().ejection(Ejection::new().consecutive_failures(1)));
    for _ in 0..100 {
        let chosen = client.choose("orders", &()).await.unwrap();
        assert_eq!(client.snapshots()[0].endpoints()[0].pending(), 1);
        sleep(Duration::from_secs(1)).await;
        drop(chosen);
    }
    let snapshot = &client.snapshots()[0];
    let endpoint = &snapshot.endpoints()[0];
    assert_eq!((endpoint.pending(), endpoint.failures(), endpoint.state()), (0, 0, EndpointState::Available));
    let chosen = client.choose("orders", &()).await.unwrap();
    chosen.outcome(Outcome::Success);
    chosen.failure();
    let snapshot = &client.snapshots()[0];
    assert_eq!(snapshot.endpoints()[0].failures(), 1, "{snapshot}");
}

#[tokio::test(start_paused = true)]
async fn choice_waits_for_an_instance_up_to_its_limit() {
    let memory = Memory::default();
    let eureka = eureka(&memory);
    let start = Instant::now();
    let mut request = Request::new(());
    request.extensions_mut().insert(WaitForReady(Duration::from_secs(7)));
    let error = eureka.choose("orders", &request).await.unwrap_err();
    assert!(error.is_no_endpoints(), "{error}");
    assert_eq!(start.elapsed().as_secs(), 7);
    let choice = eureka.choose("orders", &request);
    memory.put(orders("late", 80).build().unwrap());
    assert_eq!(choice.await.unwrap().id(), "late");
    assert!(eureka.choose("no name", &()).await.unwrap_err().is_config());
}

#[tokio::test(start_paused = true)]
async fn hedges_have_numbers_of_their_own() {
    let memory = Memory::of(["slow", "fast"].map(|id| orders(id, 80).build().unwrap()));
    let below = service_fn(|request: Request<AttemptBody<Body>>| async move {
        if request.uri().host() == Some("slow") {
            sleep(Duration::from_secs(10)).await;
        }
        Ok::<_, Infallible>(Response::new(Full::<Bytes>::default()))
    });
    let retry = RetryPolicy::new().hedge_after(Duration::from_millis(50)).budget(1.0, 100, Duration::from_secs(10));
    let client = EurekaLayer::new(&eureka(&memory)).options(CallOptions::new().retry(retry)).layer(below);
    let mut attempts = Vec::new();
    for _ in 0..10 {
        let response = client.clone().oneshot(get(&[])).await.unwrap();
        assert_eq!(picked_of(&response).id(), "fast");
        attempts.push(picked_of(&response).attempt());
    }
    assert!(attempts.contains(&2) && attempts.iter().all(|attempt| [1, 2].contains(attempt)), "{attempts:?}");
}

#[tokio::test(start_paused = true)]
async fn hedge_that_cannot_connect_leaves_its_attempt_for_a_retry() {
    for _ in 0..10 {
        let memory = Memory::of(["slow", "gone"].map(|id| orders(id, 80).build().unwrap()));
        let calls = Arc::new(Mutex::new(0));
        let below = service_fn(move |request: Request<AttemptBody<Body>>| {
            let calls = calls.clone();
            async move {
                if request.uri().host() == Some("gone") {
                    return Err(io::Error::from(io::ErrorKind::ConnectionRefused));
                }
                sleep(Duration::from_millis(100)).await;
                *calls.lock().unwrap() += 1;
                match *calls.lock().unwrap() {
                    1 => Err(io::Error::from(io::ErrorKind::ConnectionReset)),
                    _ => Ok(Response::new(Full::<Bytes>::default())),
                }
            }
        });
        let retry = RetryPolicy::new().hedge_after(Duration::from_millis(50)).budget(1.0, 100, Duration::from_secs(10));
        let options = CallOptions::new().retry(retry.attempts(2));
        let client = EurekaLayer::new(&eureka(&memory)).options(options).layer(below);
        let response = client.oneshot(get(&[])).await.unwrap();
        assert_eq!(picked_of(&response).id(), "slow");
    }
}
