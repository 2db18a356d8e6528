//! Which free extent is taken, and which part of it.

use super::extent::{Span, checked, record};
use super::{AgTree, AgTreeMut, Space};
use crate::btree::kinds::{Bno, Cnt};
use crate::btree::{Lookup, Position};
use crate::error::Result;
use crate::txn::Transaction;
use crate::units::{AgBlock, AgNumber};

/// What is looked for in an AG.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wanted {
    pub(super) min: u32,
    pub(super) max: u32,
    /// The first block is a multiple of that.
    pub(super) align: u32,
    /// What is busy is not taken.
    pub(super) unlogged: bool,
    /// First block that may be taken, and the first behind that may not.
    pub(super) bounds: (u32, u32),
}

/// A part of a free extent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Found {
    pub(super) record: Span,
    pub(super) start: AgBlock,
    pub(super) len: u32,
}

/// Extents that are looked at on each side of a block before it is asked for size, and among those of a size for the nearest.
const NEAR: usize = 48;
/// The same of extents that are too small for all.
const SMALL: usize = 4096;

struct Search<'a, 't, 's> {
    space: &'a Space,
    ag: AgNumber,
    wanted: Wanted,
    tree: AgTreeMut<'t, 's>,
    sink: &'a dyn crate::txn::CommitSink,
}

impl Search<'_, '_, '_> {
    fn parts(&self, span: Span) -> Vec<Span> {
        if self.wanted.unlogged { self.space.busy.clear_parts(self.sink, self.ag, span) } else { vec![span] }
    }

    /// The best part of an extent: the longest up to the maximum, then the nearest to `near`.
    fn best_of(&self, span: Span, near: Option<u32>) -> Option<Found> {
        let w = &self.wanted;
        let mut best: Option<Found> = None;
        for (from, count) in self.parts(span) {
            let (from, end) = (from.0.max(w.bounds.0), (from.0 + count).min(w.bounds.1));
            let Some(low) = from.checked_next_multiple_of(w.align).filter(|l| *l < end) else { continue };
            let len = w.max.min(end - low);
            if len < w.min {
                continue;
            }
            let high = (end - len) / w.align * w.align;
            let start = match near {
                Some(near) if near > low => near.checked_next_multiple_of(w.align).unwrap_or(high).min(high.max(low)),
                _ => low,
            };
            let found = Found { record: span, start: AgBlock(start), len };
            if best.is_none_or(|b| better(&found, &b, near)) {
                best = Some(found);
            }
        }
        best
    }

    fn record_at<K: crate::btree::Kind<Record = crate::format::btree::AllocRec>>(
        &self,
        p: &Position<K>,
        g: &crate::geometry::Geometry,
    ) -> Result<Option<Span>> {
        let Some(r) = p.record(&self.tree)? else { return Ok(None) };
        checked(&self.tree, g, self.ag, &r).map(|(start, count)| Some((AgBlock(start), count)))
    }
}

fn distance(f: &Found, near: u32) -> u32 {
    f.start.0.abs_diff(near)
}

/// Longer, or as long and nearer.
fn better(a: &Found, b: &Found, near: Option<u32>) -> bool {
    a.len > b.len || a.len == b.len && near.is_some_and(|n| distance(a, n) < distance(b, n))
}

fn search<'a, 't, 's>(
    t: &'t mut Transaction<'s>,
    space: &'t Space,
    (ag, tree): (AgNumber, AgTree),
    wanted: Wanted,
) -> Search<'a, 't, 's>
where
    's: 'a,
    't: 'a,
{
    let sink = &**t.scope().sink();
    Search { space, ag, wanted, tree: AgTreeMut::new(t, space, ag, tree), sink }
}

/// That block, and what is free behind it.
pub(super) fn exact(
    t: &mut Transaction<'_>,
    space: &Space,
    ag: AgNumber,
    at: AgBlock,
    wanted: Wanted,
) -> Result<Option<Found>> {
    let g = t.geometry();
    let s = search(t, space, (ag, AgTree::Bno), wanted);
    let Some(p) = Position::<Bno>::lookup(&s.tree, &record(at.0, 0), Lookup::LessOrEqual)? else { return Ok(None) };
    let Some(span) = s.record_at(&p, g)? else { return Ok(None) };
    for (start, count) in s.parts(span) {
        if let Some(left) = (start.0 + count).checked_sub(at.0)
            && start.0 <= at.0
            && left >= wanted.min
            && left > 0
        {
            return Ok(Some(Found { record: span, start: at, len: left.min(wanted.max) }));
        }
    }
    Ok(None)
}

