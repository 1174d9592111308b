//! Settings in the JSON documents of Cloud Foundry: `VCAP_APPLICATION` becomes
//! `vcap.application.*`, and `VCAP_SERVICES` becomes `vcap.services.<name of the service>.*`.

use serde_json::{Map, Value};

use super::source::{Entry, Origin};

const APPLICATION: &str = "VCAP_APPLICATION";
const SERVICES: &str = "VCAP_SERVICES";

/// Returns the members of both documents as entries. A document that is no JSON object is ignored
/// with a warning, as by Spring.
pub(super) fn entries(environment: &[Entry]) -> Vec<Entry> {
    let mut entries = Vec::new();
    for (member, value) in document(environment, APPLICATION) {
        flatten(format!("vcap.application.{member}"), value, APPLICATION, &mut entries);
    }
    let services = document(environment, SERVICES).into_iter().filter_map(|(_, value)| match value {
        Value::Array(services) => Some(services),
        _ => None,
    });
    for service in services.flatten() {
        // A service that the user created has a name of the user's.
        let name = ["name", "label"].iter().find_map(|member| service.get(member)?.as_str().map(str::to_owned));
        if let Some(name) = name {
            flatten(format!("vcap.services.{name}"), service, SERVICES, &mut entries);
        }
    }
    entries
}

fn document(environment: &[Entry], variable: &'static str) -> Map<String, Value> {
    let text = environment.iter().find(|entry| entry.name == variable).map_or("", |entry| entry.text.trim());
    match serde_json::from_str(text) {
        Ok(Value::Object(members)) => return members,
        _ if text.is_empty() => {}
        // The cause may quote a secret.
        _ => tracing::warn!("environment variable {variable} is ignored: it is no JSON object"),
    }
    Map::new()
}

/// Appends the scalars below a value. A list is also the value of its name, separated by commas.
fn flatten(name: String, value: Value, variable: &'static str, into: &mut Vec<Entry>) {
    let text = match value {
        Value::Object(members) => {
            for (member, value) in members {
                flatten(format!("{name}.{member}"), value, variable, into);
            }
            return;
        }
        Value::Array(items) => {
            let texts = items.iter().filter_map(scalar).collect::<Vec<_>>().join(",");
            for (index, item) in items.into_iter().enumerate() {
                flatten(format!("{name}[{index}]"), item, variable, into);
            }
            texts
        }
        value => scalar(&value).unwrap_or_default(),
    };
    into.push(Entry::new(name, text, Origin::Cloud(variable)));
}

fn scalar(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(_) | Value::Bool(_) => Some(value.to_string()),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use crate::config::Settings;

    #[test]
    fn documents_of_cloud_foundry_are_settings() {
        let services = r#"{"p-service-registry": [{"name": "my-registry", "label": "p-service-registry", "plan": null,
            "tags": ["eureka", "java"], "credentials": {"uri": "https://user:geheim@registry", "port": 8761}}],
            "user-provided": [{"label": "other", "credentials": {"tls": true}}, 7], "broken": 7}"#;
        let settings = Settings::builder()
            .environment([
                (
                    "VCAP_APPLICATION",
                    r#"{"instance_id": "cf-7", "instance_index": 0, "uris": ["a.example", "b.example"]}"#,
                ),
                ("VCAP_SERVICES", services),
                ("MY_URL", "${vcap.services.my-registry.credentials.uri}/eureka/"),
            ])
            .without_files()
            .load()
            .unwrap();
        for (name, value) in [
            ("vcap.application.instance_id", Some("cf-7")),
            ("vcap.application.instance-index", Some("0")),
            ("vcap.application.uris", Some("a.example,b.example")),
            ("vcap.application.uris[1]", Some("b.example")),
            ("vcap.services.my-registry.tags[0]", Some("eureka")),
            ("vcap.services.my-registry.plan", None),
            ("vcap.services.other.credentials.tls", Some("true")),
            ("my.url", Some("https://user:geheim@registry/eureka/")),
        ] {
            assert_eq!(settings.get(name).unwrap().as_deref(), value, "{name}");
        }
        let source = settings.source("vcap.application.instance_id");
        assert_eq!(source.as_deref(), Some("environment variable VCAP_APPLICATION: vcap.application.instance_id"));
        let value = settings.find("my.url", crate::config::Unit::Text).unwrap().unwrap();
        assert!(!value.invalid("a URL").to_string().contains("geheim"), "the credentials are a secret");
    }

    #[test]
    fn document_that_is_no_object_is_ignored() {
        for text in ["", "[1]", "{", "geheim"] {
            let settings =
                Settings::builder().environment([("VCAP_APPLICATION", text)]).without_files().load().unwrap();
            assert_eq!(settings.get("vcap.application.instance_id").unwrap(), None, "{text}");
        }
    }
}
