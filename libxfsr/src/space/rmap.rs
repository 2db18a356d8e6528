//! Reverse mappings. What lies side by side and belongs together is one record, as Linux keeps it.

use super::extent::Span;
use super::owner::RmapOwner;
use super::{AgTree, AgTreeMut, Space};
use crate::btree::kinds::Rmap;
use crate::btree::{Kind, Lookup, Position, Store, query};
use crate::error::{Corruption, Error, Result, Rule};
use crate::format::btree::{RMAP_UNWRITTEN, RmapRec, owner};
use crate::txn::{Change, Transaction};
use crate::units::{AgBlock, AgNumber};
use std::ops::ControlFlow;

fn end(r: &RmapRec) -> u64 {
    u64::from(r.startblock.get()) + u64::from(r.blockcount.get())
}

/// A record of the tree that was found, as a position.
fn at<S: Store>(s: &S, ag: AgNumber, r: &RmapRec) -> Result<Position<Rmap>> {
    Position::lookup(s, &Rmap::low(r), Lookup::Equal)?.ok_or_else(|| {
        Corruption::new("rmapbt", "recs", Rule::Missing).in_ag(ag, Some(AgBlock(r.startblock.get()))).into()
    })
}

/// Records that are looked at for one block at most: so many files may share it.
const SHARERS: usize = 1 << 20;

