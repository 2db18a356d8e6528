//! Space that is kept for an AG's own trees: reverse mappings, reference counts, chunks with free inodes. As Linux reserves it: so
//! much as each may need at most, so that an operation which must make a tree larger to give space back does not fail.

use crate::format::ag::Agf;
use crate::format::btree::{INO, Layout, REFCOUNT, RMAP};
use crate::geometry::Geometry;
use crate::units::AgNumber;

/// What the trees of an AG may have.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Asked {
    /// Reverse mappings.
    pub(super) rmap: u32,
    /// Reference counts and free inodes.
    pub(super) other: u32,
}

/// Blocks of a tree of so many records when every block is as empty as it may be.
fn largest_tree(layout: &Layout, g: &Geometry, records: u64) -> u64 {
    let per = |level| layout.limits(g.block_size as usize, level).1.max(1) as u64;
    let (mut blocks, mut all) = (records.div_ceil(per(0)).max(1), 0);
    loop {
        all += blocks;
        if blocks == 1 {
            return all;
        }
        blocks = blocks.div_ceil(per(1).max(2));
    }
}

impl Asked {
    /// In an AG without regard to what is free there.
    pub(super) fn new(g: &Geometry, ag: AgNumber) -> Self {
        let (log_ag, _) = g.split(g.log_start);
        let log = if g.log_start.0 != 0 && log_ag == ag { g.log_blocks } else { 0 };
        let blocks = u64::from(g.ag_blocks(ag)).saturating_sub(u64::from(log));
        let cut = |n: u64| u32::try_from(n).unwrap_or(u32::MAX);
        let mut asked = Self::default();
        if g.features.rmapbt() {
            asked.rmap = cut((blocks / 100).max(largest_tree(&RMAP, g, blocks)));
        }
        if g.features.reflink() {
            asked.other = cut(largest_tree(&REFCOUNT, g, blocks));
        }
        if g.features.finobt() {
            let chunks = blocks * u64::from(g.inodes_per_block()) / 64;
            asked.other = asked.other.saturating_add(cut(largest_tree(&INO, g, chunks)));
        }
        asked
    }
    /// What of it the trees do not have yet.
    pub(super) fn left(&self, agf: &Agf, free_inode_blocks: u32) -> Self {
        let other = agf.refcount_blocks.get().saturating_add(free_inode_blocks);
        Self { rmap: self.rmap.saturating_sub(agf.rmap_blocks.get()), other: self.other.saturating_sub(other) }
    }
    /// Both.
    pub(super) fn sum(&self) -> u32 {
        self.rmap.saturating_add(self.other)
    }
}
