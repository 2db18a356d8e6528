//! Contents of files that are being changed: writing, size, holes, and what files share.
//!
//! [`FileMut`] works under a lock of the file's contents that its caller holds ([`Scope::contents`]), in as many transactions as it takes; each of
//! them locks the inode, so that others may change the rest of it in between. Who reads contents holds either of the two locks, shared. Contents are not logged. What keeps a
//! crash from showing what other files had before: blocks are written before the transaction that maps them as written (or that makes the file reach
//! them) is committed, and the sink is told ([`CommitSink::wrote_contents`](crate::txn::CommitSink::wrote_contents)) to make them durable first. Blocks for contents
//! are never taken while the transaction that freed them is not durable.
//!
//! Each extent changes wholly or not at all. An operation on many extents that a crash cuts off has done some of them; contents that it should not
//! change are never lost. What lies behind the end of a file in its last block is not zeroed when the file becomes shorter, which could not happen together with
//! the change of its size, but before it becomes longer again.

mod exchange;
mod shape;
mod share;
mod shift;
mod size;
mod write;

pub use exchange::{Exchange, ExchangeOptions, Freshness};

use crate::cache::OnDamage;
use crate::error::{Error, ForkKind, Result};
use crate::format::btree::Extent;
use crate::format::inode::{Dinode, Flags, Timestamp};
use crate::inode::{ForkMut, Inode, fork};
use crate::space::Space;
use crate::txn::{InodeLock, Scope, Transaction};
use crate::units::{FsBlock, Ino};
use crate::volume::Volume;
use std::ops::ControlFlow;
use std::sync::Arc;

/// Blocks that are written while their transaction holds an AG: more are mapped as unwritten first.
const AT_ONCE_BYTES: u64 = 1 << 20;
/// Extents that one transaction takes out.
const EXTENTS: u32 = 4;

/// A regular file whose contents are being changed. See the [module](self).
#[derive(Clone, Copy, Debug)]
pub struct FileMut<'a> {
    scope: &'a Scope,
    space: &'a Arc<Space>,
    lock: &'a InodeLock,
    now: Option<(i64, u32)>,
}

/// What a block of a file is, and as many behind it as are the same.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Piece {
    /// Nothing is mapped, for so many blocks.
    Hole(u64),
    /// Mapped, from that block on.
    Mapped(Extent),
}

