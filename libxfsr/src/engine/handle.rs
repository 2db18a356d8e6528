//! Inodes in use. As long as anybody has a [`Handle`] its inode is not freed, though no name may lead to it any more; so its number is not another
//! inode's, and whoever waits for its lock gets that which it meant.

use super::Time;
use super::filesystem::Core;
use crate::cache::OnDamage;
use crate::error::ForkKind;
use crate::error::{Error, Result};
use crate::format::inode::{FileKind, Flags, Flags2, device_numbers, fork_bytes};
use crate::inode::Inode;
use crate::txn::InodeLock;
use crate::units::Ino;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;

const SHARDS: usize = 64;

/// Who uses an inode.
#[derive(Clone, Copy, Debug, Default)]
struct User {
    count: u64,
    /// No name leads to it: it is freed when nobody uses it.
    orphan: bool,
}

/// The inodes that have handles.
#[derive(Debug)]
pub(super) struct Users {
    /// By number.
    shards: [Mutex<HashMap<Ino, User>>; SHARDS],
}

impl Default for Users {
    fn default() -> Self {
        Self { shards: std::array::from_fn(|_| Mutex::default()) }
    }
}

impl Users {
    fn with<R>(&self, ino: Ino, act: impl FnOnce(&mut HashMap<Ino, User>) -> R) -> R {
        #[expect(clippy::indexing_slicing, reason = "the remainder is less than the length")]
        let shard = &self.shards[(ino.0 % SHARDS as u64) as usize];
        act(&mut shard.lock())
    }
    fn acquire(&self, ino: Ino) {
        self.with(ino, |m| m.entry(ino).or_default().count += 1);
    }
    /// Says whether the last name is gone.
    pub(super) fn set_orphan(&self, ino: Ino, orphan: bool) {
        self.with(ino, |m| {
            if let Some(u) = m.get_mut(&ino) {
                u.orphan = orphan;
            }
        });
    }
    /// One user less. True where it was the last one of an orphan: it still counts, until the orphan is freed and this is called again.
    fn release(&self, ino: Ino) -> bool {
        self.with(ino, |m| {
            let Some(u) = m.get_mut(&ino) else { return false };
            if u.count == 1 && std::mem::take(&mut u.orphan) {
                return true;
            }
            u.count -= 1;
            if u.count == 0 {
                m.remove(&ino);
            }
            false
        })
    }
    /// How many inodes are in use.
    pub(super) fn count(&self) -> usize {
        self.shards.iter().map(|s| s.lock().len()).sum()
    }
}

impl Core {
    /// A handle of an inode that somebody else keeps from being freed while this is made: a name under its directory's lock.
    pub(super) fn handle(self: &Arc<Self>, ino: Ino) -> Handle {
        self.users.acquire(ino);
        Handle { core: self.clone(), ino }
    }
}

/// An inode in use: a file, a directory, whatever it is. Copies are cheap.
pub struct Handle {
    pub(super) core: Arc<Core>,
    pub(super) ino: Ino,
}

impl std::fmt::Debug for Handle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Handle").field(&self.ino).finish()
    }
}

impl Clone for Handle {
    fn clone(&self) -> Self {
        self.core.handle(self.ino)
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        if self.core.users.release(self.ino) {
            // Where it fails, the inode stays on the list of unlinked ones, and whoever recovers the log frees it.
            let _ = self.core.inactivate(self.ino);
            self.core.users.release(self.ino);
        }
    }
}

/// What an inode says of itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Stat {
    /// Its number.
    pub ino: Ino,
    /// Tells it from those that had its number before.
    pub generation: u32,
    /// Kind of file.
    pub kind: FileKind,
    /// Permissions, with set-user-id, set-group-id and sticky.
    pub permissions: u16,
    /// Links to it.
    pub nlink: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Project.
    pub project: u32,
    /// Bytes of its contents.
    pub size: u64,
    /// Bytes that it takes on the disk, its own attributes and trees too.
    pub allocated: u64,
    /// Major and minor number of a device.
    pub device: Option<(u32, u32)>,
    /// Last access.
    pub atime: Time,
    /// Last change of the contents.
    pub mtime: Time,
    /// Last change of anything.
    pub ctime: Time,
    /// Creation.
    pub crtime: Time,
    /// `di_flags`.
    pub flags: Flags,
    /// `di_flags2`.
    pub flags2: Flags2,
    /// Extent size hint in blocks.
    pub extsize: u32,
    /// The same for copies on write.
    pub cowextsize: u32,
    /// Rises with each change.
    pub changecount: u64,
}

impl Stat {
    pub(super) fn of(inode: &Inode, block_log: u8) -> Result<Self> {
        let d = &inode.core;
        let kind = d.kind().ok_or_else(|| Error::NotFound(format!("inode {}", inode.ino)))?;
        let [atime, mtime, ctime, crtime] = d.times().map(|(seconds, nanos)| Time { seconds, nanos });
        let is_device = matches!(kind, FileKind::CharDevice | FileKind::BlockDevice);
        Ok(Self {
            ino: inode.ino,
            generation: d.generation.get(),
            kind,
            permissions: d.mode.get() & 0o7777,
            nlink: d.nlink.get(),
            uid: d.uid.get(),
            gid: d.gid.get(),
            project: d.project(),
            size: d.size.get(),
            allocated: d.nblocks.get().saturating_mul(1 << block_log),
            device: if is_device { device_numbers(fork_bytes(&inode.bytes, ForkKind::Data)) } else { None },
            atime,
            mtime,
            ctime,
            crtime,
            flags: d.flags(),
            flags2: d.flags2(),
            extsize: d.extsize.get(),
            cowextsize: d.cowextsize.get(),
            changecount: d.changecount.get(),
        })
    }
}

impl Handle {
    /// The inode's number.
    pub fn ino(&self) -> Ino {
        self.ino
    }

    /// Locks the inode against changes and reads it.
    pub(super) fn read(&self) -> Result<(InodeLock, Inode)> {
        let lock = self.core.locks.lock_shared(self.ino);
        let inode = Inode::read(&self.core.volume, self.ino, OnDamage::Fail)?;
        if inode.core.is_free() {
            return Err(Error::NotFound(format!("inode {}", self.ino)));
        }
        Ok((lock, inode))
    }

    /// The same of a directory.
    pub(super) fn read_directory(&self) -> Result<(InodeLock, Inode)> {
        let (lock, inode) = self.read()?;
        if inode.core.is_dir() {
            return Ok((lock, inode));
        }
        Err(Error::NotDirectory(format!("inode {}", self.ino)))
    }

    /// What it says of itself.
    ///
    /// # Errors
    /// I/O errors; a damaged inode.
    pub fn stat(&self) -> Result<Stat> {
        let (_lock, inode) = self.read()?;
        Stat::of(&inode, self.core.geometry().block_log)
    }
}
