//! One engine for every btree: generic over what it holds ([`Kind`]) and where it lives ([`Store`]).
//!
//! This file has the seams. `node` reads and changes one block through accessors that borrow it; `cursor` finds and walks records,
//! `check` examines a whole tree; `position`, `insert` and `remove` change one, `bulk` makes a whole one. Whatever a pointer says,
//! nobody descends deeper than the root's level.

mod balance;
pub mod bulk;
mod check;
mod cursor;
mod insert;
pub mod kinds;
pub mod mem;
mod node;
mod position;
mod remove;
mod walk;

pub use check::{Report, check};
pub use cursor::{Cursor, Lookup, query};
pub use node::Node;
pub use position::Position;
pub use walk::walk;

use crate::cache::{BlockRef, Keep, OnDamage};
use crate::error::{Corruption, Result, Rule};
use crate::format::BlockType;
use crate::format::btree::{Identity, Layout};
use std::cmp::Ordering;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// What records and keys must be to be read from a block, and written to one.
pub trait Bytes: FromBytes + IntoBytes + KnownLayout + Immutable + Unaligned + Copy + std::fmt::Debug {}
impl<T: FromBytes + IntoBytes + KnownLayout + Immutable + Unaligned + Copy + std::fmt::Debug> Bytes for T {}

/// What a tree holds. Record and key are on-disk types; nothing here knows where the tree lives.
pub trait Kind: 'static {
    /// A leaf's record.
    type Record: Bytes;
    /// A node's key.
    type Key: Bytes;
    /// Scrub's name of the tree.
    const NAME: &'static str;
    /// Whether records overlap, so that nodes carry a high key too.
    const OVERLAPPING: bool = false;
    /// The record's key.
    fn low(r: &Self::Record) -> Self::Key;
    /// The key of the last thing the record covers.
    fn high(r: &Self::Record) -> Self::Key;
    /// Order of keys.
    fn compare(a: &Self::Key, b: &Self::Key) -> Ordering;
    /// Order of two neighbouring records: which may follow which.
    fn in_order(a: &Self::Record, b: &Self::Record) -> bool;
    /// A key for messages.
    fn show(k: &Self::Key) -> String {
        format!("{k:?}")
    }
}

/// A block of a tree: agbno, fsbno, or block of an xfile.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Ptr(pub u64);

/// Width of pointers: a property of the place.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Width {
    /// 32 bits, in an AG.
    Short,
    /// 64 bits.
    Long,
}

/// Where a tree starts.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Root {
    /// In a block; `levels` counts from 1.
    Block {
        /// The block.
        at: Ptr,
        /// Height.
        levels: u8,
    },
    /// In an inode: level and number of records, keys, pointers.
    Inline(Box<[u8]>),
}

/// Where a tree lives, to read.
pub trait Store {
    /// Width of pointers.
    fn width(&self) -> Width;
    /// Type of the tree's blocks.
    fn block_type(&self) -> &'static BlockType;
    /// Sizes in a block.
    fn layout(&self) -> Layout;
    /// Bytes in a block.
    fn block_size(&self) -> usize;
    /// Where it starts.
    ///
    /// # Errors
    /// When the root cannot be read.
    fn root(&self) -> Result<Root>;
    /// A block of the tree, verified to belong to whoever the tree belongs to.
    ///
    /// # Errors
    /// As [`BufCache::read`](crate::cache::BufCache::read); a pointer that leads nowhere is an
    /// [`Error::Corrupt`](crate::Error::Corrupt).
    fn read(&self, at: Ptr, damage: OnDamage, keep: Keep) -> Result<BlockRef<'_>>;
    /// Tells that these blocks will be read soon. A hint.
    fn readahead(&self, _blocks: &mut dyn Iterator<Item = Ptr>) {}
    /// Adds the place to a corruption.
    fn locate(&self, c: Box<Corruption>, at: Option<Ptr>) -> Box<Corruption>;
}

/// How a block is changed: handed its bytes, it may refuse them.
pub type Change<'c> = &'c mut dyn FnMut(&mut [u8]) -> Result<()>;

/// ... and to change. A tree gets and gives back blocks without knowing from whom: who keeps a tree implements it.
///
/// A change of a tree changes several blocks. Where it fails, at a block that cannot be read or got, some are changed and others not:
/// the caller then cancels the transaction that the store writes to. [`StoreMut::reserve`] comes before the first change, so that a
/// lack of space is told while nothing is changed yet. Checksums and LSNs are not the tree's affair: whoever writes a block back seals it.
pub trait StoreMut: Store {
    /// What a block of the tree at that place says of itself.
    ///
    /// # Errors
    /// When no block can be there.
    fn identity(&self, at: Ptr) -> Result<Identity>;
    /// Makes sure that the next `blocks` calls of [`StoreMut::allocate`] get a block. It promises that for the change that follows and
    /// adds nothing to what was reserved before it.
    ///
    /// # Errors
    /// When there are not as many; nothing is changed then.
    fn reserve(&mut self, blocks: u32) -> Result<()>;
    /// Gets a block, close to another of the tree.
    ///
    /// # Errors
    /// When there is none.
    fn allocate(&mut self, near: Option<Ptr>) -> Result<Ptr>;
    /// Gives a block back, which nothing points to any more.
    ///
    /// # Errors
    /// The store's.
    fn free(&mut self, at: Ptr) -> Result<()>;
    /// Hands out a block that was just allocated. Its old contents do not matter; it need not be zeroed.
    ///
    /// # Errors
    /// The store's; those of `change`.
    fn fresh(&mut self, at: Ptr, change: Change<'_>) -> Result<()>;
    /// Hands out a block of the tree to be changed.
    ///
    /// # Errors
    /// As [`Store::read`]; those of `change`.
    fn update(&mut self, at: Ptr, change: Change<'_>) -> Result<()>;
    /// Puts down where the tree starts, or what its root in an inode holds. A root in an inode has the length that [`Store::root`] gave.
    ///
    /// # Errors
    /// The store's.
    fn set_root(&mut self, root: Root) -> Result<()>;
    /// Whether a root in an inode may hold records, as those of realtime groups do. Where it may not, one of level 0 is only used for a
    /// tree without any record: the fork has no extents.
    fn inline_records(&self) -> bool {
        false
    }
    /// Tells, at the end of a change, that a record was put in, taken out or replaced, and whether it was the last of the tree: the
    /// longest free extent of an AG may be another one.
    ///
    /// # Errors
    /// The store's.
    fn record_changed(&mut self, _last: bool) -> Result<()> {
        Ok(())
    }
}

fn corrupt<S: Store>(s: &S, at: Option<Ptr>, field: &'static str, rule: Rule) -> Box<Corruption> {
    s.locate(Corruption::new(s.block_type().name, field, rule), at)
}
