//! The filesystem's numbers, checked once (`verify`), and the only place that converts between units.

mod report;
mod verify;

pub use report::GeometryReport;

use crate::format::features::{Features, Version};
use crate::units::{AgBlock, AgIno, AgNumber, BASIC_BLOCK, Daddr, FsBlock, Ino, RtBlock};

/// Fewest blocks of an AG, also of the last (observed: the kernel mounts 64 and refuses 60).
pub const MIN_AG_BLOCKS: u32 = 64;

/// Most blocks of a log, and most bytes: Linux mounts none that is longer.
pub const MAX_LOG_BLOCKS: u64 = 1 << 20;
/// See [`MAX_LOG_BLOCKS`].
pub const MAX_LOG_BYTES: u64 = (2 << 30) - (10 << 20);

/// Most levels that each kind of AG tree, and an extent tree, can have in this geometry.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct MaxLevels {
    /// bnobt and cntbt.
    pub bno: u8,
    /// inobt and finobt.
    pub ino: u8,
    /// rmapbt.
    pub rmap: u8,
    /// refcountbt.
    pub refcount: u8,
    /// Extent tree in the data fork.
    pub bmap_data: u8,
    /// Extent tree in the attribute fork.
    pub bmap_attr: u8,
}

/// The filesystem's numbers. Made only by [`Geometry::new`] from a superblock, which checks every one of them.
///
/// ```
/// use libxfsr::geometry::Geometry;
/// use libxfsr::mkfs::{self, Devices, Options};
/// use libxfsr::units::{AgBlock, AgNumber, FsBlock};
/// let plan = mkfs::plan(&Options::default(), &Devices::file(1 << 30))?;
/// let geometry = Geometry::new(&plan.superblock)?;
/// assert_eq!((geometry.block_size, geometry.ag_count, geometry.agblocks), (4096, 4, 65536));
/// // fsbnos hold the AG above sb_agblklog bits; daddrs count 512 bytes without a gap.
/// let (ag, agbno) = geometry.split(FsBlock(1 << geometry.agblk_log | 7));
/// assert_eq!((ag, agbno), (AgNumber(1), AgBlock(7)));
/// assert_eq!(geometry.agbno_to_daddr(ag, agbno).bytes(), (65536 + 7) * 4096);
/// # Ok::<(), libxfsr::Error>(())
/// ```
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Geometry {
    /// Bytes in a block.
    pub block_size: u32,
    /// log2 of that.
    pub block_log: u8,
    /// Bytes in a sector.
    pub sector_size: u32,
    /// log2 of that.
    pub sector_log: u8,
    /// Bytes in an inode.
    pub inode_size: u32,
    /// log2 of that.
    pub inode_log: u8,
    /// log2 of inodes in a block.
    pub inopb_log: u8,
    /// Blocks of the data device.
    pub blocks: u64,
    /// Allocation groups.
    pub ag_count: u32,
    /// Blocks in each AG but the last, which may be shorter.
    pub agblocks: u32,
    /// Bits of a block number inside an AG.
    pub agblk_log: u8,
    /// Bytes in a directory block.
    pub dir_block_size: u32,
    /// log2 of blocks in a directory block.
    pub dir_block_log: u8,
    /// First block of an internal log; 0 for an external one.
    pub log_start: FsBlock,
    /// Blocks of the log.
    pub log_blocks: u32,
    /// Bytes of a log sector.
    pub log_sector_size: u32,
    /// Log stripe unit in bytes; 0 or 1 for none.
    pub log_stripe_unit: u32,
    /// Realtime blocks.
    pub rt_blocks: u64,
    /// Realtime extents.
    pub rt_extents: u64,
    /// Blocks in a realtime extent.
    pub rt_extent_size: u32,
    /// Blocks of the realtime bitmap file.
    pub rt_bitmap_blocks: u32,
    /// log2 of the number of realtime extents, rounded down.
    pub rt_extents_log: u8,
    /// Realtime groups; 0 without the metadata directory feature.
    pub rt_groups: u32,
    /// Extents in each realtime group.
    pub rt_group_extents: u32,
    /// Bits of a block number inside a realtime group.
    pub rt_group_log: u8,
    /// First block of a realtime section inside the data device (zoned); 0 for a device of its own.
    pub rt_start: u64,
    /// Inode chunk alignment in blocks.
    pub inode_align: u32,
    /// Sparse inode chunk alignment in blocks.
    pub sparse_align: u32,
    /// Bytes of an inode cluster, the unit in which inodes are read and written.
    pub inode_cluster_size: u32,
    /// Largest share of space for inodes, percent; 0 for no limit.
    pub max_inode_percent: u8,
    /// Feature words.
    pub features: Features,
    /// The UUID that users see.
    pub uuid: [u8; 16],
    /// The UUID that metadata carries.
    pub meta_uuid: [u8; 16],
    /// Root directory.
    pub root_ino: Ino,
    /// Tree heights.
    pub max_levels: MaxLevels,
}

