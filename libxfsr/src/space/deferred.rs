//! Steps of a chain: freeing extents, and changes of reverse mappings and reference counts.

use super::{RmapOwner, Space};
use crate::error::{Error, Result};
use crate::format::btree::{RMAP_ATTR_FORK, RMAP_BMBT_BLOCK, RMAP_OFFSET_MASK, RMAP_UNWRITTEN};
use crate::format::log::items::{ItemType, MapExtent, PhysExtent, RefcountOp, RmapOp};
use crate::geometry::Geometry;
use crate::txn::{Deferred, Intent, Reservation, Transaction};
use crate::units::FsBlock;
use std::sync::Arc;
use zerocopy::FromZeros;
use zerocopy::little_endian::{U32, U64};

/// Extents, and operations on mappings, of one step: what one transaction may do to one AG.
const AT_ONCE: usize = 2;
/// Extents that one intent names at most, as in Linux.
const IN_INTENT: usize = 16;

/// Frees extents.
pub struct FreeExtents {
    space: Arc<Space>,
    /// In ascending order.
    extents: Vec<(FsBlock, u32)>,
    owner: Option<RmapOwner>,
    reservation: Reservation,
}

impl FreeExtents {
    /// Of one owner, whose mappings go as well; without one they are gone by then. Recovery frees them of whoever has them.
    ///
    /// # Errors
    /// [`Error::Invalid`] for none, or for more than an intent may name.
    pub fn new(
        space: Arc<Space>,
        g: &Geometry,
        extents: Vec<(FsBlock, u32)>,
        owner: Option<RmapOwner>,
    ) -> Result<Box<Self>> {
        if extents.is_empty() || extents.len() > IN_INTENT {
            return Err(Error::invalid(format!("1 to {IN_INTENT} extents are freed by one step")));
        }
        Ok(Self::any(space, g, extents, owner))
    }
    /// As many as somebody else's intent has.
    pub(crate) fn any(
        space: Arc<Space>,
        g: &Geometry,
        mut extents: Vec<(FsBlock, u32)>,
        owner: Option<RmapOwner>,
    ) -> Box<Self> {
        extents.sort_unstable();
        Box::new(Self { space, extents, owner, reservation: Space::reservation(g, AT_ONCE as u32) })
    }
    fn item(&self, kind: ItemType, id: u64) -> Intent {
        let extents: Vec<(u64, u32)> = self.extents.iter().map(|(start, n)| (start.0, *n)).collect();
        Intent::extents(kind, id, &extents)
    }
}

impl Deferred for FreeExtents {
    fn kind(&self) -> ItemType {
        ItemType::Efi
    }
    fn intent(&self, id: u64) -> Intent {
        self.item(ItemType::Efi, id)
    }
    fn done(&self, id: u64) -> Intent {
        self.item(ItemType::Efd, id)
    }
    fn reservation(&self) -> Reservation {
        self.reservation
    }
    fn run(mut self: Box<Self>, t: &mut Transaction<'_>) -> Result<Option<Box<dyn Deferred>>> {
        let rest = self.extents.split_off(self.extents.len().min(AT_ONCE));
        for (start, blocks) in &self.extents {
            self.space.free(t, *start, *blocks, self.owner.as_ref())?;
        }
        self.extents = rest;
        Ok(if self.extents.is_empty() { None } else { Some(self) })
    }
}

/// One change of reverse mappings.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Mapping {
    /// What happens.
    pub op: RmapOp,
    /// First block.
    pub start: FsBlock,
    /// Blocks.
    pub blocks: u32,
    /// Owner, with the state after a conversion: of [`RmapOp::Convert`] the new one, as intents have it.
    pub owner: RmapOwner,
}

/// Flags of a mapping in an intent.
const LOGGED_ATTR: u32 = 1 << 31;
const LOGGED_BMBT: u32 = 1 << 30;
const LOGGED_UNWRITTEN: u32 = 1 << 29;
const FLAGS: [(u64, u32); 3] =
    [(RMAP_ATTR_FORK, LOGGED_ATTR), (RMAP_BMBT_BLOCK, LOGGED_BMBT), (RMAP_UNWRITTEN, LOGGED_UNWRITTEN)];

impl Mapping {
    /// As an intent has it.
    pub fn to_logged(&self) -> MapExtent {
        let mut m = MapExtent::new_zeroed();
        m.owner = U64::new(self.owner.owner);
        m.startblock = U64::new(self.start.0);
        m.startoff = U64::new(self.owner.offset & RMAP_OFFSET_MASK);
        m.len = U32::new(self.blocks);
        let flags = FLAGS.iter().filter(|(on_disk, _)| self.owner.offset & on_disk != 0).map(|(_, logged)| logged);
        m.flags = U32::new(flags.sum::<u32>() | self.op as u32);
        m
    }
    /// From an intent. None for an operation that is not known.
    pub fn from_logged(m: &MapExtent, op: RmapOp) -> Self {
        let flags = FLAGS.iter().filter(|(_, logged)| m.flags.get() & logged != 0).map(|(on_disk, _)| on_disk);
        let offset = m.startoff.get() & RMAP_OFFSET_MASK | flags.sum::<u64>();
        let owner = RmapOwner { owner: m.owner.get(), offset };
        Self { op, start: FsBlock(m.startblock.get()), blocks: m.len.get(), owner }
    }
    fn apply(&self, space: &Space, t: &mut Transaction<'_>) -> Result<()> {
        let (start, blocks, owner) = (self.start, self.blocks, &self.owner);
        match self.op {
            RmapOp::Map | RmapOp::MapShared | RmapOp::Alloc => space.map(t, start, blocks, owner),
            RmapOp::Unmap | RmapOp::UnmapShared | RmapOp::Free => space.unmap(t, start, blocks, owner),
            RmapOp::Convert | RmapOp::ConvertShared => {
                let before = RmapOwner { owner: owner.owner, offset: owner.offset ^ RMAP_UNWRITTEN };
                space.convert(t, start, blocks, &before)
            }
        }
    }
}

