//! Properties of all JSON documents: they survive a round trip, and no input makes a reader panic.

use std::fmt::Debug;
use std::sync::Arc;

use proptest::collection::{btree_map, vec};
use proptest::option;
use proptest::prelude::*;
use proptest::sample::{Index, select};
use proptest::test_runner::FileFailurePersistence;
use serde_json::{Map, Value, json};
use tower_eureka::model::{
    Application, Applications, Instance, InstanceStatus, ReplicationAction, ReplicationItem, ReplicationList,
    ReplicationResponse, ReplicationResult, StatusCounts,
};

/// Prints a failing case, and stores its seed beside this file for later runs.
fn config() -> ProptestConfig {
    ProptestConfig {
        failure_persistence: Some(Box::new(FileFailurePersistence::Direct("tests/model/properties.regressions"))),
        ..ProptestConfig::default()
    }
}

const EMPTY_MAP: &str = "java.util.Collections$EmptyMap";
const DEFAULT_CLASS: &str = "com.netflix.appinfo.InstanceInfo$DefaultDataCenterInfo";

fn upper() -> impl Strategy<Value = String> {
    any::<String>().prop_map(|text| text.to_uppercase()).prop_filter("a name", |name| !name.is_empty())
}

fn status() -> impl Strategy<Value = InstanceStatus> {
    select(InstanceStatus::ALL.to_vec())
}

fn status_word() -> impl Strategy<Value = Value> {
    status().prop_map(|status| json!(status.as_str()))
}

fn port() -> impl Strategy<Value = Value> {
    (any::<i32>(), any::<bool>()).prop_map(|(number, enabled)| json!({"$": number, "@enabled": enabled.to_string()}))
}

fn lease() -> impl Strategy<Value = Value> {
    (1..=i32::MAX, 1..=i32::MAX, any::<[i64; 4]>()).prop_map(
        |(interval, duration, [registered, renewed, evicted, up])| {
            json!({
                "renewalIntervalInSecs": interval, "durationInSecs": duration, "registrationTimestamp": registered,
                "lastRenewalTimestamp": renewed, "evictionTimestamp": evicted, "serviceUpTimestamp": up,
            })
        },
    )
}

fn entries() -> impl Strategy<Value = Value> {
    btree_map(any::<String>().prop_filter("not the key of Java's marker", |key| key != "@class"), any::<String>(), 0..4)
        .prop_map(|entries| json!(entries))
}

fn metadata() -> impl Strategy<Value = Value> {
    entries().prop_map(|entries| if entries == json!({}) { json!({"@class": EMPTY_MAP}) } else { entries })
}

fn data_center() -> impl Strategy<Value = Value> {
    let of_no_cloud = |name: &str| !["Amazon", "MyOwn", "Netflix"].iter().any(|known| known.eq_ignore_ascii_case(name));
    prop_oneof![
        select(vec!["MyOwn", "Netflix"]).prop_map(|name| json!({"@class": DEFAULT_CLASS, "name": name})),
        any::<String>()
            .prop_filter("an unknown name", move |name| !name.is_empty() && of_no_cloud(name))
            .prop_map(|name| json!({"@class": DEFAULT_CLASS, "name": name})),
        Just(json!({"@class": DEFAULT_CLASS})),
        entries().prop_map(|metadata| {
            json!({"@class": "com.netflix.appinfo.AmazonInfo", "name": "Amazon", "metadata": metadata})
        }),
    ]
}

/// Instance as Java writes it: each member has its type, and none is null.
fn instance() -> impl Strategy<Value = Value> {
    const TEXTS: [&str; 12] = [
        "hostName",
        "ipAddr",
        "sid",
        "homePageUrl",
        "statusPageUrl",
        "healthCheckUrl",
        "secureHealthCheckUrl",
        "vipAddress",
        "secureVipAddress",
        "asgName",
        "lastUpdatedTimestamp",
        "lastDirtyTimestamp",
    ];
    let texts = (
        vec(option::of(any::<String>()), TEXTS.len() - 2),
        vec(option::of(any::<i64>().prop_map(|n| n.to_string())), 2),
    )
        .prop_map(|(texts, numbers)| texts.into_iter().chain(numbers).collect::<Vec<_>>());
    let named = (upper(), option::of(upper()), "[^/\\\\]{1,20}");
    let fixed = (status_word(), status_word(), port(), port(), any::<i32>(), metadata(), any::<bool>());
    let optional =
        (option::of(data_center()), option::of(lease()), option::of(select(vec!["ADDED", "MODIFIED", "DELETED"])));
    (named, texts, fixed, optional).prop_map(|((app, group, id), texts, fixed, (data_center, lease, action))| {
        let (status, overridden, port, secure_port, country, metadata, coordinating) = fixed;
        let mut members: Map<String, Value> =
            TEXTS.iter().zip(texts).filter_map(|(name, text)| Some(((*name).into(), text?.into()))).collect();
        let present = [
            ("app", json!(app)),
            ("instanceId", json!(id)),
            ("status", status),
            ("overriddenStatus", overridden),
            ("port", port),
            ("securePort", secure_port),
            ("countryId", json!(country)),
            ("metadata", metadata),
            ("isCoordinatingDiscoveryServer", json!(coordinating.to_string())),
            ("appGroupName", json!(group)),
            ("dataCenterInfo", json!(data_center)),
            ("leaseInfo", json!(lease)),
            ("actionType", json!(action)),
        ];
        members.extend(
            present.into_iter().filter(|(_, value)| !value.is_null()).map(|(name, value)| (name.into(), value)),
        );
        Value::Object(members)
    })
}

