//! Unusual values: negative, missing, extreme and mistyped numbers, and ids in other members.

use fastrand::Rng;
use serde_json::{Map, Value, json};

use super::requests::{pick, seldom};

/// Rows of values that only Java refuses.
pub(crate) const REFUSED: [&str; 3] = ["D37", "D38", "P13"];

/// Placeholder for the metadata of an Amazon data center, replaced when a request is sent. Members
/// are sorted by name, and Java loses members after `metadata` (P10).
pub(crate) const LAST_METADATA: &str = "~metadata";

/// Sets unusual values of a few members. Returns the row if the servers read one of them
/// differently.
pub(crate) fn values(rng: &mut Rng, members: &mut Map<String, Value>) -> Option<&'static str> {
    let mut quirk = None;
    for name in ["lastDirtyTimestamp", "lastUpdatedTimestamp"] {
        if let Some((value, row)) = seldom(rng, |rng| number(rng, i64::MAX)) {
            members.insert(name.into(), value);
            quirk = row.or(quirk);
        }
    }
    if let Some((value, row)) = seldom(rng, |rng| number(rng, i32::MAX.into())) {
        members.insert("countryId".into(), value);
        quirk = row.or(quirk);
    }
    for name in ["port", "securePort"] {
        if let Some((value, row)) = seldom(rng, port) {
            members.insert(name.into(), value);
            quirk = row.or(quirk);
        }
    }
    if let Some((value, row)) = seldom(rng, lease) {
        members.insert("leaseInfo".into(), value);
        quirk = row.or(quirk);
    }
    let words = json!([null, "", "junk", 1, true, -7.9, "DELETED", "ADDED"]);
    for name in ["overriddenStatus", "actionType", "isCoordinatingDiscoveryServer", "asgName", "sid", "status"] {
        if let Some(word) = seldom(rng, |rng| rng.usize(0..8)) {
            members.insert(name.into(), words[word].clone());
        }
    }
    quirk
}

/// Returns an unusual value for a number with this maximum.
fn number(rng: &mut Rng, greatest: i64) -> (Value, Option<&'static str>) {
    let odd = match rng.u32(0..20) {
        0..2 => json!(pick(rng, &[-1, -5, 0])),
        2..6 => json!(pick(rng, &["7", " 7 ", "+7", "-7", "007", "", " ", "junk", "0x10"])),
        6..8 => json!(pick(rng, &[7.9, -7.9, 0.5, 1e3])),
        8..10 => json!(pick(rng, &["7.9", "-0.5", "1e3", "1E2x"])),
        10..12 => Value::Null,
        12..14 => json!(rng.bool()),
        14..16 => json!(pick(rng, &[greatest, -greatest, -greatest - 1])),
        16..18 => return (beyond(rng, greatest), Some("D37")),
        _ => return (pick(rng, &[json!([]), json!({}), json!([7]), json!({"a": 1})].each_ref()).clone(), Some("D38")),
    };
    (odd, None)
}

/// Returns a number or text beyond this maximum.
fn beyond(rng: &mut Rng, greatest: i64) -> Value {
    let above = if greatest == i64::MAX { json!(u64::MAX) } else { json!(greatest + 1) };
    if rng.bool() { above.to_string().into() } else { above }
}

fn port(rng: &mut Rng) -> (Value, Option<&'static str>) {
    if rng.u32(0..6) == 0 {
        return (pick(rng, &[json!(8080), json!("8080")].each_ref()).clone(), Some("P13"));
    }
    let (mut port, mut quirk) = (Map::new(), None);
    if rng.u32(0..5) > 0 {
        let (value, row) = number(rng, i32::MAX.into());
        port.insert("$".into(), value);
        quirk = row;
    }
    if rng.u32(0..5) > 0 {
        let flags = json!(["true", "false", " true ", "yes", "", true, false, null, 0, 1, -1, 1.5]);
        port.insert("@enabled".into(), flags[rng.usize(0..12)].clone());
    }
    (port.into(), quirk)
}

/// Returns a lease that outlasts the test. A lease of 2^31 ms and more would end at once (D23).
fn lease(rng: &mut Rng) -> (Value, Option<&'static str>) {
    let (mut lease, mut quirk) = (Map::new(), None);
    let durations = json!([600, "600", " 600 ", "+700", 700.9, "700.9", "1e3", null, "", "junk", 0, -5, "-5", false]);
    lease.insert("durationInSecs".into(), durations[rng.usize(0..14)].clone());
    let stamps = ["registrationTimestamp", "lastRenewalTimestamp", "evictionTimestamp", "serviceUpTimestamp"];
    for (name, greatest) in
        [("renewalIntervalInSecs", i32::MAX.into())].into_iter().chain(stamps.map(|name| (name, i64::MAX)))
    {
        if rng.u32(0..3) == 0 {
            let (value, row) = number(rng, greatest);
            lease.insert(name.into(), value);
            quirk = row.or(quirk);
        }
    }
    (lease.into(), quirk)
}

/// Moves the id from `instanceId` to another member that registries read it from.
pub(crate) fn id(rng: &mut Rng, members: &mut Map<String, Value>, id: &str, is_xml: bool) {
    let mut put = |name: &str, value: Value| drop(members.insert(name.into(), value));
    match rng.u32(0..if is_xml { 4 } else { 6 }) {
        0 => put("hostName", json!(id)),
        1 => {
            let class = "com.netflix.appinfo.AmazonInfo";
            let metadata = json!({ "instance-id": id, "public-hostname": "h", "ami-id": "a" });
            put("dataCenterInfo", json!({ "@class": class, "name": "Amazon", LAST_METADATA: metadata }));
        }
        2 => {
            put("hostName", json!(id));
            put("instanceId", json!(""));
            return;
        }
        3 => {
            put("hostName", json!(id));
            put("instanceId", Value::Null);
            return;
        }
        4 => {
            put("hostName", json!(id));
            put("metadata", json!({ "instanceId": id }));
        }
        _ => {
            let (host, rest) = id.split_once(':').unwrap_or((id, id));
            put("hostName", json!(host));
            put("metadata", json!({ "instanceId": rest }));
        }
    }
    // Java misreads what follows a list or an object in the place of another value (D38), so it
    // would miss the id.
    let objects = ["port", "securePort", "dataCenterInfo", "leaseInfo", "metadata"];
    members.retain(|name, value| !value.is_array() && (!value.is_object() || objects.contains(&name.as_str())));
    members.remove("instanceId");
}
