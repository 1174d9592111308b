//! Properties of all XML documents: they survive a round trip, and no input makes a reader panic.

use proptest::collection::{btree_map, vec};
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::FileFailurePersistence;
use serde_json::{Map, Value, json};
use tower_eureka::model::{Application, Applications, Instance, InstanceStatus};

/// Prints a failing case, and stores its seed beside this file for later runs.
fn config() -> ProptestConfig {
    ProptestConfig {
        failure_persistence: Some(Box::new(FileFailurePersistence::Direct("tests/model/xml_properties.regressions"))),
        ..ProptestConfig::default()
    }
}

/// Text that XML can carry.
fn text() -> impl Strategy<Value = String> {
    let carried = |c: &char| matches!(c, '\t' | '\n' | '\r' | ' '..='\u{fffd}' | '\u{10000}'..);
    prop_oneof![any::<String>(), "[ \t\r\n<>&'\"\\]a-c;#x_.-]{0,12}"]
        .prop_map(move |text| text.chars().filter(carried).collect())
}

fn upper() -> impl Strategy<Value = String> {
    text().prop_map(|text| text.to_uppercase()).prop_filter("a name", |name| !name.is_empty())
}

fn port() -> impl Strategy<Value = Value> {
    (any::<i32>(), any::<bool>()).prop_map(|(number, enabled)| json!({"$": number, "@enabled": enabled}))
}

fn metadata() -> impl Strategy<Value = Value> {
    let key = text().prop_filter("keys that JSON and XML can carry", |key| !key.is_empty() && key != "@class");
    btree_map(key, text(), 0..4).prop_map(|entries| json!(entries))
}

fn data_center() -> impl Strategy<Value = Value> {
    prop_oneof![
        select(vec!["MyOwn", "Netflix", "Moon"]).prop_map(|name| json!({ "name": name })),
        metadata().prop_map(|metadata| json!({"name": "Amazon", "metadata": metadata})),
    ]
}

fn lease() -> impl Strategy<Value = Value> {
    (1..=i32::MAX, any::<[i64; 2]>()).prop_map(|(seconds, [registered, renewed])| {
        json!({"durationInSecs": seconds, "registrationTimestamp": registered, "lastRenewalTimestamp": renewed})
    })
}

/// Instance read from generated JSON, which has tests of its own.
fn instance() -> impl Strategy<Value = Instance> {
    const TEXTS: [&str; 11] = [
        "hostName",
        "ipAddr",
        "sid",
        "appGroupName",
        "homePageUrl",
        "statusPageUrl",
        "healthCheckUrl",
        "secureHealthCheckUrl",
        "vipAddress",
        "secureVipAddress",
        "asgName",
    ];
    let texts = vec(option::of(text()), TEXTS.len());
    let status = || select(InstanceStatus::ALL.to_vec()).prop_map(InstanceStatus::as_str);
    let action = option::of(select(vec!["ADDED", "MODIFIED", "DELETED"]));
    let fixed = (upper(), "[a-z]{1,5}", status(), status(), port(), port(), any::<i32>(), metadata());
    let other = (any::<bool>(), option::of(any::<i64>()), option::of(any::<i64>()), action);
    (texts, fixed, other, option::of(data_center()), option::of(lease())).prop_map(
        |(texts, fixed, other, data_center, lease)| {
            let (app, id, status, overridden, port, secure_port, country, metadata) = fixed;
            let (coordinating, updated, dirty, action) = other;
            let mut members: Map<String, Value> =
                TEXTS.iter().zip(texts).map(|(name, text)| ((*name).into(), json!(text))).collect();
            let rest = json!({
                "app": app, "instanceId": id, "status": status, "overriddenStatus": overridden, "port": port,
                "securePort": secure_port, "countryId": country, "metadata": metadata, "dataCenterInfo": data_center,
                "leaseInfo": lease, "isCoordinatingDiscoveryServer": coordinating, "lastUpdatedTimestamp": updated,
                "lastDirtyTimestamp": dirty, "actionType": action,
            });
            let Value::Object(rest) = rest else { unreachable!("the literal is an object") };
            members.extend(rest);
            Instance::from_json(json!({ "instance": members }).to_string().as_bytes()).expect("a well-formed document")
        },
    )
}

fn applications() -> impl Strategy<Value = Applications> {
    let application = (upper(), vec(instance().prop_map(Into::into), 0..3))
        .prop_map(|(name, instances)| Application { name: name.into(), instances }.into());
    (option::of(any::<i64>()), option::of(text()), vec(application, 0..3))
        .prop_map(|(version, hash, applications)| Applications { version, hash: hash.map(Into::into), applications })
}

/// Fragments of XML in any order.
fn junk() -> impl Strategy<Value = String> {
    const PIECES: [&str; 32] = [
        "<instance>",
        "</instance>",
        "<applications>",
        "</applications>",
        "<application>",
        "</application>",
        "<app>",
        "</app>",
        "<name>",
        "</name>",
        "<port enabled='",
        "'>",
        "</port>",
        "<metadata>",
        "</metadata>",
        "<leaseInfo>",
        "</leaseInfo>",
        "<dataCenterInfo class=\"x\">",
        "</dataCenterInfo>",
        "<versions__delta/>",
        "7",
        "orders",
        "&amp;",
        "&#x41;",
        "&#xffffffffff;",
        "&x;",
        "<![CDATA[",
        "]]>",
        "<!--",
        "-->",
        "<?xml version='1.0'?>",
        "<!DOCTYPE x>",
    ];
    vec(prop_oneof![4 => select(PIECES.to_vec()).prop_map(str::to_owned), 1 => any::<String>()], 0..40)
        .prop_map(|pieces| pieces.concat())
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn instance_survives_a_round_trip(instance in instance()) {
        prop_assert_eq!(Instance::from_xml(&instance.to_xml()).unwrap(), instance);
    }

    #[test]
    fn applications_survive_a_round_trip(applications in applications()) {
        prop_assert_eq!(Applications::from_xml(&applications.to_xml()).unwrap(), applications);
    }

    #[test]
    fn arbitrary_bytes_are_read_or_refused(bytes in vec(any::<u8>(), 0..200), junk in junk()) {
        for document in [&bytes[..], junk.as_bytes()] {
            let _ = (Instance::from_xml(document), Application::from_xml(document), Applications::from_xml(document));
        }
    }

    #[test]
    fn truncated_document_is_refused(applications in applications(), at in any::<prop::sample::Index>()) {
        let document = applications.to_xml();
        prop_assert!(Applications::from_xml(&document[..at.index(document.len())]).is_err());
    }
}
