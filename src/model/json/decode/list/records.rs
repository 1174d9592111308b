//! Decodes the instances of a list. What equals a known instance or an instance before is not
//! decoded again.

use std::sync::Arc;

use memchr::memmem;

use super::super::repair::repaired;
use super::common::Common;
use super::known::Known;
use super::split::Members;
use super::template::Template;
use crate::model::Instance;
use crate::model::fingerprint::Masked;
use crate::model::lists::{Fault, Faults};

/// Bytes of a record beside its instance: references to it, counters and its placeholder.
const RECORD: usize = 32;

/// Instances of a list.
#[derive(Debug, Default)]
pub(super) struct Records {
    /// Instances in the order of the document. `None` for those that cannot be read.
    pub(super) instances: Vec<Option<Arc<Instance>>>,
    pub(super) faults: Faults,
    known: Known,
    template: Option<Template>,
    /// `true` if the template is the latest instance.
    is_template_latest: bool,
    common: Common,
    /// Estimated bytes of memory that the decoded instances take, without metadata.
    memory: usize,
}

impl Records {
    pub(super) fn new(known: Known) -> Self {
        Self { known, ..Self::default() }
    }

    /// Returns the estimated bytes of memory that the decoded instances take.
    pub(super) fn memory(&self) -> usize {
        self.memory.saturating_add(self.common.memory)
    }

    /// Adds an instance. One that cannot be read or has no id is skipped.
    pub(super) fn add(&mut self, bytes: &[u8], members: Members<'_>) {
        let masked = Masked::of(bytes);
        let instance = match self.known.get(masked.hash) {
            Some(known) => {
                self.is_template_latest = false;
                Some(known.clone())
            }
            None => {
                let decoded = match self.decode(bytes, members, &masked) {
                    Ok(instance) => Some(instance),
                    Err(error) => self.repair(&error, bytes, members, &masked),
                };
                decoded.filter(|instance| self.faults.is_identified(instance, instance.app()))
            }
        };
        self.memory += RECORD;
        self.instances.push(instance);
    }

    fn decode(
        &mut self,
        bytes: &[u8],
        members: Members<'_>,
        masked: &Masked,
    ) -> Result<Arc<Instance>, serde_json::Error> {
        let like_template = match &self.template {
            Some(template) => template.decode(bytes, members, self.is_template_latest, &mut self.common)?,
            None => None,
        };
        Ok(match like_template {
            Some((instance, size)) => {
                let instance = self.complete(instance, size, masked);
                if let Some(template) = &mut self.template {
                    template.replace(&instance);
                }
                instance
            }
            None => self.parse(bytes, bytes, members, masked)?,
        })
    }

    /// Decodes an instance that is not like the template from a text, which has the meaning of its
    /// bytes.
    fn parse(
        &mut self,
        text: &[u8],
        bytes: &[u8],
        members: Members<'_>,
        masked: &Masked,
    ) -> Result<Arc<Instance>, serde_json::Error> {
        let mut instance = serde_json::from_slice(text)?;
        self.common.share(&mut instance);
        let instance = self.complete(instance, text.len(), masked);
        self.template = Template::new(bytes, members, &instance);
        Ok(instance)
    }

    /// Completes an instance of which this number of bytes was decoded. It becomes the template.
    fn complete(&mut self, instance: Instance, decoded: usize, masked: &Masked) -> Arc<Instance> {
        self.memory += RECORD + size_of::<Instance>() + decoded;
        let renewed = instance.lease.map(|lease| lease.last_renewal_timestamp);
        let is_exact = masked.renewed.is_none() || masked.renewed == renewed;
        instance.fingerprint.set(Some(masked.hash).filter(|_| is_exact && !instance.app.is_empty()));
        self.is_template_latest = true;
        Arc::new(instance)
    }

    /// Decodes an instance that is not JSON after a repair. Returns `None` if it cannot be decoded
    /// then either.
    fn repair(
        &mut self,
        error: &serde_json::Error,
        bytes: &[u8],
        members: Members<'_>,
        masked: &Masked,
    ) -> Option<Arc<Instance>> {
        let fault = |app: &str, id: &str| Fault {
            app: app.into(),
            id: id.into(),
            reason: error.to_string(),
            version: masked.hash,
        };
        let repaired = repaired(bytes);
        match repaired.and_then(|repaired| self.parse(&repaired, bytes, members, masked).ok()) {
            Some(instance) => {
                self.faults.repair(|| fault(instance.app(), instance.id()));
                Some(instance)
            }
            None => {
                // The splitter compares the next instance with this one.
                self.is_template_latest = false;
                self.faults.skip(|| fault(&text_of(bytes, "app"), &text_of(bytes, "instanceId")));
                None
            }
        }
    }
}

/// Returns the text of a member of an instance that cannot be read, for a log line. Empty if there
/// is none.
fn text_of(bytes: &[u8], name: &str) -> String {
    let text = || {
        let start = memmem::find(bytes, format!("\"{name}\"").as_bytes())? + name.len() + 2;
        let value = bytes[start..].trim_ascii_start().strip_prefix(b":")?.trim_ascii_start().strip_prefix(b"\"")?;
        let end = value.iter().position(|byte| *byte == b'"')?;
        Some(String::from_utf8_lossy(&value[..end]).into_owned())
    };
    text().unwrap_or_default()
}
