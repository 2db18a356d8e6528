//! Btree blocks, with short (AG) or long (filesystem) pointers, and the records and keys of every tree.
//!
//! A leaf is header, records. A node is header, keys (room for the maximum), pointers; trees of overlapping records (the
//! reverse mappings) have a low and a high key for each pointer. Book: chapter "B+trees".

use super::{
    BlockType, Context, check_address, check_crc, check_magic, check_owner, check_uuid, lsn_at, put_lsn, seal_checksum,
    view,
};
use crate::error::{Corruption, Rule, Verdict};
use crate::geometry::Geometry;
use crate::units::{Daddr, NULL_AGBLOCK, NULL_FSBLOCK, halves};
use std::mem::offset_of;
use zerocopy::big_endian::{U16, U32, U64};
use zerocopy::little_endian::U32 as Le32;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// `AB3B`.
pub const BNOBT_MAGIC: u32 = 0x4142_3342;
/// `AB3C`.
pub const CNTBT_MAGIC: u32 = 0x4142_3343;
/// `IAB3`.
pub const INOBT_MAGIC: u32 = 0x4941_4233;
/// `FIB3`.
pub const FINOBT_MAGIC: u32 = 0x4649_4233;
/// `RMB3`.
pub const RMAPBT_MAGIC: u32 = 0x524d_4233;
/// `R3FC`.
pub const REFCOUNTBT_MAGIC: u32 = 0x5233_4643;
/// `BMA3`.
pub const BMBT_MAGIC: u32 = 0x424d_4133;
/// `MAPR`.
pub const RTRMAPBT_MAGIC: u32 = 0x4d41_5052;
/// `RCNT`.
pub const RTREFCOUNTBT_MAGIC: u32 = 0x5243_4e54;

/// More levels than any tree has.
pub const MAX_LEVELS: u8 = 16;

/// Header of a block with short pointers.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
#[allow(missing_docs, reason = "fields carry the format's own names, which the book explains")]
pub struct ShortHeader {
    pub magic: U32,
    pub level: U16,
    pub numrecs: U16,
    pub leftsib: U32,
    pub rightsib: U32,
    pub blkno: U64,
    pub lsn: U64,
    pub uuid: [u8; 16],
    pub owner: U32,
    pub crc: Le32,
}
const _: () = assert!(size_of::<ShortHeader>() == 56);
const _: () = assert!(offset_of!(ShortHeader, crc) == 52);

/// Header of a block with long pointers.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
#[allow(missing_docs, reason = "fields carry the format's own names, which the book explains")]
pub struct LongHeader {
    pub magic: U32,
    pub level: U16,
    pub numrecs: U16,
    pub leftsib: U64,
    pub rightsib: U64,
    pub blkno: U64,
    pub lsn: U64,
    pub uuid: [u8; 16],
    pub owner: U64,
    pub crc: Le32,
    pub pad: U32,
}
const _: () = assert!(size_of::<LongHeader>() == 72);
const _: () = assert!(offset_of!(LongHeader, crc) == 64);

/// Record of bnobt and cntbt: a free extent.
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
#[allow(missing_docs, reason = "fields carry the format's own names")]
pub struct AllocRec {
    pub startblock: U32,
    pub blockcount: U32,
}

/// Record of inobt and finobt: a chunk of 64 inodes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
#[allow(missing_docs, reason = "fields carry the format's own names")]
pub struct InobtRec {
    pub startino: U32,
    /// Sparse: holemask (16 bits), count (8), freecount (8). Otherwise: freecount.
    pub middle: [u8; 4],
    pub free: U64,
}

/// Inodes in a chunk.
pub const CHUNK_INODES: u32 = 64;
/// Inodes for which one holemask bit stands.
pub const HOLEMASK_INODES: u32 = 4;

impl InobtRec {
    /// Holemask of a sparse record: bit n set means that inodes 4n to 4n+3 do not exist.
    pub fn holemask(&self, sparse: bool) -> u16 {
        if sparse { u16::from(self.middle[0]) << 8 | u16::from(self.middle[1]) } else { 0 }
    }
    /// Inodes that exist in the chunk.
    pub fn count(&self, sparse: bool) -> u32 {
        if sparse { u32::from(self.middle[2]) } else { CHUNK_INODES }
    }
    /// Free inodes in the chunk.
    pub fn freecount(&self, sparse: bool) -> u32 {
        if sparse { u32::from(self.middle[3]) } else { U32::from_bytes(self.middle).get() }
    }
    /// Bit per inode that does not exist.
    pub fn holes(&self, sparse: bool) -> u64 {
        let mask = self.holemask(sparse);
        (0..16).filter(|b| mask >> b & 1 == 1).fold(0, |acc, b| acc | 0xf << (b * 4))
    }
}

