//! What the AGs' headers add up to.

use super::ag::{Agf, Agi};
use super::superblock::Superblock;
use std::ops::AddAssign;

/// The counters of the superblock as the AGs have them.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Counters {
    /// Inodes that have a place, used or free.
    pub inodes: u64,
    /// Free inodes.
    pub free_inodes: u64,
    /// Free blocks: those in the free space btrees, on the AGFL, and those that the free space and reverse mapping btrees take beyond their
    /// roots.
    pub free_blocks: u64,
}

impl Counters {
    /// Those of one AG.
    pub fn of(agf: &Agf, agi: &Agi) -> Self {
        Self {
            inodes: agi.count.get().into(),
            free_inodes: agi.freecount.get().into(),
            free_blocks: [agf.freeblks, agf.flcount, agf.btreeblks].iter().map(|v| u64::from(v.get())).sum(),
        }
    }
}

impl Superblock {
    /// Writes these counters.
    pub fn set_counters(&mut self, counters: &Counters) {
        self.icount.set(counters.inodes);
        self.ifree.set(counters.free_inodes);
        self.fdblocks.set(counters.free_blocks);
    }
}

impl AddAssign for Counters {
    fn add_assign(&mut self, other: Self) {
        self.inodes = self.inodes.saturating_add(other.inodes);
        self.free_inodes = self.free_inodes.saturating_add(other.free_inodes);
        self.free_blocks = self.free_blocks.saturating_add(other.free_blocks);
    }
}
