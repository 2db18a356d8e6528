//! The size of a file, and blocks set aside for it.

use super::{EXTENTS, FileMut, Piece};
use crate::error::Result;
use crate::format::btree::MAX_EXTENT;
use crate::format::inode::Flags;
use crate::units::FileBlock;

impl FileMut<'_> {
    /// Makes the file so long. Blocks behind the end are freed, the size first: a crash leaves some of them, which no reader sees.
    ///
    /// # Errors
    /// [`Error::Invalid`](crate::Error::Invalid) beyond the largest size; I/O errors.
    pub fn truncate(&self, size: u64) -> Result<()> {
        self.checked_end(size, 0)?;
        let old = self.inode()?.size();
        if size > old {
            self.zero_written(old, size)?;
        }
        let mut t = self.begin(1)?;
        self.touch(&mut t, 0)?;
        self.change(&mut t, |core| core.size.set(size))?;
        t.commit()?;
        if size <= old {
            self.free_behind(size)?;
        }
        Ok(())
    }

    /// Frees all blocks that lie wholly behind a byte.
    fn free_behind(&self, size: u64) -> Result<()> {
        let first = size.div_ceil(1 << self.log());
        self.free_blocks(first, (u64::MAX >> self.log()).saturating_sub(first))
    }

    /// Frees blocks, a few extents in each transaction.
    pub(super) fn free_blocks(&self, first: u64, blocks: u64) -> Result<()> {
        let (mut left, mut blocks) = (first + blocks, blocks);
        while blocks > 0 {
            let mut t = self.begin(EXTENTS + 1)?;
            left = self.fork(&mut t).free_last(FileBlock(first), blocks, EXTENTS as usize)?.0.min(left);
            t.commit()?;
            blocks = left - first;
        }
        Ok(())
    }

    /// Sets blocks aside for a range, unwritten: writing there needs no space any more, unless the blocks are shared. The file becomes longer where it ends
    /// before, if not `keep_size`.
    ///
    /// # Errors
    /// [`Error::NoSpace`](crate::Error::NoSpace), with what there was set aside; as [`FileMut::truncate`].
    pub fn allocate(&self, offset: u64, len: u64, keep_size: bool) -> Result<()> {
        let end = self.checked_end(offset, len)?;
        let size = self.inode()?.size();
        if !keep_size && end > size {
            self.zero_written(size, end)?;
        }
        let (mut block, log) = (offset >> self.log(), self.log());
        let last = end.div_ceil(1 << log);
        while block < last {
            let inode = self.inode()?;
            block += match self.piece(block, (last - block).min(MAX_EXTENT))? {
                Piece::Hole(n) => self.allocate_unwritten(&inode, block, n)?,
                Piece::Mapped(e) => e.count,
            };
        }
        let mut t = self.begin(1)?;
        self.touch(&mut t, if keep_size { 0 } else { end })?;
        self.change(&mut t, |core| core.flags.set(core.flags.get() | Flags::PREALLOC.bits()))?;
        t.commit().map(drop)
    }
}
