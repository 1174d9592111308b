//! What stands around the pieces, form by form; byte for byte what [`model`](crate::model) encodes in one go.

use super::Form;
#[cfg(feature = "xml")]
use crate::model::xml;
use crate::model::{Instance, StatusCounts, compact};

/// What surrounds a sequence of pieces.
pub(super) struct Frame {
    pub(super) open: Vec<u8>,
    pub(super) between: &'static [u8],
    pub(super) close: Vec<u8>,
}

impl Frame {
    fn new(open: impl Into<Vec<u8>>, between: &'static [u8], close: impl Into<Vec<u8>>) -> Self {
        Self { open: open.into(), between, close: close.into() }
    }

    /// Frame around the applications of a list. The compact forms write last what the others write first.
    ///
    /// The compact forms have no member `registeredApplicationsEmpty`: a Spring server writes none, and strict
    /// readers fail on it (quirk P7).
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

    /// Around the instances of an application as it stands in a list.
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

    /// Around an application that is a document of its own; `None` where it is not the same text as in a list.
    pub(super) fn document(form: Form) -> Option<Self> {
        match form {
            Form::Json | Form::CompactJson => Some(Self::new(r#"{"application":"#, b"", "}")),
            // The indents differ.
            #[cfg(feature = "xml")]
            Form::Xml => None,
            #[cfg(feature = "xml")]
            Form::CompactXml => Some(Self::new("", b"", "")),
        }
    }
}

/// An instance as it stands in a list.
pub(super) fn instance(form: Form, instance: &Instance) -> Vec<u8> {
    match form {
        Form::Json => serde_json::to_vec(instance).expect("maps with text keys, and a Vec that takes every byte"),
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
