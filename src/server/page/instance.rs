//! The page of an instance: details, the reason why it is here, and forms.

use askama::Template;
use axum::Extension;
use axum::extract::State;
use axum::response::Response;
use http::header::SET_COOKIE;
use http::{HeaderMap, StatusCode, Uri};

use super::actions::Action;
use super::explanation::{self, Facts};
use super::forms::Token;
use super::row::{class, left};
use super::text::{self, Span};
use super::{Shared, respond};
use crate::config::masked_metadata;
use crate::model::{Instance, InstanceStatus, app_name, shown_address};
use crate::server::access::{Identity, Role};
use crate::server::http::{http_date, pairs};
use crate::server::registry::LeaseState;

/// Path from the page of an instance to `/`.
pub(super) const ROOT: &str = "../";

#[derive(Debug, Template)]
#[template(path = "instance.html")]
struct Details {
    root: &'static str,
    app: String,
    id: String,
    /// Query that names the instance. The forms send it as part of their address, since browsers
    /// change line breaks in other values.
    query: String,
    status: InstanceStatus,
    class: &'static str,
    is_overridden: bool,
    why: Vec<String>,
    facts: Vec<(&'static str, String)>,
    links: Vec<(&'static str, String)>,
    metadata: Vec<(String, String)>,
    /// The registry keeps OUT_OF_SERVICE without an override, which only an override UP changes.
    is_kept_out: bool,
    /// Token of the forms. `None` if the caller may not act.
    token: Option<String>,
    done: Option<&'static str>,
}

/// Parameters that name an instance.
#[derive(Debug, Default)]
pub(super) struct Target {
    pub(super) app: String,
    pub(super) id: String,
    /// Action that has just been done.
    done: Option<Action>,
}

impl Target {
    pub(super) fn parse(query: Option<&str>) -> Self {
        let mut target = Self::default();
        for (name, value) in pairs(query) {
            match &*name {
                "app" => target.app = app_name(&value).to_string(),
                "id" => target.id = value.into_owned(),
                "done" => target.done = Action::of(&value),
                _ => {}
            }
        }
        target
    }
}

pub(super) async fn respond(
    State(page): State<Shared>,
    identity: Option<Extension<Identity>>,
    uri: Uri,
    headers: HeaderMap,
) -> Response {
    let target = Target::parse(uri.query());
    let registry = page.server.registry();
    let Some(lease) = registry.lease_state(&target.app, &target.id) else { return unknown(&target) };
    let settings = registry.settings();
    let facts = Facts {
        now: page.server.now(),
        eviction_interval_ms: settings.eviction_interval.as_millis().try_into().unwrap_or(i64::MAX),
        eviction_limit: registry.eviction_limit(),
        lease_doubling: settings.lease_doubling,
    };
    let may_act = page.server.access().is_none() || identity.is_some_and(|Extension(caller)| caller.has(Role::Operate));
    let known = Token::of(&headers).filter(|_| may_act);
    // Without random numbers there are no forms.
    let create = || {
        Token::new().inspect_err(|error| tracing::warn!(%error, "cannot create a token: the page has no forms")).ok()
    };
    let token = if may_act { known.clone().or_else(create) } else { None };
    let details = Details {
        token: token.as_ref().map(|token| token.as_str().to_owned()),
        done: target.done.and_then(|action| action.notice(&lease.instance)),
        ..details(&lease, facts)
    };
    let mut response = respond::rendered(StatusCode::OK, &details);
    if let (None, Some(token)) = (known, token) {
        response.headers_mut().insert(SET_COOKIE, token.cookie(&uri));
    }
    response
}

/// Redirects an operator to the page of an instance. All other callers get the 401 that makes a
/// browser ask for a password, since reading alone may need none.
pub(super) async fn login(uri: Uri) -> Response {
    let target = Target::parse(uri.query());
    respond::redirect(&format!("instance?{}", text::query_of(&target.app, &target.id)))
}

/// Returns the 404 for an instance that is not registered.
pub(super) fn unknown(target: &Target) -> Response {
    let (app, id) = (text::short(&target.app), text::short(&target.id));
    let text = match (&*app, &*id) {
        ("", _) | (_, "") => "The address names no instance: it needs the parameters app and id.".to_owned(),
        _ => format!(
            "{app} has no instance {id}. It may have been cancelled or evicted: see the last cancelled leases. Its next \
             heartbeat registers it again."
        ),
    };
    respond::message(StatusCode::NOT_FOUND, ROOT, "No such instance", &text)
}

fn details(lease: &LeaseState, facts: Facts) -> Details {
    let instance = &lease.instance;
    let urls = [
        ("status page", instance.status_page_url()),
        ("home page", instance.home_page_url()),
        ("health check", instance.health_check_url()),
        ("secure health check", instance.secure_health_check_url()),
    ];
    let links = urls.into_iter().filter_map(|(name, url)| Some((name, text::link(url)?)));
    let metadata = instance.metadata().iter();
    let metadata = metadata.map(|(key, value)| (text::visible(key), text::visible(&masked_metadata(key, value))));
    let is_overridden = instance.overridden_status() != InstanceStatus::Unknown;
    Details {
        root: ROOT,
        app: text::short(instance.app()),
        id: text::visible(instance.id()),
        query: text::query_of(instance.app(), instance.id()),
        status: instance.status(),
        class: class(instance.status()),
        is_overridden,
        is_kept_out: !is_overridden && instance.status() == InstanceStatus::OutOfService,
        why: explanation::sentences(lease, facts),
        facts: lines(instance, lease, facts.now),
        links: links.collect(),
        metadata: metadata.collect(),
        token: None,
        done: None,
    }
}

/// Returns names and values of the details.
fn lines(instance: &Instance, lease: &LeaseState, now: i64) -> Vec<(&'static str, String)> {
    let text = |text: Option<&str>| text.map(text::visible);
    let overridden = Some(instance.overridden_status()).filter(|status| *status != InstanceStatus::Unknown);
    let ago = |at: i64| format!("{} ago", Span::millis(now.saturating_sub(at)));
    let registered = ago(lease.registered_at);
    let registered = if lease.is_copy { format!("copied from a peer {registered}") } else { registered };
    let lines = [
        ("Application", text(Some(instance.app()))),
        ("Instance id", text(Some(instance.id()))),
        ("Status", Some(instance.status().to_string())),
        ("Override", overridden.map(|status| status.to_string())),
        ("Zone", text(instance.zone())),
        ("Version", text(instance.metadata().get("version"))),
        ("Address", Some(shown_address(instance))),
        ("Host name", text(instance.host_name())),
        ("IP address", text(instance.ip_addr())),
        ("VIP address", text(instance.vip_address())),
        ("Secure VIP address", text(instance.secure_vip_address())),
        ("Registered", Some(registered)),
        ("Registered from", Some(lease.registrant.to_string())),
        ("Last heartbeat", Some(if lease.is_renewed() { ago(lease.renewed_at) } else { "none yet".into() })),
        ("Lease", Some(Span::millis(lease.duration_ms).to_string())),
        ("Lease left", Some(left(lease.expires_at.saturating_sub(now), lease.is_preserved))),
        ("Last dirty timestamp", instance.last_dirty_timestamp().map(http_date)),
        ("Last updated", instance.last_updated_timestamp().map(http_date)),
    ];
    lines.into_iter().filter_map(|(name, value)| Some((name, value?))).collect()
}
