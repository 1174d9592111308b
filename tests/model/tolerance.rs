//! Documents of other clients and servers that differ from the usual form. `docs/protocol.md`,
//! "Absent and mistyped members".

use tower_eureka::model::{
    ActionType, Application, Applications, DataCenter, Instance, InstanceStatus, LeaseInfo, Port, ReplicationList,
    ReplicationResponse,
};

/// Reads a document with these members beside `app` and `instanceId`.
fn instance(members: &str) -> Instance {
    let document = format!(r#"{{"instance":{{"app":"orders","instanceId":"i1",{members}}}}}"#);
    Instance::from_json(document.as_bytes()).unwrap_or_else(|error| panic!("{document:.300}: {error}"))
}

fn applications(members: &str) -> Applications {
    let document = format!(r#"{{"applications":{{{members}}}}}"#);
    Applications::from_json(document.as_bytes()).unwrap_or_else(|error| panic!("{document:.300}: {error}"))
}

const PLAIN: Port = Port::DEFAULT_PLAIN;
const SECURE: Port = Port::DEFAULT_SECURE;

#[test]
fn instance_with_only_a_name_has_the_defaults_of_java() {
    let bare = Instance::from_json(br#"{"instance":{"app":"orders"}}"#).unwrap();
    assert_eq!(bare.app(), "ORDERS");
    assert_eq!(bare.id(), "");
    assert_eq!(bare.status(), InstanceStatus::Up);
    assert_eq!(bare.overridden_status(), InstanceStatus::Unknown);
    assert_eq!((bare.port(), bare.secure_port()), (PLAIN, SECURE));
    assert_eq!((bare.lease(), bare.data_center(), bare.action()), (None, None, None));
    assert_eq!((bare.last_dirty_timestamp(), bare.last_updated_timestamp()), (None, None));
    assert!(bare.metadata().is_empty());
    assert!(!bare.is_coordinating_discovery_server());
}

#[test]
fn null_counts_as_absent() {
    let nulls = instance(
        r#""hostName":null,"ipAddr":null,"sid":null,"status":null,"overriddenStatus":null,"port":null,"securePort":null,
        "countryId":null,"dataCenterInfo":null,"leaseInfo":null,"metadata":null,"appGroupName":null,"homePageUrl":null,
        "statusPageUrl":null,"healthCheckUrl":null,"secureHealthCheckUrl":null,"vipAddress":null,"secureVipAddress":null,
        "isCoordinatingDiscoveryServer":null,"lastUpdatedTimestamp":null,"lastDirtyTimestamp":null,"actionType":null,
        "asgName":null"#,
    );
    assert_eq!(nulls, instance(r#""unknown":null"#));
}

#[test]
fn values_of_another_shape_count_as_absent() {
    let bare = instance(r#""unknown":0"#);
    for shape in ["[]", "{}", r#"["x",{"y":[1]}]"#, r#"{"x":{"y":[1]}}"#] {
        for name in ["hostName", "ipAddr", "status", "overriddenStatus", "port", "countryId", "actionType", "asgName"] {
            assert_eq!(instance(&format!(r#""{name}":{shape}"#)), bare, "{name}: {shape}");
        }
    }
    for shape in ["[]", "true", "1", "-1", "1.5", r#""x""#] {
        for name in ["dataCenterInfo", "leaseInfo", "metadata"] {
            assert_eq!(instance(&format!(r#""{name}":{shape}"#)), bare, "{name}: {shape}");
        }
    }
}

#[test]
fn unknown_members_of_any_shape_are_skipped_at_every_level() {
    for unknown in [r#""x":1"#, r#""x":"y""#, r#""x":null"#, r#""x":{"status":"DOWN"}"#, r#""x":[{"a":[]},1]"#] {
        let response = applications(&format!(
            r#"{unknown},"versions__delta":"1",{unknown},"application":[{{{unknown},"name":"ORDERS",{unknown},
            "instance":[{{"instanceId":"i1",{unknown},"port":{{{unknown},"$":80}},"leaseInfo":{{{unknown},"durationInSecs":9}},
            "dataCenterInfo":{{{unknown},"name":"MyOwn"}},{unknown}}}]}}]"#
        ));
        let found = &response.applications[0].instances[0];
        assert_eq!(found.status(), InstanceStatus::Up, "{unknown}");
        assert_eq!(found.port(), Port { number: 80, enabled: true }, "{unknown}");
        assert_eq!(found.lease().unwrap().duration_secs, 9, "{unknown}");
        assert_eq!(found.data_center(), Some(&DataCenter::MyOwn), "{unknown}");
        let batch = format!(r#"{{"replicationList":[{{{unknown},"appName":"A",{unknown}}}],{unknown}}}"#);
        assert_eq!(ReplicationList::from_json(batch.as_bytes()).unwrap().0[0].app.as_deref(), Some("A"), "{unknown}");
        let response = format!(r#"{{{unknown},"responseList":[{{{unknown},"statusCode":404}}]}}"#);
        assert_eq!(ReplicationResponse::from_json(response.as_bytes()).unwrap().0[0].status, 404, "{unknown}");
    }
}

#[test]
fn status_is_read_in_any_case_and_unknown_words_are_unknown() {
    use InstanceStatus::{Down, OutOfService, Starting, Unknown, Up};
    for (word, status) in [
        ("UP", Up),
        ("up", Up),
        ("Down", Down),
        ("out_of_service", OutOfService),
        ("STARTING", Starting),
        ("UNKNOWN", Unknown),
        ("", Unknown),
        ("HEALTHY", Unknown),
        ("UP ", Unknown),
    ] {
        assert_eq!(instance(&format!(r#""status":"{word}""#)).status(), status, "{word}");
        for spelling in ["overriddenStatus", "overriddenstatus"] {
            let found = instance(&format!(r#""{spelling}":"{word}""#)).overridden_status();
            assert_eq!(found, status, "{spelling} {word}");
        }
    }
    assert_eq!(instance(r#""status":1"#).status(), Unknown);
}

#[test]
fn duplicate_member_has_its_last_value() {
    assert_eq!(instance(r#""status":"UP","status":"DOWN""#).status(), InstanceStatus::Down);
    let both = instance(r#""overriddenstatus":"DOWN","overriddenStatus":"UP""#);
    assert_eq!(both.overridden_status(), InstanceStatus::Up);
    assert_eq!(instance(r#""port":{"$":1,"$":2},"port":{"$":3}"#).port().number, 3);
    assert_eq!(instance(r#""metadata":{"a":"1","a":"2"}"#).metadata().get("a"), Some("2"));
    let twice = applications(r#""application":[],"application":{"name":"A","name":"B"}"#);
    assert_eq!(&*twice.applications[0].name, "B");
}

#[test]
fn port_is_read_in_every_form() {
    for (value, plain, secure) in [
        (r#"{"$":8080,"@enabled":"true"}"#, (8080, true), (8080, true)),
        (r#"{"@enabled":true,"$":"8080"}"#, (8080, true), (8080, true)),
        (r#"{"$":"8080","@enabled":"false"}"#, (8080, false), (8080, false)),
        (r#"{"$":8080,"@enabled":"TRUE"}"#, (8080, true), (8080, true)),
        (r#"{"$":8080,"@enabled":0}"#, (8080, false), (8080, false)),
        (r#"{"$":8080,"@enabled":1}"#, (8080, true), (8080, true)),
        (r#"{"$":8080,"@enabled":"maybe"}"#, (8080, false), (8080, false)),
        (r#"{"$":8080,"@enabled":1.5}"#, (8080, false), (8080, false)),
        (r#"{"$":8080,"@enabled":null}"#, (8080, false), (8080, false)),
        (r#"{"$":null,"@enabled":"true"}"#, (0, true), (0, true)),
        (r#"{"$":"8080.7","@enabled":"true"}"#, (8080, true), (8080, true)),
        (r#"{"$":8080}"#, (8080, true), (8080, false)),
        (r#"{"$":"http","@enabled":"true"}"#, (0, true), (0, true)),
        (r#"{"@enabled":"true"}"#, (7001, true), (7002, true)),
        ("{}", (7001, true), (7002, false)),
        ("null", (7001, true), (7002, false)),
        ("8080", (8080, true), (8080, false)),
        (r#""8080""#, (8080, true), (8080, false)),
        ("8080.0", (8080, true), (8080, false)),
        ("true", (7001, true), (7002, false)),
        ("[8080]", (7001, true), (7002, false)),
        ("99999999999999999999", (i32::MAX, true), (i32::MAX, false)),
        ("9223372036854775808", (i32::MAX, true), (i32::MAX, false)),
        ("-1", (-1, true), (-1, false)),
    ] {
        let found = instance(&format!(r#""port":{value},"securePort":{value}"#));
        assert_eq!(found.port(), Port { number: plain.0, enabled: plain.1 }, "port {value}");
        assert_eq!(found.secure_port(), Port { number: secure.0, enabled: secure.1 }, "securePort {value}");
    }
}

#[test]
fn numbers_flags_and_texts_are_read_in_each_others_types() {
    for (value, number) in [
        ("7", 7),
        (r#""7""#, 7),
        (r#"" 7 ""#, 7),
        (r#""+7""#, 7),
        (r#""junk""#, 0),
        (r#""""#, 0),
        ("7.9", 7),
        ("-7.9", -7),
        (r#""7.9""#, 7),
        (r#""-7.9""#, -7),
        (r#""1e3""#, 1000),
        (r#""1E3x""#, 0),
        (r#""1e400""#, i64::MAX),
        (r#""9223372036854775807""#, i64::MAX),
        (r#""9223372036854775808""#, 0),
        ("9223372036854775808", i64::MAX),
        ("-9223372036854775808", i64::MIN),
    ] {
        let found = instance(&format!(r#""lastDirtyTimestamp":{value},"lastUpdatedTimestamp":{value}"#));
        assert_eq!(found.last_dirty_timestamp(), Some(number), "{value}");
        assert_eq!(found.last_updated_timestamp(), Some(number), "{value}");
        assert_eq!(applications(&format!(r#""versions__delta":{value}"#)).version, Some(number), "{value}");
    }
    for (value, flag) in
        [("true", true), (r#""true""#, true), ("false", false), (r#""false""#, false), (r#""yes""#, false)]
    {
        let found = instance(&format!(r#""isCoordinatingDiscoveryServer":{value}"#));
        assert_eq!(found.is_coordinating_discovery_server(), flag, "{value}");
    }
    let ids = ["9223372036854775807", "9223372036854775808", "18446744073709551615", "-9223372036854775808"];
    for id in ids {
        assert_eq!(instance(&format!(r#""instanceId":{id}"#)).id(), id, "different ids stay different");
    }
    let numbers = instance(r#""hostName":10,"ipAddr":1.5,"vipAddress":true,"asgName":-3"#);
    assert_eq!(numbers.host_name(), Some("10"));
    assert_eq!(numbers.ip_addr(), Some("1.5"));
    assert_eq!(numbers.vip_address(), Some("true"));
    assert_eq!(numbers.asg_name(), Some("-3"));
    for (value, action) in [
        (r#""DELETED""#, Some(ActionType::Deleted)),
        (r#""modified""#, Some(ActionType::Modified)),
        (r#""REPLACED""#, None),
        ("null", None),
    ] {
        assert_eq!(instance(&format!(r#""actionType":{value}"#)).action(), action, "{value}");
    }
}

#[test]
fn id_falls_back_to_the_data_center_and_the_host_name() {
    let id = |members: &str| {
        let document = format!(r#"{{"instance":{{"app":"orders","hostName":"h1",{members}}}}}"#);
        Instance::from_json(document.as_bytes()).unwrap().id().to_owned()
    };
    let amazon = r#""dataCenterInfo":{"name":"Amazon","metadata":{"instance-id":"i-1"}}"#;
    assert_eq!(id(&format!(r#""instanceId":"own",{amazon}"#)), "own");
    assert_eq!(id(&format!(r#""instanceId":"",{amazon}"#)), "i-1");
    assert_eq!(id(amazon), "i-1");
    assert_eq!(id(r#""dataCenterInfo":{"name":"Amazon","metadata":{"instance-id":""}}"#), "h1");
    assert_eq!(id(r#""instanceId":null"#), "h1");
}

#[test]
fn data_center_is_read_with_and_without_its_class() {
    const AMAZON: &str = "com.netflix.appinfo.AmazonInfo";
    let with_zone = DataCenter::Amazon([("availability-zone", "z1")].into_iter().collect());
    let metadata = r#""metadata":{"availability-zone":"z1"}"#;
    for (value, expected) in [
        (r#"{"@class":"com.netflix.appinfo.MyDataCenterInfo","name":"MyOwn"}"#.into(), DataCenter::MyOwn),
        (r#"{"name":"MyOwn","@class":"no.such.Class"}"#.into(), DataCenter::MyOwn),
        (r#"{"name":"MyOwn"}"#.into(), DataCenter::MyOwn),
        (r#"{"name":"myown","metadata":{"a":"b"}}"#.into(), DataCenter::MyOwn),
        (r#"{"name":"Netflix"}"#.into(), DataCenter::Netflix),
        (r#"{"name":"Azure"}"#.into(), DataCenter::Other("Azure".into())),
        ("{}".into(), DataCenter::Other("".into())),
        (r#"{"name":null}"#.into(), DataCenter::Other("".into())),
        (format!(r#"{{"@class":"{AMAZON}","name":"Amazon",{metadata}}}"#), with_zone.clone()),
        (format!(r#"{{"@class":"{AMAZON}",{metadata},"name":"Amazon"}}"#), with_zone.clone()),
        (format!(r#"{{{metadata},"@class":"{AMAZON}"}}"#), with_zone.clone()),
        (format!(r#"{{"class":"{AMAZON}","name":"MyOwn",{metadata}}}"#), with_zone.clone()),
        (format!(r#"{{"name":"Amazon",{metadata}}}"#), with_zone),
        (format!(r#"{{"@class":"{AMAZON}","name":"Amazon"}}"#), DataCenter::Amazon(Default::default())),
        (format!(r#"{{"@class":"{AMAZON}","metadata":null}}"#), DataCenter::Amazon(Default::default())),
        (
            r#"{"name":"Amazon","metadata":{"@class":"kept","n":1,"none":null}}"#.into(),
            DataCenter::Amazon([("@class", "kept"), ("n", "1"), ("none", "null")].into_iter().collect()),
        ),
    ] {
        let found = instance(&format!(r#""dataCenterInfo":{value},"status":"DOWN""#));
        assert_eq!(found.data_center(), Some(&expected), "{value}");
        assert_eq!(found.status(), InstanceStatus::Down, "the members after it are read: {value}");
    }
}

#[test]
fn metadata_values_of_any_type_become_texts() {
    let found = instance(
        r#""metadata":{"@class":"x.Y","n":1,"f":1.50,"big":123456789012345678901234567890,"b":true,"z":null,
        "o":{"a":[1]},"class":"java.util.Collections$EmptyMap","s":"a\"\u00e9\n","":"empty key"}"#,
    );
    let entries: Vec<_> = found.metadata().iter().collect();
    assert_eq!(
        entries,
        [
            ("", "empty key"),
            ("b", "true"),
            ("big", "123456789012345678901234567890"),
            ("class", "java.util.Collections$EmptyMap"),
            ("f", "1.50"),
            ("n", "1"),
            ("o", r#"{"a":[1]}"#),
            ("s", "a\"é\n"),
            ("z", "null"),
        ]
    );
    for empty in ["{}", "null", r#"{"@class":"java.util.Collections$EmptyMap"}"#, r#""text""#, "[1]"] {
        assert!(instance(&format!(r#""metadata":{empty}"#)).metadata().is_empty(), "{empty}");
    }
}

#[test]
fn lease_is_read_in_every_form() {
    let default = LeaseInfo::default();
    let full = LeaseInfo {
        renewal_interval_secs: 5,
        duration_secs: 15,
        registration_timestamp: 1,
        last_renewal_timestamp: 2,
        eviction_timestamp: 3,
        service_up_timestamp: 4,
    };
    for (value, expected) in [
        ("{}", default),
        (r#"{"renewalIntervalInSecs":0,"durationInSecs":-1}"#, default),
        (r#"{"renewalIntervalInSecs":null,"durationInSecs":"junk","serviceUpTimestamp":null}"#, default),
        (r#"{"durationInSecs":99999999999}"#, LeaseInfo { duration_secs: i32::MAX, ..default }),
        (r#"{"renewalTimestamp":2}"#, LeaseInfo { last_renewal_timestamp: 2, ..default }),
        (
            r#"{"renewalIntervalInSecs":"5","durationInSecs":"15","registrationTimestamp":"1","lastRenewalTimestamp":"2",
            "evictionTimestamp":"3","serviceUpTimestamp":"4","extra":[{}]}"#,
            full,
        ),
    ] {
        assert_eq!(instance(&format!(r#""leaseInfo":{value}"#)).lease(), Some(&expected), "{value}");
    }
}

#[test]
fn bare_object_counts_as_a_list_of_one_and_a_missing_list_as_empty() {
    let one = applications(r#""application":{"name":"orders","instance":{"instanceId":"i1"}}"#);
    assert_eq!(&*one.applications[0].name, "ORDERS");
    assert_eq!(one.applications[0].instances[0].app(), "ORDERS");
    for members in [r#""versions__delta":"1""#, r#""application":null"#, r#""application":[]"#] {
        assert!(applications(members).applications.is_empty(), "{members}");
    }
    for members in [r#""name":"A""#, r#""name":"A","instance":null"#, r#""instance":[],"name":"A""#] {
        let found = Application::from_json(format!(r#"{{"application":{{{members}}}}}"#).as_bytes()).unwrap();
        assert!(found.instances.is_empty(), "{members}");
    }
    let named_by_instance = applications(r#""application":[{"instance":[{"app":"orders","instanceId":"i1"}]}]"#);
    assert_eq!(&*named_by_instance.applications[0].name, "ORDERS");
}

/// The number of underscores depends on a setting of the sender.
#[test]
fn version_and_hash_are_read_with_single_underscores() {
    let found = applications(r#""versions_delta":3,"apps_hashcode":"UP_1_","registeredApplicationsEmpty":false"#);
    assert_eq!((found.version, found.hash.as_deref()), (Some(3), Some("UP_1_")));
    let absent = applications(r#""application":[]"#);
    assert_eq!((absent.version, absent.hash.as_deref()), (None, None));
    assert_eq!(applications(r#""versions__delta":null,"apps__hashcode":null"#), absent);
}

#[test]
fn invalid_document_is_an_error_with_its_reason() {
    for (body, message) in [
        ("", "cut off"),
        ("   ", "cut off"),
        (r#"{"instance":{"app":"A""#, "cut off"),
        (r#"{"instance":{"app":"A"}"#, "cut off"),
        ("<html><body>504</body></html>", "not the JSON"),
        ("null", "not the JSON"),
        ("[]", "not the JSON"),
        (r#"{"instance":[]}"#, "not the JSON"),
        (r#"{"instance":{"app":"A"}} trailing"#, "not the JSON"),
        (r#"{"instance":{"app":"A",}}"#, "not the JSON"),
        ("{}", "without the root member 'instance'"),
        (r#"{"application":{"name":"A"}}"#, "without the root member 'instance'"),
        (r#"{"instance":{}}"#, "without 'app'"),
        (r#"{"instance":{"app":null}}"#, "without 'app'"),
    ] {
        let error = Instance::from_json(body.as_bytes()).expect_err(body).to_string();
        assert!(error.contains(message), "{body}: {error}");
    }
    for (body, message) in
        [("{}", "without the root member 'applications'"), (r#"{"applications":null}"#, "not the JSON")]
    {
        let error = Applications::from_json(body.as_bytes()).expect_err(body).to_string();
        assert!(error.contains(message), "{body}: {error}");
    }
}

#[test]
fn list_with_an_unusable_record_keeps_the_others() {
    let good = r#"{"instanceId":"good","hostName":"h"}"#;
    for bad in [
        r#"{"ipAddr":"1"}"#,
        r#"{"app":"ORDERS","instanceId":null,"hostName":null}"#,
        r#"{"instanceId":"","hostName":""}"#,
        "null",
        "7",
        "1.5",
        "-1",
        "true",
        r#""text""#,
        r#"[{"instanceId":"nested"}]"#,
    ] {
        for instances in [format!("{bad},{good}"), format!("{good},{bad}")] {
            let app = format!(r#"{{"name":"ORDERS","instance":[{instances}]}}"#);
            let single = Application::from_json(format!(r#"{{"application":{app}}}"#).as_bytes()).unwrap();
            assert_eq!(single.instances.iter().map(|i| i.id()).collect::<Vec<_>>(), ["good"], "{bad}");
            for applications in [app.clone(), format!("[{app}]"), format!("[{bad},{app}]"), format!("[{app},{bad}]")] {
                let body = format!(r#"{{"applications":{{"application":{applications}}}}}"#);
                let list = Applications::from_json(body.as_bytes()).expect(&body);
                let ids: Vec<_> = list.applications.iter().flat_map(|a| &a.instances).map(|i| i.id()).collect();
                assert_eq!(ids, ["good"], "{body}");
            }
        }
    }
    for nothing in ["null", "7", "true", r#""text""#, "[]", "{}", "[null]"] {
        let body = format!(r#"{{"applications":{{"application":{nothing}}}}}"#);
        assert_eq!(Applications::from_json(body.as_bytes()).expect(&body).len(), 0, "{body}");
        let body = format!(r#"{{"applications":{{"application":[{{"name":"A","instance":{nothing}}}]}}}}"#);
        assert_eq!(Applications::from_json(body.as_bytes()).expect(&body).len(), 0, "{body}");
    }
}

/// Members of an instance that the parser refuses, and the host name that is read.
const REPAIRED: [(&[u8], &str); 10] = [
    (br#""hostName":"a\ud800b""#, "a\u{fffd}b"),
    (br#""hostName":"\udc00\u00e9""#, "\u{fffd}é"),
    (b"\"hostName\":\"a\x01\tb\"", "a\u{1}\tb"),
    (b"\"hostName\":\"J\xf6rg\"", "J\u{fffd}rg"),
    (br#""hostName":"a\qb""#, "aqb"),
    (br#""hostName":1e400"#, "1e400"),
    (br#""hostName":NaN"#, "NaN"),
    (br#"hostName:"h""#, "h"),
    (br#""hostName":"h","lastDirtyTimestamp":-1e999,"metadata":{"\udfff":"\ud800"}"#, "h"),
    (br#""hostName":"h","x":["\ud800",{"y":1e400}],"port":{"$":1e400}"#, "h"),
];

#[test]
fn record_that_is_not_json_is_repaired_or_skipped_and_the_others_are_kept() {
    let record = |member: &[u8]| [br#"{"instanceId":"bad","app":"ORDERS","#, member, b"}"].concat();
    let repaired = REPAIRED.iter().map(|(member, host)| (record(member), Some(*host)));
    let skipped = [&br#""hostName":"#[..], br#""hostName" "h""#, b"7", b""];
    for (bad, host) in repaired.chain(skipped.map(|member| (record(member), None))) {
        let good =
            |id: &str| format!(r#"{{"instanceId":"{id}","app":"ORDERS","hostName":"h","status":"DOWN"}}"#).into_bytes();
        let instances = [good("a"), bad.clone(), good("b"), good("c")].join(&b","[..]);
        let application = [br#"{"name":"ORDERS","instance":["#, &instances[..], b"]}"].concat();
        let document = |wrapper: &str, content: &[u8]| [b"{\"", wrapper.as_bytes(), b"\":", content, b"}"].concat();
        let list = document("applications", &document("application", &application));
        let list = Applications::from_json(&list).unwrap();
        let single = Application::from_json(&document("application", &application)).unwrap();
        for application in [&*list.applications[0], &single] {
            let ids: Vec<_> = application.instances.iter().map(|instance| instance.id()).collect();
            let text = String::from_utf8_lossy(&bad);
            assert_eq!(ids, if host.is_some() { &["a", "bad", "b", "c"][..] } else { &["a", "b", "c"] }, "{text}");
            assert_eq!(application.instance("c").unwrap().status(), InstanceStatus::Down, "{text}");
            assert_eq!(application.instance("bad").map(|bad| bad.host_name().unwrap()), host, "{text}");
        }
        if let Some(host) = host {
            assert_eq!(Instance::from_json(&document("instance", &bad)).unwrap().host_name(), Some(host));
            let item = [br#"{"action":"Register","instanceInfo":"#, &bad[..], b"}"].concat();
            let batch = document("replicationList", &[b"[", &item[..], b"]"].concat());
            let batch = ReplicationList::from_json(&batch).unwrap();
            assert_eq!(batch.0[0].instance.as_ref().unwrap().host_name(), Some(host));
        }
    }
}

#[test]
fn members_around_the_records_are_repaired() {
    let list =
        applications(r#""versions__delta":1e400,"application":[{"name":"A\ud800","instance":[{"instanceId":"i"}]}]"#);
    assert_eq!(list.version, Some(i64::MAX));
    assert_eq!((&*list.applications[0].name, list.applications[0].instances[0].id()), ("A\u{fffd}", "i"));
}

#[test]
fn byte_order_mark_is_skipped() {
    assert_eq!(Instance::from_json("\u{feff}{\"instance\":{\"app\":\"A\"}}".as_bytes()).unwrap().app(), "A");
    assert!(Applications::from_json("\u{feff}{\"applications\":{}}".as_bytes()).unwrap().is_empty());
    assert!(ReplicationResponse::from_json("\u{feff}{\"responseList\":[]}".as_bytes()).unwrap().0.is_empty());
}

#[test]
fn batch_that_java_refuses_is_refused() {
    for body in [
        r#"{"replicationList":[{"action":"register"}]}"#,
        r#"{"replicationList":{"action":"Cancel"}}"#,
        r#"{"replicationList":null}"#,
        "{}",
        "",
    ] {
        assert!(ReplicationList::from_json(body.as_bytes()).is_err(), "{body}");
    }
    let incomplete = ReplicationList::from_json(br#"{"replicationList":[{},{"lastDirtyTimestamp":"7"}]}"#).unwrap();
    assert!(incomplete.0[0].action.is_none() && incomplete.0[0].app.is_none());
    assert_eq!(incomplete.0[1].last_dirty_timestamp, Some(7));
}

/// A recursive reader would overflow the stack at a million levels.
#[test]
fn deep_nesting_does_not_overflow_the_stack() {
    const DEPTH: usize = 1_000_000;
    let arrays = format!("{}{}", "[".repeat(DEPTH), "]".repeat(DEPTH));
    let objects = format!("{}1{}", r#"{"a":"#.repeat(DEPTH), "}".repeat(DEPTH));
    for deep in [&arrays, &objects] {
        for member in ["unknown", "hostName", "status", "port", "leaseInfo", "dataCenterInfo", "metadata"] {
            assert_eq!(
                instance(&format!(r#""{member}":{deep},"asgName":"after""#)).asg_name(),
                Some("after"),
                "{member}"
            );
        }
        let open = format!(r#"{{"instance":{{"app":"A","unknown":{}"#, &deep[..DEPTH]);
        assert!(Instance::from_json(open.as_bytes()).is_err());
        assert!(Applications::from_json(deep.as_bytes()).is_err());
        let skipped = format!(r#"{{"applications":{{"application":{deep}}}}}"#);
        assert_eq!(Applications::from_json(skipped.as_bytes()).unwrap().len(), 0);
    }
}

#[test]
fn batch_of_more_than_10_000_items_is_an_error() {
    let items = |count: usize| format!(r#"{{"replicationList":[{}]}}"#, vec!["{}"; count].join(","));
    assert_eq!(tower_eureka::model::ReplicationList::from_json(items(10_000).as_bytes()).unwrap().0.len(), 10_000);
    tower_eureka::model::ReplicationList::from_json(items(10_001).as_bytes()).unwrap_err();
}
