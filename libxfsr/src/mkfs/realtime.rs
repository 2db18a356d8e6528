//! The realtime section.

use super::layout::{Draft, GIB, refuse};
use super::options::{Devices, Options};
use crate::error::Result;

pub(super) fn realtime(options: &Options, devices: &Devices, d: &mut Draft) -> Result<()> {
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
