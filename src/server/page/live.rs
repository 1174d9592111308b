//! Live updates: server-sent events that all dashboards share.
//!
//! One task looks at the revision of the registry twice a second. It renders each event once, and
//! every dashboard sends the same bytes. It runs only while somebody looks at the page. A dashboard
//! says at which position it was rendered; one that is too far behind loads the page again.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::Body;
use axum::extract::{RawQuery, State};
use axum::response::Response;
use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderMap, HeaderName, HeaderValue};
use http_body::Frame;
use serde_json::{Map, Value, json};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::{Instant, sleep, sleep_until};

use super::registry::{MAX_ROWS, Replicas, Status, totals};
use super::respond::{self, busy, render, secured};
use super::text::parameter;
use super::{Shared, changes};
use crate::server::http::{ServerState, pairs};
use crate::server::view::Snapshot;
use crate::sync::{Mutex, offload};

/// Interval in which changes are collected.
const TICK: Duration = Duration::from_millis(500);
/// Number of ticks after which the status and the peers are sent, also without a change.
const STATUS_TICKS: u64 = 10;
/// Number of ticks after which the times of all heartbeats are sent. Meanwhile the script counts
/// on, and shows no lease as expired by itself.
const BEAT_TICKS: u64 = 30;
/// Time for which the task continues when nobody looks at the page.
const LINGER: Duration = Duration::from_secs(60);
/// Time after which a stream ends and the browser opens another. It bounds the delay of a server
/// that shuts down gracefully.
const STREAM_LIFE: Duration = Duration::from_secs(30);
const MAX_STREAMS: usize = 20_000;
/// Maximum number of changed rows of one event. For more, dashboards load the page again.
const MAX_CHANGES: usize = 200;
/// Maximum number and bytes of the events that are kept for dashboards that are behind.
const MAX_EVENTS: usize = 64;
const MAX_BYTES: usize = 4 * 1024 * 1024;
/// Dashboards that load the page again do so within a time that grows with their number.
const RELOADS_PER_SECOND: usize = 500;

#[derive(Debug)]
pub(super) struct Live {
    server: ServerState,
    /// Differs between two runs of the server, whose revisions begin anew.
    run: u32,
    feed: Mutex<Feed>,
    /// Number of the next event.
    next: watch::Sender<u64>,
    streams: Arc<Semaphore>,
}

/// Recent events.
#[derive(Debug)]
struct Feed {
    is_running: bool,
    /// Last time at which somebody loaded the page.
    touched: Instant,
    /// State of the list after the last event.
    last: Option<Arc<Snapshot>>,
    /// Key of the status that was sent last.
    status: Option<Key>,
    events: VecDeque<Event>,
    bytes: usize,
    /// Revision before the first event.
    base: u64,
}

#[derive(Clone, Debug)]
struct Event {
    number: u64,
    /// Revision of the list after this event.
    revision: u64,
    bytes: Bytes,
}

/// Parts of the status whose change is sent at once.
#[derive(Clone, Debug, PartialEq)]
struct Key {
    numbers: (bool, bool, u64, u64),
    peers: Vec<(String, &'static str)>,
}

impl Live {
    pub(super) fn new(server: ServerState) -> Arc<Self> {
        Arc::new(Self {
            server,
            run: fastrand::u32(..),
            feed: Mutex::new(Feed {
                is_running: false,
                touched: Instant::now(),
                last: None,
                status: None,
                events: VecDeque::new(),
                bytes: 0,
                base: 0,
            }),
            next: watch::Sender::new(0),
            streams: Arc::new(Semaphore::new(MAX_STREAMS)),
        })
    }

    /// Records changes from now on, for at least a minute.
    pub(super) fn touch(self: &Arc<Self>) {
        let mut feed = self.feed.lock();
        feed.touched = Instant::now();
        if feed.is_running {
            return;
        }
        let snapshot = self.server.registry().full();
        (feed.is_running, feed.base, feed.last) = (true, snapshot.revision, Some(snapshot));
        drop(feed);
        tokio::spawn(run(Arc::downgrade(self)));
    }

    /// Returns the present position, for a page that is rendered now.
    pub(super) fn position(&self) -> String {
        self.position_of(self.server.registry().revision())
    }

    fn position_of(&self, revision: u64) -> String {
        format!("{:x}.{revision}", self.run)
    }

    /// Returns the number of the first event after a position, or `None` if events after it are
    /// missing.
    fn first_after(&self, position: &str) -> Option<u64> {
        let (run, revision) = position.split_once('.')?;
        let revision: u64 = revision.parse().ok()?;
        let feed = self.feed.lock();
        if u32::from_str_radix(run, 16) != Ok(self.run) || revision < feed.base {
            return None;
        }
        let next = *self.next.borrow();
        Some(feed.events.iter().find(|event| event.revision > revision).map_or(next, |event| event.number))
    }

