//! Instances before and after a change, as the log shows them.

use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt::{self, Write};

use tracing::field::{DisplayValue, display};

use crate::config::{masked_metadata, masked_urls};
use crate::model::{DataCenter, Instance, InstanceStatus, Metadata, Port};
use crate::server::outcome::States;
use crate::untrusted::Quoted;

/// Maximum number of fields that a line shows of one state.
const MAX_FIELDS: usize = 12;
/// Length after which no further field is shown.
const MAX_BYTES: usize = 500;

/// Name and value of a field. An absent field is not listed.
type Field<'a> = (Cow<'a, str>, Cow<'a, str>);

impl States {
    /// Returns the state before the change as a field of a line, which is absent for a new
    /// instance.
    pub(super) fn before_field(&self) -> Option<DisplayValue<Shown<'_>>> {
        self.before.as_deref().map(|state| display(Shown { state, other: self.after.as_deref() }))
    }

    /// Returns the state after the change as a field of a line, which is absent for an instance
    /// that left.
    pub(super) fn after_field(&self) -> Option<DisplayValue<Shown<'_>>> {
        self.after.as_deref().map(|state| display(Shown { state, other: self.before.as_deref() }))
    }
}

/// Displays the fields of a state that the other one does not have in the same way, such as
/// `[status=UP ipAddr=10.0.0.1]`. Without another state, it displays status and addresses.
///
/// Clients choose the values: each is escaped, truncated, and masked if it may be a secret.
#[derive(Debug)]
pub(super) struct Shown<'a> {
    state: &'a Instance,
    other: Option<&'a Instance>,
}

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut fields = addresses(self.state);
        if let Some(other) = self.other {
            fields.extend(details(self.state));
            let known: HashSet<_> = addresses(other).into_iter().chain(details(other)).collect();
            fields.retain(|field| !known.contains(field));
        }
        list(f, fields.iter().map(|(name, value)| format!("{}={}", Quoted(name), Quoted(&masked(name, value)))))
    }
}

/// Displays texts in brackets. Beyond a maximum number and length, only their number is shown.
pub(in crate::server) fn list(f: &mut fmt::Formatter<'_>, texts: impl ExactSizeIterator<Item = String>) -> fmt::Result {
    let (count, mut shown, mut bytes) = (texts.len(), 0, 0);
    f.write_char('[')?;
    for text in texts.take(MAX_FIELDS) {
        let separator = if shown == 0 { "" } else { " " };
        write!(f, "{separator}{text}")?;
        (shown, bytes) = (shown + 1, bytes + text.len());
        if bytes > MAX_BYTES {
            break;
        }
    }
    if count > shown {
        write!(f, " and {} more", count - shown)?;
    }
    f.write_char(']')
}

const METADATA: &str = "metadata.";

fn masked<'a>(name: &str, value: &'a str) -> Cow<'a, str> {
    match name.strip_prefix(METADATA) {
        Some(key) => masked_metadata(key, value),
        None => masked_urls(value),
    }
}

/// Returns status and addresses of an instance.
fn addresses(instance: &Instance) -> Vec<Field<'_>> {
    let overridden = Some(instance.overridden_status()).filter(|&status| status != InstanceStatus::Unknown);
    let fields = [
        ("status", Some(instance.status().as_str().into())),
        ("overriddenStatus", overridden.map(|status| status.as_str().into())),
        ("hostName", instance.host_name().map(Cow::Borrowed)),
        ("ipAddr", instance.ip_addr().map(Cow::Borrowed)),
        ("port", port(instance.port())),
        ("securePort", port(instance.secure_port())),
    ];
    present(fields)
}

/// Returns the further fields whose change is logged.
fn details(instance: &Instance) -> Vec<Field<'_>> {
    let fields = [
        ("vipAddress", instance.vip_address()),
        ("secureVipAddress", instance.secure_vip_address()),
        ("homePageUrl", instance.home_page_url()),
        ("statusPageUrl", instance.status_page_url()),
        ("healthCheckUrl", instance.health_check_url()),
        ("secureHealthCheckUrl", instance.secure_health_check_url()),
        ("appGroupName", instance.app_group()),
        ("asgName", instance.asg_name()),
        ("dataCenter", instance.data_center().map(DataCenter::name)),
    ];
    let mut fields = present(fields.map(|(name, value)| (name, value.map(Cow::Borrowed))));
    if let Some(DataCenter::Amazon(metadata)) = instance.data_center() {
        fields.extend(entries("dataCenter.", metadata));
    }
    fields.extend(entries(METADATA, instance.metadata()));
    fields
}

