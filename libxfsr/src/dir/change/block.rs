//! Short and block form, and from one to the other.

use super::data::{DataMut, Target};
use super::index::{BlockIndex, entry};
use super::short::{Item, Short};
use super::{DirMut, Named};
use crate::dir::bad;
use crate::dir::lookup;
use crate::error::{Error, Result, Rule};
use crate::format::dir::{
    ALIGN, BLOCK_MAGIC, BlockTail, DATA_HEADER_SIZE, DIR_ANY, DIR_BLOCK, LeafEntry, entries, entry_size, hash_name,
};
use crate::format::inode::Format;
use crate::geometry::Geometry;
use crate::units::{Daddr, FileBlock, Ino};

const ENTRY: usize = size_of::<LeafEntry>();
const FIRST: FileBlock = FileBlock(0);

/// Address of an entry in the first data block.
fn address(offset: usize) -> Result<u32> {
    u32::try_from(offset / ALIGN).map_err(|_| Error::invalid("an offset outside a directory block"))
}

/// Makes a block form of names that know their offsets, in ascending order.
fn build(bytes: &mut [u8], g: &Geometry, at: Daddr, ino: Ino, short: &Short) -> Result<()> {
    let ftype = g.features.ftype();
    let directory = if ftype { crate::format::dir::FileType::Directory as u8 } else { 0 };
    let dot = DATA_HEADER_SIZE;
    let dots = [(dot, &b"."[..], ino), (dot + entry_size(1, ftype), &b".."[..], short.parent)];
    let dots = dots.map(|(offset, name, ino)| (offset, name, Target { ino, ftype: directory }));
    let items = || dots.into_iter().chain(short.items.iter().map(|i| (i.offset, &i.name[..], i.to)));
    let index: Result<Vec<LeafEntry>> =
        items().map(|(o, name, _)| Ok(entry(hash_name(g, name), address(o)?))).collect();
    let mut index = index?;
    index.sort_unstable_by_key(|e| (e.hashval.get(), e.address.get()));
    let end = bytes.len().saturating_sub(size_of::<BlockTail>() + index.len() * ENTRY);
    let mut block = DataMut::init(bytes, g, BLOCK_MAGIC, at, ino, end)?;
    BlockIndex::new(block.bytes).fill(&index)?;
    let mut piece = DATA_HEADER_SIZE;
    for (offset, name, to) in items() {
        let size = entry_size(name.len(), ftype);
        block.place(piece, offset, name, to)?;
        piece = offset + size;
    }
    Ok(())
}

impl DirMut<'_, '_> {
    pub(super) fn short(&mut self) -> Result<Short> {
        let bytes = self.fork.local_bytes()?;
        Short::parse(&bytes, self.ino, self.g)
    }

    pub(super) fn set_short(&mut self, short: &Short) -> Result<()> {
        let bytes = short.encode(self.g)?;
        self.fork.set_local(&bytes)
    }

    fn fits_inode(&mut self, short: &Short) -> Result<bool> {
        Ok(short.size(self.g) <= self.fork.room()?)
    }

    pub(super) fn short_add(&mut self, name: &[u8], to: Target) -> Result<()> {
        let mut short = self.short()?;
        if short.find(name, self.g).is_some() {
            return Err(self.exists(name));
        }
        let before = short.clone();
        if short.add(name, to, self.g) && self.fits_inode(&short)? {
            return self.set_short(&short);
        }
        self.short_to_block(&before)?;
        self.block_add(name, to)
    }

    pub(super) fn short_remove(&mut self, name: &[u8]) -> Result<Named> {
        let mut short = self.short()?;
        let Some(i) = short.find(name, self.g) else { return Err(self.no_such(name)) };
        let gone = short.items.remove(i);
        self.set_short(&short)?;
        Ok(gone.to.named())
    }

