//! The one record of a new log: an unmount record, which says that the log is clean.

use crate::geometry::Geometry;
use crate::units::Lsn;
use zerocopy::big_endian::{U32, U64};
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout, Unaligned};

const MAGIC: u32 = 0xfeed_babe;
/// Transaction id that mkfs.xfs gives the record.
const TID: u32 = 0xb0c0_d0d0;
const CLIENT_LOG: u8 = 0xaa;
const OP_UNMOUNT: u8 = 0x20;
/// Bytes of data for which one header block keeps the overwritten words.
const DATA_PER_HEADER: usize = 32 << 10;

#[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct Header {
    magic: U32,
    cycle: U32,
    version: U32,
    len: U32,
    lsn: U64,
    tail_lsn: U64,
    crc: U32,
    prev_block: U32,
    num_ops: U32,
    cycle_data: [U32; 64],
    format: U32,
    uuid: [u8; 16],
    size: U32,
}

/// The record as it stands at block 0 of a log, with the cycle number in each of its sectors. With a stripe unit it fills one.
pub(super) fn unmount(g: &Geometry, cycle: u32) -> Vec<u8> {
    let unit = if g.log_stripe_unit > 1 { g.log_stripe_unit as usize } else { 0 };
    let headers = unit.div_ceil(DATA_PER_HEADER).max(1) * 512;
    let data = unit.saturating_sub(headers).max(512);
    let mut h = Header::new_zeroed();
    h.magic = U32::new(MAGIC);
    h.cycle = U32::new(cycle);
    h.version = U32::new(2);
    h.len = U32::new(data as u32);
    h.lsn = U64::new(Lsn::new(cycle, 0).0);
    h.tail_lsn = h.lsn;
    h.prev_block = U32::new(u32::MAX);
    h.num_ops = U32::new(1);
    if let Some(first) = h.cycle_data.first_mut() {
        *first = U32::new(TID);
    }
    h.format = U32::new(1);
    h.uuid = g.uuid;
    h.size = U32::new(unit.max(DATA_PER_HEADER) as u32);
    let mut out = h.as_bytes().to_vec();
    out.resize(headers, 0);
    // Operation header without its transaction id, which the cycle number replaces, then the unmount magic in the host's order
    // (little-endian, as the header's format field says).
    out.extend([0, 0, 0, 0, 0, 0, 0, 8, CLIENT_LOG, OP_UNMOUNT, 0, 0, 0x6e, 0x55]);
    out.resize(headers + data, 0);
    for sector in out.chunks_mut(512).skip(1) {
        if let Some(word) = sector.first_chunk_mut::<4>() {
            word.copy_from_slice(U32::new(cycle).as_bytes());
        }
    }
    out
}
