//! Actions of operators on an instance: out of service, back, up, cancel.

use std::fmt;

use axum::extract::{Request, State};
use axum::response::Response;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, StatusCode};
use http_body_util::{BodyExt, Limited};

use super::instance::{self, ROOT, Target};
use super::{Shared, forms, respond, text};
use crate::model::{Instance, InstanceStatus};
use crate::server::audit::{Caller, Quoted};
use crate::server::http::pairs;
use crate::server::outcome::Origin;

/// Maximum size of a form, which has a word and a token.
const MAX_FORM: usize = 4 * 1024;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    /// Sets the override OUT_OF_SERVICE.
    OutOfService,
    /// Deletes the override.
    Back,
    /// Sets the override UP.
    Up,
    Cancel,
}

impl Action {
    const ALL: [Self; 4] = [Self::OutOfService, Self::Back, Self::Up, Self::Cancel];

    pub(super) fn of(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|action| action.as_str() == word)
    }

    /// Returns the word in forms and addresses.
    fn as_str(self) -> &'static str {
        match self {
            Self::OutOfService => "out_of_service",
            Self::Back => "back",
            Self::Up => "up",
            Self::Cancel => "cancel",
        }
    }

    /// Returns the message about the action that has just been done, if the instance shows its
    /// effect.
    ///
    /// It is true of the instance as it is now, since the address that names the action may be an
    /// old one, or one that somebody else has written.
    pub(super) fn notice(self, instance: &Instance) -> Option<&'static str> {
        use InstanceStatus::{OutOfService, Unknown, Up};
        Some(match (self, instance.overridden_status(), instance.status()) {
            (Self::OutOfService, OutOfService, _) => {
                "The override OUT_OF_SERVICE is set. Clients see it with their next fetch."
            }
            (Self::OutOfService, Unknown, OutOfService) => {
                "Nothing was changed: the instance is OUT_OF_SERVICE without an override."
            }
            (Self::Back, Unknown, Unknown) => {
                "The instance has no override any more. It is UNKNOWN until it registers with its next heartbeat, and \
                 then has the status that it reports."
            }
            (Self::Back, Unknown, OutOfService) => {
                "Nothing was changed: there is no override. The registry keeps OUT_OF_SERVICE, even if the instance \
                 reports UP. The action \"Set UP\" overrides it."
            }
            (Self::Back, Unknown, _) => "The instance has no override. It has the status that it reports.",
            (Self::Up, Up, _) => "The override UP is set. Clients see it with their next fetch.",
            (Self::Up, Unknown, Up) => "Nothing was changed: the instance is UP without an override.",
            _ => return None,
        })
    }
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
                write!(f, "there is no action {}; use out_of_service, back, up or cancel", Quoted(action))
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
        // The registry does not know the status that the instance reports. UNKNOWN makes the next
        // heartbeat a registration, which has it.
        Action::Back => node.delete_override(app, id, InstanceStatus::Unknown, None, &caller),
        Action::Up => node.set_override(app, id, InstanceStatus::Up, None, &caller),
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
