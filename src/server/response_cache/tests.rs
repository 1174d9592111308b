use std::io::Read;

use flate2::read::{GzDecoder, MultiGzDecoder};
use proptest::prelude::*;

use super::*;
use crate::model::{Application, Applications, Instance, InstanceStatus, Metadata, StatusCounts};
use crate::server::outcome::Origin;
use crate::server::registry::Settings;
use crate::server::view::{By, Encoding, Record};

fn instance(app: &str, id: &str, status: InstanceStatus, note: &str) -> Instance {
    let mut instance = Instance::builder(app).id(id).host_name("h").ip_addr("10.0.0.1").port(80).build().unwrap();
    instance.status = status;
    instance.vip_address = Some(note.into());
    instance.metadata = [("note", note)].into_iter().collect::<Metadata>();
    instance
}

fn gunzip(body: &[u8]) -> Vec<u8> {
    let mut plain = Vec::new();
    GzDecoder::new(body).read_to_end(&mut plain).expect("one gzip member");
    let mut multi = Vec::new();
    MultiGzDecoder::new(body).read_to_end(&mut multi).expect("nothing behind it");
    assert_eq!(plain, multi);
    plain
}

fn filled(entries: &[(u8, u8, usize, String)]) -> Arc<Registry> {
    let registry = Arc::new(Registry::new(Settings::default()));
    for (now, (app, id, status, note)) in entries.iter().enumerate() {
        let status = InstanceStatus::ALL[status % 5];
        let instance = instance(&format!("app-{}", app % 5), &format!("i:{id}"), status, note);
        registry.register(instance, Origin::Replica, now as i64).unwrap();
        if note.len() % 7 == 6 {
            registry.cancel(&format!("APP-{}", app % 5), &format!("i:{id}"), now as i64);
        }
    }
    registry
}

fn variants() -> impl Iterator<Item = Variant> {
    let encodings = [Encoding::Identity, Encoding::Gzip];
    Form::ALL.into_iter().flat_map(move |form| encodings.map(|encoding| Variant { form, encoding }))
}

/// Encodes the same list in one pass. `None` for the compact forms, for which the codec has no
/// encoder.
fn encoded_in_one_pass(form: Form, applications: &Applications) -> Option<Vec<u8>> {
    match form {
        Form::Json => Some(applications.to_json()),
        #[cfg(feature = "xml")]
        Form::Xml => Some(applications.to_xml()),
        _ => None,
    }
}

fn application_in_one_pass(form: Form, application: &Application) -> Option<Vec<u8>> {
    match form {
        Form::Json => Some(application.to_json()),
        #[cfg(feature = "xml")]
        Form::Xml => Some(application.to_xml()),
        _ => None,
    }
}

fn decoded(form: Form, body: &[u8]) -> Applications {
    match form {
        Form::Json | Form::CompactJson => Applications::from_json(body).unwrap(),
        #[cfg(feature = "xml")]
        Form::Xml | Form::CompactXml => Applications::from_xml(body).unwrap(),
    }
}

/// Returns the part of the applications that a compact list shows. All instances have a lease,
/// since they were registered.
fn reduced(applications: &Applications) -> Applications {
    let reduce = |instance: &Arc<Instance>| {
        let mut reduced = Instance::bare(instance.app.clone());
        reduced.instance_id = instance.instance_id.clone();
        reduced.ip_addr = instance.ip_addr.clone();
        reduced.vip_address = instance.vip_address.clone();
        reduced.secure_vip_address = instance.secure_vip_address.clone();
        reduced.data_center = instance.data_center.clone();
        reduced.host_name = instance.host_name.clone();
        reduced.status = instance.status;
        reduced.last_updated_timestamp = instance.last_updated_timestamp;
        reduced.action = instance.action;
        (reduced.port, reduced.secure_port) = (instance.port, instance.secure_port);
        Arc::new(reduced)
    };
    let mut reduced = applications.clone();
    for application in &mut reduced.applications {
        let instances = application.instances.iter().map(reduce).collect();
        *application = Arc::new(Application { name: application.name.clone(), instances });
    }
    reduced
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn assembled_list_equals_the_encoded_one_in_each_variant(
        entries in prop::collection::vec((any::<u8>(), 0u8..20, any::<usize>(), "[\\PC\n&<]{0,40}"), 0..60),
    ) {
        let registry = filled(&entries);
        for (snapshot, form) in [registry.full(), registry.delta()].into_iter().flat_map(|s| Form::ALL.map(|form| (s.clone(), form))) {
            let of = |encoding| {
                assemble::applications(snapshot.version, &snapshot.counts, &snapshot.applications, Variant { form, encoding })
            };
            let (plain, expected) = (of(Encoding::Identity), crate::server::applications(&snapshot));
            match encoded_in_one_pass(form, &expected) {
                Some(whole) => prop_assert_eq!(&plain[..], &whole[..]),
                None => prop_assert_eq!(decoded(form, &plain), reduced(&expected)),
            }
            prop_assert_eq!(&gunzip(&of(Encoding::Gzip))[..], &plain[..]);
            for (view, application) in snapshot.applications.iter().zip(&expected.applications) {
                let alone = |encoding| assemble::application(view, Variant { form, encoding });
                let plain = alone(Encoding::Identity);
                if let Some(whole) = application_in_one_pass(form, application) {
                    prop_assert_eq!(&plain[..], &whole[..]);
                }
                prop_assert_eq!(&gunzip(&alone(Encoding::Gzip))[..], &plain[..]);
            }
        }
        let full = registry.full();
        let counts: StatusCounts = full.applications.iter().flat_map(|a| &a.records).map(|r| r.instance.status).collect();
        prop_assert_eq!(counts, full.counts);
    }
}

