//! What each tree holds. Where it lives is the store's affair: [`Rmap`] and [`Refcount`] serve AGs, realtime groups and memory.

use super::Kind;
use crate::format::btree::{
    AllocRec, BmbtKey, BmbtRec, InobtKey, InobtRec, RMAP_OFFSET_MASK, RMAP_UNWRITTEN, RefcountKey, RefcountRec,
    RmapKey, RmapRec,
};
use std::cmp::Ordering;
use zerocopy::big_endian::{U32, U64};

fn end(start: U32, count: U32) -> u64 {
    u64::from(start.get()) + u64::from(count.get())
}

fn last(start: U32, count: U32) -> U32 {
    U32::new(start.get().saturating_add(count.get().saturating_sub(1)))
}

/// bnobt: free extents by block.
#[derive(Debug)]
pub struct Bno;

impl Kind for Bno {
    type Record = AllocRec;
    type Key = AllocRec;
    const NAME: &'static str = "bnobt";
    fn low(r: &AllocRec) -> AllocRec {
        *r
    }
    fn high(r: &AllocRec) -> AllocRec {
        AllocRec { startblock: last(r.startblock, r.blockcount), blockcount: U32::new(0) }
    }
    fn compare(a: &AllocRec, b: &AllocRec) -> Ordering {
        a.startblock.get().cmp(&b.startblock.get())
    }
    fn in_order(a: &AllocRec, b: &AllocRec) -> bool {
        end(a.startblock, a.blockcount) <= u64::from(b.startblock.get())
    }
    fn show(k: &AllocRec) -> String {
        format!("block {}", k.startblock)
    }
}

/// cntbt: free extents by size, then block.
#[derive(Debug)]
pub struct Cnt;

impl Kind for Cnt {
    type Record = AllocRec;
    type Key = AllocRec;
    const NAME: &'static str = "cntbt";
    fn low(r: &AllocRec) -> AllocRec {
        *r
    }
    fn high(r: &AllocRec) -> AllocRec {
        *r
    }
    fn compare(a: &AllocRec, b: &AllocRec) -> Ordering {
        (a.blockcount.get(), a.startblock.get()).cmp(&(b.blockcount.get(), b.startblock.get()))
    }
    fn in_order(a: &AllocRec, b: &AllocRec) -> bool {
        Self::compare(a, b) == Ordering::Less
    }
    fn show(k: &AllocRec) -> String {
        format!("{} blocks at {}", k.blockcount, k.startblock)
    }
}

macro_rules! inode_tree {
    ($(#[$doc:meta])* $kind:ident, $name:literal) => {
        $(#[$doc])*
        #[derive(Debug)]
        pub struct $kind;

        impl Kind for $kind {
            type Record = InobtRec;
            type Key = InobtKey;
            const NAME: &'static str = $name;
            fn low(r: &InobtRec) -> InobtKey {
                InobtKey { startino: r.startino }
            }
            fn high(r: &InobtRec) -> InobtKey {
                InobtKey { startino: U32::new(r.startino.get().saturating_add(63)) }
            }
            fn compare(a: &InobtKey, b: &InobtKey) -> Ordering {
                a.startino.get().cmp(&b.startino.get())
            }
            fn in_order(a: &InobtRec, b: &InobtRec) -> bool {
                u64::from(a.startino.get()) + 64 <= u64::from(b.startino.get())
            }
            fn show(k: &InobtKey) -> String {
                format!("agino {}", k.startino)
            }
        }
    };
}

inode_tree!(
    /// inobt: inode chunks.
    Inobt,
    "inobt"
);
inode_tree!(
    /// finobt: inode chunks that have a free inode.
    Finobt,
    "finobt"
);

/// rmapbt: owners of extents. Keys do not contain the unwritten flag.
#[derive(Debug)]
pub struct Rmap;

impl Rmap {
    fn order(k: &RmapKey) -> (u32, u64, u64) {
        (k.startblock.get(), k.owner.get(), k.offset.get() & !RMAP_UNWRITTEN)
    }
}

impl Kind for Rmap {
    type Record = RmapRec;
    type Key = RmapKey;
    const NAME: &'static str = "rmapbt";
    const OVERLAPPING: bool = true;
    fn low(r: &RmapRec) -> RmapKey {
        RmapKey { startblock: r.startblock, owner: r.owner, offset: U64::new(r.offset.get() & !RMAP_UNWRITTEN) }
    }
    fn high(r: &RmapRec) -> RmapKey {
        let more = u64::from(r.blockcount.get().saturating_sub(1));
        let mut offset = r.offset.get() & !RMAP_UNWRITTEN;
        let is_file = !crate::format::btree::owner::is_special(r.owner.get());
        if is_file && offset & crate::format::btree::RMAP_BMBT_BLOCK == 0 {
            offset = offset & !RMAP_OFFSET_MASK | (offset & RMAP_OFFSET_MASK).wrapping_add(more) & RMAP_OFFSET_MASK;
        }
        RmapKey { startblock: last(r.startblock, r.blockcount), owner: r.owner, offset: U64::new(offset) }
    }
    fn compare(a: &RmapKey, b: &RmapKey) -> Ordering {
        Self::order(a).cmp(&Self::order(b))
    }
    fn in_order(a: &RmapRec, b: &RmapRec) -> bool {
        Self::compare(&Self::low(a), &Self::low(b)) == Ordering::Less
    }
    fn show(k: &RmapKey) -> String {
        format!("block {} owner {} offset {:#x}", k.startblock, k.owner.get().cast_signed(), k.offset)
    }
}

/// refcountbt: shared extents, then staging extents.
#[derive(Debug)]
pub struct Refcount;

impl Kind for Refcount {
    type Record = RefcountRec;
    type Key = RefcountKey;
    const NAME: &'static str = "refcountbt";
    fn low(r: &RefcountRec) -> RefcountKey {
        RefcountKey { startblock: r.startblock }
    }
    fn high(r: &RefcountRec) -> RefcountKey {
        RefcountKey { startblock: last(r.startblock, r.blockcount) }
    }
    fn compare(a: &RefcountKey, b: &RefcountKey) -> Ordering {
        a.startblock.get().cmp(&b.startblock.get())
    }
    fn in_order(a: &RefcountRec, b: &RefcountRec) -> bool {
        end(a.startblock, a.blockcount) <= u64::from(b.startblock.get())
    }
    fn show(k: &RefcountKey) -> String {
        format!("block {:#x}", k.startblock)
    }
}

/// bmbt: extents of a fork.
#[derive(Debug)]
pub struct Bmap;

impl Kind for Bmap {
    type Record = BmbtRec;
    type Key = BmbtKey;
    const NAME: &'static str = "bmbt";
    fn low(r: &BmbtRec) -> BmbtKey {
        BmbtKey { startoff: U64::new(r.extent().offset) }
    }
    fn high(r: &BmbtRec) -> BmbtKey {
        let e = r.extent();
        BmbtKey { startoff: U64::new(e.offset.saturating_add(e.count.saturating_sub(1))) }
    }
    fn compare(a: &BmbtKey, b: &BmbtKey) -> Ordering {
        a.startoff.get().cmp(&b.startoff.get())
    }
    fn in_order(a: &BmbtRec, b: &BmbtRec) -> bool {
        let (a, b) = (a.extent(), b.extent());
        a.offset.saturating_add(a.count) <= b.offset
    }
    fn show(k: &BmbtKey) -> String {
        format!("file block {}", k.startoff)
    }
}
