//! The smallest log that every transaction fits into, as the kernel demands it at mount.
//!
//! A transaction reserves room for each buffer that it may dirty (all its bytes and a log item's header) and for each inode; a
//! log must hold the largest, as often as it may roll. The kernel keeps the sizes that its first versions with shared extents
//! computed, so that a filesystem that it once made stays mountable; only with parent pointers it computes what is really
//! needed. So do we. Checked against the minimum that mkfs.xfs 6.1 and Linux 6.18 name when they refuse a small log.

use crate::format::btree::{ALLOC, BMBT};
use crate::geometry::Geometry;

/// Bytes that a log item of a buffer takes beside the buffer.
const BUFFER_OVERHEAD: u64 = 128;
/// Header of a region in the log, and of a transaction.
const OP_HEADER: u64 = 12;
const TRANSACTION_HEADER: u64 = 16;
/// Two dquots, of the old and the new owner, for each of user, group and project.
const DQUOTS: u64 = 2 * 3 * (24 + 104);
/// Most levels of a directory or attribute tree.
const DA_LEVELS: u64 = 5;
/// Height that reverse mapping trees had in the first versions with shared extents.
const OLD_RMAP_LEVELS: u64 = 9;
/// Largest log record and the space that its headers take.
const RECORD: u64 = 256 << 10;
const RECORD_HEADERS: u64 = 8 * 512;
/// An attribute intent that adds or removes one parent pointer: its format, the longest name and the value.
const PARENT_INTENT: u64 = 40 + 256 + 12;
/// An attribute intent that replaces one: name and value twice.
const PARENT_REPLACE: u64 = 40 + 2 * (256 + 12);
/// How often setting or removing an attribute may roll.
const ATTR_ROLLS: u64 = 3;
/// The log is as many times the largest transaction.
const FACTOR: u64 = 3;

struct Sizes<'a> {
    g: &'a Geometry,
    block: u64,
    sector: u64,
    alloc: u64,
    rmap: u64,
    refcount: u64,
    inobt: u64,
    bmap_data: u64,
    bmap_attr: u64,
    /// As the first versions with shared extents computed.
    legacy: bool,
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

fn buffers(count: u64, size: u64) -> u64 {
    count * (size + BUFFER_OVERHEAD)
}

impl<'a> Sizes<'a> {
    fn new(g: &'a Geometry, legacy: bool) -> Self {
        let f = &g.features;
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
            rmap: if legacy && f.reflink() { OLD_RMAP_LEVELS } else { u64::from(g.max_levels.rmap) },
            refcount: u64::from(g.max_levels.refcount),
            inobt: u64::from(g.max_levels.ino),
            bmap_data: bmap_levels(g, root(min_fork), data),
            bmap_attr: bmap_levels(g, attr_root, attr),
            legacy,
        }
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
        let old = if self.legacy { self.blocks(self.refcount_blocks(2)) } else { 0 };
        let grow = self.inodes(1) + self.blocks(self.bmap_data) + self.sectors(3);
        let map = grow + self.blocks(self.free_space(2)) + old;
        let rt =
            if self.has_rt() { grow + self.blocks(self.rt_blocks(1)) + self.blocks(self.free_space(1)) } else { 0 };
        let free = self.sectors(5) + self.blocks(self.free_space(2)) + old;
        let count = if self.legacy { 0 } else { self.refcount_update(1) };
        DQUOTS + map.max(rt).max(free).max(count)
    }
    fn truncate(&self) -> u64 {
        let old = if self.legacy { self.blocks(self.refcount_blocks(4)) } else { 0 };
        let unmap = self.inodes(1) + self.blocks(self.bmap_data + 1);
        let free = self.sectors(9) + self.blocks(self.free_space(4)) + old;
        let rt = if self.has_rt() {
            self.sectors(5) + self.blocks(self.rt_blocks(2)) + self.blocks(self.free_space(2))
        } else {
            0
        };
        let count = if self.legacy { 0 } else { self.refcount_update(2) };
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
        if self.g.features.parent() { chains.max(attr) + intents } else { chains }
    }
    fn create(&self) -> u64 {
        let chunk = self.blocks(self.free_space(1));
        let alloc = self.sectors(2) + self.sector + chunk + self.inode_tree() + self.free_inode_tree();
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
        DQUOTS + self.sectors(2) + self.cluster() + self.named(chains, self.attr_remove(), PARENT_INTENT)
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
            + self.map_blocks(if self.legacy { size } else { size.div_ceil(self.block) }, self.bmap_attr);
        self.attr_set() + self.attr_set_block() * blocks
    }

    /// The reservation that asks most of the log: bytes, and how often it may roll.
    fn largest(&self) -> (u64, u64) {
        let f = &self.g.features;
        let extra = u64::from(f.reflink() || f.rmapbt()) + u64::from(f.reflink()) + u64::from(f.rmapbt());
        let rolls = match (self.legacy, f.reflink()) {
            (true, true) => 8,
            (true, false) => 2,
            (false, _) => 2 + extra,
        };
        let create = self.create();
        let names = if f.parent() { ATTR_ROLLS } else { 0 };
        let all = [
            (self.write(), rolls),
            (self.truncate(), rolls),
            (self.write() + buffers(1, self.block - 1), rolls),
            (self.rename(), 2 + names),
            (self.link(), 2 + names),
            (self.remove(), 2 + names),
            (create + buffers(1, 1024), 3 + names),
            (create, 3 + names),
            (self.free_inode(), 2),
            (self.add_attr_fork(), 2),
            (self.attr_invalidate(), 1),
            (self.attr_set(), ATTR_ROLLS),
            (self.attr_remove(), ATTR_ROLLS),
        ];
        let mut best = (0, 1);
        for (bytes, count) in all {
            if bytes * count > best.0 * best.1 {
                best = (bytes, count);
            }
        }
        let attr = self.largest_attr();
        if attr > best.0 * best.1 { (attr, ATTR_ROLLS) } else { best }
    }
}

