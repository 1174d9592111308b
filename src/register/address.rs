use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::lookup_host;
use tokio::time::timeout;

use crate::model::{Instance, detect_ip, is_loopback, source_ip};
use crate::transport::Transport;

/// Bound of the look-up of the registry's address before the first registration.
const LOOKUP_TIME: Duration = Duration::from_secs(1);

/// Finds the address of this machine on the way to a target, or to anywhere without one. Replaced
/// in tests.
#[derive(Clone)]
pub(super) struct Routes(Arc<dyn Fn(Option<SocketAddr>) -> Option<IpAddr> + Send + Sync>);

impl Default for Routes {
    fn default() -> Self {
        Self(Arc::new(|target| target.map_or_else(detect_ip, source_ip)))
    }
}

impl Routes {
    /// Returns the instance with the address by which it reaches the registry, which is the network
    /// that its callers are in. `None` if there is no better address than the present one.
    pub(super) async fn towards_registry(&self, transport: &Transport, instance: &Instance) -> Option<Instance> {
        let hosts = transport.hosts();
        let mut found = None;
        // The first server is enough: a name that cannot be looked up is not worth more waiting.
        if let Some((host, port)) = hosts.iter().find(|(host, _)| !is_loopback(host)) {
            let addresses = look_up(host, *port, transport.resolves_names()).await;
            found = addresses.into_iter().find_map(|address| self.0(Some(address)));
        }
        if found.is_none() && is_at_loopback(instance) {
            // There was no network when the instance was built. There may be one now.
            found = self.0(None);
        }
        found.and_then(|ip| moved(instance, ip))
    }
}

/// Returns `true` if the address of the instance is one of the loopback addresses.
pub(super) fn is_at_loopback(instance: &Instance) -> bool {
    instance.ip_addr().is_some_and(is_loopback)
}

/// Logs a warning if other machines cannot reach the registered instance though the registry is on
/// another one.
pub(super) fn warn_of_loopback(transport: &Transport, registered: &Instance) {
    let reached_by = [registered.host_name(), registered.ip_addr()];
    if reached_by.into_iter().flatten().any(is_loopback)
        && let Some((registry, _)) = transport.hosts().iter().find(|(host, _)| !is_loopback(host))
    {
        tracing::warn!(
            app = registered.app(),
            instance = registered.id(),
            registry,
            "registered a loopback address, by which other machines do not reach this one; set ip_addr() or EUREKA_INSTANCE_IPADDRESS"
        );
    }
}

/// The addresses of a host; none if they are not known in time. Names are looked up only if
/// `names`.
async fn look_up(host: &str, port: u16, names: bool) -> Vec<SocketAddr> {
    if let Ok(ip) = host.parse::<IpAddr>() {
        return vec![SocketAddr::from((ip, port))];
    }
    if !names {
        return Vec::new();
    }
    match timeout(LOOKUP_TIME, lookup_host((host, port))).await {
        Ok(Ok(addresses)) => addresses.collect(),
        _ => Vec::new(),
    }
}

