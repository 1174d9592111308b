//! The JSON documents around the fragments; member for member what [`model`](crate::model) encodes in one go.

use std::sync::Arc;

use bytes::Bytes;

use super::gzip::{Block, Member};
use super::{Encoding, Fragment};
use crate::model::StatusCounts;
use crate::server::registry::{AppView, Record};

/// `{"instance":` and the brace that closes it: what surrounds an instance in a document of its own.
const INSTANCE_WRAPPER: (usize, usize) = (r#"{"instance":"#.len(), "}".len());

const APPLICATION_OPEN: &[u8] = br#"{"application":"#;
const APPLICATION_CLOSE: &[u8] = b"}";
const APPLICATIONS_CLOSE: &[u8] = b"]}}";

/// `{"applications": {...}}`
pub(super) fn applications(version: i64, counts: &StatusCounts, views: &[Arc<AppView>], encoding: Encoding) -> Bytes {
    let open =
        format!(r#"{{"applications":{{"versions__delta":"{version}","apps__hashcode":"{counts}","application":["#);
    match encoding {
        Encoding::Identity => {
            let room = open.len() + views.iter().map(|view| room(view) + 1).sum::<usize>() + APPLICATIONS_CLOSE.len();
            let mut out = Vec::with_capacity(room);
            out.extend_from_slice(open.as_bytes());
            for (i, view) in views.iter().enumerate() {
                if i > 0 {
                    out.push(b',');
                }
                write_application(view, &mut out);
            }
            out.extend_from_slice(APPLICATIONS_CLOSE);
            out.into()
        }
        Encoding::Gzip => {
            let mut member = Member::with_room_for(views.iter().map(|view| deflated(view)));
            member.text(open.as_bytes());
            for (i, view) in views.iter().enumerate() {
                if i > 0 {
                    member.text(b",");
                }
                member.block(deflated(view));
            }
            member.text(APPLICATIONS_CLOSE);
            member.finish()
        }
    }
}

/// `{"application": {...}}`
pub(super) fn application(view: &AppView, encoding: Encoding) -> Bytes {
    match encoding {
        Encoding::Identity => {
            let mut out = Vec::with_capacity(APPLICATION_OPEN.len() + room(view) + APPLICATION_CLOSE.len());
            out.extend_from_slice(APPLICATION_OPEN);
            write_application(view, &mut out);
            out.extend_from_slice(APPLICATION_CLOSE);
            out.into()
        }
        Encoding::Gzip => {
            let block = deflated(view);
            let mut member = Member::with_room_for(std::iter::once(block));
            member.text(APPLICATION_OPEN);
            member.block(block);
            member.text(APPLICATION_CLOSE);
            member.finish()
        }
    }
}

fn deflated(view: &AppView) -> &Block {
    view.blocks.deflated.get_or_init(|| {
        let mut text = Vec::with_capacity(room(view));
        write_application(view, &mut text);
        Block::compress(&text)
    })
}

fn write_application(view: &AppView, out: &mut Vec<u8>) {
    out.extend_from_slice(br#"{"name":"#);
    serde_json::to_writer(&mut *out, &*view.name).expect("a text, into a Vec that takes every byte");
    out.extend_from_slice(br#","instance":["#);
    for (i, record) in view.records.iter().enumerate() {
        if i > 0 {
            out.push(b',');
        }
        out.extend_from_slice(record.fragment.get(record));
    }
    out.extend_from_slice(b"]}");
}

fn room(view: &AppView) -> usize {
    view.name.len() + 32 + view.records.iter().map(|record| record.fragment.get(record).len() + 1).sum::<usize>()
}

impl Fragment {
    fn get(&self, record: &Record) -> &Bytes {
        self.0.get_or_init(|| {
            let document = Bytes::from(record.instance.to_json());
            let (open, close) = INSTANCE_WRAPPER;
            document.slice(open..document.len() - close)
        })
    }
}
