//! Scope of a request without the feature `peers`: the local region alone.

use std::convert::Infallible;

use axum::extract::FromRequestParts;
use axum::response::{IntoResponse, Response};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, StatusCode};

use crate::model::Instance;
use crate::server::EurekaServer;
use crate::server::response_cache::List;

#[derive(Clone, Copy, Debug)]
pub(super) struct Scope;

impl Scope {
    pub(super) fn of(_: &EurekaServer, _: &HeaderMap, _: Option<&str>) -> Self {
        Self
    }

    pub(super) fn list(self, list: List<'_>) -> Option<List<'_>> {
        Some(list)
    }

    pub(super) fn instance(self, _: &EurekaServer, _: &str, _: &str) -> Option<Instance> {
        None
    }

    pub(super) fn instance_by_id(self, _: &EurekaServer, _: &str) -> Option<Instance> {
        None
    }
}

impl FromRequestParts<EurekaServer> for Scope {
    type Rejection = Infallible;

    async fn from_request_parts(_: &mut Parts, _: &EurekaServer) -> Result<Self, Infallible> {
        Ok(Self)
    }
}

pub(super) fn varies(_: &EurekaServer) -> Option<HeaderValue> {
    None
}

pub(super) fn absent(_: &EurekaServer, _: &str, _: &str) -> Response {
    StatusCode::NOT_FOUND.into_response()
}
