//! Attributes in blocks: one leaf, or a tree of them.

use super::leaf::{self, Leaves, New, Payload};
use super::short::{self, Held};
use super::{How, Key, remote};
use crate::datree::{self, Blocks, ForkBlocks, Path};
use crate::error::{Corruption, Error, ForkKind, Result, Rule};
use crate::format::attr::{
    ATTR_LEAF, AttrFlags, AttrLeaf, LEAF_MAGIC, NAMESPACE, Value, entry_size_local, max_local_size,
};
use crate::format::da;
use crate::inode::map::ForkMut;
use crate::units::FileBlock;
use std::ops::ControlFlow;

/// How often a leaf is split for one entry: twice where it belongs between two that are large.
const SPLITS: usize = 4;

/// An entry that was found.
struct Found {
    path: Path,
    index: usize,
    incomplete: bool,
    value: Place,
}

enum Place {
    Local(Vec<u8>),
    Remote { block: u32, length: u32 },
}

/// The attribute of that name, or an entry of that name that is incomplete.
fn find(b: &mut ForkBlocks<'_, '_, '_>, key: &Key<'_>, incomplete: bool) -> Result<Option<Found>> {
    let hash = key.hash(b.fork().t().geometry())?;
    datree::each_with_hash::<Leaves, _, _>(b, hash, |path, bytes| {
        let leaf = AttrLeaf::from_bytes(bytes).ok_or_else(|| Corruption::new("attrleaf", "length", Rule::Truncated))?;
        for (index, e) in leaf.entries.iter().enumerate().filter(|(_, e)| e.hashval.get() == hash) {
            let a = leaf.attr(e)?;
            let is_incomplete = a.flags.contains(AttrFlags::INCOMPLETE);
            let local = match a.value {
                Value::Local(v) => v,
                Value::Remote { .. } => &[],
            };
            if is_incomplete == incomplete && key.is(a.flags, a.name, local) {
                let value = match a.value {
                    Value::Local(v) => Place::Local(v.to_vec()),
                    Value::Remote { block, length } => Place::Remote { block, length },
                };
                return Ok(ControlFlow::Break(Found { path: path.clone(), index, incomplete, value }));
            }
        }
        Ok(ControlFlow::Continue(()))
    })
}

/// Takes an entry out, with the blocks of its value. Those of an incomplete one are nobody's, and perhaps somebody else's by now.
fn take(fork: &mut ForkMut<'_, '_>, found: &Found) -> Result<()> {
    if let Place::Remote { block, length } = found.value
        && !found.incomplete
    {
        remote::free(fork, block, length)?;
    }
    let b = &mut ForkBlocks::attributes(fork);
    leaf::remove(b.block_mut(found.path.leaf)?, found.index)?;
    datree::shrink::<Leaves, _>(b, &found.path)
}

/// Removes what a crash left of an attribute of that name.
fn clean(fork: &mut ForkMut<'_, '_>, key: &Key<'_>) -> Result<()> {
    // As many as entries of one name can be; each turn removes one.
    for _ in 0..=u16::MAX {
        match find(&mut ForkBlocks::attributes(fork), key, true)? {
            Some(found) => take(fork, &found)?,
            None => return Ok(()),
        }
    }
    Ok(())
}

/// Makes the first leaf, of a fork without blocks.
pub(super) fn begin(fork: &mut ForkMut<'_, '_>) -> Result<()> {
    let b = &mut ForkBlocks::attributes(fork);
    let at = b.create(&ATTR_LEAF, LEAF_MAGIC)?;
    if at != b.root() {
        return Err(Error::invalid("an attribute fork that is not empty"));
    }
    <Leaves as datree::Leaf>::init(b.block_mut(at)?);
    Ok(())
}

/// Adds an attribute that is not there.
pub(super) fn add(fork: &mut ForkMut<'_, '_>, key: &Key<'_>) -> Result<()> {
    let g = fork.t().geometry();
    let hash = key.hash(g)?;
    let local = entry_size_local(key.name.len(), key.value.len()) < max_local_size(g.block_size as usize);
    let payload = if local || key.flags.contains(AttrFlags::PARENT) {
        Payload::Local(key.value)
    } else {
        let length = u32::try_from(key.value.len()).map_err(|_| Error::invalid("a value that is too long"))?;
        Payload::Remote { block: remote::store(fork, key.value)?, length }
    };
    insert(fork, &New { hash, flags: key.flags, name: key.name, payload })
}

