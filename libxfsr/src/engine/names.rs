//! New inodes and new names.

use super::Handle;
use super::change::{
    TRIES, Touch, add_links, check_name, core, directory, may_be_renamed, name_reservation, new_reservation, touch,
};
use super::filesystem::{Core, Entered};
use crate::error::{Error, Result};
use crate::format::dir::FileType;
use crate::format::inode::{FileKind, Flags, MAX_LINK};
use crate::inode::create::{self, NewInode};
use crate::inode::unlinked;
use crate::space::Space;
use crate::text::escape;
use crate::txn::{Change, Transaction};
use crate::units::Ino;

/// What a new file is to be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct New {
    /// Permissions, with set-user-id, set-group-id and sticky. No mask is taken off.
    pub permissions: u16,
    /// Owner.
    pub uid: u32,
    /// Group, where the directory does not hand down its own.
    pub gid: u32,
}

impl New {
    /// Of root.
    pub fn mode(permissions: u16) -> Self {
        Self { permissions, uid: 0, gid: 0 }
    }
}

/// The kinds that [`Handle::mknod`] makes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Node {
    /// A character device: major and minor number.
    Char(u32, u32),
    /// A block device: the same.
    Block(u32, u32),
    /// A named pipe.
    Fifo,
    /// A socket.
    Socket,
}

impl Node {
    fn kind(self) -> (FileKind, (u32, u32)) {
        match self {
            Self::Char(major, minor) => (FileKind::CharDevice, (major, minor)),
            Self::Block(major, minor) => (FileKind::BlockDevice, (major, minor)),
            Self::Fifo => (FileKind::Fifo, (0, 0)),
            Self::Socket => (FileKind::Socket, (0, 0)),
        }
    }
}

fn mode_of(kind: FileKind, permissions: u16) -> u16 {
    let bits = match kind {
        FileKind::Fifo => 0o010_000,
        FileKind::CharDevice => 0o020_000,
        FileKind::Directory => 0o040_000,
        FileKind::BlockDevice => 0o060_000,
        FileKind::Regular => 0o100_000,
        FileKind::Symlink => 0o120_000,
        FileKind::Socket => 0o140_000,
    };
    bits | permissions & 0o7777
}

impl Core {
    pub(super) fn new_inode(&self, kind: FileKind, new: &New, device: (u32, u32), unnamed: bool) -> NewInode {
        let now = self.now();
        NewInode {
            mode: mode_of(kind, new.permissions),
            uid: new.uid,
            gid: new.gid,
            device,
            now: (now.seconds, now.nanos),
            generation: self.next_generation(),
            unnamed,
        }
    }
}

impl Handle {
    /// Makes an inode and its name in one transaction.
    fn make(&self, name: &[u8], kind: FileKind, new: &New, device: (u32, u32), target: &[u8]) -> Result<Handle> {
        check_name(name)?;
        let entered = self.core.enter()?;
        self.core.prepare_quota_of_new(self.ino, new)?;
        let g = self.core.geometry();
        let mut reservation = new_reservation(g);
        if kind == FileKind::Symlink {
            let blocks = create::target_blocks(g, target.len());
            let data = crate::txn::Reservation { blocks, ..Default::default() };
            reservation = reservation.and(Space::reservation(g, blocks)).and(data);
        }
        let mut t = entered.begin_with(reservation, &mut [self.ino])?;
        let above = directory(&mut t, self.ino, false)?;
        if kind == FileKind::Symlink && above.flags().contains(Flags::NOSYMLINKS) {
            return Err(Error::not_permitted(format!("directory {} may hold no symbolic links", self.ino)));
        }
        if kind == FileKind::Directory && above.nlink.get() >= MAX_LINK {
            return Err(Error::TooManyLinks(format!("directory {}", self.ino)));
        }
        // Before anything is allocated: that is looked for in vain more often than not where names are tried.
        if entered.dir(&mut t, self.ino).lookup(name)?.is_some() {
            return Err(Error::Exists(format!("{} in directory {}", escape(name), self.ino)));
        }
        let space = &entered.writer.space;
        let ino = create::create(&mut t, space, self.ino, &self.core.new_inode(kind, new, device, false))?;
        // Before it is committed, when others can find it and remove it.
        let handle = self.core.handle(ino);
        match kind {
            FileKind::Directory => {
                entered.dir(&mut t, ino).init(self.ino)?;
                add_links(&mut t, self.ino, 1)?;
            }
            FileKind::Symlink => create::set_target(&mut t, space, ino, target)?,
            _ => {}
        }
        self.add_name(&entered, &mut t, name, ino, kind.into())?;
        t.commit()?;
        Ok(handle)
    }

    /// Adds a name with its parent pointer and the directory's times.
    pub(super) fn add_name(
        &self,
        entered: &Entered<'_>,
        t: &mut Transaction<'_>,
        name: &[u8],
        ino: Ino,
        ftype: FileType,
    ) -> Result<()> {
        entered.dir(t, self.ino).add(name, ino, ftype)?;
        entered.add_parent(t, ino, name, self.ino)?;
        touch(t, self.ino, self.core.now(), Touch::Modified)?;
        t.emit(Change::Dirent { dir: self.ino, child: ino, delta: 1 });
        Ok(())
    }

