//! Calls whose stream is reset, or whose connection ends.

use tonic::Code;

use crate::raw_http2::{raw, reset};
use crate::world::{Does, Stub, World, check, source};

/// Registers an instance that responds to each request with these bytes.
async fn serve(world: &World, respond: fn([u8; 4]) -> Vec<u8>) {
    let (port, _) = raw(move |_, stream| respond(stream)).await;
    world.register("raw", port).await;
}

/// GOAWAY frame without an error, with no stream processed.
fn go_away(_: [u8; 4]) -> Vec<u8> {
    vec![0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]
}

#[tokio::test]
async fn reset_stream_fails_with_the_code_of_its_reason() {
    type Respond = fn([u8; 4]) -> Vec<u8>;
    let cases: [(Respond, Code, bool); 4] = [
        (|stream| reset(stream, 0x2), Code::Internal, false),
        (|stream| reset(stream, 0x8), Code::Cancelled, false),
        (|stream| reset(stream, 0x7), Code::Unavailable, true),
        (go_away, Code::Unavailable, true),
    ];
    for (respond, code, unprocessed) in cases {
        let world = World::new().await;
        serve(&world, respond).await;
        let status = check(&mut world.client()).await.unwrap_err();
        assert_eq!(status.code(), code, "{status}");
        assert_eq!((source(&status).is_unprocessed(), source(&status).is_connect()), (unprocessed, false), "{status}");
    }
}

#[tokio::test]
async fn unprocessed_call_is_sent_to_another_instance() {
    for respond in [|stream| reset(stream, 0x7), go_away as fn([u8; 4]) -> Vec<u8>] {
        let world = World::new().await;
        serve(&world, respond).await;
        let _good = world.serve(Stub::new("good", Does::Serve)).await;
        world.sees(2).await;
        let mut client = world.client();
        for _ in 0..20 {
            assert_eq!(check(&mut client).await.unwrap(), "good");
        }
    }
}
