//! Reference counts and reverse mappings, wherever their trees live: what a record must be by itself, and the records against what
//! the forward scan saw.

use super::Findings;
use super::owners::{Observed, normalise};
use crate::error::{Corruption, Rule, Severity};
use crate::format::btree::{REFCOUNT_COW, RefcountRec};

/// A run of blocks that are shared: first block, blocks, by how many.
pub(super) type Shared = (u32, u32, u32);

/// A tree of records, for what is said of them.
pub(super) struct Tree<'a> {
    pub name: &'static str,
    /// Adds to what is wrong where it is: at this block.
    pub place: &'a dyn Fn(Box<Corruption>, u32) -> Box<Corruption>,
    pub found: &'a Findings<'a>,
}

impl Tree<'_> {
    fn bad(&self, field: &'static str, rule: Rule, start: u32) -> Box<Corruption> {
        (self.place)(Corruption::new(self.name, field, rule), start)
    }

    /// Tells of a record that only one side has.
    fn differs(&self, rule: Rule, start: u32, record: String, text: &str) {
        let c = self.bad("recs", rule, start).severity(Severity::CrossReference);
        self.found.add(if rule == Rule::Extra {
            c.found(record).expected(text)
        } else {
            c.found(text).expected(record)
        });
    }

    /// Checks each reference count by itself and against the one before it. `inside` tells of extents that cannot be. Gives the
    /// staging extents that can.
    pub(super) fn reference_counts(
        &self,
        records: &[RefcountRec],
        inside: impl Fn(u32, u32) -> bool,
    ) -> Vec<(u32, u32)> {
        let mut staging = Vec::new();
        let mut before: Option<&RefcountRec> = None;
        for r in records {
            let (raw, count, refs) = (r.startblock.get(), r.blockcount.get(), r.refcount.get());
            let (start, cow) = (raw & !REFCOUNT_COW, raw & REFCOUNT_COW != 0);
            let valid = inside(start, count);
            let allowed = if cow { refs == 1 } else { refs >= 2 };
            if !allowed {
                let c = self.bad("refcount", Rule::Range, start);
                self.found.add(c.found(refs).expected(if cow { "1 for a staging extent" } else { "at least 2" }));
            }
            if cow && valid {
                staging.push((start, count));
            }
            let touches =
                |b: &RefcountRec| u64::from(b.startblock.get()) + u64::from(b.blockcount.get()) == u64::from(raw);
            if !cow && before.is_some_and(|b| b.refcount == r.refcount && touches(b)) {
                self.found.add(self.bad("recs", Rule::Unmerged, start).found("a record that continues the one before"));
            }
            before = Some(r);
        }
        staging
    }

    /// Compares the reference counts with the sharing that was seen. Where they were cut does not matter.
    pub(super) fn compare_sharing(&self, records: &[RefcountRec], expected: &[Shared]) {
        let mut stored: Vec<Shared> = Vec::new();
        for r in records.iter().filter(|r| r.startblock.get() & REFCOUNT_COW == 0) {
            let (start, count, refs) = (r.startblock.get(), r.blockcount.get(), r.refcount.get());
            match stored.last_mut() {
                Some((s, n, d)) if *d == refs && s.checked_add(*n) == Some(start) => *n = n.saturating_add(count),
                _ => stored.push((start, count, refs)),
            }
        }
        difference(&stored, expected, &mut |r, rule| {
            let text = if rule == Rule::Extra { "another sharing seen by the forward scan" } else { "no such record" };
            self.differs(rule, r.0, format!("{} blocks at {} shared {} times", r.1, r.0, r.2), text);
        });
    }

    /// Compares the reverse mappings with the owners that were seen; `who` names the owner of one. Where they were cut does not matter.
    pub(super) fn compare_owners(&self, stored: Vec<Observed>, seen: Vec<Observed>, who: &dyn Fn(&Observed) -> String) {
        type Tuple = (u32, u32, u64, u64);
        let tuples = |list: Vec<Observed>| -> Vec<Tuple> {
            normalise(list).into_iter().map(|o| (o.start, o.count, o.owner, o.offset)).collect()
        };
        difference(&tuples(stored), &tuples(seen), &mut |&(start, count, owner, offset), rule| {
            let text = if rule == Rule::Extra { "another owner seen by the forward scan" } else { "no such record" };
            let name = who(&Observed { start, count, owner, offset });
            self.differs(rule, start, format!("{count} blocks at {start} of {name} (offset {offset:#x})"), text);
        });
    }
}

/// Walks two sorted lists and tells what only one of them has.
fn difference<T: Ord>(stored: &[T], expected: &[T], note: &mut dyn FnMut(&T, Rule)) {
    let (mut a, mut b) = (stored.iter().peekable(), expected.iter().peekable());
    loop {
        match (a.peek(), b.peek()) {
            (Some(x), Some(y)) if x == y => {
                a.next();
                b.next();
            }
            (Some(x), y) if y.is_none_or(|y| x < y) => {
                note(x, Rule::Extra);
                a.next();
            }
            (_, Some(y)) => {
                note(y, Rule::Missing);
                b.next();
            }
            _ => break,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::difference;
    use crate::error::Rule;

    #[test]
    fn what_one_list_has_alone_is_told() {
        let mut told = Vec::new();
        difference(&[1, 2, 4, 7, 8], &[2, 3, 4, 8, 9], &mut |n, rule| told.push((*n, rule)));
        assert_eq!(told, [(1, Rule::Extra), (3, Rule::Missing), (7, Rule::Extra), (9, Rule::Missing)]);
    }
}
