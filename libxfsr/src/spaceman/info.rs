//! The geometry report of mkfs, of a filesystem that exists.

use crate::error::Result;
use crate::kernel::Mounted;
use crate::kernel::abi::geometry_flag as flag;
use crate::mkfs::Report;
use crate::volume::Volume;

/// Report of an image that is called `name`.
pub fn info_of_volume(volume: &Volume, name: &str) -> Report {
    let (g, sb) = (&volume.geometry, &volume.superblock);
    let f = &g.features;
    let bit = u8::from;
    Report {
        meta_data: name.to_owned(),
        isize: g.inode_size,
        agcount: g.ag_count,
        agsize: g.agblocks,
        sectsz: g.sector_size,
        attr: 2,
        projid32bit: bit(f.features2.contains(crate::format::features::Features2::PROJID32)),
        crc: 1,
        finobt: bit(f.finobt()),
        sparse: bit(f.sparse_inodes()),
        rmapbt: bit(f.rmapbt()),
        reflink: bit(f.reflink()),
        bigtime: bit(f.bigtime()),
        inobtcount: bit(f.inobtcnt()),
        nrext64: bit(f.nrext64()),
        exchange: bit(f.exchange_range()),
        parent: bit(f.parent()),
        metadir: bit(f.metadir()),
        bsize: g.block_size,
        blocks: g.blocks,
        imaxpct: g.max_inode_percent,
        sunit: sb.unit.get(),
        swidth: sb.width.get(),
        naming_version: 2,
        naming_bsize: g.dir_block_size,
        ascii_ci: bit(f.ascii_ci()),
        ftype: bit(f.ftype()),
        log: log_name(g.log_start.0 != 0),
        log_bsize: g.block_size,
        log_blocks: g.log_blocks,
        log_version: 2,
        log_sectsz: g.log_sector_size,
        log_sunit: log_unit(g.log_stripe_unit, g.block_size),
        lazy_count: bit(f.lazy_count()),
        realtime: rt_name(g.rt_blocks),
        rt_extsz: u64::from(g.rt_extent_size) << g.block_log,
        rt_blocks: g.rt_blocks,
        rt_extents: g.rt_extents,
        uuid: uuid::Uuid::from_bytes(g.uuid).to_string(),
        label: crate::text::escape(sb.fname.split(|b| *b == 0).next().unwrap_or(&[])),
    }
}

/// Report of a mounted filesystem.
pub(super) fn info_of_mounted(mounted: &Mounted) -> Result<Report> {
    let g = mounted.geometry();
    let bit = |f: u32| u8::from(mounted.has(f));
    Ok(Report {
        meta_data: mounted.device_name(),
        isize: g.inodesize,
        agcount: g.agcount,
        agsize: g.agblocks,
        sectsz: g.sectsize,
        attr: 1 + bit(flag::ATTR2),
        projid32bit: bit(flag::PROJID32),
        crc: bit(flag::V5SB),
        finobt: bit(flag::FINOBT),
        sparse: bit(flag::SPINODES),
        rmapbt: bit(flag::RMAPBT),
        reflink: bit(flag::REFLINK),
        bigtime: bit(flag::BIGTIME),
        inobtcount: bit(flag::INOBTCNT),
        nrext64: bit(flag::NREXT64),
        exchange: bit(flag::EXCHANGE_RANGE),
        parent: bit(flag::PARENT),
        metadir: bit(flag::METADIR),
        bsize: g.blocksize,
        blocks: g.datablocks,
        imaxpct: g.imaxpct.min(255) as u8,
        sunit: g.sunit,
        swidth: g.swidth,
        naming_version: 2,
        naming_bsize: g.dirblocksize,
        ascii_ci: bit(flag::DIRV2CI),
        ftype: bit(flag::FTYPE),
        log: log_name(g.logstart != 0),
        log_bsize: g.blocksize,
        log_blocks: g.logblocks,
        log_version: 2,
        log_sectsz: g.logsectsize,
        log_sunit: log_unit(g.logsunit, g.blocksize),
        lazy_count: bit(flag::LAZYSB),
        realtime: rt_name(g.rtblocks),
        rt_extsz: u64::from(g.rtextsize) * u64::from(g.blocksize),
        rt_blocks: g.rtblocks,
        rt_extents: g.rtextents,
        uuid: uuid::Uuid::from_bytes(g.uuid).to_string(),
        label: crate::text::escape(&mounted.label()?),
    })
}

fn log_name(internal: bool) -> String {
    if internal { "internal log".to_owned() } else { "external".to_owned() }
}

fn rt_name(blocks: u64) -> String {
    if blocks == 0 { "none".to_owned() } else { "external".to_owned() }
}

fn log_unit(bytes: u32, block: u32) -> u32 {
    if bytes > 1 { bytes / block.max(1) } else { 0 }
}
