//! The instances of a route: discovered, with the addresses at which they are called.
//!
//! ```text
//! EurekaDiscover ── instances ──▶ ┌───────────┐ ── Insert, Remove ──▶ balancer
//! options in force ── changes ──▶ │ Instances │    of Callable
//!                                 └───────────┘
//! ```
//!
//! When options change, all instances are reported again. The balancer keeps their measurements,
//! and their services as well unless the address or the options of connections differ.

use std::collections::{BTreeMap, VecDeque};
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::sync::watch;
use tokio_stream::Stream;
use tokio_stream::wrappers::WatchStream;
use tower::discover::Change;

use super::address::{Address, AddressRule};
use super::connection::health_url;
use super::options::CallOptions;
use super::picked::{Listed, Record, Records};
use crate::balance::{Attributes, Siblings};
use crate::cache::{Lookup, RegistryCache, Sources};
use crate::discover::EurekaDiscover;
use crate::model::Instance;

/// Options of a route, with what follows from them.
pub(super) struct RouteOptions {
    pub(super) options: Arc<CallOptions>,
    pub(super) rule: AddressRule,
    /// Changes when the services of endpoints have to be made anew.
    version: u32,
}

impl RouteOptions {
    pub(super) fn new(options: Arc<CallOptions>, rule: AddressRule) -> Self {
        Self { options, rule, version: 0 }
    }

    /// Returns the options that replace these ones.
    pub(super) fn replaced(&self, options: Arc<CallOptions>, rule: AddressRule) -> Self {
        let is_same = self.options.makes_same_endpoints(&options);
        Self { options, rule, version: self.version.wrapping_add(u32::from(!is_same)) }
    }
}

/// Instance with the address at which it is called, and the options of its connections.
pub(super) struct Callable {
    pub(super) record: Record,
    pub(super) route: Arc<RouteOptions>,
}

impl Callable {
    pub(super) fn attributes(&self) -> Attributes {
        let Listed { instance, address, .. } = &**self.record.load();
        let Address { scheme, authority } = address;
        let RouteOptions { options, rule, version } = &*self.route;
        // Part of the address, since a check uses the instance of which the endpoint was made.
        let is_checked = options.health_check.interval().is_some();
        let checked = if is_checked { health_url(instance, address, &options.health_check.target) } else { None };
        let checked = checked.map_or_else(String::new, |url| format!(" {url}"));
        let http2 = if options.http2.is_for(instance) { " h2" } else { "" };
        let version = if *version == 0 { String::new() } else { format!(" {version}") };
        let dial = rule.dial(instance);
        let address = format!("{scheme}://{authority}{http2}{dial}{checked}{version}");
        Attributes::of(instance).with_address(address)
    }
}

/// Stream of the instances of a route that can be called.
///
/// An instance without a usable address is no endpoint, and is removed if it was one.
pub(super) struct Instances {
    discover: EurekaDiscover,
    name: Arc<str>,
    route: Arc<RouteOptions>,
    updates: WatchStream<Arc<RouteOptions>>,
    known: BTreeMap<Arc<str>, Arc<Instance>>,
    records: Records,
    changes: VecDeque<Change<Arc<str>, Callable>>,
}

impl Instances {
    pub(super) fn new(
        registry: Arc<RegistryCache>,
        name: Arc<str>,
        options: &watch::Sender<Arc<RouteOptions>>,
    ) -> Self {
        let route = options.borrow().clone();
        let updates = WatchStream::from_changes(options.subscribe());
        let discover = EurekaDiscover::new(registry, route.options.selection_of(&name));
        let (known, records, changes) = (BTreeMap::new(), Records::default(), VecDeque::new());
        Self { discover, name, route, updates, known, records, changes }
    }

    /// Reports all instances again, with other options.
    fn update(&mut self, route: Arc<RouteOptions>) {
        self.discover.select(route.options.selection_of(&self.name));
        self.route = route;
        let known: Vec<_> = self.known.iter().map(|(id, instance)| (id.clone(), instance.clone())).collect();
        self.changes = known.into_iter().map(|(id, instance)| self.inserted(id, instance)).collect();
    }

    fn inserted(&mut self, id: Arc<str>, instance: Arc<Instance>) -> Change<Arc<str>, Callable> {
        match self.route.rule.address(&instance) {
            Ok(address) => {
                let record = self.records.update(Listed { key: id.clone(), instance, address });
                Change::Insert(id, Callable { record, route: self.route.clone() })
            }
            Err(_) => {
                self.records.remove(&id);
                Change::Remove(id)
            }
        }
    }
}

