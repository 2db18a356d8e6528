//! Realtime groups: the realtime device's superblock, and for each group bitmap, summary, reverse mappings and reference counts.

use super::owners::{RtExtent, in_extents};
use super::{Section, in_superblock};
use crate::btree::{self, Kind, kinds};
use crate::cache::{BlockKey, OnDamage, Want};
use crate::check::Findings;
use crate::check::metadir::Files;
use crate::check::owners::{Observed, shared_runs};
use crate::check::records::Tree;
use crate::error::{Corruption, ForkKind, Rule};
use crate::format::btree::{RefcountRec, RmapRec, owner};
use crate::format::inode::{Format, MetaType};
use crate::format::realtime::RT_SUPER;
use crate::inode::Inode;
use crate::inode::fork::{ForkStore, MetaTree};
use crate::units::{Daddr, Ino};
use crate::volume::Volume;

/// Whether the superblock's numbers of the groups fit each other; what does not is told.
fn numbers_fit(volume: &Volume, found: &Findings<'_>) -> bool {
    let g = &volume.geometry;
    let blocks = u64::from(g.rt_group_extents) * u64::from(g.rt_extent_size);
    let mut fit = true;
    let mut require = |ok: bool, field, value: u64, expected: u64| {
        if !ok {
            fit = false;
            found.add(in_superblock(field, Rule::Mismatch).found(value).expected(expected));
        }
    };
    require((1..1 << 31).contains(&blocks), "rgextents", g.rt_group_extents.into(), 1 << 20);
    let log = blocks.checked_next_power_of_two().map_or(0, u64::trailing_zeros);
    require(u32::from(g.rt_group_log) == log, "rgblklog", g.rt_group_log.into(), log.into());
    let groups = g.rt_extents.div_ceil(u64::from(g.rt_group_extents).max(1));
    require(u64::from(g.rt_groups) == groups, "rgcount", g.rt_groups.into(), groups);
    fit
}

/// All records of a metadata btree; none where it cannot be read as a whole, which the pass over all inodes has told.
fn records<K: Kind>(volume: &Volume, found: &Findings<'_>, ino: Ino, tree: MetaTree) -> Option<Vec<K::Record>> {
    let inode = Inode::read(volume, ino, OnDamage::Keep).ok().filter(|i| i.damage.is_none())?;
    if inode.core.format(ForkKind::Data) != Some(Format::MetaBtree) {
        return None;
    }
    let mut all = Vec::new();
    let store = ForkStore::metadata(volume, ino, &inode.bytes, tree);
    let report = btree::check::<K, _>(&store, found.control(), &mut |_, _| {}, &mut |r| all.push(*r), &mut |_| {});
    let bad = || Corruption::new("bmap", "root", Rule::Unreadable).in_inode(ino);
    let report = report.map_err(|e| found.add_error(e, bad)).ok()?;
    (!report.incomplete).then_some(all)
}

/// The superblock at the start of the realtime device.
fn superblock(volume: &Volume, found: &Findings<'_>) {
    let g = &volume.geometry;
    let Some(rt) = volume.rt else {
        return found.skip("rgsuper", "the realtime device was not given");
    };
    let key = BlockKey::one(rt, Daddr(g.rt_start << g.bb_shift()), g.block_size / 512);
    match volume.cache.read(&key, &Want::new(&RT_SUPER, OnDamage::Keep), g) {
        Ok(b) => {
            if let Some(c) = b.damage() {
                found.add(Box::new(c.clone()));
            }
        }
        Err(e) => found.add_error(e, || Corruption::new("rgsuper", "block", Rule::Unreadable)),
    }
}

