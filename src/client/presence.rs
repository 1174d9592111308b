//! Ends calls that wait at an instance that has left the registry.

use std::fmt;
use std::future::{self, Pending};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use pin_project::pin_project;
use tokio::sync::Notify;
use tokio::sync::futures::Notified;
use tokio::time::sleep;

use super::address::{Address, AddressRule};
use super::connection::Link;
use super::failure::Failure;
use super::picked::{Listed, Record};
use crate::cache::RegistryCache;
use crate::connect::Dial;
use crate::error::Error;
use crate::model::Instance;
use crate::sync::Mutex;

/// Minimum time between checks of an instance that is still registered.
const MIN_CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// Presence of one instance in the registry, at one address.
///
/// An endpoint is also dropped while its instance lives on: for a status other than UP, a changed
/// record, or a newer registration. Pending calls continue then, and check the registry until it
/// has had no such instance for the whole grace time.
pub(super) struct Presence {
    /// Instance as it was when the endpoint was made.
    pub(super) instance: Arc<Instance>,
    /// Instance as it is listed now, at the same address.
    pub(super) record: Record,
    pub(super) address: Address,
    rule: AddressRule,
    registry: Weak<RegistryCache>,
    grace: Duration,
    is_dropped: AtomicBool,
    dropped: Notify,
    /// Connections that carry one call at a time.
    links: Mutex<Vec<Weak<Link>>>,
}

impl Presence {
    pub(super) fn new(record: Record, rule: AddressRule, registry: Weak<RegistryCache>, grace: Duration) -> Arc<Self> {
        let (is_dropped, dropped) = (AtomicBool::new(false), Notify::new());
        let links = Mutex::default();
        let Listed { instance, address, .. } = &*record.load_full();
        let (instance, address) = (instance.clone(), address.clone());
        Arc::new(Self { instance, record, address, rule, registry, grace, is_dropped, dropped, links })
    }

    /// Returns the rules for connections that the address does not contain.
    pub(super) fn dial(&self) -> Dial {
        self.rule.dial(&self.instance)
    }

    /// Names the instance and its address in an error.
    pub(super) fn name_in(&self, error: Error) -> Error {
        let Self { instance, address, .. } = self;
        error.app(instance.app()).instance(instance.id()).server(address.authority.as_str())
    }

    /// Adds a new connection that carries one call at a time.
    ///
    /// Registering with its waker costs each call less than joining a list of waiters.
    pub(super) fn add_link(&self, link: Link) -> Arc<Link> {
        let link = Arc::new(link);
        let mut links = self.links.lock();
        links.retain(|link| link.strong_count() > 0);
        links.push(Arc::downgrade(&link));
        link
    }

    /// Returns the open connections that carry one call at a time.
    pub(super) fn links(&self) -> Vec<Arc<Link>> {
        self.links.lock().iter().filter_map(Weak::upgrade).collect()
    }

    /// Waits for the response. Fails if the instance is gone before it comes.
    #[inline]
    pub(super) fn unless_gone<F: Future>(&self, response: F) -> UnlessGone<'_, F, Notified<'_>> {
        UnlessGone { response, gone: self.gone() }
    }

    /// Waits for the response on a connection. Fails if the instance is gone before it comes.
    ///
    /// Each poll of `response` must register with the waker of the connection's [`Link`].
    #[inline]
    pub(super) fn unless_gone_on<F: Future>(&self, response: F) -> UnlessGone<'_, F, Pending<()>> {
        UnlessGone { response, gone: Gone { presence: self, dropped: future::pending(), absence: None } }
    }

    /// Waits until the registry has not had the instance for the grace time.
    #[inline]
    pub(super) fn gone(&self) -> Gone<'_, Notified<'_>> {
        // Registered before the first poll, so that no drop is missed.
        Gone { presence: self, dropped: self.dropped.notified(), absence: None }
    }

    /// Waits until the registry has not had the instance for the grace time, once the endpoint is
    /// dropped.
    async fn absence(&self) -> Failure {
        loop {
            while self.is_registered() {
                sleep(self.grace.max(MIN_CHECK_INTERVAL)).await;
            }
            // `sleep` caps times beyond the range of the clock at decades.
            sleep(self.grace).await;
            if !self.is_registered() {
                return Failure::Left(self.grace);
            }
        }
    }

    /// Returns `true` if the registry has the instance at this address, whatever its status, or if
    /// that is not known.
    fn is_registered(&self) -> bool {
        let Some(registry) = self.registry.upgrade() else { return true };
        let snapshot = registry.snapshot();
        let instance = snapshot.instance(self.instance.app(), self.instance.id());
        instance.is_some_and(|instance| self.rule.address(instance).is_ok_and(|address| address == self.address))
    }
}

/// Future of [`Presence::unless_gone`]. Each call has one: an `async fn` would hold the response's
/// future twice.
#[pin_project]
pub(super) struct UnlessGone<'a, F, D> {
    #[pin]
    response: F,
    #[pin]
    gone: Gone<'a, D>,
}

/// Future of [`Presence::gone`].
#[pin_project]
pub(super) struct Gone<'a, D> {
    presence: &'a Presence,
    /// Ready when the endpoint is dropped, if polls do not register otherwise.
    #[pin]
    dropped: D,
    /// Begins when the endpoint is dropped.
    absence: Option<Pin<Box<dyn Future<Output = Failure> + Send + 'a>>>,
}

impl<F: Future, D: Future<Output = ()>> Future for UnlessGone<'_, F, D> {
    type Output = Result<F::Output, Failure>;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        if let Poll::Ready(response) = this.response.poll(cx) {
            return Poll::Ready(Ok(response));
        }
        this.gone.poll(cx).map(Err)
    }
}

impl<D: Future<Output = ()>> Future for Gone<'_, D> {
    type Output = Failure;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Failure> {
        let this = self.project();
        if this.absence.is_none() {
            if !this.presence.is_dropped.load(Ordering::SeqCst) {
                ready!(this.dropped.poll(cx));
            }
            *this.absence = Some(Box::pin(this.presence.absence()));
        }
        this.absence.as_mut().expect("absence is set above").as_mut().poll(cx)
    }
}

impl fmt::Debug for Presence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Presence").field(&self.instance.id()).finish()
    }
}

/// Held by the endpoint in the balancer. Its drop makes pending calls at the endpoint check the
/// registry.
#[derive(Debug)]
pub(super) struct Membership(pub(super) Arc<Presence>);

impl Drop for Membership {
    fn drop(&mut self) {
        self.0.is_dropped.store(true, Ordering::SeqCst);
        self.0.dropped.notify_waiters();
        // Woken without the lock.
        self.0.links().iter().for_each(|link| link.waker.wake());
    }
}

#[cfg(test)]
impl Presence {
    /// Presence of an instance without a registry.
    pub(super) fn at(address: Address) -> Arc<Self> {
        use super::options::CallOptions;
        use super::picked::Records;

        let instance = Arc::new(Instance::builder("orders").id("a").ip_addr("127.0.0.1").port(1).build().unwrap());
        let rule = AddressRule::of_layer(&CallOptions::new());
        let record = Records::default().update(Listed { key: instance.id().into(), instance, address });
        Self::new(record, rule, Weak::new(), Duration::from_secs(30))
    }
}