fn responses() -> ResponseCache {
    ResponseCache::new(None, Clock::start(), Arc::new(Unsent::new(usize::MAX)))
}

#[tokio::test]
async fn vip_of_few_instances_is_built_when_the_budget_refuses_larger_lists() {
    let unsent = Arc::new(Unsent::bounded(200_000));
    let responses = ResponseCache::new(None, Clock::start(), unsent.clone());
    let registry = Arc::new(Registry::new(Settings::default()));
    for i in 0..200 {
        let vip = if i < 3 { "few" } else { "many" };
        registry.register(instance("A", &i.to_string(), InstanceStatus::Up, vip), Origin::Client, 1).unwrap();
    }
    unsent.add(150_000);
    let get = async |vip: &'static str| {
        let variant = Variant { form: Form::Json, encoding: Encoding::Identity };
        responses.get(&registry, &List::Selection(By::Vip, vip.into()), variant).await.map(|body| body.is_some())
    };
    assert_eq!([get("few").await, get("none").await, get("many").await], [Ok(true), Ok(true), Err(BudgetExhausted)]);
}

/// Returns one list of each kind.
fn lists() -> [List<'static>; 5] {
    [
        List::All,
        List::Delta,
        List::Application("APP-0".into()),
        List::Selection(By::Vip, "a".into()),
        List::Selection(By::SecureVip, "nobody".into()),
    ]
}

#[tokio::test]
async fn unchanged_lists_are_served_from_the_cache() {
    let registry = filled(&[(0, 0, 4, "a".into()), (1, 0, 4, "b".into())]);
    let responses = responses();
    for variant in variants() {
        let all = async || {
            let mut all = Vec::new();
            for list in lists() {
                let body = responses.get(&registry, &list, variant).await.unwrap().unwrap();
                let cached = responses.cached(&registry, &list, variant);
                assert!(cached.map_or(matches!(list, List::Selection(..)), |cached| Arc::ptr_eq(&cached, &body)));
                all.push(Arc::as_ptr(&body));
            }
            all
        };
        assert!(
            lists().iter().all(|list| responses.cached(&registry, list, variant).is_none()),
            "nothing was requested yet"
        );
        let before = all().await;
        assert_eq!(all().await, before);
        registry.renew("APP-0", "i:0", None, Origin::Client, 50);
        assert_eq!(all().await, before, "a heartbeat changes nothing");
    }
}

#[tokio::test]
async fn concurrent_requests_share_one_body() {
    let registry = filled(&[(0, 0, 4, "a".into()), (1, 0, 4, "b".into())]);
    let responses = Arc::new(responses());
    for (variant, list) in variants().flat_map(|variant| lists().map(|list| (variant, list))) {
        let requests: Vec<_> = (0..20)
            .map(|_| {
                let (registry, responses, list) = (registry.clone(), responses.clone(), list.clone());
                tokio::spawn(async move { responses.get(&registry, &list, variant).await.unwrap().unwrap() })
            })
            .collect();
        let mut bodies = Vec::new();
        for request in requests {
            bodies.push(request.await.unwrap());
        }
        assert!(bodies.iter().all(|body| Arc::ptr_eq(body, &bodies[0])), "{list:?} {variant:?}");
    }
}

#[tokio::test]
async fn missing_application_has_no_body() {
    let responses = responses();
    let variant = Variant { form: Form::Json, encoding: Encoding::Gzip };
    let list = List::Application("NOBODY".into());
    assert!(responses.cached(&filled(&[]), &list, variant).is_none());
    assert!(responses.get(&filled(&[]), &list, variant).await.unwrap().is_none());
}

#[tokio::test]
async fn form_is_built_on_request_and_dropped_when_outdated() {
    let registry = filled(&[(0, 0, 4, "a".into())]);
    let responses = responses();
    let [json, compact] = [Form::Json, Form::CompactJson].map(|form| Variant { form, encoding: Encoding::Gzip });
    responses.get(&registry, &List::All, compact).await.unwrap();
    let kept = |variant| !responses.full.of(variant).is_empty();
    assert!(kept(compact) && !kept(json));
    registry.register(instance("app-0", "i:1", InstanceStatus::Up, "c"), Origin::Client, 100).unwrap();
    responses.get(&registry, &List::All, json).await.unwrap();
    assert!(kept(json) && !kept(compact), "an outdated body takes no memory");
}

