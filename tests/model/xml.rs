//! XML documents of servers and clients, and malicious ones. `docs/protocol.md`, "XML format".

use tower_eureka::model::{
    ActionType, Application, Applications, DataCenter, Instance, InstanceStatus, LeaseInfo, Port,
};

const FULL: &str = include_str!("../fixtures/xml/x1_full.xml");
const REGISTER_FARGO: &str = include_str!("../fixtures/xml/x2_register_fargo.xml");
const COMPACT: &str = include_str!("../fixtures/xml/x3_compact.xml");
const FULL_JSON: &str = include_str!("../fixtures/json/j3_full.json");

fn text(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).expect("XML is UTF-8")
}

/// Sorts the metadata of a fixture by key, as the encoder does. Java writes it in the order of a
/// hash map.
fn sorted_metadata(document: &str) -> String {
    let (zone, build) = ("        <zone>rack-a</zone>\n", "        <build__id>77</build__id>\n");
    document.replace(&format!("{zone}{build}"), &format!("{build}{zone}"))
}

fn instance(inner: &str) -> Result<Instance, tower_eureka::model::DecodeError> {
    Instance::from_xml(format!("<instance><app>orders</app>{inner}</instance>").as_bytes())
}

#[test]
fn full_registry_is_written_byte_for_byte_as_by_java() {
    let applications = Applications::from_xml(FULL.as_bytes()).unwrap();
    assert_eq!(text(applications.to_xml()) + "\n", sorted_metadata(FULL));
}

#[test]
fn document_of_an_application_or_instance_is_indented_from_its_root() {
    let applications = Applications::from_xml(FULL.as_bytes()).unwrap();
    let application = text(applications.applications[1].to_xml());
    assert!(
        application.starts_with("<application>\n  <name>BILLING</name>\n  <instance>\n    <instanceId>"),
        "{application}"
    );
    assert_eq!(Application::from_xml(application.as_bytes()).unwrap(), *applications.applications[1]);
    let instance = text(applications.applications[1].instances[0].to_xml());
    assert!(instance.starts_with("<instance>\n  <instanceId>"), "{instance}");
    assert!(instance.ends_with("\n</instance>"), "{instance}");
}

#[test]
fn registry_in_xml_equals_that_in_json() {
    let xml = Applications::from_xml(FULL.as_bytes()).unwrap();
    let json: String = FULL_JSON.lines().map(str::trim_start).collect();
    let json = Applications::from_json(json.as_bytes()).unwrap();
    assert_eq!(xml.applications[0].instances[0], json.applications[0].instances[0]);
    // The XML fixture has less metadata of the Amazon instance, so this compares a round trip.
    let billing = &*json.applications[1];
    assert_eq!(Application::from_xml(&billing.to_xml()).unwrap(), *billing);
}

#[test]
fn empty_registry_is_written_as_by_java() {
    let empty = Applications { version: Some(1), hash: Some("".into()), applications: Vec::new() };
    let expected =
        "<applications>\n  <versions__delta>1</versions__delta>\n  <apps__hashcode></apps__hashcode>\n</applications>";
    assert_eq!(text(empty.to_xml()), expected);
    assert_eq!(Applications::from_xml(expected.as_bytes()).unwrap(), empty);
}

#[test]
fn registration_of_fargo_is_read_as_by_java() {
    let gateway = Instance::from_xml(REGISTER_FARGO.as_bytes()).unwrap();
    assert_eq!((gateway.id(), gateway.app(), gateway.host_name()), ("gw-7", "GATEWAY", Some("gw-7.corp.example")));
    assert_eq!((gateway.status(), gateway.overridden_status()), (InstanceStatus::Up, InstanceStatus::Unknown));
    assert_eq!(gateway.lease(), Some(&LeaseInfo::default()));
    assert_eq!(gateway.port(), Port { number: 9090, enabled: true });
    assert_eq!(gateway.secure_port(), Port { number: 0, enabled: false });
    assert_eq!(gateway.data_center(), Some(&DataCenter::MyOwn));
    assert_eq!(gateway.metadata().iter().collect::<Vec<_>>(), [("zone", "rack-b")]);
    assert_eq!((gateway.last_dirty_timestamp(), gateway.secure_vip_address()), (None, None));
}

#[test]
fn compact_list_is_read() {
    let compact = Applications::from_xml(COMPACT.as_bytes()).unwrap();
    assert_eq!((compact.version, compact.hash.as_deref()), (Some(1), Some("UP_1_")));
    let order = &compact.applications[0].instances[0];
    assert_eq!(
        (order.id(), order.lease(), order.action()),
        ("node1.corp.example:orders:8080", None, Some(ActionType::Added))
    );
}

