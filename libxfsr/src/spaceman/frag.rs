//! Fragmentation: extents that files have, and the fewest they would need.

use crate::control::Control;
use crate::error::{ForkKind, Result};
use crate::format::btree::Extent;
use crate::inode::fork;
use crate::units::Ino;
use crate::volume::Volume;
use serde::Serialize;
use std::ops::ControlFlow;

/// Extents between two looks at whether to go on.
const PATIENCE: u64 = 128;

/// Fragmentation of all files, directories and links. Metadata files are left out.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize)]
pub struct Frag {
    /// Inodes in use.
    pub inodes: u64,
    /// Forks that have extents.
    pub forks: u64,
    /// Extents in all forks.
    pub actual: u64,
    /// Fewest extents: one for each part of a fork between holes. None where that cannot be told: on a mounted filesystem without
    /// reverse mappings that has a link, socket or device with several extents of attributes.
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
    /// Takes all extents of a fork, and starts another. `inode` is the inode's bytes.
    ///
    /// # Errors
    /// As [`fork::extents`]; [`Error::Stopped`](crate::Error::Stopped).
    pub fn fork(
        &mut self,
        volume: &Volume,
        (ino, inode): (Ino, &[u8]),
        kind: ForkKind,
        control: &Control<'_>,
    ) -> Result<()> {
        let mut going = Ok(());
        fork::extents(volume, ino, inode, kind, (0, u64::MAX), &mut |e| {
            self.add(e);
            going = if self.actual.is_multiple_of(PATIENCE) { control.check() } else { Ok(()) };
            if going.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        })?;
        self.next_fork();
        going
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
