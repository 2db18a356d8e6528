//! Limits, and how long soft ones may be exceeded.

use super::{Kind, slot_of};
use crate::cache::{BlockKey, OnDamage, Want};
use crate::error::{Error, Result};
use crate::format::btree::Extent;
use crate::format::quota::{BIGTIME_SHIFT, DQUOT_BLOCK, DiskDquot, DquotType};
use crate::geometry::Geometry;
use crate::units::FsBlock;
use crate::volume::Volume;
use zerocopy::FromBytes;
use zerocopy::big_endian::{U32, U64};

/// Seconds that a soft limit may be exceeded where the file does not say otherwise: a week.
const WEEK: u32 = 7 * 24 * 60 * 60;

/// A resource of a record.
pub(super) struct Resource<'d> {
    pub(super) what: &'static str,
    pub(super) used: &'d mut U64,
    hard: &'d mut U64,
    soft: &'d mut U64,
    timer: &'d mut U32,
}

/// Inodes, blocks, realtime blocks.
pub(super) fn resources(d: &mut DiskDquot) -> [Resource<'_>; 3] {
    [
        Resource {
            what: "inodes",
            used: &mut d.icount,
            hard: &mut d.ino_hardlimit,
            soft: &mut d.ino_softlimit,
            timer: &mut d.itimer,
        },
        Resource {
            what: "blocks",
            used: &mut d.bcount,
            hard: &mut d.blk_hardlimit,
            soft: &mut d.blk_softlimit,
            timer: &mut d.btimer,
        },
        Resource {
            what: "realtime blocks",
            used: &mut d.rtbcount,
            hard: &mut d.rtb_hardlimit,
            soft: &mut d.rtb_softlimit,
            timer: &mut d.rtbtimer,
        },
    ]
}

/// What record 0 says of all others.
#[derive(Clone, Copy, Debug)]
pub(super) struct Graces {
    /// Hard and soft limit of who has none, and seconds for which the soft one may be exceeded.
    of: [(u64, u64, u32); 3],
}

impl Graces {
    /// From the file of a kind; what it does not say is as Linux has it.
    pub(super) fn read(volume: &Volume, kind: Kind, map: &[Extent]) -> Result<Self> {
        let none = Self { of: [(0, 0, WEEK); 3] };
        let Some((key, at)) = place(volume, map, 0) else { return Ok(none) };
        let block = volume.cache.read(&key, &Want::new(&DQUOT_BLOCK, OnDamage::Fail), &volume.geometry)?;
        let record = block.bytes().get(at..).and_then(|b| DiskDquot::read_from_prefix(b).ok());
        let Some((mut d, _)) = record.filter(|(d, _)| d.kind().contains(kind.record())) else { return Ok(none) };
        let of = resources(&mut d).map(|r| {
            let grace = if r.timer.get() == 0 { WEEK } else { r.timer.get() };
            (r.hard.get(), r.soft.get(), grace)
        });
        Ok(Self { of })
    }
}

/// Where the record of a number is: its block, and the byte in it.
pub(super) fn place(volume: &Volume, map: &[Extent], id: u32) -> Option<(BlockKey, usize)> {
    let g = &volume.geometry;
    let (block, at) = slot_of(id, g.block_size);
    let n = map.partition_point(|e| e.offset <= block);
    let e = map.get(n.checked_sub(1)?).filter(|e| block - e.offset < e.count && !e.unwritten)?;
    let daddr = g.fsblock_to_daddr(FsBlock(e.start.checked_add(block - e.offset)?))?;
    Some((BlockKey::one(volume.data, daddr, g.block_size / 512), at))
}

/// A change of what somebody uses.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Delta {
    /// Inodes, blocks, realtime blocks.
    pub(super) of: [i64; 3],
}

impl Delta {
    pub(super) fn is_none(&self) -> bool {
        self.of == [0; 3]
    }
    pub(super) fn add(&mut self, other: [i64; 3], sign: i64) {
        for (sum, n) in self.of.iter_mut().zip(other) {
            *sum = sum.saturating_add(n.saturating_mul(sign));
        }
    }
}

/// Second as a record has it.
fn encode(d: DquotType, second: u64) -> u32 {
    let raw = if d.contains(DquotType::BIGTIME) { (second + 3) >> BIGTIME_SHIFT } else { second };
    // Zero is no time.
    u32::try_from(raw.max(1)).unwrap_or(u32::MAX)
}

