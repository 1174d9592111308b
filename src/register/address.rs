use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use super::names::HostNames;
use crate::model::{AddressRules, Instance, is_loopback};
use crate::transport::Transport;

/// Time limit of the DNS look-up of the registry before the first registration.
const LOOKUP_TIME: Duration = Duration::from_secs(1);
/// Maximum number of servers that are looked up when the address of a registered instance is
/// detected again.
const MAX_LOOKED_UP: usize = 3;
/// Time limit of the check of the registered host name, in the background.
const CHECK_TIME: Duration = Duration::from_secs(5);

/// Knowledge about the address of an instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AddressState {
    /// No registry has accepted the instance yet.
    New,
    /// A registry has accepted the instance, but the machine may be in another network since.
    Unconfirmed,
    /// A registry has accepted the instance at its present address.
    Confirmed,
}

type Route = dyn Fn(&AddressRules, Option<SocketAddr>) -> Option<IpAddr> + Send + Sync;

/// Sources of the local address that is used to reach a target, or of the default route's address
/// without a target, and of host names. Tests replace them.
#[derive(Clone)]
pub(super) struct Routes {
    route: Arc<Route>,
    names: HostNames,
}

impl Default for Routes {
    fn default() -> Self {
        let route = |rules: &AddressRules, target: Option<SocketAddr>| match target {
            Some(target) => rules.source_ip(target),
            None => rules.detect(),
        };
        Self { route: Arc::new(route), names: HostNames::default() }
    }
}

impl Routes {
    /// Returns the instance with the address and the host name that are to be registered. `None` if
    /// the present ones are.
    pub(super) async fn resolve(
        &self,
        transport: &Transport,
        instance: &Instance,
        state: AddressState,
    ) -> Option<Instance> {
        let detects = state != AddressState::Confirmed || is_at_loopback(instance);
        let mut found = match instance.address_rules() {
            Some(rules) if detects => self.towards_registry(rules, transport, instance, state).await,
            _ => None,
        };
        let present = found.as_ref().unwrap_or(instance);
        if let Some((ip, look_up)) = present.pending_look_up()
            && (state == AddressState::New || found.is_some())
        {
            let name = self.names.of(ip, look_up.limit).await;
            if name.is_none() {
                tracing::warn!(
                    app = present.app(),
                    address = %ip,
                    default = look_up.default.as_deref(),
                    "no host name found for the address; set host_name() or EUREKA_INSTANCE_HOSTNAME, or prefer the IP address"
                );
            }
            found = Some(present.with_host_name(name.as_deref().or(look_up.default.as_deref())));
        }
        found
    }

    /// Returns the instance with the local address of the route to the registry, since its callers
    /// are in the same network. `None` if there is no better address than the present one, or if a
    /// route still uses an address that was registered.
    async fn towards_registry(
        &self,
        rules: &AddressRules,
        transport: &Transport,
        instance: &Instance,
        state: AddressState,
    ) -> Option<Instance> {
        transport.find_servers().await;
        let hosts = transport.hosts();
        let mut found = None;
        // A limited number of servers is looked up, to limit the wait. Several may be reached by
        // different interfaces, of which the registered one is kept.
        let was_registered = state != AddressState::New;
        let looked_up = if was_registered { MAX_LOOKED_UP } else { 1 };
        for (host, port) in hosts.iter().filter(|(host, _)| !is_loopback(host)).take(looked_up) {
            let addresses = look_up(host, *port, transport).await;
            let sources = addresses.into_iter().filter_map(|address| (self.route)(rules, Some(address)));
            let sources: Vec<_> = sources.collect();
            if was_registered && sources.iter().any(|ip| is_at(instance, *ip)) {
                return None;
            }
            found = found.or(sources.first().copied());
        }
        if found.is_none() && is_at_loopback(instance) {
            // The machine may have got a network since the instance was built.
            found = (self.route)(rules, None);
        }
        let moved = found.and_then(|ip| with_other_address(instance, ip))?;
        let [before, address] = [instance, &moved].map(|instance| instance.ip_addr().unwrap_or_default());
        tracing::info!(app = instance.app(), address, before, "detected another address to register");
        Some(moved)
    }

