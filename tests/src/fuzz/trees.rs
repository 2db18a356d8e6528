//! Records of btrees, and whole trees whose blocks, siblings and pointers are the input's.

use super::{Input, blocks::tree_stamps};
use crate::tree::MemoryTree;
use libxfsr::btree::kinds::{Bmap, Bno, Cnt, Finobt, Inobt, Refcount, Rmap};
use libxfsr::btree::{self, Cursor, Kind, Lookup, Ptr, Root};
use libxfsr::control::Control;
use libxfsr::format::btree::{ALLOC, BMBT, INO, Layout, REFCOUNT, RMAP};
use std::ops::ControlFlow;
use zerocopy::{FromBytes, Immutable, KnownLayout, Unaligned};

/// Blocks that a tree of the `btree` target has at most.
const BLOCKS: usize = 24;

fn each<K: Kind>(bytes: &[u8], header: usize)
where
    K::Record: FromBytes + KnownLayout + Immutable + Unaligned,
{
    let body = bytes.get(header..).unwrap_or(&[]);
    let mut before: Option<K::Record> = None;
    for piece in body.chunks_exact(size_of::<K::Record>()) {
        let Ok(r) = K::Record::read_from_bytes(piece) else { return };
        let (low, high) = (K::low(&r), K::high(&r));
        let _ = (K::compare(&low, &high), K::show(&low), K::show(&high));
        let _ = before.map(|b| K::in_order(&b, &r));
        before = Some(r);
    }
}

/// Reads a block's bytes as records of a tree, and what can be asked of them.
pub(super) fn records(name: &str, bytes: &[u8]) {
    match name {
        "bnobt" => each::<Bno>(bytes, ALLOC.header),
        "cntbt" => each::<Cnt>(bytes, ALLOC.header),
        "inobt" => each::<Inobt>(bytes, INO.header),
        "finobt" => each::<Finobt>(bytes, INO.header),
        "rmapbt" | "rtrmapbt" => each::<Rmap>(bytes, RMAP.header),
        "refcountbt" | "rtrefcountbt" => each::<Refcount>(bytes, REFCOUNT.header),
        _ => {
            each::<Bmap>(bytes, BMBT.header);
            let _ = libxfsr::format::inode::root_in_fork(bytes, &BMBT).map(|r| (r.keys.len(), r.pointers.len()));
            libxfsr::format::inode::extents_in_fork(bytes, u64::MAX).for_each(drop);
        }
    }
}

/// A tree: the input is its blocks, one after the other from block 16 of the AG on; the first is the root. Every pointer of it is
/// taken modulo the number of blocks with a chance, so that they lead to each other.
pub(super) fn btree(input: &Input<'_>) {
    match input.choice % 7 {
        0 => tree::<Bno>(input, 0, ALLOC),
        1 => tree::<Cnt>(input, 1, ALLOC),
        2 => tree::<Inobt>(input, 2, INO),
        3 => tree::<Finobt>(input, 3, INO),
        4 => tree::<Rmap>(input, 4, RMAP),
        5 => tree::<Refcount>(input, 5, REFCOUNT),
        _ => tree::<Bmap>(input, 6, BMBT),
    }
}

fn tree<K: Kind>(input: &Input<'_>, stamp: usize, layout: Layout) {
    const FIRST: u64 = 16;
    let mut tree = MemoryTree::small(&tree_stamps()[stamp], layout);
    let size = tree.geometry().block_size as usize;
    let mut level = 0;
    for (i, bytes) in input.bytes.chunks(size).take(BLOCKS).enumerate() {
        if i == 0 {
            level = bytes.get(5).copied().unwrap_or(0);
        }
        tree.put(Ptr(FIRST + i as u64), bytes);
    }
    tree.root = Root::Block { at: Ptr(FIRST), levels: level.saturating_add(1) };
    let inside = |what: &str, n: u64| assert!(n <= (BLOCKS * size) as u64, "{what}: {n} from {BLOCKS} blocks");
    let report = btree::check::<K, _>(&tree, &Control::none(), &mut |_, _| {}, &mut |_| {}, &mut |_| {})
        .expect("findings, not errors");
    inside("blocks and records", report.blocks + report.records);
    for last in [false, true] {
        let cursor = if last { Cursor::<K, _>::last(&tree) } else { Cursor::<K, _>::first(&tree) };
        let Ok(Some(mut cursor)) = cursor else { continue };
        let mut n = 0;
        while matches!(if last { cursor.retreat() } else { cursor.advance() }, Ok(true)) {
            n += 1;
            inside("records of a walk", n);
        }
    }
    let mut keys = Vec::new();
    if let Ok(Some(cursor)) = Cursor::<K, _>::first(&tree) {
        keys.extend(cursor.record().map(|r| K::low(&r)));
    }
    if let Ok(Some(cursor)) = Cursor::<K, _>::last(&tree) {
        keys.extend(cursor.record().map(|r| K::high(&r)));
    }
    for low in &keys {
        for which in [Lookup::Equal, Lookup::LessOrEqual, Lookup::GreaterOrEqual] {
            let _ = Cursor::<K, _>::lookup(&tree, low, which).map(|c| c.map(|c| c.record().is_some()));
        }
        for high in &keys {
            let mut n = 0;
            let _ = btree::query::<K, _>(&tree, low, high, &mut |_| {
                n += 1;
                ControlFlow::Continue(())
            });
            inside("records of a query", n);
        }
    }
}
