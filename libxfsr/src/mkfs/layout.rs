//! From options and devices to every number of the new filesystem. No I/O: a refusal here leaves the targets untouched.

use super::logsize;
use super::options::{Devices, Options};
use crate::error::{Error, Result};
use crate::format::features::{Features, Features2, Incompat, RoCompat, Version};
use crate::format::superblock::Superblock;
use crate::geometry::Geometry;
use crate::units::AgNumber;

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
const TIB: u64 = 1 << 40;
/// Smallest AG that mkfs makes.
const MIN_AG_BYTES: u64 = 16 * MIB;
/// Smallest data section.
const MIN_DATA_BYTES: u64 = 300 * MIB;
/// Largest log stripe unit; what is larger by the data's geometry becomes [`DEFAULT_LOG_SUNIT`].
const MAX_LOG_SUNIT: u64 = 256 << 10;
const DEFAULT_LOG_SUNIT: u64 = 32 << 10;

/// Every number of a filesystem that is about to be made.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The numbers as the rest of the library knows them.
    pub geometry: Geometry,
    /// The superblock before the first inode is made.
    pub superblock: Superblock,
    /// Label, padded with zeros.
    pub label: [u8; 12],
    /// Whether the log lies in the data section.
    pub log_internal: bool,
    /// Whether a realtime device was named.
    pub has_rt: bool,
    /// Values that the inodes made by mkfs carry.
    pub(super) hints: Hints,
    /// What a person should know; not errors.
    pub warnings: Vec<String>,
}

/// Flags and hints of the inodes that mkfs makes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Hints {
    pub(super) rtinherit: bool,
    pub(super) cowextsize: u32,
    pub(super) extsize: u32,
    pub(super) projid: u32,
}

/// Numbers on the way to a [`Plan`].
pub(super) struct Draft {
    pub(super) block_size: u32,
    pub(super) block_log: u8,
    pub(super) sector_size: u32,
    pub(super) log_sector_size: u32,
    pub(super) inode_size: u32,
    pub(super) dir_log: u8,
    pub(super) features: Features,
    pub(super) blocks: u64,
    pub(super) agblocks: u64,
    pub(super) ag_count: u64,
    pub(super) sunit: u64,
    pub(super) swidth: u64,
    pub(super) log_sunit: u64,
    pub(super) log_start: u64,
    pub(super) log_blocks: u64,
    pub(super) imax_pct: u8,
    pub(super) rt_blocks: u64,
    pub(super) rt_extsize: u64,
    pub(super) root_ino: u64,
    pub(super) uuid: [u8; 16],
    pub(super) label: [u8; 12],
}

pub(super) fn refuse<T>(option: &str, value: impl std::fmt::Display, allowed: impl std::fmt::Display) -> Result<T> {
    Err(Error::invalid(format!("{option}={value} is not possible: {allowed}")))
}

fn power_of_two(option: &str, value: u32, low: u32, high: u32) -> Result<u32> {
    if value.is_power_of_two() && (low..=high).contains(&value) {
        return Ok(value);
    }
    refuse(option, value, format_args!("it must be a power of two from {low} to {high}"))
}

/// Chooses every number, or says in one sentence what is wrong.
///
/// # Errors
/// [`Error::Invalid`] with the option, its value and the allowed range.
pub fn plan(options: &Options, devices: &Devices) -> Result<Plan> {
    let mut warnings = Vec::new();
    let mut draft = sizes(options, devices, &mut warnings)?;
    logsize::choose(options, devices, &mut draft)?;
    draft.root_ino = root_ino(&draft)?;
    let geometry = draft.geometry()?;
    Ok(Plan {
        geometry,
        superblock: super::superblock::build(&draft),
        label: draft.label,
        log_internal: devices.log.is_none(),
        has_rt: devices.rt.is_some(),
        hints: hints(options, &draft)?,
        warnings,
    })
}

