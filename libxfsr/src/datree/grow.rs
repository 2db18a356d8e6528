//! A leaf becomes two; nodes above it, too; the root gets a level.

use super::node::{bad, capacity, copy_contents, entries, level, link, make_root, set_entries, word};
use super::path::{Step, fix_from};
use super::{Blocks, Leaf, Path};
use crate::error::{Error, Result, Rule};
use crate::format::BlockType;
use crate::format::da::{DA_NODE, MAX_DEPTH, NODE_MAGIC, NodeEntry};
use crate::units::FileBlock;

fn entry(hash: u32, at: FileBlock) -> Result<NodeEntry> {
    Ok(NodeEntry { hashval: hash.into(), before: word(at)?.into() })
}

/// What the root holds moves to a new block; the root becomes a node with that one entry. Returns the new block.
fn grow<L: Leaf, B: Blocks>(b: &mut B, hash: u32) -> Result<FileBlock> {
    let root = b.root();
    let old = b.block(root)?.to_vec();
    let Some(below) = level::<L>(&old) else { return Err(bad(b, "level", Rule::Mismatch, root)) };
    if below >= MAX_DEPTH {
        return Err(Error::NoSpace(format!("the tree at file block {root} has all {MAX_DEPTH} levels")));
    }
    let (kind, magic): (&'static BlockType, u16) =
        if below == 0 { (L::KIND, L::MAGIC) } else { (&DA_NODE, NODE_MAGIC) };
    let new = b.create(kind, magic)?;
    copy_contents(b.block_mut(new)?, &old)?;
    make_root(b.block_mut(root)?, below + 1, entry(hash, new)?)?;
    b.set_kind(root, &DA_NODE)?;
    Ok(new)
}

/// Notes in the node at the end of `nodes` that its child there has `left` for its highest hash, and that `new` follows it.
fn insert<L: Leaf, B: Blocks>(b: &mut B, nodes: &mut Vec<Step>, left: u32, right: u32, new: FileBlock) -> Result<()> {
    let (mut left, mut right, mut new) = (left, right, new);
    // Every turn goes up one level, but for the one in which the root grows.
    for _ in 0..=2 * MAX_DEPTH {
        let Some(step) = nodes.last().copied() else { return Err(Error::invalid("a path without nodes")) };
        let mut all = entries(b.block(step.at)?);
        let (max, old_level) = (capacity(b.block(step.at)?.len()), level::<L>(b.block(step.at)?));
        let Some(changed) = all.get_mut(step.index) else { return Err(bad(b, "count", Rule::Range, step.at)) };
        changed.hashval.set(left);
        all.insert(step.index + 1, entry(right, new)?);
        let last = |all: &[NodeEntry]| all.last().map_or(0, |e| e.hashval.get());
        if all.len() <= max {
            set_entries(b.block_mut(step.at)?, &all)?;
            nodes.pop();
            return fix_from(b, nodes, last(&all));
        }
        if nodes.len() == 1 {
            let moved = grow::<L, B>(b, last(&all))?;
            *nodes = vec![Step { at: b.root(), index: 0 }, Step { at: moved, index: step.index }];
            continue;
        }
        let upper = all.split_off(all.len() / 2);
        let node = b.create(&DA_NODE, NODE_MAGIC)?;
        let Some(l) = old_level else { return Err(bad(b, "level", Rule::Mismatch, step.at)) };
        let bytes = b.block_mut(node)?;
        make_root(bytes, l, entry(0, node)?)?;
        set_entries(bytes, &upper)?;
        set_entries(b.block_mut(step.at)?, &all)?;
        link(b, step.at, node)?;
        (left, right, new) = (last(&all), last(&upper), node);
        nodes.pop();
    }
    Err(bad(b, "level", Rule::Loop, b.root()))
}

/// Adds a leaf behind that of a path. `share` gets both blocks, the second without entries, and shares the entries out as it likes, adding what
/// there was no room for; in the end both have some. The path is no longer right then.
///
/// # Errors
/// [`Error::NoSpace`]; those of `share` and of [`Blocks::block`].
pub fn split<L: Leaf, B: Blocks>(
    b: &mut B,
    path: &Path,
    share: impl FnOnce(&mut [u8], &mut [u8]) -> Result<()>,
) -> Result<()> {
    let mut path = path.clone();
    if path.nodes.is_empty() {
        let hash = L::last_hash(b.block(path.leaf)?).unwrap_or(0);
        let moved = grow::<L, B>(b, hash)?;
        path = Path { nodes: vec![Step { at: b.root(), index: 0 }], leaf: moved };
    }
    let new = b.create(L::KIND, L::MAGIC)?;
    let (mut left, mut right) = (b.block(path.leaf)?.to_vec(), b.block(new)?.to_vec());
    L::init(&mut right);
    share(&mut left, &mut right)?;
    let (Some(low), Some(high)) = (L::last_hash(&left), L::last_hash(&right)) else {
        return Err(Error::invalid("a leaf without entries after a split"));
    };
    b.block_mut(path.leaf)?.copy_from_slice(&left);
    b.block_mut(new)?.copy_from_slice(&right);
    link(b, path.leaf, new)?;
    insert::<L, B>(b, &mut path.nodes, low, high, new)
}
