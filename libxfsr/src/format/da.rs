//! What directories and attributes share: the header of their index blocks, the nodes above their leaves, and the name hash.
//!
//! An index block starts with its siblings and a 16-bit magic number (as v4 had them), then checksum, own address, LSN, UUID
//! and owner. Book: chapters "Directories", "Extended Attributes".

use super::{
    BlockType, Context, check_address, check_crc, check_owner, check_uuid, lsn_at, put_lsn, seal_checksum, view,
};
use crate::error::{Corruption, Rule, Verdict};
use crate::units::Lsn;
use std::mem::offset_of;
use zerocopy::big_endian::{U16, U32, U64};
use zerocopy::little_endian::U32 as Le32;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Node.
pub const NODE_MAGIC: u16 = 0x3ebe;
/// Most levels of nodes above the leaves.
pub const MAX_DEPTH: u16 = 5;

/// Header of index blocks.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
#[allow(missing_docs, reason = "fields carry the format's own names, which the book explains")]
pub struct BlockInfo {
    pub forw: U32,
    pub back: U32,
    pub magic: U16,
    pub pad: U16,
    pub crc: Le32,
    pub blkno: U64,
    pub lsn: U64,
    pub uuid: [u8; 16],
    pub owner: U64,
}
const _: () = assert!(size_of::<BlockInfo>() == 56);
const _: () = assert!(offset_of!(BlockInfo, crc) == 12);

/// Header of a node.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
#[allow(missing_docs, reason = "fields carry the format's own names, which the book explains")]
pub struct NodeHeader {
    pub info: BlockInfo,
    pub count: U16,
    pub level: U16,
    pub pad: U32,
}
const _: () = assert!(size_of::<NodeHeader>() == 64);

/// Entry of a node: the largest hash below a block, and that block's place in the fork.
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
#[allow(missing_docs, reason = "fields carry the format's own names, which the book explains")]
pub struct NodeEntry {
    pub hashval: U32,
    pub before: U32,
}
const _: () = assert!(size_of::<NodeEntry>() == 8);

/// A node of a directory's or an attribute fork's index.
#[derive(Clone, Copy, Debug)]
pub struct Node<'a> {
    /// The header.
    pub header: &'a NodeHeader,
    /// The entries, no more than the block holds.
    pub entries: &'a [NodeEntry],
}

impl<'a> Node<'a> {
    /// View of a block; none where it is too short even for a header. The magic number is not checked.
    pub fn from_bytes(bytes: &'a [u8]) -> Option<Self> {
        let (header, rest) = NodeHeader::ref_from_prefix(bytes).ok()?;
        Some(Self { header, entries: array(rest, usize::from(header.count.get())) })
    }
    /// Index of the entry whose subtree can hold `hash`: the first whose hash is not smaller. None where all are smaller.
    pub fn find(&self, hash: u32) -> Option<usize> {
        let i = self.entries.partition_point(|e| e.hashval.get() < hash);
        (i < self.entries.len()).then_some(i)
    }
}

/// The first `count` elements at the start of `bytes`, fewer where there is less room.
pub(crate) fn array<T: FromBytes + KnownLayout + Immutable + Unaligned>(bytes: &[u8], count: usize) -> &[T] {
    let n = count.min(bytes.len() / size_of::<T>().max(1));
    <[T]>::ref_from_prefix_with_elems(bytes, n).map(|(a, _)| a).unwrap_or(&[])
}

/// The 16-bit magic number of an index block.
pub fn magic_of(bytes: &[u8]) -> Option<u16> {
    BlockInfo::ref_from_prefix(bytes).ok().map(|(i, _)| i.magic.get())
}

/// Name hash of directories and attributes: each byte is mixed into the hash rotated left by seven.
pub fn hash_name(name: &[u8]) -> u32 {
    name.iter().fold(0, |h: u32, &b| u32::from(b) ^ h.rotate_left(7))
}

/// The byte that stands for `b` in case-insensitive comparison. The letters are those of ISO 8859-1, for that is what the first
/// kernels with the feature hashed.
pub fn fold_case(b: u8) -> u8 {
    match b {
        b'A'..=b'Z' | 0xc0..=0xd6 | 0xd8..=0xde => b + 0x20,
        _ => b,
    }
}

