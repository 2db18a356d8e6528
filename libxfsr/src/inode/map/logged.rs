//! Changes of maps as steps of a chain, and as the log has them.

use super::ForkMut;
use crate::error::{ForkKind, Result};
use crate::format::btree::Extent;
use crate::format::log::items::{BmapFlags, BmapOp, ItemType, MapExtent};
use crate::geometry::Geometry;
use crate::space::Space;
use crate::txn::{Deferred, Intent, Reservation, Transaction};
use crate::units::{FileBlock, Ino};
use std::sync::Arc;
use zerocopy::FromZeros;
use zerocopy::little_endian::{U32, U64};

/// An extent that is mapped in a fork, or unmapped from it, as a step of a chain. It frees nothing; its reverse mapping follows as a step of its own.
pub struct MapStep {
    space: Arc<Space>,
    ino: Ino,
    kind: ForkKind,
    op: BmapOp,
    extent: Extent,
    reservation: Reservation,
}

impl MapStep {
    /// The extent is no longer than [`MAX_EXTENT`](crate::format::btree::MAX_EXTENT).
    pub fn new(space: Arc<Space>, g: &Geometry, (ino, kind): (Ino, ForkKind), op: BmapOp, extent: Extent) -> Box<Self> {
        Box::new(Self { space, ino, kind, op, extent, reservation: ForkMut::reservation(g, kind, 1) })
    }
}

impl Deferred for MapStep {
    fn kind(&self) -> ItemType {
        ItemType::Bui
    }
    fn intent(&self, id: u64) -> Intent {
        let mut m = MapExtent::new_zeroed();
        m.owner = U64::new(self.ino.0);
        m.startblock = U64::new(self.extent.start);
        m.startoff = U64::new(self.extent.offset);
        m.len = U32::new(u32::try_from(self.extent.count).unwrap_or(u32::MAX));
        let mut flags = BmapFlags::empty();
        flags.set(BmapFlags::ATTR_FORK, self.kind == ForkKind::Attr);
        flags.set(BmapFlags::UNWRITTEN, self.extent.unwritten);
        m.flags = U32::new(flags.bits() | self.op as u32);
        Intent::mappings(ItemType::Bui, id, &[m])
    }
    fn done(&self, id: u64) -> Intent {
        Intent::finished(ItemType::Bud, id)
    }
    fn reservation(&self) -> Reservation {
        self.reservation
    }
    fn run(mut self: Box<Self>, t: &mut Transaction<'_>) -> Result<Option<Box<dyn Deferred>>> {
        let mut fork = ForkMut::new(t, &self.space, self.ino, self.kind);
        let at = FileBlock(self.extent.offset);
        match self.op {
            BmapOp::Map => fork.map(&self.extent)?,
            BmapOp::Unmap => {
                // Mapped in pieces it may be: each is a transaction of its own.
                let (_, left) = fork.unmap_last(at, self.extent.count, 1)?;
                self.extent.count = left.0.saturating_sub(at.0);
                if self.extent.count > 0 {
                    return Ok(Some(self));
                }
            }
        }
        Ok(None)
    }
}