fn decoded_instance() -> impl Strategy<Value = Instance> {
    instance().prop_map(|instance| {
        Instance::from_json(json!({ "instance": instance }).to_string().as_bytes()).expect("a well-formed document")
    })
}

fn applications() -> impl Strategy<Value = Value> {
    let application =
        (upper(), vec(instance(), 0..3)).prop_map(|(name, instances)| json!({"name": name, "instance": instances}));
    (option::of(any::<i64>()), option::of(any::<String>()), vec(application, 0..3)).prop_map(|(version, hash, list)| {
        let mut members = Map::from_iter([("application".to_owned(), json!(list))]);
        members.extend(version.map(|version| ("versions__delta".into(), json!(version.to_string()))));
        members.extend(hash.map(|hash| ("apps__hashcode".into(), json!(hash))));
        json!({ "applications": members })
    })
}

fn text() -> impl Strategy<Value = Arc<str>> {
    any::<String>().prop_map(Arc::from)
}

fn item() -> impl Strategy<Value = ReplicationItem> {
    use ReplicationAction::{Cancel, DeleteStatusOverride, Heartbeat, Register, StatusUpdate};
    (
        option::of(text()),
        option::of(text()),
        option::of(any::<i64>()),
        option::of(status()),
        option::of(status()),
        option::of(decoded_instance()),
        option::of(select(vec![Register, Heartbeat, Cancel, StatusUpdate, DeleteStatusOverride])),
    )
        .prop_map(|(app, id, last_dirty_timestamp, overridden_status, status, instance, action)| ReplicationItem {
            app,
            id,
            last_dirty_timestamp,
            overridden_status,
            status,
            instance,
            action,
        })
}

fn result() -> impl Strategy<Value = ReplicationResult> {
    (any::<u16>(), option::of(decoded_instance().prop_map(Arc::new)))
        .prop_map(|(status, entity)| ReplicationResult { status, entity })
}