/// Name hash of directories on a filesystem with case-insensitive names.
pub fn hash_name_ci(name: &[u8]) -> u32 {
    name.iter().fold(0, |h: u32, &b| u32::from(fold_case(b)) ^ h.rotate_left(7))
}

/// Checks header fields that every index block has.
pub(crate) fn verify_info(name: &'static str, magics: &[u16], bytes: &[u8], at: &Context<'_>) -> Verdict {
    let info: &BlockInfo = view(name, bytes, at)?;
    if !magics.contains(&info.magic.get()) {
        let want: Vec<String> = magics.iter().map(|m| format!("{m:#06x}")).collect();
        return Err(Corruption::new(name, "magic", Rule::Magic)
            .at_daddr(at.daddr)
            .found(format_args!("{:#06x}", info.magic.get()))
            .expected(want.join(" or ")));
    }
    check_crc(name, bytes, offset_of!(BlockInfo, crc), at)?;
    check_uuid(name, &info.uuid, at)?;
    check_address(name, "bno", info.blkno.get(), at)?;
    check_owner(name, info.owner.get(), at)
}

/// The LSN of an index block.
pub(crate) fn lsn_info(bytes: &[u8]) -> Option<Lsn> {
    lsn_at(bytes, offset_of!(BlockInfo, lsn))
}

/// Stamps LSN and checksum of an index block.
pub(crate) fn seal_info(bytes: &mut [u8], lsn: Lsn) {
    put_lsn(bytes, offset_of!(BlockInfo, lsn), lsn);
    seal_checksum(bytes, offset_of!(BlockInfo, crc));
}

/// Checks that hashes do not fall.
pub(crate) fn verify_order(name: &'static str, hashes: impl Iterator<Item = u32>, at: &Context<'_>) -> Verdict {
    let mut last = 0;
    for h in hashes {
        if h < last {
            return Err(Corruption::new(name, "hashval", Rule::Order)
                .at_daddr(at.daddr)
                .found(format_args!("{h:#x}"))
                .expected(format_args!("at least {last:#x}")));
        }
        last = h;
    }
    Ok(())
}

fn verify_node(bytes: &[u8], at: &Context<'_>) -> Verdict {
    const N: &str = "danode";
    verify_info(N, &[NODE_MAGIC], bytes, at)?;
    let h: &NodeHeader = view(N, bytes, at)?;
    let bad = |field, found: u16, want: String| {
        Err(Corruption::new(N, field, Rule::Range).at_daddr(at.daddr).found(found).expected(want))
    };
    let (level, count) = (h.level.get(), h.count.get());
    if level == 0 || level > MAX_DEPTH {
        return bad("level", level, format!("1 to {MAX_DEPTH}"));
    }
    let max = bytes.len().saturating_sub(size_of::<NodeHeader>()) / size_of::<NodeEntry>();
    if count == 0 || usize::from(count) > max {
        return bad("count", count, format!("1 to {max}"));
    }
    let node = Node::from_bytes(bytes).map_or(&[][..], |n| n.entries);
    verify_order(N, node.iter().map(|e| e.hashval.get()), at)?;
    if let Some(e) = node.iter().find(|e| e.before.get() == 0) {
        return Err(Corruption::new(N, "before", Rule::Range)
            .at_daddr(at.daddr)
            .found(e.before)
            .expected("more than 0"));
    }
    Ok(())
}

/// Node of a directory's or an attribute fork's index.
pub static DA_NODE: BlockType =
    BlockType { name: "danode", log_type: 15, lsn: lsn_info, verify: verify_node, seal: seal_info };

#[cfg(test)]
mod tests {
    use super::{fold_case, hash_name, hash_name_ci};

    #[test]
    fn hashes_are_those_of_xfs() {
        // Observed: `xfs_db -c "hash NAME"`.
        assert_eq!(hash_name(b"a"), 0x61);
        assert_eq!(hash_name(b"lost+found"), 0x21a_a60c);
        assert_eq!(hash_name(b"a_long_name_of_a_file"), 0x52e2_6483);
        assert_eq!(hash_name(b"."), 0x2e);
        assert_eq!(hash_name(b".."), 0x172e);
        assert_eq!(hash_name_ci(b"LongNAME"), hash_name(b"longname"));
        assert_ne!(hash_name(b"LongNAME"), hash_name(b"longname"));
        assert_eq!((fold_case(0xd7), fold_case(0xc4), fold_case(b'z')), (0xd7, 0xe4, b'z'));
    }
}
