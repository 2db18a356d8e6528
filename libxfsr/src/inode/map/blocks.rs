//! Blocks of directories and attributes: `count` blocks of the filesystem that are one block of theirs.

use super::ForkMut;
use crate::cache::{BlockKey, OnDamage, Want};
use crate::error::{Error, Result};
use crate::format::BlockType;
use crate::space::{Fill, Request};
use crate::units::{FileBlock, FsBlock};

/// What metadata of a fork asks for; the map has its reverse mapping made.
fn metadata(min: u32, max: u32) -> Request {
    Request { min, max, align: 1, left: 0, unlogged: false, owner: None, fill: Fill::Free }
}

impl ForkMut<'_, '_> {
    /// Names the block that `blocks` blocks from `at` on make: in one piece where they lie side by side.
    ///
    /// # Errors
    /// [`Error::Corrupt`] where one of them is a hole or leads outside the device; errors of reading.
    pub fn block_key(&mut self, at: FileBlock, blocks: u32) -> Result<BlockKey> {
        self.find_block(at, blocks)?.ok_or_else(|| self.hole(at.0))
    }

    /// The same; none where a hole begins there.
    ///
    /// # Errors
    /// As [`ForkMut::block_key`], where a block begins and does not end.
    pub fn find_block(&mut self, at: FileBlock, blocks: u32) -> Result<Option<BlockKey>> {
        if let Some((_, key)) = self.keys.iter().find(|(asked, _)| *asked == (at.0, blocks)) {
            return Ok(Some(key.clone()));
        }
        let g = self.t.geometry();
        let sectors = g.block_size / 512;
        let mut pieces = Vec::new();
        let (mut next, end) = (at.0, at.0.saturating_add(blocks.into()));
        while next < end {
            let e = match self.mapped(FileBlock(next))? {
                Some(e) => e,
                None if next == at.0 => return Ok(None),
                None => return Err(self.hole(next)),
            };
            let n = (e.offset + e.count).min(end) - next;
            let start = FsBlock(e.start + (next - e.offset));
            let daddr = g.fsblock_to_daddr(start).filter(|_| g.is_valid_extent(start, n)).ok_or_else(|| {
                self.bad("startblock", crate::error::Rule::Range).found(start).expected("an extent of the device")
            })?;
            pieces.push((daddr, n as u32 * sectors));
            next += n;
        }
        if pieces.is_empty() {
            return Err(Error::invalid("a block of no blocks"));
        }
        let key = BlockKey::many(self.t.volume().data, pieces);
        self.keys.push(((at.0, blocks), key.clone()));
        Ok(Some(key))
    }

    /// Allocates and maps a block, in one piece where that is possible. The caller fills it:
    /// [`Transaction::fresh`](crate::txn::Transaction::fresh).
    ///
    /// # Errors
    /// [`Error::NoSpace`]; as [`ForkMut::map`].
    pub fn add_block(&mut self, at: FileBlock, blocks: u32) -> Result<BlockKey> {
        match self.find_space(at, &metadata(blocks, blocks), None) {
            Ok(e) => self.map(&e)?,
            Err(Error::NoSpace(_)) if blocks > 1 => {
                let (mut next, end) = (at.0, at.0.saturating_add(blocks.into()));
                while next < end {
                    let left = u32::try_from(end - next).unwrap_or(u32::MAX);
                    next += self.allocate(FileBlock(next), &metadata(1, left), None, false)?.count;
                }
            }
            Err(e) => return Err(e),
        }
        self.block_key(at, blocks)
    }

    /// Unmaps and frees a block. What was logged of it is not replayed over what it becomes.
    ///
    /// # Errors
    /// As [`ForkMut::block_key`] and [`ForkMut::free`].
    pub fn remove_block(&mut self, at: FileBlock, blocks: u32, kind: &'static BlockType) -> Result<()> {
        let key = self.block_key(at, blocks)?;
        let want = Want::new(kind, OnDamage::Fail).owned_by(self.ino);
        self.t.invalidate(&key, &want)?;
        self.free(at, blocks.into())
    }
}
