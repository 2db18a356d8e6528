//! Btree blocks.

use crate::field::{Def, Lines, Link, Scalar, Show, dec, hex, link, number, plain};
use crate::location::Type;
use libxfsr::format::btree::{ALLOC, BMBT, INO, Layout, REFCOUNT, RMAP};
use libxfsr::volume::Volume;

const fn short_header(kind: Type) -> [Def; 10] {
    [
        ("magic", 0, Show::Hex(4)),
        ("level", 4, Show::Dec(2)),
        ("numrecs", 6, Show::Dec(2)),
        ("leftsib", 8, Show::AgBlock(kind)),
        ("rightsib", 12, Show::AgBlock(kind)),
        ("bno", 16, Show::Dec(8)),
        ("lsn", 24, Show::Hex(8)),
        ("uuid", 32, Show::Uuid),
        ("owner", 48, Show::Dec(4)),
        ("crc", 52, Show::Crc),
    ]
}

const fn long_header(kind: Type) -> [Def; 10] {
    [
        ("magic", 0, Show::Hex(4)),
        ("level", 4, Show::Dec(2)),
        ("numrecs", 6, Show::Dec(2)),
        ("leftsib", 8, Show::FsBlock(kind)),
        ("rightsib", 16, Show::FsBlock(kind)),
        ("bno", 24, Show::Dec(8)),
        ("lsn", 32, Show::Hex(8)),
        ("uuid", 40, Show::Uuid),
        ("owner", 56, Show::Ino),
        ("crc", 64, Show::Crc),
    ]
}

/// A cell of a record: how to take it from the record's bytes.
type Cell = fn(&[u8]) -> Option<Scalar>;
type Columns = (&'static [&'static str], &'static [Cell]);

fn ag_block(v: u64) -> Scalar {
    Scalar { link: Link::AgBlock(v, Type::Data), ..dec(v) }
}
fn owner(v: u64) -> Scalar {
    Scalar { link: Link::Ino(v), ..plain(v.cast_signed().to_string()) }
}
const OFFSET: u64 = (1 << 54) - 1;
fn bit(v: u64, n: u32) -> Scalar {
    dec(v >> n & 1)
}

const ALLOC_COLUMNS: Columns =
    (&["startblock", "blockcount"], &[|b| number(b, 0, 4).map(ag_block), |b| number(b, 4, 4).map(dec)]);
/// By size first.
const CNT_KEY: Columns =
    (&["blockcount", "startblock"], &[|b| number(b, 4, 4).map(dec), |b| number(b, 0, 4).map(ag_block)]);
const INO_SPARSE: Columns = (
    &["startino", "holemask", "count", "freecount", "free"],
    &[
        |b| number(b, 0, 4).map(|v| Scalar { link: Link::AgIno(v), ..dec(v) }),
        |b| number(b, 4, 2).map(hex),
        |b| number(b, 6, 1).map(dec),
        |b| number(b, 7, 1).map(dec),
        |b| number(b, 8, 8).map(hex),
    ],
);
const INO_FULL: Columns = (
    &["startino", "freecount", "free"],
    &[
        |b| number(b, 0, 4).map(|v| Scalar { link: Link::AgIno(v), ..dec(v) }),
        |b| number(b, 4, 4).map(dec),
        |b| number(b, 8, 8).map(hex),
    ],
);
const INO_KEY: Columns = (&["startino"], &[|b| number(b, 0, 4).map(|v| Scalar { link: Link::AgIno(v), ..dec(v) })]);
const RMAP_REC: Columns = (
    &["startblock", "blockcount", "owner", "offset", "extentflag", "attrfork", "bmbtblock"],
    &[
        |b| number(b, 0, 4).map(ag_block),
        |b| number(b, 4, 4).map(dec),
        |b| number(b, 8, 8).map(owner),
        |b| number(b, 16, 8).map(|v| dec(v & OFFSET)),
        |b| number(b, 16, 8).map(|v| bit(v, 61)),
        |b| number(b, 16, 8).map(|v| bit(v, 63)),
        |b| number(b, 16, 8).map(|v| bit(v, 62)),
    ],
);
const RMAP_KEY: Columns = (
    &[
        "startblock",
        "owner",
        "offset",
        "attrfork",
        "bmbtblock",
        "startblock_hi",
        "owner_hi",
        "offset_hi",
        "attrfork_hi",
        "bmbtblock_hi",
    ],
    &[
        |b| number(b, 0, 4).map(ag_block),
        |b| number(b, 4, 8).map(owner),
        |b| number(b, 12, 8).map(|v| dec(v & OFFSET)),
        |b| number(b, 12, 8).map(|v| bit(v, 63)),
        |b| number(b, 12, 8).map(|v| bit(v, 62)),
        |b| number(b, 20, 4).map(ag_block),
        |b| number(b, 24, 8).map(owner),
        |b| number(b, 32, 8).map(|v| dec(v & OFFSET)),
        |b| number(b, 32, 8).map(|v| bit(v, 63)),
        |b| number(b, 32, 8).map(|v| bit(v, 62)),
    ],
);
const REFCOUNT_REC: Columns = (
    &["startblock", "blockcount", "refcount", "cowflag"],
    &[
        |b| number(b, 0, 4).map(|v| ag_block(v & 0x7fff_ffff)),
        |b| number(b, 4, 4).map(dec),
        |b| number(b, 8, 4).map(dec),
        |b| number(b, 0, 4).map(|v| bit(v, 31)),
    ],
);
const REFCOUNT_KEY: Columns = (
    &["startblock", "cowflag"],
    &[|b| number(b, 0, 4).map(|v| ag_block(v & 0x7fff_ffff)), |b| number(b, 0, 4).map(|v| bit(v, 31))],
);
const BMAP_KEY: Columns = (&["startoff"], &[|b| number(b, 0, 8).map(dec)]);