/// Key of inobt and finobt.
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
#[allow(missing_docs, reason = "fields carry the format's own names")]
pub struct InobtKey {
    pub startino: U32,
}

/// Record of rmapbt and rtrmapbt: who owns an extent.
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
#[allow(missing_docs, reason = "fields carry the format's own names")]
pub struct RmapRec {
    pub startblock: U32,
    pub blockcount: U32,
    pub owner: U64,
    /// Flags in the upper three bits, file block below.
    pub offset: U64,
}

/// Key of rmapbt and rtrmapbt.
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
#[allow(missing_docs, reason = "fields carry the format's own names")]
pub struct RmapKey {
    pub startblock: U32,
    pub owner: U64,
    pub offset: U64,
}
const _: () = assert!(size_of::<RmapKey>() == 20);

/// Extent belongs to the attribute fork.
pub const RMAP_ATTR_FORK: u64 = 1 << 63;
/// Extent is a block of the fork's own extent btree.
pub const RMAP_BMBT_BLOCK: u64 = 1 << 62;
/// Extent is unwritten.
pub const RMAP_UNWRITTEN: u64 = 1 << 61;
/// File block.
pub const RMAP_OFFSET_MASK: u64 = (1 << 54) - 1;

/// Owners of reverse mappings that are no inodes.
pub mod owner {
    /// "No owner": must not occur on disk.
    pub const NULL: u64 = u64::MAX;
    /// Not known.
    pub const UNKNOWN: u64 = u64::MAX - 1;
    /// Superblock and AG headers.
    pub const FS: u64 = u64::MAX - 2;
    /// The journal.
    pub const LOG: u64 = u64::MAX - 3;
    /// bnobt, cntbt, rmapbt and the free list.
    pub const AG: u64 = u64::MAX - 4;
    /// inobt and finobt.
    pub const INOBT: u64 = u64::MAX - 5;
    /// Inode chunks.
    pub const INODES: u64 = u64::MAX - 6;
    /// refcountbt.
    pub const REFC: u64 = u64::MAX - 7;
    /// Staging extents of copy on write.
    pub const COW: u64 = u64::MAX - 8;
    /// Smallest of these.
    pub const MIN: u64 = u64::MAX - 9;
    /// Whether it is one of these and no inode.
    pub const fn is_special(owner: u64) -> bool {
        owner >> 63 == 1
    }
}

/// Record of refcountbt and rtrefcountbt: how often an extent is referenced.
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
#[allow(missing_docs, reason = "fields carry the format's own names")]
pub struct RefcountRec {
    /// Bit 31: copy-on-write staging.
    pub startblock: U32,
    pub blockcount: U32,
    pub refcount: U32,
}

/// Key of refcountbt and rtrefcountbt.
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
#[allow(missing_docs, reason = "fields carry the format's own names")]
pub struct RefcountKey {
    pub startblock: U32,
}

/// Domain bit of [`RefcountRec::startblock`]: a staging extent.
pub const REFCOUNT_COW: u32 = 1 << 31;

/// Packed extent of a file: unwritten flag (1 bit), file block (54), filesystem block (52), blocks (21).
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
#[allow(missing_docs, reason = "fields carry the format's own names")]
pub struct BmbtRec {
    pub l0: U64,
    pub l1: U64,
}

/// Key of bmbt: file block.
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
#[allow(missing_docs, reason = "fields carry the format's own names")]
pub struct BmbtKey {
    pub startoff: U64,
}

/// Longest extent that a record can hold, in blocks.
pub const MAX_EXTENT: u64 = (1 << 21) - 1;
/// Largest file block.
pub const MAX_FILE_BLOCK: u64 = (1 << 54) - 1;

/// An unpacked extent of a file.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub struct Extent {
    /// First logical block.
    pub offset: u64,
    /// First block on the device: fsbno, or realtime block for a realtime file's data.
    pub start: u64,
    /// Blocks.
    pub count: u64,
    /// Allocated, reads as zero.
    pub unwritten: bool,
}

impl BmbtRec {
    /// Unpacks.
    pub fn extent(&self) -> Extent {
        let (l0, l1) = (self.l0.get(), self.l1.get());
        Extent {
            offset: l0 >> 9 & MAX_FILE_BLOCK,
            start: (l0 & 0x1ff) << 43 | l1 >> 21,
            count: l1 & MAX_EXTENT,
            unwritten: l0 >> 63 == 1,
        }
    }
    /// Packs; bits that do not fit are cut off.
    pub fn pack(e: &Extent) -> Self {
        Self {
            l0: U64::new(u64::from(e.unwritten) << 63 | (e.offset & MAX_FILE_BLOCK) << 9 | e.start >> 43 & 0x1ff),
            l1: U64::new(e.start << 21 | e.count & MAX_EXTENT),
        }
    }
}

