//! The headers of an allocation group: AGF (free space), AGI (inodes), AGFL (spare blocks for the free space trees). They
//! follow the superblock, one sector each, in that order: AGF 1, AGI 2, AGFL 3.
//!
//! Book: chapter "Allocation Groups".

use super::{BlockType, Context, check_crc, check_magic, check_uuid, lsn_at, put_lsn, seal_checksum, view};
use crate::error::{Corruption, Rule, Verdict};
use crate::units::{AgNumber, NULL_AGBLOCK, NULL_AGINO};
use std::mem::offset_of;
use zerocopy::big_endian::{U32, U64};
use zerocopy::little_endian::U32 as Le32;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// `XAGF`.
pub const AGF_MAGIC: u32 = 0x5841_4746;
/// `XAGI`.
pub const AGI_MAGIC: u32 = 0x5841_4749;
/// `XAFL`.
pub const AGFL_MAGIC: u32 = 0x5841_464c;
/// Version of AGF and AGI.
pub const VERSION: u32 = 1;
/// Hash buckets of the AGI's unlinked lists.
pub const UNLINKED_BUCKETS: usize = 64;

/// Free space header.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
#[allow(missing_docs, reason = "fields carry the format's own names, which the book explains")]
pub struct Agf {
    pub magicnum: U32,
    pub versionnum: U32,
    pub seqno: U32,
    pub length: U32,
    pub bno_root: U32,
    pub cnt_root: U32,
    pub rmap_root: U32,
    pub bno_level: U32,
    pub cnt_level: U32,
    pub rmap_level: U32,
    pub flfirst: U32,
    pub fllast: U32,
    pub flcount: U32,
    pub freeblks: U32,
    pub longest: U32,
    pub btreeblks: U32,
    pub uuid: [u8; 16],
    pub rmap_blocks: U32,
    pub refcount_blocks: U32,
    pub refcount_root: U32,
    pub refcount_level: U32,
    pub spare64: [U64; 14],
    pub lsn: U64,
    pub crc: Le32,
    pub spare2: U32,
}
const _: () = assert!(size_of::<Agf>() == 224);
const _: () = assert!(offset_of!(Agf, crc) == 216);

/// Inode header.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
#[allow(missing_docs, reason = "fields carry the format's own names, which the book explains")]
pub struct Agi {
    pub magicnum: U32,
    pub versionnum: U32,
    pub seqno: U32,
    pub length: U32,
    pub count: U32,
    pub root: U32,
    pub level: U32,
    pub freecount: U32,
    pub newino: U32,
    pub dirino: U32,
    pub unlinked: [U32; UNLINKED_BUCKETS],
    pub uuid: [u8; 16],
    pub crc: Le32,
    pub pad32: U32,
    pub lsn: U64,
    pub free_root: U32,
    pub free_level: U32,
    pub iblocks: U32,
    pub fblocks: U32,
}
const _: () = assert!(size_of::<Agi>() == 344);
const _: () = assert!(offset_of!(Agi, crc) == 312);

/// Header of the free list; the rest of the sector is the ring of block numbers.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
#[allow(missing_docs, reason = "fields carry the format's own names, which the book explains")]
pub struct Agfl {
    pub magicnum: U32,
    pub seqno: U32,
    pub uuid: [u8; 16],
    pub lsn: U64,
    pub crc: Le32,
}
const _: () = assert!(size_of::<Agfl>() == 36);
const _: () = assert!(offset_of!(Agfl, crc) == 32);

/// The free list's slots in a sector.
pub fn agfl_slots(bytes: &[u8]) -> &[U32] {
    let body = bytes.get(size_of::<Agfl>()..).unwrap_or(&[]);
    <[U32]>::ref_from_prefix_with_elems(body, body.len() / 4).map(|(s, _)| s).unwrap_or(&[])
}

fn range(name: &'static str, field: &'static str, at: &Context<'_>, found: u32, low: u32, high: u32) -> Verdict {
    if (low..=high).contains(&found) {
        return Ok(());
    }
    Err(Corruption::new(name, field, Rule::Range)
        .at_daddr(at.daddr)
        .found(found)
        .expected(format_args!("{low} to {high}")))
}

fn agno_of(at: &Context<'_>) -> AgNumber {
    at.geometry.daddr_to_ag(at.daddr).map_or(AgNumber(0), |(ag, _)| ag)
}

