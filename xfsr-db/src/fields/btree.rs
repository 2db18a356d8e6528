//! Btree blocks.

use crate::bits::get_bits;
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

/// How a cell of a record is shown.
#[derive(Clone, Copy, Debug)]
pub(super) enum View {
    Dec,
    Hex,
    Owner,
    AgBlock,
    AgIno,
    FsBlock,
}
use View::{AgBlock, AgIno, Dec, FsBlock, Hex, Owner};

/// A cell: first bit of the record, bits, how it is shown.
type Cell = (usize, usize, View);
type Columns = (&'static [&'static str], &'static [Cell]);

const START: Cell = (0, 32, AgBlock);
const COUNT: Cell = (32, 32, Dec);
const ALLOC_COLUMNS: Columns = (&["startblock", "blockcount"], &[START, COUNT]);
/// By size first.
const CNT_KEY: Columns = (&["blockcount", "startblock"], &[COUNT, START]);
const START_INO: Cell = (0, 32, AgIno);
const INO_SPARSE: Columns = (
    &["startino", "holemask", "count", "freecount", "free"],
    &[START_INO, (32, 16, Hex), (48, 8, Dec), (56, 8, Dec), (64, 64, Hex)],
);
const INO_FULL: Columns = (&["startino", "freecount", "free"], &[START_INO, (32, 32, Dec), (64, 64, Hex)]);
const INO_KEY: Columns = (&["startino"], &[START_INO]);
const RMAP_REC: Columns = (
    &["startblock", "blockcount", "owner", "offset", "extentflag", "attrfork", "bmbtblock"],
    &[START, COUNT, (64, 64, Owner), (138, 54, Dec), (130, 1, Dec), (128, 1, Dec), (129, 1, Dec)],
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
        START,
        (32, 64, Owner),
        (106, 54, Dec),
        (96, 1, Dec),
        (97, 1, Dec),
        (160, 32, AgBlock),
        (192, 64, Owner),
        (266, 54, Dec),
        (256, 1, Dec),
        (257, 1, Dec),
    ],
);
const SHARED_START: Cell = (1, 31, AgBlock);
const COW: Cell = (0, 1, Dec);
const REFCOUNT_REC: Columns =
    (&["startblock", "blockcount", "refcount", "cowflag"], &[SHARED_START, COUNT, (64, 32, Dec), COW]);
const REFCOUNT_KEY: Columns = (&["startblock", "cowflag"], &[SHARED_START, COW]);
const BMAP_KEY: Columns = (&["startoff"], &[(0, 64, Dec)]);

/// A packed extent.
pub(super) const EXTENT: Columns = (
    &["startoff", "startblock", "blockcount", "extentflag"],
    &[(1, 54, Dec), (55, 52, FsBlock), (107, 21, Dec), (0, 1, Dec)],
);

fn cell(record: &[u8], (bit, bits, view): Cell) -> Option<Scalar> {
    let v = get_bits(record, bit, bits)?;
    let shown = match view {
        Dec => dec(v),
        Hex => hex(v),
        Owner => Scalar { link: Link::Ino(v), ..plain(v.cast_signed().to_string()) },
        AgBlock => Scalar { link: Link::AgBlock(v, Type::Data), ..dec(v) },
        AgIno => Scalar { link: Link::AgIno(v), ..dec(v) },
        FsBlock => Scalar { link: Link::FsBlock(v, Type::Data), ..dec(v) },
    };
    Some(shown.of_bits(bit, bits))
}

/// Rows of `count` records of `size` bytes from `at` on; fewer where the bytes end.
pub(super) fn rows(bytes: &[u8], at: usize, size: usize, count: usize, columns: &Columns) -> Vec<Vec<Scalar>> {
    let body = bytes.get(at..).unwrap_or(&[]);
    let records = body.chunks_exact(size.max(1)).take(count).zip((at..).step_by(size.max(1)));
    let row = |(b, at): (&[u8], usize)| columns.1.iter().filter_map(|c| Some(cell(b, *c)?.moved(at))).collect();
    records.map(row).collect()
}

/// Pointers of a node, from `at` on.
fn pointers(bytes: &[u8], at: usize, width: usize, n: usize, to: impl Fn(u64) -> Link) -> Vec<Scalar> {
    let places = (0..n).map(|i| at + i * width);
    places.filter_map(|p| number(bytes, p, width).map(|v| link(v, width, to(v)).at(p, width))).collect()
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
    out.list("ptrs", 1, pointers(bytes, at, layout.pointer, n, |v| pointer(v, kind)), false);
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
    out.list(&format!("{prefix}ptrs"), 1, pointers(fork, 4 + max * 8, 8, n, |v| Link::FsBlock(v, kind)), false);
}