/// Root of an extent btree in an inode: level and number of records, then keys, then pointers.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
#[allow(missing_docs, reason = "fields carry the format's own names")]
pub struct InodeRoot {
    pub level: U16,
    pub numrecs: U16,
}

/// The sizes that lay out a btree block.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Layout {
    /// Bytes of the header.
    pub header: usize,
    /// Bytes of a record.
    pub record: usize,
    /// Bytes of a key; twice that is kept where records overlap.
    pub key: usize,
    /// Bytes of a pointer.
    pub pointer: usize,
}

impl Layout {
    /// Records that a leaf of `block` bytes can hold.
    pub const fn leaf_max(&self, block: usize) -> usize {
        block.saturating_sub(self.header) / self.record
    }
    /// Pointers that a node of `block` bytes can hold.
    pub const fn node_max(&self, block: usize) -> usize {
        block.saturating_sub(self.header) / (self.key + self.pointer)
    }
    /// Most and fewest entries of a block at `level`.
    pub const fn limits(&self, block: usize, level: u16) -> (usize, usize) {
        let max = if level == 0 { self.leaf_max(block) } else { self.node_max(block) };
        (max, max / 2)
    }
}

/// Free space trees.
pub const ALLOC: Layout = Layout { header: 56, record: 8, key: 8, pointer: 4 };
/// Inode trees.
pub const INO: Layout = Layout { header: 56, record: 16, key: 4, pointer: 4 };
/// Reverse mappings; low and high key.
pub const RMAP: Layout = Layout { header: 56, record: 24, key: 40, pointer: 4 };
/// Reference counts.
pub const REFCOUNT: Layout = Layout { header: 56, record: 12, key: 4, pointer: 4 };
/// Extents of a file.
pub const BMBT: Layout = Layout { header: 72, record: 16, key: 8, pointer: 8 };
/// Reverse mappings of a realtime group.
pub const RTRMAP: Layout = Layout { header: 72, record: 24, key: 40, pointer: 8 };
/// Reference counts of a realtime group.
pub const RTREFCOUNT: Layout = Layout { header: 72, record: 12, key: 4, pointer: 8 };

/// What a block of a btree says of itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Identity {
    /// Magic number.
    pub magic: u32,
    /// Its address.
    pub blkno: u64,
    /// UUID of the filesystem's metadata.
    pub uuid: [u8; 16],
    /// The inode that it belongs to; of a block with short pointers, the AG.
    pub owner: u64,
}

impl Identity {
    /// Of a block of a tree of this filesystem. None for types of blocks that are no btree's.
    pub fn new(kind: &BlockType, geometry: &Geometry, daddr: Daddr, owner: u64) -> Option<Self> {
        let (magic, _) = MAGICS.into_iter().find(|(_, k)| *k == kind)?;
        Some(Self { magic, blkno: daddr.0, uuid: geometry.meta_uuid, owner })
    }
    /// The header of a leaf without records and siblings, with short pointers.
    pub fn short_header(&self) -> ShortHeader {
        ShortHeader {
            magic: U32::new(self.magic),
            level: U16::ZERO,
            numrecs: U16::ZERO,
            leftsib: U32::new(NULL_AGBLOCK),
            rightsib: U32::new(NULL_AGBLOCK),
            blkno: U64::new(self.blkno),
            lsn: U64::ZERO,
            uuid: self.uuid,
            owner: U32::new(halves(self.owner).1),
            crc: Le32::ZERO,
        }
    }
    /// The same with long pointers.
    pub fn long_header(&self) -> LongHeader {
        LongHeader {
            magic: U32::new(self.magic),
            level: U16::ZERO,
            numrecs: U16::ZERO,
            leftsib: U64::new(NULL_FSBLOCK),
            rightsib: U64::new(NULL_FSBLOCK),
            blkno: U64::new(self.blkno),
            lsn: U64::ZERO,
            uuid: self.uuid,
            owner: U64::new(self.owner),
            crc: Le32::ZERO,
            pad: U32::ZERO,
        }
    }
}