    /// Makes an empty regular file in this directory.
    ///
    /// # Errors
    /// [`Error::Exists`]; [`Error::NotDirectory`]; [`Error::NotFound`] where the directory was removed; [`Error::NameTooLong`] and [`Error::Invalid`] for
    /// what can be no name; [`Error::NoSpace`]; [`Error::NotPermitted`] for an immutable directory; [`Error::ReadOnly`]; what is
    /// damaged. Then nothing was changed.
    pub fn create(&self, name: &[u8], new: &New) -> Result<Handle> {
        self.make(name, FileKind::Regular, new, (0, 0), &[])
    }

    /// Makes a directory in this directory.
    ///
    /// # Errors
    /// As [`Handle::create`]; [`Error::TooManyLinks`].
    pub fn mkdir(&self, name: &[u8], new: &New) -> Result<Handle> {
        self.make(name, FileKind::Directory, new, (0, 0), &[])
    }

    /// Makes a device, pipe or socket in this directory.
    ///
    /// # Errors
    /// As [`Handle::create`]; [`Error::Invalid`] for a device number that does not fit.
    pub fn mknod(&self, name: &[u8], node: Node, new: &New) -> Result<Handle> {
        let (kind, device) = node.kind();
        self.make(name, kind, new, device, &[])
    }

    /// Makes a symbolic link in this directory. Its target is what it is: nobody looks whether it leads anywhere.
    ///
    /// # Errors
    /// As [`Handle::create`]; [`Error::Invalid`] for a target that is empty, has a zero byte, or is longer than 1023 bytes.
    pub fn symlink(&self, name: &[u8], target: &[u8], new: &New) -> Result<Handle> {
        self.make(name, FileKind::Symlink, new, (0, 0), target)
    }

    /// Makes a regular file without a name, as it may have been made in this directory. It goes with its last handle, if it gets no name by
    /// [`Handle::link`] before.
    ///
    /// # Errors
    /// As [`Handle::create`].
    pub fn tmpfile(&self, new: &New) -> Result<Handle> {
        self.unnamed(FileKind::Regular, new)
    }

    /// An inode without a name.
    pub(super) fn unnamed(&self, kind: FileKind, new: &New) -> Result<Handle> {
        let entered = self.core.enter()?;
        self.core.prepare_quota_of_new(self.ino, new)?;
        let mut t = entered.begin_with(new_reservation(self.core.geometry()), &mut [self.ino])?;
        directory(&mut t, self.ino, false)?;
        let space = &entered.writer.space;
        let ino = create::create(&mut t, space, self.ino, &self.core.new_inode(kind, new, (0, 0), true))?;
        let handle = self.core.handle(ino);
        unlinked::add(&mut t, space, ino)?;
        let core = self.core.clone();
        t.after_commit(move |_| core.users.set_orphan(ino, true));
        t.commit()?;
        Ok(handle)
    }

    /// Gives an inode one more name, in this directory; one that has none yet its first.
    ///
    /// # Errors
    /// As [`Handle::create`]; [`Error::IsDirectory`]; [`Error::TooManyLinks`]; [`Error::NotFound`] for a file that was removed and not made
    /// without a name.
    pub fn link(&self, name: &[u8], file: &Handle) -> Result<()> {
        check_name(name)?;
        if !std::sync::Arc::ptr_eq(&self.core, &file.core) {
            return Err(Error::invalid("a link into another filesystem"));
        }
        if file.ino == self.ino {
            return Err(Error::IsDirectory(format!("inode {}", file.ino)));
        }
        let entered = self.core.enter()?;
        let mut t = entered.begin_with(name_reservation(self.core.geometry()), &mut [self.ino, file.ino])?;
        let above = directory(&mut t, self.ino, false)?;
        let linked = core(&mut t, file.ino)?;
        if linked.is_dir() {
            return Err(Error::IsDirectory(format!("inode {}", file.ino)));
        }
        may_be_renamed(&linked)?;
        Core::check_project(&above, &linked)?;
        if linked.nlink.get() == 0 {
            // The AGI, before any AGF.
            unlinked::remove(&mut t, &entered.writer.space, file.ino)?;
            let (core, ino) = (self.core.clone(), file.ino);
            t.after_commit(move |_| core.users.set_orphan(ino, false));
        }
        add_links(&mut t, file.ino, 1)?;
        touch(&mut t, file.ino, self.core.now(), Touch::Changed)?;
        self.add_name(&entered, &mut t, name, file.ino, FileType::from_mode(linked.mode.get()))?;
        t.commit().map(|_| ())
    }

    /// What a name leads to, and a transaction in which both are locked and it still does.
    pub(super) fn locked_name<'e>(
        &self,
        entered: &'e Entered<'_>,
        name: &[u8],
        reservation: crate::txn::Reservation,
    ) -> Result<(Handle, Transaction<'e>)> {
        for _ in 0..TRIES {
            let child = self.lookup(name)?;
            let mut t = entered.begin_with(reservation, &mut [self.ino, child.ino])?;
            directory(&mut t, self.ino, true)?;
            if entered.dir(&mut t, self.ino).lookup(name)?.is_some_and(|n| n.ino == child.ino) {
                return Ok((child, t));
            }
        }
        Err(super::change::overtaken(name))
    }
}