/// Close to a block: of the extents around it the nearest that is long enough, else the nearest of some that are, else the longest.
pub(super) fn near(
    t: &mut Transaction<'_>,
    space: &Space,
    ag: AgNumber,
    at: AgBlock,
    wanted: Wanted,
) -> Result<Option<Found>> {
    let g = t.geometry();
    let mut best: Option<Found> = None;
    {
        let s = search(t, space, (ag, AgTree::Bno), wanted);
        let here = Position::<Bno>::lookup(&s.tree, &record(at.0, 0), Lookup::LessOrEqual)?;
        for forward in [false, true] {
            let mut p = match (&here, forward) {
                (Some(p), false) => p.clone(),
                (Some(p), true) => {
                    let mut p = p.clone();
                    if !p.advance(&s.tree)? {
                        continue;
                    }
                    p
                }
                (None, false) => continue,
                (None, true) => match Position::first(&s.tree)? {
                    Some(p) => p,
                    None => return Ok(None),
                },
            };
            for _ in 0..NEAR {
                let Some(span) = s.record_at(&p, g)? else { break };
                let gap = if forward { span.0.0.saturating_sub(at.0) } else { at.0.saturating_sub(span.0.0 + span.1) };
                if best.is_some_and(|b| distance(&b, at.0) <= gap) {
                    break;
                }
                if let Some(f) = s.best_of(span, Some(at.0)).filter(|f| f.len == wanted.max)
                    && best.is_none_or(|b| better(&f, &b, Some(at.0)))
                {
                    best = Some(f);
                }
                if !(if forward { p.advance(&s.tree)? } else { p.retreat(&s.tree)? }) {
                    break;
                }
            }
        }
    }
    match best {
        Some(f) => Ok(Some(f)),
        None => by_size(t, space, ag, Some(at), wanted),
    }
}

/// The smallest extent that is long enough, or the longest where none is.
pub(super) fn by_size(
    t: &mut Transaction<'_>,
    space: &Space,
    ag: AgNumber,
    near: Option<AgBlock>,
    wanted: Wanted,
) -> Result<Option<Found>> {
    let g = t.geometry();
    let near = near.map(|n| n.0);
    let s = search(t, space, (ag, AgTree::Cnt), wanted);
    let mut best: Option<Found> = None;
    if let Some(mut p) = Position::<Cnt>::lookup(&s.tree, &record(0, wanted.max), Lookup::GreaterOrEqual)? {
        let mut looked = 0;
        while let Some(span) = s.record_at(&p, g)? {
            if let Some(f) = s.best_of(span, near).filter(|f| f.len == wanted.max) {
                if best.is_none_or(|b| better(&f, &b, near)) {
                    best = Some(f);
                }
                looked += 1;
                if near.is_none() || looked >= NEAR {
                    break;
                }
            }
            if !p.advance(&s.tree)? {
                break;
            }
        }
    }
    if best.is_some() {
        return Ok(best);
    }
    let Some(mut p) = Position::<Cnt>::last(&s.tree)? else { return Ok(None) };
    for _ in 0..SMALL {
        let Some(span) = s.record_at(&p, g)? else { break };
        if span.1 < wanted.min || best.is_some_and(|b| b.len >= span.1) {
            break;
        }
        if let Some(f) = s.best_of(span, near)
            && best.is_none_or(|b| better(&f, &b, near))
        {
            best = Some(f);
        }
        if !p.retreat(&s.tree)? {
            break;
        }
    }
    Ok(best)
}

/// Up to so many blocks for the free list, which is logged.
pub(super) fn largest(t: &mut Transaction<'_>, space: &Space, ag: AgNumber, most: u32) -> Result<Option<Found>> {
    by_size(t, space, ag, None, Wanted { min: 1, max: most.max(1), align: 1, unlogged: false, bounds: (0, u32::MAX) })
}
