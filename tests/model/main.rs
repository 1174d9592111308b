//! What goes over the wire: what is written, what is read, and what survives a round trip.
#![allow(clippy::unwrap_used, reason = "the functions around the tests are tests, too")]

mod json;
mod properties;
mod tolerance;
#[cfg(feature = "xml")]
mod xml;
#[cfg(feature = "xml")]
mod xml_properties;
