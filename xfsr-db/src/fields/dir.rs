//! Blocks of directories.

use crate::field::{Def, Lines, Link, Scalar, Show, chars, dec, hex, link, number, place};
use libxfsr::format::da::NODE_MAGIC;
use libxfsr::format::dir::{self, BLOCK_MAGIC, DATA_MAGIC, DataItem, FREE_MAGIC, Free, LeafEntry};
use libxfsr::units::FileBlock;
use libxfsr::volume::Volume;
use zerocopy::IntoBytes as _;

const HEADER: &[Def] = &[
    ("hdr.magic", 0, Show::Hex(4)),
    ("hdr.crc", 4, Show::Crc),
    ("hdr.bno", 8, Show::Dec(8)),
    ("hdr.lsn", 16, Show::Hex(8)),
    ("hdr.uuid", 24, Show::Uuid),
    ("hdr.owner", 40, Show::Ino),
];
const BEST_FREE: &[Def] = &[
    ("bestfree[0].offset", 48, Show::Hex(2)),
    ("bestfree[0].length", 50, Show::Hex(2)),
    ("bestfree[1].offset", 52, Show::Hex(2)),
    ("bestfree[1].length", 54, Show::Hex(2)),
    ("bestfree[2].offset", 56, Show::Hex(2)),
    ("bestfree[2].length", 58, Show::Hex(2)),
];
/// Header of index blocks, of attributes too.
pub(super) const INFO: &[Def] = &[
    ("info.hdr.forw", 0, Show::Dec(4)),
    ("info.hdr.back", 4, Show::Dec(4)),
    ("info.hdr.magic", 8, Show::Hex(2)),
    ("info.crc", 12, Show::Crc),
    ("info.bno", 16, Show::Dec(8)),
    ("info.lsn", 24, Show::Hex(8)),
    ("info.uuid", 32, Show::Uuid),
    ("info.owner", 48, Show::Ino),
];
const FREE: &[Def] = &[("firstdb", 48, Show::Dec(4)), ("nvalid", 52, Show::Dec(4)), ("nused", 56, Show::Dec(4))];

pub(super) fn block(out: &mut Lines, volume: &Volume, bytes: &[u8]) {
    let magic = number(bytes, 0, 4).and_then(|v| u32::try_from(v).ok());
    match magic {
        Some(BLOCK_MAGIC) => data(out, volume, bytes, "b"),
        Some(DATA_MAGIC) => data(out, volume, bytes, "d"),
        Some(FREE_MAGIC) => {
            out.table("fhdr.", bytes, HEADER);
            out.table("fhdr.", bytes, FREE);
            let bests = Free::from_bytes(bytes).map_or(&[][..], |f| f.bests);
            let first = place(bytes, bests.as_bytes()).unwrap_or(64);
            let bests = bests.iter().zip((first..).step_by(2));
            out.list("fbests", 0, bests.map(|(b, at)| best(u64::from(b.get())).at(at, 2)).collect(), true);
        }
        _ if number(bytes, 8, 2) == Some(u64::from(NODE_MAGIC)) => {
            node(out, bytes, "nhdr.", "nbtree", |b| Link::Data(FileBlock(b)));
        }
        _ => leaf(out, bytes),
    }
}

/// Longest free piece of a data block; a full one is not shown.
fn best(v: u64) -> Scalar {
    Scalar { null: v == 0, ..hex(v) }
}

/// A node of an index.
pub(super) fn node(out: &mut Lines, bytes: &[u8], header: &str, entries: &str, to: fn(u64) -> Link) {
    out.table(header, bytes, INFO);
    out.table(header, bytes, &[("count", 56, Show::Dec(2)), ("level", 58, Show::Dec(2))]);
    let count = number(bytes, 56, 2).unwrap_or(0) as usize;
    let body = bytes.get(64..).unwrap_or(&[]);
    let row = |(b, at): (&[u8], usize)| {
        let before = number(b, 4, 4).unwrap_or(0);
        let before = Scalar { link: to(before), ..dec(before) };
        vec![hex(number(b, 0, 4).unwrap_or(0)).at(at, 4), before.at(at + 4, 4)]
    };
    let body = body.chunks_exact(8).take(count).zip((64..).step_by(8));
    out.rows(entries, 0, &["hashval", "before"], body.map(row).collect());
}

fn leaf_entries(out: &mut Lines, name: &str, bytes: &[u8], entries: &[LeafEntry]) {
    let first = place(bytes, entries.as_bytes()).unwrap_or(64);
    for ((i, e), at) in entries.iter().enumerate().zip((first..).step_by(8)) {
        out.one(format!("{name}[{i}].hashval"), hex(u64::from(e.hashval.get())).at(at, 4));
        out.one(format!("{name}[{i}].address"), hex(u64::from(e.address.get())).at(at + 4, 4));
    }
}

fn leaf(out: &mut Lines, bytes: &[u8]) {
    out.table("lhdr.", bytes, INFO);
    out.table("lhdr.", bytes, &[("count", 56, Show::Dec(2)), ("stale", 58, Show::Dec(2))]);
    if let Some(l) = dir::Leaf::from_bytes(bytes) {
        let first = place(bytes, l.bests.as_bytes()).unwrap_or(0);
        let bests = l.bests.iter().zip((first..).step_by(2));
        out.list("lbests", 0, bests.map(|(b, at)| hex(u64::from(b.get())).at(at, 2)).collect(), false);
        leaf_entries(out, "lents", bytes, l.entries);
        if !l.bests.is_empty() {
            out.one("ltail.bestcount", dec(l.bests.len() as u64).at(bytes.len().saturating_sub(4), 4));
        }
    }
}

fn data(out: &mut Lines, volume: &Volume, bytes: &[u8], prefix: &str) {
    let header = format!("{prefix}hdr.");
    out.table(&header, bytes, HEADER);
    out.table(&header, bytes, BEST_FREE);
    let ftype = volume.geometry.features.ftype();
    for (i, item) in dir::items(bytes, &volume.geometry).map_while(Result::ok).enumerate() {
        let p = format!("{prefix}u[{i}].");
        let end = match item {
            DataItem::Entry(e) => {
                out.one(format!("{p}inumber"), link(e.ino.0, 8, Link::Ino(e.ino.0)).at(e.offset, 8));
                out.one(format!("{p}namelen"), dec(e.name.len() as u64).at(e.offset + 8, 1));
                out.one(format!("{p}name"), chars(e.name).chars_in(bytes, e.name));
                if ftype {
                    out.one(format!("{p}filetype"), dec(u64::from(e.ftype)).at(e.offset + 9 + e.name.len(), 1));
                }
                e.offset + dir::entry_size(e.name.len(), ftype)
            }
            DataItem::Unused { offset, length } => {
                out.table(&p, bytes, &[("freetag", offset, Show::Hex(2)), ("length", offset + 2, Show::Hex(2))]);
                if ftype {
                    // Observed: xfs_db shows a kind of file here too, and takes the first byte of the tag for it.
                    out.table(&p, bytes, &[("filetype", (offset + length).saturating_sub(2), Show::Dec(1))]);
                }
                offset + length
            }
        };
        out.table(&p, bytes, &[("tag", end.saturating_sub(2), Show::Hex(2))]);
    }
    if let (true, Some((_, entries))) = (prefix == "b", dir::block_leaf(bytes)) {
        leaf_entries(out, "bleaf", bytes, entries);
        let tail = bytes.len().saturating_sub(8);
        out.table("btail.", bytes, &[("count", tail, Show::Dec(4)), ("stale", tail + 4, Show::Dec(4))]);
    }
}