impl Stream for Instances {
    type Item = Result<Change<Arc<str>, Callable>, Infallible>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        // The stream ends with the route, whose balancer ends this stream.
        while let Poll::Ready(Some(route)) = Pin::new(&mut self.updates).poll_next(cx) {
            self.update(route);
        }
        if let Some(change) = self.changes.pop_front() {
            return Poll::Ready(Some(Ok(change)));
        }
        let Some(change) = ready!(Pin::new(&mut self.discover).poll_next(cx)) else { return Poll::Ready(None) };
        let change = match change? {
            Change::Insert(id, instance) => {
                self.known.insert(id.clone(), instance.clone());
                self.inserted(id, instance)
            }
            Change::Remove(id) => {
                self.known.remove(&id);
                self.records.remove(&id);
                Change::Remove(id)
            }
        };
        Poll::Ready(Some(Ok(change)))
    }
}

/// Stream of the siblings of the caller, as the options name it.
pub(super) struct CallerSiblings {
    registry: Arc<RegistryCache>,
    updates: WatchStream<Arc<RouteOptions>>,
    /// Application and id of the caller.
    caller: Option<(Arc<str>, Arc<str>)>,
    siblings: Option<WatchStream<Sources>>,
}

impl CallerSiblings {
    pub(super) fn new(registry: Arc<RegistryCache>, options: &watch::Sender<Arc<RouteOptions>>) -> Self {
        let updates = WatchStream::new(options.subscribe());
        Self { registry, updates, caller: None, siblings: None }
    }
}

impl Stream for CallerSiblings {
    type Item = Siblings;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Siblings>> {
        while let Poll::Ready(Some(route)) = Pin::new(&mut self.updates).poll_next(cx) {
            let caller = route.options.caller.as_ref().map(|caller| (caller.app.clone(), caller.id.clone()));
            if caller == self.caller {
                continue;
            }
            let subscribe =
                |(app, _): &(Arc<str>, _)| WatchStream::new(self.registry.subscribe(&Lookup::App((&**app).into())));
            self.siblings = caller.as_ref().map(subscribe);
            self.caller = caller;
            if self.siblings.is_none() {
                return Poll::Ready(Some(Siblings::default()));
            }
        }
        let this = &mut *self;
        let Some((siblings, (_, id))) = this.siblings.as_mut().zip(this.caller.as_ref()) else { return Poll::Pending };
        match ready!(Pin::new(siblings).poll_next(cx)) {
            Some(sources) => {
                Poll::Ready(Some(sources.own().first().map_or_else(Siblings::default, |app| Siblings::of(app, id))))
            }
            // Not reached, since `registry` owns the sending side.
            None => Poll::Pending,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::client::Ports;

    #[test]
    fn services_are_made_anew_only_if_options_of_connections_change() {
        let instance = Arc::new(Instance::builder("orders").ip_addr("10.0.0.1").port(80).build().unwrap());
        let options = || CallOptions::new().ports(Ports::Plain);
        let first = RouteOptions::new(Arc::new(options()), AddressRule::of(&options()));
        let address_of = |route: &RouteOptions| {
            let RouteOptions { options, rule, version } = route;
            let route = Arc::new(RouteOptions { options: options.clone(), rule: rule.clone(), version: *version });
            let address = route.rule.address(&instance).unwrap();
            let listed = Listed { key: "a".into(), instance: instance.clone(), address };
            let record = Records::default().update(listed);
            Callable { record, route }.attributes().address.unwrap()
        };
        let replaced = |options: CallOptions| {
            let rule = AddressRule::of(&options);
            address_of(&first.replaced(Arc::new(options), rule))
        };
        let before = address_of(&first);
        let same = options().timeout(Duration::from_secs(1)).hint("blue").selection(|name| name.into());
        assert_eq!(replaced(same), before);
        for changed in [
            options().http2_connections(2),
            options().removal_grace(Duration::ZERO),
            options().health_check(Duration::from_secs(1)).health_check_path("/ready"),
            options().port_key("x").scheme(crate::client::InstanceScheme::Https),
        ] {
            // HTTPS cannot be called without the feature `tls`.
            if changed.scheme == crate::client::InstanceScheme::Https && !cfg!(feature = "tls") {
                continue;
            }
            assert_ne!(replaced(changed.clone()), before, "{changed:?}");
        }
    }
}
