//! Mapping, unmapping and conversion of extents, with what goes with it: the number of blocks, reverse mappings, freeing.

use super::ForkMut;
use crate::error::{Corruption, Error, ForkKind, Result, Rule};
use crate::format::btree::{Extent, MAX_EXTENT};
use crate::format::inode::{Format, fork_bytes};
use crate::format::log::items::{RefcountOp, RmapOp};
use crate::space::{CountChange, CountChanges, FreeExtents, MapChanges, Mapping, Place, Request, RmapOwner};
use crate::units::{FileBlock, FsBlock};

/// What one intent names at most.
const IN_INTENT: usize = 16;

/// How mappings change: not shared, shared.
const MAP: (RmapOp, RmapOp) = (RmapOp::Map, RmapOp::MapShared);
const UNMAP: (RmapOp, RmapOp) = (RmapOp::Unmap, RmapOp::UnmapShared);
const CONVERT: (RmapOp, RmapOp) = (RmapOp::Convert, RmapOp::ConvertShared);

fn end(e: &Extent) -> u64 {
    e.offset + e.count
}

/// The part of an extent from one file block to another.
fn part(e: &Extent, from: u64, to: u64) -> Extent {
    Extent { offset: from, start: e.start + (from - e.offset), count: to - from, unwritten: e.unwritten }
}

/// Whether an extent goes on where another ends.
fn joins(a: &Extent, b: &Extent) -> bool {
    end(a) == b.offset && a.start + a.count == b.start && a.unwritten == b.unwritten
}

impl ForkMut<'_, '_> {
    /// Has the reverse mappings of extents changed.
    fn defer_mappings(&mut self, (own, shared): (RmapOp, RmapOp), extents: &[Extent]) -> Result<()> {
        if !self.t.geometry().features.rmapbt() {
            return Ok(());
        }
        let op = if self.shares()? { shared } else { own };
        let (ino, kind) = (self.ino, self.kind);
        // Each in an intent of its own: what is half done would be logged anew, and all that waits behind it.
        for some in extents.chunks(1) {
            let mapping = |e: &Extent| Mapping {
                op,
                start: FsBlock(e.start),
                blocks: e.count as u32,
                owner: RmapOwner::file(ino, kind, FileBlock(e.offset), e.unwritten),
            };
            let changes = some.iter().map(mapping).collect();
            let step = MapChanges::new(self.space.clone(), self.t.geometry(), changes)?;
            self.t.defer(step)?;
        }
        Ok(())
    }

    fn on_data_device(&mut self) -> Result<()> {
        if self.kind == ForkKind::Data && self.core()?.is_realtime() {
            return Err(Error::unsupported("data on the realtime device is not changed yet"));
        }
        Ok(())
    }

    /// Puts an extent into the map, as one with its neighbours where it goes on where they end.
    fn join(&mut self, e: Extent) -> Result<()> {
        let left = self.before(FileBlock(e.offset))?.filter(|l| joins(l, &e) && l.count + e.count <= MAX_EXTENT);
        let beside = left.map_or(0, |l| l.count) + e.count;
        let right = self.at_or_behind(end(&e))?.filter(|r| joins(&e, r) && beside + r.count <= MAX_EXTENT);
        match (left, right) {
            (Some(l), Some(r)) => {
                self.take(&r)?;
                self.replace(&l, &Extent { count: beside + r.count, ..l })
            }
            (Some(l), None) => self.replace(&l, &Extent { count: beside, ..l }),
            (None, Some(r)) => self.replace(&r, &Extent { count: beside + r.count, ..e }),
            (None, None) => self.put(&e),
        }
    }

    /// Takes a part of an extent out of the map.
    fn cut(&mut self, e: &Extent, from: u64, to: u64) -> Result<()> {
        let (left, right) = (part(e, e.offset, from), part(e, to, end(e)));
        match (left.count > 0, right.count > 0) {
            (false, false) => self.take(e),
            (true, false) => self.replace(e, &left),
            (false, true) => self.replace(e, &right),
            (true, true) => {
                self.replace(e, &left)?;
                self.put(&right)
            }
        }
    }

