//! Records of the map, one by one, in extents format or in the btree; and the change from one to the other.

use super::ForkMut;
use super::tree::ForkTree;
use crate::btree::bulk::{self, Plan, Slack};
use crate::btree::kinds::Bmap;
use crate::btree::{self, Kind, Lookup, Position};
use crate::error::{Error, ForkKind, Result, Rule};
use crate::format::btree::{BmbtKey, BmbtRec, Extent, MAX_FILE_BLOCK};
use crate::format::inode::{Dinode, Flags2, Format, extents_in_fork, fork_bytes, fork_bytes_mut};
use crate::units::{FileBlock, FsBlock};
use std::ops::ControlFlow;
use zerocopy::IntoBytes;
use zerocopy::big_endian::U64;

const RECORD: usize = size_of::<BmbtRec>();

fn key(block: u64) -> BmbtKey {
    BmbtKey { startoff: U64::new(block) }
}

impl<'s> ForkMut<'_, 's> {
    /// Whether the fork is in a form that has extents: extents or btree.
    fn in_btree(&mut self) -> Result<bool> {
        match self.format()? {
            Format::Extents => Ok(false),
            Format::Btree => Ok(true),
            other => Err(Error::invalid(format!("inode {} has no extents in format {other:?}", self.ino))),
        }
    }

    /// Extents that fit into the fork itself.
    pub(super) fn in_inode(&mut self) -> Result<u64> {
        let (ino, kind) = (self.ino, self.kind);
        Ok((fork_bytes(self.t.inode(ino)?, kind).len() / RECORD) as u64)
    }

    fn tree(&mut self) -> Result<ForkTree<'_, 's>> {
        ForkTree::new(self.t, self.space, self.ino, self.kind)
    }

    /// The extents of a fork in extents format.
    pub(super) fn list(&mut self) -> Result<Vec<Extent>> {
        let (core, kind, ino) = (self.core()?, self.kind, self.ino);
        let fork = fork_bytes(self.t.inode(ino)?, kind);
        let list: Vec<Extent> = extents_in_fork(fork, core.extents(kind)).collect();
        if list.len() as u64 != core.extents(kind) {
            let c = self.bad("nextents", Rule::Range).found(core.extents(kind));
            return Err(c.expected(format_args!("at most {}", list.len())).into());
        }
        if let Some(w) = list.windows(2).find(|w| matches!(w, [a, b] if a.offset + a.count > b.offset)) {
            let places: Vec<u64> = w.iter().map(|e| e.offset).collect();
            return Err(self.bad("recs", Rule::Order).found(format_args!("{places:?}")).into());
        }
        Ok(list)
    }

    pub(super) fn in_tree(
        &mut self,
        range: (u64, u64),
        each: &mut dyn FnMut(&Extent) -> ControlFlow<()>,
    ) -> Result<()> {
        btree::query::<Bmap, _>(&self.tree()?, &key(range.0), &key(range.1), &mut |r| each(&r.extent()))
    }

    /// A record found in the btree.
    fn find(&mut self, block: u64, which: Lookup) -> Result<Option<Extent>> {
        let tree = self.tree()?;
        let found = match Position::<Bmap>::lookup(&tree, &key(block), which)? {
            Some(p) => p.record(&tree)?.map(|r| r.extent()),
            None => None,
        };
        self.checked(found)
    }

    /// Refuses an extent that cannot be: what is freed in a chain must be found wrong before the chain has begun.
    fn checked(&mut self, found: Option<Extent>) -> Result<Option<Extent>> {
        let Some(e) = found else { return Ok(None) };
        let on_data = self.kind == ForkKind::Attr || !self.core()?.is_realtime();
        let there = !on_data || self.t.geometry().is_valid_extent(FsBlock(e.start), e.count);
        if there && e.count > 0 && e.offset + e.count <= MAX_FILE_BLOCK {
            return Ok(Some(e));
        }
        let c = self.bad("startblock", Rule::Range).in_fork(self.kind, Some(FileBlock(e.offset)));
        let found = format!("{} blocks at {}", e.count, e.start);
        Err(c.found(found).expected("an extent of the device, at a place that a file has").into())
    }

    /// The last extent that begins at a block or before it.
    pub(super) fn at_or_before(&mut self, block: u64) -> Result<Option<Extent>> {
        if self.in_btree()? {
            return self.find(block, Lookup::LessOrEqual);
        }
        let found = self.list()?.into_iter().rev().find(|e| e.offset <= block);
        self.checked(found)
    }

    /// The first extent that begins at a block or behind it.
    pub(super) fn at_or_behind(&mut self, block: u64) -> Result<Option<Extent>> {
        if self.in_btree()? {
            return self.find(block, Lookup::GreaterOrEqual);
        }
        let found = self.list()?.into_iter().find(|e| e.offset >= block);
        self.checked(found)
    }

    /// Sets the number of extents; a counter that is too small becomes a large one where the filesystem has those.
    fn set_count(&mut self, count: u64) -> Result<()> {
        let (kind, ino) = (self.kind, self.ino);
        let large = self.t.geometry().features.nrext64();
        let core = self.core_mut()?;
        if core.set_extents(kind, count) {
            return Ok(());
        }
        let full = || Error::invalid(format!("inode {ino} would have {count} extents, more than its counter holds"));
        if core.nrext64() || !large {
            return Err(full());
        }
        widen_counters(core);
        if core.set_extents(kind, count) { Ok(()) } else { Err(full()) }
    }

    fn count(&mut self) -> Result<u64> {
        Ok(self.core()?.extents(self.kind))
    }

    fn set_format_byte(&mut self, format: Format) -> Result<()> {
        let kind = self.kind;
        let core = self.core_mut()?;
        match kind {
            ForkKind::Data => core.format = format as u8,
            ForkKind::Attr => core.aformat = format as u8,
        }
        Ok(())
    }

    /// Gives an empty fork a form. The bytes that it had are gone.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a fork that has extents, and for a form that nothing begins with.
    pub fn set_format(&mut self, format: Format) -> Result<()> {
        self.keys.clear();
        if self.count()? != 0 {
            return Err(Error::invalid(format!("a fork of inode {} that has extents gets another form", self.ino)));
        }
        if !matches!(format, Format::Local | Format::Extents) {
            return Err(Error::invalid(format!("no fork begins in format {format:?}")));
        }
        let (ino, kind) = (self.ino, self.kind);
        fork_bytes_mut(self.t.inode_mut(ino)?, kind).fill(0);
        self.set_format_byte(format)
    }

    /// Puts the extents into the fork, or makes them a btree where they do not fit.
    pub(super) fn set_list(&mut self, list: &[Extent]) -> Result<()> {
        self.keys.clear();
        let count = list.len() as u64;
        let fits = count <= self.in_inode()?;
        let (ino, kind) = (self.ino, self.kind);
        self.set_count(count)?;
        let fork = fork_bytes_mut(self.t.inode_mut(ino)?, kind);
        fork.fill(0);
        if fits {
            for (place, e) in fork.chunks_exact_mut(RECORD).zip(list) {
                place.copy_from_slice(BmbtRec::pack(e).as_bytes());
            }
            return self.set_format_byte(Format::Extents);
        }
        self.set_format_byte(Format::Btree)?;
        let tree = &mut self.tree()?;
        let plan = Plan::new(tree, count, Slack::Little)?;
        bulk::load::<Bmap, _>(tree, &plan, list.iter().map(|e| Ok(BmbtRec::pack(e))))
    }

    /// Changes the extents of a fork in extents format.
    fn change_list(&mut self, change: impl FnOnce(&mut Vec<Extent>) -> bool) -> Result<()> {
        let mut list = self.list()?;
        if !change(&mut list) {
            return Err(self.bad("recs", Rule::Missing).into());
        }
        self.set_list(&list)
    }

    /// Puts a record in.
    pub(super) fn put(&mut self, e: &Extent) -> Result<()> {
        self.keys.clear();
        if e.offset.saturating_add(e.count) > MAX_FILE_BLOCK || e.count == 0 {
            return Err(Error::invalid(format!("{} blocks at file block {}", e.count, e.offset)));
        }
        if !self.in_btree()? {
            return self.change_list(|list| {
                let at = list.partition_point(|other| other.offset < e.offset);
                list.insert(at, *e);
                true
            });
        }
        let count = self.count()?;
        self.set_count(count + 1)?;
        Position::<Bmap>::insert(&mut self.tree()?, &BmbtRec::pack(e)).map(drop)
    }

    /// The place of a record that must be there.
    fn place(tree: &ForkTree<'_, '_>, e: &Extent) -> Result<Position<Bmap>> {
        let found = Position::<Bmap>::lookup(tree, &Bmap::low(&BmbtRec::pack(e)), Lookup::Equal)?;
        let same = match &found {
            Some(p) => p.record(tree)?.map(|r| r.extent()) == Some(*e),
            None => false,
        };
        found.filter(|_| same).ok_or_else(|| Error::invalid("an extent that is not in the map"))
    }

    /// Takes a record out.
    pub(super) fn take(&mut self, e: &Extent) -> Result<()> {
        self.keys.clear();
        if !self.in_btree()? {
            return self.change_list(|list| {
                let at = list.iter().position(|other| other == e);
                at.map(|at| list.remove(at)).is_some()
            });
        }
        let count = self.count()?.checked_sub(1).ok_or_else(|| self.bad("nextents", Rule::Count).found(0))?;
        self.set_count(count)?;
        let tree = &mut self.tree()?;
        Self::place(tree, e)?.remove(tree)?;
        self.settle()
    }

    /// Puts a record in the place of another.
    pub(super) fn replace(&mut self, old: &Extent, new: &Extent) -> Result<()> {
        self.keys.clear();
        if !self.in_btree()? {
            return self.change_list(|list| match list.iter_mut().find(|other| *other == old) {
                Some(place) => {
                    *place = *new;
                    true
                }
                None => false,
            });
        }
        let tree = &mut self.tree()?;
        Self::place(tree, old)?.update(tree, &BmbtRec::pack(new))
    }

    /// Moves the extents of a btree back into the inode, as soon as they fit there.
    pub(super) fn settle(&mut self) -> Result<()> {
        let count = self.count()?;
        if count > self.in_inode()? {
            return Ok(());
        }
        let mut tree = self.tree()?;
        let Some((leaf, list)) = tree.only_leaf()? else { return Ok(()) };
        if list.len() as u64 != count {
            let c = self.bad("nextents", Rule::Count).found(count);
            return Err(c.expected(list.len()).into());
        }
        tree.give_back(leaf)?;
        self.set_list(&list)
    }
}

/// Makes the counters large.
fn widen_counters(core: &mut Dinode) {
    let (data, attr) = (core.nextents.get(), core.anextents.get());
    core.flags2.set(core.flags2.get() | Flags2::NREXT64.bits());
    core.big_nextents.set(data.into());
    core.nextents.set(attr.into());
    core.anextents.set(0);
}
