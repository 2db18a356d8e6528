//! Index blocks of a directory: leaves (hash and address of each entry, by hash) and free index blocks (the largest unused piece
//! of each data block).
//!
//! A directory in leaf form has one leaf, `leaf1`, at whose end stand the sizes that in node form have blocks of their own.

use super::super::{check_address, check_crc, check_magic, check_owner, check_uuid, view};
use super::data::{DirHeader, lsn_dir_header, seal_dir_header};
use crate::error::{Corruption, Rule, Verdict};
use crate::format::da::{BlockInfo, array, lsn_info, seal_info, verify_info, verify_order};
use crate::format::{BlockType, Context};
use std::mem::offset_of;
use zerocopy::big_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Leaf of leaf form.
pub const LEAF1_MAGIC: u16 = 0x3df1;
/// Leaf of node form.
pub const LEAFN_MAGIC: u16 = 0x3dff;
/// `XDF3`.
pub const FREE_MAGIC: u32 = 0x5844_4633;
/// "No data block" in a list of unused sizes.
pub const NULL_DATA_OFFSET: u16 = 0xffff;

/// Header of a leaf.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
#[allow(missing_docs, reason = "fields carry the format's own names, which the book explains")]
pub struct LeafHeader {
    pub info: BlockInfo,
    pub count: U16,
    pub stale: U16,
    pub pad: U32,
}
const _: () = assert!(size_of::<LeafHeader>() == 64);

/// Entry of a leaf, also of the index in a block form.
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
#[allow(missing_docs, reason = "fields carry the format's own names, which the book explains")]
pub struct LeafEntry {
    pub hashval: U32,
    /// Offset of the entry in the data section, divided by eight; 0 if the entry was removed.
    pub address: U32,
}
const _: () = assert!(size_of::<LeafEntry>() == 8);

impl LeafEntry {
    /// Whether its entry was removed.
    pub fn is_stale(&self) -> bool {
        self.address.get() == 0
    }
}

/// Header of a free index block.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
#[allow(missing_docs, reason = "fields carry the format's own names, which the book explains")]
pub struct FreeHeader {
    pub hdr: DirHeader,
    pub firstdb: U32,
    pub nvalid: U32,
    pub nused: U32,
    pub pad: U32,
}
const _: () = assert!(size_of::<FreeHeader>() == 64);

/// A leaf of either form.
#[derive(Clone, Copy, Debug)]
pub struct Leaf<'a> {
    /// The header.
    pub header: &'a LeafHeader,
    /// The entries, no more than the block holds.
    pub entries: &'a [LeafEntry],
    /// Leaf form: largest unused piece of each data block. Empty in node form.
    pub bests: &'a [U16],
}

impl<'a> Leaf<'a> {
    /// View of a block; none where it is too short even for a header. The magic number decides whether it has `bests`.
    pub fn from_bytes(bytes: &'a [u8]) -> Option<Self> {
        let (header, rest) = LeafHeader::ref_from_prefix(bytes).ok()?;
        let mut bests: &[U16] = &[];
        if header.info.magic.get() == LEAF1_MAGIC {
            let (body, n) = U32::ref_from_suffix(rest).ok()?;
            let n = usize::try_from(n.get()).unwrap_or(usize::MAX).min(body.len() / 2);
            bests = array(body.get(body.len() - n * 2..)?, n);
        }
        Some(Self { header, entries: array(rest, usize::from(header.count.get())), bests })
    }
    /// Entries with that hash that are in use.
    pub fn find(&self, hash: u32) -> impl Iterator<Item = &'a LeafEntry> + use<'a> {
        let first = self.entries.partition_point(|e| e.hashval.get() < hash);
        let found = self.entries.get(first..).unwrap_or(&[]);
        found.iter().take_while(move |e| e.hashval.get() == hash).filter(|e| !e.is_stale())
    }
}

/// A free index block.
#[derive(Clone, Copy, Debug)]
pub struct Free<'a> {
    /// The header.
    pub header: &'a FreeHeader,
    /// Largest unused piece of each data block from `firstdb` on: [`NULL_DATA_OFFSET`] where there is no block.
    pub bests: &'a [U16],
}

