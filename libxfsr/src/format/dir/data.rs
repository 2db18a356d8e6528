//! Data blocks, and the block form, which is a data block that ends with its own index.
//!
//! Behind the header the block is tiled: entries and unused pieces, each ending with its own offset in the block (the
//! tag), so that the tiling can also be found from the back. The header knows the three largest unused pieces.

use super::super::{
    check_address, check_crc, check_magic, check_owner, check_uuid, lsn_at, put_lsn, seal_checksum, view,
};
use super::{ALIGN, Entry, FileType, LeafEntry, hash_name, is_valid_entry_ino, is_valid_name};
use crate::error::{Corruption, Rule, Verdict};
use crate::format::da::{array, verify_order};
use crate::format::{BlockType, Context};
use crate::geometry::Geometry;
use crate::units::{Ino, Lsn};
use std::mem::offset_of;
use zerocopy::big_endian::{U16, U32, U64};
use zerocopy::little_endian::U32 as Le32;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// `XDB3`.
pub const BLOCK_MAGIC: u32 = 0x5844_4233;
/// `XDD3`.
pub const DATA_MAGIC: u32 = 0x5844_4433;
/// Marks an unused piece, in place of the upper half of an inode number.
pub const FREE_TAG: u16 = 0xffff;
/// Bytes before the first entry.
pub const DATA_HEADER_SIZE: usize = size_of::<DataHeader>();

/// Header that data, block and free index blocks share.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
#[allow(missing_docs, reason = "fields carry the format's own names, which the book explains")]
pub struct DirHeader {
    pub magic: U32,
    pub crc: Le32,
    pub blkno: U64,
    pub lsn: U64,
    pub uuid: [u8; 16],
    pub owner: U64,
}
const _: () = assert!(size_of::<DirHeader>() == 48);
const _: () = assert!(offset_of!(DirHeader, crc) == 4);

/// An unused piece of a block.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
#[allow(missing_docs, reason = "fields carry the format's own names, which the book explains")]
pub struct BestFree {
    pub offset: U16,
    pub length: U16,
}

/// Header of data and block form.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
#[allow(missing_docs, reason = "fields carry the format's own names, which the book explains")]
pub struct DataHeader {
    pub hdr: DirHeader,
    pub best_free: [BestFree; 3],
    pub pad: U32,
}
const _: () = assert!(size_of::<DataHeader>() == 64);

/// Last bytes of a block-form directory. In front of them lies its index.
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
#[allow(missing_docs, reason = "fields carry the format's own names, which the book explains")]
pub struct BlockTail {
    pub count: U32,
    pub stale: U32,
}
const _: () = assert!(size_of::<BlockTail>() == 8);

/// Bytes of an entry with a name of that length.
pub const fn entry_size(name: usize, ftype: bool) -> usize {
    (8 + 1 + name + ftype as usize + 2).next_multiple_of(ALIGN)
}

/// A piece of a data block.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DataItem<'a> {
    /// An entry; `.` and `..` are entries as well.
    Entry(Entry<'a>),
    /// Unused bytes.
    Unused {
        /// Where it begins.
        offset: usize,
        /// Bytes.
        length: usize,
    },
}

/// Tail and index of a block-form directory; none where they do not fit into the block.
pub fn block_leaf(bytes: &[u8]) -> Option<(&BlockTail, &[LeafEntry])> {
    let (head, tail) = BlockTail::ref_from_suffix(bytes).ok()?;
    let count = usize::try_from(tail.count.get()).ok()?;
    let start = head.len().checked_sub(count.checked_mul(size_of::<LeafEntry>())?)?;
    if start < DATA_HEADER_SIZE {
        return None;
    }
    Some((tail, array(bytes.get(start..)?, count)))
}

/// The offset at which a block's entries end: where the index begins in block form, else the block's end.
pub(crate) fn data_end(bytes: &[u8]) -> Option<usize> {
    match U32::ref_from_prefix(bytes).ok()?.0.get() {
        BLOCK_MAGIC => {
            let (_, leaf) = block_leaf(bytes)?;
            Some(bytes.len() - size_of::<BlockTail>() - size_of_val(leaf))
        }
        _ => Some(bytes.len()),
    }
}

/// Iterator over the pieces of a data block.
#[derive(Clone, Debug)]
pub struct DataEntries<'a> {
    bytes: &'a [u8],
    at: usize,
    end: usize,
    ftype: bool,
}

/// The pieces of a data or block-form block in their order. A piece that does not fit, has a wrong tag or an empty name gives
/// one error and the end: what follows it cannot be found.
pub fn items<'a>(bytes: &'a [u8], geometry: &Geometry) -> DataEntries<'a> {
    DataEntries {
        bytes,
        at: DATA_HEADER_SIZE,
        // Without a usable index the whole block is read: entries before the damage are found.
        end: data_end(bytes).unwrap_or(bytes.len()),
        ftype: geometry.features.ftype(),
    }
}

