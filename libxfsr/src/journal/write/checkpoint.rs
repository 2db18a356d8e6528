//! The checkpoint that is open: for each thing the newest item, as it will stand in the log.

use crate::cache::BlockKey;
use crate::txn::{ItemKey, RegionWriter};
use std::collections::{HashMap, HashSet};

/// Bytes of an operation's header.
const OP: u64 = 12;

#[derive(Debug)]
pub(super) struct Entry {
    covered: Vec<u32>,
    regions: RegionWriter,
}

/// Bytes that an item takes in the log.
pub(super) fn cost(regions: &RegionWriter) -> u64 {
    regions.len() as u64 + regions.count() as u64 * OP
}

/// What was committed since the last checkpoint.
#[derive(Debug)]
pub(super) struct Open {
    pub(super) number: u64,
    /// In the order in which they came first: an intent stands before what says that it is done.
    entries: Vec<Entry>,
    index: HashMap<ItemKey, usize>,
    /// Blocks that are freed in it: what comes to stand there goes into the next.
    freed: HashSet<BlockKey>,
    /// Checkpoints that need not be held when this one is durable.
    pub(super) held: Vec<u64>,
}

impl Open {
    pub(super) fn new(number: u64) -> Self {
        Self { number, entries: Vec::new(), index: HashMap::new(), freed: HashSet::new(), held: Vec::new() }
    }
    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
    /// Whether one of those blocks is freed in it.
    pub(super) fn frees_any(&self, keys: &[&BlockKey]) -> bool {
        !self.freed.is_empty() && keys.iter().any(|k| self.freed.contains(*k))
    }
    /// What the item of that name has logged so far.
    pub(super) fn covered(&self, key: &ItemKey) -> &[u32] {
        self.index.get(key).and_then(|i| self.entries.get(*i)).map_or(&[], |e| &e.covered)
    }
    /// Bytes that the item of that name takes.
    pub(super) fn cost_of(&self, key: &ItemKey) -> u64 {
        self.index.get(key).and_then(|i| self.entries.get(*i)).map_or(0, |e| cost(&e.regions))
    }
    /// Puts an item in, in place of one of the same name.
    pub(super) fn put(&mut self, key: ItemKey, covered: Vec<u32>, regions: RegionWriter) {
        let entry = Entry { covered, regions };
        match self.index.get(&key).and_then(|i| self.entries.get_mut(*i)) {
            Some(e) => *e = entry,
            None => {
                self.index.insert(key, self.entries.len());
                self.entries.push(entry);
            }
        }
    }
    pub(super) fn free(&mut self, key: &BlockKey) {
        self.freed.insert(key.clone());
    }
    /// Its regions, in order.
    pub(super) fn regions(&self) -> impl Iterator<Item = &[u8]> {
        self.entries.iter().flat_map(|e| e.regions.regions())
    }
    /// How many.
    pub(super) fn count(&self) -> usize {
        self.entries.iter().map(|e| e.regions.count()).sum()
    }
}
