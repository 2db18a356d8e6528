//! The geometry report of a filesystem that is mounted.

use crate::error::Result;
use crate::geometry::GeometryReport;
use crate::kernel::Mounted;
use crate::kernel::abi::geometry_flag as flag;

/// Report of a mounted filesystem.
pub(super) fn info_of_mounted(mounted: &Mounted) -> Result<GeometryReport> {
    let g = mounted.geometry();
    let bit = |f: u32| u8::from(mounted.has(f));
    Ok(GeometryReport {
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
        log: GeometryReport::log_name(g.logstart != 0),
        log_bsize: g.blocksize,
        log_blocks: g.logblocks,
        log_version: 2,
        log_sectsz: g.logsectsize,
        log_sunit: GeometryReport::log_unit(g.logsunit, g.blocksize),
        lazy_count: bit(flag::LAZYSB),
        realtime: GeometryReport::realtime_name(g.rtblocks),
        rt_extsz: u64::from(g.rtextsize) * u64::from(g.blocksize),
        rt_blocks: g.rtblocks,
        rt_extents: g.rtextents,
        uuid: uuid::Uuid::from_bytes(g.uuid).to_string(),
        label: crate::text::escape(&mounted.label()?),
    })
}