#[test]
fn blanks_around_numbers_flags_and_statuses_are_trimmed() {
    let read = instance(
        "<status>\n up </status><overriddenStatus> OUT_OF_SERVICE </overriddenStatus><port enabled='false'> 80 </port>
        <securePort enabled=\"true\">\t443</securePort><countryId> 7 </countryId><lastDirtyTimestamp> 5 </lastDirtyTimestamp>
        <dataCenterInfo><metadata><instance-id>i-1</instance-id></metadata><name> amazon </name></dataCenterInfo>
        <leaseInfo><durationInSecs> 9 </durationInSecs></leaseInfo><actionType> added </actionType>
        <isCoordinatingDiscoveryServer> true </isCoordinatingDiscoveryServer><hostName> h </hostName>",
    )
    .unwrap();
    assert_eq!((read.status(), read.overridden_status()), (InstanceStatus::Up, InstanceStatus::OutOfService));
    assert_eq!(read.port(), Port { number: 80, enabled: false });
    assert_eq!(read.secure_port(), Port { number: 443, enabled: true });
    assert_eq!((read.last_dirty_timestamp(), read.action()), (Some(5), Some(ActionType::Added)));
    assert_eq!(read.lease().unwrap().duration_secs, 9);
    assert_eq!(read.id(), "i-1");
    assert!(read.is_coordinating_discovery_server());
    assert_eq!(read.host_name(), Some(" h "), "texts are kept as sent");
}

#[test]
fn group_name_keeps_its_case() {
    assert_eq!(instance("<appGroupName>Group</appGroupName>").unwrap().app_group(), Some("Group"));
}

#[test]
fn lease_beyond_32_bits_saturates() {
    let lease = |inner: &str| *instance(&format!("<leaseInfo>{inner}</leaseInfo>")).unwrap().lease().unwrap();
    for (text, seconds) in [("2147483647", i32::MAX), ("2147483648", i32::MAX), ("4294967297", i32::MAX), ("-5", 90)] {
        assert_eq!(lease(&format!("<durationInSecs>{text}</durationInSecs>")).duration_secs, seconds, "{text}");
    }
    let long = lease("<renewalIntervalInSecs>4294967297</renewalIntervalInSecs>");
    assert_eq!(long.renewal_interval_secs, i32::MAX);
}

#[test]
fn absent_elements_have_the_defaults_of_java() {
    let read = instance(
        "<port>1</port><securePort>2</securePort><status>gone</status><lastUpdatedTimestamp>x</lastUpdatedTimestamp>",
    );
    let read = read.unwrap();
    assert_eq!((read.port().enabled, read.secure_port().enabled), (true, false));
    assert_eq!((read.status(), read.last_updated_timestamp()), (InstanceStatus::Unknown, None));
    let bare = instance("").unwrap();
    assert_eq!(
        (bare.status(), bare.port(), bare.secure_port()),
        (InstanceStatus::Up, Port::DEFAULT_PLAIN, Port::DEFAULT_SECURE)
    );
    assert_eq!((bare.data_center(), bare.lease()), (None, None));
    assert_eq!(instance("<dataCenterInfo class='x'></dataCenterInfo>").unwrap().data_center(), None);
    assert_eq!(
        instance("<dataCenterInfo><name>Moon</name></dataCenterInfo>").unwrap().data_center().unwrap().name(),
        "Moon"
    );
}

#[test]
fn invalid_lease_keeps_the_elements_after_it() {
    let read = instance(
        "<leaseInfo><renewalIntervalInSecs></renewalIntervalInSecs><durationInSecs>soon</durationInSecs><x><y/></x>
        <serviceUpTimestamp>7</serviceUpTimestamp></leaseInfo><vipAddress>orders</vipAddress>",
    )
    .unwrap();
    assert_eq!(read.lease(), Some(&LeaseInfo { service_up_timestamp: 7, ..LeaseInfo::default() }));
    assert_eq!(read.vip_address(), Some("orders"));
}

#[test]
fn metadata_keys_are_unescaped_and_the_last_duplicate_counts() {
    let read = instance(
        "<metadata class='x'><build__id>1</build__id><e_f>2</e_f><a_.0020b>3</a_.0020b><zone>x</zone><zone> y&amp;&#x7A; </zone>
        <deep>text<inner/></deep><empty/><raw><![CDATA[<&>]]></raw></metadata>",
    )
    .unwrap();
    let entries: Vec<_> = read.metadata().iter().collect();
    let expected =
        [("a b", "3"), ("build_id", "1"), ("deep", ""), ("e_f", "2"), ("empty", ""), ("raw", "<&>"), ("zone", " y&z ")];
    assert_eq!(entries, expected);
}

#[test]
fn unknown_elements_are_skipped() {
    let read = instance("<x><app>other</app><!-- c --><?pi?></x>text<status>DOWN</status><y/>").unwrap();
    assert_eq!((read.app(), read.status()), ("ORDERS", InstanceStatus::Down));
    let document = "\u{feff}<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<!-- c -->\n<com.netflix.appinfo.InstanceInfo><app>a</app>\
        </com.netflix.appinfo.InstanceInfo>\n<!-- c -->\n";
    assert_eq!(Instance::from_xml(document.as_bytes()).unwrap().app(), "A");
}

