//! Proxies between the client and its registry servers.

use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tower_eureka::{Eureka, EurekaBuilder};

use crate::common::{list, listen};

/// Proxy that responds itself to each request.
struct Proxy {
    port: u16,
    /// Heads of the requests.
    received: Arc<Mutex<Vec<String>>>,
}

impl Proxy {
    async fn start(response: String) -> Self {
        let (listener, port) = listen().await;
        let received = Arc::<Mutex<Vec<String>>>::default();
        let log = received.clone();
        tokio::spawn(async move {
            while let Ok((mut socket, _)) = listener.accept().await {
                let (log, response) = (log.clone(), response.clone());
                tokio::spawn(async move {
                    let mut head = Vec::new();
                    while let Ok(byte) = socket.read_u8().await {
                        head.push(byte);
                        if head.ends_with(b"\r\n\r\n") {
                            log.lock().unwrap().push(String::from_utf8(std::mem::take(&mut head)).unwrap());
                            socket.write_all(response.as_bytes()).await.unwrap();
                        }
                    }
                });
            }
        });
        Self { port, received }
    }

    async fn working() -> Self {
        let list = list(&[]);
        let head =
            format!("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n", list.len());
        Self::start(head + &list).await
    }

    fn received(&self) -> Vec<String> {
        self.received.lock().unwrap().clone()
    }
}

fn registry() -> EurekaBuilder {
    Eureka::builder().service_url("http://u:p@registry.example:8761/eureka/")
}

#[tokio::test]
async fn plain_request_is_forwarded_with_its_whole_uri_and_both_credentials() {
    let proxy = Proxy::working().await;
    let eureka = registry().proxy(format!("http://me:pa%3Ass@127.0.0.1:{}", proxy.port)).build().unwrap();
    eureka.transport().applications().await.unwrap();
    eureka.transport().applications().await.unwrap();
    let received = proxy.received();
    assert_eq!(received.len(), 2);
    for head in received {
        assert!(head.starts_with("GET http://registry.example:8761/eureka/apps/"), "{head}");
        let head = head.to_lowercase();
        for line in [
            "host: registry.example:8761",
            // "u:p" and "me:pa:ss" in base64
            "authorization: basic dtpw",
            "proxy-authorization: basic bwu6cge6c3m=",
        ] {
            assert!(head.contains(&format!("\r\n{line}\r\n")), "{line} in {head}");
        }
    }
}

#[tokio::test]
async fn server_on_loopback_is_called_without_the_proxy_unless_the_list_of_hosts_is_empty() {
    let (proxy, server) = (Proxy::working().await, Proxy::working().await);
    let builder = || {
        let builder = Eureka::builder().service_url(format!("http://127.0.0.1:{}/eureka/", server.port));
        builder.proxy(format!("me:secret@127.0.0.1:{}", proxy.port))
    };
    builder().build().unwrap().transport().applications().await.unwrap();
    assert_eq!((proxy.received().len(), server.received().len()), (0, 1));
    assert!(!server.received()[0].to_lowercase().contains("proxy-authorization"));
    builder().no_proxy("").build().unwrap().transport().applications().await.unwrap();
    assert_eq!((proxy.received().len(), server.received().len()), (1, 1));
    builder().no_proxy("127.0.0.0/8").build().unwrap().transport().applications().await.unwrap();
    assert_eq!((proxy.received().len(), server.received().len()), (1, 2));
}

#[tokio::test]
async fn failing_proxy_is_an_error_that_names_it_without_its_password() {
    let refusing = Proxy::start("HTTP/1.1 407 Proxy Authentication Required\r\ncontent-length: 0\r\n\r\n".into()).await;
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
    for (port, parts) in [
        (refusing.port, &["407", "credentials of the proxy"][..]),
        (closed, &["the proxy 127.0.0.1:", "unreachable", "refused"]),
    ] {
        let eureka = registry().proxy(format!("http://me:secret@127.0.0.1:{port}")).build().unwrap();
        let error = eureka.transport().applications().await.unwrap_err();
        for part in parts {
            assert!(error.to_string().contains(part), "{part} in {error}");
        }
        assert!(!format!("{error} {error:?} {eureka:?}").contains("secret"), "{error:?}");
    }
}

#[test]
fn unusable_proxy_fails_the_build_without_the_password() {
    for (builder, why) in [
        (registry().proxy("socks5://me:secret@proxy:1080"), "only http:// proxies"),
        (registry().proxy("https://me:secret@proxy:1080"), "cannot use TLS"),
        (registry().proxy("http://me:secret@:1080"), "no host"),
        (
            registry().proxy("http://me:secret@proxy").http_service(crate::common::Scripted::new(|_| unreachable!())),
            "both set",
        ),
    ] {
        let debug = format!("{builder:?}");
        let error = builder.build().unwrap_err();
        assert!(error.is_config() && error.to_string().contains(why), "{error}");
        assert!(!format!("{debug} {error} {error:?}").contains("secret"), "{error:?}");
    }
}
