//! Blocks that each AG keeps for the growth of its btrees.

use crate::out::say;
use crate::session::{Outcome, Session, number};
use libxfsr::btree::check;
use libxfsr::btree::kinds::Finobt;
use libxfsr::cache::OnDamage;
use libxfsr::control::Control;
use libxfsr::format::ag::{AGF, AGI, Agf, Agi};
use libxfsr::format::btree::{INO, Layout, REFCOUNT, RMAP};
use libxfsr::space::{AgStore, AgTree};
use libxfsr::units::AgNumber;
use zerocopy::FromBytes as _;

/// Blocks of a btree with so many records in blocks that are half full: the most that it can have.
fn most_blocks(layout: &Layout, block: usize, records: u64) -> u64 {
    let half = |n: usize| (n as u64 / 2).max(2);
    let (leaf, node) = (half(layout.leaf_max(block)), half(layout.node_max(block)));
    let mut level = records.div_ceil(leaf);
    let mut all = level;
    while level > 1 {
        level = level.div_ceil(node);
        all += level;
    }
    all
}

/// Blocks of the finobt, where the AGI does not count them.
fn count_free_inode_tree(s: &Session, ag: AgNumber) -> Result<u64, libxfsr::Error> {
    let store = AgStore::new(&s.volume, ag, AgTree::Fino, OnDamage::Fail)?;
    let count = |control: &Control<'_>| check::<Finobt, _>(&store, control, &mut |_, _| {}, &mut |_| {}, &mut |_| {});
    Ok(s.watched(count)?.blocks)
}

/// What is kept for an AG's reference counts, free inodes and reverse mappings, and how much of that they have.
fn reserve(s: &Session, ag: AgNumber, agf: &Agf, agi: &Agi) -> Result<(u64, u64), libxfsr::Error> {
    let g = &s.volume.geometry;
    let block = g.block_size as usize;
    let mut blocks = u64::from(agf.length.get());
    // No btree will ever describe what the log has.
    if g.log_start.0 != 0 && g.split(g.log_start).0 == ag {
        blocks = blocks.saturating_sub(u64::from(g.log_blocks));
    }
    let (mut reserved, mut used) = (0, 0);
    if g.features.reflink() {
        reserved += most_blocks(&REFCOUNT, block, blocks);
        used += u64::from(agf.refcount_blocks.get());
    }
    if g.features.finobt() {
        reserved += most_blocks(&INO, block, blocks * u64::from(g.inodes_per_block()) / 64);
        used += if g.features.inobtcnt() { u64::from(agi.fblocks.get()) } else { count_free_inode_tree(s, ag)? };
    }
    if g.features.rmapbt() {
        reserved += most_blocks(&RMAP, block, blocks).max(blocks / 100);
        used += u64::from(agf.rmap_blocks.get());
    }
    Ok((reserved, used))
}

/// `agresv [agno]...`.
pub(crate) fn agresv(s: &mut Session, a: &[String]) -> Outcome {
    let count = s.volume.geometry.ag_count;
    let mut ags = Vec::new();
    for n in a {
        let ag = number(n)?;
        ags.push(
            u32::try_from(ag)
                .ok()
                .filter(|ag| *ag < count)
                .map(AgNumber)
                .ok_or_else(|| format!("there is no AG {ag}: 0 to {}", count - 1))?,
        );
    }
    if ags.is_empty() {
        ags = s.volume.ags().collect();
    }
    for ag in ags {
        let text = |e: libxfsr::Error| e.to_string();
        let agf = s.volume.ag_header(ag, 1, &AGF, OnDamage::Fail).map_err(text)?;
        let agi = s.volume.ag_header(ag, 2, &AGI, OnDamage::Fail).map_err(text)?;
        let (Ok((agf, _)), Ok((agi, _))) = (Agf::read_from_prefix(&agf), Agi::read_from_prefix(&agi)) else {
            return Err(format!("the headers of AG {ag} are shorter than their structures"));
        };
        let (reserved, used) = reserve(s, ag, &agf, &agi).map_err(text)?;
        // What the free list holds is free as well.
        let free = u64::from(agf.freeblks.get()) + u64::from(agf.flcount.get());
        let short = if reserved.saturating_sub(used) > free { " <not enough space>" } else { "" };
        say!(s, "AG {ag}: length: {} free: {free} reserved: {reserved} used: {used}{short}", agf.length);
    }
    Ok(())
}
