//! The geometry as a report: data, and the layout that programs parse.

use super::Geometry;
use crate::format::features::Features2;
use crate::format::superblock::Superblock;
use serde::Serialize;

/// The numbers that mkfs and `info` print, by the names they are printed under: blocks and bytes as mkfs.xfs gives them, features
/// as 0 or 1.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
#[non_exhaustive]
#[allow(missing_docs, reason = "fields carry the printed names")]
pub struct GeometryReport {
    pub meta_data: String,
    pub isize: u32,
    pub agcount: u32,
    pub agsize: u32,
    pub sectsz: u32,
    pub attr: u8,
    pub projid32bit: u8,
    pub crc: u8,
    pub finobt: u8,
    pub sparse: u8,
    pub rmapbt: u8,
    pub reflink: u8,
    pub bigtime: u8,
    pub inobtcount: u8,
    pub nrext64: u8,
    pub exchange: u8,
    pub parent: u8,
    pub metadir: u8,
    pub bsize: u32,
    pub blocks: u64,
    pub imaxpct: u8,
    pub sunit: u32,
    pub swidth: u32,
    pub naming_version: u8,
    pub naming_bsize: u32,
    pub ascii_ci: u8,
    pub ftype: u8,
    pub log: String,
    pub log_bsize: u32,
    pub log_blocks: u32,
    pub log_version: u8,
    pub log_sectsz: u32,
    pub log_sunit: u32,
    pub lazy_count: u8,
    pub realtime: String,
    pub rt_extsz: u64,
    pub rt_blocks: u64,
    pub rt_extents: u64,
    pub uuid: String,
    pub label: String,
}

impl GeometryReport {
    /// Of a filesystem whose data device the caller calls `name`. A log or realtime section on a device of its own is called
    /// `external`; who knows its name sets [`log`](Self::log) or [`realtime`](Self::realtime).
    pub fn of(name: &str, g: &Geometry, sb: &Superblock) -> Self {
        let f = &g.features;
        let bit = u8::from;
        Self {
            meta_data: name.to_owned(),
            isize: g.inode_size,
            agcount: g.ag_count,
            agsize: g.agblocks,
            sectsz: g.sector_size,
            attr: 2,
            projid32bit: bit(f.features2.contains(Features2::PROJID32)),
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
            log: Self::log_name(g.log_start.0 != 0),
            log_bsize: g.block_size,
            log_blocks: g.log_blocks,
            log_version: 2,
            log_sectsz: g.log_sector_size,
            log_sunit: Self::log_unit(g.log_stripe_unit, g.block_size),
            lazy_count: bit(f.lazy_count()),
            realtime: Self::realtime_name(g.rt_blocks),
            rt_extsz: u64::from(g.rt_extent_size) << g.block_log,
            rt_blocks: g.rt_blocks,
            rt_extents: g.rt_extents,
            uuid: uuid::Uuid::from_bytes(g.uuid).to_string(),
            label: crate::text::escape(sb.fname.split(|b| *b == 0).next().unwrap_or(&[])),
        }
    }

    pub(crate) fn log_name(internal: bool) -> String {
        if internal { "internal log" } else { "external" }.to_owned()
    }
    pub(crate) fn realtime_name(blocks: u64) -> String {
        if blocks == 0 { "none" } else { "external" }.to_owned()
    }
    /// The log's stripe unit, of so many bytes, in blocks.
    pub(crate) fn log_unit(bytes: u32, block_size: u32) -> u32 {
        if bytes > 1 { bytes / block_size.max(1) } else { 0 }
    }

    /// The layout of mkfs.xfs 6.1; features that it does not know get a line of their own where they are on.
    pub fn render(&self) -> String {
        let r = self;
        let mut out = format!(
            "meta-data={:<22} isize={:<6} agcount={}, agsize={} blks\n",
            r.meta_data, r.isize, r.agcount, r.agsize
        );
        let mut line = |name: &str, first: &str, rest: String| {
            out.push_str(&format!("{name:<9}={first:<22} {rest}\n"));
        };
        line("", "", format!("sectsz={:<5} attr={}, projid32bit={}", r.sectsz, r.attr, r.projid32bit));
        line("", "", format!("crc={:<8} finobt={}, sparse={}, rmapbt={}", r.crc, r.finobt, r.sparse, r.rmapbt));
        line(
            "",
            "",
            format!("reflink={:<4} bigtime={} inobtcount={} nrext64={}", r.reflink, r.bigtime, r.inobtcount, r.nrext64),
        );
        if r.exchange + r.parent + r.metadir > 0 {
            line("", "", format!("exchange={:<3} parent={}, metadir={}", r.exchange, r.parent, r.metadir));
        }
        line("data", "", format!("bsize={:<6} blocks={}, imaxpct={}", r.bsize, r.blocks, r.imaxpct));
        line("", "", format!("sunit={:<6} swidth={} blks", r.sunit, r.swidth));
        let naming = format!("version {}", r.naming_version);
        line("naming", &naming, format!("bsize={:<6} ascii-ci={}, ftype={}", r.naming_bsize, r.ascii_ci, r.ftype));
        line("log", &r.log, format!("bsize={:<6} blocks={}, version={}", r.log_bsize, r.log_blocks, r.log_version));
        line("", "", format!("sectsz={:<5} sunit={} blks, lazy-count={}", r.log_sectsz, r.log_sunit, r.lazy_count));
        line(
            "realtime",
            &r.realtime,
            format!("extsz={:<6} blocks={}, rtextents={}", r.rt_extsz, r.rt_blocks, r.rt_extents),
        );
        out
    }
}
