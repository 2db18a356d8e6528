//! The realtime section: its numbers in the superblock, what files own of the device, free space bitmap and summary.
//!
//! The bitmap is read once, block by block, beside the sorted list of what files own; the runs that it has make the counters that the
//! summary must hold.

mod bitmap;
mod groups;
mod owners;

pub(super) use owners::RtExtent;

use super::Findings;
use super::metadir::Files;
use crate::error::{Corruption, Rule, Severity};
use crate::format::btree::owner;
use crate::format::realtime::extents_per_block;
use crate::units::{AgNumber, Ino};
use crate::volume::Volume;

/// Realtime extents with one bitmap and one summary: a group, or without groups the whole device.
struct Section<'a> {
    volume: &'a Volume,
    found: &'a Findings<'a>,
    /// Which group; none without groups.
    group: Option<u32>,
    bitmap: Ino,
    summary: Ino,
    extents: u64,
    /// Extents for which the files have room: all groups' are as long as those of a whole group.
    covered: u64,
}

impl Section<'_> {
    fn is_file(&self, who: u64) -> bool {
        !owner::is_special(who)
    }
    fn show(&self, who: u64) -> String {
        match who {
            owner::FS => "the realtime superblock".into(),
            owner::COW => "CoW staging".into(),
            who => format!("inode {who}"),
        }
    }
}

fn in_superblock(field: &'static str, rule: Rule) -> Box<Corruption> {
    Corruption::new("sb", field, rule).in_ag(AgNumber(0), None)
}

/// Checks the realtime section. `list` is what the files' data forks map of it, `files` the groups' metadata files.
pub(super) fn check(volume: &Volume, files: &Files, mut list: Vec<RtExtent>, found: &Findings<'_>) {
    let g = &volume.geometry;
    numbers(volume, found);
    list.sort_unstable();
    if g.features.metadir() {
        if g.rt_blocks > 0 {
            groups::check(volume, files, &list, found);
        }
        return;
    }
    let sb = &volume.superblock;
    let section = Section {
        volume,
        found,
        group: None,
        bitmap: Ino(sb.rbmino.get()),
        summary: Ino(sb.rsumino.get()),
        extents: g.rt_extents,
        covered: g.rt_extents,
    };
    section.exclusive(&list);
    let used = owners::in_extents(&list, g.rt_extent_size.into());
    let bitmap = section.bitmap(&used);
    section.summary(bitmap.as_ref());
    if let Some(b) = bitmap {
        counter(volume, b.free, found);
    }
}

/// The superblock's count of free realtime extents.
fn counter(volume: &Volume, free: u64, found: &Findings<'_>) {
    let stored = volume.superblock.frextents.get();
    if volume.superblock_from == AgNumber(0) && stored != free {
        let c = Corruption::new("fscounters", "frextents", Rule::Count).in_ag(AgNumber(0), None);
        found.add(c.severity(Severity::CrossReference).found(stored).expected(free));
    }
}

/// Numbers in the superblock that the geometry takes as they are, and the device's length.
fn numbers(volume: &Volume, found: &Findings<'_>) {
    let (g, sb) = (&volume.geometry, &volume.superblock);
    // With groups each has a bitmap of this many blocks.
    let covered = if g.rt_groups > 0 { g.rt_group_extents.into() } else { g.rt_extents };
    let expected = if g.features.zoned() { 0 } else { covered.div_ceil(extents_per_block(g).max(1)) };
    if u64::from(sb.rbmblocks.get()) != expected {
        found.add(in_superblock("rbmblocks", Rule::Mismatch).found(sb.rbmblocks).expected(expected));
    }
    if u64::from(g.rt_extent_size) << g.block_log < 4096 {
        found.add(in_superblock("rextsize", Rule::Range).found(g.rt_extent_size).expected("at least 4 KiB"));
    }
    if g.rt_blocks == 0 && sb.rextslog != 0 {
        found.add(in_superblock("rextslog", Rule::Range).found(sb.rextslog).expected("0 without a realtime section"));
    }
    let Some(target) = volume.rt.and_then(|t| volume.cache.target(t).ok()) else {
        // Of groups this is told where their superblock is looked for.
        if g.rt_blocks > 0 && g.rt_groups == 0 {
            found.skip("realtime device", "it was not given, so nobody knows whether it is there and how large it is");
        }
        return;
    };
    let bytes = (g.rt_blocks + g.rt_start).saturating_mul(g.block_size.into());
    if target.len() < bytes {
        let c = in_superblock("rblocks", Rule::Range).found(format_args!("{bytes} bytes"));
        found.add(c.expected(format_args!("at most the realtime device's {}", target.len())));
    }
}
