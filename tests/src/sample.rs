//! Records of every btree, made of random numbers.

use libxfsr::btree::Kind;
use libxfsr::btree::kinds::{Bmap, Bno, Cnt, Finobt, Inobt, Refcount, Rmap};
use libxfsr::format::btree::{
    ALLOC, AllocRec, BMBT, BmbtKey, BmbtRec, Extent, INO, InobtKey, InobtRec, Layout, REFCOUNT, RMAP, RefcountKey,
    RefcountRec, RmapKey, RmapRec,
};
use std::cmp::Ordering;
use zerocopy::big_endian::{U32, U64};
use zerocopy::{FromZeros, Immutable, IntoBytes};

/// Raw material of a record: gap before it, length, and something that may vary freely.
pub type Seed = (u32, u32, u64);

/// A kind, and how to make records and keys of it from random numbers.
pub trait Sample: Kind<Record: IntoBytes + Immutable + PartialEq, Key: IntoBytes + Immutable> {
    /// Its number among the stamps of trees.
    const STAMP: usize;
    /// Sizes in its blocks.
    const LAYOUT: Layout;
    /// Records in the order of the tree.
    fn records(seeds: &[Seed]) -> Vec<Self::Record>;
    /// Some key.
    fn key(place: u32, free: u64) -> Self::Key;
    /// A record that does not overlap that of another place, unless those of its kind do. Of one place there may be several.
    fn record(place: u32, free: u64) -> Self::Record;
}

/// Extents that follow each other with gaps: start and length.
fn extents(seeds: &[Seed]) -> Vec<(u32, u32, u64)> {
    let mut next = 0;
    let place = |&(gap, length, free): &Seed| {
        let start = next + gap % 9;
        let length = length % 30 + 1;
        next = start + length;
        (start, length, free)
    };
    seeds.iter().map(place).collect()
}

fn alloc(start: u32, length: u32) -> AllocRec {
    AllocRec { startblock: U32::new(start), blockcount: U32::new(length) }
}

impl Sample for Bno {
    const STAMP: usize = 0;
    const LAYOUT: Layout = ALLOC;
    fn records(seeds: &[Seed]) -> Vec<AllocRec> {
        extents(seeds).into_iter().map(|(start, length, _)| alloc(start, length)).collect()
    }
    fn key(place: u32, _: u64) -> AllocRec {
        alloc(place, 0)
    }
    fn record(place: u32, free: u64) -> AllocRec {
        alloc(place * 32, free as u32 % 32 + 1)
    }
}

impl Sample for Cnt {
    const STAMP: usize = 1;
    const LAYOUT: Layout = ALLOC;
    fn records(seeds: &[Seed]) -> Vec<AllocRec> {
        let mut all = Bno::records(seeds);
        all.sort_by(Self::compare);
        all
    }
    fn key(place: u32, free: u64) -> AllocRec {
        alloc(place, free as u32 % 40)
    }
    fn record(place: u32, free: u64) -> AllocRec {
        alloc(place * 32, free as u32 % 32 + 1)
    }
}

fn chunk(seeds: &[Seed]) -> Vec<InobtRec> {
    let mut next = 0;
    let make = |&(gap, _, free): &Seed| {
        let mut r = InobtRec::new_zeroed();
        r.startino.set(next + gap % 3 * 64);
        r.free.set(free);
        next = r.startino.get() + 64;
        r
    };
    seeds.iter().map(make).collect()
}

macro_rules! inode_tree {
    ($kind:ident, $stamp:literal) => {
        impl Sample for $kind {
            const STAMP: usize = $stamp;
            const LAYOUT: Layout = INO;
            fn records(seeds: &[Seed]) -> Vec<InobtRec> {
                chunk(seeds)
            }
            fn key(place: u32, free: u64) -> InobtKey {
                InobtKey { startino: U32::new(place * 32 + free as u32 % 64) }
            }
            fn record(place: u32, free: u64) -> InobtRec {
                let mut r = InobtRec::new_zeroed();
                r.startino.set(place * 64);
                r.free.set(free);
                r
            }
        }
    };
}

