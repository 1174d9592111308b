//! The pieces that are encoded once, and how they are put together.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};

use bytes::Bytes;

use super::form::{PerForm, PerVariant};
use super::frame::{self, Frame};
use super::gzip::{Block, Member};
use super::slot::Slot;
use super::{Encoding, Form, Variant};
use crate::model::{Digest, StatusCounts};
use crate::server::registry::{AppView, Record};

/// An instance as it stands in a list, in each form that somebody asked for.
#[derive(Debug, Default)]
pub(in crate::server) struct Fragment(PerForm<OnceLock<Box<[u8]>>>);

/// What was encoded of an application.
#[derive(Debug)]
pub(in crate::server) struct AppBlocks {
    /// Different for each state of each application in this process.
    number: u64,
    /// The application as it stands in a list, compressed.
    deflated: PerForm<OnceLock<Block>>,
    /// The answer that holds this application alone, at the revision `number`.
    pub(super) alone: PerVariant<Slot>,
}

impl Default for AppBlocks {
    fn default() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Self { number: NEXT.fetch_add(1, Relaxed), deflated: PerForm::default(), alone: PerVariant::default() }
    }
}

impl AppBlocks {
    pub(in crate::server) fn number(&self) -> u64 {
        self.number
    }
}

/// A list of applications.
pub(super) fn applications(version: i64, counts: &StatusCounts, views: &[Arc<AppView>], variant: Variant) -> Bytes {
    let frame = Frame::applications(variant.form, version, counts);
    assemble(&frame, views, variant)
}

/// The digest of these applications.
pub(super) fn digest(views: &[Arc<AppView>]) -> Digest {
    views.iter().flat_map(|view| &view.records).map(|record| record.digest()).collect()
}

/// An application that is a document of its own.
pub(super) fn application(view: &Arc<AppView>, variant: Variant) -> Bytes {
    if let Some(frame) = Frame::document(variant.form) {
        return assemble(&frame, std::slice::from_ref(view), variant);
    }
    let text = document(view);
    match variant.encoding {
        Encoding::Identity => text.into(),
        Encoding::Gzip => {
            let block = Block::compress(&text);
            let mut member = Member::with_room_for(std::iter::once(&block));
            member.block(&block);
            member.finish()
        }
    }
}

/// The whole text, where no piece of a list is part of it.
#[cfg(feature = "xml")]
fn document(view: &AppView) -> Vec<u8> {
    let mut writer = crate::model::xml::Writer::at(0);
    writer.application(&view.name, view.records.iter().map(|record| &*record.instance));
    writer.finish()
}

#[cfg(not(feature = "xml"))]
fn document(_: &AppView) -> Vec<u8> {
    unreachable!("every JSON document is made of the pieces of a list")
}

fn assemble(frame: &Frame, views: &[Arc<AppView>], Variant { form, encoding }: Variant) -> Bytes {
    match encoding {
        Encoding::Identity => {
            let room = frame.open.len() + views.iter().map(|view| room(view, form)).sum::<usize>() + frame.close.len();
            let mut out = Vec::with_capacity(room);
            out.extend_from_slice(&frame.open);
            for (i, view) in views.iter().enumerate() {
                if i > 0 {
                    out.extend_from_slice(frame.between);
                }
                write_application(view, form, &mut out);
            }
            out.extend_from_slice(&frame.close);
            out.into()
        }
        Encoding::Gzip => {
            let mut member = Member::with_room_for(views.iter().map(|view| deflated(view, form)));
            member.text(&frame.open);
            for (i, view) in views.iter().enumerate() {
                if i > 0 {
                    member.text(frame.between);
                }
                member.block(deflated(view, form));
            }
            member.text(&frame.close);
            member.finish()
        }
    }
}

fn deflated(view: &AppView, form: Form) -> &Block {
    view.blocks.deflated.of(form).get_or_init(|| {
        let mut text = Vec::with_capacity(room(view, form));
        write_application(view, form, &mut text);
        Block::compress(&text)
    })
}

fn write_application(view: &AppView, form: Form, out: &mut Vec<u8>) {
    let frame = Frame::application(form, &view.name);
    out.extend_from_slice(&frame.open);
    for (i, record) in view.records.iter().enumerate() {
        if i > 0 {
            out.extend_from_slice(frame.between);
        }
        out.extend_from_slice(record.fragment.get(form, record));
    }
    out.extend_from_slice(&frame.close);
}

fn room(view: &AppView, form: Form) -> usize {
    let fragments = view.records.iter().map(|record| record.fragment.get(form, record).len() + 1);
    view.name.len() + 64 + fragments.sum::<usize>()
}

impl Fragment {
    fn get(&self, form: Form, record: &Record) -> &[u8] {
        self.0.of(form).get_or_init(|| frame::instance(form, &record.instance).into())
    }
}