#[test]
fn instance_without_app_has_the_name_of_its_application() {
    let document = "<application><name>orders</name><instance><instanceId>i</instanceId></instance></application>";
    let application = Application::from_xml(document.as_bytes()).unwrap();
    assert_eq!((application.instances[0].id(), application.instances[0].app()), ("i", "ORDERS"));
}

#[test]
fn invalid_document_is_refused_with_its_reason() {
    let deep = format!("<instance>{}", "<a>".repeat(100_000));
    let bomb = r#"<!DOCTYPE x [<!ENTITY a "aa"><!ENTITY b "&a;&a;">]><instance><app>&b;</app></instance>"#;
    for (document, reason) in [
        ("", "cut off"),
        ("   ", "cut off"),
        ("{}", "content after its root"),
        ("<instance>", "cut off"),
        ("<instance><app>a</app>", "cut off"),
        ("<instance><app>a</instance>", "not well-formed"),
        ("<instance></instance>", "without 'app'"),
        ("<instance><app/></instance>", "without 'app'"),
        ("<application/>", "root element 'application'"),
        ("<instance><app>a</app></instance><instance/>", "content after its root"),
        ("<instance><app>a</app></instance>x", "content after its root"),
        ("<instance><app>a</app><port>http</port></instance>", "number in 'port'"),
        ("<instance><app>a</app><securePort/></instance>", "number in 'securePort'"),
        ("<instance><app>a</app><countryId></countryId></instance>", "number in 'countryId'"),
        ("<instance><app>a</app><port>2147483648</port></instance>", "number in 'port'"),
        ("<instance><app>&nbsp;</app></instance>", "entity"),
        ("<instance><app>&#0;</app></instance>", "entity"),
        ("<instance><app>a & b</app></instance>", "not well-formed"),
        (bomb, "document type"),
        (r#"<!DOCTYPE x SYSTEM "file:///etc/passwd"><instance><app>a</app></instance>"#, "document type"),
        ("<instance><!DOCTYPE x><app>a</app></instance>", "document type"),
        (&deep, "deeper than"),
    ] {
        let error = Instance::from_xml(document.as_bytes()).unwrap_err().to_string();
        assert!(error.contains(reason), "{}: {error}", &document[..document.len().min(60)]);
    }
    let error = Instance::from_xml(b"<instance><app>\xff</app></instance>").unwrap_err();
    assert!(error.to_string().contains("UTF-8"), "{error}");
}

#[test]
fn list_with_a_record_without_id_or_name_keeps_the_others() {
    let good = "<application><name>B</name><instance><instanceId>b</instanceId></instance></application>";
    for bad in ["<application><instance/></application>", "<application><name>B</name><instance/></application>"] {
        let document = format!("<applications>{bad}{good}</applications>");
        let list = Applications::from_xml(document.as_bytes()).unwrap();
        let ids: Vec<_> = list.applications.iter().flat_map(|a| &a.instances).map(|i| i.id()).collect();
        assert_eq!(ids, ["b"], "{document}");
    }
}

#[test]
fn invalid_value_in_a_list_is_replaced() {
    for (value, host, port) in [
        (&b"<hostName>J\xf6rg&amp;</hostName>"[..], "J\u{fffd}rg&", 7001),
        (b"<hostName>a&#xD800;&nbsp;&#0;b</hostName>", "a\u{fffd}\u{fffd}\u{fffd}b", 7001),
        (b"<hostName>h</hostName><port>http</port><countryId/>", "h", 7001),
        (b"<hostName>h</hostName><port>99999999999</port>", "h", 7001),
        (b"<hostName>h</hostName><port>80</port><securePort/>", "h", 80),
    ] {
        let instance = [b"<instance><instanceId>i</instanceId>", value, b"</instance>"].concat();
        let application = [b"<application><name>A</name>", &instance[..], b"</application>"].concat();
        let list = [b"<applications>", &application[..], b"</applications>"].concat();
        let list = Applications::from_xml(&list).unwrap();
        for application in [&*list.applications[0], &Application::from_xml(&application).unwrap()] {
            let read = &application.instances[0];
            assert_eq!((read.host_name(), read.port().number), (Some(host), port));
            assert_eq!(read.secure_port(), Port::DEFAULT_SECURE);
        }
    }
    assert!(Applications::from_xml(b"<!DOCTYPE x><applications>&a;</applications>").is_err());
}

#[test]
fn character_that_xml_cannot_carry_is_replaced() {
    let bad = Instance::builder("orders").id("i").host_name("h").ip_addr("10.0.0.1").port(1);
    let bad = bad.metadata("", "dropped").metadata("a:b", "x\u{1}\u{ffff}y\u{85}").build().unwrap();
    let written = text(bad.to_xml());
    assert!(written.contains("    <a_.003ab>x\u{fffd}\u{fffd}y&#x85;</a_.003ab>\n"), "{written}");
    assert_eq!(Instance::from_xml(written.as_bytes()).unwrap().metadata().get("a:b"), Some("x\u{fffd}\u{fffd}y\u{85}"));
}
