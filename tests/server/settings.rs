//! Settings with extreme values.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tower_eureka::EurekaServer;
use tower_eureka::server::Property;

use crate::common::document;

/// Sends a request on a new connection. Returns the response, which is empty if the connection was
/// closed without one.
async fn exchange(address: std::net::SocketAddr, method: &str, path: &str, body: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!(
        "{method} /eureka/{path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut response = String::new();
    let _ = stream.read_to_string(&mut response).await;
    response
}

#[tokio::test]
async fn extreme_number_works_or_is_refused_with_the_name_of_its_setting() {
    let numbers = ["MS", "SECONDS", "COUNT", "BYTES", "PORT"];
    let properties = Property::all().iter().filter(|property| {
        let help = property.to_string();
        numbers.iter().any(|unit| help.contains(&format!(" <{unit}>\n")))
    });
    for property in properties {
        for value in ["0", "1", "18446744073709551615"] {
            let (name, case) = (property.name(), format!("{}={value}", property.name()));
            let built = EurekaServer::builder()
                .property("eureka.client.service-url.defaultZone", "http://127.0.0.1:9/eureka/")
                .and_then(|builder| {
                    builder.property("eureka.server.remote-region-urls-with-name.eu", "http://127.0.0.1:9/")
                })
                .and_then(|builder| builder.property(name, value))
                .and_then(|builder| builder.build());
            let registry = match built {
                Ok(registry) => registry,
                Err(error) => {
                    assert!(error.to_string().contains(name), "{case}: {error}");
                    continue;
                }
            };
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap();
            let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
            let app = registry.service("/eureka");
            let serving = tokio::spawn(registry.listener(listener).serve(app, async { drop(stopped.await) }));
            for (method, path, body) in [
                ("POST", "apps/ORDERS", &*document("i", "UP", 100)),
                ("PUT", "apps/ORDERS/i", ""),
                ("GET", "apps", ""),
                ("GET", "apps/delta", ""),
                ("GET", "status", ""),
                ("DELETE", "apps/ORDERS/i", ""),
            ] {
                let response = exchange(address, method, path, body).await;
                let is_refused_by_design = name.contains("limits.")
                    && ["HTTP/1.1 4", "HTTP/1.1 503", "HTTP/1.1 507"].iter().any(|s| response.starts_with(s));
                let is_closed_by_design = name.contains("-time-ms") && value == "1" && response.is_empty();
                let is_served = ["HTTP/1.1 2", "HTTP/1.1 403", "HTTP/1.1 404"].iter().any(|s| response.starts_with(s));
                assert!(is_served || is_refused_by_design || is_closed_by_design, "{case} {method} {path}: {response}");
            }
            drop(stop);
            serving.await.unwrap();
        }
    }
}
