//! Decodes the instances of a list. What equals a known instance or an instance before is not
//! decoded again.

use std::sync::Arc;

use super::common::Common;
use super::known::Known;
use super::split::Members;
use super::template::Template;
use crate::model::Instance;
use crate::model::fingerprint::Masked;

/// Bytes of a record beside its instance: references to it, counters and its placeholder.
const RECORD: usize = 32;

/// Instances of a list, in the order of the document.
#[derive(Debug, Default)]
pub(super) struct Records {
    pub(super) instances: Vec<Arc<Instance>>,
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

    /// Adds an instance.
    pub(super) fn add(&mut self, bytes: &[u8], members: Members<'_>) -> Result<(), serde_json::Error> {
        let masked = Masked::of(bytes);
        let instance = match self.known.get(masked.hash) {
            Some(known) => {
                self.is_template_latest = false;
                known.clone()
            }
            None => self.decode(bytes, members, &masked)?,
        };
        self.memory += RECORD;
        self.instances.push(instance);
        Ok(())
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
        let is_like_template = like_template.is_some();
        let (instance, decoded) = match like_template {
            Some(decoded) => decoded,
            None => {
                let mut instance = serde_json::from_slice(bytes)?;
                self.common.share(&mut instance);
                (instance, bytes.len())
            }
        };
        self.memory += RECORD + size_of::<Instance>() + decoded;
        let renewed = instance.lease.map(|lease| lease.last_renewal_timestamp);
        let is_exact = masked.renewed.is_none() || masked.renewed == renewed;
        instance.fingerprint.set(Some(masked.hash).filter(|_| is_exact && !instance.app.is_empty()));
        let instance = Arc::new(instance);
        match &mut self.template {
            Some(template) if is_like_template => template.replace(&instance),
            template => *template = Template::new(bytes, members, &instance),
        }
        self.is_template_latest = true;
        Ok(instance)
    }
}
