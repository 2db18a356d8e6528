//! A node or leaf: to read through borrowed bytes, to change in place.

use super::{Bytes, Kind, Ptr, Root, Store, Width, corrupt};
use crate::cache::{BlockRef, Keep, OnDamage};
use crate::error::{Corruption, Error, Result, Rule};
use crate::format::btree::{InodeRoot, Layout, LongHeader, MAX_LEVELS, ShortHeader};
use crate::units::{Lsn, NULL_AGBLOCK, NULL_FSBLOCK};
use std::cmp::Ordering;
use std::ops::Range;
use zerocopy::big_endian::{U16, U32, U64};
use zerocopy::{FromBytes, IntoBytes};

#[derive(Debug)]
enum Held<'s> {
    Block(BlockRef<'s>),
    Inline(Box<[u8]>),
}

/// Where the entries of a node lie in its bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shape {
    level: u16,
    /// Whether it is a root in an inode.
    inline: bool,
    /// Entries that it has room for.
    pub(super) max: usize,
    /// Offset of the records or keys, and bytes of each.
    base: usize,
    stride: usize,
    /// Offset of the pointers.
    pointers: usize,
    width: Width,
}

impl Shape {
    /// Of a block of `size` bytes.
    pub(super) fn block(layout: &Layout, width: Width, size: usize, level: u16) -> Self {
        let (max, _) = layout.limits(size, level);
        Self::new(layout, width, (level, false), layout.header, max)
    }
    /// Of a root in `size` bytes of an inode.
    pub(super) fn inline(layout: &Layout, width: Width, size: usize, level: u16) -> Self {
        let header = size_of::<InodeRoot>();
        let entry = if level == 0 { layout.record } else { layout.key + layout.pointer };
        Self::new(layout, width, (level, true), header, size.saturating_sub(header) / entry.max(1))
    }
    fn new(layout: &Layout, width: Width, (level, inline): (u16, bool), base: usize, max: usize) -> Self {
        let stride = if level == 0 { layout.record } else { layout.key };
        let pointers = if level == 0 { base } else { base + max * layout.key };
        Self { level, inline, max, base, stride, pointers, width }
    }
    fn pointer_size(&self) -> usize {
        match (self.level, self.width) {
            (0, _) => 0,
            (_, Width::Short) => 4,
            (_, Width::Long) => 8,
        }
    }
    /// Where records or keys `some` lie.
    fn keys(&self, some: Range<usize>) -> Range<usize> {
        self.base + some.start * self.stride..self.base + some.end * self.stride
    }
    /// Where pointers `some` lie.
    fn pointers(&self, some: Range<usize>) -> Range<usize> {
        let n = self.pointer_size();
        self.pointers + some.start * n..self.pointers + some.end * n
    }
}

/// Entries on their way from one node to another.
#[derive(Clone, Debug, Default)]
pub(super) struct Entries {
    len: usize,
    /// Records or keys.
    keys: Vec<u8>,
    pointers: Vec<u8>,
}

impl Entries {
    /// One record.
    pub(super) fn record<K: Kind>(r: &K::Record) -> Self {
        Self { len: 1, keys: r.as_bytes().to_vec(), pointers: Vec::new() }
    }
    /// Adds a record.
    pub(super) fn push_record<K: Kind>(&mut self, r: &K::Record) {
        self.len += 1;
        self.keys.extend_from_slice(r.as_bytes());
    }
    /// Adds the keys of a block and the pointer to it.
    pub(super) fn push_child(&mut self, keys: &[u8], at: Ptr, width: Width) -> Result<()> {
        self.len += 1;
        self.keys.extend_from_slice(keys);
        match width {
            Width::Short => self.pointers.extend_from_slice(U32::new(short_pointer(at)?).as_bytes()),
            Width::Long => self.pointers.extend_from_slice(U64::new(at.0).as_bytes()),
        }
        Ok(())
    }
    /// The keys of a block and the pointer to it.
    pub(super) fn child(keys: &[u8], at: Ptr, width: Width) -> Result<Self> {
        let mut one = Self::default();
        one.push_child(keys, at, width)?;
        Ok(one)
    }
    /// Some of many children.
    pub(super) fn part(&self, some: Range<usize>, key: usize, width: Width) -> Option<Self> {
        let pointer = if width == Width::Short { 4 } else { 8 };
        let part =
            |all: &[u8], n: usize| all.get(some.start.checked_mul(n)?..some.end.checked_mul(n)?).map(<[u8]>::to_vec);
        let len = some.end.checked_sub(some.start)?;
        Some(Self { len, keys: part(&self.keys, key)?, pointers: part(&self.pointers, pointer)? })
    }
    pub(super) fn len(&self) -> usize {
        self.len
    }
}

