//! Renaming.

use super::Handle;
use super::change::{
    TRIES, Touch, add_links, check_name, core, core_mut, directory, may_be_renamed, name_reservation, overtaken, touch,
};
use super::filesystem::{Core, Entered};
use super::names::New;
use crate::error::{Error, Result};
use crate::format::dir::FileType;
use crate::format::inode::{Dinode, FileKind};
use crate::inode::unlinked;
use crate::text::escape;
use crate::txn::{Change, Reservation, Transaction};
use crate::units::Ino;
use std::sync::Arc;

/// What becomes of the names.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Rename {
    /// What has the new name loses it.
    #[default]
    Replace,
    /// The new name must be free.
    NoReplace,
    /// Both change places.
    Exchange,
    /// As [`Rename::Replace`], and the old name leads to a *whiteout*: a character device 0:0, by which overlay filesystems hide a name.
    Whiteout,
}

/// A directory that must be one, or must not.
struct Side<'a> {
    dir: &'a Handle,
    name: &'a [u8],
}

impl Side<'_> {
    fn shown(&self) -> String {
        format!("{} in directory {}", escape(self.name), self.dir.ino)
    }
}

/// All that a rename has locked.
struct Locked<'e> {
    t: Transaction<'e>,
    /// What has the old name.
    source: Handle,
    /// What has the new name.
    target: Option<Handle>,
}

impl Handle {
    /// Gives what has `name` in this directory the name `new_name` in `to`, in one step.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::Exists`] with [`Rename::NoReplace`]; [`Error::IsDirectory`], [`Error::NotDirectory`] and [`Error::NotEmpty`] for what
    /// cannot be replaced; [`Error::Invalid`] for a directory that would come below itself; as [`Handle::create`] and [`Handle::unlink`].
    pub fn rename(&self, name: &[u8], to: &Handle, new_name: &[u8], how: Rename) -> Result<()> {
        check_name(name)?;
        check_name(new_name)?;
        if !Arc::ptr_eq(&self.core, &to.core) {
            return Err(Error::invalid("a rename into another filesystem"));
        }
        let entered = self.core.enter()?;
        let (from, to) = (Side { dir: self, name }, Side { dir: to, name: new_name });
        // A whiteout is made first, without a name: a crash leaves nothing of it.
        let whiteout = match how {
            Rename::Whiteout => Some(self.unnamed(FileKind::CharDevice, &New::mode(0))?),
            _ => None,
        };
        // Whoever moves directories between directories sees none of them moved by somebody else meanwhile.
        let _moving = (self.ino != to.dir.ino).then(|| self.core.moving.lock());
        let Some(locked) = lock(&entered, &from, &to, how, whiteout.as_ref())? else { return Ok(()) };
        let Locked { source, target, mut t } = locked;
        let moved = core(&mut t, source.ino)?;
        may_be_renamed(&moved)?;
        Core::check_project(&core(&mut t, to.dir.ino)?, &moved)?;
        match (how, &target) {
            (Rename::Exchange, None) => return Err(Error::NotFound(to.shown())),
            (Rename::NoReplace, Some(_)) => return Err(Error::Exists(to.shown())),
            (Rename::Exchange, Some(other)) => {
                let other_core = core(&mut t, other.ino)?;
                may_be_renamed(&other_core)?;
                Core::check_project(&core(&mut t, from.dir.ino)?, &other_core)?;
                exchange(&entered, &mut t, (&from, &moved, source.ino), (&to, &other_core, other.ino))?;
            }
            _ => {
                replace(&entered, &mut t, (&from, &moved, source.ino), (&to, target.as_ref()), whiteout.as_ref())?;
            }
        }
        let now = self.core.now();
        touch(&mut t, source.ino, now, Touch::Changed)?;
        touch(&mut t, from.dir.ino, now, Touch::Modified)?;
        touch(&mut t, to.dir.ino, now, Touch::Modified)?;
        t.commit()?;
        drop((source, target, whiteout));
        Ok(())
    }

