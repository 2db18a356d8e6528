//! Each block owned exactly once, or shared exactly as the reference counts say; the reverse mappings as a forward scan derives
//! them.

use super::ag::AgState;
use super::inodes::{Flag, Table};
use super::owned::Owned;
use super::quota;
use super::realtime::RtExtent;
use super::records::{Shared, Tree};
use super::{BlockOwner, Findings};
use crate::error::{Corruption, Rule, Severity};
use crate::format::btree::{RMAP_ATTR_FORK, RMAP_BMBT_BLOCK, RMAP_OFFSET_MASK, RmapRec, owner};
use crate::units::{AgBlock, AgNumber, Ino};
use crate::volume::Volume;
use parking_lot::Mutex;
use rayon::prelude::*;
use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};

/// An extent of an AG and who was seen to own it. The owner is that of a reverse mapping; [`owner::NULL`] means free. `offset`
/// has a reverse mapping's flags.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Observed {
    pub start: u32,
    pub count: u32,
    pub owner: u64,
    pub offset: u64,
}

impl Observed {
    /// By block, then owner.
    pub(super) fn order(&self) -> (u32, u64, u64) {
        (self.start, self.owner, self.offset)
    }
    fn end(&self) -> u64 {
        u64::from(self.start) + u64::from(self.count)
    }
    fn is_file_data(&self) -> bool {
        !owner::is_special(self.owner) && self.offset & (RMAP_ATTR_FORK | RMAP_BMBT_BLOCK) == 0
    }
    /// Records that differ only in where they were cut have the same diagonal.
    fn diagonal(&self) -> (u64, u64, u64) {
        let flags = self.offset & !RMAP_OFFSET_MASK;
        let slope = if owner::is_special(self.owner) || flags & RMAP_BMBT_BLOCK != 0 {
            0
        } else {
            (self.offset & RMAP_OFFSET_MASK).wrapping_sub(u64::from(self.start))
        };
        (self.owner, flags, slope)
    }
    fn describe(&self) -> String {
        match self.owner {
            owner::NULL => "free space".into(),
            owner::FS => "AG headers".into(),
            owner::LOG => "the log".into(),
            owner::AG => "free space btrees or AGFL".into(),
            owner::INOBT => "inode btrees".into(),
            owner::INODES => "inode chunks".into(),
            owner::REFC => "refcount btree".into(),
            owner::COW => "CoW staging".into(),
            o if owner::is_special(o) => format!("unknown owner {}", o.cast_signed()),
            o => {
                let fork = if self.offset & RMAP_ATTR_FORK != 0 { "attr fork" } else { "data fork" };
                let what = if self.offset & RMAP_BMBT_BLOCK != 0 { "extent btree of the " } else { "" };
                format!("{what}{fork} of inode {o}")
            }
        }
    }
}

impl From<&RmapRec> for Observed {
    fn from(r: &RmapRec) -> Self {
        Self { start: r.startblock.get(), count: r.blockcount.get(), owner: r.owner.get(), offset: r.offset.get() }
    }
}

impl From<Observed> for BlockOwner {
    fn from(o: Observed) -> Self {
        Self { start: AgBlock(o.start), count: o.count, owner: o.owner, offset: o.offset }
    }
}

/// Takes what inodes own, on its way to [`Owners`]; one for each thread.
pub(super) struct Batch<'o> {
    owners: &'o Owners<'o>,
    blocks: Vec<(AgNumber, Observed)>,
    extents: u64,
    next: usize,
    pub realtime: Vec<RtExtent>,
    /// Who is charged for it.
    pub used: quota::Batch,
}

/// Everything that was seen to be owned, by AG.
pub(super) struct Owners<'a> {
    ags: Vec<Owned<'a>>,
    realtime: Mutex<Vec<RtExtent>>,
    extents: AtomicU64,
}

/// Observations that a batch holds back before it hands them over together.
const BATCH: usize = 4096;

/// Joins what touches on the same diagonal, so that it does not matter where records were cut.
pub(super) fn normalise(mut list: Vec<Observed>) -> Vec<Observed> {
    list.sort_unstable_by_key(|o| (o.diagonal(), o.start));
    list.dedup_by(|next, before| {
        let joins = before.diagonal() == next.diagonal() && before.end() == u64::from(next.start);
        if joins {
            before.count = before.count.saturating_add(next.count);
        }
        joins
    });
    list.sort_unstable_by_key(Observed::order);
    list
}

