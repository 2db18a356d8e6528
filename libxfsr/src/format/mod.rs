//! What the bytes of each structure mean. One file per structure; no I/O.
//!
//! A structure is a `#[repr(C)]` type of big-endian fields, so its layout is its declaration. Beside each block's type
//! stands a `static` [`BlockType`], which tells the cache how to verify and seal it. The CRC field, alone on the disk, is
//! little-endian.
//!
//! Layouts are those of the XFS Algorithms and Data Structures book; numbers newer than the book were observed in what
//! mkfs.xfs and the kernel write.

pub mod ag;
pub mod attr;
pub mod btree;
pub mod counters;
pub mod da;
pub mod dir;
pub mod features;
pub mod inode;
pub mod log;
pub mod metadump;
pub mod part;
pub mod quota;
pub mod realtime;
pub mod superblock;
pub mod symlink;

use crate::error::{Corruption, Rule, Verdict};
use crate::geometry::Geometry;
use crate::units::{Daddr, Ino, Lsn};

/// What a verifier may know of the block beside its bytes.
#[derive(Clone, Copy, Debug)]
pub struct Context<'a> {
    /// The filesystem's numbers.
    pub geometry: &'a Geometry,
    /// Where the block was read from.
    pub daddr: Daddr,
    /// Who it must belong to, where it belongs to an inode and the reader knows which.
    pub owner: Option<u64>,
    /// The owner was judged already: only what else there is.
    pub owner_judged: bool,
}

impl<'a> Context<'a> {
    /// A block at that place, whoever it belongs to.
    pub fn new(geometry: &'a Geometry, daddr: Daddr) -> Self {
        Self { geometry, daddr, owner: None, owner_judged: false }
    }
    /// The same block, which must belong to `ino`.
    #[must_use]
    pub fn owned_by(self, ino: Ino) -> Self {
        Self { owner: Some(ino.0), ..self }
    }
    /// The same block, whatever it says of its owner.
    #[must_use]
    pub fn whoever_owns_it(self) -> Self {
        Self { owner_judged: true, ..self }
    }
}

/// All that the cache must know of a type of block.
#[derive(Debug)]
pub struct BlockType {
    /// Name for errors.
    pub name: &'static str,
    /// How the journal's buffer items name it (bits 11 to 15 of their flags).
    pub log_type: u8,
    /// The LSN that the block carries; none for types that have none, or for which XFS does not look at it.
    pub lsn: fn(&[u8]) -> Option<Lsn>,
    /// Checks magic, CRC, UUID, own address, owner and the block's internal rules.
    pub verify: fn(&[u8], &Context<'_>) -> Verdict,
    /// Stamps LSN and CRC.
    pub seal: fn(&mut [u8], Lsn),
}

impl BlockType {
    /// Whether bytes that are right as this are right as `wanted` as well, without looking at them again: a directory's block as any block of a
    /// directory, and the other way round.
    pub(crate) fn implies(&self, wanted: &Self, bytes: &[u8]) -> bool {
        let any = *wanted == dir::DIR_ANY && dir::is_type(self);
        any || *self == dir::DIR_ANY && dir::block_type_of(bytes).is_some_and(|t| t == wanted)
    }
}

impl PartialEq for BlockType {
    fn eq(&self, other: &Self) -> bool {
        std::ptr::eq(self, other) || self.name == other.name
    }
}

/// The type of a block by the magic number that it carries; none for file contents, inode clusters, quota records, remote values'
/// like. What a block once was it may still look like: who reads one for what it is now verifies it.
pub fn identify(bytes: &[u8]) -> Option<&'static BlockType> {
    const MAGICS: [(u32, &BlockType); 8] = [
        (superblock::MAGIC, &superblock::SUPERBLOCK),
        (ag::AGF_MAGIC, &ag::AGF),
        (ag::AGI_MAGIC, &ag::AGI),
        (ag::AGFL_MAGIC, &ag::AGFL),
        (symlink::MAGIC, &symlink::SYMLINK),
        (attr::REMOTE_MAGIC, &attr::ATTR_REMOTE),
        (realtime::BITMAP_MAGIC, &realtime::RT_BITMAP),
        (realtime::SUMMARY_MAGIC, &realtime::RT_SUMMARY),
    ];
    let magic = zerocopy::big_endian::U32::from_bytes(*bytes.first_chunk::<4>()?).get();
    let known = MAGICS.into_iter().chain(btree::MAGICS).find(|(m, _)| *m == magic).map(|(_, t)| t);
    known.or_else(|| dir::block_type_of(bytes)).or_else(|| attr::block_type_of(bytes))
}

/// CRC-32C of `bytes` with the four bytes at `crc_offset` taken as zero, as every v5 structure defines it. 0 where the offset
/// does not lie inside.
pub fn checksum(bytes: &[u8], crc_offset: usize) -> u32 {
    let (Some(head), Some(tail)) = (bytes.get(..crc_offset), bytes.get(crc_offset.saturating_add(4)..)) else {
        return 0;
    };
    crc32c::crc32c_append(crc32c::crc32c_append(crc32c::crc32c(head), &[0; 4]), tail)
}

