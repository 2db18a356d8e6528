//! Free extents, counted by size.

use super::SpaceBackend;
use crate::control::Control;
use crate::error::{Error, Result};
use crate::units::AgNumber;
use serde::Serialize;
use std::ops::ControlFlow;

/// How the sizes are cut into bins. Each bin ends where the next one starts, the last at the size of an AG or of the realtime device: with
/// equal widths and powers no bin starts there, so the one before holds that size too.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Bins {
    /// Bins that start at the powers of two, or of another factor from 2.
    Powers(u64),
    /// Bins of equal width, from 1.
    Equal(u64),
    /// Bins that start at these sizes.
    From(Vec<u64>),
}

/// One bin.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub struct Bin {
    /// Smallest extent in it, in blocks.
    pub from: u64,
    /// Largest extent in it.
    pub to: u64,
    /// Extents in it.
    pub extents: u64,
    /// Their blocks.
    pub blocks: u64,
}

/// Bins beyond which a histogram is refused: nobody reads it, and memory must stay bounded.
const MAX_BINS: u64 = 1 << 20;

impl Bins {
    /// The empty bins for extents of up to `largest` blocks.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a width or factor that makes no bins, or too many.
    pub fn empty(&self, largest: u64) -> Result<Vec<Bin>> {
        let mut starts = vec![1u64];
        match self {
            Self::Powers(f) if *f < 2 => {
                return Err(Error::invalid(format!("the factor is {f}; at least 2 is needed")));
            }
            Self::Powers(f) => {
                let mut low = *f;
                while low < largest {
                    starts.push(low);
                    let Some(next) = low.checked_mul(*f) else { break };
                    low = next;
                }
            }
            Self::Equal(0) => return Err(Error::invalid("the bin size is 0; at least 1 is needed")),
            Self::Equal(w) => {
                if largest / w > MAX_BINS {
                    let least = largest / MAX_BINS + 1;
                    return Err(Error::invalid(format!("the bin size is {w}; at least {least} is needed here")));
                }
                starts.extend((1..=largest / w).filter_map(|i| i.checked_mul(*w)?.checked_add(1)));
                starts.retain(|s| *s < largest || *s == 1);
            }
            Self::From(lows) => {
                if lows.contains(&0) {
                    return Err(Error::invalid("a bin starts at 0; at least 1 is needed"));
                }
                starts.extend(lows);
                starts.sort_unstable();
                starts.dedup();
            }
        }
        let last = starts.last().map_or(largest, |s| largest.max(*s));
        let ends = starts.iter().skip(1).map(|s| s - 1).chain([last]);
        Ok(starts.iter().zip(ends).map(|(from, to)| Bin { from: *from, to, extents: 0, blocks: 0 }).collect())
    }
}

/// What to collect.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Freesp {
    /// The realtime device instead of the AGs.
    pub realtime: bool,
    /// These AGs only; all if empty.
    pub ags: Vec<AgNumber>,
    /// The bins.
    pub bins: Bins,
    /// Keep each extent.
    pub each_extent: bool,
}

/// A free extent.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub struct FreeExtent {
    /// AG; none on the realtime device.
    pub ag: Option<AgNumber>,
    /// First block, counted from the start of the AG or of the device.
    pub block: u64,
    /// Blocks.
    pub blocks: u64,
}

/// Free space of one AG, or of the realtime device.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub struct AgFree {
    /// AG; none for the realtime device.
    pub ag: Option<AgNumber>,
    /// Free extents.
    pub extents: u64,
    /// Free blocks.
    pub blocks: u64,
}

/// Free space, counted.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct FreeSpace {
    /// All bins, also the empty ones.
    pub bins: Vec<Bin>,
    /// Per AG.
    pub ags: Vec<AgFree>,
    /// Free extents.
    pub extents: u64,
    /// Free blocks.
    pub blocks: u64,
    /// Each extent, where asked for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub list: Vec<FreeExtent>,
}

