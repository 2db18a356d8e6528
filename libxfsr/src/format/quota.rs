//! Quota records: slots of 136 bytes, as many in each block of a quota file as fit; record `id` stands at slot `id` of the file.
//!
//! A slot is the record as v4 had it (104 bytes), then what v5 added: checksum, LSN, UUID. Book: chapter "Internal Inodes".

use super::{BlockType, Context, check_crc, check_uuid, put_lsn, seal_checksum};
use crate::error::{Corruption, Rule, Verdict};
use crate::units::Lsn;
use bitflags::bitflags;
use std::mem::offset_of;
use zerocopy::big_endian::{U16, U32, U64};
use zerocopy::little_endian::U32 as Le32;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// `DQ`.
pub const MAGIC: u16 = 0x4451;
/// The only version.
pub const VERSION: u8 = 1;
/// Bytes of a slot.
pub const SLOT_SIZE: usize = size_of::<DquotSlot>();
/// Bigtime timers count units of four seconds.
pub const BIGTIME_SHIFT: u32 = 2;

bitflags! {
    /// `d_type`.
    #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
    pub struct DquotType: u8 {
        /// User.
        const USER = 1 << 0;
        /// Project.
        const PROJECT = 1 << 1;
        /// Group.
        const GROUP = 1 << 2;
        /// Timers are bigtime.
        const BIGTIME = 1 << 7;
    }
}

impl DquotType {
    /// The bits that say whose quota it is; exactly one is set.
    pub const OWNER: Self = Self::USER.union(Self::PROJECT).union(Self::GROUP);
}

/// A quota record.
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
#[allow(missing_docs, reason = "fields carry the format's own names, which the book explains")]
pub struct DiskDquot {
    pub magic: U16,
    pub version: u8,
    pub kind: u8,
    pub id: U32,
    pub blk_hardlimit: U64,
    pub blk_softlimit: U64,
    pub ino_hardlimit: U64,
    pub ino_softlimit: U64,
    pub bcount: U64,
    pub icount: U64,
    pub itimer: U32,
    pub btimer: U32,
    pub iwarns: U16,
    pub bwarns: U16,
    pub pad0: U32,
    pub rtb_hardlimit: U64,
    pub rtb_softlimit: U64,
    pub rtbcount: U64,
    pub rtbtimer: U32,
    pub rtbwarns: U16,
    pub pad: U16,
}
const _: () = assert!(size_of::<DiskDquot>() == 104);

/// A slot of a quota file.
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
#[allow(missing_docs, reason = "fields carry the format's own names, which the book explains")]
pub struct DquotSlot {
    pub diskdq: DiskDquot,
    pub fill: U32,
    pub crc: Le32,
    pub lsn: U64,
    pub uuid: [u8; 16],
}
const _: () = assert!(SLOT_SIZE == 136);
/// Offset of a slot's CRC.
pub const CRC_OFFSET: usize = offset_of!(DquotSlot, crc);
const _: () = assert!(CRC_OFFSET == 108);

impl DiskDquot {
    /// `d_type`; unknown bits are kept.
    pub fn kind(&self) -> DquotType {
        DquotType::from_bits_retain(self.kind)
    }
    /// Second at which a grace period ends (in record 0: its length in seconds, which is never scaled); 0 for none.
    pub fn timer(&self, raw: U32) -> u64 {
        if self.kind().contains(DquotType::BIGTIME) {
            u64::from(raw.get()) << BIGTIME_SHIFT
        } else {
            u64::from(raw.get())
        }
    }
}

/// Slots in a block.
pub const fn slots_per_block(block: usize) -> usize {
    block / SLOT_SIZE
}

/// The slots of a block.
pub fn slots(block: &[u8]) -> &[DquotSlot] {
    super::da::array(block, slots_per_block(block.len()))
}

