//! Errors of operations, in words that name the server and what to do.

use http::header;

use super::stack::{Answer, Failure};
use super::turns::AllPaused;
use crate::config::{ServiceUrl, shown};
use crate::connect::root_cause;
use crate::error::{Error, Kind};
use crate::panics::Panicked;
use crate::shown::Excerpt;

/// Operation, application and instance: the words of an error.
#[derive(Clone, Copy, Debug)]
pub(super) struct Subject<'a> {
    pub(super) operation: &'static str,
    pub(super) app: Option<&'a str>,
    pub(super) instance: Option<&'a str>,
}

impl Subject<'_> {
    pub(super) fn error(&self, kind: Kind, server: &ServiceUrl) -> Error {
        let mut error = Error::new(kind, self.operation).server(server.as_str().clone());
        if let Some(app) = self.app {
            error = error.app(app);
        }
        if let Some(instance) = self.instance {
            error = error.instance(instance);
        }
        error
    }
}

/// The faults of the servers asked. The one that asks for most care speaks for all, of equal ones the
/// last. Its message names the others.
#[derive(Default)]
pub(super) struct Faults {
    worst: Option<Error>,
    others: Vec<String>,
}

impl Faults {
    pub(super) fn add(&mut self, error: Error) {
        let error = match self.worst.take() {
            Some(worst) if care(worst.kind()) > care(error.kind()) => {
                self.others.push(error.to_string());
                worst
            }
            Some(less) => {
                self.others.push(less.to_string());
                error
            }
            None => error,
        };
        self.worst = Some(error);
    }

    pub(super) fn error(self) -> Error {
        let worst = self.worst.expect("a client has at least one service URL, build() sees to it");
        if self.others.is_empty() {
            return worst;
        }
        let all =
            format!("{} ({} more servers failed: {})", worst.cause_text(), self.others.len(), self.others.join(" | "));
        worst.cause(all)
    }
}

/// Care that the next request needs after a fault of this kind. A server that is overloaded is not
/// asked more because another one cannot be reached.
fn care(kind: Kind) -> u8 {
    match kind {
        Kind::Status(429) => 4,
        Kind::Status(503) => 3,
        Kind::Status(502 | 504) | Kind::Timeout => 2,
        Kind::Status(500..) => 1,
        _ => 0,
    }
}

/// A response whose status is right and whose body is not.
pub(super) enum Unreadable {
    /// A page for people, of this content type: a login, a proxy's error, somebody else's server.
    Markup(String),
    NotEureka(crate::model::DecodeError),
    /// Reading it panicked.
    Panicked(Panicked),
}

impl Unreadable {
    pub(super) fn error(self, subject: Subject<'_>, server: &ServiceUrl) -> Error {
        let error = subject
            .error(Kind::Body, server)
            .advice("check that the service URL leads to a Eureka server, usually with /eureka/ at its end");
        match self {
            Self::Markup(content_type) => {
                error.cause(format!("the answer is markup ({}), not the JSON of Eureka", Excerpt(content_type)))
            }
            Self::NotEureka(source) => error.cause(format!("the answer is unusable: {source}")).with_source(source),
            Self::Panicked(source) => {
                let error = subject.error(Kind::Body, server).cause(format!("reading the response {source}"));
                error.with_source(source)
            }
        }
    }
}

impl Answer {
    pub(super) fn error(self, subject: Subject<'_>, server: &ServiceUrl) -> Error {
        let error = subject.error(Kind::Status(self.status.as_u16()), server).with_retry_after(self.retry_after());
        let mut cause = format!("answered {}", self.status);
        if let Some(location) = self.header(header::LOCATION).filter(|_| self.status.is_redirection()) {
            cause = format!("{cause}, a redirect to {} that is not followed", Excerpt(without_secrets(location)));
        }
        let text = String::from_utf8_lossy(&self.body[..self.body.len().min(200)]);
        let text = text.trim();
        if !text.is_empty() && !text.starts_with('<') {
            cause = format!("{cause}: {}", Excerpt(text));
        }
        let advice = match self.status.as_u16() {
            300..=399 => "give the URL that finally answers",
            401 | 403 if subject.operation.starts_with("fetch") => {
                "the server may still be starting, or wants credentials in the service URL"
            }
            401 | 403 => "give credentials in the service URL: http://user:password@host/eureka/",
            404 => "check that the service URL leads to a Eureka server, usually with /eureka/ at its end",
            400..=499 => "the server refuses what was sent",
            _ => "look at the server's own log",
        };
        error.cause(cause).advice(advice)
    }
}

/// The part of a location that can be shown: neither credentials nor a query.
fn without_secrets(location: &str) -> &str {
    let path = location.split(['?', '#']).next().unwrap_or_default();
    let path = Some(path).filter(|path| path.starts_with('/') && !path.contains('@'));
    shown(location).or(path).unwrap_or("another URL")
}

impl Failure {
    pub(super) fn error(self, subject: Subject<'_>, server: &ServiceUrl) -> Error {
        match self {
            Self::Send { error, connecting: true } => {
                let refused = root_cause(&*error);
                subject
                    .error(Kind::Connect, server)
                    .cause(format!("cannot connect: {refused}"))
                    .advice("check that the server runs and that the URL names it")
                    .with_source(error)
            }
            Self::Send { error, connecting: false } => {
                let cause = root_cause(&*error);
                subject
                    .error(Kind::Call, server)
                    .cause(format!("the request failed: {cause}"))
                    .advice("look at the server's own log")
                    .with_source(error)
            }
            Self::Timeout(what, bound) => subject
                .error(Kind::Timeout, server)
                .cause(format!("{what} within {bound:?}"))
                .advice("the server is too slow or does not answer; raise the read timeout if it is only slow"),
            Self::Read(error) => {
                let cause = root_cause(&*error);
                subject
                    .error(Kind::Body, server)
                    .cause(format!("the body cannot be read: {cause}"))
                    .advice("look at the server's own log, and at proxies in between")
                    .with_source(error)
            }
            Self::Panicked(source) => subject
                .error(Kind::Call, server)
                .cause(format!("the HTTP service {source}"))
                .advice("fix the service that was given to http_service()")
                .with_source(source),
            Self::TooLarge(limit) => subject
                .error(Kind::Body, server)
                .cause(format!("the answer is larger than {limit} bytes unpacked"))
                .advice("raise the body limit if the registry really is that large"),
        }
    }
}

impl AllPaused {
    pub(super) fn error(&self, subject: Subject<'_>, server: &ServiceUrl) -> Error {
        subject.error(Kind::Paused(self.status.as_u16()), server).with_retry_after(Some(self.wait)).cause(format!(
            "not sent: every server asked to be left alone (Retry-After), this one for {:?} more",
            self.wait
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn overload_of_one_server_decides_although_others_fail_otherwise() {
        let kinds = [Kind::Connect, Kind::Body, Kind::Call, Kind::Status(404), Kind::Status(500)];
        for other in kinds {
            for careful in [Kind::Status(429), Kind::Status(503), Kind::Timeout] {
                for order in [[careful, other], [other, careful]] {
                    let mut faults = Faults::default();
                    order.into_iter().for_each(|kind| faults.add(Error::new(kind, "fetch").cause(format!("{kind:?}"))));
                    let error = faults.error();
                    assert_eq!(error.kind(), careful, "{order:?}");
                    let text = error.to_string();
                    assert!(order.iter().all(|kind| text.contains(&format!("{kind:?}"))), "{text}");
                }
            }
        }
    }
}
