//! The short form: all attributes in the inode.

use super::{AttrFlags, verify_attr};
use crate::error::{Corruption, ForkKind, Rule, Verdict};
use crate::geometry::Geometry;
use crate::units::Ino;
use zerocopy::big_endian::U16;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Header; behind it the attributes without padding, each with lengths of name and value, flags, name, value.
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
#[allow(missing_docs, reason = "fields carry the format's own names, which the book explains")]
pub struct ShortHeader {
    /// Bytes of all, this header included.
    pub totsize: U16,
    pub count: u8,
    pub pad: u8,
}
const _: () = assert!(size_of::<ShortHeader>() == 4);

/// An attribute of the short form.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ShortAttr<'a> {
    /// Offset in the fork.
    pub offset: usize,
    /// Flags.
    pub flags: AttrFlags,
    /// Name without the namespace: raw bytes, to be escaped before they are shown.
    pub name: &'a [u8],
    /// Value.
    pub value: &'a [u8],
}

impl ShortAttr<'_> {
    /// Bytes that an attribute takes.
    pub const fn size(name: usize, value: usize) -> usize {
        3 + name + value
    }
}

/// Iterator over a short form. After an attribute that does not fit comes one error and the end.
#[derive(Clone, Debug)]
pub struct ShortAttrs<'a> {
    bytes: &'a [u8],
    at: usize,
    left: u8,
}

impl<'a> ShortAttrs<'a> {
    /// The attributes of a local attribute fork. A fork shorter than its header, or than the size in it, gives what is there.
    pub fn new(fork: &'a [u8]) -> Self {
        let Ok((h, _)) = ShortHeader::ref_from_prefix(fork) else { return Self { bytes: &[], at: 0, left: 0 } };
        let end = usize::from(h.totsize.get()).min(fork.len());
        Self { bytes: fork.get(..end).unwrap_or(&[]), at: size_of::<ShortHeader>(), left: h.count }
    }
    /// Offset behind the last attribute that was read.
    pub fn offset(&self) -> usize {
        self.at
    }
    fn parse(&mut self) -> Option<ShortAttr<'a>> {
        let offset = self.at;
        let &[namelen, valuelen, flags, ref rest @ ..] = self.bytes.get(offset..)? else { return None };
        let (name, rest) = rest.split_at_checked(usize::from(namelen))?;
        let value = rest.get(..usize::from(valuelen))?;
        self.at += ShortAttr::size(name.len(), value.len());
        Some(ShortAttr { offset, flags: AttrFlags::from_bits_retain(flags), name, value })
    }
}

impl<'a> Iterator for ShortAttrs<'a> {
    type Item = Result<ShortAttr<'a>, Box<Corruption>>;
    fn next(&mut self) -> Option<Self::Item> {
        if self.left == 0 {
            return None;
        }
        self.left -= 1;
        if let Some(a) = self.parse() {
            return Some(Ok(a));
        }
        self.left = 0;
        Some(Err(Corruption::new("xattr", "list", Rule::Truncated).in_fork(ForkKind::Attr, None).found(format_args!(
            "an attribute at offset {} of {}",
            self.at,
            self.bytes.len()
        ))))
    }
}

/// Checks a local attribute fork of `ino`.
///
/// # Errors
/// The first broken rule.
pub fn verify_short(fork: &[u8], ino: Ino, geometry: &Geometry) -> Verdict {
    let place = |c: Box<Corruption>| c.in_inode(ino).in_fork(ForkKind::Attr, None);
    let bad = |field, rule| place(Corruption::new("xattr", field, rule));
    let Ok((h, _)) = ShortHeader::ref_from_prefix(fork) else {
        return Err(bad("totsize", Rule::Truncated).found(fork.len()));
    };
    let total = usize::from(h.totsize.get());
    if total < size_of::<ShortHeader>() || total > fork.len() {
        return Err(bad("totsize", Rule::Range).found(total).expected(format_args!("4 to {}", fork.len())));
    }
    let mut attrs = ShortAttrs::new(fork);
    for a in attrs.by_ref() {
        let a = a.map_err(place)?;
        if a.flags.intersects(AttrFlags::LOCAL | AttrFlags::INCOMPLETE) {
            return Err(bad("flags", Rule::Flags)
                .found(format_args!("{:#x}", a.flags.bits()))
                .expected("neither local nor incomplete"));
        }
        verify_attr("xattr", geometry, a.flags, a.name, Some(a.value)).map_err(place)?;
    }
    if attrs.offset() != total {
        return Err(bad("totsize", Rule::Mismatch).found(total).expected(attrs.offset()));
    }
    Ok(())
}
