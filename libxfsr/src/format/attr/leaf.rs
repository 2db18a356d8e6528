//! The leaf: entries sorted by hash from the front, names (with local values) from the back, and a small map of the three
//! largest free ranges between and among them.

use super::{AttrFlags, MAX_VALUE, hash_attr, verify_attr};
use crate::error::{Corruption, Rule, Severity, Verdict};
use crate::format::da::{BlockInfo, array, lsn_info, seal_info, verify_info, verify_order};
use crate::format::{BlockType, Context};
use zerocopy::big_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Leaf.
pub const LEAF_MAGIC: u16 = 0x3bee;
/// Bytes before the first entry.
pub const LEAF_HEADER_SIZE: usize = size_of::<AttrLeafHeader>();

/// A free range of a leaf.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
#[allow(missing_docs, reason = "fields carry the format's own names, which the book explains")]
pub struct FreeRange {
    pub base: U16,
    pub size: U16,
}

/// Header of a leaf.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
#[allow(missing_docs, reason = "fields carry the format's own names, which the book explains")]
pub struct AttrLeafHeader {
    pub info: BlockInfo,
    pub count: U16,
    pub usedbytes: U16,
    /// Offset of the lowest name, or the block's size where there is none; where there are holes, it may be lower. 0 means 65536. See [`AttrLeaf::first_used`].
    pub firstused: U16,
    pub holes: u8,
    pub pad1: u8,
    pub freemap: [FreeRange; 3],
    pub pad2: U32,
}
const _: () = assert!(size_of::<AttrLeafHeader>() == 80);

/// Entry of a leaf.
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
#[allow(missing_docs, reason = "fields carry the format's own names, which the book explains")]
pub struct AttrEntry {
    pub hashval: U32,
    pub nameidx: U16,
    pub flags: u8,
    pub pad2: u8,
}
const _: () = assert!(size_of::<AttrEntry>() == 8);

/// In front of a name with its value: the value follows the name.
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
#[allow(missing_docs, reason = "fields carry the format's own names, which the book explains")]
pub struct LocalHeader {
    pub valuelen: U16,
    pub namelen: u8,
}
const _: () = assert!(size_of::<LocalHeader>() == 3);

/// In front of a name whose value is remote.
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
#[allow(missing_docs, reason = "fields carry the format's own names, which the book explains")]
pub struct RemoteName {
    pub valueblk: U32,
    pub valuelen: U32,
    pub namelen: u8,
}
const _: () = assert!(size_of::<RemoteName>() == 9);

/// Bytes that a name takes with its value.
pub const fn entry_size_local(name: usize, value: usize) -> usize {
    (size_of::<LocalHeader>() + name + value).next_multiple_of(4)
}

/// Bytes that a name takes whose value is remote: two more than header and name before rounding, for XFS counts the padding of
/// its structure (observed).
pub const fn entry_size_remote(name: usize) -> usize {
    (size_of::<RemoteName>() + 2 + name).next_multiple_of(4)
}

/// Largest local entry of a leaf of `block` bytes: a value that would need more is remote.
pub const fn max_local_size(block: usize) -> usize {
    (block >> 1) + (block >> 2)
}

/// Where an attribute's value is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Value<'a> {
    /// Beside the name.
    Local(&'a [u8]),
    /// In blocks of the attribute fork.
    Remote {
        /// First file block; 0 while the attribute is incomplete.
        block: u32,
        /// Bytes.
        length: u32,
    },
}

/// An attribute of a leaf.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LeafAttr<'a> {
    /// Hash, as it is stored.
    pub hash: u32,
    /// Flags.
    pub flags: AttrFlags,
    /// Name without the namespace: raw bytes, to be escaped before they are shown.
    pub name: &'a [u8],
    /// The value or its place.
    pub value: Value<'a>,
}

impl LeafAttr<'_> {
    /// Bytes that name and local value take in the leaf.
    pub fn size(&self) -> usize {
        match self.value {
            Value::Local(v) => entry_size_local(self.name.len(), v.len()),
            Value::Remote { .. } => entry_size_remote(self.name.len()),
        }
    }
}

/// A leaf.
#[derive(Clone, Copy, Debug)]
pub struct AttrLeaf<'a> {
    bytes: &'a [u8],
    /// The header.
    pub header: &'a AttrLeafHeader,
    /// The entries, no more than the block holds.
    pub entries: &'a [AttrEntry],
}

