//! Leaf form: data blocks and one leaf, which says also how much room each has.

use super::data::{DataMut, Target};
use super::free::{hole, with_room};
use super::index::{BlockIndex, LeafMut, entry};
use super::{DirMut, Named};
use crate::dir::lookup;
use crate::error::{Corruption, Error, Result, Rule};
use crate::format::dir::{
    BLOCK_MAGIC, BlockTail, DATA_HEADER_SIZE, DATA_MAGIC, DIR_BLOCK, DIR_DATA, DIR_LEAF1, LEAF1_MAGIC, LeafEntry,
    LeafHeader, NULL_DATA_OFFSET, leaf_start,
};
use crate::units::FileBlock;
use zerocopy::big_endian::U16;

const FIRST: FileBlock = FileBlock(0);

pub(super) fn no_room(number: usize) -> Error {
    Corruption::new("directory", "bests", Rule::Mismatch)
        .found(format_args!("data block {number} has no room"))
        .expected("as much as its index says")
        .into()
}

impl DirMut<'_, '_> {
    pub(super) fn block_to_leaf(&mut self) -> Result<()> {
        let (g, ino, start) = (self.g, self.ino, leaf_start(self.g));
        let mut block = DataMut::new(self.change(FIRST, &DIR_BLOCK)?, g);
        let (index, from) = (BlockIndex::new(block.bytes).live()?, block.end());
        block.header()?.hdr.magic.set(DATA_MAGIC);
        let end = block.bytes.len();
        block.give(from, end.saturating_sub(from), end)?;
        let best = block.longest();
        self.retype(FIRST, &DIR_DATA)?;
        let (at, bytes) = self.make(start, &DIR_LEAF1)?;
        let mut leaf = LeafMut::init(bytes, g, LEAF1_MAGIC, at, ino)?;
        if !leaf.set_bests(&[U16::new(best)])? {
            return Err(Error::invalid("a leaf without room for one number"));
        }
        leaf.fill(&index)
    }

    /// A new data block with one entry; returns the entry's offset and the largest unused piece.
    pub(super) fn new_data(&mut self, number: usize, name: &[u8], to: Target) -> Result<(usize, u16)> {
        let (g, ino, place) = (self.g, self.ino, self.data_at(number));
        self.join(number, 0)?;
        let (at, bytes) = self.make(place, &DIR_DATA)?;
        let end = bytes.len();
        let mut block = DataMut::init(bytes, g, DATA_MAGIC, at, ino, end)?;
        let offset = block.add(name, to)?.ok_or_else(|| no_room(number))?;
        Ok((offset, block.longest()))
    }

    /// Adds an entry to a data block that has room; returns its offset and the largest unused piece that is left.
    pub(super) fn add_to_data(&mut self, number: usize, name: &[u8], to: Target) -> Result<(usize, u16)> {
        let (g, place) = (self.g, self.data_at(number));
        let mut block = DataMut::new(self.change(place, &DIR_DATA)?, g);
        let offset = block.add(name, to)?.ok_or_else(|| no_room(number))?;
        Ok((offset, block.longest()))
    }

    /// Removes the entry at an address; returns the largest unused piece, none where the block became empty and was freed.
    pub(super) fn remove_from_data(&mut self, address: u32) -> Result<Option<u16>> {
        let (g, (number, place, offset)) = (self.g, self.split(address));
        let mut block = DataMut::new(self.change(place, &DIR_DATA)?, g);
        block.remove(offset)?;
        if block.is_empty() && number > 0 {
            self.give_up(place, &DIR_DATA)?;
            return Ok(None);
        }
        Ok(Some(block.longest()))
    }

