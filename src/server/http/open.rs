use axum::extract::FromRequestParts;
use http::StatusCode;
use http::request::Parts;

use crate::server::EurekaServer;

/// Lists are answered; else 403, with which Java clients go to the next server. `server-behaviour` 9.4.
///
/// Registrations, heartbeats and single instances don't ask for this: a node that has nothing yet collects them.
pub(super) struct Open;

impl FromRequestParts<EurekaServer> for Open {
    type Rejection = StatusCode;

    async fn from_request_parts(_: &mut Parts, server: &EurekaServer) -> Result<Self, StatusCode> {
        if server.is_open() { Ok(Self) } else { Err(StatusCode::FORBIDDEN) }
    }
}