/// The instance with this address; `None` if it has it already.
fn moved(instance: &Instance, ip: IpAddr) -> Option<Instance> {
    let ip = ip.to_string();
    (instance.ip_addr() != Some(&*ip)).then(|| instance.with_address(&ip))
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicU16, Ordering};

    use http_body_util::{BodyExt, Full};

    use super::*;
    use crate::Eureka;
    use crate::model::AddressOrigin;
    use crate::register::Registrar;

    /// A machine, its registry, and the addresses of the registrations that were sent.
    #[derive(Clone, Default)]
    struct Network {
        route: Arc<Mutex<Option<IpAddr>>>,
        status: Arc<AtomicU16>,
        sent: Arc<Mutex<Vec<String>>>,
    }

    impl Network {
        fn set(&self, route: Option<&str>, status: u16) {
            *self.route.lock().unwrap() = route.map(|ip| ip.parse().unwrap());
            self.status.store(status, Ordering::Relaxed);
        }

        /// A provider whose instance is at the loopback address, given by the user or found.
        fn provider(&self, url: &str, origin: AddressOrigin) -> Registrar {
            let this = self.clone();
            let service = tower::service_fn(move |request: http::Request<crate::transport::RequestBody>| {
                let this = this.clone();
                async move {
                    let is_registration = request.method() == http::Method::POST;
                    let body = request.into_body().collect().await.unwrap().to_bytes();
                    if is_registration {
                        let instance = Instance::from_json(&body).unwrap();
                        assert_eq!(instance.id(), format!("{}:orders:80", instance.ip_addr().unwrap()));
                        this.sent.lock().unwrap().push(instance.ip_addr().unwrap().to_owned());
                    }
                    let status = this.status.load(Ordering::Relaxed);
                    let response = http::Response::builder().status(status).body(Full::<bytes::Bytes>::default());
                    Ok::<_, std::convert::Infallible>(response.unwrap())
                }
            });
            let eureka = Eureka::builder().service_url(url).http_service(service).build().unwrap();
            let mut instance = Instance::builder("orders").port(80).ip_addr("127.0.0.1").build().unwrap();
            instance.address = origin;
            let route = self.route.clone();
            let routes = Routes(Arc::new(move |_| *route.lock().unwrap()));
            eureka.registrar(instance).with_routes(routes)
        }

        fn last_sent(&self) -> String {
            self.sent.lock().unwrap().last().cloned().unwrap_or_default()
        }
    }

    #[tokio::test(start_paused = true)]
    async fn provider_that_starts_before_its_network_registers_at_the_address_found_later() {
        for url in ["http://192.0.2.9/eureka/", "http://registry/eureka/"] {
            let network = Network::default();
            network.set(None, 503);
            let provider = network.provider(url, AddressOrigin::Detected);
            let mut state = provider.state();
            provider.register().await.unwrap_err();
            assert_eq!((&*network.last_sent(), provider.instance().ip_addr()), ("127.0.0.1", Some("127.0.0.1")));
            network.set(Some("10.0.0.5"), 204);
            state.wait_for(|state| *state == crate::register::RegistrarState::Registered).await.unwrap();
            assert_eq!((&*network.last_sent(), provider.instance().ip_addr()), ("10.0.0.5", Some("10.0.0.5")), "{url}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn address_that_changes_before_the_first_success_is_followed_and_then_kept() {
        let network = Network::default();
        network.set(Some("10.0.0.4"), 503);
        let provider = network.provider("http://192.0.2.9/eureka/", AddressOrigin::Detected);
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
        let provider = network.provider("http://registry/eureka/", AddressOrigin::Detected);
        provider.register().await.unwrap();
        assert_eq!(network.last_sent(), "127.0.0.1");
        network.set(Some("10.0.0.5"), 204);
        provider.set_status(crate::model::InstanceStatus::Starting).await.unwrap();
        assert_eq!((&*network.last_sent(), provider.instance().ip_addr()), ("10.0.0.5", Some("10.0.0.5")));
    }

    #[tokio::test(start_paused = true)]
    async fn down_before_the_first_success_keeps_the_address_that_was_found() {
        let network = Network::default();
        network.set(Some("10.0.0.5"), 503);
        let provider = network.provider("http://192.0.2.9/eureka/", AddressOrigin::Detected);
        provider.register().await.unwrap_err();
        network.set(None, 204);
        provider.drain().await;
        assert_eq!((&*network.last_sent(), provider.instance().ip_addr()), ("10.0.0.5", Some("10.0.0.5")));
    }

    #[tokio::test(start_paused = true)]
    async fn loopback_address_that_was_given_is_kept() {
        let network = Network::default();
        network.set(Some("10.0.0.5"), 204);
        network.provider("http://192.0.2.9/eureka/", AddressOrigin::Configured).register().await.unwrap();
        assert_eq!(network.last_sent(), "127.0.0.1");
    }
}
