//! Fields of an instance by name, as `apps --long` lists, `diff` compares and `watch` reports them.

use std::borrow::Cow;

use serde_json::{Map, Value, json};
use tower_eureka::Instance;
use tower_eureka::model::{DataCenter, InstanceStatus, Metadata, Port};

/// Field that differs without harm: nodes that learned of an instance in different ways have
/// different last changes.
pub(crate) const ACTION: &str = "actionType";
/// Version of the data of an instance.
pub(crate) const VERSION: &str = "lastDirtyTimestamp";
pub(crate) const STATUS: &str = "status";

/// Name and value of a field. An absent field is not listed.
pub(crate) type Field = (Cow<'static, str>, String);

/// Value of a field in two records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Change {
    pub(crate) field: Cow<'static, str>,
    pub(crate) before: Option<String>,
    pub(crate) now: Option<String>,
}

/// Returns the fields that all nodes of a cluster should agree about. Times that each server sets
/// for itself are no part of them.
pub(crate) fn fields(instance: &Instance) -> Vec<Field> {
    let mut fields: Vec<Field> = Vec::new();
    let mut add = |name: &'static str, value: Option<String>| fields.extend(value.map(|value| (name.into(), value)));
    let text = |text: Option<&str>| text.map(str::to_owned);
    add(STATUS, Some(instance.status().to_string()));
    add("overriddenStatus", override_of(instance).map(|status| status.to_string()));
    add("hostName", text(instance.host_name()));
    add("ipAddr", text(instance.ip_addr()));
    add("port", Some(port(instance.port())));
    add("securePort", Some(port(instance.secure_port())));
    add("vipAddress", text(instance.vip_address()));
    add("secureVipAddress", text(instance.secure_vip_address()));
    add("dataCenter", instance.data_center().map(|center| center.name().to_owned()));
    add("leaseRenewalSeconds", instance.lease().map(|lease| lease.renewal_interval_secs.to_string()));
    add("leaseDurationSeconds", instance.lease().map(|lease| lease.duration_secs.to_string()));
    add("appGroup", text(instance.app_group()));
    add("asgName", text(instance.asg_name()));
    add("homePageUrl", text(instance.home_page_url()));
    add("statusPageUrl", text(instance.status_page_url()));
    add("healthCheckUrl", text(instance.health_check_url()));
    add("secureHealthCheckUrl", text(instance.secure_health_check_url()));
    add(VERSION, instance.last_dirty_timestamp().map(|version| version.to_string()));
    add(ACTION, instance.action().map(|action| action.as_str().to_owned()));
    let mut entries = |prefix: &str, metadata: &Metadata| {
        fields.extend(metadata.iter().map(|(key, value)| (format!("{prefix}.{key}").into(), value.to_owned())));
    };
    if let Some(DataCenter::Amazon(metadata)) = instance.data_center() {
        entries("dataCenter", metadata);
    }
    entries("metadata", instance.metadata());
    fields
}

/// Returns the fields in which records differ, in the order of the fields, with the value of each
/// record. An absent record has no values, and does not differ from the others.
pub(crate) fn differing(records: &[Option<&Instance>]) -> Vec<(Cow<'static, str>, Vec<Option<String>>)> {
    let lists: Vec<Option<Vec<Field>>> = records.iter().map(|record| record.map(fields)).collect();
    let mut names: Vec<&Cow<'static, str>> = Vec::new();
    for (name, _) in lists.iter().flatten().flatten() {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    let mut found = Vec::new();
    for name in names {
        let value = |list: &Vec<Field>| list.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone());
        let present: Vec<Option<String>> = lists.iter().flatten().map(value).collect();
        if present.windows(2).any(|pair| pair[0] != pair[1]) {
            found.push((name.clone(), lists.iter().map(|list| list.as_ref().and_then(value)).collect()));
        }
    }
    found
}

/// Returns the fields in which two records differ, in the order of the fields.
pub(crate) fn changes(before: &Instance, now: &Instance) -> Vec<Change> {
    let change = |(field, values): (_, Vec<Option<String>>)| {
        let [before, now] = values.try_into().expect("there is a value of each record");
        Change { field, before, now }
    };
    differing(&[Some(before), Some(now)]).into_iter().map(change).collect()
}

/// Returns the override of an operator.
pub(crate) fn override_of(instance: &Instance) -> Option<InstanceStatus> {
    Some(instance.overridden_status()).filter(|&status| status != InstanceStatus::Unknown)
}