    /// Maps an extent into a hole, counts its blocks and has the reverse mapping made.
    ///
    /// # Errors
    /// [`Error::Invalid`] for an extent that is too long or does not exist, and where there is no hole; [`Error::NoSpace`] where the map
    /// needs a block and there is none; errors of reading.
    pub fn map(&mut self, e: &Extent) -> Result<()> {
        self.on_data_device()?;
        if !self.t.geometry().is_valid_extent(FsBlock(e.start), e.count) || e.count > MAX_EXTENT {
            return Err(Error::invalid(format!("{} blocks at {} are no extent", e.count, e.start)));
        }
        let last = e.offset.saturating_add(e.count).saturating_sub(1);
        if let Some(there) = self.at_or_before(last)?.filter(|o| end(o) > e.offset) {
            let what = format!("file block {} of inode {} is mapped already", there.offset.max(e.offset), self.ino);
            return Err(Error::invalid(what));
        }
        self.join(*e)?;
        self.count_blocks(e.count.cast_signed())?;
        self.defer_mappings(MAP, &[*e])
    }

    /// Takes what is mapped in a range out of the map, counts it and has the reverse mappings removed. It frees nothing. Returns what was there,
    /// in order.
    ///
    /// # Errors
    /// As [`ForkMut::map`]: a map with one extent less may have one record more.
    pub fn unmap(&mut self, at: FileBlock, blocks: u64) -> Result<Vec<Extent>> {
        self.unmap_last(at, blocks, usize::MAX).map(|(gone, _)| gone)
    }

    /// The same from the end of the range on, and no more than so many extents. Says also where it got: at the start of the range nothing is left.
    ///
    /// # Errors
    /// As [`ForkMut::unmap`].
    pub fn unmap_last(&mut self, at: FileBlock, blocks: u64, most: usize) -> Result<(Vec<Extent>, FileBlock)> {
        self.on_data_device()?;
        let (mut gone, mut left) = (Vec::new(), at.0.saturating_add(blocks));
        while left > at.0 {
            let Some(e) = self.at_or_before(left - 1)?.filter(|e| end(e) > at.0) else {
                left = at.0;
                break;
            };
            if gone.len() >= most {
                left = left.min(end(&e));
                break;
            }
            let (from, to) = (e.offset.max(at.0), end(&e).min(left));
            self.cut(&e, from, to)?;
            gone.push(part(&e, from, to));
            left = from;
        }
        let sum: u64 = gone.iter().map(|e| e.count).sum();
        if sum > 0 {
            self.count_blocks(-sum.cast_signed())?;
        }
        gone.reverse();
        self.defer_mappings(UNMAP, &gone)?;
        Ok((gone, FileBlock(left)))
    }

    /// Has extents that are no longer mapped freed; of those that other files have as well, only the reference goes.
    ///
    /// # Errors
    /// As [`Transaction::defer`](crate::txn::Transaction::defer).
    pub fn release(&mut self, gone: &[Extent]) -> Result<()> {
        let shares = self.shares()?;
        let g = self.t.geometry();
        for some in gone.chunks(IN_INTENT) {
            if shares {
                let change = |e: &Extent| CountChange {
                    op: RefcountOp::Decrease,
                    start: FsBlock(e.start),
                    blocks: e.count as u32,
                };
                let changes = some.iter().map(change).collect();
                self.t.defer(CountChanges::new(self.space.clone(), g, changes)?)?;
            } else {
                let extents = some.iter().map(|e| (FsBlock(e.start), e.count as u32)).collect();
                self.t.defer(FreeExtents::new(self.space.clone(), g, extents, None)?)?;
            }
        }
        Ok(())
    }

    /// Takes what is mapped in a range out of the map and frees it.
    ///
    /// # Errors
    /// As [`ForkMut::unmap`].
    pub fn free(&mut self, at: FileBlock, blocks: u64) -> Result<()> {
        let gone = self.unmap(at, blocks)?;
        self.release(&gone)
    }

    /// Frees no more than so many extents of a range, the last ones first, so that what one transaction logs is bounded. Says where it got: at the start of
    /// the range nothing is left.
    ///
    /// # Errors
    /// As [`ForkMut::unmap`].
    pub fn free_last(&mut self, at: FileBlock, blocks: u64, most: usize) -> Result<FileBlock> {
        let (gone, left) = self.unmap_last(at, blocks, most)?;
        self.release(&gone)?;
        Ok(left)
    }

