//! Quota records.

use super::inode::calendar;
use crate::field::{Def, Lines, Show, dec, plain};
use libxfsr::format::quota::{DiskDquot, DquotSlot};
use zerocopy::FromBytes as _;
use zerocopy::big_endian::U32;

const SLOT: &[Def] = &[
    ("diskdq.magic", 0, Show::Hex(2)),
    ("diskdq.version", 2, Show::Hex(1)),
    ("diskdq.type", 3, Show::Hex(1)),
    ("diskdq.id", 4, Show::Dec(4)),
    ("diskdq.blk_hardlimit", 8, Show::Dec(8)),
    ("diskdq.blk_softlimit", 16, Show::Dec(8)),
    ("diskdq.ino_hardlimit", 24, Show::Dec(8)),
    ("diskdq.ino_softlimit", 32, Show::Dec(8)),
    ("diskdq.bcount", 40, Show::Dec(8)),
    ("diskdq.icount", 48, Show::Dec(8)),
];
const WARNINGS: &[Def] = &[
    ("diskdq.iwarns", 64, Show::Dec(2)),
    ("diskdq.bwarns", 66, Show::Dec(2)),
    ("diskdq.rtb_hardlimit", 72, Show::Dec(8)),
    ("diskdq.rtb_softlimit", 80, Show::Dec(8)),
    ("diskdq.rtbcount", 88, Show::Dec(8)),
];
const REST: &[Def] = &[
    ("diskdq.rtbwarns", 100, Show::Dec(2)),
    ("crc", 108, Show::Crc),
    ("lsn", 112, Show::Hex(8)),
    ("uuid", 120, Show::Uuid),
];

/// `bytes` begin with the record and end with it, so that the checksum covers what it shall.
pub(super) fn slot(out: &mut Lines, bytes: &[u8]) {
    let Ok((slot, _)) = DquotSlot::ref_from_prefix(bytes) else { return };
    let d = &slot.diskdq;
    out.table("", bytes, SLOT);
    timer(out, "diskdq.itimer", d, (d.itimer, 56));
    timer(out, "diskdq.btimer", d, (d.btimer, 60));
    out.table("", bytes, WARNINGS);
    timer(out, "diskdq.rtbtimer", d, (d.rtbtimer, 96));
    out.table("", bytes, REST);
}

/// When a grace period ends; record 0 has the lengths of grace periods instead.
fn timer(out: &mut Lines, path: &str, d: &DiskDquot, (raw, at): (U32, usize)) {
    let ends = i64::try_from(d.timer(raw)).unwrap_or(i64::MAX);
    let shown = if d.id.get() == 0 || raw.get() == 0 { dec(raw.get().into()) } else { plain(calendar(ends)) };
    out.one(path, shown.at(at, 4));
}