impl<'a> Free<'a> {
    /// View of a block; none where it is too short even for a header.
    pub fn from_bytes(bytes: &'a [u8]) -> Option<Self> {
        let (header, rest) = FreeHeader::ref_from_prefix(bytes).ok()?;
        Some(Self { header, bests: array(rest, usize::try_from(header.nvalid.get()).unwrap_or(usize::MAX)) })
    }
    /// Data blocks for which a free index block of `block` bytes has room.
    pub const fn capacity(block: usize) -> usize {
        block.saturating_sub(size_of::<FreeHeader>()) / 2
    }
}

fn verify_leaf(name: &'static str, magic: u16, bytes: &[u8], at: &Context<'_>) -> Verdict {
    verify_info(name, &[magic], bytes, at)?;
    let h: &LeafHeader = view(name, bytes, at)?;
    let bad = |field, rule| Corruption::new(name, field, rule).at_daddr(at.daddr);
    let room = bytes.len() - size_of::<LeafHeader>();
    let Some(leaf) = Leaf::from_bytes(bytes) else { return Err(bad("length", Rule::Truncated)) };
    let mut tail = 0;
    if magic == LEAF1_MAGIC {
        let n = U32::ref_from_suffix(bytes).map_or(0, |(_, n)| n.get());
        tail = 4 + leaf.bests.len() * 2;
        if n as usize != leaf.bests.len() {
            return Err(bad("bestcount", Rule::Range).found(n));
        }
    }
    let count = usize::from(h.count.get());
    if count * size_of::<LeafEntry>() + tail > room {
        return Err(bad("count", Rule::Range)
            .found(count)
            .expected(format_args!("at most {}", room.saturating_sub(tail) / size_of::<LeafEntry>())));
    }
    verify_order(name, leaf.entries.iter().map(|e| e.hashval.get()), at)?;
    let stale = leaf.entries.iter().filter(|e| e.is_stale()).count();
    if stale != usize::from(h.stale.get()) {
        return Err(bad("stale", Rule::Count).found(h.stale).expected(stale));
    }
    if magic == LEAF1_MAGIC && (h.info.forw.get() != 0 || h.info.back.get() != 0) {
        return Err(bad("forw", Rule::Range).found(h.info.forw).expected("no siblings"));
    }
    Ok(())
}

fn verify_free(bytes: &[u8], at: &Context<'_>) -> Verdict {
    const N: &str = "dirfree";
    let h: &FreeHeader = view(N, bytes, at)?;
    check_magic(N, h.hdr.magic.get(), FREE_MAGIC, at)?;
    check_crc(N, bytes, offset_of!(DirHeader, crc), at)?;
    check_uuid(N, &h.hdr.uuid, at)?;
    check_address(N, "bno", h.hdr.blkno.get(), at)?;
    check_owner(N, h.hdr.owner.get(), at)?;
    let bad = |field, rule, found: U32| Corruption::new(N, field, rule).at_daddr(at.daddr).found(found);
    let max = Free::capacity(bytes.len());
    if max == 0 || !(h.firstdb.get() as usize).is_multiple_of(max) {
        return Err(bad("firstdb", Rule::Range, h.firstdb).expected(format_args!("a multiple of {max}")));
    }
    if h.nvalid.get() as usize > max {
        return Err(bad("nvalid", Rule::Range, h.nvalid).expected(format_args!("at most {max}")));
    }
    let used = Free::from_bytes(bytes).map_or(0, |f| f.bests.iter().filter(|b| b.get() != NULL_DATA_OFFSET).count());
    if h.nused.get() as usize != used {
        return Err(bad("nused", Rule::Count, h.nused).expected(used));
    }
    Ok(())
}

/// The leaf of a directory in leaf form.
pub static DIR_LEAF1: BlockType = BlockType {
    name: "dirleaf1",
    log_type: 13,
    lsn: lsn_info,
    verify: |b, at| verify_leaf("dirleaf1", LEAF1_MAGIC, b, at),
    seal: seal_info,
};
/// A leaf of a directory in node form.
pub static DIR_LEAFN: BlockType = BlockType {
    name: "dirleafn",
    log_type: 14,
    lsn: lsn_info,
    verify: |b, at| verify_leaf("dirleafn", LEAFN_MAGIC, b, at),
    seal: seal_info,
};
/// Free index block of a directory in node form.
pub static DIR_FREE: BlockType =
    BlockType { name: "dirfree", log_type: 12, lsn: lsn_dir_header, verify: verify_free, seal: seal_dir_header };
