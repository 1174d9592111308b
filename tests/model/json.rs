//! Documents of Java servers and clients: one example of each form, and bodies recorded between
//! Spring nodes. `docs/protocol.md`, "Examples in JSON".

use serde_json::Value;
use tower_eureka::model::{
    ActionType, Application, Applications, DataCenter, DecodeError, Instance, InstanceStatus, LeaseInfo, Port,
    ReplicationAction, ReplicationList, ReplicationResponse, StatusCounts,
};

/// Removes the line breaks and indents of a fixture, which Java does not write.
fn compact(fixture: &str) -> String {
    fixture.lines().map(str::trim_start).collect()
}

/// Sorts the metadata of a fixture by key, as the encoder does. Java writes it in the order of a
/// hash map.
fn sorted_metadata(document: &str) -> String {
    document.replace(r#"{"zone":"rack-a","build_id":"77"}"#, r#"{"build_id":"77","zone":"rack-a"}"#)
}

fn text(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).expect("JSON is UTF-8")
}

const REGISTER: &str = include_str!("../fixtures/json/j1_register.json");
const REGISTER_SPRING: &str = include_str!("../fixtures/json/j2_register_spring.json");
const FULL: &str = include_str!("../fixtures/json/j3_full.json");
const DELTA: &str = include_str!("../fixtures/json/j4_delta.json");
const COMPACT: &str = include_str!("../fixtures/json/j5_compact.json");
const XSTREAM: &str = include_str!("../fixtures/json/j6_xstream.json");
const BATCH: &str = include_str!("../fixtures/json/j7_batch.json");
/// Recorded bodies, one per line.
const RECORDED: &str = include_str!("../fixtures/json/recorded.jsonl");

#[test]
fn registration_is_written_byte_for_byte_as_by_java() {
    let instance = Instance::from_json(REGISTER.as_bytes()).unwrap();
    assert_eq!(text(instance.to_json()), sorted_metadata(&compact(REGISTER)));
}

#[test]
fn full_registry_is_written_byte_for_byte_as_by_java() {
    let applications = Applications::from_json(FULL.as_bytes()).unwrap();
    assert_eq!(text(applications.to_json()), sorted_metadata(&compact(FULL)));
}

#[test]
fn delta_is_written_byte_for_byte_as_by_java() {
    let applications = Applications::from_json(DELTA.as_bytes()).unwrap();
    assert_eq!(text(applications.to_json()), compact(DELTA));
}

#[test]
fn batch_is_written_byte_for_byte_as_by_java() {
    let batch = ReplicationList::from_json(BATCH.as_bytes()).unwrap();
    assert_eq!(text(batch.to_json()), sorted_metadata(&compact(BATCH)));
}

#[test]
fn empty_registry_is_written_byte_for_byte_as_by_java() {
    let empty = r#"{"applications":{"versions__delta":"1","apps__hashcode":"","application":[]}}"#;
    let applications = Applications::from_json(empty.as_bytes()).unwrap();
    assert!(applications.is_empty());
    assert_eq!(text(applications.to_json()), empty);
}

