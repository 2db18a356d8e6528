//! Fragmentation: extents that files have, and the fewest they would need.

use crate::format::btree::Extent;
use serde::Serialize;

/// Fragmentation of all files, directories and links. Metadata files are left out.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize)]
pub struct Frag {
    /// Inodes in use.
    pub inodes: u64,
    /// Forks that have extents.
    pub forks: u64,
    /// Extents in all forks.
    pub actual: u64,
    /// Fewest extents: one for each part of a fork between holes. None where that cannot be told: a mounted filesystem
    /// without reverse mappings says how many extents a file has, not where.
    pub ideal: Option<u64>,
}

impl Frag {
    /// Share of extents that are too many, in percent; against one per fork where no ideal is known.
    pub fn factor(&self) -> f64 {
        let ideal = self.ideal.unwrap_or(self.forks);
        if self.actual == 0 { 0.0 } else { self.actual.saturating_sub(ideal) as f64 * 100.0 / self.actual as f64 }
    }
    /// Extents per fork that has any.
    pub fn average(&self) -> f64 {
        if self.forks == 0 { 0.0 } else { self.actual as f64 / self.forks as f64 }
    }
}

/// Counts the parts of forks between holes; extents of a fork must come in order.
#[derive(Clone, Copy, Debug, Default)]
pub struct FragCounter {
    /// Extents seen.
    pub actual: u64,
    /// Parts between holes.
    pub ideal: u64,
    end: Option<u64>,
}

impl FragCounter {
    /// Takes the next extent of the fork.
    pub fn add(&mut self, e: &Extent) {
        self.actual += 1;
        if self.end != Some(e.offset) {
            self.ideal += 1;
        }
        self.end = Some(e.offset.saturating_add(e.count));
    }
    /// Starts another fork.
    pub fn next_fork(&mut self) {
        self.end = None;
    }
}

#[cfg(test)]
mod tests {
    use super::FragCounter;
    use crate::format::btree::Extent;

    #[test]
    fn holes_need_extents_of_their_own() {
        let mut c = FragCounter::default();
        for (offset, start, count) in [(0, 100, 2), (2, 50, 1), (8, 51, 4)] {
            c.add(&Extent { offset, start, count, unwritten: false });
        }
        c.next_fork();
        c.add(&Extent { offset: 12, start: 7, count: 1, unwritten: false });
        assert_eq!((c.actual, c.ideal), (4, 3));
    }
}
