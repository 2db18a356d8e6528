//! Contents, changed. One at a time changes those of a file, under a lock of its own that comes before those of inodes; who reads meanwhile sees each
//! block before or after.

use super::Handle;
use super::filesystem::Entered;
use crate::cache::OnDamage;
use crate::error::{Error, Result};
use crate::format::inode::{FileKind, Flags};
use crate::inode::Inode;
use crate::inode::data::{ExchangeOptions, FileMut, Freshness};
use crate::txn::InodeLock;
use std::sync::Arc;

impl Handle {
    /// Changes contents under the inode's lock. `appends` says whether nothing that is there is changed.
    fn with_contents<R>(
        &self,
        appends: impl Fn(&Inode) -> bool,
        act: impl FnOnce(&FileMut<'_>, &Inode) -> Result<R>,
    ) -> Result<R> {
        let entered = self.core.enter()?;
        let lock = entered.writer.scope.contents().lock(self.ino);
        let (inode, file) = self.contents(&entered, &lock, appends)?;
        act(&file, &inode)
    }

    /// The same with two files, which may be one.
    fn with_both<R>(&self, other: &Handle, act: impl FnOnce(&FileMut<'_>, &FileMut<'_>) -> Result<R>) -> Result<R> {
        if !Arc::ptr_eq(&self.core, &other.core) {
            return Err(Error::invalid("files of two filesystems share nothing"));
        }
        let entered = self.core.enter()?;
        let locks = entered.writer.scope.contents();
        let first = locks.lock(self.ino.min(other.ino));
        let second = (self.ino != other.ino).then(|| locks.lock(self.ino.max(other.ino)));
        let of = |ino| second.as_ref().filter(|l| l.ino() == ino).unwrap_or(&first);
        let (_, file) = self.contents(&entered, of(self.ino), |_| false)?;
        let (_, from) = other.contents(&entered, of(other.ino), |_| true)?;
        act(&file, &from)
    }

    fn contents<'a>(
        &self,
        entered: &'a Entered<'_>,
        lock: &'a InodeLock,
        appends: impl Fn(&Inode) -> bool,
    ) -> Result<(Inode, FileMut<'a>)> {
        let inode = Inode::read(&self.core.volume, self.ino, OnDamage::Fail)?;
        match inode.core.kind() {
            Some(FileKind::Regular) => {}
            Some(FileKind::Directory) => return Err(Error::IsDirectory(format!("inode {}", self.ino))),
            Some(_) => return Err(Error::invalid(format!("inode {} is no regular file", self.ino))),
            None => return Err(Error::NotFound(format!("inode {}", self.ino))),
        }
        let flags = inode.core.flags();
        if flags.contains(Flags::IMMUTABLE) || flags.contains(Flags::APPEND) && !appends(&inode) {
            return Err(Error::not_permitted(format!("inode {} is immutable or append-only", self.ino)));
        }
        let now = self.core.now();
        let file = FileMut::new(&entered.writer.scope, &entered.writer.space, lock).at(now.seconds, now.nanos);
        Ok((inode, file))
    }

    /// Writes, and makes the file longer where it ends before. Returns how many bytes were written: fewer where space ran out.
    ///
    /// # Errors
    /// [`Error::IsDirectory`]; [`Error::Invalid`] for what is no regular file, and beyond the largest size; [`Error::NoSpace`] where nothing could be
    /// written; [`Error::NotPermitted`]; [`Error::ReadOnly`]; I/O errors.
    pub fn write_at(&self, bytes: &[u8], offset: u64) -> Result<usize> {
        self.with_contents(|i| offset >= i.size(), |file, _| file.write_at(offset, bytes))
    }

    /// Writes behind the end, wherever others have moved it by then; says where that was, and how many bytes were written.
    ///
    /// # Errors
    /// As [`Handle::write_at`].
    pub fn append(&self, bytes: &[u8]) -> Result<(u64, usize)> {
        self.with_contents(|_| true, |file, inode| Ok((inode.size(), file.write_at(inode.size(), bytes)?)))
    }

    /// Makes a file so long; what is behind that is gone, and what was not there reads as zeroes.
    ///
    /// # Errors
    /// As [`Handle::write_at`].
    pub fn truncate(&self, size: u64) -> Result<()> {
        self.with_contents(|_| false, |file, _| file.truncate(size))
    }

