//! Blocks that hold a part of a value each, behind a header that says which: remote values of attributes and targets of symbolic
//! links. Both have the same header; the magic number tells them apart.

use super::{
    Context, check_address, check_crc, check_magic, check_owner, check_uuid, put_lsn, seal_checksum, size32, view,
};
use crate::error::{Corruption, Rule};
use crate::geometry::Geometry;
use crate::units::Lsn;
use std::mem::offset_of;
use zerocopy::big_endian::{U32, U64};
use zerocopy::little_endian::U32 as Le32;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Header of a block that holds a part of a value.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
#[allow(missing_docs, reason = "fields carry the format's own names, which the book explains")]
pub struct PartHeader {
    pub magic: U32,
    /// Offset of this part in the value.
    pub offset: U32,
    /// Bytes of this part.
    pub bytes: U32,
    pub crc: Le32,
    pub uuid: [u8; 16],
    pub owner: U64,
    pub blkno: U64,
    pub lsn: U64,
}
const _: () = assert!(size_of::<PartHeader>() == 56);
const _: () = assert!(offset_of!(PartHeader, crc) == 12);

/// Bytes of a value that one block holds.
pub fn payload_size(geometry: &Geometry) -> u32 {
    geometry.block_size.saturating_sub(size32::<PartHeader>())
}

/// Blocks of a value of `length` bytes.
pub fn blocks(geometry: &Geometry, length: u32) -> u32 {
    length.div_ceil(payload_size(geometry).max(1))
}

/// The part of the value that a block holds, and its offset in the value; none where the header does not fit the block.
pub fn payload(block: &[u8]) -> Option<(u32, &[u8])> {
    let (h, rest) = PartHeader::ref_from_prefix(block).ok()?;
    Some((h.offset.get(), rest.get(..usize::try_from(h.bytes.get()).ok()?)?))
}

/// Checks the header, and that the part lies in its block and in a value of at most `max` bytes.
pub(super) fn verify<'b>(
    name: &'static str,
    (magic, max): (u32, u32),
    bytes: &'b [u8],
    at: &Context<'_>,
) -> Result<&'b PartHeader, Box<Corruption>> {
    let h: &PartHeader = view(name, bytes, at)?;
    check_magic(name, h.magic.get(), magic, at)?;
    check_crc(name, bytes, offset_of!(PartHeader, crc), at)?;
    check_uuid(name, &h.uuid, at)?;
    check_address(name, "bno", h.blkno.get(), at)?;
    check_owner(name, h.owner.get(), at)?;
    let bad = |field, rule| Corruption::new(name, field, rule).at_daddr(at.daddr);
    let (offset, len, room) = (h.offset.get(), h.bytes.get(), bytes.len() - size_of::<PartHeader>());
    if len == 0 || len as usize > room {
        return Err(bad("bytes", Rule::Range).found(len).expected(format_args!("1 to {room}")));
    }
    if offset.checked_add(len).is_none_or(|end| end > max) {
        return Err(bad("offset", Rule::Range).found(offset).expected(format_args!("inside {max} bytes")));
    }
    Ok(h)
}

/// Stamps LSN and CRC.
pub(super) fn seal(bytes: &mut [u8], lsn: Lsn) {
    put_lsn(bytes, offset_of!(PartHeader, lsn), lsn);
    seal_checksum(bytes, offset_of!(PartHeader, crc));
}