    pub(super) fn short_replace(&mut self, name: &[u8], to: Target) -> Result<Named> {
        let before = self.short()?;
        let mut short = before.clone();
        let old;
        if name == b".." {
            old = Named { ino: short.parent, ftype: to.ftype };
            short.parent = to.ino;
        } else {
            let found = short.find(name, self.g).and_then(|i| short.items.get_mut(i));
            let Some(item) = found else { return Err(self.no_such(name)) };
            old = std::mem::replace(&mut item.to, to).named();
        }
        // The new number may be the first that needs eight bytes.
        if self.fits_inode(&short)? {
            self.set_short(&short)?;
        } else {
            self.short_to_block(&short)?;
        }
        Ok(old)
    }

    pub(super) fn short_to_block(&mut self, short: &Short) -> Result<()> {
        self.fork.set_format(Format::Extents)?;
        self.set_size(1)?;
        let (g, ino) = (self.g, self.ino);
        let (at, bytes) = self.make(FIRST, &DIR_BLOCK)?;
        build(bytes, g, at, ino, short)
    }

    /// Puts a directory whose only block is given in full into the inode, where it fits there.
    pub(super) fn block_to_short(&mut self) -> Result<()> {
        let (g, ino) = (self.g, self.ino);
        let room = self.fork.room()?;
        let mut short = Short { parent: ino, items: Vec::new() };
        let mut parent = None;
        let mut names = 0;
        for e in entries(&self.read(FIRST, &DIR_ANY)?, g) {
            let e = e?;
            names += e.name.len();
            match e.name {
                b"." => {}
                b".." => parent = Some(e.ino),
                // Most directories are far too large.
                _ if names > room => return Ok(()),
                name => {
                    let to = Target { ino: e.ino, ftype: e.ftype };
                    short.items.push(Item { offset: e.offset, name: name.to_vec(), to });
                }
            }
        }
        short.parent = parent.ok_or_else(|| bad(ino, "..", Rule::Missing))?;
        if short.size(g) > room || short.items.len() > usize::from(u8::MAX) {
            return Ok(());
        }
        self.give_up(FIRST, &DIR_BLOCK)?;
        self.fork.set_format(Format::Local)?;
        self.set_short(&short)
    }

    pub(super) fn block_add(&mut self, name: &[u8], to: Target) -> Result<()> {
        if lookup::find(self, name)?.is_some() {
            return Err(self.exists(name));
        }
        let (g, hash) = (self.g, self.hash(name));
        if add(self.change(FIRST, &DIR_BLOCK)?, g, hash, name, to)? {
            return Ok(());
        }
        self.block_to_leaf()?;
        self.leaf_add(name, to)
    }

    pub(super) fn block_remove(&mut self, name: &[u8]) -> Result<Named> {
        let found = self.found(name)?;
        let (g, hash, (_, _, offset)) = (self.g, self.hash(name), self.split(found.address));
        let bytes = self.change(FIRST, &DIR_BLOCK)?;
        BlockIndex::new(bytes).remove(hash, found.address)?;
        DataMut::new(bytes, g).remove(offset)?;
        self.block_to_short()?;
        Ok(found.named())
    }

    /// In any form that has blocks.
    pub(super) fn block_replace(&mut self, name: &[u8], to: Target) -> Result<Named> {
        let found = self.found(name)?;
        let (g, (_, at, offset)) = (self.g, self.split(found.address));
        let kind = {
            let block = self.read(at, &DIR_ANY)?;
            crate::format::dir::block_type_of(&block).unwrap_or(&DIR_ANY)
        };
        DataMut::new(self.change(at, kind)?, g).set(offset, to)?;
        Ok(found.named())
    }
}

