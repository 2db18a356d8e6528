//! Node form: data blocks, a tree of hashes above the leaves, free index blocks.

use super::data::Target;
use super::free::{FreeMut, hole, with_room};
use super::index::{LeafMut, entry};
use super::leaf::no_room;
use super::{DirMut, Named};
use crate::datree::{self, Blocks as _, ForkBlocks, Leaf as _, Path};
use crate::dir::{bad, lookup};
use crate::error::{ForkKind, Result, Rule};
use crate::format::BlockType;
use crate::format::dir::{
    DIR_FREE, DIR_LEAF1, DIR_LEAFN, Free, LEAF1_MAGIC, LEAFN_MAGIC, Leaf, LeafEntry, LeafHeader, NULL_DATA_OFFSET,
    SECTION, block_type_of, free_start, leaf_start,
};
use crate::units::{FileBlock, to_usize};
use std::ops::ControlFlow;
use zerocopy::big_endian::U16;

const HEADER: usize = size_of::<LeafHeader>();
const ENTRY: usize = size_of::<LeafEntry>();

/// Leaves of a directory in node form.
struct Names;

/// Entries in use.
fn live(leaf: &Leaf<'_>) -> usize {
    leaf.entries.iter().filter(|e| !e.is_stale()).count()
}

impl datree::Leaf for Names {
    const KIND: &'static BlockType = &DIR_LEAFN;
    const MAGIC: u16 = LEAFN_MAGIC;
    fn init(_leaf: &mut [u8]) {}
    /// The stale ones count, as long as there are others: a name that is removed changes no block above.
    fn last_hash(leaf: &[u8]) -> Option<u32> {
        let leaf = Leaf::from_bytes(leaf)?;
        leaf.entries.iter().any(|e| !e.is_stale()).then(|| leaf.entries.last().map(|e| e.hashval.get()))?
    }
    /// At 37 percent, as in Linux.
    fn is_small(leaf: &[u8]) -> bool {
        Leaf::from_bytes(leaf).is_some_and(|l| HEADER + live(&l) * ENTRY <= leaf.len() * 37 / 100)
    }
    /// A quarter stays free, so that the next name does not split it again.
    fn fit(left: &[u8], right: &[u8]) -> bool {
        let count = |leaf| Leaf::from_bytes(leaf).map_or(0, |l| live(&l));
        HEADER + (count(left) + count(right)) * ENTRY <= left.len() - left.len() / 4
    }
    fn append(left: &mut [u8], right: &[u8]) -> Result<()> {
        let all: Vec<LeafEntry> = in_use(left).chain(in_use(right)).collect();
        LeafMut::new(left).fill(&all)
    }
}

fn in_use(leaf: &[u8]) -> impl Iterator<Item = LeafEntry> {
    Leaf::from_bytes(leaf).map_or(&[][..], |l| l.entries).iter().filter(|e| !e.is_stale()).copied()
}

