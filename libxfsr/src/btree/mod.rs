//! One engine for every btree: generic over what it holds ([`Kind`]) and where it lives ([`Store`]).
//!
//! This file has the two seams and the view of a node; `cursor` finds and walks records, `check` examines a whole tree. Nodes are
//! read through accessors that borrow the block. Whatever a pointer says, nobody descends deeper than the root's level.

mod check;
mod cursor;
pub mod kinds;
mod walk;

pub use check::{Report, check};
pub use cursor::{Cursor, Lookup, query};
pub use walk::walk;

use crate::cache::{BlockRef, Keep, OnDamage};
use crate::error::{Corruption, Result, Rule};
use crate::format::BlockType;
use crate::format::btree::{Layout, LongHeader, MAX_LEVELS, ShortHeader};
use crate::units::{Lsn, NULL_AGBLOCK, NULL_FSBLOCK};
use std::cmp::Ordering;
use zerocopy::big_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, KnownLayout, Unaligned};

/// What records and keys must be to be read from a block.
pub trait Bytes: FromBytes + KnownLayout + Immutable + Unaligned + Copy + std::fmt::Debug {}
impl<T: FromBytes + KnownLayout + Immutable + Unaligned + Copy + std::fmt::Debug> Bytes for T {}

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

#[derive(Debug)]
enum Held<'s> {
    Block(BlockRef<'s>),
    Inline(Box<[u8]>),
}

/// A node or leaf, with bounds-checked access to its entries.
#[derive(Debug)]
pub struct Node<'s> {
    held: Held<'s>,
    at: Option<Ptr>,
    level: u16,
    len: usize,
    keys: usize,
    pointers: usize,
    layout: Layout,
    width: Width,
    left: Option<Ptr>,
    right: Option<Ptr>,
}

fn corrupt<S: Store>(s: &S, at: Option<Ptr>, field: &'static str, rule: Rule) -> Box<Corruption> {
    s.locate(Corruption::new(s.block_type().name, field, rule), at)
}

impl<'s> Node<'s> {
    /// The root.
    ///
    /// # Errors
    /// As [`Node::read`].
    pub fn root<S: Store>(s: &'s S, damage: OnDamage) -> Result<Self> {
        match s.root()? {
            Root::Block { at, levels } => {
                if levels == 0 || levels > MAX_LEVELS {
                    return Err(corrupt(s, Some(at), "level", Rule::Range).found(levels).into());
                }
                Self::read(s, at, u16::from(levels) - 1, damage, Keep::Yes)
            }
            Root::Inline(bytes) => Self::inline(s, bytes),
        }
    }

    fn inline<S: Store>(s: &'s S, bytes: Box<[u8]>) -> Result<Self> {
        let layout = s.layout();
        let header = bytes.first_chunk::<4>().copied().unwrap_or_default();
        let level = u16::from_be_bytes([header[0], header[1]]);
        let len = usize::from(u16::from_be_bytes([header[2], header[3]]));
        let entry = if level == 0 { layout.record } else { layout.key + layout.pointer };
        let max = bytes.len().saturating_sub(4) / entry;
        if level >= u16::from(MAX_LEVELS) {
            return Err(corrupt(s, None, "level", Rule::Range).found(level).into());
        }
        if len > max || len == 0 && level > 0 {
            return Err(corrupt(s, None, "numrecs", Rule::Range)
                .found(len)
                .expected(format_args!("1 to {max}"))
                .into());
        }
        let pointers = 4 + max * layout.key;
        let (held, width) = (Held::Inline(bytes), s.width());
        Ok(Self { held, at: None, level, len, keys: 4, pointers, layout, width, left: None, right: None })
    }