/// Everything but the log and the root inode.
fn sizes(options: &Options, devices: &Devices, warnings: &mut Vec<String>) -> Result<Draft> {
    let block_size = power_of_two("-b size", options.block_size.unwrap_or(4096), 1024, 65536)?;
    let block_log = block_size.trailing_zeros() as u8;
    let sector_size = sector(options, devices, block_size)?;
    let inode_size = inode_size(options, block_size)?;
    let dir_size = options.naming.size.unwrap_or(block_size.max(4096));
    power_of_two("-n size", dir_size, block_size.max(4096), 65536)?;
    let features = features(options, devices)?;
    let mut draft = Draft {
        block_size,
        block_log,
        sector_size,
        log_sector_size: log_sector(options, devices, sector_size)?,
        inode_size,
        dir_log: dir_size.trailing_zeros() as u8 - block_log,
        features,
        blocks: data_blocks(options, devices, block_log)?,
        agblocks: 0,
        ag_count: 0,
        sunit: 0,
        swidth: 0,
        log_sunit: 0,
        log_start: 0,
        log_blocks: 0,
        imax_pct: 0,
        rt_blocks: 0,
        rt_extsize: 1,
        root_ino: crate::units::NULL_INO,
        uuid: options.metadata.uuid.unwrap_or_else(|| uuid::Uuid::new_v4().into_bytes()),
        label: label(options)?,
    };
    if draft.sector_size > 512 || draft.log_sector_size > 512 {
        draft.features.version |= Version::SECTOR;
    }
    stripes(options, devices, &mut draft, warnings)?;
    groups(options, &mut draft, warnings)?;
    draft.imax_pct = match options.inode.maxpct.unwrap_or(0) {
        0 => default_inode_percent(draft.blocks << block_log),
        p if p <= 100 => p,
        p => return refuse("-i maxpct", p, "it must be from 0 to 100"),
    };
    realtime(options, devices, &mut draft)?;
    Ok(draft)
}

impl Draft {
    /// The geometry as far as the numbers are known.
    pub(super) fn geometry(&self) -> Result<Geometry> {
        Geometry::new(&super::superblock::build(self))
    }
    /// Blocks at the start of an AG: headers and one root block for each tree.
    pub(super) fn prealloc(&self) -> u64 {
        let f = &self.features;
        u64::from((4 * self.sector_size).div_ceil(self.block_size))
            + 3
            + u64::from(f.finobt())
            + u64::from(f.rmapbt())
            + u64::from(f.reflink())
    }
    pub(super) fn max_ag_blocks(&self) -> u64 {
        (TIB - 1) >> self.block_log
    }
}

fn sector(options: &Options, devices: &Devices, block_size: u32) -> Result<u32> {
    let given = match (options.sector_size, options.data.sector_size) {
        (Some(a), Some(b)) if a != b => {
            return refuse("-d sectsize", b, format_args!("-s size={a} says otherwise; give one of them"));
        }
        (a, b) => a.or(b),
    };
    let logical = devices.data.logical_sector;
    let size = match given {
        Some(s) => power_of_two("-s size", s, 512, 32768)?,
        None if devices.data.physical_sector <= block_size => devices.data.physical_sector.max(logical),
        None => logical,
    };
    if size > block_size {
        return refuse("-s size", size, format_args!("a sector is at most a block, {block_size} bytes"));
    }
    if size < logical {
        return refuse("-s size", size, format_args!("the device's sectors have {logical} bytes; give at least that"));
    }
    Ok(size)
}

fn log_sector(options: &Options, devices: &Devices, sector_size: u32) -> Result<u32> {
    match (devices.log, options.log.sector_size) {
        (None, Some(s)) if s != sector_size => refuse(
            "-l sectsize",
            s,
            format_args!("an internal log has the data section's sectors, {sector_size} bytes"),
        ),
        (None, _) => Ok(sector_size),
        (Some(_), Some(s)) => power_of_two("-l sectsize", s, 512, 32768),
        (Some(d), None) => Ok(options.sector_size.unwrap_or(512).max(d.physical_sector).max(d.logical_sector)),
    }
}

fn inode_size(options: &Options, block_size: u32) -> Result<u32> {
    let most = (block_size / 2).min(2048);
    match (options.inode.size, options.inode.perblock) {
        (Some(s), Some(_)) => refuse("-i size", s, "-i perblock gives the size too; give one of them"),
        (Some(s), None) => power_of_two("-i size", s, 512, most),
        (None, Some(n)) => {
            let high = block_size / 512;
            let low = (block_size / 2048).max(2);
            power_of_two("-i perblock", n, low, high).map(|n| block_size / n)
        }
        (None, None) => Ok(512),
    }
}

fn label(options: &Options) -> Result<[u8; 12]> {
    let mut out = [0; 12];
    if let Some(l) = &options.label {
        match out.get_mut(..l.len()) {
            Some(room) => room.copy_from_slice(l.as_bytes()),
            None => return refuse("-L", l, "a label has at most 12 bytes"),
        }
    }
    Ok(out)
}