fn verify_agf(bytes: &[u8], at: &Context<'_>) -> Verdict {
    const N: &str = "agf";
    let g = at.geometry;
    let agf: &Agf = view(N, bytes, at)?;
    check_magic(N, agf.magicnum.get(), AGF_MAGIC, at)?;
    check_crc(N, bytes, offset_of!(Agf, crc), at)?;
    check_uuid(N, &agf.uuid, at)?;
    range(N, "versionnum", at, agf.versionnum.get(), VERSION, VERSION)?;
    let agno = agno_of(at);
    range(N, "seqno", at, agf.seqno.get(), agno.0, agno.0)?;
    let length = g.ag_blocks(agno);
    range(N, "length", at, agf.length.get(), length, length)?;
    let slots = g.agfl_slots();
    range(N, "flfirst", at, agf.flfirst.get(), 0, slots.saturating_sub(1))?;
    range(N, "fllast", at, agf.fllast.get(), 0, slots.saturating_sub(1))?;
    range(N, "flcount", at, agf.flcount.get(), 0, slots)?;
    range(N, "freeblks", at, agf.freeblks.get(), 0, length)?;
    range(N, "longest", at, agf.longest.get(), 0, agf.freeblks.get())?;
    range(N, "bno_level", at, agf.bno_level.get(), 1, u32::from(g.max_levels.bno))?;
    range(N, "cnt_level", at, agf.cnt_level.get(), 1, u32::from(g.max_levels.bno))?;
    range(N, "bno_root", at, agf.bno_root.get(), 1, length - 1)?;
    range(N, "cnt_root", at, agf.cnt_root.get(), 1, length - 1)?;
    range(N, "btreeblks", at, agf.btreeblks.get(), 0, length)?;
    if g.features.rmapbt() {
        range(N, "rmap_level", at, agf.rmap_level.get(), 1, u32::from(g.max_levels.rmap))?;
        range(N, "rmap_root", at, agf.rmap_root.get(), 1, length - 1)?;
        range(N, "rmap_blocks", at, agf.rmap_blocks.get(), 1, length)?;
    }
    if g.features.reflink() {
        range(N, "refcount_level", at, agf.refcount_level.get(), 1, u32::from(g.max_levels.refcount))?;
        range(N, "refcount_root", at, agf.refcount_root.get(), 1, length - 1)?;
        range(N, "refcount_blocks", at, agf.refcount_blocks.get(), 1, length)?;
    }
    Ok(())
}

fn verify_agi(bytes: &[u8], at: &Context<'_>) -> Verdict {
    const N: &str = "agi";
    let g = at.geometry;
    let agi: &Agi = view(N, bytes, at)?;
    check_magic(N, agi.magicnum.get(), AGI_MAGIC, at)?;
    check_crc(N, bytes, offset_of!(Agi, crc), at)?;
    check_uuid(N, &agi.uuid, at)?;
    range(N, "versionnum", at, agi.versionnum.get(), VERSION, VERSION)?;
    let agno = agno_of(at);
    range(N, "seqno", at, agi.seqno.get(), agno.0, agno.0)?;
    let length = g.ag_blocks(agno);
    range(N, "length", at, agi.length.get(), length, length)?;
    range(N, "level", at, agi.level.get(), 1, u32::from(g.max_levels.ino))?;
    range(N, "root", at, agi.root.get(), 1, length - 1)?;
    if g.features.finobt() {
        range(N, "free_level", at, agi.free_level.get(), 1, u32::from(g.max_levels.ino))?;
        range(N, "free_root", at, agi.free_root.get(), 1, length - 1)?;
    }
    let inodes = u32::try_from(u64::from(length) << g.inopb_log).unwrap_or(u32::MAX);
    range(N, "count", at, agi.count.get(), 0, inodes)?;
    range(N, "freecount", at, agi.freecount.get(), 0, agi.count.get())?;
    if g.features.inobtcnt() {
        range(N, "iblocks", at, agi.iblocks.get(), 1, length)?;
        range(N, "fblocks", at, agi.fblocks.get(), u32::from(g.features.finobt()), length)?;
    }
    for u in &agi.unlinked {
        let v = u.get();
        if v != NULL_AGINO && !g.is_valid_agino(agno, crate::units::AgIno(v)) {
            return Err(Corruption::new(N, "unlinked", Rule::Range).at_daddr(at.daddr).found(v));
        }
    }
    Ok(())
}

fn verify_agfl(bytes: &[u8], at: &Context<'_>) -> Verdict {
    const N: &str = "agfl";
    let agfl: &Agfl = view(N, bytes, at)?;
    check_magic(N, agfl.magicnum.get(), AGFL_MAGIC, at)?;
    check_crc(N, bytes, offset_of!(Agfl, crc), at)?;
    check_uuid(N, &agfl.uuid, at)?;
    let agno = agno_of(at);
    range(N, "seqno", at, agfl.seqno.get(), agno.0, agno.0)?;
    // Slots that are not in use may keep what they held before a short last AG was cut off; the others are looked at with the AGF.
    for s in agfl_slots(bytes) {
        let v = s.get();
        if v != NULL_AGBLOCK && v >= at.geometry.agblocks {
            return Err(Corruption::new(N, "bno", Rule::Range).at_daddr(at.daddr).found(v));
        }
    }
    Ok(())
}