    /// Logs a warning if other machines cannot reach the registered host. A host name is looked up
    /// in the background for that, once and for at most five seconds.
    pub(super) fn check_registered(&self, transport: &Transport, registered: &Instance) {
        let hosts = transport.hosts();
        let remote = hosts.into_iter().map(|(host, _)| host).find(|host| !is_loopback(host));
        let reached_by = [registered.host_name(), registered.ip_addr()];
        if reached_by.into_iter().flatten().any(is_loopback) {
            if let Some(registry) = remote {
                tracing::warn!(
                    app = registered.app(),
                    instance = registered.id(),
                    registry,
                    "registered a loopback address, which other machines cannot reach; set ip_addr() or EUREKA_INSTANCE_IPADDRESS"
                );
            }
            return;
        }
        let is_name = |host: &&str| host.trim_matches(['[', ']']).parse::<IpAddr>().is_err();
        // A service of the user's may resolve names in its own way.
        let Some(host) = registered.host_name().filter(is_name).filter(|_| transport.resolves_names()) else { return };
        let (host, this, registered) = (host.to_owned(), self.clone(), registered.clone());
        tokio::spawn(async move {
            if let Some(fault) = this.fault_of(&host, remote.is_some()).await {
                tracing::warn!(
                    app = registered.app(),
                    instance = registered.id(),
                    host,
                    "registered host name {fault} on this machine; set EUREKA_INSTANCE_HOSTNAME or EUREKA_INSTANCE_PREFERIPADDRESS=true"
                );
            }
        });
    }

    /// Returns the reason why callers cannot reach a host name. `None` if they can, or if the
    /// look-up takes too long. Callers of a registry on this machine can use a loopback address.
    async fn fault_of(&self, host: &str, has_remote_registry: bool) -> Option<&'static str> {
        let addresses = self.names.addresses(host, CHECK_TIME).await?;
        if addresses.is_empty() {
            return Some("does not resolve");
        }
        (has_remote_registry && addresses.iter().all(IpAddr::is_loopback)).then_some("resolves to a loopback address")
    }
}

/// Returns `true` if the address of the instance is one of the loopback addresses.
fn is_at_loopback(instance: &Instance) -> bool {
    instance.ip_addr().is_some_and(is_loopback)
}

/// Returns the addresses of a host, or none if the look-up fails or takes too long.
async fn look_up(host: &str, port: u16, transport: &Transport) -> Vec<SocketAddr> {
    let addresses = match host.parse::<IpAddr>() {
        Ok(ip) => vec![ip],
        Err(_) => transport.addresses(host, LOOKUP_TIME).await,
    };
    addresses.into_iter().map(|ip| SocketAddr::from((ip, port))).collect()
}

/// Returns the instance with this address; `None` if it already has it.
fn with_other_address(instance: &Instance, ip: IpAddr) -> Option<Instance> {
    (!is_at(instance, ip)).then(|| instance.with_address(&ip.to_string()))
}

