use std::sync::Arc;

use crate::model::InstanceStatus;

/// Override that the instance sets on itself, and the one that an operator has set.
///
/// The program's own calls act at once. An override that follows from the health gives way to an
/// operator: it does not replace the operator's, and is not set again after an operator has removed
/// it.
#[derive(Debug, Default)]
pub(super) struct Overrides {
    /// Override that the program has set.
    explicit: Option<InstanceStatus>,
    /// True if the status or the health makes the instance OUT_OF_SERVICE.
    out_of_service: bool,
    /// True if an override is removed although none is known.
    removal: bool,
    /// Own override that the registry has accepted.
    confirmed: Option<Confirmed>,
    operator: Option<InstanceStatus>,
    /// True if an operator has removed the own override.
    yielded: bool,
}

#[derive(Debug)]
struct Confirmed {
    status: InstanceStatus,
    /// Server that accepted it.
    server: Option<Arc<str>>,
    /// False if the server may have ignored it, since it is equal to the own status. It is then set
    /// again when the own status changes.
    is_stored: bool,
}

/// Step that the registry lacks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Due {
    Set(InstanceStatus),
    Remove,
}

impl Overrides {
    /// Returns the override that the instance wants.
    pub(super) fn wanted(&self) -> Option<InstanceStatus> {
        self.explicit.or(self.out_of_service.then_some(InstanceStatus::OutOfService))
    }

    pub(super) fn set_explicit(&mut self, status: Option<InstanceStatus>) {
        self.explicit = status;
        self.removal = status.is_none();
        self.force();
    }

    pub(super) fn set_out_of_service(&mut self, out_of_service: bool) {
        self.out_of_service = out_of_service;
        if self.wanted().is_none() {
            self.yielded = false;
        }
    }

    /// Permits the program to replace an operator's override.
    pub(super) fn force(&mut self) {
        self.operator = None;
        self.yielded = false;
    }

    /// Returns the next step, which is sent once the instance is registered with its own status.
    pub(super) fn due(&self, own: InstanceStatus) -> Option<Due> {
        let confirmed = self.confirmed.as_ref();
        let has = |wanted| confirmed.is_some_and(|it| it.status == wanted && (it.is_stored || wanted == own));
        match self.wanted() {
            Some(wanted) if has(wanted) || self.yielded || self.operator.is_some() => None,
            Some(wanted) => Some(Due::Set(wanted)),
            None if confirmed.is_some() || self.removal => Some(Due::Remove),
            None => None,
        }
    }

    /// Records that the registry has accepted a step, while it had the instance with its own
    /// status.
    pub(super) fn done(&mut self, due: Due, own: InstanceStatus, server: Option<Arc<str>>) {
        match due {
            Due::Set(status) => self.confirmed = Some(Confirmed { status, server, is_stored: status != own }),
            Due::Remove => (self.confirmed, self.removal, self.operator) = (None, false, None),
        }
    }

    /// Records that the registry has an override that an earlier process of this instance has set.
    pub(super) fn recall(&mut self, status: InstanceStatus) {
        self.confirmed = Some(Confirmed { status, server: None, is_stored: true });
    }

    /// Records that the registry has lost the record, so that the own override is set again.
    pub(super) fn lost(&mut self) {
        self.confirmed = None;
    }

    /// Returns the override that the instance wants, unless an operator has replaced or removed it.
    pub(super) fn own(&self) -> Option<InstanceStatus> {
        self.wanted().filter(|_| !self.yielded && self.operator.is_none())
    }

    /// Returns the override with which a lost record is registered again.
    pub(super) fn carried(&self) -> Option<InstanceStatus> {
        self.operator.or_else(|| self.own())
    }

    /// Returns `true` if the registry has an override of the instance, as far as is known.
    pub(super) fn is_some(&self) -> bool {
        self.operator.is_some() || self.confirmed.is_some()
    }

    /// Returns the override in force.
    pub(super) fn effective(&self) -> Option<InstanceStatus> {
        self.operator.or(self.confirmed.as_ref().map(|confirmed| confirmed.status))
    }

    /// Compares with the override that a server's record has. Returns the operator's new override
    /// if an operator has changed it.
    pub(super) fn see(
        &mut self,
        seen: Option<InstanceStatus>,
        server: Option<&Arc<str>>,
    ) -> Option<Option<InstanceStatus>> {
        let before = self.operator;
        match (seen, self.confirmed.take()) {
            (Some(seen), Some(confirmed)) if seen == confirmed.status => {
                self.operator = None;
                self.confirmed = Some(Confirmed { is_stored: true, ..confirmed });
            }
            (Some(seen), _) => self.operator = Some(seen),
            (None, Some(confirmed)) if !confirmed.is_stored => {
                self.operator = None;
                self.confirmed = Some(confirmed);
            }
            (None, Some(confirmed)) => {
                self.operator = None;
                // Another server may only have missed the override.
                self.yielded = confirmed.server.as_ref() == server;
                if self.yielded {
                    return Some(None);
                }
            }
            (None, None) => self.operator = None,
        }
        (self.operator != before).then_some(self.operator)
    }
}

