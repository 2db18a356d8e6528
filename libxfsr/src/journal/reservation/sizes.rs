//! What each kind of transaction may dirty, in bytes.

use super::{Kind, Reservation, Rules};
use crate::format::btree::{ALLOC, BMBT, RMAP};
use crate::geometry::Geometry;

/// Bytes that a log item of a buffer takes beside the buffer.
const BUFFER_OVERHEAD: u64 = 128;
/// Header of a region in the log.
pub(super) const OP_HEADER: u64 = 12;
/// Two dquots, of the old and the new owner, for each of user, group and project.
const DQUOTS: u64 = 2 * 3 * (24 + 104);
/// A quota record.
const DQUOT: u64 = 104;
/// Most levels of a directory or attribute tree.
const DA_LEVELS: u64 = 5;
/// Height that reverse mapping trees had in the first versions with shared extents.
const OLD_RMAP_LEVELS: u64 = 9;
/// An attribute intent that adds or removes one parent pointer: its format, the longest name and the value.
const PARENT_INTENT: u64 = 40 + 256 + 12;
/// An attribute intent that replaces one: name and value twice.
const PARENT_REPLACE: u64 = 40 + 2 * (256 + 12);
/// How often setting or removing an attribute may roll.
const ATTR_ROLLS: u64 = 3;

/// Sizes in one geometry.
pub(super) struct Sizes<'a> {
    g: &'a Geometry,
    block: u64,
    sector: u64,
    alloc: u64,
    rmap: u64,
    refcount: u64,
    inobt: u64,
    bmap_data: u64,
    bmap_attr: u64,
    rules: Rules,
    parent: bool,
}

/// Levels of an extent tree whose root is in an inode: `extents` at most.
fn bmap_levels(g: &Geometry, root: u64, extents: u64) -> u64 {
    let half = |n: usize| (n / 2).max(1) as u64;
    let bs = g.block_size as usize;
    let (leaf, node) = (half(BMBT.leaf_max(bs)), half(BMBT.node_max(bs)));
    let mut blocks = extents.div_ceil(leaf);
    let mut levels = 1;
    while blocks > 1 {
        blocks = if blocks <= root { 1 } else { blocks.div_ceil(node) };
        levels += 1;
    }
    levels
}

/// Levels of a reverse mapping tree that fills an AG, by xfsprogs 6.1: it gives the root as many children as any other node has at least,
/// where a root may have two.
fn filled_levels(g: &Geometry) -> u64 {
    let fan = (RMAP.node_max(g.block_size as usize) / 2).max(2) as u64;
    let (mut blocks, mut left, mut levels) = (fan, u64::from(g.agblocks).saturating_sub(1), 1);
    while blocks < left && levels < OLD_RMAP_LEVELS {
        left -= blocks;
        blocks *= fan;
        levels += 1;
    }
    levels
}

fn buffers(count: u64, size: u64) -> u64 {
    count * (size + BUFFER_OVERHEAD)
}

