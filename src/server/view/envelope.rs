//! Text around the encoded parts of a body.
//!
//! An assembled body equals, byte for byte, what [`model`](crate::model) encodes in one pass.

use super::form::Form;
#[cfg(feature = "xml")]
use crate::model::xml;
use crate::model::{Instance, StatusCounts, compact};

/// Text before, between and after a sequence of encoded parts.
pub(super) struct Envelope {
    pub(super) open: Vec<u8>,
    pub(super) between: &'static [u8],
    pub(super) close: Vec<u8>,
}

impl Envelope {
    fn new(open: impl Into<Vec<u8>>, between: &'static [u8], close: impl Into<Vec<u8>>) -> Self {
        Self { open: open.into(), between, close: close.into() }
    }

    /// Returns the envelope of a list of applications. Version and hash come last in the compact
    /// forms, and first in the others.
    ///
    /// The compact forms have no member `registeredApplicationsEmpty`: a Spring server writes none,
    /// and strict readers fail on it (quirk P7).
    pub(super) fn applications(form: Form, version: i64, counts: &StatusCounts) -> Self {
        match form {
            Form::Json => Self::new(
                format!(
                    r#"{{"applications":{{"versions__delta":"{version}","apps__hashcode":"{counts}","application":["#
                ),
                b",",
                "]}}",
            ),
            Form::CompactJson => Self::new(
                r#"{"applications":{"application":["#,
                b",",
                format!(r#"],"versions__delta":"{version}","apps__hashcode":"{counts}"}}}}"#),
            ),
            #[cfg(feature = "xml")]
            Form::Xml => Self::new(
                format!(
                    "<applications>\n  <versions__delta>{version}</versions__delta>\n  <apps__hashcode>{counts}</apps__hashcode>"
                ),
                b"",
                "\n</applications>",
            ),
            #[cfg(feature = "xml")]
            Form::CompactXml => Self::new(
                "<applications>",
                b"",
                format!(
                    "<versions__delta>{version}</versions__delta><apps__hashcode>{counts}</apps__hashcode></applications>"
                ),
            ),
        }
    }

    /// Returns the envelope of an application inside a list.
    pub(super) fn application(form: Form, name: &str) -> Self {
        match form {
            Form::Json | Form::CompactJson => {
                let name = serde_json::Value::from(name);
                Self::new(format!(r#"{{"name":{name},"instance":["#), b",", "]}")
            }
            #[cfg(feature = "xml")]
            Form::Xml => Self::xml(xml::Writer::at(1), name),
            #[cfg(feature = "xml")]
            Form::CompactXml => Self::xml(xml::Writer::on_one_line(), name),
        }
    }

    #[cfg(feature = "xml")]
    fn xml(mut writer: xml::Writer, name: &str) -> Self {
        writer.open("application");
        writer.text("name", name);
        let open = writer.len();
        writer.close("application");
        let mut text = writer.finish();
        let close = text.split_off(open);
        Self::new(text, b"", close)
    }

    /// Returns the envelope of an application that is the root of its document. `None` if its text
    /// differs from the one inside a list.
    pub(super) fn document(form: Form) -> Option<Self> {
        match form {
            Form::Json | Form::CompactJson => Some(Self::new(r#"{"application":"#, b"", "}")),
            // The indentation differs.
            #[cfg(feature = "xml")]
            Form::Xml => None,
            #[cfg(feature = "xml")]
            Form::CompactXml => Some(Self::new("", b"", "")),
        }
    }
}

/// Encodes an instance as it is written inside a list.
pub(super) fn instance(form: Form, instance: &Instance) -> Vec<u8> {
    match form {
        Form::Json => serde_json::to_vec(instance).expect("map keys are strings, and write to Vec is infallible"),
        Form::CompactJson => compact::json_instance(instance),
        #[cfg(feature = "xml")]
        Form::Xml => {
            let mut writer = xml::Writer::at(2);
            writer.instance(instance);
            writer.finish()
        }
        #[cfg(feature = "xml")]
        Form::CompactXml => xml::compact_instance(instance),
    }
}
