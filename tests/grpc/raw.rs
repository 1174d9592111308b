//! What HTTP/2 itself can say to a call: streams that are reset, connections that are at their end.

use std::convert::Infallible;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tonic::Code;

use crate::world::{Does, Stub, World, check, source};

/// Speaks just enough HTTP/2 to answer each request with these bytes, given the id of its stream.
async fn raw(world: &World, answer: fn([u8; 4]) -> Vec<u8>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    world.register("raw", listener.local_addr().unwrap().port()).await;
    tokio::spawn(async move {
        loop {
            let (socket, _) = listener.accept().await.unwrap();
            tokio::spawn(converse(socket, answer));
        }
    });
}

async fn converse(mut socket: TcpStream, answer: fn([u8; 4]) -> Vec<u8>) -> std::io::Result<Infallible> {
    const HEADERS: u8 = 1;
    let (settings, mut preface) = ([0, 0, 0, 4, 0, 0, 0, 0, 0], [0; 24]);
    socket.write_all(&settings).await?;
    socket.read_exact(&mut preface).await?;
    loop {
        let mut head = [0; 9];
        socket.read_exact(&mut head).await?;
        let [a, b, c, kind, _, stream @ ..] = head;
        let mut payload = vec![0; u32::from_be_bytes([0, a, b, c]) as usize];
        socket.read_exact(&mut payload).await?;
        if kind == HEADERS {
            socket.write_all(&answer(stream)).await?;
        }
    }
}

fn reset([a, b, c, d]: [u8; 4], reason: u8) -> Vec<u8> {
    vec![0, 0, 4, 3, 0, a, b, c, d, 0, 0, 0, reason]
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
        raw(&world, answer).await;
        let status = check(&mut world.client()).await.unwrap_err();
        assert_eq!(status.code(), code, "{status}");
        assert_eq!((source(&status).is_unprocessed(), source(&status).is_connect()), (unprocessed, false), "{status}");
    }
}

#[tokio::test]
async fn what_was_refused_unprocessed_goes_elsewhere() {
    for answer in [|stream| reset(stream, 0x7), go_away as fn([u8; 4]) -> Vec<u8>] {
        let world = World::new().await;
        raw(&world, answer).await;
        let _good = world.serve(Stub::new("good", Does::Serve)).await;
        world.sees(2).await;
        let mut client = world.client();
        for _ in 0..20 {
            assert_eq!(check(&mut client).await.unwrap(), "good");
        }
    }
}
