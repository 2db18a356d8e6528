//! The tree of hashes that directories in node form and attributes share.

use crate::cache::BlockRead;
use crate::error::{Corruption, Rule};
use crate::format::da::{self, BlockInfo, NODE_MAGIC, Node};
use std::collections::HashSet;
use zerocopy::FromBytes;

/// What the tree belongs to.
pub(super) trait Owner {
    /// Magic number of the leaves.
    const LEAF: u16;
    /// Reads the block at a file block; tells and gives none where it cannot be used.
    fn read(&self, at: u64) -> Option<BlockRead>;
    /// Tells that these blocks will be read soon. A hint.
    fn readahead(&self, _blocks: &mut dyn Iterator<Item = u64>) {}
    /// A corruption in that block.
    fn bad(&self, field: &'static str, rule: Rule, at: u64) -> Box<Corruption>;
    /// Reports it.
    fn tell(&self, c: Box<Corruption>);
    /// Takes a leaf, and returns its highest hash.
    fn leaf(&mut self, at: u64, block: &BlockRead) -> Option<u32>;
}

struct Walk {
    seen: HashSet<u64>,
    /// Per level: the last block, and its forward sibling.
    last: Vec<Option<(u64, u32)>>,
    whole: bool,
}

/// Checks levels, hashes and siblings from the block at `root` on, and hands over every leaf. False if part of the tree could not be
/// followed.
pub(super) fn walk<O: Owner>(owner: &mut O, root: u64) -> bool {
    let levels = usize::from(da::MAX_DEPTH) + 1;
    let mut walk = Walk { seen: HashSet::new(), last: vec![None; levels], whole: true };
    node(owner, root, None, &mut walk);
    for (at, forward) in walk.last.iter().flatten() {
        if *forward != 0 {
            owner.tell(owner.bad("forw", Rule::Mismatch, *at).found(forward).expected(0));
        }
    }
    walk.whole
}

/// One block and all below it; returns its highest hash. `level` is what the parent demands, so depth is bounded by the root's.
fn node<O: Owner>(owner: &mut O, at: u64, level: Option<u16>, walk: &mut Walk) -> Option<u32> {
    if !walk.seen.insert(at) {
        walk.whole = false;
        owner.tell(owner.bad("before", Rule::Loop, at).found("a block that the tree already has"));
        return None;
    }
    let Some(block) = owner.read(at) else {
        walk.whole = false;
        return None;
    };
    walk.whole &= block.damage().is_none();
    let found = match da::magic_of(&block) {
        Some(m) if m == O::LEAF => 0,
        Some(NODE_MAGIC) => Node::from_bytes(&block)?.header.level.get(),
        other => {
            walk.whole = false;
            owner.tell(owner.bad("magic", Rule::Magic, at).found(format_args!("{:#x}", other.unwrap_or(0))));
            return None;
        }
    };
    let node_without_level = found == 0 && da::magic_of(&block) == Some(NODE_MAGIC);
    if found > da::MAX_DEPTH || node_without_level || level.is_some_and(|l| l != found) {
        walk.whole = false;
        owner.tell(owner.bad("level", Rule::Mismatch, at).found(found).expected(level.unwrap_or(da::MAX_DEPTH)));
        return None;
    }
    siblings(owner, &block, at, found, walk);
    if found == 0 {
        return owner.leaf(at, &block);
    }
    let tree = Node::from_bytes(&block)?;
    owner.readahead(&mut tree.entries.iter().map(|e| e.before.get().into()));
    for e in tree.entries {
        let highest = node(owner, e.before.get().into(), Some(found - 1), walk);
        if let Some(h) = highest.filter(|h| *h != e.hashval.get()) {
            let c = owner.bad("hashval", Rule::Mismatch, at);
            owner.tell(c.found(format_args!("{:#x}", e.hashval)).expected(format_args!("{h:#x}")));
        }
    }
    tree.entries.last().map(|e| e.hashval.get())
}

fn siblings<O: Owner>(owner: &O, block: &[u8], at: u64, level: u16, walk: &mut Walk) {
    let Ok((info, _)) = BlockInfo::ref_from_prefix(block) else { return };
    let Some(slot) = walk.last.get_mut(usize::from(level)) else { return };
    let before = slot.replace((at, info.forw.get()));
    let expected = before.map_or(0, |b| b.0);
    if u64::from(info.back.get()) != expected {
        owner.tell(owner.bad("back", Rule::Mismatch, at).found(info.back).expected(expected));
    }
    if let Some((left, forward)) = before.filter(|b| u64::from(b.1) != at) {
        owner.tell(owner.bad("forw", Rule::Mismatch, left).found(forward).expected(at));
    }
}
