//! Intake of request bodies within one budget of bytes.
//!
//! A body is charged to the budget as its bytes arrive, so that an announced length costs nothing.
//! It stays charged until it is decoded and its changes are applied. A request that waits for its
//! body is charged for an unusually large head as well.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::task::Poll;
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use http::request::Parts;
use http::{Extensions, HeaderMap, Uri};
use http_body::Body as _;
use http_body_util::BodyExt;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout};

use super::offload::Offload;
use super::source::Source;
use crate::sync::{Mutex, MutexGuard};

/// Maximum length of a body that may use the whole budget. Longer bodies must not use the reserve.
const SMALL: usize = 64 * 1024;
/// Divisor of the budget that gives the reserve for small bodies.
const RESERVE: usize = 4;
/// Time that a body may take to arrive while others need its share of the budget.
const GRACE: Duration = Duration::from_secs(2);
/// Number of bodies, the oldest first, among which the one to revoke is chosen.
const CANDIDATES: usize = 1_000;
/// Time for which all other sources are limited to their share after one source found no room.
const SHARE_TIME: Duration = Duration::from_secs(10);
/// Size of the first buffer of a body that does not arrive in one frame.
const FIRST_BUFFER: usize = 4 * 1024;
/// Maximum time for a body, unless a setting changes it.
const BODY_TIMEOUT: Duration = Duration::from_secs(30);
/// Maximum length of an ignored body.
const IGNORED_BODY_LIMIT: usize = 64 * 1024;
/// Bytes of a head that count for its connection.
const COMMON_HEAD: usize = 2 * 1024;
/// Memory of a header beside its name and value.
const HEADER: usize = 112;

/// Settings and shared limits of the bodies that one server receives.
#[derive(Debug)]
pub(in crate::server) struct Intake {
    budget: Arc<Budget>,
    pub(super) offload: Offload,
    /// True if gzip bodies are accepted.
    pub(super) gzip: bool,
    /// Maximum time for a body. Otherwise a body that never ends would delay the end of a server
    /// without such a limit.
    pub(super) timeout: Duration,
}

impl Intake {
    /// Default budget in bytes.
    #[cfg(test)]
    pub(in crate::server) const DEFAULT_BUDGET: usize = 64 * 1024 * 1024;

    pub(in crate::server) fn new(budget: usize, gzip: bool) -> Self {
        Self { budget: Arc::new(Budget::new(budget)), offload: Offload::default(), gzip, timeout: BODY_TIMEOUT }
    }

    /// Sets the maximum time for a body.
    pub(in crate::server) fn with_timeout(self, timeout: Duration) -> Self {
        Self { timeout, ..self }
    }

    /// Returns the length of the longest body that fits into a budget of this size.
    pub(in crate::server) const fn longest_body(budget: usize) -> usize {
        budget - budget / RESERVE
    }

    pub(super) fn charge(&self, source: Source) -> Charge {
        Charge::new(&self.budget, source)
    }

    /// Returns the charge of a request for its head. The body is added as it arrives.
    pub(super) fn charge_head(&self, uri: &Uri, headers: &HeaderMap, sender: &Extensions) -> Result<Charge, NoRoom> {
        let mut charge = self.charge(Source::of(sender));
        charge.grow_to(head_bytes(uri, headers))?;
        Ok(charge)
    }
}

/// Budget of the bytes that all bodies in flight hold together.
#[derive(Debug)]
struct Budget {
    limit: usize,
    next: AtomicU64,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    used: usize,
    /// Used bytes by source. Sources without bytes have no entry.
    held: HashMap<Source, usize>,
    /// Bodies that hold bytes and are still arriving, the oldest first.
    arriving: BTreeMap<u64, Arriving>,
    /// The last source that found no room although it was within its share, and the time.
    waiting: Option<(Source, Instant)>,
}

#[derive(Debug)]
struct Arriving {
    source: Source,
    bytes: usize,
    since: Instant,
    revoked: Arc<Notify>,
}

impl Budget {
    fn new(limit: usize) -> Self {
        Self { limit, next: AtomicU64::default(), state: Mutex::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }
}

impl State {
    fn held_by(&self, source: Source) -> usize {
        self.held.get(&source).copied().unwrap_or_default()
    }

    fn add(&mut self, source: Source, bytes: usize) {
        self.used += bytes;
        *self.held.entry(source).or_default() += bytes;
    }

