//! Deadlines that fire close together: those of a stalled client, and those of calls to a frozen
//! endpoint.

use super::*;

#[tokio::test(start_paused = true)]
async fn deadlines_that_fire_after_a_stall_of_the_client_count_as_one() {
    for stall in [0, 100, 500] {
        let balance = endpoints(2).await;
        for number in [0, 1] {
            respond_at(&balance, number).await;
        }
        let mut calls = Vec::new();
        for _ in 0..200 {
            calls.push(balance.pick(&Request::Hang, &[EndpointId(1)]).unwrap().call(Request::Hang));
            respond_at(&balance, 1).await;
            tokio::time::advance(Duration::from_millis(1)).await;
        }
        tokio::time::advance(Duration::from_millis(150 + stall)).await;
        // Each is dropped for its deadline, which takes the client a while.
        for call in calls {
            drop(call);
            tokio::time::advance(Duration::from_micros(45)).await;
        }
        let snapshot = balance.snapshot();
        assert_eq!(snapshot.count(EndpointState::Available), 2, "{stall} ms: {snapshot}");
    }
}

#[tokio::test(start_paused = true)]
async fn third_deadline_of_a_frozen_endpoint_ejects_it() {
    let balance = endpoints(2).await;
    for number in [0, 1] {
        respond_at(&balance, number).await;
    }
    let mut calls = Vec::new();
    for _ in 0..4 {
        calls.push(balance.pick(&Request::Hang, &[EndpointId(1)]).unwrap().call(Request::Hang));
        respond_at(&balance, 1).await;
        tokio::time::advance(Duration::from_millis(12)).await;
    }
    tokio::time::advance(Duration::from_millis(350)).await;
    for (number, call) in (1..).zip(calls) {
        drop(call);
        let snapshot = balance.snapshot();
        assert_eq!(snapshot.count(EndpointState::Ejected) == 1, number >= 3, "call {number}: {snapshot}");
        tokio::time::advance(Duration::from_millis(12)).await;
    }
}
