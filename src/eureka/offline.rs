//! Start and calls without a registry: registry file, static instances, disappearance.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use tokio::time::timeout;

use super::{Eureka, EurekaBuilder};
use crate::cache::{Progress, RegistrySource};
use crate::config::{ClientConfig, Disappearance, FixedInstance, InvalidSetting, Value, fixed_application, names};
use crate::error::{Error, Kind};
use crate::model::{app_name, check_app};

/// Time within which the settings require the registry.
const REQUIRED_WITHIN: Duration = Duration::from_secs(30);

/// Static instances of the settings, by service and index.
pub(super) type SimpleInstances = BTreeMap<String, BTreeMap<usize, FixedInstance>>;

/// Start and calls without a registry.
impl EurekaBuilder {
    /// Sets a file that holds the last known list of the registry, so that a process can start and
    /// call while the registry is away. Defaults to no file.
    ///
    /// The file is read at the start of the first consumer. Its instances are used at once and
    /// count as stale until the registry is fetched, whose list then replaces them under the rule
    /// of [`disappearance`](Self::disappearance). The file is saved after the first fetch, then at
    /// most about every 5 minutes if instances changed, and by [`Eureka::close`]. It is replaced as
    /// a whole, so a crash leaves the old one or the new one. It has about the size of the
    /// uncompressed list, and only its owner may read it. A list without any instance is never
    /// saved.
    ///
    /// A file is not used if it is corrupt, cut off, older than
    /// [`registry_file_max_age`](Self::registry_file_max_age), larger than twice the
    /// [`body_limit`](Self::body_limit), of another version, or of another registry: one in another
    /// [region](Self::region), or without any common registry server. With a
    /// [`server_source`](Self::server_source), only the region is compared. Each fault of the file,
    /// one of writing as well, is one warning, and the client works without it.
    ///
    /// Each process needs a file of its own, in a folder that exists. Blocking threads read and
    /// write it; the start waits for at most 3 seconds. Java has the interface `BackupRegistry`,
    /// spring `eureka.client.backup-registry-impl`, which here takes `file:PATH`.
    pub fn registry_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.config.offline.file = Some(path.into());
        self
    }

    /// Sets the age from which on the [registry file](Self::registry_file) is not used, counted
    /// from the last fetch of the process that saved it. Defaults to 24 hours.
    ///
    /// A file from the future, by a wall clock that was set back, counts as new.
    pub fn registry_file_max_age(mut self, age: Duration) -> Self {
        self.config.offline.file_max_age = age;
        self
    }

    /// Sets instances of an application by their URLs, such as `http://10.0.0.1:8080`. They are
    /// used while neither the registry nor its [file](Self::registry_file) has an instance of the
    /// application, whatever its status. Defaults to none.
    ///
    /// Each call replaces the instances of this application, those of the settings as well.
    /// [`build`](Self::build) returns the error of an invalid name or URL. A URL has no path, since
    /// calls bring their own.
    ///
    /// Spring `spring.cloud.discovery.client.simple.instances.<service>[n].uri`, or `host`, `port`
    /// and `secure`, with `instance-id` and `metadata.<key>`.
    pub fn static_instances<U: AsRef<str>>(mut self, app: impl AsRef<str>, urls: impl IntoIterator<Item = U>) -> Self {
        if let Err(error) = self.set_static_instances(app.as_ref(), urls) {
            self.error = self.error.take().or(Some(error));
        }
        self
    }

    /// Sets which lists of the registry are implausible, how long instances that are missing from
    /// them remain in use, and what confirms that they are gone. Defaults to
    /// [`Disappearance::new`].
    pub fn disappearance(mut self, rule: Disappearance) -> Self {
        self.config.offline.disappearance = rule;
        self
    }

    /// Makes [`start`](Self::start) fail if the registry is not fetched within this time. A usable
    /// [registry file](Self::registry_file) counts as fetched once the first fetch has failed, as
    /// the backup registry of Java does. Defaults to a start that does not wait.
    ///
    /// It has no effect if [fetches](Self::fetch_registry) are off. Spring
    /// `eureka.client.should-enforce-fetch-registry-at-init`, which sets 30 seconds.
    pub fn require_registry(mut self, timeout: Duration) -> Self {
        self.config.offline.required_within = Some(timeout);
        self
    }

    /// Builds the client, and waits for the registry if it is [required](Self::require_registry).
    ///
    /// # Errors
    /// If [`build`](Self::build) fails, or the required registry was not fetched within its time.
    /// The message has the cause of the last failed fetch.
    ///
    /// # Cancel safety
    /// Dropping the future drops the client.
    ///
    /// # Panics
    /// Outside a tokio runtime, if the registry is required.
    pub async fn start(self) -> Result<Eureka, Error> {
        let eureka = self.build_client()?;
        if let Some(limit) = eureka.required_within() {
            eureka.wait_for_registry(limit).await?;
        }
        Ok(eureka)
    }
}

