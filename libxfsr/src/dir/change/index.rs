//! Index entries while they change: a leaf's, or those at the end of a block form. Removed ones stay as stale until one is wanted near
//! them.

use super::data::{be16, put};
use crate::error::{Corruption, Error, Result, Rule};
use crate::format::dir::{BlockTail, DATA_HEADER_SIZE, LEAF1_MAGIC, LeafEntry, LeafHeader};
use crate::geometry::Geometry;
use crate::units::{Daddr, Ino};
use zerocopy::big_endian::{U16, U32};
use zerocopy::{FromBytes, IntoBytes};

const ENTRY: usize = size_of::<LeafEntry>();
const HEADER: usize = size_of::<LeafHeader>();

fn bad(field: &'static str, rule: Rule) -> Error {
    Corruption::new("dirleaf", field, rule).into()
}

/// An entry that leads to `address`.
pub(super) fn entry(hash: u32, address: u32) -> LeafEntry {
    LeafEntry { hashval: U32::new(hash), address: U32::new(address) }
}

/// `count` entries that begin at byte `at`.
fn entries_mut(bytes: &mut [u8], at: usize, count: usize) -> Result<&mut [LeafEntry]> {
    let rest = bytes.get_mut(at..).ok_or_else(|| bad("count", Rule::Range))?;
    let found = <[LeafEntry]>::mut_from_prefix_with_elems(rest, count);
    found.map(|(e, _)| e).map_err(|_| bad("count", Rule::Range))
}

/// Where an entry of that hash goes: in front of all that are not smaller.
fn place(entries: &[LeafEntry], hash: u32) -> usize {
    entries.partition_point(|e| e.hashval.get() < hash)
}

/// Puts an entry in, over the nearest stale one; false where there is none.
fn reuse(entries: &mut [LeafEntry], new: LeafEntry) -> bool {
    let at = place(entries, new.hashval.get());
    let (low, high) = entries.split_at_mut(at);
    let before = low.iter().rev().position(LeafEntry::is_stale);
    let after = high.iter().position(LeafEntry::is_stale);
    // The lower entries move down over theirs, or the higher ones up.
    let down = match (before, after) {
        (Some(b), Some(a)) => b <= a,
        (before, after) => before.is_some() || { after.is_none() },
    };
    let part =
        if down { before.and_then(|b| low.get_mut(at - 1 - b..)) } else { after.and_then(|a| high.get_mut(..=a)) };
    let Some(part) = part else { return false };
    if down {
        part.rotate_left(1)
    } else {
        part.rotate_right(1)
    }
    let slot = if down { part.last_mut() } else { part.first_mut() };
    if let Some(slot) = slot {
        *slot = new;
    }
    true
}

/// Marks the entry stale; false where there is none of that hash and address.
fn retire(entries: &mut [LeafEntry], hash: u32, address: u32) -> bool {
    let from = place(entries, hash);
    let run = entries.get_mut(from..).unwrap_or(&mut []).iter_mut().take_while(|e| e.hashval.get() == hash);
    match run.into_iter().find(|e| e.address.get() == address) {
        Some(e) if address != 0 => {
            e.address.set(0);
            true
        }
        _ => false,
    }
}

/// Moves those in use to the front; returns how many they are.
fn compact(entries: &mut [LeafEntry]) -> usize {
    let mut kept = 0;
    for i in 0..entries.len() {
        let Some(e) = entries.get(i).copied().filter(|e| !e.is_stale()) else { continue };
        if let Some(slot) = entries.get_mut(kept) {
            *slot = e;
            kept += 1;
        }
    }
    kept
}

/// The leaf of a leaf form or one of a node form.
pub(super) struct LeafMut<'a> {
    pub bytes: &'a mut [u8],
}

impl<'a> LeafMut<'a> {
    pub(super) fn new(bytes: &'a mut [u8]) -> Self {
        Self { bytes }
    }

    /// Makes a leaf new, without an entry.
    pub(super) fn init(bytes: &'a mut [u8], g: &Geometry, magic: u16, at: Daddr, owner: Ino) -> Result<Self> {
        bytes.fill(0);
        let mut leaf = Self { bytes };
        let info = &mut leaf.header_mut()?.info;
        info.magic.set(magic);
        info.blkno.set(at.0);
        info.uuid = g.meta_uuid;
        info.owner.set(owner.0);
        Ok(leaf)
    }

