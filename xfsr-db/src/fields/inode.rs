//! The inode: core, then both forks in whichever form they have.

use super::btree::{EXTENT, root, rows};
use crate::field::{Def, Form, Lines, Link, Scalar, Show, chars, dec, hex, link, number, place, plain};
use crate::location::Type;
use libxfsr::error::ForkKind;
use libxfsr::format::attr::{AttrFlags, ShortAttrs};
use libxfsr::format::dir::ShortDir;
use libxfsr::format::inode::{Dinode, Format, Timestamp, fork_bytes};
use libxfsr::volume::Volume;

const HEAD: &[Def] =
    &[("magic", 0, Show::Hex(2)), ("mode", 2, Show::Oct(2)), ("version", 4, Show::Dec(1)), ("format", 5, Show::Format)];
const METATYPE: Def = ("metatype", 6, Show::Dec(2));
const ONLINK: Def = ("onlink", 6, Show::Dec(2));
const OWNERS: &[Def] = &[
    ("uid", 8, Show::Dec(4)),
    ("gid", 12, Show::Dec(4)),
    ("nlinkv2", 16, Show::Dec(4)),
    ("projid_lo", 20, Show::Dec(2)),
    ("projid_hi", 22, Show::Dec(2)),
];
const SIZES: &[Def] = &[("size", 56, Show::Dec(8)), ("nblocks", 64, Show::Dec(8)), ("extsize", 72, Show::Dec(4))];
const SMALL_COUNTERS: &[Def] = &[("nextents", 76, Show::Dec(4)), ("naextents", 80, Show::Dec(2))];
const LARGE_DATA_COUNTER: &[Def] = &[("nextents", 24, Show::Dec(8))];
const LARGE_ATTR_COUNTER: &[Def] = &[("naextents", 76, Show::Dec(4))];
const TAIL: &[Def] = &[
    ("forkoff", 82, Show::Dec(1)),
    ("aformat", 83, Show::Format),
    ("dmevmask", 84, Show::Hex(4)),
    ("dmstate", 88, Show::Dec(2)),
    ("newrtbm", 90, Show::Bits(2, 2, 1)),
    ("prealloc", 90, Show::Bits(2, 1, 1)),
    ("realtime", 90, Show::Bits(2, 0, 1)),
    ("immutable", 90, Show::Bits(2, 3, 1)),
    ("append", 90, Show::Bits(2, 4, 1)),
    ("sync", 90, Show::Bits(2, 5, 1)),
    ("noatime", 90, Show::Bits(2, 6, 1)),
    ("nodump", 90, Show::Bits(2, 7, 1)),
    ("rtinherit", 90, Show::Bits(2, 8, 1)),
    ("projinherit", 90, Show::Bits(2, 9, 1)),
    ("nosymlinks", 90, Show::Bits(2, 10, 1)),
    ("extsz", 90, Show::Bits(2, 11, 1)),
    ("extszinherit", 90, Show::Bits(2, 12, 1)),
    ("nodefrag", 90, Show::Bits(2, 13, 1)),
    ("filestream", 90, Show::Bits(2, 14, 1)),
    ("gen", 92, Show::Dec(4)),
];
const V3_HEAD: &[Def] = &[
    ("v3.crc", 100, Show::Crc),
    ("v3.change_count", 104, Show::Dec(8)),
    ("v3.lsn", 112, Show::Hex(8)),
    ("v3.flags2", 120, Show::Hex(8)),
    ("v3.cowextsize", 128, Show::Dec(4)),
];
const V3_TAIL: &[Def] = &[
    ("v3.inumber", 152, Show::Dec(8)),
    ("v3.uuid", 160, Show::Uuid),
    ("v3.reflink", 120, Show::Bits(8, 1, 1)),
    ("v3.cowextsz", 120, Show::Bits(8, 2, 1)),
    ("v3.dax", 120, Show::Bits(8, 0, 1)),
    ("v3.bigtime", 120, Show::Bits(8, 3, 1)),
    ("v3.nrext64", 120, Show::Bits(8, 4, 1)),
];