impl<'a> AttrLeaf<'a> {
    /// View of a block; none where it is too short even for a header. The magic number is not checked.
    pub fn from_bytes(bytes: &'a [u8]) -> Option<Self> {
        let (header, rest) = AttrLeafHeader::ref_from_prefix(bytes).ok()?;
        Some(Self { bytes, header, entries: array(rest, usize::from(header.count.get())) })
    }
    /// Offset below which no name lies.
    pub fn first_used(&self) -> usize {
        match self.header.firstused.get() {
            0 => 1 << 16,
            n => usize::from(n),
        }
    }
    /// The attribute of an entry.
    ///
    /// # Errors
    /// It does not lie inside the block.
    pub fn attr(&self, entry: &AttrEntry) -> Result<LeafAttr<'a>, Box<Corruption>> {
        let flags = AttrFlags::from_bits_retain(entry.flags);
        let offset = usize::from(entry.nameidx.get());
        self.parse(offset, flags.contains(AttrFlags::LOCAL))
            .map(|(name, value)| LeafAttr { hash: entry.hashval.get(), flags, name, value })
            .ok_or_else(|| {
                Corruption::new("attrleaf", "nameidx", Rule::Range)
                    .found(offset)
                    .expected(format_args!("a name inside {} bytes", self.bytes.len()))
            })
    }
    fn parse(&self, offset: usize, local: bool) -> Option<(&'a [u8], Value<'a>)> {
        let at = self.bytes.get(offset..)?;
        if local {
            let (h, rest) = LocalHeader::ref_from_prefix(at).ok()?;
            let (name, rest) = rest.split_at_checked(usize::from(h.namelen))?;
            return Some((name, Value::Local(rest.get(..usize::from(h.valuelen.get()))?)));
        }
        let (h, rest) = RemoteName::ref_from_prefix(at).ok()?;
        let name = rest.get(..usize::from(h.namelen))?;
        Some((name, Value::Remote { block: h.valueblk.get(), length: h.valuelen.get() }))
    }
    /// The first range of the free map that is not free. Kernels before 2026 write such maps and none refuses them, so they are no
    /// reason to refuse the leaf.
    pub fn odd_free_map(&self) -> Option<Box<Corruption>> {
        let entries_end = LEAF_HEADER_SIZE + size_of_val(self.entries);
        let mut used: Vec<(usize, usize)> = vec![(0, entries_end)];
        for e in self.entries {
            let offset = usize::from(e.nameidx.get());
            used.extend(self.attr(e).map(|a| (offset, offset + a.size())));
        }
        self.header.freemap.iter().find_map(|f| {
            let (base, size) = (usize::from(f.base.get()), usize::from(f.size.get()));
            let overlaps = size > 0 && used.iter().any(|&(start, end)| start < base + size && base < end);
            overlaps.then(|| {
                Corruption::new("attrleaf", "freemap", Rule::Overlap)
                    .severity(Severity::Preen)
                    .found(format_args!("{size} bytes at {base}"))
                    .expected("bytes that neither entries nor names use")
            })
        })
    }
    /// All attributes, by hash.
    pub fn attrs(&self) -> impl Iterator<Item = Result<LeafAttr<'a>, Box<Corruption>>> + use<'a> {
        let leaf = *self;
        self.entries.iter().map(move |e| leaf.attr(e))
    }
    /// Entries with that hash.
    pub fn find(&self, hash: u32) -> impl Iterator<Item = &'a AttrEntry> + use<'a> {
        let first = self.entries.partition_point(|e| e.hashval.get() < hash);
        self.entries.get(first..).unwrap_or(&[]).iter().take_while(move |e| e.hashval.get() == hash)
    }
}

