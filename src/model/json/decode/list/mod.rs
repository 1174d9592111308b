//! Decoder of lists of applications that arrive piece by piece.
//!
//! ```text
//!  pieces ─▶ Splitter ─ instance ─▶ Records ─ known.rs: the same Arc
//!            split.rs                records.rs ─ template.rs: like the one before ─▶ plain.rs, common.rs
//!               │                               └ else members.rs
//!               └──── skeleton ───▶ members.rs ─▶ applications with their records
//! ```
//!
//! The document is never in memory as a whole. An instance whose bytes did not change since it was
//! decoded is not decoded again, except for the time of its last heartbeat, which every response
//! changes. A member that has the same bytes as in an instance before is not decoded again, and its
//! strings are shared. Other members are decoded without a JSON parser if they have a usual form.
//!
//! An instance that the parser refuses is repaired and decoded again, or skipped. The splitter
//! finds its end by the brackets and quotes alone.

mod common;
mod known;
mod plain;
mod records;
mod split;
mod template;

use std::sync::Arc;

use serde::de::{Deserialize, Deserializer, MapAccess};

pub(crate) use self::known::Known;
use self::records::Records;
use self::split::{Splitter, Step};
use super::document;
use super::members::{ApplicationsMembers, Members, known_member, read, skip};
use crate::model::error::{DecodeError, Reason};
use crate::model::lists::{ApplicationMembers, applications};
use crate::model::{Applications, Instance};

/// Share of the memory that a document may take for everything but its instances.
const SKELETON_SHARE: usize = 32;
/// Share of the memory that the bytes of one instance may take. Decoded, they may take sixteen
/// times as much.
const INSTANCE_SHARE: usize = 64;
/// Size in bytes that one instance may always have.
const MIN_INSTANCE_LIMIT: usize = 64 * 1024;

/// List that was decoded.
#[derive(Debug, Default)]
pub(crate) struct DecodedList {
    pub(crate) list: Applications,
    /// Number of instances that were skipped. The apps hash counts them.
    #[cfg(feature = "client")]
    pub(crate) skipped: usize,
}

/// Decoder of a list. Its memory is limited.
#[derive(Debug)]
pub(crate) struct ListDecoder {
    splitter: Splitter,
    records: Records,
    max_memory: usize,
}

impl ListDecoder {
    /// Creates a decoder that takes about this number of bytes at most, apart from known instances.
    pub(crate) fn new(known: Known, max_memory: usize) -> Self {
        Self { splitter: Splitter::default(), records: Records::new(known), max_memory }
    }

    /// Decodes the next piece of the document.
    pub(crate) fn push(&mut self, mut piece: &[u8]) -> Result<(), DecodeError> {
        loop {
            let step = self.splitter.next(&mut piece);
            let is_end = matches!(step, Step::End);
            if let Step::Instance(bytes, members) = step {
                self.records.add(bytes, members);
            }
            self.check_memory()?;
            if is_end {
                return Ok(());
            }
        }
    }

    fn check_memory(&self) -> Result<(), DecodeError> {
        let (skeleton, begun) = self.splitter.held();
        let exceeds = self.records.memory().saturating_add(begun) > self.max_memory;
        let max_instance = (self.max_memory / INSTANCE_SHARE).max(MIN_INSTANCE_LIMIT);
        if exceeds || begun > max_instance || skeleton > self.max_memory / SKELETON_SHARE {
            return Err(fail(Reason::TooLarge(self.max_memory)));
        }
        Ok(())
    }

    /// Returns the list. Instances that were repaired or skipped are logged.
    pub(crate) fn finish(self) -> Result<DecodedList, DecodeError> {
        let skeleton = self.splitter.finish();
        let ApplicationsMembers { version, hash, applications: listed } = document(&skeleton, "applications")?;
        let Records { instances, mut faults, .. } = self.records;
        let mut rest = Rest { begin: 0, records: instances.into_iter() };
        let with_records = |ApplicationMembers { name, instances }: ApplicationMembers<Slot>| {
            let mut records = Vec::new();
            instances.into_iter().for_each(|slot| slot.add_to(&mut records, &mut rest));
            ApplicationMembers { name, instances: records }
        };
        let listed: Vec<_> = listed.into_iter().map(with_records).collect();
        // Records that no application refers to.
        drop(rest);
        let list = Applications { version, hash, applications: applications(listed, &mut faults) };
        faults.log();
        Ok(DecodedList {
            list,
            #[cfg(feature = "client")]
            skipped: faults.skipped,
        })
    }
}

fn fail(reason: Reason) -> DecodeError {
    DecodeError::new("applications", reason)
}