/// A time as ctime(3) shows it, in UTC.
pub(crate) fn calendar(seconds: i64) -> String {
    const DAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
    const MONTHS: [&str; 12] = ["Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec", "Jan", "Feb"];
    let (day, second) = (seconds.div_euclid(86400), seconds.rem_euclid(86400));
    // Years that begin in March have their leap day at the end.
    let shifted = day + 719_468;
    let (era, rest) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
    let year_of_era = (rest - rest / 1460 + rest / 36_524 - rest / 146_096) / 365;
    let day_of_year = rest - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day_of_month = day_of_year - (153 * month + 2) / 5 + 1;
    let year = era * 400 + year_of_era + i64::from(month >= 10);
    let name = |list: &[&'static str], i: i64| usize::try_from(i).ok().and_then(|i| list.get(i).copied()).unwrap_or("");
    format!(
        "{} {} {day_of_month:2} {:02}:{:02}:{:02} {year}",
        name(&DAYS, day.rem_euclid(7)),
        name(&MONTHS, month),
        second / 3600,
        second / 60 % 60,
        second % 60
    )
}

fn time(out: &mut Lines, path: &str, at: usize, t: Timestamp, bigtime: bool) {
    let (seconds, nanos) = t.decode(bigtime);
    let (seconds, nanos) = (plain(calendar(seconds)), dec(u64::from(nanos)));
    let (seconds, nanos) = if bigtime {
        let half = |s: Scalar, seconds| s.spanning(at * 8, 64, Form::BigTime { seconds });
        (half(seconds, true), half(nanos, false))
    } else {
        (seconds.at(at, 4), nanos.at(at + 4, 4))
    };
    out.one(format!("{path}.sec"), seconds);
    out.one(format!("{path}.nsec"), nanos);
}

pub(super) fn inode(out: &mut Lines, volume: &Volume, bytes: &[u8]) {
    let Some(core) = Dinode::from_bytes(bytes) else { return };
    out.table("core.", bytes, HEAD);
    out.table("core.", bytes, &[if core.is_metadata() { METATYPE } else { ONLINK }]);
    out.table("core.", bytes, OWNERS);
    if core.nrext64() {
        out.table("core.", bytes, LARGE_DATA_COUNTER);
    }
    for (name, at, t) in [("atime", 32, core.atime), ("mtime", 40, core.mtime), ("ctime", 48, core.ctime)] {
        time(out, &format!("core.{name}"), at, t, core.bigtime());
    }
    out.table("core.", bytes, SIZES);
    out.table("core.", bytes, if core.nrext64() { LARGE_ATTR_COUNTER } else { SMALL_COUNTERS });
    out.table("core.", bytes, TAIL);
    out.table("", bytes, &[("next_unlinked", 96, Show::AgIno)]);
    out.table("", bytes, V3_HEAD);
    time(out, "v3.crtime", 144, core.crtime, core.bigtime());
    out.table("", bytes, V3_TAIL);
    let mut fork = |kind, show: &dyn Fn(&mut Lines, &[u8])| {
        let (from, fork) = (out.0.len(), fork_bytes(bytes, kind));
        show(out, fork);
        out.move_from(from, place(bytes, fork).unwrap_or(0));
    };
    fork(ForkKind::Data, &|out, fork| data_fork(out, volume, core, fork));
    if core.has_attr_fork() {
        fork(ForkKind::Attr, &|out, fork| attr_fork(out, core, fork));
    }
}

fn extents(out: &mut Lines, prefix: &str, fork: &[u8], count: u64, kind: Type) {
    let n = usize::try_from(count).unwrap_or(usize::MAX);
    let mut found = rows(fork, 0, 16, n, &EXTENT);
    for cell in found.iter_mut().flatten() {
        if let Link::FsBlock(_, to) = &mut cell.link {
            *to = kind;
        }
    }
    match found {
        r if r.is_empty() => out.empty(prefix),
        r => out.rows(&format!("{prefix}.bmx"), 0, EXTENT.0, r),
    }
}

fn data_fork(out: &mut Lines, volume: &Volume, core: &Dinode, fork: &[u8]) {
    let size = usize::try_from(core.size.get()).unwrap_or(usize::MAX).min(fork.len());
    let local = fork.get(..size).unwrap_or(&[]);
    match core.format(ForkKind::Data) {
        Some(Format::Dev) => out.table("u3.", fork, &[("dev", 0, Show::Hex(4))]),
        Some(Format::Local) if core.is_dir() => short_directory(out, volume, local),
        Some(Format::Local) if core.is_symlink() => out.one("u3.symlink", chars(local).chars_in(local, local)),
        Some(Format::Extents) => {
            let kind = match () {
                () if core.is_dir() => Type::Dir3,
                () if core.is_symlink() => Type::Symlink,
                () => Type::Data,
            };
            extents(out, "u3", fork, core.extents(ForkKind::Data), kind);
        }
        Some(Format::Btree) => root(out, "u3.bmbt.", fork, Type::Bmapbtd),
        _ => out.empty("u3"),
    }
}

fn short_directory(out: &mut Lines, volume: &Volume, bytes: &[u8]) {
    let Some(dir) = ShortDir::from_bytes(bytes, &volume.geometry) else { return out.empty("u3") };
    let (width, n) = if dir.i8count != 0 { ("i8", 8) } else { ("i4", 4) };
    let ino = |v: u64| link(v, 8, Link::Ino(v));
    let ftype = usize::from(volume.geometry.features.ftype());
    out.one("u3.sfdir3.hdr.count", dec(u64::from(dir.count)).at(0, 1));
    out.one("u3.sfdir3.hdr.i8count", dec(u64::from(dir.i8count)).at(1, 1));
    out.one(format!("u3.sfdir3.hdr.parent.{width}"), ino(dir.parent.0).at(2, n));
    for (i, e) in dir.entries().map_while(Result::ok).enumerate() {
        let p = format!("u3.sfdir3.list[{i}]");
        let name = place(bytes, e.name).unwrap_or(0);
        let behind = name + e.name.len();
        out.one(format!("{p}.namelen"), dec(e.name.len() as u64).at(name.saturating_sub(3), 1));
        out.one(format!("{p}.offset"), hex(e.offset as u64).at(name.saturating_sub(2), 2));
        out.one(format!("{p}.name"), chars(e.name).chars_in(bytes, e.name));
        out.one(format!("{p}.inumber.{width}"), ino(e.ino.0).at(behind + ftype, n));
        if ftype == 1 {
            out.one(format!("{p}.filetype"), dec(u64::from(e.ftype)).at(behind, 1));
        }
    }
}

fn attr_fork(out: &mut Lines, core: &Dinode, fork: &[u8]) {
    match core.format(ForkKind::Attr) {
        Some(Format::Local) => {
            out.one("a.sfattr.hdr.totsize", dec(number(fork, 0, 2).unwrap_or(0)).at(0, 2));
            out.one("a.sfattr.hdr.count", dec(number(fork, 2, 1).unwrap_or(0)).at(2, 1));
            for (i, a) in ShortAttrs::new(fork).map_while(Result::ok).enumerate() {
                let p = format!("a.sfattr.list[{i}]");
                let at = place(fork, a.name).unwrap_or(0).saturating_sub(3);
                let flag = |f: AttrFlags| {
                    let shown = dec(u64::from(a.flags.contains(f)));
                    shown.of_bits((at + 2) * 8 + f.bits().leading_zeros() as usize, 1)
                };
                out.one(format!("{p}.namelen"), dec(a.name.len() as u64).at(at, 1));
                out.one(format!("{p}.valuelen"), dec(a.value.len() as u64).at(at + 1, 1));
                out.one(format!("{p}.root"), flag(AttrFlags::ROOT));
                out.one(format!("{p}.secure"), flag(AttrFlags::SECURE));
                if a.flags.contains(AttrFlags::PARENT) {
                    out.one(format!("{p}.parent"), flag(AttrFlags::PARENT));
                }
                out.one(format!("{p}.name"), chars(a.name).chars_in(fork, a.name));
                if !a.value.is_empty() {
                    out.one(format!("{p}.value"), chars(a.value).chars_in(fork, a.value));
                }
            }
        }
        Some(Format::Extents) => extents(out, "a", fork, core.extents(ForkKind::Attr), Type::Attr3),
        Some(Format::Btree) => root(out, "a.bmbt.", fork, Type::Bmapbta),
        _ => out.empty("a"),
    }
}

#[cfg(test)]
mod tests {
    use super::calendar;

    #[test]
    fn times_are_shown_as_by_ctime() {
        assert_eq!(calendar(0), "Thu Jan  1 00:00:00 1970");
        assert_eq!(calendar(951_827_696), "Tue Feb 29 12:34:56 2000");
        assert_eq!(calendar(-2_147_483_648), "Fri Dec 13 20:45:52 1901");
        assert_eq!(calendar(16_299_260_424), "Tue Jul  2 20:20:24 2486");
    }
}
