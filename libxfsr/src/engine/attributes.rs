//! What an inode says of itself, changed: owner, permissions, times, flags; extended attributes.

use super::Handle;
use super::change::{Touch, core, core_mut, stamp, touch};
use super::filesystem::Time;
use super::reading::attr_name;
use crate::attr::change::{self as attrs, How};
use crate::attr::linux::Acl;
use crate::error::{Error, Result};
use crate::format::Context;
use crate::format::attr::MAX_VALUE;
use crate::format::inode::{Dinode, FileKind, Flags, Flags2, seal_dinode, verify_dinode};
use crate::txn::{Reservation, Transaction};
use crate::units::{Daddr, Lsn};

/// What is to be changed of an inode; what is none stays.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct SetAttr {
    /// Permissions, with set-user-id, set-group-id and sticky.
    pub permissions: Option<u16>,
    /// Owner.
    pub uid: Option<u32>,
    /// Group.
    pub gid: Option<u32>,
    /// Project.
    pub project: Option<u32>,
    /// Last access.
    pub atime: Option<Time>,
    /// Last change of the contents.
    pub mtime: Option<Time>,
    /// Flags that users set: all but [`Flags::REALTIME`] of a file that has contents, and those by which the filesystem knows its own files.
    pub flags: Option<Flags>,
    /// Extent size hint in blocks; 0 for none.
    pub extsize: Option<u32>,
    /// The same for copies on write.
    pub cowextsize: Option<u32>,
}

/// Flags that users cannot change.
const OWN_FLAGS: Flags = Flags::PREALLOC.union(Flags::NEWRTBM).union(Flags::REALTIME);

fn apply(core: &mut Dinode, set: &SetAttr) -> Result<()> {
    if let Some(p) = set.permissions {
        core.mode.set(core.mode.get() & !0o7777 | p & 0o7777);
    }
    if let Some(uid) = set.uid {
        core.uid.set(uid);
    }
    if let Some(gid) = set.gid {
        core.gid.set(gid);
    }
    if let Some(project) = set.project {
        core.projid_lo.set((project & 0xffff) as u16);
        core.projid_hi.set((project >> 16) as u16);
    }
    if let Some(t) = set.atime {
        core.atime = stamp(core, t)?;
    }
    if let Some(t) = set.mtime {
        core.mtime = stamp(core, t)?;
    }
    if let Some(flags) = set.flags {
        if (flags ^ core.flags()).intersects(OWN_FLAGS) {
            return Err(Error::unsupported(format!(
                "of inode {} the flags {:?} are not set by users",
                core.ino,
                (flags ^ core.flags()) & OWN_FLAGS
            )));
        }
        core.flags.set(flags.bits());
    }
    if let Some(blocks) = set.extsize {
        core.extsize.set(blocks);
        let mine = if core.is_dir() { Flags::EXTSZINHERIT } else { Flags::EXTSIZE };
        let mut flags = core.flags();
        flags.set(mine, blocks > 0);
        core.flags.set(flags.bits());
    }
    if let Some(blocks) = set.cowextsize {
        core.cowextsize.set(blocks);
        let mut flags = core.flags2();
        flags.set(Flags2::COWEXTSIZE, blocks > 0);
        core.flags2.set(flags.bits());
    }
    Ok(())
}

/// The permissions that an ACL says, and the ACL as it stands on the disk, from Linux's form of it.
fn acl_to_disk(value: &[u8]) -> Result<(u16, Vec<u8>)> {
    let acl = Acl::from_linux(value)?;
    let permissions = acl.permissions().ok_or_else(|| Error::invalid("an ACL without entries"))?;
    Ok((permissions, acl.to_disk()))
}

impl Handle {
    fn changeable(&self, t: &mut Transaction<'_>, lifts: bool) -> Result<Dinode> {
        let core = core(t, self.ino)?;
        if core.flags().intersects(Flags::IMMUTABLE | Flags::APPEND) && !lifts {
            return Err(Error::not_permitted(format!("inode {} is immutable or append-only", self.ino)));
        }
        Ok(core)
    }

