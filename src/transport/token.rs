//! Bearer tokens from the user's provider.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use http::HeaderValue;
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout_at};

use crate::config::TokenProvider;
use crate::panics::catch_panic;
use crate::time::{Backoff, add_capped};

/// Time for which the failure of the provider is returned again without a call, so that an
/// operation that tries several servers waits for it once.
const FAILURE_PAUSE: Duration = Duration::from_secs(1);
/// Time until a renewed token that was rejected as well is renewed again. It doubles with each
/// further one, up to the maximum.
const FIRST_REFUSAL_PAUSE: Duration = Duration::from_secs(1);
const MAX_REFUSAL_PAUSE: Duration = Duration::from_secs(60);

/// Cache of the token that the provider returned last.
///
/// At most one call of the provider runs at a time, and concurrent callers share its result.
#[derive(Debug)]
pub(super) struct Tokens {
    provider: TokenProvider,
    state: Mutex<State>,
    /// True while renewed tokens are rejected.
    is_refused: AtomicBool,
}

#[derive(Debug)]
struct State {
    current: Option<Issued>,
    failed: Option<(Instant, TokenError)>,
    /// Time before which the present token is not renewed, since it was rejected although it was
    /// new.
    refused_until: Option<Instant>,
    refusals: Backoff,
}

/// Token as the value of a header.
#[derive(Clone, Debug)]
struct Issued {
    header: HeaderValue,
    expires: Option<Instant>,
}

/// Error of a provider. It never holds the token.
#[derive(Clone, Debug)]
pub(super) enum TokenError {
    /// The provider returned this error.
    Failed(Arc<str>),
    Panicked,
    /// The provider returned nothing within this time.
    Timeout(Duration),
    /// The token is empty, or has characters that no header can hold.
    Invalid,
}

impl Tokens {
    pub(super) fn new(provider: TokenProvider) -> Self {
        let refusals = Backoff::new(FIRST_REFUSAL_PAUSE, MAX_REFUSAL_PAUSE);
        let state = State { current: None, failed: None, refused_until: None, refusals };
        Self { provider, state: Mutex::new(state), is_refused: AtomicBool::new(false) }
    }

    /// Returns the `Authorization` header with the cached token. Calls the provider if there is
    /// none, if it expired, or if it is the `rejected` one.
    ///
    /// A rejected token is returned again while renewed tokens were rejected as well; see
    /// [`refuse`](Self::refuse).
    ///
    /// # Errors
    /// When the provider fails, or returns nothing within `bound`. This includes the wait for
    /// another caller's call.
    pub(super) async fn header(
        &self,
        bound: Duration,
        rejected: Option<&HeaderValue>,
    ) -> Result<HeaderValue, TokenError> {
        let asked = Instant::now();
        let deadline = add_capped(asked, bound);
        let mut state = timeout_at(deadline, self.state.lock()).await.map_err(|_| TokenError::Timeout(bound))?;
        let now = Instant::now();
        let is_usable = |issued: &&Issued| {
            issued.expires.is_none_or(|expires| now < expires)
                && rejected.is_none_or(|rejected| issued.header != *rejected)
        };
        if let Some(issued) = state.current.as_ref().filter(is_usable) {
            return Ok(issued.header.clone());
        }
        if let Some(rejected) = rejected
            && state.refused_until.is_some_and(|until| now < until)
        {
            return Ok(rejected.clone());
        }
        if let Some((at, error)) = &state.failed
            && asked < *at + FAILURE_PAUSE
        {
            return Err(error.clone());
        }
        let provided = timeout_at(deadline, catch_panic(self.provider.provide())).await;
        let issued = match provided {
            Err(_) => Err(TokenError::Timeout(bound)),
            Ok(Err(_)) => Err(TokenError::Panicked),
            Ok(Ok(Err(error))) => {
                let known =
                    state.current.as_ref().and_then(|issued| issued.header.to_str().ok()?.strip_prefix("Bearer "));
                let text = error.to_string();
                Err(TokenError::Failed(known.map_or_else(|| text.clone(), |known| text.replace(known, "***")).into()))
            }
            Ok(Ok(Ok(token))) => header(token.secret()).map(|header| {
                let expires = token.lifetime().map(|lifetime| add_capped(Instant::now(), lifetime));
                Issued { header, expires }
            }),
        };
        match issued {
            Ok(issued) => {
                let header = issued.header.clone();
                (state.current, state.failed) = (Some(issued), None);
                if rejected == Some(&header) {
                    self.refuse_in(&mut state);
                }
                Ok(header)
            }
            Err(error) => {
                state.failed = Some((Instant::now(), error.clone()));
                Err(error)
            }
        }
    }
}

impl Tokens {
    /// Records that a renewed token was rejected as well. It is not renewed again for some time.
    pub(super) async fn refuse(&self, renewed: &HeaderValue) {
        let mut state = self.state.lock().await;
        if state.current.as_ref().is_some_and(|issued| issued.header == *renewed) {
            self.refuse_in(&mut state);
        }
    }

    fn refuse_in(&self, state: &mut State) {
        state.refused_until = Some(Instant::now() + state.refusals.next());
        self.is_refused.store(true, Ordering::Relaxed);
    }

