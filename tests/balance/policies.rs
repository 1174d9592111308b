//! Shares of endpoints by policy: statistics with fixed seeds, on tokio's paused clock.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use http::Request;
use http::request::Parts;
use tokio::sync::mpsc;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tower::discover::Change;
use tower::{Service, ServiceExt};
use tower_eureka::balance::{
    AnyResponse, Attributes, Balance, ByLabel, HashKey, LeastRequests, PeakEwma, Policy, Random, RendezvousHash,
    Sticky, WeightedRoundRobin,
};

const SEED: u64 = 5;

/// Responds with its own name after about 5 ms, if it is not slow, and counts concurrent calls.
#[derive(Clone)]
struct Endpoint {
    name: String,
    slowness: u32,
    attributes: Attributes,
    pending: Arc<AtomicUsize>,
    most: Arc<AtomicUsize>,
}

impl Endpoint {
    fn new(name: impl ToString, attributes: Attributes) -> Self {
        Self { name: name.to_string(), slowness: 1, attributes, pending: Arc::default(), most: Arc::default() }
    }
}

impl<Req> Service<Req> for Endpoint {
    type Response = String;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<String, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Req) -> Self::Future {
        let this = self.clone();
        let latency = this.slowness * Duration::from_micros(fastrand::u64(1_000..9_000));
        this.most.fetch_max(this.pending.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
        Box::pin(async move {
            tokio::time::sleep(latency).await;
            this.pending.fetch_sub(1, Ordering::SeqCst);
            Ok(this.name)
        })
    }
}

type Update = Result<Change<String, Endpoint>, Infallible>;

/// Endpoints that the test adds and removes.
struct Fleet<P> {
    balance: Balance<Endpoint, P, AnyResponse>,
    updates: mpsc::UnboundedSender<Update>,
    endpoints: BTreeMap<String, Endpoint>,
}

impl<P> Fleet<P> {
    async fn new(policy: P, endpoints: impl IntoIterator<Item = Endpoint>) -> Self {
        fastrand::seed(SEED);
        let (updates, receiver) = mpsc::unbounded_channel();
        let balance = Balance::builder(UnboundedReceiverStream::new(receiver))
            .attributes(|endpoint: &Endpoint| endpoint.attributes.clone())
            .observer(AnyResponse)
            .policy(policy)
            .build();
        let mut fleet = Self { balance, updates, endpoints: BTreeMap::new() };
        for endpoint in endpoints {
            fleet.insert(endpoint).await;
        }
        fleet
    }

    /// One endpoint for each weight, named by its number.
    async fn weighing(policy: P, weights: &[f32]) -> Self {
        let endpoint = |(i, weight): (usize, &f32)| Endpoint::new(i, Attributes::new().with_weight(*weight));
        Self::new(policy, weights.iter().enumerate().map(endpoint)).await
    }

    async fn insert(&mut self, endpoint: Endpoint) {
        self.updates.send(Ok(Change::Insert(endpoint.name.clone(), endpoint.clone()))).expect("the balancer lives");
        self.endpoints.insert(endpoint.name.clone(), endpoint);
        self.settle().await;
    }

    async fn remove(&mut self, name: &str) {
        self.updates.send(Ok(Change::Remove(name.to_owned()))).expect("the balancer lives");
        self.endpoints.remove(name);
        self.settle().await;
    }

    async fn settle(&self) {
        for _ in 0..100 {
            if self.balance.len() == self.endpoints.len() {
                return;
            }
            tokio::task::yield_now().await;
        }
        panic!("{} endpoints instead of {}", self.balance.len(), self.endpoints.len());
    }

    async fn call<Req>(&self, request: Req) -> Result<String, tower_eureka::Error>
    where
        P: Policy<Req> + Clone,
    {
        self.balance.clone().oneshot(request).await
    }

