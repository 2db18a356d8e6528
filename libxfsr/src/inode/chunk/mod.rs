//! Inodes are taken and given back, in a transaction.
//!
//! They lie in chunks of 64, each with a record in the inode btree (inobt) and, while any of it is free, in that of free inodes (finobt). The AGI guards both
//! trees and is locked before the AGF. An AG with a free inode gives that; else it gets a new chunk, a part of one (*sparse*) where
//! free space has no room for a whole one. A chunk of which nothing is in use any more is freed with its blocks.
//!
//! [`allocate`] and [`free`] keep trees, counts and reverse mappings; what an inode holds is the affair of
//! [`create`](super::create). After any error but [`Error::NoSpace`] the transaction is dropped, which takes all back.

mod free;
mod make;
mod record;
mod take;

pub use free::free;
pub(super) use free::new_flags2;

use crate::error::{Error, Result};
use crate::geometry::Geometry;
use crate::space::{self, Space, header};
use crate::txn::{Reservation, Transaction};
use crate::units::{AgNumber, Ino};

/// What is wanted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Wanted {
    /// The directory in which it gets a name: its neighbours are looked at first.
    pub parent: Ino,
    /// It will be a directory itself: those are spread over the AGs, and what they hold is close to them.
    pub directory: bool,
    /// Generation of the inodes of a new chunk: a random number.
    pub generation: u32,
}

/// Blocks of a chunk as it is allocated, and its inodes.
fn chunk_size(g: &Geometry) -> (u32, u32) {
    (g.chunk_blocks(), g.chunk_blocks() << g.inopb_log)
}

/// Most inodes that the filesystem may have; none where the superblock does not say.
pub fn most_inodes(g: &Geometry) -> Option<u64> {
    let (blocks, inodes) = chunk_size(g);
    let share = g.blocks.saturating_mul(g.max_inode_percent.into()) / 100;
    (g.max_inode_percent > 0).then(|| share / u64::from(blocks) * u64::from(inodes))
}

/// Blocks that allocating an inode may take: a chunk, and what both trees grow by.
pub fn blocks_needed(g: &Geometry) -> u64 {
    u64::from(g.chunk_blocks()) + u64::from(trees_grow_by(g))
}

/// Blocks that both inode trees may take for a new chunk.
fn trees_grow_by(g: &Geometry) -> u32 {
    let records = (chunk_size(g).1 / 64).max(1);
    let trees = 1 + u32::from(g.features.finobt());
    u32::from(g.max_levels.ino).saturating_mul(trees).saturating_mul(records)
}

/// What [`allocate`] or [`free`] may log.
pub fn reservation(g: &Geometry) -> Reservation {
    let path = (2 * u32::from(g.max_levels.ino)).saturating_sub(1);
    let trees = Reservation { blocks: 4 * path, sectors: 1, inodes: 1, bytes: 256 };
    // The chunk, and a block that a tree takes or gives; what a tree takes besides touches the same blocks of the free space trees.
    Space::reservation(g, 3).and(trees)
}

/// AGs in the order in which they are tried: locks are taken in ascending order only.
fn order(start: AgNumber, g: &Geometry) -> impl Iterator<Item = AgNumber> + use<> {
    let start = if start.0 < g.ag_count { start.0 } else { 0 };
    (start..g.ag_count).chain(0..start).map(AgNumber)
}

/// Takes a free inode and locks it. The transaction has locked no AGF and no AGI of a higher AG; space for [`blocks_needed`] is held.
///
/// # Errors
/// [`Error::NoSpace`] where there is none and no room for more, or no more may be made; then no AG is changed but perhaps a free list. [`Error::Corrupt`] where a
/// tree is damaged, or an inode that is free for it is in use; I/O errors.
pub fn allocate(t: &mut Transaction<'_>, space: &Space, wanted: &Wanted) -> Result<Ino> {
    let g = t.geometry();
    let (home, _) = g.split_ino(wanted.parent);
    let start = if wanted.directory { space.next_directory_ag() } else { home };
    let (_, inodes) = chunk_size(g);
    let all = space.counters().inodes.saturating_add(inodes.into());
    let may_grow = most_inodes(g).is_none_or(|most| all <= most);
    // With little space left what there is is used up first, in whichever AG it is.
    let scarce = space.available(g) < g.blocks / 100;
    let passes: &[bool] = match (may_grow, scarce) {
        (true, true) => &[false, true],
        (true, false) => &[true],
        (false, _) => &[false],
    };
    for grow in passes {
        for ag in order(start, g) {
            // Looking may have filled a free list, whose AG stays locked.
            if !space::may_lock_inodes(t, ag) {
                continue;
            }
            match in_ag(t, space, ag, wanted, *grow) {
                Err(Error::NoSpace(_)) => space::let_go_inodes(t, ag),
                other => return other,
            }
        }
    }
    Err(if may_grow {
        Error::NoSpace("no AG has a free inode, or room for more".into())
    } else {
        Error::NoSpace(format!("all inodes are in use, and they may take {}% of the space", g.max_inode_percent))
    })
}

/// The same in one AG.
fn in_ag(t: &mut Transaction<'_>, space: &Space, ag: AgNumber, wanted: &Wanted, grow: bool) -> Result<Ino> {
    let g = t.geometry();
    let (home, near) = g.split_ino(wanted.parent);
    let near = Some(near).filter(|_| home == ag);
    // Looked at without a lock first, where it is not held already.
    if !grow && header::agi(t, ag)?.freecount.get() == 0 {
        return Err(Error::NoSpace(format!("AG {ag} has no free inode")));
    }
    header::lock_agi(t, ag)?;
    if header::agi(t, ag)?.freecount.get() > 0
        && let Some(ino) = take::take(t, space, ag, near)?
    {
        return Ok(ino);
    }
    if !grow {
        return Err(Error::NoSpace(format!("AG {ag} has no free inode")));
    }
    let made = make::make(t, space, ag, wanted.generation)?;
    match take::take(t, space, ag, Some(made))? {
        Some(ino) => Ok(ino),
        None => Err(Error::invalid(format!("all inodes of the new chunk {made} of AG {ag} are locked"))),
    }
}
