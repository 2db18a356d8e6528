//! Writing: into holes, into unwritten and written blocks, and beside blocks that other files have.

use super::{AT_ONCE_BYTES, FileMut, Piece};
use crate::error::{Error, Result};
use crate::format::btree::{Extent, MAX_EXTENT};
use crate::inode::Inode;
use crate::space::Request;
use crate::units::FileBlock;

static ZEROES: [u8; 1 << 16] = [0; 1 << 16];

impl FileMut<'_> {
    /// Writes, and makes the file longer where it ends before. Returns how many bytes were written: fewer where space ran out.
    ///
    /// # Errors
    /// [`Error::NoSpace`] where nothing could be written; [`Error::Invalid`] beyond the largest size; I/O errors.
    pub fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<usize> {
        let end = self.checked_end(offset, bytes.len() as u64)?;
        if bytes.is_empty() {
            return Ok(0);
        }
        let size = self.inode()?.size();
        if offset > size {
            self.zero_written(size, offset)?;
        }
        let (mut done, mut told) = (0, false);
        while let Some(rest) = bytes.get(done..).filter(|rest| !rest.is_empty()) {
            match self.write_some(offset + done as u64, rest, true) {
                Ok((n, stamped)) => (done, told) = (done + n, stamped),
                Err(Error::NoSpace(_)) if done > 0 => break,
                Err(e) => return Err(e),
            }
        }
        let end = end.min(offset + done as u64);
        if !told {
            if end > size {
                self.scope.sink().wrote_contents();
            }
            let mut t = self.begin(1)?;
            self.touch(&mut t, end)?;
            t.commit()?;
        }
        Ok(done)
    }

    /// Zeroes what is mapped and written of a range. Holes stay.
    pub(super) fn zero_written(&self, from: u64, to: u64) -> Result<()> {
        let (mut at, log) = (from, self.log());
        while at < to {
            let block = at >> log;
            let last = (to - 1) >> log;
            let skip = match self.piece(block, last - block + 1)? {
                Piece::Hole(n) => Some(n),
                Piece::Mapped(e) if e.unwritten => Some(e.count),
                Piece::Mapped(_) => None,
            };
            if let Some(blocks) = skip {
                at = (block + blocks) << log;
                continue;
            }
            let len = (to - at).min(ZEROES.len() as u64) as usize;
            at += self.write_some(at, ZEROES.get(..len).unwrap_or(&ZEROES), false)?.0 as u64;
        }
        // Whatever makes the file reach there must not be durable before this is.
        self.scope.sink().wrote_contents();
        Ok(())
    }

    /// Writes into the first blocks that are alike. Says how many bytes, and whether a transaction has stamped
    /// the inode and made it reach them.
    fn write_some(&self, pos: u64, bytes: &[u8], reach: bool) -> Result<(usize, bool)> {
        let log = self.log();
        let (block, last) = (pos >> log, (pos + bytes.len() as u64 - 1) >> log);
        let inode = self.inode()?;
        match self.piece(block, (last - block + 1).min(MAX_EXTENT))? {
            Piece::Hole(n) => {
                let hint = self.size_hint(&inode);
                if hint == 1 && n << log <= AT_ONCE_BYTES {
                    return Ok((self.fill_hole(block, n, pos, bytes)?, true));
                }
                self.allocate_unwritten(&inode, block, n)?;
                Ok((0, false))
            }
            Piece::Mapped(e) if e.unwritten => Ok((self.fill_unwritten(&e, pos, bytes)?, true)),
            Piece::Mapped(e) => {
                let (shared, blocks) = self.sharing(&inode, &e)?;
                let e = Extent { count: blocks.min(e.count), ..e };
                if shared {
                    return Ok((self.write_beside(&e, pos, bytes, reach)?, true));
                }
                let n = self.within(&e, pos, bytes);
                let at = self.offset(e.start)? + (pos - (block << log));
                self.volume().data_target().write_at(bytes.get(..n).unwrap_or(bytes), at)?;
                Ok((n, false))
            }
        }
    }

    /// Bytes that lie in an extent.
    fn within(&self, e: &Extent, pos: u64, bytes: &[u8]) -> usize {
        let room = ((e.offset + e.count) << self.log()) - pos;
        bytes.len().min(usize::try_from(room).unwrap_or(usize::MAX))
    }

    /// Writes whole blocks: the bytes, and zeroes around them.
    fn put(&self, e: &Extent, pos: u64, bytes: &[u8]) -> Result<()> {
        let (log, target) = (self.log(), self.volume().data_target());
        let start = self.offset(e.start)?;
        let before = pos - (e.offset << log);
        let after = (e.count << log).saturating_sub(before + bytes.len() as u64);
        if before + after > 0 && e.count << log <= ZEROES.len() as u64 {
            // One write for a small file.
            let whole = [ZEROES.get(..before as usize), Some(bytes), ZEROES.get(..after as usize)];
            target.write_at(&whole.map(Option::unwrap_or_default).concat(), start)?;
        } else {
            self.zeroes(start, before)?;
            target.write_at(bytes, start + before)?;
            self.zeroes(start + before + bytes.len() as u64, after)?;
        }
        self.scope.sink().wrote_contents();
        Ok(())
    }

    fn zeroes(&self, mut at: u64, mut len: u64) -> Result<()> {
        while len > 0 {
            let n = len.min(ZEROES.len() as u64);
            self.volume().data_target().write_at(ZEROES.get(..n as usize).unwrap_or(&ZEROES), at)?;
            (at, len) = (at + n, len - n);
        }
        Ok(())
    }

    /// Allocates, writes and maps in one transaction: nobody else knows these blocks before it is committed.
    fn fill_hole(&self, block: u64, blocks: u64, pos: u64, bytes: &[u8]) -> Result<usize> {
        let mut t = self.begin(1)?;
        let mut fork = self.fork(&mut t);
        let most = u32::try_from(blocks).unwrap_or(u32::MAX);
        let e = fork.find_space(FileBlock(block), &Request::data(1, most), None)?;
        let n = self.within(&e, pos, bytes);
        self.put(&e, pos, bytes.get(..n).unwrap_or(bytes))?;
        fork.map(&e)?;
        self.touch(&mut t, pos + n as u64)?;
        t.commit()?;
        Ok(n)
    }

    /// Writes into unwritten blocks, which then become written. What is not written of the first and the last is zeroed.
    fn fill_unwritten(&self, e: &Extent, pos: u64, bytes: &[u8]) -> Result<usize> {
        let n = self.within(e, pos, bytes);
        let blocks = (pos + n as u64).div_ceil(1 << self.log()) - e.offset;
        let e = Extent { count: blocks, ..*e };
        self.put(&e, pos, bytes.get(..n).unwrap_or(bytes))?;
        let mut t = self.begin(2)?;
        self.fork(&mut t).convert(FileBlock(e.offset), e.count, false)?;
        self.touch(&mut t, pos + n as u64)?;
        t.commit()?;
        Ok(n)
    }

    /// Writes to new blocks what takes the place of blocks that others have as well, in one transaction: they are nobody's until it is committed, so
    /// nothing has to be staged. The file comes to reach what is written only if it is to.
    pub(super) fn write_beside(&self, e: &Extent, pos: u64, bytes: &[u8], reach: bool) -> Result<usize> {
        let log = self.log();
        let most = e.count.min((AT_ONCE_BYTES >> log).max(1));
        let e = Extent { count: most.min((pos + bytes.len() as u64).div_ceil(1 << log) - e.offset), ..*e };
        let mut t = self.begin(2)?;
        let mut fork = self.fork(&mut t);
        let most = u32::try_from(e.count).unwrap_or(u32::MAX);
        let new = fork.find_blocks(FileBlock(e.offset), &Request::data(1, most), None)?;
        let old = Extent { count: new.count, ..e };
        let n = self.within(&new, pos, bytes);
        let mut whole = vec![0; (new.count << log) as usize];
        let before = (pos - (new.offset << log)) as usize;
        if before > 0 || before + n < whole.len() {
            self.volume().data_target().read_at(&mut whole, self.offset(old.start)?)?;
        }
        let place = whole.get_mut(before..before + n).zip(bytes.get(..n));
        let (to, from) = place.ok_or_else(|| Error::invalid("bytes outside of their blocks"))?;
        to.copy_from_slice(from);
        self.put(&new, new.offset << log, &whole)?;
        let gone = fork.unmap(FileBlock(old.offset), old.count)?;
        fork.release(&gone)?;
        fork.map(&new)?;
        self.touch(&mut t, if reach { pos + n as u64 } else { 0 })?;
        t.commit()?;
        Ok(n)
    }

    /// Maps unwritten blocks into a hole, whole units of the file's size hint where there is room.
    pub(super) fn allocate_unwritten(&self, inode: &Inode, block: u64, blocks: u64) -> Result<u64> {
        let hint = self.size_hint(inode);
        let mut t = self.begin(1)?;
        let mut fork = self.fork(&mut t);
        let mut from = block / hint * hint;
        if let Some(e) = fork.mapped(FileBlock(from))? {
            from = e.offset + e.count;
        }
        // There may be more between the unit's start and the block.
        while let Some(e) = fork.next(FileBlock(from))?.filter(|e| e.offset < block) {
            from = e.offset + e.count;
        }
        let most = self.volume().geometry.max_file_size() >> self.log();
        let to = block.saturating_add(blocks).next_multiple_of(hint).min(most);
        let hole = fork.next(FileBlock(block))?.map_or(to, |e| e.offset.min(to)) - from;
        let want = u32::try_from(hole.min(MAX_EXTENT)).unwrap_or(u32::MAX);
        let least = u32::try_from(block - from + 1).unwrap_or(u32::MAX);
        let align = if from.is_multiple_of(hint) { u32::try_from(hint).unwrap_or(1) } else { 1 };
        let request = Request { align, ..Request::data(least, want.max(least)) };
        let e = match fork.allocate(FileBlock(from), &request, None, true) {
            // One block is better than none.
            Err(Error::NoSpace(_)) if hint > 1 => {
                let most = u32::try_from(blocks.min(MAX_EXTENT)).unwrap_or(u32::MAX);
                fork.allocate(FileBlock(block), &Request::data(1, most), None, true)?
            }
            other => other?,
        };
        t.commit()?;
        Ok(e.offset + e.count - block)
    }
}
