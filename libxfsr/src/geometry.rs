//! The filesystem's numbers, checked once, and the only place that converts between units.

use crate::error::{Corruption, Rule};
use crate::format::btree::{ALLOC, BMBT, INO, Layout, REFCOUNT, RMAP};
use crate::format::features::{Features, Incompat, LogIncompat, RoCompat, Version};
use crate::format::superblock::{self, Superblock};
use crate::units::{AgBlock, AgIno, AgNumber, BASIC_BLOCK, Daddr, FsBlock, Ino, RtBlock};

/// Fewest blocks of an AG, also of the last (observed: the kernel mounts 64 and refuses 60).
pub const MIN_AG_BLOCKS: u32 = 64;

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

/// The filesystem's numbers. Made by [`Geometry::new`] from a superblock, which checks every one of them.
#[derive(Clone, PartialEq, Eq, Debug)]
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

fn bad(
    field: &'static str,
    rule: Rule,
    found: impl std::fmt::Display,
    expected: impl std::fmt::Display,
) -> Box<Corruption> {
    Corruption::new("sb", field, rule).in_ag(AgNumber(0), None).found(found).expected(expected)
}

fn require(
    ok: bool,
    field: &'static str,
    found: impl std::fmt::Display,
    expected: &str,
) -> Result<(), Box<Corruption>> {
    if ok { Ok(()) } else { Err(bad(field, Rule::Range, found, expected)) }
}

fn height(layout: &Layout, block: usize, records: u64) -> u8 {
    let leaf = (layout.leaf_max(block) / 2).max(1) as u64;
    let node = (layout.node_max(block) / 2).max(2) as u64;
    let mut blocks = records.div_ceil(leaf);
    let mut levels = 1;
    while blocks > 1 && levels < 15 {
        blocks = blocks.div_ceil(node);
        levels += 1;
    }
    levels
}

/// Of a tree whose blocks fill that space: a root may have as few as two children.
fn height_of_space(layout: &Layout, block: usize, leaves: u64) -> u8 {
    let fan = (layout.node_max(block) / 2).max(2) as u64;
    let (mut node_blocks, mut left, mut levels) = (2, leaves.saturating_sub(1), 1);
    while node_blocks < left && levels < 15 {
        left -= node_blocks;
        node_blocks = node_blocks.saturating_mul(fan);
        levels += 1;
    }
    levels
}

impl Geometry {
    /// From a superblock whose checksum was, or was not, right: every number is checked here, none is trusted.
    ///
    /// # Errors
    /// The first field that is out of range. A v4 superblock is refused with a sentence that says so; so are incompatible
    /// features that this library does not know.
    pub fn new(sb: &Superblock) -> crate::Result<Self> {
        if sb.magicnum.get() != superblock::MAGIC {
            return Err(bad("magicnum", Rule::Magic, format_args!("{:#x}", sb.magicnum), "0x58465342 (XFSB)").into());
        }
        if sb.version() == 4 {
            return Err(crate::Error::unsupported(
                "this is an XFS v4 filesystem, which has no checksums; only v5 is supported (Linux drops v4 in 2030: copy the files to a new filesystem)",
            ));
        }
        if sb.version() != 5 {
            return Err(bad("versionnum", Rule::Range, sb.version(), "5").into());
        }
        let features = sb.features();
        let unknown = features.incompat.difference(Incompat::all()).bits();
        if unknown != 0 {
            return Err(crate::Error::unsupported(format!(
                "unknown incompatible feature bits {unknown:#x}: a newer version of this program is needed"
            )));
        }
        Self::checked(sb, features).map_err(crate::Error::from)
    }