/// Fewest blocks of a log with a stripe unit of `sunit` blocks (0 for none).
pub(super) fn minimum_log_blocks(g: &Geometry, sunit: u64) -> u64 {
    let sizes = Sizes::new(g, !g.features.parent());
    let (bytes, count) = sizes.largest();
    let mut unit = bytes + 3 * OP_HEADER + TRANSACTION_HEADER;
    let space = RECORD - RECORD_HEADERS;
    let mut headers = unit.div_ceil(space);
    unit += headers * OP_HEADER;
    while unit.div_ceil(space) > headers {
        unit += OP_HEADER;
        headers += 1;
    }
    let sunit_bytes = sunit << g.block_log;
    unit += (headers + 1) * RECORD_HEADERS + if sunit > 0 { 2 * sunit_bytes } else { 2 * 512 };
    let sectors = (unit * count).div_ceil(512);
    let least = if sunit > 0 {
        let unit = sunit_bytes / 512;
        sectors.next_multiple_of(unit) + 2 * unit
    } else {
        sectors + 2 * 512
    };
    (FACTOR * least).div_ceil(u64::from(g.block_size) / 512)
}

#[cfg(test)]
mod tests {
    use super::super::layout::tests::draft;
    use super::super::options::Options;
    use super::minimum_log_blocks;

    /// What mkfs.xfs 6.1 named as the minimum when it refused `-l size=2m`: for 300 MiB, 900 MiB and 1 TiB.
    #[test]
    fn minimum_is_what_mkfs_xfs_names() {
        type Change = fn(&mut Options);
        let table: &[(Change, [u64; 3])] = &[
            (|_| (), [1368, 1566, 2580]),
            (|o| o.block_size = Some(1024), [3527, 4175, 4823]),
            (|o| o.block_size = Some(2048), [2484, 2484, 3096]),
            (|o| o.block_size = Some(8192), [1128, 1128, 1713]),
            (|o| o.block_size = Some(16384), [1002, 1002, 1589]),
            (|o| o.block_size = Some(32768), [548, 939, 1527]),
            (|o| o.block_size = Some(65536), [512, 519, 910]),
            (|o| o.metadata.rmapbt = Some(true), [3075, 3273, 4287]),
            (|o| o.metadata.reflink = Some(false), [857, 857, 924]),
            (|o| (o.metadata.reflink, o.metadata.rmapbt) = (Some(false), Some(true)), [878, 878, 1137]),
            (|o| o.inode.size = Some(2048), [1368, 1566, 2580]),
            (|o| o.naming.size = Some(65536), [2174, 2174, 2580]),
            (|o| o.inode.nrext64 = Some(true), [4049, 4049, 2580]),
            (|o| o.sector_size = Some(4096), [1221, 1419, 2433]),
            (|o| o.log.su = Some(256 << 10), [4608, 4800, 5760]),
            (|o| o.log.su = Some(32 << 10), [1416, 1608, 2640]),
            (|o| (o.data.su, o.data.sw) = (Some(64 << 10), Some(4)), [1872, 1872, 2496]),
            (
                |o| {
                    (o.block_size, o.naming.size) = (Some(1024), Some(65536));
                    o.metadata.rmapbt = Some(true);
                },
                [8910, 8910, 8910],
            ),
        ];
        let mut wrong = Vec::new();
        for (row, (change, expected)) in table.iter().enumerate() {
            let mut options = Options::default();
            change(&mut options);
            for (size, expected) in [300 << 20, 900 << 20, 1 << 40].into_iter().zip(expected) {
                let d = draft(&options, size);
                let found = minimum_log_blocks(&d.geometry().expect("numbers"), d.log_sunit).max(512);
                if found != *expected {
                    wrong.push((row, size >> 20, found, *expected));
                }
            }
        }
        assert_eq!(wrong, []);
    }

    /// What Linux 6.18 named as the minimum when it refused to mount a shorter log with the largest log buffers
    /// (`logbsize=256k`): 1 TiB with parent pointers.
    #[test]
    fn with_parent_pointers_the_kernel_takes_it() {
        let table = [
            (1024, false, false, 4154),
            (1024, true, true, 4862),
            (4096, false, false, 1568),
            (4096, false, true, 2001),
            (4096, true, false, 2004),
            (16384, false, false, 998),
            (16384, true, false, 1275),
            (16384, true, true, 1429),
            (65536, false, false, 700),
            (65536, true, false, 852),
            (65536, true, true, 1127),
        ];
        for (block, rmapbt, nrext64, named) in table {
            let mut options = Options { block_size: Some(block), ..Options::default() };
            options.metadata.rmapbt = Some(rmapbt);
            options.inode.nrext64 = Some(nrext64);
            options.naming.parent = Some(true);
            let d = draft(&options, 1 << 40);
            let found = minimum_log_blocks(&d.geometry().expect("numbers"), d.log_sunit);
            assert_eq!(found, named, "{block} {rmapbt} {nrext64}");
        }
    }
}