/// Arbitrary JSON with the names and words of the protocol, so that readers get past the root
/// object.
fn junk() -> impl Strategy<Value = Value> {
    const NAMES: &str = "applications application instance name versions__delta apps__hashcode instanceId hostName app ipAddr sid \
        status overriddenStatus overriddenstatus port securePort $ @enabled countryId dataCenterInfo @class metadata leaseInfo \
        renewalIntervalInSecs durationInSecs lastRenewalTimestamp renewalTimestamp instance-id appGroupName vipAddress \
        isCoordinatingDiscoveryServer lastUpdatedTimestamp lastDirtyTimestamp actionType replicationList responseList appName id \
        instanceInfo action statusCode responseEntity x";
    const WORDS: &str =
        "UP down na unknown Amazon MyOwn netflix com.netflix.appinfo.AmazonInfo ADDED Register true 7 -1 1.5 orders";
    let pick = |list: &str| select(list.split_whitespace().map(str::to_owned).collect::<Vec<_>>());
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        any::<String>().prop_map(Value::from),
        pick(WORDS).prop_map(Value::from),
    ];
    leaf.prop_recursive(6, 64, 8, move |inner| {
        prop_oneof![
            vec(inner.clone(), 0..4).prop_map(Value::from),
            vec((pick(NAMES), inner), 0..12).prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

/// Valid documents, some of whose members have arbitrary values.
fn partly_invalid() -> impl Strategy<Value = String> {
    (0..5, instance(), vec((any::<Index>(), junk()), 0..6)).prop_map(|(frame, mut instance, junk)| {
        let members = instance.as_object_mut().expect("an instance is an object");
        for (at, value) in &junk {
            let name = members.keys().nth(at.index(members.len())).expect("within bounds").clone();
            members.insert(name, value.clone());
        }
        let any = |n: usize| junk.get(n).map_or(Value::Null, |(_, value)| value.clone());
        let application = json!({"name": "A", "instance": instance, "x": any(0)});
        match frame {
            0 => json!({"instance": instance, "x": any(0)}),
            1 => json!({ "application": application }),
            2 => json!({"applications": {"versions__delta": any(1), "apps__hashcode": any(2), "application": [application]}}),
            3 => json!({"replicationList": [{
                "appName": any(1), "id": any(2), "status": any(3), "overriddenStatus": any(4), "instanceInfo": instance,
            }]}),
            _ => json!({"responseList": [{"statusCode": any(1), "responseEntity": instance}]}),
        }
        .to_string()
    })
}

/// Checks that a document which can be read is written in a form that reads as the same value.
fn reads_what_it_writes<T: PartialEq + Debug, E: Debug>(
    body: &[u8],
    read: impl Fn(&[u8]) -> Result<T, E>,
    write: impl Fn(&T) -> Vec<u8>,
) -> Result<(), TestCaseError> {
    if let Ok(value) = read(body) {
        let written = write(&value);
        let again = read(&written);
        prop_assert!(again.is_ok(), "{again:?} of {}", String::from_utf8_lossy(&written));
        prop_assert_eq!(again.expect("checked above"), value);
    }
    Ok(())
}

fn every_reader_reads_what_it_writes(body: &[u8]) -> Result<(), TestCaseError> {
    reads_what_it_writes(body, Instance::from_json, Instance::to_json)?;
    reads_what_it_writes(body, Application::from_json, Application::to_json)?;
    reads_what_it_writes(body, Applications::from_json, Applications::to_json)?;
    reads_what_it_writes(body, ReplicationList::from_json, ReplicationList::to_json)?;
    reads_what_it_writes(body, ReplicationResponse::from_json, ReplicationResponse::to_json)
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn instance_survives_a_round_trip(instance in instance()) {
        let document = json!({ "instance": instance });
        let value = Instance::from_json(document.to_string().as_bytes()).unwrap();
        let written = value.to_json();
        prop_assert_eq!(serde_json::from_slice::<Value>(&written).unwrap(), document);
        prop_assert_eq!(Instance::from_json(&written).unwrap(), value);
    }

    #[test]
    fn applications_survive_a_round_trip(document in applications()) {
        let value = Applications::from_json(document.to_string().as_bytes()).unwrap();
        let written = value.to_json();
        prop_assert_eq!(serde_json::from_slice::<Value>(&written).unwrap(), document);
        prop_assert_eq!(Applications::from_json(&written).unwrap(), value);
    }

    #[test]
    fn batches_and_their_responses_survive_a_round_trip(items in vec(item(), 0..4), results in vec(result(), 0..4)) {
        let list = ReplicationList(items);
        prop_assert_eq!(&ReplicationList::from_json(&list.to_json()).unwrap(), &list);
        let response = ReplicationResponse(results);
        prop_assert_eq!(&ReplicationResponse::from_json(&response.to_json()).unwrap(), &response);
    }

    #[test]
    fn arbitrary_bytes_are_read_or_refused(body in vec(any::<u8>(), 0..200)) {
        every_reader_reads_what_it_writes(&body)?;
    }

    #[test]
    fn arbitrary_json_is_read_or_refused(body in prop_oneof![junk().prop_map(|value| value.to_string()), partly_invalid()]) {
        every_reader_reads_what_it_writes(body.as_bytes())?;
    }

    /// Replaces one byte of a recorded document, and cuts off its end.
    #[test]
    fn damaged_documents_are_read_or_refused(
        document in select(include_str!("../fixtures/json/recorded.jsonl").lines().collect::<Vec<_>>()),
        at in any::<Index>(),
        byte in any::<u8>(),
        end in any::<Index>(),
    ) {
        let mut body = document.as_bytes().to_vec();
        let at = at.index(body.len());
        body[at] = byte;
        every_reader_reads_what_it_writes(&body)?;
        every_reader_reads_what_it_writes(&body[..end.index(body.len())])?;
    }

    #[test]
    fn counts_do_not_depend_on_the_order(mut statuses in vec(status(), 0..50)) {
        let counts: StatusCounts = statuses.iter().copied().collect();
        prop_assert_eq!(counts.total(), statuses.len());
        for status in InstanceStatus::ALL {
            prop_assert_eq!(counts.of(status), statuses.iter().filter(|&&other| other == status).count());
        }
        statuses.reverse();
        prop_assert_eq!(counts, statuses.into_iter().collect());
    }
}