    /// Moves what is mapped to another place of the file, where there is a hole apart from itself. Its blocks stay where they are.
    ///
    /// # Errors
    /// As [`ForkMut::map`].
    pub fn shift(&mut self, e: &Extent, to: u64) -> Result<()> {
        for part in self.unmap(FileBlock(e.offset), e.count)? {
            self.map(&Extent { offset: part.offset - e.offset + to, ..part })?;
        }
        Ok(())
    }

    /// Makes what is mapped in a range unwritten, or written. Holes, and what is so already, stay.
    ///
    /// # Errors
    /// As [`ForkMut::map`].
    pub fn convert(&mut self, at: FileBlock, blocks: u64, unwritten: bool) -> Result<()> {
        self.on_data_device()?;
        let (mut from, to) = (at.0, at.0.saturating_add(blocks));
        let mut changed = Vec::new();
        while from < to {
            let Some(e) = self.at_or_next(FileBlock(from))?.filter(|e| e.offset < to) else { break };
            let (start, stop) = (e.offset.max(from), end(&e).min(to));
            from = stop;
            if e.unwritten == unwritten {
                continue;
            }
            let new = Extent { unwritten, ..part(&e, start, stop) };
            self.cut(&e, start, stop)?;
            self.join(new)?;
            changed.push(new);
        }
        self.defer_mappings(CONVERT, &changed)
    }

    /// Blocks that the map may take when one extent is put in, or one split.
    fn blocks_to_map(&mut self) -> Result<u32> {
        let (ino, kind) = (self.ino, self.kind);
        if self.format()? == Format::Btree {
            let level = fork_bytes(self.t.inode(ino)?, kind).first_chunk::<2>().map_or(0, |b| u16::from_be_bytes(*b));
            return Ok(u32::from(level) + 1);
        }
        Ok(u32::from(self.core()?.extents(kind) + 2 > self.in_inode()?))
    }

    /// Allocates blocks and maps them into the hole that begins at a block: no more than fit there. Near `near`, or where it is best.
    ///
    /// # Errors
    /// [`Error::NoSpace`]; as [`ForkMut::map`].
    pub fn allocate(
        &mut self,
        at: FileBlock,
        request: &Request,
        near: Option<FsBlock>,
        unwritten: bool,
    ) -> Result<Extent> {
        let found = self.find_space(at, request, near)?;
        let e = Extent { unwritten, ..found };
        self.map(&e)?;
        Ok(e)
    }

    /// Allocates blocks for the hole that begins at a block, and leaves as many that the map can grow.
    pub(crate) fn find_space(&mut self, at: FileBlock, request: &Request, near: Option<FsBlock>) -> Result<Extent> {
        if self.mapped(at)?.is_some() {
            return Err(Error::invalid(format!("file block {at} of inode {} is mapped already", self.ino)));
        }
        let hole = self.at_or_behind(at.0)?.map_or(MAX_EXTENT, |e| e.offset - at.0);
        let most = request.max.min(u32::try_from(hole.min(MAX_EXTENT)).unwrap_or(u32::MAX));
        if most < request.min {
            return Err(Error::invalid(format!("{} blocks do not fit into the hole at file block {at}", request.min)));
        }
        self.find_blocks(at, &Request { max: most, ..*request }, near)
    }

    /// Allocates blocks that are to be mapped at a block, where something else may still be mapped.
    pub(crate) fn find_blocks(&mut self, at: FileBlock, request: &Request, near: Option<FsBlock>) -> Result<Extent> {
        self.on_data_device()?;
        let near = match near {
            Some(near) => near,
            None => self.near(at)?,
        };
        let left = request.left.saturating_add(self.blocks_to_map()?);
        let a = self.space.allocate(self.t, Place::Near(near), &Request { left, owner: None, ..*request })?;
        let start = self.t.geometry().join(a.ag, a.start);
        Ok(Extent { offset: at.0, start: start.0, count: a.len.into(), unwritten: false })
    }

    pub(super) fn hole(&self, at: u64) -> Error {
        let c = Corruption::new("inode", "recs", Rule::Missing).in_inode(self.ino);
        c.in_fork(self.kind, Some(FileBlock(at))).found("a hole").expected("a mapped block").into()
    }
}
