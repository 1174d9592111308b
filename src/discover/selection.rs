use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use super::Reason;
use crate::cache::{Lookup, Snapshot, Sources};
use crate::error::{Error, Kind};
use crate::model::{Instance, InstanceStatus, app_name, check_app};

/// Choice of instances in the registry: by name, status and a filter.
///
/// | constructor | instances |
/// |---|---|
/// | [`name`](Self::name), or a plain text | those of the VIP address, as Spring callers find them, else of the application |
/// | [`app`](Self::app) | those of the application |
/// | [`vip`](Self::vip) | those with the VIP address, of any application |
/// | [`secure_vip`](Self::secure_vip) | those with the secure VIP address, of any application |
///
/// Names are compared without regard to case. The VIP address of an instance is a comma-separated
/// list, of which one item has to match. By default only instances that are UP are chosen.
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
#[must_use = "a selection does nothing until it is passed to `Eureka::discover`"]
pub struct Selection {
    lookup: Lookup,
    /// Bit set of the accepted statuses.
    statuses: u8,
    filter: Option<Arc<Filter>>,
}

type Filter = dyn Fn(&Instance) -> bool + Send + Sync;

impl Selection {
    /// Selects as a call by name does: the instances with this VIP address if one of them has an
    /// accepted status, else the instances of the application with this name. A
    /// [`filter`](Self::filter) does not influence this choice.
    ///
    /// Java callers look up VIP addresses only. By default an instance of Spring or of this crate
    /// has the name of its application as its VIP address, so both are usually the same.
    pub fn name(name: impl AsRef<str>) -> Self {
        Self::new(Lookup::Name, name.as_ref())
    }

    /// Selects the instances of this application.
    pub fn app(name: impl AsRef<str>) -> Self {
        Self::new(Lookup::App, name.as_ref())
    }

    /// Selects the instances with this VIP address. They may belong to several applications.
    pub fn vip(vip: impl AsRef<str>) -> Self {
        Self::new(Lookup::Vip, vip.as_ref())
    }

    /// Selects the instances with this secure VIP address. The caller still chooses the port to
    /// connect to.
    pub fn secure_vip(vip: impl AsRef<str>) -> Self {
        Self::new(Lookup::SecureVip, vip.as_ref())
    }

    fn new(lookup: fn(Arc<str>) -> Lookup, name: &str) -> Self {
        Self { lookup: lookup(app_name(name.trim())), statuses: bit(InstanceStatus::Up), filter: None }
    }

    /// Sets the accepted statuses. Instances with any other status are left out. Defaults to UP
    /// alone.
    pub fn statuses(mut self, accepted: impl IntoIterator<Item = InstanceStatus>) -> Self {
        self.statuses = accepted.into_iter().fold(0, |statuses, status| statuses | bit(status));
        self
    }

    /// Leaves out the instances for which `keep` returns `false`. With several filters, all must
    /// return `true`.
    ///
    /// `keep` is called whenever instances change, so its result must depend on the instance alone.
    pub fn filter(mut self, keep: impl Fn(&Instance) -> bool + Send + Sync + 'static) -> Self {
        self.filter = Some(match self.filter {
            Some(first) => Arc::new(move |instance| first(instance) && keep(instance)),
            None => Arc::new(keep),
        });
        self
    }

    /// Returns the selected instances of this snapshot, grouped by application.
    pub fn instances(&self, snapshot: &Snapshot) -> Vec<Arc<Instance>> {
        self.matching(&snapshot.sources(&self.lookup)).cloned().collect()
    }

    /// Returns the name that is looked up, in upper case.
    pub fn looked_up(&self) -> &str {
        self.lookup.name()
    }

    pub(super) fn lookup(&self) -> &Lookup {
        &self.lookup
    }

    /// Returns an error if no instance can ever match.
    pub(crate) fn check(&self) -> Result<(), Error> {
        let name = self.lookup.name();
        let refused = |cause: &str| Error::new(Kind::Config, "discover").app(name.clone()).cause(cause);
        match &self.lookup {
            Lookup::App(name) | Lookup::Name(name) => check_app(name).map_err(|invalid| {
                let error = refused("not an application name").with_source(invalid);
                error.advice("use Selection::vip for a VIP address that cannot be an application name")
            })?,
            Lookup::Vip(_) | Lookup::SecureVip(_) if name.is_empty() || name.chars().any(char::is_control) => {
                return Err(refused("not a VIP address").advice("it must not be empty or contain control characters"));
            }
            Lookup::Vip(_) | Lookup::SecureVip(_) if name.contains(',') => {
                return Err(refused("a list of VIP addresses").advice("discover each of them separately"));
            }
            Lookup::Vip(_) | Lookup::SecureVip(_) => {}
        }
        if self.statuses == 0 {
            return Err(refused("no status is accepted").advice("pass one to statuses(), or omit it to accept UP"));
        }
        Ok(())
    }

    /// Returns the selected instances of these applications.
    pub(super) fn matching<'a>(&'a self, sources: &'a Sources) -> impl Iterator<Item = &'a Arc<Instance>> {
        self.named(sources).into_iter().filter(|instance| self.rejection(instance).is_none())
    }

    /// Returns the instances under the name, whatever their status and the filter.
    pub(super) fn named<'a>(&'a self, sources: &'a Sources) -> Vec<&'a Arc<Instance>> {
        self.lookup.members(sources, |instance| self.accepts_status(instance))
    }

    /// Returns the reason for which this instance is left out; `None` if it is selected.
    pub(super) fn rejection(&self, instance: &Instance) -> Option<Reason> {
        if !self.accepts_status(instance) {
            Some(Reason::Status(instance.status()))
        } else if self.filter.as_ref().is_some_and(|keep| !keep(instance)) {
            Some(Reason::Filtered)
        } else {
            None
        }
    }

    fn accepts_status(&self, instance: &Instance) -> bool {
        self.statuses & bit(instance.status()) != 0
    }

    /// Returns the key of this instance, which is unique in the selection: its id, preceded by its
    /// application if that has another name than the selection.
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

/// Selects by [`name`](Selection::name).
impl From<&str> for Selection {
    fn from(name: &str) -> Self {
        Self::name(name)
    }
}

/// Selects by [`name`](Selection::name).
impl From<String> for Selection {
    fn from(name: String) -> Self {
        Self::name(name)
    }
}

/// Selects by [`name`](Selection::name).
impl From<&String> for Selection {
    fn from(name: &String) -> Self {
        Self::name(name)
    }
}

/// Selects by [`name`](Selection::name).
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