fn features(options: &Options, devices: &Devices) -> Result<Features> {
    let (m, rt) = (&options.metadata, devices.rt.is_some());
    let finobt = m.finobt.unwrap_or(true);
    if !finobt && m.inobtcount == Some(true) {
        return refuse("-m inobtcount", 1, "it counts the blocks of finobt, which -m finobt=0 turns off");
    }
    let reflink = m.reflink.unwrap_or(!rt);
    if rt && reflink {
        return refuse("-m reflink", 1, "it does not go with a realtime device; give -m reflink=0");
    }
    if rt && m.rmapbt == Some(true) {
        return refuse("-m rmapbt", 1, "it does not go with a realtime device; give -m rmapbt=0");
    }
    if !reflink && options.data.cowextsize.is_some_and(|c| c > 0) {
        return refuse("-d cowextsize", options.data.cowextsize.unwrap_or(0), "it needs -m reflink=1");
    }
    if m.metadir == Some(true) {
        return refuse("-m metadir", 1, "this version cannot make a metadata directory tree; leave the option out");
    }
    let mut ro = RoCompat::empty();
    ro.set(RoCompat::FINOBT, finobt);
    ro.set(RoCompat::INOBTCNT, m.inobtcount.unwrap_or(finobt));
    ro.set(RoCompat::REFLINK, reflink);
    ro.set(RoCompat::RMAPBT, m.rmapbt.unwrap_or(false));
    let mut incompat = Incompat::FTYPE;
    incompat.set(Incompat::SPINODES, options.inode.sparse.unwrap_or(true));
    incompat.set(Incompat::BIGTIME, m.bigtime.unwrap_or(true));
    incompat.set(Incompat::NREXT64, options.inode.nrext64.unwrap_or(false));
    incompat.set(Incompat::EXCHRANGE, options.inode.exchange.unwrap_or(false));
    incompat.set(Incompat::PARENT, options.naming.parent.unwrap_or(false));
    let mut version =
        Version::NLINK | Version::ALIGN | Version::LOGV2 | Version::EXTFLG | Version::DIRV2 | Version::MOREBITS;
    version.set(Version::BORG, options.naming.ascii_ci);
    // Parent pointers are attributes: each inode may have some from the start.
    version.set(Version::ATTR, incompat.contains(Incompat::PARENT));
    Ok(Features {
        version,
        features2: Features2::LAZYSBCOUNT | Features2::ATTR2 | Features2::PROJID32 | Features2::CRC,
        compat: 0,
        ro_compat: ro,
        incompat,
        log_incompat: crate::format::features::LogIncompat::empty(),
    })
}

fn data_blocks(options: &Options, devices: &Devices, block_log: u8) -> Result<u64> {
    let device = devices.data.size;
    let bytes = match options.data.size {
        Some(s) if s > device => {
            return refuse("-d size", s, format_args!("the device has {device} bytes"));
        }
        Some(s) if !s.is_multiple_of(1 << block_log) => {
            return refuse(
                "-d size",
                s,
                format_args!("it must be a multiple of the block size, {}", 1u64 << block_log),
            );
        }
        s => s.unwrap_or(device),
    };
    if bytes < MIN_DATA_BYTES {
        return refuse(
            "-d size",
            bytes,
            format_args!("the data section needs at least {MIN_DATA_BYTES} bytes (300 MiB)"),
        );
    }
    if bytes > i64::MAX as u64 {
        return refuse("-d size", bytes, "the data section has less than 8 EiB");
    }
    Ok(bytes >> block_log)
}

