//! Writes the XML of the Java servers: the indented form of XStream, and the compact form on one
//! line.

use std::fmt::{Display, Write};

#[cfg(feature = "server")]
use super::super::json::compact::AMAZON_KEYS;
use super::super::json::{AMAZON_DATA_CENTER, DEFAULT_DATA_CENTER, EMPTY_MAP};
use super::super::{Application, Applications, DataCenter, Instance, LeaseInfo, Port};
use super::name;

/// Writer of a document or a part of one. Each element but a root begins with a line break, so that
/// parts can be concatenated.
pub(crate) struct Writer {
    out: String,
    /// Depth of the next element. `None` writes everything on one line.
    depth: Option<usize>,
}

impl Writer {
    /// Starts a document.
    pub(super) fn document() -> Self {
        Self::at(0)
    }

    /// Starts a part of a document with this indentation.
    pub(crate) fn at(depth: usize) -> Self {
        Self { out: String::new(), depth: Some(depth) }
    }

    /// Starts a part of a document without line breaks.
    #[cfg(feature = "server")]
    pub(crate) fn on_one_line() -> Self {
        Self { out: String::new(), depth: None }
    }

    /// Returns the number of bytes written.
    #[cfg(feature = "server")]
    pub(crate) fn len(&self) -> usize {
        self.out.len()
    }

    pub(crate) fn finish(self) -> Vec<u8> {
        self.out.into_bytes()
    }

    pub(super) fn applications(&mut self, applications: &Applications) {
        self.open("applications");
        if let Some(version) = applications.version {
            self.value("versions__delta", version);
        }
        self.optional("apps__hashcode", applications.hash.as_deref());
        for application in &applications.applications {
            let Application { name, instances } = &**application;
            self.application(name, instances.iter().map(|instance| &**instance));
        }
        self.close("applications");
    }

