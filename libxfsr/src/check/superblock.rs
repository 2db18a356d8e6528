//! All copies of the superblock.

use super::Findings;
use crate::cache::OnDamage;
use crate::error::{Corruption, Error, Result, Rule, Severity};
use crate::format::features::Version;
use crate::format::superblock::{SUPERBLOCK, Superblock};
use crate::geometry::Geometry;
use crate::journal::reservation::minimum_log_blocks;
use crate::units::{AgNumber, Ino, NULL_INO};
use crate::volume::Volume;
use zerocopy::{FromBytes, IntoBytes};

/// What a copy's field may hold.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Copied {
    /// The same as in the primary, also later.
    Exactly,
    /// The same when growfs last wrote the copies; a mount changes the primary alone. Scrub would bring it up to date.
    Once,
    /// As `Once`, and null in copies that mkfs wrote before it had the inode.
    Inode,
    /// As `Once`, and null or 0 in copies older than the quota file.
    Quota,
    /// Whatever it held then: the copies do not follow.
    Free,
}
use Copied::{Exactly, Free, Inode, Once, Quota};

/// Bits of `versionnum` that a mount sets in the primary alone.
const SET_LATER: u16 = Version::ATTR.bits() | Version::QUOTA.bits();

macro_rules! fields {
    ($($name:ident: $how:ident),* $(,)?) => {
        &[$((stringify!($name), std::mem::offset_of!(Superblock, $name), $how)),*]
    };
}

/// All fields in the order of the disk: each ends where the next begins.
const FIELDS: &[(&str, usize, Copied)] = fields!(
    magicnum: Exactly, blocksize: Exactly, dblocks: Exactly, rblocks: Exactly, rextents: Exactly, uuid: Exactly,
    logstart: Exactly, rootino: Inode, rbmino: Inode, rsumino: Inode, rextsize: Exactly, agblocks: Exactly,
    agcount: Exactly, rbmblocks: Exactly, logblocks: Exactly, versionnum: Exactly, sectsize: Exactly,
    inodesize: Exactly, inopblock: Exactly, fname: Once, blocklog: Exactly, sectlog: Exactly, inodelog: Exactly,
    inopblog: Exactly, agblklog: Exactly, rextslog: Exactly, inprogress: Free, imax_pct: Once, icount: Free,
    ifree: Free, fdblocks: Free, frextents: Free, uquotino: Quota, gquotino: Quota, qflags: Free, flags: Exactly,
    shared_vn: Exactly, inoalignmt: Exactly, unit: Once, width: Once, dirblklog: Exactly, logsectlog: Exactly,
    logsectsize: Exactly, logsunit: Exactly, features2: Exactly, bad_features2: Exactly, features_compat: Exactly,
    features_ro_compat: Exactly, features_incompat: Exactly, features_log_incompat: Free, crc: Free,
    spino_align: Exactly, pquotino: Quota, lsn: Free, meta_uuid: Exactly, metadirino: Inode, rgcount: Exactly,
    rgextents: Exactly, rgblklog: Exactly, pad: Exactly, rtstart: Exactly, rtreserved: Exactly,
);

/// What nothing changes after mkfs, so that no log explains a difference.
const FIXED: [&str; 13] = [
    "blocksize",
    "logstart",
    "rootino",
    "agblocks",
    "logblocks",
    "sectsize",
    "inodesize",
    "inopblock",
    "blocklog",
    "sectlog",
    "inodelog",
    "inopblog",
    "agblklog",
];

/// Checks all copies that lie on the device. Of a filesystem whose log is dirty the copies are told of as warnings only: growfs
/// writes them at once, and what the primary says then is still in the log.
///
/// # Errors
/// Only when the caller's control says stop.
pub(super) fn check(volume: &Volume, dirty: bool, found: &Findings<'_>) -> Result<()> {
    if volume.superblock_from != AgNumber(0) {
        let c = Corruption::new("sb", "primary", Rule::Unreadable).in_ag(AgNumber(0), None);
        found.add(c.found(format_args!("unusable; the copy in AG {} was taken", volume.superblock_from)));
    }
    if let Some(c) = volume.shortfall() {
        found.add(c);
    }
    for ag in volume.ags() {
        found.go_on()?;
        let copies = Findings::new(found.control());
        one(volume, ag, if ag == AgNumber(0) { found } else { &copies });
        for c in copies.take() {
            let early = dirty
                && c.severity >= Severity::CrossReference
                && !(c.rule == Rule::Mismatch && FIXED.contains(&c.field));
            found.add(if early { Box::new(c).severity(Severity::Warning) } else { Box::new(c) });
        }
    }
    Ok(())
}

