//! Holes and zeroes.

use super::FileMut;
use crate::error::{Error, Result};
use crate::units::FileBlock;

impl FileMut<'_> {
    /// The whole blocks of a range, as first and behind the last. The end of the file's last block counts as the end of the block.
    fn whole_blocks(&self, offset: u64, end: u64) -> (u64, u64) {
        let block = 1 << self.log();
        (offset.div_ceil(block), end / block)
    }

    /// Zeroes the parts of a range that are no whole blocks.
    fn zero_edges(&self, offset: u64, end: u64) -> Result<()> {
        let (first, last) = self.whole_blocks(offset, end);
        let log = self.log();
        if first > last {
            return self.zero_written(offset, end);
        }
        self.zero_written(offset, first << log)?;
        self.zero_written(last << log, end)
    }

    /// Makes a hole: whole blocks are freed, parts of blocks zeroed. The size stays.
    ///
    /// # Errors
    /// [`Error::NoSpace`] where the map must be split, or a part of a shared block is zeroed, and there is no block; I/O errors.
    pub fn punch(&self, offset: u64, len: u64) -> Result<()> {
        let end = self.checked_end(offset, len)?;
        self.zero_edges(offset, end)?;
        let (first, last) = self.whole_blocks(offset, end);
        if last > first {
            self.free_blocks(first, last - first)?;
        }
        let mut t = self.begin(1)?;
        self.touch(&mut t, 0)?;
        t.commit().map(drop)
    }

    /// Makes a range read as zeroes, with blocks behind it: what is mapped becomes unwritten, holes get blocks.
    ///
    /// # Errors
    /// As [`FileMut::punch`] and [`FileMut::allocate`].
    pub fn zero(&self, offset: u64, len: u64, keep_size: bool) -> Result<()> {
        let end = self.checked_end(offset, len)?;
        let inode = self.inode()?;
        if !keep_size && offset > inode.size() {
            self.zero_written(inode.size(), offset)?;
        }
        self.zero_edges(offset, end)?;
        let (mut first, last) = self.whole_blocks(offset, end);
        if inode.core.is_reflink() && last > first {
            // Of blocks that others have only the reference goes.
            self.free_blocks(first, last - first)?;
        }
        while first < last {
            // Of so many extents as a transaction has room for.
            let mut t = self.begin(super::EXTENTS)?;
            let mut fork = self.fork(&mut t);
            let mut to = first;
            for _ in 0..super::EXTENTS {
                let Some(e) = fork.at_or_next(FileBlock(to))?.filter(|e| e.offset < last) else {
                    to = last;
                    break;
                };
                to = (e.offset + e.count).min(last);
            }
            fork.convert(FileBlock(first), to - first, true)?;
            t.commit()?;
            first = to;
        }
        self.allocate(offset, len, keep_size)
    }

    pub(super) fn aligned(&self, offset: u64, len: u64) -> Result<(u64, u64)> {
        let mask = (1u64 << self.log()) - 1;
        if offset & mask != 0 || len & mask != 0 || len == 0 {
            return Err(Error::invalid(format!("{len} bytes at {offset} are no whole blocks of {} bytes", mask + 1)));
        }
        Ok((offset >> self.log(), len >> self.log()))
    }
}
