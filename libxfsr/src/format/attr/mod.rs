//! Extended attributes. Three forms, by size: *short* in the inode; *leaf*, one block; *node*, a tree of them. A value that is too
//! large for a leaf lies in blocks of its own in the same fork (*remote*).
//!
//! Names live in namespaces, one flag each; `parent` names are the directory entries that lead to the file (parent pointers): the
//! name is the entry's, the value says which directory. Book: chapter "Extended Attributes".

mod acl;
mod leaf;
mod remote;
mod short;

pub use acl::{AclEntry, verify_acl};
pub use leaf::{
    ATTR_LEAF, AttrEntry, AttrLeaf, AttrLeafHeader, FreeRange, LEAF_HEADER_SIZE, LEAF_MAGIC, LeafAttr, LocalHeader,
    RemoteName, Value, entry_size_local, entry_size_remote, max_local_size,
};
pub use remote::{ATTR_REMOTE, REMOTE_MAGIC};
pub use short::{ShortAttr, ShortAttrs, ShortHeader, verify_short};

use super::{BlockType, Context, da, dir};
use crate::error::{Corruption, Rule, Verdict};
use crate::geometry::Geometry;
use crate::units::{Ino, halves};
use bitflags::bitflags;
use zerocopy::big_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Longest name.
pub const MAX_NAME: usize = 255;
/// Longest value.
pub const MAX_VALUE: u32 = 65536;

bitflags! {
    /// Flags of an attribute.
    #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
    pub struct AttrFlags: u8 {
        /// The value lies beside the name.
        const LOCAL = 1 << 0;
        /// Namespace `trusted`, and POSIX ACLs.
        const ROOT = 1 << 1;
        /// Namespace `security`.
        const SECURE = 1 << 2;
        /// Parent pointer.
        const PARENT = 1 << 3;
        /// Being written or removed: as good as absent.
        const INCOMPLETE = 1 << 7;
    }
}

/// The flags that name a namespace; none set is `user`.
pub const NAMESPACE: AttrFlags = AttrFlags::ROOT.union(AttrFlags::SECURE).union(AttrFlags::PARENT);

impl AttrFlags {
    /// The namespace's prefix as Linux shows it; `parent` is our own word, for Linux does not show it.
    pub fn namespace(self) -> &'static str {
        if self.contains(Self::PARENT) {
            "parent"
        } else if self.contains(Self::ROOT) {
            "trusted"
        } else if self.contains(Self::SECURE) {
            "security"
        } else {
            "user"
        }
    }
}

/// Value of a parent pointer: the directory in which the name stands.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned,
)]
#[repr(C)]
#[allow(missing_docs, reason = "fields carry the format's own names, which the book explains")]
pub struct ParentRec {
    pub ino: U64,
    pub generation: U32,
}
const _: () = assert!(size_of::<ParentRec>() == 12);

impl ParentRec {
    /// From an attribute's value; none where it has another length.
    pub fn from_value(value: &[u8]) -> Option<&Self> {
        Self::ref_from_bytes(value).ok()
    }
}

/// Hash of a parent pointer: that of the name in a directory, mixed with both halves of the parent's number. Pointers from
/// two directories with one name so get different hashes; equal hashes are legal nevertheless.
pub fn parent_hash(geometry: &Geometry, name: &[u8], parent: Ino) -> u32 {
    let (high, low) = halves(parent.0);
    dir::hash_name(geometry, name) ^ high ^ low
}

/// The hash of an attribute. `value` counts only for parent pointers; one that is no [`ParentRec`] gives none.
pub fn hash_attr(geometry: &Geometry, flags: AttrFlags, name: &[u8], value: &[u8]) -> Option<u32> {
    if flags.contains(AttrFlags::PARENT) {
        return ParentRec::from_value(value).map(|p| parent_hash(geometry, name, Ino(p.ino.get())));
    }
    Some(da::hash_name(name))
}

/// Checks flags, name and, of a parent pointer, value: the same rules in every form. `value` is none where it is remote.
pub(crate) fn verify_attr(
    structure: &'static str,
    geometry: &Geometry,
    flags: AttrFlags,
    name: &[u8],
    value: Option<&[u8]>,
) -> Verdict {
    let bad = |field, rule| Corruption::new(structure, field, rule);
    if !AttrFlags::all().contains(flags) || flags.intersection(NAMESPACE).bits().count_ones() > 1 {
        return Err(bad("flags", Rule::Flags)
            .found(format_args!("{:#x}", flags.bits()))
            .expected("known bits, at most one namespace"));
    }
    if name.is_empty() {
        return Err(bad("namelen", Rule::Range).found(0).expected("1 to 255"));
    }
    if flags.contains(AttrFlags::PARENT) {
        if !geometry.features.parent() {
            return Err(bad("flags", Rule::Flags).found("parent").expected("the parent pointer feature"));
        }
        if !dir::is_valid_name(name) {
            return Err(bad("name", Rule::Name).found(crate::text::escape(name)));
        }
        let Some(p) = value.and_then(ParentRec::from_value) else {
            return Err(bad("valuelen", Rule::Range)
                .found(value.map_or(0, <[u8]>::len))
                .expected("12 bytes beside the name: a parent's number and generation"));
        };
        if !dir::is_valid_entry_ino(geometry, p.ino.get()) {
            return Err(bad("parent", Rule::Range).found(p.ino));
        }
    } else if name.contains(&0) {
        return Err(bad("name", Rule::Name).found(crate::text::escape(name)));
    }
    Ok(())
}

/// The type of an attribute fork's block, by its magic number.
pub fn block_type_of(bytes: &[u8]) -> Option<&'static BlockType> {
    if bytes.first_chunk::<4>().is_some_and(|m| U32::from_bytes(*m).get() == REMOTE_MAGIC) {
        return Some(&ATTR_REMOTE);
    }
    match da::magic_of(bytes)? {
        LEAF_MAGIC => Some(&ATTR_LEAF),
        da::NODE_MAGIC => Some(&da::DA_NODE),
        _ => None,
    }
}

fn verify_any(bytes: &[u8], at: &Context<'_>) -> Verdict {
    match block_type_of(bytes) {
        Some(t) => (t.verify)(bytes, at),
        None => Err(Corruption::new("attrleaf", "magic", Rule::Magic)
            .at_daddr(at.daddr)
            .expected("an attribute fork's block")),
    }
}

/// Any block of an attribute fork, for reading one before it is known which it is. To change it, use the type that
/// [`block_type_of`] gives.
pub static ATTR_ANY: BlockType = BlockType {
    name: "attrany",
    log_type: 0,
    lsn: |b| (block_type_of(b)?.lsn)(b),
    verify: verify_any,
    seal: |b, lsn| {
        if let Some(t) = block_type_of(b) {
            (t.seal)(b, lsn);
        }
    },
};

#[cfg(test)]
mod tests;
