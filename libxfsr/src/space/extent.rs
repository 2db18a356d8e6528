//! Free extents of an AG: each stands in both trees.

use super::{AgTree, AgTreeMut, Space, header};
use crate::btree::kinds::{Bno, Cnt};
use crate::btree::{Kind, Lookup, Position, Store, StoreMut};
use crate::error::{Corruption, Result, Rule};
use crate::format::btree::AllocRec;
use crate::txn::Transaction;
use crate::units::{AgBlock, AgNumber};
use zerocopy::big_endian::U32;

/// First block and number of blocks.
pub(super) type Span = (AgBlock, u32);

pub(super) fn record(start: u32, count: u32) -> AllocRec {
    AllocRec { startblock: U32::new(start), blockcount: U32::new(count) }
}

/// A record's blocks, which must lie in the AG.
pub(super) fn checked<S: Store>(
    store: &S,
    g: &crate::geometry::Geometry,
    ag: AgNumber,
    r: &AllocRec,
) -> Result<(u32, u32)> {
    let (start, count) = (r.startblock.get(), r.blockcount.get());
    if !g.is_valid_agextent(ag, AgBlock(start), count) {
        let c = Corruption::new(store.block_type().name, "recs", Rule::Range).in_ag(ag, Some(AgBlock(start)));
        return Err(c.found(format_args!("{count} blocks")).expected("an extent of the AG").into());
    }
    Ok((start, count))
}

/// The longest free extent, as the tree by size has it.
pub(super) fn longest<S: Store>(by_size: &S) -> Result<u32> {
    let Some(p) = Position::<Cnt>::last(by_size)? else { return Ok(0) };
    Ok(p.record(by_size)?.map_or(0, |r| r.blockcount.get()))
}

/// The position of a record that must be there.
fn at<K: Kind<Record = AllocRec>, S: StoreMut>(store: &S, ag: AgNumber, r: &AllocRec) -> Result<Position<K>> {
    let found = Position::<K>::lookup(store, &K::low(r), Lookup::Equal)?;
    let same = match &found {
        Some(p) => p.record(store)? == Some(*r),
        None => false,
    };
    found.filter(|_| same).ok_or_else(|| {
        let c = Corruption::new(K::NAME, "recs", Rule::Missing).in_ag(ag, Some(AgBlock(r.startblock.get())));
        c.expected(format_args!("{} free blocks, as the other tree has it", r.blockcount)).into()
    })
}

/// Takes a part of a free extent, which `free` is the record of.
pub(super) fn take(t: &mut Transaction<'_>, space: &Space, ag: AgNumber, free: Span, part: Span) -> Result<()> {
    let (start, end) = (free.0.0, free.0.0 + free.1);
    let (from, to) = (part.0.0, part.0.0 + part.1);
    let whole = record(start, free.1);
    let (left, right) = (from - start, end - to);
    {
        let s = &mut AgTreeMut::new(t, space, ag, AgTree::Cnt);
        at::<Cnt, _>(s, ag, &whole)?.remove(s)?;
        for (start, count) in [(start, left), (to, right)] {
            if count > 0 {
                Position::<Cnt>::insert(s, &record(start, count))?;
            }
        }
    }
    {
        let s = &mut AgTreeMut::new(t, space, ag, AgTree::Bno);
        let mut p = at::<Bno, _>(s, ag, &whole)?;
        match (left, right) {
            (0, 0) => drop(p.remove(s)?),
            (0, right) => p.update(s, &record(to, right))?,
            (left, right) => {
                p.update(s, &record(start, left))?;
                if right > 0 {
                    Position::<Bno>::insert(s, &record(to, right))?;
                }
            }
        }
    }
    header::change_agf(t, ag, |agf| header::add("agf", "freeblks", &mut agf.freeblks, -i64::from(part.1), ag))?
}

/// Puts an extent back, joined with the free extents on both sides. One of which anything is free already is a corruption.
pub(super) fn give(t: &mut Transaction<'_>, space: &Space, ag: AgNumber, part: Span) -> Result<()> {
    let g = t.geometry();
    let (from, count) = (part.0.0, part.1);
    let out = || Corruption::new("bnobt", "recs", Rule::Range).in_ag(ag, Some(part.0));
    if !g.is_valid_agextent(ag, part.0, count) {
        return Err(out().found(format_args!("{count} blocks to free")).expected("an extent of the AG").into());
    }
    let to = from + count;
    let (mut left, mut right) = (None, None);
    {
        let s = &AgTreeMut::new(t, space, ag, AgTree::Bno);
        let twice = |start: u32, count: u32| {
            let c = Corruption::new("bnobt", "recs", Rule::Overlap).in_ag(ag, Some(AgBlock(start)));
            c.found(format_args!("{count} free blocks")).expected(format_args!("{from} to {} in use", to - 1))
        };
        let mut p = Position::<Bno>::lookup(s, &record(from, 0), Lookup::LessOrEqual)?;
        if let Some(p) = &p
            && let Some(r) = p.record(s)?
        {
            let (start, n) = checked(s, g, ag, &r)?;
            if start + n > from {
                return Err(twice(start, n).into());
            }
            left = (start + n == from).then_some(r);
        }
        let next = match &mut p {
            Some(p) => p.advance(s)?.then(|| p.record(s)).transpose()?.flatten(),
            None => Position::<Bno>::first(s)?.map(|p| p.record(s)).transpose()?.flatten(),
        };
        if let Some(r) = next {
            let (start, n) = checked(s, g, ag, &r)?;
            if start < to {
                return Err(twice(start, n).into());
            }
            right = (start == to).then_some(r);
        }
    }
    let start = left.map_or(from, |r| r.startblock.get());
    let end = right.map_or(to, |r| r.startblock.get() + r.blockcount.get());
    let whole = record(start, end - start);
    {
        let s = &mut AgTreeMut::new(t, space, ag, AgTree::Bno);
        match (left, right) {
            (Some(l), right) => {
                if let Some(r) = right {
                    at::<Bno, _>(s, ag, &r)?.remove(s)?;
                }
                at::<Bno, _>(s, ag, &l)?.update(s, &whole)?;
            }
            (None, Some(r)) => at::<Bno, _>(s, ag, &r)?.update(s, &whole)?,
            (None, None) => drop(Position::<Bno>::insert(s, &whole)?),
        }
    }
    {
        let s = &mut AgTreeMut::new(t, space, ag, AgTree::Cnt);
        for r in [left, right].into_iter().flatten() {
            at::<Cnt, _>(s, ag, &r)?.remove(s)?;
        }
        Position::<Cnt>::insert(s, &whole)?;
    }
    space.busy.freed(t, ag, part);
    header::change_agf(t, ag, |agf| header::add("agf", "freeblks", &mut agf.freeblks, count.into(), ag))?
}