    pub(super) fn leaf_add(&mut self, name: &[u8], to: Target) -> Result<()> {
        if lookup::find(self, name)?.is_some() {
            return Err(self.exists(name));
        }
        let (hash, size, start) = (self.hash(name), self.size_of_entry(name), leaf_start(self.g));
        let mut leaf = LeafMut::new(self.change(start, &DIR_LEAF1)?);
        let (count, stale) = leaf.counts()?;
        let mut bests = leaf.bests_mut()?.to_vec();
        let old = with_room(&bests, size);
        let number = old.or_else(|| hole(&bests)).unwrap_or(bests.len());
        let slots = bests.len().max(number + 1);
        let live = count.saturating_sub(stale) + 1;
        let needed = size_of::<LeafHeader>() + live * size_of::<LeafEntry>() + 2 * slots + 4;
        if needed > leaf.bytes.len() {
            self.leaf_to_node()?;
            return self.node_add(name, to);
        }
        bests.resize(slots, U16::new(NULL_DATA_OFFSET));
        let (offset, best) =
            if old.is_some() { self.add_to_data(number, name, to)? } else { self.new_data(number, name, to)? };
        if old.is_none() {
            self.set_size(slots)?;
        }
        if let Some(slot) = bests.get_mut(number) {
            slot.set(best);
        }
        let address = self.join(number, offset)?;
        let mut leaf = LeafMut::new(self.change(start, &DIR_LEAF1)?);
        if !leaf.set_bests(&bests)? || !leaf.insert(entry(hash, address))? {
            return Err(Error::invalid("a leaf without the room that it had"));
        }
        Ok(())
    }

    pub(super) fn leaf_remove(&mut self, name: &[u8]) -> Result<Named> {
        let found = self.found(name)?;
        let (hash, start, (number, _, _)) = (self.hash(name), leaf_start(self.g), self.split(found.address));
        let best = self.remove_from_data(found.address)?;
        let mut leaf = LeafMut::new(self.change(start, &DIR_LEAF1)?);
        leaf.remove(hash, found.address)?;
        let mut bests = leaf.bests_mut()?.to_vec();
        bests.get_mut(number).ok_or_else(|| no_room(number))?.set(best.unwrap_or(NULL_DATA_OFFSET));
        let end = bests.iter().rposition(|b| b.get() != NULL_DATA_OFFSET).map_or(0, |i| i + 1);
        bests.truncate(end);
        leaf.set_bests(&bests)?;
        if best.is_none() {
            self.set_size(end)?;
        }
        self.leaf_to_block()?;
        Ok(found.named())
    }

    /// A single data block takes the index back, where it has room; and goes into the inode, where it fits there.
    pub(super) fn leaf_to_block(&mut self) -> Result<()> {
        let (g, start) = (self.g, leaf_start(self.g));
        let mut leaf = LeafMut::new(self.change(start, &DIR_LEAF1)?);
        let mut bests = leaf.bests_mut()?.to_vec();
        // Linux leaves an empty block behind where it had no space to take it out of the map.
        let empty = g.dir_block_size as usize - DATA_HEADER_SIZE;
        while bests.len() > 1 && bests.last().is_some_and(|b| usize::from(b.get()) == empty) {
            let place = self.data_at(bests.len() - 1);
            self.give_up(place, &DIR_DATA)?;
            bests.pop();
            while bests.len() > 1 && bests.last().is_some_and(|b| b.get() == NULL_DATA_OFFSET) {
                bests.pop();
            }
            LeafMut::new(self.change(start, &DIR_LEAF1)?).set_bests(&bests)?;
            self.set_size(bests.len())?;
        }
        if bests.len() != 1 {
            return Ok(());
        }
        let mut leaf = LeafMut::new(self.change(start, &DIR_LEAF1)?);
        let index: Vec<LeafEntry> = leaf.entries_mut()?.iter().filter(|e| !e.is_stale()).copied().collect();
        let size = size_of_val(&index[..]) + size_of::<BlockTail>();
        let mut block = DataMut::new(self.change(FIRST, &DIR_DATA)?, g);
        let Some((last, left)) = block.last_unused().and_then(|(at, n)| Some((at, n.checked_sub(size)?))) else {
            return Ok(());
        };
        block.header()?.hdr.magic.set(BLOCK_MAGIC);
        BlockIndex::new(block.bytes).fill(&index)?;
        block.shorten(last, left)?;
        self.retype(FIRST, &DIR_BLOCK)?;
        self.give_up(start, &DIR_LEAF1)?;
        self.block_to_short()
    }
}
