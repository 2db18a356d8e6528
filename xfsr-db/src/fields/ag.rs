//! Superblock and AG headers.

use crate::field::{Def, Leaf, Lines, Link, Show, link, number, plain};
use crate::location::Type;
use libxfsr::volume::Volume;

const SUPERBLOCK: &[Def] = &[
    ("magicnum", 0, Show::Hex(4)),
    ("blocksize", 4, Show::Dec(4)),
    ("dblocks", 8, Show::Dec(8)),
    ("rblocks", 16, Show::Dec(8)),
    ("rextents", 24, Show::Dec(8)),
    ("uuid", 32, Show::Uuid),
    ("logstart", 48, Show::FsBlock(Type::Log)),
    ("rootino", 56, Show::Ino),
    ("rbmino", 64, Show::Ino),
    ("rsumino", 72, Show::Ino),
    ("rextsize", 80, Show::Dec(4)),
    ("agblocks", 84, Show::Dec(4)),
    ("agcount", 88, Show::Dec(4)),
    ("rbmblocks", 92, Show::Dec(4)),
    ("logblocks", 96, Show::Dec(4)),
    ("versionnum", 100, Show::Hex(2)),
    ("sectsize", 102, Show::Dec(2)),
    ("inodesize", 104, Show::Dec(2)),
    ("inopblock", 106, Show::Dec(2)),
    ("fname", 108, Show::Chars(12)),
    ("blocklog", 120, Show::Dec(1)),
    ("sectlog", 121, Show::Dec(1)),
    ("inodelog", 122, Show::Dec(1)),
    ("inopblog", 123, Show::Dec(1)),
    ("agblklog", 124, Show::Dec(1)),
    ("rextslog", 125, Show::Dec(1)),
    ("inprogress", 126, Show::Dec(1)),
    ("imax_pct", 127, Show::Dec(1)),
    ("icount", 128, Show::Dec(8)),
    ("ifree", 136, Show::Dec(8)),
    ("fdblocks", 144, Show::Dec(8)),
    ("frextents", 152, Show::Dec(8)),
    ("uquotino", 160, Show::Ino),
    ("gquotino", 168, Show::Ino),
    ("qflags", 176, Show::Hex(2)),
    ("flags", 178, Show::Hex(1)),
    ("shared_vn", 179, Show::Dec(1)),
    ("inoalignmt", 180, Show::Dec(4)),
    ("unit", 184, Show::Dec(4)),
    ("width", 188, Show::Dec(4)),
    ("dirblklog", 192, Show::Dec(1)),
    ("logsectlog", 193, Show::Dec(1)),
    ("logsectsize", 194, Show::Dec(2)),
    ("logsunit", 196, Show::Dec(4)),
    ("features2", 200, Show::Hex(4)),
    ("bad_features2", 204, Show::Hex(4)),
    ("features_compat", 208, Show::Hex(4)),
    ("features_ro_compat", 212, Show::Hex(4)),
    ("features_incompat", 216, Show::Hex(4)),
    ("features_log_incompat", 220, Show::Hex(4)),
    ("crc", 224, Show::Crc),
    ("spino_align", 228, Show::Dec(4)),
    ("pquotino", 232, Show::Ino),
    ("lsn", 240, Show::Hex(8)),
    ("meta_uuid", 248, Show::Uuid),
];

/// With the metadata directory tree only.
const METADIR: &[Def] = &[
    ("metadirino", 264, Show::Ino),
    ("rgcount", 272, Show::Dec(4)),
    ("rgextents", 276, Show::Dec(4)),
    ("rgblklog", 280, Show::Dec(1)),
    ("rtstart", 288, Show::Dec(8)),
    ("rtreserved", 296, Show::Dec(8)),
];