impl<'w, 's> DirMut<'w, 's> {
    /// The tree of hashes.
    fn tree(&mut self) -> ForkBlocks<'_, 'w, 's> {
        ForkBlocks::directory(&mut self.fork)
    }

    pub(super) fn leaf_to_node(&mut self) -> Result<()> {
        let (g, ino, start, free) = (self.g, self.ino, leaf_start(self.g), free_start(self.g));
        let mut leaf = LeafMut::new(self.change(start, &DIR_LEAF1)?);
        let bests = leaf.bests_mut()?;
        let kept = bests.to_vec();
        bests.fill(U16::new(0));
        leaf.header_mut()?.info.magic.set(LEAFN_MAGIC);
        self.retype(start, &DIR_LEAFN)?;
        let (at, bytes) = self.make(free, &DIR_FREE)?;
        let mut index = FreeMut::init(bytes, g, at, ino, 0)?;
        for (number, best) in kept.iter().enumerate() {
            index.set(number, best.get())?;
        }
        Ok(())
    }

    /// The number of data blocks, holes too, and of those that a free index block is for.
    fn sizes(&mut self) -> Result<(usize, usize)> {
        let (size, block) = (self.fork.core()?.size.get(), u64::from(self.g.dir_block_size));
        if size > SECTION {
            return Err(bad(self.ino, "size", Rule::Range)
                .found(size)
                .expected(format_args!("at most {SECTION}"))
                .into());
        }
        Ok((to_usize(size / block), Free::capacity(self.g.dir_block_size as usize).max(1)))
    }

    fn free_at(&self, n: usize) -> FileBlock {
        FileBlock(free_start(self.g).0 + ((n as u64) << self.g.dir_block_log))
    }

    /// The sizes in a free index block; none where there is no such block.
    fn bests<T>(&mut self, n: usize, look: impl FnOnce(&[U16]) -> T) -> Result<Option<T>> {
        let (at, capacity, ino) = (self.free_at(n), self.sizes()?.1, self.ino);
        let (step, want) = (self.step(), self.want(&DIR_FREE));
        let Some(key) = self.fork.find_block(at, step)? else { return Ok(None) };
        let block = self.fork.t().read(&key, &want)?;
        let free = Free::from_bytes(&block).ok_or_else(|| bad(ino, "free", Rule::Truncated))?;
        if to_usize(free.header.firstdb.get().into()) != n * capacity {
            let c = bad(ino, "firstdb", Rule::Mismatch).in_fork(ForkKind::Data, Some(at));
            return Err(c.found(free.header.firstdb).expected(n * capacity).into());
        }
        Ok(Some(look(free.bests)))
    }

    /// A data block with so much room, if there is one, else the number of a new one. What came last is looked at first: in a growing directory it has
    /// room.
    fn choose(&mut self, size: usize) -> Result<(usize, bool)> {
        let (blocks, capacity) = self.sizes()?;
        let mut gap = blocks;
        for n in (0..blocks.div_ceil(capacity)).rev() {
            let first = n * capacity;
            match self.bests(n, |b| (with_room(b, size), hole(b)))? {
                Some((Some(i), _)) => return Ok((first + i, true)),
                Some((None, Some(i))) => gap = first + i,
                Some((None, None)) => {}
                None => gap = first,
            }
        }
        Ok((gap, false))
    }

    /// Notes the largest unused piece of a data block.
    fn note(&mut self, number: usize, best: Option<u16>) -> Result<()> {
        let capacity = self.sizes()?.1;
        let (at, index) = (self.free_at(number / capacity), number % capacity);
        let mut free = FreeMut::new(self.change(at, &DIR_FREE)?);
        free.set(index, best.unwrap_or(NULL_DATA_OFFSET))?;
        if free.used()? == 0 {
            self.give_up(at, &DIR_FREE)?;
        }
        Ok(())
    }

    /// Puts an entry into some data block; returns its address.
    fn node_data_add(&mut self, name: &[u8], to: Target) -> Result<u32> {
        let (g, ino) = (self.g, self.ino);
        let (blocks, capacity) = self.sizes()?;
        let (number, exists) = self.choose(self.size_of_entry(name))?;
        let (offset, best) = if exists {
            self.add_to_data(number, name, to)?
        } else {
            let n = number / capacity;
            if self.bests(n, |_| ())?.is_none() {
                let place = self.free_at(n);
                let (at, bytes) = self.make(place, &DIR_FREE)?;
                FreeMut::init(bytes, g, at, ino, n * capacity)?;
            }
            self.new_data(number, name, to)?
        };
        if number >= blocks {
            self.set_size(number + 1)?;
        }
        self.note(number, Some(best))?;
        self.join(number, offset)
    }

    pub(super) fn node_add(&mut self, name: &[u8], to: Target) -> Result<()> {
        let hash = self.hash(name);
        let (mut first, mut same) = (None, Vec::new());
        datree::each_with_hash::<Names, _, ()>(&mut self.tree(), hash, |path, leaf| {
            first.get_or_insert_with(|| path.clone());
            same.extend(Leaf::from_bytes(leaf).into_iter().flat_map(|l| l.find(hash)).map(|e| e.address.get()));
            Ok(ControlFlow::Continue(()))
        })?;
        let path = first.ok_or_else(|| bad(self.ino, "leaf", Rule::Missing))?;
        if lookup::among(self, &same, name)?.is_some() {
            return Err(self.exists(name));
        }
        let address = self.node_data_add(name, to)?;
        self.index_add(&path, entry(hash, address))
    }

    fn index_add(&mut self, path: &Path, new: LeafEntry) -> Result<()> {
        let mut tree = self.tree();
        let mut leaf = LeafMut::new(tree.block_mut(path.leaf)?);
        let last = Names::last_hash(leaf.bytes);
        if leaf.insert(new)? {
            return if last < Some(new.hashval.get()) { datree::fix_hash::<Names, _>(&mut tree, path) } else { Ok(()) };
        }
        datree::split::<Names, _>(&mut tree, path, |left, right| {
            let mut all: Vec<LeafEntry> = in_use(left).collect();
            all.insert(all.partition_point(|e| e.hashval.get() < new.hashval.get()), new);
            let upper = all.split_off(all.len() / 2);
            LeafMut::new(left).fill(&all)?;
            LeafMut::new(right).fill(&upper)
        })
    }

    pub(super) fn node_remove(&mut self, name: &[u8]) -> Result<Named> {
        let hash = self.hash(name);
        let mut leaves: Vec<(Path, Vec<u32>)> = Vec::new();
        datree::each_with_hash::<Names, _, ()>(&mut self.tree(), hash, |path, leaf| {
            let found = Leaf::from_bytes(leaf).into_iter().flat_map(|l| l.find(hash)).map(|e| e.address.get());
            leaves.push((path.clone(), found.collect()));
            Ok(ControlFlow::Continue(()))
        })?;
        for (path, addresses) in leaves {
            if let Some(found) = lookup::among(self, &addresses, name)? {
                self.index_remove(&path, hash, found.address)?;
                self.node_data_remove(found.address)?;
                self.node_to_leaf()?;
                return Ok(found.named());
            }
        }
        Err(self.no_such(name))
    }

    fn index_remove(&mut self, path: &Path, hash: u32, address: u32) -> Result<()> {
        let mut tree = self.tree();
        let mut leaf = LeafMut::new(tree.block_mut(path.leaf)?);
        leaf.remove(hash, address)?;
        if Names::is_small(leaf.bytes) || Names::last_hash(leaf.bytes).is_none() {
            datree::shrink::<Names, _>(&mut tree, path)?;
        }
        Ok(())
    }

    fn node_data_remove(&mut self, address: u32) -> Result<()> {
        let (number, _, _) = self.split(address);
        let (blocks, capacity) = self.sizes()?;
        if number >= blocks {
            return Err(no_room(number));
        }
        let best = self.remove_from_data(address)?;
        self.note(number, best)?;
        if best.is_some() || number + 1 < blocks {
            return Ok(());
        }
        // The last one is gone: the directory ends behind the last that there is.
        for n in (0..=number / capacity).rev() {
            if let Some(used) = self.bests(n, <[U16]>::len)?.filter(|used| *used > 0) {
                return self.set_size(n * capacity + used);
            }
        }
        Err(bad(self.ino, "free", Rule::Missing).into())
    }

    /// A tree of one leaf takes the sizes back, where it has room for them.
    fn node_to_leaf(&mut self) -> Result<()> {
        let (start, (blocks, capacity)) = (leaf_start(self.g), self.sizes()?);
        if blocks > capacity {
            return Ok(());
        }
        let mut tree = self.tree();
        let index = tree.block(start)?;
        let Some(leaf) = Leaf::from_bytes(index).filter(|_| block_type_of(index) == Some(&DIR_LEAFN)) else {
            return Ok(());
        };
        if HEADER + live(&leaf) * ENTRY + 2 * blocks + 4 > index.len() {
            return Ok(());
        }
        let bests = self.bests(0, <[U16]>::to_vec)?.ok_or_else(|| bad(self.ino, "free", Rule::Missing))?;
        let mut leaf = LeafMut::new(self.change(start, &DIR_LEAFN)?);
        leaf.compact()?;
        leaf.header_mut()?.info.magic.set(LEAF1_MAGIC);
        if !leaf.set_bests(&bests)? {
            return Err(bad(self.ino, "nvalid", Rule::Mismatch).found(bests.len()).expected(blocks).into());
        }
        self.retype(start, &DIR_LEAF1)?;
        self.give_up(free_start(self.g), &DIR_FREE)?;
        self.leaf_to_block()
    }
}