impl Geometry {
    /// Blocks in AG `ag`; 0 for an AG that does not exist.
    pub fn ag_blocks(&self, ag: AgNumber) -> u32 {
        match u64::from(ag.0) {
            n if n + 1 < u64::from(self.ag_count) => self.agblocks,
            n if n + 1 == u64::from(self.ag_count) => (self.blocks - n * u64::from(self.agblocks)) as u32,
            _ => 0,
        }
    }
    /// All AGs.
    pub fn ags(&self) -> impl DoubleEndedIterator<Item = AgNumber> + use<> {
        (0..self.ag_count).map(AgNumber)
    }
    /// 512-byte units in a block, as a shift.
    pub fn bb_shift(&self) -> u32 {
        u32::from(self.block_log) - 9
    }
    /// Inodes in a block.
    pub fn inodes_per_block(&self) -> u32 {
        1 << self.inopb_log
    }
    /// Blocks of an inode cluster, at least 1.
    pub fn cluster_blocks(&self) -> u32 {
        (self.inode_cluster_size >> self.block_log).max(1)
    }
    /// Blocks of a full chunk of 64 inodes, at least 1.
    pub fn chunk_blocks(&self) -> u32 {
        (64 >> self.inopb_log).max(1)
    }
    /// Blocks to which inode clusters are aligned.
    pub fn cluster_align(&self) -> u32 {
        if self.features.version.contains(Version::ALIGN) && self.inode_align >= self.cluster_blocks() {
            self.inode_align
        } else {
            1
        }
    }
    /// Whether chunks are aligned as a cluster is, which the kernel does not ask without sparse inodes but mkfs always does.
    pub fn is_usual_inode_align(&self) -> bool {
        let clusters = [8192, 8192 * (self.inode_size / 256)].map(|c| c >> self.block_log);
        let aligned = self.features.version.contains(Version::ALIGN);
        !aligned || self.features.sparse_inodes() || clusters.contains(&self.inode_align)
    }
    /// Blocks taken by superblock and headers at the start of each AG.
    pub fn header_blocks(&self) -> u32 {
        (4 * self.sector_size).div_ceil(self.block_size)
    }
    /// Slots of the free list.
    pub fn agfl_slots(&self) -> u32 {
        (self.sector_size - 36) / 4
    }
    /// Where sector `n` of AG `ag`'s headers lies: 0 superblock, 1 AGF, 2 AGI, 3 AGFL.
    pub fn header_daddr(&self, ag: AgNumber, n: u32) -> Daddr {
        let start = (u64::from(ag.0) * u64::from(self.agblocks)) << self.bb_shift();
        Daddr(start + u64::from(n) * u64::from(self.sector_size) / BASIC_BLOCK)
    }
    /// Whether the block exists in that AG and does not hold its headers.
    pub fn is_valid_agbno(&self, ag: AgNumber, agbno: AgBlock) -> bool {
        agbno.0 < self.ag_blocks(ag) && agbno.0 >= self.header_blocks()
    }
    /// Whether `count` blocks from there lie in that AG, clear of its headers.
    pub fn is_valid_agextent(&self, ag: AgNumber, start: AgBlock, count: u32) -> bool {
        count > 0
            && self.is_valid_agbno(ag, start)
            && u64::from(start.0) + u64::from(count) <= u64::from(self.ag_blocks(ag))
    }
    /// AG and block in it; not checked.
    pub fn split(&self, fsb: FsBlock) -> (AgNumber, AgBlock) {
        let ag = fsb.0 >> self.agblk_log;
        (AgNumber(u32::try_from(ag).unwrap_or(u32::MAX)), AgBlock((fsb.0 & ((1u64 << self.agblk_log) - 1)) as u32))
    }
    /// Joins AG and block.
    pub fn join(&self, ag: AgNumber, agbno: AgBlock) -> FsBlock {
        FsBlock(u64::from(ag.0) << self.agblk_log | u64::from(agbno.0))
    }
    /// Whether the block exists and is no AG header.
    pub fn is_valid_fsblock(&self, fsb: FsBlock) -> bool {
        let (ag, agbno) = self.split(fsb);
        self.is_valid_agbno(ag, agbno)
    }
    /// Whether the extent lies in one AG, clear of its headers.
    pub fn is_valid_extent(&self, start: FsBlock, count: u64) -> bool {
        let (ag, agbno) = self.split(start);
        u32::try_from(count).is_ok_and(|c| self.is_valid_agextent(ag, agbno, c))
    }
    /// Disk address of a block; none if it does not exist.
    pub fn fsblock_to_daddr(&self, fsb: FsBlock) -> Option<Daddr> {
        let (ag, agbno) = self.split(fsb);
        (agbno.0 < self.ag_blocks(ag)).then(|| self.agbno_to_daddr(ag, agbno))
    }
    /// Disk address of a block of an AG; not checked.
    pub fn agbno_to_daddr(&self, ag: AgNumber, agbno: AgBlock) -> Daddr {
        Daddr((u64::from(ag.0) * u64::from(self.agblocks) + u64::from(agbno.0)) << self.bb_shift())
    }
    /// AG and block of a disk address; none beyond the end.
    pub fn daddr_to_ag(&self, daddr: Daddr) -> Option<(AgNumber, AgBlock)> {
        let block = daddr.0 >> self.bb_shift();
        (block < self.blocks).then(|| {
            let (ag, rest) = (block / u64::from(self.agblocks), block % u64::from(self.agblocks));
            (AgNumber(ag as u32), AgBlock(rest as u32))
        })
    }
    /// The filesystem block of a disk address; none beyond the end.
    pub fn daddr_to_fsblock(&self, daddr: Daddr) -> Option<FsBlock> {
        self.daddr_to_ag(daddr).map(|(ag, b)| self.join(ag, b))
    }
    /// Bits of an inode number inside its AG.
    pub fn agino_bits(&self) -> u32 {
        u32::from(self.agblk_log) + u32::from(self.inopb_log)
    }
    /// AG and number in it; not checked.
    pub fn split_ino(&self, ino: Ino) -> (AgNumber, AgIno) {
        let bits = self.agino_bits();
        (AgNumber(u32::try_from(ino.0 >> bits).unwrap_or(u32::MAX)), AgIno((ino.0 & ((1u64 << bits) - 1)) as u32))
    }
    /// Joins AG and inode number in it.
    pub fn join_ino(&self, ag: AgNumber, agino: AgIno) -> Ino {
        Ino(u64::from(ag.0) << self.agino_bits() | u64::from(agino.0))
    }
    /// Block of an inode in its AG, and its index in the block.
    pub fn agino_to_block(&self, agino: AgIno) -> (AgBlock, u32) {
        (AgBlock(agino.0 >> self.inopb_log), agino.0 & (self.inodes_per_block() - 1))
    }
    /// First inode of a block of an AG.
    pub fn block_to_agino(&self, agbno: AgBlock) -> AgIno {
        AgIno(agbno.0 << self.inopb_log)
    }
    /// Whether an inode could live there: inside the AG, behind the headers, before what is cut off by alignment.
    pub fn is_valid_agino(&self, ag: AgNumber, agino: AgIno) -> bool {
        let align = self.cluster_align();
        let agfl_end = (4 * self.sector_size).div_ceil(self.block_size);
        let first = u64::from(agfl_end.next_multiple_of(align)) << self.inopb_log;
        let last = u64::from(self.ag_blocks(ag) / align * align) << self.inopb_log;
        (first..last).contains(&u64::from(agino.0))
    }
    /// Whether an inode of that number could exist.
    pub fn is_valid_ino(&self, ino: Ino) -> bool {
        let (ag, agino) = self.split_ino(ino);
        ag.0 < self.ag_count && self.is_valid_agino(ag, agino)
    }
    /// Byte offset of an inode on the data device; none if it cannot exist.
    pub fn ino_to_offset(&self, ino: Ino) -> Option<u64> {
        if !self.is_valid_ino(ino) {
            return None;
        }
        let (ag, agino) = self.split_ino(ino);
        let (agbno, index) = self.agino_to_block(agino);
        Some(self.agbno_to_daddr(ag, agbno).bytes() + u64::from(index) * u64::from(self.inode_size))
    }
    /// The cluster in which an inode lies, as inodes are read, written and logged: address, 512-byte units, offset of the inode's first
    /// byte. None if it cannot exist.
    pub fn ino_to_cluster(&self, ino: Ino) -> Option<(Daddr, u32, usize)> {
        if !self.is_valid_ino(ino) {
            return None;
        }
        let (ag, agino) = self.split_ino(ino);
        let (agbno, index) = self.agino_to_block(agino);
        // Chunks that are not aligned begin anywhere, and so do their clusters: then a block is as much as can be told.
        let aligned = self.cluster_align() >= self.cluster_blocks();
        let blocks = if aligned { self.cluster_blocks() } else { 1 };
        let in_chunk = agbno.0 % if aligned { self.cluster_align() } else { 1 };
        let first = AgBlock(agbno.0 - in_chunk % blocks);
        let inodes = ((agbno.0 - first.0) << self.inopb_log) + index;
        let offset = inodes as usize * self.inode_size as usize;
        Some((self.agbno_to_daddr(ag, first), blocks << self.bb_shift(), offset))
    }
    /// Whether an extent of realtime blocks exists.
    pub fn is_valid_rt_extent(&self, start: RtBlock, count: u64) -> bool {
        if self.rt_groups > 0 {
            let (group, block) = (start.0 >> self.rt_group_log, start.0 & ((1u64 << self.rt_group_log) - 1));
            let group_blocks = u64::from(self.rt_group_extents) * u64::from(self.rt_extent_size);
            if group >= u64::from(self.rt_groups) {
                return false;
            }
            // Only the last group is shorter.
            let len = self.rt_blocks.saturating_sub(group.saturating_mul(group_blocks)).min(group_blocks);
            return count > 0 && block.checked_add(count).is_some_and(|e| e <= len);
        }
        count > 0 && start.0.checked_add(count).is_some_and(|e| e <= self.rt_blocks)
    }
    /// Byte offset of a realtime block on the realtime target; of one that cannot exist, an offset behind every device's end.
    pub fn rt_block_offset(&self, block: RtBlock) -> u64 {
        let linear = if self.rt_groups > 0 {
            let (group, b) = (block.0 >> self.rt_group_log, block.0 & ((1u64 << self.rt_group_log) - 1));
            let group_blocks = u64::from(self.rt_group_extents) * u64::from(self.rt_extent_size);
            group.checked_mul(group_blocks).and_then(|start| start.checked_add(b))
        } else {
            Some(block.0)
        };
        let absolute = linear.and_then(|l| l.checked_add(self.rt_start));
        absolute.and_then(|a| a.checked_mul(u64::from(self.block_size))).unwrap_or(u64::MAX)
    }
    /// Largest file size in bytes.
    pub fn max_file_size(&self) -> u64 {
        ((1u64 << 54) << self.block_log).wrapping_sub(1).min(i64::MAX as u64)
    }
}

