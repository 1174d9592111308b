//! The page `/lastn`: last registrations and last ends of leases.

use askama::Template;
use axum::extract::State;
use axum::response::Response;
use http::HeaderMap;

use super::Shared;
use super::respond::{Document, busy, render};
use super::text::{self, Span};
use crate::server::http::{ServerState, http_date};
use crate::server::registry::{End, PastLease};

#[derive(Debug, Template)]
#[template(path = "lastn.html")]
struct LastN {
    root: &'static str,
    cancelled: Vec<Entry>,
    registered: Vec<Entry>,
}

/// Registration, or end of a lease.
#[derive(Debug)]
struct Entry {
    date: String,
    ago: Span,
    app: String,
    id: String,
    kind: &'static str,
}

pub(super) async fn respond(State(page): State<Shared>, headers: HeaderMap) -> Response {
    let server = page.server.clone();
    match page.last.get(move || Document::new(render(&LastN::of(&server)))).await {
        Some(document) => document.respond(&headers),
        None => busy(""),
    }
}

impl LastN {
    fn of(server: &ServerState) -> Self {
        let registry = server.registry();
        let now = server.now().saturating_add(registry.published_ahead());
        let entry = |past: PastLease, kind| Entry {
            date: http_date(past.at),
            ago: Span::millis(now.saturating_sub(past.at)),
            app: text::short(&past.app),
            id: text::short(&past.id),
            kind,
        };
        let end = |(past, end)| {
            let kind = match end {
                End::Cancelled { replicated: false } => "cancelled",
                End::Cancelled { replicated: true } => "cancelled at a peer",
                End::Evicted => "expired",
            };
            entry(past, kind)
        };
        Self {
            root: "",
            cancelled: registry.last_cancelled().into_iter().map(end).collect(),
            registered: registry.last_registered().into_iter().map(|past| entry(past, "registered")).collect(),
        }
    }
}
