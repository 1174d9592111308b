//! Which status counts: the instance's own, an operator's, or the one that was there before. `server-behaviour` 1.5, without ASG.

use super::Origin;
use crate::model::InstanceStatus::{self, OutOfService, Up};

/// The first rule that matches decides.
pub(super) fn status(
    candidate: InstanceStatus,
    overridden: Option<InstanceStatus>,
    previous: Option<InstanceStatus>,
    origin: Origin,
) -> InstanceStatus {
    // An instance that says it can't take calls is believed.
    if !matches!(candidate, Up | OutOfService) {
        return candidate;
    }
    if let Some(status) = overridden {
        return status;
    }
    // A client can't take itself in or out of service by registering again: that may be an operator's doing.
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
    fn first_match_wins() {
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
