//! Reads XML like the Java servers, but trims numbers, flags and statuses, and keeps the elements
//! after an invalid lease. `docs/protocol.md`, "Elements".

use std::borrow::Cow;
use std::sync::Arc;

use quick_xml::events::BytesStart;

#[cfg(feature = "server")]
use super::super::MAX_METADATA_ENTRIES;
use super::super::error::{DecodeError, Reason};
use super::super::lists::{ApplicationMembers, Fault, Faults, application, applications};
use super::super::{
    ActionType, Application, Applications, DataCenter, Instance, InstanceStatus, LeaseInfo, Metadata, Port, app_name,
};
use super::name;
use super::source::{Limits, Source, XmlError};

const INSTANCE: [&str; 2] = ["instance", "com.netflix.appinfo.InstanceInfo"];
/// Limits of a registration. An instance has about 40 elements beside its metadata.
#[cfg(feature = "server")]
const REGISTRATION: Limits = Limits { elements: 10_000, metadata: MAX_METADATA_ENTRIES, repairs: false };

pub(super) fn instance_document(body: &[u8]) -> Result<Instance, DecodeError> {
    let instance = named_instance(body, Limits::NONE)?;
    if instance.app.is_empty() {
        return Err(DecodeError::new("instance", Reason::NoApp));
    }
    Ok(instance)
}

/// Reads a registration: like [`instance_document`], but within limits, and `app` may be empty.
#[cfg(feature = "server")]
pub(crate) fn registration(body: &[u8]) -> Result<Instance, DecodeError> {
    named_instance(body, REGISTRATION)
}

fn named_instance(body: &[u8], limits: Limits) -> Result<Instance, DecodeError> {
    let (instance, named) = document(body, INSTANCE, limits, instance)?;
    named.then_some(instance).ok_or(DecodeError::new("instance", Reason::NoApp))
}

pub(super) fn application_document(body: &[u8]) -> Result<Application, DecodeError> {
    let names = ["application", "com.netflix.discovery.shared.Application"];
    let mut faults = Faults::default();
    let members = document(body, names, Limits::LIST, |source| application_members(source, &mut faults))?;
    let application = application(members, "application", &mut faults)?;
    faults.log();
    Ok(application)
}

pub(super) fn applications_document(body: &[u8]) -> Result<Applications, DecodeError> {
    let names = ["applications", "com.netflix.discovery.shared.Applications"];
    let mut faults = Faults::default();
    let (version, hash, members) = document(body, names, Limits::LIST, |source| {
        let (mut version, mut hash, mut members) = (None, None, Vec::new());
        while let Some(element) = source.open()? {
            match element.name().as_ref() {
                "application" => members.push(application_members(source, &mut faults)?),
                name if name.starts_with("versions_") => version = source.text()?.trim().parse().ok(),
                name if name.starts_with("apps_") => hash = Some(source.text()?.into()),
                _ => source.skip()?,
            }
        }
        Ok((version, hash, members))
    })?;
    let applications = applications(members, &mut faults);
    faults.log();
    Ok(Applications { version, hash, applications })
}

