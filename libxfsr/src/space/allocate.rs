//! Allocating extents: in one AG, and in which.

use super::choose::{self, Found, Wanted};
use super::owner::RmapOwner;
use super::{Fill, Space, extent, freelist, header, rmap};
use crate::error::{Error, Result};
use crate::format::ag::Agf;
use crate::geometry::Geometry;
use crate::txn::Transaction;
use crate::units::{AgBlock, AgNumber, FsBlock};

/// Where blocks are wanted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Place {
    /// There and nowhere else.
    Exact(FsBlock),
    /// Close to a block; where its AG has no room, in another.
    Near(FsBlock),
    /// In that AG only.
    Within(AgNumber),
    /// In that AG or one of the others.
    From(AgNumber),
}

/// What is to be allocated.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Request {
    /// Fewest blocks that are of use.
    pub min: u32,
    /// Most blocks.
    pub max: u32,
    /// The first block is a multiple of that in its AG; not looked at with [`Place::Exact`].
    pub align: u32,
    /// Blocks that must still be free in the AG afterwards, for what the same transaction allocates next.
    pub left: u32,
    /// What will be written there is not logged, so that nothing may be taken whose free is not durable yet: contents of files, values of
    /// attributes.
    pub unlogged: bool,
    /// Whose mapping is made in the same transaction. None where the caller makes it by [`Space::map`] or a deferred step.
    pub owner: Option<RmapOwner>,
    /// From which space.
    pub fill: Fill,
}

impl Request {
    /// So many blocks of logged metadata.
    pub fn metadata(blocks: u32, owner: RmapOwner) -> Self {
        Self { min: blocks, max: blocks, align: 1, left: 0, unlogged: false, owner: Some(owner), fill: Fill::Free }
    }
    /// Blocks for contents of files, whose mapping the caller makes.
    pub fn data(min: u32, max: u32) -> Self {
        Self { min, max, align: 1, left: 0, unlogged: true, owner: None, fill: Fill::Free }
    }
}

/// What was allocated.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Allocated {
    /// AG.
    pub ag: AgNumber,
    /// First block.
    pub start: AgBlock,
    /// Blocks.
    pub len: u32,
}

/// Free blocks of an AG that may be given away, and the longest extent among them: without what the free list needs, and what is kept.
fn available(g: &Geometry, space: &Space, ag: AgNumber, agf: &Agf, fill: Fill) -> (u32, u32) {
    let (need, listed) = (freelist::minimum_of(g, agf), agf.flcount.get());
    let kept = space.kept(ag, agf, fill);
    let (free, longest) = (agf.freeblks.get(), agf.longest.get());
    let blocks = free.saturating_add(listed.min(need)).saturating_sub(need).saturating_sub(kept);
    // What the other extents cannot provide comes from the longest.
    let others = free.saturating_sub(longest);
    let taken = need.saturating_sub(listed).saturating_add(kept).saturating_sub(others);
    (blocks, longest.saturating_sub(taken).min(blocks))
}

fn no_space(ag: AgNumber, blocks: u32) -> Error {
    Error::NoSpace(format!("no {blocks} free blocks in AG {ag}"))
}

/// Whether an AG has so many blocks, and an extent of `longest`.
pub(super) fn fits(
    g: &Geometry,
    space: &Space,
    ag: AgNumber,
    agf: &Agf,
    fill: Fill,
    blocks: u32,
    longest: u32,
) -> Result<()> {
    let has = available(g, space, ag, agf, fill);
    if has.0 >= blocks && has.1 >= longest { Ok(()) } else { Err(no_space(ag, blocks)) }
}

/// Allocates in an AG, close to a block where one is given. Where there is no room, nothing is changed but perhaps the free list.
pub(super) fn in_ag(
    t: &mut Transaction<'_>,
    space: &Space,
    ag: AgNumber,
    near: Option<AgBlock>,
    request: &Request,
) -> Result<Allocated> {
    in_ag_with(t, space, ag, request, &mut |t, wanted| match near {
        Some(at) => choose::near(t, space, ag, at, wanted),
        None => choose::by_size(t, space, ag, None, wanted),
    })
}

type Choice<'c, 's> = &'c mut dyn FnMut(&mut Transaction<'s>, Wanted) -> Result<Option<Found>>;

