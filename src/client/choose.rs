//! Choice of an instance without a call, for protocols other than HTTP.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use http::Request;
use http::request::Parts;

use super::ResponseFuture;
use super::address::{AddressRule, HasAddress};
use super::clients::Client;
use super::options::CallOptions;
use super::picked::PickedInstance;
use super::presence::Presence;
use super::routes::Routes;
use crate::balance::{Completion, HttpResponses, Outcome, Picked};
use crate::cache::RegistryCache;
use crate::sync::Mutex;

/// Instance that was chosen without a call, with a guard that reports the outcome. Returned by
/// [`Eureka::choose`](crate::Eureka::choose).
///
/// The call counts as pending at the instance until this is dropped, so keep it as long as the
/// connection or session lasts. A guard that is dropped without an outcome says nothing about the
/// instance.
#[must_use = "the call counts as pending at the instance until this is dropped"]
pub struct Chosen {
    picked: PickedInstance,
    completion: Mutex<Completion>,
}

impl Chosen {
    pub(super) fn new<E: HasAddress>(endpoint: Picked<E, HttpResponses>) -> Self {
        let picked = PickedInstance::new(endpoint.service(), 1);
        Self { picked, completion: Mutex::new(endpoint.into_completion()) }
    }

    /// Records that the instance responded as it should. The time since the choice is its latency.
    ///
    /// Only the first outcome counts, except for a failure after a success.
    pub fn success(&self) {
        self.outcome(Outcome::Success);
    }

    /// Records that the instance failed. It is ejected after a number of failures; see
    /// [`CallOptions::ejection`](super::CallOptions::ejection).
    pub fn failure(&self) {
        self.outcome(Outcome::Failure { retry_after: None });
    }

    /// Records that no connection could be established. Other instances are chosen for a while.
    pub fn unreachable(&self) {
        self.outcome(Outcome::Unreachable);
    }

    /// Records any outcome.
    pub fn outcome(&self, outcome: Outcome) {
        self.completion.lock().outcome(outcome);
    }
}

impl Deref for Chosen {
    type Target = PickedInstance;

    fn deref(&self) -> &PickedInstance {
        &self.picked
    }
}

/// Without an outcome, the drop is no evidence about the instance.
impl Drop for Chosen {
    fn drop(&mut self) {
        self.completion.get_mut().outcome(Outcome::Cancelled);
    }
}

impl fmt::Debug for Chosen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Chosen").field(&self.picked).finish()
    }
}

/// Head of a request, from which policies choose: a request, its parts, or `()` for none.
pub trait RequestHead: sealed::Sealed {
    /// Returns a copy of the head.
    fn to_parts(&self) -> Parts;
}

impl RequestHead for Parts {
    fn to_parts(&self) -> Parts {
        self.clone()
    }
}

impl<B> RequestHead for Request<B> {
    fn to_parts(&self) -> Parts {
        let (mut parts, ()) = Request::new(()).into_parts();
        parts.method = self.method().clone();
        parts.uri = self.uri().clone();
        parts.version = self.version();
        parts.headers = self.headers().clone();
        parts.extensions = self.extensions().clone();
        parts
    }
}

impl RequestHead for () {
    fn to_parts(&self) -> Parts {
        Request::new(()).into_parts().0
    }
}

mod sealed {
    pub trait Sealed {}

    impl Sealed for http::request::Parts {}

    impl<B> Sealed for http::Request<B> {}

    impl Sealed for () {}
}

impl<E: HasAddress + Clone + Send + Sync + 'static> Routes<E> {
    /// Chooses an instance, and waits for one as a call does.
    pub(super) fn choose(self: Arc<Self>, name: &str, request: &impl RequestHead) -> ResponseFuture<Chosen> {
        let (name, request) = (Box::<str>::from(name), Request::from_parts(request.to_parts(), ()));
        ResponseFuture(Box::pin(async move {
            let route = self.route(&name, false)?;
            route.record_use();
            let deadline = route.deadline(&request);
            let (parts, ()) = request.into_parts();
            if !route.is_ready() {
                route.ready(deadline).await?;
            }
            match route.balance.pick(&parts, &[]) {
                Some(picked) => Ok(Chosen::new(picked)),
                None => Err(route.balance.no_endpoints_for(&parts)),
            }
        }))
    }
}

/// Chooses instances for protocols other than HTTP. Clones share the endpoints.
#[derive(Clone)]
pub(crate) struct Chooser(Arc<Routes<AddressOnly>>);

/// Endpoint without connections.
#[derive(Clone)]
struct AddressOnly(Arc<Presence>);

impl HasAddress for AddressOnly {
    fn presence(&self) -> &Arc<Presence> {
        &self.0
    }
}

impl Chooser {
    pub(crate) fn new(registry: Arc<RegistryCache>, options: CallOptions, ready_timeout: Duration) -> Self {
        // Callers connect by themselves, perhaps with TLS of their own.
        let rule = |options: &CallOptions| AddressRule { can_tls: true, ..AddressRule::of(options) };
        let make = Arc::new(|presence, _: &CallOptions| AddressOnly(presence));
        Self(Arc::new(Routes::new(registry, options, rule, ready_timeout, make)))
    }

    /// Returns `true` if instances come from this registry.
    pub(crate) fn is_over(&self, registry: &Arc<RegistryCache>) -> bool {
        self.0.is_over(registry)
    }

    /// Returns the routes, for the list of the clients.
    pub(crate) fn as_client(&self) -> Arc<dyn Client> {
        self.0.clone()
    }

    pub(crate) fn choose(&self, name: &str, request: &impl RequestHead) -> ResponseFuture<Chosen> {
        self.0.clone().choose(name, request)
    }
}
