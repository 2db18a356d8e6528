//! Reference counts: how many files have a block. What lies side by side and has one count is one record; what has one owner has none.
//! Extents that copy on write has set aside are in the same tree, in a domain of their own behind the others.

use super::extent::Span;
use super::{AgTree, AgTreeMut, RmapOwner, Space, rmap};
use crate::btree::kinds::Refcount;
use crate::btree::{Kind, Lookup, Position};
use crate::error::{Corruption, Error, Result, Rule};
use crate::format::btree::{REFCOUNT_COW, RefcountKey, RefcountRec};
use crate::format::log::items::RefcountOp;
use crate::txn::Transaction;
use crate::units::{AgBlock, AgNumber, FsBlock};
use zerocopy::big_endian::U32;

/// Records that one step looks at: what it changes has to fit into a transaction.
const AT_ONCE: usize = 16;

/// Blocks with one count. A count that is not stored stands for a gap.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Piece {
    start: u32,
    end: u32,
    count: u32,
}

/// How a domain counts.
#[derive(Clone, Copy)]
struct Domain {
    bit: u32,
    /// Where there is no record.
    gap: u32,
}

const SHARED: Domain = Domain { bit: 0, gap: 1 };
const STAGED: Domain = Domain { bit: REFCOUNT_COW, gap: 0 };

impl Domain {
    fn of(op: RefcountOp) -> Self {
        if matches!(op, RefcountOp::Increase | RefcountOp::Decrease) { SHARED } else { STAGED }
    }
    fn key(self, at: u32) -> RefcountKey {
        RefcountKey { startblock: U32::new(at | self.bit) }
    }
    fn record(self, p: &Piece) -> RefcountRec {
        RefcountRec {
            startblock: U32::new(p.start | self.bit),
            blockcount: U32::new(p.end - p.start),
            refcount: U32::new(p.count),
        }
    }
    /// A record of this domain, which lies in the AG.
    fn piece(self, t: &Transaction<'_>, ag: AgNumber, r: &RefcountRec) -> Result<Option<Piece>> {
        let (start, count) = (r.startblock.get(), r.blockcount.get());
        if start & REFCOUNT_COW != self.bit {
            return Ok(None);
        }
        let start = start & !REFCOUNT_COW;
        if !t.geometry().is_valid_agextent(ag, AgBlock(start), count) {
            let c = Corruption::new("refcountbt", "recs", Rule::Range).in_ag(ag, Some(AgBlock(start)));
            return Err(c.found(format_args!("{count} blocks")).expected("an extent of the AG").into());
        }
        Ok(Some(Piece { start, end: start + count, count: r.refcount.get() }))
    }
}

/// The records of a domain that touch `from..=to`, in order; and where those end that one step can take.
fn touching(
    t: &mut Transaction<'_>,
    space: &Space,
    ag: AgNumber,
    domain: Domain,
    (from, to): (u32, u32),
) -> Result<(Vec<Piece>, u32)> {
    let mut raw = Vec::new();
    {
        let s = AgTreeMut::new(t, space, ag, AgTree::Refcount);
        // The neighbour on the left, also where a record begins here.
        let before = Position::<Refcount>::lookup(&s, &domain.key(from.saturating_sub(1)), Lookup::LessOrEqual)?;
        let mut p = match before {
            Some(p) => Some(p),
            None => Position::first(&s)?,
        };
        while let Some(at) = &mut p {
            let Some(r) = at.record(&s)? else { break };
            if r.startblock.get() > to | domain.bit || raw.len() > AT_ONCE {
                break;
            }
            raw.push(r);
            if !at.advance(&s)? {
                break;
            }
        }
    }
    let mut pieces = Vec::new();
    for r in &raw {
        pieces.extend(domain.piece(t, ag, r)?.filter(|p| p.end >= from && p.start <= to));
    }
    let end = match pieces.last() {
        // The last one is only the neighbour of what this step changes.
        Some(last) if raw.len() > AT_ONCE && last.start > from => last.start.min(to),
        _ => to,
    };
    Ok((pieces, end))
}

/// Pieces with their counts, and where blocks begin and end that nobody has any more.
type Changed = (Vec<Piece>, Vec<(u32, u32)>);

/// Adds `by` to the counts of `from..to`. Says what nobody has any more.
fn changed(pieces: &[Piece], domain: Domain, (from, to): (u32, u32), by: i32) -> Option<Changed> {
    let (mut all, mut gone) = (Vec::<Piece>::new(), Vec::new());
    let mut put = |p: Piece, inside: bool| -> Option<()> {
        if p.start >= p.end {
            return Some(());
        }
        // A count at its limit is not known any more, and stays.
        let count = match p.count {
            n if !inside || n == u32::MAX => n,
            n => n.checked_add_signed(by)?,
        };
        if domain.bit != 0 && count > 1 {
            return None;
        }
        if inside && count == 0 {
            gone.push((p.start, p.end));
        }
        match all.last_mut() {
            Some(last) if last.end == p.start && last.count == count => last.end = p.end,
            _ => all.push(Piece { count, ..p }),
        }
        Some(())
    };
    let mut at = from;
    for p in pieces {
        put(Piece { end: p.end.min(from), ..*p }, false)?;
        let (start, end) = (p.start.max(from), p.end.min(to));
        if start < end {
            put(Piece { start: at, end: start, count: domain.gap }, true)?;
            put(Piece { start, end, count: p.count }, true)?;
            at = end;
        }
        if p.end > to {
            put(Piece { start: at, end: to, count: domain.gap }, true)?;
            at = to;
            put(Piece { start: p.start.max(to), ..*p }, false)?;
        }
    }
    put(Piece { start: at, end: to, count: domain.gap }, true)?;
    all.retain(|p| p.count > domain.gap);
    Some((all, gone))
}

