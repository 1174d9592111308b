//! Lists of a part of the registry: an application or a VIP address.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderValue, Method, StatusCode};

use super::body::ListBody;
use super::errors::InvalidResponse;
use super::failover::{Race, SendOptions};
use super::lists::{Fetched, Full, Origin};
use super::operations::Transport;
use super::request::{Operation, segment};
use crate::error::Error;
use crate::model::{DecodeError, DecodedList, Known};

/// VIP address that no instance has.
const UNUSED_VIP: &str = "tower-eureka-unused";

/// Part of the registry that one request fetches.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Resource {
    /// An application. The name is in upper case.
    App(Arc<str>),
    /// The instances with a VIP address. Servers compare it with case.
    Vip(Arc<str>),
    /// The instances with a secure VIP address. Servers compare it with case.
    SecureVip(Arc<str>),
}

impl Resource {
    fn name(&self) -> &Arc<str> {
        match self {
            Self::App(name) | Self::Vip(name) | Self::SecureVip(name) => name,
        }
    }

    fn operation(&self, list: ListBody) -> Operation<'_> {
        let (operation, path) = match self {
            Self::App(_) => ("fetch application", "apps"),
            Self::Vip(_) => ("fetch VIP", "vips"),
            Self::SecureVip(_) => ("fetch secure VIP", "svips"),
        };
        let operation = Operation { app: Some(self.name()), ..Operation::new(operation, Method::GET) };
        let operation = operation.path(format!("{path}/{}", segment(self.name()))).list(list);
        // Servers respond to an unknown VIP address with 200 and an empty list.
        if matches!(self, Self::App(_)) { operation.accept_not_found() } else { operation }
    }
}

/// Response to a request for a part of the registry.
#[derive(Debug)]
pub(crate) enum Part {
    Listed(Full),
    /// The status is 404: the registry has no instance of the application, or the server is no
    /// registry.
    NotFound(NotFound),
}

/// Response 404.
#[derive(Debug)]
pub(crate) struct NotFound {
    /// Empty list, if the server is a registry.
    empty: Fetched,
    /// Error, if it is none.
    error: Error,
}

impl NotFound {
    /// Returns the service URL without credentials.
    pub(crate) fn server(&self) -> &Arc<str> {
        self.empty.origin.url()
    }

    pub(crate) fn into_error(self) -> Error {
        self.error
    }
}

impl Part {
    /// Returns the list, which is empty for a 404 of a registry.
    pub(crate) fn into_list(self) -> Full {
        match self {
            Self::Listed(full) => full,
            Self::NotFound(not_found) => Full::Changed(not_found.empty),
        }
    }
}

impl Transport {
    /// Fetches a part of the registry, unless its `ETag` is still the `known` one. With a
    /// `race`, all servers are tried within that time, although the previous ones have not
    /// responded. Instances that are `held` are not decoded again. Lists that may be fetched at the
    /// same time, `concurrent` ones, share the memory.
    ///
    /// Registries respond to an unknown application with 404, those in Tomcat with a page. So do
    /// proxies and other applications, which the response does not tell apart.
    pub(crate) async fn resource(
        &self,
        resource: &Resource,
        known: Option<&HeaderValue>,
        race: Option<Duration>,
        held: &Known,
        concurrent: usize,
    ) -> Result<Part, Error> {
        let is_application = matches!(resource, Resource::App(_));
        let body = ListBody { known: held.clone(), is_application, concurrent };
        let options = SendOptions { race: race.map(Race::list), ..self.options() };
        let fetch = |query: &str| {
            let operation = Operation { known: known.cloned(), ..resource.operation(body.clone()) }.suffix(query);
            self.list(operation, options, is_application)
        };
        self.with_fallback(fetch).await.0
    }

    /// Fetches the list of a VIP address that no instance has. It is small, and proves that the
    /// server is a registry.
    pub(crate) async fn proof(&self) -> Result<Full, Error> {
        match self.resource(&Resource::Vip(UNUSED_VIP.into()), None, None, &Known::default(), 1).await? {
            Part::Listed(full) => Ok(full),
            Part::NotFound(not_found) => Err(not_found.into_error()),
        }
    }

    async fn list(
        &self,
        operation: Operation<'_>,
        options: SendOptions<'_>,
        is_application: bool,
    ) -> Result<Part, Error> {
        let subject = operation.subject();
        self.send(operation, options, |server, response| {
            let (server, origin) = (server.clone(), Origin::new(server, &response));
            async move {
                if response.status == StatusCode::NOT_MODIFIED {
                    return Ok(Part::Listed(Full::Unchanged(origin, response.requested)));
                }
                let head = Fetched::head(origin, &response);
                if response.status == StatusCode::NOT_FOUND {
                    let empty = Fetched { digest: None, etag: None, ..head };
                    let error = response.error(subject, &server);
                    return Ok(Part::NotFound(NotFound { empty, error }));
                }
                let DecodedList { list, skipped } = response.into_list()?;
                if is_application && list.applications.is_empty() {
                    return Err(InvalidResponse::NotEureka(DecodeError::without_application()));
                }
                Ok(Part::Listed(Full::Changed(Fetched { list, skipped, ..head })))
            }
        })
        .await
    }
}