#[cfg(test)]
mod tests {
    use InstanceStatus::{Down, OutOfService, Up};

    use super::*;

    fn server(name: &str) -> Option<Arc<str>> {
        Some(name.into())
    }

    fn confirmed() -> Overrides {
        let mut overrides = Overrides::default();
        overrides.set_out_of_service(true);
        assert_eq!(overrides.due(Up), Some(Due::Set(OutOfService)));
        overrides.done(Due::Set(OutOfService), Up, server("a"));
        assert_eq!(overrides.due(Up), None);
        overrides
    }

    #[test]
    fn own_override_is_set_once_and_removed() {
        let mut overrides = confirmed();
        assert_eq!(overrides.see(Some(OutOfService), server("a").as_ref()), None);
        overrides.set_out_of_service(false);
        assert_eq!(overrides.due(Up), Some(Due::Remove));
        overrides.done(Due::Remove, Up, server("a"));
        assert_eq!((overrides.due(Up), overrides.effective()), (None, None));
    }

    #[test]
    fn own_override_that_the_registry_lost_is_carried_and_set_again() {
        let mut overrides = confirmed();
        overrides.lost();
        assert_eq!((overrides.carried(), overrides.due(Up)), (Some(OutOfService), Some(Due::Set(OutOfService))));
        let mut overrides = confirmed();
        assert_eq!(overrides.see(None, server("b").as_ref()), None, "another server missed it");
        assert_eq!(overrides.due(Up), Some(Due::Set(OutOfService)));
    }

    #[test]
    fn override_of_an_earlier_process_is_removed_unless_it_is_wanted() {
        let mut overrides = Overrides::default();
        overrides.recall(OutOfService);
        assert_eq!((overrides.due(Up), overrides.own()), (Some(Due::Remove), None));
        overrides.set_out_of_service(true);
        assert_eq!((overrides.due(Up), overrides.own()), (None, Some(OutOfService)));
        assert_eq!(overrides.see(Some(OutOfService), server("a").as_ref()), None);
        overrides.set_explicit(Some(Down));
        assert_eq!(overrides.due(Up), Some(Due::Set(Down)));
    }

    #[test]
    fn operator_has_precedence_over_the_health() {
        let mut overrides = confirmed();
        assert_eq!(overrides.see(Some(Up), server("a").as_ref()), Some(Some(Up)));
        assert_eq!((overrides.due(Up), overrides.effective()), (None, Some(Up)));
        overrides.set_out_of_service(false);
        assert_eq!(overrides.due(Up), None, "the operator's is not removed");
        let mut overrides = confirmed();
        assert_eq!(overrides.see(None, server("a").as_ref()), Some(None));
        assert_eq!((overrides.due(Up), overrides.carried()), (None, None), "an operator has removed it");
        overrides.set_out_of_service(false);
        overrides.set_out_of_service(true);
        assert_eq!(overrides.due(Up), Some(Due::Set(OutOfService)));
    }

    #[test]
    fn operator_is_seen_once_kept_and_carried() {
        let mut overrides = Overrides::default();
        assert_eq!(overrides.see(Some(Down), None), Some(Some(Down)));
        assert_eq!(overrides.see(Some(Down), None), None);
        overrides.lost();
        assert_eq!(overrides.carried(), Some(Down));
        assert_eq!(overrides.see(None, None), Some(None));
        assert_eq!(overrides.due(Up), None);
    }

    #[test]
    fn call_of_the_program_replaces_an_operators_override() {
        let mut overrides = Overrides::default();
        overrides.see(Some(Down), None);
        overrides.set_explicit(Some(OutOfService));
        assert_eq!(overrides.due(Up), Some(Due::Set(OutOfService)));
        overrides.see(Some(Down), None);
        overrides.set_explicit(None);
        assert_eq!(overrides.due(Up), Some(Due::Remove));
    }

    #[test]
    fn override_equal_to_the_own_status_is_set_again_when_that_changes() {
        let mut overrides = Overrides::default();
        overrides.set_explicit(Some(Down));
        overrides.done(Due::Set(Down), Down, server("a"));
        assert_eq!(overrides.see(None, server("a").as_ref()), None, "the server has ignored it");
        assert_eq!((overrides.due(Down), overrides.due(Up)), (None, Some(Due::Set(Down))));
        assert_eq!(overrides.see(Some(Down), server("a").as_ref()), None, "it replaced another one");
        assert_eq!(overrides.due(Up), None);
    }
}
