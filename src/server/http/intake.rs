//! Request bodies: received within one budget of bytes, decoded where they do no harm.
//!
//! A body is charged to the budget as its bytes arrive, so an announced length costs nothing. It
//! stays charged until it was decoded and its changes are applied.

use std::collections::BTreeMap;
use std::fmt;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use http_body::Body as _;
use http_body_util::BodyExt;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::offload::Offload;

/// Maximum length of a body that may use all of the budget. Longer ones leave the reserve alone.
const SMALL: usize = 64 * 1024;
/// The reserve for small bodies is the budget divided by this.
const RESERVE: usize = 4;
/// Time that a body may take to arrive while others need its place in the budget.
const GRACE: Duration = Duration::from_secs(2);
/// First buffer of a body that does not arrive at once.
const FIRST_BUFFER: usize = 4 * 1024;
/// Maximum length of a body that is read only to be thrown away.
const IGNORED_BODY_LIMIT: usize = 64 * 1024;

/// Settings and shared limits of the bodies that one server receives.
#[derive(Debug)]
pub(in crate::server) struct Intake {
    budget: Arc<Budget>,
    pub(super) offload: Offload,
    /// True if bodies may be gzip.
    pub(super) gzip: bool,
}

impl Intake {
    /// Default of the budget.
    pub(in crate::server) const DEFAULT_BUDGET: usize = 64 * 1024 * 1024;

    pub(in crate::server) fn new(budget: usize, gzip: bool) -> Self {
        Self { budget: Arc::new(Budget::new(budget)), offload: Offload::default(), gzip }
    }

    /// Longest body that fits into a budget of so many bytes.
    pub(in crate::server) const fn longest_body(budget: usize) -> usize {
        budget - budget / RESERVE
    }

    pub(super) fn charge(&self) -> Charge {
        Charge::new(&self.budget)
    }
}

/// Bytes that all bodies in flight hold at the moment, and their maximum.
#[derive(Debug)]
struct Budget {
    limit: usize,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    used: usize,
    next: u64,
    /// Bodies that are still arriving, the oldest first.
    arriving: BTreeMap<u64, Arriving>,
}

#[derive(Debug)]
struct Arriving {
    bytes: usize,
    since: Instant,
    revoked: Arc<Notify>,
}

