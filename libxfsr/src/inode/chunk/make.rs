//! New chunks.

use super::record::{Record, key, start_of};
use super::{chunk_size, trees_grow_by};
use crate::btree::kinds::{Finobt, Inobt};
use crate::btree::{Kind, Lookup, Position};
use crate::error::{Corruption, Error, Result, Rule};
use crate::format::btree::{HOLEMASK_INODES, InobtKey, InobtRec};
use crate::geometry::Geometry;
use crate::space::{AgTree, AgTreeMut, Allocated, Request, RmapOwner, Space, header};
use crate::txn::Transaction;
use crate::units::{AgBlock, AgIno, AgNumber, NULL_AGINO};

/// Blocks between which an AG's inodes may lie: whole ranges of aligned numbers.
fn bounds(g: &Geometry, ag: AgNumber, align: u32) -> (AgBlock, AgBlock) {
    let align = align.max(1);
    let first = g.header_blocks().next_multiple_of(align);
    (AgBlock(first), AgBlock(g.ag_blocks(ag) / align * align))
}

/// Blocks for a whole chunk: behind the newest, else close to the root of the inode tree; aligned to the stripe where clusters allow it.
fn whole(t: &mut Transaction<'_>, space: &Space, ag: AgNumber) -> Result<Allocated> {
    let g = t.geometry();
    let agi = header::agi(t, ag)?;
    let (blocks, _) = chunk_size(g);
    let align = g.cluster_align();
    let newest = Some(agi.newino.get()).filter(|n| *n != NULL_AGINO && agi.count.get() > 0);
    let behind = newest.and_then(|n| g.agino_to_block(AgIno(n)).0.0.checked_add(blocks)).map(AgBlock);
    let request = Request { left: trees_grow_by(g).min(16), align, ..Request::metadata(blocks, RmapOwner::INODES) };
    let near = AgBlock(agi.root.get());
    let stripe = t.volume().superblock.unit.get();
    if stripe > align && stripe.is_multiple_of(align) {
        let striped = Request { align: stripe, ..request };
        match space.allocate_inside(t, ag, bounds(g, ag, align), (behind, near), &striped) {
            Err(Error::NoSpace(_)) => {}
            other => return other,
        }
    }
    space.allocate_inside(t, ag, bounds(g, ag, align), (behind, near), &request)
}

/// Blocks for the smallest part of a chunk, with the other numbers of its range inside the AG.
fn part(t: &mut Transaction<'_>, space: &Space, ag: AgNumber) -> Result<Allocated> {
    let g = t.geometry();
    let near = AgBlock(header::agi(t, ag)?.root.get());
    let request = Request {
        left: trees_grow_by(g).min(16),
        align: g.sparse_align,
        ..Request::metadata(g.sparse_align, RmapOwner::INODES)
    };
    let (_, last) = bounds(g, ag, g.inode_align);
    let first = AgBlock(g.header_blocks().next_multiple_of(g.inode_align.max(1)));
    space.allocate_inside(t, ag, (first, last), (None, near), &request)
}

/// A part of a chunk as a record: the numbers that its range begins with, and which of them have no place.
fn sparse_record(g: &Geometry, a: &Allocated) -> Result<Record> {
    let first = g.block_to_agino(a.start);
    let start = start_of(first);
    let (from, inodes) = (first.0 - start.0, a.len << g.inopb_log);
    if from.saturating_add(inodes) > 64 || !from.is_multiple_of(HOLEMASK_INODES) {
        return Err(Error::invalid(format!("{} blocks at {} are no part of a chunk", a.len, a.start)));
    }
    let bits = |n: u32| (1u32 << n) - 1;
    let there = bits(inodes / HOLEMASK_INODES) << (from / HOLEMASK_INODES);
    let there = u16::try_from(there).map_err(|_| Error::invalid("a part of a chunk that is too long"))?;
    Ok(Record::new(start, !there))
}

/// Puts a record into a tree, or what it adds to one that is there; returns what is there now.
fn put<K: Kind<Record = InobtRec, Key = InobtKey>>(
    tree: &mut AgTreeMut<'_, '_>,
    g: &Geometry,
    ag: AgNumber,
    record: &Record,
) -> Result<Record> {
    let sparse = g.features.sparse_inodes();
    let Some(mut p) = Position::<K>::lookup(&*tree, &key(record.start), Lookup::Equal)? else {
        Position::<K>::insert(tree, &record.encode(sparse))?;
        return Ok(*record);
    };
    let doubly = || {
        let c = Corruption::new(K::NAME, "recs", Rule::DoublyOwned).in_ag(ag, None);
        Error::from(c.found(format_args!("inodes from {} on", record.start)).expected("blocks that were free"))
    };
    let there = p.record(&*tree)?.ok_or_else(doubly)?;
    let all = Record::decode(K::NAME, ag, &there, sparse)?.merged(record).ok_or_else(doubly)?;
    p.update(tree, &all.encode(sparse))?;
    Ok(all)
}

/// Makes a chunk, or a part of one, in an AG whose AGI is locked; returns a number in it.
pub(super) fn make(t: &mut Transaction<'_>, space: &Space, ag: AgNumber, generation: u32) -> Result<AgIno> {
    let g = t.geometry();
    let sparse_allowed = g.features.sparse_inodes() && g.sparse_align > 0 && g.sparse_align < g.chunk_blocks();
    let (a, is_whole) = match whole(t, space, ag) {
        Err(Error::NoSpace(_)) if sparse_allowed => (part(t, space, ag)?, false),
        other => (other?, true),
    };
    t.create_chunk(ag, a.start, a.len, generation)?;
    let (first, inodes) = (g.block_to_agino(a.start), a.len << g.inopb_log);
    let records = if is_whole {
        (0..inodes / 64).map(|n| Record::new(AgIno(first.0 + n * 64), 0)).collect()
    } else {
        vec![sparse_record(g, &a)?]
    };
    for record in &records {
        let all = put::<Inobt>(&mut AgTreeMut::new(t, space, ag, AgTree::Ino), g, ag, record)?;
        if !g.features.finobt() {
            continue;
        }
        // A part that is added to a chunk of which all were in use has no record here yet.
        let tree = &mut AgTreeMut::new(t, space, ag, AgTree::Fino);
        match Position::<Finobt>::lookup(&*tree, &key(all.start), Lookup::Equal)? {
            Some(mut p) => p.update(tree, &all.encode(g.features.sparse_inodes()))?,
            None => drop(Position::<Finobt>::insert(tree, &all.encode(g.features.sparse_inodes()))?),
        }
    }
    let newest = records.first().map_or(first, |r| r.start);
    header::change_agi(t, ag, |agi| {
        agi.newino.set(newest.0);
        header::add("agi", "freecount", &mut agi.freecount, inodes.into(), ag)?;
        header::add("agi", "count", &mut agi.count, inodes.into(), ag)
    })??;
    space.inodes_changed(t, inodes.into(), inodes.into());
    Ok(first)
}
