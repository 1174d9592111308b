use std::sync::Arc;

use crate::model::{Instance, host_in_url};

/// Returns the instance with the URLs of these pages, as far as it has none.
///
/// The health check has a URL for each enabled port, the status page one for the plain port, else
/// for the secure port.
pub(in crate::register) fn with_page_urls(instance: &Instance, health: Option<&str>, info: Option<&str>) -> Instance {
    let mut instance = instance.clone();
    let host = host_in_url(instance.host().unwrap_or_default());
    if host.is_empty() {
        return instance;
    }
    let url = |scheme: &str, port: i32, path: &str| -> Arc<str> { format!("{scheme}://{host}:{port}{path}").into() };
    let (plain, secure) = (instance.port, instance.secure_port);
    let [on_plain, on_secure] = [("http", plain), ("https", secure)].map(|(scheme, port)| {
        let url = &url;
        move |path: Option<&str>| path.filter(|_| port.enabled).map(|path| url(scheme, port.number, path))
    });
    if instance.health_check_url.is_none() && instance.secure_health_check_url.is_none() {
        instance.health_check_url = on_plain(health);
        instance.secure_health_check_url = on_secure(health);
    }
    if instance.status_page_url.is_none() {
        instance.status_page_url = on_plain(info).or_else(|| on_secure(info));
    }
    instance
}
