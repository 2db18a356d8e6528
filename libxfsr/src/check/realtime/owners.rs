//! Who owns the realtime device: each extent at most one file, whole allocation units.

use super::Section;
use crate::error::{Corruption, Rule};
use crate::units::{FileBlock, Ino};

/// Blocks of the realtime device that a file maps. `offset` has a reverse mapping's flags; with realtime groups `start` has the group's
/// number in its upper bits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(in crate::check) struct RtExtent {
    pub start: u64,
    pub count: u64,
    pub owner: u64,
    pub offset: u64,
}

impl RtExtent {
    pub(super) fn end(&self) -> u64 {
        self.start.saturating_add(self.count)
    }
    pub(super) fn file_block(&self) -> FileBlock {
        FileBlock(self.offset & crate::format::btree::RMAP_OFFSET_MASK)
    }
}

/// Realtime extents (not blocks) from `start` to `end` that `owner` uses.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Used {
    pub(super) start: u64,
    pub(super) end: u64,
    pub(super) owner: u64,
}

/// The realtime extents in use, ascending and disjoint. `list` is in blocks, sorted by start.
pub(super) fn in_extents(list: &[RtExtent], extent_size: u64) -> Vec<Used> {
    let size = extent_size.max(1);
    let mut all: Vec<Used> = Vec::with_capacity(list.len());
    for e in list {
        let from = all.last().map_or(0, |u| u.end);
        let u = Used { start: (e.start / size).max(from), end: e.end().div_ceil(size), owner: e.owner };
        match all.last_mut() {
            Some(last) if u.start >= u.end || last.owner == u.owner && last.end == u.start => {
                last.end = last.end.max(u.end);
            }
            _ => all.push(u),
        }
    }
    all
}

impl Section<'_> {
    fn bad(&self, field: &'static str, rule: Rule, e: &RtExtent) -> Box<Corruption> {
        let c = Corruption::new("rtblock", field, rule);
        if self.is_file(e.owner) {
            c.in_inode(Ino(e.owner)).in_fork(crate::error::ForkKind::Data, Some(e.file_block()))
        } else {
            c
        }
    }

    /// Checks what the files (sorted by start) own against each other.
    pub(super) fn exclusive(&self, list: &[RtExtent]) {
        let g = &self.volume.geometry;
        let size = u64::from(g.rt_extent_size).max(1);
        let limit = self.extents.saturating_mul(size);
        let shareable = g.features.metadir() && g.features.reflink();
        let mut furthest: Option<RtExtent> = None;
        for e in list {
            if e.end() > limit {
                let c = self.bad("startblock", Rule::Range, e).found(format_args!("{} blocks at {}", e.count, e.start));
                self.found.add(c.expected(format_args!("inside the {} realtime extents", self.extents)));
            }
            if let Some(b) = furthest.filter(|b| e.start < b.end()) {
                let both_files = self.is_file(b.owner) && self.is_file(e.owner);
                if !(shareable && both_files) {
                    let c = self.bad("owner", Rule::DoublyOwned, e);
                    self.found.add(c.found(format_args!(
                        "{} realtime blocks at {} that belong to {} and to {}",
                        e.count.min(b.end() - e.start),
                        e.start,
                        self.show(b.owner),
                        self.show(e.owner)
                    )));
                }
            }
            if furthest.is_none_or(|b| e.end() > b.end()) {
                furthest = Some(*e);
            }
        }
        if size > 1 && !shareable {
            self.whole_units(list, size);
        }
    }

    /// Space is given and taken back in whole realtime extents: what one file owns without a gap begins and ends on them.
    fn whole_units(&self, list: &[RtExtent], size: u64) {
        let mut run: Option<RtExtent> = None;
        let check = |run: Option<RtExtent>| {
            let Some(e) = run.filter(|e| e.start % size != 0 || e.end() % size != 0) else { return };
            let c = self.bad("startblock", Rule::Range, &e);
            let c =
                c.found(format_args!("{} realtime blocks at {} without the rest of their extent", e.count, e.start));
            self.found.add(c.expected(format_args!("whole realtime extents of {size} blocks")));
        };
        for e in list {
            match &mut run {
                Some(r) if r.owner == e.owner && r.end() == e.start => r.count = r.count.saturating_add(e.count),
                // Shared blocks are told of elsewhere, or are right.
                Some(r) if e.start < r.end() => r.count = r.count.max(e.end() - r.start),
                _ => check(run.replace(*e)),
            }
        }
        check(run);
    }
}

#[cfg(test)]
mod tests {
    use super::{RtExtent, Used, in_extents};

    #[test]
    fn pieces_of_one_extent_count_once() {
        let e = |start, count, owner| RtExtent { start, count, owner, offset: 0 };
        let list = [e(0, 1, 7), e(1, 15, 7), e(16, 16, 7), e(48, 20, 8), e(60, 20, 9)];
        let u = |start, end, owner| Used { start, end, owner };
        assert_eq!(in_extents(&list, 16), [u(0, 2, 7), u(3, 5, 8)]);
    }
}