/// The magic numbers of all trees.
pub(super) static MAGICS: [(u32, &BlockType); 9] = [
    (BNOBT_MAGIC, &BNOBT_BLOCK),
    (CNTBT_MAGIC, &CNTBT_BLOCK),
    (INOBT_MAGIC, &INOBT_BLOCK),
    (FINOBT_MAGIC, &FINOBT_BLOCK),
    (RMAPBT_MAGIC, &RMAPBT_BLOCK),
    (REFCOUNTBT_MAGIC, &REFCOUNTBT_BLOCK),
    (BMBT_MAGIC, &BMBT_BLOCK),
    (RTRMAPBT_MAGIC, &RTRMAPBT_BLOCK),
    (RTREFCOUNTBT_MAGIC, &RTREFCOUNTBT_BLOCK),
];

/// Most levels that this tree can have in this filesystem.
fn max_levels(name: &str, at: &Context<'_>) -> u8 {
    let l = &at.geometry.max_levels;
    let max = match name {
        "bnobt" | "cntbt" => l.bno,
        "inobt" | "finobt" => l.ino,
        "rmapbt" => l.rmap,
        "refcountbt" => l.refcount,
        "bmbt" => l.bmap_data.max(l.bmap_attr),
        _ => MAX_LEVELS,
    };
    max.min(MAX_LEVELS)
}

fn verify_counts(
    name: &'static str,
    level: u16,
    numrecs: u16,
    layout: &Layout,
    block: usize,
    at: &Context<'_>,
) -> Verdict {
    let levels = u16::from(max_levels(name, at));
    if level >= levels {
        return Err(Corruption::new(name, "level", Rule::Range)
            .at_daddr(at.daddr)
            .found(level)
            .expected(format_args!("less than {levels}")));
    }
    if level > 0 && numrecs == 0 {
        return Err(Corruption::new(name, "numrecs", Rule::Count)
            .at_daddr(at.daddr)
            .found(0)
            .expected("at least one pointer in a node"));
    }
    let (max, _) = layout.limits(block, level);
    if usize::from(numrecs) > max {
        return Err(Corruption::new(name, "numrecs", Rule::Range)
            .at_daddr(at.daddr)
            .found(numrecs)
            .expected(format_args!("at most {max}")));
    }
    Ok(())
}

fn verify_short(name: &'static str, magic: u32, layout: &Layout, bytes: &[u8], at: &Context<'_>) -> Verdict {
    let h: &ShortHeader = view(name, bytes, at)?;
    check_magic(name, h.magic.get(), magic, at)?;
    check_crc(name, bytes, offset_of!(ShortHeader, crc), at)?;
    check_uuid(name, &h.uuid, at)?;
    check_address(name, "bno", h.blkno.get(), at)?;
    let Some((agno, agbno)) = at.geometry.daddr_to_ag(at.daddr) else { return Ok(()) };
    if h.owner.get() != agno.0 && !at.owner_judged {
        return Err(Corruption::new(name, "owner", Rule::Owner).at_daddr(at.daddr).found(h.owner).expected(agno));
    }
    verify_counts(name, h.level.get(), h.numrecs.get(), layout, bytes.len(), at)?;
    for (field, sib) in [("leftsib", h.leftsib.get()), ("rightsib", h.rightsib.get())] {
        if sib != NULL_AGBLOCK && (!at.geometry.is_valid_agbno(agno, crate::units::AgBlock(sib)) || sib == agbno.0) {
            return Err(Corruption::new(name, field, Rule::Range).at_daddr(at.daddr).found(sib));
        }
    }
    Ok(())
}

fn verify_long(name: &'static str, magic: u32, layout: &Layout, bytes: &[u8], at: &Context<'_>) -> Verdict {
    let h: &LongHeader = view(name, bytes, at)?;
    check_magic(name, h.magic.get(), magic, at)?;
    check_crc(name, bytes, offset_of!(LongHeader, crc), at)?;
    check_uuid(name, &h.uuid, at)?;
    check_address(name, "bno", h.blkno.get(), at)?;
    check_owner(name, h.owner.get(), at)?;
    verify_counts(name, h.level.get(), h.numrecs.get(), layout, bytes.len(), at)?;
    for (field, sib) in [("leftsib", h.leftsib.get()), ("rightsib", h.rightsib.get())] {
        let fsb = crate::units::FsBlock(sib);
        if sib != NULL_FSBLOCK
            && (!at.geometry.is_valid_fsblock(fsb) || at.geometry.fsblock_to_daddr(fsb) == Some(at.daddr))
        {
            return Err(Corruption::new(name, field, Rule::Range).at_daddr(at.daddr).found(sib));
        }
    }
    Ok(())
}

