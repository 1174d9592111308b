//! Tests of the JSON and XML forms: documents written, documents read, round trips.
#![allow(clippy::unwrap_used, reason = "helper functions of tests may panic")]

mod json;
mod properties;
mod tolerance;
#[cfg(feature = "xml")]
mod xml;
#[cfg(feature = "xml")]
mod xml_properties;
