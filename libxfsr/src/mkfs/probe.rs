//! What is known of a target before it is overwritten: its geometry here, what seems to be on it in [`signature`].

use super::options::Topology;
use crate::target::{FileTarget, Target, queue_attribute};

pub use super::signature::{Found, signature};

/// Size, sectors and stripes. Of a device from the kernel's queue limits; a file has none.
pub fn topology(target: &FileTarget) -> Topology {
    let io = target.io();
    let mut t = Topology::plain(target.len());
    if let Some(number) = target.device_number() {
        t.logical_sector = io.logical;
        t.misaligned = target.alignment_offset() != 0;
        t.physical_sector = if t.misaligned { io.logical } else { io.physical };
        let unit = queue_attribute(number, "minimum_io_size").unwrap_or(0);
        let width = queue_attribute(number, "optimal_io_size").unwrap_or(0);
        // A minimum that is only the sector, or no optimum beyond it, is no stripe.
        if unit > u64::from(io.physical) && width > unit && width.is_multiple_of(unit) {
            (t.stripe_unit, t.stripe_width) = (unit, width);
        }
    }
    t
}
