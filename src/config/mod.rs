//! Settings from arguments, environment and files, under the names that Spring applications use.
//!
//! [`Settings`] reads the sources. [`Eureka::from_settings`](crate::Eureka::from_settings) and
//! [`Instance::from_settings`](crate::Instance::from_settings) take what they need from it. The
//! table in `docs/settings.md` lists all settings.
//!
//! # Names
//!
//! Names are compared as Spring compares them: `eureka.client.fetch-registry`,
//! `eureka.client.fetchRegistry` and `eureka.client.FETCH_REGISTRY` are one setting. An environment
//! variable has underscores for dots, and none or underscores for dashes:
//! `EUREKA_CLIENT_FETCHREGISTRY`, `EUREKA_CLIENT_FETCH_REGISTRY`. The last part of a map, such as
//! `eureka.instance.metadata-map.KEY`, is the user's own and stays unchanged. In a variable it is
//! in lower case, with dots for underscores, unless another source has the same key in another
//! spelling. The names of the Netflix client (`eureka.serviceUrl.default`) are read as well, in
//! their own units, but not from variables.
//!
//! # Values
//!
//! A duration is a number in the unit of its setting, or has a unit: `30`, `30s`, `500ms`, `PT30S`.
//! A list is a list in its file, has an index in its name (`name[0]`, `NAME_0`), or is separated by
//! commas. `${name}` and `${name:default}` are replaced by the value of another setting or
//! variable, `${random.value}`, `${random.uuid}`, `${random.int}`, `${random.long}`,
//! `${random.int(10)}` and `${random.int[1,5]}` by random values, and
//! `${spring.cloud.client.hostname}` and `${spring.cloud.client.ip-address}` by this machine's name
//! and address. `\${` is plain text.
//!
//! # Files
//!
//! With the feature `files`, `application.properties`, `application.yml` and `application.yaml` are
//! read from `./config/*/`, `./config/` and `./`, and `application-PROFILE` of each active profile.
//! `spring.config.name`, `spring.config.location`, `spring.config.additional-location` and
//! `spring.config.import` work for files and `configtree:`. A document of a file may require
//! profiles: `spring.config.activate.on-profile: prod & !eu`. Without the feature, a warning names
//! the files that exist.
//!
//! # Errors
//!
//! An error names source, line and setting: `application.yml:14:
//! eureka.client.registry-fetch-interval-seconds: expected seconds, found "soon"`. A setting
//! without a meaning here is logged once at info, with the reason. An unknown setting that begins
//! with `eureka.` is logged as a warning, with the most similar name.
//!
//! # Libraries
//!
//! YAML is parsed by saphyr-parser, whose events have positions and leave aliases unexpanded, so
//! that errors have lines and the expansion has a limit. figment and config merge typed trees: they
//! keep no line of a value, have neither profiles in documents nor placeholders over all sources,
//! and compare names exactly. Binding would remain to be written, which is most of this module.

mod builder;
mod builtin;
#[cfg(feature = "client")]
mod client;
#[cfg(feature = "client")]
mod credentials;
mod debug;
#[cfg(feature = "client")]
mod dns;
mod files;
#[cfg(feature = "client")]
mod fixed;
mod instance;
#[cfg(feature = "client")]
mod interest;
mod invalid;
mod json;
mod key;
mod mask;
pub(crate) mod names;
#[cfg(feature = "client")]
mod offline;
mod placeholder;
mod profiles;
mod random;
#[cfg(feature = "client")]
mod regions;
#[cfg(feature = "client")]
mod registrar;
mod report;
#[cfg(feature = "client")]
mod servers;
#[cfg(feature = "client")]
mod service_url;
mod settings;
mod source;
#[cfg(test)]
mod tests;
#[cfg(feature = "client")]
mod tls_keys;
mod value;
mod vcap;
#[cfg(feature = "client")]
mod zones;

pub use builder::SettingsBuilder;
#[cfg(feature = "client")]
pub(crate) use client::{ClientConfig, Switches};
#[cfg(feature = "client")]
pub use credentials::BearerToken;
#[cfg(feature = "client")]
pub(crate) use credentials::{Credentials, TokenProvider};
#[cfg(feature = "client")]
#[cfg_attr(not(feature = "dns"), allow(unreachable_pub, reason = "public with the feature dns"))]
pub use dns::DnsServers;
#[cfg(feature = "client")]
pub(crate) use fixed::{FixedInstance, fixed_application};
#[cfg(feature = "client")]
pub(crate) use instance::{INSTANCE, INSTANCE_UNSUPPORTED, INSTANCE_WITHOUT_MEANING};
#[cfg(feature = "client")]
pub use interest::Interest;
pub use invalid::InvalidSetting;
#[cfg(any(feature = "client", feature = "server"))]
pub(crate) use key::Key;
#[cfg(feature = "server")]
pub(crate) use key::is_name_of;
#[cfg(feature = "client")]
pub(crate) use key::{apply, names_of, netflix_names_of};
#[cfg(any(feature = "client", feature = "server"))]
pub(crate) use mask::{masked_metadata, masked_urls};
#[cfg(feature = "client")]
pub use offline::Disappearance;
#[cfg(feature = "client")]
pub(crate) use offline::{OfflineConfig, RegistryIdentity};
#[cfg(feature = "client")]
pub(crate) use regions::RemoteRegions;
#[cfg(feature = "client")]
pub(crate) use registrar::{REGISTRAR, RegistrarConfig};
pub(crate) use report::Known;
#[cfg(feature = "dns")]
pub(crate) use servers::listed;
#[cfg(feature = "client")]
pub(crate) use servers::{Cluster, Members, ServerSettings, ServerSource};
#[cfg(feature = "client")]
pub(crate) use service_url::{ServiceUrl, shown};
pub use settings::Settings;
#[cfg(feature = "server")]
pub(crate) use source::{Entry, Origin};
#[cfg(all(feature = "server", feature = "tls"))]
pub(crate) use tls_keys::{StoreKeys, path_of};
#[cfg(feature = "client")]
pub(crate) use tls_keys::{TlsKeys, store_type};
#[cfg(feature = "server")]
pub(crate) use value::boolean;
pub(crate) use value::{Unit, Value};
#[cfg(feature = "client")]
pub(crate) use zones::{DEFAULT_ZONE, ListedServer, Zones};
