//! Access control lists, which XFS keeps in attributes of a form of its own. Source: observed, as the kernel writes them.

use super::AttrFlags;
use crate::error::{Corruption, Rule, Verdict};
use zerocopy::big_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Entry of an access control list.
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
#[allow(missing_docs, reason = "fields carry the format's own names")]
pub struct AclEntry {
    pub tag: U32,
    pub id: U32,
    pub perm: U16,
    pub pad: U16,
}
const _: () = assert!(size_of::<AclEntry>() == 12);

/// Most entries: what a value of 64 KiB holds.
const MAX_ENTRIES: usize = (65536 - 4) / size_of::<AclEntry>();
/// Tags: owner, user, group of the file, group, mask, others.
const TAGS: [u32; 6] = [0x01, 0x02, 0x04, 0x08, 0x10, 0x20];

/// Checks an attribute that is an access control list: `SGI_ACL_FILE` or `SGI_ACL_DEFAULT` in the trusted namespace. Others are right.
///
/// # Errors
/// The broken rule.
pub fn verify_acl(flags: AttrFlags, name: &[u8], value: &[u8]) -> Verdict {
    if !flags.contains(AttrFlags::ROOT) || !(name == b"SGI_ACL_FILE" || name == b"SGI_ACL_DEFAULT") {
        return Ok(());
    }
    let bad = |rule| Corruption::new("xattr", "acl", rule);
    let Ok((count, rest)) = U32::ref_from_prefix(value) else {
        return Err(bad(Rule::Truncated).found(value.len()).expected("at least 4 bytes"));
    };
    let count = count.get() as usize;
    if count > MAX_ENTRIES {
        return Err(bad(Rule::Count).found(count).expected(format_args!("at most {MAX_ENTRIES}")));
    }
    let Ok(entries) = <[AclEntry]>::ref_from_bytes_with_elems(rest, count) else {
        return Err(bad(Rule::Count).found(count).expected(format_args!("the entries of {} bytes", rest.len())));
    };
    match entries.iter().find(|e| !TAGS.contains(&e.tag.get())) {
        Some(e) => Err(bad(Rule::Flags).found(format_args!("tag {:#x}", e.tag)).expected("a known tag")),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::{AttrFlags, verify_acl};

    #[test]
    fn lists_are_checked() {
        let list = |count: u8, tag: u8| [&[0, 0, 0, count, 0, 0, 0, tag][..], &[0xff; 4], &[0, 6, 0, 0]].concat();
        let code = |flags, name: &[u8], value: &[u8]| verify_acl(flags, name, value).err().map(|c| c.code());
        let root = AttrFlags::ROOT;
        assert_eq!(code(root, b"SGI_ACL_FILE", &list(1, 1)), None);
        assert_eq!(code(AttrFlags::empty(), b"SGI_ACL_FILE", &[]), None);
        assert_eq!(code(root, b"other", &[]), None);
        assert_eq!(code(root, b"SGI_ACL_DEFAULT", &list(2, 1)).as_deref(), Some("xattr.acl.count"));
        assert_eq!(code(root, b"SGI_ACL_FILE", &list(1, 3)).as_deref(), Some("xattr.acl.flags"));
        assert_eq!(code(root, b"SGI_ACL_FILE", &[0, 0]).as_deref(), Some("xattr.acl.truncated"));
        assert_eq!(code(root, b"SGI_ACL_FILE", &[0xff; 16]).as_deref(), Some("xattr.acl.count"));
    }
}