    /// Endpoints that took this many calls of this many callers, each of which waits for its
    /// responses.
    async fn shares<Req>(&self, callers: usize, calls: usize, request: impl Fn(usize) -> Req) -> BTreeMap<String, usize>
    where
        P: Policy<Req> + Clone + 'static,
        Req: Send + 'static,
    {
        let mut tasks = tokio::task::JoinSet::new();
        for caller in 0..callers {
            let balance = self.balance.clone();
            let requests: Vec<_> = (caller..calls).step_by(callers).map(&request).collect();
            tasks.spawn(async move {
                let mut responses = Vec::new();
                for request in requests {
                    responses.push(balance.clone().oneshot(request).await.expect("no endpoint fails"));
                }
                responses
            });
        }
        let mut shares = BTreeMap::new();
        while let Some(responses) = tasks.join_next().await {
            responses.expect("no call panics").into_iter().for_each(|name| *shares.entry(name).or_default() += 1);
        }
        shares
    }
}

fn request(headers: &[(&str, &str)]) -> Request<()> {
    let mut request = Request::builder();
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(()).expect("names and values are valid")
}

fn keyed(key: impl ToString) -> Request<()> {
    request(&[("x-key", &key.to_string())])
}

fn by_key() -> RendezvousHash {
    RendezvousHash::by_header("x-key")
}

/// Typical weights: a pair, one heavy, all different, and a larger fleet with two sizes of
/// machines.
fn fleets() -> Vec<Vec<f32>> {
    vec![vec![3.0, 1.0], vec![10.0, 1.0, 1.0], vec![1.0, 2.0, 3.0], [1.0, 2.0].into_iter().cycle().take(8).collect()]
}

