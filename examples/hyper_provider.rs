//! A hyper server, without a framework, that registers itself and leaves cleanly:
//!
//! ```sh
//! SPRING_APPLICATION_NAME=orders cargo run --example hyper_provider --features files
//! ```
//!
//! Needs a registry at `http://localhost:8761/eureka/`, or at
//! `EUREKA_CLIENT_SERVICEURL_DEFAULTZONE`.
//! Reads the environment and the `application.properties` of a Spring application, for example
//! `SPRING_APPLICATION_NAME` and `EUREKA_CLIENT_SERVICEURL_DEFAULTZONE`. At SIGTERM or Ctrl-C it
//! registers as DOWN, drains and deletes its registration. Until then it also serves
//! `/actuator/health` and `/actuator/info`, over HTTP/1.1 and HTTP/2.
#![allow(clippy::print_stderr, reason = "an example prints its errors")]

use std::convert::Infallible;
use std::io;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::sleep;
use tower::{Layer, service_fn};
use tower_eureka::{Eureka, Instance, Settings, shutdown_signal};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let settings = Settings::load()?;
    let listener = TcpListener::bind(settings.listen_address()?).await?;

    let instance = Instance::from_settings(&settings)?.listener(&listener)?.build()?;
    let registrar = Eureka::from_settings(&settings)?.registrar(instance);
    let service = TowerToHyperService::new(registrar.layer().layer(service_fn(hello)));

    // The server: it accepts connections until `stop` completes, and waits for those that are open.
    let server = |mut stop| async move {
        let connections = GracefulShutdown::new();
        loop {
            let stream = tokio::select! {
                stream = accept(&listener) => stream,
                () = &mut stop => break,
            };
            let builder = auto::Builder::new(TokioExecutor::new());
            let connection = builder.serve_connection(TokioIo::new(stream), service.clone()).into_owned();
            let connection = connections.watch(connection);
            tokio::spawn(async move {
                // A client that disconnects is no error of the server.
                let _ = connection.await;
            });
        }
        drop(listener);
        connections.shutdown().await;
        Ok::<_, io::Error>(())
    };
    registrar.serve(shutdown_signal(), server).await?;
    Ok(())
}

/// Accepts the next connection. A failure does not end the server: the client may have gone, or too
/// many files may be open for the moment.
async fn accept(listener: &TcpListener) -> TcpStream {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => return stream,
            Err(error) => eprintln!("cannot accept a connection: {error}"),
        }
        sleep(Duration::from_millis(100)).await;
    }
}

async fn hello(_: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    Ok(Response::new(Full::from("hello\n")))
}