inode_tree!(Inobt, 2);
inode_tree!(Finobt, 3);

impl Sample for Rmap {
    const STAMP: usize = 4;
    const LAYOUT: Layout = RMAP;
    fn records(seeds: &[Seed]) -> Vec<RmapRec> {
        // Extents of different owners overlap: starts are close to each other, lengths are not.
        let make = |&(start, length, free): &Seed| {
            let mut r = RmapRec::new_zeroed();
            r.startblock.set(start % 2000);
            r.blockcount.set(length % 300 + 1);
            r.owner.set(if free.is_multiple_of(7) { u64::MAX - 4 } else { 128 + free % 20 });
            r.offset.set(if free.is_multiple_of(7) { 0 } else { free >> 16 & 0xffff });
            r
        };
        let mut all: Vec<RmapRec> = seeds.iter().map(make).collect();
        all.sort_by(|a, b| Self::compare(&Self::low(a), &Self::low(b)));
        all.dedup_by(|a, b| Self::compare(&Self::low(a), &Self::low(b)) == Ordering::Equal);
        all
    }
    fn key(place: u32, free: u64) -> RmapKey {
        RmapKey {
            startblock: U32::new(place % 2500),
            owner: U64::new(120 + free % 40),
            offset: U64::new(free >> 8 & 0xfff),
        }
    }
    fn record(place: u32, free: u64) -> RmapRec {
        let mut r = RmapRec::new_zeroed();
        r.startblock.set(place % 500);
        r.blockcount.set(free as u32 % 200 + 1);
        r.owner.set(if free.is_multiple_of(7) { u64::MAX - 4 } else { 128 + u64::from(place / 500) });
        r.offset.set(if free.is_multiple_of(7) { 0 } else { free >> 16 & 0xf });
        r
    }
}

impl Sample for Refcount {
    const STAMP: usize = 5;
    const LAYOUT: Layout = REFCOUNT;
    fn records(seeds: &[Seed]) -> Vec<RefcountRec> {
        let make = |(start, length, free)| {
            let mut r = RefcountRec::new_zeroed();
            r.startblock.set(start);
            r.blockcount.set(length);
            r.refcount.set(2 + free as u32 % 5);
            r
        };
        extents(seeds).into_iter().map(make).collect()
    }
    fn key(place: u32, _: u64) -> RefcountKey {
        RefcountKey { startblock: U32::new(place) }
    }
    fn record(place: u32, free: u64) -> RefcountRec {
        let mut r = RefcountRec::new_zeroed();
        r.startblock.set(place * 32);
        r.blockcount.set(free as u32 % 32 + 1);
        r.refcount.set(2 + (free >> 8) as u32 % 5);
        r
    }
}

impl Sample for Bmap {
    const STAMP: usize = 6;
    const LAYOUT: Layout = BMBT;
    fn records(seeds: &[Seed]) -> Vec<BmbtRec> {
        let make = |(offset, count, free): (u32, u32, u64)| {
            let extent = Extent {
                offset: offset.into(),
                start: free >> 20,
                count: count.into(),
                unwritten: free.is_multiple_of(2),
            };
            BmbtRec::pack(&extent)
        };
        extents(seeds).into_iter().map(make).collect()
    }
    fn key(place: u32, _: u64) -> BmbtKey {
        BmbtKey { startoff: U64::new(place.into()) }
    }
    fn record(place: u32, free: u64) -> BmbtRec {
        let (offset, count) = (u64::from(place) * 32, free % 32 + 1);
        BmbtRec::pack(&Extent { offset, start: free >> 20, count, unwritten: free.is_multiple_of(2) })
    }
}

/// A key with the order of its tree.
pub struct Ordered<K: Kind>(pub K::Key);

impl<K: Kind> PartialEq for Ordered<K> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}
impl<K: Kind> Eq for Ordered<K> {}
impl<K: Kind> PartialOrd for Ordered<K> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl<K: Kind> Ord for Ordered<K> {
    fn cmp(&self, other: &Self) -> Ordering {
        K::compare(&self.0, &other.0)
    }
}