/// Checks all groups. `list` is what files own, sorted.
pub(super) fn check(volume: &Volume, files: &Files, list: &[RtExtent], found: &Findings<'_>) {
    let g = &volume.geometry;
    if !numbers_fit(volume, found) {
        return found.skip("realtime groups", "their numbers in the superblock do not fit each other");
    }
    if g.features.zoned() {
        return found.skip("realtime groups", "this version has no check of zoned devices");
    }
    superblock(volume, found);
    let numbers = files.groups();
    // Which files are missing was told when the tree of them was walked.
    let mut free = Some(0u64).filter(|_| numbers.len() as u64 == u64::from(g.rt_groups));
    for number in numbers {
        if found.stopped() {
            return;
        }
        let first = u64::from(number) << g.rt_group_log;
        let from = list.partition_point(|e| e.start < first);
        let own = list.get(from..).unwrap_or_default();
        let own = own.iter().take_while(|e| e.start >> g.rt_group_log == u64::from(number));
        let mut owned: Vec<RtExtent> = own.map(|e| RtExtent { start: e.start - first, ..*e }).collect();
        if number == 0 {
            owned.push(RtExtent { start: 0, count: g.rt_extent_size.into(), owner: owner::FS, offset: 0 });
        }
        let in_group = |kind| files.of_group(number, kind);
        let (Some(bitmap), Some(summary)) = (in_group(MetaType::RtBitmap), in_group(MetaType::RtSummary)) else {
            free = None;
            continue;
        };
        let before = u64::from(number) * u64::from(g.rt_group_extents);
        let section = Section {
            volume,
            found,
            group: Some(number),
            bitmap,
            summary,
            extents: g.rt_extents.saturating_sub(before).min(g.rt_group_extents.into()),
            covered: g.rt_group_extents.into(),
        };
        let counts = in_group(MetaType::RtRefcount)
            .and_then(|ino| Some((ino, records::<kinds::Refcount>(volume, found, ino, MetaTree::Refcount)?)));
        if let Some((ino, counts)) = &counts {
            section.reference_counts(*ino, counts, &mut owned);
        }
        owned.sort_unstable();
        section.exclusive(&owned);
        let used = in_extents(&owned, g.rt_extent_size.into());
        let bits = section.bitmap(&used);
        section.summary(bits.as_ref());
        free = free.zip(bits).map(|(sum, b)| sum + b.free);
        if let Some(ino) = in_group(MetaType::RtRmap)
            && let Some(maps) = records::<kinds::Rmap>(volume, found, ino, MetaTree::Rmap)
        {
            section.reverse_mappings(ino, &maps, &owned);
        }
    }
    if let Some(free) = free {
        super::counter(volume, free, found);
    }
}

impl Section<'_> {
    fn inside(&self, tree: &'static str, ino: Ino, start: u32, count: u32) -> bool {
        let blocks = self.extents.saturating_mul(self.volume.geometry.rt_extent_size.into());
        let ok = count > 0 && u64::from(start) + u64::from(count) <= blocks;
        if !ok {
            let c = Corruption::new(tree, "recs", Rule::Range).in_inode(ino);
            self.found.add(
                c.found(format_args!("{count} blocks at {start}")).expected(format_args!("inside {blocks} blocks")),
            );
        }
        ok
    }

    /// Checks the records and compares them with the sharing that is seen; staging extents are owned too.
    fn reference_counts(&self, ino: Ino, stored: &[RefcountRec], owned: &mut Vec<RtExtent>) {
        const NAME: &str = "rtrefcountbt";
        let tree = Tree { name: NAME, place: &|c, _| c.in_inode(ino), found: self.found };
        let mut files: Vec<Observed> = owned.iter().filter(|e| self.is_file(e.owner)).filter_map(observed).collect();
        files.sort_unstable_by_key(|o| o.start);
        let staging = tree.reference_counts(stored, |start, count| self.inside(NAME, ino, start, count));
        tree.compare_sharing(stored, &shared_runs(files.into_iter()));
        let extent = |(start, count): (u32, u32)| RtExtent {
            start: start.into(),
            count: count.into(),
            owner: owner::COW,
            offset: 0,
        };
        owned.extend(staging.into_iter().map(extent));
    }

    /// Compares the records with what the forward scan saw.
    fn reverse_mappings(&self, ino: Ino, stored: &[RmapRec], owned: &[RtExtent]) {
        const NAME: &str = "rtrmapbt";
        let tree = Tree { name: NAME, place: &|c, _| c.in_inode(ino), found: self.found };
        for r in stored {
            self.inside(NAME, ino, r.startblock.get(), r.blockcount.get());
        }
        let stored = stored.iter().map(Observed::from).collect();
        tree.compare_owners(stored, owned.iter().filter_map(observed).collect(), &|o| self.show(o.owner));
    }
}

/// In the numbers of a group, which fit 32 bits.
fn observed(e: &RtExtent) -> Option<Observed> {
    let (start, count) = (u32::try_from(e.start).ok()?, u32::try_from(e.count).ok()?);
    Some(Observed { start, count, owner: e.owner, offset: e.offset })
}
