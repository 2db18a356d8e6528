//! Space of an AG: where its trees live, and who takes and gives blocks.
//!
//! [`Space`] allocates and frees extents in a transaction, in the trees of free space, and keeps the reverse mappings. Every operation
//! locks the AGF, then fills the AG's free list to what its trees may need for it, and only then changes something: so it does not fail
//! half-way for want of a block. After any error but [`Error::NoSpace`] the transaction is dropped, which takes all back.
//!
//! Who depends on whom: the trees of inodes and reference counts get blocks from the free space, whose trees and those of the reverse mappings
//! get them from the free list, which is filled from free space. Never the other way round.

mod allocate;
mod busy;
mod choose;
mod deferred;
mod extent;
mod free;
mod freelist;
pub(crate) mod header;
mod neighbours;
mod owner;
mod refcount;
mod reserve;
mod rmap;
mod store;
mod summary;
mod tree;

pub use crate::format::counters::Counters;
pub use allocate::{Allocated, Place, Request};
pub use deferred::{CountChange, CountChanges, FreeExtents, MapChanges, Mapping};
pub use owner::RmapOwner;
pub use store::{AgStore, AgTree};
pub use summary::Held;
pub use tree::AgTreeMut;

use crate::btree::{self, kinds::Finobt};
use crate::cache::OnDamage;
use crate::control::Control;
use crate::error::{Error, Result};
use crate::format::ag::{AGF, AGI, Agf, Agi};
use crate::geometry::Geometry;
use crate::txn::{Reservation, Transaction};
use crate::units::{AgBlock, AgNumber, FsBlock};
use crate::volume::Volume;
use busy::Busy;
use parking_lot::Mutex;
use reserve::Asked;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use zerocopy::FromBytes;

/// For whom blocks are: who may take what is kept for an AG's own trees.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fill {
    /// Files and all else.
    Free,
    /// A tree of the AG for which space is kept: reference counts, free inodes.
    Tree,
}

/// What is kept in memory of an AG.
struct InMemory {
    asked: Asked,
    /// Blocks of the tree of free inodes.
    free_inode_blocks: AtomicU32,
    /// The AGF as it was committed last: to choose an AG without its lock.
    agf: Mutex<Agf>,
}

/// Space of a filesystem that is being changed: what its transactions share.
pub struct Space {
    ags: Vec<InMemory>,
    busy: Busy,
    counters: summary::Shared,
    /// Directories that were made: each goes into the next AG.
    directories: AtomicU32,
    /// Neighbours in the lists of unlinked inodes.
    pub(crate) unlinked: neighbours::Before,
    itself: std::sync::Weak<Self>,
}

impl std::fmt::Debug for Space {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Space").field("counters", &self.counters.now()).finish_non_exhaustive()
    }
}

fn short() -> Error {
    Error::invalid("an AG header is shorter than its structure")
}

impl Space {
    /// Reads what the AGs have. The log is clean, or replayed.
    ///
    /// # Errors
    /// When a header cannot be read.
    pub fn open(volume: &Volume) -> Result<Arc<Self>> {
        let g = &volume.geometry;
        let (mut ags, mut sums) = (Vec::new(), Counters::default());
        for ag in g.ags() {
            let (agf, agi) =
                (volume.ag_header(ag, 1, &AGF, OnDamage::Fail)?, volume.ag_header(ag, 2, &AGI, OnDamage::Fail)?);
            let (agf, _) = Agf::read_from_prefix(&agf).map_err(|_| short())?;
            let (agi, _) = Agi::read_from_prefix(&agi).map_err(|_| short())?;
            let fino = if !g.features.finobt() {
                0
            } else if g.features.inobtcnt() {
                agi.fblocks.get()
            } else {
                let store = AgStore::new(volume, ag, AgTree::Fino, OnDamage::Fail)?;
                let mut blocks = 0;
                let mut count = |_, _: Option<&btree::Node<'_>>| blocks += 1;
                btree::check::<Finobt, _>(&store, &Control::none(), &mut count, &mut |_| {}, &mut |_| {})?;
                blocks
            };
            let mut asked = Asked::new(g, ag);
            // An AG that cannot keep so much keeps nothing, as Linux does it.
            if asked.left(&agf, fino).sum() > agf.freeblks.get().saturating_add(agf.flcount.get()) {
                asked = Asked::default();
            }
            sums += Counters::of(&agf, &agi);
            ags.push(InMemory { asked, free_inode_blocks: AtomicU32::new(fino), agf: Mutex::new(agf) });
        }
        let busy = Busy::new(g.ag_count);
        let (counters, directories) = (summary::Shared::new(sums), AtomicU32::new(0));
        Ok(Arc::new_cyclic(|itself| Self {
            ags,
            busy,
            counters,
            directories,
            unlinked: Default::default(),
            itself: itself.clone(),
        }))
    }