fn in_ag_with<'s>(
    t: &mut Transaction<'s>,
    space: &Space,
    ag: AgNumber,
    request: &Request,
    choose: Choice<'_, 's>,
) -> Result<Allocated> {
    let (min, align) = (request.min.max(1), request.align.max(1));
    if request.max < min {
        return Err(Error::invalid(format!("at least {min} and at most {} blocks", request.max)));
    }
    header::lock_agf(t, ag)?;
    let g = t.geometry();
    let need = min.saturating_add(request.left);
    fits(g, space, ag, &header::agf(t, ag)?, request.fill, need, min)?;
    freelist::fill(t, space, ag)?;
    // Filling the list may have cost more than was foreseen.
    let agf = header::agf(t, ag)?;
    fits(g, space, ag, &agf, request.fill, need, min)?;
    let (blocks, _) = available(g, space, ag, &agf, request.fill);
    let max = request.max.min(blocks.saturating_sub(request.left)).max(min);
    let wanted = Wanted { min, max, align, unlogged: request.unlogged, bounds: (0, u32::MAX) };
    let mut found = choose(t, wanted)?;
    if found.is_none() && request.unlogged {
        let sink = t.scope().sink();
        if let Some(newest) = space.busy.newest(&**sink, ag) {
            sink.force(newest)?;
            found = choose(t, wanted)?;
        }
    }
    let found = found.ok_or_else(|| no_space(ag, min))?;
    extent::take(t, space, ag, found.record, (found.start, found.len))?;
    if let Some(owner) = &request.owner {
        rmap::add(t, space, ag, (found.start, found.len), owner)?;
    }
    space.blocks_changed(t, ag, -i64::from(found.len))?;
    Ok(Allocated { ag, start: found.start, len: found.len })
}

/// AGs in the order in which they are tried. Locks are taken in ascending order only, so none before the last that is held.
fn order(start: AgNumber, held: Option<AgNumber>, count: u32) -> impl Iterator<Item = AgNumber> {
    let floor = held.map_or(0, |h| h.0);
    let start = if start.0 < count { start.0.max(floor) } else { floor };
    (start..count).chain(floor..start).map(AgNumber)
}

impl Space {
    /// Allocates blocks.
    ///
    /// A transaction that has changed the free space of an AG gets blocks only from this or a higher one, for locks are taken in that order;
    /// who needs the others asks in a transaction of its own.
    ///
    /// # Errors
    /// [`Error::NoSpace`] where there is no such room; no AG is changed by looking but for its free list. [`Error::Corrupt`]; I/O errors. After an error
    /// of another kind the transaction must be dropped.
    pub fn allocate(&self, t: &mut Transaction<'_>, place: Place, request: &Request) -> Result<Allocated> {
        let g = t.geometry();
        let exact = |fsb: FsBlock| {
            let (ag, at) = g.split(fsb);
            if g.is_valid_agbno(ag, at) {
                Ok((ag, at))
            } else {
                Err(Error::invalid(format!("block {fsb} does not exist")))
            }
        };
        let held = super::held(t);
        let (start, near) = match place {
            Place::Exact(fsb) => {
                let (ag, at) = exact(fsb)?;
                self.may_lock(held, ag)?;
                return self.attempt(t, ag, request, &mut |t, wanted| choose::exact(t, self, ag, at, wanted));
            }
            Place::Within(ag) => {
                self.may_lock(held, ag)?;
                return self.attempt(t, ag, request, &mut |t, wanted| choose::by_size(t, self, ag, None, wanted));
            }
            Place::Near(fsb) => exact(fsb).map(|(ag, at)| (ag, Some(at)))?,
            Place::From(ag) => (ag, None),
        };
        for ag in order(start, held, g.ag_count) {
            if !self.looks_good(g, ag, request) && Some(ag) != held {
                continue;
            }
            let near = near.filter(|_| ag == start);
            let choice: Choice<'_, '_> = &mut |t, wanted| match near {
                Some(at) => choose::near(t, self, ag, at, wanted),
                None => choose::by_size(t, self, ag, None, wanted),
            };
            match self.attempt(t, ag, request, choice) {
                Err(Error::NoSpace(_)) => {}
                other => return other,
            }
            // Its free list may have been filled: then it stays locked, and those before it are out of reach.
            if super::held(t) > held {
                return order(ag, super::held(t), g.ag_count)
                    .filter(|next| next.0 > ag.0)
                    .find_map(|ag| {
                        match self.attempt(t, ag, request, &mut |t, w| choose::by_size(t, self, ag, None, w)) {
                            Err(Error::NoSpace(_)) => None,
                            other => Some(other),
                        }
                    })
                    .unwrap_or_else(|| Err(self.full(request)));
            }
        }
        Err(self.full(request))
    }