    pub(super) fn header(&self) -> Result<&LeafHeader> {
        LeafHeader::ref_from_prefix(self.bytes).map(|(h, _)| h).map_err(|_| bad("header", Rule::Truncated))
    }

    pub(super) fn header_mut(&mut self) -> Result<&mut LeafHeader> {
        LeafHeader::mut_from_prefix(self.bytes).map(|(h, _)| h).map_err(|_| bad("header", Rule::Truncated))
    }

    /// All entries and stale ones.
    pub(super) fn counts(&self) -> Result<(usize, usize)> {
        let h = self.header()?;
        Ok((h.count.get().into(), h.stale.get().into()))
    }

    fn set_counts(&mut self, count: usize, stale: usize) -> Result<()> {
        let (count, stale) = (be16(count)?, be16(stale)?);
        let h = self.header_mut()?;
        (h.count, h.stale) = (count, stale);
        Ok(())
    }

    pub(super) fn entries_mut(&mut self) -> Result<&mut [LeafEntry]> {
        let (count, _) = self.counts()?;
        entries_mut(self.bytes, HEADER, count)
    }

    /// The first byte behind the room for entries.
    fn limit(&self) -> Result<usize> {
        let len = self.bytes.len();
        if self.header()?.info.magic.get() != LEAF1_MAGIC {
            return Ok(len);
        }
        let bests = self.bests_len()?;
        len.checked_sub(4 + 2 * bests).filter(|l| *l >= HEADER).ok_or_else(|| bad("bestcount", Rule::Range))
    }

    /// Unused bytes behind the entries.
    fn room(&self) -> Result<usize> {
        let (count, _) = self.counts()?;
        self.limit()?.checked_sub(HEADER + count * ENTRY).ok_or_else(|| bad("count", Rule::Range))
    }

    /// Adds an entry; false where there is no room.
    pub(super) fn insert(&mut self, new: LeafEntry) -> Result<bool> {
        let (count, stale) = self.counts()?;
        if stale > 0 {
            if !reuse(self.entries_mut()?, new) {
                return Err(bad("stale", Rule::Count));
            }
            self.set_counts(count, stale - 1)?;
            return Ok(true);
        }
        if self.room()? < ENTRY {
            return Ok(false);
        }
        let entries = entries_mut(self.bytes, HEADER, count + 1)?;
        insert_into(entries, new);
        self.set_counts(count + 1, 0)?;
        Ok(true)
    }

    /// Removes an entry: it becomes stale.
    pub(super) fn remove(&mut self, hash: u32, address: u32) -> Result<()> {
        let (count, stale) = self.counts()?;
        if !retire(self.entries_mut()?, hash, address) {
            return Err(bad("address", Rule::Missing));
        }
        self.set_counts(count, stale + 1)
    }

    /// Drops the stale entries.
    pub(super) fn compact(&mut self) -> Result<()> {
        if self.counts()?.1 > 0 {
            let kept = compact(self.entries_mut()?);
            self.set_counts(kept, 0)?;
        }
        Ok(())
    }

    /// Has exactly those entries, which are sorted and none of them stale.
    pub(super) fn fill(&mut self, entries: &[LeafEntry]) -> Result<()> {
        if HEADER + size_of_val(entries) > self.limit()? {
            return Err(bad("count", Rule::Range));
        }
        put(self.bytes, HEADER, entries.as_bytes())?;
        self.set_counts(entries.len(), 0)
    }

    /// Leaf form: number of data blocks that it knows of.
    pub(super) fn bests_len(&self) -> Result<usize> {
        let (_, n) = U32::ref_from_suffix(self.bytes).map_err(|_| bad("bestcount", Rule::Truncated))?;
        usize::try_from(n.get())
            .ok()
            .filter(|n| *n <= self.bytes.len() / 2)
            .ok_or_else(|| bad("bestcount", Rule::Range))
    }

