//! Judging a superblock: every number that the geometry takes from it is checked here, and none is trusted.
//!
//! The rules are those for which the kernel refuses a mount. What only the stock tools ask is left to the check.

use super::{Geometry, MAX_LOG_BLOCKS, MAX_LOG_BYTES, MIN_AG_BLOCKS, MaxLevels};
use crate::error::{Corruption, Rule};
use crate::format::btree::{ALLOC, BMBT, INO, Layout, REFCOUNT, RMAP};
use crate::format::features::{Features, Incompat, Version};
use crate::format::superblock::{self, Superblock};
use crate::units::{AgNumber, FsBlock, Ino};

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
        } else {
            require(sb.logsectlog == 0, "logsectlog", sb.logsectlog, "0 without the sector feature")?;
            require(sb.logsectsize.get() == 0, "logsectsize", sb.logsectsize, "0 without the sector feature")?;
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
            "a block to 1 GiB",
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
        let rt_start = if features.zoned() { sb.rtstart.get() } else { 0 };
        require(
            rt_start.checked_add(rt_blocks).is_some_and(|end| end < 1 << (63 - bl)),
            "rblocks",
            rt_blocks,
            "an end below 8 EiB",
        )?;
        let inode_align = sb.inoalignmt.get();
        require(inode_align <= agblocks, "inoalignmt", inode_align, "at most an AG")?;
        let chunk = (64 * inode_size) >> bl;
        if features.sparse_inodes() && inode_align != chunk {
            let expected = format_args!("{chunk}, the blocks of a chunk, with sparse inodes");
            return Err(bad("inoalignmt", Rule::Range, inode_align, expected));
        }
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
            rt_start,
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
        let cluster = geometry.inode_cluster_size >> bl;
        if features.sparse_inodes() && geometry.sparse_align != cluster {
            let expected = format_args!("{cluster}, the blocks of an inode cluster");
            return Err(bad("spino_align", Rule::Range, geometry.sparse_align, expected));
        }
        let bs = block_size as usize;
        let agb = u64::from(agblocks);
        geometry.max_levels = MaxLevels {
            bno: height(&ALLOC, bs, agb.div_ceil(2)),
            // Of all inode numbers that an AG has bits for: sparse chunks can be more than its blocks would hold whole ones.
            ino: height(&INO, bs, 1 << (u32::from(agblk_log) + u32::from(sb.inopblog)).saturating_sub(6)),
            rmap: if features.reflink() { height_of_space(&RMAP, bs, agb) } else { height(&RMAP, bs, agb) },
            refcount: height(&REFCOUNT, bs, agb),
            bmap_data: height(&BMBT, bs, 1 << 48).min(12),
            bmap_attr: height(&BMBT, bs, 1 << 32).min(12),
        };
        let log_bytes = u64::from(log_blocks) << bl;
        require(
            u64::from(log_blocks) <= MAX_LOG_BLOCKS && log_bytes <= MAX_LOG_BYTES,
            "logblocks",
            log_blocks,
            "at most 1048576 blocks and 2136997888 bytes",
        )?;
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
}

#[cfg(test)]
mod tests {
    use super::Geometry;
    use crate::format::features::Incompat;
    use crate::format::superblock::{MAGIC, Superblock};
    use crate::geometry::test_superblock;
    use crate::units::RtBlock;
    use proptest::prelude::{any, prop_assert, proptest};

    #[test]
    fn v4_is_refused_with_a_sentence() {
        let mut sb = Superblock::zeroed();
        sb.magicnum = MAGIC.into();
        sb.versionnum = 0xb4a4.into();
        let e = Geometry::new(&sb).unwrap_err();
        assert!(matches!(e, crate::Error::Unsupported(_)) && e.to_string().contains("v4"), "{e}");
    }

    fn code(change: impl FnOnce(&mut Superblock)) -> String {
        let mut sb = test_superblock();
        change(&mut sb);
        match Geometry::new(&sb) {
            Ok(_) => "accepted".into(),
            Err(crate::Error::Corrupt(c)) => c.code(),
            Err(e) => panic!("{e}"),
        }
    }

