//! Minimal HTTP/1.1 client of the load generator: one request at a time, bodies are discarded.
//!
//! With the variable `TLS_CA`, a PEM file, it speaks HTTPS. The variable `AUTHORIZATION` is sent as
//! that header.

use std::io;
use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

pub(crate) struct Connection {
    address: String,
    stream: Box<dyn Stream>,
    buffer: Vec<u8>,
}

pub(crate) struct Response {
    pub(crate) status: u16,
}

impl Connection {
    pub(crate) async fn open(address: &str) -> io::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let stream: Box<dyn Stream> = match std::env::var("TLS_CA") {
            Err(_) => Box::new(stream),
            Ok(file) => {
                let mut roots = RootCertStore::empty();
                roots.add(CertificateDer::from_pem_file(file).unwrap()).unwrap();
                let config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
                let connector = TlsConnector::from(Arc::new(config));
                Box::new(connector.connect("localhost".try_into().unwrap(), stream).await?)
            }
        };
        Ok(Self { address: address.into(), stream, buffer: Vec::with_capacity(256 * 1024) })
    }

    pub(crate) async fn send(&mut self, method: &str, path: &str, body: &str) -> io::Result<Response> {
        self.send_as(std::env::var("AUTHORIZATION").ok().as_deref(), method, path, body).await
    }

    /// Sends a request with these credentials.
    pub(crate) async fn send_as(
        &mut self,
        credentials: Option<&str>,
        method: &str,
        path: &str,
        body: &str,
    ) -> io::Result<Response> {
        let mut request =
            format!("{method} {path} HTTP/1.1\r\nhost: x\r\naccept: application/json\r\naccept-encoding: gzip\r\n");
        if let Some(credentials) = credentials {
            request += &format!("authorization: {credentials}\r\n");
        }
        if !body.is_empty() {
            request += &format!("content-type: application/json\r\ncontent-length: {}\r\n", body.len());
        }
        request += "\r\n";
        request += body;
        self.stream.write_all(request.as_bytes()).await?;

        self.buffer.clear();
        let head = loop {
            if self.stream.read_buf(&mut self.buffer).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            if let Some(end) = self.buffer.windows(4).position(|window| window == b"\r\n\r\n") {
                break end + 4;
            }
        };
        let text = String::from_utf8_lossy(&self.buffer[..head]).to_ascii_lowercase();
        let close = text.contains("\r\nconnection: close");
        let status = text.get(9..12).and_then(|code| code.parse().ok()).ok_or(io::ErrorKind::InvalidData)?;
        let mut seen = self.buffer.len() - head;
        if text.contains("\r\ntransfer-encoding: chunked") {
            // Responses of Spring end with the last chunk.
            while !self.buffer.ends_with(b"0\r\n\r\n") {
                let keep = self.buffer.len().saturating_sub(8);
                self.buffer.drain(..keep);
                self.read().await?;
            }
        } else {
            let length = text.lines().find_map(|line| line.strip_prefix("content-length: ")?.trim().parse().ok());
            let length: usize = length.unwrap_or(0);
            while seen < length {
                self.buffer.clear();
                seen += self.read().await?;
            }
        }
        if close {
            // Tomcat closes a connection after a hundred requests.
            *self = Self::open(&self.address).await?;
        }
        Ok(Response { status })
    }

    async fn read(&mut self) -> io::Result<usize> {
        match self.stream.read_buf(&mut self.buffer).await? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            read => Ok(read),
        }
    }
}