/// AGF sector.
pub static AGF: BlockType = BlockType {
    name: "agf",
    log_type: 5,
    lsn: |b| lsn_at(b, offset_of!(Agf, lsn)),
    verify: verify_agf,
    seal: |b, lsn| {
        put_lsn(b, offset_of!(Agf, lsn), lsn);
        seal_checksum(b, offset_of!(Agf, crc));
    },
};
/// AGI sector.
pub static AGI: BlockType = BlockType {
    name: "agi",
    log_type: 7,
    lsn: |b| lsn_at(b, offset_of!(Agi, lsn)),
    verify: verify_agi,
    seal: |b, lsn| {
        put_lsn(b, offset_of!(Agi, lsn), lsn);
        seal_checksum(b, offset_of!(Agi, crc));
    },
};
/// AGFL sector.
pub static AGFL: BlockType = BlockType {
    name: "agfl",
    log_type: 6,
    lsn: |b| lsn_at(b, offset_of!(Agfl, lsn)),
    verify: verify_agfl,
    seal: |b, lsn| {
        put_lsn(b, offset_of!(Agfl, lsn), lsn);
        seal_checksum(b, offset_of!(Agfl, crc));
    },
};

#[cfg(test)]
mod tests {
    use super::{AGF, AGFL, AGI, Agfl, Agi};
    use crate::format::Context;
    use crate::geometry::test_geometry;
    use crate::units::{AgNumber, Lsn};
    use proptest::prelude::{any, prop, proptest};
    use zerocopy::FromBytes;

    fn agi(change: impl FnOnce(&mut Agi)) -> Option<String> {
        let g = test_geometry();
        let mut b = vec![0; 512];
        let h = Agi::mut_from_prefix(&mut b).expect("long enough").0;
        h.magicnum.set(super::AGI_MAGIC);
        h.versionnum.set(1);
        h.seqno.set(1);
        h.length.set(19_200);
        h.count.set(64);
        h.freecount.set(61);
        h.root.set(3);
        h.level.set(1);
        h.free_root.set(4);
        h.free_level.set(1);
        h.iblocks.set(1);
        h.fblocks.set(1);
        h.unlinked = [u32::MAX.into(); super::UNLINKED_BUCKETS];
        h.uuid = g.meta_uuid;
        change(h);
        (AGI.seal)(&mut b, Lsn(0));
        let at = Context::new(&g, g.header_daddr(AgNumber(1), 2));
        (AGI.verify)(&b, &at).err().map(|c| c.code())
    }

    #[test]
    fn inode_headers_are_checked() {
        assert_eq!(agi(|_| {}), None);
        type Change = fn(&mut Agi);
        let cases: [(&str, Change); 8] = [
            ("agi.seqno.range", |h| h.seqno.set(2)),
            ("agi.length.range", |h| h.length.set(19_199)),
            ("agi.root.range", |h| h.root.set(19_200)),
            ("agi.level.range", |h| h.level.set(9)),
            ("agi.count.range", |h| h.count.set(19_200 * 8 + 1)),
            ("agi.freecount.range", |h| h.freecount.set(65)),
            ("agi.iblocks.range", |h| h.iblocks.set(0)),
            ("agi.unlinked.range", |h| h.unlinked[7].set(7)),
        ];
        for (want, change) in cases {
            assert_eq!(agi(change).as_deref(), Some(want));
        }
    }

    #[test]
    fn slots_of_the_free_list_may_hold_blocks_that_a_short_last_ag_has_lost() {
        let mut g = test_geometry();
        g.blocks -= 10_000;
        let last = AgNumber(g.ag_count - 1);
        assert_eq!(g.ag_blocks(last), 9_200);
        let verify = |block: u32| {
            let mut b = vec![0xff; 512];
            let h = Agfl::mut_from_prefix(&mut b).expect("long enough").0;
            h.magicnum.set(super::AGFL_MAGIC);
            h.seqno.set(last.0);
            h.uuid = g.meta_uuid;
            b[100..104].copy_from_slice(&block.to_be_bytes());
            (AGFL.seal)(&mut b, Lsn(0));
            (AGFL.verify)(&b, &Context::new(&g, g.header_daddr(last, 3))).err().map(|c| c.code())
        };
        assert_eq!((verify(9_199), verify(19_199)), (None, None));
        assert_eq!(verify(19_200).as_deref(), Some("agfl.bno.range"));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(b in prop::collection::vec(any::<u8>(), 0..600), n in 0u32..5) {
            let g = test_geometry();
            let at = Context::new(&g, g.header_daddr(AgNumber(n), 1));
            for t in [&AGF, &AGI, &AGFL] {
                let mut b = b.clone();
                for magic in [super::AGF_MAGIC, super::AGI_MAGIC, super::AGFL_MAGIC] {
                    if let Some(m) = b.first_chunk_mut::<4>() {
                        *m = magic.to_be_bytes();
                    }
                    (t.seal)(&mut b, Lsn(0));
                    let _ = (t.verify)(&b, &at);
                }
            }
        }
    }
}
