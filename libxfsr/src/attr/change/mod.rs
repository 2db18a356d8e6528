//! Attributes are set and removed in a transaction, in every form, with each conversion from one to another as Linux makes it.
//!
//! **One transaction.** Whatever [`set`] and [`remove`] do, one transaction holds it: the old value goes and the new one comes with the same commit, so a value is
//! replaced wholly or not at all, without the detours by which Linux (which bounds its transactions more tightly) gets there. Only blocks that are
//! freed go in later ones of its chain. With parent pointers, or where the log may hold changes of attributes, the change itself may be a step of a chain as well:
//! [`Change`] is such a step, and what recovery finishes.
//!
//! **Forms.** Attributes begin in the inode; one that does not fit moves them all into a leaf, one that the leaf has no room for into a tree of leaves. When what is left
//! fits, they move back. A new fork may push a directory or a link's target, which were in the inode, out of it. The last one to go takes the fork along, but for inodes with parent pointers and those whose data fork is a btree.
//!
//! **Remote values** are not logged. Their blocks are allocated in the transaction (none that was freed a moment ago, see
//! [`Request::unlogged`](crate::space::Request)), written, and flushed; then only the transaction may be committed. Before that
//! they are free space to whoever reads the disk, after that they are on it: no crash shows half a value.
//!
//! **Incomplete** entries are what a crash of Linux left behind. They are no attributes; one that has the name of an attribute that is set or
//! removed goes with it.
//!
//! After any error the transaction is dropped, which takes everything back. Times of the inode are the caller's business.

mod leaf;
mod logged;
mod remote;
mod short;
mod tree;

pub use logged::Change;

use super::Attr;
use crate::dir::DirMut;
use crate::error::{Corruption, Error, ForkKind, Result, Rule};
use crate::format::attr::{AttrFlags, MAX_NAME, MAX_VALUE, NAMESPACE, ParentRec, hash_attr};
use crate::format::inode::Format;
use crate::format::{dir, part};
use crate::geometry::Geometry;
use crate::inode::create;
use crate::inode::map::ForkMut;
use crate::space::Space;
use crate::text::escape;
use crate::txn::{Reservation, Transaction};
use crate::units::Ino;
use std::sync::Arc;
use zerocopy::IntoBytes;

/// What may be there already.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum How {
    /// Set it, whether there is one or not.
    #[default]
    Upsert,
    /// There must be none.
    Create,
    /// There must be one.
    Replace,
}

/// Names an attribute of an inode. A parent pointer is named by its value as well.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Key<'a> {
    flags: AttrFlags,
    name: &'a [u8],
    value: &'a [u8],
}

impl<'a> Key<'a> {
    /// Of what is to be set or looked up.
    fn new(g: &Geometry, flags: AttrFlags, name: &'a [u8], value: &'a [u8]) -> Result<Self> {
        if flags.bits() & !NAMESPACE.bits() != 0 || flags.bits().count_ones() > 1 {
            return Err(Error::invalid(format!("attribute flags {:#x} are no namespace", flags.bits())));
        }
        if name.is_empty() || name.len() > MAX_NAME {
            return Err(Error::invalid(format!(
                "an attribute's name of {} bytes: 1 to {MAX_NAME} are allowed",
                name.len()
            )));
        }
        if flags.contains(AttrFlags::PARENT) {
            if !g.features.parent() {
                return Err(Error::unsupported("the filesystem has no parent pointers"));
            }
            let parent = ParentRec::from_value(value).filter(|p| dir::is_valid_entry_ino(g, p.ino.get()));
            if parent.is_none() || !dir::is_valid_name(name) {
                return Err(Error::invalid(format!("no parent pointer can be {}", escape(name))));
            }
        } else if name.contains(&0) {
            return Err(Error::invalid(format!("the name of attribute {} has a zero byte", escape(name))));
        }
        if value.len() as u64 > u64::from(MAX_VALUE) {
            return Err(Error::invalid(format!("a value of {} bytes: at most {MAX_VALUE} are allowed", value.len())));
        }
        Ok(Self { flags, name, value })
    }
    fn hash(&self, g: &Geometry) -> Result<u32> {
        hash_attr(g, self.flags, self.name, self.value)
            .ok_or_else(|| Error::invalid("a parent pointer of another size"))
    }
    /// Whether an attribute is the one that is named. Of remote values nothing is looked at: no parent pointer has one.
    fn is(&self, flags: AttrFlags, name: &[u8], value: &[u8]) -> bool {
        flags & NAMESPACE == self.flags
            && name == self.name
            && (!self.flags.contains(AttrFlags::PARENT) || value == self.value)
    }
    fn check(&self, how: How, exists: bool) -> Result<()> {
        match (how, exists) {
            (How::Create, true) => Err(Error::Exists(self.shown())),
            (How::Replace, false) => Err(Error::NotFound(self.shown())),
            _ => Ok(()),
        }
    }
    fn shown(&self) -> String {
        format!("attribute {}.{}", self.flags.namespace(), escape(self.name))
    }
}

