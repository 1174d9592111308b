//! Static instances: those of applications that the registry does not have.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use http::Uri;

use crate::model::{Application, DataCenter, Instance, LeaseInfo, Port, app_name};

/// Static instance as its settings describe it.
#[derive(Clone, Debug, Default)]
pub(crate) struct FixedInstance {
    pub(crate) id: Option<String>,
    /// Host and port, and `true` for HTTPS.
    pub(crate) host: Option<String>,
    pub(crate) port: Option<u16>,
    pub(crate) secure: bool,
    pub(crate) metadata: BTreeMap<String, String>,
}

impl FixedInstance {
    /// Sets host, port and scheme from a URL like `http://10.0.0.1:8080`. The error is a clause
    /// without the URL, which may have a password.
    pub(crate) fn set_url(&mut self, url: &str) -> Result<(), &'static str> {
        const FORM: &str = "not a URL like http://10.0.0.1:8080";
        let uri: Uri = url.trim().parse().map_err(|_| FORM)?;
        self.secure = match uri.scheme_str() {
            Some("http") => false,
            Some("https") => true,
            Some(_) => return Err("only http and https are supported"),
            None => return Err("without http:// in front"),
        };
        let authority = uri.authority().ok_or(FORM)?;
        if authority.as_str().contains('@') {
            return Err("with credentials, which a call has to bring itself");
        }
        if !matches!(uri.path(), "" | "/") || uri.query().is_some() {
            return Err("with a path or query, which a call has to bring itself");
        }
        let has_port = authority.as_str().rsplit_once(':').is_some_and(|(_, port)| !port.ends_with(']'));
        if has_port && authority.port_u16().is_none_or(|port| port == 0) {
            return Err("with an invalid port");
        }
        self.host = Some(authority.host().to_owned());
        self.port = authority.port_u16();
        Ok(())
    }

    /// Creates the instance. The error is a clause.
    pub(crate) fn instance(&self, app: &str) -> Result<Instance, &'static str> {
        let host = self.host.as_deref().ok_or("without a host: set its uri")?;
        let host = host.trim_start_matches('[').trim_end_matches(']').to_ascii_lowercase();
        let number = self.port.unwrap_or(if self.secure { 443 } else { 80 });
        let port = |enabled| Port { number: number.into(), enabled };
        let lower = app.to_ascii_lowercase();
        let id = self.id.clone().unwrap_or_else(|| format!("{host}:{lower}:{number}"));
        Ok(Instance {
            instance_id: Some(id.into()),
            ip_addr: host.parse::<IpAddr>().ok().map(|_| host.as_str().into()),
            host_name: Some(host.as_str().into()),
            port: if self.secure { Port { number: 80, enabled: false } } else { port(true) },
            secure_port: if self.secure { port(true) } else { Port { number: 443, enabled: false } },
            data_center: Some(DataCenter::MyOwn),
            lease: Some(LeaseInfo::default()),
            vip_address: Some(lower.as_str().into()),
            secure_vip_address: Some(lower.into()),
            metadata: self.metadata.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect(),
            ..Instance::bare(app_name(app))
        })
    }
}

/// Creates an application of static instances with their indices. The error is the index of an
/// instance and a clause.
pub(crate) fn fixed_application<'a>(
    app: &str,
    instances: impl Iterator<Item = (usize, &'a FixedInstance)>,
) -> Result<Arc<Application>, (usize, &'static str)> {
    let instances = instances.map(|(index, fixed)| match fixed.instance(app) {
        Ok(instance) => Ok(Arc::new(instance)),
        Err(fault) => Err((index, fault)),
    });
    Ok(Arc::new(Application { name: app_name(app), instances: instances.collect::<Result<_, _>>()? }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn instance(url: &str) -> Result<Instance, &'static str> {
        let mut fixed = FixedInstance::default();
        fixed.set_url(url)?;
        fixed.instance("Order-Service")
    }

    #[test]
    fn url_determines_host_port_and_scheme() {
        for (url, id, host, plain, secure) in [
            ("http://10.0.0.1:8080", "10.0.0.1:order-service:8080", "10.0.0.1", Some(8080), None),
            ("HTTP://Orders.local/", "orders.local:order-service:80", "orders.local", Some(80), None),
            ("https://orders", "orders:order-service:443", "orders", None, Some(443)),
            ("https://[2001:db8::1]:8443", "2001:db8::1:order-service:8443", "2001:db8::1", None, Some(8443)),
        ] {
            let instance = instance(url).unwrap();
            assert_eq!((instance.id(), instance.host_name()), (id, Some(host)), "{url}");
            assert_eq!((instance.port().usable(), instance.secure_port().usable()), (plain, secure), "{url}");
            assert_eq!((instance.app(), instance.vip_address()), ("ORDER-SERVICE", Some("order-service")));
            assert_eq!(instance.ip_addr().is_some(), host.parse::<IpAddr>().is_ok(), "{url}");
        }
    }

    #[test]
    fn unusable_url_is_an_error() {
        for (url, fault) in [
            ("10.0.0.1:8080", "without http://"),
            ("orders", "without http://"),
            ("", "not a URL"),
            ("ftp://h/", "only http"),
            ("http://u:secret@h/", "credentials"),
            ("http://h/orders", "path"),
            ("http://h?x", "path or query"),
            ("http://h:0", "invalid port"),
            ("http://h:99999", "port"),
            ("http://ho st", "not a URL"),
        ] {
            let found = instance(url).unwrap_err();
            assert!(found.contains(fault) || found.contains("not a URL"), "{url}: {found}");
            assert!(!found.contains("secret"));
        }
    }
}