/// Stamps LSN and checksum of one slot.
pub fn seal_slot(slot: &mut [u8], lsn: Lsn) {
    if let Some(slot) = slot.get_mut(..SLOT_SIZE) {
        put_lsn(slot, offset_of!(DquotSlot, lsn), lsn);
        seal_checksum(slot, offset_of!(DquotSlot, crc));
    }
}

/// Checks one slot. `id` is the record's number where it is known, `kind` whose quota the file keeps.
///
/// # Errors
/// The first broken rule.
pub fn verify_slot(slot: &[u8], id: Option<u32>, kind: Option<DquotType>, at: &Context<'_>) -> Verdict {
    const N: &str = "dquot";
    let bad = |field, rule| Corruption::new(N, field, rule).at_daddr(at.daddr);
    let Some(bytes) = slot.get(..SLOT_SIZE) else { return Err(bad("length", Rule::Truncated).found(slot.len())) };
    let Ok((s, _)) = DquotSlot::ref_from_prefix(bytes) else { return Err(bad("length", Rule::Truncated)) };
    let d = &s.diskdq;
    if d.magic.get() != MAGIC {
        return Err(bad("magic", Rule::Magic).found(format_args!("{:#06x}", d.magic.get())).expected("0x4451"));
    }
    check_crc(N, bytes, offset_of!(DquotSlot, crc), at)?;
    check_uuid(N, &s.uuid, at)?;
    if d.version != VERSION {
        return Err(bad("version", Rule::Range).found(d.version).expected(VERSION));
    }
    let flags = d.kind();
    let owner = flags.intersection(DquotType::OWNER);
    if !DquotType::all().contains(flags) || owner.bits().count_ones() != 1 || kind.is_some_and(|k| k != owner) {
        return Err(bad("type", Rule::Flags).found(format_args!("{:#x}", d.kind)).expected("user, group or project"));
    }
    if flags.contains(DquotType::BIGTIME) && (!at.geometry.features.bigtime() || d.id.get() == 0) {
        return Err(bad("type", Rule::Flags).found("bigtime").expected("the feature, and no default record"));
    }
    if id.is_some_and(|id| id != d.id.get()) {
        return Err(bad("id", Rule::Address).found(d.id).expected(id.unwrap_or(0)));
    }
    if d.id.get() == 0 {
        return Ok(());
    }
    // Over a soft limit a grace period must be running.
    for (field, soft, used, timer) in [
        ("btimer", d.blk_softlimit, d.bcount, d.btimer),
        ("itimer", d.ino_softlimit, d.icount, d.itimer),
        ("rtbtimer", d.rtb_softlimit, d.rtbcount, d.rtbtimer),
    ] {
        if soft.get() != 0 && used.get() > soft.get() && timer.get() == 0 {
            return Err(bad(field, Rule::Missing).found(0).expected("a grace period, as the soft limit is exceeded"));
        }
    }
    Ok(())
}

fn verify(bytes: &[u8], at: &Context<'_>) -> Verdict {
    let mut base = None;
    for (i, slot) in bytes.chunks_exact(SLOT_SIZE).enumerate() {
        let id = base.map(|b: u32| b.saturating_add(u32::try_from(i).unwrap_or(u32::MAX)));
        verify_slot(slot, id, None, at)?;
        base = base.or_else(|| DquotSlot::ref_from_prefix(slot).ok().map(|(s, _)| s.diskdq.id.get()));
    }
    let per = u32::try_from(slots_per_block(bytes.len())).unwrap_or(u32::MAX).max(1);
    match base {
        Some(b) if !b.is_multiple_of(per) => Err(Corruption::new("dquot", "id", Rule::Address)
            .at_daddr(at.daddr)
            .found(b)
            .expected(format_args!("a multiple of {per}"))),
        _ => Ok(()),
    }
}

/// One block of a quota file. Its slots have their own checksums: who changes one calls [`seal_slot`], and sealing the block does
/// nothing. The journal's type depends on the file: see [`log_type`].
pub static DQUOT_BLOCK: BlockType = BlockType { name: "dquot", log_type: 1, lsn: |_| None, verify, seal: |_, _| {} };