    /// Finds an AG, as close to a block as may be, in which `blocks` blocks can be allocated one by one, and locks it. Who changes a tree whose blocks come
    /// from free space asks for them before, so that nothing is half changed when there are none.
    ///
    /// # Errors
    /// As [`Space::allocate`].
    pub fn room(&self, t: &mut Transaction<'_>, near: FsBlock, blocks: u32) -> Result<AgNumber> {
        let g = t.geometry();
        let (start, _) = g.split(near);
        let held = super::held(t);
        for ag in order(start, held, g.ag_count) {
            header::lock_agf(t, ag)?;
            // Each of them may empty the free list anew.
            let more = freelist::minimum(t, ag)?.saturating_mul(blocks.saturating_sub(1));
            let agf = header::agf(t, ag)?;
            if fits(g, self, ag, &agf, Fill::Free, blocks.saturating_add(more), 1).is_ok() {
                return Ok(ag);
            }
            if Some(ag) != held {
                super::let_go(t, ag);
            }
        }
        Err(Error::NoSpace(format!("no AG has {blocks} free blocks")))
    }

    /// Allocates in an AG inside of those blocks: at `exact` if it is free there, else close to `near`. Whether there is such a place is looked up
    /// before anything is changed, the free list included.
    ///
    /// # Errors
    /// As [`Space::allocate`].
    pub(crate) fn allocate_inside(
        &self,
        t: &mut Transaction<'_>,
        ag: AgNumber,
        bounds: (AgBlock, AgBlock),
        (exact, near): (Option<AgBlock>, AgBlock),
        request: &Request,
    ) -> Result<Allocated> {
        self.may_lock(super::held(t), ag)?;
        let bounds = (bounds.0.0, bounds.1.0);
        let mut choose = |t: &mut Transaction<'_>, wanted: Wanted| {
            let wanted = Wanted { bounds, ..wanted };
            let inside = |at: &AgBlock| {
                at.0 >= bounds.0
                    && at.0.is_multiple_of(wanted.align)
                    && at.0.checked_add(wanted.max).is_some_and(|end| end <= bounds.1)
            };
            if let Some(at) = exact.filter(inside)
                && let Some(found) = choose::exact(t, self, ag, at, wanted)?
            {
                return Ok(Some(found));
            }
            choose::near(t, self, ag, near, wanted)
        };
        header::lock_agf(t, ag)?;
        let (min, max, align) = (request.min.max(1), request.max, request.align.max(1));
        if choose(t, Wanted { min, max, align, unlogged: false, bounds })?.is_none() {
            super::let_go(t, ag);
            return Err(no_space(ag, min));
        }
        self.attempt(t, ag, request, &mut choose)
    }

    fn full(&self, request: &Request) -> Error {
        Error::NoSpace(format!("no AG has {} free blocks as they are wanted", request.min.max(1)))
    }

    /// Refuses an AG below one that is locked.
    pub(super) fn may_lock(&self, held: Option<AgNumber>, ag: AgNumber) -> Result<()> {
        match held {
            Some(held) if ag < held => {
                Err(Error::invalid(format!("AG {ag} is wanted in a transaction that has changed AG {held}")))
            }
            _ => Ok(()),
        }
    }

    /// Tries an AG, and lets go of it where nothing was changed.
    fn attempt<'s>(
        &self,
        t: &mut Transaction<'s>,
        ag: AgNumber,
        request: &Request,
        choice: Choice<'_, 's>,
    ) -> Result<Allocated> {
        let result = in_ag_with(t, self, ag, request, choice);
        if let Err(Error::NoSpace(_)) = &result {
            super::let_go(t, ag);
        }
        result
    }

    /// What is known of an AG without its lock; only a hint.
    fn looks_good(&self, g: &Geometry, ag: AgNumber, request: &Request) -> bool {
        let Some(agf) = self.hint(ag) else { return true };
        let need = request.min.max(1).saturating_add(request.left);
        fits(g, self, ag, &agf, request.fill, need, request.min.max(1)).is_ok()
    }
}
