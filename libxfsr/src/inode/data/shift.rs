//! Taking a range out of a file, and putting one in: the extents behind it move in the file, not on the device.

use super::{EXTENTS, FileMut};
use crate::error::{Error, Result};
use crate::format::btree::Extent;
use crate::units::FileBlock;

impl FileMut<'_> {
    /// Takes whole blocks out: what lies behind them moves up, and the file becomes shorter.
    ///
    /// # Errors
    /// [`Error::Invalid`] for what is no whole blocks, or reaches to the end; as [`FileMut::punch`].
    pub fn collapse(&self, offset: u64, len: u64) -> Result<()> {
        let (first, blocks) = self.aligned(offset, len)?;
        let size = self.inode()?.size();
        let end = self.checked_end(offset, len)?;
        if end >= size {
            return Err(Error::invalid(format!("{len} bytes at {offset} reach to the end of the file, at {size}")));
        }
        self.free_blocks(first, blocks)?;
        let mut from = first + blocks;
        loop {
            let mut t = self.begin(2 * EXTENTS)?;
            let mut fork = self.fork(&mut t);
            let mut moved = 0;
            while moved < EXTENTS
                && let Some(e) = fork.at_or_next(FileBlock(from))?
            {
                let e = cut_before(&e, from);
                fork.shift(&e, e.offset - blocks)?;
                from = e.offset + e.count;
                moved += 1;
            }
            t.commit()?;
            if moved < EXTENTS {
                break;
            }
        }
        let mut t = self.begin(1)?;
        self.touch(&mut t, 0)?;
        self.change(&mut t, |core| core.size.set(size - len))?;
        t.commit().map(drop)
    }

    /// Puts whole blocks in, as a hole: what lies there and behind moves down, and the file becomes longer.
    ///
    /// # Errors
    /// [`Error::Invalid`] for what is no whole blocks, or begins behind the end; where the file would be too long; as [`FileMut::punch`].
    pub fn insert(&self, offset: u64, len: u64) -> Result<()> {
        let (first, blocks) = self.aligned(offset, len)?;
        let inode = self.inode()?;
        let size = inode.size();
        if offset >= size {
            return Err(Error::invalid(format!("byte {offset} lies behind the end of the file, at {size}")));
        }
        self.checked_end(size, len)?;
        let mut t = self.begin(1)?;
        let last = self.fork(&mut t).end()?;
        self.checked_end(last.0 << self.log(), len)?;
        self.touch(&mut t, size + len)?;
        t.commit()?;
        let mut to = last.0;
        loop {
            let mut t = self.begin(2 * EXTENTS)?;
            let mut fork = self.fork(&mut t);
            let mut moved = 0;
            while moved < EXTENTS
                && to > first
                && let Some(e) = fork.before(FileBlock(to))?.filter(|e| e.offset + e.count > first)
            {
                let e = cut_before(&e, first);
                fork.shift(&e, e.offset + blocks)?;
                to = e.offset;
                moved += 1;
            }
            t.commit()?;
            if moved < EXTENTS {
                return Ok(());
            }
        }
    }
}

/// An extent without what lies before a block.
fn cut_before(e: &Extent, block: u64) -> Extent {
    let skip = block.saturating_sub(e.offset);
    Extent { offset: e.offset + skip, start: e.start + skip, count: e.count - skip, unwritten: e.unwritten }
}