    /// A block at `level` (0 for a leaf).
    ///
    /// # Errors
    /// The store's; a block of another level is an [`Error::Corrupt`](crate::Error::Corrupt).
    pub fn read<S: Store>(s: &'s S, at: Ptr, level: u16, damage: OnDamage, keep: Keep) -> Result<Self> {
        let block = s.read(at, damage, keep)?;
        let (layout, width) = (s.layout(), s.width());
        let short = || corrupt(s, Some(at), "length", Rule::Truncated);
        let (found, len, left, right) = match width {
            Width::Short => {
                let (h, _) = ShortHeader::ref_from_prefix(&block).map_err(|_| short())?;
                let sibling = |v: U32| (v.get() != NULL_AGBLOCK).then(|| Ptr(v.get().into()));
                (h.level.get(), h.numrecs.get(), sibling(h.leftsib), sibling(h.rightsib))
            }
            Width::Long => {
                let (h, _) = LongHeader::ref_from_prefix(&block).map_err(|_| short())?;
                let sibling = |v: U64| (v.get() != NULL_FSBLOCK).then(|| Ptr(v.get()));
                (h.level.get(), h.numrecs.get(), sibling(h.leftsib), sibling(h.rightsib))
            }
        };
        if found != level {
            return Err(corrupt(s, Some(at), "level", Rule::Mismatch).found(found).expected(level).into());
        }
        let (max, _) = layout.limits(s.block_size(), level);
        let len = usize::from(len);
        if len > max {
            return Err(corrupt(s, Some(at), "numrecs", Rule::Range)
                .found(len)
                .expected(format_args!("at most {max}"))
                .into());
        }
        let pointers = layout.header + max * layout.key;
        let held = Held::Block(block);
        Ok(Self { held, at: Some(at), level, len, keys: layout.header, pointers, layout, width, left, right })
    }

    fn bytes(&self) -> &[u8] {
        match &self.held {
            Held::Block(b) => b,
            Held::Inline(b) => b,
        }
    }
    /// What the block's verifier found.
    pub fn damage(&self) -> Option<&Corruption> {
        match &self.held {
            Held::Block(b) => b.damage(),
            Held::Inline(_) => None,
        }
    }
    /// The LSN that the block carries.
    pub fn lsn(&self) -> Option<Lsn> {
        match &self.held {
            Held::Block(b) => b.lsn(),
            Held::Inline(_) => None,
        }
    }
    /// The block; none for a root in an inode.
    pub fn at(&self) -> Option<Ptr> {
        self.at
    }
    /// 0 for a leaf.
    pub fn level(&self) -> u16 {
        self.level
    }
    /// Entries.
    pub fn len(&self) -> usize {
        self.len
    }
    /// Whether it has no entries.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
    /// Left sibling.
    pub fn left(&self) -> Option<Ptr> {
        self.left
    }
    /// Right sibling.
    pub fn right(&self) -> Option<Ptr> {
        self.right
    }
    fn get<T: Bytes>(&self, base: usize, i: usize, stride: usize) -> Option<T> {
        let bytes = self.bytes().get(base.checked_add(i.checked_mul(stride)?)?..)?;
        T::read_from_prefix(bytes).ok().map(|(t, _)| t)
    }
    /// All records of a leaf.
    pub fn records<K: Kind>(&self) -> &[K::Record] {
        let body = self.bytes().get(self.keys..).unwrap_or(&[]);
        let n = if self.level == 0 { self.len } else { 0 };
        <[K::Record]>::ref_from_prefix_with_elems(body, n).map(|(r, _)| r).unwrap_or(&[])
    }
    /// Record `i` of a leaf.
    pub fn record<K: Kind>(&self, i: usize) -> Option<K::Record> {
        self.records::<K>().get(i).copied()
    }
    /// Low key `i` of a node.
    pub fn key<K: Kind>(&self, i: usize) -> Option<K::Key> {
        if self.level == 0 || i >= self.len { None } else { self.get(self.keys, i, self.layout.key) }
    }
    /// High key `i` of a node of overlapping records; else none.
    pub fn high_key<K: Kind>(&self, i: usize) -> Option<K::Key> {
        if !K::OVERLAPPING || self.level == 0 || i >= self.len {
            return None;
        }
        self.get(self.keys + size_of::<K::Key>(), i, self.layout.key)
    }
    /// Pointer `i` of a node.
    pub fn pointer(&self, i: usize) -> Option<Ptr> {
        if self.level == 0 || i >= self.len {
            return None;
        }
        match self.width {
            Width::Short => self.get::<U32>(self.pointers, i, 4).map(|p| Ptr(p.get().into())),
            Width::Long => self.get::<U64>(self.pointers, i, 8).map(|p| Ptr(p.get())),
        }
    }
    /// Lowest key of anything below.
    pub fn lowest<K: Kind>(&self) -> Option<K::Key> {
        if self.level == 0 { self.record::<K>(0).map(|r| K::low(&r)) } else { self.key::<K>(0) }
    }
    /// Highest key of anything below, for trees of overlapping records.
    pub fn highest<K: Kind>(&self) -> Option<K::Key> {
        let max = |a: K::Key, b: K::Key| if K::compare(&a, &b) == Ordering::Less { b } else { a };
        if self.level == 0 {
            self.records::<K>().iter().map(K::high).reduce(max)
        } else {
            (0..self.len).filter_map(|i| self.high_key::<K>(i)).reduce(max)
        }
    }
}