fn verify(bytes: &[u8], at: &Context<'_>) -> Verdict {
    const N: &str = "attrleaf";
    verify_info(N, &[LEAF_MAGIC], bytes, at)?;
    let bad = |field, rule| Corruption::new(N, field, rule).at_daddr(at.daddr);
    let Some(leaf) = AttrLeaf::from_bytes(bytes) else { return Err(bad("length", Rule::Truncated)) };
    let h = leaf.header;
    let count = usize::from(h.count.get());
    let entries_end = LEAF_HEADER_SIZE + count * size_of::<AttrEntry>();
    let first = leaf.first_used();
    if entries_end > bytes.len() {
        return Err(bad("count", Rule::Range)
            .found(count)
            .expected(format_args!("at most {}", (bytes.len() - LEAF_HEADER_SIZE) / size_of::<AttrEntry>())));
    }
    if first < entries_end || first > bytes.len() {
        return Err(bad("firstused", Rule::Range)
            .found(first)
            .expected(format_args!("{entries_end} to {}", bytes.len())));
    }
    verify_order(N, leaf.entries.iter().map(|e| e.hashval.get()), at)?;
    let mut used: Vec<(usize, usize)> = Vec::with_capacity(leaf.entries.len());
    for e in leaf.entries {
        let a = leaf.attr(e).map_err(|c| c.at_daddr(at.daddr))?;
        let offset = usize::from(e.nameidx.get());
        if offset < first || !offset.is_multiple_of(4) {
            return Err(bad("nameidx", Rule::Range)
                .found(offset)
                .expected(format_args!("at least {first}, aligned to 4")));
        }
        verify_one(&a, at).map_err(|c| c.at_daddr(at.daddr))?;
        used.push((offset, offset + a.size()));
    }
    verify_space(h, used, bytes.len(), at)
}

fn verify_one(a: &LeafAttr<'_>, at: &Context<'_>) -> Verdict {
    const N: &str = "attrleaf";
    let value = match a.value {
        Value::Local(v) => Some(v),
        Value::Remote { .. } => None,
    };
    verify_attr(N, at.geometry, a.flags, a.name, value)?;
    if let Value::Remote { block, length } = a.value {
        // While the value is being written, there is no block yet.
        if block == 0 && !a.flags.contains(AttrFlags::INCOMPLETE) {
            return Err(Corruption::new(N, "valueblk", Rule::Range).found(0).expected("more than 0"));
        }
        if length > MAX_VALUE {
            return Err(Corruption::new(N, "valuelen", Rule::Range).found(length).expected("at most 65536"));
        }
    }
    match hash_attr(at.geometry, a.flags, a.name, value.unwrap_or(&[])) {
        Some(h) if h == a.hash => Ok(()),
        h => Err(Corruption::new(N, "hashval", Rule::Mismatch)
            .found(format_args!("{:#x}", a.hash))
            .expected(format_args!("{:#x} for {}", h.unwrap_or(0), crate::text::escape(a.name)))),
    }
}

fn verify_space(h: &AttrLeafHeader, mut used: Vec<(usize, usize)>, block: usize, at: &Context<'_>) -> Verdict {
    let bad = |field, rule| Corruption::new("attrleaf", field, rule).at_daddr(at.daddr);
    used.sort_unstable();
    if let Some(((_, end), (start, _))) = used.iter().zip(used.iter().skip(1)).find(|(a, b)| a.1 > b.0) {
        return Err(bad("nameidx", Rule::Overlap).found(start).expected(format_args!("at least {end}")));
    }
    if let Some(&(_, end)) = used.last().filter(|u| u.1 > block) {
        return Err(bad("nameidx", Rule::Range).found(end).expected(format_args!("names end at most at {block}")));
    }
    let first = if h.firstused.get() == 0 { 1 << 16 } else { usize::from(h.firstused.get()) };
    let lowest = used.first().map_or(block, |u| u.0);
    // Removing another than the lowest name leaves a hole and may leave this field too low.
    if first > lowest || (h.holes == 0 && first != lowest) {
        return Err(bad("firstused", Rule::Mismatch).found(first).expected(lowest));
    }
    let bytes: usize = used.iter().map(|u| u.1 - u.0).sum();
    // In a block of 64 KiB the counter cannot hold more than it would say anyway.
    if bytes != usize::from(h.usedbytes.get()) {
        return Err(bad("usedbytes", Rule::Count).found(h.usedbytes).expected(bytes));
    }
    for f in &h.freemap {
        let (base, size) = (usize::from(f.base.get()), usize::from(f.size.get()));
        let end = base + size;
        if !base.is_multiple_of(4) || !size.is_multiple_of(4) || end > block {
            return Err(bad("freemap", Rule::Range)
                .found(format_args!("{size} bytes at {base}"))
                .expected(format_args!("aligned to 4, inside {block} bytes")));
        }
    }
    Ok(())
}

/// Leaf of an attribute fork.
pub static ATTR_LEAF: BlockType = BlockType { name: "attrleaf", log_type: 16, lsn: lsn_info, verify, seal: seal_info };
