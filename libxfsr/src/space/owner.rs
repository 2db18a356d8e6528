//! Who owns blocks, as reverse mappings say it.

use crate::error::ForkKind;
use crate::format::btree::{
    RMAP_ATTR_FORK, RMAP_BMBT_BLOCK, RMAP_OFFSET_MASK, RMAP_UNWRITTEN, RmapKey, RmapRec, owner,
};
use crate::units::{FileBlock, Ino};
use zerocopy::big_endian::{U32, U64};

/// Owner of an extent: a file's data at an offset, blocks of a fork's extent btree, or one of the filesystem's own.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct RmapOwner {
    /// Inode, or one of [`owner`].
    pub owner: u64,
    /// Flags, and block of the file, as records have them.
    pub offset: u64,
}

impl RmapOwner {
    /// Trees of free space and of reverse mappings, and the free list.
    pub const AG: Self = Self::special(owner::AG);
    /// Inode btrees.
    pub const INOBT: Self = Self::special(owner::INOBT);
    /// Inode chunks.
    pub const INODES: Self = Self::special(owner::INODES);
    /// refcountbt.
    pub const REFC: Self = Self::special(owner::REFC);
    /// Staging extents of copy on write.
    pub const COW: Self = Self::special(owner::COW);
    /// Whoever has it, if anybody has: extents whose free a crash cut off.
    pub const UNKNOWN: Self = Self::special(owner::UNKNOWN);

    /// One of [`owner`].
    pub const fn special(owner: u64) -> Self {
        Self { owner, offset: 0 }
    }
    /// Blocks of a fork, from that block of the file on.
    pub fn file(ino: Ino, fork: ForkKind, at: FileBlock, unwritten: bool) -> Self {
        let attr = if fork == ForkKind::Attr { RMAP_ATTR_FORK } else { 0 };
        let unwritten = if unwritten { RMAP_UNWRITTEN } else { 0 };
        Self { owner: ino.0, offset: at.0 & RMAP_OFFSET_MASK | attr | unwritten }
    }
    /// Blocks of a fork's extent btree.
    pub fn extent_tree(ino: Ino, fork: ForkKind) -> Self {
        let attr = if fork == ForkKind::Attr { RMAP_ATTR_FORK } else { 0 };
        Self { owner: ino.0, offset: RMAP_BMBT_BLOCK | attr }
    }
    /// Whether its blocks have places in a file: neighbours are one mapping only where those are neighbours too.
    pub fn has_offset(&self) -> bool {
        !owner::is_special(self.owner) && self.offset & RMAP_BMBT_BLOCK == 0
    }
    /// The owner of what lies `blocks` behind.
    #[must_use]
    pub fn behind(&self, blocks: u32) -> Self {
        if !self.has_offset() {
            return *self;
        }
        let at = (self.offset & RMAP_OFFSET_MASK).wrapping_add(blocks.into()) & RMAP_OFFSET_MASK;
        Self { owner: self.owner, offset: self.offset & !RMAP_OFFSET_MASK | at }
    }
    pub(super) fn of(r: &RmapRec) -> Self {
        Self { owner: r.owner.get(), offset: r.offset.get() }
    }
    pub(super) fn record(&self, start: u32, count: u32) -> RmapRec {
        RmapRec {
            startblock: U32::new(start),
            blockcount: U32::new(count),
            owner: U64::new(self.owner),
            offset: U64::new(self.offset),
        }
    }
    pub(super) fn key(&self, start: u32) -> RmapKey {
        RmapKey {
            startblock: U32::new(start),
            owner: U64::new(self.owner),
            offset: U64::new(self.offset & !RMAP_UNWRITTEN),
        }
    }
}
