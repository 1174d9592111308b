//! Settings in the JSON document of `SPRING_APPLICATION_JSON`.

use serde_json::Value;

use super::InvalidSetting;
use super::source::{Entry, Origin, Place};

/// Name of the setting that holds the document.
pub(super) const NAME: &str = "spring.application.json";

/// Returns the members of the document as entries. The error does not contain a part of the
/// document, which may be a secret.
pub(super) fn entries(place: &Place<'_>, text: &str) -> Result<Vec<Entry>, InvalidSetting> {
    let document: Value = serde_json::from_str(text).map_err(|error| {
        let (line, column) = (error.line(), error.column());
        InvalidSetting::refused(place, format_args!("invalid JSON at line {line}, column {column}"))
    })?;
    if !document.is_object() {
        return Err(InvalidSetting::expected(place, "a JSON object", None));
    }
    let mut entries = Vec::new();
    flatten(String::new(), document, &mut entries);
    Ok(entries)
}

/// Appends the scalars below a value. The decoder limits the depth.
fn flatten(name: String, value: Value, into: &mut Vec<Entry>) {
    let text = match value {
        Value::Object(members) => {
            for (key, value) in members {
                let name = match &*name {
                    "" => key,
                    name if key.starts_with('[') => format!("{name}{key}"),
                    name => format!("{name}.{key}"),
                };
                flatten(name, value, into);
            }
            return;
        }
        // An empty list is a value, which replaces the lists of other sources.
        Value::Array(items) if items.is_empty() => String::new(),
        Value::Array(items) => {
            for (index, item) in items.into_iter().enumerate() {
                flatten(format!("{name}[{index}]"), item, into);
            }
            return;
        }
        Value::Null => String::new(),
        Value::String(text) => text,
        value => value.to_string(),
    };
    into.push(Entry::new(name, text, Origin::Json));
}

/// Returns `true` for the name of the setting that holds the document, which may hold secrets.
pub(super) fn is_document(name: &str) -> bool {
    super::names::relaxed(name) == super::names::relaxed(NAME)
}