impl EurekaBuilder {
    fn set_static_instances<U: AsRef<str>>(
        &mut self,
        app: &str,
        urls: impl IntoIterator<Item = U>,
    ) -> Result<(), Error> {
        let invalid = |cause: String| Error::new(Kind::Config, "set static instances of").app(app).cause(cause);
        check_app(app).map_err(|fault| invalid(fault.to_string()))?;
        let mut instances = Vec::new();
        for (at, url) in urls.into_iter().enumerate() {
            let mut fixed = FixedInstance::default();
            fixed.set_url(url.as_ref()).map_err(|fault| {
                invalid(format!("URL {} is {fault}", at + 1)).advice("write it like http://10.0.0.1:8080")
            })?;
            instances.push(fixed);
        }
        let instances = instances.iter().enumerate();
        let application = fixed_application(app, instances).map_err(|(_, fault)| invalid(fault.to_owned()))?;
        let known = &mut self.config.offline.instances;
        known.retain(|known| known.name != application.name);
        known.push(application);
        self.simple.retain(|service, _| *app_name(service) != *app_name(app));
        Ok(())
    }
}

/// Adds the static instances of the settings.
///
/// # Errors
/// If one of them has no host.
pub(super) fn add_simple_instances(config: &mut ClientConfig, simple: &SimpleInstances) -> Result<(), Error> {
    for (service, instances) in simple {
        let instances = instances.iter().map(|(index, fixed)| (*index, fixed));
        let application = fixed_application(service, instances).map_err(|(index, fault)| {
            Error::new(Kind::Config, "read settings").cause(format!("{SIMPLE}.{service}[{index}] is {fault}"))
        })?;
        config.offline.instances.push(application);
    }
    Ok(())
}

impl Eureka {
    /// Returns the time within which the start requires the registry.
    fn required_within(&self) -> Option<Duration> {
        let config = &self.0.config;
        config.offline.required_within.filter(|_| config.switches.fetch_off().is_none())
    }

    /// Waits until the registry was fetched, or the first fetch failed and there is a file.
    async fn wait_for_registry(&self, limit: Duration) -> Result<(), Error> {
        let registry = self.registry();
        let is_usable =
            |known: &Progress| known.at.is_some() || known.source == RegistrySource::File && known.error.is_some();
        let mut progress = registry.watch_progress();
        let waited = timeout(limit, progress.wait_for(is_usable)).await;
        if matches!(waited, Ok(Ok(_))) || registry.progress().source == RegistrySource::File {
            return Ok(());
        }
        let cause = match &registry.progress().error {
            Some(error) => format!("the registry was not fetched within {limit:?}: {error}"),
            None => format!("the registry was not fetched within {limit:?}: no server has responded yet"),
        };
        Err(Error::new(Kind::Timeout, "start client")
            .cause(cause)
            .advice("start the registry first, or set registry_file() for starts without it"))
    }
}

const SIMPLE: &str = "spring.cloud.discovery.client.simple.instances";

/// Sets the registry file. A class of Java has no effect.
pub(super) fn backup_registry(builder: EurekaBuilder, value: &Value) -> Result<EurekaBuilder, InvalidSetting> {
    match value.text().strip_prefix("file:") {
        Some("" | "//") => Err(value.invalid("file:PATH")),
        Some(path) => Ok(builder.registry_file(path.strip_prefix("//").unwrap_or(path))),
        None => {
            tracing::warn!(
                "setting without effect: {}: it is a class of Java: write file:PATH for a file with the last known registry",
                value.place()
            );
            Ok(builder)
        }
    }
}

/// Requires the registry at the start.
pub(super) fn enforce_fetch(mut builder: EurekaBuilder, value: &Value) -> Result<EurekaBuilder, InvalidSetting> {
    builder.config.offline.required_within = value.flag()?.then_some(REQUIRED_WITHIN);
    Ok(builder)
}

/// Sets one field of a static instance. The key is `service.n.field`.
pub(super) fn simple_instance(mut builder: EurekaBuilder, value: &Value) -> Result<EurekaBuilder, InvalidSetting> {
    const FORM: &str = "an instance has the form <service>[n].uri";
    let parts: Vec<&str> = value.key().split('.').collect();
    // The name of a service may have dots and numbers, and so may a key of the metadata.
    let found = (1..parts.len()).find_map(|at| Some((at, parts[at].parse().ok()?, Field::parse(&parts[at + 1..])?)));
    let (at, index, field) = found.ok_or_else(|| value.refused(FORM))?;
    let service = parts[..at].join(".").to_ascii_lowercase();
    check_app(&service).map_err(|fault| value.refused(fault))?;
    let fixed = builder.simple.entry(service).or_default().entry(index).or_default();
    let text = value.text().to_owned();
    match field {
        Field::Uri => fixed.set_url(&text).map_err(|fault| value.refused(format!("the URL is {fault}")))?,
        Field::Host => fixed.host = Some(text),
        Field::Port => fixed.port = Some(value.port()?),
        Field::Secure => fixed.secure = value.flag()?,
        Field::Id => fixed.id = Some(text),
        Field::Metadata(key) => drop(fixed.metadata.insert(key, text)),
        Field::Service => {}
    }
    Ok(builder)
}

/// Field of a static instance.
enum Field {
    Uri,
    Host,
    Port,
    Secure,
    Id,
    Metadata(String),
    /// Name of the service, which Spring sets itself.
    Service,
}

impl Field {
    fn parse(parts: &[&str]) -> Option<Self> {
        if let [metadata, key @ ..] = parts
            && metadata.eq_ignore_ascii_case("metadata")
            && !key.is_empty()
        {
            return Some(Self::Metadata(key.join(".")));
        }
        Some(match &*names::relaxed(&parts.concat()) {
            "uri" => Self::Uri,
            "host" => Self::Host,
            "port" => Self::Port,
            "secure" => Self::Secure,
            "instanceid" => Self::Id,
            "serviceid" => Self::Service,
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests;