impl<'a> Sizes<'a> {
    pub(super) fn new(g: &'a Geometry, rules: Rules) -> Self {
        let f = &g.features;
        let rmap = match (rules, f.reflink()) {
            (Rules::Oldest, true) => OLD_RMAP_LEVELS,
            (Rules::Xfsprogs6_1, true) => filled_levels(g),
            _ => u64::from(g.max_levels.rmap),
        };
        let large = f.nrext64();
        let (data, attr) = if large { (1 << 48, 1 << 32) } else { (1 << 31, 1 << 15) };
        // Smallest root that a fork can shrink to: for data next to a minimal attribute fork, for attributes by the size of
        // the smallest inode.
        let root = |bytes: u64| (bytes.saturating_sub(4) / 16).max(1);
        let literal = u64::from(g.inode_size) - 176;
        let min_fork = 60_u64;
        let attr_root = root(if literal >= 2 * min_fork { min_fork } else { literal });
        Self {
            g,
            block: u64::from(g.block_size),
            sector: u64::from(g.sector_size),
            alloc: u64::from(g.max_levels.bno),
            rmap: if f.rmapbt() { rmap } else { 0 },
            refcount: u64::from(g.max_levels.refcount),
            inobt: u64::from(g.max_levels.ino),
            bmap_data: bmap_levels(g, root(min_fork), data),
            bmap_attr: bmap_levels(g, attr_root, attr),
            rules,
            parent: f.parent() && rules == Rules::Linux,
        }
    }
    fn oldest(&self) -> bool {
        self.rules == Rules::Oldest
    }
    fn inodes(&self, n: u64) -> u64 {
        n * (4 * OP_HEADER + 56 + u64::from(self.g.inode_size) + 2 * BMBT.header as u64)
    }
    fn sectors(&self, n: u64) -> u64 {
        buffers(n, self.sector)
    }
    fn blocks(&self, n: u64) -> u64 {
        buffers(n, self.block)
    }
    /// Blocks that `n` allocations or frees may change in the free space trees.
    fn free_space(&self, n: u64) -> u64 {
        let rmap = if self.g.features.rmapbt() { 2 * self.rmap - 1 } else { 0 };
        n * (2 * (2 * self.alloc - 1) + rmap)
    }
    fn refcount_blocks(&self, n: u64) -> u64 {
        if self.g.features.reflink() { n * (2 * self.refcount - 1) } else { 0 }
    }
    fn refcount_update(&self, n: u64) -> u64 {
        if self.g.features.reflink() { self.sectors(n) + self.blocks(self.refcount_blocks(n)) } else { 0 }
    }
    fn rt_blocks(&self, n: u64) -> u64 {
        let bytes = ((1 << 21) - 1) / u64::from(self.g.rt_extent_size) / 8;
        n * (bytes.div_ceil(self.block) + 1)
    }
    fn has_rt(&self) -> bool {
        self.g.rt_blocks > 0
    }
    fn write(&self) -> u64 {
        let old = if self.oldest() { self.blocks(self.refcount_blocks(2)) } else { 0 };
        let grow = self.inodes(1) + self.blocks(self.bmap_data) + self.sectors(3);
        let map = grow + self.blocks(self.free_space(2)) + old;
        let rt =
            if self.has_rt() { grow + self.blocks(self.rt_blocks(1)) + self.blocks(self.free_space(1)) } else { 0 };
        let free = self.sectors(5) + self.blocks(self.free_space(2)) + old;
        let count = if self.oldest() { 0 } else { self.refcount_update(1) };
        DQUOTS + map.max(rt).max(free).max(count)
    }
    fn truncate(&self) -> u64 {
        let old = if self.oldest() { self.blocks(self.refcount_blocks(4)) } else { 0 };
        let unmap = self.inodes(1) + self.blocks(self.bmap_data + 1);
        let free = self.sectors(9) + self.blocks(self.free_space(4)) + old;
        let rt = if self.has_rt() {
            self.sectors(5) + self.blocks(self.rt_blocks(2)) + self.blocks(self.free_space(2))
        } else {
            0
        };
        let count = if self.oldest() { 0 } else { self.refcount_update(2) };
        DQUOTS + unmap.max(free).max(rt).max(count)
    }
    /// Extent tree blocks for mapping `n` blocks one by one.
    fn map_blocks(&self, n: u64, levels: u64) -> u64 {
        let max = ALLOC.leaf_max(self.g.block_size as usize) as u64;
        let per_leaf = (max - max / 2).max(1);
        n.div_ceil(per_leaf) * (levels - 1)
    }
    /// Blocks that one change of a directory may touch.
    fn directory_change(&self) -> u64 {
        let blocks = 1 << self.g.dir_block_log;
        let levels = DA_LEVELS + 2;
        blocks * levels + levels * self.map_blocks(blocks, self.bmap_data) + 1
    }
    fn inode_tree(&self) -> u64 {
        self.blocks(self.inobt) + self.blocks(self.free_space(1))
    }
    fn free_inode_tree(&self) -> u64 {
        if self.g.features.finobt() { self.inode_tree() } else { 0 }
    }
    fn cluster(&self) -> u64 {
        u64::from(self.g.inode_cluster_size).max(self.block)
    }
    /// What an operation on a name costs: the larger of its own chains and, with parent pointers, one attribute change under
    /// `intents` bytes of intents that may be logged again each time.
    fn named(&self, chains: u64, attr: u64, intents: u64) -> u64 {
        if self.parent { chains.max(attr) + intents } else { chains }
    }
    fn new_inode(&self) -> u64 {
        let chunk = self.blocks(self.free_space(1));
        self.sectors(2) + self.sector + chunk + self.inode_tree() + self.free_inode_tree()
    }
    fn create(&self) -> u64 {
        let alloc = self.new_inode();
        let modify = self.inodes(2)
            + self.sectors(1)
            + self.block
            + self.blocks(self.directory_change())
            + self.free_inode_tree();
        DQUOTS + self.named(alloc.max(modify), self.attr_set(), PARENT_INTENT)
    }
    fn rename(&self) -> u64 {
        let names = self.inodes(5) + self.blocks(2 * self.directory_change());
        let chains = names.max(self.sectors(7) + self.blocks(self.free_space(3)));
        // The file's pointer is replaced, that of the file it replaces removed, and a whiteout gets one.
        let intents = PARENT_REPLACE + 2 * PARENT_INTENT;
        DQUOTS + self.named(chains, self.attr_set().max(self.attr_remove()), intents)
    }
    fn remove(&self) -> u64 {
        let names = self.inodes(2) + self.blocks(self.directory_change());
        let chains = names.max(self.sectors(4) + self.blocks(self.free_space(2)));
        DQUOTS + self.sectors(1) + self.cluster() + self.named(chains, self.attr_remove(), PARENT_INTENT)
    }
    fn link(&self) -> u64 {
        let names = self.inodes(2) + self.blocks(self.directory_change());
        let chains = names.max(self.sectors(3) + self.blocks(self.free_space(1)));
        DQUOTS + self.sectors(1) + 2 * self.cluster() + self.named(chains, self.attr_set(), PARENT_INTENT)
    }
    fn free_inode(&self) -> u64 {
        DQUOTS
            + self.inodes(1)
            + self.sectors(3)
            + self.sectors(1)
            + 2 * self.cluster()
            + self.blocks(self.free_space(1))
            + buffers(u64::from(self.g.chunk_blocks()), 0)
            + self.inode_tree()
            + self.free_inode_tree()
    }
    fn add_attr_fork(&self) -> u64 {
        let dir = 1 << self.g.dir_block_log;
        DQUOTS
            + self.inodes(1)
            + self.sectors(2)
            + buffers(1, u64::from(self.g.dir_block_size))
            + self.blocks(self.map_blocks(dir, self.bmap_data) + 1)
            + self.blocks(self.free_space(1))
    }
    fn attr_invalidate(&self) -> u64 {
        (self.inodes(1) + self.blocks(self.bmap_attr)).max(self.sectors(9) + self.blocks(self.free_space(4)))
    }
    fn attr_set(&self) -> u64 {
        DQUOTS + self.inodes(1) + self.sectors(1) + self.blocks(DA_LEVELS)
    }
    fn attr_set_block(&self) -> u64 {
        self.sectors(1) + self.blocks(self.bmap_attr)
    }
    fn attr_remove(&self) -> u64 {
        let unmap = self.inodes(1) + self.blocks(DA_LEVELS) + self.block * self.bmap_attr + buffers(self.bmap_data, 0);
        DQUOTS + unmap.max(self.sectors(5) + self.blocks(self.free_space(2)))
    }
    /// The largest attribute that a leaf holds, with all the blocks that it may need.
    fn largest_attr(&self) -> u64 {
        let size = (self.block / 2 + self.block / 4).saturating_sub(256);
        let blocks = DA_LEVELS
            + DA_LEVELS * self.map_blocks(1, self.bmap_attr)
            + size.div_ceil(self.block)
            // The first versions took the bytes for blocks here.
            + self.map_blocks(if self.oldest() { size } else { size.div_ceil(self.block) }, self.bmap_attr);
        self.attr_set() + self.attr_set_block() * blocks
    }

