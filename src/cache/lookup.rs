use std::sync::Arc;

use super::Snapshot;
use crate::model::{Application, Instance};

/// A question to the registry: whose instances. Names are upper case.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Lookup {
    /// The application of this name.
    App(Arc<str>),
    /// The instances of any application that carry this VIP address.
    Vip(Arc<str>),
    /// The same with the secure VIP address.
    SecureVip(Arc<str>),
    /// The VIP address of this name if an instance that is wanted carries it, else the application.
    Name(Arc<str>),
}

/// The applications in which the answer to a look-up is.
pub(crate) type Sources = Vec<Arc<Application>>;

impl Lookup {
    pub(crate) fn name(&self) -> &Arc<str> {
        match self {
            Self::App(name) | Self::Vip(name) | Self::SecureVip(name) | Self::Name(name) => name,
        }
    }

    /// The applications that may have an instance for it, at the cost of these alone.
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

    /// All instances of the sources that it may mean, whatever their status.
    pub(super) fn candidates<'a>(&'a self, sources: &'a [Arc<Application>]) -> impl Iterator<Item = &'a Arc<Instance>> {
        each(sources)
            .filter(move |(app, instance)| match self {
                Self::App(_) => true,
                Self::Vip(vip) => carries(instance.vips(), vip),
                Self::SecureVip(vip) => carries(instance.secure_vips(), vip),
                Self::Name(name) => app.name == *name || carries(instance.vips(), name),
            })
            .map(|(_, instance)| instance)
    }

    /// The instances that it means, whatever their status. A name means its VIP address if that
    /// leads to an instance that is wanted, its application if that has instances, and the VIP
    /// address if not.
    pub(crate) fn members<'a>(
        &'a self,
        sources: &'a [Arc<Application>],
        wanted: impl Fn(&Instance) -> bool,
    ) -> Vec<&'a Arc<Instance>> {
        let Self::Name(name) = self else { return self.candidates(sources).collect() };
        let carriers: Vec<_> =
            each(sources).map(|(_, instance)| instance).filter(|i| carries(i.vips(), name)).collect();
        if carriers.iter().any(|instance| wanted(instance)) {
            return carriers;
        }
        match sources.iter().find(|source| source.name == *name) {
            Some(app) => app.instances.iter().collect(),
            None => carriers,
        }
    }
}

fn each(sources: &[Arc<Application>]) -> impl Iterator<Item = (&Application, &Arc<Instance>)> {
    sources.iter().flat_map(|app| app.instances.iter().map(move |instance| (&**app, instance)))
}

fn carries<'a>(mut vips: impl Iterator<Item = &'a str>, upper: &str) -> bool {
    vips.any(|vip| is_upper_of(vip, upper))
}

/// Returns true if a name, in any case, is this one in upper case.
fn is_upper_of(name: &str, upper: &str) -> bool {
    if name.is_ascii() {
        return name.eq_ignore_ascii_case(upper);
    }
    name.chars().flat_map(char::to_uppercase).eq(upper.chars())
}
