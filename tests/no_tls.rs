//! What is said of `https` URLs where TLS is not built in: nothing of this is in `cargo test --all-features`.
#![cfg(all(feature = "peers", not(feature = "tls")))]

use tower_eureka::{Eureka, EurekaServer};

const URL: &str = "https://host/eureka/";

#[test]
fn a_client_of_a_registry_is_not_built() {
    let error = Eureka::builder().service_url(URL).build().unwrap_err();
    assert!(error.is_config() && error.to_string().contains("switch on the feature `tls`"), "{error}");
}

#[tokio::test]
async fn a_registry_with_a_peer_is_not_built() {
    let error = EurekaServer::builder().peer_url(URL).build().unwrap_err();
    assert!(error.is_config(), "{error}");
    for part in [URL, "switch on the feature `tls`", "peer_http_service()"] {
        assert!(error.to_string().contains(part), "{part} in {error}");
    }
}
