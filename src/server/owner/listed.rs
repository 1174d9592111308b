//! Owners of all leases of a node, which a peer that copies its registry fetches
//! (docs/protocol-extensions.md, "Owners of leases").

use std::collections::BTreeMap;
#[cfg(feature = "peers")]
use std::collections::HashMap;
use std::sync::Arc;

use super::Owner;

/// Maximum size of the document in bytes. The owners of further leases are unknown to the peer.
const MAX_BYTES: usize = 8 * 1024 * 1024;
/// Maximum length of an owner. The subject of a token and the name of a user are shorter.
#[cfg(feature = "peers")]
const MAX_OWNER: usize = 4096;

/// Document of the owners: instance ids by owner by application.
#[derive(Debug, Default)]
pub(in crate::server) struct OwnersDocument {
    apps: BTreeMap<Arc<str>, BTreeMap<String, Vec<Arc<str>>>>,
    bytes: usize,
}

impl OwnersDocument {
    /// Adds a lease, if its owner is known and there is room for it.
    pub(in crate::server) fn add(&mut self, app: &Arc<str>, id: &Arc<str>, owner: &Owner) {
        if !owner.is_known() {
            return;
        }
        let owner = owner.write();
        let known = self.apps.get(app);
        let (is_new_app, is_new_owner) = (known.is_none(), known.is_none_or(|owners| !owners.contains_key(&owner)));
        let names = [(true, &**id), (is_new_app, app), (is_new_owner, &owner)];
        let bytes = names.into_iter().filter(|(is_new, _)| *is_new).map(|(_, name)| written(name)).sum::<usize>();
        if self.bytes + bytes <= MAX_BYTES - written("owners") {
            self.bytes += bytes;
            self.apps.entry(app.clone()).or_default().entry(owner).or_default().push(id.clone());
        }
    }

    pub(in crate::server) fn to_json(&self) -> String {
        serde_json::json!({ "owners": self.apps_json() }).to_string()
    }

    fn apps_json(&self) -> serde_json::Map<String, serde_json::Value> {
        let ids = |ids: &[Arc<str>]| ids.iter().map(|id| serde_json::Value::from(&**id)).collect::<Vec<_>>();
        let by_owner = |owners: &BTreeMap<String, Vec<Arc<str>>>| -> serde_json::Map<_, _> {
            owners.iter().map(|(owner, leases)| (owner.clone(), ids(leases).into())).collect()
        };
        self.apps.iter().map(|(app, owners)| (app.to_string(), by_owner(owners).into())).collect()
    }
}

/// Returns the number of bytes that a name takes in the document, with the characters beside it.
fn written(name: &str) -> usize {
    serde_json::Value::from(name).to_string().len() + ":[],".len()
}

/// Owners of the leases of a peer.
#[cfg(feature = "peers")]
#[derive(Debug, Default)]
pub(in crate::server) struct ListedOwners(HashMap<String, HashMap<String, Owner>>);

#[cfg(feature = "peers")]
impl ListedOwners {
    /// Reads the document of a peer. Owners that are no owners are left out.
    ///
    /// # Errors
    /// Returns the reason for which it is no such document.
    pub(in crate::server) fn from_json(json: &[u8]) -> Result<Self, String> {
        type Apps = HashMap<String, HashMap<String, Vec<String>>>;

        if json.len() > MAX_BYTES {
            return Err(format!("it has more than {MAX_BYTES} bytes"));
        }
        let mut document: HashMap<String, Apps> = serde_json::from_slice(json).map_err(|error| error.to_string())?;
        let apps = document.remove("owners").ok_or("it has no owners")?;
        let mut listed: HashMap<String, HashMap<String, Owner>> = HashMap::new();
        for (app, owners) in apps {
            let leases = listed.entry(app).or_default();
            for (owner, ids) in owners.into_iter().filter(|(owner, _)| owner.len() <= MAX_OWNER) {
                let owner = Owner::read(&owner);
                leases.extend(ids.into_iter().filter(|_| owner.is_known()).map(|id| (id, owner.clone())));
            }
        }
        Ok(Self(listed))
    }

    /// Returns the owner of a lease.
    pub(in crate::server) fn of(&self, app: &str, id: &str) -> Owner {
        self.0.get(app).and_then(|leases| leases.get(id)).cloned().unwrap_or_default()
    }

    pub(in crate::server) fn iter(&self) -> impl Iterator<Item = (&str, &str, &Owner)> {
        self.0.iter().flat_map(|(app, leases)| leases.iter().map(move |(id, owner)| (&**app, &**id, owner)))
    }
}

#[cfg(all(test, feature = "peers"))]
mod tests {
    use super::*;

    fn identity(key: &str) -> Owner {
        Owner::Identity(key.into())
    }

    #[test]
    fn known_owners_are_written_and_read() {
        let mut document = OwnersDocument::default();
        let leases = [
            ("ORDERS", "1", identity("user:orders")),
            ("ORDERS", "2", identity("user:orders")),
            ("ORDERS", "3\"", Owner::Anybody),
            ("CART", "1", identity("jwt:a,b*2 ü")),
            ("EUREKA", "1", Owner::Server),
            ("PETS", "1", Owner::Unknown),
        ];
        for (app, id, owner) in &leases {
            document.add(&Arc::from(*app), &Arc::from(*id), owner);
        }
        let json = document.to_json();
        assert_eq!(
            json,
            concat!(
                r#"{"owners":{"CART":{"jwt:a%2Cb%2A2%20%C3%BC":["1"]},"EUREKA":{"server":["1"]},"#,
                r#""ORDERS":{"anybody":["3\""],"user:orders":["1","2"]}}}"#
            )
        );
        let listed = ListedOwners::from_json(json.as_bytes()).unwrap();
        for (app, id, owner) in leases {
            assert_eq!(listed.of(app, id), owner, "{app} {id}");
        }
        assert_eq!((listed.of("ORDERS", "9"), listed.iter().count()), (Owner::Unknown, 5));
    }

    #[test]
    fn document_is_bounded() {
        let mut document = OwnersDocument::default();
        for n in 0..100_000 {
            document.add(&"ORDERS".into(), &format!("{n}-{}", "\u{1}".repeat(100)).into(), &identity("user:a"));
        }
        let json = document.to_json();
        assert!((MAX_BYTES / 2..=MAX_BYTES).contains(&json.len()), "{}", json.len());
        assert!(ListedOwners::from_json(json.as_bytes()).is_ok());
        let long = format!("{json}{}", " ".repeat(MAX_BYTES));
        assert!(ListedOwners::from_json(long.as_bytes()).unwrap_err().contains("more than"));
    }

    #[test]
    fn owners_that_are_none_are_left_out_and_other_documents_are_refused() {
        let long = format!(r#"{{"owners":{{"A":{{"user:{}":["1"]}}}}}}"#, "x".repeat(5_000));
        for text in [
            r#"{"owners":{}}"#,
            r#"{"owners":{"A":{"unknown":["1"],"orders":["2"],":":["3"],"user:%ff":["4"]}}}"#,
            &long,
        ] {
            assert_eq!(ListedOwners::from_json(text.as_bytes()).unwrap().iter().count(), 0, "{text}");
        }
        for text in ["", "[]", "{}", "<html>", r#"{"owners":{"A":["1"]}}"#, r#"{"owners":{"A":{"user:a":"1"}}}"#] {
            assert!(ListedOwners::from_json(text.as_bytes()).is_err(), "{text}");
        }
    }
}
