//! How large the log is, and where it lies.

use super::layout::{Draft, refuse};
use super::options::{Devices, Options};
use super::sizes::whole_blocks;
use crate::error::{Error, Result};
use crate::geometry::{MAX_LOG_BLOCKS, MAX_LOG_BYTES};
use crate::journal::reservation::minimum_log_blocks;
use crate::units::AgNumber;

/// Fewest blocks of a log.
const MIN_BLOCKS: u64 = 512;
/// Smallest log that mkfs makes: smaller ones stall.
const REALISTIC_BYTES: u64 = 64 << 20;
/// The log gets this share of the data section.
const RATIO: u64 = 2048;

/// Chooses size and place of the log.
pub(super) fn choose(options: &Options, devices: &Devices, d: &mut Draft, warnings: &mut Vec<String>) -> Result<()> {
    let bl = d.block_log;
    let geometry = d.geometry()?;
    let least = minimum_log_blocks(&geometry, d.log_sunit << bl).max(MIN_BLOCKS).max(REALISTIC_BYTES >> bl);
    let mut most = MAX_LOG_BLOCKS.min(MAX_LOG_BYTES >> bl);
    if devices.log.is_none() {
        // Headers, roots, the free list's reserve, and one block that stays free.
        let kept = d.prealloc() + 5;
        most = most.min(d.agblocks.saturating_sub(kept));
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

#[cfg(test)]
mod tests {
    use super::super::layout::tests::draft;
    use super::super::options::Options;
    use crate::journal::reservation::minimum_log_blocks;

    /// What mkfs.xfs 6.1 named as the minimum when it refused `-l size=2m`: for 300 MiB, 900 MiB and 1 TiB.
    #[test]
    fn minimum_is_what_mkfs_xfs_names() {
        type Change = fn(&mut Options);
        let table: &[(Change, [u64; 3])] = &[
            (|_| (), [1368, 1566, 2580]),
            (|o| o.block_size = Some(1024), [3527, 4175, 4823]),
            (|o| o.block_size = Some(2048), [2484, 2484, 3096]),
            (|o| o.block_size = Some(8192), [1128, 1128, 1713]),
            (|o| o.block_size = Some(16384), [1002, 1002, 1589]),
            (|o| o.block_size = Some(32768), [548, 939, 1527]),
            (|o| o.block_size = Some(65536), [512, 519, 910]),
            (|o| o.metadata.rmapbt = Some(true), [3075, 3273, 4287]),
            (|o| o.metadata.reflink = Some(false), [857, 857, 924]),
            (|o| (o.metadata.reflink, o.metadata.rmapbt) = (Some(false), Some(true)), [878, 878, 1137]),
            (|o| o.inode.size = Some(2048), [1368, 1566, 2580]),
            (|o| o.naming.size = Some(65536), [2174, 2174, 2580]),
            (|o| o.inode.nrext64 = Some(true), [4049, 4049, 2580]),
            (|o| o.sector_size = Some(4096), [1221, 1419, 2433]),
            (|o| o.log.su = Some(256 << 10), [4608, 4800, 5760]),
            (|o| o.log.su = Some(32 << 10), [1416, 1608, 2640]),
            (|o| (o.data.su, o.data.sw) = (Some(64 << 10), Some(4)), [1872, 1872, 2496]),
            (
                |o| {
                    (o.block_size, o.naming.size) = (Some(1024), Some(65536));
                    o.metadata.rmapbt = Some(true);
                },
                [8910, 8910, 8910],
            ),
        ];
        let mut wrong = Vec::new();
        for (row, (change, expected)) in table.iter().enumerate() {
            let mut options = Options::default();
            change(&mut options);
            for (size, expected) in [300 << 20, 900 << 20, 1 << 40].into_iter().zip(expected) {
                let d = draft(&options, size);
                let found = minimum_log_blocks(&d.geometry().expect("numbers"), d.log_sunit << d.block_log).max(512);
                if found != *expected {
                    wrong.push((row, size >> 20, found, *expected));
                }
            }
        }
        assert_eq!(wrong, []);
    }

    /// What Linux 6.18 named as the minimum when it refused to mount a shorter log with the largest log buffers
    /// (`logbsize=256k`): 1 TiB with parent pointers.
    #[test]
    fn with_parent_pointers_the_kernel_takes_it() {
        let table = [
            (1024, false, false, 4154),
            (1024, true, true, 4862),
            (4096, false, false, 1568),
            (4096, false, true, 2001),
            (4096, true, false, 2004),
            (16384, false, false, 998),
            (16384, true, false, 1275),
            (16384, true, true, 1429),
            (65536, false, false, 700),
            (65536, true, false, 852),
            (65536, true, true, 1127),
        ];
        for (block, rmapbt, nrext64, named) in table {
            let mut options = Options { block_size: Some(block), ..Options::default() };
            options.metadata.rmapbt = Some(rmapbt);
            options.inode.nrext64 = Some(nrext64);
            options.naming.parent = Some(true);
            let d = draft(&options, 1 << 40);
            let found = minimum_log_blocks(&d.geometry().expect("numbers"), d.log_sunit << d.block_log);
            assert_eq!(found, named, "{block} {rmapbt} {nrext64}");
        }
    }
}
