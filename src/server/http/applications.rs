//! The lists. `protocol` 2.5.

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::StatusCode;

use super::answer::{self, Accepted};
use super::open::Open;
use super::path::{App, Vip};
use crate::server::{EurekaServer, bodies};

pub(super) async fn all(State(server): State<EurekaServer>, _: Open, Accepted(encoding): Accepted) -> Response {
    answer::json(server.bodies().full(server.registry(), encoding).await, encoding)
}

pub(super) async fn delta(State(server): State<EurekaServer>, _: Open, Accepted(encoding): Accepted) -> Response {
    answer::json(server.bodies().delta(server.registry(), encoding).await, encoding)
}

pub(super) async fn one(
    State(server): State<EurekaServer>,
    _: Open,
    Accepted(encoding): Accepted,
    App(app): App,
) -> Response {
    match server.registry().application(&app) {
        Some(view) => answer::json(bodies::application(&view, encoding), encoding),
        None => StatusCode::NOT_FOUND.into_response(),
    }
}

pub(super) async fn by_vip(
    State(server): State<EurekaServer>,
    _: Open,
    Accepted(encoding): Accepted,
    Vip(vip): Vip,
) -> Response {
    let full = server.registry().full();
    let body = bodies::selection(&full, encoding, |instance| lists(instance.vip_address(), &vip));
    answer::json(body, encoding)
}

pub(super) async fn by_secure_vip(
    State(server): State<EurekaServer>,
    _: Open,
    Accepted(encoding): Accepted,
    Vip(vip): Vip,
) -> Response {
    let full = server.registry().full();
    let body = bodies::selection(&full, encoding, |instance| lists(instance.secure_vip_address(), &vip));
    answer::json(body, encoding)
}

/// Whether the name is one of those in the list, as Java compares: exactly, blanks included.
fn lists(names: Option<&str>, name: &str) -> bool {
    names.is_some_and(|names| names.split(',').any(|n| n == name))
}
