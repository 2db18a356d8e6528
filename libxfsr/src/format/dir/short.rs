//! The short form: all entries in the inode.
//!
//! Number of entries, number of those whose inode needs eight bytes, parent; then the entries without padding. If any
//! number needs eight bytes, all have eight, else four. Each entry remembers the offset it would have in a block, so that
//! a reader's position survives the change of form.

use super::{
    ALIGN, DATA_HEADER_SIZE, Entry, FileType, entry_size as block_entry_size, is_valid_entry_ino, is_valid_name,
};
use crate::error::{Corruption, ForkKind, Rule, Verdict};
use crate::geometry::Geometry;
use crate::units::Ino;
use zerocopy::FromBytes;
use zerocopy::big_endian::{U16, U32, U64};

/// View of a short directory.
#[derive(Clone, Copy, Debug)]
pub struct ShortDir<'a> {
    bytes: &'a [u8],
    ftype: bool,
    /// Entries.
    pub count: u8,
    /// Inode numbers, the parent's included, that need eight bytes.
    pub i8count: u8,
    /// The directory above.
    pub parent: Ino,
}

/// An entry of a short directory: [`Entry`], where `offset` is that in a block form.
pub type ShortEntry<'a> = Entry<'a>;

fn read_ino(bytes: &[u8], wide: bool) -> Option<(Ino, &[u8])> {
    if wide {
        let (v, rest) = U64::ref_from_prefix(bytes).ok()?;
        Some((Ino(v.get()), rest))
    } else {
        let (v, rest) = U32::ref_from_prefix(bytes).ok()?;
        Some((Ino(u64::from(v.get())), rest))
    }
}

/// Bytes of an entry with a name of that length.
pub const fn entry_size(name: usize, wide: bool, ftype: bool) -> usize {
    3 + name + ftype as usize + if wide { 8 } else { 4 }
}

impl<'a> ShortDir<'a> {
    /// View of a local data fork, cut to the directory's size. None where it is shorter than its header.
    pub fn from_bytes(bytes: &'a [u8], geometry: &Geometry) -> Option<Self> {
        let &[count, i8count, ..] = bytes else { return None };
        let (parent, _) = read_ino(bytes.get(2..)?, i8count != 0)?;
        Some(Self { bytes, ftype: geometry.features.ftype(), count, i8count, parent })
    }
    /// Bytes of the header.
    pub fn header_size(&self) -> usize {
        if self.i8count != 0 { 10 } else { 6 }
    }
    /// The entries, without `.` and `..`, in their order. After an entry that does not fit comes one error and the end.
    pub fn entries(&self) -> ShortEntries<'a> {
        ShortEntries {
            rest: self.bytes.get(self.header_size()..).unwrap_or(&[]),
            left: self.count,
            wide: self.i8count != 0,
            ftype: self.ftype,
        }
    }
}

/// Iterator over a short directory.
#[derive(Clone, Debug)]
pub struct ShortEntries<'a> {
    rest: &'a [u8],
    left: u8,
    wide: bool,
    ftype: bool,
}

impl<'a> ShortEntries<'a> {
    fn parse(&mut self) -> Option<Entry<'a>> {
        let (&namelen, rest) = self.rest.split_first()?;
        let (offset, rest) = U16::ref_from_prefix(rest).ok()?;
        let (name, mut rest) = rest.split_at_checked(usize::from(namelen))?;
        let mut ftype = 0;
        if self.ftype {
            let (t, r) = rest.split_first()?;
            (ftype, rest) = (*t, r);
        }
        let (ino, rest) = read_ino(rest, self.wide)?;
        self.rest = rest;
        Some(Entry { offset: usize::from(offset.get()), ino, name, ftype })
    }
    /// Bytes behind the last entry that was read.
    pub fn remaining(&self) -> usize {
        self.rest.len()
    }
}

impl<'a> Iterator for ShortEntries<'a> {
    type Item = Result<Entry<'a>, Box<Corruption>>;
    fn next(&mut self) -> Option<Self::Item> {
        if self.left == 0 {
            return None;
        }
        self.left -= 1;
        if let Some(e) = self.parse() {
            return Some(Ok(e));
        }
        self.left = 0;
        Some(Err(Corruption::new("directory", "entry", Rule::Truncated)
            .in_fork(ForkKind::Data, None)
            .found(format_args!("{} bytes left", self.rest.len()))))
    }
}

/// Checks a short directory: the local data fork of `ino`, cut to its size.
///
/// # Errors
/// The first broken rule.
pub fn verify_short(bytes: &[u8], ino: Ino, geometry: &Geometry) -> Verdict {
    let bad = |field, rule| Corruption::new("directory", field, rule).in_inode(ino).in_fork(ForkKind::Data, None);
    let Some(dir) = ShortDir::from_bytes(bytes, geometry) else {
        return Err(bad("size", Rule::Truncated).found(bytes.len()));
    };
    if !is_valid_entry_ino(geometry, dir.parent.0) {
        return Err(bad("parent", Rule::Range).found(dir.parent));
    }
    let mut wide = u32::from(dir.parent.0 > u64::from(u32::MAX));
    // Where `..` ends in a block: entries come after it.
    let mut low = DATA_HEADER_SIZE + block_entry_size(1, dir.ftype) + block_entry_size(2, dir.ftype);
    let mut entries = dir.entries();
    for e in entries.by_ref() {
        let e = e.map_err(|c| c.in_inode(ino))?;
        if e.name.is_empty() {
            return Err(bad("namelen", Rule::Range).found(0).expected("1 to 255"));
        }
        if !is_valid_name(e.name) {
            return Err(bad("name", Rule::Name).found(crate::text::escape(e.name)));
        }
        if e.offset < low || !e.offset.is_multiple_of(ALIGN) {
            return Err(bad("offset", Rule::Order).found(e.offset).expected(format_args!("at least {low}")));
        }
        if !is_valid_entry_ino(geometry, e.ino.0) {
            return Err(bad("inumber", Rule::Range).found(e.ino));
        }
        if FileType::from_u8(e.ftype).is_none() {
            return Err(bad("filetype", Rule::Flags).found(e.ftype).expected("0 to 8"));
        }
        wide += u32::from(e.ino.0 > u64::from(u32::MAX));
        low = e.offset + block_entry_size(e.name.len(), dir.ftype);
    }
    if u32::from(dir.i8count) != wide {
        return Err(bad("i8count", Rule::Count).found(dir.i8count).expected(wide));
    }
    if entries.remaining() != 0 {
        return Err(bad("size", Rule::Mismatch)
            .found(bytes.len())
            .expected(format_args!("{}: the entries' end", bytes.len() - entries.remaining())));
    }
    // It must be possible to turn it into a block: entries, index and tail.
    let whole = low + (usize::from(dir.count) + 2) * 8 + 8;
    if whole > geometry.dir_block_size as usize {
        return Err(bad("offset", Rule::Range)
            .found(whole)
            .expected(format_args!("at most {}", geometry.dir_block_size)));
    }
    Ok(())
}
