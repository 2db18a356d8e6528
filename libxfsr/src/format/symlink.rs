//! Targets of symbolic links that do not fit into the inode: blocks of the data fork, each with a header that says which part of
//! the target it holds. Book: chapter "Symbolic Links".

use super::{
    BlockType, Context, check_address, check_crc, check_magic, check_uuid, lsn_at, put_lsn, seal_checksum, view,
};
use crate::error::{Corruption, Rule, Verdict};
use crate::geometry::Geometry;
use crate::units::Ino;
use std::mem::offset_of;
use zerocopy::big_endian::{U32, U64};
use zerocopy::little_endian::U32 as Le32;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// `XSLM`.
pub const MAGIC: u32 = 0x5853_4c4d;
/// Longest target.
pub const MAX_TARGET: u32 = 1024;

/// Header of a block of a link's target.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
#[allow(missing_docs, reason = "fields carry the format's own names, which the book explains")]
pub struct SymlinkHeader {
    pub magic: U32,
    /// Offset of this part in the target.
    pub offset: U32,
    /// Bytes of this part.
    pub bytes: U32,
    pub crc: Le32,
    pub uuid: [u8; 16],
    pub owner: U64,
    pub blkno: U64,
    pub lsn: U64,
}
const _: () = assert!(size_of::<SymlinkHeader>() == 56);
const _: () = assert!(offset_of!(SymlinkHeader, crc) == 12);

/// Blocks that a target of `length` bytes takes.
pub fn blocks(geometry: &Geometry, length: u32) -> u32 {
    length.div_ceil(geometry.block_size.saturating_sub(size_of::<SymlinkHeader>() as u32).max(1))
}

/// The part of the target that a block holds, and its offset in the target; none where it does not fit the block.
pub fn payload(block: &[u8]) -> Option<(u32, &[u8])> {
    let (h, rest) = SymlinkHeader::ref_from_prefix(block).ok()?;
    Some((h.offset.get(), rest.get(..usize::try_from(h.bytes.get()).ok()?)?))
}

/// Who a block says it belongs to.
pub fn owner_of(block: &[u8]) -> Option<Ino> {
    SymlinkHeader::ref_from_prefix(block).ok().map(|(h, _)| Ino(h.owner.get()))
}

fn verify(bytes: &[u8], at: &Context<'_>) -> Verdict {
    const N: &str = "symlink";
    let h: &SymlinkHeader = view(N, bytes, at)?;
    check_magic(N, h.magic.get(), MAGIC, at)?;
    check_crc(N, bytes, offset_of!(SymlinkHeader, crc), at)?;
    check_uuid(N, &h.uuid, at)?;
    check_address(N, "bno", h.blkno.get(), at)?;
    let bad = |field, rule| Corruption::new(N, field, rule).at_daddr(at.daddr);
    let (offset, len, room) = (h.offset.get(), h.bytes.get(), bytes.len() - size_of::<SymlinkHeader>());
    if len == 0 || len as usize > room {
        return Err(bad("bytes", Rule::Range).found(len).expected(format_args!("1 to {room}")));
    }
    if offset.checked_add(len).is_none_or(|end| end > MAX_TARGET) {
        return Err(bad("offset", Rule::Range).found(offset).expected(format_args!("inside {MAX_TARGET} bytes")));
    }
    if h.owner.get() == 0 {
        return Err(bad("owner", Rule::Owner).found(0).expected("an inode"));
    }
    if payload(bytes).is_some_and(|(_, target)| target.contains(&0)) {
        return Err(bad("target", Rule::Name).found("a zero byte").expected("none inside the target"));
    }
    Ok(())
}

/// One filesystem block of a link's target.
pub static SYMLINK: BlockType = BlockType {
    name: "symlink",
    log_type: 9,
    lsn: |b| lsn_at(b, offset_of!(SymlinkHeader, lsn)),
    verify,
    seal: |b, lsn| {
        put_lsn(b, offset_of!(SymlinkHeader, lsn), lsn);
        seal_checksum(b, offset_of!(SymlinkHeader, crc));
    },
};

#[cfg(test)]
mod tests {
    use super::{SYMLINK, SymlinkHeader, payload};
    use crate::format::Context;
    use crate::geometry::test_geometry;
    use crate::units::{Daddr, Lsn};
    use proptest::prelude::{any, prop, proptest};
    use zerocopy::FromBytes;

    fn block(target: &[u8]) -> Vec<u8> {
        let mut b = vec![0; 4096];
        let h = SymlinkHeader::mut_from_prefix(&mut b).expect("long enough").0;
        h.magic.set(super::MAGIC);
        h.bytes.set(target.len() as u32);
        h.uuid = test_geometry().meta_uuid;
        h.owner.set(140);
        h.blkno.set(96);
        b[56..56 + target.len()].copy_from_slice(target);
        (SYMLINK.seal)(&mut b, Lsn(3));
        b
    }

    fn code(b: &[u8]) -> Option<String> {
        (SYMLINK.verify)(b, &Context { geometry: &test_geometry(), daddr: Daddr(96) }).err().map(|c| c.code())
    }

    #[test]
    fn targets_are_checked() {
        let good = block(b"a/b/c");
        assert_eq!(code(&good), None);
        assert_eq!(payload(&good), Some((0, &b"a/b/c"[..])));
        for (want, offset, value) in [
            ("symlink.magic.magic", 0, 0),
            ("symlink.bytes.range", 10, 0xff),
            ("symlink.offset.range", 6, 4),
            ("symlink.owner.owner", 39, 0),
            ("symlink.target.name", 57, 0),
            ("symlink.bno.address", 47, 0),
        ] {
            let mut b = good.clone();
            b[offset] = value;
            (SYMLINK.seal)(&mut b, Lsn(3));
            assert_eq!(code(&b).as_deref(), Some(want));
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(mut b in prop::collection::vec(any::<u8>(), 0..200), sound in any::<bool>()) {
            if sound && b.len() >= 56 {
                b[..12].copy_from_slice(&block(b"x")[..12]);
                b[16..48].copy_from_slice(&block(b"x")[16..48]);
                (SYMLINK.seal)(&mut b, Lsn(3));
            }
            code(&b);
            let _ = payload(&b);
        }
    }
}