/// Stripe unit and width of the data section, in blocks.
fn stripes(options: &Options, devices: &Devices, d: &mut Draft, warnings: &mut Vec<String>) -> Result<()> {
    let o = &options.data;
    let bs = u64::from(d.block_size);
    let by_bytes = o.su.is_some() || o.sw.is_some();
    let by_sectors = o.sunit.is_some() || o.swidth.is_some();
    if by_bytes && by_sectors {
        return refuse("-d su", o.su.unwrap_or(0), "su and sw exclude sunit and swidth; give one of the pairs");
    }
    if o.noalign && (by_bytes || by_sectors) {
        return refuse("-d noalign", 1, "it excludes su, sw, sunit and swidth");
    }
    let (unit, width) = if by_bytes {
        let (Some(su), Some(sw)) = (o.su, o.sw) else {
            return refuse("-d su", o.su.unwrap_or(0), "su and sw must be given together");
        };
        if !su.is_multiple_of(u64::from(d.sector_size)) {
            return refuse("-d su", su, format_args!("it must be a multiple of the sector size, {}", d.sector_size));
        }
        let Some(width) = su.checked_mul(sw).filter(|w| *w < 1 << 40) else {
            return refuse("-d sw", sw, "the stripe width must stay below 1 TiB");
        };
        (su, width)
    } else if by_sectors {
        let (Some(sunit), Some(swidth)) = (o.sunit, o.swidth) else {
            return refuse("-d sunit", o.sunit.unwrap_or(0), "sunit and swidth must be given together");
        };
        if sunit >= 1 << 31 || swidth >= 1 << 31 {
            return refuse("-d swidth", swidth, "it must be below 2147483648");
        }
        (sunit * 512, swidth * 512)
    } else if o.noalign {
        (0, 0)
    } else {
        let (unit, width) = (devices.data.stripe_unit, devices.data.stripe_width);
        let usable = unit > 0 && unit.is_multiple_of(bs) && width.is_multiple_of(unit) && width >= unit;
        if unit > 0 && !usable {
            warnings.push(format!("the device's stripe geometry ({unit} and {width} bytes) does not fit blocks of {bs} bytes and is ignored"));
        }
        if usable { (unit, width) } else { (0, 0) }
    };
    if (unit == 0) != (width == 0) {
        return refuse("-d swidth", width / 512, "stripe unit and width must both be zero or both be set");
    }
    if unit > 0 && !width.is_multiple_of(unit) {
        return refuse(
            "-d swidth",
            width / 512,
            format_args!("it must be a multiple of the stripe unit, {}", unit / 512),
        );
    }
    if !unit.is_multiple_of(bs) {
        return refuse("-d su", unit, format_args!("it must be a multiple of the block size, {bs}"));
    }
    if unit > u64::from(u32::MAX) {
        return refuse("-d su", unit, "it must be below 4 GiB");
    }
    (d.sunit, d.swidth) = (unit / bs, width / bs);
    if d.sunit > 0 {
        d.features.version |= Version::DALIGN;
    }
    log_stripe(options, devices, d, warnings)
}

/// Stripe unit of the log in blocks: as asked, else a block where sectors are large, else that of the data.
fn log_stripe(options: &Options, devices: &Devices, d: &mut Draft, warnings: &mut Vec<String>) -> Result<()> {
    let bs = u64::from(d.block_size);
    let (name, given) = match (options.log.su, options.log.sunit) {
        (Some(su), Some(_)) => return refuse("-l su", su, "it excludes -l sunit; give one of them"),
        (su, None) => ("-l su", su),
        (None, Some(sunit)) => ("-l sunit", Some(sunit.saturating_mul(512))),
    };
    let bytes = match given {
        Some(b) if b > MAX_LOG_SUNIT => {
            return refuse(name, b, format_args!("the log's stripe unit is at most {MAX_LOG_SUNIT} bytes"));
        }
        Some(b) if !b.is_multiple_of(bs) => {
            return refuse(name, b, format_args!("it must be a multiple of the block size, {bs}"));
        }
        Some(b) => b,
        None if d.log_sector_size > 512 => bs,
        None if devices.log.is_none() && d.sunit > 0 => d.sunit * bs,
        None => 0,
    };
    if given.is_some() && bytes > 0 && bytes < u64::from(d.log_sector_size) {
        return refuse(name, bytes, format_args!("it must be at least a log sector, {}", d.log_sector_size));
    }
    d.log_sunit = bytes / bs;
    if bytes > MAX_LOG_SUNIT {
        d.log_sunit = DEFAULT_LOG_SUNIT / bs;
        warnings.push(format!(
            "the stripe unit of {bytes} bytes is too large for the log (at most {MAX_LOG_SUNIT}), which gets {} bytes",
            d.log_sunit * bs
        ));
    }
    Ok(())
}

/// Blocks of an AG by the size of the data section. A striped one gets more AGs, for more parallel work.
fn default_ag_blocks(d: &Draft) -> u64 {
    let bytes = d.blocks << d.block_log;
    let shift = if d.swidth == 0 && bytes >= 4 * TIB || bytes >= 32 * TIB {
        return d.max_ag_blocks();
    } else if d.swidth == 0 && bytes >= 128 * MIB {
        2
    } else {
        match bytes {
            b if b > 512 * GIB => 5,
            b if b > 8 * GIB => 4,
            b if b >= 128 * MIB => 3,
            b if b >= 64 * MIB => 2,
            b if b >= 32 * MIB => 1,
            _ => 0,
        }
    };
    d.blocks.div_ceil(1 << shift).min(d.max_ag_blocks())
}

