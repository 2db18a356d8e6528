//! What changes of a map may log.

use super::ForkMut;
use crate::error::ForkKind;
use crate::geometry::Geometry;
use crate::space::Space;
use crate::txn::Reservation;

/// Bytes of the intent that an extent needs, and of its neighbours in it.
const INTENT: u32 = 128;

impl ForkMut<'_, '_> {
    /// What a transaction may log that changes so many extents of a fork, each of them mapped, unmapped or converted once, and allocates
    /// for them in one AG. Deferred steps have reservations of their own.
    #[must_use]
    pub fn reservation(g: &Geometry, kind: ForkKind, extents: u32) -> Reservation {
        let levels = if kind == ForkKind::Data { g.max_levels.bmap_data } else { g.max_levels.bmap_attr };
        // The root is in the inode. Of every level below it a block, and one beside it.
        let path = 2 * u32::from(levels).saturating_sub(1);
        let tree = Reservation {
            blocks: extents.saturating_mul(path),
            sectors: 0,
            inodes: 1,
            bytes: extents.saturating_mul(INTENT),
        };
        // The extents themselves, and blocks of the tree.
        tree.and(Space::reservation(g, 2))
    }
}

#[cfg(test)]
mod tests {
    use super::{ForkKind, ForkMut};
    use crate::geometry::Geometry;
    use crate::journal::reservation::{Kind, reservation};
    use crate::mkfs::{Devices, Options, plan};

    /// Not less than what Linux reserves to map an extent, less what a whole chain of it may log at once.
    #[test]
    fn as_much_as_linux_reserves() {
        for (rmapbt, block) in [(false, 4096), (true, 4096), (true, 1024)] {
            let mut options = Options { block_size: Some(block), ..Options::default() };
            options.metadata.rmapbt = Some(rmapbt);
            let g = Geometry::new(&plan(&options, &Devices::file(300 << 20)).unwrap().superblock).unwrap();
            let ours = ForkMut::reservation(&g, ForkKind::Data, 1);
            let bytes = u64::from(ours.blocks) * u64::from(block);
            let linux = reservation(&g, Kind::Write).bytes;
            assert!(bytes >= linux * 3 / 4 && bytes < linux * 6, "{bytes} and {linux}");
        }
    }
}
