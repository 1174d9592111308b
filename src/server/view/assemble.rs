//! Assembles response bodies from encoded parts.

use std::sync::Arc;

use bytes::Bytes;

use super::application::AppView;
use super::envelope::Envelope;
use super::form::{Encoding, Form, Variant};
use super::gzip::{Block, Member};
use crate::model::{Digest, StatusCounts};

/// Returns the body of a list of applications.
pub(in crate::server) fn applications(
    version: i64,
    counts: &StatusCounts,
    views: &[Arc<AppView>],
    variant: Variant,
) -> Bytes {
    let envelope = Envelope::applications(variant.form, version, counts);
    assemble(&envelope, views, variant)
}

/// Returns the digest of these applications.
pub(in crate::server) fn digest(views: &[Arc<AppView>]) -> Digest {
    views.iter().flat_map(|view| &view.records).map(|record| record.digest()).collect()
}

/// Returns the body that holds one application as the root of the document.
pub(in crate::server) fn application(view: &Arc<AppView>, variant: Variant) -> Bytes {
    if let Some(envelope) = Envelope::document(variant.form) {
        return assemble(&envelope, std::slice::from_ref(view), variant);
    }
    let text = document(view);
    match variant.encoding {
        Encoding::Identity => text.into(),
        Encoding::Gzip => {
            let block = Block::compress(&text);
            let mut member = Member::with_capacity_for(std::iter::once(&block));
            member.block(&block);
            member.finish()
        }
    }
}

/// Encodes a document that shares no part with the lists.
#[cfg(feature = "xml")]
fn document(view: &AppView) -> Vec<u8> {
    let mut writer = crate::model::xml::Writer::at(0);
    writer.application(&view.name, view.records.iter().map(|record| &*record.instance));
    writer.finish()
}

#[cfg(not(feature = "xml"))]
fn document(_: &AppView) -> Vec<u8> {
    unreachable!("every JSON document is assembled from the parts of a list")
}

fn assemble(envelope: &Envelope, views: &[Arc<AppView>], Variant { form, encoding }: Variant) -> Bytes {
    match encoding {
        Encoding::Identity => {
            let applications = views.iter().map(|view| capacity(view, form)).sum::<usize>();
            let mut out = Vec::with_capacity(envelope.open.len() + applications + envelope.close.len());
            out.extend_from_slice(&envelope.open);
            for (i, view) in views.iter().enumerate() {
                if i > 0 {
                    out.extend_from_slice(envelope.between);
                }
                write_application(view, form, &mut out);
            }
            out.extend_from_slice(&envelope.close);
            out.into()
        }
        Encoding::Gzip => {
            let mut member = Member::with_capacity_for(views.iter().map(|view| deflated(view, form)));
            member.text(&envelope.open);
            for (i, view) in views.iter().enumerate() {
                if i > 0 {
                    member.text(envelope.between);
                }
                member.block(deflated(view, form));
            }
            member.text(&envelope.close);
            member.finish()
        }
    }
}

fn deflated(view: &AppView, form: Form) -> &Block {
    view.blocks.deflated.of(form).get_or_init(|| {
        let mut text = Vec::with_capacity(capacity(view, form));
        write_application(view, form, &mut text);
        Block::compress(&text)
    })
}

fn write_application(view: &AppView, form: Form, out: &mut Vec<u8>) {
    let envelope = Envelope::application(form, &view.name);
    out.extend_from_slice(&envelope.open);
    for (i, record) in view.records.iter().enumerate() {
        if i > 0 {
            out.extend_from_slice(envelope.between);
        }
        out.extend_from_slice(record.fragment.get(form, &record.instance));
    }
    out.extend_from_slice(&envelope.close);
}

fn capacity(view: &AppView, form: Form) -> usize {
    let fragments = view.records.iter().map(|record| record.fragment.get(form, &record.instance).len() + 1);
    view.name.len() + 64 + fragments.sum::<usize>()
}
