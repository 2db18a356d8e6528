//! Sizes of sectors, inodes and the data section, and the label.

use super::layout::{MIB, TIB, power_of_two, refuse};
use super::options::{Devices, Options};
use crate::error::{Error, Result};

/// Smallest data section.
const MIN_DATA_BYTES: u64 = 300 * MIB;

pub(super) fn sector(options: &Options, devices: &Devices, block_size: u32) -> Result<u32> {
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

/// Blocks of a size that was asked for. As in mkfs.xfs it must be in sectors of 512 bytes, and a part of a block is left off.
pub(super) fn whole_blocks(option: &str, bytes: u64, block_log: u8, warnings: &mut Vec<String>) -> Result<u64> {
    if !bytes.is_multiple_of(512) {
        return refuse(option, bytes, "it must be a multiple of 512");
    }
    let blocks = bytes >> block_log;
    if blocks << block_log != bytes {
        let (size, used) = (1u64 << block_log, blocks << block_log);
        warnings.push(format!("{option}={bytes} is not a multiple of the block size, {size}: {used} bytes are used"));
    }
    Ok(blocks)
}

pub(super) fn log_sector(
    options: &Options,
    devices: &Devices,
    sector_size: u32,
    warnings: &mut Vec<String>,
) -> Result<u32> {
    let data_given = options.sector_size.or(options.data.sector_size).is_some();
    match (devices.log, options.log.sector_size) {
        // As in mkfs.xfs it matters which option gave the data's.
        (None, Some(s)) if s != sector_size && options.sector_size.is_none() => refuse(
            "-l sectsize",
            s,
            format_args!("an internal log has the data section's sectors, {sector_size} bytes"),
        ),
        (_, Some(s)) if s != sector_size && data_given => {
            warnings.push(format!(
                "-l sectsize={s} changes nothing: -s size gives the log's sectors too, {sector_size} bytes"
            ));
            Ok(sector_size)
        }
        (None, _) => Ok(sector_size),
        (Some(_), Some(s)) => power_of_two("-l sectsize", s, 512, 32768),
        (Some(d), None) => Ok(options
            .sector_size
            .or(options.data.sector_size)
            .unwrap_or(512)
            .max(d.physical_sector)
            .max(d.logical_sector)),
    }
}

pub(super) fn inode_size(options: &Options, block_size: u32) -> Result<u32> {
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

pub(super) fn label(options: &Options) -> Result<[u8; 12]> {
    let mut out = [0; 12];
    if let Some(l) = &options.label {
        match out.get_mut(..l.len()) {
            Some(room) => room.copy_from_slice(l.as_bytes()),
            None => return refuse("-L", l, "a label has at most 12 bytes"),
        }
    }
    Ok(out)
}

pub(super) fn data_blocks(
    options: &Options,
    devices: &Devices,
    block_log: u8,
    warnings: &mut Vec<String>,
) -> Result<u64> {
    let device = devices.data.size;
    let bytes = match options.data.size {
        Some(s) if s > device => {
            return refuse("-d size", s, format_args!("the device has {device} bytes"));
        }
        Some(s) => whole_blocks("-d size", s, block_log, warnings)? << block_log,
        None => device,
    };
    if bytes < MIN_DATA_BYTES && options.data.size.is_none() {
        return Err(Error::invalid(format!(
            "the device has {bytes} bytes, and a data section needs at least {MIN_DATA_BYTES} (300 MiB)"
        )));
    }
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

pub(super) fn default_inode_percent(bytes: u64) -> u8 {
    match bytes {
        b if b < TIB => 25,
        b if b < 50 * TIB => 5,
        _ => 1,
    }
}
