use std::fmt;
use std::hash::{Hash, Hasher};
use std::ops::Deref;
use std::sync::Arc;

use super::snapshot::Snapshot;
use crate::model::{Application, Instance, app_name};

/// Key by which instances are looked up.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Lookup {
    /// The application with this name.
    App(LookupName),
    /// The instances of all applications that have this VIP address.
    Vip(LookupName),
    /// The instances of all applications that have this secure VIP address.
    SecureVip(LookupName),
    /// The VIP address with this name if a wanted instance has it, otherwise the application.
    Name(LookupName),
}

/// Name that is looked up. It is compared in upper case, and dereferences to that form.
#[derive(Clone)]
pub(crate) struct LookupName {
    upper: Arc<str>,
    /// As the user wrote it. Servers compare VIP addresses with case.
    written: Arc<str>,
}

impl LookupName {
    pub(super) fn written(&self) -> &Arc<str> {
        &self.written
    }
}

impl From<&str> for LookupName {
    fn from(name: &str) -> Self {
        let (upper, written) = (app_name(name), Arc::from(name));
        Self { written: if *upper == *name { upper.clone() } else { written }, upper }
    }
}

impl Deref for LookupName {
    type Target = Arc<str>;

    fn deref(&self) -> &Arc<str> {
        &self.upper
    }
}

impl PartialEq for LookupName {
    fn eq(&self, other: &Self) -> bool {
        self.upper == other.upper
    }
}

impl Eq for LookupName {}

impl Hash for LookupName {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.upper.hash(state);
    }
}

impl fmt::Debug for LookupName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.upper.fmt(f)
    }
}

/// Applications that contain the instances of a lookup: those of the own region, and then those of
/// each remote region in the order of preference.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sources(Vec<Vec<Arc<Application>>>);

impl Sources {
    /// Returns the applications of the own region.
    pub(crate) fn own(&self) -> &[Arc<Application>] {
        self.0.first().map_or(&[], Vec::as_slice)
    }

    pub(super) fn into_own(self) -> Vec<Arc<Application>> {
        self.0.into_iter().next().unwrap_or_default()
    }

    /// Returns `true` if both have the same applications.
    pub(super) fn are_same(&self, other: &Self) -> bool {
        let is_same = |a: &Vec<Arc<Application>>, b: &Vec<Arc<Application>>| {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| Arc::ptr_eq(a, b))
        };
        self.0.len() == other.0.len() && self.0.iter().zip(&other.0).all(|(a, b)| is_same(a, b))
    }
}

impl Lookup {
    pub(super) fn name(&self) -> &LookupName {
        match self {
            Self::App(name) | Self::Vip(name) | Self::SecureVip(name) | Self::Name(name) => name,
        }
    }

    /// Returns the applications that may have instances of this lookup, at a cost proportional to
    /// their number.
    pub(super) fn sources(&self, snapshot: &Snapshot) -> Sources {
        let remote = snapshot.regions.iter().map(|(_, region)| self.of_region(region));
        Sources(std::iter::once(self.of_region(snapshot)).chain(remote).collect())
    }

    fn of_region(&self, snapshot: &Snapshot) -> Vec<Arc<Application>> {
        let app = |name: &Arc<str>| snapshot.applications.get(name).cloned();
        match self {
            Self::App(name) => app(name).into_iter().collect(),
            Self::Vip(vip) => snapshot.vips.plain(vip).filter_map(app).collect(),
            Self::SecureVip(vip) => snapshot.vips.secure(vip).filter_map(app).collect(),
            Self::Name(name) => {
                let mut sources: Vec<_> = snapshot.vips.plain(name).filter_map(app).collect();
                if sources.iter().all(|source| source.name != **name) {
                    sources.extend(app(name));
                }
                sources
            }
        }
    }

    /// Returns `true` if the lookup may yield this instance of an application.
    pub(super) fn is_for(&self, app: &str, instance: &Instance) -> bool {
        match self {
            Self::App(name) => *app == ***name,
            Self::Vip(vip) => has_vip(instance.vips(), vip),
            Self::SecureVip(vip) => has_vip(instance.secure_vips(), vip),
            Self::Name(name) => *app == ***name || has_vip(instance.vips(), name),
        }
    }

    /// Returns all instances that the lookup may yield, of any status.
    pub(super) fn candidates<'a>(&'a self, sources: &'a Sources) -> impl Iterator<Item = &'a Arc<Instance>> {
        sources.0.iter().flat_map(|region| self.candidates_of(region))
    }

    fn candidates_of<'a>(&'a self, region: &'a [Arc<Application>]) -> impl Iterator<Item = &'a Arc<Instance>> {
        each(region).filter(move |(app, instance)| self.is_for(&app.name, instance)).map(|(_, instance)| instance)
    }

    /// Returns the instances of the lookup, of any status. They are those of the own region if one
    /// of them is wanted, otherwise those of the first remote region with a wanted one.
    pub(crate) fn members<'a>(
        &'a self,
        sources: &'a Sources,
        wanted: impl Fn(&Instance) -> bool,
    ) -> Vec<&'a Arc<Instance>> {
        let mut regions = sources.0.iter().map(|region| self.members_of(region, &wanted));
        let own = regions.next().unwrap_or_default();
        let is_usable = |members: &Vec<&Arc<Instance>>| members.iter().any(|instance| wanted(instance));
        if is_usable(&own) { own } else { regions.find(is_usable).unwrap_or(own) }
    }

    /// Returns the instances of the lookup in one region.
    ///
    /// A name stands for the VIP address if one of its instances is wanted, otherwise for the
    /// application, or for the VIP address if there is no such application.
    fn members_of<'a>(
        &'a self,
        sources: &'a [Arc<Application>],
        wanted: impl Fn(&Instance) -> bool,
    ) -> Vec<&'a Arc<Instance>> {
        let Self::Name(name) = self else { return self.candidates_of(sources).collect() };
        let with_vip: Vec<_> =
            each(sources).map(|(_, instance)| instance).filter(|i| has_vip(i.vips(), name)).collect();
        if with_vip.iter().any(|instance| wanted(instance)) {
            return with_vip;
        }
        match sources.iter().find(|source| source.name == **name) {
            Some(app) => app.instances.iter().collect(),
            None => with_vip,
        }
    }
}

impl Snapshot {
    /// Returns the applications of a lookup.
    pub(crate) fn sources(&self, lookup: &Lookup) -> Sources {
        lookup.sources(self)
    }
}

fn each(sources: &[Arc<Application>]) -> impl Iterator<Item = (&Application, &Arc<Instance>)> {
    sources.iter().flat_map(|app| app.instances.iter().map(move |instance| (&**app, instance)))
}

fn has_vip<'a>(mut vips: impl Iterator<Item = &'a str>, upper: &str) -> bool {
    vips.any(|vip| equals_upper(vip, upper))
}

/// Returns `true` if the name in upper case is `upper`.
pub(super) fn equals_upper(name: &str, upper: &str) -> bool {
    if name.is_ascii() {
        return name.eq_ignore_ascii_case(upper);
    }
    name.chars().flat_map(char::to_uppercase).eq(upper.chars())
}
