//! Failover: one operation is sent to one server after the other until one of them completes it.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::task::Poll;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use super::errors::{InvalidResponse, ServerErrors};
use super::request::{Operation, Verdict};
use super::response::ServerResponse;
use super::server_order::{Access, ServerOrder};
use super::stack::HttpStack;
use crate::config::ServiceUrl;
use crate::error::{Error, Kind};
use crate::panics::catch_panic;
use crate::sync::Mutex;

/// Registry servers and the order in which they are tried.
#[derive(Debug)]
pub(super) struct Servers {
    urls: Vec<ServiceUrl>,
    pub(super) order: ServerOrder,
    /// True if the last fetch of the whole registry fell back to the unfiltered list.
    pub(super) fell_back: AtomicBool,
    /// URL of the server that completed the last write.
    writer: Mutex<Option<Arc<str>>>,
}

/// Options of sending that do not depend on the request.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct SendOptions {
    /// Skips servers that asked for a pause.
    pub(super) background: bool,
    /// Time after which the next server is tried while the previous attempt is still pending.
    pub(super) stagger: Option<Duration>,
    /// Tries only the server of the last write, and does not change the order of the servers.
    pub(super) last_writer_only: bool,
}

/// Result of an attempt at one server.
enum Attempt<T> {
    Completed(T),
    /// Every server would reject this request.
    Rejected(Error),
    /// Another server may complete the operation.
    Failed {
        error: Error,
        /// True if the server is unavailable for every operation, not only for this one.
        unavailable: bool,
    },
}

impl Servers {
    pub(super) fn new(urls: Vec<ServiceUrl>) -> Self {
        Self { order: ServerOrder::new(urls.len()), urls, fell_back: AtomicBool::new(false), writer: Mutex::default() }
    }

    /// Sends an operation to one server after the other, until one responds with a final status or
    /// rejects the request.
    ///
    /// `read` converts a final response into the result. Its first argument is the number of the
    /// server. If it fails, the attempt counts as failed and the next server is tried.
    pub(super) async fn send<T, F: Future<Output = Result<T, InvalidResponse>>>(
        &self,
        stack: &HttpStack,
        operation: &Operation<'_>,
        options: SendOptions,
        read: impl Fn(usize, ServerResponse) -> F,
    ) -> Result<T, Error> {
        let access = if options.last_writer_only { Access::Write } else { operation.access() };
        let subject = operation.subject();
        let order = self.order.select(access, options.background);
        let mut order = order.map_err(|paused| paused.error(subject, &self.urls[paused.server]))?;
        if options.last_writer_only {
            order.truncate(1);
        }
        let (mut errors, mut unavailable) = (ServerErrors::default(), Vec::new());
        let mut last = order[0];
        let mut waiting = order.into_iter();
        let mut running: Vec<(usize, Pin<Box<_>>)> = Vec::new();
        loop {
            if let Some(server) = waiting.next() {
                last = server;
                running.push((server, Box::pin(self.attempt(server, stack, operation, &read))));
            }
            if running.is_empty() {
                break;
            }
            let next = options.stagger.filter(|_| waiting.len() > 0).map(|stagger| Instant::now() + stagger);
            let finished = tokio::select! {
                biased;
                attempt = first_finished(&mut running) => Some(attempt),
                () = sleep_until(next.unwrap_or_else(Instant::now)), if next.is_some() => None,
            };
            match finished {
                None => {}
                Some((server, Attempt::Completed(value))) => {
                    if !options.last_writer_only {
                        self.order.succeeded(access, server, &unavailable);
                        self.note_writer(access, self.urls[server].as_str());
                    }
                    return Ok(value);
                }
                Some((server, Attempt::Rejected(error))) => {
                    if !options.last_writer_only {
                        self.order.failed(access, server);
                    }
                    return Err(error);
                }
                Some((server, Attempt::Failed { error, unavailable: is_unavailable })) => {
                    let (operation, url) = (subject.operation, self.urls[server].as_str());
                    tracing::debug!(operation, server = %url, %error, "registry server failed");
                    if is_unavailable {
                        unavailable.push(server);
                    }
                    errors.add(error);
                }
            }
        }
        // The next operation starts behind the servers that failed, so that every server is tried.
        if !options.last_writer_only {
            self.order.failed(access, last);
        }
        Err(errors.into_error())
    }

    async fn attempt<T, F: Future<Output = Result<T, InvalidResponse>>>(
        &self,
        number: usize,
        stack: &HttpStack,
        operation: &Operation<'_>,
        read: &impl Fn(usize, ServerResponse) -> F,
    ) -> Attempt<T> {
        let (server, subject) = (&self.urls[number], operation.subject());
        let request = match operation.request(server) {
            Ok(request) => request,
            Err(e) => {
                let error = subject.error(Kind::Config, server).cause("the request cannot be built");
                return Attempt::Rejected(error.with_source(e));
            }
        };
        let response = match stack.exchange(request).await {
            Ok(response) => response,
            Err(failed) if failed.is_local() => return Attempt::Rejected(failed.error(subject, server)),
            Err(failed) => return Attempt::Failed { error: failed.error(subject, server), unavailable: true },
        };
        let status = response.status;
        match operation.classify(status) {
            Verdict::Final => match catch_panic(read(number, response)).await {
                Ok(Ok(value)) => Attempt::Completed(value),
                Ok(Err(invalid)) => Attempt::Failed { error: invalid.error(subject, server), unavailable: false },
                Err(panicked) => {
                    let invalid = InvalidResponse::Panicked(panicked);
                    Attempt::Failed { error: invalid.error(subject, server), unavailable: false }
                }
            },
            Verdict::Rejected => Attempt::Rejected(response.error(subject, server)),
            Verdict::NextServer => {
                // With other statuses the header does not mean an overload. Error pages of proxies
                // and redirects have it as well.
                if matches!(status.as_u16(), 429 | 503)
                    && let Some(retry_after) = response.retry_after()
                {
                    self.order.pause(number, status, retry_after);
                }
                let unavailable = status.is_server_error() || matches!(status.as_u16(), 408 | 429);
                Attempt::Failed { error: response.error(subject, server), unavailable }
            }
        }
    }

    /// Records the server that completed an operation, if that was a write.
    fn note_writer(&self, access: Access, url: &str) {
        if access == Access::Write && self.writer.lock().as_deref() != Some(url) {
            *self.writer.lock() = Some(url.into());
        }
    }

    /// Returns the URL of the server that completed the last write.
    pub(super) fn writer(&self) -> Option<Arc<str>> {
        self.writer.lock().clone()
    }

    pub(super) fn hosts(&self) -> Vec<(String, u16)> {
        self.urls.iter().map(ServiceUrl::host_and_port).collect()
    }

    pub(super) fn len(&self) -> usize {
        self.urls.len()
    }
}

/// Waits for the first attempt that finishes, and removes it from the list.
async fn first_finished<T, F: Future<Output = Attempt<T>>>(
    running: &mut Vec<(usize, Pin<Box<F>>)>,
) -> (usize, Attempt<T>) {
    poll_fn(|cx| {
        for at in 0..running.len() {
            if let Poll::Ready(attempt) = running[at].1.as_mut().poll(cx) {
                return Poll::Ready((running.swap_remove(at).0, attempt));
            }
        }
        Poll::Pending
    })
    .await
}
