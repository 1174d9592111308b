//! The choice of the server, and the reasons to try another one.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::atomic::AtomicBool;
use std::task::Poll;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use super::call::{Call, Verdict};
use super::faults::{Faults, Unreadable};
use super::stack::{Answer, HttpStack};
use super::turns::{Access, Turns};
use crate::config::ServiceUrl;
use crate::error::{Error, Kind};
use crate::panics::catch_panic;

/// The servers, and in which order they are tried.
#[derive(Debug)]
pub(super) struct Servers {
    urls: Vec<ServiceUrl>,
    pub(super) turns: Turns,
    /// True if the whole registry was last fetched in its second form, since the first was refused.
    pub(super) took_second: AtomicBool,
}

/// Choices of one operation that do not depend on what it sends.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Manner {
    /// Leaves servers alone that asked for it.
    pub(super) background: bool,
    /// Time after which the next server is asked although the one before may still respond.
    pub(super) stagger: Option<Duration>,
    /// Asks the server that took the last write and no other, and leaves the order of the servers as it is.
    pub(super) look: bool,
}

/// The end of an attempt at one server.
enum Ended<T> {
    Done(T),
    /// Every server would refuse this request.
    Refused(Error),
    /// Another server may do better.
    Failed {
        error: Error,
        /// True if the server is unavailable for every operation, not only for this one.
        unavailable: bool,
    },
}

impl Servers {
    pub(super) fn new(urls: Vec<ServiceUrl>) -> Self {
        Self { turns: Turns::new(urls.len()), urls, took_second: AtomicBool::new(false) }
    }

    /// Sends to one server after the other until one gives a final response or refuses the request.
    ///
    /// `read` turns a final response of the server with this number into the result. A response
    /// that it cannot read counts as a fault of that server.
    pub(super) async fn send<T, F: Future<Output = Result<T, Unreadable>>>(
        &self,
        stack: &HttpStack,
        call: &Call<'_>,
        manner: Manner,
        read: impl Fn(usize, Answer) -> F,
    ) -> Result<T, Error> {
        let access = if manner.look { Access::Write } else { call.access() };
        let subject = call.subject();
        let order = self.turns.order(access, manner.background);
        let mut order = order.map_err(|paused| paused.error(subject, &self.urls[paused.server]))?;
        if manner.look {
            order.truncate(1);
        }
        let (mut faults, mut unavailable) = (Faults::default(), Vec::new());
        let mut last = order[0];
        let mut waiting = order.into_iter();
        let mut running: Vec<(usize, Pin<Box<_>>)> = Vec::new();
        loop {
            if let Some(server) = waiting.next() {
                last = server;
                running.push((server, Box::pin(self.attempt(server, stack, call, &read))));
            }
            if running.is_empty() {
                break;
            }
            let next = manner.stagger.filter(|_| waiting.len() > 0).map(|stagger| Instant::now() + stagger);
            let ended = tokio::select! {
                biased;
                ended = first_ended(&mut running) => Some(ended),
                () = sleep_until(next.unwrap_or_else(Instant::now)), if next.is_some() => None,
            };
            match ended {
                None => {}
                Some((server, Ended::Done(value))) => {
                    if !manner.look {
                        self.turns.succeeded(access, server, &unavailable);
                    }
                    return Ok(value);
                }
                Some((server, Ended::Refused(error))) => {
                    if !manner.look {
                        self.turns.failed(access, server);
                    }
                    return Err(error);
                }
                Some((server, Ended::Failed { error, unavailable: is_unavailable })) => {
                    let (operation, url) = (subject.operation, self.urls[server].as_str());
                    tracing::debug!(operation, server = %url, %error, "registry server failed");
                    if is_unavailable {
                        unavailable.push(server);
                    }
                    faults.add(error);
                }
            }
        }
        // The next operation begins behind those that failed, so that each server has its turn.
        if !manner.look {
            self.turns.failed(access, last);
        }
        Err(faults.error())
    }

    async fn attempt<T, F: Future<Output = Result<T, Unreadable>>>(
        &self,
        number: usize,
        stack: &HttpStack,
        call: &Call<'_>,
        read: &impl Fn(usize, Answer) -> F,
    ) -> Ended<T> {
        let (server, subject) = (&self.urls[number], call.subject());
        let request = match call.request(server) {
            Ok(request) => request,
            Err(e) => {
                let error = subject.error(Kind::Config, server).cause("the request cannot be built");
                return Ended::Refused(error.with_source(e));
            }
        };
        let response = match stack.exchange(request).await {
            Ok(response) => response,
            Err(failure) => return Ended::Failed { error: failure.error(subject, server), unavailable: true },
        };
        let status = response.status;
        match call.judge(status) {
            Verdict::Final => match catch_panic(read(number, response)).await {
                Ok(Ok(value)) => Ended::Done(value),
                Ok(Err(unreadable)) => Ended::Failed { error: unreadable.error(subject, server), unavailable: false },
                Err(panicked) => {
                    let unreadable = Unreadable::Panicked(panicked);
                    Ended::Failed { error: unreadable.error(subject, server), unavailable: false }
                }
            },
            Verdict::Refused => Ended::Refused(response.error(subject, server)),
            Verdict::NextServer => {
                // With another status it is no overload: pages of proxies and redirects have it, too.
                if matches!(status.as_u16(), 429 | 503)
                    && let Some(retry_after) = response.retry_after()
                {
                    self.turns.pause(number, status, retry_after);
                }
                let unavailable = status.is_server_error() || matches!(status.as_u16(), 408 | 429);
                Ended::Failed { error: response.error(subject, server), unavailable }
            }
        }
    }

    pub(super) fn hosts(&self) -> Vec<(String, u16)> {
        self.urls.iter().map(ServiceUrl::host_and_port).collect()
    }

    pub(super) fn len(&self) -> usize {
        self.urls.len()
    }
}

/// Waits for the first of the attempts that ends, and takes it out.
async fn first_ended<T, F: Future<Output = Ended<T>>>(running: &mut Vec<(usize, Pin<Box<F>>)>) -> (usize, Ended<T>) {
    poll_fn(|cx| {
        for at in 0..running.len() {
            if let Poll::Ready(ended) = running[at].1.as_mut().poll(cx) {
                return Poll::Ready((running.swap_remove(at).0, ended));
            }
        }
        Poll::Pending
    })
    .await
}