    /// Returns an event by its number: `None` if there is none yet, an error if it was dropped.
    fn event(&self, number: u64) -> Option<Result<Bytes, Behind>> {
        let feed = self.feed.lock();
        let first = feed.events.front()?.number;
        let Some(index) = number.checked_sub(first) else { return Some(Err(Behind)) };
        feed.events.get(usize::try_from(index).ok()?).map(|event| Ok(event.bytes.clone()))
    }

    /// Sends the events of one tick. Returns false when nobody has looked at the page for a while.
    async fn tick(self: &Arc<Self>, ticks: u64) -> bool {
        let (last, status) = {
            let mut feed = self.feed.lock();
            if self.next.receiver_count() == 0 && feed.touched.elapsed() > LINGER {
                (feed.is_running, feed.last, feed.status, feed.bytes) = (false, None, None, 0);
                feed.events.clear();
                return false;
            }
            (feed.last.clone(), feed.status.clone())
        };
        // A page that was loaded without live updates needs no event.
        let Some(last) = last else { return true };
        let live = self.clone();
        // Offloaded, since a large registry may have changed as a whole.
        let sent = offload(move || live.collect(&last, status.as_ref(), ticks)).await;
        let mut feed = self.feed.lock();
        let revision = sent.snapshot.revision;
        (feed.last, feed.status) = (Some(sent.snapshot), Some(sent.status));
        if let Some(data) = sent.data {
            self.push(&mut feed, revision, &data);
        }
        true
    }

    fn push(&self, feed: &mut Feed, revision: u64, data: &Value) {
        let text = format!("event: change\nid: {}\ndata: {data}\n\n", self.position_of(revision));
        let event = Event { number: *self.next.borrow(), revision, bytes: text.into() };
        feed.bytes += event.bytes.len();
        feed.events.push_back(event);
        while feed.events.len() > MAX_EVENTS || feed.bytes > MAX_BYTES && feed.events.len() > 1 {
            let Some(dropped) = feed.events.pop_front() else { break };
            (feed.bytes, feed.base) = (feed.bytes - dropped.bytes.len(), dropped.revision);
        }
        self.next.send_modify(|next| *next += 1);
    }

    /// Collects what changed since the last event.
    fn collect(&self, last: &Arc<Snapshot>, known: Option<&Key>, ticks: u64) -> Collected {
        let (registry, now) = (self.server.registry(), self.server.now());
        let mut data = Map::new();
        let is_changed = registry.revision() != last.revision;
        let snapshot = if is_changed { registry.full() } else { last.clone() };
        let is_small = snapshot.counts.total() <= MAX_ROWS && last.counts.total() <= MAX_ROWS;
        if is_changed {
            let changed = is_small.then(|| changes::between(registry, last, &snapshot, MAX_CHANGES, now)).flatten();
            match changed {
                Some(changed) => data.insert("apps".into(), changed.into()),
                None => data.insert("reload".into(), self.reload_time().into()),
            };
            data.insert("totals".into(), totals(&snapshot).into());
        }
        let (status, replicas) = (Status::of(&self.server), Replicas::of(&self.server));
        let key = Key::of(&status, &replicas);
        if known != Some(&key) || ticks.is_multiple_of(STATUS_TICKS) {
            data.insert("status".into(), render(&status).into());
            data.insert("replicas".into(), render(&replicas).into());
            if is_small {
                data.insert("kept".into(), self.kept(&snapshot));
            }
        }
        if is_small && ticks.is_multiple_of(BEAT_TICKS) {
            data.insert("beats".into(), self.beats(&snapshot, now));
        }
        Collected { snapshot, status: key, data: (!data.is_empty()).then_some(Value::Object(data)) }
    }

    /// Returns the applications whose expired leases are kept, or true for all, and if their
    /// headings say so.
    fn kept(&self, snapshot: &Snapshot) -> Value {
        let registry = self.server.registry();
        let kept = snapshot.applications.iter().filter(|application| registry.is_preserved(&application.name));
        let kept: Vec<_> = kept.map(|application| parameter(&application.name)).collect();
        let apps = if kept.len() == snapshot.applications.len() { true.into() } else { Value::from(kept) };
        json!({"apps": apps, "marked": registry.settings().preservation_by_application})
    }

    /// Returns the seconds since the last heartbeat of each instance and until its lease expires,
    /// in the order of the list. The first is null without a heartbeat.
    fn beats(&self, snapshot: &Snapshot, now: i64) -> Value {
        let applications = snapshot.applications.iter().map(|application| {
            let leases = application.records.iter().flat_map(|record| {
                let lease = self.server.registry().lease_state(&application.name, record.instance.id());
                // Both are unknown for an instance that has just left.
                lease.map_or([Value::Null, Value::Null], |lease| {
                    let renewed = lease.is_renewed().then(|| now.saturating_sub(lease.renewed_at));
                    [renewed, Some(lease.expires_at.saturating_sub(now))]
                        .map(|ms| ms.map(|ms| ms.div_euclid(1_000)).into())
                })
            });
            (parameter(&application.name), leases.collect::<Vec<_>>().into())
        });
        Value::Object(applications.collect())
    }

