//! The free list of an AG: blocks for the trees of free space and of reverse mappings, which cannot ask themselves for space.

use super::owner::RmapOwner;
use super::{Space, choose, extent, header, rmap};
use crate::error::{Corruption, Error, Result, Rule};
use crate::format::ag::Agf;
use crate::geometry::Geometry;
use crate::txn::Transaction;
use crate::units::{AgBlock, AgNumber};

/// Blocks that a tree of this height may take in one operation: its record may be replaced by two, of which the first splits every level
/// and puts a root above, and the second every level again.
fn of_tree(levels: u32, most: u8) -> u32 {
    (levels.saturating_add(1).min(most.into()) * 2).saturating_sub(2)
}

/// Fewest blocks on the list before an operation.
pub(super) fn minimum_of(g: &Geometry, agf: &Agf) -> u32 {
    let rmap = if g.features.rmapbt() { of_tree(agf.rmap_level.get(), g.max_levels.rmap) } else { 0 };
    rmap + of_tree(agf.bno_level.get(), g.max_levels.bno) + of_tree(agf.cnt_level.get(), g.max_levels.bno)
}

pub(super) fn minimum(t: &Transaction<'_>, ag: AgNumber) -> Result<u32> {
    Ok(minimum_of(t.geometry(), &header::agf(t, ag)?))
}

/// The header, its ring looked at: verifiers see only that each number is in range.
fn ring(t: &Transaction<'_>, ag: AgNumber) -> Result<(Agf, u32)> {
    let agf = header::agf(t, ag)?;
    let slots = t.geometry().agfl_slots();
    let (first, last, count) = (agf.flfirst.get(), agf.fllast.get(), agf.flcount.get());
    let holds = (last + slots + 1).checked_sub(first).map_or(0, |n| n % slots.max(1));
    if first >= slots || last >= slots || count > slots || holds != count % slots {
        let c = Corruption::new("agf", "flcount", Rule::Count).in_ag(ag, None).found(count);
        return Err(c.expected(format_args!("slots {first} to {last}")).into());
    }
    Ok((agf, slots))
}

/// Takes a block off the list.
pub(super) fn take(t: &mut Transaction<'_>, ag: AgNumber) -> Result<AgBlock> {
    let (agf, slots) = ring(t, ag)?;
    if agf.flcount.get() == 0 {
        return Err(Error::NoSpace(format!("the free list of AG {ag} is empty")));
    }
    let first = agf.flfirst.get();
    let block = header::agfl_slot(t, ag, first)?;
    if !t.geometry().is_valid_agbno(ag, block) {
        return Err(Corruption::new("agfl", "bno", Rule::Range).in_ag(ag, None).found(block).into());
    }
    header::change_agf(t, ag, |agf| {
        agf.flfirst.set((first + 1) % slots);
        agf.flcount.set(agf.flcount.get() - 1);
    })?;
    Ok(block)
}

/// Puts a block on the list.
pub(super) fn put(t: &mut Transaction<'_>, ag: AgNumber, block: AgBlock) -> Result<()> {
    let (agf, slots) = ring(t, ag)?;
    if agf.flcount.get() >= slots {
        return Err(Error::invalid(format!("the free list of AG {ag} is full")));
    }
    let last = (agf.fllast.get() + 1) % slots;
    header::set_agfl_slot(t, ag, last, block)?;
    header::change_agf(t, ag, |agf| {
        agf.fllast.set(last);
        agf.flcount.set(agf.flcount.get() + 1);
    })
}

/// Blocks that one operation trims at most: each costs changes of three trees.
const TRIM: u32 = 2;

/// Makes the list as long as the trees may need it for one operation, before anything else of the AG is changed.
///
/// Where there is no space left it is as long as it gets: whoever takes space has looked before whether there is enough, and who gives
/// some back finds trees that are small.
pub(super) fn fill(t: &mut Transaction<'_>, space: &Space, ag: AgNumber) -> Result<()> {
    let slots = t.geometry().agfl_slots();
    // Giving a block back may take another one from the list, taking some may make trees higher: a few rounds, not endless ones.
    for round in 0..slots {
        let agf = header::agf(t, ag)?;
        let (need, have) = (minimum_of(t.geometry(), &agf), agf.flcount.get());
        if have > need && (round < TRIM || have > slots / 2) {
            let block = take(t, ag)?;
            rmap::remove(t, space, ag, (block, 1), &RmapOwner::AG)?;
            extent::give(t, space, ag, (block, 1))?;
        } else if have < need {
            let Some(found) = choose::largest(t, space, ag, need - have)? else { return Ok(()) };
            extent::take(t, space, ag, found.record, (found.start, found.len))?;
            for block in 0..found.len {
                put(t, ag, AgBlock(found.start.0 + block))?;
            }
            rmap::add(t, space, ag, (found.start, found.len), &RmapOwner::AG)?;
        } else {
            return Ok(());
        }
    }
    Ok(())
}
