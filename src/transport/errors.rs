//! Errors of operations, with the server, the cause and advice.

use std::time::Duration;

use http::header;
use tower::BoxError;

use super::response::ServerResponse;
use super::server_order::AllServersPaused;
use super::token::TokenError;
use crate::config::{ServiceUrl, shown};
use crate::connect::{is_rejected_handshake, root_cause};
use crate::error::{Error, Kind};
use crate::model::DecodedList;
use crate::panics::Panicked;
use crate::untrusted::Excerpt;

/// Operation, application and instance that an error names.
#[derive(Clone, Copy, Debug)]
pub(super) struct Subject<'a> {
    pub(super) operation: &'static str,
    pub(super) app: Option<&'a str>,
    pub(super) instance: Option<&'a str>,
}

impl Subject<'_> {
    pub(super) fn error(&self, kind: Kind, server: &ServiceUrl) -> Error {
        self.without_server(kind).server(server.as_str().clone())
    }

    pub(super) fn without_server(&self, kind: Kind) -> Error {
        let mut error = Error::new(kind, self.operation);
        if let Some(app) = self.app {
            error = error.app(app);
        }
        if let Some(instance) = self.instance {
            error = error.instance(instance);
        }
        error
    }
}

/// Errors of the servers that were tried, merged into one.
///
/// The most severe error represents all, or the last of equally severe ones. Its message lists the
/// others.
#[derive(Default)]
pub(super) struct ServerErrors {
    worst: Option<Error>,
    others: Vec<String>,
}

impl ServerErrors {
    pub(super) fn add(&mut self, error: Error) {
        let error = match self.worst.take() {
            Some(worst) if severity(worst.kind()) > severity(error.kind()) => {
                self.others.push(error.to_string());
                worst
            }
            Some(other) => {
                self.others.push(other.to_string());
                error
            }
            None => error,
        };
        self.worst = Some(error);
    }

    pub(super) fn into_error(self) -> Error {
        let worst = self.worst.expect("at least one server was tried");
        if self.others.is_empty() {
            return worst;
        }
        let all =
            format!("{} ({} more servers failed: {})", worst.cause_text(), self.others.len(), self.others.join(" | "));
        worst.cause(all)
    }
}

/// Returns how careful the next request has to be after an error of this kind. An overload ranks
/// highest: an overloaded server must not get more requests because another one is unreachable.
fn severity(kind: Kind) -> u8 {
    match kind {
        Kind::Status(420 | 429 | 509 | 529) => 4,
        Kind::Status(503) => 3,
        Kind::Status(502 | 504) | Kind::Timeout => 2,
        Kind::Status(500..) => 1,
        _ => 0,
    }
}

/// Response with an expected status and an invalid body.
pub(super) enum InvalidResponse {
    /// The body is markup of this content type, such as a login page or the error page of a proxy.
    Markup(String),
    NotEureka(crate::model::DecodeError),
    /// The code that read the response panicked.
    Panicked(Panicked),
}

impl InvalidResponse {
    pub(super) fn error(self, subject: Subject<'_>, server: &ServiceUrl) -> Error {
        let error = subject
            .error(Kind::InvalidResponse, server)
            .advice("check that the service URL leads to a Eureka server, usually with /eureka/ at its end");
        match self {
            Self::Markup(content_type) => {
                error.cause(format!("the response is markup ({}), not the JSON of Eureka", Excerpt(content_type)))
            }
            Self::NotEureka(source) => error.cause(format!("the response is unusable: {source}")).with_source(source),
            Self::Panicked(source) => {
                let error =
                    subject.error(Kind::InvalidResponse, server).cause(format!("reading the response {source}"));
                error.with_source(source)
            }
        }
    }
}

impl ServerResponse {
    /// Returns the list that was decoded while it arrived.
    pub(super) fn into_list(self) -> Result<DecodedList, InvalidResponse> {
        if self.is_markup() {
            return Err(InvalidResponse::Markup(self.content_type().to_owned()));
        }
        self.list.expect("the operation requested a list").map_err(InvalidResponse::NotEureka)
    }

    pub(super) fn error(self, subject: Subject<'_>, server: &ServiceUrl) -> Error {
        let error = subject.error(Kind::Status(self.status.as_u16()), server).with_retry_after(self.retry_after());
        let mut cause = format!("responded with {}", self.status);
        if let Some(location) = self.header(header::LOCATION).filter(|_| self.status.is_redirection()) {
            cause = format!("{cause}, a redirect to {} that is not followed", Excerpt(without_secrets(location)));
        }
        let text = String::from_utf8_lossy(&self.body[..self.body.len().min(200)]);
        let text = text.trim();
        if !text.is_empty() && !text.starts_with('<') {
            cause = format!("{cause}: {}", Excerpt(text));
        }
        let advice = match self.status.as_u16() {
            300..=399 => "configure the URL to which the redirect leads",
            401 | 403 if subject.operation.starts_with("fetch") => {
                "the server may still be starting, or requires other credentials: in the service URL, basic_auth() or bearer_token()"
            }
            401 | 403 => {
                "give valid credentials in the service URL (http://user:password@host/eureka/), basic_auth() or bearer_token()"
            }
            407 => "give the credentials of the proxy in its URL, or in eureka.client.proxy-user-name and -password",
            404 => "check that the service URL leads to a Eureka server, usually with /eureka/ at its end",
            400..=499 => "the server rejected the request",
            _ => "see the log of the server",
        };
        error.cause(cause).advice(advice)
    }
}