/// The entries alone.
pub fn entries<'a>(
    bytes: &'a [u8],
    geometry: &Geometry,
) -> impl Iterator<Item = Result<Entry<'a>, Box<Corruption>>> + use<'a> {
    items(bytes, geometry).filter_map(|i| match i {
        Ok(DataItem::Entry(e)) => Some(Ok(e)),
        Ok(DataItem::Unused { .. }) => None,
        Err(e) => Some(Err(e)),
    })
}

/// The entry at one offset, without looking at what lies before it.
///
/// # Errors
/// No whole entry lies there.
pub fn entry_at<'a>(bytes: &'a [u8], offset: usize, geometry: &Geometry) -> Result<Entry<'a>, Box<Corruption>> {
    let mut it = items(bytes, geometry);
    it.at = offset.max(DATA_HEADER_SIZE);
    match it.next() {
        Some(Ok(DataItem::Entry(e))) if e.offset == offset => Ok(e),
        Some(Err(e)) => Err(e),
        _ => Err(Corruption::new("dirdata", "address", Rule::Range).found(offset).expected("an entry there")),
    }
}

impl<'a> DataEntries<'a> {
    fn fail(&mut self, field: &'static str, rule: Rule, found: impl std::fmt::Display) -> Box<Corruption> {
        let at = self.at;
        self.at = self.end;
        Corruption::new("dirdata", field, rule).found(format_args!("{found} at offset {at}"))
    }
    fn parse(&mut self) -> Result<DataItem<'a>, Box<Corruption>> {
        let offset = self.at;
        let rest = self.bytes.get(offset..self.end).unwrap_or(&[]);
        let Ok((head, _)) = <[U16; 2]>::ref_from_prefix(rest) else {
            return Err(self.fail("freetag", Rule::Truncated, rest.len()));
        };
        if head[0].get() == FREE_TAG {
            let length = usize::from(head[1].get());
            if length < ALIGN || !length.is_multiple_of(ALIGN) || length > rest.len() {
                return Err(self.fail("length", Rule::Range, length));
            }
            self.tag(rest, length)?;
            self.at += length;
            return Ok(DataItem::Unused { offset, length });
        }
        let (Ok((ino, after)), true) = (U64::ref_from_prefix(rest), rest.len() > 8) else {
            return Err(self.fail("inumber", Rule::Truncated, rest.len()));
        };
        let namelen = after.first().map_or(0, |n| usize::from(*n));
        if namelen == 0 {
            return Err(self.fail("namelen", Rule::Range, 0));
        }
        let size = entry_size(namelen, self.ftype);
        let (true, Some(name)) = (size <= rest.len(), after.get(1..=namelen)) else {
            return Err(self.fail("namelen", Rule::Truncated, namelen));
        };
        self.tag(rest, size)?;
        let ftype = if self.ftype { after.get(1 + namelen).copied().unwrap_or(0) } else { 0 };
        self.at += size;
        Ok(DataItem::Entry(Entry { offset, ino: Ino(ino.get()), name, ftype }))
    }
    fn tag(&mut self, rest: &[u8], size: usize) -> Result<(), Box<Corruption>> {
        let tag = rest.get(..size).and_then(|r| r.last_chunk::<2>()).map(|t| U16::from_bytes(*t).get());
        if tag.map(usize::from) == Some(self.at & 0xffff) {
            return Ok(());
        }
        Err(self.fail("tag", Rule::Mismatch, tag.unwrap_or(0)))
    }
}

impl<'a> Iterator for DataEntries<'a> {
    type Item = Result<DataItem<'a>, Box<Corruption>>;
    fn next(&mut self) -> Option<Self::Item> {
        (self.at < self.end).then(|| self.parse())
    }
}