    fn in_memory(&self, ag: AgNumber) -> Option<&InMemory> {
        self.ags.get(ag.0 as usize)
    }

    /// Blocks of an AG that this may not take.
    fn kept(&self, ag: AgNumber, agf: &Agf, fill: Fill) -> u32 {
        let Some(a) = self.in_memory(ag) else { return 0 };
        let left = a.asked.left(agf, a.free_inode_blocks.load(Ordering::Relaxed));
        match fill {
            Fill::Free => left.sum(),
            Fill::Tree => left.rmap,
        }
    }

    pub(crate) fn itself(&self) -> Option<Arc<Self>> {
        self.itself.upgrade()
    }

    /// The AG for the next directory: they are spread over all.
    pub(crate) fn next_directory_ag(&self) -> AgNumber {
        let n = self.directories.fetch_add(1, Ordering::Relaxed);
        AgNumber(n.checked_rem(u32::try_from(self.ags.len()).unwrap_or(0)).unwrap_or(0))
    }

    /// Whether an AG has so little left that its trees may find no room to note one more owner of blocks: so no more files may share any there.
    ///
    /// # Errors
    /// [`Error::NoSpace`] then.
    pub fn may_share(&self, g: &Geometry, start: FsBlock) -> Result<()> {
        const LEAST: u32 = 64;
        let (ag, _) = g.split(start);
        let (Some(a), Some(agf)) = (self.in_memory(ag), self.hint(ag)) else {
            return Err(Error::invalid(format!("block {start} does not exist")));
        };
        let asked = if g.features.rmapbt() { a.asked.sum() } else { a.asked.other };
        if agf.freeblks.get() < (asked / 10).max(LEAST) {
            return Err(Error::NoSpace(format!("AG {ag} has no room to note who shares its blocks")));
        }
        Ok(())
    }

    fn hint(&self, ag: AgNumber) -> Option<Agf> {
        self.in_memory(ag).map(|a| *a.agf.lock())
    }

    /// Remembers an AG's header when this is committed, and counts what became free or was taken.
    fn blocks_changed(&self, t: &mut Transaction<'_>, ag: AgNumber, by: i64) -> Result<()> {
        let agf = header::agf(t, ag)?;
        let Some(space) = self.itself.upgrade() else { return Ok(()) };
        t.after_commit(move |_| {
            if let Some(a) = space.in_memory(ag) {
                *a.agf.lock() = agf;
            }
            space.counters.blocks.fetch_add(by, Ordering::Relaxed);
        });
        Ok(())
    }

    fn free_inode_blocks_changed(&self, t: &mut Transaction<'_>, ag: AgNumber, by: i64) {
        let Some(space) = self.itself.upgrade() else { return };
        t.after_commit(move |_| {
            if let Some(a) = space.in_memory(ag) {
                let n = i64::from(a.free_inode_blocks.load(Ordering::Relaxed)).saturating_add(by);
                a.free_inode_blocks.store(u32::try_from(n.max(0)).unwrap_or(u32::MAX), Ordering::Relaxed);
            }
        });
    }

    /// What `operations` of this module may log in one transaction.
    pub fn reservation(g: &Geometry, operations: u32) -> Reservation {
        let path = |levels: u8| (2 * u32::from(levels)).saturating_sub(1);
        let rmap = if g.features.rmapbt() { path(g.max_levels.rmap) } else { 0 };
        // The operation itself, and the free list's upkeep before it.
        let blocks = operations.saturating_mul(2 * path(g.max_levels.bno) + rmap).saturating_mul(2);
        Reservation { blocks, sectors: operations.saturating_mul(2), inodes: 0, bytes: 0 }
    }