/// Runs of blocks that two or more of `list` (sorted by start) contain, with how many.
pub(super) fn shared_runs(list: impl Iterator<Item = Observed>) -> Vec<Shared> {
    let mut runs: Vec<Shared> = Vec::new();
    let mut ends: BinaryHeap<Reverse<u64>> = BinaryHeap::new();
    let mut at = 0u64;
    let mut emit = |from: u64, to: u64, depth: usize| {
        if depth < 2 || from >= to {
            return;
        }
        let narrow = |n: u64| u32::try_from(n).unwrap_or(u32::MAX);
        let (from, count, depth) = (narrow(from), narrow(to - from), u32::try_from(depth).unwrap_or(u32::MAX));
        match runs.last_mut() {
            Some((s, n, d)) if *d == depth && *s + *n == from => *n += count,
            _ => runs.push((from, count, depth)),
        }
    };
    for o in list {
        let start = u64::from(o.start);
        while let Some(Reverse(end)) = ends.peek().copied().filter(|e| e.0 <= start) {
            emit(at, end, ends.len());
            at = end;
            ends.pop();
        }
        emit(at, start, ends.len());
        at = start;
        ends.push(Reverse(o.end()));
    }
    while let Some(Reverse(end)) = ends.peek().copied() {
        emit(at, end, ends.len());
        at = end;
        ends.pop();
    }
    runs
}

impl<'o> Batch<'o> {
    pub(super) fn new(owners: &'o Owners<'o>) -> Self {
        Self { owners, blocks: Vec::new(), extents: 0, next: 0, realtime: Vec::new(), used: quota::Batch::default() }
    }

    /// Takes an extent that an inode owns.
    pub(super) fn own(&mut self, ag: AgNumber, o: Observed) {
        self.extents += 1;
        let Some(owned) = self.owners.ags.get(ag.0 as usize) else { return };
        if !owned.is_foretold(&o, &mut self.next) {
            self.blocks.push((ag, o));
            if self.blocks.len() >= BATCH {
                self.hand_over();
            }
        }
    }

    fn hand_over(&mut self) {
        self.blocks.sort_unstable_by_key(|(ag, o)| (ag.0, o.start));
        for group in self.blocks.chunk_by(|a, b| a.0 == b.0) {
            if let Some(owned) = group.first().and_then(|(ag, _)| self.owners.ags.get(ag.0 as usize)) {
                owned.keep(group.iter().map(|(_, o)| *o));
            }
        }
        self.blocks.clear();
        self.owners.extents.fetch_add(self.extents + self.realtime.len() as u64, Ordering::Relaxed);
        self.extents = 0;
        if !self.realtime.is_empty() {
            self.owners.realtime.lock().append(&mut self.realtime);
        }
    }
}

impl Drop for Batch<'_> {
    fn drop(&mut self) {
        self.hand_over();
    }
}

impl<'a> Owners<'a> {
    pub(super) fn new(ags: &'a [AgState]) -> Self {
        let ags = ags.par_iter().map(Owned::new).collect();
        Self { ags, realtime: Mutex::default(), extents: AtomicU64::new(0) }
    }

    /// Hands over what files own of the realtime device.
    pub(super) fn take_realtime(&self) -> Vec<RtExtent> {
        std::mem::take(&mut *self.realtime.lock())
    }

    pub(super) fn extents(&self) -> u64 {
        self.extents.load(Ordering::Relaxed)
    }

    /// Compares, and returns everything by AG and in the order of the blocks, where `keep` asks for it.
    pub(super) fn check(
        &self,
        volume: &Volume,
        table: &Table<'_>,
        ags: &[AgState],
        found: &Findings<'_>,
        keep: bool,
    ) -> Vec<Vec<BlockOwner>> {
        let one = |(state, owned): (&AgState, &Owned<'_>)| {
            if found.stopped() {
                return Vec::new();
            }
            let place = |c: Box<Corruption>, start| c.in_ag(state.ag, Some(AgBlock(start)));
            let tree = |name| Tree { name, place: &place, found };
            let list = owned.sorted();
            let kept = if keep { list.all().map(BlockOwner::from).collect() } else { Vec::new() };
            exclusive(volume, state.ag, found.until_stopped(list.all()), found);
            if volume.geometry.features.reflink() {
                let shared = shared_runs(found.until_stopped(list.owners().filter(Observed::is_file_data)));
                reflink_flags(state.ag, table, &shared, found.until_stopped(list.owners()), found);
                if state.refcounts_complete {
                    tree("refcountbt").compare_sharing(&state.refcounts, &shared);
                }
            }
            if volume.geometry.features.rmapbt() && state.rmaps_complete {
                // What agrees exactly is taken away from both sides.
                let (seen, stored) = list.unmatched();
                tree("rmapbt").compare_owners(stored, seen, &Observed::describe);
            }
            kept
        };
        ags.par_iter().zip(&self.ags).map(one).collect()
    }
}