/// Changes reverse mappings, in order.
pub struct MapChanges {
    space: Arc<Space>,
    changes: Vec<Mapping>,
    reservation: Reservation,
}

impl MapChanges {
    /// Done one after the other, each in a transaction of its own.
    ///
    /// # Errors
    /// [`Error::Invalid`] for none, or for more than an intent may name.
    pub fn new(space: Arc<Space>, g: &Geometry, changes: Vec<Mapping>) -> Result<Box<Self>> {
        if changes.is_empty() || changes.len() > IN_INTENT {
            return Err(Error::invalid(format!("1 to {IN_INTENT} mappings are changed by one step")));
        }
        Ok(Self::any(space, g, changes))
    }
    /// As many as somebody else's intent has.
    pub(crate) fn any(space: Arc<Space>, g: &Geometry, changes: Vec<Mapping>) -> Box<Self> {
        Box::new(Self { space, changes, reservation: Space::reservation(g, 1) })
    }
}

impl Deferred for MapChanges {
    fn kind(&self) -> ItemType {
        ItemType::Rui
    }
    fn intent(&self, id: u64) -> Intent {
        let extents: Vec<MapExtent> = self.changes.iter().map(Mapping::to_logged).collect();
        Intent::mappings(ItemType::Rui, id, &extents)
    }
    fn done(&self, id: u64) -> Intent {
        Intent::finished(ItemType::Rud, id)
    }
    fn reservation(&self) -> Reservation {
        self.reservation
    }
    fn run(mut self: Box<Self>, t: &mut Transaction<'_>) -> Result<Option<Box<dyn Deferred>>> {
        let rest = self.changes.split_off(1.min(self.changes.len()));
        for change in &self.changes {
            change.apply(&self.space, t)?;
        }
        self.changes = rest;
        Ok(if self.changes.is_empty() { None } else { Some(self) })
    }
}

/// One change of reference counts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CountChange {
    /// What happens.
    pub op: RefcountOp,
    /// First block.
    pub start: FsBlock,
    /// Blocks.
    pub blocks: u32,
}

/// Changes reference counts, in order; what nobody has any more is freed.
pub struct CountChanges {
    space: Arc<Space>,
    changes: Vec<CountChange>,
    reservation: Reservation,
}

impl CountChanges {
    /// Done one after the other, each in as many transactions as it takes.
    ///
    /// # Errors
    /// [`Error::Invalid`] for none, or for more than an intent may name.
    pub fn new(space: Arc<Space>, g: &Geometry, changes: Vec<CountChange>) -> Result<Box<Self>> {
        if changes.is_empty() || changes.len() > IN_INTENT {
            return Err(Error::invalid(format!("1 to {IN_INTENT} reference counts are changed by one step")));
        }
        Ok(Self::any(space, g, changes))
    }
    /// As many as somebody else's intent has.
    pub(crate) fn any(space: Arc<Space>, g: &Geometry, changes: Vec<CountChange>) -> Box<Self> {
        let path = (2 * u32::from(g.max_levels.refcount)).saturating_sub(1);
        let counts = Reservation { blocks: 4 * path, ..Reservation::default() };
        Box::new(Self { space, changes, reservation: Space::reservation(g, 4).and(counts) })
    }
}

impl Deferred for CountChanges {
    fn kind(&self) -> ItemType {
        ItemType::Cui
    }
    fn intent(&self, id: u64) -> Intent {
        let extent = |c: &CountChange| {
            let mut e = PhysExtent::new_zeroed();
            e.startblock = U64::new(c.start.0);
            e.len = U32::new(c.blocks);
            e.flags = U32::new(c.op as u32);
            e
        };
        let extents: Vec<PhysExtent> = self.changes.iter().map(extent).collect();
        Intent::refcounts(ItemType::Cui, id, &extents)
    }
    fn done(&self, id: u64) -> Intent {
        Intent::finished(ItemType::Cud, id)
    }
    fn reservation(&self) -> Reservation {
        self.reservation
    }
    fn run(mut self: Box<Self>, t: &mut Transaction<'_>) -> Result<Option<Box<dyn Deferred>>> {
        let Some(next) = self.changes.first_mut() else { return Ok(None) };
        let (done, gone) = self.space.adjust_count(t, next.start, next.blocks, next.op)?;
        if done >= next.blocks {
            self.changes.remove(0);
        } else {
            next.start = FsBlock(next.start.0 + u64::from(done));
            next.blocks -= done;
        }
        for some in gone.chunks(IN_INTENT) {
            t.defer(FreeExtents::new(self.space.clone(), t.geometry(), some.to_vec(), None)?)?;
        }
        Ok(if self.changes.is_empty() { None } else { Some(self) })
    }
}