    /// How often what maps or frees blocks may roll: once more for each tree that changes follow into.
    fn rolls(&self) -> u64 {
        let f = &self.g.features;
        match (self.oldest(), f.reflink()) {
            (true, true) => 8,
            (true, false) => 2,
            (false, reflink) => 2 + u64::from(reflink || f.rmapbt()) + u64::from(reflink) + u64::from(f.rmapbt()),
        }
    }

    /// Bytes of the realtime summary. xfsprogs 6.1 computes reservations before it knows them.
    fn summary_bytes(&self) -> u64 {
        if self.rules != Rules::Linux {
            return 0;
        }
        let levels = u64::from(self.g.rt_extents_log) + 1;
        (4 * levels * u64::from(self.g.rt_bitmap_blocks)).next_multiple_of(self.block)
    }

    /// What a kind of transaction reserves.
    pub(super) fn reservation(&self, kind: Kind) -> Reservation {
        let names = if self.parent { ATTR_ROLLS } else { 0 };
        let (bytes, rolls, permanent) = match kind {
            Kind::Write => (self.write(), self.rolls(), true),
            Kind::Truncate => (self.truncate(), self.rolls(), true),
            Kind::Rename => (self.rename(), 2 + names, true),
            Kind::Link => (self.link(), 2 + names, true),
            Kind::Remove => (self.remove(), 2 + names, true),
            Kind::Symlink => (self.create() + buffers(1, 1024), 3 + names, true),
            Kind::Create => (self.create(), 2 + names, true),
            Kind::CreateTmpfile => (DQUOTS + self.new_inode() + self.sectors(1) + self.cluster(), 2, true),
            Kind::Mkdir => (self.create(), 3 + names, true),
            Kind::FreeInode => (self.free_inode(), 2, true),
            Kind::ChangeInode => (DQUOTS + self.inodes(1) + self.sectors(1), 0, false),
            Kind::GrowData => (self.sectors(3) + self.blocks(self.free_space(1)), 2, true),
            Kind::AddAttrFork => (self.add_attr_fork(), 2, true),
            Kind::WriteId | Kind::Timestamps => (self.inodes(1), 0, false),
            Kind::AttrInvalidate => (self.attr_invalidate(), 1, true),
            Kind::AttrSet => (self.attr_set(), ATTR_ROLLS, true),
            Kind::AttrSetBlock => (self.attr_set_block(), 0, false),
            Kind::AttrRemove => (self.attr_remove(), ATTR_ROLLS, true),
            Kind::ClearAgiBucket => (self.sectors(1), 0, false),
            Kind::GrowRealtime => {
                let map = self.sectors(2) + self.blocks(self.bmap_data) + self.inodes(1);
                (map + self.blocks(self.free_space(1)), 2, true)
            }
            Kind::GrowRealtimeZero => (self.blocks(1), 0, false),
            Kind::GrowRealtimeFree => {
                let summary = buffers(1, self.summary_bytes());
                (self.sectors(1) + self.inodes(2) + self.blocks(1) + summary, 0, false)
            }
            Kind::QuotaLimit => (buffers(1, DQUOT), 1, false),
            Kind::QuotaAllocate => (self.write() + buffers(1, self.block - 1), self.rolls(), true),
            Kind::Superblock => (self.sectors(1), 1, false),
        };
        Reservation { kind, bytes, rolls: u32::try_from(rolls).unwrap_or(u32::MAX), permanent }
    }

    /// Bytes and rolls of the largest attribute, which no transaction reserves but a log must hold.
    pub(super) fn attribute(&self) -> (u64, u64) {
        (self.largest_attr(), ATTR_ROLLS)
    }
}
