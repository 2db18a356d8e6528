//! Quota records.

use crate::field::{Def, Lines, Show};

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
    ("diskdq.itimer", 56, Show::Dec(4)),
    ("diskdq.btimer", 60, Show::Dec(4)),
    ("diskdq.iwarns", 64, Show::Dec(2)),
    ("diskdq.bwarns", 66, Show::Dec(2)),
    ("diskdq.rtb_hardlimit", 72, Show::Dec(8)),
    ("diskdq.rtb_softlimit", 80, Show::Dec(8)),
    ("diskdq.rtbcount", 88, Show::Dec(8)),
    ("diskdq.rtbtimer", 96, Show::Dec(4)),
    ("diskdq.rtbwarns", 100, Show::Dec(2)),
    ("crc", 108, Show::Crc),
    ("lsn", 112, Show::Hex(8)),
    ("uuid", 120, Show::Uuid),
];

/// `bytes` begin with the record and end with it, so that the checksum covers what it shall.
pub(super) fn slot(out: &mut Lines, bytes: &[u8]) {
    out.table("", bytes, SLOT);
}