    pub(crate) fn application<'a>(&mut self, name: &str, instances: impl Iterator<Item = &'a Instance>) {
        self.open("application");
        self.text("name", name);
        instances.for_each(|instance| self.instance(instance));
        self.close("application");
    }

    pub(crate) fn instance(&mut self, instance: &Instance) {
        self.instance_as("instance", instance);
    }

    /// Writes an instance as an element with this name.
    pub(crate) fn instance_as(&mut self, tag: &str, instance: &Instance) {
        self.open(tag);
        self.optional("instanceId", instance.instance_id.as_deref());
        self.optional("hostName", instance.host_name.as_deref());
        self.text("app", &instance.app);
        self.optional("ipAddr", instance.ip_addr.as_deref());
        self.optional("sid", instance.sid.as_deref());
        self.value("status", instance.status);
        self.value("overriddenstatus", instance.overridden_status);
        self.port("port", instance.port);
        self.port("securePort", instance.secure_port);
        self.value("countryId", instance.country_id);
        self.data_center(instance.data_center.as_ref(), |_| true);
        self.lease(instance.lease.as_ref());
        self.metadata(instance.metadata.iter());
        self.optional("appGroupName", instance.app_group.as_deref());
        self.optional("homePageUrl", instance.home_page_url.as_deref());
        self.optional("statusPageUrl", instance.status_page_url.as_deref());
        self.optional("healthCheckUrl", instance.health_check_url.as_deref());
        self.optional("secureHealthCheckUrl", instance.secure_health_check_url.as_deref());
        self.optional("vipAddress", instance.vip_address.as_deref());
        self.optional("secureVipAddress", instance.secure_vip_address.as_deref());
        self.value("isCoordinatingDiscoveryServer", instance.is_coordinating_discovery_server);
        self.values("lastUpdatedTimestamp", instance.last_updated_timestamp);
        self.values("lastDirtyTimestamp", instance.last_dirty_timestamp);
        self.optional("actionType", instance.action.map(|action| action.as_str()));
        self.optional("asgName", instance.asg_name.as_deref());
        self.close(tag);
    }

    pub(crate) fn open(&mut self, tag: &str) {
        self.begin();
        self.push(["<", tag, ">"]);
        self.depth = self.depth.map(|depth| depth + 1);
    }

    pub(crate) fn close(&mut self, tag: &str) {
        self.depth = self.depth.map(|depth| depth - 1);
        self.begin();
        self.push(["</", tag, ">"]);
    }

    /// Writes an element with a text.
    pub(crate) fn text(&mut self, tag: &str, text: &str) {
        self.begin();
        self.push(["<", tag, ">"]);
        escape(text, &mut self.out);
        self.push(["</", tag, ">"]);
    }

    /// Writes an element with a number, a flag or a status, which need no escapes.
    fn value(&mut self, tag: &str, value: impl Display) {
        self.begin();
        self.push(["<", tag, ">"]);
        self.display(value);
        self.push(["</", tag, ">"]);
    }

    fn values(&mut self, tag: &str, value: Option<i64>) {
        value.into_iter().for_each(|value| self.value(tag, value));
    }

    fn optional(&mut self, tag: &str, text: Option<&str>) {
        text.into_iter().for_each(|text| self.text(tag, text));
    }

    fn port(&mut self, tag: &str, Port { number, enabled }: Port) {
        self.begin();
        self.display(format_args!(r#"<{tag} enabled="{enabled}">{number}</{tag}>"#));
    }

    fn data_center(&mut self, data_center: Option<&DataCenter>, keep: impl Fn(&str) -> bool) {
        let Some(data_center) = data_center else { return };
        self.begin();
        let class = if let DataCenter::Amazon(_) = data_center { AMAZON_DATA_CENTER } else { DEFAULT_DATA_CENTER };
        self.push(["<dataCenterInfo class=\"", class, "\">"]);
        self.depth = self.depth.map(|depth| depth + 1);
        if !data_center.name().is_empty() {
            self.text("name", data_center.name());
        }
        if let DataCenter::Amazon(metadata) = data_center {
            self.metadata(metadata.iter().filter(|(key, _)| keep(key)));
        }
        self.close("dataCenterInfo");
    }

    fn lease(&mut self, lease: Option<&LeaseInfo>) {
        let Some(lease) = lease else { return };
        self.open("leaseInfo");
        self.value("renewalIntervalInSecs", lease.renewal_interval_secs);
        self.value("durationInSecs", lease.duration_secs);
        self.value("registrationTimestamp", lease.registration_timestamp);
        self.value("lastRenewalTimestamp", lease.last_renewal_timestamp);
        self.value("evictionTimestamp", lease.eviction_timestamp);
        self.value("serviceUpTimestamp", lease.service_up_timestamp);
        self.close("leaseInfo");
    }

    /// Writes metadata without empty keys: they have no element name, and Java writes invalid XML
    /// for them.
    fn metadata<'a>(&mut self, entries: impl Iterator<Item = (&'a str, &'a str)>) {
        let mut entries = entries.filter(|(key, _)| !key.is_empty()).peekable();
        if entries.peek().is_none() {
            self.begin();
            self.push(["<metadata class=\"", EMPTY_MAP, "\"/>"]);
            return;
        }
        self.open("metadata");
        entries.for_each(|(key, value)| self.text(&name::escape(key), value));
        self.close("metadata");
    }

    fn begin(&mut self) {
        let Some(depth) = self.depth else { return };
        if depth == 0 && self.out.is_empty() {
            return;
        }
        self.out.push('\n');
        (0..depth).for_each(|_| self.out.push_str("  "));
    }

    fn push<const N: usize>(&mut self, parts: [&str; N]) {
        parts.into_iter().for_each(|part| self.out.push_str(part));
    }

    fn display(&mut self, value: impl Display) {
        write!(self.out, "{value}").expect("write to String is infallible");
    }
}

/// Writes the compact form of an instance. `docs/protocol.md`, "Compact form".
#[cfg(feature = "server")]
pub(crate) fn compact_instance(instance: &Instance) -> Vec<u8> {
    let mut writer = Writer::on_one_line();
    writer.open("instance");
    writer.optional("instanceId", instance.instance_id.as_deref());
    writer.text("app", &instance.app);
    writer.optional("ipAddr", instance.ip_addr.as_deref());
    writer.optional("vipAddress", instance.vip_address.as_deref());
    writer.optional("secureVipAddress", instance.secure_vip_address.as_deref());
    writer.data_center(instance.data_center.as_ref(), |key| AMAZON_KEYS.contains(&key));
    writer.optional("hostName", instance.host_name.as_deref());
    writer.value("status", instance.status);
    writer.values("lastUpdatedTimestamp", instance.last_updated_timestamp);
    writer.optional("actionType", instance.action.map(|action| action.as_str()));
    writer.optional("asgName", instance.asg_name.as_deref());
    writer.port("port", instance.port);
    writer.port("securePort", instance.secure_port);
    writer.close("instance");
    writer.finish()
}

/// Escapes a text. Characters that XML 1.0 cannot carry become U+FFFD. Java writes a reference to
/// them, and strict readers then refuse the whole list.
fn escape(text: &str, out: &mut String) {
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&apos;"),
            '\r' => out.push_str("&#xd;"),
            '\t' | '\n' => out.push(c),
            '\0'..='\x1f' | '\u{fffe}' | '\u{ffff}' => out.push('\u{fffd}'),
            '\x7f'..='\u{9f}' => write!(out, "&#x{:x};", u32::from(c)).expect("write to String is infallible"),
            c => out.push(c),
        }
    }
}