/// A packed extent.
pub(super) const EXTENT: Columns = (
    &["startoff", "startblock", "blockcount", "extentflag"],
    &[
        |b| number(b, 0, 8).map(|v| dec(v >> 9 & OFFSET)),
        |b| {
            let v = (number(b, 0, 8)? & 0x1ff) << 43 | number(b, 8, 8)? >> 21;
            Some(Scalar { link: Link::FsBlock(v, Type::Data), ..dec(v) })
        },
        |b| number(b, 8, 8).map(|v| dec(v & 0x1f_ffff)),
        |b| number(b, 0, 8).map(|v| dec(v >> 63)),
    ],
);

/// Rows of `count` records of `size` bytes from `at` on; fewer where the bytes end.
pub(super) fn rows(bytes: &[u8], at: usize, size: usize, count: usize, columns: &Columns) -> Vec<Vec<Scalar>> {
    let body = bytes.get(at..).unwrap_or(&[]);
    body.chunks_exact(size.max(1)).take(count).map(|b| columns.1.iter().filter_map(|c| c(b)).collect()).collect()
}

fn body(
    out: &mut Lines,
    bytes: &[u8],
    layout: &Layout,
    rec: &Columns,
    key: &Columns,
    pointer: fn(u64, Type) -> Link,
    kind: Type,
) {
    let (level, numrecs) = (number(bytes, 4, 2).unwrap_or(0), number(bytes, 6, 2).unwrap_or(0) as usize);
    if level == 0 {
        out.rows(
            "recs",
            1,
            rec.0,
            rows(bytes, layout.header, layout.record, numrecs.min(layout.leaf_max(bytes.len())), rec),
        );
        return;
    }
    let max = layout.node_max(bytes.len());
    let n = numrecs.min(max);
    out.rows("keys", 1, key.0, rows(bytes, layout.header, layout.key, n, key));
    let at = layout.header + max * layout.key;
    let pointers = (0..n).filter_map(|i| number(bytes, at + i * layout.pointer, layout.pointer));
    out.list("ptrs", 1, pointers.map(|v| link(v, layout.pointer, pointer(v, kind))).collect(), false);
}

pub(super) fn short(out: &mut Lines, volume: &Volume, kind: Type, bytes: &[u8]) {
    out.table("", bytes, &short_header(kind));
    let sparse = volume.geometry.features.sparse_inodes();
    let (layout, rec, key) = match kind {
        Type::Inobt | Type::Finobt => (INO, if sparse { INO_SPARSE } else { INO_FULL }, INO_KEY),
        Type::Rmapbt => (RMAP, RMAP_REC, RMAP_KEY),
        Type::Refcntbt => (REFCOUNT, REFCOUNT_REC, REFCOUNT_KEY),
        Type::Cntbt => (ALLOC, ALLOC_COLUMNS, CNT_KEY),
        _ => (ALLOC, ALLOC_COLUMNS, ALLOC_COLUMNS),
    };
    body(out, bytes, &layout, &rec, &key, Link::AgBlock, kind);
}

pub(super) fn long(out: &mut Lines, kind: Type, bytes: &[u8]) {
    out.table("", bytes, &long_header(kind));
    body(out, bytes, &BMBT, &EXTENT, &BMAP_KEY, Link::FsBlock, kind);
}

/// Root of an extent btree in a fork.
pub(super) fn root(out: &mut Lines, prefix: &str, fork: &[u8], kind: Type) {
    out.table(prefix, fork, &[("level", 0, Show::Dec(2)), ("numrecs", 2, Show::Dec(2))]);
    let max = fork.len().saturating_sub(4) / 16;
    let n = (number(fork, 2, 2).unwrap_or(0) as usize).min(max);
    out.rows(&format!("{prefix}keys"), 1, BMAP_KEY.0, rows(fork, 4, 8, n, &BMAP_KEY));
    let pointers = (0..n).filter_map(|i| number(fork, 4 + max * 8 + i * 8, 8));
    out.list(&format!("{prefix}ptrs"), 1, pointers.map(|v| link(v, 8, Link::FsBlock(v, kind))).collect(), false);
}