/// How the attributes are held.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Form {
    /// There are none, and perhaps no fork.
    Nothing,
    /// In the inode.
    Short,
    /// In blocks: a leaf, or a tree.
    Blocks,
}

fn form(fork: &mut ForkMut<'_, '_>) -> Result<Form> {
    let (core, ino) = (fork.core()?, fork.ino());
    if core.is_free() {
        return Err(Error::NotFound(format!("inode {ino}")));
    }
    match core.format(ForkKind::Attr) {
        None if !core.has_attr_fork() => Ok(Form::Nothing),
        Some(Format::Local) => Ok(Form::Short),
        Some(Format::Extents) if core.extents(ForkKind::Attr) == 0 => Ok(Form::Nothing),
        Some(Format::Extents | Format::Btree) => Ok(Form::Blocks),
        _ => Err(Corruption::new("xattr", "aformat", Rule::Flags).in_inode(ino).found(core.aformat).into()),
    }
}

/// What a transaction reserves that sets or removes an attribute with a value of so many bytes, its old or its new one.
pub fn reservation(g: &Geometry, value: u32) -> Reservation {
    // Leaves on both sides of a split, two nodes on each level, the blocks of the map.
    let levels = u32::from(crate::format::da::MAX_DEPTH);
    let blocks = 6 + 2 * levels + 2 * u32::from(g.max_levels.bmap_attr);
    // A directory whose names have to leave the inode.
    let blocks = blocks + (1 << g.dir_block_log);
    let intents = 4096 + 64 * part::blocks(g, value);
    // A directory may have to leave the inode.
    let directory = 1 << g.dir_block_log;
    Space::reservation(g, 3).and(Reservation { blocks: blocks + directory, sectors: 0, inodes: 1, bytes: intents })
}

/// Makes an attribute fork for so many bytes, if they fit beside the data fork, else as large as Linux makes it. A directory or the target of a link which
/// then no longer fits into the inode leaves it.
fn make_fork(t: &mut Transaction<'_>, space: &Arc<Space>, ino: Ino, bytes: usize) -> Result<()> {
    let mut fork = ForkMut::new(t, space, ino, ForkKind::Attr);
    let core = fork.core()?;
    match fork.add_attr_fork(bytes) {
        Err(Error::NoSpace(_)) if core.format(ForkKind::Data) == Some(Format::Local) => {}
        other => return other,
    }
    if core.is_dir() {
        DirMut::new(t, space, ino).leave_inode()?;
        return ForkMut::new(t, space, ino, ForkKind::Attr).add_attr_fork(bytes);
    }
    let target = ForkMut::new(t, space, ino, ForkKind::Data).local_bytes()?;
    create::remove_target(t, space, ino)?;
    ForkMut::new(t, space, ino, ForkKind::Attr).add_attr_fork(bytes)?;
    create::set_target(t, space, ino, &target)
}

/// Sets an attribute. `flags` are those of its namespace, `name` is without it. Returns whether there was one.
///
/// # Errors
/// [`Error::Exists`] and [`Error::NotFound`] as [`How`] asks; [`Error::Invalid`] for a name or a value that cannot be; [`Error::NoSpace`];
/// [`Error::Corrupt`] where the attributes that are there break a rule; I/O errors.
pub fn set(
    t: &mut Transaction<'_>,
    space: &Arc<Space>,
    ino: Ino,
    (flags, name): (AttrFlags, &[u8]),
    value: &[u8],
    how: How,
) -> Result<bool> {
    let key = Key::new(t.geometry(), flags, name, value)?;
    if form(&mut ForkMut::new(t, space, ino, ForkKind::Attr))? == Form::Nothing {
        key.check(how, false)?;
        make_fork(t, space, ino, short::alone(&key))?;
    }
    let fork = &mut ForkMut::new(t, space, ino, ForkKind::Attr);
    match form(fork)? {
        Form::Nothing | Form::Short => short::set(fork, &key, how),
        Form::Blocks => tree::set(fork, &key, how),
    }
}

