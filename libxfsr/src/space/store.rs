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
use zerocopy::big_endian::U32;

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
    /// Its root stands in the AGI, not in the AGF.
    pub(super) fn is_of_inodes(self) -> bool {
        matches!(self, Self::Ino | Self::Fino)
    }
    /// Where the AGI has the root of a tree of inodes.
    pub(super) fn in_agi(self, agi: &mut Agi) -> RootField<'_> {
        match self {
            Self::Ino => RootField { at: &mut agi.root, levels: &mut agi.level },
            _ => RootField { at: &mut agi.free_root, levels: &mut agi.free_level },
        }
    }
    /// Where the AGF has the root of one of the others.
    pub(super) fn in_agf(self, agf: &mut Agf) -> RootField<'_> {
        match self {
            Self::Bno => RootField { at: &mut agf.bno_root, levels: &mut agf.bno_level },
            Self::Cnt => RootField { at: &mut agf.cnt_root, levels: &mut agf.cnt_level },
            Self::Rmap => RootField { at: &mut agf.rmap_root, levels: &mut agf.rmap_level },
            _ => RootField { at: &mut agf.refcount_root, levels: &mut agf.refcount_level },
        }
    }
}

/// The root of a tree in a header.
pub(super) struct RootField<'h> {
    at: &'h mut U32,
    levels: &'h mut U32,
}

impl RootField<'_> {
    pub(super) fn read(&self) -> Root {
        Root::Block { at: Ptr(self.at.get().into()), levels: self.levels.get().min(255) as u8 }
    }
    pub(super) fn write(self, at: u32, levels: u8) {
        self.at.set(at);
        self.levels.set(levels.into());
    }
}

/// A tree of an AG, to read.
#[derive(Debug)]
pub struct AgStore<'v> {
    volume: &'v Volume,
    ag: AgNumber,
    tree: AgTree,
    root: Root,
}

impl<'v> AgStore<'v> {
    /// From the AG's header. With [`OnDamage::Keep`] a header that breaks rules is used as far as it goes.
    ///
    /// # Errors
    /// When the header cannot be read.
    pub fn new(volume: &'v Volume, ag: AgNumber, tree: AgTree, damage: OnDamage) -> Result<Self> {
        let short = || crate::Error::invalid("an AG header is shorter than its structure");
        let root = if tree.is_of_inodes() {
            let mut b = volume.ag_header(ag, 2, &AGI, damage)?.to_vec();
            tree.in_agi(Agi::mut_from_prefix(&mut b).map_err(|_| short())?.0).read()
        } else {
            let mut b = volume.ag_header(ag, 1, &AGF, damage)?.to_vec();
            tree.in_agf(Agf::mut_from_prefix(&mut b).map_err(|_| short())?.0).read()
        };
        Ok(Self { volume, ag, tree, root })
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
        Ok(self.root.clone())
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
