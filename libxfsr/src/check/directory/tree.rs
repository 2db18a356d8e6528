//! The index of a directory in leaf or node form.

use super::Dir;
use super::blocks::{Indexed, Map};
use crate::error::Rule;
use crate::format::da::{self, BlockInfo, NODE_MAGIC, Node};
use crate::format::dir::{DIR_ANY, LEAF1_MAGIC, LEAFN_MAGIC, Leaf, leaf_start};
use std::collections::HashSet;
use zerocopy::FromBytes;

struct Walk {
    stored: Vec<Indexed>,
    seen: HashSet<u64>,
    /// Per level: the last block, and its forward sibling.
    last: Vec<Option<(u64, u32)>>,
    whole: bool,
}

impl Dir<'_> {
    /// Checks the index. True for node form.
    pub(super) fn index(&self, map: &Map, mut seen: Vec<Indexed>, bests: &[u16], whole: bool) -> bool {
        let start = leaf_start(&self.pass.volume.geometry).0;
        let Some(root) = self.read(map, start, &DIR_ANY) else { return true };
        if da::magic_of(&root) == Some(LEAF1_MAGIC) {
            let Some(leaf) = Leaf::from_bytes(&root) else { return false };
            let stored = live(&leaf);
            self.compare_index(stored, &mut seen, whole);
            let same = leaf.bests.len() == bests.len() && leaf.bests.iter().zip(bests).all(|(a, b)| a.get() == *b);
            if whole && !same {
                let c = self.bad("bests", Rule::Mismatch, Some(start));
                let list =
                    |i: &mut dyn Iterator<Item = u16>| i.take(8).map(|b| b.to_string()).collect::<Vec<_>>().join(" ");
                let stored = list(&mut leaf.bests.iter().map(|b| b.get()));
                self.tell(c.found(stored).expected(list(&mut bests.iter().copied())));
            }
            return false;
        }
        drop(root);
        let mut walk = Walk {
            stored: Vec::with_capacity(seen.len()),
            seen: HashSet::new(),
            last: vec![None; usize::from(da::MAX_DEPTH) + 1],
            whole: true,
        };
        self.node(map, start, None, &mut walk);
        for (at, forward) in walk.last.iter().flatten() {
            if *forward != 0 {
                self.tell(self.bad("forw", Rule::Mismatch, Some(*at)).found(forward).expected(0));
            }
        }
        let (stored, complete) = (std::mem::take(&mut walk.stored), walk.whole && whole);
        self.compare_index(stored, &mut seen, complete);
        true
    }

    /// One block of the index and all below it; returns its highest hash. `level` is what the parent demands. Depth is bounded by
    /// the root's level.
    fn node(&self, map: &Map, at: u64, level: Option<u16>, walk: &mut Walk) -> Option<u32> {
        if !walk.seen.insert(at) {
            walk.whole = false;
            self.tell(self.bad("before", Rule::Loop, Some(at)).found("a block that the index already has"));
            return None;
        }
        let Some(block) = self.read(map, at, &DIR_ANY) else {
            walk.whole = false;
            return None;
        };
        walk.whole &= block.damage().is_none();
        let found = match da::magic_of(&block) {
            Some(LEAFN_MAGIC) => 0,
            Some(NODE_MAGIC) => Node::from_bytes(&block)?.header.level.get(),
            other => {
                walk.whole = false;
                self.tell(self.bad("magic", Rule::Magic, Some(at)).found(format_args!("{:#x}", other.unwrap_or(0))));
                return None;
            }
        };
        if found > da::MAX_DEPTH || level.is_some_and(|l| l != found) {
            walk.whole = false;
            let c = self.bad("level", Rule::Mismatch, Some(at)).found(found);
            self.tell(c.expected(level.unwrap_or(da::MAX_DEPTH)));
            return None;
        }
        self.index_siblings(&block, at, found, walk);
        if found == 0 {
            let leaf = Leaf::from_bytes(&block)?;
            walk.stored.extend(live(&leaf));
            return leaf.entries.last().map(|e| e.hashval.get());
        }
        let node = Node::from_bytes(&block)?;
        for e in node.entries {
            let highest = self.node(map, e.before.get().into(), Some(found - 1), walk);
            if let Some(h) = highest.filter(|h| *h != e.hashval.get()) {
                let c = self.bad("hashval", Rule::Mismatch, Some(at));
                self.tell(c.found(format_args!("{:#x}", e.hashval)).expected(format_args!("{h:#x}")));
            }
        }
        node.entries.last().map(|e| e.hashval.get())
    }

    fn index_siblings(&self, block: &[u8], at: u64, level: u16, walk: &mut Walk) {
        let Ok((info, _)) = BlockInfo::ref_from_prefix(block) else { return };
        let Some(slot) = walk.last.get_mut(usize::from(level)) else { return };
        let before = slot.replace((at, info.forw.get()));
        let expected = before.map_or(0, |b| b.0);
        if u64::from(info.back.get()) != expected {
            self.tell(self.bad("back", Rule::Mismatch, Some(at)).found(info.back).expected(expected));
        }
        if let Some((left, forward)) = before.filter(|b| u64::from(b.1) != at) {
            self.tell(self.bad("forw", Rule::Mismatch, Some(left)).found(forward).expected(at));
        }
    }
}

fn live(leaf: &Leaf<'_>) -> Vec<Indexed> {
    leaf.entries.iter().filter(|e| !e.is_stale()).map(|e| (e.hashval.get(), e.address.get())).collect()
}
