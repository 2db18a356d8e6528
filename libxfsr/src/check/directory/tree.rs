//! The index of a directory in leaf or node form.

use super::Dir;
use super::blocks::{Indexed, Map};
use crate::cache::BlockRead;
use crate::check::datree::{self, Owner};
use crate::error::{Corruption, Rule};
use crate::format::da;
use crate::format::dir::{DIR_ANY, LEAF1_MAGIC, LEAFN_MAGIC, Leaf, leaf_start};

struct Index<'d, 'a> {
    dir: &'d Dir<'a>,
    map: &'d Map,
    stored: Vec<Indexed>,
}

impl Owner for Index<'_, '_> {
    const LEAF: u16 = LEAFN_MAGIC;
    fn read(&self, at: u64) -> Option<BlockRead> {
        self.dir.read(self.map, at, &DIR_ANY)
    }
    fn bad(&self, field: &'static str, rule: Rule, at: u64) -> Box<Corruption> {
        self.dir.bad(field, rule, Some(at))
    }
    fn tell(&self, c: Box<Corruption>) {
        self.dir.tell(c);
    }
    fn readahead(&self, blocks: &mut dyn Iterator<Item = u64>) {
        self.dir.readahead(self.map, blocks);
    }
    fn leaf(&mut self, _at: u64, block: &BlockRead) -> Option<u32> {
        let leaf = Leaf::from_bytes(block)?;
        self.stored.extend(live(&leaf));
        leaf.entries.last().map(|e| e.hashval.get())
    }
}

impl Dir<'_> {
    /// Checks the index. True for node form.
    pub(super) fn index(&self, map: &Map, mut seen: Vec<Indexed>, bests: &[u16], whole: bool) -> bool {
        let start = leaf_start(&self.pass.volume.geometry).0;
        // Looked at without telling what is wrong with it: the walk through the tree reads it again.
        let single = self.load(map, start, &DIR_ANY).is_ok_and(|b| da::magic_of(&b) == Some(LEAF1_MAGIC));
        if single {
            let Some(root) = self.read(map, start, &DIR_ANY) else { return false };
            let Some(leaf) = Leaf::from_bytes(&root) else { return false };
            self.compare_index(live(&leaf).collect(), &mut seen, whole);
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
        let mut index = Index { dir: self, map, stored: Vec::with_capacity(seen.len()) };
        let complete = datree::walk(&mut index, start) && whole;
        self.compare_index(index.stored, &mut seen, complete);
        true
    }
}

fn live<'a>(leaf: &Leaf<'a>) -> impl Iterator<Item = Indexed> + use<'a> {
    leaf.entries.iter().filter(|e| !e.is_stale()).map(|e| (e.hashval.get(), e.address.get()))
}
