//! Errors of https URLs in builds without the feature `tls`. `cargo test --all-features` runs none
//! of these tests.
#![cfg(all(feature = "peers", not(feature = "tls")))]

use tower_eureka::server::Peers;
use tower_eureka::{Eureka, EurekaServer};

const URL: &str = "https://host/eureka/";

#[test]
fn client_with_an_https_url_fails_the_build() {
    let error = Eureka::builder().service_url(URL).build().unwrap_err();
    assert!(error.is_config() && error.to_string().contains("switch on the feature `tls`"), "{error}");
}

#[tokio::test]
async fn registry_with_an_https_peer_fails_the_build() {
    let error = EurekaServer::builder().peers(Peers::new().url(URL)).build().unwrap_err();
    assert!(error.is_config(), "{error}");
    for part in [URL, "switch on the feature `tls`", "Peers::http_service()"] {
        assert!(error.to_string().contains(part), "{part} in {error}");
    }
}