    fn subtract(&mut self, source: Source, bytes: usize) {
        self.used -= bytes;
        let rest = self.held_by(source) - bytes;
        if rest == 0 {
            self.held.remove(&source);
        } else {
            self.held.insert(source, rest);
        }
    }

    /// Revokes the charge of a body that has been arriving for longer than [`GRACE`]: the oldest
    /// one of the source that holds most. A source whose `others` hold more than another source
    /// cannot revoke a body of that source. Returns false if there is no such body.
    ///
    /// So a sender that is slow, or stops before the end, holds its bytes only while no other body
    /// needs them.
    fn revoke(&mut self, own: u64, source: Source, others: usize) -> bool {
        let now = Instant::now();
        let candidates = self.arriving.iter().take(CANDIDATES).take_while(|(_, body)| now - body.since >= GRACE);
        let candidates = candidates.filter_map(|(&id, body)| {
            let held = self.held_by(body.source);
            (id != own && (body.source == source || held >= others)).then_some((held, Reverse(id)))
        });
        let Some((_, Reverse(id))) = candidates.max() else { return false };
        if let Some(body) = self.arriving.remove(&id) {
            self.subtract(body.source, body.bytes);
            body.revoked.notify_one();
        }
        true
    }

    /// Returns true if another source waits for room, so that this one is limited to its share.
    fn is_limited_to_share(&self, source: Source) -> bool {
        self.waiting.is_some_and(|(waiting, since)| waiting != source && since.elapsed() < SHARE_TIME)
    }
}

/// Reason why the budget has no room for more bytes of a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NoRoom {
    /// Other bodies hold the bytes.
    Now,
    /// No body may hold more than this number of bytes.
    Ever(usize),
}

/// Charge of one body to the budget. Returned on drop.
pub(super) struct Charge {
    budget: Arc<Budget>,
    source: Source,
    id: u64,
    since: Instant,
    bytes: usize,
    /// Set while the body arrives, since only then the charge can be revoked.
    arriving: Option<Arc<Notify>>,
}

impl Charge {
    fn new(budget: &Arc<Budget>, source: Source) -> Self {
        let id = budget.next.fetch_add(1, Relaxed);
        Self { budget: budget.clone(), source, id, since: Instant::now(), bytes: 0, arriving: Some(Arc::default()) }
    }

    pub(super) fn source(&self) -> Source {
        self.source
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Returns the maximum number of bytes that a body of more than 64 KiB may hold.
    pub(super) fn ceiling(&self) -> usize {
        Intake::longest_body(self.budget.limit)
    }

    /// Raises the charge to this number of bytes.
    pub(super) fn grow_to(&mut self, bytes: usize) -> Result<(), NoRoom> {
        if bytes <= self.bytes {
            return Ok(());
        }
        let (limit, more) = (self.budget.limit, bytes - self.bytes);
        let ceiling = if bytes > SMALL { Intake::longest_body(limit) } else { limit };
        if bytes > ceiling {
            return Err(NoRoom::Ever(ceiling));
        }
        let mut state = self.budget.state();
        if self.is_revoked(&state) {
            return Err(NoRoom::Now);
        }
        let others = state.held_by(self.source) - self.bytes;
        // The only body of a source may use more than half.
        let within_share = others == 0 || others + bytes <= ceiling / 2;
        if !within_share && state.is_limited_to_share(self.source) {
            return Err(NoRoom::Now);
        }
        while state.used > ceiling - more {
            if !state.revoke(self.id, self.source, others) {
                if within_share {
                    state.waiting = Some((self.source, Instant::now()));
                }
                return Err(NoRoom::Now);
            }
        }
        state.add(self.source, more);
        self.bytes = bytes;
        if let Some(revoked) = &self.arriving {
            let (source, since, revoked) = (self.source, self.since, revoked.clone());
            state.arriving.insert(self.id, Arriving { source, bytes, since, revoked });
        }
        Ok(())
    }

    fn is_revoked(&self, state: &State) -> bool {
        self.arriving.is_some() && self.bytes > 0 && !state.arriving.contains_key(&self.id)
    }

    /// Records that the body is complete. From now on its charge cannot be revoked.
    fn arrived(&mut self) -> Result<(), NoRoom> {
        let mut state = self.budget.state();
        if self.is_revoked(&state) {
            return Err(NoRoom::Now);
        }
        state.arriving.remove(&self.id);
        self.arriving = None;
        Ok(())
    }

    /// Completes when the charge is revoked for another body.
    pub(super) async fn revoked(&self) {
        match &self.arriving {
            Some(revoked) => revoked.notified().await,
            None => std::future::pending().await,
        }
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        if self.bytes == 0 {
            return;
        }
        let mut state = self.budget.state();
        if !self.is_revoked(&state) {
            state.arriving.remove(&self.id);
            state.subtract(self.source, self.bytes);
        }
    }
}

impl fmt::Debug for Charge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Charge").field("bytes", &self.bytes).finish_non_exhaustive()
    }
}

