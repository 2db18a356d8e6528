//! The realtime section: free space bitmap, its summary, and the superblock of the realtime device.
//!
//! The bitmap has a bit per realtime extent, set where it is free. The summary counts, for each power of two and each block of the
//! bitmap, the free runs of that size that begin there. Without realtime groups both are files of bare 32-bit words in the
//! order of the machine that wrote them (little-endian here); with groups each block has a header and its words are
//! big-endian. Book: chapter "Real-time Devices"; the headers and the superblock were observed.

use super::{
    BlockType, Context, check_address, check_crc, check_magic, check_owner, check_uuid, lsn_at, put_lsn, seal_checksum,
    size32, view,
};
use crate::error::{Corruption, Rule, Verdict};
use crate::geometry::Geometry;
use std::mem::offset_of;
use zerocopy::big_endian::{U32, U64};
use zerocopy::little_endian::U32 as Le32;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// `BMPZ`.
pub const BITMAP_MAGIC: u32 = 0x424d_505a;
/// `SUMY`.
pub const SUMMARY_MAGIC: u32 = 0x5355_4d59;
/// `Frog`.
pub const SUPER_MAGIC: u32 = 0x4672_6f67;

/// Header of bitmap and summary blocks, where there are realtime groups.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
#[allow(missing_docs, reason = "fields carry the format's own names")]
pub struct RtBlockHeader {
    pub magic: U32,
    pub crc: Le32,
    pub owner: U64,
    pub blkno: U64,
    pub lsn: U64,
    pub uuid: [u8; 16],
}
const _: () = assert!(size_of::<RtBlockHeader>() == 48);
const _: () = assert!(offset_of!(RtBlockHeader, crc) == 4);

/// Superblock of a realtime device that has groups: its first block.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
#[allow(missing_docs, reason = "fields carry the format's own names")]
pub struct RtSuperblock {
    pub magicnum: U32,
    pub crc: Le32,
    pub pad: U32,
    pub fname: [u8; 12],
    pub uuid: [u8; 16],
    pub meta_uuid: [u8; 16],
}
const _: () = assert!(size_of::<RtSuperblock>() == 56);
const _: () = assert!(offset_of!(RtSuperblock, crc) == 4);

/// Whether bitmap and summary blocks have headers and big-endian words.
pub fn has_headers(geometry: &Geometry) -> bool {
    geometry.features.metadir()
}

/// Words in a block of bitmap or summary.
pub fn words_per_block(geometry: &Geometry) -> u32 {
    let header = if has_headers(geometry) { size32::<RtBlockHeader>() } else { 0 };
    geometry.block_size.saturating_sub(header) / 4
}

/// Realtime extents for which one bitmap block stands.
pub fn extents_per_block(geometry: &Geometry) -> u64 {
    u64::from(words_per_block(geometry)) * 32
}

/// The 32-bit words of a bitmap or summary block.
#[derive(Clone, Copy, Debug)]
pub struct Words<'a> {
    bytes: &'a [u8],
    big: bool,
}

impl<'a> Words<'a> {
    /// Words of a block, behind its header if it has one.
    pub fn of(block: &'a [u8], geometry: &Geometry) -> Self {
        let big = has_headers(geometry);
        let skip = if big { size_of::<RtBlockHeader>() } else { 0 };
        Self { bytes: block.get(skip..).unwrap_or(&[]), big }
    }
    /// Number of words.
    pub fn len(&self) -> usize {
        self.bytes.len() / 4
    }
    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// One word.
    pub fn get(&self, index: usize) -> Option<u32> {
        let at = self.bytes.get(index.checked_mul(4)?..)?.first_chunk::<4>()?;
        Some(if self.big { U32::from_bytes(*at).get() } else { Le32::from_bytes(*at).get() })
    }
    /// All words.
    pub fn iter(&self) -> impl Iterator<Item = u32> + use<'a> {
        let words = *self;
        (0..words.len()).map_while(move |i| words.get(i))
    }
    /// Runs of set bits among the first `bits`: first bit and length.
    pub fn runs(&self, bits: usize) -> Runs<'a> {
        Runs { words: *self, at: 0, end: bits.min(self.len().saturating_mul(32)) }
    }
}

/// Iterator over runs of set bits.
#[derive(Clone, Debug)]
pub struct Runs<'a> {
    words: Words<'a>,
    at: usize,
    end: usize,
}

impl Runs<'_> {
    /// First bit from `from` on that has that value, or the end.
    fn next_bit(&self, from: usize, value: bool) -> usize {
        let mut at = from;
        while at < self.end {
            let word = self.words.get(at / 32).unwrap_or(0);
            let wanted = (if value { word } else { !word }) >> (at % 32);
            if wanted != 0 {
                return (at + wanted.trailing_zeros() as usize).min(self.end);
            }
            at = (at / 32 + 1) * 32;
        }
        self.end
    }
}

