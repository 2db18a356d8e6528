//! A fork that is being changed: its extent map in whichever form it has, or the bytes that stand in the inode itself.
//!
//! [`ForkMut`] is a view through a transaction. It counts what it maps in the inode, and has the reverse mappings changed by deferred steps, so that
//! a map may lead to any AG. A fork grows from extents in the inode into a btree when they no longer fit, and back as soon as they do. Records are
//! kept as Linux keeps them: what lies side by side, in the file and on the device, and is in the same state, is one.
//!
//! After an error the transaction is dropped, which takes everything back.

mod blocks;
mod change;
mod local;
mod logged;
mod records;
mod reserve;
mod tree;

pub use logged::MapStep;

use crate::cache::BlockKey;
use crate::error::{Corruption, Error, ForkKind, Result, Rule};
use crate::format::btree::{Extent, MAX_FILE_BLOCK};
use crate::format::inode::{Dinode, Format};
use crate::space::Space;
use crate::txn::Transaction;
use crate::units::{FileBlock, FsBlock, Ino};
use std::ops::ControlFlow;
use std::sync::Arc;

/// A fork that is being changed. See the [module](self).
pub struct ForkMut<'w, 's> {
    t: &'w mut Transaction<'s>,
    space: &'w Arc<Space>,
    ino: Ino,
    kind: ForkKind,
    /// Names of blocks that were asked for: as long as this view changes nothing, they stay what they are.
    keys: Vec<((u64, u32), BlockKey)>,
}

impl std::fmt::Debug for ForkMut<'_, '_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ForkMut").field("ino", &self.ino).field("kind", &self.kind).finish_non_exhaustive()
    }
}

impl<'w, 's> ForkMut<'w, 's> {
    /// A fork of an inode, in a transaction, which locks the inode with the first use.
    pub fn new(t: &'w mut Transaction<'s>, space: &'w Arc<Space>, ino: Ino, kind: ForkKind) -> Self {
        Self { t, space, ino, kind, keys: Vec::new() }
    }
    /// The transaction.
    pub fn t(&mut self) -> &mut Transaction<'s> {
        self.t
    }
    /// The space that it draws on.
    pub fn space(&self) -> &'w Arc<Space> {
        self.space
    }
    /// The inode.
    pub fn ino(&self) -> Ino {
        self.ino
    }
    /// Which fork.
    pub fn kind(&self) -> ForkKind {
        self.kind
    }
    /// A copy of the inode's core.
    ///
    /// # Errors
    /// As [`Transaction::inode`].
    pub fn core(&mut self) -> Result<Dinode> {
        let core = Dinode::from_bytes(self.t.inode(self.ino)?).copied();
        core.ok_or_else(|| self.bad("core", Rule::Truncated).into())
    }
    fn core_mut(&mut self) -> Result<&mut Dinode> {
        let ino = self.ino;
        let core = Dinode::from_bytes_mut(self.t.inode_mut(ino)?);
        core.ok_or_else(|| Corruption::new("inode", "core", Rule::Truncated).in_inode(ino).into())
    }
    fn bad(&self, field: &'static str, rule: Rule) -> Box<Corruption> {
        Corruption::new("inode", field, rule).in_inode(self.ino).in_fork(self.kind, None)
    }
    /// How the fork holds what it has.
    ///
    /// # Errors
    /// As [`ForkMut::core`]; [`Error::Invalid`] where there is no attribute fork.
    pub fn format(&mut self) -> Result<Format> {
        let core = self.core()?;
        if self.kind == ForkKind::Attr && !core.has_attr_fork() {
            return Err(Error::invalid(format!("inode {} has no attribute fork", self.ino)));
        }
        core.format(self.kind).ok_or_else(|| self.bad("format", Rule::Flags).into())
    }

    /// Calls `each` with the extents that touch file blocks `range.0..=range.1`, in order, until it breaks. It reads through the transaction.
    ///
    /// # Errors
    /// When a block of the extent btree cannot be read or breaks a rule.
    pub fn extents(&mut self, range: (u64, u64), each: &mut dyn FnMut(&Extent) -> ControlFlow<()>) -> Result<()> {
        match self.format()? {
            Format::Extents => {
                for e in self.list()? {
                    if e.offset <= range.1 && e.offset + e.count > range.0 && each(&e).is_break() {
                        break;
                    }
                }
                Ok(())
            }
            Format::Btree => self.in_tree(range, each),
            _ => Ok(()),
        }
    }

    /// The extent that covers a block; none where there is a hole.
    ///
    /// # Errors
    /// As [`ForkMut::extents`].
    pub fn mapped(&mut self, at: FileBlock) -> Result<Option<Extent>> {
        Ok(self.at_or_before(at.0)?.filter(|e| e.offset + e.count > at.0))
    }

    /// The first extent that begins at a block or behind it.
    ///
    /// # Errors
    /// As [`ForkMut::extents`].
    pub fn next(&mut self, at: FileBlock) -> Result<Option<Extent>> {
        self.at_or_behind(at.0)
    }

    /// The extent that covers a block, or the first behind it.
    ///
    /// # Errors
    /// As [`ForkMut::extents`].
    pub fn at_or_next(&mut self, at: FileBlock) -> Result<Option<Extent>> {
        match self.mapped(at)? {
            None => self.at_or_behind(at.0),
            here => Ok(here),
        }
    }

    /// The last extent that begins before a block.
    ///
    /// # Errors
    /// As [`ForkMut::extents`].
    pub fn before(&mut self, at: FileBlock) -> Result<Option<Extent>> {
        match at.0.checked_sub(1) {
            Some(last) => self.at_or_before(last),
            None => Ok(None),
        }
    }

    /// The block behind the last extent.
    ///
    /// # Errors
    /// As [`ForkMut::extents`].
    pub fn end(&mut self) -> Result<FileBlock> {
        Ok(FileBlock(self.at_or_before(MAX_FILE_BLOCK)?.map_or(0, |e| e.offset + e.count)))
    }

    /// Where blocks for a place in the fork are best: behind what lies before it, else close to the inode.
    ///
    /// # Errors
    /// As [`ForkMut::extents`].
    pub fn near(&mut self, at: FileBlock) -> Result<FsBlock> {
        let before = self.before(at)?;
        let g = self.t.geometry();
        if let Some(e) = before
            && let behind = FsBlock(e.start + e.count)
            && g.is_valid_fsblock(behind)
        {
            return Ok(behind);
        }
        let (ag, agino) = g.split_ino(self.ino);
        Ok(g.join(ag, g.agino_to_block(agino).0))
    }

    /// Whether other files may have blocks of this one.
    fn shares(&mut self) -> Result<bool> {
        Ok(self.kind == ForkKind::Data && self.core()?.is_reflink())
    }

    fn count_blocks(&mut self, by: i64) -> Result<()> {
        let bad = self.bad("nblocks", Rule::Count);
        let core = self.core_mut()?;
        let now = core.nblocks.get();
        let new = now.checked_add_signed(by);
        let new = new.ok_or_else(|| bad.found(now).expected(format_args!("a number that can change by {by}")))?;
        core.nblocks.set(new);
        Ok(())
    }
}