    fn checked(sb: &Superblock, features: Features) -> Result<Self, Box<Corruption>> {
        let bl = sb.blocklog;
        require((9..=16).contains(&bl), "blocklog", bl, "9 to 16")?;
        let block_size = sb.blocksize.get();
        require(block_size == 1 << bl && block_size >= 1024, "blocksize", block_size, "2^blocklog, 1024 to 65536")?;
        let sl = sb.sectlog;
        require((9..=15).contains(&sl), "sectlog", sl, "9 to 15")?;
        let sector_size = u32::from(sb.sectsize.get());
        require(
            sector_size == 1 << sl && sector_size <= block_size,
            "sectsize",
            sector_size,
            "2^sectlog, at most the block size",
        )?;
        let il = sb.inodelog;
        require((9..=11).contains(&il), "inodelog", il, "9 to 11")?;
        let inode_size = u32::from(sb.inodesize.get());
        require(
            inode_size == 1 << il && inode_size <= block_size / 2,
            "inodesize",
            inode_size,
            "2^inodelog, at most half a block",
        )?;
        require(sb.inopblog == bl - il, "inopblog", sb.inopblog, "blocklog - inodelog")?;
        require(u32::from(sb.inopblock.get()) == 1 << sb.inopblog, "inopblock", sb.inopblock, "2^inopblog")?;
        let agblocks = sb.agblocks.get();
        let max_ag = (1u64 << 40) >> bl;
        require(
            agblocks >= MIN_AG_BLOCKS && u64::from(agblocks) <= max_ag,
            "agblocks",
            agblocks,
            "64 blocks to 1 TiB",
        )?;
        require(
            u64::from(agblocks) << bl >= 1 << 24 || agblocks >= MIN_AG_BLOCKS,
            "agblocks",
            agblocks,
            "at least 64",
        )?;
        let agblk_log = sb.agblklog;
        require(
            u32::from(agblk_log) == agblocks.next_power_of_two().trailing_zeros(),
            "agblklog",
            agblk_log,
            "ceil(log2(agblocks))",
        )?;
        let ag_count = sb.agcount.get();
        require(ag_count >= 1, "agcount", ag_count, "at least 1")?;
        let blocks = sb.dblocks.get();
        let (ag64, agc64) = (u64::from(agblocks), u64::from(ag_count));
        let low = (agc64 - 1) * ag64 + u64::from(MIN_AG_BLOCKS);
        require(
            blocks >= low && blocks <= agc64 * ag64,
            "dblocks",
            blocks,
            "agcount AGs of agblocks, the last at least 64 blocks",
        )?;
        require(
            blocks.checked_mul(u64::from(block_size)).is_some_and(|b| b < 1 << 63),
            "dblocks",
            blocks,
            "less than 8 EiB",
        )?;
        require(
            u32::from(bl) + u32::from(sb.dirblklog) <= 16,
            "dirblklog",
            sb.dirblklog,
            "directory blocks of at most 64 KiB",
        )?;
        require(sb.imax_pct <= 100, "imax_pct", sb.imax_pct, "0 to 100")?;
        let required = Version::NLINK | Version::DIRV2 | Version::MOREBITS | Version::LOGV2;
        require(
            features.version.contains(required),
            "versionnum",
            format_args!("{:#x}", sb.versionnum),
            "the bits of v5",
        )?;
        let log_start = FsBlock(sb.logstart.get());
        let log_blocks = sb.logblocks.get();
        let lsl = if features.sector() { sb.logsectlog } else { 9 };
        let log_sector_size = if features.sector() { u32::from(sb.logsectsize.get()) } else { 512 };
        if features.sector() {
            require((9..=15).contains(&lsl), "logsectlog", lsl, "9 to 15")?;
            require(log_sector_size == 1 << lsl, "logsectsize", log_sector_size, "2^logsectlog")?;
        }
        let logsunit = sb.logsunit.get();
        require(
            logsunit <= 1 || (logsunit.is_multiple_of(block_size) && logsunit <= 256 << 10),
            "logsunit",
            logsunit,
            "0, 1 or whole blocks up to 256 KiB",
        )?;
        let rt_extent_size = sb.rextsize.get();
        require(
            rt_extent_size >= 1 && u64::from(rt_extent_size) << bl <= 1 << 30,
            "rextsize",
            rt_extent_size,
            "4 KiB to 1 GiB",
        )?;
        let metadir = features.metadir();
        let (rt_blocks, rt_extents) = (sb.rblocks.get(), sb.rextents.get());
        if rt_blocks == 0 {
            require(rt_extents == 0, "rextents", rt_extents, "0 without a realtime device")?;
        } else {
            require(rt_extents == rt_blocks / u64::from(rt_extent_size), "rextents", rt_extents, "rblocks / rextsize")?;
            require(
                rt_extents > 0 && u32::from(sb.rextslog) == rt_extents.ilog2().min(31),
                "rextslog",
                sb.rextslog,
                "floor(log2(rextents))",
            )?;
        }
        let inode_align = sb.inoalignmt.get();
        require(inode_align <= agblocks, "inoalignmt", inode_align, "at most an AG")?;
        let mut geometry = Self {
            block_size,
            block_log: bl,
            sector_size,
            sector_log: sl,
            inode_size,
            inode_log: il,
            inopb_log: sb.inopblog,
            blocks,
            ag_count,
            agblocks,
            agblk_log,
            dir_block_size: block_size << sb.dirblklog,
            dir_block_log: sb.dirblklog,
            log_start,
            log_blocks,
            log_sector_size,
            log_stripe_unit: logsunit,
            rt_blocks,
            rt_extents,
            rt_extent_size,
            rt_bitmap_blocks: sb.rbmblocks.get(),
            rt_extents_log: sb.rextslog,
            rt_groups: if metadir { sb.rgcount.get() } else { 0 },
            rt_group_extents: if metadir { sb.rgextents.get() } else { 0 },
            rt_group_log: if metadir { sb.rgblklog } else { 0 },
            rt_start: if features.zoned() { sb.rtstart.get() } else { 0 },
            inode_align,
            sparse_align: sb.spino_align.get(),
            inode_cluster_size: 8192,
            max_inode_percent: sb.imax_pct,
            features,
            uuid: sb.uuid,
            meta_uuid: if features.meta_uuid() { sb.meta_uuid } else { sb.uuid },
            root_ino: Ino(sb.rootino.get()),
            max_levels: MaxLevels::default(),
        };
        require(
            u32::from(agblk_log) + u32::from(sb.inopblog) <= 32,
            "agblklog",
            agblk_log,
            "inode numbers of 32 bits in an AG",
        )?;
        require(geometry.rt_group_log <= 32, "rgblklog", geometry.rt_group_log, "at most 32")?;
        let scaled = 8192 * (inode_size / 256);
        if inode_align >= scaled >> bl {
            geometry.inode_cluster_size = scaled;
        }
        let bs = block_size as usize;
        let agb = u64::from(agblocks);
        geometry.max_levels = MaxLevels {
            bno: height(&ALLOC, bs, agb.div_ceil(2)),
            ino: height(&INO, bs, (agb << sb.inopblog) / 64),
            rmap: if features.reflink() { height_of_space(&RMAP, bs, agb) } else { height(&RMAP, bs, agb) },
            refcount: height(&REFCOUNT, bs, agb),
            bmap_data: height(&BMBT, bs, 1 << 48).min(12),
            bmap_attr: height(&BMBT, bs, 1 << 32).min(12),
        };
        if log_start.0 != 0 {
            let end = geometry.split(log_start);
            require(
                geometry.is_valid_fsblock(log_start)
                    && log_blocks > 0
                    && u64::from(end.1.0) + u64::from(log_blocks) <= u64::from(geometry.ag_blocks(end.0)),
                "logstart",
                log_start,
                "an extent inside one AG",
            )?;
        }
        Ok(geometry)
    }

