//! Settings that are maps of zones or regions.
//!
//! The name of an environment variable has no dashes and no case, so that its key is compared with
//! the known names.

use super::property::Builder;
use crate::config::names::relaxed;
use crate::config::{InvalidSetting, Value};

/// Returns the known name that the user's key stands for, else the key with dashes.
fn key_of(value: &Value, known: impl IntoIterator<Item = String>) -> String {
    if !value.has_variable_key() {
        return value.key().to_owned();
    }
    let wanted = relaxed(value.key());
    known.into_iter().find(|name| relaxed(name) == wanted).unwrap_or_else(|| value.key().replace('.', "-"))
}

/// Sets the URLs of a zone. A zone that is no zone of the region is reported by `build`.
pub(super) fn zone_urls(builder: Builder, value: &Value) -> Result<Builder, InvalidSetting> {
    let zone = key_of(value, builder.peers.zone_names());
    Ok(builder.peers_with(|peers| peers.replace_zone_urls(&zone, value.text())))
}

/// Sets the zones of a region.
pub(super) fn zones(builder: Builder, value: &Value) -> Result<Builder, InvalidSetting> {
    let region = key_of(value, [builder.peers.region_name().to_owned()]);
    Ok(builder.peers_with(|peers| peers.availability_zones(region, value.text())))
}

/// Sets the URLs of a remote region.
pub(super) fn region(builder: Builder, value: &Value) -> Result<Builder, InvalidSetting> {
    if value.has_variable_key() && value.key().contains('.') {
        return Err(value.refused(
            "the name of the region is ambiguous (set the variable of the whole setting to REGION;URL,REGION;URL)",
        ));
    }
    Ok(builder.regions_with(|regions| regions.region(value.key(), value.text())))
}

/// Sets the applications of a remote region that lists show.
pub(super) fn whitelist(builder: Builder, value: &Value) -> Result<Builder, InvalidSetting> {
    let region = key_of(value, builder.regions.names());
    Ok(builder.regions_with(|regions| regions.whitelist(region, value.text())))
}
