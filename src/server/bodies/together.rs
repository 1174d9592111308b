//! Lists that show other regions beside the registry. `server-behaviour` 7.4.
//!
//! Nearly all clients see the same regions, those that are shown to who names none. The others share what is left: their answers are
//! made one at a time, so that whoever names ever other regions keeps no more than one core busy, and are kept for the last few choices.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::OwnedMutexGuard;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use super::form::PerVariant;
use super::lately::Lately;
use super::slot::Slot;
use super::tag::Kind;
use crate::server::regions::{RegionSet, Regions, Union};
use crate::server::registry::{AppView, Registry, Snapshot};
use crate::sync::Mutex;

/// What nobody has asked for is kept for so long, and for up to half as long again.
const IDLE: Duration = Duration::from_secs(300);

/// The answers about several regions that were asked for.
#[derive(Debug)]
pub(super) struct Together {
    regions: Arc<Regions>,
    /// What those see who name no regions. It stays, whatever others ask for.
    usual: Arc<Shown>,
    others: Arc<Mutex<Lately<Arc<Shown>>>>,
    /// Held while an answer about others is made.
    turn: Arc<tokio::sync::Mutex<()>>,
    _tasks: JoinSet<()>,
}

/// What some of the regions show together with the registry.
#[derive(Debug)]
pub(super) struct Shown {
    regions: Arc<Regions>,
    pub(super) set: RegionSet,
    full: Arc<PerVariant<Slot>>,
    delta: Arc<PerVariant<Slot>>,
    /// The state of which the latest answers are, for those in other forms.
    latest: Mutex<Option<Arc<Union>>>,
}

/// One of the two lists that show it.
#[derive(Clone, Copy, Debug)]
pub(super) enum Part {
    Full,
    Delta,
}

impl Together {
    /// Must be called inside a tokio runtime.
    pub(super) fn new(regions: Arc<Regions>) -> Self {
        let usual = Shown::new(&regions, regions.fallback());
        let others = Arc::<Mutex<Lately<_>>>::default();
        let mut tasks = JoinSet::new();
        tasks.spawn(forget_idle(others.clone()));
        Self { regions, usual, others, turn: Arc::default(), _tasks: tasks }
    }

    /// What those see who name no regions; `None` if that is the registry alone.
    pub(super) fn usual(&self) -> Option<Arc<Shown>> {
        (!self.usual.set.is_empty()).then(|| self.usual.clone())
    }

    /// What an answer about these regions has to show now, at least.
    pub(super) fn revision(&self, registry: &Registry, set: RegionSet, part: Part) -> u64 {
        match part {
            Part::Full => self.regions.revision(registry, set),
            Part::Delta => self.regions.delta_revision(registry, set),
        }
    }

    /// What is kept of these regions.
    pub(super) fn known(&self, set: RegionSet) -> Option<Arc<Shown>> {
        if set == self.usual.set { Some(self.usual.clone()) } else { self.others.lock().get(set).cloned() }
    }

    /// The room for the answers about these regions, with the turn to make one, if that needs one.
    ///
    /// Room is made when it is one's turn: who waits for it holds none.
    pub(super) async fn of(&self, set: RegionSet) -> (Arc<Shown>, Option<OwnedMutexGuard<()>>) {
        if set == self.usual.set {
            return (self.usual.clone(), None);
        }
        let turn = self.turn.clone().lock_owned().await;
        let shown = self.others.lock().get_or_insert_with(set, || Shown::new(&self.regions, set)).clone();
        (shown, Some(turn))
    }

    /// An application that is not registered here.
    pub(super) fn application(&self, name: &str) -> Option<Arc<AppView>> {
        self.regions.application(name)
    }
}

impl Shown {
    fn new(regions: &Arc<Regions>, set: RegionSet) -> Arc<Self> {
        let regions = regions.clone();
        Arc::new(Self { regions, set, full: Arc::default(), delta: Arc::default(), latest: Mutex::default() })
    }

    pub(super) fn slots(&self, part: Part) -> &Arc<PerVariant<Slot>> {
        match part {
            Part::Full => &self.full,
            Part::Delta => &self.delta,
        }
    }

    /// The state now. What of it is encoded stays as long as it does not change.
    pub(super) fn snapshot(&self, registry: &Registry, part: Part) -> Arc<Snapshot> {
        let mut latest = self.latest.lock();
        let union = self.regions.union(registry, self.set, latest.take());
        let union = latest.insert(union);
        match part {
            Part::Full => union.full.clone(),
            Part::Delta => union.delta.clone(),
        }
    }
}

impl Part {
    pub(super) fn kind(self, set: RegionSet) -> Kind {
        match self {
            Self::Full => Kind::RegistryWith(set),
            Self::Delta => Kind::DeltaWith(set),
        }
    }
}

