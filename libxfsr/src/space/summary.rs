//! What the superblock counts. While a filesystem is in use it is kept in memory; recovery takes the sums of the AGs, and so does a
//! filesystem that is closed.

use super::{Counters, Fill, Space};
use crate::cache::OnDamage;
use crate::error::{Error, Result};
use crate::format::ag::{AGF, AGI, Agf, Agi};
use crate::txn::{Reservation, Scope, Transaction};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use zerocopy::FromBytes;

#[derive(Debug, Default)]
pub(super) struct Shared {
    inodes: AtomicI64,
    free_inodes: AtomicI64,
    pub(super) blocks: AtomicI64,
    held: AtomicI64,
}

impl Shared {
    pub(super) fn new(c: Counters) -> Self {
        let number = |n: u64| AtomicI64::new(n.cast_signed());
        Self {
            inodes: number(c.inodes),
            free_inodes: number(c.free_inodes),
            blocks: number(c.free_blocks),
            held: AtomicI64::new(0),
        }
    }
    pub(super) fn now(&self) -> Counters {
        let value = |n: &AtomicI64| u64::try_from(n.load(Ordering::Relaxed)).unwrap_or(0);
        Counters {
            inodes: value(&self.inodes),
            free_inodes: value(&self.free_inodes),
            free_blocks: value(&self.blocks),
        }
    }
}

/// Blocks that somebody is about to allocate. They are counted as used until this is dropped, after the transaction's end.
#[derive(Debug)]
pub struct Held {
    space: Arc<Space>,
    blocks: u64,
}

impl Drop for Held {
    fn drop(&mut self) {
        self.space.counters.held.fetch_sub(self.blocks.cast_signed(), Ordering::AcqRel);
    }
}

impl Space {
    /// What the superblock would say now.
    pub fn counters(&self) -> Counters {
        self.counters.now()
    }

    /// Free blocks that files may have: without what is kept for trees and free lists.
    pub fn available(&self, t: &crate::geometry::Geometry) -> u64 {
        let mut all = 0;
        for ag in t.ags() {
            let Some(agf) = self.hint(ag) else { continue };
            let need = super::freelist::minimum_of(t, &agf);
            let kept = self.kept(ag, &agf, Fill::Free).saturating_add(need);
            all += u64::from(agf.freeblks.get().saturating_add(agf.flcount.get()).saturating_sub(kept));
        }
        all
    }

    /// Sets blocks aside for a change that may take so many, before it begins anything: so it is told at once that there is no space.
    ///
    /// # Errors
    /// [`Error::NoSpace`].
    pub fn hold(self: &Arc<Self>, g: &crate::geometry::Geometry, blocks: u64) -> Result<Held> {
        let n = blocks.cast_signed();
        let before = self.counters.held.fetch_add(n, Ordering::AcqRel);
        let held = Held { space: self.clone(), blocks };
        let all = before.saturating_add(n);
        if u64::try_from(all).unwrap_or(u64::MAX) > self.available(g) {
            return Err(Error::NoSpace(format!("{blocks} blocks are wanted, {} are free", self.available(g))));
        }
        Ok(held)
    }

    /// Counts inodes that came or went, and that became free or were taken, when this is committed.
    pub fn inodes_changed(&self, t: &mut Transaction<'_>, all: i64, free: i64) {
        let Some(space) = self.itself.upgrade() else { return };
        t.after_commit(move |_| {
            space.counters.inodes.fetch_add(all, Ordering::Relaxed);
            space.counters.free_inodes.fetch_add(free, Ordering::Relaxed);
        });
    }

    /// Writes the sums of the AGs to the superblock: before the log is closed, when nobody changes anything any more.
    ///
    /// # Errors
    /// When a header cannot be read, or the change cannot be committed.
    pub fn settle(&self, scope: &Scope) -> Result<Counters> {
        let (volume, g) = (scope.volume(), &scope.volume().geometry);
        let mut sums = Counters::default();
        for ag in g.ags() {
            let agf = volume.ag_header(ag, 1, &AGF, OnDamage::Fail)?;
            let agi = volume.ag_header(ag, 2, &AGI, OnDamage::Fail)?;
            let agf = Agf::ref_from_prefix(&agf).map_err(|_| super::short())?.0;
            sums += Counters::of(agf, Agi::ref_from_prefix(&agi).map_err(|_| super::short())?.0);
        }
        let mut t = scope.begin(Reservation { sectors: 1, ..Reservation::default() })?;
        t.superblock_mut()?.set_counters(&sums);
        t.commit()?;
        Ok(sums)
    }
}
