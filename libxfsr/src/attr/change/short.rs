//! The short form: all attributes in the inode.

use super::{How, Key, tree};
use crate::error::{Error, ForkKind, Result};
use crate::format::attr::{AttrFlags, ShortAttr, ShortAttrs, ShortHeader, verify_short};
use crate::format::inode::{CORE_SIZE, Format};
use crate::inode::map::ForkMut;
use zerocopy::IntoBytes;

/// Longest name and value of a short attribute, and most attributes.
const MOST: usize = 255;

/// An attribute that stands beside its name.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Held {
    pub(super) flags: AttrFlags,
    pub(super) name: Vec<u8>,
    pub(super) value: Vec<u8>,
}

/// Bytes of a fork with one attribute only.
pub(super) fn alone(key: &Key<'_>) -> usize {
    size_of::<ShortHeader>() + ShortAttr::size(key.name.len(), key.value.len())
}

/// What stands in the inode; nothing where there is no fork, or an empty one.
fn read(fork: &mut ForkMut<'_, '_>) -> Result<Vec<Held>> {
    if fork.core()?.format(ForkKind::Attr) != Some(Format::Local) {
        return Ok(Vec::new());
    }
    let (bytes, ino) = (fork.local_bytes()?, fork.ino());
    verify_short(&bytes, ino, fork.t().geometry())?;
    let held = |a: ShortAttr<'_>| Held { flags: a.flags, name: a.name.to_vec(), value: a.value.to_vec() };
    ShortAttrs::new(&bytes).map(|a| a.map(held).map_err(|c| Error::from(c.in_inode(ino)))).collect()
}

/// The bytes of a short form; none where there are too many attributes, or one that is too long.
pub(super) fn pack(all: &[Held]) -> Option<Vec<u8>> {
    let sum: usize = all.iter().map(|a| ShortAttr::size(a.name.len(), a.value.len())).sum();
    let total = u16::try_from(size_of::<ShortHeader>() + sum).ok()?;
    let count = u8::try_from(all.len()).ok()?;
    let mut bytes = ShortHeader { totsize: total.into(), count, pad: 0 }.as_bytes().to_vec();
    for a in all {
        bytes.extend([u8::try_from(a.name.len()).ok()?, u8::try_from(a.value.len()).ok()?, a.flags.bits()]);
        bytes.extend_from_slice(&a.name);
        bytes.extend_from_slice(&a.value);
    }
    Some(bytes)
}

pub(super) fn set(fork: &mut ForkMut<'_, '_>, key: &Key<'_>, how: How) -> Result<bool> {
    let mut all = read(fork)?;
    let before = all.len();
    all.retain(|a| !key.is(a.flags, &a.name, &a.value));
    let exists = all.len() < before;
    key.check(how, exists)?;
    let new = Held { flags: key.flags, name: key.name.to_vec(), value: key.value.to_vec() };
    all.push(new);
    if let Some(bytes) = pack(&all)
        && bytes.len() <= fork.room()?
        && all.len() <= MOST
    {
        fork.set_local(&bytes)?;
        return Ok(exists);
    }
    all.pop();
    to_leaf(fork, &all)?;
    tree::add(fork, key)?;
    Ok(exists)
}

/// Moves what stands in the inode into a leaf.
fn to_leaf(fork: &mut ForkMut<'_, '_>, all: &[Held]) -> Result<()> {
    fork.set_format(Format::Extents)?;
    tree::begin(fork)?;
    all.iter().try_for_each(|a| tree::add(fork, &Key { flags: a.flags, name: &a.name, value: &a.value }))
}

pub(super) fn remove(fork: &mut ForkMut<'_, '_>, key: &Key<'_>) -> Result<bool> {
    let mut all = read(fork)?;
    let before = all.len();
    all.retain(|a| !key.is(a.flags, &a.name, &a.value));
    if all.len() == before {
        return Ok(false);
    }
    keep(fork, &all)?;
    Ok(true)
}

/// Whether a fork without attributes goes away. Beside a link's target that left the inode for it, it stays where the target would fit without it:
/// then Linux takes a target in blocks for damage.
fn may_go(fork: &mut ForkMut<'_, '_>) -> Result<bool> {
    let (core, g) = (fork.core()?, fork.t().geometry());
    let btree = core.format(ForkKind::Data) == Some(Format::Btree);
    let pushed = core.is_symlink()
        && core.format(ForkKind::Data) != Some(Format::Local)
        && core.size.get() + CORE_SIZE as u64 <= u64::from(g.inode_size);
    Ok(!btree && !pushed && !g.features.parent())
}

/// Puts what is left into the inode, where it fits, or removes a fork in which nothing is left. False where it does not fit.
pub(super) fn fits(fork: &mut ForkMut<'_, '_>, all: &[Held]) -> Result<bool> {
    Ok(all.len() <= MOST && pack(all).is_some_and(|b| fork.room().is_ok_and(|room| b.len() <= room)))
}

/// The same, known to fit. The fork has no extents.
pub(super) fn keep(fork: &mut ForkMut<'_, '_>, all: &[Held]) -> Result<()> {
    if all.is_empty() && may_go(fork)? {
        fork.set_format(Format::Extents)?;
        return fork.remove_attr_fork();
    }
    let bytes = pack(all).ok_or_else(|| Error::invalid("attributes that do not fit into the inode"))?;
    fork.set_local(&bytes)
}

pub(super) fn get(fork: &mut ForkMut<'_, '_>, key: &Key<'_>) -> Result<Option<Vec<u8>>> {
    Ok(read(fork)?.into_iter().find(|a| key.is(a.flags, &a.name, &a.value)).map(|a| a.value))
}