/// The CRC that the block carries at `crc_offset`; 0 where that is outside.
pub fn stored_checksum(bytes: &[u8], crc_offset: usize) -> u32 {
    match bytes.get(crc_offset..).and_then(|b| b.first_chunk::<4>()) {
        Some(b) => u32::from(b[0]) | u32::from(b[1]) << 8 | u32::from(b[2]) << 16 | u32::from(b[3]) << 24,
        None => 0,
    }
}

/// Size of an on-disk structure.
#[expect(clippy::cast_possible_truncation, reason = "the largest is a block")]
pub(crate) const fn size32<T>() -> u32 {
    size_of::<T>() as u32
}

/// Computes and stores the CRC at `crc_offset`.
pub fn seal_checksum(bytes: &mut [u8], crc_offset: usize) {
    let c = checksum(bytes, crc_offset);
    if let Some(b) = bytes.get_mut(crc_offset..).and_then(|b| b.first_chunk_mut::<4>()) {
        *b = zerocopy::little_endian::U32::new(c).to_bytes();
    }
}

/// The LSN at `offset` (big-endian); none where that is outside.
pub(crate) fn lsn_at(bytes: &[u8], offset: usize) -> Option<Lsn> {
    let b = bytes.get(offset..)?.first_chunk::<8>()?;
    Some(Lsn(u64::from_be_bytes(*b)))
}

/// Stores an LSN at `offset` (big-endian).
pub(crate) fn put_lsn(bytes: &mut [u8], offset: usize, lsn: Lsn) {
    if let Some(b) = bytes.get_mut(offset..).and_then(|b| b.first_chunk_mut::<8>()) {
        let v = zerocopy::big_endian::U64::new(lsn.0);
        b.copy_from_slice(zerocopy::IntoBytes::as_bytes(&v));
    }
}

/// Checks a block's CRC.
pub fn check_crc(name: &'static str, bytes: &[u8], crc_offset: usize, at: &Context<'_>) -> Verdict {
    let (found, expected) = (stored_checksum(bytes, crc_offset), checksum(bytes, crc_offset));
    if found == expected {
        return Ok(());
    }
    Err(Corruption::new(name, "crc", Rule::Crc)
        .at_daddr(at.daddr)
        .found(format_args!("{found:#010x}"))
        .expected(format_args!("{expected:#010x}")))
}

/// Checks the UUID that metadata carries (`sb_meta_uuid` where that feature is on, else `sb_uuid`).
pub fn check_uuid(name: &'static str, found: &[u8; 16], at: &Context<'_>) -> Verdict {
    if *found == at.geometry.meta_uuid {
        return Ok(());
    }
    Err(Corruption::new(name, "uuid", Rule::Uuid)
        .at_daddr(at.daddr)
        .found(uuid::Uuid::from_bytes(*found))
        .expected(uuid::Uuid::from_bytes(at.geometry.meta_uuid)))
}

/// Checks the address that a block says it lives at.
pub fn check_address(name: &'static str, field: &'static str, found: u64, at: &Context<'_>) -> Verdict {
    if found == at.daddr.0 {
        return Ok(());
    }
    Err(Corruption::new(name, field, Rule::Address).at_daddr(at.daddr).found(found).expected(at.daddr))
}

/// Checks who a block says it belongs to, where the reader knows who that must be.
pub fn check_owner(name: &'static str, found: u64, at: &Context<'_>) -> Verdict {
    match at.owner.filter(|o| *o != found && !at.owner_judged) {
        Some(o) => Err(Corruption::new(name, "owner", Rule::Owner).at_daddr(at.daddr).found(found).expected(o)),
        None => Ok(()),
    }
}

/// Checks a magic number.
pub fn check_magic(name: &'static str, found: u32, expected: u32, at: &Context<'_>) -> Verdict {
    if found == expected {
        return Ok(());
    }
    Err(Corruption::new(name, "magic", Rule::Magic)
        .at_daddr(at.daddr)
        .found(format_args!("{found:#x}"))
        .expected(format_args!("{expected:#x}")))
}

/// A view of the start of `bytes` as `T`, or a "truncated" corruption.
pub fn view<'a, T>(name: &'static str, bytes: &'a [u8], at: &Context<'_>) -> Result<&'a T, Box<Corruption>>
where
    T: zerocopy::FromBytes + zerocopy::KnownLayout + zerocopy::Immutable + zerocopy::Unaligned,
{
    T::ref_from_prefix(bytes).map(|(t, _)| t).map_err(|_| {
        Corruption::new(name, "length", Rule::Truncated)
            .at_daddr(at.daddr)
            .found(bytes.len())
            .expected(format_args!("at least {}", size_of::<T>()))
    })
}
