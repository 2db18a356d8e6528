//! Reads go through, writes stay in memory: a repair is tried, and a dirty log replayed, without touching the disk.

use super::runs::Runs;
use super::{Io, Target, Xfile, check_range};
use crate::error::Result;
use parking_lot::RwLock;
use std::sync::Arc;

const UNIT: u64 = 512;

/// A target whose writes are kept in an [`Xfile`].
#[derive(Debug)]
pub struct Overlay {
    below: Arc<dyn Target>,
    written: Xfile,
    /// Units that were written.
    runs: RwLock<Runs>,
}

impl Overlay {
    /// Over `below`, which is never written.
    ///
    /// # Errors
    /// When memory cannot be had.
    pub fn new(below: Arc<dyn Target>) -> Result<Self> {
        Ok(Self { below, written: Xfile::new("overlay")?, runs: RwLock::default() })
    }

    /// What was written, as (offset, length) in bytes, in order.
    pub fn changed(&self) -> Vec<(u64, u64)> {
        self.runs.read().iter().map(|(s, e)| (s * UNIT, (e - s) * UNIT)).collect()
    }

    /// Brings the partial units at both ends in from below, so that whole units can be marked as written.
    fn fill_edges(&self, runs: &Runs, offset: u64, len: u64) -> Result<()> {
        let end = offset + len;
        for unit in [offset / UNIT, end.saturating_sub(1) / UNIT] {
            let here = runs.end_of(unit).is_some();
            let partial = unit * UNIT < offset || (unit + 1) * UNIT > end;
            if partial && !here {
                let size = UNIT.min(self.below.len().saturating_sub(unit * UNIT));
                let mut b = vec![0; size as usize];
                self.below.read_at(&mut b, unit * UNIT)?;
                self.written.write_at(&b, unit * UNIT)?;
            }
        }
        Ok(())
    }
}

impl Target for Overlay {
    fn name(&self) -> &str {
        self.below.name()
    }
    fn readahead(&self, ranges: &[(u64, u64)]) {
        self.below.readahead(ranges);
    }
    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        let runs = self.runs.read();
        check_range("read", self.name(), offset, buf.len() as u64, self.len())?;
        let (mut at, mut rest) = (offset, buf);
        while !rest.is_empty() {
            let inside = runs.end_of(at / UNIT).map(|e| e * UNIT);
            let next = runs.next(at / UNIT).map_or(u64::MAX, |s| s * UNIT);
            let stop = inside.unwrap_or(next);
            let n = (stop - at).min(rest.len() as u64) as usize;
            let (head, tail) = rest.split_at_mut(n);
            if inside.is_some() {
                self.written.read_at(head, at)?
            } else {
                self.below.read_at(head, at)?
            }
            at += n as u64;
            rest = tail;
        }
        Ok(())
    }
    fn next_data(&self, offset: u64) -> u64 {
        let runs = self.runs.read();
        let mut at = offset;
        while at < self.len() {
            // What this run of written units, or the gap before the next one, has.
            let (data, end) = match runs.end_of(at / UNIT) {
                Some(end) => (self.written.next_data(at), end * UNIT),
                None => (self.below.next_data(at), runs.next(at / UNIT).map_or(u64::MAX, |s| s * UNIT)),
            };
            if data < end {
                return data;
            }
            at = end;
        }
        at.min(self.len()).max(offset)
    }
    fn write_at(&self, buf: &[u8], offset: u64) -> Result<()> {
        check_range("write", self.name(), offset, buf.len() as u64, self.len())?;
        if buf.is_empty() {
            return Ok(());
        }
        let mut runs = self.runs.write();
        self.fill_edges(&runs, offset, buf.len() as u64)?;
        self.written.write_at(buf, offset)?;
        runs.add(offset / UNIT, (offset + buf.len() as u64).div_ceil(UNIT));
        Ok(())
    }
    fn flush(&self) -> Result<()> {
        Ok(())
    }
    fn punch(&self, offset: u64, len: u64) -> Result<()> {
        check_range("punch", self.name(), offset, len, self.len())?;
        if len == 0 {
            return Ok(());
        }
        let mut runs = self.runs.write();
        self.fill_edges(&runs, offset, len)?;
        self.written.punch(offset, len)?;
        runs.add(offset / UNIT, (offset + len).div_ceil(UNIT));
        Ok(())
    }
    fn discard(&self, _offset: u64, _len: u64) -> Result<()> {
        Ok(())
    }
    fn len(&self) -> u64 {
        self.below.len()
    }
    fn set_len(&self, _len: u64) -> Result<()> {
        Err(crate::Error::unsupported("an overlay has the length of what lies below it"))
    }
    fn io(&self) -> Io {
        Io { read_only: false, direct_align: 0, ..self.below.io() }
    }
}

#[cfg(test)]
mod tests {
    use super::{Overlay, Target};
    use crate::target::Xfile;
    use proptest::prelude::*;
    use std::sync::Arc;

    proptest! {
        #[test]
        fn behaves_as_a_copy(writes in proptest::collection::vec((0u64..8000, 1usize..3000, any::<u8>(), any::<bool>()), 1..20)) {
            let below = Xfile::new("below").unwrap();
            let mut model: Vec<u8> = (0..12_000u32).map(|i| (i % 251) as u8).collect();
            below.write_at(&model, 0).unwrap();
            let before = model.clone();
            let below = Arc::new(below);
            let o = Overlay::new(below.clone()).unwrap();
            for (at, len, byte, punch) in writes {
                let range = at as usize..at as usize + len;
                if punch {
                    o.punch(at, len as u64).unwrap();
                    model[range].fill(0);
                } else {
                    o.write_at(&vec![byte; len], at).unwrap();
                    model[range].fill(byte);
                }
                let mut seen = vec![0; model.len()];
                o.read_at(&mut seen, 0).unwrap();
                prop_assert_eq!(&seen, &model);
                for at in (0..model.len()).step_by(700) {
                    let data = o.next_data(at as u64) as usize;
                    prop_assert!(model[at..data].iter().all(|b| *b == 0), "{at} to {data}");
                }
            }
            let mut untouched = vec![0; before.len()];
            below.read_at(&mut untouched, 0).unwrap();
            prop_assert_eq!(untouched, before);
        }
    }

    #[test]
    fn holes_are_passed_over() {
        let below = Xfile::new("below").unwrap();
        below.set_len(1 << 20).unwrap();
        below.write_at(&[1; 4096], 512 << 10).unwrap();
        let o = Overlay::new(Arc::new(below)).unwrap();
        assert_eq!((o.next_data(0), o.next_data(600 << 10)), (512 << 10, 1 << 20));
        o.write_at(&[1; 4096], 700 << 10).unwrap();
        assert_eq!((o.next_data(0), o.next_data(600 << 10)), (512 << 10, 700 << 10));
        o.punch(512 << 10, 4096).unwrap();
        assert_eq!((o.next_data(0), o.next_data(900 << 10)), (700 << 10, 1 << 20));
        assert_eq!(o.next_data(2 << 20), 2 << 20);
    }
}