fn groups(options: &Options, d: &mut Draft, warnings: &mut Vec<String>) -> Result<()> {
    let (min, max) = (MIN_AG_BYTES >> d.block_log, d.max_ag_blocks());
    match (options.data.agcount, options.data.agsize) {
        (Some(c), Some(_)) => return refuse("-d agcount", c, "agsize gives the count too; give one of them"),
        (Some(c), None) => {
            let most = d.blocks / min;
            let least = d.blocks.div_ceil(max);
            if c < least || c > most {
                return refuse(
                    "-d agcount",
                    c,
                    format_args!("with this size it must be from {least} to {most}, as an AG has 16 MiB to 1 TiB"),
                );
            }
            d.agblocks = d.blocks.div_ceil(c);
            d.ag_count = d.blocks.div_ceil(d.agblocks);
            if d.ag_count != c {
                return refuse("-d agcount", c, format_args!("AGs of equal size give {} of them", d.ag_count));
            }
        }
        (None, Some(s)) => {
            if s % u64::from(d.block_size) != 0 {
                return refuse(
                    "-d agsize",
                    s,
                    format_args!("it must be a multiple of the block size, {}", d.block_size),
                );
            }
            if !(min..=max).contains(&(s >> d.block_log)) {
                return refuse("-d agsize", s, "it must be from 16 MiB to just under 1 TiB");
            }
            d.agblocks = s >> d.block_log;
        }
        (None, None) => d.agblocks = default_ag_blocks(d),
    }
    align_groups(options, d, warnings)?;
    if d.ag_count == 0 {
        d.ag_count = d.blocks.div_ceil(d.agblocks);
    }
    // A last AG of less than 16 MiB is left unused.
    let last = d.blocks % d.agblocks;
    if last > 0 && last < min {
        if options.data.agcount.is_some() || d.ag_count < 2 {
            return refuse(
                "-d agcount",
                d.ag_count,
                format_args!("the last AG would have {last} blocks, it needs at least {min}"),
            );
        }
        d.ag_count -= 1;
        d.blocks = d.ag_count * d.agblocks;
    }
    if d.agblocks > d.blocks && d.ag_count == 1 {
        if options.data.agsize.is_some() {
            return refuse("-d agsize", d.agblocks << d.block_log, "an AG is at most the data section");
        }
        d.agblocks = d.blocks;
    }
    if d.ag_count < 2 {
        return refuse(
            "-d agcount",
            d.ag_count,
            "a filesystem needs at least 2 AGs, so that there is a second superblock",
        );
    }
    if d.ag_count >= u64::from(u32::MAX) {
        return refuse("-d agcount", d.ag_count, "there are at most 4294967294 AGs");
    }
    Ok(())
}

/// AGs start on stripe units, but not all of them on the same disk of a stripe.
fn align_groups(options: &Options, d: &mut Draft, warnings: &mut Vec<String>) -> Result<()> {
    let (min, max) = (MIN_AG_BYTES >> d.block_log, d.max_ag_blocks());
    if d.sunit == 0 {
        return Ok(());
    }
    if !d.agblocks.is_multiple_of(d.sunit) {
        let mut size = d.agblocks.next_multiple_of(d.sunit);
        if size > max {
            size -= d.sunit;
        }
        if !(min..=max).contains(&size) {
            return refuse(
                "-d su",
                d.sunit * u64::from(d.block_size),
                "no AG size from 16 MiB to 1 TiB is a multiple of it",
            );
        }
        if options.data.agsize.is_some() {
            warnings.push(format!("agsize rounded to {size} blocks, a multiple of the stripe unit"));
        }
        d.agblocks = size;
        d.ag_count = d.blocks.div_ceil(size);
    }
    let count = d.blocks.div_ceil(d.agblocks);
    if d.swidth != d.sunit && d.agblocks.is_multiple_of(d.swidth) && count > 1 {
        if options.data.agsize.is_some() || options.data.agcount.is_some() {
            warnings.push(
                "the AG size is a multiple of the stripe width, so that all AG headers lie on the same disk; an AG size that is one stripe unit larger or smaller avoids that"
                    .to_owned(),
            );
            return Ok(());
        }
        let mut size = d.agblocks - d.sunit;
        if size < min {
            size = d.agblocks + d.sunit;
        }
        d.agblocks = size;
        d.ag_count = d.blocks.div_ceil(size);
    }
    Ok(())
}