    /// Changes what an inode says of itself.
    ///
    /// # Errors
    /// [`Error::NotPermitted`] for what is immutable or append-only, unless flags are set; [`Error::Invalid`] and [`Error::Unsupported`] for what an inode cannot
    /// hold or this kind of file cannot have; [`Error::ReadOnly`]; what is damaged.
    pub fn set_attr(&self, set: &SetAttr) -> Result<()> {
        let entered = self.core.enter()?;
        self.core.prepare_quota_of_changed(self.ino, set)?;
        let mut t = entered.begin_with(Reservation { inodes: 1, ..Reservation::default() }, &mut [self.ino])?;
        self.changeable(&mut t, set.flags.is_some())?;
        apply(core_mut(&mut t, self.ino)?, set)?;
        let now = self.core.now();
        touch(&mut t, self.ino, now, Touch::Changed)?;
        // The rules on flags and hints are those that every reader has.
        let mut copy = t.inode(self.ino)?.to_vec();
        seal_dinode(&mut copy, Lsn(0));
        if let Err(c) = verify_dinode(&copy, self.ino, &Context::new(self.core.geometry(), Daddr(0))) {
            return Err(Error::invalid(format!("what is to be set of inode {} breaks a rule: {c}", self.ino)));
        }
        t.commit().map(|_| ())
    }

    /// Sets an attribute that Linux calls so, from a value as Linux has it. An ACL for access sets the permissions, too.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a name without a namespace, a value of more than 64 KiB or one that is no ACL; [`Error::Exists`] and [`Error::NotFound`] as
    /// `how` asks; [`Error::NoSpace`]; as [`Handle::set_attr`].
    pub fn set_xattr(&self, name: &[u8], value: &[u8], how: How) -> Result<()> {
        let (flags, disk_name) = attr_name(name)?;
        if value.len() > MAX_VALUE as usize {
            return Err(Error::invalid(format!(
                "an attribute of {} bytes: at most {MAX_VALUE} are allowed",
                value.len()
            )));
        }
        let acl = name.strip_prefix(b"system.posix_acl_");
        let (mode, disk) = match acl {
            Some(_) => acl_to_disk(value)?,
            None => (0, value.to_vec()),
        };
        let entered = self.core.enter()?;
        let g = self.core.geometry();
        let mut t = entered.begin_with(attrs::reservation(g, MAX_VALUE), &mut [self.ino])?;
        let before = self.changeable(&mut t, false)?;
        if name.starts_with(b"user.") && !before.is_dir() && !before.is_reg() {
            // Linux shows them of nothing else.
            return Err(Error::not_permitted(format!(
                "inode {}: only files and directories have user attributes",
                self.ino
            )));
        }
        if acl == Some(b"default") && !before.is_dir() {
            return Err(Error::NotDirectory(format!("inode {}", self.ino)));
        }
        if acl.is_some() && before.kind() == Some(FileKind::Symlink) {
            return Err(Error::unsupported("a symbolic link has no ACL"));
        }
        attrs::set(&mut t, &entered.writer.space, self.ino, (flags, disk_name), &disk, how)?;
        if acl == Some(b"access") {
            let core = core_mut(&mut t, self.ino)?;
            core.mode.set(core.mode.get() & !0o777 | mode);
        }
        touch(&mut t, self.ino, self.core.now(), Touch::Changed)?;
        t.commit().map(|_| ())
    }

    /// Removes an attribute that Linux calls so.
    ///
    /// # Errors
    /// [`Error::NotFound`]; as [`Handle::set_xattr`].
    pub fn remove_xattr(&self, name: &[u8]) -> Result<()> {
        let (flags, disk_name) = attr_name(name)?;
        let entered = self.core.enter()?;
        let g = self.core.geometry();
        let mut t = entered.begin_with(attrs::reservation(g, MAX_VALUE), &mut [self.ino])?;
        self.changeable(&mut t, false)?;
        attrs::remove(&mut t, &entered.writer.space, self.ino, (flags, disk_name))?;
        touch(&mut t, self.ino, self.core.now(), Touch::Changed)?;
        t.commit().map(|_| ())
    }
}
