//! Immutable views of registered instances, and the encoded forms that responses are assembled
//! from.
//!
//! ```text
//!  Record ── Fragment: encoded once per form ─┐
//!                                             ├─▶ AppView ── AppBlocks: deflated, CRC-32 ─┐
//!  Record ── Fragment                         ┘                                           │
//!                                                 AppView ── AppBlocks ───────────────────┴─▶ Body
//! ```
//!
//! This module lies below all other parts of the server: the registry and the copies of other
//! regions publish [`Record`]s and [`AppView`]s, and the response cache assembles them into a
//! [`Body`]. A part is encoded when its [`Form`] is first requested, and it is dropped together
//! with the view that it belongs to. A form that nobody requests costs only empty cells.

mod application;
pub(in crate::server) mod assemble;
mod body;
mod encoded;
mod envelope;
mod form;
mod gzip;
mod record;
#[cfg(feature = "peers")]
mod region_set;
mod single_flight;
mod vips;
mod weight;

pub(in crate::server) use self::application::{AppView, Snapshot};
pub(in crate::server) use self::body::Body;
pub(in crate::server) use self::form::{Encoding, Form, PerVariant, Variant};
pub(in crate::server) use self::record::Record;
#[cfg(feature = "peers")]
pub(in crate::server) use self::region_set::RegionSet;
pub(in crate::server) use self::single_flight::{Admission, BudgetExhausted, SingleFlight};
pub(in crate::server) use self::vips::By;
pub(in crate::server) use self::weight::{APPLICATION_WEIGHT, instance_bytes, max_weight, weight};