    /// Sets blocks aside for a range. The file becomes longer where it ends before, if not `keep_size`.
    ///
    /// # Errors
    /// As [`Handle::write_at`]; with [`Error::NoSpace`] what there was is set aside.
    pub fn allocate(&self, offset: u64, len: u64, keep_size: bool) -> Result<()> {
        self.with_contents(|i| offset >= i.size(), |file, _| file.allocate(offset, len, keep_size))
    }

    /// Makes a hole. The size stays.
    ///
    /// # Errors
    /// As [`Handle::write_at`].
    pub fn punch(&self, offset: u64, len: u64) -> Result<()> {
        self.with_contents(|_| false, |file, _| file.punch(offset, len))
    }

    /// Makes a range read as zeroes, with blocks behind it.
    ///
    /// # Errors
    /// As [`Handle::write_at`].
    pub fn zero(&self, offset: u64, len: u64, keep_size: bool) -> Result<()> {
        self.with_contents(|_| false, |file, _| file.zero(offset, len, keep_size))
    }

    /// Has `len` bytes at `offset` be those of another file (or of another place of this one), whose blocks both then share: whole blocks, and the last part
    /// of the other file. What is written to either later does not show in the other.
    ///
    /// # Errors
    /// As [`Handle::write_at`]; [`Error::Unsupported`] where the filesystem keeps no reference counts; [`Error::Invalid`] for what is no whole blocks.
    pub fn clone_range(&self, offset: u64, from: &Handle, from_offset: u64, len: u64) -> Result<()> {
        self.with_both(from, |file, other| file.clone_range(offset, other, from_offset, len))
    }

    /// Has this file be a clone of another, as long as that is and sharing all its blocks.
    ///
    /// # Errors
    /// As [`Handle::clone_range`].
    pub fn clone_of(&self, from: &Handle) -> Result<()> {
        let size = from.stat()?.size;
        if self.stat()?.size > size {
            self.truncate(size)?;
        }
        if size == 0 { Ok(()) } else { self.clone_range(0, from, 0, size) }
    }

    /// Shares blocks that hold the same bytes; says whether they do. Nothing else changes.
    ///
    /// # Errors
    /// As [`Handle::clone_range`].
    pub fn dedupe_range(&self, offset: u64, from: &Handle, from_offset: u64, len: u64) -> Result<bool> {
        self.with_both(from, |file, other| file.dedupe_range(offset, other, from_offset, len))
    }

    /// Gives a range blocks of its own again.
    ///
    /// # Errors
    /// As [`Handle::write_at`]; with [`Error::NoSpace`] a part is done.
    pub fn unshare(&self, offset: u64, len: u64) -> Result<()> {
        self.with_contents(|_| false, |file, _| file.unshare(offset, len))
    }

    /// Exchanges a range with one of another file, all or nothing, also over a crash.
    ///
    /// # Errors
    /// As [`Handle::write_at`]; [`Error::Unsupported`] where the filesystem has not the feature; [`Error::Busy`] where the other file is not what it was
    /// when it was looked at; [`Error::Invalid`] for ranges that cannot be exchanged.
    pub fn exchange(
        &self,
        offset: u64,
        other: &Handle,
        other_offset: u64,
        len: u64,
        how: &ExchangeOptions,
    ) -> Result<()> {
        self.with_both(other, |file, other| file.exchange(offset, other, other_offset, len, how))
    }

    /// What the file is now: for an exchange that must not happen when it has changed by then.
    ///
    /// # Errors
    /// As [`Handle::write_at`].
    pub fn freshness(&self) -> Result<Freshness> {
        self.with_contents(|_| true, |file, _| file.freshness())
    }

    /// Takes whole blocks out: what lies behind them moves up.
    ///
    /// # Errors
    /// As [`Handle::write_at`]; [`Error::Invalid`] for what is no whole blocks or reaches to the end.
    pub fn collapse(&self, offset: u64, len: u64) -> Result<()> {
        self.with_contents(|_| false, |file, _| file.collapse(offset, len))
    }

    /// Puts whole blocks in, as a hole: what lies there and behind moves down.
    ///
    /// # Errors
    /// As [`Handle::write_at`]; [`Error::Invalid`] for what is no whole blocks or begins behind the end.
    pub fn insert(&self, offset: u64, len: u64) -> Result<()> {
        self.with_contents(|_| false, |file, _| file.insert(offset, len))
    }
}
