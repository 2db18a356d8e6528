//! Blocks of remote symbolic links.

use crate::field::{Def, Lines, Show, chars, number};
use libxfsr::format::symlink::MAGIC;

const HEADER: &[Def] = &[
    ("magic", 0, Show::Hex(4)),
    ("offset", 4, Show::Dec(4)),
    ("bytes", 8, Show::Dec(4)),
    ("crc", 12, Show::Crc),
    ("uuid", 16, Show::Uuid),
    ("owner", 32, Show::Ino),
    ("bno", 40, Show::Dec(8)),
    ("lsn", 48, Show::Hex(8)),
];

pub(super) fn block(out: &mut Lines, bytes: &[u8]) {
    out.table("", bytes, HEADER);
    if number(bytes, 0, 4) == Some(u64::from(MAGIC)) {
        // A target may go on in blocks behind the one that is shown.
        let body = bytes.get(56..).unwrap_or(&[]);
        let n = number(bytes, 8, 4).and_then(|n| usize::try_from(n).ok()).unwrap_or(0).min(body.len());
        let target = body.get(..n).unwrap_or(body);
        out.one("data", chars(target).chars_in(bytes, target));
    }
}
