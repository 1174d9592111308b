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
        operation.path(format!("{path}/{}", segment(self.name()))).accept_not_found().list(list)
    }
}

impl Transport {
    /// Fetches a part of the registry, unless its `ETag` is still the `known` one. With a
    /// `race`, all servers are tried within that time, although the previous ones have not
    /// responded. Instances that are `held` are not decoded again. Lists that may be fetched at the
    /// same time, `concurrent` ones, share the memory.
    ///
    /// A 404 is an empty list: the registry has no instance of the application. Servers in Tomcat
    /// send a page with it. No server responds so for a VIP address, so a page comes from a proxy.
    pub(crate) async fn resource(
        &self,
        resource: &Resource,
        known: Option<&HeaderValue>,
        race: Option<Duration>,
        held: &Known,
        concurrent: usize,
    ) -> Result<Full, Error> {
        let is_application = matches!(resource, Resource::App(_));
        let body = ListBody { known: held.clone(), is_application, concurrent };
        let options = SendOptions { race: race.map(Race::list), ..self.options() };
        let fetch = |query: &str| {
            let operation = Operation { known: known.cloned(), ..resource.operation(body.clone()) }.suffix(query);
            self.list(operation, options, is_application)
        };
        self.with_fallback(fetch).await.0
    }

    async fn list(&self, operation: Operation<'_>, options: SendOptions, is_application: bool) -> Result<Full, Error> {
        self.send(operation, options, |server, response| {
            let origin = Origin::new(server, &response);
            async move {
                if response.status == StatusCode::NOT_MODIFIED {
                    return Ok(Full::Unchanged(origin, response.requested));
                }
                let head = Fetched::head(origin, &response);
                if response.status == StatusCode::NOT_FOUND {
                    if response.is_markup() && !is_application {
                        return Err(InvalidResponse::Markup(response.content_type().to_owned()));
                    }
                    return Ok(Full::Changed(Fetched { digest: None, etag: None, ..head }));
                }
                let DecodedList { list, skipped } = response.into_list()?;
                if is_application && list.applications.is_empty() {
                    return Err(InvalidResponse::NotEureka(DecodeError::without_application()));
                }
                Ok(Full::Changed(Fetched { list, skipped, ..head }))
            }
        })
        .await
    }
}