impl FreeSpace {
    /// Nothing counted yet; the bins as [`Bins::empty`] makes them.
    pub fn new(bins: Vec<Bin>) -> Self {
        Self { bins, ags: Vec::new(), extents: 0, blocks: 0, list: Vec::new() }
    }
    /// Counts an extent of so many blocks.
    pub fn add(&mut self, blocks: u64) {
        let after = self.bins.partition_point(|b| b.from <= blocks);
        if let Some(bin) = after.checked_sub(1).and_then(|i| self.bins.get_mut(i)) {
            bin.extents += 1;
            bin.blocks = bin.blocks.saturating_add(blocks);
        }
        self.extents += 1;
        self.blocks = self.blocks.saturating_add(blocks);
    }
    /// Counts an extent, and keeps it where that is asked for.
    fn take(&mut self, e: FreeExtent, what: &Freesp) -> ControlFlow<()> {
        self.add(e.blocks);
        if what.each_extent {
            self.list.push(e);
        }
        ControlFlow::Continue(())
    }
    /// Blocks of the average extent; 0 where there is none.
    pub fn average(&self) -> f64 {
        if self.extents == 0 { 0.0 } else { self.blocks as f64 / self.extents as f64 }
    }
}

/// Collects free space.
///
/// # Errors
/// [`Error::Invalid`] for AGs or bins that do not exist; else the backend's.
pub fn collect(backend: &dyn SpaceBackend, what: &Freesp, control: &Control<'_>) -> Result<FreeSpace> {
    let shape = backend.shape();
    let largest = if what.realtime { shape.rt_blocks } else { shape.ag_blocks.into() };
    let mut free = FreeSpace::new(what.bins.empty(largest)?);
    if what.realtime {
        control.tell("free space", 0, None);
        backend.free_realtime(control, &mut |block, blocks| free.take(FreeExtent { ag: None, block, blocks }, what))?;
        free.ags.push(AgFree { ag: None, extents: free.extents, blocks: free.blocks });
        return Ok(free);
    }
    if let Some(bad) = what.ags.iter().find(|a| a.0 >= shape.ag_count) {
        return Err(Error::invalid(format!("AG {bad} does not exist; 0 to {} do", shape.ag_count.saturating_sub(1))));
    }
    let mut ags = what.ags.clone();
    ags.sort_unstable();
    ags.dedup();
    let total = if ags.is_empty() { u64::from(shape.ag_count) } else { ags.len() as u64 };
    let all = (0..if ags.is_empty() { shape.ag_count } else { 0 }).map(AgNumber);
    for (done, ag) in ags.iter().copied().chain(all).enumerate() {
        control.tell("free space", done as u64, Some(total));
        let (extents, blocks) = (free.extents, free.blocks);
        backend.free_space(ag, control, &mut |ag, agbno, blocks| {
            free.take(FreeExtent { ag: Some(ag), block: agbno.0.into(), blocks: blocks.into() }, what)
        })?;
        free.ags.push(AgFree { ag: Some(ag), extents: free.extents - extents, blocks: free.blocks - blocks });
    }
    Ok(free)
}

#[cfg(test)]
mod tests {
    use super::Bins;

    fn edges(bins: &Bins, largest: u64) -> Vec<(u64, u64)> {
        bins.empty(largest).unwrap().iter().map(|b| (b.from, b.to)).collect()
    }

    #[test]
    fn bins_cover_every_size_once() {
        assert_eq!(edges(&Bins::Powers(2), 9), [(1, 1), (2, 3), (4, 7), (8, 9)]);
        assert_eq!(edges(&Bins::Powers(2), 8), [(1, 1), (2, 3), (4, 8)]);
        assert_eq!(edges(&Bins::Powers(2), 1), [(1, 1)]);
        assert_eq!(edges(&Bins::Equal(7), 8), [(1, 8)]);
        assert_eq!(edges(&Bins::Equal(7), 1), [(1, 1)]);
        assert_eq!(edges(&Bins::From(vec![8]), 8), [(1, 7), (8, 8)]);
        assert_eq!(edges(&Bins::Powers(3), 30), [(1, 2), (3, 8), (9, 26), (27, 30)]);
        assert_eq!(edges(&Bins::Equal(10), 25), [(1, 10), (11, 20), (21, 25)]);
        assert_eq!(edges(&Bins::From(vec![20, 5]), 25), [(1, 4), (5, 19), (20, 25)]);
        assert_eq!(edges(&Bins::From(vec![30]), 25), [(1, 29), (30, 30)]);
    }

    #[test]
    fn impossible_bins_are_refused() {
        assert!(Bins::Powers(1).empty(100).is_err());
        assert!(Bins::Equal(0).empty(100).is_err());
        assert!(Bins::Equal(1).empty(u64::MAX).is_err());
        assert!(Bins::From(vec![3, 0]).empty(100).is_err());
        assert!(Bins::Powers(2).empty(u64::MAX).is_ok());
    }
}
