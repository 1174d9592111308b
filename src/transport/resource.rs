//! Lists of a part of the registry: an application or a VIP address.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderValue, Method, StatusCode, header};

use super::failover::SendOptions;
use super::operations::{Fetched, Full, Origin, Transport, decode_body};
use super::request::{Operation, segment};
use crate::error::Error;
use crate::model::{Application, Applications, Digest, Known};

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

    fn operation(&self, held: &Known) -> Operation<'_> {
        let (operation, path) = match self {
            Self::App(_) => ("fetch application", "apps"),
            Self::Vip(_) => ("fetch VIP", "vips"),
            Self::SecureVip(_) => ("fetch secure VIP", "svips"),
        };
        let operation = Operation { app: Some(self.name()), ..Operation::new(operation, Method::GET) };
        let operation = operation.path(format!("{path}/{}", segment(self.name()))).accept_not_found();
        if let Self::App(_) = self { operation } else { operation.list(held.clone()) }
    }
}

impl Transport {
    /// Fetches a part of the registry, unless its `ETag` is still the `known` one. With a
    /// `stagger`, the next server is tried after that time while the previous attempt is still
    /// pending. The instances of a VIP address that are `held` are not decoded again.
    ///
    /// A 404 is an empty list: the registry has no instance of the application.
    pub(crate) async fn resource(
        &self,
        resource: &Resource,
        known: Option<&HeaderValue>,
        stagger: Option<Duration>,
        held: &Known,
    ) -> Result<Full, Error> {
        match (self.list(resource, known, stagger, held, &self.list_query).await, self.fallback_query) {
            (Err(error), Some(fallback)) if error.status() == Some(StatusCode::FORBIDDEN.as_u16()) => {
                self.list(resource, known, stagger, held, fallback).await
            }
            (fetched, _) => fetched,
        }
    }

    async fn list(
        &self,
        resource: &Resource,
        known: Option<&HeaderValue>,
        stagger: Option<Duration>,
        held: &Known,
        query: &str,
    ) -> Result<Full, Error> {
        let operation = Operation { known: known.cloned(), ..resource.operation(held) }.suffix(query);
        let options = SendOptions { stagger, ..self.options() };
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
                    let (list, digest, etag) = (Applications::default(), None, None);
                    let fetched = Fetched { list, origin, requested, digest, etag, received, date, is_compressed };
                    return Ok(Full::Changed(fetched));
                }
                let digest = response.headers.get(Digest::HEADER).and_then(Digest::from_header);
                let etag = response.headers.get(header::ETAG).cloned();
                let list = match resource {
                    Resource::App(_) => {
                        let application = decode_body(response, Application::from_json).await?;
                        Applications { version: None, hash: None, applications: vec![Arc::new(application)] }
                    }
                    Resource::Vip(_) | Resource::SecureVip(_) => response.into_list()?,
                };
                Ok(Full::Changed(Fetched { list, origin, requested, digest, etag, received, date, is_compressed }))
            }
        })
        .await
    }
}