fn verify_data(name: &'static str, magic: u32, bytes: &[u8], at: &Context<'_>) -> Verdict {
    let h: &DataHeader = view(name, bytes, at)?;
    check_magic(name, h.hdr.magic.get(), magic, at)?;
    check_crc(name, bytes, offset_of!(DirHeader, crc), at)?;
    check_uuid(name, &h.hdr.uuid, at)?;
    check_address(name, "bno", h.hdr.blkno.get(), at)?;
    check_owner(name, h.hdr.owner.get(), at)?;
    let bad = |field, rule| Corruption::new(name, field, rule).at_daddr(at.daddr);
    let leaf = if magic == BLOCK_MAGIC {
        let Some((tail, leaf)) = block_leaf(bytes) else {
            return Err(bad("btail.count", Rule::Range).expected("an index that fits into the block"));
        };
        verify_order(name, leaf.iter().map(|e| e.hashval.get()), at)?;
        Some((tail, leaf))
    } else {
        None
    };
    let (mut count, mut was_free) = (0u32, false);
    let mut free: Vec<(usize, usize)> = Vec::new();
    for item in items(bytes, at.geometry) {
        match item.map_err(|e| relabel(e, name).at_daddr(at.daddr))? {
            DataItem::Unused { offset, length } => {
                if was_free {
                    return Err(bad("length", Rule::Unmerged)
                        .found(offset)
                        .expected("no two unused pieces side by side"));
                }
                was_free = true;
                free.push((length, offset));
            }
            DataItem::Entry(e) => {
                was_free = false;
                count += 1;
                verify_entry(name, &e, at)?;
                if let Some((_, leaf)) = leaf {
                    let hash = hash_name(at.geometry, e.name);
                    let first = leaf.partition_point(|l| l.hashval.get() < hash);
                    let found = leaf.get(first..).unwrap_or(&[]).iter().take_while(|l| l.hashval.get() == hash);
                    if !found.into_iter().any(|l| l.address.get() as usize * ALIGN == e.offset) {
                        return Err(bad("leaf", Rule::Missing)
                            .found(format_args!("entry at offset {}, hash {hash:#x}", e.offset))
                            .expected("its index entry"));
                    }
                }
            }
        }
    }
    if let Some((tail, leaf)) = leaf {
        let stale = leaf.iter().filter(|l| l.is_stale()).count();
        if stale as u64 != u64::from(tail.stale.get()) {
            return Err(bad("btail.stale", Rule::Count).found(tail.stale).expected(stale));
        }
        if (leaf.len() - stale) as u64 != u64::from(count) {
            return Err(bad("btail.count", Rule::Count).found(tail.count).expected(u64::from(count) + stale as u64));
        }
    }
    verify_best_free(name, h, free, at)
}

fn relabel(mut c: Box<Corruption>, structure: &'static str) -> Box<Corruption> {
    c.structure = structure;
    c
}

fn verify_entry(name: &'static str, e: &Entry<'_>, at: &Context<'_>) -> Verdict {
    let bad = |field, rule| Corruption::new(name, field, rule).at_daddr(at.daddr);
    if !is_valid_entry_ino(at.geometry, e.ino.0) {
        return Err(bad("inumber", Rule::Range).found(format_args!("{} at offset {}", e.ino, e.offset)));
    }
    if FileType::from_u8(e.ftype).is_none() {
        return Err(bad("filetype", Rule::Flags).found(format_args!("{} at offset {}", e.ftype, e.offset)));
    }
    if !is_valid_name(e.name) {
        return Err(bad("name", Rule::Name).found(crate::text::escape(e.name)));
    }
    Ok(())
}

fn verify_best_free(name: &'static str, h: &DataHeader, mut free: Vec<(usize, usize)>, at: &Context<'_>) -> Verdict {
    free.sort_unstable_by(|a, b| b.cmp(a));
    let bad = |i: usize, found: &BestFree, want: String| {
        Err(Corruption::new(name, "bestfree", Rule::Mismatch)
            .at_daddr(at.daddr)
            .found(format_args!("slot {i}: {} bytes at {}", found.length, found.offset))
            .expected(want))
    };
    for (i, b) in h.best_free.iter().enumerate() {
        let (length, offset) = (usize::from(b.length.get()), usize::from(b.offset.get()));
        match free.get(i) {
            None if length != 0 || offset != 0 => return bad(i, b, "nothing".to_owned()),
            None => {}
            // Of pieces of the same length any may be listed, each once.
            Some(&(best, _)) => {
                if length != best {
                    return bad(i, b, format!("{best} bytes"));
                }
                let earlier = h.best_free.get(..i).unwrap_or(&[]).iter().any(|o| o.offset == b.offset);
                if earlier || !free.contains(&(length, offset)) {
                    return bad(i, b, "an unused piece that is not listed already".to_owned());
                }
            }
        }
    }
    Ok(())
}

pub(super) fn lsn_dir_header(bytes: &[u8]) -> Option<Lsn> {
    lsn_at(bytes, offset_of!(DirHeader, lsn))
}

pub(super) fn seal_dir_header(bytes: &mut [u8], lsn: Lsn) {
    put_lsn(bytes, offset_of!(DirHeader, lsn), lsn);
    seal_checksum(bytes, offset_of!(DirHeader, crc));
}

/// The only block of a directory in block form.
pub static DIR_BLOCK: BlockType = BlockType {
    name: "dirblock",
    log_type: 10,
    lsn: lsn_dir_header,
    verify: |b, at| verify_data("dirblock", BLOCK_MAGIC, b, at),
    seal: seal_dir_header,
};
/// Data block of a directory in leaf or node form.
pub static DIR_DATA: BlockType = BlockType {
    name: "dirdata",
    log_type: 11,
    lsn: lsn_dir_header,
    verify: |b, at| verify_data("dirdata", DATA_MAGIC, b, at),
    seal: seal_dir_header,
};