fn insert(fork: &mut ForkMut<'_, '_>, new: &New<'_>) -> Result<()> {
    let b = &mut ForkBlocks::attributes(fork);
    for _ in 0..SPLITS {
        let path = datree::find::<Leaves, _>(b, new.hash)?;
        let entries = AttrLeaf::from_bytes(b.block(path.leaf)?).map_or(&[][..], |l| l.entries);
        let index = entries.partition_point(|e| e.hashval.get() <= new.hash);
        if leaf::insert(b.block_mut(path.leaf)?, index, new)? {
            return datree::fix_hash::<Leaves, _>(b, &path);
        }
        let mut done = false;
        datree::split::<Leaves, _>(b, &path, |left, right| {
            done = leaf::share(left, right, index, new)?;
            Ok(())
        })?;
        if done {
            return Ok(());
        }
    }
    Err(Error::invalid("an attribute that no leaf has room for"))
}

pub(super) fn set(fork: &mut ForkMut<'_, '_>, key: &Key<'_>, how: How) -> Result<bool> {
    let found = find(&mut ForkBlocks::attributes(fork), key, false)?;
    key.check(how, found.is_some())?;
    clean_found(fork, key, found.as_ref())?;
    add(fork, key)?;
    if found.is_some() {
        settle(fork)?;
    }
    Ok(found.is_some())
}

pub(super) fn remove(fork: &mut ForkMut<'_, '_>, key: &Key<'_>) -> Result<bool> {
    let found = find(&mut ForkBlocks::attributes(fork), key, false)?;
    clean_found(fork, key, found.as_ref())?;
    settle(fork)?;
    Ok(found.is_some())
}

/// Takes out what was found, and then what is incomplete.
fn clean_found(fork: &mut ForkMut<'_, '_>, key: &Key<'_>, found: Option<&Found>) -> Result<()> {
    if let Some(found) = found {
        take(fork, found)?;
    }
    clean(fork, key)
}

pub(super) fn get(fork: &mut ForkMut<'_, '_>, key: &Key<'_>) -> Result<Option<Vec<u8>>> {
    let found = find(&mut ForkBlocks::attributes(fork), key, false)?;
    match found.map(|f| f.value) {
        None => Ok(None),
        Some(Place::Local(v)) => Ok(Some(v)),
        Some(Place::Remote { block, length }) => {
            crate::attr::remote_value_from(fork, FileBlock(block.into()), length).map(Some)
        }
    }
}

/// What could stand in the inode: all attributes of a tree of one leaf. None where a value is remote.
fn held(fork: &mut ForkMut<'_, '_>) -> Result<Option<Vec<Held>>> {
    let b = &mut ForkBlocks::attributes(fork);
    let root = b.root();
    let bytes = b.block(root)?;
    if da::magic_of(bytes) != Some(LEAF_MAGIC) {
        return Ok(None);
    }
    let leaf = AttrLeaf::from_bytes(bytes).ok_or_else(|| Corruption::new("attrleaf", "length", Rule::Truncated))?;
    let mut all = Vec::new();
    for a in leaf.attrs() {
        let a = a?;
        let Value::Local(value) = a.value else { return Ok(None) };
        // What is incomplete does not come along.
        if !a.flags.contains(AttrFlags::INCOMPLETE) {
            all.push(Held { flags: a.flags & NAMESPACE, name: a.name.to_vec(), value: value.to_vec() });
        }
    }
    Ok(Some(all))
}

/// Moves what fits back into the inode.
fn settle(fork: &mut ForkMut<'_, '_>) -> Result<()> {
    let Some(all) = held(fork)? else { return Ok(()) };
    if !short::fits(fork, &all)? {
        return Ok(());
    }
    let mut b = ForkBlocks::attributes(fork);
    let root = b.root();
    b.free(root, &ATTR_LEAF)?;
    // Blocks of values that a crash left without a name.
    let end = fork.end()?.0;
    fork.free(FileBlock(0), end)?;
    debug_assert_eq!(fork.kind(), ForkKind::Attr);
    short::keep(fork, &all)
}

/// Frees all blocks of the fork, those of the tree as metadata.
pub(super) fn free_all(fork: &mut ForkMut<'_, '_>) -> Result<()> {
    let mut leaves = Vec::new();
    let mut b = ForkBlocks::attributes(fork);
    let mut path = datree::find::<Leaves, _>(&mut b, 0)?;
    let mut nodes = Vec::new();
    loop {
        leaves.push(path.leaf);
        nodes.extend(path.nodes.iter().map(|s| s.at).filter(|at| !nodes.contains(at)).collect::<Vec<_>>());
        if !datree::next::<Leaves, _>(&mut b, &mut path)? {
            break;
        }
    }
    for at in leaves {
        b.free(at, &ATTR_LEAF)?;
    }
    for at in nodes {
        b.free(at, &da::DA_NODE)?;
    }
    let end = fork.end()?.0;
    remote::forget(fork, FileBlock(0), end)?;
    fork.free(FileBlock(0), end)
}
