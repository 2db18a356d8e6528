//! Remote values: blocks of the attribute fork, each with a header that says which part of the value it holds.
//!
//! They are written before the attribute is made visible and are not logged; so their LSN is no LSN but all ones. Kernels
//! before 4.3 wrote a real one, which is as good.

use super::super::{check_address, check_crc, check_magic, check_uuid, put_lsn, seal_checksum, view};
use super::MAX_VALUE;
use crate::error::{Corruption, Rule, Verdict};
use crate::format::{BlockType, Context};
use crate::geometry::Geometry;
use crate::units::{Ino, Lsn};
use std::mem::offset_of;
use zerocopy::big_endian::{U32, U64};
use zerocopy::little_endian::U32 as Le32;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// `XARM`.
pub const REMOTE_MAGIC: u32 = 0x5841_524d;

/// Header of a block of a remote value.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
#[allow(missing_docs, reason = "fields carry the format's own names, which the book explains")]
pub struct RemoteHeader {
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
const _: () = assert!(size_of::<RemoteHeader>() == 56);
const _: () = assert!(offset_of!(RemoteHeader, crc) == 12);

/// Bytes of the value that one block holds.
pub fn payload_size(geometry: &Geometry) -> u32 {
    geometry.block_size.saturating_sub(size_of::<RemoteHeader>() as u32)
}

/// Blocks of a remote value of `length` bytes.
pub fn remote_blocks(geometry: &Geometry, length: u32) -> u32 {
    length.div_ceil(payload_size(geometry).max(1))
}

/// The part of the value that a block holds, and its offset in the value; none where the header does not fit the block.
pub fn remote_payload(block: &[u8]) -> Option<(u32, &[u8])> {
    let (h, rest) = RemoteHeader::ref_from_prefix(block).ok()?;
    Some((h.offset.get(), rest.get(..usize::try_from(h.bytes.get()).ok()?)?))
}

/// Checks that a verified block is the part of `ino`'s value that is expected there.
///
/// # Errors
/// Another owner, or another part.
pub fn verify_remote_of(block: &[u8], ino: Ino, offset: u32, bytes: u32, at: &Context<'_>) -> Verdict {
    const N: &str = "attrremote";
    let h: &RemoteHeader = view(N, block, at)?;
    for (field, rule, found, expected) in [
        ("owner", Rule::Owner, h.owner.get(), ino.0),
        ("offset", Rule::Mismatch, u64::from(h.offset.get()), u64::from(offset)),
        ("bytes", Rule::Mismatch, u64::from(h.bytes.get()), u64::from(bytes)),
    ] {
        if found != expected {
            return Err(Corruption::new(N, field, rule)
                .at_daddr(at.daddr)
                .in_inode(ino)
                .found(found)
                .expected(expected));
        }
    }
    Ok(())
}

fn verify(bytes: &[u8], at: &Context<'_>) -> Verdict {
    const N: &str = "attrremote";
    let h: &RemoteHeader = view(N, bytes, at)?;
    check_magic(N, h.magic.get(), REMOTE_MAGIC, at)?;
    check_crc(N, bytes, offset_of!(RemoteHeader, crc), at)?;
    check_uuid(N, &h.uuid, at)?;
    check_address(N, "bno", h.blkno.get(), at)?;
    let (offset, len) = (h.offset.get(), h.bytes.get());
    let room = bytes.len() - size_of::<RemoteHeader>();
    let bad = |field, rule| Corruption::new(N, field, rule).at_daddr(at.daddr);
    if len == 0 || len as usize > room {
        return Err(bad("bytes", Rule::Range).found(len).expected(format_args!("1 to {room}")));
    }
    if offset.checked_add(len).is_none_or(|end| end > MAX_VALUE) || !(offset as usize).is_multiple_of(room.max(1)) {
        return Err(bad("offset", Rule::Range).found(offset).expected("whole blocks, inside a value of 64 KiB"));
    }
    Ok(())
}

/// One filesystem block of a remote value. The cache reads and seals such values block by block: each has its own header.
pub static ATTR_REMOTE: BlockType = BlockType {
    name: "attrremote",
    log_type: 17,
    lsn: |_| None,
    verify,
    seal: |b, _| {
        put_lsn(b, offset_of!(RemoteHeader, lsn), Lsn(u64::MAX));
        seal_checksum(b, offset_of!(RemoteHeader, crc));
    },
};