/// Records that no slot has taken. Slots refer to them in their order.
struct Rest {
    /// Number of the first one.
    begin: usize,
    records: std::vec::IntoIter<Option<Arc<Instance>>>,
}

impl Rest {
    /// Adds these records to an application, except those that cannot be read, and drops those
    /// before.
    fn take(&mut self, Range { first, count }: Range, taken: &mut Vec<Arc<Instance>>) {
        let skipped = first.saturating_sub(self.begin).min(self.records.len());
        let count = count.min(self.records.len() - skipped);
        taken.reserve_exact(count);
        taken.extend(self.records.by_ref().skip(skipped).take(count).flatten());
        self.begin += skipped + count;
    }
}

/// Records that follow each other.
struct Range {
    first: usize,
    count: usize,
}

/// Instances in the skeleton: the numbers of their records.
struct Slot {
    range: Option<Range>,
    /// An instance that was not separated, since the name of the member `instance` has escapes.
    whole: Option<Box<Instance>>,
}

impl Slot {
    fn add_to(self, instances: &mut Vec<Arc<Instance>>, rest: &mut Rest) {
        match self.range {
            Some(range) => rest.take(range, instances),
            None => instances.push(Arc::new(self.whole.map_or_else(|| Instance::bare("".into()), |whole| *whole))),
        }
    }
}

impl<'de> Members<'de> for Slot {
    const EXPECTED: &'static str = "an instance";

    fn start() -> Self {
        Self { range: None, whole: None }
    }

    fn member<A: MapAccess<'de>>(&mut self, name: &str, map: &mut A) -> Result<(), A::Error> {
        if name.is_empty() {
            let (first, count) = map.next_value()?;
            self.range = Some(Range { first, count });
            return Ok(());
        }
        if self.range.is_some() {
            return skip(map);
        }
        known_member(self.whole.get_or_insert_with(|| Box::new(Instance::bare("".into()))), name, map)
    }
}

impl<'de> Deserialize<'de> for Slot {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        read(deserializer)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::Application;

    /// Members of an instance with all that makes them difficult to decode one by one.
    const MEMBERS: [&str; 42] = [
        r#""instanceId":"a""#,
        r#""instanceId":"b""#,
        r#""instanceId" : "a" "#,
        r#""app":"orders""#,
        r#""app":"""#,
        r#""hostName":"h\"}{\\""#,
        r#""hostName":null"#,
        r#""host\u004eame":"escaped""#,
        r#""status":"DOWN""#,
        r#""overriddenstatus":"DOWN""#,
        r#""overriddenStatus":"UP""#,
        r#""port":{"$":1,"@enabled":"true"}"#,
        r#""port":7"#,
        r#""metadata":{"zone":"a","n":[1, 2]}"#,
        r#""metadata":{"zone":"b","lastRenewalTimestamp":5}"#,
        r#""metadata":{}"#,
        r#""dataCenterInfo":{"name":"Amazon","metadata":{"instance-id":"i","zone":"a"}}"#,
        r#""dataCenterInfo":{"name":"MyOwn"}"#,
        r#""leaseInfo":{"durationInSecs":3,"lastRenewalTimestamp":17}"#,
        r#""leaseInfo":{"durationInSecs":3,"lastRenewalTimestamp":18}"#,
        r#""unknown":[{"instance":{"a":[]}}]"#,
        r#""lastDirtyTimestamp":"12""#,
        r#""lastDirtyTimestamp":13"#,
        r#""lastDirtyTimestamp":"013""#,
        r#""lastDirtyTimestamp":" 14 ""#,
        r#""lastDirtyTimestamp":"99999999999999999999""#,
        r#""lastDirtyTimestamp":"x""#,
        r#""lastDirtyTimestamp":"""#,
        r#""lastDirtyTimestamp":1.5e3"#,
        r#""leaseInfo":{"renewalIntervalInSecs":0,"durationInSecs":-3}"#,
        r#""leaseInfo":{"renewalIntervalInSecs":7,"durationInSecs":99999999999,"x":1}"#,
        r#""leaseInfo":{"renewalIntervalInSecs":7,"renewalIntervalInSecs":8,"renewalTimestamp":4}"#,
        r#""leaseInfo":{"registrationTimestamp":"3","evictionTimestamp":4,"serviceUpTimestamp":5}"#,
        r#""leaseInfo":{}"#,
        r#""leaseInfo":null"#,
        r#""metadata":{"zone":"a","zone":"c","b":"\u0061","@class":"x"}"#,
        r#""metadata":{"zone":"a","@class":"java.util.Collections$EmptyMap","a":"ä"}"#,
        r#""metadata":[]"#,
        r#""metadata":{"zone":null}"#,
        r#""vipAddress":"ä,b""#,
        r#""ipAddr":1.5"#,
        r#""sid":"na""#,
    ];

