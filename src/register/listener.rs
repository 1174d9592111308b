use std::io;

use tokio::net::TcpListener;

use crate::model::InstanceBuilder;

impl InstanceBuilder {
    /// Takes the port for plain HTTP from a bound listener, unless [`port`](Self::port) sets
    /// another one.
    ///
    /// The two differ where ports are mapped: callers connect to the published port, and the
    /// listener is bound to the internal one. A listener that accepts connections at one address
    /// only, such as `10.0.0.1`, also sets the default of [`ip_addr`](Self::ip_addr).
    ///
    /// # Errors
    /// If the operating system does not tell the local address of the listener.
    pub fn listener(self, listener: &TcpListener) -> io::Result<Self> {
        Ok(self.bound_to(listener.local_addr()?))
    }

    /// Takes the port for HTTPS from a bound listener as [`listener`](Self::listener) does, and
    /// enables it.
    ///
    /// # Errors
    /// If the operating system does not tell the local address of the listener.
    pub fn secure_listener(self, listener: &TcpListener) -> io::Result<Self> {
        Ok(self.secure_bound_to(listener.local_addr()?))
    }
}

#[cfg(test)]
mod tests {
    use crate::model::{Instance, Port};

    use super::*;

    async fn bound(address: &str) -> (TcpListener, i32) {
        let listener = TcpListener::bind(address).await.unwrap();
        let port = listener.local_addr().unwrap().port().into();
        (listener, port)
    }

    #[tokio::test]
    async fn port_of_the_listener_is_registered_unless_another_is_set() {
        let (listener, port) = bound("0.0.0.0:0").await;
        let builder = || Instance::builder("orders").ip_addr("10.0.0.1");
        let instance = builder().listener(&listener).unwrap().build().unwrap();
        assert_eq!(instance.port(), Port { number: port, enabled: true });
        assert_eq!(instance.id(), format!("10.0.0.1:orders:{port}"));
        let published = builder().port(80).listener(&listener).unwrap().build().unwrap();
        assert_eq!(published.port().number, 80);
        let secure = builder().secure_listener(&listener).unwrap().build().unwrap();
        assert_eq!((secure.port().enabled, secure.secure_port()), (false, Port { number: port, enabled: true }));
        let from_setting = builder().port_if_unset(8443).secure_listener(&listener).unwrap().build().unwrap();
        assert!(!from_setting.port().enabled);
    }

    #[tokio::test]
    async fn address_of_a_listener_at_one_address_is_registered() {
        let (listener, port) = bound("127.0.0.1:0").await;
        let builder = || Instance::builder("orders").listener(&listener).unwrap();
        let instance = builder().build().unwrap();
        assert_eq!(instance.home_page_url(), Some(&*format!("http://127.0.0.1:{port}/")));
        assert!(instance.address_rules().is_none(), "it is no detected address");
        assert_eq!(builder().ip_addr("10.0.0.1").build().unwrap().ip_addr(), Some("10.0.0.1"));
        let (everywhere, _) = bound("0.0.0.0:0").await;
        let detected = Instance::builder("orders").listener(&everywhere).unwrap().build().unwrap();
        assert!(detected.address_rules().is_some());
        assert!(detected.ip_addr().unwrap().parse::<std::net::Ipv4Addr>().is_ok());
    }
}