    /// Returns the milliseconds within which all dashboards load the page again.
    fn reload_time(&self) -> usize {
        (self.next.receiver_count() * 1_000 / RELOADS_PER_SECOND).max(200)
    }
}

struct Collected {
    snapshot: Arc<Snapshot>,
    status: Key,
    data: Option<Value>,
}

impl Key {
    fn of(status: &Status, replicas: &Replicas) -> Self {
        let Status { is_open, preservation, .. } = status;
        Self {
            numbers: (*is_open, preservation.is_active, preservation.received, preservation.threshold),
            peers: replicas.peers.iter().map(|peer| (peer.url.clone(), peer.state)).collect(),
        }
    }
}

async fn run(live: Weak<Live>) {
    for ticks in 1.. {
        sleep(TICK).await;
        let Some(live) = live.upgrade() else { return };
        if !live.tick(ticks).await {
            return;
        }
    }
}

/// A stream is behind the events that are kept.
struct Behind;

/// Stream of one dashboard.
#[derive(Debug)]
struct Subscriber {
    live: Arc<Live>,
    next: watch::Receiver<u64>,
    stopping: watch::Receiver<bool>,
    /// Number of the next event.
    number: u64,
    ends: Instant,
    state: Progress,
    _permit: OwnedSemaphorePermit,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Progress {
    /// The first event tells whether the position is known.
    Begins {
        is_behind: bool,
    },
    Runs,
    Ended,
}

impl Subscriber {
    /// Returns the next bytes, or `None` at the end.
    async fn next(mut self) -> Option<(Bytes, Self)> {
        loop {
            match self.state {
                Progress::Ended => return None,
                Progress::Begins { is_behind: true } => return Some(self.last("reload")),
                Progress::Begins { is_behind: false } => {
                    self.state = Progress::Runs;
                    return Some((Bytes::from_static(b"retry: 2000\nevent: open\ndata: {}\n\n"), self));
                }
                Progress::Runs => {}
            }
            match self.live.event(self.number) {
                Some(Ok(bytes)) => {
                    self.number += 1;
                    return Some((bytes, self));
                }
                Some(Err(Behind)) => return Some(self.last("reload")),
                None => {}
            }
            let is_stopping = *self.stopping.borrow_and_update();
            if is_stopping || Instant::now() >= self.ends {
                return Some(self.last("end"));
            }
            tokio::select! {
                _ = self.next.changed() => {}
                _ = self.stopping.changed() => {}
                () = sleep_until(self.ends) => {}
            }
        }
    }

    /// Returns the last event of the stream.
    fn last(mut self, name: &str) -> (Bytes, Self) {
        self.state = Progress::Ended;
        let data = json!({"reload": self.live.reload_time()});
        (format!("event: {name}\ndata: {data}\n\n").into(), self)
    }
}

/// Wait for the next bytes of a stream.
type Next = Pin<Box<dyn Future<Output = Option<(Bytes, Subscriber)>> + Send>>;

/// Response body of a stream.
struct EventBody(Next);

impl http_body::Body for EventBody {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let Some((bytes, subscriber)) = ready!(self.0.as_mut().poll(cx)) else {
            self.0 = Box::pin(std::future::ready(None));
            return Poll::Ready(None);
        };
        self.0 = Box::pin(subscriber.next());
        Poll::Ready(Some(Ok(Frame::data(bytes))))
    }
}

/// Responds with the stream of events after a position.
pub(super) async fn respond(State(page): State<Shared>, RawQuery(query): RawQuery, headers: HeaderMap) -> Response {
    let live = &page.live;
    let stopping = page.server.unsent().stopping();
    if *stopping.borrow() {
        return respond::stopping("../");
    }
    let Ok(permit) = live.streams.clone().try_acquire_owned() else { return busy("../") };
    // Before the position is compared, so that the task does not end in between.
    let next = live.next.subscribe();
    live.touch();
    let of_header = headers.get("last-event-id").and_then(|value| value.to_str().ok());
    let of_query = pairs(query.as_deref()).find(|(name, _)| name == "since").map(|(_, value)| value);
    let position = of_header.or(of_query.as_deref()).unwrap_or_default();
    let first = live.first_after(position);
    let subscriber = Subscriber {
        next,
        stopping,
        number: first.unwrap_or_default(),
        ends: Instant::now() + STREAM_LIFE,
        state: Progress::Begins { is_behind: first.is_none() },
        live: live.clone(),
        _permit: permit,
    };
    let mut response = secured(Response::new(Body::new(EventBody(Box::pin(subscriber.next())))));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    // nginx would collect the events.
    headers.insert(HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no"));
    response
}