    /// Whether this directory is, or lies below, another one. Nobody moves directories meanwhile.
    fn is_below(&self, other: Ino) -> Result<bool> {
        let mut at = self.clone();
        // Deeper than any path, but no loop for ever where `..` is damaged.
        for _ in 0..1 << 20 {
            if at.ino == other {
                return Ok(true);
            }
            let above = at.lookup(b"..")?;
            if above.ino == at.ino {
                return Ok(false);
            }
            at = above;
        }
        Err(Error::invalid(format!("the way up from directory {} does not end", self.ino)))
    }
}

/// Locks both directories and what their names lead to. None where both names lead to one inode already: then nothing is to be done.
fn lock<'e>(
    entered: &'e Entered<'_>,
    from: &Side<'_>,
    to: &Side<'_>,
    how: Rename,
    whiteout: Option<&Handle>,
) -> Result<Option<Locked<'e>>> {
    let g = from.dir.core.geometry();
    let reservation =
        name_reservation(g).and(name_reservation(g)).and(Reservation { sectors: 2, inodes: 4, ..Default::default() });
    for _ in 0..TRIES {
        let source = from.dir.lookup(from.name)?;
        let target = match to.dir.lookup(to.name) {
            Ok(target) => Some(target),
            Err(Error::NotFound(_)) => None,
            Err(e) => return Err(e),
        };
        if target.as_ref().is_some_and(|t| t.ino == source.ino) {
            return if how == Rename::NoReplace { Err(Error::Exists(to.shown())) } else { Ok(None) };
        }
        // Before locks are taken: this looks at one directory after the other.
        if from.dir.ino != to.dir.ino {
            let below = |dir: &Handle, of: &Handle| -> Result<()> {
                if of.stat()?.kind == FileKind::Directory && dir.is_below(of.ino)? {
                    return Err(Error::invalid(format!("directory {} would come below itself", of.ino)));
                }
                Ok(())
            };
            below(to.dir, &source)?;
            if let Some(target) = &target
                && from.dir.is_below(target.ino)?
            {
                // An ancestor is not empty, and with an exchange it would come below itself.
                return Err(match how {
                    Rename::Exchange => Error::invalid(format!("directory {} would come below itself", target.ino)),
                    _ => Error::NotEmpty(to.shown()),
                });
            }
        }
        let mut inodes = vec![from.dir.ino, to.dir.ino, source.ino];
        inodes.extend(target.as_ref().map(|t| t.ino));
        inodes.extend(whiteout.map(|w| w.ino));
        inodes.sort_unstable();
        inodes.dedup();
        let mut t = entered.begin_with(reservation, &mut inodes)?;
        directory(&mut t, from.dir.ino, true)?;
        directory(&mut t, to.dir.ino, target.is_some())?;
        let source_now = entered.dir(&mut t, from.dir.ino).lookup(from.name)?.map(|n| n.ino);
        let target_now = entered.dir(&mut t, to.dir.ino).lookup(to.name)?.map(|n| n.ino);
        if source_now == Some(source.ino) && target_now == target.as_ref().map(|t| t.ino) {
            return Ok(Some(Locked { t, source, target }));
        }
    }
    Err(overtaken(from.name))
}

fn ftype(core: &Dinode) -> FileType {
    FileType::from_mode(core.mode.get())
}

/// Has a directory that came into another one say so.
fn set_parent(entered: &Entered<'_>, t: &mut Transaction<'_>, moved: Ino, parent: Ino) -> Result<()> {
    entered.dir(t, moved).replace(b"..", parent, FileType::Directory).map(|_| ())
}

