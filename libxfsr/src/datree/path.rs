//! The way down to a leaf, and what a changed leaf means to the blocks above.

use super::node::{bad, level};
use super::{Blocks, Leaf};
use crate::error::{Result, Rule};
use crate::format::da::{Node, NodeEntry, NodeHeader};
use crate::units::FileBlock;
use std::ops::ControlFlow;
use zerocopy::FromBytes;

/// A node on the way down.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Step {
    /// Where it is.
    pub at: FileBlock,
    /// Which of its entries leads on.
    pub index: usize,
}

/// The way from the root to a leaf. It is right until the tree is changed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Path {
    /// The nodes, from the root on; none where the root is a leaf.
    pub nodes: Vec<Step>,
    /// The leaf.
    pub leaf: FileBlock,
}

/// Goes down from a block, whose level must be the one asked for, to a leaf. In each node `choose` picks an entry.
fn descend<L: Leaf, B: Blocks>(
    b: &mut B,
    path: &mut Path,
    mut at: FileBlock,
    mut want: Option<u16>,
    choose: &dyn Fn(&[NodeEntry]) -> usize,
) -> Result<()> {
    loop {
        let bytes = b.block(at)?;
        let found = level::<L>(bytes);
        let Some(found) = found.filter(|f| want.is_none_or(|w| w == *f)) else {
            return Err(bad(b, "level", Rule::Mismatch, at));
        };
        if found == 0 {
            path.leaf = at;
            return Ok(());
        }
        let entries = Node::from_bytes(bytes).map_or(&[][..], |n| n.entries);
        let index = choose(entries);
        let Some(child) = entries.get(index).map(|e| FileBlock(e.before.get().into())) else {
            return Err(bad(b, "count", Rule::Range, at));
        };
        path.nodes.push(Step { at, index });
        (at, want) = (child, Some(found - 1));
    }
}

/// The first leaf that may hold that hash; the last one where all hashes are lower.
///
/// # Errors
/// [`Error::Corrupt`](crate::Error::Corrupt) where levels do not fall by one; those of [`Blocks::block`].
pub fn find<L: Leaf, B: Blocks>(b: &mut B, hash: u32) -> Result<Path> {
    let mut path = Path { nodes: Vec::new(), leaf: b.root() };
    let root = b.root();
    descend::<L, B>(b, &mut path, root, None, &|entries| {
        entries.partition_point(|e| e.hashval.get() < hash).min(entries.len().saturating_sub(1))
    })?;
    Ok(path)
}

/// The leaf behind that of a path; false, and no change, where there is none.
///
/// # Errors
/// As [`find`].
pub fn next<L: Leaf, B: Blocks>(b: &mut B, path: &mut Path) -> Result<bool> {
    let mut up = path.nodes.clone();
    while let Some(step) = up.pop() {
        let bytes = b.block(step.at)?;
        let here = level::<L>(bytes);
        let after = Node::from_bytes(bytes).and_then(|n| n.entries.get(step.index + 1));
        let (Some(child), Some(here)) = (after.map(|e| FileBlock(e.before.get().into())), here) else { continue };
        up.push(Step { at: step.at, index: step.index + 1 });
        let mut found = Path { nodes: up, leaf: path.leaf };
        let Some(below) = here.checked_sub(1) else { return Err(bad(b, "level", Rule::Mismatch, step.at)) };
        descend::<L, B>(b, &mut found, child, Some(below), &|_| 0)?;
        *path = found;
        return Ok(true);
    }
    Ok(false)
}

/// Calls `each` with all leaves that may hold that hash, in order, until it breaks. Returns what it broke with.
///
/// # Errors
/// As [`find`], and those of `each`.
pub fn each_with_hash<L: Leaf, B: Blocks, T>(
    b: &mut B,
    hash: u32,
    mut each: impl FnMut(&Path, &[u8]) -> Result<ControlFlow<T>>,
) -> Result<Option<T>> {
    let mut path = find::<L, B>(b, hash)?;
    loop {
        let leaf = b.block(path.leaf)?;
        if let ControlFlow::Break(found) = each(&path, leaf)? {
            return Ok(Some(found));
        }
        // A leaf without entries says nothing of what follows.
        let goes_on = L::last_hash(leaf).is_none_or(|last| last <= hash);
        if !goes_on || !next::<L, B>(b, &mut path)? {
            return Ok(None);
        }
    }
}

/// Tells the nodes of a path the highest hash of the block below `depth` of them.
pub(super) fn fix_from<B: Blocks>(b: &mut B, nodes: &[Step], hash: u32) -> Result<()> {
    for step in nodes.iter().rev() {
        let count = Node::from_bytes(b.block(step.at)?).map_or(0, |n| n.entries.len());
        let bytes = b.block_mut(step.at)?;
        let entry = NodeHeader::mut_from_prefix(bytes)
            .ok()
            .and_then(|(_, rest)| <[NodeEntry]>::mut_from_prefix_with_elems(rest, count).ok())
            .and_then(|(entries, _)| entries.get_mut(step.index));
        let Some(entry) = entry else { return Err(bad(b, "count", Rule::Range, step.at)) };
        if entry.hashval.get() == hash {
            return Ok(());
        }
        entry.hashval.set(hash);
        if step.index + 1 < count {
            return Ok(());
        }
    }
    Ok(())
}

/// Tells the blocks above that the highest hash of a leaf is another now. For a leaf without entries nothing changes: it is removed by
/// [`shrink`](super::shrink).
///
/// # Errors
/// As [`find`].
pub fn fix_hash<L: Leaf, B: Blocks>(b: &mut B, path: &Path) -> Result<()> {
    match L::last_hash(b.block(path.leaf)?) {
        Some(hash) => fix_from(b, &path.nodes, hash),
        None => Ok(()),
    }
}
