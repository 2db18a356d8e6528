//! From options and devices to every number of the new filesystem. No I/O: a refusal here leaves the targets untouched.

use super::options::{Devices, Options};
use super::{agsize, features, logsize, realtime, sizes, stripes};
use crate::error::{Error, Result};
use crate::format::features::{Features, Version};
use crate::format::superblock::Superblock;
use crate::geometry::{Geometry, GeometryReport};
use crate::units::AgNumber;

pub(super) const MIB: u64 = 1 << 20;
pub(super) const GIB: u64 = 1 << 30;
pub(super) const TIB: u64 = 1 << 40;

/// Every number of a filesystem that is about to be made.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The numbers as the rest of the library knows them.
    pub geometry: Geometry,
    /// The superblock before the first inode is made.
    pub superblock: Superblock,
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
    pub(super) rt_groups: u64,
    pub(super) rt_group_extents: u64,
    pub(super) root_ino: u64,
    pub(super) uuid: [u8; 16],
    pub(super) label: [u8; 12],
}

pub(super) fn refuse<T>(option: &str, value: impl std::fmt::Display, allowed: impl std::fmt::Display) -> Result<T> {
    Err(Error::invalid(format!("{option}={value} is not possible: {allowed}")))
}

pub(super) fn power_of_two(option: &str, value: u32, low: u32, high: u32) -> Result<u32> {
    if value.is_power_of_two() && (low..=high).contains(&value) {
        return Ok(value);
    }
    if low >= high {
        return refuse(option, value, format_args!("only {high} is possible here"));
    }
    refuse(option, value, format_args!("it must be a power of two from {low} to {high}"))
}

impl Plan {
    /// The numbers; names of the devices as the caller calls them.
    pub fn report(&self, data: &str, log: Option<&str>, rt: Option<&str>) -> GeometryReport {
        let mut report = GeometryReport::of(data, &self.geometry, &self.superblock);
        log.unwrap_or("internal log").clone_into(&mut report.log);
        rt.unwrap_or("none").clone_into(&mut report.realtime);
        report
    }
}

/// Chooses every number, or says in one sentence what is wrong.
///
/// # Errors
/// [`Error::Invalid`] with the option, its value and the allowed range.
pub fn plan(options: &Options, devices: &Devices) -> Result<Plan> {
    let mut warnings = Vec::new();
    let mut draft = numbers(options, devices, &mut warnings)?;
    logsize::choose(options, devices, &mut draft, &mut warnings)?;
    draft.root_ino = root_ino(&draft)?;
    let geometry = draft.geometry()?;
    Ok(Plan {
        geometry,
        superblock: super::superblock::build(&draft),
        log_internal: devices.log.is_none(),
        has_rt: devices.rt.is_some(),
        hints: hints(options, &draft)?,
        warnings,
    })
}

/// Everything but the log and the root inode.
fn numbers(options: &Options, devices: &Devices, warnings: &mut Vec<String>) -> Result<Draft> {
    let block_size = power_of_two("-b size", options.block_size.unwrap_or(4096), 1024, 65536)?;
    let block_log = block_size.trailing_zeros() as u8;
    let sector_size = sizes::sector(options, devices, block_size)?;
    let inode_size = sizes::inode_size(options, block_size)?;
    let dir_size = options.naming.size.unwrap_or(block_size.max(4096));
    power_of_two("-n size", dir_size, block_size.max(4096), 65536)?;
    let features = features::features(options, devices)?;
    let mut draft = Draft {
        block_size,
        block_log,
        sector_size,
        log_sector_size: sizes::log_sector(options, devices, sector_size, warnings)?,
        inode_size,
        dir_log: dir_size.trailing_zeros() as u8 - block_log,
        features,
        blocks: sizes::data_blocks(options, devices, block_log, warnings)?,
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
        rt_groups: 0,
        rt_group_extents: 0,
        root_ino: crate::units::NULL_INO,
        uuid: options.metadata.uuid.unwrap_or_else(|| uuid::Uuid::new_v4().into_bytes()),
        label: sizes::label(options)?,
    };
    if draft.sector_size > 512 || draft.log_sector_size > 512 {
        draft.features.version |= Version::SECTOR;
    }
    stripes::stripes(options, devices, &mut draft, warnings)?;
    agsize::groups(options, &mut draft, warnings)?;
    draft.imax_pct = match options.inode.maxpct.unwrap_or(0) {
        0 => sizes::default_inode_percent(draft.blocks << block_log),
        p if p <= 100 => p,
        p => return refuse("-i maxpct", p, "it must be from 0 to 100"),
    };
    realtime::realtime(options, devices, &mut draft, warnings)?;
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
    use super::{Draft, numbers};

    /// The numbers before the log is chosen.
    pub(in super::super) fn draft(options: &Options, size: u64) -> Draft {
        numbers(options, &Devices::file(size), &mut Vec::new()).expect("a filesystem")
    }
}
