use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::lookup_host;
use tokio::time::timeout;

use crate::model::{Instance, detect_ip, is_loopback, source_ip};
use crate::transport::Transport;

/// Time limit of the DNS look-up of the registry before the first registration.
const LOOKUP_TIME: Duration = Duration::from_secs(1);

/// Source of the local address that is used to reach a target, or of the default route's address
/// without a target. Tests replace it.
#[derive(Clone)]
pub(super) struct Routes(Arc<dyn Fn(Option<SocketAddr>) -> Option<IpAddr> + Send + Sync>);

impl Default for Routes {
    fn default() -> Self {
        Self(Arc::new(|target| target.map_or_else(detect_ip, source_ip)))
    }
}

impl Routes {
    /// Returns the instance with the local address of the route to the registry, since its callers
    /// are in the same network. `None` if there is no better address than the present one.
    pub(super) async fn towards_registry(&self, transport: &Transport, instance: &Instance) -> Option<Instance> {
        let hosts = transport.hosts();
        let mut found = None;
        // Only the first server is looked up, to limit the wait.
        if let Some((host, port)) = hosts.iter().find(|(host, _)| !is_loopback(host)) {
            let addresses = look_up(host, *port, transport.resolves_names()).await;
            found = addresses.into_iter().find_map(|address| self.0(Some(address)));
        }
        if found.is_none() && is_at_loopback(instance) {
            // The machine may have got a network since the instance was built.
            found = self.0(None);
        }
        found.and_then(|ip| with_other_address(instance, ip))
    }
}

/// Returns `true` if the address of the instance is one of the loopback addresses.
pub(super) fn is_at_loopback(instance: &Instance) -> bool {
    instance.ip_addr().is_some_and(is_loopback)
}

/// Logs a warning if the registered address is a loopback address although the registry runs on
/// another machine.
pub(super) fn warn_of_loopback(transport: &Transport, registered: &Instance) {
    let reached_by = [registered.host_name(), registered.ip_addr()];
    if reached_by.into_iter().flatten().any(is_loopback)
        && let Some((registry, _)) = transport.hosts().iter().find(|(host, _)| !is_loopback(host))
    {
        tracing::warn!(
            app = registered.app(),
            instance = registered.id(),
            registry,
            "registered a loopback address, which other machines cannot reach; set ip_addr() or EUREKA_INSTANCE_IPADDRESS"
        );
    }
}

/// Returns the addresses of a host, or none if the look-up fails or takes too long. Names are
/// looked up only if `names` is set.
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

/// Returns the instance with this address; `None` if it already has it.
fn with_other_address(instance: &Instance, ip: IpAddr) -> Option<Instance> {
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

    /// Machine with a registry, and the addresses of the registrations that were sent.
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
    async fn address_is_updated_until_the_first_success_and_then_kept() {
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
