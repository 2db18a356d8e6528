//! The trees of an AG, whose roots are in the AGF and the AGI.

use crate::btree::{Ptr, Root, Store, Width};
use crate::cache::{BlockRef, Keep, OnDamage, Want};
use crate::error::{Corruption, Result};
use crate::format::BlockType;
use crate::format::ag::{AGF, AGI, Agf, Agi};
use crate::format::btree::{self, Layout};
use crate::units::{AgBlock, AgNumber};
use crate::volume::Volume;
use zerocopy::FromBytes;

/// Which tree of an AG.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AgTree {
    /// Free space by block.
    Bno,
    /// Free space by size.
    Cnt,
    /// Inode chunks.
    Ino,
    /// Inode chunks with free inodes.
    Fino,
    /// Reverse mappings.
    Rmap,
    /// Reference counts.
    Refcount,
}

impl AgTree {
    /// Type of its blocks.
    pub fn block_type(self) -> &'static BlockType {
        match self {
            Self::Bno => &btree::BNOBT_BLOCK,
            Self::Cnt => &btree::CNTBT_BLOCK,
            Self::Ino => &btree::INOBT_BLOCK,
            Self::Fino => &btree::FINOBT_BLOCK,
            Self::Rmap => &btree::RMAPBT_BLOCK,
            Self::Refcount => &btree::REFCOUNTBT_BLOCK,
        }
    }
    /// Sizes in its blocks.
    pub fn layout(self) -> Layout {
        match self {
            Self::Bno | Self::Cnt => btree::ALLOC,
            Self::Ino | Self::Fino => btree::INO,
            Self::Rmap => btree::RMAP,
            Self::Refcount => btree::REFCOUNT,
        }
    }
}

/// A tree of an AG, to read.
#[derive(Debug)]
pub struct AgStore<'v> {
    volume: &'v Volume,
    ag: AgNumber,
    tree: AgTree,
    root: Ptr,
    levels: u8,
}

impl<'v> AgStore<'v> {
    /// From the AG's header. With [`OnDamage::Keep`] a header that breaks rules is used as far as it goes.
    ///
    /// # Errors
    /// When the header cannot be read.
    pub fn new(volume: &'v Volume, ag: AgNumber, tree: AgTree, damage: OnDamage) -> Result<Self> {
        let short = || crate::Error::invalid("an AG header is shorter than its structure");
        let (root, levels) = match tree {
            AgTree::Ino | AgTree::Fino => {
                let b = volume.ag_header(ag, 2, &AGI, damage)?;
                let (agi, _) = Agi::read_from_prefix(&b).map_err(|_| short())?;
                if tree == AgTree::Ino { (agi.root, agi.level) } else { (agi.free_root, agi.free_level) }
            }
            _ => {
                let b = volume.ag_header(ag, 1, &AGF, damage)?;
                let (agf, _) = Agf::read_from_prefix(&b).map_err(|_| short())?;
                match tree {
                    AgTree::Bno => (agf.bno_root, agf.bno_level),
                    AgTree::Cnt => (agf.cnt_root, agf.cnt_level),
                    AgTree::Rmap => (agf.rmap_root, agf.rmap_level),
                    _ => (agf.refcount_root, agf.refcount_level),
                }
            }
        };
        Ok(Self { volume, ag, tree, root: Ptr(root.get().into()), levels: levels.get().min(255) as u8 })
    }
}

impl Store for AgStore<'_> {
    fn width(&self) -> Width {
        Width::Short
    }
    fn block_type(&self) -> &'static BlockType {
        self.tree.block_type()
    }
    fn layout(&self) -> Layout {
        self.tree.layout()
    }
    fn block_size(&self) -> usize {
        self.volume.geometry.block_size as usize
    }
    fn root(&self) -> Result<Root> {
        Ok(Root::Block { at: self.root, levels: self.levels })
    }
    fn read(&self, at: Ptr, damage: OnDamage, keep: Keep) -> Result<BlockRef<'_>> {
        let agbno = AgBlock(u32::try_from(at.0).unwrap_or(u32::MAX));
        Ok(self.volume.ag_block(self.ag, agbno, &Want::new(self.block_type(), damage).keep(keep))?.into())
    }
    fn readahead(&self, blocks: &mut dyn Iterator<Item = Ptr>) {
        let blocks = blocks.filter_map(|p| u32::try_from(p.0).ok());
        self.volume.readahead(blocks.map(|b| (self.ag, AgBlock(b))));
    }
    fn locate(&self, c: Box<Corruption>, at: Option<Ptr>) -> Box<Corruption> {
        c.in_ag(self.ag, at.map(|p| AgBlock(u32::try_from(p.0).unwrap_or(u32::MAX))))
    }
}
