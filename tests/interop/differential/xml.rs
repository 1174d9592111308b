//! Conversion of XML to JSON values and back, so that one comparison serves both formats.

use quick_xml::Reader;
use quick_xml::events::{BytesStart, Event};
use serde_json::{Map, Value, json};

/// Elements that JSON has as a list, with their parents.
const LISTS: [(&str, &str); 2] = [("applications", "application"), ("application", "instance")];

/// Converts a document to an object with the root element as its only member. An element with
/// attributes or children is an object: names of attributes begin with `@`, and the text beside
/// them is `$`. All values are texts.
pub(crate) fn value(document: &str) -> Option<Value> {
    let mut reader = Reader::from_str(document);
    reader.config_mut().expand_empty_elements = true;
    loop {
        match reader.read_event().ok()? {
            Event::Start(root) => {
                let name = root.name().as_ref().to_owned();
                return element(&mut reader, &root, &name).map(|value| json!({ name: value }));
            }
            Event::Eof => return None,
            _ => {}
        }
    }
}

fn element(reader: &mut Reader<&[u8]>, start: &BytesStart<'_>, name: &str) -> Option<Value> {
    let (mut members, mut text) = (Map::new(), String::new());
    for attribute in start.attributes() {
        let attribute = attribute.ok()?;
        members.insert(format!("@{}", attribute.key.as_ref()), json!(attribute.value.as_ref()));
    }
    let list = LISTS.iter().find(|(parent, _)| *parent == name).map(|(_, list)| *list);
    if let Some(list) = list {
        members.insert(list.to_owned(), json!([]));
    }
    loop {
        match reader.read_event().ok()? {
            Event::Start(child) => {
                let name = child.name().as_ref().to_owned();
                let value = element(reader, &child, &name)?;
                match members.get_mut(&name) {
                    Some(Value::Array(items)) if list == Some(name.as_str()) => items.push(value),
                    _ => drop(members.insert(name, value)),
                }
            }
            Event::Text(more) => text.push_str(&more.xml10_content()),
            Event::GeneralRef(reference) => text.push(match &*reference {
                "amp" => '&',
                "lt" => '<',
                "gt" => '>',
                "quot" => '"',
                "apos" => '\'',
                _ => reference.resolve_char_ref().ok()??,
            }),
            Event::End(_) => break,
            Event::Eof => return None,
            _ => {}
        }
    }
    if members.is_empty() {
        return Some(text.into());
    }
    if !text.trim().is_empty() {
        members.insert("$".into(), text.into());
    }
    Some(members.into())
}

/// Writes an instance as XML, without members that are `null`.
pub(crate) fn instance(instance: &Value) -> String {
    let mut out = String::new();
    write("instance", instance, &mut out);
    out
}

fn write(name: &str, value: &Value, out: &mut String) {
    let name = if name == "overriddenStatus" { "overriddenstatus" } else { name };
    let escaped = |text: &str| text.replace('&', "&amp;").replace('<', "&lt;");
    let Value::Object(members) = value else {
        match value {
            Value::Null => {}
            Value::String(text) => *out += &format!("<{name}>{}</{name}>", escaped(text)),
            other => *out += &format!("<{name}>{other}</{name}>"),
        }
        return;
    };
    *out += &format!("<{name}");
    for (attribute, value) in members.iter().filter_map(|(name, value)| Some((name.strip_prefix('@')?, value))) {
        *out += &format!(" {attribute}=\"{}\"", value.as_str().unwrap_or_default());
    }
    out.push('>');
    for (child, value) in members.iter().filter(|(name, _)| !name.starts_with('@')) {
        match value {
            Value::String(text) if child == "$" => *out += &escaped(text),
            number if child == "$" => *out += &number.to_string(),
            _ => write(child, value, out),
        }
    }
    *out += &format!("</{name}>");
}