#[test]
fn single_application_is_written_in_its_own_root_object() {
    let full = Applications::from_json(FULL.as_bytes()).unwrap();
    let document = text(full.applications[0].to_json());
    assert!(document.starts_with(r#"{"application":{"name":"ORDERS","instance":[{"instanceId":"#), "{document}");
    assert_eq!(Application::from_json(document.as_bytes()).unwrap(), *full.applications[0]);
}

#[test]
fn registration_is_decoded_member_by_member() {
    let instance = Instance::from_json(REGISTER.as_bytes()).unwrap();
    assert_eq!(instance.id(), "node1.corp.example:orders:8080");
    assert_eq!(instance.app(), "ORDERS");
    assert_eq!(instance.host_name(), Some("node1.corp.example"));
    assert_eq!(instance.ip_addr(), Some("10.20.0.1"));
    assert_eq!(instance.status(), InstanceStatus::Up);
    assert_eq!(instance.overridden_status(), InstanceStatus::Unknown);
    assert_eq!(instance.port(), Port { number: 8080, enabled: true });
    assert_eq!(instance.secure_port(), Port { number: 8443, enabled: false });
    assert_eq!(instance.data_center(), Some(&DataCenter::MyOwn));
    assert_eq!(instance.lease(), Some(&LeaseInfo::default()));
    assert_eq!(instance.metadata().iter().collect::<Vec<_>>(), [("build_id", "77"), ("zone", "rack-a")]);
    assert_eq!(instance.vip_address(), Some("orders"));
    assert_eq!(instance.secure_vip_address(), Some("orders"));
    assert_eq!(instance.home_page_url(), Some("http://node1.corp.example:8080/"));
    assert_eq!(instance.status_page_url(), Some("http://node1.corp.example:8080/actuator/info"));
    assert_eq!(instance.health_check_url(), Some("http://node1.corp.example:8080/actuator/health"));
    assert_eq!(instance.secure_health_check_url(), None);
    assert!(!instance.is_coordinating_discovery_server());
    assert_eq!(instance.last_updated_timestamp(), Some(1_759_999_998_950));
    assert_eq!(instance.last_dirty_timestamp(), Some(1_759_999_999_001));
    assert_eq!(instance.action(), None);
}

/// The document has explicit nulls, a boolean flag, timestamps as numbers and another order of
/// members.
#[test]
fn registration_of_spring_equals_that_of_jersey() {
    assert_eq!(
        Instance::from_json(REGISTER_SPRING.as_bytes()).unwrap(),
        Instance::from_json(REGISTER.as_bytes()).unwrap()
    );
}

#[test]
fn full_registry_is_decoded_member_by_member() {
    let full = Applications::from_json(FULL.as_bytes()).unwrap();
    assert_eq!(full.version, Some(1));
    assert_eq!(full.hash.as_deref(), Some(full.counts().to_string().as_str()));
    assert_eq!(full.len(), 3);
    let [orders, billing] = &full.applications[..] else { panic!("{full:?}") };
    assert_eq!(orders.up().map(|i| i.id()).collect::<Vec<_>>(), ["node1.corp.example:orders:8080"]);
    let lease = orders.instances[0].lease().unwrap();
    assert_eq!(lease.registration_timestamp, 1_760_000_000_001);
    assert_eq!(lease.last_renewal_timestamp, 1_760_000_150_001);
    assert_eq!(lease.service_up_timestamp, 1_760_000_000_001);
    let out = orders.instance("node2.corp.example:orders:8080").unwrap();
    assert_eq!(out.overridden_status(), InstanceStatus::OutOfService);
    assert!(out.metadata().is_empty());
    let amazon = billing.instance("i-0aa11bb22cc33dd44").unwrap();
    let Some(DataCenter::Amazon(metadata)) = amazon.data_center() else { panic!("{amazon:?}") };
    assert_eq!(metadata.get("availability-zone"), Some("eu-west-1b"));
    assert_eq!(metadata.len(), 7);
    assert_eq!(amazon.app_group(), Some("PAYMENTS"));
    assert_eq!(amazon.asg_name(), Some("billing-v042"));
}

#[test]
fn delta_is_decoded_with_the_action_of_each_instance() {
    let delta = Applications::from_json(DELTA.as_bytes()).unwrap();
    assert_eq!(delta.version, Some(7));
    assert_eq!(delta.hash.as_deref(), Some("OUT_OF_SERVICE_1_UP_2_"));
    let actions: Vec<_> = delta.applications[0].instances.iter().map(|i| i.action()).collect();
    assert_eq!(actions, [Some(ActionType::Modified), Some(ActionType::Deleted)]);
    assert_eq!(delta.applications[0].instances[1].lease().unwrap().eviction_timestamp, 1_760_000_200_000);
}

/// Members that the compact form and old servers leave out have the defaults of Java.
#[test]
fn compact_and_xstream_lists_equal_the_full_list_where_they_overlap() {
    let full = Applications::from_json(FULL.as_bytes()).unwrap();
    let expected = &full.applications[1].instances[0];
    for (document, version) in [(COMPACT, 1), (XSTREAM, 4)] {
        let list = Applications::from_json(document.as_bytes()).unwrap();
        assert_eq!(list.version, Some(version));
        assert_eq!(list.hash.as_deref(), Some("UP_1_"));
        assert_eq!(list.applications[0].name, full.applications[1].name);
        let [instance] = &list.applications[0].instances[..] else { panic!("{list:?}") };
        assert_eq!(instance.id(), expected.id());
        assert_eq!(instance.app(), expected.app());
        assert_eq!(instance.host_name(), expected.host_name());
        assert_eq!(instance.ip_addr(), expected.ip_addr());
        assert_eq!(instance.status(), expected.status());
        assert_eq!(instance.overridden_status(), expected.overridden_status());
        assert_eq!(instance.port(), expected.port());
        assert_eq!(instance.secure_port(), expected.secure_port());
        assert_eq!(instance.vip_address(), expected.vip_address());
        assert_eq!(instance.last_updated_timestamp(), expected.last_updated_timestamp());
        assert_eq!(instance.action(), expected.action());
        assert_eq!(instance.asg_name(), expected.asg_name());
        let Some(DataCenter::Amazon(metadata)) = instance.data_center() else { panic!("{instance:?}") };
        assert_eq!(metadata.get("availability-zone"), Some("eu-west-1b"));
    }
    let old = Applications::from_json(XSTREAM.as_bytes()).unwrap();
    assert_eq!(old.applications[0].instances[0].lease(), expected.lease());
    assert!(old.applications[0].instances[0].metadata().is_empty());
}

#[test]
fn batch_is_decoded_item_by_item() {
    use ReplicationAction::{Cancel, DeleteStatusOverride, Heartbeat, Register, StatusUpdate};
    let ReplicationList(items) = ReplicationList::from_json(BATCH.as_bytes()).unwrap();
    let actions: Vec<_> = items.iter().map(|item| item.action.unwrap()).collect();
    assert_eq!(actions, [Register, Heartbeat, Cancel, StatusUpdate, DeleteStatusOverride]);
    assert_eq!(items[0].instance.as_ref().unwrap().id(), items[0].id.as_deref().unwrap());
    assert_eq!(items[1].last_dirty_timestamp, Some(1_759_999_999_002));
    assert_eq!(items[1].overridden_status, Some(InstanceStatus::OutOfService));
    assert_eq!((items[2].last_dirty_timestamp, items[2].status, items[2].overridden_status), (None, None, None));
    assert_eq!(items[4].status, Some(InstanceStatus::Unknown));
}

#[test]
fn batch_response_keeps_the_order_and_the_entity_of_the_receiver() {
    let instance = serde_json::from_str::<Value>(REGISTER).unwrap()["instance"].take();
    let document = format!(
        r#"{{"responseList":[{{"statusCode":200}},{{"statusCode":404}},{{"statusCode":409,"responseEntity":{instance}}}]}}"#
    );
    let response = ReplicationResponse::from_json(document.as_bytes()).unwrap();
    assert_eq!(response.0.iter().map(|result| result.status).collect::<Vec<_>>(), [200, 404, 409]);
    assert_eq!(**response.0[2].entity.as_ref().unwrap(), Instance::from_json(REGISTER.as_bytes()).unwrap());
    assert!(response.0[0].entity.is_none());
    let written: Value = serde_json::from_slice(&response.to_json()).unwrap();
    assert_eq!(written, serde_json::from_str::<Value>(&document).unwrap());
}

#[test]
fn recorded_bodies_survive_a_round_trip() {
    let mut seen = [0; 4];
    for (number, body) in RECORDED.lines().enumerate() {
        let (kind, written) = reencoded(body).unwrap_or_else(|e| panic!("line {}: {e}", number + 1));
        seen[kind] += 1;
        let [mut before, mut after]: [Value; 2] =
            [body, &written].map(|document| serde_json::from_str(document).expect("a JSON document"));
        normalize(&mut before);
        normalize(&mut after);
        assert_eq!(before, after, "line {}", number + 1);
    }
    assert!(seen.iter().all(|&bodies| bodies > 0), "a kind of document is missing: {seen:?}");
}

fn reencoded(body: &str) -> Result<(usize, String), DecodeError> {
    let bytes = body.as_bytes();
    Ok(match &body[..body.find(':').expect("a wrapper")] {
        r#"{"applications""# => (0, text(Applications::from_json(bytes)?.to_json())),
        r#"{"instance""# => (1, text(Instance::from_json(bytes)?.to_json())),
        r#"{"replicationList""# => (2, text(ReplicationList::from_json(bytes)?.to_json())),
        r#"{"responseList""# => (3, text(ReplicationResponse::from_json(bytes)?.to_json())),
        other => panic!("unknown document {other}"),
    })
}

/// Removes the differences between the codecs of Java clients: nulls, `sid`, and the types of
/// scalars.
fn normalize(value: &mut Value) {
    match value {
        Value::Object(members) => {
            members.retain(|name, value| !(value.is_null() || name == "sid" && value == "na"));
            members.values_mut().for_each(normalize);
        }
        Value::Array(items) => items.iter_mut().for_each(normalize),
        Value::Number(_) | Value::Bool(_) => *value = Value::String(value.to_string()),
        Value::Null | Value::String(_) => {}
    }
}

#[test]
fn apps_hash_lists_counts_by_status_name() {
    use InstanceStatus::{Down, OutOfService, Starting, Unknown, Up};
    let vectors: [(&[InstanceStatus], &str); 5] = [
        (&[], ""),
        (&[Up, Up, Down], "DOWN_1_UP_2_"),
        (&[Up, Starting, Up, OutOfService, Up], "OUT_OF_SERVICE_1_STARTING_1_UP_3_"),
        (&[Unknown, Up, Starting, OutOfService, Down], "DOWN_1_OUT_OF_SERVICE_1_STARTING_1_UNKNOWN_1_UP_1_"),
        (&[Up; 12], "UP_12_"),
    ];
    for (statuses, hash) in vectors {
        let counts: StatusCounts = statuses.iter().copied().collect();
        assert_eq!(counts.to_string(), hash);
        assert_eq!(counts.total(), statuses.len());
    }
}