fn exclusive(volume: &Volume, ag: AgNumber, list: impl Iterator<Item = Observed>, found: &Findings<'_>) {
    let reflink = volume.geometry.features.reflink();
    let at = |block: u64| Some(AgBlock(u32::try_from(block).unwrap_or(u32::MAX)));
    let gap = |from: u64, to: u64| {
        if from < to {
            let c = Corruption::new("block", "owner", Rule::Unowned).in_ag(ag, at(from));
            found.add(c.found(format_args!("{} blocks that nothing owns", to - from)));
        }
    };
    let none = Observed { start: 0, count: 0, owner: owner::NULL, offset: 0 };
    // Furthest ends so far: of anything, and of what cannot be shared.
    let (mut any, mut alone) = (none, none);
    for o in list {
        gap(any.end(), o.start.into());
        let shareable = reflink && o.is_file_data();
        let other = if shareable { alone } else { any };
        if u64::from(o.start) < other.end() {
            let c = Corruption::new("block", "owner", Rule::DoublyOwned).in_ag(ag, at(o.start.into()));
            found.add(c.found(format_args!(
                "{} blocks that belong to {} and to {}",
                o.count,
                other.describe(),
                o.describe()
            )));
        }
        if o.end() > any.end() {
            any = o;
        }
        if !shareable && o.end() > alone.end() {
            alone = o;
        }
    }
    gap(any.end(), volume.geometry.ag_blocks(ag).into());
}

/// Whoever shares blocks must have the flag that makes writers copy first. That the flag outlives the sharing is usual.
fn reflink_flags(
    ag: AgNumber,
    table: &Table<'_>,
    shared: &[Shared],
    list: impl Iterator<Item = Observed>,
    found: &Findings<'_>,
) {
    let mut told = HashSet::new();
    let mut shared = shared.iter().peekable();
    for o in list.filter(Observed::is_file_data) {
        // The first run that ends behind the start of this extent; the list goes by starts.
        while shared.next_if(|r| u64::from(r.0) + u64::from(r.1) <= u64::from(o.start)).is_some() {}
        let Some(run) = shared.peek() else { break };
        if u64::from(run.0) >= o.end() {
            continue;
        }
        let Some(slot) = table.slot(Ino(o.owner)).filter(|s| table.kind(*s).is_some()) else { continue };
        if !table.is(slot, Flag::Reflink) && told.insert(o.owner) {
            let c =
                Corruption::new("inode", "flags2", Rule::Flags).in_inode(Ino(o.owner)).in_ag(ag, Some(AgBlock(run.0)));
            let c = c
                .severity(Severity::CrossReference)
                .found(format_args!("no reflink flag, but {} shared blocks", run.1));
            found.add(c.expected("the reflink flag on a file that shares blocks"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Observed, normalise, shared_runs};

    fn o(start: u32, count: u32, owner: u64, offset: u64) -> Observed {
        Observed { start, count, owner, offset }
    }

    #[test]
    fn sharing_is_counted_block_by_block() {
        let list = [o(10, 10, 1, 0), o(12, 4, 2, 0), o(14, 10, 3, 0), o(30, 5, 4, 0), o(30, 5, 5, 0)];
        assert_eq!(shared_runs(list.into_iter()), [(12, 2, 2), (14, 2, 3), (16, 4, 2), (30, 5, 2)]);
    }

    #[test]
    fn cuts_do_not_matter() {
        let cut = vec![o(10, 5, 7, 0), o(15, 5, 7, 5), o(10, 3, 8, 0), o(20, 1, 7, 11)];
        let whole = vec![o(10, 3, 8, 0), o(10, 10, 7, 0), o(20, 1, 7, 11)];
        assert_eq!(normalise(cut), normalise(whole));
    }
}
