//! Blocks that files share: clones of ranges, blocks of one's own again, and one copy for what is equal.
//!
//! A write to shared blocks goes to new ones, which the transaction that takes the old out maps. No extents are staged for it, as Linux does it, whose
//! writes end long after their blocks are allocated; those that Linux left are freed by recovery.

use super::{AT_ONCE_BYTES, FileMut, Piece};
use crate::error::{Error, Result};
use crate::format::btree::{Extent, MAX_EXTENT};
use crate::format::inode::Flags2;
use crate::format::log::items::RefcountOp;
use crate::inode::Inode;
use crate::space::{CountChange, CountChanges};
use crate::txn::Transaction;
use crate::units::{FileBlock, FsBlock};

/// Bytes that are compared at once.
const COMPARED: usize = 1 << 16;

impl<'a> FileMut<'a> {
    /// As [`FileMut::begin`], with another file's inode locked too.
    pub(super) fn begin_with(&self, other: &FileMut<'_>, extents: u32) -> Result<Transaction<'a>> {
        let room = crate::inode::ForkMut::reservation(
            &self.volume().geometry,
            crate::error::ForkKind::Data,
            extents.saturating_mul(2),
        );
        let mut t = self.scope.begin(room)?;
        let (a, b) = (self.ino(), other.ino());
        t.lock_inode(a.min(b));
        t.lock_inode(a.max(b));
        Ok(t)
    }

    fn with_reflink(&self) -> Result<()> {
        if self.volume().geometry.features.reflink() {
            return Ok(());
        }
        Err(Error::unsupported("the filesystem has no reference counts, so files cannot share blocks"))
    }

    /// Where a range of another file may come to lie in this one: first blocks there and here, and how many.
    fn matching(&self, offset: u64, from: &FileMut<'_>, from_offset: u64, len: u64) -> Result<(u64, u64, u64)> {
        let (end, from_end) = (self.checked_end(offset, len)?, from.checked_end(from_offset, len)?);
        let mask = (1u64 << self.log()) - 1;
        let (size, from_size) = (self.inode()?.size(), from.inode()?.size());
        if from_end > from_size {
            return Err(Error::invalid(format!(
                "byte {from_end} lies behind the end of inode {}, at {from_size}",
                from.ino()
            )));
        }
        // A part of a block is only the last one of its file.
        let ends = len & mask == 0 || from_end == from_size && end >= size;
        if offset & mask != 0 || from_offset & mask != 0 || !ends {
            return Err(Error::invalid(format!(
                "{len} bytes at {from_offset} and {offset} are no whole blocks of {} bytes",
                mask + 1
            )));
        }
        if self.ino() == from.ino() && offset < from_end && from_offset < end {
            return Err(Error::invalid("a range is shared with one that it overlaps"));
        }
        Ok((from_offset >> self.log(), offset >> self.log(), len.div_ceil(mask + 1)))
    }

    /// Marks both files as such that may share blocks.
    pub(super) fn mark_reflink(&self, other: &FileMut<'_>) -> Result<()> {
        if self.inode()?.core.is_reflink() && other.inode()?.core.is_reflink() {
            return Ok(());
        }
        let mut t = self.begin_with(other, 1)?;
        for ino in [self.ino(), other.ino()] {
            let core = crate::format::inode::Dinode::from_bytes_mut(t.inode_mut(ino)?);
            if let Some(core) = core {
                core.flags2.set(core.flags2.get() | Flags2::REFLINK.bits());
            }
        }
        t.commit().map(drop)
    }

    /// Has `len` bytes at `offset` be those of another file, whose blocks both then share: whole blocks, and the last part of the other file. The file becomes
    /// longer where it ends before. Holes and unwritten blocks of the other become holes.
    ///
    /// Each extent happens wholly or not at all.
    ///
    /// # Errors
    /// [`Error::Unsupported`] without reference counts; [`Error::Invalid`] for ranges that cannot be shared; [`Error::NoSpace`]; I/O errors.
    pub fn clone_range(&self, offset: u64, from: &FileMut<'_>, from_offset: u64, len: u64) -> Result<()> {
        self.share(offset, from, from_offset, len, true)
    }

    fn share(&self, offset: u64, from: &FileMut<'_>, from_offset: u64, len: u64, changes: bool) -> Result<()> {
        self.with_reflink()?;
        let (mut source, mut block, blocks) = self.matching(offset, from, from_offset, len)?;
        let (log, size) = (self.log(), self.inode()?.size());
        if changes && offset > size {
            self.zero_written(size, offset)?;
        }
        self.mark_reflink(from)?;
        let last = source + blocks;
        while source < last {
            let most = (last - source).min(MAX_EXTENT);
            let theirs = from.piece(source, most)?;
            let done = match theirs {
                Piece::Hole(n) => self.free_hole(block, n)?,
                Piece::Mapped(e) if e.unwritten => self.free_hole(block, e.count)?,
                Piece::Mapped(e) => {
                    let ours = self.piece(block, e.count)?;
                    let end = if changes { offset + len } else { 0 };
                    self.share_extent(from, &e, block, &ours, end)?
                }
            };
            source += done;
            block += done;
        }
        if changes {
            let mut t = self.begin(1)?;
            self.touch(&mut t, offset + len)?;
            t.commit()?;
        }
        debug_assert_eq!(block, (offset >> log) + blocks);
        Ok(())
    }

    fn free_hole(&self, block: u64, blocks: u64) -> Result<u64> {
        self.free_blocks(block, blocks)?;
        Ok(blocks)
    }

    /// Shares the first part of an extent that lies opposite to one extent or hole.
    fn share_extent(&self, from: &FileMut<'_>, e: &Extent, block: u64, ours: &Piece, end: u64) -> Result<u64> {
        let count = match ours {
            Piece::Hole(n) => (*n).min(e.count),
            Piece::Mapped(o) => o.count.min(e.count),
        };
        if matches!(ours, Piece::Mapped(o) if o.start == e.start && !o.unwritten) {
            return Ok(count);
        }
        let g = &self.volume().geometry;
        self.space.may_share(g, FsBlock(e.start))?;
        let mut t = self.begin_with(from, 1)?;
        let more = CountChange {
            op: RefcountOp::Increase,
            start: FsBlock(e.start),
            blocks: u32::try_from(count).unwrap_or(u32::MAX),
        };
        t.defer(CountChanges::new(self.space.clone(), g, vec![more])?)?;
        let mut fork = self.fork(&mut t);
        let gone = fork.unmap(FileBlock(block), count)?;
        fork.map(&Extent { offset: block, count, ..*e })?;
        fork.release(&gone)?;
        let size = ((block + count) << self.log()).min(end);
        self.touch(&mut t, size)?;
        t.commit()?;
        Ok(count)
    }

    /// As [`FileMut::clone_range`], but only where both ranges hold the same bytes: says whether they do. Neither size nor times change.
    ///
    /// # Errors
    /// As [`FileMut::clone_range`].
    pub fn dedupe_range(&self, offset: u64, from: &FileMut<'_>, from_offset: u64, len: u64) -> Result<bool> {
        self.with_reflink()?;
        if offset.saturating_add(len) > self.inode()?.size() {
            return Err(Error::invalid(format!("{len} bytes at {offset} lie behind the end of inode {}", self.ino())));
        }
        self.matching(offset, from, from_offset, len)?;
        let (mut a, mut b) = (vec![0; COMPARED], vec![0; COMPARED]);
        let mut done = 0;
        while done < len {
            let n = (len - done).min(COMPARED as u64) as usize;
            let (a, b) = (a.get_mut(..n).unwrap_or_default(), b.get_mut(..n).unwrap_or_default());
            let read = (self.read_at(offset + done, a)?, from.read_at(from_offset + done, b)?);
            if read != (n, n) || a != b {
                return Ok(false);
            }
            done += n as u64;
        }
        let quiet = FileMut { now: None, ..*self };
        quiet.share(offset, from, from_offset, len, false)?;
        Ok(true)
    }

    /// Gives a range blocks of its own again. Where the whole file shares nothing any more, it is no longer marked as such that may.
    ///
    /// # Errors
    /// [`Error::NoSpace`], with a part done; I/O errors.
    pub fn unshare(&self, offset: u64, len: u64) -> Result<()> {
        let log = self.log();
        let end = self.checked_end(offset, len)?.min(self.inode()?.size());
        let (mut block, last) = (offset >> log, end.div_ceil(1 << log));
        while block < last {
            let inode = self.inode()?;
            block += match self.piece(block, (last - block).min(AT_ONCE_BYTES >> log).max(1))? {
                Piece::Hole(n) => n,
                Piece::Mapped(e) if e.unwritten => e.count,
                Piece::Mapped(e) => match self.sharing(&inode, &e)? {
                    (false, n) => n.max(1),
                    (true, n) => self.own(&Extent { count: n, ..e })?,
                },
            };
        }
        let inode = self.inode()?;
        if inode.core.is_reflink() && !self.shares_any(&inode)? {
            let mut t = self.begin(1)?;
            self.change(&mut t, |core| core.flags2.set(core.flags2.get() & !Flags2::REFLINK.bits()))?;
            t.commit()?;
        }
        Ok(())
    }

    /// Copies shared blocks.
    fn own(&self, e: &Extent) -> Result<u64> {
        let mut bytes = vec![0; (e.count << self.log()) as usize];
        self.volume().data_target().read_at(&mut bytes, self.offset(e.start)?)?;
        let quiet = FileMut { now: None, ..*self };
        let n = quiet.write_beside(e, e.offset << self.log(), &bytes, false)?;
        Ok(n as u64 >> self.log())
    }

    fn shares_any(&self, inode: &Inode) -> Result<bool> {
        let all = {
            let _still = self.scope.locks().lock_shared(self.ino());
            self.inode()?.extents(self.volume(), crate::error::ForkKind::Data)?
        };
        for e in all.iter().filter(|e| !e.unwritten) {
            let (shared, n) = self.sharing(inode, e)?;
            if shared || n < e.count {
                return Ok(true);
            }
        }
        Ok(false)
    }
}