/// Returns the location without credentials and query, as far as it can be shown.
pub(super) fn without_secrets(location: &str) -> &str {
    let path = location.split(['?', '#']).next().unwrap_or_default();
    let path = Some(path).filter(|path| path.starts_with('/') && !path.contains('@'));
    shown(location).or(path).unwrap_or("another URL")
}

/// Error of a request without a usable response.
#[derive(Debug)]
pub(super) enum SendError {
    /// The bottom service failed. `connecting` is true if hyper had not established a connection.
    Service { error: BoxError, connecting: bool },
    /// The named event did not happen within this time.
    Timeout(&'static str, Duration),
    /// The body ended early or cannot be decompressed.
    Read(BoxError),
    /// The decompressed body is larger than this number of bytes.
    TooLarge(usize),
    /// The decoded body takes more than this number of bytes of memory.
    TooMuchMemory(usize),
    /// The code that read the body panicked.
    DecoderPanicked(Panicked),
    /// The bottom service, which may be the user's, panicked.
    Panicked(Panicked),
    /// There is no bearer token.
    Token(TokenError),
}

impl SendError {
    /// Returns the cause for a log line.
    #[cfg(all(feature = "access", feature = "peers"))]
    pub(super) fn cause(&self) -> String {
        match self {
            Self::Service { error, .. } | Self::Read(error) => {
                let causes = std::iter::successors(Some(&**error as &dyn std::error::Error), |&error| error.source());
                causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
            }
            Self::Timeout(what, time) => format!("{what} within {time:?}"),
            Self::TooLarge(limit) | Self::TooMuchMemory(limit) => format!("the body has more than {limit} bytes"),
            Self::DecoderPanicked(_) | Self::Panicked(_) => "the HTTP service panicked".into(),
            Self::Token(_) => "there is no token".into(),
        }
    }

    /// Returns `true` if the server is not the reason, so that another one would not help.
    pub(super) fn is_local(&self) -> bool {
        matches!(self, Self::Token(_))
    }

    pub(super) fn error(self, subject: Subject<'_>, server: &ServiceUrl) -> Error {
        match self {
            Self::Service { error, connecting: true } if is_rejected_handshake(&*error) => {
                let alert = root_cause(&*error);
                subject
                    .error(Kind::Connect, server)
                    .cause(format!("the server rejected the TLS handshake: {alert}"))
                    .advice("the server may require a client certificate, or another one: tls_identity_file()")
                    .with_source(error)
            }
            Self::Service { error, connecting: true } => {
                let refused = root_cause(&*error);
                subject
                    .error(Kind::Connect, server)
                    .cause(format!("cannot connect: {refused}"))
                    .advice("is the server running, and is the URL correct?")
                    .with_source(error)
            }
            Self::Service { error, connecting: false } => {
                let cause = root_cause(&*error);
                subject
                    .error(Kind::Call, server)
                    .cause(format!("the request failed: {cause}"))
                    .advice("see the log of the server")
                    .with_source(error)
            }
            Self::Timeout(what, bound) => subject
                .error(Kind::Timeout, server)
                .cause(format!("{what} within {bound:?}"))
                .advice("increase the read timeout if the server is only slow"),
            Self::Read(error) => {
                let cause = root_cause(&*error);
                subject
                    .error(Kind::InvalidResponse, server)
                    .cause(format!("the body cannot be read: {cause}"))
                    .advice("see the logs of the server and of proxies on the way")
                    .with_source(error)
            }
            Self::DecoderPanicked(source) => InvalidResponse::Panicked(source).error(subject, server),
            Self::Panicked(source) => subject
                .error(Kind::Call, server)
                .cause(format!("the HTTP service {source}"))
                .advice("the panic comes from the service that was passed to http_service()")
                .with_source(source),
            Self::Token(source) => {
                let kind = if matches!(source, TokenError::Timeout(_)) { Kind::Timeout } else { Kind::Call };
                let error = subject.error(kind, server).cause(format!("not sent: {source}"));
                error.advice("check the function that was passed to bearer_token()").with_source(source)
            }
            Self::TooLarge(limit) => subject
                .error(Kind::InvalidResponse, server)
                .cause(format!("the response is larger than {limit} bytes after decompression"))
                .advice("increase the body limit if the registry is that large"),
            Self::TooMuchMemory(limit) => subject
                .error(Kind::InvalidResponse, server)
                .cause(format!("the response is larger than {limit} bytes when it is decoded"))
                .advice("increase the body limit if the registry is that large"),
        }
    }
}

impl AllServersPaused {
    pub(super) fn error(&self, subject: Subject<'_>) -> Error {
        subject
            .error(Kind::Paused(self.status.as_u16()), &self.server)
            .with_retry_after(Some(self.wait))
            .cause(format!("not sent: every server asked for a pause (Retry-After), this one for {:?} more", self.wait))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_of_several_servers_are_represented_by_the_overload() {
        let kinds = [Kind::Connect, Kind::InvalidResponse, Kind::Call, Kind::Status(404), Kind::Status(500)];
        for other in kinds {
            for overload in [Kind::Status(429), Kind::Status(503), Kind::Timeout] {
                for order in [[overload, other], [other, overload]] {
                    let mut errors = ServerErrors::default();
                    order.into_iter().for_each(|kind| errors.add(Error::new(kind, "fetch").cause(format!("{kind:?}"))));
                    let error = errors.into_error();
                    assert_eq!(error.kind(), overload, "{order:?}");
                    let text = error.to_string();
                    assert!(order.iter().all(|kind| text.contains(&format!("{kind:?}"))), "{text}");
                }
            }
        }
    }
}