const AGF: &[Def] = &[
    ("magicnum", 0, Show::Hex(4)),
    ("versionnum", 4, Show::Dec(4)),
    ("seqno", 8, Show::Dec(4)),
    ("length", 12, Show::Dec(4)),
    ("bnoroot", 16, Show::AgBlock(Type::Bnobt)),
    ("cntroot", 20, Show::AgBlock(Type::Cntbt)),
    ("rmaproot", 24, Show::AgBlock(Type::Rmapbt)),
    ("refcntroot", 88, Show::AgBlock(Type::Refcntbt)),
    ("bnolevel", 28, Show::Dec(4)),
    ("cntlevel", 32, Show::Dec(4)),
    ("rmaplevel", 36, Show::Dec(4)),
    ("refcntlevel", 92, Show::Dec(4)),
    ("rmapblocks", 80, Show::Dec(4)),
    ("refcntblocks", 84, Show::Dec(4)),
    ("flfirst", 40, Show::Dec(4)),
    ("fllast", 44, Show::Dec(4)),
    ("flcount", 48, Show::Dec(4)),
    ("freeblks", 52, Show::Dec(4)),
    ("longest", 56, Show::Dec(4)),
    ("btreeblks", 60, Show::Dec(4)),
    ("uuid", 64, Show::Uuid),
    ("lsn", 208, Show::Hex(8)),
    ("crc", 216, Show::Crc),
];

const AGI_HEAD: &[Def] = &[
    ("magicnum", 0, Show::Hex(4)),
    ("versionnum", 4, Show::Dec(4)),
    ("seqno", 8, Show::Dec(4)),
    ("length", 12, Show::Dec(4)),
    ("count", 16, Show::Dec(4)),
    ("root", 20, Show::AgBlock(Type::Inobt)),
    ("level", 24, Show::Dec(4)),
    ("freecount", 28, Show::Dec(4)),
    ("newino", 32, Show::AgIno),
    ("dirino", 36, Show::AgIno),
];

const AGI_TAIL: &[Def] = &[
    ("uuid", 296, Show::Uuid),
    ("crc", 312, Show::Crc),
    ("lsn", 320, Show::Hex(8)),
    ("free_root", 328, Show::AgBlock(Type::Finobt)),
    ("free_level", 332, Show::Dec(4)),
    ("ino_blocks", 336, Show::Dec(4)),
    ("fino_blocks", 340, Show::Dec(4)),
];

const AGFL: &[Def] = &[
    ("magicnum", 0, Show::Hex(4)),
    ("seqno", 4, Show::Dec(4)),
    ("uuid", 8, Show::Uuid),
    ("lsn", 24, Show::Hex(8)),
    ("crc", 32, Show::Crc),
];

pub(super) fn superblock(out: &mut Lines, bytes: &[u8]) {
    out.table("", bytes, SUPERBLOCK);
    if number(bytes, 216, 4).is_some_and(|f| f & 0x100 != 0) {
        out.table("", bytes, METADIR);
    }
}

pub(super) fn agf(out: &mut Lines, volume: &Volume, bytes: &[u8]) {
    out.table("", bytes, AGF);
    // Observed: xfs_db shows no value of a root that the filesystem cannot have.
    let f = &volume.geometry.features;
    for (present, root) in [(f.rmapbt(), "rmaproot"), (f.reflink(), "refcntroot")] {
        if !present && let Some(l) = out.0.iter_mut().find(|l| l.path == root) {
            l.leaf = Leaf::One(plain(String::new()));
        }
    }
}

pub(super) fn agi(out: &mut Lines, bytes: &[u8]) {
    out.table("", bytes, AGI_HEAD);
    let bucket = |i: usize| number(bytes, 40 + i * 4, 4).map(|v| link(v, 4, Link::AgIno(v)).at(40 + i * 4, 4));
    let unlinked = (0..64).filter_map(bucket);
    out.list("unlinked", 0, unlinked.collect(), true);
    out.table("", bytes, AGI_TAIL);
}

pub(super) fn agfl(out: &mut Lines, bytes: &[u8]) {
    out.table("", bytes, AGFL);
    let slots = bytes.len().saturating_sub(36) / 4;
    let slot = |i| number(bytes, 36 + i * 4, 4).map(|v| link(v, 4, Link::AgBlock(v, Type::Data)).at(36 + i * 4, 4));
    out.list("bno", 0, (0..slots).filter_map(slot).collect(), false);
}