impl<'a> FileMut<'a> {
    /// A file, under the lock of its contents, which must allow changes. The caller holds no other lock of an inode.
    pub fn new(scope: &'a Scope, space: &'a Arc<Space>, lock: &'a InodeLock) -> Self {
        Self { scope, space, lock, now: None }
    }
    /// Times of modification and change become that: seconds since 1970, and nanoseconds. Without it they stay.
    #[must_use]
    pub fn at(self, seconds: i64, nanos: u32) -> Self {
        Self { now: Some((seconds, nanos)), ..self }
    }
    /// The inode.
    pub fn ino(&self) -> Ino {
        self.lock.ino()
    }
    fn volume(&self) -> &'a Volume {
        self.scope.volume()
    }
    fn log(&self) -> u8 {
        self.volume().geometry.block_log
    }
    /// As it was committed last.
    fn inode(&self) -> Result<Inode> {
        let inode = Inode::read(self.volume(), self.ino(), OnDamage::Fail)?;
        if !inode.core.is_reg() {
            return Err(Error::invalid(format!("inode {} is no regular file", self.ino())));
        }
        if inode.core.is_realtime() {
            return Err(Error::unsupported("files on the realtime device are not changed yet"));
        }
        Ok(inode)
    }
    /// Reads: fewer bytes only at the end of the file.
    ///
    /// # Errors
    /// As [`read_at`](crate::inode::read_at).
    pub fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<usize> {
        let _still = self.scope.locks().lock_shared(self.ino());
        crate::inode::read_at(self.volume(), &self.inode()?, offset, buf)
    }
    fn begin(&self, extents: u32) -> Result<Transaction<'a>> {
        let room = ForkMut::reservation(&self.volume().geometry, ForkKind::Data, extents);
        let mut t = self.scope.begin(room)?;
        t.lock_inode(self.ino());
        Ok(t)
    }
    fn fork<'w>(&'w self, t: &'w mut Transaction<'a>) -> ForkMut<'w, 'a> {
        ForkMut::new(t, self.space, self.ino(), ForkKind::Data)
    }
    /// Changes the core.
    fn change(&self, t: &mut Transaction<'a>, act: impl FnOnce(&mut Dinode)) -> Result<()> {
        let core = Dinode::from_bytes_mut(t.inode_mut(self.ino())?);
        act(core.ok_or_else(|| Error::invalid("an inode that is shorter than its core"))?);
        Ok(())
    }
    /// Stamps the times, raises the change counter, and makes the file reach `size` where it is shorter.
    fn touch(&self, t: &mut Transaction<'a>, size: u64) -> Result<()> {
        let now = self.now;
        let mut fits = true;
        self.change(t, |core| {
            // Also where nothing else changes: blocks that are written in place leave no other trace.
            core.changecount.set(core.changecount.get().wrapping_add(1));
            if core.size.get() < size {
                core.size.set(size);
            }
            if let Some((seconds, nanos)) = now {
                match Timestamp::encode(seconds, nanos, core.bigtime()) {
                    Some(time) => (core.mtime, core.ctime) = (time, time),
                    None => fits = false,
                }
            }
        })?;
        if fits { Ok(()) } else { Err(Error::invalid("a time that an inode cannot hold")) }
    }
    /// What is at a block, at most `most` blocks of it. The map stays the same as long as the contents are locked; its form may be changed by
    /// whoever changes attributes, so the inode is locked while it is read.
    fn piece(&self, block: u64, most: u64) -> Result<Piece> {
        let _still = self.scope.locks().lock_shared(self.ino());
        let inode = self.inode()?;
        let last = block.saturating_add(most.saturating_sub(1));
        let mut found = Piece::Hole(most);
        let mut each = |e: &Extent| {
            found = if e.offset > block {
                Piece::Hole(e.offset - block)
            } else {
                let skip = block - e.offset;
                let (start, count) = (e.start + skip, (e.count - skip).min(most));
                Piece::Mapped(Extent { offset: block, start, count, unwritten: e.unwritten })
            };
            ControlFlow::Break(())
        };
        fork::extents(self.volume(), self.ino(), &inode.bytes, ForkKind::Data, (block, last), &mut each)?;
        Ok(found)
    }
    /// Whether other files have blocks at the start of an extent, and how many blocks that goes for.
    fn sharing(&self, inode: &Inode, e: &Extent) -> Result<(bool, u64)> {
        if !inode.core.is_reflink() {
            return Ok((false, e.count));
        }
        // The transaction only looks.
        let mut t = self.begin(1)?;
        let count = u32::try_from(e.count).unwrap_or(u32::MAX);
        Ok(match self.space.find_shared(&mut t, FsBlock(e.start), count)? {
            Some((start, n)) if start.0 == e.start => (true, n.into()),
            Some((start, _)) => (false, start.0 - e.start),
            None => (false, e.count),
        })
    }
    /// Blocks that are allocated together.
    fn size_hint(&self, inode: &Inode) -> u64 {
        let hint = u64::from(inode.core.extsize.get());
        if inode.core.flags().contains(Flags::EXTSIZE) { hint.max(1) } else { 1 }
    }
    /// Where a block of the device lies on its target, in bytes.
    fn offset(&self, start: u64) -> Result<u64> {
        let daddr = self.volume().geometry.fsblock_to_daddr(FsBlock(start));
        daddr.map(|d| d.bytes()).ok_or_else(|| Error::invalid(format!("block {start} does not exist")))
    }
    fn checked_end(&self, offset: u64, len: u64) -> Result<u64> {
        let most = self.volume().geometry.max_file_size();
        offset.checked_add(len).filter(|end| *end <= most).ok_or_else(|| {
            Error::invalid(format!("{len} bytes at {offset} of inode {}: a file has at most {most}", self.ino()))
        })
    }
}
