//! Remote regions: their copies are kept apart, and used while the own region has no instance.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::time::sleep;
use tower_eureka::{Eureka, Instance};

use crate::common::{Memory, REFRESH, Reply, SOON, Scripted, delta, down, ids, in_zone, list};

/// Regions beside the own one, in the order in which they are used.
pub(crate) const REMOTE: [&str; 2] = ["us-west-2", "eu-west-1"];

/// Returns instances in the own region and in remote ones.
pub(crate) fn fleet() -> [Instance; 4] {
    [
        in_zone("orders", "own", "us-east-1a"),
        in_zone("orders", "west", "us-west-2b"),
        in_zone("orders", "europe", "eu-west-1a"),
        in_zone("billing", "bill", "eu-west-1b"),
    ]
}

/// Checks the instances of a client that has fetched the [`fleet`], while they leave one region
/// after the other.
pub(crate) async fn uses_regions_in_their_order(client: &Eureka, put: impl Fn(Instance), remove: impl Fn(&str)) {
    assert_eq!((ids(client, "orders"), ids(client, "billing")), (vec!["own".into()], vec!["bill".to_owned()]));
    let snapshot = client.snapshot();
    assert_eq!(snapshot.regions().collect::<Vec<_>>(), ["us-west-2", "eu-west-1"]);
    assert!(snapshot.application("billing").is_none());
    assert_eq!(snapshot.region("eu-west-1").unwrap().applications().count(), 2);
    put(down(&in_zone("orders", "own", "us-east-1a")));
    sleep(REFRESH).await;
    assert_eq!(ids(client, "orders"), ["west"]);
    put(in_zone("orders", "own2", "us-east-1c"));
    sleep(REFRESH).await;
    assert_eq!(ids(client, "orders"), ["own2"]);
    remove("own2");
    remove("west");
    sleep(REFRESH).await;
    assert_eq!(ids(client, "orders"), ["europe"]);
}

#[tokio::test(start_paused = true)]
async fn remote_regions_are_used_in_their_order_while_the_own_one_has_no_instance() {
    let registry = Memory::of(fleet());
    let service = registry.serve();
    let client = service.client().delta(false).regions(REMOTE).build().unwrap();
    let _streams = ["orders", "billing"].map(|name| client.discover(name).unwrap());
    sleep(SOON).await;
    assert_eq!(service.asked()[0].line, "GET /apps/?regions=us-west-2,eu-west-1");
    uses_regions_in_their_order(&client, |instance| registry.put(instance), |id| registry.remove(id)).await;
}

#[tokio::test(start_paused = true)]
async fn region_that_the_server_has_not_fetched_hides_no_instance() {
    let is_fetched = Arc::new(Mutex::new(false));
    let fetched = is_fetched.clone();
    let own = [in_zone("orders", "own", "us-east-1a")];
    let both = [own[0].clone(), in_zone("billing", "bill", "us-west-2a")];
    let service = Scripted::new(move |asked| match (&*asked.line, *fetched.lock().unwrap()) {
        (line, false) if line.contains("regions=") => Reply::Status(403),
        ("GET /apps/", _) => Reply::Json(list(&own)),
        ("GET /apps/delta", _) => Reply::Json(delta(&[], "UP_1_")),
        ("GET /apps/?regions=us-west-2", true) => Reply::Json(list(&both)),
        (_, true) => Reply::Json(delta(&[], "UP_2_")),
        (line, _) => panic!("{line}"),
    });
    let client = service.client().regions(["us-west-2"]).build().unwrap();
    let _orders = client.discover("orders").unwrap();
    sleep(4 * REFRESH).await;
    assert_eq!(ids(&client, "orders"), ["own"]);
    let lines: Vec<_> = service.asked().into_iter().map(|asked| asked.line).collect();
    assert_eq!(lines.iter().filter(|line| *line == "GET /apps/").count(), 1, "then deltas: {lines:?}");
    *is_fetched.lock().unwrap() = true;
    sleep(Duration::from_secs(1000)).await;
    assert_eq!(ids(&client, "billing"), ["bill"]);
}
