//! Rules for the status of an instance. See `docs/server.md`, "Order of the status rules".

use crate::model::InstanceStatus::{self, OutOfService, Up};
use crate::server::outcome::Origin;

/// Returns the status by the first rule that matches.
pub(super) fn status(
    candidate: InstanceStatus,
    overridden: Option<InstanceStatus>,
    previous: Option<InstanceStatus>,
    origin: Origin,
) -> InstanceStatus {
    // An instance that reports that it cannot take calls is always shown so.
    if !matches!(candidate, Up | OutOfService) {
        return candidate;
    }
    if let Some(status) = overridden {
        return status;
    }
    // A registration cannot change between UP and OUT_OF_SERVICE, since an operator may have set
    // the status.
    match previous {
        Some(status @ (Up | OutOfService)) if origin == Origin::Client => status,
        _ => candidate,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::InstanceStatus::{Down, Starting, Unknown};
    use Origin::{Client, Replica};

    #[test]
    fn first_matching_rule_decides_the_status() {
        for (candidate, overridden, previous, origin, expected) in [
            (Down, Some(Up), Some(Up), Client, Down),
            (Starting, Some(OutOfService), Some(Up), Replica, Starting),
            (Unknown, Some(Up), None, Client, Unknown),
            (Up, Some(OutOfService), Some(Up), Client, OutOfService),
            (Up, Some(OutOfService), None, Replica, OutOfService),
            (OutOfService, Some(Up), Some(OutOfService), Client, Up),
            (Up, Some(Unknown), None, Client, Unknown),
            (OutOfService, None, Some(Up), Client, Up),
            (Up, None, Some(OutOfService), Client, OutOfService),
            (OutOfService, None, Some(Up), Replica, OutOfService),
            (Up, None, Some(Down), Client, Up),
            (Up, None, Some(Starting), Client, Up),
            (OutOfService, None, Some(Unknown), Client, OutOfService),
            (OutOfService, None, None, Client, OutOfService),
        ] {
            let actual = status(candidate, overridden, previous, origin);
            assert_eq!(actual, expected, "{candidate} {overridden:?} {previous:?} {origin:?}");
        }
    }
}
