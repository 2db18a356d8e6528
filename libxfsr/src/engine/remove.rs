//! Names go, and with the last name and the last user the inode.

use super::Handle;
use super::change::{Touch, add_links, check_name, core, core_mut, may_be_renamed, name_reservation, touch};
use super::filesystem::Core;
use crate::attr::change as attrs;
use crate::error::{Error, ForkKind, Result};
use crate::format::inode::{FileKind, Format};
use crate::inode::data::FileMut;
use crate::inode::{chunk, create, unlinked};
use crate::space::Space;
use crate::text::escape;
use crate::txn::{Change, Reservation, Scope};
use crate::units::Ino;
use std::sync::Arc;

impl Handle {
    /// Removes a name of what is no directory. The inode goes with its last name and its last handle.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::IsDirectory`]; [`Error::NotPermitted`] for what is immutable or append-only; as [`Handle::create`].
    pub fn unlink(&self, name: &[u8]) -> Result<()> {
        check_name(name)?;
        let entered = self.core.enter()?;
        let g = self.core.geometry();
        let reservation = name_reservation(g).and(Reservation { sectors: 1, inodes: 2, ..Reservation::default() });
        let (child, mut t) = self.locked_name(&entered, name, reservation)?;
        let removed = core(&mut t, child.ino)?;
        if removed.is_dir() {
            return Err(Error::IsDirectory(format!("{} in directory {}", escape(name), self.ino)));
        }
        may_be_renamed(&removed)?;
        if add_links(&mut t, child.ino, -1)? == 0 {
            self.core.orphan(&entered.writer.space, &mut t, child.ino)?;
        }
        touch(&mut t, child.ino, self.core.now(), Touch::Changed)?;
        self.remove_name(&entered, &mut t, name, child.ino)?;
        t.commit()?;
        // The inode may be freed now, which is a change of its own.
        drop(child);
        Ok(())
    }

    /// Removes an empty directory.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::NotDirectory`]; [`Error::NotEmpty`]; as [`Handle::unlink`].
    pub fn rmdir(&self, name: &[u8]) -> Result<()> {
        check_name(name)?;
        let entered = self.core.enter()?;
        let g = self.core.geometry();
        let reservation = name_reservation(g).and(Reservation { sectors: 1, inodes: 2, ..Reservation::default() });
        let (child, mut t) = self.locked_name(&entered, name, reservation)?;
        let removed = core(&mut t, child.ino)?;
        if !removed.is_dir() {
            return Err(Error::NotDirectory(format!("{} in directory {}", escape(name), self.ino)));
        }
        may_be_renamed(&removed)?;
        if !entered.dir(&mut t, child.ino).is_empty()? {
            return Err(Error::NotEmpty(format!("{} in directory {}", escape(name), self.ino)));
        }
        core_mut(&mut t, child.ino)?.nlink.set(0);
        self.core.orphan(&entered.writer.space, &mut t, child.ino)?;
        touch(&mut t, child.ino, self.core.now(), Touch::Changed)?;
        add_links(&mut t, self.ino, -1)?;
        self.remove_name(&entered, &mut t, name, child.ino)?;
        t.commit()?;
        drop(child);
        Ok(())
    }

    fn remove_name(
        &self,
        entered: &super::filesystem::Entered<'_>,
        t: &mut crate::txn::Transaction<'_>,
        name: &[u8],
        ino: Ino,
    ) -> Result<()> {
        entered.dir(t, self.ino).remove(name)?;
        entered.remove_parent(t, ino, name, self.ino)?;
        touch(t, self.ino, self.core.now(), Touch::Modified)?;
        t.emit(Change::Dirent { dir: self.ino, child: ino, delta: -1 });
        Ok(())
    }
}

impl Core {
    /// Puts an inode whose last name goes on its list. The AGI is locked by that: before any AGF.
    pub(super) fn orphan(
        self: &Arc<Self>,
        space: &Arc<Space>,
        t: &mut crate::txn::Transaction<'_>,
        ino: Ino,
    ) -> Result<()> {
        unlinked::add(t, space, ino)?;
        let core = self.clone();
        t.after_commit(move |_| core.users.set_orphan(ino, true));
        Ok(())
    }

    /// Frees an inode without a name that nobody uses any more. One that has got a name again is left alone.
    pub(super) fn inactivate(&self, ino: Ino) -> Result<()> {
        let entered = self.enter()?;
        let inode = crate::inode::Inode::read(&self.volume, ino, crate::cache::OnDamage::Fail)?;
        if inode.core.is_free() || inode.core.nlink.get() > 0 {
            return Ok(());
        }
        free_unlinked(&entered.writer.scope, &entered.writer.space, ino)
    }
}

/// Frees an inode that is on the list of unlinked ones, with all that it holds: contents first, then attributes, at last itself. Each step leaves it
/// on the list, so whatever a crash cuts off, recovery does to the end. The caller holds no lock.
///
/// # Errors
/// What is damaged, and I/O errors: it stays on the list.
fn free_unlinked(scope: &Scope, space: &Arc<Space>, ino: Ino) -> Result<()> {
    let g = &scope.volume().geometry;
    let inode = crate::inode::Inode::read(scope.volume(), ino, crate::cache::OnDamage::Fail)?;
    if inode.core.kind() == Some(FileKind::Regular) && inode.core.extents(ForkKind::Data) > 0 {
        let lock = scope.contents().lock(ino);
        FileMut::new(scope, space, &lock).truncate(0)?;
    }
    let attributes = inode.core.format(ForkKind::Attr);
    if matches!(attributes, Some(Format::Extents | Format::Btree)) && inode.core.extents(ForkKind::Attr) > 0 {
        let mut t = scope.begin(attrs::reservation(g, crate::format::attr::MAX_VALUE))?;
        t.lock_inode(ino);
        attrs::remove_all(&mut t, space, ino)?;
        t.commit()?;
    }
    let link = inode.core.is_symlink();
    let extra = if link { Space::reservation(g, 2) } else { Reservation::default() };
    let mut t = scope.begin(chunk::reservation(g).and(extra).and(Reservation { inodes: 2, ..Default::default() }))?;
    t.lock_inode(ino);
    unlinked::remove(&mut t, space, ino)?;
    if link {
        create::remove_target(&mut t, space, ino)?;
    }
    chunk::free(&mut t, space, ino)?;
    t.commit().map(|_| ())
}