/// A geometry as mkfs.xfs 6.1 makes it for a file of 300 MiB, with rmapbt and nrext64.
#[cfg(test)]
pub(crate) fn test_geometry() -> Geometry {
    Geometry::new(&test_superblock()).expect("a geometry that mkfs.xfs makes")
}

#[cfg(test)]
fn test_superblock() -> crate::format::superblock::Superblock {
    use crate::format::features::{Incompat, RoCompat};
    use crate::format::superblock::{self, Superblock};
    let mut sb = Superblock::zeroed();
    sb.magicnum.set(superblock::MAGIC);
    sb.blocksize.set(4096);
    sb.dblocks.set(76_800);
    sb.uuid = *b"xfsr-test-volume";
    sb.logstart.set(65_542);
    sb.rootino.set(128);
    sb.rextsize.set(1);
    sb.agblocks.set(19_200);
    sb.agcount.set(4);
    sb.logblocks.set(16_384);
    sb.versionnum.set(0xb4a5);
    sb.sectsize.set(512);
    sb.inodesize.set(512);
    sb.inopblock.set(8);
    (sb.blocklog, sb.sectlog, sb.inodelog, sb.inopblog, sb.agblklog) = (12, 9, 9, 3, 15);
    sb.imax_pct = 25;
    sb.inoalignmt.set(8);
    sb.features2.set(0x18a);
    sb.features_ro_compat.set(RoCompat::all().bits());
    sb.features_incompat.set((Incompat::FTYPE | Incompat::SPINODES | Incompat::BIGTIME | Incompat::NREXT64).bits());
    sb.spino_align.set(4);
    sb
}
