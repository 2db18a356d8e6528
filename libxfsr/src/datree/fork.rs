//! The blocks of a tree in a fork that is changed in a transaction.

use super::Blocks;
use crate::cache::{BlockKey, OnDamage, Want};
use crate::error::{Corruption, Error, Result, Rule};
use crate::format::da::BlockInfo;
use crate::format::{BlockType, attr, dir};
use crate::geometry::Geometry;
use crate::inode::map::ForkMut;
use crate::units::FileBlock;
use std::collections::BTreeMap;
use std::ops::ControlFlow;
use zerocopy::FromBytes;

/// Where in a fork its tree is, and what blocks it has.
#[derive(Clone, Copy, Debug)]
struct Place {
    root: FileBlock,
    /// Behind the last block that a tree may have.
    end: u64,
    /// Blocks of the filesystem that make one of the tree.
    blocks: u32,
    any: &'static BlockType,
    kind_of: fn(&[u8]) -> Option<&'static BlockType>,
}

/// The blocks of a tree in a fork that is changed in a transaction. Blocks are locked with the first look at them.
#[derive(Debug)]
pub struct ForkBlocks<'f, 'w, 's> {
    fork: &'f mut ForkMut<'w, 's>,
    place: Place,
    keys: BTreeMap<u64, BlockKey>,
}

impl<'f, 'w, 's> ForkBlocks<'f, 'w, 's> {
    /// The tree of an attribute fork.
    pub fn attributes(fork: &'f mut ForkMut<'w, 's>) -> Self {
        let (root, end) = (FileBlock(0), u64::from(u32::MAX));
        let place = Place { root, end, blocks: 1, any: &attr::ATTR_ANY, kind_of: attr::block_type_of };
        Self { fork, place, keys: BTreeMap::new() }
    }
    /// The tree of a directory's data fork.
    pub fn directory(fork: &'f mut ForkMut<'w, 's>) -> Self {
        let g: &Geometry = fork.t().geometry();
        let (root, end) = (dir::leaf_start(g), dir::free_start(g).0);
        let place = Place {
            root,
            end,
            blocks: g.dir_block_size >> g.block_log,
            any: &dir::DIR_ANY,
            kind_of: dir::block_type_of,
        };
        Self { fork, place, keys: BTreeMap::new() }
    }
    /// The fork.
    pub fn fork(&mut self) -> &mut ForkMut<'w, 's> {
        self.fork
    }

    fn key(&mut self, at: FileBlock) -> Result<BlockKey> {
        if let Some(key) = self.keys.get(&at.0) {
            return Ok(key.clone());
        }
        let key = self.fork.block_key(at, self.place.blocks)?;
        self.keys.insert(at.0, key.clone());
        Ok(key)
    }

    fn want(&self, kind: &'static BlockType) -> Want {
        Want::new(kind, OnDamage::Fail).owned_by(self.fork.ino())
    }

    /// Joins a block as what it is.
    fn join(&mut self, at: FileBlock) -> Result<BlockKey> {
        let (key, any) = (self.key(at)?, self.want(self.place.any));
        let kind_of = self.place.kind_of;
        let t = self.fork.t();
        if !t.has(&key) {
            let kind = kind_of(t.block(&key, &any)?);
            let Some(kind) = kind else {
                t.let_go(&key);
                return Err(self.locate(Corruption::new("datree", "magic", Rule::Magic), at).into());
            };
            let want = self.want(kind);
            self.fork.t().set_kind(&key, &want);
        }
        Ok(key)
    }

    /// The first place behind the root where a block finds room.
    fn hole(&mut self) -> Result<FileBlock> {
        let Place { root, end, blocks, .. } = self.place;
        let step = u64::from(blocks.max(1));
        let mut at = root.0;
        self.fork.extents((root.0, end), &mut |e| {
            if e.offset >= at.saturating_add(step) {
                return ControlFlow::Break(());
            }
            at = at.max(e.offset.saturating_add(e.count).saturating_sub(root.0).next_multiple_of(step) + root.0);
            ControlFlow::Continue(())
        })?;
        if at.saturating_add(step) > end {
            return Err(Error::NoSpace(format!(
                "inode {} has no place for another block of its tree",
                self.fork.ino()
            )));
        }
        Ok(FileBlock(at))
    }
}

impl Blocks for ForkBlocks<'_, '_, '_> {
    fn root(&self) -> FileBlock {
        self.place.root
    }
    fn block(&mut self, at: FileBlock) -> Result<&[u8]> {
        let (key, any) = (self.join(at)?, self.want(self.place.any));
        self.fork.t().block(&key, &any)
    }
    fn block_mut(&mut self, at: FileBlock) -> Result<&mut [u8]> {
        let (key, any) = (self.join(at)?, self.want(self.place.any));
        self.fork.t().block_mut(&key, &any)
    }
    fn create(&mut self, kind: &'static BlockType, magic: u16) -> Result<FileBlock> {
        let at = self.hole()?;
        let key = self.fork.add_block(at, self.place.blocks)?;
        let (want, owner) = (self.want(kind), self.fork.ino().0);
        let t = self.fork.t();
        let uuid = t.geometry().meta_uuid;
        let bytes = t.fresh(&key, &want)?;
        let (info, _) = BlockInfo::mut_from_prefix(bytes).map_err(|_| Error::invalid("a block without a header"))?;
        info.magic.set(magic);
        info.blkno.set(key.daddr().0);
        info.uuid = uuid;
        info.owner.set(owner);
        self.keys.insert(at.0, key);
        Ok(at)
    }
    fn set_kind(&mut self, at: FileBlock, kind: &'static BlockType) -> Result<()> {
        let (key, want) = (self.join(at)?, self.want(kind));
        self.fork.t().set_kind(&key, &want);
        Ok(())
    }
    fn free(&mut self, at: FileBlock, kind: &'static BlockType) -> Result<()> {
        self.keys.remove(&at.0);
        self.fork.remove_block(at, self.place.blocks, kind)
    }
    fn locate(&self, c: Box<Corruption>, at: FileBlock) -> Box<Corruption> {
        c.in_inode(self.fork.ino()).in_fork(self.fork.kind(), Some(at))
    }
}
