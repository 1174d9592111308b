//! Extractors of names in the path. They read parameters by name, since the path at which the
//! router is mounted may have parameters of its own.

use std::borrow::Cow;
use std::sync::Arc;

use axum::extract::rejection::RawPathParamsRejection;
use axum::extract::{FromRequestParts, RawPathParams};
use http::request::Parts;

use crate::model::app_name;

/// `{app}` in upper case.
pub(super) struct App(pub(super) Arc<str>);

/// `{id}` of an instance of any application.
pub(super) struct Id(pub(super) Box<str>);

/// `{app}/{id}`
pub(super) struct Target {
    pub(super) app: Arc<str>,
    pub(super) id: Box<str>,
}

/// `{vip}`
pub(super) struct Vip(pub(super) Box<str>);

impl<S: Send + Sync> FromRequestParts<S> for App {
    type Rejection = RawPathParamsRejection;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Self::Rejection> {
        let params = RawPathParams::from_request_parts(parts, state).await?;
        Ok(Self(app_name(innermost(&params, "app"))))
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Id {
    type Rejection = RawPathParamsRejection;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Self::Rejection> {
        let params = RawPathParams::from_request_parts(parts, state).await?;
        Ok(Self(innermost(&params, "id").into()))
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Target {
    type Rejection = RawPathParamsRejection;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Self::Rejection> {
        let params = RawPathParams::from_request_parts(parts, state).await?;
        Ok(Self { app: app_name(innermost(&params, "app")), id: innermost(&params, "id").into() })
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Vip {
    type Rejection = RawPathParamsRejection;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Self::Rejection> {
        let params = RawPathParams::from_request_parts(parts, state).await?;
        Ok(Self(innermost(&params, "vip").into()))
    }
}

/// Returns an application's name in upper case, without an allocation if it already is.
pub(super) fn upper(name: &str) -> Cow<'_, str> {
    if name.bytes().all(|byte| byte.is_ascii() && !byte.is_ascii_lowercase()) {
        Cow::Borrowed(name)
    } else {
        Cow::Owned(app_name(name).to_string())
    }
}

/// Returns the last parameter of this name, which is the one of the registry's own route. Every
/// route has the parameters that its handler extracts.
pub(super) fn innermost<'a>(params: &'a RawPathParams, name: &str) -> &'a str {
    params.iter().filter(|(key, _)| *key == name).last().map_or("", |(_, value)| value)
}
