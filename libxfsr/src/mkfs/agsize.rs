//! How the data section is cut into allocation groups.

use super::layout::{Draft, GIB, MIB, TIB, refuse};
use super::options::Options;
use crate::error::Result;

/// Smallest AG that mkfs makes.
const MIN_AG_BYTES: u64 = 16 * MIB;

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

pub(super) fn groups(options: &Options, d: &mut Draft, warnings: &mut Vec<String>) -> Result<()> {
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
