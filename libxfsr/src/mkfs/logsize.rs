//! How large the log is, and where it lies.

use super::layout::{Draft, refuse};
use super::options::{Devices, Options};
use super::sizes::whole_blocks;
use crate::error::{Error, Result};
use crate::units::AgNumber;

/// Fewest and most blocks of a log, and most bytes.
const MIN_BLOCKS: u64 = 512;
const MAX_BLOCKS: u64 = 1 << 20;
const MAX_BYTES: u64 = (2 << 30) - (10 << 20);
/// Smallest log that mkfs makes: smaller ones stall.
const REALISTIC_BYTES: u64 = 64 << 20;
/// The log gets this share of the data section.
const RATIO: u64 = 2048;

/// Chooses size and place of the log.
pub(super) fn choose(options: &Options, devices: &Devices, d: &mut Draft, warnings: &mut Vec<String>) -> Result<()> {
    let bl = d.block_log;
    let geometry = d.geometry()?;
    let least =
        super::reservation::minimum_log_blocks(&geometry, d.log_sunit).max(MIN_BLOCKS).max(REALISTIC_BYTES >> bl);
    let mut most = MAX_BLOCKS.min(MAX_BYTES >> bl);
    if devices.log.is_none() {
        // Headers, roots, the free list's largest reserve, and one block for each tree to split into.
        let kept = d.prealloc() + 5;
        most = most.min(d.agblocks.saturating_sub(kept + 1));
        if most < least {
            return Err(Error::invalid(format!(
                "an AG has room for a log of {most} blocks, but this filesystem needs at least {least}; make it larger or give fewer AGs"
            )));
        }
    }
    let given = match options.log.size {
        Some(s) => Some(whole_blocks("-l size", s, bl, warnings)?),
        None => None,
    };
    let device = devices.log.map(|l| l.size >> bl);
    let blocks = match (given, device) {
        (Some(n), Some(room)) if n > room => {
            return refuse("-l size", n << bl, format_args!("the log device has {} bytes", room << bl));
        }
        (Some(n), _) => n,
        (None, Some(room)) => room.min(most),
        (None, None) => {
            let by_size = ((d.blocks << bl) / RATIO) >> bl;
            by_size.max(least).min(most)
        }
    };
    if blocks < least || blocks > most {
        return refuse(
            "-l size",
            blocks << bl,
            format_args!("it must be from {} to {} bytes ({least} to {most} blocks)", least << bl, most << bl),
        );
    }
    d.log_blocks =
        if devices.log.is_some() && d.log_sunit == 0 { blocks } else { align_size(d, blocks, given.is_some(), most)? };
    if devices.log.is_some() {
        if let Some(n) = options.log.agnum {
            return refuse("-l agnum", n, "an external log lies in no AG");
        }
        return Ok(());
    }
    let ag = match options.log.agnum {
        Some(n) if u64::from(n) >= d.ag_count => {
            return refuse("-l agnum", n, format_args!("it must be from 0 to {}", d.ag_count - 1));
        }
        Some(n) => n,
        None => (d.ag_count / 2) as u32,
    };
    place(d, &geometry, AgNumber(ag), given.is_some())
}

/// To how many blocks an internal log is aligned: its own stripe unit, or that of the data where it has none.
fn alignment(d: &Draft) -> u64 {
    if d.log_sunit > 0 { d.log_sunit } else { d.sunit.max(1) }
}

/// Rounds to the log's stripe unit.
fn align_size(d: &Draft, blocks: u64, given: bool, most: u64) -> Result<u64> {
    let sunit = alignment(d);
    if blocks.is_multiple_of(sunit) {
        return Ok(blocks);
    }
    if given {
        let unit = sunit << d.block_log;
        return refuse(
            "-l size",
            blocks << d.block_log,
            format_args!("it must be a multiple of the log's stripe unit, {unit}"),
        );
    }
    let up = blocks.next_multiple_of(sunit);
    Ok(if up > most { up - sunit } else { up })
}

fn place(d: &mut Draft, geometry: &crate::geometry::Geometry, ag: AgNumber, given: bool) -> Result<()> {
    let length = u64::from(geometry.ag_blocks(ag));
    // The alignment counts in the filesystem's block numbers, which jump from AG to AG: observed with stripe units that are no
    // power of two.
    let first = geometry.join(ag, crate::units::AgBlock(0)).0;
    let unit = alignment(d);
    let start = (first + d.prealloc()).next_multiple_of(unit) - first;
    // What follows the log must still hold the free list.
    let room = length.saturating_sub(start);
    if d.log_blocks > room {
        if given {
            return refuse(
                "-l size",
                d.log_blocks << d.block_log,
                format_args!("AG {ag} has room for a log of {} bytes", room << d.block_log),
            );
        }
        d.log_blocks = room / unit * unit;
    }
    d.log_start = first + start;
    Ok(())
}
