//! Access control: who may do what.
//!
//! Everything but the tasks that read files is free of IO. A request is authenticated and decided
//! about in `http/guard.rs`, before its body is read.
//!
//! | module | content |
//! |---|---|
//! | `settings`, `file` | settings of the user, and the file of users |
//! | `identity`, `pattern` | names, roles and applications; wildcards |
//! | `policy`, `password` | credentials of the identities, and their comparison |
//! | `credentials`, `certificate`, `jwt` | credentials of requests |
//! | `control` | authentication of requests |
//! | `verifiers` | limits of the authentications that are slow, on blocking threads |
//! | `recent`, `attempts` | cache of authentications; limit on failed ones |
//! | `decision`, `claims`, `refusal` | permissions, ownership of leases, reasons of refusals |
//! | `start`, `key_fetch` | tasks that read the files and fetch the keys again |

mod attempts;
mod certificate;
mod claims;
mod control;
mod credentials;
mod decision;
mod file;
mod identity;
#[cfg(feature = "access")]
mod jwt;
#[cfg(all(feature = "access", feature = "peers"))]
mod key_fetch;
mod password;
mod pattern;
mod policy;
mod recent;
mod refusal;
mod settings;
mod start;
#[cfg(test)]
mod tests;
mod verifiers;

pub use self::certificate::PeerCertificate;
pub(in crate::server) use self::claims::Claim;
pub(in crate::server) use self::control::{AccessControl, Authentication};
pub(in crate::server) use self::decision::{Change, Leases, Operation, Target};
pub use self::identity::{Identity, Role};
#[cfg(feature = "access")]
pub use self::jwt::JwtKeys;
pub(in crate::server) use self::refusal::Refusal;
pub use self::settings::Access;
#[cfg(feature = "access")]
pub(in crate::server) use self::settings::JwtSettings;
pub(in crate::server) use self::settings::{SpringUser, UserSettings};
pub(in crate::server) use self::start::Started;