async fn keeps_weights<P>(name: &str, policy: P)
where
    P: Policy<Request<()>> + Clone + 'static,
{
    // Then 5 % are more than three standard deviations for an endpoint of weight 1.
    const CALLS_PER_WEIGHT: f32 = 4_500.0;
    let mut wrong = Vec::new();
    for weights in fleets() {
        let calls = (CALLS_PER_WEIGHT * weights.iter().sum::<f32>()) as usize;
        for callers in [1, 64] {
            let fleet = Fleet::weighing(policy.clone(), &weights).await;
            let shares = fleet.shares(callers, calls, keyed).await;
            for (i, weight) in weights.iter().enumerate() {
                let share = shares[&i.to_string()] as f32 / (CALLS_PER_WEIGHT * weight);
                if !(0.95..=1.05).contains(&share) {
                    wrong.push(format!("{callers} callers, weights {weights:?}: {i} has {share:.3} of its share"));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{name}, seed {SEED}:\n{}", wrong.join("\n"));
}

#[tokio::test(start_paused = true)]
async fn peak_ewma_keeps_weights() {
    keeps_weights("PeakEwma", PeakEwma).await;
}

#[tokio::test(start_paused = true)]
async fn least_requests_keeps_weights() {
    keeps_weights("LeastRequests", LeastRequests).await;
}

#[tokio::test(start_paused = true)]
async fn round_robin_keeps_weights() {
    keeps_weights("WeightedRoundRobin", WeightedRoundRobin).await;
}

#[tokio::test(start_paused = true)]
async fn random_keeps_weights() {
    keeps_weights("Random", Random).await;
}

#[tokio::test(start_paused = true)]
async fn hash_keeps_weights_over_many_keys() {
    keeps_weights("RendezvousHash", by_key().load_factor(f64::INFINITY)).await;
}

#[tokio::test(start_paused = true)]
async fn wrapping_policies_keep_the_weights_of_the_wrapped_one() {
    let policy = ByLabel::hint().policy(Sticky::default().policy(by_key().policy(WeightedRoundRobin)));
    let fleet = Fleet::weighing(policy, &[3.0, 2.0, 1.0]).await;
    let shares = fleet.shares(8, 600, |_| request(&[])).await;
    assert!(shares.values().eq(&[300, 200, 100]), "{shares:?}");
}

async fn avoids_the_slow<P>(name: &str, policy: P, most: f32)
where
    P: Policy<Request<()>> + Clone + 'static,
{
    const CALLS: usize = 10_000;
    // From 92 % of the weight on, the other endpoints are full for theirs, and the slow one gets
    // the calls that they cannot take: docs/balancing.md.
    let fleets: [(&[f32], usize); 7] = [
        (&[3.0, 1.0], 0),
        (&[3.0, 1.0], 1),
        (&[10.0, 1.0], 0),
        (&[10.0, 1.0, 1.0], 0),
        (&[10.0, 1.0, 1.0], 2),
        (&[1.0, 2.0, 3.0], 2),
        (&[1.0, 2.0, 1.0, 2.0], 1),
    ];
    for (weights, slow) in fleets {
        for callers in [1, 8, 64] {
            let mut fleet = Fleet::new(policy.clone(), []).await;
            for (i, weight) in weights.iter().enumerate() {
                let slowness = if i == slow { 10 } else { 1 };
                fleet.insert(Endpoint { slowness, ..Endpoint::new(i, Attributes::new().with_weight(*weight)) }).await;
            }
            let shares = fleet.shares(callers, CALLS, keyed).await;
            let taken = shares.get(&slow.to_string()).copied().unwrap_or_default();
            let share = taken as f32 / (CALLS as f32 * weights[slow] / weights.iter().sum::<f32>());
            assert!(
                share <= most,
                "{name}, {callers} callers, weights {weights:?}, {slow} slow, seed {SEED}: {share} of its share"
            );
        }
    }
}

#[tokio::test(start_paused = true)]
async fn weights_do_not_send_calls_to_slow_endpoints() {
    avoids_the_slow("PeakEwma", PeakEwma, 0.2).await;
}

#[tokio::test(start_paused = true)]
async fn round_robin_is_exact_and_smooth() {
    for (weights, period) in [(&[3.0, 1.0][..], 4), (&[2.0, 1.0, 1.0], 4), (&[10.0, 20.0, 30.0], 6), (&[1.0; 5], 5)] {
        let fleet = Fleet::weighing(WeightedRoundRobin, weights).await;
        let sum = weights.iter().sum::<f32>();
        let mut order = Vec::new();
        for _ in 0..20 * period {
            order.push(fleet.call(keyed("")).await.unwrap());
        }
        // Over any period, not just from the first call on.
        for window in order.windows(period) {
            for (i, weight) in weights.iter().enumerate() {
                let taken = window.iter().filter(|name| **name == i.to_string()).count() as f32;
                assert_eq!(taken, weight / sum * period as f32, "weights {weights:?}, seed {SEED}: {order:?}");
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn round_robin_has_one_order_for_all_callers() {
    let fleet = Fleet::weighing(WeightedRoundRobin, &[1.0; 7]).await;
    let shares = fleet.shares(64, 7_000, keyed).await;
    assert!(shares.values().all(|calls| *calls == 1_000), "{shares:?}");
    let fleet = Fleet::weighing(WeightedRoundRobin, &[100.0, 1.0, 7.0]).await;
    let shares = fleet.shares(64, 10_800, keyed).await;
    assert!(
        shares.values().zip([10_000_i64, 100, 700]).all(|(calls, of)| (*calls as i64 - of).abs() <= 2),
        "{shares:?}"
    );
}

/// Endpoint of each key.
async fn places<P>(fleet: &Fleet<P>, keys: usize) -> Vec<String>
where
    P: Policy<Request<()>> + Clone,
{
    let mut places = Vec::new();
    for key in 0..keys {
        places.push(fleet.call(keyed(key)).await.expect("no endpoint fails"));
    }
    places
}

#[tokio::test(start_paused = true)]
async fn key_stays_at_its_endpoint() {
    let fleet = Fleet::weighing(by_key(), &[1.0; 10]).await;
    let before = places(&fleet, 500).await;
    assert_eq!(before, places(&fleet, 500).await);
    let another_caller =
        Fleet::weighing(RendezvousHash::by(|r: &Request<()>| Some(r.headers()["x-key"].as_bytes().into())), &[1.0; 10]);
    assert_eq!(before, places(&another_caller.await, 500).await);
}

#[tokio::test(start_paused = true)]
async fn only_the_keys_of_an_added_or_removed_endpoint_move() {
    const KEYS: usize = 4_000;
    for weights in [vec![1.0; 10], (1..=10).map(|weight| weight as f32).collect()] {
        let mut fleet = Fleet::weighing(by_key(), &weights).await;
        let before = places(&fleet, KEYS).await;
        fleet.insert(Endpoint::new("new", Attributes::new().with_weight(weights[4]))).await;
        let with_new = places(&fleet, KEYS).await;
        let moved = before.iter().zip(&with_new).filter(|(before, after)| before != after).count();
        assert!(before.iter().zip(&with_new).all(|(before, after)| before == after || after == "new"));
        let share = KEYS as f32 * weights[4] / (weights.iter().sum::<f32>() + weights[4]);
        assert!((moved as f32 - share).abs() < share * 0.15, "seed {SEED}: {moved} keys moved instead of {share}");
        fleet.remove("new").await;
        assert_eq!(places(&fleet, KEYS).await, before);
        fleet.remove("3").await;
        let without = places(&fleet, KEYS).await;
        assert!(before.iter().zip(&without).all(|(before, after)| before == after || before == "3"));
    }
}

#[tokio::test(start_paused = true)]
async fn equal_weights_hash_like_different_ones() {
    let mut fleet = Fleet::weighing(by_key(), &[1.0; 9]).await;
    let equal = places(&fleet, 2_000).await;
    fleet.insert(Endpoint::new("light", Attributes::new().with_weight(0.001))).await;
    let unequal = places(&fleet, 2_000).await;
    assert!(equal.iter().zip(&unequal).all(|(equal, unequal)| equal == unequal || unequal == "light"));
}

#[tokio::test(start_paused = true)]
async fn busy_key_is_spread_within_the_load_factor() {
    for (factor, weights) in
        [(1.25, vec![1.0; 4]), (2.0, vec![1.0; 8]), (1.25, vec![1.0, 2.0, 3.0, 2.0]), (1.0, vec![1.0; 4])]
    {
        let fleet = Fleet::weighing(by_key().load_factor(factor), &weights).await;
        fleet.shares(64, 5_000, |_| keyed("the only one")).await;
        for (endpoint, weight) in fleet.endpoints.values().zip(&weights) {
            let bound = (factor as f32 * 64.0 * weight / weights.iter().sum::<f32>()).ceil() as usize;
            let most = endpoint.most.load(Ordering::SeqCst);
            assert!(most <= bound, "{factor}, {weights:?}: {} had {most} calls at once, not {bound}", endpoint.name);
        }
    }
    let fleet = Fleet::weighing(by_key().load_factor(f64::INFINITY), &[1.0; 4]).await;
    assert_eq!(fleet.shares(64, 1_000, |_| keyed("the only one")).await.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn one_key_for_all_requests_keeps_one_instance() {
    let mut chosen = Vec::new();
    for caller in 0..20_u64 {
        let own = HashKey::from(caller);
        let same = RendezvousHash::by(move |_: &Request<()>| Some(own)).load_factor(f64::INFINITY);
        let mut fleet = Fleet::weighing(same, &[1.0; 5]).await;
        let only = async |fleet: &Fleet<_>| {
            let shares = fleet.shares(16, 100, keyed).await;
            assert_eq!(shares.len(), 1, "{shares:?}");
            shares.into_keys().next().unwrap()
        };
        let first = only(&fleet).await;
        fleet.remove(&first).await;
        let second = only(&fleet).await;
        assert_ne!(first, second);
        assert_eq!(only(&fleet).await, second);
        fleet.insert(Endpoint::new(&first, Attributes::new())).await;
        assert_eq!(only(&fleet).await, first);
        chosen.push(first);
    }
    chosen.sort_unstable();
    chosen.dedup();
    assert_eq!(chosen.len(), 5, "callers choose apart");
}

#[tokio::test(start_paused = true)]
async fn request_without_key_uses_the_inner_policy() {
    let fleet = Fleet::weighing(by_key().policy(WeightedRoundRobin), &[1.0; 4]).await;
    let shares = fleet.shares(1, 400, |_| request(&[])).await;
    assert!(shares.values().all(|calls| *calls == 100), "{shares:?}");
}

#[tokio::test(start_paused = true)]
async fn parts_of_a_request_hash_like_the_whole_request() {
    let fleet = Fleet::weighing(by_key(), &[1.0; 10]).await;
    let by_parts = Fleet::weighing(
        RendezvousHash::by(|parts: &Parts| Some(parts.headers["x-key"].to_str().ok()?.into())),
        &[1.0; 10],
    )
    .await;
    for key in 0..100 {
        let expected = fleet.call(keyed(key)).await.unwrap();
        assert_eq!(fleet.call(keyed(key).into_parts().0).await.unwrap(), expected);
        assert_eq!(by_parts.call(keyed(key).into_parts().0).await.unwrap(), expected);
    }
}

#[tokio::test(start_paused = true)]
async fn sticky_request_goes_to_its_instance_while_that_takes_calls() {
    let mut fleet = Fleet::weighing(Sticky::default().policy(WeightedRoundRobin), &[1.0; 5]).await;
    let cookie = || request(&[("cookie", "theme=dark; sc-lb-instance-id=3")]);
    let shares = fleet.shares(8, 100, |_| cookie()).await;
    assert_eq!(shares, BTreeMap::from([("3".to_owned(), 100)]));
    fleet.remove("3").await;
    let shares = fleet.shares(1, 100, |_| cookie()).await;
    assert!(shares.len() == 4 && shares.values().all(|calls| *calls == 25), "{shares:?}");

    let by_header = Fleet::weighing(Sticky::by_header("x-instance"), &[1.0; 5]).await;
    assert_eq!(by_header.call(request(&[("x-instance", "4")])).await.unwrap(), "4");
    #[derive(Clone)]
    struct Session(String);
    let by_session = Sticky::by(|parts: &Parts| Some(&*parts.extensions.get::<Session>()?.0));
    let by_extension = Fleet::weighing(by_session, &[1.0; 5]).await;
    let mut parts = request(&[]).into_parts().0;
    parts.extensions.insert(Session("2".to_owned()));
    assert_eq!(by_extension.call(parts).await.unwrap(), "2");
}

fn labelled(name: &str, labels: &[(&str, &str)]) -> Endpoint {
    Endpoint::new(name, Attributes::new().with_labels(labels.iter().map(|(key, value)| (*key, *value))))
}

fn versions() -> [Endpoint; 4] {
    [
        labelled("old", &[("version", "1"), ("hint", "default")]),
        labelled("old too", &[("version", "1")]),
        labelled("new", &[("version", "2"), ("hint", "canary")]),
        labelled("none", &[]),
    ]
}

async fn names<P>(fleet: &Fleet<P>, headers: &[(&str, &str)]) -> Vec<String>
where
    P: Policy<Request<()>> + Clone + 'static,
{
    fleet.shares(4, 200, |_| request(headers)).await.into_keys().collect()
}

#[tokio::test(start_paused = true)]
async fn version_is_preferred_and_all_endpoints_take_the_call_if_none_has_it() {
    let fleet = Fleet::new(ByLabel::version("x-version"), versions()).await;
    assert_eq!(names(&fleet, &[("x-version", "1")]).await, ["old", "old too"]);
    assert_eq!(names(&fleet, &[("x-version", "2")]).await, ["new"]);
    assert_eq!(names(&fleet, &[("x-version", "3")]).await.len(), 4);
    assert_eq!(names(&fleet, &[]).await.len(), 4);
}

#[tokio::test(start_paused = true)]
async fn api_version_is_compared_by_value_and_another_text_as_text() {
    let versions = ["1", "1.0", "v1.0.0", "1.1", "blue"].map(|version| labelled(version, &[("API_VERSION", version)]));
    let mut fleet = Fleet::new(ByLabel::version("x-version").key("API_VERSION").required(), versions).await;
    for version in ["1", "1.0", "v1"] {
        assert_eq!(names(&fleet, &[("x-version", version)]).await, ["1", "1.0", "v1.0.0"], "{version}");
    }
    assert_eq!(names(&fleet, &[("x-version", "1.1.0")]).await, ["1.1"]);
    assert_eq!(names(&fleet, &[("x-version", "blue")]).await, ["blue"]);
    fleet.remove("blue").await;
    for version in ["blue", "2", "1.0.0.0"] {
        let error = fleet.call(request(&[("x-version", version)])).await.unwrap_err();
        assert!(error.to_string().contains(&format!("no endpoint of 4 has API_VERSION={version}")), "{error}");
    }
}

#[tokio::test(start_paused = true)]
async fn policy_is_called_once_for_each_call() {
    let asked = Arc::new(AtomicUsize::new(0));
    let count = asked.clone();
    let every_second = ByLabel::by("version", move |_: &Request<()>| {
        count.fetch_add(1, Ordering::SeqCst).is_multiple_of(2).then_some("2")
    });
    let fleet = Fleet::new(every_second.required(), versions()).await;
    for call in 1..=10 {
        let name = fleet.call(request(&[])).await.unwrap();
        assert!(name == "new" || call % 2 == 0, "{call}: {name}");
        assert_eq!(asked.load(Ordering::SeqCst), call);
    }
}

#[tokio::test(start_paused = true)]
async fn required_version_without_an_endpoint_fails_the_call() {
    let mut fleet = Fleet::new(ByLabel::version("x-version").required(), versions()).await;
    assert_eq!(names(&fleet, &[("x-version", "2")]).await, ["new"]);
    assert_eq!(names(&fleet, &[]).await.len(), 4);
    fleet.remove("new").await;
    let error = fleet.call(request(&[("x-version", "2")])).await.unwrap_err();
    assert!(error.is_no_endpoints(), "{error}");
    fleet.insert(labelled("newer", &[("version", "2")])).await;
    assert_eq!(names(&fleet, &[("x-version", "2")]).await, ["newer"]);
}

#[tokio::test(start_paused = true)]
async fn call_without_a_hint_goes_to_the_default_hint() {
    let fleet = Fleet::new(ByLabel::hint(), versions()).await;
    assert_eq!(names(&fleet, &[("X-SC-LB-Hint", "canary")]).await, ["new"]);
    assert_eq!(names(&fleet, &[]).await, ["old"]);
    assert_eq!(names(&fleet, &[("X-SC-LB-Hint", "Canary")]).await.len(), 4, "values are compared as they are");
}

#[tokio::test(start_paused = true)]
async fn label_and_other_policies_can_be_nested() {
    let outside = ByLabel::version("x-version").policy(Sticky::default().policy(by_key()));
    let inside = Sticky::default().policy(by_key().policy(ByLabel::version("x-version")));
    let outside = Fleet::new(outside, versions()).await;
    let inside = Fleet::new(inside, versions()).await;
    let sticky_to = |name: &str| format!("sc-lb-instance-id={name}");
    for (version, instance, taken) in [("1", "old", "old"), ("2", "old", "new"), ("2", "new", "new")] {
        let headers = [("x-version", version), ("cookie", &*sticky_to(instance))];
        assert_eq!(names(&outside, &headers).await, [taken]);
        assert_eq!(names(&inside, &headers).await, [taken]);
    }
    let keys = |key: &'static str| request(&[("x-version", "1"), ("x-key", key)]);
    for key in ["a", "b", "c", "d"] {
        let place = outside.call(keys(key)).await.unwrap();
        assert!(place.starts_with("old"), "{place}");
        assert_eq!(inside.call(keys(key)).await.unwrap(), place);
    }
}

#[tokio::test(start_paused = true)]
async fn policies_can_be_shared_and_boxed() {
    let policy: Arc<dyn Policy<Request<()>>> = Arc::new(ByLabel::hint().policy(by_key()));
    let fleet = Fleet::new(policy, versions()).await;
    assert_eq!(names(&fleet, &[]).await, ["old"]);
}
