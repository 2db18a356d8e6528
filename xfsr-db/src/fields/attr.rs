//! Blocks of attribute forks.

use super::dir::{INFO, node};
use crate::field::{Def, Lines, Link, Scalar, Show, chars, dec, hex, number, place};
use libxfsr::format::attr::{AttrFlags, AttrLeaf, REMOTE_MAGIC, Value};
use libxfsr::format::da::NODE_MAGIC;
use libxfsr::format::part;
use libxfsr::units::FileBlock;
use zerocopy::IntoBytes as _;

const REMOTE: &[Def] = &[
    ("hdr.magic", 0, Show::Hex(4)),
    ("hdr.offset", 4, Show::Dec(4)),
    ("hdr.bytes", 8, Show::Dec(4)),
    ("hdr.crc", 12, Show::Crc),
    ("hdr.uuid", 16, Show::Uuid),
    ("hdr.owner", 32, Show::Ino),
    ("hdr.bno", 40, Show::Dec(8)),
    ("hdr.lsn", 48, Show::Hex(8)),
];
const LEAF: &[Def] = &[
    ("count", 56, Show::Dec(2)),
    ("usedbytes", 58, Show::Dec(2)),
    ("firstused", 60, Show::Dec(2)),
    ("holes", 62, Show::Dec(1)),
];

pub(super) fn block(out: &mut Lines, bytes: &[u8]) {
    if number(bytes, 0, 4) == Some(u64::from(REMOTE_MAGIC)) {
        out.table("", bytes, REMOTE);
        let value = part::payload(bytes).map_or(&[][..], |p| p.1);
        out.one("data", chars(value).chars_in(bytes, value));
    } else if number(bytes, 8, 2) == Some(u64::from(NODE_MAGIC)) {
        node(out, bytes, "hdr.", "btree", |b| Link::Attr(FileBlock(b)));
    } else {
        leaf(out, bytes);
    }
}

fn leaf(out: &mut Lines, bytes: &[u8]) {
    out.table("hdr.", bytes, INFO);
    out.table("hdr.", bytes, LEAF);
    let Some(leaf) = AttrLeaf::from_bytes(bytes) else { return };
    let free = leaf.header.freemap.iter().zip((64..).step_by(4));
    let free =
        free.map(|(f, at)| vec![dec(u64::from(f.base.get())).at(at, 2), dec(u64::from(f.size.get())).at(at + 2, 2)]);
    out.rows("hdr.freemap", 0, &["base", "size"], free.collect());
    let parents = leaf.entries.iter().any(|e| e.flags & AttrFlags::PARENT.bits() != 0);
    let first = place(bytes, leaf.entries.as_bytes()).unwrap_or(80);
    let rows = leaf.entries.iter().zip((first..).step_by(8)).map(|(e, at)| {
        let flag = |f: AttrFlags| {
            let shown = dec(u64::from(e.flags & f.bits() != 0));
            shown.of_bits((at + 6) * 8 + f.bits().leading_zeros() as usize, 1)
        };
        let mut row = vec![
            hex(u64::from(e.hashval.get())).at(at, 4),
            dec(u64::from(e.nameidx.get())).at(at + 4, 2),
            flag(AttrFlags::INCOMPLETE),
            flag(AttrFlags::ROOT),
            flag(AttrFlags::SECURE),
            flag(AttrFlags::LOCAL),
        ];
        if parents {
            row.push(flag(AttrFlags::PARENT));
        }
        row
    });
    const COLUMNS: &[&str] = &["hashval", "nameidx", "incomplete", "root", "secure", "local", "parent"];
    let columns = if parents { COLUMNS } else { COLUMNS.split_last().map_or(COLUMNS, |c| c.1) };
    out.rows("entries", 0, columns, rows.collect());
    for (i, a) in leaf.attrs().enumerate() {
        let Ok(a) = a else { continue };
        let p = format!("nvlist[{i}].");
        match a.value {
            Value::Local(v) => {
                let at = place(bytes, a.name).unwrap_or(0).saturating_sub(3);
                out.one(format!("{p}valuelen"), dec(v.len() as u64).at(at, 2));
                out.one(format!("{p}namelen"), dec(a.name.len() as u64).at(at + 2, 1));
                out.one(format!("{p}name"), chars(a.name).chars_in(bytes, a.name));
                if !v.is_empty() {
                    out.one(format!("{p}value"), chars(v).chars_in(bytes, v));
                }
            }
            Value::Remote { block, length } => {
                let to = Link::Attr(FileBlock(u64::from(block)));
                let at = place(bytes, a.name).unwrap_or(0).saturating_sub(9);
                out.one(format!("{p}valueblk"), Scalar { link: to, ..hex(u64::from(block)) }.at(at, 4));
                out.one(format!("{p}valuelen"), dec(u64::from(length)).at(at + 4, 4));
                out.one(format!("{p}namelen"), dec(a.name.len() as u64).at(at + 8, 1));
                out.one(format!("{p}name"), chars(a.name).chars_in(bytes, a.name));
            }
        }
    }
}
