//! Directories changed in a transaction: names added, removed, led elsewhere, in every form, and the changes of form in both directions.
//!
//! A directory grows from *short* to *block*, *leaf* and *node* when a name does not fit, and goes back as soon as what is left fits the smaller form, as
//! Linux has it: then a directory without names is short again. Bytes of single blocks are changed by pure functions (`data`, `index`,
//! `free`, `short`); the forms put them together.

mod block;
mod data;
mod free;
mod index;
mod leaf;
mod node;
mod short;

use super::lookup::{self, Blocks, Found};
use super::{DirEntry, bad};
use crate::cache::{BlockKey, BlockRef, OnDamage, Want};
use crate::error::{Error, ForkKind, Result, Rule};
use crate::format::BlockType;
use crate::format::da;
use crate::format::dir::{
    self, ALIGN, DIR_ANY, FileType, LEAF1_MAGIC, LEAFN_MAGIC, entry_size, hash_name, is_valid_entry_ino, is_valid_name,
    leaf_start,
};
use crate::format::inode::{Dinode, Format};
use crate::geometry::Geometry;
use crate::inode::ForkMut;
use crate::space::Space;
use crate::text::escape;
use crate::txn::{Reservation, Transaction};
use crate::units::{FileBlock, Ino, to_usize};
use data::Target;
use short::Short;
use std::ops::ControlFlow;
use std::sync::Arc;

/// Directory blocks that one name may change: a leaf, two levels of nodes above it, each with its new and its other neighbour; a root that grows; data and
/// free index.
const CHANGED: u32 = 12;

/// What a name leads to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Named {
    /// The inode.
    pub ino: Ino,
    /// The byte for its kind; 0 where the filesystem does not keep it.
    pub ftype: u8,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Form {
    Short,
    Block,
    Leaf,
    Node,
}

/// A directory that is being changed: names added, removed, led elsewhere, in every form. After an error the transaction is dropped, which takes
/// everything back.
///
/// A directory grows from *short* to *block*, *leaf* and *node* when a name does not fit, and goes back as soon as what is left fits the smaller
/// form, as Linux has it. Link counts and times belong to who calls.
pub struct DirMut<'w, 's> {
    fork: ForkMut<'w, 's>,
    g: &'s Geometry,
    ino: Ino,
}

impl std::fmt::Debug for DirMut<'_, '_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DirMut").field("ino", &self.ino).finish_non_exhaustive()
    }
}

impl<'s> Blocks<'s> for DirMut<'_, 's> {
    fn geometry(&self) -> &'s Geometry {
        self.g
    }
    fn ino(&self) -> Ino {
        self.ino
    }
    fn block(&mut self, at: FileBlock) -> Result<Option<BlockRef<'_>>> {
        let (step, want) = (self.step(), self.want(&DIR_ANY));
        let Some(key) = self.fork.find_block(at, step)? else { return Ok(None) };
        self.fork.t().read(&key, &want).map(Some)
    }
}

impl<'w, 's> DirMut<'w, 's> {
    /// A directory in a transaction, which locks the inode with the first use.
    pub fn new(t: &'w mut Transaction<'s>, space: &'w Arc<Space>, ino: Ino) -> Self {
        let g = t.geometry();
        Self { fork: ForkMut::new(t, space, ino, ForkKind::Data), g, ino }
    }

    /// What a transaction may log that adds, removes or replaces one name: the paths and their neighbours in the tree of a directory, its data, its
    /// free index, and what the extent map takes for new blocks in each section.
    #[must_use]
    pub fn reservation(g: &Geometry) -> Reservation {
        let blocks = Reservation { blocks: CHANGED << g.dir_block_log, ..Reservation::default() };
        ForkMut::reservation(g, ForkKind::Data, 3).and(blocks)
    }