fn default_inode_percent(bytes: u64) -> u8 {
    match bytes {
        b if b < TIB => 25,
        b if b < 50 * TIB => 5,
        _ => 1,
    }
}

fn realtime(options: &Options, devices: &Devices, d: &mut Draft) -> Result<()> {
    let bs = u64::from(d.block_size);
    let o = &options.realtime;
    let width = devices.rt.map_or(0, |rt| if o.noalign { 0 } else { rt.stripe_width });
    let bytes = match o.extsize {
        Some(e) if !e.is_multiple_of(bs) => {
            return refuse("-r extsize", e, format_args!("it must be a multiple of the block size, {bs}"));
        }
        Some(e) if !(4096..=GIB).contains(&e) => return refuse("-r extsize", e, "it must be from 4 KiB to 1 GiB"),
        Some(e) => e,
        None if width > 0 && width.is_multiple_of(bs) && (4096..=GIB).contains(&width) => width,
        None => bs.max(4096),
    };
    d.rt_extsize = bytes / bs;
    let Some(rt) = devices.rt else {
        if let Some(s) = o.size {
            return refuse("-r size", s, "there is no realtime device; give -r rtdev");
        }
        return Ok(());
    };
    let size = match o.size {
        Some(s) if s > rt.size => return refuse("-r size", s, format_args!("the device has {} bytes", rt.size)),
        Some(s) if !s.is_multiple_of(bs) => {
            return refuse("-r size", s, format_args!("it must be a multiple of the block size, {bs}"));
        }
        s => s.unwrap_or(rt.size),
    };
    d.rt_blocks = size / bs;
    if d.rt_blocks / d.rt_extsize == 0 {
        return refuse("-r size", size, format_args!("a realtime section needs at least one extent, {bytes} bytes"));
    }
    Ok(())
}

/// The root inode: in the first aligned chunk behind what every AG starts with.
fn root_ino(d: &Draft) -> Result<u64> {
    let draft = d.geometry()?;
    let groups = super::groups::Group::new(d.block_size, &draft, AgNumber(0));
    let unit = d.sunit as u32;
    let chunk = groups.chunk_place(&draft, unit).ok_or_else(|| {
        Error::invalid("AG 0 has no room for the root directory's inode chunk; make the AGs larger or the log smaller")
    })?;
    // xfs_repair computes the place from the sizes alone; a gap in front of a log in AG 0 must not have drawn the chunk in.
    let expected = groups.expected_chunk(&draft, unit);
    if expected != Some(chunk) {
        return Err(Error::invalid(
            "-l agnum=0 is not possible with these stripe units: the root inode would not lie where xfs_repair looks for it; put the log into another AG",
        ));
    }
    Ok(u64::from(draft.block_to_agino(chunk).0))
}

fn hints(options: &Options, d: &Draft) -> Result<Hints> {
    let o = &options.data;
    let most = ((1u64 << 21) - 1).min(d.agblocks / 2);
    for (name, value) in [("-d cowextsize", o.cowextsize), ("-d extszinherit", o.extszinherit)] {
        if value.is_some_and(|v| u64::from(v) > most) {
            return refuse(name, value.unwrap_or(0), format_args!("it must be from 0 to {most} blocks, half an AG"));
        }
    }
    if o.rtinherit
        && let Some(e) = o.extszinherit
        && !u64::from(e).is_multiple_of(d.rt_extsize)
    {
        return refuse("-d extszinherit", e, format_args!("with rtinherit it must be a multiple of {}", d.rt_extsize));
    }
    Ok(Hints {
        rtinherit: o.rtinherit,
        cowextsize: o.cowextsize.unwrap_or(0),
        extsize: o.extszinherit.unwrap_or(0),
        projid: o.projinherit.unwrap_or(0),
    })
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::options::{Devices, Options};
    use super::{Draft, sizes};

    /// The numbers before the log is chosen.
    pub(in super::super) fn draft(options: &Options, size: u64) -> Draft {
        sizes(options, &Devices::file(size), &mut Vec::new()).expect("a filesystem")
    }
}