fn is_at(instance: &Instance, ip: IpAddr) -> bool {
    instance.ip_addr() == Some(&*ip.to_string())
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicU16, Ordering};

    use http_body_util::{BodyExt, Full};

    use super::*;
    use crate::Eureka;
    use crate::config::RegistrarConfig;
    use crate::model::{Facts, HostLookup, LocalFacts};
    use crate::register::Registrar;
    use crate::time::move_wall_clock;

    /// Status of a registry that refuses connections.
    const REFUSED: u16 = 0;

    /// Machine with a registry, and the addresses of the registrations that were sent.
    #[derive(Clone, Default)]
    struct Network {
        route: Arc<Mutex<Option<IpAddr>>>,
        status: Arc<AtomicU16>,
        sent: Arc<Mutex<Vec<Instance>>>,
        look_up: Option<HostLookup>,
        names: Arc<Mutex<HashMap<IpAddr, String>>>,
    }

    /// Returns an instance at an address that was detected by these rules, or set without any.
    fn at(ip: &str, rules: Option<AddressRules>, look_up: Option<HostLookup>) -> Instance {
        let mut instance = Instance::builder("orders").port(80).ip_addr(ip).build().unwrap();
        let facts = instance.local.facts().unwrap().clone();
        instance.local = LocalFacts::new(Facts { rules, look_up, ..facts });
        instance
    }

    impl Network {
        fn set(&self, route: Option<&str>, status: u16) {
            *self.route.lock().unwrap() = route.map(|ip| ip.parse().unwrap());
            self.status.store(status, Ordering::Relaxed);
        }

        /// A provider whose instance is at the loopback address, given by the user or found.
        fn provider(&self, url: &str, is_detected: bool) -> Registrar {
            let this = self.clone();
            let service = tower::service_fn(move |request: http::Request<crate::transport::RequestBody>| {
                let this = this.clone();
                async move {
                    let is_registration = request.method() == http::Method::POST;
                    let body = request.into_body().collect().await.unwrap().to_bytes();
                    let status = this.status.load(Ordering::Relaxed);
                    if status == REFUSED {
                        return Err(std::io::Error::from(std::io::ErrorKind::ConnectionRefused));
                    }
                    if is_registration {
                        this.sent.lock().unwrap().push(Instance::from_json(&body).unwrap());
                    }
                    let response = http::Response::builder().status(status).body(Full::<bytes::Bytes>::default());
                    Ok(response.unwrap())
                }
            });
            let eureka = Eureka::builder().service_url(url).http_service(service).build().unwrap();
            let instance = at("127.0.0.1", is_detected.then(AddressRules::default), self.look_up.clone());
            // Not `Eureka::registrar`, which shares the registrar with `Eureka::close`.
            let settings = RegistrarConfig::default();
            Registrar::new(eureka.transport().clone(), instance, None, settings).with_routes(self.routes())
        }

        fn routes(&self) -> Routes {
            let (route, machine) = (self.route.clone(), self.names.clone());
            let names = HostNames::replaced(move |ip| Some(machine.lock().unwrap().get(&ip).cloned()), |_| None);
            Routes { route: Arc::new(move |_, _| *route.lock().unwrap()), names }
        }

        fn last(&self) -> Instance {
            self.sent.lock().unwrap().last().cloned().unwrap()
        }

        /// Returns the host of the last registration, whose id has to contain it.
        fn last_sent(&self) -> String {
            let instance = self.last();
            let host = instance.host_name().unwrap();
            assert_eq!(instance.id(), format!("{host}:orders:80"));
            host.to_owned()
        }
    }

    /// Returns a provider that is registered at 10.0.0.4.
    async fn registered() -> (Network, Registrar) {
        let network = Network::default();
        network.set(Some("10.0.0.4"), 204);
        let provider = network.provider("http://192.0.2.9/eureka/", true);
        provider.register().await.unwrap();
        (network, provider)
    }

    /// Passes the time in which the provider notices that the machine was suspended for an hour.
    async fn resume() {
        move_wall_clock(3_600_000);
        tokio::time::sleep(Duration::from_secs(6)).await;
    }

    #[tokio::test(start_paused = true)]
    async fn provider_that_starts_before_its_network_registers_at_the_address_found_later() {
        for url in ["http://192.0.2.9/eureka/", "http://registry/eureka/"] {
            let network = Network::default();
            network.set(None, 503);
            let provider = network.provider(url, true);
            let mut state = provider.state();
            provider.register().await.unwrap_err();
            assert_eq!((&*network.last_sent(), provider.instance().ip_addr()), ("127.0.0.1", Some("127.0.0.1")));
            network.set(Some("10.0.0.5"), 204);
            state.wait_for(|state| *state == crate::register::RegistrarState::Registered).await.unwrap();
            assert_eq!((&*network.last_sent(), provider.instance().ip_addr()), ("10.0.0.5", Some("10.0.0.5")), "{url}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn address_is_updated_until_the_first_success_and_then_kept() {
        let network = Network::default();
        network.set(Some("10.0.0.4"), 503);
        let provider = network.provider("http://192.0.2.9/eureka/", true);
        provider.register().await.unwrap_err();
        assert_eq!((&*network.last_sent(), provider.instance().ip_addr()), ("10.0.0.4", Some("127.0.0.1")));
        network.set(Some("10.0.0.5"), 204);
        provider.register().await.unwrap();
        network.set(Some("10.0.0.6"), 204);
        provider.set_status(crate::model::InstanceStatus::Starting).await.unwrap();
        provider.deregister().await.unwrap();
        provider.register().await.unwrap();
        assert_eq!((&*network.last_sent(), provider.instance().ip_addr()), ("10.0.0.5", Some("10.0.0.5")));
    }

    #[tokio::test(start_paused = true)]
    async fn loopback_address_that_was_registered_is_replaced_at_the_next_registration() {
        let network = Network::default();
        network.set(None, 204);
        let provider = network.provider("http://registry/eureka/", true);
        provider.register().await.unwrap();
        assert_eq!(network.last_sent(), "127.0.0.1");
        network.set(Some("10.0.0.5"), 204);
        provider.set_status(crate::model::InstanceStatus::Starting).await.unwrap();
        let last = network.last();
        assert_eq!((last.host_name(), last.id()), (Some("10.0.0.5"), "127.0.0.1:orders:80"), "the lease keeps its id");
        assert_eq!(provider.instance().ip_addr(), Some("10.0.0.5"));
    }

    #[tokio::test(start_paused = true)]
    async fn address_found_after_a_suspension_keeps_the_id_of_the_lease() {
        let (network, provider) = registered().await;
        assert_eq!(network.last_sent(), "10.0.0.4");
        network.set(Some("10.0.0.5"), 204);
        resume().await;
        provider.set_status(crate::model::InstanceStatus::Starting).await.unwrap();
        let last = network.last();
        assert_eq!((last.host_name(), last.id()), (Some("10.0.0.5"), "10.0.0.4:orders:80"));
        assert_eq!(provider.instance().id(), "10.0.0.4:orders:80");
    }

    #[tokio::test(start_paused = true)]
    async fn address_found_after_a_suspension_is_registered_although_the_lease_survived() {
        let (network, _provider) = registered().await;
        for (address, registrations) in [("10.0.0.5", 2), ("10.0.0.5", 2), ("10.0.0.6", 3)] {
            network.set(Some(address), 204);
            resume().await;
            assert_eq!((network.last().ip_addr(), network.sent.lock().unwrap().len()), (Some(address), registrations));
            tokio::time::sleep(Duration::from_secs(60)).await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn address_of_a_network_that_comes_up_later_than_the_machine_is_registered() {
        let (network, _provider) = registered().await;
        network.set(None, 503);
        resume().await;
        network.set(Some("10.0.0.5"), 204);
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert_eq!((network.last().ip_addr(), network.sent.lock().unwrap().len()), (Some("10.0.0.5"), 2));
    }

    #[tokio::test(start_paused = true)]
    async fn address_that_changed_during_an_outage_is_registered_under_the_id_of_the_lease() {
        for lease_is_lost in [false, true] {
            let (network, _provider) = registered().await;
            network.set(None, REFUSED);
            tokio::time::sleep(Duration::from_secs(200)).await;
            network.set(Some("10.0.0.5"), if lease_is_lost { 404 } else { 204 });
            tokio::time::sleep(Duration::from_secs(60)).await;
            network.set(Some("10.0.0.5"), 204);
            tokio::time::sleep(Duration::from_secs(60)).await;
            let last = network.last();
            assert_eq!((last.ip_addr(), last.id()), (Some("10.0.0.5"), "10.0.0.4:orders:80"), "{lease_is_lost}");
            let count = network.sent.lock().unwrap().len();
            assert!(lease_is_lost || count == 2, "{count}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn outage_without_another_address_causes_no_registration() {
        for route in [None, Some("10.0.0.4")] {
            let (network, _provider) = registered().await;
            network.set(None, REFUSED);
            tokio::time::sleep(Duration::from_secs(3600)).await;
            network.set(route, 204);
            tokio::time::sleep(Duration::from_secs(3600)).await;
            assert_eq!((network.last().ip_addr(), network.sent.lock().unwrap().len()), (Some("10.0.0.4"), 1));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn address_without_a_route_is_kept_when_the_lease_is_lost() {
        let (network, _provider) = registered().await;
        network.set(None, 404);
        tokio::time::sleep(Duration::from_secs(60)).await;
        network.set(None, 204);
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert!(network.sent.lock().unwrap().len() > 1);
        assert!(network.sent.lock().unwrap().iter().all(|sent| sent.ip_addr() == Some("10.0.0.4")));
    }

    #[tokio::test(start_paused = true)]
    async fn route_to_the_registry_follows_the_resolver_of_the_user() {
        let resolver =
            |_: &str| async { Ok::<_, std::io::Error>(crate::client::Resolved::new([[192, 0, 2, 9].into()])) };
        let eureka = Eureka::builder().service_url("http://registry.invalid:8761/eureka").resolver(resolver);
        let eureka = eureka.build().unwrap();
        let route = |_: &AddressRules, target: Option<SocketAddr>| {
            (target == Some("192.0.2.9:8761".parse().unwrap())).then(|| [10, 0, 0, 7].into())
        };
        let routes = Routes { route: Arc::new(route), ..Routes::default() };
        let instance = at("127.0.0.1", Some(AddressRules::default()), None);
        let found = routes.resolve(eureka.transport(), &instance, AddressState::New).await.unwrap();
        assert_eq!(found.ip_addr(), Some("10.0.0.7"));
    }

    #[tokio::test(start_paused = true)]
    async fn address_that_the_route_to_one_of_two_servers_uses_is_kept() {
        let eureka = Eureka::builder().service_url("http://192.0.2.1/eureka,http://192.0.2.2/eureka");
        let eureka = eureka.shuffle_servers(false).build().unwrap();
        let route = |_: &AddressRules, target: Option<SocketAddr>| match target?.ip().to_string().as_str() {
            "192.0.2.1" => Some([10, 0, 0, 7].into()),
            _ => Some([10, 0, 0, 4].into()),
        };
        let routes = Routes { route: Arc::new(route), ..Routes::default() };
        let instance = at("10.0.0.4", Some(AddressRules::default()), None);
        for (state, expected) in [(AddressState::New, Some("10.0.0.7")), (AddressState::Unconfirmed, None)] {
            let found = routes.resolve(eureka.transport(), &instance, state).await;
            assert_eq!(found.as_ref().and_then(Instance::ip_addr), expected, "{state:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn address_that_the_program_sets_is_not_replaced_by_a_detected_one() {
        let network = Network::default();
        network.set(Some("10.0.0.4"), 204);
        let provider = network.provider("http://192.0.2.9/eureka/", true);
        provider.set_address([10, 9, 9, 9].into()).await.unwrap();
        provider.register().await.unwrap();
        assert_eq!(network.last().ip_addr(), Some("10.9.9.9"), "before the registration");
        provider.set_address([10, 9, 9, 8].into()).await.unwrap();
        network.set(Some("10.0.0.5"), 204);
        resume().await;
        provider.set_status(crate::model::InstanceStatus::Starting).await.unwrap();
        assert_eq!(network.last().ip_addr(), Some("10.9.9.8"), "after a suspension");
    }

    #[tokio::test(start_paused = true)]
    async fn down_before_the_first_success_keeps_the_address_that_was_found() {
        let network = Network::default();
        network.set(Some("10.0.0.5"), 503);
        let provider = network.provider("http://192.0.2.9/eureka/", true);
        provider.register().await.unwrap_err();
        network.set(None, 204);
        provider.drain().await;
        assert_eq!((&*network.last_sent(), provider.instance().ip_addr()), ("10.0.0.5", Some("10.0.0.5")));
    }

    #[tokio::test(start_paused = true)]
    async fn loopback_address_that_was_given_is_kept() {
        let network = Network::default();
        network.set(Some("10.0.0.5"), 204);
        network.provider("http://192.0.2.9/eureka/", false).register().await.unwrap();
        assert_eq!(network.last_sent(), "127.0.0.1");
    }

    fn looked_up(default: Option<&str>) -> Network {
        let look_up = HostLookup { limit: Duration::from_secs(1), default: default.map(Into::into) };
        let network = Network { look_up: Some(look_up), ..Network::default() };
        network.set(Some("10.0.0.5"), 204);
        network
    }

    #[tokio::test(start_paused = true)]
    async fn host_name_of_the_address_is_looked_up_before_the_first_registration() {
        let network = looked_up(None);
        network.names.lock().unwrap().insert("10.0.0.5".parse().unwrap(), "node5".into());
        let provider = network.provider("http://192.0.2.9/eureka/", true);
        assert_eq!(provider.instance().host_name(), Some("127.0.0.1"));
        provider.register().await.unwrap();
        assert_eq!(network.last_sent(), "node5");
        assert_eq!((provider.instance().id(), provider.instance().ip_addr()), ("node5:orders:80", Some("10.0.0.5")));
        network.names.lock().unwrap().clear();
        provider.set_status(crate::model::InstanceStatus::Starting).await.unwrap();
        assert_eq!(network.last_sent(), "node5");
    }

    #[tokio::test(start_paused = true)]
    async fn host_name_that_was_registered_is_kept_while_the_name_server_fails() {
        let network = looked_up(None);
        network.names.lock().unwrap().insert("10.0.0.5".parse().unwrap(), "node5".into());
        let provider = network.provider("http://192.0.2.9/eureka/", true);
        provider.register().await.unwrap();
        network.names.lock().unwrap().clear();
        for status in [REFUSED, 404, 204] {
            network.set(Some("10.0.0.5"), status);
            tokio::time::sleep(Duration::from_secs(60)).await;
        }
        assert!(network.sent.lock().unwrap().len() > 1);
        assert_eq!(network.last().host_name(), Some("node5"));
    }

    #[tokio::test(start_paused = true)]
    async fn host_name_is_looked_up_again_for_another_address() {
        let network = looked_up(None);
        network.set(Some("10.0.0.4"), 503);
        for (ip, name) in [("10.0.0.4", "node4"), ("10.0.0.5", "node5")] {
            network.names.lock().unwrap().insert(ip.parse().unwrap(), name.into());
        }
        let provider = network.provider("http://192.0.2.9/eureka/", true);
        provider.register().await.unwrap_err();
        assert_eq!(network.last_sent(), "node4");
        network.set(Some("10.0.0.5"), 204);
        provider.register().await.unwrap();
        assert_eq!((&*network.last_sent(), provider.instance().ip_addr()), ("node5", Some("10.0.0.5")));
    }

    #[tokio::test(start_paused = true)]
    async fn address_without_a_name_registers_the_default_name_else_the_address() {
        for (default, expected) in [(None, "10.0.0.5"), (Some("fallback"), "fallback")] {
            let network = looked_up(default);
            network.provider("http://192.0.2.9/eureka/", true).register().await.unwrap();
            assert_eq!(network.last_sent(), expected);
        }
        let network = looked_up(None);
        network.names.lock().unwrap().insert("127.0.0.1".parse().unwrap(), "own".into());
        network.provider("http://192.0.2.9/eureka/", false).register().await.unwrap();
        assert_eq!(network.last_sent(), "own", "the address was set by the user");
    }

    #[tokio::test(start_paused = true)]
    async fn host_name_that_callers_cannot_reach_has_a_fault() {
        let names = HostNames::replaced(
            |_| Some(None),
            |name| match &*name {
                "public" => Some(vec![[10, 0, 0, 1].into()]),
                "both" => Some(vec![[127, 0, 0, 1].into(), [10, 0, 0, 1].into()]),
                "debian" => Some(vec![[127, 0, 1, 1].into()]),
                "hangs" => None,
                _ => Some(Vec::new()),
            },
        );
        let routes = Routes { names, ..Routes::default() };
        for (host, remote, expected) in [
            ("public", true, None),
            ("both", true, None),
            ("debian", true, Some("resolves to a loopback address")),
            ("debian", false, None),
            ("missing", true, Some("does not resolve")),
            ("missing", false, Some("does not resolve")),
            ("hangs", true, None),
        ] {
            assert_eq!(routes.fault_of(host, remote).await, expected, "{host}");
        }
    }
}
