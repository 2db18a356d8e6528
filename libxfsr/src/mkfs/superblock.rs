//! The superblock of a plan.

use super::layout::Draft;
use crate::format::features::Version;
use crate::format::realtime::RtBlockHeader;
use crate::format::superblock::{MAGIC, Superblock};
use crate::units::NULL_INO;
use zerocopy::big_endian::{U16, U32, U64};

/// log2, rounded up.
fn ceil_log(v: u64) -> u8 {
    v.next_power_of_two().trailing_zeros() as u8
}

/// The superblock as far as the numbers are known; counters and inodes of the realtime section come when they are written.
pub(super) fn build(d: &Draft) -> Superblock {
    let mut sb = Superblock::zeroed();
    let bl = d.block_log;
    let isize = u64::from(d.inode_size);
    let cluster = (8192 * (isize / 256)) >> bl;
    let sparse = d.features.sparse_inodes();
    let rt_extents = d.rt_blocks / d.rt_extsize;
    let internal = d.log_start != 0;
    sb.magicnum = U32::new(MAGIC);
    sb.blocksize = U32::new(d.block_size);
    sb.dblocks = U64::new(d.blocks);
    sb.rblocks = U64::new(d.rt_blocks);
    sb.rextents = U64::new(rt_extents);
    sb.uuid = d.uuid;
    sb.logstart = U64::new(d.log_start);
    sb.rootino = U64::new(d.root_ino);
    sb.rbmino = U64::new(NULL_INO);
    sb.rsumino = U64::new(NULL_INO);
    sb.rextsize = U32::new(d.rt_extsize as u32);
    sb.agblocks = U32::new(d.agblocks as u32);
    sb.agcount = U32::new(d.ag_count as u32);
    let bitmap = match d.features.metadir() {
        // One for each group, its blocks with headers.
        true if rt_extents > 0 => {
            d.rt_group_extents.div_ceil(8 * u64::from(d.block_size - size_of::<RtBlockHeader>() as u32))
        }
        true => 0,
        false => rt_extents.div_ceil(8 * u64::from(d.block_size)),
    };
    sb.rbmblocks = U32::new(bitmap as u32);
    sb.logblocks = U32::new(d.log_blocks as u32);
    sb.versionnum = U16::new(5 | d.features.version.bits());
    sb.sectsize = U16::new(d.sector_size as u16);
    sb.inodesize = U16::new(d.inode_size as u16);
    sb.inopblock = U16::new((d.block_size / d.inode_size) as u16);
    sb.fname = d.label;
    sb.blocklog = bl;
    sb.sectlog = d.sector_size.trailing_zeros() as u8;
    sb.inodelog = d.inode_size.trailing_zeros() as u8;
    sb.inopblog = bl - sb.inodelog;
    sb.agblklog = ceil_log(d.agblocks);
    sb.rextslog = rt_extents.checked_ilog2().unwrap_or(0) as u8;
    sb.imax_pct = d.imax_pct;
    let reserved = d.ag_count * d.prealloc() + if internal { d.log_blocks } else { 0 };
    sb.fdblocks = U64::new(d.blocks.saturating_sub(reserved));
    // The first extent of the first group holds the realtime superblock.
    sb.frextents = U64::new(rt_extents - d.rt_groups.min(1));
    sb.inoalignmt = U32::new(if sparse { (64 * isize) >> bl } else { cluster } as u32);
    sb.spino_align = U32::new(if sparse { cluster as u32 } else { 0 });
    sb.unit = U32::new(d.sunit as u32);
    sb.width = U32::new(d.swidth as u32);
    sb.dirblklog = d.dir_log;
    if d.features.version.contains(Version::SECTOR) {
        sb.logsectlog = d.log_sector_size.trailing_zeros() as u8;
        sb.logsectsize = U16::new(d.log_sector_size as u16);
    }
    sb.logsunit = U32::new(if d.log_sunit == 0 { 1 } else { (d.log_sunit as u32) << bl });
    if d.features.metadir() {
        sb.metadirino = U64::new(NULL_INO);
        // Found through the metadata directories instead.
        (sb.rbmino, sb.rsumino) = (U64::new(0), U64::new(0));
        sb.rgcount = U32::new(d.rt_groups as u32);
        sb.rgextents = U32::new(d.rt_group_extents as u32);
        sb.rgblklog = ceil_log(d.rt_group_extents * d.rt_extsize);
    }
    sb.features2 = U32::new(d.features.features2.bits());
    sb.bad_features2 = sb.features2;
    sb.features_ro_compat = U32::new(d.features.ro_compat.bits());
    sb.features_incompat = U32::new(d.features.incompat.bits());
    sb
}