/// Changes the counts of an extent, or of its first part. Returns how many blocks were done and what nobody has any more.
fn adjust(
    t: &mut Transaction<'_>,
    space: &Space,
    ag: AgNumber,
    span: Span,
    op: RefcountOp,
) -> Result<(u32, Vec<Span>)> {
    let domain = Domain::of(op);
    let by = if matches!(op, RefcountOp::Increase | RefcountOp::AllocCow) { 1 } else { -1 };
    let bad = |rule| Corruption::new("refcountbt", "recs", rule).in_ag(ag, Some(span.0));
    if !t.geometry().is_valid_agextent(ag, span.0, span.1) {
        let c = bad(Rule::Range).found(format_args!("{} blocks", span.1));
        return Err(c.expected("an extent of the AG").into());
    }
    let from = span.0.0;
    let (before, to) = touching(t, space, ag, domain, (from, from + span.1))?;
    let Some((after, gone)) = changed(&before, domain, (from, to), by) else {
        let c = bad(Rule::Mismatch).found(format_args!("{before:?}"));
        return Err(c.expected(format_args!("counts of {} blocks that can change by {by}", to - from)).into());
    };
    let s = &mut AgTreeMut::new(t, space, ag, AgTree::Refcount);
    for p in before.iter().filter(|p| !after.contains(p)) {
        let r = domain.record(p);
        let mut at =
            Position::<Refcount>::lookup(s, &Refcount::low(&r), Lookup::Equal)?.ok_or_else(|| bad(Rule::Missing))?;
        at.remove(s)?;
    }
    for p in after.iter().filter(|p| !before.contains(p)) {
        Position::<Refcount>::insert(s, &domain.record(p))?;
    }
    let gone = gone.into_iter().map(|(start, end)| (AgBlock(start), end - start)).collect();
    Ok((to - from, gone))
}

impl Space {
    fn counts(t: &Transaction<'_>) -> Result<()> {
        if t.geometry().features.reflink() {
            return Ok(());
        }
        Err(Error::unsupported("the filesystem has no reference counts"))
    }

    /// One step of a change of reference counts: says how many blocks of the extent were done, and which extents nobody has any more, which
    /// the caller frees by a deferred step. With the staging extents of copy on write goes their reverse mapping.
    ///
    /// # Errors
    /// [`Error::Corrupt`] where the counts cannot change so; [`Error::Unsupported`] without the feature; I/O errors.
    pub fn adjust_count(
        &self,
        t: &mut Transaction<'_>,
        start: FsBlock,
        blocks: u32,
        op: RefcountOp,
    ) -> Result<(u32, Vec<(FsBlock, u32)>)> {
        Self::counts(t)?;
        let (ag, at) = self.place(t, start)?;
        self.prepare(t, ag)?;
        let (done, gone) = adjust(t, self, ag, (at, blocks), op)?;
        match op {
            RefcountOp::AllocCow => {
                self.prepare(t, ag)?;
                rmap::add(t, self, ag, (at, done), &RmapOwner::COW)?;
            }
            RefcountOp::FreeCow => {
                self.prepare(t, ag)?;
                rmap::remove(t, self, ag, (at, done), &RmapOwner::COW)?;
            }
            _ => {}
        }
        self.blocks_changed(t, ag, 0)?;
        // What leaves staging belongs to a file then, or is freed by whoever asked.
        let gone = if op == RefcountOp::Decrease { gone } else { Vec::new() };
        let g = t.geometry();
        Ok((done, gone.into_iter().map(|(at, n)| (g.join(ag, at), n)).collect()))
    }

    /// The first part of an extent that more than one file has.
    ///
    /// # Errors
    /// As [`Space::adjust_count`].
    pub fn find_shared(&self, t: &mut Transaction<'_>, start: FsBlock, blocks: u32) -> Result<Option<(FsBlock, u32)>> {
        Self::counts(t)?;
        let (ag, at) = self.place(t, start)?;
        super::header::lock_agf(t, ag)?;
        let g = t.geometry();
        if !g.is_valid_agextent(ag, at, blocks) {
            return Err(Error::invalid(format!("{blocks} blocks at {start} do not exist")));
        }
        let (mut from, end) = (at.0, at.0 + blocks);
        let mut found: Option<(u32, u32)> = None;
        while from < end {
            let (pieces, to) = touching(t, self, ag, SHARED, (from, end))?;
            for p in pieces.iter().filter(|p| p.end > from && p.start < to) {
                let (start, stop) = (p.start.max(from), p.end.min(to));
                match &mut found {
                    None => found = Some((start, stop)),
                    Some(f) if f.1 == start => f.1 = stop,
                    Some(f) => return Ok(Some((g.join(ag, AgBlock(f.0)), f.1 - f.0))),
                }
            }
            from = to.max(from + 1);
        }
        Ok(found.map(|(start, stop)| (g.join(ag, AgBlock(start)), stop - start)))
    }
}