/// Removes an attribute. A parent pointer is not removed so: [`remove_parent`].
///
/// # Errors
/// [`Error::NotFound`] where there is none; else as [`set`].
pub fn remove(t: &mut Transaction<'_>, space: &Arc<Space>, ino: Ino, (flags, name): (AttrFlags, &[u8])) -> Result<()> {
    let key = Key::new(t.geometry(), flags, name, &[])?;
    remove_key(t, space, ino, &key)
}

fn remove_key(t: &mut Transaction<'_>, space: &Arc<Space>, ino: Ino, key: &Key<'_>) -> Result<()> {
    let fork = &mut ForkMut::new(t, space, ino, ForkKind::Attr);
    let found = match form(fork)? {
        Form::Nothing => false,
        Form::Short => short::remove(fork, key)?,
        Form::Blocks => tree::remove(fork, key)?,
    };
    if found { Ok(()) } else { Err(Error::NotFound(format!("{} of inode {ino}", key.shown()))) }
}

/// The value of an attribute as this transaction sees it; none where there is no such.
///
/// # Errors
/// As [`set`].
pub fn get(
    t: &mut Transaction<'_>,
    space: &Arc<Space>,
    ino: Ino,
    (flags, name): (AttrFlags, &[u8]),
) -> Result<Option<Vec<u8>>> {
    let key = Key::new(t.geometry(), flags, name, &[])?;
    let fork = &mut ForkMut::new(t, space, ino, ForkKind::Attr);
    match form(fork)? {
        Form::Nothing => Ok(None),
        Form::Short => short::get(fork, &key),
        Form::Blocks => tree::get(fork, &key),
    }
}

/// All attributes as this transaction sees them, parent pointers too.
///
/// # Errors
/// As [`super::list`].
pub fn list(t: &mut Transaction<'_>, space: &Arc<Space>, ino: Ino) -> Result<Vec<Attr>> {
    super::list_from(&mut ForkMut::new(t, space, ino, ForkKind::Attr))
}

/// Removes all attributes and the fork: of an inode that is to be freed.
///
/// # Errors
/// As [`set`].
pub fn remove_all(t: &mut Transaction<'_>, space: &Arc<Space>, ino: Ino) -> Result<()> {
    let fork = &mut ForkMut::new(t, space, ino, ForkKind::Attr);
    if !fork.core()?.has_attr_fork() {
        return Ok(());
    }
    if form(fork)? == Form::Blocks {
        tree::free_all(fork)?;
    }
    fork.set_format(Format::Extents)?;
    fork.remove_attr_fork()
}

/// Sets a parent pointer: the name that leads to the inode, and the directory in which it stands. It must not be there.
///
/// # Errors
/// As [`set`].
pub fn add_parent(
    t: &mut Transaction<'_>,
    space: &Arc<Space>,
    ino: Ino,
    name: &[u8],
    parent: &ParentRec,
) -> Result<()> {
    set(t, space, ino, (AttrFlags::PARENT, name), parent.as_bytes(), How::Create).map(|_| ())
}

/// Removes a parent pointer.
///
/// # Errors
/// As [`remove`].
pub fn remove_parent(
    t: &mut Transaction<'_>,
    space: &Arc<Space>,
    ino: Ino,
    name: &[u8],
    parent: &ParentRec,
) -> Result<()> {
    let key = Key::new(t.geometry(), AttrFlags::PARENT, name, parent.as_bytes())?;
    remove_key(t, space, ino, &key)
}

/// Replaces a parent pointer by another: a rename.
///
/// # Errors
/// As [`set`] and [`remove`].
pub fn replace_parent(
    t: &mut Transaction<'_>,
    space: &Arc<Space>,
    ino: Ino,
    (name, parent): (&[u8], &ParentRec),
    (new_name, new_parent): (&[u8], &ParentRec),
) -> Result<()> {
    remove_parent(t, space, ino, name, parent)?;
    add_parent(t, space, ino, new_name, new_parent)
}