    /// Whether nothing unknown stands in the way of writing: ro_compat and log_incompat bits are all known.
    pub fn may_write(&self) -> bool {
        RoCompat::all().contains(self.features.ro_compat) && LogIncompat::all().contains(self.features.log_incompat)
    }

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
    /// Whether an extent of realtime blocks exists.
    pub fn is_valid_rt_extent(&self, start: RtBlock, count: u64) -> bool {
        if self.rt_groups > 0 {
            let (group, block) = (start.0 >> self.rt_group_log, start.0 & ((1u64 << self.rt_group_log) - 1));
            let group_blocks = u64::from(self.rt_group_extents) * u64::from(self.rt_extent_size);
            let len = if group + 1 == u64::from(self.rt_groups) {
                self.rt_blocks.saturating_sub(group * group_blocks).min(group_blocks)
            } else {
                group_blocks
            };
            return group < u64::from(self.rt_groups)
                && count > 0
                && block.checked_add(count).is_some_and(|e| e <= len);
        }
        count > 0 && start.0.checked_add(count).is_some_and(|e| e <= self.rt_blocks)
    }
    /// Byte offset of a realtime block on the realtime target.
    pub fn rt_block_offset(&self, block: RtBlock) -> u64 {
        if self.rt_groups > 0 {
            let (group, b) = (block.0 >> self.rt_group_log, block.0 & ((1u64 << self.rt_group_log) - 1));
            let group_blocks = u64::from(self.rt_group_extents) * u64::from(self.rt_extent_size);
            return (self.rt_start + group * group_blocks + b) << self.block_log;
        }
        (self.rt_start + block.0) << self.block_log
    }
    /// Largest file size in bytes.
    pub fn max_file_size(&self) -> u64 {
        ((1u64 << 54) << self.block_log).wrapping_sub(1).min(i64::MAX as u64)
    }
}

/// A geometry as mkfs.xfs 6.1 makes it for a file of 300 MiB, with rmapbt and nrext64.
#[cfg(test)]
pub(crate) fn test_geometry() -> Geometry {
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
    Geometry::new(&sb).expect("a geometry that mkfs.xfs makes")
}

#[cfg(test)]
mod tests {
    use super::Geometry;
    use crate::format::superblock::{MAGIC, Superblock};

    #[test]
    fn v4_is_refused_with_a_sentence() {
        let mut sb = Superblock::zeroed();
        sb.magicnum = MAGIC.into();
        sb.versionnum = 0xb4a4.into();
        let e = Geometry::new(&sb).unwrap_err();
        assert!(matches!(e, crate::Error::Unsupported(_)) && e.to_string().contains("v4"), "{e}");
    }
}