fn seal_short(b: &mut [u8], lsn: crate::units::Lsn) {
    put_lsn(b, offset_of!(ShortHeader, lsn), lsn);
    seal_checksum(b, offset_of!(ShortHeader, crc));
}

fn seal_long(b: &mut [u8], lsn: crate::units::Lsn) {
    put_lsn(b, offset_of!(LongHeader, lsn), lsn);
    seal_checksum(b, offset_of!(LongHeader, crc));
}

fn lsn_short(b: &[u8]) -> Option<crate::units::Lsn> {
    lsn_at(b, offset_of!(ShortHeader, lsn))
}

fn lsn_long(b: &[u8]) -> Option<crate::units::Lsn> {
    lsn_at(b, offset_of!(LongHeader, lsn))
}

macro_rules! tree {
    ($(#[$doc:meta])* $static:ident, $name:literal, $magic:ident, $layout:ident, $verify:ident, $seal:ident, $lsn:ident) => {
        $(#[$doc])*
        pub static $static: BlockType = BlockType {
            name: $name,
            log_type: 4,
            lsn: $lsn,
            verify: |b, at| $verify($name, $magic, &$layout, b, at),
            seal: $seal,
        };
    };
}

tree!(/// Free space by block.
    BNOBT_BLOCK, "bnobt", BNOBT_MAGIC, ALLOC, verify_short, seal_short, lsn_short);
tree!(/// Free space by size.
    CNTBT_BLOCK, "cntbt", CNTBT_MAGIC, ALLOC, verify_short, seal_short, lsn_short);
tree!(/// Inode chunks.
    INOBT_BLOCK, "inobt", INOBT_MAGIC, INO, verify_short, seal_short, lsn_short);
tree!(/// Inode chunks with free inodes.
    FINOBT_BLOCK, "finobt", FINOBT_MAGIC, INO, verify_short, seal_short, lsn_short);
tree!(/// Reverse mappings.
    RMAPBT_BLOCK, "rmapbt", RMAPBT_MAGIC, RMAP, verify_short, seal_short, lsn_short);
tree!(/// Reference counts.
    REFCOUNTBT_BLOCK, "refcountbt", REFCOUNTBT_MAGIC, REFCOUNT, verify_short, seal_short, lsn_short);
tree!(/// Extents of a fork.
    BMBT_BLOCK, "bmbt", BMBT_MAGIC, BMBT, verify_long, seal_long, lsn_long);
tree!(/// Reverse mappings of a realtime group.
    RTRMAPBT_BLOCK, "rtrmapbt", RTRMAPBT_MAGIC, RTRMAP, verify_long, seal_long, lsn_long);
tree!(/// Reference counts of a realtime group.
    RTREFCOUNTBT_BLOCK, "rtrefcountbt", RTREFCOUNTBT_MAGIC, RTREFCOUNT, verify_long, seal_long, lsn_long);

#[cfg(test)]
mod tests {
    use super::{BmbtRec, Extent, Identity, MAGICS};
    use crate::format::{Context, identify};
    use crate::geometry::test_geometry;
    use crate::units::{AgBlock, AgNumber, Lsn};
    use zerocopy::IntoBytes;

    #[test]
    fn new_blocks_are_what_their_verifiers_want() {
        let g = test_geometry();
        let daddr = g.agbno_to_daddr(AgNumber(1), AgBlock(99));
        for (_, kind) in MAGICS {
            let long = kind.name == "bmbt" || kind.name.starts_with("rt");
            let owner = if long { 131 } else { 1 };
            let identity = Identity::new(kind, &g, daddr, owner).expect("a btree");
            let mut block = vec![0; g.block_size as usize];
            if long {
                identity.long_header().write_to_prefix(&mut block).unwrap();
            } else {
                identity.short_header().write_to_prefix(&mut block).unwrap();
            }
            (kind.seal)(&mut block, Lsn(0));
            (kind.verify)(&block, &Context { owner: long.then_some(owner), ..Context::new(&g, daddr) }).unwrap();
            assert_eq!(identify(&block).map(|k| k.name), Some(kind.name));
        }
        assert!(Identity::new(&crate::format::ag::AGF, &g, daddr, 1).is_none());
    }

    #[test]
    fn extents_survive_packing() {
        for e in [
            Extent { offset: 0, start: 1, count: 1, unwritten: false },
            Extent { offset: (1 << 54) - 1, start: (1 << 52) - 1, count: (1 << 21) - 1, unwritten: true },
            Extent { offset: 0x1234_5678_9abc, start: 0xf_edcb_a987_6543, count: 77, unwritten: false },
        ] {
            assert_eq!(BmbtRec::pack(&e).extent(), e);
        }
    }
}
