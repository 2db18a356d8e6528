//! Contents, changed. One at a time changes a file; readers of it wait, those of other files do not.

use super::Handle;
use super::filesystem::Entered;
use crate::cache::OnDamage;
use crate::error::{Error, Result};
use crate::format::inode::{FileKind, Flags};
use crate::inode::Inode;
use crate::inode::data::FileMut;
use crate::txn::InodeLock;

impl Handle {
    /// Changes contents under the inode's lock. `appends` says whether nothing that is there is changed.
    fn with_contents<R>(
        &self,
        appends: impl Fn(&Inode) -> bool,
        act: impl FnOnce(&FileMut<'_>, &Inode) -> Result<R>,
    ) -> Result<R> {
        let entered = self.core.enter()?;
        let lock = self.core.locks.lock(self.ino);
        let (inode, file) = self.contents(&entered, &lock, appends)?;
        act(&file, &inode)
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
