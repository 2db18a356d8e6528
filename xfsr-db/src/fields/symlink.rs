//! Blocks of remote symbolic links.

use crate::field::{Def, Lines, Show, chars};
use libxfsr::format::symlink::payload;

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
    out.one("data", chars(payload(bytes).map_or(&[], |p| p.1)));
}