    /// Leaf form: the largest unused piece of each data block.
    pub(super) fn bests_mut(&mut self) -> Result<&mut [U16]> {
        let n = self.bests_len()?;
        let end = self.bytes.len().saturating_sub(4);
        let from = end.checked_sub(2 * n).ok_or_else(|| bad("bestcount", Rule::Range))?;
        let place = self.bytes.get_mut(from..end).ok_or_else(|| bad("bestcount", Rule::Range))?;
        <[U16]>::mut_from_bytes(place).map_err(|_| bad("bestcount", Rule::Range))
    }

    /// Leaf form: knows of exactly those data blocks from now on. False where there is no room, not even without stale entries.
    pub(super) fn set_bests(&mut self, bests: &[U16]) -> Result<bool> {
        let tail = 4 + size_of_val(bests);
        let start = self.bytes.len().saturating_sub(tail);
        let (count, stale) = self.counts()?;
        if HEADER + (count - stale.min(count)) * ENTRY + tail > self.bytes.len() {
            return Ok(false);
        }
        if HEADER + count * ENTRY + tail > self.bytes.len() {
            self.compact()?;
        }
        put(self.bytes, start, bests.as_bytes())?;
        let n = u32::try_from(bests.len()).map_err(|_| bad("bestcount", Rule::Range))?;
        let end = self.bytes.len().saturating_sub(4);
        put(self.bytes, end, U32::new(n).as_bytes())?;
        Ok(true)
    }
}

/// Puts an entry into a slice whose last element is to be overwritten.
fn insert_into(entries: &mut [LeafEntry], new: LeafEntry) {
    let used = entries.len().saturating_sub(1);
    let at = place(entries.get(..used).unwrap_or(&[]), new.hashval.get());
    if let Some(part) = entries.get_mut(at..) {
        part.rotate_right(1);
        if let Some(slot) = part.first_mut() {
            *slot = new;
        }
    }
}

/// The index at the end of a block form.
pub(super) struct BlockIndex<'a> {
    bytes: &'a mut [u8],
}

impl<'a> BlockIndex<'a> {
    pub(super) fn new(bytes: &'a mut [u8]) -> Self {
        Self { bytes }
    }

    /// All entries and stale ones.
    pub(super) fn counts(&self) -> Result<(usize, usize)> {
        let (_, tail) = BlockTail::ref_from_suffix(self.bytes).map_err(|_| bad("btail", Rule::Truncated))?;
        let limit = self.bytes.len() / ENTRY;
        let count = usize::try_from(tail.count.get()).ok().filter(|n| *n <= limit);
        let count = count.ok_or_else(|| bad("btail.count", Rule::Range))?;
        let stale = usize::try_from(tail.stale.get()).ok().filter(|n| *n <= count);
        Ok((count, stale.ok_or_else(|| bad("btail.stale", Rule::Range))?))
    }

    fn set_counts(&mut self, count: usize, stale: usize) -> Result<()> {
        let tail = BlockTail { count: be32(count)?, stale: be32(stale)? };
        let end = self.bytes.len().saturating_sub(size_of::<BlockTail>());
        put(self.bytes, end, tail.as_bytes())
    }

    fn range(&self, count: usize) -> Result<(usize, usize)> {
        let end = self.bytes.len().saturating_sub(size_of::<BlockTail>());
        let start = end.checked_sub(count * ENTRY).filter(|s| *s >= DATA_HEADER_SIZE);
        Ok((start.ok_or_else(|| bad("btail.count", Rule::Range))?, end))
    }

    fn entries_mut(&mut self, count: usize) -> Result<&mut [LeafEntry]> {
        let (start, _) = self.range(count)?;
        entries_mut(self.bytes, start, count)
    }

    /// The entries in use.
    pub(super) fn live(&mut self) -> Result<Vec<LeafEntry>> {
        let (count, _) = self.counts()?;
        Ok(self.entries_mut(count)?.iter().filter(|e| !e.is_stale()).copied().collect())
    }

    /// Adds an entry over a stale one. False where there is none.
    pub(super) fn reuse(&mut self, new: LeafEntry) -> Result<bool> {
        let (count, stale) = self.counts()?;
        if stale == 0 {
            return Ok(false);
        }
        if !reuse(self.entries_mut(count)?, new) {
            return Err(bad("btail.stale", Rule::Count));
        }
        self.set_counts(count, stale - 1)?;
        Ok(true)
    }

