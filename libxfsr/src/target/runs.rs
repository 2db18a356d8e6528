//! Sets of units kept as runs: what they take does not grow with the size of what is marked at once.

use std::collections::BTreeMap;

/// Units that are marked, as runs that neither touch nor overlap: start to end.
#[derive(Debug, Default)]
pub(super) struct Runs(BTreeMap<u64, u64>);

impl Runs {
    /// Marks a range.
    pub(super) fn add(&mut self, mut start: u64, mut end: u64) {
        if start >= end {
            return;
        }
        let touching: Vec<u64> =
            self.0.range(..=end).rev().take_while(|&(_, &e)| e >= start).map(|(&s, _)| s).collect();
        for s in touching {
            if let Some(e) = self.0.remove(&s) {
                start = start.min(s);
                end = end.max(e);
            }
        }
        self.0.insert(start, end);
    }

    /// Where the run that holds a unit ends.
    pub(super) fn end_of(&self, unit: u64) -> Option<u64> {
        self.0.range(..=unit).next_back().map(|(_, &e)| e).filter(|&e| e > unit)
    }

    /// Where the first run behind a unit starts.
    pub(super) fn next(&self, unit: u64) -> Option<u64> {
        self.0.range(unit.saturating_add(1)..).next().map(|(&s, _)| s)
    }

    /// Parts of a range that are not marked.
    pub(super) fn gaps(&self, start: u64, end: u64) -> Vec<(u64, u64)> {
        let (mut at, mut gaps) = (start, Vec::new());
        while at < end {
            if let Some(e) = self.end_of(at) {
                at = e;
                continue;
            }
            let stop = self.next(at).unwrap_or(end).min(end);
            gaps.push((at, stop));
            at = stop;
        }
        gaps
    }

    /// The runs in order, start and end.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u64, u64)> {
        self.0.iter().map(|(&s, &e)| (s, e))
    }

    /// Number of units that are marked.
    pub(super) fn count(&self) -> u64 {
        self.iter().map(|(s, e)| e - s).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::Runs;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    proptest! {
        #[test]
        fn behaves_as_a_set(adds in prop::collection::vec((0u64..60, 0u64..12), 0..20), from in 0u64..60, len in 0u64..20) {
            let (mut runs, mut model) = (Runs::default(), BTreeSet::new());
            for (start, n) in adds {
                runs.add(start, start + n);
                model.extend(start..start + n);
            }
            prop_assert_eq!(runs.count(), model.len() as u64);
            let missing: Vec<u64> = runs.gaps(from, from + len).into_iter().flat_map(|(s, e)| s..e).collect();
            prop_assert_eq!(missing, (from..from + len).filter(|u| !model.contains(u)).collect::<Vec<_>>());
            let all: Vec<(u64, u64)> = runs.iter().collect();
            prop_assert!(all.windows(2).all(|w| w[0].1 < w[1].0));
        }
    }
}