/// Reason why a body was not received.
#[derive(Debug)]
pub(super) enum Failure {
    /// The body is longer than this number of bytes.
    TooLarge(usize),
    NoRoom(NoRoom),
    /// The body ended early or timed out.
    Broken(axum::Error),
}

impl From<NoRoom> for Failure {
    fn from(no_room: NoRoom) -> Self {
        Self::NoRoom(no_room)
    }
}

/// Returns the bytes of the head of a request beyond those of a common one.
///
/// HTTP/2 sends a header that is repeated in a byte, so a request takes far more memory than its
/// bytes on the connection.
fn head_bytes(uri: &Uri, headers: &HeaderMap) -> usize {
    let target = uri.path().len() + uri.query().map_or(0, str::len);
    let headers = headers.iter().map(|(name, value)| name.as_str().len() + value.len() + HEADER);
    (target + headers.sum::<usize>()).saturating_sub(COMMON_HEAD)
}

/// Receives a body of at most `limit` bytes, and charges the memory that it takes.
pub(super) async fn receive(body: Body, limit: usize, charge: &mut Charge) -> Result<Bytes, Failure> {
    let announced = body.size_hint();
    if announced.lower() > limit as u64 {
        return Err(Failure::TooLarge(limit));
    }
    let longest = announced.upper().and_then(|upper| usize::try_from(upper).ok()).unwrap_or(limit).min(limit);
    let mut body = pin!(body);
    let head = charge.bytes();
    // One buffer, since frames of a few bytes would cost many times their length.
    let mut buffer = Vec::new();
    loop {
        let frame = tokio::select! {
            biased;
            frame = body.frame() => frame,
            () = charge.revoked() => return Err(Failure::NoRoom(NoRoom::Now)),
        };
        let Some(frame) = frame else { break };
        let Ok(data) = frame.map_err(Failure::Broken)?.into_data() else { continue };
        let length = buffer.len() + data.len();
        if length > limit {
            return Err(Failure::TooLarge(limit));
        }
        if buffer.is_empty() && body.is_end_stream() {
            charge.grow_to(head + length)?;
            charge.arrived()?;
            return Ok(data);
        }
        if length > buffer.capacity() {
            let capacity = length.max(FIRST_BUFFER).max(2 * buffer.capacity()).min(longest.max(length));
            charge.grow_to(head + capacity)?;
            buffer.reserve_exact(capacity - buffer.len());
        }
        buffer.extend_from_slice(&data);
    }
    charge.arrived()?;
    Ok(buffer.into())
}

/// Reads and discards a body without a meaning, so that the connection can be reused. Jersey
/// clients send `{}` with each heartbeat.
pub(super) async fn ignore(intake: &Intake, head: &Parts, body: Body) {
    ignore_within(intake, intake.timeout, head, body).await;
}

/// Discards the body of a refused request as [`ignore`] does, within this time.
pub(super) async fn ignore_within(intake: &Intake, time: Duration, head: &Parts, body: Body) {
    if body.is_end_stream() {
        return;
    }
    let mut discarded = pin!(discard(body));
    // Nearly all bodies have arrived together with the head. They need no timer.
    let is_done = poll_fn(|cx| Poll::Ready(discarded.as_mut().poll(cx).is_ready())).await;
    if is_done {
        return;
    }
    // The response does not depend on the body, so without room for the head nobody waits for it.
    if let Ok(charge) = intake.charge_head(&head.uri, &head.headers, &head.extensions) {
        tokio::select! {
            _ = timeout(time, discarded) => {}
            () = charge.revoked() => {}
        }
    }
}

