//! What all changes have in common: inodes locked in their order, names found again under the locks, times, parent pointers.

use super::filesystem::{Core, Entered, Time};
use crate::attr::change as attrs;
use crate::dir::DirMut;
use crate::error::{Error, Result};
use crate::format::attr::ParentRec;
use crate::format::dir::{MAX_NAME, is_valid_name};
use crate::format::inode::{Dinode, Flags, MAX_LINK, Timestamp};
use crate::geometry::Geometry;
use crate::inode::chunk;
use crate::text::escape;
use crate::txn::{Reservation, Transaction};
use crate::units::Ino;
use zerocopy::big_endian::{U32, U64};

/// How often names may change between looking and locking.
pub(super) const TRIES: usize = 10_000;

/// Which of an inode's times a change sets.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Touch {
    /// That of the last change.
    Changed,
    /// That of the last change, and that of the contents.
    Modified,
}

/// Refuses what cannot be a name.
pub(super) fn check_name(name: &[u8]) -> Result<()> {
    if name.len() > MAX_NAME {
        return Err(Error::NameTooLong(escape(name)));
    }
    if !is_valid_name(name) || name == b"." || name == b".." {
        return Err(Error::invalid(format!("{} is no name that something can get", escape(name))));
    }
    Ok(())
}

/// The error for a lookup that was overtaken each time.
pub(super) fn overtaken(name: &[u8]) -> Error {
    Error::invalid(format!("{} changes faster than it can be looked at", escape(name)))
}

/// The core of an inode of a transaction, to change.
pub(super) fn core_mut<'t>(t: &'t mut Transaction<'_>, ino: Ino) -> Result<&'t mut Dinode> {
    Dinode::from_bytes_mut(t.inode_mut(ino)?).ok_or_else(|| Error::invalid("an inode shorter than its core"))
}

/// A copy of it. A free inode is none.
pub(super) fn core(t: &mut Transaction<'_>, ino: Ino) -> Result<Dinode> {
    let core = Dinode::from_bytes(t.inode(ino)?).copied();
    core.filter(|d| !d.is_free()).ok_or_else(|| Error::NotFound(format!("inode {ino}")))
}

/// The same of a directory that names may be added to, or with `remove` removed from.
pub(super) fn directory(t: &mut Transaction<'_>, ino: Ino, remove: bool) -> Result<Dinode> {
    let core = core(t, ino)?;
    if !core.is_dir() {
        return Err(Error::NotDirectory(format!("inode {ino}")));
    }
    let forbidden = if remove { Flags::IMMUTABLE | Flags::APPEND } else { Flags::IMMUTABLE };
    if core.flags().intersects(forbidden) {
        return Err(Error::not_permitted(format!("directory {ino} is immutable or append-only")));
    }
    // One that was removed while somebody had it open.
    if core.nlink.get() == 0 {
        return Err(Error::NotFound(format!("directory {ino} was removed")));
    }
    Ok(core)
}

/// Refuses to change names of what is immutable or append-only.
pub(super) fn may_be_renamed(core: &Dinode) -> Result<()> {
    if core.flags().intersects(Flags::IMMUTABLE | Flags::APPEND) {
        return Err(Error::not_permitted(format!("inode {} is immutable or append-only", core.ino)));
    }
    Ok(())
}

/// A time as an inode holds it.
pub(super) fn stamp(core: &Dinode, time: Time) -> Result<Timestamp> {
    let none = || Error::invalid(format!("{} seconds since 1970 are no time that the inode can hold", time.seconds));
    Timestamp::encode(time.seconds, time.nanos, core.bigtime()).ok_or_else(none)
}

/// Sets times to now.
pub(super) fn touch(t: &mut Transaction<'_>, ino: Ino, now: Time, what: Touch) -> Result<()> {
    let core = core_mut(t, ino)?;
    let now = stamp(core, now)?;
    core.ctime = now;
    if what == Touch::Modified {
        core.mtime = now;
    }
    Ok(())
}

/// Changes a link count.
pub(super) fn add_links(t: &mut Transaction<'_>, ino: Ino, by: i32) -> Result<u32> {
    let core = core_mut(t, ino)?;
    let links = core.nlink.get().checked_add_signed(by).filter(|n| *n <= MAX_LINK);
    let links = links.ok_or_else(|| Error::TooManyLinks(format!("inode {ino}")))?;
    core.nlink.set(links);
    t.emit(crate::txn::Change::Nlink { ino, delta: by });
    Ok(links)
}

/// What one name, added, removed or replaced, may log, with the parent pointer of what it leads to.
pub(super) fn name_reservation(g: &Geometry) -> Reservation {
    let parent = if g.features.parent() { attrs::reservation(g, 0) } else { Reservation::default() };
    DirMut::reservation(g).and(parent).and(Reservation { inodes: 4, ..Reservation::default() })
}

/// What a new inode with a name may log.
pub(super) fn new_reservation(g: &Geometry) -> Reservation {
    chunk::reservation(g).and(name_reservation(g))
}

/// That a directory names an inode, as the inode says it.
fn parent_of(t: &mut Transaction<'_>, dir: Ino) -> Result<ParentRec> {
    let generation = core(t, dir)?.generation.get();
    Ok(ParentRec { ino: U64::new(dir.0), generation: U32::new(generation) })
}

impl Entered<'_> {
    /// Adds a parent pointer, where the filesystem has them.
    pub(super) fn add_parent(&self, t: &mut Transaction<'_>, ino: Ino, name: &[u8], dir: Ino) -> Result<()> {
        if !t.geometry().features.parent() {
            return Ok(());
        }
        let parent = parent_of(t, dir)?;
        attrs::add_parent(t, &self.writer.space, ino, name, &parent)
    }
    /// Takes one away.
    pub(super) fn remove_parent(&self, t: &mut Transaction<'_>, ino: Ino, name: &[u8], dir: Ino) -> Result<()> {
        if !t.geometry().features.parent() {
            return Ok(());
        }
        let parent = parent_of(t, dir)?;
        attrs::remove_parent(t, &self.writer.space, ino, name, &parent)
    }
    /// A directory in a transaction.
    pub(super) fn dir<'w, 's>(&'w self, t: &'w mut Transaction<'s>, ino: Ino) -> DirMut<'w, 's> {
        DirMut::new(t, &self.writer.space, ino)
    }
    /// Begins a transaction that has locked those inodes.
    pub(super) fn begin_with(&self, reservation: Reservation, inodes: &mut [Ino]) -> Result<Transaction<'_>> {
        let mut t = self.begin(reservation)?;
        inodes.sort_unstable();
        inodes.iter().for_each(|ino| t.lock_inode(*ino));
        Ok(t)
    }
}

impl Core {
    /// Whether a directory hands its project down, and something of another project would come into it: as if it were another filesystem.
    pub(super) fn check_project(above: &Dinode, core: &Dinode) -> Result<()> {
        if above.flags().contains(Flags::PROJINHERIT) && above.project() != core.project() {
            let (a, b) = (core.project(), above.project());
            return Err(Error::not_permitted(format!(
                "inode {} of project {a} cannot get a name in the tree of project {b}",
                core.ino
            )));
        }
        Ok(())
    }
}