/// Whether a change is within the limits.
pub(super) fn allowed(d: &DiskDquot, graces: &Graces, delta: &Delta, now: u64, who: &str) -> Result<()> {
    let (mut copy, kind) = (*d, *d);
    for ((r, n), (hard, soft, _)) in resources(&mut copy).into_iter().zip(delta.of).zip(graces.of) {
        let Some(more) = u64::try_from(n).ok().filter(|n| *n > 0) else { continue };
        let or = |own: u64, all: u64| if own == 0 { all } else { own };
        let (hard, soft) = (or(r.hard.get(), hard), or(r.soft.get(), soft));
        let all = r.used.get().saturating_add(more);
        if hard != 0 && all > hard {
            let (used, what) = (r.used.get(), r.what);
            return Err(Error::QuotaExceeded(format!("{who} has {used} {what} and may have {hard}: {more} more")));
        }
        let ends = kind.timer(*r.timer);
        if soft != 0 && all > soft && ends != 0 && now > ends {
            let what = r.what;
            return Err(Error::QuotaExceeded(format!(
                "{who} has had more than {soft} {what} for too long: {more} more"
            )));
        }
    }
    Ok(())
}

/// Changes a record, its limits and timers as Linux keeps them. None where the sums do not allow it.
pub(super) fn apply(d: &mut DiskDquot, graces: &Graces, delta: &Delta, now: u64) -> Option<()> {
    let (kind, default) = (d.kind(), d.id.get() == 0);
    for ((r, n), (hard, soft, grace)) in resources(d).into_iter().zip(delta.of).zip(graces.of) {
        r.used.set(r.used.get().checked_add_signed(n)?);
        if default {
            continue;
        }
        if r.hard.get() == 0 {
            r.hard.set(hard);
        }
        if r.soft.get() == 0 {
            r.soft.set(soft);
        }
        let over = |limit: u64| limit != 0 && r.used.get() > limit;
        if !over(r.soft.get()) && !over(r.hard.get()) {
            r.timer.set(0);
        } else if r.timer.get() == 0 {
            r.timer.set(encode(kind, now.saturating_add(grace.into())));
        }
    }
    Some(())
}

/// Slots in a block.
pub(super) fn slots(g: &Geometry) -> usize {
    crate::format::quota::slots_per_block(g.block_size as usize)
}

#[cfg(test)]
mod tests {
    use super::{Delta, Graces, WEEK, allowed, apply};
    use crate::format::quota::{DiskDquot, DquotType};
    use zerocopy::FromZeros;

    fn record(soft: u64, hard: u64) -> DiskDquot {
        let mut d = DiskDquot::new_zeroed();
        d.id.set(7);
        d.kind = (DquotType::USER | DquotType::BIGTIME).bits();
        d.blk_softlimit.set(soft);
        d.blk_hardlimit.set(hard);
        d
    }

    const NONE: Graces = Graces { of: [(0, 0, WEEK); 3] };

    fn blocks(n: i64) -> Delta {
        Delta { of: [0, n, 0] }
    }

    #[test]
    fn grace_periods_begin_and_end_with_the_soft_limit() {
        let mut d = record(10, 20);
        assert!(allowed(&d, &NONE, &blocks(15), 1000, "x").is_ok());
        apply(&mut d, &NONE, &blocks(15), 1000).unwrap();
        assert_eq!(d.timer(d.btimer), 1000 + u64::from(WEEK));
        // It runs on, and nothing more is allowed behind its end.
        apply(&mut d, &NONE, &blocks(1), 5000).unwrap();
        assert_eq!(d.timer(d.btimer), 1000 + u64::from(WEEK));
        assert!(allowed(&d, &NONE, &blocks(1), 1000 + u64::from(WEEK), "x").is_ok());
        assert!(allowed(&d, &NONE, &blocks(1), 1001 + u64::from(WEEK), "x").is_err());
        assert!(allowed(&d, &NONE, &blocks(5), 1000, "x").is_err(), "the hard limit");
        assert!(allowed(&d, &NONE, &blocks(-5), u64::MAX, "x").is_ok());
        apply(&mut d, &NONE, &blocks(-6), 6000).unwrap();
        assert_eq!((d.bcount.get(), d.btimer.get()), (10, 0));
        assert!(apply(&mut d, &NONE, &blocks(-11), 6000).is_none(), "less than nothing");
    }

    #[test]
    fn who_has_no_limits_gets_those_of_all() {
        let graces = Graces { of: [(0, 0, WEEK), (100, 50, 60), (0, 0, WEEK)] };
        let mut d = record(0, 0);
        assert!(allowed(&d, &graces, &blocks(101), 1, "x").is_err());
        apply(&mut d, &graces, &blocks(60), 100).unwrap();
        assert_eq!((d.blk_hardlimit.get(), d.blk_softlimit.get(), d.timer(d.btimer)), (100, 50, 160));
    }
}