fn port(port: Port) -> String {
    let Port { number, enabled } = port;
    if enabled { number.to_string() } else { format!("{number} disabled") }
}

/// Returns the host and the port to which callers connect.
pub(crate) fn address(instance: &Instance) -> String {
    let host = instance.host().unwrap_or("-");
    let host = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
    match (instance.port().usable(), instance.secure_port().usable()) {
        (Some(port), None) => format!("{host}:{port}"),
        (None, Some(port)) => format!("{host}:{port} (https)"),
        (Some(port), Some(secure)) => format!("{host}:{port}, {secure} (https)"),
        (None, None) => host,
    }
}

/// Returns the record for programs. Absent fields are null.
pub(crate) fn record(instance: &Instance) -> Value {
    let metadata = |metadata: &Metadata| -> Map<String, Value> {
        metadata.iter().map(|(key, value)| (key.to_owned(), value.into())).collect()
    };
    let port = |port: Port| json!({ "number": port.number, "enabled": port.enabled });
    let center = |center: &DataCenter| {
        json!({ "name": center.name(), "metadata": match center {
            DataCenter::Amazon(entries) => metadata(entries),
            _ => Map::new(),
        } })
    };
    let lease = instance.lease();
    json!({
        "app": instance.app(),
        "instance": instance.id(),
        "status": instance.status().as_str(),
        "overriddenStatus": override_of(instance).map(InstanceStatus::as_str),
        "hostName": instance.host_name(),
        "ipAddr": instance.ip_addr(),
        "port": port(instance.port()),
        "securePort": port(instance.secure_port()),
        "zone": instance.zone(),
        "vipAddress": instance.vip_address(),
        "secureVipAddress": instance.secure_vip_address(),
        "dataCenter": instance.data_center().map(center),
        "lease": lease.map(|lease| json!({
            "renewalSeconds": lease.renewal_interval_secs,
            "durationSeconds": lease.duration_secs,
            "registeredMs": lease.registration_timestamp,
            "renewedMs": lease.last_renewal_timestamp,
            "upSinceMs": lease.service_up_timestamp,
        })),
        "homePageUrl": instance.home_page_url(),
        "statusPageUrl": instance.status_page_url(),
        "healthCheckUrl": instance.health_check_url(),
        "lastDirtyTimestamp": instance.last_dirty_timestamp(),
        "lastUpdatedTimestamp": instance.last_updated_timestamp(),
        "actionType": instance.action().map(|action| action.as_str()),
        "metadata": metadata(instance.metadata()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn instance(json: &str) -> Instance {
        let document = format!(r#"{{"instance":{{"instanceId":"i","app":"X","hostName":"h"{json}}}}}"#);
        Instance::from_json(document.as_bytes()).unwrap()
    }

    #[test]
    fn changes_have_the_fields_that_differ_with_both_values() {
        let before = instance(r#","status":"UP","metadata":{"a":"1","b":"2"},"lastDirtyTimestamp":"1""#);
        let now = instance(r#","status":"DOWN","metadata":{"b":"2","c":"3"},"lastDirtyTimestamp":"2""#);
        let text = |value: &Option<String>| value.clone().unwrap_or_else(|| "-".into());
        let found: Vec<_> = changes(&before, &now)
            .iter()
            .map(|change| format!("{} {} {}", change.field, text(&change.before), text(&change.now)))
            .collect();
        assert_eq!(found, ["status UP DOWN", "lastDirtyTimestamp 1 2", "metadata.a 1 -", "metadata.c - 3"]);
        assert!(changes(&now, &now).is_empty());
    }

    #[test]
    fn times_that_a_server_sets_for_itself_are_no_changes() {
        let lease = |at: i64| {
            format!(
                r#","leaseInfo":{{"durationInSecs":90,"registrationTimestamp":{at},"lastRenewalTimestamp":{at},"serviceUpTimestamp":{at}}},"lastUpdatedTimestamp":"{at}""#
            )
        };
        assert!(changes(&instance(&lease(1)), &instance(&lease(2))).is_empty());
    }

    #[test]
    fn address_has_the_enabled_ports() {
        let ports = |plain: &str, secure: &str| {
            address(&instance(&format!(
                r#","port":{{"$":80,"@enabled":"{plain}"}},"securePort":{{"$":443,"@enabled":"{secure}"}}"#
            )))
        };
        assert_eq!(ports("true", "false"), "h:80");
        assert_eq!(ports("false", "true"), "h:443 (https)");
        assert_eq!(ports("true", "true"), "h:80, 443 (https)");
        assert_eq!(ports("false", "false"), "h");
    }
}
