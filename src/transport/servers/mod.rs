//! The list of registry servers: its look-up, the spread of clients over it, and its state for
//! users.

mod lookup;
mod shuffle;
mod status;

pub(super) use self::lookup::Lookup;
pub(super) use self::shuffle::shuffle;
pub use self::status::RegistryServer;
pub(super) use self::status::{ServerChange, Urls};