/// The first record over `block` that `fits`. Where extents are shared, records overlap, and any of those before may reach there.
fn over<S: Store>(
    s: &S,
    shared: bool,
    near: &RmapOwner,
    block: u32,
    fits: impl Fn(&RmapRec) -> bool,
) -> Result<Option<RmapRec>> {
    let before = match Position::<Rmap>::lookup(s, &near.key(block), Lookup::LessOrEqual)? {
        Some(p) => p.record(s)?,
        None => None,
    };
    if let Some(r) = before.filter(|r| end(r) > block.into() && fits(r)) {
        return Ok(Some(r));
    }
    if !shared {
        return Ok(None);
    }
    let (low, high) =
        (RmapOwner::special(0).key(block), RmapOwner { owner: u64::MAX, offset: !RMAP_UNWRITTEN }.key(block));
    let (mut found, mut seen) = (None, 0);
    query::<Rmap, S>(s, &low, &high, &mut |r| {
        seen += 1;
        if fits(r) && r.startblock.get() <= block && end(r) > block.into() {
            found = Some(*r);
        }
        if found.is_some() || seen >= SHARERS { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    })?;
    Ok(found)
}

/// Whether other mappings may lie over those of this owner.
fn may_share(t: &Transaction<'_>, owner: &RmapOwner) -> bool {
    t.geometry().features.reflink() && owner.has_offset()
}

fn tell(t: &mut Transaction<'_>, ag: AgNumber, span: Span, owner: u64, added: bool) {
    t.emit(Change::Mapping { ag, start: span.0, len: span.1, owner, added });
}

fn check(t: &Transaction<'_>, ag: AgNumber, span: Span) -> Result<()> {
    if t.geometry().is_valid_agextent(ag, span.0, span.1) {
        return Ok(());
    }
    let c = Corruption::new("rmapbt", "recs", Rule::Range).in_ag(ag, Some(span.0));
    Err(c.found(format_args!("{} blocks", span.1)).expected("an extent of the AG").into())
}

/// Notes that an extent belongs to an owner. The free list is filled.
pub(super) fn add(t: &mut Transaction<'_>, space: &Space, ag: AgNumber, span: Span, owner: &RmapOwner) -> Result<()> {
    if !t.geometry().features.rmapbt() {
        return Ok(());
    }
    check(t, ag, span)?;
    let shared = may_share(t, owner);
    let (from, to) = (span.0.0, span.0.0 + span.1);
    let s = &mut AgTreeMut::new(t, space, ag, AgTree::Rmap);
    if !shared {
        // Nobody else has any of it.
        let key = RmapOwner { owner: u64::MAX, offset: !RMAP_UNWRITTEN }.key(to - 1);
        if let Some(p) = Position::<Rmap>::lookup(s, &key, Lookup::LessOrEqual)?
            && let Some(r) = p.record(s)?.filter(|r| end(r) > from.into())
        {
            let c = Corruption::new("rmapbt", "recs", Rule::DoublyOwned).in_ag(ag, Some(span.0));
            let found = format!("{} blocks at {} of owner {}", r.blockcount, r.startblock, r.owner.get().cast_signed());
            return Err(c.found(found).expected(format_args!("{} free blocks", span.1)).into());
        }
    }
    let left = match from.checked_sub(1) {
        Some(before) => over(s, shared, owner, before, |r| {
            end(r) == u64::from(from) && RmapOwner::of(r).behind(r.blockcount.get()) == *owner
        })?,
        None => None,
    };
    let next = owner.behind(span.1);
    let right = match Position::<Rmap>::lookup(s, &next.key(to), Lookup::Equal)? {
        Some(p) => p.record(s)?.filter(|r| RmapOwner::of(r) == next),
        None => None,
    };
    let joined =
        |a: u32, b: u32| a.checked_add(b).ok_or_else(|| Error::invalid("a reverse mapping of too many blocks"));
    let mut count = span.1;
    if let Some(r) = right {
        count = joined(count, r.blockcount.get())?;
        if left.is_none() && !shared {
            at(s, ag, &r)?.update(s, &owner.record(from, count))?;
            tell(t, ag, span, owner.owner, true);
            return Ok(());
        }
        at(s, ag, &r)?.remove(s)?;
    }
    match left {
        Some(l) => {
            let mut whole = l;
            whole.blockcount.set(joined(l.blockcount.get(), count)?);
            at(s, ag, &l)?.update(s, &whole)?;
        }
        None => drop(Position::<Rmap>::insert(s, &owner.record(from, count))?),
    }
    tell(t, ag, span, owner.owner, true);
    Ok(())
}

/// Notes that an extent no longer belongs to an owner. The free list is filled.
pub(super) fn remove(
    t: &mut Transaction<'_>,
    space: &Space,
    ag: AgNumber,
    span: Span,
    owner: &RmapOwner,
) -> Result<()> {
    if !t.geometry().features.rmapbt() {
        return Ok(());
    }
    check(t, ag, span)?;
    let anybody = owner.owner == owner::UNKNOWN;
    let shared = may_share(t, owner) || anybody && t.geometry().features.reflink();
    let (from, to) = (span.0.0, span.0.0 + span.1);
    let s = &mut AgTreeMut::new(t, space, ag, AgTree::Rmap);
    let whole = |r: &RmapRec| end(r) >= to.into();
    let offset = |r: &RmapRec| RmapOwner::of(r).behind(from.saturating_sub(r.startblock.get()));
    let found = over(s, shared, &if anybody { RmapOwner { owner: u64::MAX, offset: 0 } } else { *owner }, from, |r| {
        anybody || whole(r) && offset(r) == *owner
    })?;
    let Some(r) = found.filter(whole) else {
        if anybody && found.is_none() {
            return Ok(());
        }
        let c = Corruption::new("rmapbt", "recs", Rule::Missing).in_ag(ag, Some(span.0));
        let (who, at) = (owner.owner.cast_signed(), owner.offset);
        return Err(c.expected(format_args!("{} blocks of owner {who} at offset {at:#x}", span.1)).into());
    };
    let (own, start, stop) = (RmapOwner::of(&r), r.startblock.get(), end(&r) as u32);
    let mut p = at(s, ag, &r)?;
    let rest = own.behind(to - start).record(to, stop - to);
    match (from - start, stop - to) {
        (0, 0) => drop(p.remove(s)?),
        (0, _) if !shared => p.update(s, &rest)?,
        (0, _) => {
            p.remove(s)?;
            Position::<Rmap>::insert(s, &rest)?;
        }
        (left, right) => {
            p.update(s, &own.record(start, left))?;
            if right > 0 {
                Position::<Rmap>::insert(s, &rest)?;
            }
        }
    }
    tell(t, ag, span, own.owner, false);
    Ok(())
}

/// Blocks of a file become written, or unwritten: `owner` says what they are now.
pub(super) fn convert(
    t: &mut Transaction<'_>,
    space: &Space,
    ag: AgNumber,
    span: Span,
    owner: &RmapOwner,
) -> Result<()> {
    let to = RmapOwner { owner: owner.owner, offset: owner.offset ^ RMAP_UNWRITTEN };
    remove(t, space, ag, span, owner)?;
    add(t, space, ag, span, &to)
}
