//! The lists. `protocol` 2.5.

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::StatusCode;

use super::answer::Listing;
use super::etag::Kind;
use super::path::{App, Vip};
use crate::server::bodies::By;
use crate::server::{EurekaServer, bodies};

pub(super) async fn all(State(server): State<EurekaServer>, listing: Listing) -> Response {
    let registry = server.registry();
    let body = server.bodies().full(registry, listing.variant());
    listing.answer(&server, Kind::Registry, registry.revision(), body).await
}

pub(super) async fn delta(State(server): State<EurekaServer>, listing: Listing) -> Response {
    let registry = server.registry();
    let body = server.bodies().delta(registry, listing.variant());
    listing.answer(&server, Kind::Delta, registry.delta_revision(), body).await
}

pub(super) async fn one(State(server): State<EurekaServer>, listing: Listing, App(app): App) -> Response {
    let Some(view) = server.registry().application(&app) else { return StatusCode::NOT_FOUND.into_response() };
    let body = bodies::application(&view, listing.variant());
    listing.answer(&server, Kind::Application, view.blocks.number(), body).await
}

pub(super) async fn by_vip(State(server): State<EurekaServer>, listing: Listing, Vip(vip): Vip) -> Response {
    selection(&server, listing, By::Vip, &vip).await
}

pub(super) async fn by_secure_vip(State(server): State<EurekaServer>, listing: Listing, Vip(vip): Vip) -> Response {
    selection(&server, listing, By::SecureVip, &vip).await
}

async fn selection(server: &EurekaServer, listing: Listing, by: By, name: &str) -> Response {
    let registry = server.registry();
    let body = server.bodies().selection(registry, by, name, listing.variant());
    listing.answer(server, Kind::Registry, registry.revision(), body).await
}