fn document<T>(
    body: &[u8],
    names: [&'static str; 2],
    limits: Limits,
    read: impl FnOnce(&mut Source<'_>) -> Result<T, XmlError>,
) -> Result<T, DecodeError> {
    let read = || {
        let text = match String::from_utf8_lossy(body) {
            Cow::Owned(_) if !limits.repairs => return Err(XmlError::NotUtf8),
            text => text,
        };
        let mut source = Source::new(&text, limits);
        let root = source.root()?;
        if !names.contains(&root.name().as_ref()) {
            return Err(XmlError::Root(root.name().as_ref().into()));
        }
        let value = read(&mut source)?;
        source.end()?;
        Ok(value)
    };
    read().map_err(|error| DecodeError::new(names[0], Reason::Xml(error)))
}

fn application_members(source: &mut Source<'_>, faults: &mut Faults) -> Result<ApplicationMembers, XmlError> {
    let mut members = ApplicationMembers { name: None, instances: Vec::new() };
    while let Some(element) = source.open()? {
        match element.name().as_ref() {
            "name" => members.name = Some(source.text()?.into()),
            "instance" => {
                let (instance, _) = instance(source)?;
                if let Some(reason) = source.take_repair() {
                    let (app, id) = (instance.app().into(), instance.id().into());
                    faults.repair(|| Fault { app, id, reason: reason.to_string(), version: 0 });
                }
                members.instances.push(Arc::new(instance));
            }
            _ => source.skip()?,
        }
    }
    Ok(members)
}

/// Reads an instance. The flag is `true` if it has an element `app`, which may be empty.
fn instance(source: &mut Source<'_>) -> Result<(Instance, bool), XmlError> {
    let mut instance = Instance::bare(Arc::from(""));
    let mut named = false;
    while let Some(element) = source.open()? {
        match element.name().as_ref() {
            "instanceId" => instance.instance_id = text(source)?,
            "hostName" => instance.host_name = text(source)?,
            "app" => {
                instance.app = app_name(&source.text()?);
                named = true;
            }
            "ipAddr" => instance.ip_addr = text(source)?,
            // Older clients write "na" for none.
            "sid" => instance.sid = text(source)?.filter(|sid| !matches!(&**sid, "na" | "unknown")),
            "status" => instance.status = InstanceStatus::from_body(source.text()?.trim()),
            "overriddenstatus" | "overriddenStatus" => {
                instance.overridden_status = InstanceStatus::from_body(source.text()?.trim());
            }
            // Without the attribute, `port` is enabled and `securePort` is disabled.
            "port" => {
                let enabled = attribute(&element, "enabled").is_none_or(|flag| flag != "false");
                instance.port = Port { number: number(source, "port", Port::DEFAULT_PLAIN.number)?, enabled };
            }
            "securePort" => {
                let enabled = attribute(&element, "enabled").is_some_and(|flag| flag == "true");
                instance.secure_port =
                    Port { number: number(source, "securePort", Port::DEFAULT_SECURE.number)?, enabled };
            }
            "countryId" => instance.country_id = number(source, "countryId", 1)?,
            "dataCenterInfo" => instance.data_center = data_center(source)?,
            "leaseInfo" => instance.lease = Some(lease(source)?),
            "metadata" => instance.metadata = metadata(source)?,
            // Kept in its case: only the JSON reader of Java changes it.
            "appGroupName" => instance.app_group = text(source)?,
            "homePageUrl" => instance.home_page_url = text(source)?,
            "statusPageUrl" => instance.status_page_url = text(source)?,
            "healthCheckUrl" => instance.health_check_url = text(source)?,
            "secureHealthCheckUrl" => instance.secure_health_check_url = text(source)?,
            "vipAddress" => instance.vip_address = text(source)?,
            "secureVipAddress" => instance.secure_vip_address = text(source)?,
            "isCoordinatingDiscoveryServer" => {
                instance.is_coordinating_discovery_server = source.text()?.trim().eq_ignore_ascii_case("true");
            }
            "lastUpdatedTimestamp" => instance.last_updated_timestamp = source.text()?.trim().parse().ok(),
            "lastDirtyTimestamp" => instance.last_dirty_timestamp = source.text()?.trim().parse().ok(),
            "actionType" => instance.action = ActionType::from_body(source.text()?.trim()),
            "asgName" => instance.asg_name = text(source)?,
            _ => source.skip()?,
        }
    }
    Ok((instance, named))
}

/// Reads a data center by its name; the class is ignored. Without a name there is none.
fn data_center(source: &mut Source<'_>) -> Result<Option<DataCenter>, XmlError> {
    let (mut name, mut entries) = (String::new(), Metadata::default());
    while let Some(element) = source.open()? {
        match element.name().as_ref() {
            "name" => name = source.text()?.trim().to_owned(),
            "metadata" => entries = metadata(source)?,
            _ => source.skip()?,
        }
    }
    let named = |known: &str| name.eq_ignore_ascii_case(known);
    Ok(match () {
        () if name.is_empty() => None,
        () if named("Amazon") => Some(DataCenter::Amazon(entries)),
        () if named("MyOwn") => Some(DataCenter::MyOwn),
        () if named("Netflix") => Some(DataCenter::Netflix),
        () => Some(DataCenter::Other(name.into())),
    })
}

/// Reads a lease. A child that is not a number keeps its default; Java drops the rest of the
/// instance there.
fn lease(source: &mut Source<'_>) -> Result<LeaseInfo, XmlError> {
    let mut lease = LeaseInfo::default();
    while let Some(element) = source.open()? {
        let seconds = match element.name().as_ref() {
            "renewalIntervalInSecs" => Some(&mut lease.renewal_interval_secs),
            "durationInSecs" => Some(&mut lease.duration_secs),
            _ => None,
        };
        if let Some(seconds) = seconds {
            let parsed = source.text()?.trim().parse::<i64>().ok().filter(|&parsed| parsed > 0);
            *seconds = parsed.map_or(*seconds, |parsed| parsed.try_into().unwrap_or(i32::MAX));
            continue;
        }
        let timestamp = match element.name().as_ref() {
            "registrationTimestamp" => &mut lease.registration_timestamp,
            // Older codecs write `renewalTimestamp`.
            "lastRenewalTimestamp" | "renewalTimestamp" => &mut lease.last_renewal_timestamp,
            "evictionTimestamp" => &mut lease.eviction_timestamp,
            "serviceUpTimestamp" => &mut lease.service_up_timestamp,
            _ => {
                source.skip()?;
                continue;
            }
        };
        *timestamp = source.text()?.trim().parse().unwrap_or(0);
    }
    Ok(lease)
}

/// Reads metadata: one element per entry, with the key as its name. The last entry of a key counts.
fn metadata(source: &mut Source<'_>) -> Result<Metadata, XmlError> {
    let mut entries: Vec<(Arc<str>, Arc<str>)> = Vec::new();
    while let Some(element) = source.open()? {
        if entries.len() == source.max_metadata() {
            return Err(XmlError::TooManyEntries(entries.len()));
        }
        let key = Arc::from(name::unescape(element.name().as_ref()));
        entries.push((key, source.text()?.into()));
    }
    Ok(entries.into_iter().collect())
}

fn text(source: &mut Source<'_>) -> Result<Option<Arc<str>>, XmlError> {
    source.text().map(|text| Some(text.into()))
}

/// Reads a number. If it is invalid and repaired, the default counts.
fn number(source: &mut Source<'_>, name: &'static str, default: i32) -> Result<i32, XmlError> {
    source.text()?.trim().parse().or_else(|_| source.repaired(default, XmlError::NoNumber(name)))
}

/// Returns the value of an attribute. An unreadable one counts as absent.
fn attribute<'e>(element: &'e BytesStart<'_>, name: &str) -> Option<Cow<'e, str>> {
    element.try_get_attribute(name).ok().flatten().map(|attribute| attribute.value)
}
