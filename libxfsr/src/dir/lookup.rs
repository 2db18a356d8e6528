//! Finding one name, through the index where there is one.

use super::{bad, block, for_each, require_directory};
use crate::cache::{BlockRef, OnDamage};
use crate::error::{Error, ForkKind, Result, Rule};
use crate::format::da::{self, Node};
use crate::format::dir::{self, DIR_ANY, Leaf, LeafEntry};
use crate::format::inode::Format;
use crate::geometry::Geometry;
use crate::inode::Inode;
use crate::units::{FileBlock, Ino};
use crate::volume::Volume;
use std::collections::HashSet;
use std::ops::ControlFlow;

/// Where the blocks of a directory come from: a volume, or a transaction that has changed some.
pub(super) trait Blocks<'g> {
    fn geometry(&self) -> &'g Geometry;
    fn ino(&self) -> Ino;
    /// The directory's block at a file block; none where there is a hole.
    fn block(&mut self, at: FileBlock) -> Result<Option<BlockRef<'_>>>;
}

struct Reader<'v, 'i> {
    volume: &'v Volume,
    inode: &'i Inode,
}

impl<'v> Blocks<'v> for Reader<'v, '_> {
    fn geometry(&self) -> &'v Geometry {
        &self.volume.geometry
    }
    fn ino(&self) -> Ino {
        self.inode.ino
    }
    fn block(&mut self, at: FileBlock) -> Result<Option<BlockRef<'_>>> {
        Ok(block(self.volume, self.inode, at, &DIR_ANY, OnDamage::Fail)?.map(Into::into))
    }
}

/// An entry that was found in a block.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Found {
    pub ino: Ino,
    pub ftype: u8,
    /// Its address.
    pub address: u32,
}

/// The inode that a name leads to; none if the directory has no such name.
///
/// # Errors
/// When the inode is no directory, or a block on the way cannot be read or breaks a rule.
pub fn lookup(volume: &Volume, inode: &Inode, name: &[u8]) -> Result<Option<Ino>> {
    require_directory(inode)?;
    if inode.core.format(ForkKind::Data) == Some(Format::Local) {
        return scan(volume, inode, name);
    }
    Ok(find(&mut Reader { volume, inode }, name)?.map(|f| f.ino))
}

/// Finds a name in a directory that has blocks.
pub(super) fn find<'g, B: Blocks<'g>>(blocks: &mut B, name: &[u8]) -> Result<Option<Found>> {
    let (g, ino) = (blocks.geometry(), blocks.ino());
    let hash = dir::hash_name(g, name);
    let mut at = dir::leaf_start(g);
    let mut level = None;
    // Whatever the siblings say, no leaf is looked at twice.
    let mut seen = HashSet::new();
    loop {
        let Some(index) = blocks.block(at)? else {
            if at == dir::leaf_start(g) {
                return in_single(blocks, hash, name);
            }
            return Err(missing(ino, at));
        };
        let next = if da::magic_of(&index) == Some(da::NODE_MAGIC) {
            let bad_node = |field| bad(ino, field, Rule::Range);
            let node = Node::from_bytes(&index).ok_or_else(|| bad_node("node"))?;
            let found = node.header.level.get();
            // Each level is one below its parent, so that nobody descends for ever.
            let right = level.map_or(found <= da::MAX_DEPTH, |l: u16| found + 1 == l);
            if !right || found == 0 {
                return Err(bad_node("level").found(found).into());
            }
            level = Some(found);
            let Some(entry) = node.find(hash).and_then(|i| node.entries.get(i)) else { return Ok(None) };
            entry.before.get()
        } else {
            let leaf = Leaf::from_bytes(&index).ok_or_else(|| bad(ino, "leaf", Rule::Truncated))?;
            let addresses: Vec<u32> = leaf.find(hash).map(|e| e.address.get()).collect();
            // Equal hashes may run on into the next leaf.
            let forw = leaf.header.info.forw.get();
            let last = leaf.entries.last().map(|e| e.hashval.get());
            drop(index);
            if let Some(found) = among(blocks, &addresses, name)? {
                return Ok(Some(found));
            }
            if forw == 0 || last != Some(hash) {
                return Ok(None);
            }
            if !seen.insert(forw) {
                return Err(bad(ino, "forw", Rule::Loop).into());
            }
            // What follows is a leaf.
            level = Some(0);
            forw
        };
        at = FileBlock(next.into());
        if at < dir::leaf_start(g) {
            return Err(missing(ino, at));
        }
    }
}

fn missing(ino: Ino, at: FileBlock) -> Error {
    bad(ino, "before", Rule::Missing).in_fork(ForkKind::Data, Some(at)).into()
}

/// No index section: a single block, with its index at its end.
fn in_single<'g, B: Blocks<'g>>(blocks: &mut B, hash: u32, name: &[u8]) -> Result<Option<Found>> {
    let ino = blocks.ino();
    let Some(block) = blocks.block(FileBlock(0))? else { return Err(missing(ino, FileBlock(0))) };
    let Some((_, index)) = dir::block_leaf(&block).filter(|_| dir::block_type_of(&block) == Some(&dir::DIR_BLOCK))
    else {
        return Err(bad(ino, "block", Rule::Magic).expected("the single block of a small directory").into());
    };
    let first = index.partition_point(|e| e.hashval.get() < hash);
    let run = index.get(first..).unwrap_or(&[]).iter().take_while(|e| e.hashval.get() == hash);
    let addresses: Vec<u32> = run.filter(|e| !e.is_stale()).map(|e: &LeafEntry| e.address.get()).collect();
    drop(block);
    among(blocks, &addresses, name)
}

/// Which of the entries at these addresses has the name.
pub(super) fn among<'g, B: Blocks<'g>>(blocks: &mut B, addresses: &[u32], name: &[u8]) -> Result<Option<Found>> {
    let (g, ino) = (blocks.geometry(), blocks.ino());
    for &address in addresses {
        let (at, offset) = dir::split_address(g, address);
        let Some(data) = blocks.block(at)? else {
            return Err(bad(ino, "address", Rule::Missing).in_fork(ForkKind::Data, Some(at)).into());
        };
        let e = dir::entry_at(&data, offset, g).map_err(|c| c.in_inode(ino))?;
        if dir::same_name(g, e.name, name) {
            return Ok(Some(Found { ino: e.ino, ftype: e.ftype, address }));
        }
    }
    Ok(None)
}

fn scan(volume: &Volume, inode: &Inode, name: &[u8]) -> Result<Option<Ino>> {
    let mut found = None;
    for_each(volume, inode, OnDamage::Fail, &mut |seen| {
        match seen {
            Ok((_, e)) if dir::same_name(&volume.geometry, e.name, name) => found = Some(Ok(e.ino)),
            Ok(_) => return ControlFlow::Continue(()),
            Err(e) => found = Some(Err(e)),
        }
        ControlFlow::Break(())
    })?;
    found.transpose()
}