impl Iterator for Runs<'_> {
    type Item = (usize, usize);
    fn next(&mut self) -> Option<(usize, usize)> {
        let first = self.next_bit(self.at, true);
        if first >= self.end {
            return None;
        }
        let end = self.next_bit(first, false);
        self.at = end;
        Some((first, end - first))
    }
}

/// Stores a word of a bitmap or summary block; false where there is no such word.
#[must_use]
pub fn put_word(block: &mut [u8], geometry: &Geometry, index: usize, value: u32) -> bool {
    let big = has_headers(geometry);
    let skip = if big { size_of::<RtBlockHeader>() } else { 0 };
    let at = index.checked_mul(4).and_then(|n| n.checked_add(skip));
    let Some(at) = at.and_then(|at| block.get_mut(at..)).and_then(|b| b.first_chunk_mut::<4>()) else { return false };
    *at = if big { U32::new(value).to_bytes() } else { Le32::new(value).to_bytes() };
    true
}

/// Index in the summary of the counter for runs of 2^`log` extents (rounded down) that begin in bitmap block `block`.
pub fn summary_index(log: u32, block: u64, bitmap_blocks: u64) -> Option<u64> {
    u64::from(log).checked_mul(bitmap_blocks)?.checked_add(block)
}

fn verify_headed(name: &'static str, magic: u32, bytes: &[u8], at: &Context<'_>) -> Verdict {
    if !has_headers(at.geometry) {
        return Ok(());
    }
    let h: &RtBlockHeader = view(name, bytes, at)?;
    check_magic(name, h.magic.get(), magic, at)?;
    check_crc(name, bytes, offset_of!(RtBlockHeader, crc), at)?;
    check_uuid(name, &h.uuid, at)?;
    check_address(name, "bno", h.blkno.get(), at)?;
    check_owner(name, h.owner.get(), at)
}

fn lsn_headed(bytes: &[u8]) -> Option<crate::units::Lsn> {
    lsn_at(bytes, offset_of!(RtBlockHeader, lsn))
}

fn seal_headed(magic: u32, bytes: &mut [u8], lsn: crate::units::Lsn) {
    // Only blocks with a header have room for LSN and checksum.
    if bytes.first_chunk::<4>().is_some_and(|m| U32::from_bytes(*m).get() == magic) {
        put_lsn(bytes, offset_of!(RtBlockHeader, lsn), lsn);
        seal_checksum(bytes, offset_of!(RtBlockHeader, crc));
    }
}

fn verify_super(bytes: &[u8], at: &Context<'_>) -> Verdict {
    const N: &str = "rgsuper";
    let h: &RtSuperblock = view(N, bytes, at)?;
    check_magic(N, h.magicnum.get(), SUPER_MAGIC, at)?;
    check_crc(N, bytes, offset_of!(RtSuperblock, crc), at)?;
    check_uuid(N, &h.meta_uuid, at)?;
    let bad = |field, rule| Corruption::new(N, field, rule).at_daddr(at.daddr);
    if h.uuid != at.geometry.uuid {
        return Err(bad("uuid", Rule::Uuid)
            .found(uuid::Uuid::from_bytes(h.uuid))
            .expected(uuid::Uuid::from_bytes(at.geometry.uuid)));
    }
    if h.pad.get() != 0 || bytes.get(size_of::<RtSuperblock>()..).is_some_and(|r| r.iter().any(|b| *b != 0)) {
        return Err(bad("pad", Rule::Range).found("other bytes").expected("zeroes"));
    }
    Ok(())
}

/// Block of a bitmap with a header.
pub static RT_BITMAP: BlockType = BlockType {
    name: "rtbitmap",
    log_type: 19,
    lsn: lsn_headed,
    verify: |b, at| verify_headed("rtbitmap", BITMAP_MAGIC, b, at),
    seal: |b, lsn| seal_headed(BITMAP_MAGIC, b, lsn),
};
/// Block of a summary with a header.
pub static RT_SUMMARY: BlockType = BlockType {
    name: "rtsummary",
    log_type: 20,
    lsn: lsn_headed,
    verify: |b, at| verify_headed("rtsummary", SUMMARY_MAGIC, b, at),
    seal: |b, lsn| seal_headed(SUMMARY_MAGIC, b, lsn),
};
/// Block of a bitmap without groups: bare words, in which any bits are right.
pub static RT_BITMAP_BARE: BlockType =
    BlockType { name: "rtbitmap-bare", log_type: 19, lsn: |_| None, verify: |_, _| Ok(()), seal: |_, _| {} };