    /// Adds an entry; the eight bytes in front of the index have been taken for it.
    pub(super) fn grow(&mut self, new: LeafEntry) -> Result<()> {
        let (count, stale) = self.counts()?;
        let entries = self.entries_mut(count + 1)?;
        // The smaller ones move down into what was taken.
        let at = place(entries.get(1..).unwrap_or(&[]), new.hashval.get());
        if let Some(part) = entries.get_mut(..=at) {
            part.rotate_left(1);
            if let Some(slot) = part.last_mut() {
                *slot = new;
            }
        }
        self.set_counts(count + 1, stale)
    }

    /// Has exactly those entries, which are sorted and none of them stale.
    pub(super) fn fill(&mut self, entries: &[LeafEntry]) -> Result<()> {
        let (start, _) = self.range(entries.len())?;
        put(self.bytes, start, entries.as_bytes())?;
        self.set_counts(entries.len(), 0)
    }

    /// Removes an entry: it becomes stale.
    pub(super) fn remove(&mut self, hash: u32, address: u32) -> Result<()> {
        let (count, stale) = self.counts()?;
        if !retire(self.entries_mut(count)?, hash, address) {
            return Err(bad("address", Rule::Missing));
        }
        self.set_counts(count, stale + 1)
    }
}

fn be32(n: usize) -> Result<U32> {
    u32::try_from(n).map(U32::new).map_err(|_| bad("count", Rule::Range))
}

#[cfg(test)]
mod tests {
    use super::{LeafMut, entry};
    use crate::format::Context;
    use crate::format::dir::{DIR_LEAF1, LEAF1_MAGIC, Leaf};
    use crate::geometry::test_geometry;
    use crate::units::{Daddr, Ino, Lsn};
    use proptest::prelude::{any, prop, proptest};
    use std::collections::BTreeSet;
    use zerocopy::big_endian::U16;

    proptest! {
        #[test]
        fn a_leaf_holds_what_a_set_holds(ops in prop::collection::vec((0u8..8, 0u32..40, any::<u16>()), 1..900)) {
            let g = test_geometry();
            let mut bytes = vec![0; 1024];
            LeafMut::init(&mut bytes, &g, LEAF1_MAGIC, Daddr(96), Ino(128)).unwrap();
            let (mut model, mut bests) = (BTreeSet::new(), Vec::new());
            for (op, hash, pick) in ops {
                let mut leaf = LeafMut::new(&mut bytes);
                let room = |live: usize, bests: usize| 64 + 8 * live + 2 * bests + 4 <= 1024;
                match op {
                    0..4 => {
                        let address = u32::from(pick) + 1;
                        if !model.contains(&(hash, address)) {
                            let done = leaf.insert(entry(hash, address)).unwrap();
                            assert!(!done || model.insert((hash, address)));
                            assert!(done || !room(model.len() + 1, bests.len()));
                        }
                    }
                    4..6 => {
                        let some = model.iter().nth(usize::from(pick) % model.len().max(1)).copied();
                        match some {
                            Some((h, a)) => {
                                leaf.remove(h, a).unwrap();
                                model.remove(&(h, a));
                            }
                            None => assert!(leaf.remove(hash, 1).is_err()),
                        }
                    }
                    6 => {
                        let mut new = bests.clone();
                        new.push(U16::new(pick));
                        let done = leaf.set_bests(&new).unwrap();
                        assert_eq!(done, room(model.len(), new.len()));
                        bests = if done { new } else { bests };
                    }
                    _ => leaf.compact().unwrap(),
                }
                (DIR_LEAF1.seal)(&mut bytes, Lsn(1));
                (DIR_LEAF1.verify)(&bytes, &Context::new(&g, Daddr(96))).unwrap();
                let leaf = Leaf::from_bytes(&bytes).unwrap();
                let live = leaf.entries.iter().filter(|e| !e.is_stale());
                let seen: BTreeSet<(u32, u32)> = live.clone().map(|e| (e.hashval.get(), e.address.get())).collect();
                assert_eq!((&seen, live.count()), (&model, model.len()));
                assert_eq!(leaf.bests, bests);
            }
        }
    }
}