async fn forget_idle(others: Arc<Mutex<Lately<Arc<Shown>>>>) {
    loop {
        sleep(IDLE / 2).await;
        if let Some(then) = Instant::now().checked_sub(IDLE) {
            others.lock().forget_before(then);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::{Future, poll_fn};
    use std::pin::{Pin, pin};
    use std::task::Poll;

    use tokio::sync::oneshot;
    use tokio::task::spawn_blocking;

    use super::*;
    use crate::EurekaServer;
    use crate::clock::Clock;
    use crate::model::Instance;
    use crate::server::bodies::{Bodies, Encoding, Form, List, Variant};
    use crate::server::registry::{Origin, Settings};
    use crate::server::unsent::Unsent;

    fn regions() -> Arc<Regions> {
        let names = ["a", "b", "c", "d", "e"];
        let builder = names.iter().fold(EurekaServer::builder(), |b, name| b.remote_region(name, "http://nowhere/"));
        Regions::new(&builder.regions, &builder.peers).unwrap().unwrap()
    }

    fn together() -> Together {
        Together::new(regions())
    }

    async fn is_pending(future: Pin<&mut impl Future>) -> bool {
        let mut future = Some(future);
        poll_fn(|cx| Poll::Ready(future.take().expect("polled once").poll(cx).is_pending())).await
    }

    #[tokio::test]
    async fn the_usual_choice_of_regions_stays_whatever_others_ask_for() {
        let together = together();
        let all = together.regions.fallback();
        let (usual, first) = (together.known(all).unwrap(), together.of(RegionSet::of(1)).await.0);
        for choice in (2..31).map(RegionSet::of) {
            assert!(together.known(choice).is_none());
            together.of(choice).await;
            assert!(together.known(choice).is_some());
        }
        assert!(Arc::ptr_eq(&together.of(all).await.0, &usual));
        assert!(!Arc::ptr_eq(&together.of(RegionSet::of(1)).await.0, &first), "many others were asked for since");
    }

    #[tokio::test(start_paused = true)]
    async fn choices_that_nobody_asks_for_are_forgotten() {
        let together = together();
        let [idle, busy] = [1, 2].map(RegionSet::of);
        for choice in [idle, busy] {
            together.of(choice).await;
        }
        for _ in 0..8 {
            assert!(together.known(busy).is_some());
            sleep(Duration::from_secs(60)).await;
        }
        assert!(together.known(idle).is_none() && together.known(busy).is_some());
    }

    #[tokio::test]
    async fn who_waits_for_a_turn_has_no_room_yet() {
        let together = together();
        let (_, turn) = together.of(RegionSet::of(1)).await;
        assert!(turn.is_some());
        assert!(together.of(together.regions.fallback()).await.1.is_none(), "the usual choice waits for nobody");
        let mut next = pin!(together.of(RegionSet::of(2)));
        assert!(is_pending(next.as_mut()).await);
        assert!(together.known(RegionSet::of(2)).is_none());
        drop(turn);
        next.await;
    }

    #[tokio::test]
    async fn of_all_but_the_usual_one_answer_is_made_at_a_time() {
        let bodies = Bodies::new(None, Clock::start(), Arc::new(Unsent::new(usize::MAX))).with_regions(regions());
        let (together, registry) = (bodies.together().unwrap(), Arc::new(Registry::new(Settings::default())));
        let get = async |choice| {
            let variant = Variant { form: Form::Json, encoding: Encoding::Gzip };
            bodies.get(&registry, &List::AllWith(choice), variant).await.unwrap().unwrap()
        };
        let [first, second] = [1, 2].map(RegionSet::of);
        get(second).await;
        let room = together.of(first).await.0;
        let ((begins, begun), (finish, finishes)) = (oneshot::channel(), std::sync::mpsc::channel());
        let held = spawn_blocking(move || {
            let _latest = room.latest.lock();
            begins.send(()).unwrap();
            finishes.recv().unwrap();
        });
        begun.await.unwrap();
        assert!(is_pending(pin!(get(first))).await);
        get(second).await;
        get(together.regions.fallback()).await;
        let mut third = pin!(get(RegionSet::of(3)));
        assert!(is_pending(third.as_mut()).await && together.turn.try_lock().is_err(), "though nobody waits any more");
        finish.send(()).unwrap();
        third.await;
        held.await.unwrap();
    }

    #[tokio::test]
    async fn who_waited_for_a_turn_needs_no_newer_answer_than_when_he_asked() {
        let bodies = Bodies::new(None, Clock::start(), Arc::new(Unsent::new(usize::MAX))).with_regions(regions());
        let (together, registry) = (bodies.together().unwrap(), Arc::new(Registry::new(Settings::default())));
        let get = async || {
            let variant = Variant { form: Form::Json, encoding: Encoding::Gzip };
            bodies.get(&registry, &List::AllWith(RegionSet::of(1)), variant).await.unwrap().unwrap()
        };
        let turn = together.of(RegionSet::of(2)).await.1;
        let (mut first, mut second) = (pin!(get()), pin!(get()));
        assert!(is_pending(first.as_mut()).await && is_pending(second.as_mut()).await);
        drop(turn);
        let made = first.await;
        let instance = Instance::builder("A").id("1").ip_addr("10.0.0.1").port(80).build().unwrap();
        registry.register(instance, Origin::Client, 1).unwrap();
        assert!(Arc::ptr_eq(&second.await, &made));
        assert!(!Arc::ptr_eq(&get().await, &made));
    }
}