fn short_pointer(at: Ptr) -> Result<u32> {
    let fits = u32::try_from(at.0).ok().filter(|p| *p != NULL_AGBLOCK);
    fits.ok_or_else(|| Error::invalid(format!("block {} cannot be in a btree with short pointers", at.0)))
}

/// A node or leaf, with bounds-checked access to its entries.
#[derive(Debug)]
pub struct Node<'s> {
    held: Held<'s>,
    at: Option<Ptr>,
    len: usize,
    shape: Shape,
    left: Option<Ptr>,
    right: Option<Ptr>,
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
        let header = bytes.first_chunk::<4>().copied().unwrap_or_default();
        let level = u16::from_be_bytes([header[0], header[1]]);
        let len = usize::from(u16::from_be_bytes([header[2], header[3]]));
        let shape = Shape::inline(&s.layout(), s.width(), bytes.len(), level);
        if level >= u16::from(MAX_LEVELS) {
            return Err(corrupt(s, None, "level", Rule::Range).found(level).into());
        }
        if len > shape.max || len == 0 && level > 0 {
            return Err(corrupt(s, None, "numrecs", Rule::Range)
                .found(len)
                .expected(format_args!("1 to {}", shape.max))
                .into());
        }
        Ok(Self { held: Held::Inline(bytes), at: None, len, shape, left: None, right: None })
    }

    /// A block at `level` (0 for a leaf).
    ///
    /// # Errors
    /// The store's; a block of another level is an [`Error::Corrupt`](crate::Error::Corrupt).
    pub fn read<S: Store>(s: &'s S, at: Ptr, level: u16, damage: OnDamage, keep: Keep) -> Result<Self> {
        let block = s.read(at, damage, keep)?;
        let short = || corrupt(s, Some(at), "length", Rule::Truncated);
        let (found, len, left, right) = match s.width() {
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
        let shape = Shape::block(&s.layout(), s.width(), s.block_size(), level);
        let len = usize::from(len);
        if len > shape.max {
            return Err(corrupt(s, Some(at), "numrecs", Rule::Range)
                .found(len)
                .expected(format_args!("at most {}", shape.max))
                .into());
        }
        Ok(Self { held: Held::Block(block), at: Some(at), len, shape, left, right })
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
    /// As [`BlockRead::damage_beside_owner`](crate::cache::BlockRead::damage_beside_owner).
    pub fn damage_beside_owner(&self) -> Option<&Corruption> {
        match &self.held {
            Held::Block(b) => b.damage_beside_owner(),
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
        self.shape.level
    }
    /// Entries.
    pub fn len(&self) -> usize {
        self.len
    }
    /// Whether it has no entries.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
    /// Entries that it has room for.
    pub fn capacity(&self) -> usize {
        self.shape.max
    }
    /// Left sibling.
    pub fn left(&self) -> Option<Ptr> {
        self.left
    }
    /// Right sibling.
    pub fn right(&self) -> Option<Ptr> {
        self.right
    }
    fn get<T: Bytes>(&self, range: Range<usize>) -> Option<T> {
        let bytes = self.bytes().get(range.start..)?;
        T::read_from_prefix(bytes).ok().map(|(t, _)| t)
    }
    /// All records of a leaf.
    pub fn records<K: Kind>(&self) -> &[K::Record] {
        let body = self.bytes().get(self.shape.base..).unwrap_or(&[]);
        let n = if self.level() == 0 { self.len } else { 0 };
        <[K::Record]>::ref_from_prefix_with_elems(body, n).map(|(r, _)| r).unwrap_or(&[])
    }
    /// Record `i` of a leaf.
    pub fn record<K: Kind>(&self, i: usize) -> Option<K::Record> {
        self.records::<K>().get(i).copied()
    }
    /// Low key `i` of a node.
    pub fn key<K: Kind>(&self, i: usize) -> Option<K::Key> {
        if self.level() == 0 || i >= self.len { None } else { self.get(self.shape.keys(i..i + 1)) }
    }
    /// High key `i` of a node of overlapping records; else none.
    pub fn high_key<K: Kind>(&self, i: usize) -> Option<K::Key> {
        if !K::OVERLAPPING || self.level() == 0 || i >= self.len {
            return None;
        }
        let both = self.shape.keys(i..i + 1);
        self.get(both.start + size_of::<K::Key>()..both.end)
    }
    /// Pointer `i` of a node.
    pub fn pointer(&self, i: usize) -> Option<Ptr> {
        if self.level() == 0 || i >= self.len {
            return None;
        }
        let place = self.shape.pointers(i..i + 1);
        match self.shape.width {
            Width::Short => self.get::<U32>(place).map(|p| Ptr(p.get().into())),
            Width::Long => self.get::<U64>(place).map(|p| Ptr(p.get())),
        }
    }
    /// Entries before the first whose key is greater.
    pub(super) fn not_greater<K: Kind>(&self, key: &K::Key) -> usize {
        if self.level() == 0 {
            return self.records::<K>().partition_point(|r| K::compare(&K::low(r), key) != Ordering::Greater);
        }
        let (mut low, mut high) = (0, self.len);
        while low < high {
            let mid = low.midpoint(high);
            let less = self.key::<K>(mid).is_some_and(|k| K::compare(&k, key) != Ordering::Greater);
            if less { low = mid + 1 } else { high = mid }
        }
        low
    }
    /// Lowest key of anything below.
    pub fn lowest<K: Kind>(&self) -> Option<K::Key> {
        if self.level() == 0 { self.record::<K>(0).map(|r| K::low(&r)) } else { self.key::<K>(0) }
    }
    /// Highest key of anything below, for trees of overlapping records.
    pub fn highest<K: Kind>(&self) -> Option<K::Key> {
        let max = |a: K::Key, b: K::Key| if K::compare(&a, &b) == Ordering::Less { b } else { a };
        if self.level() == 0 {
            self.records::<K>().iter().map(K::high).reduce(max)
        } else {
            (0..self.len).filter_map(|i| self.high_key::<K>(i)).reduce(max)
        }
    }
    /// The bytes of record or keys `i`.
    pub(super) fn entry(&self, i: usize) -> Option<&[u8]> {
        self.bytes().get(self.shape.keys(i..i + 1)).filter(|_| i < self.len)
    }
    /// A copy of some entries; none where it has fewer.
    pub(super) fn entries(&self, some: Range<usize>) -> Option<Entries> {
        let len = some.end.checked_sub(some.start).filter(|_| some.end <= self.len)?;
        let keys = self.bytes().get(self.shape.keys(some.clone()))?.to_vec();
        let pointers = match self.level() {
            0 => Vec::new(),
            _ => self.bytes().get(self.shape.pointers(some))?.to_vec(),
        };
        Some(Entries { len, keys, pointers })
    }
    /// What its parent has to say of it: its low key, and its high key where records overlap. None where it has no entries.
    pub(super) fn keys_for_parent<K: Kind>(&self) -> Option<Vec<u8>> {
        let mut keys = self.lowest::<K>()?.as_bytes().to_vec();
        if K::OVERLAPPING {
            keys.extend_from_slice(self.highest::<K>()?.as_bytes());
        }
        Some(keys)
    }
}

/// A node or leaf to change: its bytes, with bounds-checked changes of its entries.
pub(super) struct NodeMut<'b> {
    bytes: &'b mut [u8],
    shape: Shape,
    len: usize,
}

fn too_short() -> Error {
    Corruption::new("btree", "length", Rule::Truncated).expected("room for the entries of a btree block").into()
}

impl<'b> NodeMut<'b> {
    /// Bytes that hold a node of this shape.
    pub(super) fn new(bytes: &'b mut [u8], shape: Shape) -> Result<Self> {
        let mut node = Self { bytes, shape, len: 0 };
        let len = usize::from(node.field(2)?.get());
        if len > shape.max {
            return Err(Corruption::new("btree", "numrecs", Rule::Range).found(len).into());
        }
        node.len = len;
        Ok(node)
    }

    /// Bytes that are to hold a node of this shape, without entries so far. The rest of a block's header is for the caller.
    pub(super) fn fresh(bytes: &'b mut [u8], shape: Shape) -> Result<Self> {
        let mut node = Self { bytes, shape, len: 0 };
        *node.field(0)? = U16::new(shape.level);
        node.set_len(0)?;
        Ok(node)
    }

    /// The level at 0, the number of entries at 2, in both forms of header.
    fn field(&mut self, at: usize) -> Result<&mut U16> {
        let at = if self.shape.inline { at } else { at + 4 };
        let bytes = self.bytes.get_mut(at..).ok_or_else(too_short)?;
        U16::mut_from_prefix(bytes).map(|(f, _)| f).map_err(|_| too_short())
    }

    fn set_len(&mut self, len: usize) -> Result<()> {
        *self.field(2)? = U16::new(u16::try_from(len).map_err(|_| too_short())?);
        self.len = len;
        Ok(())
    }

    /// Puts entries before entry `at`.
    pub(super) fn insert(&mut self, at: usize, new: &Entries) -> Result<()> {
        let len = self.len + new.len;
        if at > self.len || len > self.shape.max || new.keys.len() != new.len * self.shape.stride {
            return Err(too_short());
        }
        if new.pointers.len() != new.len * self.shape.pointer_size() {
            return Err(too_short());
        }
        let shape = self.shape;
        open(self.bytes, shape.keys(at..len), &new.keys)?;
        open(self.bytes, shape.pointers(at..len), &new.pointers)?;
        self.set_len(len)
    }

    /// Takes entries out.
    pub(super) fn remove(&mut self, some: Range<usize>) -> Result<()> {
        let gone = some.end.checked_sub(some.start).filter(|_| some.end <= self.len).ok_or_else(too_short)?;
        let (shape, len) = (self.shape, self.len);
        close(self.bytes, shape.keys(some.start..len), gone * shape.stride)?;
        close(self.bytes, shape.pointers(some.start..len), gone * shape.pointer_size())?;
        self.set_len(len - gone)
    }

    /// Puts another record, or other keys, in place of those of entry `at`.
    pub(super) fn replace(&mut self, at: usize, bytes: &[u8]) -> Result<()> {
        let place = self.bytes.get_mut(self.shape.keys(at..at + 1)).filter(|_| at < self.len);
        place.filter(|p| p.len() == bytes.len()).ok_or_else(too_short)?.copy_from_slice(bytes);
        Ok(())
    }

    /// Sets siblings: each where it is given.
    pub(super) fn link(&mut self, left: Option<Option<Ptr>>, right: Option<Option<Ptr>>) -> Result<()> {
        match self.shape.width {
            Width::Short => {
                let value = |p: Option<Ptr>| p.map_or(Ok(NULL_AGBLOCK), short_pointer);
                let (h, _) = ShortHeader::mut_from_prefix(self.bytes).map_err(|_| too_short())?;
                if let Some(p) = left {
                    h.leftsib.set(value(p)?);
                }
                if let Some(p) = right {
                    h.rightsib.set(value(p)?);
                }
            }
            Width::Long => {
                let value = |p: Option<Ptr>| p.map_or(NULL_FSBLOCK, |p| p.0);
                let (h, _) = LongHeader::mut_from_prefix(self.bytes).map_err(|_| too_short())?;
                if let Some(p) = left {
                    h.leftsib.set(value(p));
                }
                if let Some(p) = right {
                    h.rightsib.set(value(p));
                }
            }
        }
        Ok(())
    }
}

/// Moves what is in `range` towards its end, whose last bytes are not in use, and puts `new` in the gap.
fn open(bytes: &mut [u8], range: Range<usize>, new: &[u8]) -> Result<()> {
    let part = bytes.get_mut(range).ok_or_else(too_short)?;
    let kept = part.len().checked_sub(new.len()).ok_or_else(too_short)?;
    part.copy_within(..kept, new.len());
    part.get_mut(..new.len()).ok_or_else(too_short)?.copy_from_slice(new);
    Ok(())
}

/// Moves what lies behind the first `gone` bytes of `range` to its start.
fn close(bytes: &mut [u8], range: Range<usize>, gone: usize) -> Result<()> {
    let part = bytes.get_mut(range).ok_or_else(too_short)?;
    if gone > part.len() {
        return Err(too_short());
    }
    part.copy_within(gone.., 0);
    Ok(())
}