fn entries<'a>(prefix: &str, metadata: &'a Metadata) -> impl Iterator<Item = Field<'a>> {
    metadata.iter().map(move |(key, value)| (format!("{prefix}{key}").into(), value.into()))
}

fn present<'a, const N: usize>(fields: [(&'static str, Option<Cow<'a, str>>); N]) -> Vec<Field<'a>> {
    fields.into_iter().filter_map(|(name, value)| Some((name.into(), value?))).collect()
}

/// Returns the number of a port on which the instance listens.
fn port(port: Port) -> Option<Cow<'static, str>> {
    port.enabled.then(|| port.number.to_string().into())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn instance(metadata: &[(&str, &str)]) -> Instance {
        let builder = Instance::builder("orders").id("1").host_name("h").ip_addr("10.0.0.1").port(80);
        metadata.iter().fold(builder, |builder, &(key, value)| builder.metadata(key, value)).build().unwrap()
    }

    /// Returns the fields before and after.
    fn shown(before: Option<Instance>, after: Option<Instance>) -> [String; 2] {
        let states = States { before: before.map(Arc::new), after: after.map(Arc::new) };
        let text = |field: Option<DisplayValue<Shown<'_>>>| field.map(|field| format!("{field:?}")).unwrap_or_default();
        [text(states.before_field()), text(states.after_field())]
    }

    #[test]
    fn new_and_removed_instances_are_shown_with_their_addresses() {
        let summary = "[status=UP hostName=h ipAddr=10.0.0.1 port=80]";
        assert_eq!(shown(None, Some(instance(&[("a", "b")]))), ["", summary]);
        assert_eq!(shown(Some(instance(&[])), None), [summary, ""]);
    }

    #[test]
    fn changed_instance_is_shown_by_its_differences() {
        let moved = Instance { ip_addr: Some("10.0.0.2".into()), ..instance(&[]) };
        assert_eq!(shown(Some(instance(&[])), Some(moved)), ["[ipAddr=10.0.0.1]", "[ipAddr=10.0.0.2]"]);
        let [before, after] = [&[("a", "1"), ("b", "2")], &[("a", "3"), ("c", "4")]].map(|entries| instance(entries));
        let expected = ["[metadata.a=1 metadata.b=2]", "[metadata.a=3 metadata.c=4]"];
        assert_eq!(shown(Some(before), Some(after)), expected);
        assert_eq!(shown(Some(instance(&[])), Some(instance(&[("a", "1")]))), ["[]", "[metadata.a=1]"]);
    }

    #[test]
    fn hostile_secret_and_many_values_are_escaped_masked_and_cut() {
        let long = "x".repeat(5_000);
        let entries = [
            ("note", "a] after=[status=DOWN\n\u{1b}[31m"),
            ("user.password", "hunter2"),
            ("url", "http://u:hunter2@h/"),
            ("long", &long),
            ("bad name", "v"),
        ];
        let [before, after] = shown(Some(instance(&[])), Some(instance(&entries)));
        assert_eq!(before, "[]");
        for part in [
            r#"metadata.note="a] after=[status=DOWN\n\u{1b}[31m""#,
            "metadata.user.password=***",
            "metadata.url=http://***@h/",
            &format!("metadata.long={}...", "x".repeat(100)),
            r#""metadata.bad name"=v"#,
        ] {
            assert!(after.contains(part), "{part} in {after}");
        }
        assert!(!after.contains("hunter2") && after.len() < 1_000, "{after}");
        let many: Vec<_> = (0..1_000).map(|n| (format!("k{n}"), "v")).collect();
        let many: Vec<_> = many.iter().map(|(key, value)| (key.as_str(), *value)).collect();
        let [_, after] = shown(Some(instance(&[])), Some(instance(&many)));
        assert!(after.ends_with(" and 988 more]") && after.len() < 1_000, "{after}");
    }
}
