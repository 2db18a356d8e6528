//! What the forward scan saw of one AG, in little memory.
//!
//! Where the AG's reverse mappings are whole, nearly everything that the scan sees is just what they say. Such an extent costs one
//! bit beside its reverse mapping, which is in memory anyway; only the others are kept as they are, and sorted. Free extents stay
//! in the eight bytes that they have on disk.

use super::ag::AgState;
use super::owners::Observed;
use crate::format::btree::{AllocRec, RMAP_UNWRITTEN, RmapRec, owner};
use parking_lot::Mutex;
use rayon::prelude::*;
use std::sync::atomic::{AtomicU64, Ordering};

/// Everything that was seen to be owned in one AG.
pub(super) struct Owned<'a> {
    foretold: &'a [RmapRec],
    seen: Box<[AtomicU64]>,
    others: Mutex<Vec<Observed>>,
    free: &'a [AllocRec],
}

type Key = (u32, u64, u64);

/// The order of the reverse mapping btree.
fn tree_key(start: u32, owner: u64, offset: u64) -> Key {
    (start, owner, offset & !RMAP_UNWRITTEN)
}

fn record_key(r: &RmapRec) -> Key {
    tree_key(r.startblock.get(), r.owner.get(), r.offset.get())
}

impl<'a> Owned<'a> {
    pub(super) fn new(state: &'a AgState) -> Self {
        // Records out of order, which has been told of, could not be found.
        let usable = state.rmaps_complete && state.rmaps.is_sorted_by(|a, b| record_key(a) < record_key(b));
        let foretold = if usable { &state.rmaps[..] } else { &[] };
        let seen = (0..foretold.len().div_ceil(64)).map(|_| AtomicU64::new(0)).collect();
        let owned = Self { foretold, seen, others: Mutex::default(), free: &state.free };
        let mut next = 0;
        let mut rest: Vec<Observed> = std::mem::take(&mut *state.observed.lock());
        rest.retain(|o| !owned.is_foretold(o, &mut next));
        *owned.others.lock() = rest;
        owned
    }

    /// Whether a reverse mapping says just this and nobody has asked for it yet. `next` is a guess at its place, for who comes in
    /// about the order of the tree.
    pub(super) fn is_foretold(&self, o: &Observed, next: &mut usize) -> bool {
        let key = tree_key(o.start, o.owner, o.offset);
        let at = match self.foretold.get(*next) {
            Some(r) if record_key(r) == key => *next,
            _ => match self.foretold.binary_search_by(|r| record_key(r).cmp(&key)) {
                Ok(at) => at,
                Err(_) => return false,
            },
        };
        *next = at + 1;
        let same = self.foretold.get(at).is_some_and(|r| Observed::from(r) == *o);
        let bit = 1 << (at % 64);
        same && self.seen.get(at / 64).is_some_and(|w| w.fetch_or(bit, Ordering::Relaxed) & bit == 0)
    }

    /// Keeps what no reverse mapping says.
    pub(super) fn keep(&self, others: impl Iterator<Item = Observed>) {
        self.others.lock().extend(others);
    }

    /// Ends the scan.
    pub(super) fn sorted(&self) -> Sorted<'_> {
        let mut others = std::mem::take(&mut *self.others.lock());
        others.par_sort_unstable_by_key(Observed::order);
        Sorted { owned: self, others }
    }

    fn was_seen(&self, at: usize) -> bool {
        self.seen.get(at / 64).is_some_and(|w| w.load(Ordering::Relaxed) >> (at % 64) & 1 == 1)
    }

    fn mappings(&self, seen: bool) -> impl Iterator<Item = Observed> + '_ {
        let these = self.foretold.iter().enumerate().filter(move |(i, _)| self.was_seen(*i) == seen);
        these.map(|(_, r)| Observed::from(r))
    }
}

/// What was seen, in the order of the blocks.
pub(super) struct Sorted<'o> {
    owned: &'o Owned<'o>,
    others: Vec<Observed>,
}

impl Sorted<'_> {
    /// Everything with an owner, and free space, by the first block.
    pub(super) fn all(&self) -> impl Iterator<Item = Observed> + '_ {
        let free = self.owned.free.iter().map(|r| Observed {
            start: r.startblock.get(),
            count: r.blockcount.get(),
            owner: owner::NULL,
            offset: 0,
        });
        merge(self.owners(), free)
    }

    /// Everything with an owner, by the first block.
    pub(super) fn owners(&self) -> impl Iterator<Item = Observed> + '_ {
        merge(self.owned.mappings(true), self.others.iter().copied())
    }

    /// What no reverse mapping says as it is, and the reverse mappings that say nothing that was seen.
    pub(super) fn unmatched(self) -> (Vec<Observed>, Vec<Observed>) {
        (self.others, self.owned.mappings(false).collect())
    }
}

/// Two ordered sequences as one.
fn merge(a: impl Iterator<Item = Observed>, b: impl Iterator<Item = Observed>) -> impl Iterator<Item = Observed> {
    let (mut a, mut b) = (a.peekable(), b.peekable());
    std::iter::from_fn(move || match (a.peek(), b.peek()) {
        (Some(x), Some(y)) if y.order() < x.order() => b.next(),
        (Some(_), _) => a.next(),
        (None, _) => b.next(),
    })
}

#[cfg(test)]
mod tests {
    use super::{Observed, Owned};
    use crate::format::btree::{RMAP_UNWRITTEN, RmapRec};
    use parking_lot::Mutex;
    use std::sync::atomic::AtomicU64;
    use zerocopy::big_endian::{U32, U64};

    fn o(start: u32, count: u32, owner: u64, offset: u64) -> Observed {
        Observed { start, count, owner, offset }
    }

    #[test]
    fn what_mappings_say_is_kept_once_and_the_rest_as_it_is() {
        let of = |o: Observed| RmapRec {
            startblock: U32::new(o.start),
            blockcount: U32::new(o.count),
            owner: U64::new(o.owner),
            offset: U64::new(o.offset),
        };
        let list = [o(4, 2, 9, 0), o(8, 1, 7, RMAP_UNWRITTEN), o(8, 1, 8, 0), o(20, 5, 7, 3)];
        let mappings: Vec<RmapRec> = list.into_iter().map(of).collect();
        let seen = [const { AtomicU64::new(0) }].into();
        let owned = Owned { foretold: &mappings, seen, others: Mutex::default(), free: &[] };
        let mut next = 0;
        // Two that are told, one again, one in another state, one of another length, one unknown.
        let scan = [list[3], list[0], list[0], o(8, 1, 7, 0), o(8, 2, 8, 0), o(1, 1, 5, 5)];
        let rest: Vec<Observed> = scan.into_iter().filter(|x| !owned.is_foretold(x, &mut next)).collect();
        assert_eq!(rest, [list[0], o(8, 1, 7, 0), o(8, 2, 8, 0), o(1, 1, 5, 5)]);
        owned.keep(rest.into_iter());
        let sorted = owned.sorted();
        let all: Vec<Observed> = sorted.all().collect();
        assert_eq!(all, [o(1, 1, 5, 5), list[0], list[0], o(8, 1, 7, 0), o(8, 2, 8, 0), list[3]]);
        assert_eq!(sorted.unmatched().1, [list[1], list[2]]);
    }
}