    /// Locks an AG and fills its free list, for one change of a tree that draws on it: who changes [`AgTreeMut`] directly.
    ///
    /// # Errors
    /// [`Error::Corrupt`]; I/O errors.
    pub fn prepare(&self, t: &mut Transaction<'_>, ag: AgNumber) -> Result<()> {
        header::lock_agf(t, ag)?;
        freelist::fill(t, self, ag)
    }

    /// Frees an extent. With an owner its reverse mapping goes in the same transaction; without one it is gone already.
    ///
    /// # Errors
    /// [`Error::Corrupt`] where a part of it is free, belongs to somebody else, or lies outside of its AG; I/O errors. The transaction must be
    /// dropped then.
    pub fn free(&self, t: &mut Transaction<'_>, start: FsBlock, blocks: u32, owner: Option<&RmapOwner>) -> Result<()> {
        let (ag, at) = self.place(t, start)?;
        free::in_ag(t, self, ag, (at, blocks), owner)
    }

    /// Notes in the reverse mappings that an extent belongs to an owner.
    ///
    /// # Errors
    /// As [`Space::free`].
    pub fn map(&self, t: &mut Transaction<'_>, start: FsBlock, blocks: u32, owner: &RmapOwner) -> Result<()> {
        self.with_mappings(t, start, |space, t, ag, at| rmap::add(t, space, ag, (at, blocks), owner))
    }

    /// Notes in the reverse mappings that an extent no longer belongs to an owner.
    ///
    /// # Errors
    /// As [`Space::free`].
    pub fn unmap(&self, t: &mut Transaction<'_>, start: FsBlock, blocks: u32, owner: &RmapOwner) -> Result<()> {
        self.with_mappings(t, start, |space, t, ag, at| rmap::remove(t, space, ag, (at, blocks), owner))
    }

    /// Notes in the reverse mappings that an extent of a file, which `owner` says as it was, is written now, or no longer.
    ///
    /// # Errors
    /// As [`Space::free`].
    pub fn convert(&self, t: &mut Transaction<'_>, start: FsBlock, blocks: u32, owner: &RmapOwner) -> Result<()> {
        self.with_mappings(t, start, |space, t, ag, at| rmap::convert(t, space, ag, (at, blocks), owner))
    }

    fn place(&self, t: &Transaction<'_>, start: FsBlock) -> Result<(AgNumber, AgBlock)> {
        let (ag, at) = t.geometry().split(start);
        if ag.0 < t.geometry().ag_count {
            self.may_lock(held(t), ag)?;
        }
        Ok((ag, at))
    }

    fn with_mappings<'s>(
        &self,
        t: &mut Transaction<'s>,
        start: FsBlock,
        act: impl FnOnce(&Self, &mut Transaction<'s>, AgNumber, AgBlock) -> Result<()>,
    ) -> Result<()> {
        if !t.geometry().features.rmapbt() {
            return Ok(());
        }
        let (ag, at) = self.place(t, start)?;
        self.prepare(t, ag)?;
        act(self, t, ag, at)?;
        self.blocks_changed(t, ag, 0)
    }
}

/// The last AG whose free space a transaction has locked.
fn held(t: &Transaction<'_>) -> Option<AgNumber> {
    let key = t.last_of(&AGF)?;
    t.geometry().daddr_to_ag(key.daddr()).map(|(ag, _)| ag)
}

/// Whether a transaction may lock the AGI of that AG now: they are taken in ascending order, and before any AGF. It may have it already.
pub(crate) fn may_lock_inodes(t: &Transaction<'_>, ag: AgNumber) -> bool {
    let key = header::key(t.volume(), ag, header::AGI_SECTOR);
    t.has(&key) || held(t).is_none() && t.last_of(&AGI).is_none_or(|last| *last < key)
}

/// Unlocks the header of an AG's inodes where nothing of it was changed.
pub(crate) fn let_go_inodes(t: &mut Transaction<'_>, ag: AgNumber) {
    let key = header::key(t.volume(), ag, header::AGI_SECTOR);
    t.let_go(&key);
}

/// Unlocks the headers of an AG where nothing of them was changed.
fn let_go(t: &mut Transaction<'_>, ag: AgNumber) {
    let key = header::key(t.volume(), ag, header::AGF_SECTOR);
    t.let_go(&key);
}
