use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use super::Reason;
use crate::cache::{Lookup, Snapshot, Sources};
use crate::error::{Error, Kind};
use crate::model::{Instance, InstanceStatus, app_name, check_app};

/// Which instances are meant: a look-up, the statuses wanted, and what else is asked of an instance.
///
/// | look-up | means |
/// |---|---|
/// | [`name`](Self::name), or just a text | what Spring callers find under that name: the VIP address, else the application |
/// | [`app`](Self::app) | the application and nothing else |
/// | [`vip`](Self::vip) | all that carry the VIP address, of whatever application |
/// | [`secure_vip`](Self::secure_vip) | all that carry the secure VIP address |
///
/// Names are told apart in any case. A VIP address of an instance is a list; one of its items is enough. Without more words,
/// instances that are UP are meant.
///
/// ```
/// use tower_eureka::discover::Selection;
/// use tower_eureka::model::InstanceStatus;
///
/// let blue = Selection::app("orders").filter(|instance| instance.metadata().get("colour") == Some("blue"));
/// let warming = Selection::vip("orders").statuses([InstanceStatus::Up, InstanceStatus::Starting]);
/// # let _ = (blue, warming);
/// ```
#[derive(Clone)]
#[must_use = "a selection does nothing until something follows it"]
pub struct Selection {
    lookup: Lookup,
    /// A bit for each wanted status.
    statuses: u8,
    filter: Option<Arc<Filter>>,
}

type Filter = dyn Fn(&Instance) -> bool + Send + Sync;

impl Selection {
    /// What a call by name means: the instances that carry the VIP address of this name if one of them has a wanted status, else
    /// the application of this name.
    ///
    /// Instances of Spring and of this crate carry their application's name as their VIP address unless told otherwise, so that
    /// this is usually the application. It is the VIP address that all callers in Java go by.
    pub fn name(name: impl AsRef<str>) -> Self {
        Self::new(Lookup::Name, name.as_ref())
    }

    /// The instances of this application.
    pub fn app(name: impl AsRef<str>) -> Self {
        Self::new(Lookup::App, name.as_ref())
    }

    /// The instances that carry this VIP address. They may belong to several applications.
    pub fn vip(vip: impl AsRef<str>) -> Self {
        Self::new(Lookup::Vip, vip.as_ref())
    }

    /// The instances that carry this secure VIP address. It does not choose the port: that is for whoever connects.
    pub fn secure_vip(vip: impl AsRef<str>) -> Self {
        Self::new(Lookup::SecureVip, vip.as_ref())
    }

    fn new(lookup: fn(Arc<str>) -> Lookup, name: &str) -> Self {
        Self { lookup: lookup(app_name(name.trim())), statuses: bit(InstanceStatus::Up), filter: None }
    }

    /// The statuses wanted, instead of UP alone. Instances with others are as good as absent.
    pub fn statuses(mut self, wanted: impl IntoIterator<Item = InstanceStatus>) -> Self {
        self.statuses = wanted.into_iter().fold(0, |statuses, status| statuses | bit(status));
        self
    }

    /// Leaves out the instances for which this says false. Of several, all must say true.
    ///
    /// It is asked whenever the instances change, and must depend on the instance alone: a filter whose mind changes in between is
    /// not heard until the next change.
    pub fn filter(mut self, keep: impl Fn(&Instance) -> bool + Send + Sync + 'static) -> Self {
        self.filter = Some(match self.filter {
            Some(first) => Arc::new(move |instance| first(instance) && keep(instance)),
            None => Arc::new(keep),
        });
        self
    }

    /// The instances that it means in this state of the registry, application by application.
    pub fn instances(&self, snapshot: &Snapshot) -> Vec<Arc<Instance>> {
        self.wanted(&snapshot.sources(&self.lookup)).cloned().collect()
    }

    /// The name looked up, upper case.
    pub fn looked_up(&self) -> &str {
        self.lookup.name()
    }

    pub(super) fn lookup(&self) -> &Lookup {
        &self.lookup
    }

    /// Refuses what can never mean an instance.
    pub(crate) fn check(&self) -> Result<(), Error> {
        let name = self.lookup.name();
        let refused = |cause: &str| Error::new(Kind::Config, "discover").app(name.clone()).cause(cause);
        match &self.lookup {
            Lookup::App(name) | Lookup::Name(name) => check_app(name).map_err(|invalid| {
                let error = refused("this is no application name").with_source(invalid);
                error.advice("give a VIP address that is written otherwise to Selection::vip")
            })?,
            Lookup::Vip(_) | Lookup::SecureVip(_) if name.is_empty() || name.chars().any(char::is_control) => {
                return Err(refused("this is no VIP address").advice("give one that is not empty"));
            }
            Lookup::Vip(_) | Lookup::SecureVip(_) if name.contains(',') => {
                return Err(refused("this is a list of VIP addresses").advice("follow each by itself"));
            }
            Lookup::Vip(_) | Lookup::SecureVip(_) => {}
        }
        if self.statuses == 0 {
            return Err(refused("no status is wanted").advice("name one to statuses(), or leave it away for UP"));
        }
        Ok(())
    }

    /// The instances that it means, among these applications.
    pub(super) fn wanted<'a>(&'a self, sources: &'a Sources) -> impl Iterator<Item = &'a Arc<Instance>> {
        self.members(sources).into_iter().filter(|instance| self.refuses(instance).is_none())
    }

    /// The instances that it looks up, wanted or not.
    pub(super) fn members<'a>(&'a self, sources: &'a Sources) -> Vec<&'a Arc<Instance>> {
        self.lookup.members(sources, |instance| self.has_wanted_status(instance))
    }

    /// Why this instance is not wanted.
    pub(super) fn refuses(&self, instance: &Instance) -> Option<Reason> {
        if !self.has_wanted_status(instance) {
            Some(Reason::Status(instance.status()))
        } else if self.filter.as_ref().is_some_and(|keep| !keep(instance)) {
            Some(Reason::Filtered)
        } else {
            None
        }
    }

    fn has_wanted_status(&self, instance: &Instance) -> bool {
        self.statuses & bit(instance.status()) != 0
    }

    /// What tells this instance apart from all others of the selection, at all times: its id, and the application before it
    /// where that is not the one of the name.
    pub(super) fn key<'a>(&self, instance: &'a Instance) -> Cow<'a, str> {
        if instance.app == *self.lookup.name() {
            instance.id().into()
        } else {
            format!("{}/{}", instance.app(), instance.id()).into()
        }
    }
}

fn bit(status: InstanceStatus) -> u8 {
    1 << status as u8
}

/// By [`name`](Selection::name).
impl From<&str> for Selection {
    fn from(name: &str) -> Self {
        Self::name(name)
    }
}

/// By [`name`](Selection::name).
impl From<String> for Selection {
    fn from(name: String) -> Self {
        Self::name(name)
    }
}

/// By [`name`](Selection::name).
impl From<&String> for Selection {
    fn from(name: &String) -> Self {
        Self::name(name)
    }
}

/// By [`name`](Selection::name).
impl From<Arc<str>> for Selection {
    fn from(name: Arc<str>) -> Self {
        Self::name(name)
    }
}

impl fmt::Debug for Selection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let statuses: Vec<_> = InstanceStatus::ALL.into_iter().filter(|s| self.statuses & bit(*s) != 0).collect();
        f.debug_struct("Selection")
            .field("lookup", &self.lookup)
            .field("statuses", &statuses)
            .field("filtered", &self.filter.is_some())
            .finish()
    }
}