/// How the journal names a block of that kind's quota file.
pub fn log_type(kind: DquotType) -> u8 {
    if kind.contains(DquotType::PROJECT) {
        2
    } else if kind.contains(DquotType::GROUP) {
        3
    } else {
        1
    }
}

#[cfg(test)]
mod tests {
    use super::{DQUOT_BLOCK, DquotSlot, DquotType, SLOT_SIZE, seal_slot, slots, slots_per_block, verify_slot};
    use crate::format::Context;
    use crate::geometry::test_geometry;
    use crate::units::{Daddr, Lsn};
    use proptest::prelude::{any, prop, proptest};
    use zerocopy::FromBytes;

    fn slot(id: u32, change: impl FnOnce(&mut DquotSlot)) -> Vec<u8> {
        let mut b = vec![0; SLOT_SIZE];
        let s = DquotSlot::mut_from_prefix(&mut b).expect("long enough").0;
        s.diskdq.magic.set(super::MAGIC);
        s.diskdq.version = 1;
        s.diskdq.kind = DquotType::USER.bits();
        s.diskdq.id.set(id);
        s.uuid = test_geometry().meta_uuid;
        change(s);
        seal_slot(&mut b, Lsn(1));
        b
    }

    fn code(b: &[u8]) -> Option<String> {
        (DQUOT_BLOCK.verify)(b, &Context::new(&test_geometry(), Daddr(96))).err().map(|c| c.code())
    }

    #[test]
    fn slots_are_checked() {
        let g = test_geometry();
        let at = Context::new(&g, Daddr(96));
        assert_eq!(slots_per_block(4096), 30);
        let block: Vec<u8> = (60..90).flat_map(|id| slot(id, |_| {})).chain([0; 16]).collect();
        assert_eq!(code(&block), None);
        assert_eq!(slots(&block).len(), 30);
        let shifted: Vec<u8> = (61..91).flat_map(|id| slot(id, |_| {})).chain([0; 16]).collect();
        assert_eq!(code(&shifted).as_deref(), Some("dquot.id.address"));
        type Change = fn(&mut DquotSlot);
        let cases: [(&str, Change); 7] = [
            ("dquot.magic.magic", |s| s.diskdq.magic.set(1)),
            ("dquot.uuid.uuid", |s| s.uuid[3] ^= 1),
            ("dquot.version.range", |s| s.diskdq.version = 2),
            ("dquot.type.flags", |s| s.diskdq.kind = 3),
            ("dquot.type.flags", |s| s.diskdq.kind = 0),
            ("dquot.id.address", |s| s.diskdq.id.set(8)),
            ("dquot.btimer.missing", |s| {
                s.diskdq.blk_softlimit.set(5);
                s.diskdq.bcount.set(6);
            }),
        ];
        for (want, change) in cases {
            let b = slot(7, change);
            assert_eq!(
                verify_slot(&b, Some(7), Some(DquotType::USER), &at).map_err(|c| c.code()),
                Err(want.to_owned())
            );
        }
        let group = verify_slot(&slot(7, |_| {}), Some(7), Some(DquotType::GROUP), &at);
        assert_eq!(group.map_err(|c| c.code()), Err("dquot.type.flags".to_owned()));
        let big = slot(7, |s| s.diskdq.kind |= 0x80);
        let d = DquotSlot::ref_from_prefix(&big).expect("long enough").0.diskdq;
        assert_eq!(d.timer(zerocopy::big_endian::U32::new(3)), 12);
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(mut b in prop::collection::vec(any::<u8>(), 0..500), sound in any::<bool>()) {
            if sound && b.len() >= SLOT_SIZE {
                b[..8].copy_from_slice(&slot(0, |_| {})[..8]);
                b[120..136].copy_from_slice(&test_geometry().meta_uuid);
                seal_slot(&mut b, Lsn(0));
            }
            code(&b);
        }
    }
}
