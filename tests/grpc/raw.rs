//! What HTTP/2 itself can say to a call: streams that are reset, connections that are at their end.

use tonic::Code;

use crate::raw_http2::{raw, reset};
use crate::world::{Does, Stub, World, check, source};

/// Registers an instance that responds to each request with these bytes, given the id of its stream.
async fn serve(world: &World, answer: fn([u8; 4]) -> Vec<u8>) {
    let (port, _) = raw(move |_, stream| answer(stream)).await;
    world.register("raw", port).await;
}

/// GOAWAY without an error, after which no stream was processed.
fn go_away(_: [u8; 4]) -> Vec<u8> {
    vec![0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]
}

#[tokio::test]
async fn the_reason_of_a_reset_is_the_code() {
    type Answer = fn([u8; 4]) -> Vec<u8>;
    let answers: [(Answer, Code, bool); 4] = [
        (|stream| reset(stream, 0x2), Code::Internal, false),
        (|stream| reset(stream, 0x8), Code::Cancelled, false),
        (|stream| reset(stream, 0x7), Code::Unavailable, true),
        (go_away, Code::Unavailable, true),
    ];
    for (answer, code, unprocessed) in answers {
        let world = World::new().await;
        serve(&world, answer).await;
        let status = check(&mut world.client()).await.unwrap_err();
        assert_eq!(status.code(), code, "{status}");
        assert_eq!((source(&status).is_unprocessed(), source(&status).is_connect()), (unprocessed, false), "{status}");
    }
}

#[tokio::test]
async fn what_was_refused_unprocessed_goes_elsewhere() {
    for answer in [|stream| reset(stream, 0x7), go_away as fn([u8; 4]) -> Vec<u8>] {
        let world = World::new().await;
        serve(&world, answer).await;
        let _good = world.serve(Stub::new("good", Does::Serve)).await;
        world.sees(2).await;
        let mut client = world.client();
        for _ in 0..20 {
            assert_eq!(check(&mut client).await.unwrap(), "good");
        }
    }
}