    /// The transaction.
    pub fn t(&mut self) -> &mut Transaction<'s> {
        self.fork.t()
    }

    /// Makes a new inode an empty directory below `parent`.
    ///
    /// # Errors
    /// [`Error::Invalid`] for an inode that is none or has contents; as [`Transaction::inode`].
    pub fn init(&mut self, parent: Ino) -> Result<()> {
        let core = self.fork.core()?;
        self.valid_ino(parent)?;
        if !core.is_dir() || core.size.get() != 0 || core.extents(ForkKind::Data) != 0 {
            return Err(Error::invalid(format!("inode {} is no new directory", self.ino)));
        }
        self.fork.set_format(Format::Local)?;
        self.set_short(&Short { parent, items: Vec::new() })
    }

    /// What a name leads to, `.` and `..` as well; none if the directory has no such name.
    ///
    /// # Errors
    /// When the inode is no directory, or something on the way cannot be read or breaks a rule.
    pub fn lookup(&mut self, name: &[u8]) -> Result<Option<Named>> {
        if self.form()? != Form::Short {
            return Ok(lookup::find(self, name)?.map(|f| Named { ino: f.ino, ftype: f.ftype }));
        }
        let short = self.short()?;
        let directory = self.ftype(FileType::Directory);
        Ok(match name {
            b"." => Some(Named { ino: self.ino, ftype: directory }),
            b".." => Some(Named { ino: short.parent, ftype: directory }),
            _ => short.find(name, self.g).and_then(|i| short.items.get(i)).map(|i| i.to.named()),
        })
    }

    /// Adds a name.
    ///
    /// # Errors
    /// [`Error::Exists`] where the directory has the name; [`Error::Invalid`] for a name or a number that cannot stand in a directory;
    /// [`Error::NoSpace`]; where something on the way cannot be read or breaks a rule.
    pub fn add(&mut self, name: &[u8], ino: Ino, ftype: FileType) -> Result<()> {
        valid_name(name)?;
        self.valid_ino(ino)?;
        let to = Target { ino, ftype: self.ftype(ftype) };
        let done = match self.form()? {
            Form::Short => self.short_add(name, to),
            Form::Block => self.block_add(name, to),
            Form::Leaf => self.leaf_add(name, to),
            Form::Node => self.node_add(name, to),
        };
        done.map_err(|e| self.located(e))
    }

    /// Removes a name and says what it led to.
    ///
    /// # Errors
    /// [`Error::NotFound`] where the directory has no such name; otherwise as [`DirMut::add`].
    pub fn remove(&mut self, name: &[u8]) -> Result<Named> {
        valid_name(name)?;
        let done = match self.form()? {
            Form::Short => self.short_remove(name),
            Form::Block => self.block_remove(name),
            Form::Leaf => self.leaf_remove(name),
            Form::Node => self.node_remove(name),
        };
        done.map_err(|e| self.located(e))
    }

    /// Has a name lead to another inode, and says to which it led. `..` is such a name, too; then `ftype` does not count.
    ///
    /// # Errors
    /// [`Error::NotFound`] where the directory has no such name; otherwise as [`DirMut::add`].
    pub fn replace(&mut self, name: &[u8], ino: Ino, ftype: FileType) -> Result<Named> {
        if name != b".." {
            valid_name(name)?;
        }
        self.valid_ino(ino)?;
        let ftype = if name == b".." { FileType::Directory } else { ftype };
        let to = Target { ino, ftype: self.ftype(ftype) };
        let done = match self.form()? {
            Form::Short => self.short_replace(name, to),
            _ => self.block_replace(name, to),
        };
        done.map_err(|e| self.located(e))
    }

    /// The directory above.
    ///
    /// # Errors
    /// As [`DirMut::lookup`].
    pub fn parent(&mut self) -> Result<Ino> {
        let found = self.lookup(b"..")?;
        found.map(|n| n.ino).ok_or_else(|| bad(self.ino, "..", Rule::Missing).into())
    }

    /// Whether it has no names but `.` and `..`.
    ///
    /// # Errors
    /// As [`DirMut::lookup`].
    pub fn is_empty(&mut self) -> Result<bool> {
        let mut empty = true;
        self.for_each(&mut |e| {
            empty = e.name == b"." || e.name == b"..";
            if empty { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        })?;
        Ok(empty)
    }

    /// Calls `each` with every name, without `.` and `..` in short form, until it breaks.
    ///
    /// # Errors
    /// As [`DirMut::lookup`].
    pub fn for_each(&mut self, each: &mut dyn FnMut(&DirEntry) -> ControlFlow<()>) -> Result<()> {
        if self.form()? == Form::Short {
            for i in self.short()?.items {
                let address = (i.offset / ALIGN) as u64;
                let e = DirEntry { address, ino: i.to.ino, ftype: i.to.ftype, name: i.name };
                if each(&e).is_break() {
                    break;
                }
            }
            return Ok(());
        }
        let (g, step, end) = (self.g, u64::from(self.step()), leaf_start(self.g).0);
        let mut at = 0;
        loop {
            let here = match self.fork.mapped(FileBlock(at))? {
                None => self.fork.next(FileBlock(at))?,
                here => here,
            };
            let Some(e) = here.filter(|e| e.offset < end) else { break };
            let first = FileBlock(e.offset.max(at) & !(step - 1));
            let mut entries = Vec::new();
            for e in dir::entries(&self.read(first, &DIR_ANY)?, g) {
                let e = e?;
                let address = dir::join_address(g, first, e.offset).map_or(u64::MAX, u64::from);
                entries.push(DirEntry { address, ino: e.ino, ftype: e.ftype, name: e.name.to_vec() });
            }
            if entries.iter().any(|e| each(e).is_break()) {
                break;
            }
            at = first.0 + step;
        }
        Ok(())
    }

    /// Moves a directory that stands in the inode into a block: its room is wanted for something else. One that has blocks stays as it is.
    ///
    /// # Errors
    /// As [`DirMut::add`].
    pub fn leave_inode(&mut self) -> Result<()> {
        if self.form()? == Form::Short {
            let short = self.short()?;
            self.short_to_block(&short).map_err(|e| self.located(e))?;
        }
        Ok(())
    }

    // What the forms share.

    fn located(&self, e: Error) -> Error {
        match e {
            Error::Corrupt(c) if c.at.ino.is_none() => Error::Corrupt(c.in_inode(self.ino)),
            e => e,
        }
    }

    fn ftype(&self, ftype: FileType) -> u8 {
        if self.g.features.ftype() { ftype as u8 } else { 0 }
    }

    fn valid_ino(&self, ino: Ino) -> Result<()> {
        if is_valid_entry_ino(self.g, ino.0) {
            return Ok(());
        }
        Err(Error::invalid(format!("no directory can name inode {ino}")))
    }

    /// Filesystem blocks of a directory block.
    fn step(&self) -> u32 {
        1 << self.g.dir_block_log
    }

    fn size_of_entry(&self, name: &[u8]) -> usize {
        entry_size(name.len(), self.g.features.ftype())
    }

    fn want(&self, kind: &'static BlockType) -> Want {
        Want::new(kind, OnDamage::Fail).owned_by(self.ino)
    }

    fn key(&mut self, at: FileBlock) -> Result<BlockKey> {
        let step = self.step();
        self.fork.block_key(at, step)
    }

    /// A block to read.
    fn read(&mut self, at: FileBlock, kind: &'static BlockType) -> Result<BlockRef<'_>> {
        let (key, want) = (self.key(at)?, self.want(kind));
        self.fork.t().read(&key, &want)
    }

    /// A block to change.
    fn change(&mut self, at: FileBlock, kind: &'static BlockType) -> Result<&mut [u8]> {
        let (key, want) = (self.key(at)?, self.want(kind));
        self.fork.t().block_mut(&key, &want)
    }

    /// A new block, to be made what it is.
    fn make(&mut self, at: FileBlock, kind: &'static BlockType) -> Result<(crate::units::Daddr, &mut [u8])> {
        let step = self.step();
        let (key, want) = (self.fork.add_block(at, step)?, self.want(kind));
        Ok((key.daddr(), self.fork.t().fresh(&key, &want)?))
    }

    /// Frees a block.
    fn give_up(&mut self, at: FileBlock, kind: &'static BlockType) -> Result<()> {
        let step = self.step();
        self.fork.remove_block(at, step, kind)
    }

    /// A block that is being changed is one of another type from now on.
    fn retype(&mut self, at: FileBlock, kind: &'static BlockType) -> Result<()> {
        let (key, want) = (self.key(at)?, self.want(kind));
        self.fork.t().set_kind(&key, &want);
        Ok(())
    }

    /// First file block of a data block.
    fn data_at(&self, number: usize) -> FileBlock {
        FileBlock((number as u64) << self.g.dir_block_log)
    }

    /// The data block of an address: its number, its place, and the offset in it.
    fn split(&self, address: u32) -> (usize, FileBlock, usize) {
        let (at, offset) = dir::split_address(self.g, address);
        (to_usize(at.0 >> self.g.dir_block_log), at, offset)
    }

    fn join(&self, number: usize, offset: usize) -> Result<u32> {
        let at = self.data_at(number);
        let full = || Error::NoSpace(format!("directory {} is as large as one can be", self.ino));
        dir::join_address(self.g, at, offset).filter(|_| at < leaf_start(self.g)).ok_or_else(full)
    }

    /// Sets the size to that many data blocks.
    fn set_size(&mut self, blocks: usize) -> Result<()> {
        let (ino, size) = (self.ino, blocks as u64 * u64::from(self.g.dir_block_size));
        let core = Dinode::from_bytes_mut(self.fork.t().inode_mut(ino)?);
        core.ok_or_else(|| bad(ino, "core", Rule::Truncated))?.size.set(size);
        Ok(())
    }

    fn form(&mut self) -> Result<Form> {
        let core = self.fork.core()?;
        if !core.is_dir() {
            return Err(Error::NotDirectory(format!("inode {}", self.ino)));
        }
        match core.format(ForkKind::Data) {
            Some(Format::Local) => return Ok(Form::Short),
            Some(Format::Extents | Format::Btree) => {}
            _ => return Err(bad(self.ino, "format", Rule::Flags).found(core.format).into()),
        }
        let start = leaf_start(self.g);
        let ino = self.ino;
        let Some(index) = self.block(start)? else { return Ok(Form::Block) };
        match da::magic_of(&index) {
            Some(LEAF1_MAGIC) => Ok(Form::Leaf),
            Some(LEAFN_MAGIC | da::NODE_MAGIC) => Ok(Form::Node),
            _ => Err(bad(ino, "magic", Rule::Magic).in_fork(ForkKind::Data, Some(start)).into()),
        }
    }

    /// The entry of a name in a directory that has blocks.
    fn found(&mut self, name: &[u8]) -> Result<Found> {
        let found = lookup::find(self, name)?;
        found.ok_or_else(|| self.no_such(name))
    }

    fn no_such(&self, name: &[u8]) -> Error {
        Error::NotFound(format!("{} in directory {}", escape(name), self.ino))
    }

    fn exists(&self, name: &[u8]) -> Error {
        Error::Exists(format!("{} in directory {}", escape(name), self.ino))
    }

    fn hash(&self, name: &[u8]) -> u32 {
        hash_name(self.g, name)
    }
}

impl Target {
    fn named(self) -> Named {
        Named { ino: self.ino, ftype: self.ftype }
    }
}

impl Found {
    fn named(self) -> Named {
        Named { ino: self.ino, ftype: self.ftype }
    }
}

fn valid_name(name: &[u8]) -> Result<()> {
    if name.len() > dir::MAX_NAME {
        return Err(Error::NameTooLong(escape(name).to_string()));
    }
    if is_valid_name(name) && name != b"." && name != b".." {
        return Ok(());
    }
    Err(Error::invalid(format!(
        "{:?} is no name for a directory: not empty, without slash and zero",
        escape(name).to_string()
    )))
}