#[tokio::test]
async fn change_rebuilds_only_the_application_that_changed() {
    let registry = filled(&[(0, 0, 4, "a".into()), (1, 0, 4, "b".into())]);
    let responses = responses();
    let variant = Variant { form: Form::Json, encoding: Encoding::Gzip };
    let before = registry.full();
    let old = responses.get(&registry, &List::All, variant).await.unwrap().unwrap();
    registry.register(instance("app-1", "i:1", InstanceStatus::Up, "c"), Origin::Client, 100).unwrap();
    let new = responses.get(&registry, &List::All, variant).await.unwrap().unwrap();
    assert!(old.bytes() != new.bytes() && old.etag != new.etag && old.revision < new.revision);
    let after = registry.full();
    assert!(Arc::ptr_eq(&before.applications[0], &after.applications[0]));
    assert!(!Arc::ptr_eq(&before.applications[1], &after.applications[1]));
    assert!(Arc::ptr_eq(&before.applications[1].records[0], &after.applications[1].records[0]));
    assert_ne!(before.applications[1].blocks.number(), after.applications[1].blocks.number());
}

#[tokio::test]
async fn vip_list_has_its_own_hash() {
    let registry =
        filled(&[(0, 0, 4, "x".into()), (0, 1, 0, "x".into()), (1, 0, 4, "x".into()), (1, 1, 4, "y".into())]);
    let responses = responses();
    for variant in variants() {
        let body = responses.get(&registry, &List::Selection(By::Vip, "x".into()), variant).await.unwrap().unwrap();
        let plain = if variant.encoding == Encoding::Gzip { gunzip(body.bytes()) } else { body.bytes().to_vec() };
        let selected = decoded(variant.form, &plain);
        assert_eq!((selected.version, selected.hash.as_deref()), (Some(-1), Some("DOWN_1_UP_2_")));
        assert_eq!(selected.applications.iter().map(|a| a.instances.len()).collect::<Vec<_>>(), [2, 1]);
    }
}

#[tokio::test]
async fn changed_vip_shows_in_the_next_response() {
    let registry = filled(&[(0, 0, 4, "old,both".into())]);
    let responses = responses();
    let variant = Variant { form: Form::CompactJson, encoding: Encoding::Identity };
    let found = async |name: &str| {
        let body = responses.get(&registry, &List::Selection(By::Vip, name.into()), variant).await.unwrap().unwrap();
        Applications::from_json(body.bytes()).unwrap().len()
    };
    assert_eq!((found("old").await, found("both").await, found("new").await), (1, 1, 0));
    registry.register(instance("app-0", "i:0", InstanceStatus::Up, "new,both"), Origin::Client, 100).unwrap();
    assert_eq!((found("old").await, found("both").await, found("new").await), (0, 1, 1));
}

/// Compares with the golden documents of the Netflix codec, without the one member that a Spring
/// server does not write.
#[test]
fn compact_lists_are_those_of_a_spring_server() {
    let golden = |name: &str, json: &str| {
        let whole = Applications::from_json(json.as_bytes()).unwrap();
        let application = whole.applications.iter().find(|application| &*application.name == name).unwrap();
        let record = Record::new(application.instances[0].as_ref().clone());
        (AppView::new(application.name.clone(), vec![record]), StatusCounts::from_iter([InstanceStatus::Up]))
    };
    let without = |document: &str, member: &str| {
        assert!(document.contains(member));
        document.replace(member, "")
    };
    let full = include_str!("../../../tests/fixtures/json/j3_full.json");
    let identity = |form| Variant { form, encoding: Encoding::Identity };
    let none = StatusCounts::default();
    let (view, counts) = golden("BILLING", full);
    let body = assemble::applications(1, &counts, &[view], identity(Form::CompactJson));
    let expected: String =
        include_str!("../../../tests/fixtures/json/j5_compact.json").lines().map(str::trim_start).collect();
    assert_eq!(body, without(&expected, r#""registeredApplicationsEmpty":false,"#));
    let body = assemble::applications(1, &none, &[], identity(Form::CompactJson));
    assert_eq!(body, r#"{"applications":{"application":[],"versions__delta":"1","apps__hashcode":""}}"#);
    #[cfg(feature = "xml")]
    {
        let (view, counts) = golden("ORDERS", full);
        let body = assemble::applications(1, &counts, &[view], identity(Form::CompactXml));
        let expected = include_str!("../../../tests/fixtures/xml/x3_compact.xml").trim_end();
        let member = "<registeredApplicationsEmpty>false</registeredApplicationsEmpty>";
        assert_eq!(body, without(expected, member));
        let body = assemble::applications(1, &none, &[], identity(Form::CompactXml));
        let expected =
            "<applications><versions__delta>1</versions__delta><apps__hashcode></apps__hashcode></applications>";
        assert_eq!(body, expected);
    }
}