fn exchange(
    entered: &Entered<'_>,
    t: &mut Transaction<'_>,
    (from, moved, source): (&Side<'_>, &Dinode, Ino),
    (to, other, target): (&Side<'_>, &Dinode, Ino),
) -> Result<()> {
    let (a, b) = (from.dir.ino, to.dir.ino);
    entered.dir(t, a).replace(from.name, target, ftype(other))?;
    entered.dir(t, b).replace(to.name, source, ftype(moved))?;
    for (ino, old, new) in [(source, from, to), (target, to, from)] {
        entered.remove_parent(t, ino, old.name, old.dir.ino)?;
        entered.add_parent(t, ino, new.name, new.dir.ino)?;
    }
    if a != b {
        for (core, ino, parent) in [(moved, source, b), (other, target, a)] {
            if core.is_dir() {
                set_parent(entered, t, ino, parent)?;
            }
        }
        let by = i32::from(moved.is_dir()) - i32::from(other.is_dir());
        if by != 0 {
            add_links(t, b, by)?;
            add_links(t, a, -by)?;
        }
    }
    let now = from.dir.core.now();
    touch(t, target, now, Touch::Changed)?;
    for (dir, child, delta) in [(a, source, -1), (b, source, 1), (b, target, -1), (a, target, 1)] {
        t.emit(Change::Dirent { dir, child, delta });
    }
    Ok(())
}

fn replace(
    entered: &Entered<'_>,
    t: &mut Transaction<'_>,
    (from, moved, source): (&Side<'_>, &Dinode, Ino),
    (to, target): (&Side<'_>, Option<&Handle>),
    whiteout: Option<&Handle>,
) -> Result<()> {
    let (a, b) = (from.dir.ino, to.dir.ino);
    let now = from.dir.core.now();
    let space = &entered.writer.space;
    let replaced = target.map(|h| core(t, h.ino).map(|c| (h, c))).transpose()?;
    // AGIs come before AGFs, and in their order: all that goes on an unlinked list, or comes off one, does so now.
    let mut lists: Vec<(Ino, bool)> = Vec::new();
    if let Some((target, old)) = &replaced {
        may_be_renamed(old)?;
        match (moved.is_dir(), old.is_dir()) {
            (true, false) => return Err(Error::NotDirectory(to.shown())),
            (false, true) => return Err(Error::IsDirectory(to.shown())),
            (true, true) if !entered.dir(t, target.ino).is_empty()? => return Err(Error::NotEmpty(to.shown())),
            _ => {}
        }
        let links = if old.is_dir() { 0 } else { old.nlink.get().saturating_sub(1) };
        core_mut(t, target.ino)?.nlink.set(links);
        if links == 0 {
            lists.push((target.ino, true));
        }
        touch(t, target.ino, now, Touch::Changed)?;
    }
    if let Some(whiteout) = whiteout {
        lists.push((whiteout.ino, false));
        core_mut(t, whiteout.ino)?.nlink.set(1);
    }
    lists.sort_unstable();
    for (ino, add) in lists {
        if add {
            to.dir.core.orphan(space, t, ino)?;
        } else {
            unlinked::remove(t, space, ino)?;
            let core = to.dir.core.clone();
            t.after_commit(move |_| core.users.set_orphan(ino, false));
        }
    }
    if let Some((target, _)) = &replaced {
        entered.dir(t, b).replace(to.name, source, ftype(moved))?;
        entered.remove_parent(t, target.ino, to.name, b)?;
        t.emit(Change::Dirent { dir: b, child: target.ino, delta: -1 });
    } else {
        entered.dir(t, b).add(to.name, source, ftype(moved))?;
    }
    match whiteout {
        Some(w) => {
            entered.dir(t, a).replace(from.name, w.ino, FileType::CharDevice)?;
            entered.add_parent(t, w.ino, from.name, a)?;
        }
        None => drop(entered.dir(t, a).remove(from.name)?),
    }
    entered.remove_parent(t, source, from.name, a)?;
    entered.add_parent(t, source, to.name, b)?;
    if moved.is_dir() {
        // The directory that was replaced had one link of its parent, too.
        let gone = replaced.is_some();
        if a != b {
            set_parent(entered, t, source, b)?;
            add_links(t, a, -1)?;
            if !gone {
                add_links(t, b, 1)?;
            }
        } else if gone {
            add_links(t, b, -1)?;
        }
    }
    t.emit(Change::Dirent { dir: a, child: source, delta: -1 });
    t.emit(Change::Dirent { dir: b, child: source, delta: 1 });
    Ok(())
}