    fn list(instances: &[String]) -> String {
        let instances = instances.join(",");
        format!(r#"{{"applications":{{"application":[{{"name":"ORDERS","instance":[{instances}]}}]}}}}"#)
    }

    fn decode(document: &str, known: &[Arc<Application>]) -> Vec<Arc<Instance>> {
        decode_in_pieces(document, 50, known)
    }

    fn decode_in_pieces(document: &str, size: usize, known: &[Arc<Application>]) -> Vec<Arc<Instance>> {
        let mut decoder = ListDecoder::new(Known::new(known.to_vec()), usize::MAX);
        document.as_bytes().chunks(size).for_each(|piece| decoder.push(piece).unwrap());
        decoder.finish().unwrap().list.applications.iter().flat_map(|app| app.instances.clone()).collect()
    }

    proptest! {
        #[test]
        fn instances_of_a_list_are_the_same_as_single_ones(
            instances in prop::collection::vec(prop::collection::vec(prop::sample::select(&MEMBERS[..]), 0..6), 0..8),
            repeated in 1..4_usize,
        ) {
            let texts = instances.iter().map(|members| format!("{{{}}}", members.join(",")));
            let texts: Vec<_> = texts.flat_map(|text| vec![text; repeated]).collect();
            let single = |text: &String| {
                let document = format!(r#"{{"application":{{"name":"ORDERS","instance":{text}}}}}"#);
                Application::from_json(document.as_bytes()).unwrap().instances
            };
            let expected: Vec<_> = texts.iter().flat_map(single).collect();
            let document = list(&texts);
            let decoded = decode(&document, &[]);
            prop_assert_eq!(&decoded, &expected);
            prop_assert_eq!(&decode_in_pieces(&document, usize::MAX, &[]), &expected);
            // The same list is the same again, whatever was known before.
            let known = Arc::new(Application { name: "ORDERS".into(), instances: decoded });
            prop_assert_eq!(decode(&document, &[known]), expected);
        }
    }

    #[test]
    fn known_instance_is_the_same_arc_unless_more_than_its_heartbeat_changed() {
        let instance = |renewed: &str, metadata: &str| {
            list(&[format!(
                r#"{{"instanceId":"a","app":"ORDERS","leaseInfo":{{"lastRenewalTimestamp":{renewed}}},"metadata":{{{metadata}}}}}"#
            )])
        };
        let known = decode(&instance("1", ""), &[]);
        let application = Arc::new(Application { name: "ORDERS".into(), instances: known.clone() });
        let is_known =
            |document: &str| Arc::ptr_eq(&decode(document, std::slice::from_ref(&application))[0], &known[0]);
        assert!(is_known(&instance("1", "")) && is_known(&instance("234", "")));
        assert!(!is_known(&instance("\"1\"", "")) && !is_known(&instance("1", "\"a\":\"b\"")));
    }

    #[test]
    fn instance_is_decoded_again_if_its_fingerprint_proves_nothing() {
        let changed_metadata = |value: u32| {
            list(&[format!(r#"{{"instanceId":"a","app":"ORDERS","metadata":{{"lastRenewalTimestamp":{value}}}}}"#)])
        };
        let nameless = |name: &str| list(&[r#"{"instanceId":"a"}"#.into()]).replace("ORDERS", name);
        for (first, second) in [(changed_metadata(1), changed_metadata(2)), (nameless("ORDERS"), nameless("BILLING"))] {
            let instances = decode(&first, &[]);
            let known = Arc::new(Application { name: "ORDERS".into(), instances });
            assert_eq!(decode(&second, &[known]), decode(&second, &[]));
        }
    }

    #[test]
    fn repeated_strings_are_shared() {
        let instance = |app: &str, id: usize| {
            format!(
                r#"{{"instanceId":"{id}","app":"{app}","vipAddress":"{app}","metadata":{{"zone":"zone-{}","id":"{id}"}}}}"#,
                id % 2
            )
        };
        let text: Vec<_> = (0..4).map(|id| instance(if id < 2 { "A" } else { "B" }, id)).collect();
        let instances = decode(&list(&text), &[]);
        let zone = |at: usize| instances[at].metadata().get("zone").unwrap().as_ptr();
        assert!(zone(0) == zone(2) && zone(1) == zone(3) && zone(0) != zone(1));
        let vip = |at: usize| instances[at].vip_address().unwrap().as_ptr();
        assert!(vip(0) == vip(1) && vip(2) == vip(3));
    }
}
