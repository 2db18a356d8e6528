//! Unlinked lists, link counts, and what no directory leads to.

use super::Findings;
use super::ag::AgState;
use super::inodes::{Flag, Table};
use crate::error::{Corruption, Rule, Severity};
use crate::format::dir::FileType;
use crate::format::inode::Dinode;
use crate::units::{AgIno, AgNumber, Ino, NULL_AGINO};
use crate::volume::Volume;
use rayon::prelude::*;
use std::collections::HashSet;

/// Walks the AGIs' lists of inodes that are unlinked and were still open.
pub(super) fn unlinked(volume: &Volume, table: &Table<'_>, ags: &[AgState], found: &Findings<'_>) {
    let g = &volume.geometry;
    ags.par_iter().for_each(|state| {
        let Some(agi) = &state.agi else { return };
        let mut seen = HashSet::new();
        for (bucket, head) in agi.unlinked.iter().enumerate() {
            let mut next = head.get();
            while next != NULL_AGINO && !found.stopped() {
                let ino = g.join_ino(state.ag, AgIno(next));
                let bad = |rule| Corruption::new("agi", "unlinked", rule).in_ag(state.ag, None).in_inode(ino);
                if next as usize % agi.unlinked.len() != bucket {
                    found.add(
                        bad(Rule::Order)
                            .found(format_args!("in bucket {bucket}"))
                            .expected(next as usize % agi.unlinked.len()),
                    );
                }
                if !seen.insert(next) {
                    found.add(bad(Rule::Loop).found("an inode that the lists already have"));
                    break;
                }
                let Some(slot) = table.slot(ino).filter(|s| table.is_used(*s)) else {
                    found.add(bad(Rule::Extra).found("an inode that is not in use"));
                    break;
                };
                table.set(slot, Flag::Orphan);
                if table.nlink(slot) != 0 && table.kind(slot).is_some() {
                    found.add(bad(Rule::Mismatch).found(format_args!("link count {}", table.nlink(slot))).expected(0));
                } else {
                    found.add(
                        bad(Rule::Extra).severity(Severity::Warning).found("an orphan, which the next mount frees"),
                    );
                }
                next = match volume.inode_bytes(ino) {
                    Ok(b) => Dinode::from_bytes(&b).map_or(NULL_AGINO, |c| c.next_unlinked.get()),
                    Err(e) => {
                        found.add_error(e, || bad(Rule::Unreadable));
                        NULL_AGINO
                    }
                };
            }
        }
    });
}

/// Compares link counts with the entries that were seen.
pub(super) fn check(volume: &Volume, table: &Table<'_>, found: &Findings<'_>) {
    // No directory needs to lead to these.
    for (_, ino) in volume.superblock.metadata_inodes() {
        match table.slot(ino).filter(|s| table.is_used(*s)) {
            Some(slot) => table.link(slot),
            None => found.add(
                Corruption::new("sb", "inode", Rule::Missing)
                    .in_inode(ino)
                    .found("not in use")
                    .expected("a metadata file"),
            ),
        }
    }
    if volume.superblock_from != AgNumber(0) && volume.superblock.metadata_root().is_none() {
        // mkfs writes the copies before it makes these two, which follow the root directory.
        let root = volume.geometry.root_ino.0;
        let known = |ino: &Ino| volume.superblock.metadata_kind(*ino).is_none();
        for ino in [Ino(root.saturating_add(1)), Ino(root.saturating_add(2))].into_iter().filter(known) {
            if let Some(slot) =
                table.slot(ino).filter(|s| table.kind(*s) == Some(FileType::Regular) && table.links(*s) == 0)
            {
                table.link(slot);
            }
        }
    }
    let roots = super::directory::roots(volume);
    for (ino, slot) in found.until_stopped(table.used()) {
        if table.kind(slot).is_none() {
            continue;
        }
        let (stored, seen) = (table.nlink(slot), table.links(slot));
        let bad = |field, rule| Corruption::new("nlinks", field, rule).in_inode(ino);
        // A directory that nothing leads to still has its own dot, and the `..` of those below it.
        let directory = table.kind(slot) == Some(FileType::Directory);
        let lost = if directory { table.above(slot).is_none() && !roots.contains(&ino) } else { seen == 0 };
        if lost && !table.is(slot, Flag::Orphan) {
            found.add(bad("inode", Rule::Unreachable).found("no directory entry leads to it"));
        } else if seen != stored && !(table.is(slot, Flag::Orphan) && stored == 0) {
            found.add(bad("nlink", Rule::Count).found(stored).expected(seen));
        }
    }
}