fn one(volume: &Volume, ag: AgNumber, found: &Findings<'_>) {
    let block = match volume.ag_header(ag, 0, &SUPERBLOCK, OnDamage::Keep) {
        Ok(b) => b,
        Err(e) => return found.add_error(e, || Corruption::new("sb", "block", Rule::Unreadable).in_ag(ag, None)),
    };
    if let Some(c) = block.damage() {
        return found.add(Box::new(c.clone()).in_ag(ag, None));
    }
    let Ok((sb, _)) = Superblock::ref_from_prefix(&block) else { return };
    if ag == AgNumber(0) {
        primary(volume, sb, found);
    }
    unused(volume, ag, &block, found);
    if ag == volume.superblock_from {
        return;
    }
    match Geometry::new(sb) {
        Ok(_) => secondary(volume, ag, sb, found),
        Err(Error::Corrupt(c)) => found.add(c.in_ag(ag, None)),
        Err(e) => found.add(Corruption::new("sb", "features", Rule::Flags).in_ag(ag, None).found(e)),
    }
}

/// Where the fields end that this filesystem has: those behind came with metadata directories.
fn end_of_fields(volume: &Volume) -> usize {
    if volume.geometry.features.metadir() {
        size_of::<Superblock>()
    } else {
        std::mem::offset_of!(Superblock, metadirino)
    }
}

/// What the sector has behind the last field must be zero, in the primary and in the copies.
fn unused(volume: &Volume, ag: AgNumber, block: &[u8], found: &Findings<'_>) {
    let mut behind = block.iter().enumerate().skip(end_of_fields(volume));
    if let Some((at, byte)) = behind.find(|(_, b)| **b != 0) {
        let c = Corruption::new("sb", "unused", Rule::Range).in_ag(ag, None);
        found.add(c.found(format_args!("{byte:#04x} at byte {at}")).expected("zeroes behind the last field"));
    }
}

/// A field's value for people: a label as text, a number as such.
fn show(field: &str, bytes: &[u8]) -> String {
    if field == "fname" {
        return crate::text::escape(bytes.split(|b| *b == 0).next().unwrap_or(&[]));
    }
    match bytes.len() {
        0..=8 => bytes.iter().fold(0u64, |n, b| n << 8 | u64::from(*b)).to_string(),
        16 => uuid::Uuid::from_slice(bytes).map_or_else(|_| String::new(), |u| u.to_string()),
        _ => format!("{bytes:x?}"),
    }
}

fn secondary(volume: &Volume, ag: AgNumber, sb: &Superblock, found: &Findings<'_>) {
    if sb.rblocks.get() == 0 && sb.frextents.get() != 0 {
        let c = Corruption::new("sb", "frextents", Rule::Range).in_ag(ag, None);
        found.add(c.found(sb.frextents).expected("0 without a realtime section"));
    }
    stripe(ag, sb, found);
    let quota = sb.features().version.contains(Version::QUOTA) || sb.features().metadir();
    if !quota && sb.qflags.get() != 0 {
        let c = Corruption::new("sb", "qflags", Rule::Range).in_ag(ag, None);
        found.add(c.found(sb.qflags).expected("0: this copy knows of no quota"));
    }
    let (mut ours, mut theirs) = (*sb, volume.superblock);
    for s in [&mut ours, &mut theirs] {
        s.versionnum = (s.versionnum.get() & !SET_LATER).into();
    }
    let ends = FIELDS.iter().skip(1).map(|f| f.1).chain([size_of::<Superblock>()]);
    for ((field, start, how), end) in FIELDS.iter().zip(ends) {
        let (Some(a), Some(b)) = (ours.as_bytes().get(*start..end), theirs.as_bytes().get(*start..end)) else {
            continue;
        };
        // Already told of as not zero.
        if *start >= end_of_fields(volume) {
            break;
        }
        let null = a.iter().all(|b| *b == 0xff);
        let severity = match how {
            _ if a == b => continue,
            Free => continue,
            Inode if null => continue,
            Quota if null || a.iter().all(|b| *b == 0) => continue,
            Quota if !quota => Severity::Corrupt,
            Exactly => Severity::Corrupt,
            Once | Inode | Quota => Severity::Preen,
        };
        let c = Corruption::new("sb", field, Rule::Mismatch).in_ag(ag, None).severity(severity);
        found.add(c.found(show(field, a)).expected(format_args!("{}, as in the primary", show(field, b))));
    }
}