/// Block of a summary without groups.
pub static RT_SUMMARY_BARE: BlockType =
    BlockType { name: "rtsummary-bare", log_type: 20, lsn: |_| None, verify: |_, _| Ok(()), seal: |_, _| {} };
/// First block of a realtime device with groups. It is written with the primary superblock and never logged.
pub static RT_SUPER: BlockType = BlockType {
    name: "rgsuper",
    log_type: 0,
    lsn: |_| None,
    verify: verify_super,
    seal: |b, _| seal_checksum(b, offset_of!(RtSuperblock, crc)),
};

/// The types of bitmap and summary blocks in this filesystem.
pub fn block_types(geometry: &Geometry) -> (&'static BlockType, &'static BlockType) {
    if has_headers(geometry) { (&RT_BITMAP, &RT_SUMMARY) } else { (&RT_BITMAP_BARE, &RT_SUMMARY_BARE) }
}

#[cfg(test)]
mod tests {
    use super::{RT_BITMAP, RT_SUPER, RtBlockHeader, RtSuperblock, Words, put_word, summary_index, words_per_block};
    use crate::format::features::Incompat;
    use crate::format::{Context, seal_checksum};
    use crate::geometry::test_geometry;
    use crate::units::{Daddr, Lsn};
    use proptest::prelude::{any, prop, proptest};
    use zerocopy::FromBytes;

    #[test]
    fn words_have_the_byte_order_of_the_format() {
        let mut g = test_geometry();
        let mut b = vec![0; 4096];
        assert_eq!(words_per_block(&g), 1024);
        assert!(put_word(&mut b, &g, 1, 0x1234_5678));
        assert_eq!(b[4], 0x78);
        g.features.incompat |= Incompat::METADIR;
        assert_eq!(words_per_block(&g), 1012);
        assert!(put_word(&mut b, &g, 1011, 0x1234_5678));
        assert_eq!((b[4092], Words::of(&b, &g).get(1011)), (0x12, Some(0x1234_5678)));
        assert!(!put_word(&mut b, &g, 1012, 0));
        assert_eq!(Words::of(&b, &g).get(1012), None);
        assert_eq!(summary_index(3, 5, 10), Some(35));
    }

    #[test]
    fn blocks_with_headers_are_checked() {
        let mut g = test_geometry();
        g.features.incompat |= Incompat::METADIR;
        let at = Context::new(&g, Daddr(96));
        let mut b = vec![0xff; 4096];
        let h = RtBlockHeader::mut_from_prefix(&mut b).expect("long enough").0;
        h.magic.set(super::BITMAP_MAGIC);
        h.uuid = g.meta_uuid;
        h.blkno.set(96);
        (RT_BITMAP.seal)(&mut b, Lsn(1));
        assert_eq!((RT_BITMAP.verify)(&b, &at), Ok(()));
        b[4000] ^= 1;
        assert_eq!((RT_BITMAP.verify)(&b, &at).map_err(|c| c.code()), Err("rtbitmap.crc.crc".to_owned()));
        let mut s = vec![0; 4096];
        let h = RtSuperblock::mut_from_prefix(&mut s).expect("long enough").0;
        h.magicnum.set(super::SUPER_MAGIC);
        (h.uuid, h.meta_uuid) = (g.uuid, g.meta_uuid);
        seal_checksum(&mut s, 4);
        assert_eq!((RT_SUPER.verify)(&s, &at), Ok(()));
        s[100] = 1;
        seal_checksum(&mut s, 4);
        assert_eq!((RT_SUPER.verify)(&s, &at).map_err(|c| c.code()), Err("rgsuper.pad.range".to_owned()));
    }

    proptest! {
        #[test]
        fn runs_are_those_that_a_walk_over_the_bits_finds(b in prop::collection::vec(any::<u8>(), 0..80), bits in 0usize..700) {
            let g = test_geometry();
            let words = Words::of(&b, &g);
            let n = bits.min(words.len() * 32);
            let mut walk = Vec::new();
            let mut start = None;
            for i in 0..=n {
                let set = i < n && words.get(i / 32).is_some_and(|w| w >> (i % 32) & 1 == 1);
                match (set, start) {
                    (true, None) => start = Some(i),
                    (false, Some(s)) => {
                        walk.push((s, i - s));
                        start = None;
                    }
                    _ => {}
                }
            }
            assert_eq!(words.runs(bits).collect::<Vec<_>>(), walk);
            let at = Context::new(&g, Daddr(96));
            let _ = (RT_BITMAP.verify)(&b, &at);
            let _ = (RT_SUPER.verify)(&b, &at);
        }
    }
}
