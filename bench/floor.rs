//! Lower bound for a server on hyper: it responds with the bytes of a registry's responses.
//!
//! `floor ADDRESS APPS_FILE APP_FILE [CERTIFICATE KEY]` responds to `/eureka/apps` and `/eureka/apps/{app}` with the
//! files, as gzip, to a PUT with 200, and to a POST with 204 after its body. With PEM files of a
//! certificate and its key it speaks HTTPS.
#![allow(clippy::unwrap_used, reason = "a panic is reported by the script that runs it")]

use std::convert::Infallible;
use std::sync::Arc;

use bytes::Bytes;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

#[tokio::main]
async fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [address, apps, app, tls @ ..] = arguments.as_slice() else {
        panic!("floor ADDRESS APPS_FILE APP_FILE [CERTIFICATE KEY]")
    };
    let (apps, app) = (Bytes::from(std::fs::read(apps).unwrap()), Bytes::from(std::fs::read(app).unwrap()));
    let acceptor = match tls {
        [] => None,
        [certificate, key] => Some(acceptor(certificate, key)),
        _ => panic!("a certificate needs a key"),
    };
    let listener = TcpListener::bind(address).await.unwrap();
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        stream.set_nodelay(true).unwrap();
        let (apps, app, acceptor) = (apps.clone(), app.clone(), acceptor.clone());
        tokio::spawn(async move {
            match acceptor {
                None => serve(stream, apps, app).await,
                Some(acceptor) => {
                    if let Ok(stream) = acceptor.accept(stream).await {
                        serve(stream, apps, app).await;
                    }
                }
            }
        });
    }
}

fn acceptor(certificate: &str, key: &str) -> TlsAcceptor {
    let chain: Result<Vec<_>, _> = CertificateDer::pem_file_iter(certificate).unwrap().collect();
    let key = PrivateKeyDer::from_pem_file(key).unwrap();
    let config = ServerConfig::builder().with_no_client_auth().with_single_cert(chain.unwrap(), key);
    TlsAcceptor::from(Arc::new(config.unwrap()))
}

async fn serve(stream: impl AsyncRead + AsyncWrite + Unpin, apps: Bytes, app: Bytes) {
    let service = service_fn(move |request| respond(request, apps.clone(), app.clone()));
    let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
}

async fn respond(request: Request<Incoming>, apps: Bytes, app: Bytes) -> Result<Response<Full<Bytes>>, Infallible> {
    let mut response = Response::new(Full::default());
    match *request.method() {
        Method::GET => {
            *response.body_mut() = Full::new(if request.uri().path() == "/eureka/apps" { apps } else { app });
            response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
            response.headers_mut().insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        }
        Method::POST => {
            request.into_body().collect().await.unwrap();
            *response.status_mut() = StatusCode::NO_CONTENT;
        }
        _ => {}
    }
    Ok(response)
}
