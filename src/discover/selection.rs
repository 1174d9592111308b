use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

use super::Reason;
use crate::cache::{Lookup, LookupName, Snapshot, Sources};
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
/// `vip` and `secure_vip` take a comma-separated list as well. The first VIP address with an
/// accepted instance counts, as in Ribbon, unless the lists are [merged](Self::merged).
///
/// ```
/// use tower_eureka::discover::Selection;
/// use tower_eureka::model::InstanceStatus;
///
/// let blue = Selection::app("orders").filter(|instance| instance.metadata().get("colour") == Some("blue"));
/// let warming = Selection::vip("orders").statuses([InstanceStatus::Up, InstanceStatus::Starting]);
/// let newer_first = Selection::vip("orders-v2,orders");
/// # let _ = (blue, warming, newer_first);
/// ```
#[derive(Clone)]
#[must_use = "a selection does nothing until it is passed to `Eureka::discover`"]
pub struct Selection {
    /// At least one.
    lookups: Vec<Lookup>,
    /// Name as written, in upper case.
    name: Arc<str>,
    /// True if the instances of all lookups are selected, and not those of the first that has one.
    is_merged: bool,
    /// Application whose instances have their ids as keys.
    home: Arc<str>,
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

    /// Selects the instances with this VIP address, or with those of a comma-separated list. They
    /// may belong to several applications.
    pub fn vip(vip: impl AsRef<str>) -> Self {
        Self::list(Lookup::Vip, vip.as_ref())
    }

    /// Selects the instances with this secure VIP address, or with those of a comma-separated list.
    /// The caller still chooses the port to connect to.
    pub fn secure_vip(vip: impl AsRef<str>) -> Self {
        Self::list(Lookup::SecureVip, vip.as_ref())
    }

    fn new(lookup: fn(LookupName) -> Lookup, name: &str) -> Self {
        let lookups = vec![lookup(name.trim().into())];
        let name = app_name(name.trim());
        Self { lookups, home: name.clone(), name, is_merged: false, statuses: bit(InstanceStatus::Up), filter: None }
    }

    /// Selects by each VIP address of a comma-separated list.
    fn list(lookup: fn(LookupName) -> Lookup, list: &str) -> Self {
        let selection = Self::new(lookup, list);
        let vips = list.split(',').map(str::trim).filter(|vip| !vip.is_empty());
        let lookups: Vec<_> = vips.map(|vip| lookup(vip.into())).collect();
        if lookups.is_empty() { selection } else { Self { lookups, ..selection } }
    }

    /// Selects the instances with any VIP address of a list. By default, those with the first one
    /// that has an accepted instance are selected. Without a list it has no effect.
    pub fn merged(mut self) -> Self {
        self.is_merged = true;
        self
    }

    /// Gives the instances of this application, in upper case, their ids as keys.
    pub(crate) fn called(mut self, app: Arc<str>) -> Self {
        self.home = app;
        self
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
        self.matching(&self.sources(snapshot)).cloned().collect()
    }

    /// Returns the name that is looked up, in upper case. For a list of VIP addresses it is the
    /// list.
    pub fn looked_up(&self) -> &str {
        &self.name
    }

    pub(crate) fn lookups(&self) -> &[Lookup] {
        &self.lookups
    }

    /// Returns the applications of each look-up.
    pub(super) fn sources(&self, snapshot: &Snapshot) -> Vec<Sources> {
        self.lookups.iter().map(|lookup| snapshot.sources(lookup)).collect()
    }

    /// Returns an error if no instance can ever match.
    pub(crate) fn check(&self) -> Result<(), Error> {
        let refused = |cause: &str| Error::new(Kind::Config, "discover").app(self.name.clone()).cause(cause);
        match &self.lookups[0] {
            Lookup::App(name) | Lookup::Name(name) => check_app(name).map_err(|invalid| {
                let error = refused("not an application name").with_source(invalid);
                error.advice("use Selection::vip for a VIP address that cannot be an application name")
            })?,
            Lookup::Vip(first) | Lookup::SecureVip(first) => {
                // Only a list without items leaves the text as it is.
                let is_empty = first.split(',').all(|vip| vip.trim().is_empty());
                if is_empty || self.name.chars().any(char::is_control) {
                    let error = refused("not a VIP address");
                    return Err(error.advice("it must not be empty or contain control characters"));
                }
            }
        }
        if self.statuses == 0 {
            return Err(refused("no status is accepted").advice("pass one to statuses(), or omit it to accept UP"));
        }
        Ok(())
    }

    /// Returns the selected instances of these applications, which each look-up has.
    pub(super) fn matching<'a>(&'a self, sources: &'a [Sources]) -> impl Iterator<Item = &'a Arc<Instance>> {
        self.named(sources).into_iter().filter(|instance| self.rejection(instance).is_none())
    }

    /// Returns the instances under the name, whatever their status and the filter.
    pub(super) fn named<'a>(&'a self, sources: &'a [Sources]) -> Vec<&'a Arc<Instance>> {
        let accepts = |instance: &Instance| self.accepts_status(instance);
        let mut lists = self.lookups.iter().zip(sources).map(|(lookup, sources)| lookup.members(sources, accepts));
        if let [_] = self.lookups[..] {
            return lists.next().unwrap_or_default();
        }
        let lists: Vec<_> = lists.collect();
        let first = lists.iter().find(|list| list.iter().any(|instance| accepts(instance)));
        match first {
            Some(first) if !self.is_merged => first.clone(),
            // Without an accepted instance, all of them explain why.
            _ => {
                let mut seen = HashSet::new();
                lists.into_iter().flatten().filter(|instance| seen.insert(Arc::as_ptr(instance))).collect()
            }
        }
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
    /// application if that has another name than the selection, or than the one that is called.
    pub(super) fn key<'a>(&self, instance: &'a Instance) -> Cow<'a, str> {
        if instance.app == self.home {
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
            .field("lookups", &self.lookups)
            .field("merged", &self.is_merged)
            .field("statuses", &statuses)
            .field("filtered", &self.filter.is_some())
            .finish()
    }
}
