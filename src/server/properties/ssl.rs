//! Values of `server.ssl.*` that are words.

use super::property::Builder;
use crate::config::{InvalidSetting, Value};
use crate::connect::ClientCertificates;

/// Sets the client certificates that are requested.
pub(super) fn client_auth(builder: Builder, value: &Value) -> Result<Builder, InvalidSetting> {
    let wanted = match &*value.text().to_ascii_lowercase() {
        "none" => ClientCertificates::None,
        "want" => ClientCertificates::Wanted,
        "need" => ClientCertificates::Required,
        _ => return Err(value.invalid("none, want or need")),
    };
    Ok(builder.ssl_with(|ssl| ssl.client_certificates = Some(wanted)))
}

/// Sets the accepted versions of TLS.
pub(super) fn protocols(builder: Builder, value: &Value) -> Result<Builder, InvalidSetting> {
    const EXPECTED: &str = "TLSv1.3, TLSv1.2 or both, since older versions are not supported";
    const VERSIONS: [&str; 2] = ["TLSv1.2", "TLSv1.3"];

    let wanted = value.list();
    let is_known = |name: &&str| VERSIONS.iter().any(|known| known.eq_ignore_ascii_case(name));
    if wanted.is_empty() || !wanted.iter().all(is_known) {
        return Err(value.invalid(EXPECTED));
    }
    let versions = VERSIONS.map(|known| wanted.iter().any(|name| known.eq_ignore_ascii_case(name)));
    Ok(builder.ssl_with(|ssl| ssl.versions = Some(versions)))
}