    #[test]
    fn numbers_for_which_the_kernel_refuses_a_mount_are_refused() {
        assert_eq!(code(|_| {}), "accepted");
        for align in [0, 1, 3, 4, 16] {
            assert_eq!(code(|sb| sb.inoalignmt.set(align)), "sb.inoalignmt.range", "{align}");
        }
        for align in [0, 2, 3, 8] {
            assert_eq!(code(|sb| sb.spino_align.set(align)), "sb.spino_align.range", "{align}");
        }
        assert_eq!(code(|sb| sb.logsectlog = 9), "sb.logsectlog.range");
        assert_eq!(code(|sb| sb.logsectsize.set(512)), "sb.logsectsize.range");
        let rt = |blocks: u64| {
            code(|sb| {
                (sb.rblocks, sb.rextents) = (blocks.into(), blocks.into());
                sb.rextslog = blocks.ilog2().min(31) as u8;
            })
        };
        assert_eq!((rt(1 << 20).as_str(), rt((1 << 51) - 1).as_str()), ("accepted", "accepted"));
        assert_eq!((rt(1 << 51).as_str(), rt(u64::MAX).as_str()), ("sb.rblocks.range", "sb.rblocks.range"));
    }

    #[test]
    fn without_sparse_inodes_an_odd_alignment_is_no_reason_to_refuse() {
        let with = |align| {
            let mut sb = test_superblock();
            sb.features_incompat.set(sb.features_incompat.get() & !Incompat::SPINODES.bits());
            sb.inoalignmt.set(align);
            Geometry::new(&sb).expect("a geometry that the kernel mounts").is_usual_inode_align()
        };
        assert!(with(2) && with(4) && !with(0) && !with(1) && !with(3) && !with(8));
    }

    #[test]
    fn sparse_chunks_may_make_an_inode_btree_higher() {
        // The bits of inode numbers of an AG just above a power of two allow nearly twice the chunks that its blocks would hold.
        let levels = |agblocks: u32| {
            let mut sb = test_superblock();
            sb.agblocks.set(agblocks);
            sb.agblklog = agblocks.next_power_of_two().trailing_zeros() as u8;
            sb.agcount.set(1);
            sb.dblocks.set(agblocks.into());
            sb.logstart.set(0);
            Geometry::new(&sb).expect("own").max_levels.ino
        };
        let edge = (7..28).find(|log| levels(1 << log) < levels(1 << (log + 1))).expect("a step");
        assert_eq!(levels((1 << edge) + 1), levels(1 << (edge + 1)), "2^{edge}");
    }

    proptest! {
        #[test]
        fn realtime_numbers_cannot_overflow(
            blocks in any::<u64>(), extsize in 1u32..1 << 18, (count, extents, log) in any::<(u32, u32, u8)>(),
            start in any::<u64>(), (at, length) in any::<(u64, u64)>(), zoned in any::<bool>(), metadir in any::<bool>(),
            cut in 0..64,
        ) {
            let mut sb = test_superblock();
            let blocks = blocks >> cut;
            sb.rblocks.set(blocks);
            sb.rextsize.set(extsize);
            sb.rextents.set(blocks / u64::from(extsize));
            sb.rextslog = (blocks / u64::from(extsize)).max(1).ilog2().min(31) as u8;
            (sb.rgcount, sb.rgextents, sb.rgblklog) = (count.into(), extents.into(), log % 33);
            sb.rtstart.set(start >> cut);
            let mut incompat = Incompat::from_bits_retain(sb.features_incompat.get());
            incompat.set(Incompat::ZONED, zoned);
            incompat.set(Incompat::METADIR, metadir);
            sb.features_incompat.set(incompat.bits());
            if let Ok(g) = Geometry::new(&sb) {
                let offset = g.rt_block_offset(RtBlock(at));
                if g.is_valid_rt_extent(RtBlock(at), length) && !metadir {
                    prop_assert!(offset < 1 << 63);
                }
            }
        }
    }
}