/// The stripe numbers of one superblock by themselves: copies may have other ones than the primary, and not impossible ones.
fn stripe(ag: AgNumber, sb: &Superblock, found: &Findings<'_>) {
    let (unit, width) = (sb.unit.get(), sb.width.get());
    if width.checked_rem(unit).unwrap_or(width) != 0 || (unit != 0 && width == 0) {
        let c = Corruption::new("sb", "width", Rule::Range).in_ag(ag, None);
        found.add(c.found(width).expected(format_args!("a multiple of the stripe unit, {unit}")));
    }
}

fn primary(volume: &Volume, sb: &Superblock, found: &Findings<'_>) {
    let g = &volume.geometry;
    let bad = |field, f: &dyn std::fmt::Display, e: &str| {
        found.add(Corruption::new("sb", field, Rule::Range).in_ag(AgNumber(0), None).found(f).expected(e));
    };
    if !g.is_valid_ino(Ino(sb.rootino.get())) {
        bad("rootino", &sb.rootino, "an inode");
    }
    if sb.inprogress != 0 {
        bad("inprogress", &sb.inprogress, "0: mkfs did not finish");
    }
    let quota = g.features.version.contains(Version::QUOTA) || g.features.metadir();
    for (field, ino) in [("uquotino", sb.uquotino), ("gquotino", sb.gquotino), ("pquotino", sb.pquotino)] {
        let none = [0, NULL_INO].contains(&ino.get());
        if !none && (!quota || !g.is_valid_ino(Ino(ino.get()))) {
            bad(field, &ino, if quota { "an inode" } else { "none: the filesystem has no quota" });
        }
    }
    if !quota && sb.qflags.get() != 0 {
        bad("qflags", &sb.qflags, "0: the filesystem has no quota");
    }
    stripe(AgNumber(0), sb, found);
    if !g.is_usual_inode_align() {
        bad("inoalignmt", &sb.inoalignmt, "the blocks of an inode cluster");
    }
    if sb.flags > 1 {
        bad("flags", &sb.flags, "0 or 1");
    }
    if sb.shared_vn != 0 {
        bad("shared_vn", &sb.shared_vn, "0");
    }
    if sb.features2.get() != sb.bad_features2.get() {
        bad("bad_features2", &sb.bad_features2, "the same as features2");
    }
    if sb.features_compat.get() != 0 {
        bad("features_compat", &sb.features_compat, "0");
    }
    if !g.features.meta_uuid() && sb.meta_uuid != [0; 16] && sb.meta_uuid != sb.uuid {
        bad("meta_uuid", &uuid::Uuid::from_bytes(sb.meta_uuid), "zero without that feature");
    }
    let least = minimum_log_blocks(g, g.log_stripe_unit.into());
    if u64::from(g.log_blocks) < least {
        let c = Corruption::new("sb", "logblocks", Rule::Range).in_ag(AgNumber(0), None).found(g.log_blocks);
        found.add(c.expected(format_args!("at least {least}, or Linux does not mount it")).severity(Severity::Warning));
    }
    if g.features.needs_repair() {
        found.add(
            Corruption::new("sb", "features_incompat", Rule::Flags)
                .in_ag(AgNumber(0), None)
                .found("NEEDSREPAIR is set"),
        );
    }
}