/// Adds a name to a block form; false where there is no room.
fn add(bytes: &mut [u8], g: &Geometry, hash: u32, name: &[u8], to: Target) -> Result<bool> {
    let size = entry_size(name.len(), g.features.ftype());
    let (_, stale) = BlockIndex::new(bytes).counts()?;
    if stale > 0 {
        if let Some(offset) = DataMut::new(bytes, g).add(name, to)? {
            return BlockIndex::new(bytes).reuse(entry(hash, address(offset)?));
        }
        // Without the stale entries the index may leave enough.
        compact(bytes, g)?;
    }
    let mut block = DataMut::new(bytes, g);
    let Some((last, length)) = block.last_unused() else { return Ok(false) };
    let Some(left) = length.checked_sub(ENTRY) else { return Ok(false) };
    let fits = |&(at, has): &(usize, usize)| has >= if at == last { size + ENTRY } else { size };
    let Some((offset, _)) = block.listed()?.into_iter().find(fits) else { return Ok(false) };
    block.place(offset, offset, name, to)?;
    // The piece in front of the index may be what the entry was taken from.
    let (last, left) = if offset == last { (last + size, left.saturating_sub(size)) } else { (last, left) };
    BlockIndex::new(block.bytes).grow(entry(hash, address(offset)?))?;
    block.shorten(last, left)?;
    Ok(true)
}

/// Drops the stale entries of a block form's index; what they took is unused.
fn compact(bytes: &mut [u8], g: &Geometry) -> Result<()> {
    let old = DataMut::new(bytes, g).end();
    let live = BlockIndex::new(bytes).live()?;
    BlockIndex::new(bytes).fill(&live)?;
    let mut block = DataMut::new(bytes, g);
    let new = block.end();
    if new > old { block.give(old, new - old, new) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::super::data::{DataMut, Target};
    use super::super::index::BlockIndex;
    use super::super::short::Short;
    use super::{add, build};
    use crate::format::Context;
    use crate::format::dir::{DIR_BLOCK, block_leaf, entries, hash_name};
    use crate::geometry::test_geometry;
    use crate::units::{Daddr, Ino, Lsn};
    use proptest::prelude::{any, prop, proptest};
    use std::collections::BTreeMap;

    proptest! {
        #[test]
        fn names_come_and_go(ops in prop::collection::vec((0u8..3, 1usize..256, any::<u16>()), 1..400)) {
            let g = test_geometry();
            let mut bytes = vec![0; g.dir_block_size as usize];
            build(&mut bytes, &g, Daddr(96), Ino(128), &Short { parent: Ino(128), items: Vec::new() }).unwrap();
            let mut model: BTreeMap<Vec<u8>, u64> = BTreeMap::new();
            for (n, (op, length, pick)) in ops.into_iter().enumerate() {
                if op < 2 {
                    let length = if pick % 3 == 0 { length } else { length % 12 + 1 };
                    let name = format!("{n:0length$}").into_bytes();
                    let hash = hash_name(&g, &name);
                    let to = Target { ino: Ino(130 + n as u64), ftype: 1 };
                    if add(&mut bytes, &g, hash, &name, to).unwrap() {
                        model.insert(name, to.ino.0);
                    }
                } else if !model.is_empty() {
                    let name = model.keys().nth(usize::from(pick) % model.len()).unwrap().clone();
                    let at = entries(&bytes, &g).map(|e| e.unwrap()).find(|e| e.name == name).unwrap().offset;
                    BlockIndex::new(&mut bytes).remove(hash_name(&g, &name), at as u32 / 8).unwrap();
                    DataMut::new(&mut bytes, &g).remove(at).unwrap();
                    model.remove(&name);
                }
                (DIR_BLOCK.seal)(&mut bytes, Lsn(1));
                (DIR_BLOCK.verify)(&bytes, &Context::new(&g, Daddr(96)).owned_by(Ino(128))).unwrap();
                let seen: BTreeMap<Vec<u8>, u64> = entries(&bytes, &g)
                    .map(|e| e.unwrap())
                    .filter(|e| e.name != b"." && e.name != b"..")
                    .map(|e| (e.name.to_vec(), e.ino.0))
                    .collect();
                assert_eq!(seen, model);
                let (tail, index) = block_leaf(&bytes).unwrap();
                assert_eq!(index.len(), model.len() + 2 + tail.stale.get() as usize);
            }
        }
    }
}