impl Budget {
    fn new(limit: usize) -> Self {
        Self { limit, state: Mutex::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Takes its place from the oldest body that has been arriving for longer than [`GRACE`], unless
    /// it is this one. Returns false if there is none.
    ///
    /// So whoever sends slowly, or stops before the end, holds its place only while nobody needs it.
    fn revoke_oldest(&mut self, but: Option<u64>) -> bool {
        let oldest = self.arriving.iter().find(|(id, _)| Some(**id) != but);
        let Some((&id, _)) = oldest.filter(|(_, body)| body.since.elapsed() >= GRACE) else { return false };
        if let Some(body) = self.arriving.remove(&id) {
            self.used -= body.bytes;
            body.revoked.notify_one();
        }
        true
    }
}

/// The budget has no room for more bytes of a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NoRoom {
    /// Others hold them.
    Now,
    /// No body may hold more than this many bytes.
    Ever(usize),
}

/// Share of one body in the budget. Returned when it is dropped.
pub(super) struct Charge {
    budget: Arc<Budget>,
    bytes: usize,
    /// Set while the body arrives, when others can take its place.
    arriving: Option<(u64, Arc<Notify>)>,
}

impl Charge {
    fn new(budget: &Arc<Budget>) -> Self {
        let revoked = Arc::new(Notify::new());
        let mut state = budget.state();
        let id = state.next;
        state.next += 1;
        state.arriving.insert(id, Arriving { bytes: 0, since: Instant::now(), revoked: revoked.clone() });
        drop(state);
        Self { budget: budget.clone(), bytes: 0, arriving: Some((id, revoked)) }
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Maximum number of bytes that a body of more than 64 KiB may hold.
    pub(super) fn ceiling(&self) -> usize {
        Intake::longest_body(self.budget.limit)
    }

    /// Raises the charge to so many bytes.
    pub(super) fn grow_to(&mut self, bytes: usize) -> Result<(), NoRoom> {
        if bytes <= self.bytes {
            return Ok(());
        }
        let (limit, more) = (self.budget.limit, bytes - self.bytes);
        let ceiling = if bytes > SMALL { Intake::longest_body(limit) } else { limit };
        if bytes > ceiling {
            return Err(NoRoom::Ever(ceiling));
        }
        let own = self.arriving.as_ref().map(|&(id, _)| id);
        let mut state = self.budget.state();
        if own.is_some_and(|id| !state.arriving.contains_key(&id)) {
            return Err(NoRoom::Now);
        }
        while state.used > ceiling - more {
            if !state.revoke_oldest(own) {
                return Err(NoRoom::Now);
            }
        }
        state.used += more;
        self.bytes = bytes;
        if let Some(body) = own.and_then(|id| state.arriving.get_mut(&id)) {
            body.bytes = bytes;
        }
        Ok(())
    }

    /// Ends the arrival: from now on nobody takes the place of this body.
    fn arrived(&mut self) -> Result<(), NoRoom> {
        let Some((id, _)) = self.arriving.take() else { return Ok(()) };
        match self.budget.state().arriving.remove(&id) {
            Some(_) => Ok(()),
            None => {
                self.bytes = 0;
                Err(NoRoom::Now)
            }
        }
    }

    /// Waits until others took the place of this body.
    async fn revoked(&self) {
        match &self.arriving {
            Some((_, revoked)) => revoked.notified().await,
            None => std::future::pending().await,
        }
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        let mut state = self.budget.state();
        let held = match &self.arriving {
            Some((id, _)) => state.arriving.remove(id).map_or(0, |body| body.bytes),
            None => self.bytes,
        };
        state.used -= held;
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
    /// It is longer than this many bytes.
    TooLarge(usize),
    NoRoom(NoRoom),
    /// It broke off, or its reader gave up.
    Broken(axum::Error),
}

impl From<NoRoom> for Failure {
    fn from(no_room: NoRoom) -> Self {
        Self::NoRoom(no_room)
    }
}

/// Receives a body of at most `limit` bytes and charges what it holds in memory.
pub(super) async fn receive(body: Body, limit: usize, charge: &mut Charge) -> Result<Bytes, Failure> {
    let announced = body.size_hint();
    if announced.lower() > limit as u64 {
        return Err(Failure::TooLarge(limit));
    }
    let longest = announced.upper().and_then(|upper| usize::try_from(upper).ok()).unwrap_or(limit).min(limit);
    let mut body = pin!(body);
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
            charge.grow_to(length)?;
            charge.arrived()?;
            return Ok(data);
        }
        if length > buffer.capacity() {
            let capacity = length.max(FIRST_BUFFER).max(2 * buffer.capacity()).min(longest.max(length));
            charge.grow_to(capacity)?;
            buffer.reserve_exact(capacity - buffer.len());
        }
        buffer.extend_from_slice(&data);
    }
    charge.arrived()?;
    Ok(buffer.into())
}

/// Reads a body that has no meaning, so that the connection can go on: Jersey clients send `{}` with
/// each heartbeat. Nothing of it is kept.
pub(super) async fn ignore(body: Body) {
    if body.is_end_stream() {
        return;
    }
    let mut body = pin!(body);
    let mut length = 0;
    // Too long or broken, the connection ends, which is all that can be done about it.
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
            let mut charge = intake.charge();
            charge.grow_to(700 * KIB).unwrap();
            charge.grow_to(10).unwrap();
            assert_eq!(intake.budget.state().used, 700 * KIB);
            let mut other = intake.charge();
            other.grow_to(100 * KIB).unwrap_err();
            other.arrived().unwrap();
            charge.arrived().unwrap();
        }
        assert_eq!(intake.budget.state().used, 0);
        assert!(intake.budget.state().arriving.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn large_bodies_leave_a_reserve_to_small_ones() {
        let intake = Intake::new(1024 * KIB, false);
        let mut large = intake.charge();
        large.grow_to(769 * KIB).unwrap_err();
        large.grow_to(768 * KIB).unwrap();
        large.arrived().unwrap();
        let mut medium = intake.charge();
        medium.grow_to(64 * KIB).unwrap();
        medium.grow_to(65 * KIB).unwrap_err();
        let small: Vec<_> = (0..3).map(|_| charged(&intake, 64 * KIB).unwrap()).collect();
        charged(&intake, 1).unwrap_err();
        drop(small);
        charged(&intake, 1).unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn slow_body_gives_way_when_the_budget_is_exhausted() {
        let intake = Intake::new(1024 * KIB, false);
        let mut slow = charged(&intake, 700 * KIB).unwrap();
        charged(&intake, 100 * KIB).unwrap_err();
        tokio::time::advance(GRACE).await;
        // While there is room, it stays.
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
    async fn arrived_body_keeps_its_place() {
        let intake = Intake::new(1024 * KIB, false);
        let mut whole = charged(&intake, 700 * KIB).unwrap();
        whole.arrived().unwrap();
        tokio::time::advance(10 * GRACE).await;
        charged(&intake, 100 * KIB).unwrap_err();
    }

    #[tokio::test(start_paused = true)]
    async fn body_in_small_frames_costs_its_length() {
        let intake = Intake::new(1024 * KIB, false);
        let mut charge = intake.charge();
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
            let received = receive(body, 3, &mut intake.charge()).await;
            assert!(matches!(received, Err(Failure::TooLarge(3))), "{received:?}");
        }
        assert_eq!(&receive(Body::from("abc"), 3, &mut intake.charge()).await.unwrap()[..], b"abc");
    }

    fn charged(intake: &Intake, bytes: usize) -> Result<Charge, NoRoom> {
        let mut charge = intake.charge();
        charge.grow_to(bytes).map(|()| charge)
    }
}
