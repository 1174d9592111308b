//! Lists of a part of the registry: an application or a VIP address.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderValue, Method, StatusCode, header};

use super::body::ListBody;
use super::errors::InvalidResponse;
use super::failover::SendOptions;
use super::operations::{Fetched, Full, Origin, Transport};
use super::request::{Operation, segment};
use crate::error::Error;
use crate::model::{Applications, DecodeError, Digest, Known};

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
    /// `stagger`, the next server is tried after that time while the previous attempt is still
    /// pending. Instances that are `held` are not decoded again. Lists that may be fetched at the
    /// same time, `concurrent` ones, share the memory.
    ///
    /// A 404 is an empty list: the registry has no instance of the application. Servers in Tomcat
    /// send a page with it. No server responds so for a VIP address, so a page comes from a proxy.
    pub(crate) async fn resource(
        &self,
        resource: &Resource,
        known: Option<&HeaderValue>,
        stagger: Option<Duration>,
        held: &Known,
        concurrent: usize,
    ) -> Result<Full, Error> {
        let is_application = matches!(resource, Resource::App(_));
        let body = ListBody { known: held.clone(), is_application, concurrent };
        match (self.list(resource, known, stagger, body.clone(), &self.list_query).await, self.fallback_query) {
            (Err(error), Some(fallback)) if error.status() == Some(StatusCode::FORBIDDEN.as_u16()) => {
                self.list(resource, known, stagger, body, fallback).await
            }
            (fetched, _) => fetched,
        }
    }

    async fn list(
        &self,
        resource: &Resource,
        known: Option<&HeaderValue>,
        stagger: Option<Duration>,
        body: ListBody,
        query: &str,
    ) -> Result<Full, Error> {
        let operation = Operation { known: known.cloned(), ..resource.operation(body) }.suffix(query);
        let options = SendOptions { stagger, ..self.options() };
        let is_application = matches!(resource, Resource::App(_));
        self.send(operation, options, |server, response| {
            let origin = Origin::new(server, &response);
            async move {
                let (requested, date) = (response.requested, response.date);
                let received = response.received;
                let is_compressed = response.headers.contains_key(header::CONTENT_ENCODING);
                if response.status == StatusCode::NOT_MODIFIED {
                    return Ok(Full::Unchanged(origin, requested));
                }
                if response.status == StatusCode::NOT_FOUND {
                    if response.is_markup() && !is_application {
                        return Err(InvalidResponse::Markup(response.content_type().to_owned()));
                    }
                    let (list, digest, etag) = (Applications::default(), None, None);
                    let fetched = Fetched { list, origin, requested, digest, etag, received, date, is_compressed };
                    return Ok(Full::Changed(fetched));
                }
                let digest = response.headers.get(Digest::HEADER).and_then(Digest::from_header);
                let etag = response.headers.get(header::ETAG).cloned();
                let list = response.into_list()?;
                if is_application && list.applications.is_empty() {
                    return Err(InvalidResponse::NotEureka(DecodeError::without_application()));
                }
                Ok(Full::Changed(Fetched { list, origin, requested, digest, etag, received, date, is_compressed }))
            }
        })
        .await
    }
}
