//! Leaves and nodes that hold little are joined; a root with one block below it takes that in.

use super::node::{bad, capacity, copy_contents, entries, level, set_entries, set_siblings, siblings, unlink};
use super::path::{Step, fix_from};
use super::{Blocks, Leaf, Path};
use crate::error::{Error, Result, Rule};
use crate::format::BlockType;
use crate::format::da::{DA_NODE, MAX_DEPTH, NodeEntry};
use crate::units::FileBlock;

/// Of a node, what may be full when two are joined.
fn most(max: usize) -> usize {
    max - max / 4
}

/// Takes a block out of its level and frees it.
fn drop_block<B: Blocks>(b: &mut B, at: FileBlock, kind: &'static BlockType) -> Result<()> {
    unlink(b, at)?;
    b.free(at, kind)
}

/// The blocks below a node, by the index of the entry.
fn child(entries: &[NodeEntry], index: Option<usize>) -> Option<FileBlock> {
    entries.get(index?).map(|e| FileBlock(e.before.get().into()))
}

/// What became of a block that holds less than before.
enum Outcome {
    /// It stays; this is its highest hash.
    Stays(u32),
    /// The entry of that index in the node above is to go, and the one before it has that highest hash.
    Gone(usize, Option<u32>),
}

/// Which two neighbours are joined: index of the left one, its place, the place of the right one.
type Pair = (usize, FileBlock, FileBlock);

/// The neighbours of a block below the same node with which it can be joined: first the one behind it.
fn pairs(above: &[NodeEntry], index: usize) -> impl Iterator<Item = Pair> {
    let pair = |left: Option<usize>| Some((left?, child(above, left)?, child(above, left?.checked_add(1))?));
    [pair(Some(index)), pair(index.checked_sub(1))].into_iter().flatten()
}

fn shrink_leaf<L: Leaf, B: Blocks>(b: &mut B, path: &Path, above: Step) -> Result<Outcome> {
    let leaf = b.block(path.leaf)?.to_vec();
    let Some(last) = L::last_hash(&leaf) else {
        // The only leaf of the tree stays, even without entries.
        if siblings(&leaf) == (0, 0) {
            return Ok(Outcome::Stays(0));
        }
        drop_block(b, path.leaf, L::KIND)?;
        return Ok(Outcome::Gone(above.index, None));
    };
    if L::is_small(&leaf) {
        let above_entries = entries(b.block(above.at)?);
        for (index, left, right) in pairs(&above_entries, above.index) {
            let (Some(0), Some(0)) = (level::<L>(b.block(left)?), level::<L>(b.block(right)?)) else {
                return Err(bad(b, "level", Rule::Mismatch, above.at));
            };
            let upper = b.block(right)?.to_vec();
            if !L::fit(b.block(left)?, &upper) {
                continue;
            }
            L::append(b.block_mut(left)?, &upper)?;
            let hash = L::last_hash(b.block(left)?);
            drop_block(b, right, L::KIND)?;
            return Ok(Outcome::Gone(index + 1, hash));
        }
    }
    Ok(Outcome::Stays(last))
}

/// Removes an entry of a node, and joins the node with a neighbour where it has few left.
fn shrink_node<L: Leaf, B: Blocks>(
    b: &mut B,
    node: Step,
    above: Option<Step>,
    index: usize,
    before: Option<u32>,
) -> Result<Outcome> {
    let bytes = b.block(node.at)?;
    let (max, mut all, here) = (capacity(bytes.len()), entries(bytes), level::<L>(bytes));
    if let (Some(hash), Some(e)) = (before, index.checked_sub(1).and_then(|i| all.get_mut(i))) {
        e.hashval.set(hash);
    }
    if index >= all.len() {
        return Err(bad(b, "count", Rule::Range, node.at));
    }
    all.remove(index);
    let (Some(last), Some(above)) = (all.last().map(|e| e.hashval.get()), above) else {
        // The root keeps an entry, for the only leaf is not removed; another node without entries goes.
        let Some(above) = above else {
            if all.is_empty() {
                return Err(bad(b, "count", Rule::Range, node.at));
            }
            set_entries(b.block_mut(node.at)?, &all)?;
            return Ok(Outcome::Stays(0));
        };
        drop_block(b, node.at, &DA_NODE)?;
        return Ok(Outcome::Gone(above.index, None));
    };
    set_entries(b.block_mut(node.at)?, &all)?;
    if all.len() <= max / 2 {
        let above_entries = entries(b.block(above.at)?);
        for (index, left, right) in pairs(&above_entries, above.index) {
            if level::<L>(b.block(left)?) != here || level::<L>(b.block(right)?) != here {
                return Err(bad(b, "level", Rule::Mismatch, above.at));
            }
            let mut joined = entries(b.block(left)?);
            joined.extend(entries(b.block(right)?));
            if joined.len() > most(max) {
                continue;
            }
            set_entries(b.block_mut(left)?, &joined)?;
            drop_block(b, right, &DA_NODE)?;
            return Ok(Outcome::Gone(index + 1, joined.last().map(|e| e.hashval.get())));
        }
    }
    Ok(Outcome::Stays(last))
}

/// While the root is a node with one block below it, it takes that in.
fn collapse<L: Leaf, B: Blocks>(b: &mut B) -> Result<()> {
    let root = b.root();
    for _ in 0..=MAX_DEPTH {
        let bytes = b.block(root)?;
        let Some(here) = level::<L>(bytes) else { return Err(bad(b, "level", Rule::Mismatch, root)) };
        if here == 0 {
            return Ok(());
        }
        let all = entries(bytes);
        let (Some(only), 1) = (child(&all, Some(0)), all.len()) else { return Ok(()) };
        let below = b.block(only)?.to_vec();
        if level::<L>(&below) != Some(here - 1) || siblings(&below) != (0, 0) {
            return Err(bad(b, "level", Rule::Mismatch, only));
        }
        let kind: &'static BlockType = if here == 1 { L::KIND } else { &DA_NODE };
        let bytes = b.block_mut(root)?;
        copy_contents(bytes, &below)?;
        set_siblings(bytes, Some(0), Some(0))?;
        b.set_kind(root, kind)?;
        b.free(only, kind)?;
    }
    Err(bad(b, "level", Rule::Loop, root))
}

/// After entries of the leaf of a path were removed: joins it with a neighbour where it has few left, removes it where it has none, does the
/// same above, and tells the blocks above what their highest hashes are. The path is no longer right then.
///
/// # Errors
/// Those of [`Blocks::block`]; blocks that do not agree.
pub fn shrink<L: Leaf, B: Blocks>(b: &mut B, path: &Path) -> Result<()> {
    let mut nodes = path.nodes.clone();
    let Some(above) = nodes.last().copied() else { return Ok(()) };
    let mut outcome = shrink_leaf::<L, B>(b, path, above)?;
    while let Some(node) = nodes.pop() {
        match outcome {
            Outcome::Stays(hash) => {
                nodes.push(node);
                fix_from(b, &nodes, hash)?;
                break;
            }
            Outcome::Gone(index, before) => {
                outcome = shrink_node::<L, B>(b, node, nodes.last().copied(), index, before)?;
            }
        }
    }
    if nodes.len() > usize::from(MAX_DEPTH) {
        return Err(Error::invalid("a path longer than a tree is high"));
    }
    collapse::<L, B>(b)
}