async fn discard(body: Body) {
    let mut body = pin!(body);
    let mut length = 0;
    // After a body that is too long or broken, the connection is closed.
    while let Some(Ok(frame)) = body.frame().await {
        length += frame.data_ref().map_or(0, Bytes::len);
        if length > IGNORED_BODY_LIMIT {
            break;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KIB: usize = 1024;

    #[tokio::test(start_paused = true)]
    async fn dropped_charges_return_their_bytes() {
        let intake = Intake::new(1024 * KIB, false);
        for _ in 0..3 {
            let mut charge = intake.charge(Source::default());
            charge.grow_to(700 * KIB).unwrap();
            charge.grow_to(10).unwrap();
            assert_eq!(intake.budget.state().used, 700 * KIB);
            let mut other = intake.charge(Source::default());
            other.grow_to(100 * KIB).unwrap_err();
            other.arrived().unwrap();
            charge.arrived().unwrap();
        }
        assert_eq!(intake.budget.state().used, 0);
        assert!(intake.budget.state().arriving.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn large_bodies_leave_a_reserve_for_small_ones() {
        let intake = Intake::new(1024 * KIB, false);
        let mut large = intake.charge(Source::default());
        large.grow_to(769 * KIB).unwrap_err();
        large.grow_to(768 * KIB).unwrap();
        large.arrived().unwrap();
        let mut medium = intake.charge(Source::default());
        medium.grow_to(64 * KIB).unwrap();
        medium.grow_to(65 * KIB).unwrap_err();
        let small: Vec<_> = (0..3).map(|_| charged(&intake, 64 * KIB).unwrap()).collect();
        charged(&intake, 1).unwrap_err();
        drop(small);
        charged(&intake, 1).unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn slow_body_is_revoked_when_the_budget_is_exhausted() {
        let intake = Intake::new(1024 * KIB, false);
        let mut slow = charged(&intake, 700 * KIB).unwrap();
        charged(&intake, 100 * KIB).unwrap_err();
        tokio::time::advance(GRACE).await;
        // Nothing is revoked while there is room.
        let small = charged(&intake, 60 * KIB).unwrap();
        slow.grow_to(701 * KIB).unwrap();
        let large = charged(&intake, 100 * KIB).unwrap();
        slow.revoked().await;
        slow.grow_to(702 * KIB).unwrap_err();
        slow.arrived().unwrap_err();
        drop(slow);
        assert_eq!(intake.budget.state().used, 160 * KIB);
        drop((small, large));
        assert_eq!(intake.budget.state().used, 0);
    }

    #[tokio::test(start_paused = true)]
    async fn complete_body_is_never_revoked() {
        let intake = Intake::new(1024 * KIB, false);
        let mut whole = charged(&intake, 700 * KIB).unwrap();
        whole.arrived().unwrap();
        tokio::time::advance(10 * GRACE).await;
        charged(&intake, 100 * KIB).unwrap_err();
    }

    #[tokio::test(start_paused = true)]
    async fn body_in_small_frames_costs_its_length() {
        let intake = Intake::new(1024 * KIB, false);
        let mut charge = intake.charge(Source::default());
        let frames = (0..10_000).map(|_| Ok::<_, std::io::Error>("x"));
        let body = Body::from_stream(tokio_stream::iter(frames));
        let bytes = receive(body, 20_000, &mut charge).await.unwrap();
        assert_eq!((bytes.len(), charge.bytes), (10_000, 16 * KIB));
    }

    #[tokio::test(start_paused = true)]
    async fn body_beyond_its_limit_is_refused() {
        let intake = Intake::new(1024 * KIB, false);
        for body in
            [Body::from("abcd"), Body::from_stream(tokio_stream::iter(["ab", "cd"].map(Ok::<_, std::io::Error>)))]
        {
            let received = receive(body, 3, &mut intake.charge(Source::default())).await;
            assert!(matches!(received, Err(Failure::TooLarge(3))), "{received:?}");
        }
        assert_eq!(&receive(Body::from("abc"), 3, &mut intake.charge(Source::default())).await.unwrap()[..], b"abc");
    }

    #[tokio::test(start_paused = true)]
    async fn bodies_of_the_source_that_holds_most_are_revoked_first() {
        let intake = Intake::new(1024 * KIB, false);
        let slow = charged_by(&intake, 1, 100 * KIB).unwrap();
        let empty = intake.charge(source(3));
        let stalled: Vec<_> = (0..6).map(|_| charged_by(&intake, 2, 100 * KIB).unwrap()).collect();
        tokio::time::advance(GRACE).await;
        let honest = charged_by(&intake, 3, 200 * KIB).unwrap();
        stalled[0].revoked().await;
        stalled[1].revoked().await;
        let state = intake.budget.state();
        assert_eq!(state.held, [(1, 100), (2, 400), (3, 200)].map(|(n, kib)| (source(n), kib * KIB)).into());
        assert_eq!(state.arriving.len(), 6);
        drop(state);
        drop((slow, empty, stalled, honest));
        let state = intake.budget.state();
        assert_eq!((state.used, state.held.len()), (0, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn source_that_holds_more_revokes_no_body_of_one_that_holds_less() {
        let intake = Intake::new(1024 * KIB, false);
        let mut complete = charged_by(&intake, 1, 600 * KIB).unwrap();
        complete.arrived().unwrap();
        let mut slow = charged_by(&intake, 2, 100 * KIB).unwrap();
        tokio::time::advance(GRACE).await;
        charged_by(&intake, 1, 100 * KIB).unwrap_err();
        slow.grow_to(101 * KIB).unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn source_is_limited_to_half_while_another_waits() {
        let intake = Intake::new(1024 * KIB, false);
        let complete = |bytes| {
            let mut charge = charged_by(&intake, 1, bytes).unwrap();
            charge.arrived().unwrap();
            charge
        };
        let mut held: Vec<_> = (0..4).map(|_| complete(180 * KIB)).collect();
        charged_by(&intake, 2, 180 * KIB).unwrap_err();
        held.truncate(2);
        charged_by(&intake, 1, 180 * KIB).unwrap_err();
        drop(charged_by(&intake, 2, 180 * KIB).unwrap());
        tokio::time::advance(SHARE_TIME).await;
        held.push(complete(180 * KIB));
        held.clear();
        // The only body of a source may be longer than half.
        charged_by(&intake, 1, 768 * KIB).unwrap();
    }

    /// Returns the head of a request with this number of headers of some 200 bytes.
    fn head(headers: usize) -> Parts {
        let mut request = http::Request::new(());
        for i in 0..headers {
            let name: http::HeaderName = format!("x-{i}").parse().unwrap();
            request.headers_mut().insert(name, "v".repeat(85).parse().unwrap());
        }
        request.into_parts().0
    }

    #[tokio::test(start_paused = true)]
    async fn request_with_a_large_head_waits_for_an_ignored_body_only_while_there_is_room() {
        let endless = || Body::from_stream(futures_util::stream::pending::<Result<Bytes, std::io::Error>>());
        for (headers, budget, waits) in
            [(0, 4 * KIB, true), (9, 4 * KIB, true), (90, 4 * KIB, false), (90, 64 * KIB, true)]
        {
            let (intake, began) = (Intake::new(budget, false), Instant::now());
            ignore(&intake, &head(headers), endless()).await;
            assert_eq!(began.elapsed(), if waits { BODY_TIMEOUT } else { Duration::ZERO }, "{headers} {budget}");
            assert_eq!(intake.budget.state().used, 0);
        }
        let intake = Intake::new(24 * KIB, false);
        let waiting = head(90);
        let (began, newer) = (Instant::now(), async {
            tokio::time::sleep(GRACE).await;
            charged(&intake, 20 * KIB).unwrap()
        });
        let _ = tokio::join!(ignore(&intake, &waiting, endless()), newer);
        assert_eq!(began.elapsed(), GRACE, "another body needed the room");
    }

    #[tokio::test]
    async fn large_head_is_charged_in_addition_to_the_body() {
        let intake = Intake::new(1024 * KIB, false);
        let Parts { uri, headers, .. } = head(50);
        let head = head_bytes(&uri, &headers);
        assert!((7_000..9_000).contains(&head), "{head}");
        let mut charge = charged(&intake, head).unwrap();
        receive(Body::from("abc"), 3, &mut charge).await.unwrap();
        assert_eq!(charge.bytes(), head + 3);
        let chunks = ["abc", "def"].map(|chunk| Ok::<_, std::io::Error>(Bytes::from(chunk)));
        let mut charge = charged(&intake, head).unwrap();
        receive(Body::from_stream(futures_util::stream::iter(chunks)), 6, &mut charge).await.unwrap();
        assert!(charge.bytes() >= head + 6);
    }

    fn source(n: u8) -> Source {
        Source::at([10, 0, 0, n].into())
    }

    fn charged_by(intake: &Intake, n: u8, bytes: usize) -> Result<Charge, NoRoom> {
        let mut charge = intake.charge(source(n));
        charge.grow_to(bytes).map(|()| charge)
    }

    fn charged(intake: &Intake, bytes: usize) -> Result<Charge, NoRoom> {
        let mut charge = intake.charge(Source::default());
        charge.grow_to(bytes).map(|()| charge)
    }
}