    /// Records that a server accepted a token.
    pub(super) async fn accept(&self) {
        if self.is_refused.swap(false, Ordering::Relaxed) {
            let mut state = self.state.lock().await;
            state.refused_until = None;
            state.refusals.reset();
        }
    }
}

fn header(token: &str) -> Result<HeaderValue, TokenError> {
    let token = token.trim();
    if token.is_empty() {
        return Err(TokenError::Invalid);
    }
    let mut header = HeaderValue::try_from(format!("Bearer {token}")).map_err(|_| TokenError::Invalid)?;
    header.set_sensitive(true);
    Ok(header)
}

impl fmt::Display for TokenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Failed(error) => write!(f, "the provider of bearer tokens failed: {error}"),
            Self::Panicked => f.write_str("the provider of bearer tokens panicked"),
            Self::Timeout(bound) => write!(f, "the provider of bearer tokens returned nothing within {bound:?}"),
            Self::Invalid => f.write_str("the provider of bearer tokens returned one that is empty or no valid header"),
        }
    }
}

impl std::error::Error for TokenError {}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use tokio::time::{advance, sleep};

    use super::*;
    use crate::config::BearerToken;

    const BOUND: Duration = Duration::from_secs(10);

    /// Creates a cache whose provider takes a second and returns `t1`, `t2` and so on for a minute.
    fn counted() -> (Arc<Tokens>, Arc<AtomicUsize>) {
        let calls = Arc::new(AtomicUsize::new(0));
        let counted = calls.clone();
        let provider = TokenProvider::new(move || {
            let number = counted.fetch_add(1, Ordering::SeqCst) + 1;
            async move {
                sleep(Duration::from_secs(1)).await;
                Ok::<_, TokenError>(BearerToken::new(format!("t{number}")).expires_in(Duration::from_secs(60)))
            }
        });
        (Arc::new(Tokens::new(provider)), calls)
    }

    #[tokio::test(start_paused = true)]
    async fn token_is_cached_until_it_expires() {
        let (tokens, calls) = counted();
        for _ in 0..3 {
            assert_eq!(tokens.header(BOUND, None).await.unwrap(), "Bearer t1");
            advance(Duration::from_secs(15)).await;
        }
        advance(Duration::from_secs(15)).await;
        assert_eq!(tokens.header(BOUND, None).await.unwrap(), "Bearer t2");
        assert_eq!(calls.load(Ordering::SeqCst), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn concurrent_callers_share_one_call_and_one_renewal() {
        let (tokens, calls) = counted();
        for (rejected, expected) in [(None, "Bearer t1"), (Some("Bearer t1"), "Bearer t2")] {
            let callers: Vec<_> = (0..10)
                .map(|_| {
                    let tokens = tokens.clone();
                    let rejected = rejected.map(HeaderValue::from_static);
                    tokio::spawn(async move { tokens.header(BOUND, rejected.as_ref()).await.unwrap() })
                })
                .collect();
            for caller in callers {
                assert_eq!(caller.await.unwrap(), expected);
            }
        }
        assert_eq!(calls.load(Ordering::SeqCst), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn failure_is_shared_for_a_second_and_then_tried_again() {
        let calls = Arc::new(AtomicUsize::new(0));
        let counted = calls.clone();
        let tokens = Tokens::new(TokenProvider::new(move || {
            let is_first = counted.fetch_add(1, Ordering::SeqCst) == 0;
            async move { if is_first { Err("no route") } else { Ok("fresh") } }
        }));
        for _ in 0..3 {
            let error = tokens.header(BOUND, None).await.unwrap_err();
            assert!(error.to_string().contains("no route"), "{error}");
        }
        assert_eq!(calls.load(Ordering::SeqCst), 1);
        advance(FAILURE_PAUSE).await;
        assert_eq!(tokens.header(BOUND, None).await.unwrap(), "Bearer fresh");
    }

    #[tokio::test(start_paused = true)]
    async fn provider_that_hangs_ends_all_callers_at_their_bound() {
        let hangs = TokenProvider::new(std::future::pending::<Result<&str, TokenError>>);
        let tokens = Arc::new(Tokens::new(hangs));
        let start = Instant::now();
        let callers: Vec<_> = (0..5)
            .map(|_| {
                let tokens = tokens.clone();
                tokio::spawn(async move { tokens.header(BOUND, None).await })
            })
            .collect();
        for caller in callers {
            assert!(matches!(caller.await.unwrap(), Err(TokenError::Timeout(BOUND))));
        }
        assert_eq!(start.elapsed(), BOUND);
    }

    #[tokio::test(start_paused = true)]
    async fn unusable_token_and_panic_are_errors_without_the_token() {
        for token in ["", " ", "se\ncret", "se\u{0}cret"] {
            let tokens = Tokens::new(TokenProvider::new(move || async move { Ok::<_, TokenError>(token) }));
            let error = tokens.header(BOUND, None).await.unwrap_err();
            assert!(matches!(error, TokenError::Invalid));
            assert!(!format!("{error} {error:?} {tokens:?}").contains("cret"));
        }
        let panics =
            Tokens::new(TokenProvider::new(|| -> std::future::Ready<Result<&str, TokenError>> { panic!("secret") }));
        assert!(matches!(panics.header(BOUND, None).await, Err(TokenError::Panicked)));
    }
}
