//! Inodes are given back, and chunks that are empty then.

use super::record::Record;
use super::take::{covering, missing, read, same};
use crate::btree::Position;
use crate::btree::kinds::{Finobt, Inobt};
use crate::cache::{BlockKey, OnDamage, Want};
use crate::error::{Corruption, Error, Result, Rule};
use crate::format::btree::CHUNK_INODES;
use crate::format::inode::{CORE_SIZE, Dinode, Flags2, Format, INODE_CLUSTER};
use crate::geometry::Geometry;
use crate::space::{self, AgTree, AgTreeMut, FreeExtents, RmapOwner, Space, header};
use crate::txn::Transaction;
use crate::units::{AgBlock, AgIno, AgNumber, Ino};
use std::sync::Arc;

/// Flags of an inode that nothing was done with.
pub(crate) fn new_flags2(g: &Geometry) -> Flags2 {
    let mut flags = Flags2::empty();
    flags.set(Flags2::BIGTIME, g.features.bigtime());
    flags.set(Flags2::NREXT64, g.features.nrext64());
    flags
}

/// Makes an inode free that holds nothing any more.
fn reset(t: &mut Transaction<'_>, ino: Ino) -> Result<()> {
    let flags = new_flags2(t.geometry());
    let bytes = t.inode_mut(ino)?;
    let core = Dinode::from_bytes_mut(bytes).ok_or_else(|| Error::invalid("an inode shorter than its core"))?;
    if core.nblocks.get() != 0 {
        return Err(Error::invalid(format!("inode {ino} is to be freed and still has {} blocks", core.nblocks)));
    }
    core.mode.set(0);
    core.nlink.set(0);
    core.metatype.set(0);
    core.size.set(0);
    core.flags.set(0);
    core.flags2.set(flags.bits());
    core.big_nextents.set(0);
    core.nextents.set(0);
    core.anextents.set(0);
    core.forkoff = 0;
    (core.format, core.aformat) = (Format::Extents as u8, Format::Extents as u8);
    core.generation.set(core.generation.get().wrapping_add(1));
    if let Some(forks) = bytes.get_mut(CORE_SIZE..) {
        forks.fill(0);
    }
    Ok(())
}

/// Gives an inode back that has no blocks any more and is in no unlinked list. The transaction has locked the AGI of its AG, or no AGF and no AGI of a
/// higher one. Where nothing of its chunk is in use then, the chunk goes: its blocks are freed by a
/// deferred step.
///
/// # Errors
/// [`Error::Corrupt`] where the trees call it free already; [`Error::Invalid`] for one that still has blocks. The transaction is
/// dropped then.
pub fn free(t: &mut Transaction<'_>, space: &Arc<Space>, ino: Ino) -> Result<()> {
    let g = t.geometry();
    let sparse = g.features.sparse_inodes();
    let (ag, agino) = g.split_ino(ino);
    if !g.is_valid_ino(ino) {
        return Err(Error::NotFound(format!("inode {ino}")));
    }
    if !space::may_lock_inodes(t, ag) {
        return Err(Error::invalid(format!("inode {ino} is to be freed by who has locked other AGs")));
    }
    // The inode is locked before the AGI.
    reset(t, ino)?;
    header::lock_agi(t, ag)?;
    let tree = &mut AgTreeMut::new(t, space, ag, AgTree::Ino);
    let (mut p, before) = covering::<Inobt>(tree, g, ag, agino)?.ok_or_else(|| missing("inobt", ag, agino))?;
    let bit = before.index(agino).map_or(0, |n| 1u64 << n);
    if before.free & bit != 0 {
        let c = Corruption::new("inobt", "free", Rule::Mismatch).in_ag(ag, None);
        return Err(c.found(format_args!("inode {agino} is free")).expected("one in use").into());
    }
    let mut now = before;
    now.free |= bit;
    // A block that holds more than one chunk stays.
    let gone = now.is_empty() && g.inodes_per_block() <= CHUNK_INODES;
    if gone {
        p.remove(tree)?;
    } else {
        p.update(tree, &now.encode(sparse))?;
    }
    if g.features.finobt() {
        let tree = &mut AgTreeMut::new(t, space, ag, AgTree::Fino);
        match read::<Finobt>(tree, g, ag, before.start)? {
            Some((mut p, r)) => {
                same(ag, &r, &before)?;
                if gone {
                    p.remove(tree)?;
                } else {
                    p.update(tree, &now.encode(sparse))?;
                }
            }
            None if before.freecount() > 0 => return Err(missing("finobt", ag, agino)),
            None if gone => {}
            None => drop(Position::<Finobt>::insert(tree, &now.encode(sparse))?),
        }
    }
    let lost = if gone { i64::from(now.count()) } else { 0 };
    header::change_agi(t, ag, |agi| {
        header::add("agi", "freecount", &mut agi.freecount, 1 - lost, ag)?;
        header::add("agi", "count", &mut agi.count, -lost, ag)
    })??;
    space.inodes_changed(t, -lost, 1 - lost);
    if gone {
        remove_chunk(t, space, ag, &now)?;
    }
    Ok(())
}

/// Frees the blocks of a chunk of which nothing is in use.
fn remove_chunk(t: &mut Transaction<'_>, space: &Arc<Space>, ag: AgNumber, chunk: &Record) -> Result<()> {
    let g = t.geometry();
    let mut extents = Vec::new();
    for (first, inodes) in chunk.runs() {
        let (start, blocks) = blocks_of(g, first, inodes)?;
        let step = g.cluster_blocks();
        for n in (0..blocks).step_by(step as usize) {
            let daddr = g.agbno_to_daddr(ag, AgBlock(start.0 + n));
            let key = BlockKey::one(t.volume().data, daddr, step << g.bb_shift());
            t.invalidate(&key, &Want::new(&INODE_CLUSTER, OnDamage::Fail))?;
        }
        extents.push((g.join(ag, start), blocks));
    }
    t.defer(FreeExtents::new(space.clone(), g, extents, Some(RmapOwner::INODES))?)
}

fn blocks_of(g: &Geometry, first: AgIno, inodes: u32) -> Result<(AgBlock, u32)> {
    let (start, index) = g.agino_to_block(first);
    if index != 0 || !inodes.is_multiple_of(g.inodes_per_block()) {
        return Err(Error::invalid(format!("{inodes} inodes from {first} on are no whole blocks")));
    }
    Ok((start, inodes >> g.inopb_log))
}
