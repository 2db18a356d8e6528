//! All copies of the superblock.

use super::Findings;
use crate::cache::OnDamage;
use crate::error::{Corruption, Rule, Severity};
use crate::format::features::Version;
use crate::format::superblock::{SUPERBLOCK, Superblock};
use crate::geometry::Geometry;
use crate::units::{AgNumber, Ino, NULL_INO};
use crate::volume::Volume;
use zerocopy::{FromBytes, IntoBytes};

/// Fields of a secondary that the kernel does not keep up to date.
fn without_counters(sb: &Superblock) -> Superblock {
    let mut s = *sb;
    s.icount = 0.into();
    s.ifree = 0.into();
    s.fdblocks = 0.into();
    s.frextents = 0.into();
    s.lsn = 0.into();
    s.crc = 0.into();
    s.inprogress = 0;
    s.fname = [0; 12];
    s.versionnum = (s.versionnum.get() & !0x50).into();
    s.features_log_incompat = 0.into();
    s
}

pub(super) fn check(volume: &Volume, found: &Findings) {
    let g = &volume.geometry;
    if volume.superblock_from != AgNumber(0) {
        let c = Corruption::new("sb", "primary", Rule::Unreadable).in_ag(AgNumber(0), None);
        found.add(c.found(format_args!("unusable; the copy in AG {} was taken", volume.superblock_from)));
    }
    for ag in g.ags() {
        let block = match volume.ag_header(ag, 0, &SUPERBLOCK, OnDamage::Keep) {
            Ok(b) => b,
            Err(e) => {
                found.add_error(e, || Corruption::new("sb", "block", Rule::Unreadable).in_ag(ag, None));
                continue;
            }
        };
        if let Some(c) = block.damage() {
            found.add(Box::new(c.clone()).in_ag(ag, None));
            continue;
        }
        let Ok((sb, rest)) = Superblock::ref_from_prefix(&block) else { continue };
        if ag == AgNumber(0) {
            primary(volume, sb, found);
        }
        if rest.iter().any(|b| *b != 0) {
            found.add(
                Corruption::new("sb", "padding", Rule::Range)
                    .in_ag(ag, None)
                    .found("bytes behind the superblock")
                    .expected("zeroes"),
            );
        }
        if ag == volume.superblock_from {
            continue;
        }
        if let Err(e) = Geometry::new(sb) {
            found.add_error(e, || Corruption::new("sb", "features", Rule::Flags));
            continue;
        }
        secondary(volume, ag, sb, found);
    }
}

fn secondary(volume: &Volume, ag: AgNumber, sb: &Superblock, found: &Findings) {
    if sb.rblocks.get() == 0 && sb.frextents.get() != 0 {
        let c = Corruption::new("sb", "frextents", Rule::Range).in_ag(ag, None);
        found.add(c.found(sb.frextents).expected("0 without a realtime section"));
    }
    let (mut ours, theirs) = (without_counters(sb), without_counters(&volume.superblock));
    // mkfs writes most copies before it has these inodes, and the kernel never fills them in.
    for (a, b) in [
        (&mut ours.rootino, theirs.rootino),
        (&mut ours.rbmino, theirs.rbmino),
        (&mut ours.rsumino, theirs.rsumino),
        (&mut ours.metadirino, theirs.metadirino),
    ] {
        if a.get() == NULL_INO {
            *a = b;
        }
    }
    // A mount with quota makes its inodes and flags in the primary only.
    for (a, b) in [
        (&mut ours.uquotino, theirs.uquotino),
        (&mut ours.gquotino, theirs.gquotino),
        (&mut ours.pquotino, theirs.pquotino),
    ] {
        if [0, NULL_INO].contains(&a.get()) {
            *a = b;
        }
    }
    if ours.qflags.get() == 0 {
        ours.qflags = theirs.qflags;
    }
    if sb.fname != volume.superblock.fname {
        let show = |name: &[u8]| crate::text::escape(name.split(|b| *b == 0).next().unwrap_or(&[]));
        let c = Corruption::new("sb", "fname", Rule::Mismatch).in_ag(ag, None).severity(Severity::Preen);
        found.add(
            c.found(show(&sb.fname)).expected(format_args!("{}, the primary's label", show(&volume.superblock.fname))),
        );
    }
    if ours.as_bytes() == theirs.as_bytes() {
        return;
    }
    let at = ours.as_bytes().iter().zip(theirs.as_bytes()).position(|(a, b)| a != b).unwrap_or(0);
    let c = Corruption::new("sb", "copy", Rule::Mismatch).in_ag(ag, None);
    found.add(c.found(format_args!("byte {at} differs from the primary")).severity(Severity::Corrupt));
}

fn primary(volume: &Volume, sb: &Superblock, found: &Findings) {
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
    let (unit, width) = (sb.unit.get(), sb.width.get());
    if width.checked_rem(unit).unwrap_or(width) != 0 || (unit != 0 && width == 0) {
        bad("width", &width, "a multiple of the stripe unit");
    }
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
    if g.features.needs_repair() {
        found.add(
            Corruption::new("sb", "features_incompat", Rule::Flags)
                .in_ag(AgNumber(0), None)
                .found("NEEDSREPAIR is set"),
        );
    }
}
