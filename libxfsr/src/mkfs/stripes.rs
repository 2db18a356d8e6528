//! Stripe units of the data section and of the log.

use super::layout::{Draft, GIB, refuse};
use super::options::{Devices, Options};
use crate::error::Result;
use crate::format::features::Version;

/// Largest log stripe unit; what is larger by the data's geometry becomes [`DEFAULT_LOG_SUNIT`].
const MAX_LOG_SUNIT: u64 = 256 << 10;
const DEFAULT_LOG_SUNIT: u64 = 32 << 10;
/// Stripe unit and width of the data section, in blocks.
pub(super) fn stripes(options: &Options, devices: &Devices, d: &mut Draft, warnings: &mut Vec<String>) -> Result<()> {
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
        let small = usable && d.blocks << d.block_log < GIB;
        if small {
            warnings.push(format!(
                "the device's stripe geometry ({unit} and {width} bytes) is ignored for a data section below 1 GiB"
            ));
        }
        if usable && !small { (unit, width) } else { (0, 0) }
    };
    // In the words that were used: stripe units for the width or units of 512 bytes for both.
    let (unit_name, unit_given) = if by_sectors { ("-d sunit", unit / 512) } else { ("-d su", unit) };
    let (width_name, width_given) =
        if by_sectors { ("-d swidth", width / 512) } else { ("-d sw", o.sw.unwrap_or(width / unit.max(1))) };
    if (unit == 0) != (width == 0) {
        return refuse(width_name, width_given, "stripe unit and width must both be zero or both be set");
    }
    if unit > 0 && !width.is_multiple_of(unit) {
        return refuse(width_name, width_given, format_args!("it must be a multiple of the stripe unit, {unit_given}"));
    }
    if !unit.is_multiple_of(bs) {
        let step = if by_sectors { bs / 512 } else { bs };
        let why = format_args!("it must be a multiple of {step}, as blocks have {bs} bytes");
        return refuse(unit_name, unit_given, why);
    }
    if unit > u64::from(u32::MAX) {
        return refuse(unit_name, unit_given, "it must be below 4 GiB");
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
    // The option, its value in bytes, and the bytes of one.
    let (name, given, one) = match (options.log.su, options.log.sunit) {
        (Some(su), Some(_)) => return refuse("-l su", su, "it excludes -l sunit; give one of them"),
        (su, None) => ("-l su", su, 1),
        (None, Some(sunit)) => ("-l sunit", Some(sunit.saturating_mul(512)), 512),
    };
    let bytes = match given {
        Some(b) if b > MAX_LOG_SUNIT => {
            return refuse(name, b / one, format_args!("it must be at most {}", MAX_LOG_SUNIT / one));
        }
        Some(b) if !b.is_multiple_of(bs) => {
            let step = bs / one;
            return refuse(name, b / one, format_args!("it must be a multiple of {step}, as blocks have {bs} bytes"));
        }
        Some(b) => b,
        None if d.log_sector_size > 512 => bs,
        None if devices.log.is_none() && d.sunit > 0 => d.sunit * bs,
        None => 0,
    };
    if given.is_some() && bytes > 0 && bytes < u64::from(d.log_sector_size) {
        let least = u64::from(d.log_sector_size) / one;
        return refuse(name, bytes / one, format_args!("it must be at least a log sector, {least}"));
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
