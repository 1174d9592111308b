//! Actions of operators on an instance: out of service, back, cancel.

use std::fmt;

use axum::extract::{Request, State};
use axum::response::Response;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, StatusCode};
use http_body_util::{BodyExt, Limited};

use super::instance::{self, ROOT, Target};
use super::{Shared, forms, respond, text};
use crate::model::InstanceStatus;
use crate::server::audit::{Caller, Quoted};
use crate::server::http::pairs;
use crate::server::outcome::Origin;

/// Maximum size of a form, which has a word and a token.
const MAX_FORM: usize = 4 * 1024;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Action {
    OutOfService,
    Back,
    Cancel,
}

impl Action {
    fn of(word: &str) -> Option<Self> {
        [Self::OutOfService, Self::Back, Self::Cancel].into_iter().find(|action| action.as_str() == word)
    }

    /// Returns the word in forms and addresses.
    fn as_str(self) -> &'static str {
        match self {
            Self::OutOfService => "out_of_service",
            Self::Back => "back",
            Self::Cancel => "cancel",
        }
    }
}

/// Returns the message about an action that the address names.
pub(super) fn done(word: &str) -> Option<&'static str> {
    Some(match Action::of(word)? {
        Action::OutOfService => "The status OUT_OF_SERVICE is set. Clients see it with their next fetch.",
        Action::Back => "The override is deleted. The instance is UP if it reports so.",
        Action::Cancel => "The registration was cancelled, and the instance has registered again since.",
    })
}

/// Reason for which an action is refused.
#[derive(Debug)]
enum Refusal {
    NotAForm,
    TooLong,
    NoAction(String),
    Foreign(forms::Foreign),
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("cannot change the instance: ")?;
        match self {
            Self::NotAForm => f.write_str("the request is no form of this page"),
            Self::TooLong => write!(f, "the form is longer than {MAX_FORM} bytes or did not arrive completely"),
            Self::NoAction(action) => {
                write!(f, "there is no action {}; use out_of_service, back or cancel", Quoted(action))
            }
            Self::Foreign(foreign) => f.write_str(foreign.text()),
        }
    }
}

impl Refusal {
    fn status(&self) -> StatusCode {
        match self {
            Self::NotAForm => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::TooLong => StatusCode::PAYLOAD_TOO_LARGE,
            Self::NoAction(_) => StatusCode::BAD_REQUEST,
            Self::Foreign(_) => StatusCode::FORBIDDEN,
        }
    }
}

/// Applies an action and redirects to the page of the instance, or to the list if it has left.
pub(super) async fn respond(State(page): State<Shared>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let caller = Caller::of(Origin::Client, &parts.extensions);
    let form = match read(&parts.headers, body).await {
        Ok(form) => form,
        Err(refusal) => return refused(&refusal, caller),
    };
    if let Err(foreign) = forms::check(&parts.headers, &parts.uri, &form.token) {
        return refused(&Refusal::Foreign(foreign), caller);
    }
    let Some(action) = Action::of(&form.action) else { return refused(&Refusal::NoAction(form.action), caller) };
    let target = Target::parse(parts.uri.query());
    let (node, Target { app, id, .. }) = (page.server.node(), &target);
    let found = match action {
        Action::OutOfService => node.set_override(app, id, InstanceStatus::OutOfService, None, &caller),
        // With a status, clients see no interruption until the next heartbeat.
        Action::Back => node.delete_override(app, id, InstanceStatus::Up, None, &caller),
        Action::Cancel => node.cancel(app, id, &caller),
    };
    if !found {
        return instance::unknown(&target);
    }
    match action {
        Action::Cancel => respond::redirect("../lastn"),
        _ => respond::redirect(&format!("instance?{}&done={}", text::query_of(app, id), action.as_str())),
    }
}

fn refused(refusal: &Refusal, caller: Caller) -> Response {
    tracing::debug!(origin = %caller, reason = %refusal, "action of the page refused");
    respond::message(refusal.status(), ROOT, "Nothing was changed", &refusal.to_string())
}

#[derive(Debug, Default)]
struct Form {
    action: String,
    token: String,
}

async fn read(headers: &HeaderMap, body: axum::body::Body) -> Result<Form, Refusal> {
    let media_type = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let media_type = media_type.split(';').next().unwrap_or_default().trim();
    if !media_type.eq_ignore_ascii_case("application/x-www-form-urlencoded") {
        return Err(Refusal::NotAForm);
    }
    let body = Limited::new(body, MAX_FORM).collect().await.map_err(|_| Refusal::TooLong)?.to_bytes();
    let text = std::str::from_utf8(&body).map_err(|_| Refusal::NotAForm)?;
    let mut form = Form::default();
    for (name, value) in pairs(Some(text)) {
        match &*name {
            "action" => form.action = value.into_owned(),
            "token" => form.token = value.into_owned(),
            _ => {}
        }
    }
    Ok(form)
}
