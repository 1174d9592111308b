//! Lists of the registry with the data that proves their continuity.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use http::{HeaderValue, Method, StatusCode, header};

use super::failover::{Race, SendOptions};
use super::operations::Transport;
use super::request::Operation;
use super::response::{Responder, ServerResponse};
use super::server_clock::ResponseDate;
use crate::config::ServiceUrl;
use crate::error::Error;
use crate::model::{Applications, DecodedList, Digest, Known};
use crate::time::Moment;

/// List of applications with the data that proves its continuity.
#[derive(Debug)]
pub(crate) struct Fetched {
    pub(crate) list: Applications,
    /// Number of instances that the list lacks, since they could not be read.
    pub(crate) skipped: usize,
    pub(crate) origin: Origin,
    /// Time of the request.
    pub(crate) requested: Moment,
    /// Digest of the whole registry, of which the list may be a delta.
    pub(crate) digest: Option<Digest>,
    pub(crate) etag: Option<HeaderValue>,
    /// Bytes of the body as received, before decompression.
    pub(crate) received: u64,
    /// Date of the response by the server's clock.
    pub(crate) date: Option<ResponseDate>,
    /// True if the body was compressed.
    pub(crate) is_compressed: bool,
}

impl Fetched {
    /// Returns everything of a response but its list.
    pub(super) fn head(origin: Origin, response: &ServerResponse) -> Self {
        let headers = &response.headers;
        Self {
            list: Applications::default(),
            skipped: 0,
            origin,
            requested: response.requested,
            digest: headers.get(Digest::HEADER).and_then(Digest::from_header),
            etag: headers.get(header::ETAG).cloned(),
            received: response.received,
            date: response.date,
            is_compressed: headers.contains_key(header::CONTENT_ENCODING),
        }
    }
}

/// Result of fetching the whole registry.
#[derive(Debug)]
pub(crate) enum Full {
    Changed(Fetched),
    /// The registry still has the known `ETag`. Holds the server and the time of the request.
    Unchanged(Origin, Moment),
}

/// Identity of the server that responded, as far as it is known: its service URL and the server
/// behind it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Origin {
    url: Arc<str>,
    responder: Responder,
}

impl Origin {
    /// Returns the service URL without credentials.
    pub(crate) fn url(&self) -> &Arc<str> {
        &self.url
    }

    pub(super) fn new(server: &ServiceUrl, response: &ServerResponse) -> Self {
        Self { url: server.as_str().clone(), responder: response.responder.clone() }
    }
}

#[cfg(test)]
impl Origin {
    /// Returns the origin of a service URL with this number.
    pub(crate) fn of(number: usize) -> Self {
        Self { url: format!("http://{number}/").into(), responder: Responder::default() }
    }
}

impl Transport {
    /// Fetches the whole registry, unless its `ETag` is still the `known` one. With a `race`, all
    /// servers are tried within that time, although the previous ones have not responded.
    /// Instances that are held are not decoded again.
    pub(crate) async fn full(
        &self,
        known: Option<&HeaderValue>,
        race: Option<Duration>,
        held: &Known,
    ) -> Result<Full, Error> {
        let options = SendOptions { race: race.map(Race::list), ..self.options() };
        let fetch = |query: &str| {
            let operation = Operation::new("fetch registry", Method::GET).path(format!("apps/{query}"));
            let operation = operation.list(held.clone());
            self.fetch(Operation { known: known.cloned(), ..operation }, options)
        };
        let (full, is_fallback) = self.with_fallback(fetch).await;
        if full.is_ok() {
            self.servers.fell_back.store(is_fallback, Ordering::Release);
        }
        full
    }

    /// Fetches a list with the query of lists, or with the fallback query if the server rejects
    /// that one with 403. Returns `true` as well in the second case.
    pub(super) async fn with_fallback<T, F: Future<Output = Result<T, Error>>>(
        &self,
        fetch: impl Fn(&str) -> F,
    ) -> (Result<T, Error>, bool) {
        match (fetch(&self.list_query).await, self.fallback_query) {
            (Err(error), Some(fallback)) if error.status() == Some(StatusCode::FORBIDDEN.as_u16()) => {
                (fetch(fallback).await, true)
            }
            (fetched, _) => (fetched, false),
        }
    }

    /// Fetches the delta with the data that proves its continuity. Returns `None` if the server
    /// offers none.
    pub(crate) async fn changes(&self) -> Result<Option<Fetched>, Error> {
        let fell_back = self.deltas_fall_back && self.servers.fell_back.load(Ordering::Acquire);
        let query = self.fallback_query.filter(|_| fell_back).unwrap_or(&self.list_query);
        let operation = Operation::new("fetch delta", Method::GET).path(format!("apps/delta{query}"));
        let operation = operation.accept_not_offered().list(Known::default());
        Ok(match self.fetch_optional(operation, self.options()).await? {
            Some(Full::Changed(fetched)) => Some(fetched),
            _ => None,
        })
    }

    /// Fetches the whole registry with the data that proves its continuity.
    #[cfg(feature = "peers")]
    pub(crate) async fn registry(&self) -> Result<Fetched, Error> {
        let operation = Operation::new("fetch registry", Method::GET).path(format!("apps/{}", self.list_query));
        let operation = operation.list(Known::default());
        match self.fetch(operation, self.options()).await? {
            Full::Changed(fetched) => Ok(fetched),
            Full::Unchanged(..) => unreachable!("304 is accepted only with a known ETag"),
        }
    }

    /// Fetches a list with an operation that accepts no error status.
    async fn fetch(&self, operation: Operation<'_>, options: SendOptions<'_>) -> Result<Full, Error> {
        let fetched = self.fetch_optional(operation, options).await?;
        Ok(fetched.expect("the operation accepts no error status"))
    }

    /// Returns `None` for an accepted error status.
    async fn fetch_optional(&self, operation: Operation<'_>, options: SendOptions<'_>) -> Result<Option<Full>, Error> {
        self.send(operation, options, |server, response| {
            let origin = Origin::new(server, &response);
            async move {
                if response.status == StatusCode::NOT_MODIFIED {
                    return Ok(Some(Full::Unchanged(origin, response.requested)));
                }
                if !response.status.is_success() {
                    return Ok(None);
                }
                let head = Fetched::head(origin, &response);
                let DecodedList { list, skipped } = response.into_list()?;
                Ok(Some(Full::Changed(Fetched { list, skipped, ..head })))
            }
        })
        .await
    }
}
