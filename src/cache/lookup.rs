use std::sync::Arc;

use super::snapshot::Snapshot;
use crate::model::{Application, Instance};

/// Key by which instances are looked up. Names are upper case.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Lookup {
    /// The application with this name.
    App(Arc<str>),
    /// The instances of all applications that have this VIP address.
    Vip(Arc<str>),
    /// The instances of all applications that have this secure VIP address.
    SecureVip(Arc<str>),
    /// The VIP address with this name if a wanted instance has it, otherwise the application.
    Name(Arc<str>),
}

/// Applications that contain the instances of a lookup.
pub(crate) type Sources = Vec<Arc<Application>>;

impl Lookup {
    pub(crate) fn name(&self) -> &Arc<str> {
        match self {
            Self::App(name) | Self::Vip(name) | Self::SecureVip(name) | Self::Name(name) => name,
        }
    }

    /// Returns the applications that may have instances of this lookup, at a cost proportional to
    /// their number.
    pub(super) fn sources(&self, snapshot: &Snapshot) -> Sources {
        let app = |name: &Arc<str>| snapshot.applications.get(name).cloned();
        match self {
            Self::App(name) => app(name).into_iter().collect(),
            Self::Vip(vip) => snapshot.vips.plain(vip).filter_map(app).collect(),
            Self::SecureVip(vip) => snapshot.vips.secure(vip).filter_map(app).collect(),
            Self::Name(name) => {
                let mut sources: Sources = snapshot.vips.plain(name).filter_map(app).collect();
                if sources.iter().all(|source| source.name != *name) {
                    sources.extend(app(name));
                }
                sources
            }
        }
    }

    /// Returns all instances that the lookup may yield, of any status.
    pub(super) fn candidates<'a>(&'a self, sources: &'a [Arc<Application>]) -> impl Iterator<Item = &'a Arc<Instance>> {
        each(sources)
            .filter(move |(app, instance)| match self {
                Self::App(_) => true,
                Self::Vip(vip) => has_vip(instance.vips(), vip),
                Self::SecureVip(vip) => has_vip(instance.secure_vips(), vip),
                Self::Name(name) => app.name == *name || has_vip(instance.vips(), name),
            })
            .map(|(_, instance)| instance)
    }

    /// Returns the instances of the lookup, of any status.
    ///
    /// A name stands for the VIP address if one of its instances is wanted, otherwise for the
    /// application, or for the VIP address if there is no such application.
    pub(crate) fn members<'a>(
        &'a self,
        sources: &'a [Arc<Application>],
        wanted: impl Fn(&Instance) -> bool,
    ) -> Vec<&'a Arc<Instance>> {
        let Self::Name(name) = self else { return self.candidates(sources).collect() };
        let with_vip: Vec<_> =
            each(sources).map(|(_, instance)| instance).filter(|i| has_vip(i.vips(), name)).collect();
        if with_vip.iter().any(|instance| wanted(instance)) {
            return with_vip;
        }
        match sources.iter().find(|source| source.name == *name) {
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
fn equals_upper(name: &str, upper: &str) -> bool {
    if name.is_ascii() {
        return name.eq_ignore_ascii_case(upper);
    }
    name.chars().flat_map(char::to_uppercase).eq(upper.chars())
}
